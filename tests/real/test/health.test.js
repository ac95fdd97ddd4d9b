'use strict';
// Upstreams with several addresses: which one is asked, which are left alone and for how long, how they are
// checked, and what happens when their name leads elsewhere.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http2 = require('node:http2');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, beforeEach, test } = require('node:test');
const { WebSocket } = require('ws');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { farm } = require('../rig/farm');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { binary, stagedoor } = require('../rig/stagedoor');

const [A, B, C, D] = ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'];
const WORKSPACES = Array.from({ length: 24 }, (_, n) => `w${n}`);
let up; let names; let door; let folder; let ca; let securePort; let plainPort; let secure; let h2c; let config;
const secureSeen = []; const h2cSeen = [];

/** Upstreams by name: the name that is looked up, and what else the config says of them. */
const UPSTREAMS = () => ({
  status: ['pair', 'outlier_detection: {consecutive_failures: 3, base_ejection_time: 1s, ejection_time_max: 10s}, retries: {attempts_max: 1}'],
  reset: ['pair', 'outlier_detection: {consecutive_failures: 3, base_ejection_time: 1h, ejection_time_max: 1h}'],
  connect: ['pair', 'outlier_detection: {consecutive_failures: 3, base_ejection_time: 1h, ejection_time_max: 1h}'],
  timeout: ['pair', 'outlier_detection: {consecutive_failures: 3, base_ejection_time: 1h, ejection_time_max: 1h}, timeouts: {upstream: 300ms}'],
  excused: ['pair', 'outlier_detection: {consecutive_failures: 3, base_ejection_time: 1h, ejection_time_max: 1h}, retries: {attempts_max: 1}, breaker: {requests_min: 100000, ignore: [{status: 503}]}'],
  grows: ['pair', 'outlier_detection: {consecutive_failures: 1, base_ejection_time: 400ms, ejection_time_max: 1h}, retries: {attempts_max: 1}'],
  half: ['four', 'outlier_detection: {consecutive_failures: 1, base_ejection_time: 1h, ejection_time_max: 1h}, retries: {attempts_max: 1}'],
  none: ['pair', 'outlier_detection: {consecutive_failures: 1, base_ejection_time: 1h, ejection_time_max: 1h, ejection_percent_max: 0}, retries: {attempts_max: 1}'],
  single: ['single', 'outlier_detection: {consecutive_failures: 1, base_ejection_time: 1h, ejection_time_max: 1h}, retries: {attempts_max: 1}'],
  kept: ['pair', 'outlier_detection: {consecutive_failures: 1, base_ejection_time: 1h, ejection_time_max: 1h}, retries: {attempts_max: 1}'],
  again: ['pair', 'retries: {budget_percent: 100}, outlier_detection: {ejection_percent_max: 0}'],
  checked: ['pair', `health_check: {path: "/health/checked", interval: 300ms, timeout: 300ms, healthy_threshold: 2, unhealthy_threshold: 3}, retries: {attempts_max: 1}, credential: key`],
  early: ['pair', `outlier_detection: {consecutive_failures: 1, base_ejection_time: 1h, ejection_time_max: 1h}, health_check: {path: "/health/early", interval: 300ms, timeout: 300ms}, retries: {attempts_max: 1}`],
  panic: ['pair', `health_check: {path: "/health/panic", interval: 300ms, timeout: 300ms, unhealthy_threshold: 1, status: 204}, retries: {attempts_max: 1}`],
  least: ['pair', 'balance: {kind: least_request}, outlier_detection: {ejection_percent_max: 0}'],
  workspace: ['four', 'balance: {kind: consistent_hash, by: workspace}, outlier_detection: {consecutive_failures: 2, base_ejection_time: 1h, ejection_time_max: 1h}'],
  caller: ['four', 'balance: {kind: consistent_hash, by: caller}'],
  client: ['four', 'balance: {kind: consistent_hash, by: client}'],
  moves: ['moves', ''],
  strange: ['strange', `external: true, health_check: {path: "/health/strange", interval: 300ms, timeout: 300ms}`],
});

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-health-'));
  ca = authority(folder);
  const other = authority(`${folder}/other`);
  ca.issue('secure', { names: ['secure.test'] });
  ca.issue('door', { names: ['door'] });
  fs.writeFileSync(`${folder}/key`, 'a-key-of-the-upstream');
  up = await farm([A, B, C, D]);
  [securePort, plainPort] = [await freePort(), await freePort()];
  secure = https.createServer({
    cert: fs.readFileSync(ca.file('secure.crt')), key: fs.readFileSync(ca.file('secure.key')), ca: fs.readFileSync(ca.ca), requestCert: true, rejectUnauthorized: false,
  }, (request, response) => {
    secureSeen.push({ url: request.url, host: request.headers.host, name: request.socket.servername, client: request.socket.getPeerCertificate()?.subject?.CN });
    response.end('ok');
  });
  await new Promise((resolve) => secure.listen(securePort, A, resolve));
  h2c = http2.createServer((request, response) => { h2cSeen.push({ path: request.url, authority: request.authority, scheme: request.scheme }); response.end('ok'); });
  await new Promise((resolve) => h2c.listen(plainPort, A, resolve));
  names = await dns({
    'pair.test': { A: [A, B] },
    'four.test': { A: [A, B, C, D] },
    'single.test': { A: [A] },
    'moves.test': { A: [A] },
    'strange.test': { A: [A, B, '169.254.169.254'] },
    'secure.test': { A: [A] },
  });
  const check = 'health_check: {path: "/healthz?deep=1", interval: 300ms, timeout: 300ms}';
  const tls = (more) => `tls: {ca: ${more}, client_cert: ${ca.file('door.crt')}, client_key: ${ca.file('door.key')}}`;
  config = (more = '') => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, trusted_proxies: [127.0.0.1/32]}
${identity(own)}
workspaces: {named: {${WORKSPACES.map((name) => `${name}: {}`).join(', ')}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}, per_client: {rate: 100000/s, burst: 100000}}
process: {drain_delay: 0s, drain_timeout: 2s, name_servers: ["${names.address}"]}
egress: {private: [{host: "strange.test:${up.port}", addresses: [${A}/32]}]}
credentials: {key: {kind: header, prefix: "Bearer ", value_file: ${folder}/key}}
upstreams:
${Object.entries(UPSTREAMS()).map(([name, [host, rules]]) => `  ${name}: {url: "http://${host}.test:${up.port}"${rules.includes('breaker') ? '' : ', breaker: {requests_min: 100000}'}${rules && `, ${rules}`}}`).join('\n')}
  secure: {url: "https://secure.test:${securePort}/base", ${check}, ${tls(ca.ca)}}
  mistrusted: {url: "https://secure.test:${securePort}", ${check}, ${tls(other.ca)}}
  h2c: {url: "http://secure.test:${plainPort}", http: h2, ${check}}
routes:
${[...Object.keys(UPSTREAMS()), 'secure', 'mistrusted', 'h2c'].map((name) => `- {name: ${name}, methods: [GET], path: /${name}/**, upstream: ${name}, class: read, options: {upgrade: true}}
- {name: ${name}-act, methods: [POST], path: /${name}/**, upstream: ${name}, class: action}`).join('\n')}${more}`;
  door = await stagedoor(config());
});
after(async () => {
  await door?.stop();
  await up?.stopAll();
  secure?.closeAllConnections();
  secure?.close();
  h2c?.close();
  await names?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => { up.does = {}; up.checked = {}; up.seen.length = 0; });

const as = (caller, workspace = 'w0') => ({ authorization: `Bearer ${orbit(caller, WORKSPACES)}`, 'x-orbit-workspace-id': workspace });
const ask = async (name, { headers = as('ada'), ...options } = {}) => {
  const answer = await fetch(`${door.url}/${name}/x`, { headers, ...options });
  return { status: answer.status, from: await answer.text() };
};
const addresses = async (name) => (await (await door.admin('/state')).json()).upstreams.find((one) => one.name === name).addresses;
const address = async (name, host) => (await addresses(name)).find((one) => one.address === `${host}:${up.port}`);
const becomes = (name, host, condition) => until(`${host} of ${name} to be ${condition}`, async () => (await address(name, host))?.condition === condition);
const events = (name) => door.written().filter((line) => line.kind === 'address' && line.upstream === name);
const event = (name, fits) => until(`an event of ${name}`, async () => events(name).find(fits), 10000);
const metric = async (line) => Number((await (await door.admin('/metrics')).text()).split('\n').find((one) => one.startsWith(`${line} `))?.split(' ').at(-1) ?? 0);
/** Asks until an address is in a condition. */
const askUntil = (name, host, condition) => until(`${host} of ${name} to be ${condition}`, async () => {
  await ask(name);
  return (await address(name, host))?.condition === condition;
});
const reached = (name) => up.seen.filter((one) => one.url === `/${name}/x`).map((one) => one.host);

test('an address that answers failures is left alone for a while, and then asked again', async () => {
  up.does[A] = 500;
  await askUntil('status', A, 'ejected');
  const out = await address('status', A);
  assert.deepEqual([out.reason, out.used], ['status', false]);
  assert.ok(Math.abs(out.until - Date.now() / 1000) < 5, `${out.until}`);
  const told = await event('status', (e) => e.condition === 'ejected');
  assert.deepEqual([told.address, told.reason], [`${A}:${up.port}`, 'status']);
  assert.ok(Date.parse(told.until) > Date.parse(told.time), JSON.stringify(told));
  assert.equal(await metric('stagedoor_ejections_total{reason="status",upstream="status"}'), 1);
  up.does[A] = 200;
  await becomes('status', A, 'healthy');
  await event('status', (e) => e.condition === 'healthy');
  const answers = await Promise.all(Array.from({ length: 10 }, () => ask('status')));
  assert.deepEqual([...new Set(answers.map((one) => one.from))].sort(), [A, B], 'one after the other');
});

test('the clients of an address that resets, hangs or is gone are those of the others soon', async () => {
  for (const fault of ['reset', 'connect', 'timeout']) {
    if (fault === 'connect') await up.stop(A); else up.does[A] = { reset: 'reset', timeout: 'hang' }[fault];
    await askUntil(fault, A, 'ejected');
    assert.equal((await address(fault, A)).reason, fault);
    up.seen.length = 0;
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(fault)));
    assert.deepEqual([...new Set(answers.map((one) => `${one.status} ${one.from}`))], [`200 ${B}`], fault);
    assert.ok(reached(fault).every((host) => host === B));
    if (fault === 'connect') await up.start(A);
    up.does = {};
  }
});

test('what the breaker excuses ejects nobody', async () => {
  up.does = { [A]: 503, [B]: 503 };
  for (let n = 0; n < 20; n += 1) assert.equal((await ask('excused')).status, 503);
  assert.ok((await addresses('excused')).every((one) => one.condition === 'healthy'));
});

test('each time it is left alone for longer', async () => {
  up.does[A] = 500;
  for (let n = 0; n < 3; n += 1) {
    await askUntil('grows', A, 'ejected');
    await becomes('grows', A, 'healthy');
  }
  const rests = await until('three ejections', async () => {
    const all = events('grows').filter((e) => e.condition === 'ejected').map((e) => Date.parse(e.until) - Date.parse(e.time));
    return all.length >= 3 && all;
  });
  // The event is written a moment after it was decided.
  assert.ok(rests[0] <= 400 && rests[1] > 400 && rests[1] <= 800 && rests[2] > 800 && rests[2] <= 1200, `${rests}`);
});

test('half of the addresses are out at most, and the only one never is', async () => {
  up.does = { [A]: 500, [B]: 500, [C]: 500, [D]: 500 };
  for (let n = 0; n < 24; n += 1) for (const name of ['half', 'single', 'none']) assert.equal((await ask(name)).status, 500);
  const conditions = async (name) => (await addresses(name)).map((one) => one.condition).sort();
  assert.deepEqual(await conditions('half'), ['ejected', 'ejected', 'healthy', 'healthy']);
  assert.deepEqual(await conditions('single'), ['healthy']);
  assert.deepEqual(await conditions('none'), ['healthy', 'healthy']);
  assert.equal(await metric('stagedoor_upstream_addresses{condition="ejected",upstream="half"}'), 2);
  assert.equal(await metric('stagedoor_upstream_addresses{condition="healthy",upstream="half"}'), 2);
});

test('another attempt goes to another address', async () => {
  for (const [what, method] of [[503, 'GET'], ['reset', 'GET'], ['gone', 'GET'], ['gone', 'POST']]) {
    up.seen.length = 0;
    if (what === 'gone') await up.stop(A); else up.does[A] = what;
    const answers = [];
    for (let n = 0; n < 6; n += 1) answers.push(await ask('again', { method }));
    assert.deepEqual([...new Set(answers.map((one) => `${one.status} ${one.from}`))], [`200 ${B}`], `${what} ${method}`);
    assert.equal(reached('again').filter((host) => host === B).length, 6);
    if (what === 'gone') await up.start(A);
    up.does = {};
  }
  await door.settled();
  assert.ok(door.records().some((record) => record.route === 'again' && record.attempts === 2));
});

test('what is known of addresses outlives a reload', async () => {
  up.does[A] = 500;
  await askUntil('kept', A, 'ejected');
  door.write(config('\n- {name: more, methods: [GET], path: /more, upstream: kept, class: read}')(door.ports, door.folder));
  assert.equal((await door.reload()).successful, true);
  assert.deepEqual([(await address('kept', A)).condition, (await ask('kept')).from], ['ejected', B]);
});

test('an address that fails its checks is not asked until it passes them', async () => {
  await until('both to be checked', async () => [A, B].every((host) => up.seen.some((one) => one.host === host && one.url === '/health/checked')));
  await becomes('checked', A, 'healthy');
  const before = await metric('stagedoor_ejections_total{reason="health_check",upstream="checked"}');
  up.checked[A] = 500;
  await becomes('checked', A, 'unhealthy');
  const told = await event('checked', (e) => e.condition === 'unhealthy');
  assert.deepEqual([told.address, told.reason, told.until], [`${A}:${up.port}`, 'health_check', undefined]);
  for (let n = 0; n < 10; n += 1) assert.deepEqual(await ask('checked'), { status: 200, from: B });
  assert.ok(await metric('stagedoor_health_check_failures_total{upstream="checked"}') >= 2);
  assert.equal(await metric('stagedoor_ejections_total{reason="health_check",upstream="checked"}'), before + 1);
  up.checked = {};
  await becomes('checked', A, 'healthy');
  await until(`an answer of ${A}`, async () => (await ask('checked')).from === A);
  // Silence is a failure, too, and so is an address where nobody listens.
  up.checked[A] = 'hang';
  await becomes('checked', A, 'unhealthy');
  up.checked = {};
  await becomes('checked', A, 'healthy');
  await up.stop(A);
  await becomes('checked', A, 'unhealthy');
  await up.start(A);
  await becomes('checked', A, 'healthy');
});

test('a check says nothing of any caller', async () => {
  await ask('checked', { headers: { ...as('ada'), cookie: 'a=b' } });
  assert.equal(up.seen.find((one) => one.url === '/checked/x').headers.authorization, 'Bearer a-key-of-the-upstream');
  await until('a check', async () => up.seen.some((one) => one.url === '/health/checked'));
  const { method, headers } = up.seen.find((one) => one.url === '/health/checked');
  assert.equal(method, 'GET');
  assert.deepEqual(Object.keys(headers).sort(), ['accept', 'connection', 'host', 'user-agent']);
  assert.deepEqual([headers.host, /^stagedoor\/\S+ health_check$/.test(headers['user-agent'])], [`pair.test:${up.port}`, true]);
});

test('checks that succeed end an ejection before its time', async () => {
  await becomes('early', A, 'healthy');
  up.does[A] = 500;
  const isOut = (e) => e.condition === 'ejected' && e.reason === 'status';
  await until('an ejection', async () => { await ask('early'); return events('early').some(isOut); });
  // It was to last an hour.
  await until('its end', async () => events('early').slice(events('early').findIndex(isOut)).some((e) => e.condition === 'healthy'));
});

test('if all fail their checks, all are used', async () => {
  await until('both to be out', async () => (await addresses('panic')).every((one) => one.condition === 'unhealthy'));
  assert.ok((await addresses('panic')).every((one) => one.used));
  for (let n = 0; n < 4; n += 1) assert.equal((await ask('panic')).status, 200);
  assert.deepEqual([...new Set(reached('panic'))].sort(), [A, B]);
});

test('checks use the TLS, the names and the protocol of the upstream', async () => {
  await until('a check over TLS', async () => secureSeen.length > 0);
  assert.deepEqual(secureSeen[0], { url: '/base/healthz?deep=1', host: `secure.test:${securePort}`, name: 'secure.test', client: 'door' });
  await until('a check of HTTP/2', async () => h2cSeen.length > 2);
  assert.deepEqual(h2cSeen[0], { path: '/healthz?deep=1', authority: `secure.test:${plainPort}`, scheme: 'http' });
  const condition = async (name) => (await addresses(name))[0].condition;
  await until('whom another CA vouches for to be unhealthy', async () => await condition('mistrusted') === 'unhealthy');
  assert.deepEqual([await condition('secure'), await condition('h2c')], ['healthy', 'healthy']);
});

test('somebody else\'s upstream is checked only where it may be asked', async () => {
  const checks = () => up.seen.filter((one) => one.url === '/health/strange').map((one) => one.host);
  await until('some checks', async () => checks().length > 5);
  assert.deepEqual([...new Set(checks())], [A]);
  assert.deepEqual((await addresses('strange')).map((one) => one.address), [`${A}:${up.port}`]);
  // Its name turns inwards.
  names.zone['strange.test'] = { A: [B, C] };
  await until('it to have no address', async () => (await addresses('strange')).length === 0);
  assert.equal((await ask('strange')).status, 403);
  assert.deepEqual([...new Set(checks())], [A]);
});

test('fewer requests go to an address that is slow', async () => {
  up.does[A] = (_, response) => { setTimeout(() => response.end(A), 300); };
  let left = 150;
  const client = async () => { while (left > 0) { left -= 1; await ask('least'); } };
  await Promise.all(Array.from({ length: 6 }, client));
  const share = reached('least').filter((host) => host === A).length / reached('least').length;
  assert.ok(share > 0 && share < 0.35, `${share} of the requests`);
});

test('a workspace stays with its address, and only those of one that dies move', async () => {
  const homes = async () => Object.fromEntries(await Promise.all(WORKSPACES.map(async (name) => [name, (await ask('workspace', { headers: as('ada', name) })).from])));
  const first = await homes();
  assert.ok(new Set(Object.values(first)).size >= 3, JSON.stringify(first));
  for (let n = 0; n < 3; n += 1) assert.deepEqual(await homes(), first);
  await up.stop(B);
  const without = await homes();
  for (const name of WORKSPACES) assert.ok(first[name] === B ? without[name] !== B : without[name] === first[name], name);
  // And elsewhere they stay, too.
  assert.deepEqual(await homes(), without);
  await up.start(B);
});

test('a caller and a client stay with their addresses', async () => {
  const callers = await Promise.all(Array.from({ length: 16 }, (_, n) => n).map(async (n) => {
    const from = new Set();
    for (const workspace of ['w0', 'w1', 'w2']) from.add((await ask('caller', { headers: as(`caller-${n}`, workspace) })).from);
    return [...from];
  }));
  const clients = await Promise.all(Array.from({ length: 16 }, (_, n) => n).map(async (n) => {
    const from = new Set();
    for (const caller of ['ada', 'bo', 'kim']) from.add((await ask('client', { headers: { ...as(caller), 'x-forwarded-for': `198.51.100.${n}` } })).from);
    return [...from];
  }));
  for (const each of [callers, clients]) {
    assert.ok(each.every((from) => from.length === 1), JSON.stringify(each));
    assert.ok(new Set(each.flat()).size >= 3, JSON.stringify(each));
  }
});

test('when the name leads elsewhere, what is under way ends in peace and the next goes there', async () => {
  const socket = new WebSocket(`${door.url.replace('http', 'ws')}/moves/x`, { headers: as('ada') });
  const says = (text) => new Promise((resolve) => { socket.once('message', (data) => resolve(`${data}`)); socket.send(text); });
  await new Promise((resolve, reject) => { socket.once('open', resolve); socket.once('error', reject); });
  assert.equal(await says('one'), `${A} one`);
  up.does[A] = (_, response) => { response.writeHead(200, { 'content-type': 'text/event-stream' }); response.write('data: first\n\n'); up.rest = response; };
  const stream = await fetch(`${door.url}/moves/x`, { headers: { ...as('ada'), accept: 'text/event-stream' } });
  assert.equal((await address('moves', A)).in_flight, 2);
  up.does = {};
  assert.equal((await ask('moves')).from, A);
  names.zone['moves.test'] = { A: [B] };
  // There is always a connection that was used a moment ago.
  await until('the next to go there', async () => (await ask('moves')).from === B);
  up.seen.length = 0;
  for (let n = 0; n < 20; n += 1) assert.equal((await ask('moves')).from, B);
  assert.deepEqual([...new Set(reached('moves'))], [B]);
  assert.deepEqual((await addresses('moves')).map((one) => one.address), [`${B}:${up.port}`]);
  assert.equal(await says('two'), `${A} two`);
  up.rest.end('data: last\n\n');
  assert.equal(await stream.text(), 'data: first\n\ndata: last\n\n');
  socket.close();
});

test('check tells what cannot be', () => {
  const problems = (rules) => {
    const file = path.join(folder, 'wrong.yaml');
    fs.writeFileSync(file, `version: stagedoor/v1
listeners: {edge: {kind: reverse, address: "127.0.0.1:1"}}
upstreams: {up: {url: "http://a.test", ${rules}}}
routes: [{name: a, methods: [GET], path: /a, upstream: up, class: read, options: {public: true}}]\n`);
    try { return execFileSync(binary, ['check', '-c', file], { encoding: 'utf8', stdio: 'pipe' }); } catch (error) { return `${error.stdout}${error.stderr}`; }
  };
  for (const [rules, told] of [
    ['outlier_detection: {consecutive_failures: 0}', '`outlier_detection.consecutive_failures` must be at least 1'],
    ['outlier_detection: {ejection_percent_max: 101}', '`outlier_detection.ejection_percent_max` must be from 0 to 100'],
    ['outlier_detection: {base_ejection_time: 0s}', '`outlier_detection.base_ejection_time` (0s) must be more than 0s'],
    ['outlier_detection: {base_ejection_time: 10m}', 'and `ejection_time_max` (5m) not shorter'],
    ['health_check: {path: healthz}', 'write `/healthz`'],
    ['health_check: {path: "/a b"}', 'write `/healthz`'],
    ['health_check: {path: /, interval: 50ms, timeout: 50ms}', 'write `100ms` or more'],
    ['health_check: {path: /, interval: 1s, timeout: 2s}', '`health_check.timeout` (2s)'],
    ['health_check: {path: /, healthy_threshold: 0}', '`healthy_threshold` and `unhealthy_threshold` must be at least 1'],
    ['health_check: {path: /, status: 299-200}', 'write `200`, or `200-399`'],
    ['health_check: {interval: 1s}', '`path` is missing in `upstreams.up.health_check`'],
    ['balance: {kind: consistent_hash}', '`balance` needs `by`'],
    ['balance: {kind: least_request, by: caller}', '`balance.by` needs `kind: consistent_hash`'],
    ['balance: {kind: random}', 'least_request'],
  ]) assert.ok(problems(rules).includes(told), `${rules}\n${problems(rules)}`);
  assert.match(problems('outlier_detection: {ejection_percent_max: 0}, balance: {kind: consistent_hash, by: client}, health_check: {path: /, status: 200}'), /: valid$/m);
});
