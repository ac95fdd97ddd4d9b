'use strict';
// External APIs through routes of the portal: their paths, redirects and links, what they learn of us,
// where their names may lead, and how their quota is kept.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, beforeEach, test } = require('node:test');
const { Octokit } = require('@octokit/core');
const { WebSocket } = require('ws');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let ca; let folder; let names; let api; let door; let port; let answer;
const seen = [];
const ada = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const bo = { authorization: `Bearer ${orbit('bo', ['payments'])}` };
const kim = { authorization: `Bearer ${orbit('kim', ['web'])}` };
const KEY = 'ghs_a-key-that-only-the-gate-holds';

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-external-'));
  ca = authority(folder);
  ca.issue('api', { names: ['api.test', 'flip.test', 'meta.test', 'mixed.test', 'gone.test'] });
  fs.writeFileSync(`${folder}/key`, KEY);
  api = https.createServer({ cert: fs.readFileSync(ca.file('api.crt')), key: fs.readFileSync(ca.file('api.key')) }, (request, response) => {
    seen.push({ url: request.url, headers: request.headers });
    answer(request, response);
  });
  await new Promise((resolve) => api.listen(0, '127.0.0.1', resolve));
  ({ port } = api.address());
  names = await dns({
    'api.test': { A: ['127.0.0.1'] },
    'meta.test': { A: ['169.254.169.254'] },
    'mixed.test': { A: ['10.9.9.9', '127.0.0.1'] },
    'gone.test': { A: ['127.0.0.1'] },
  });
  const external = (name, more = '') => `  ${name}: {url: "https://${name}.test:${port}${more}`;
  const tls = `tls: {ca: ${ca.ca}}`;
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}, web: {}}}
rate_limit: {per_workspace: {rate: 10000/s, burst: 10000}, per_client: {rate: 10000/s, burst: 10000}}
credentials: {api: {kind: header, prefix: "Bearer ", value_file: ${folder}/key}}
upstreams:
${external('api', '/v3"')}, external: true, credential: api, ${tls}, breaker: {requests_min: 1000}}
  paced: {url: "https://api.test:${port}", external: true, ${tls}, pace: {rate: 20/s, burst: 1, wait_max: 5s}}
  strict: {url: "https://api.test:${port}", external: true, ${tls}, pace: {rate: 6/m, burst: 1, wait_max: 1s}}
${external('meta')}", external: true, ${tls}}
${external('mixed')}", external: true, ${tls}}
${external('flip')}", external: true, ${tls}, idle_timeout: 1ms}
${external('gone')}", external: true, ${tls}, idle_timeout: 1ms}
  inside: {url: "https://api.test:${port}", ${tls}}
egress:
  private:
  - {host: "api.test:${port}", addresses: [127.0.0.1/32]}
  - {host: "mixed.test:${port}", addresses: [127.0.0.1/32]}
  - {host: "gone.test:${port}", addresses: [127.0.0.1/32]}
  - {host: "flip.test:${port}", addresses: [127.0.0.1/32]}
process: {drain_delay: 0s, drain_timeout: 2s, name_servers: ["${names.address}"]}
routes:
- {name: api, methods: [ANY], path: /ext/api/**, upstream: api, class: read, options: {strip_prefix: /ext/api, access: {callers: [ada, bo, kim]}}}
- {name: open, methods: [GET], path: /open/**, upstream: paced, class: read, options: {strip_prefix: /open, public: true}}
- {name: live, methods: [GET], path: /live/**, upstream: paced, class: read, options: {strip_prefix: /live, upgrade: true}}
- {name: inside, methods: [GET], path: /inside/**, upstream: inside, class: read, options: {strip_prefix: /inside}}
${['paced', 'strict', 'meta', 'mixed', 'flip', 'gone'].map((name) => `- {name: ${name}, methods: [GET], path: /ext/${name}/**, upstream: ${name}, class: read, options: {strip_prefix: /ext/${name}}}`).join('\n')}
${['caller', 'workspace', 'all'].map((among) => `- {name: for-${among}, methods: [GET], path: /for/${among}/**, upstream: api, class: read, options: {strip_prefix: /for/${among}, access: {callers: [ada, bo, kim]}, coalesce: {for: ${among}, bytes_max: 100KiB}}}`).join('\n')}
- {name: anybody, methods: [GET], path: /anybody/**, upstream: paced, class: read, options: {strip_prefix: /anybody, public: true, coalesce: {scope: all, ttl: 30s}}}
- {name: kept, methods: [GET], path: /kept/**, upstream: api, class: read, options: {strip_prefix: /kept, access: {callers: [ada, bo, kim]}, coalesce: {scope: workspace, ttl: 1s}}}`);
});
after(async () => {
  await door?.stop(); await names?.stop();
  api?.closeAllConnections(); api?.close();
  fs.rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  seen.length = 0;
  answer = (request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
});

const get = (where, headers = ada, more = {}) => fetch(`${door.url}${where}`, { headers, redirect: 'manual', ...more });
const said = async (response) => [response.status, (await response.json()).code];

test('an external API sees its own path and key, and nothing of the portal or its users', async () => {
  answer = (request, response) => response.writeHead(200, { 'set-cookie': 'theirs=1', 'x-theirs': 'yes' }).end('{}');
  const response = await get('/ext/api/repos/acme/shop?page=1', {
    ...ada, cookie: 'backstage-auth=secret', origin: 'https://portal.example', referer: 'https://portal.example/catalog',
    'x-orbit-workspace-id': 'payments', 'x-forwarded-for': '9.9.9.9', accept: 'application/json',
  });
  assert.equal(response.status, 200);
  assert.deepEqual([response.headers.get('set-cookie'), response.headers.get('x-theirs')], [null, 'yes']);
  const [{ url, headers }] = seen;
  assert.equal(url, '/v3/repos/acme/shop?page=1');
  assert.equal(headers.authorization, `Bearer ${KEY}`);
  assert.equal(headers.host, `api.test:${port}`);
  assert.equal(headers.accept, 'application/json');
  const told = Object.keys(headers).filter((name) => /^x-(?!request-id)|cookie|origin|referer|forwarded/.test(name));
  assert.deepEqual(told, []);
  const record = await door.record((r) => r.route === 'api');
  assert.deepEqual([record.caller, record.credential, record.path], ['ada', 'api', '/ext/api/repos/acme/shop']);
});

test('the caller’s token reaches no external API, also where it is shown no key', async () => {
  assert.equal((await get('/ext/paced/user')).status, 200);
  assert.equal(seen[0].headers.authorization, undefined);
  // On a public route it is none that was shown to us.
  assert.equal((await get('/open/user', { authorization: 'Bearer gho_of-a-user' })).status, 200);
  assert.equal(seen[1].headers.authorization, 'Bearer gho_of-a-user');
});

test('a token among the protocols of a WebSocket stays here, too', async () => {
  const token = orbit('ada', ['payments']);
  const upgraded = new Promise((resolve) => { api.once('upgrade', (request, socket) => { socket.destroy(); resolve(request.headers); }); });
  const client = new WebSocket(`${door.url.replace('http', 'ws')}/live/x`, ['chat', token], { headers: { origin: 'https://portal.example' } });
  client.on('error', () => {});
  const headers = await upgraded;
  assert.equal(headers['sec-websocket-protocol'], 'chat');
  assert.ok(!JSON.stringify(headers).includes(token) && !headers.origin);
  assert.equal((await door.record((r) => r.route === 'live')).caller, 'ada');
});

test('redirects are not followed: one within the API leads back here, any other stays as it is', async () => {
  const check = async (location, expected) => {
    answer = (request, response) => response.writeHead(302, { location }).end();
    const response = await get('/ext/api/a/b');
    assert.deepEqual([response.status, response.headers.get('location')], [302, expected], location);
  };
  await check(`https://api.test:${port}/v3/x?y=1`, `${door.url}/ext/api/x?y=1`);
  await check('/v3/x', '/ext/api/x');
  await check('x', '/ext/api/a/x');
  await check('/login', `https://api.test:${port}/login`);
  await check('https://codeload.test/x', 'https://codeload.test/x');
  await check('//evil.test/x', '//evil.test/x');
  await check(`https://api.test.evil.test:${port}/v3/x`, `https://api.test.evil.test:${port}/v3/x`);
  assert.equal(seen.length, 7, 'each was asked for once, and none was followed');
  // Who follows one passes here again.
  answer = (request, response) => (request.url === '/v3/old' ? response.writeHead(301, { location: '/v3/new' }).end() : response.end(JSON.stringify({ at: request.url })));
  const followed = await fetch(`${door.url}/ext/api/old`, { headers: ada });
  assert.deepEqual([followed.url, await followed.json()], [`${door.url}/ext/api/new`, { at: '/v3/new' }]);
});

test('Octokit pages through an API by its links, every page through the gate', async () => {
  answer = (request, response) => {
    const page = Number(new URL(request.url, 'https://x').searchParams.get('page') ?? 1);
    const link = page < 3 ? { link: `<https://api.test:${port}/v3/repos?page=${page + 1}>; rel="next", <https://api.test:${port}/v3/repos?page=3>; rel="last"` } : {};
    response.writeHead(200, { 'content-type': 'application/json', ...link }).end(JSON.stringify([{ page }]));
  };
  const octokit = new Octokit({ baseUrl: `${door.url}/ext/api`, request: { headers: ada } });
  const pages = [];
  let next = '/repos';
  while (next) {
    const { data, headers } = await octokit.request(`GET ${next}`, { headers: ada });
    pages.push(data[0].page);
    next = /<([^>]+)>; rel="next"/.exec(headers.link ?? '')?.[1];
    assert.ok(!next || next.startsWith(`${door.url}/ext/api/`), next);
  }
  assert.deepEqual(pages, [1, 2, 3]);
});

test('a name that leads to no public address is not asked, and is no sick upstream', async () => {
  for (let n = 0; n < 8; n += 1) assert.deepEqual(await said(await get('/ext/meta/latest/meta-data')), [403, 'address_refused']);
  assert.equal((await get('/ext/mixed/x')).status, 200, 'the address that may be dialled is');
  const record = await door.record((r) => r.route === 'mixed');
  assert.equal(record.upstream_address, `127.0.0.1:${port}`);
  const { breakers } = await (await door.admin('/state')).json();
  assert.ok(!JSON.stringify(breakers).includes('open'), JSON.stringify(breakers));
});

test('a name that led here and then into our network is not followed there', async () => {
  names.zone['flip.test'] = { A: ['127.0.0.1'] };
  assert.equal((await get('/ext/flip/x')).status, 200);
  names.zone['flip.test'] = { A: ['169.254.169.254', '10.0.0.1'] };
  await until('the new addresses to be seen', async () => (await get('/ext/flip/x')).status === 403, 20000);
  const asked = seen.length;
  assert.deepEqual(await said(await get('/ext/flip/x')), [403, 'address_refused']);
  assert.equal(seen.length, asked);
});

test('requests wait for their turn and none is refused', async () => {
  const at = [];
  answer = (request, response) => { at.push(performance.now()); response.end('{}'); };
  const all = await Promise.all(Array.from({ length: 10 }, () => get('/ext/paced/x')));
  assert.deepEqual(all.map((response) => response.status), Array(10).fill(200));
  const took = at.at(-1) - at[0];
  assert.ok(took > 400, `ten at 20/s took ${took} ms`);
  await until('a record that says how long it waited', async () => door.records().some((r) => r.route === 'paced' && r.pacing_delay_us > 100_000));
  // Nothing it could be told would come of waiting longer.
  assert.equal((await get('/ext/strict/x')).status, 200);
  const refused = await get('/ext/strict/x');
  assert.ok(Number(refused.headers.get('retry-after')) >= 9);
  assert.deepEqual(await said(refused), [429, 'pace_exceeded']);
});

test('while the API says that its quota is spent, it is not asked', async () => {
  let spent = true;
  answer = (request, response) => {
    if (spent) return response.writeHead(403, { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(Math.floor(Date.now() / 1000) + 3) }).end('{"message":"API rate limit exceeded"}');
    return response.end('{}');
  };
  assert.equal((await get('/ext/paced/x')).status, 403, 'what it says is passed on');
  spent = false;
  const asked = seen.length;
  const begun = performance.now();
  const waiting = get('/ext/paced/x');
  assert.equal((await waiting).status, 200);
  assert.ok(performance.now() - begun > 1500, 'it waited');
  assert.equal(seen.length, asked + 1);
});

test('the same request is asked once for all who may share its answer', async () => {
  const held = [];
  answer = (request, response) => { held.push(response); };
  const release = async (count, body) => {
    await until('it to be asked', async () => held.length >= count);
    for (const response of held.splice(0)) response.writeHead(200, { 'content-type': 'application/json', etag: '"1"' }).end(body);
  };
  const state = async () => (await door.admin('/state')).json();
  const shared = async (where, whose, times) => {
    const before = seen.length;
    const all = whose.map((headers) => get(where, headers));
    await until('the others to wait', async () => (await state()).requests_waiting === whose.length - times);
    await release(times, '{"n":1}');
    const answers = await Promise.all(all);
    for (const response of answers) {
      assert.deepEqual([response.status, response.headers.get('etag'), await response.json()], [200, '"1"', { n: 1 }]);
      assert.ok(response.headers.get('x-request-id'));
    }
    assert.equal(seen.length - before, times, where);
    assert.equal(new Set(answers.map((response) => response.headers.get('x-request-id'))).size, whose.length);
    return answers;
  };
  const answers = await shared('/for/caller/stacks', [ada, ada, ada, bo], 2);
  assert.equal(answers.filter((response) => response.headers.get('cache-status') === 'stagedoor; fwd=miss; collapsed').length, 2);
  await shared('/for/workspace/stacks', [ada, bo, ada, kim], 2);
  await shared('/for/all/stacks', [ada, bo, kim], 1);
  // Another query, or another header that an answer may depend on, is another request.
  const other = [get('/for/all/a?x=1'), get('/for/all/a?x=2'), get('/for/all/a?x=1', { ...ada, accept: 'text/plain' }), get('/for/all/a?x=1', { ...bo, 'user-agent': 'other' })];
  await until('one to wait', async () => (await state()).requests_waiting === 1);
  await release(3, '{}');
  await Promise.all(other);
  await until('every record', async () => door.records().filter((r) => r.route?.startsWith('for-')).length === 15);
  const records = door.records().filter((r) => r.route?.startsWith('for-'));
  assert.equal(records.filter((r) => r.shared === 'collapsed').length, 7);
  assert.deepEqual([...new Set(records.filter((r) => r.shared).map((r) => r.attempts))], [0]);
});

test('an answer that is not meant for others is not shared, nor is one that is too large or breaks off', async () => {
  const held = [];
  answer = (request, response) => { held.push(response); };
  const each = async (what, give) => {
    const before = seen.length;
    const all = [ada, bo].map((headers) => get('/for/all/x', headers).then((r) => r.text()).catch(() => 'broken'));
    await until('one to wait for the other', async () => (await (await door.admin('/state')).json()).requests_waiting === 1);
    let given = 0;
    while (given < 2) {
      await until(`request ${given + 1} of ${what}`, async () => held.length > 0);
      give(held.shift());
      given += 1;
    }
    const texts = await Promise.all(all);
    assert.equal(seen.length - before, 2, what);
    await until('both to be over', async () => (await (await door.admin('/state')).json()).requests_in_flight === 0);
    return texts;
  };
  await each('a cookie', (response) => response.writeHead(200, { 'set-cookie': 'a=b' }).end('x'));
  await each('no-store', (response) => response.writeHead(200, { 'cache-control': 'no-store' }).end('x'));
  await each('private', (response) => response.writeHead(200, { 'cache-control': 'private, max-age=9' }).end('x'));
  await each('a refusal', (response) => response.writeHead(403).end('x'));
  await each('vary', (response) => response.writeHead(200, { vary: 'User-Agent' }).end('x'));
  const large = await each('a large one', (response) => response.writeHead(200).end('x'.repeat(200_000)));
  assert.deepEqual(large.map((text) => text.length), [200_000, 200_000]);
  let count = 0;
  const broken = await each('one that breaks off', (response) => {
    count += 1;
    if (count === 1) { response.writeHead(200, { 'content-length': '100' }); response.write('half', () => response.destroy()); } else response.writeHead(200).end('whole');
  });
  assert.deepEqual(broken.sort(), ['broken', 'whole']);
});

test('on a public route the answer to one token is not given to another, nor to nobody', async () => {
  answer = (request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ whose: request.headers.authorization ?? 'nobody' }));
  for (const whose of ['Bearer gho_a', 'Bearer gho_b', 'nobody', 'Bearer gho_a']) {
    const response = await get('/anybody/user', whose === 'nobody' ? {} : { authorization: whose });
    assert.deepEqual(await response.json(), { whose });
  }
  assert.equal(seen.length, 3, 'the last was kept for its own token');
});

test('nobody waits for a stream of events to end', async () => {
  const streams = [];
  answer = (request, response) => { response.writeHead(200, { 'content-type': 'text/event-stream' }); response.write('data: 1\n\n'); streams.push(response); };
  const all = await Promise.all([ada, bo].map((headers) => get('/for/all/events', headers)));
  for (const response of all) assert.match(Buffer.from((await response.body.getReader().read()).value).toString(), /data: 1/);
  assert.equal(seen.length, 2);
  streams.forEach((response) => response.end());
});

test('a client that goes away does not take the answer of those who wait with it', async () => {
  const held = [];
  answer = (request, response) => { held.push(response); };
  const gone = new AbortController();
  const first = get('/for/all/y', ada, { signal: gone.signal }).catch(() => 'gone');
  await until('it to be asked', async () => held.length === 1);
  const second = get('/for/all/y', bo);
  await until('another to wait', async () => (await (await door.admin('/state')).json()).requests_waiting === 1);
  gone.abort();
  assert.equal(await first, 'gone');
  await until('the other to ask for itself', async () => held.length === 2);
  held[1].end('{"n":2}');
  assert.deepEqual(await (await second).json(), { n: 2 });
});

test('a kept answer is given for its time, with its age, and then asked for anew', async () => {
  let n = 0;
  answer = (request, response) => { n += 1; response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ n })); };
  assert.deepEqual(await (await get('/kept/x')).json(), { n: 1 });
  const again = await get('/kept/x', bo);
  assert.deepEqual(await again.json(), { n: 1 });
  assert.match(again.headers.get('cache-status'), /^stagedoor; hit; ttl=\d+$/);
  assert.ok(again.headers.has('age'));
  assert.deepEqual(await (await get('/kept/x', kim)).json(), { n: 2 }, 'another workspace has its own');
  await until('it to be asked anew', async () => (await (await get('/kept/x')).json()).n === 3, 10000);
  // Nobody may have what they may not ask for, kept or not.
  assert.deepEqual(await said(await get('/kept/x', { authorization: `Bearer ${orbit('eve', ['payments'])}` })), [403, 'access_denied']);
});
