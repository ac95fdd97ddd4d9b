'use strict';
// What upstreams are shown instead of what the client sent: secrets from files, tokens of a real provider.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { oidc } = require('../rig/oidc');
const { binary, stagedoor } = require('../rig/stagedoor');
const { upstream, raw } = require('../rig/upstream');
const { freePort, until } = require('../rig/ports');

const AUDIENCE = 'https://dxcp-api';
const ada = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
let up;
before(async () => { up = await upstream(); });
after(async () => { await up?.stop(); });

const claims = (authorization) => JSON.parse(Buffer.from(authorization.split('.')[1], 'base64url'));
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const secretOf = (client) => `${client}-secret-${client}-secret-${client}`;

/** One upstream and a route for each credential, and one of each without. `written` is by name. */
const config = (written, more = {}) => (ports, folder) => {
  for (const [name, text] of Object.entries({ jenkins: 'planted-jenkins:pässword\n', grafana: 'planted-grafana\n', sonar: 'planted-sonar', portal: `${secretOf('portal')}\n`, 'portal-post': secretOf('portal-post'), ...more.files })) {
    if (!fs.existsSync(`${folder}/${name}`)) fs.writeFileSync(`${folder}/${name}`, text);
  }
  const names = Object.keys(written);
  return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(folder)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}, per_client: {rate: 100000/s, burst: 100000}}
credentials:
${names.map((name) => `  ${name}: {${written[name].replaceAll('FOLDER', folder)}}`).join('\n')}
upstreams:
  plain: {url: "${up.url}"}
${names.map((name) => `  ${name}: {url: "${up.url}", credential: ${name}${more.upstream ?? ''}}`).join('\n')}
routes:
${['plain', ...names].map((name) => `- {name: ${name}, methods: [ANY], path: /${name}/**, upstream: ${name}, class: read, options: {upgrade: true}}
- {name: open-${name}, methods: [ANY], path: /open/${name}/**, upstream: ${name}, class: read, options: {public: true}}`).join('\n')}`;
};
const basic = 'kind: basic, username: portal, password_file: FOLDER/jenkins';
const header = 'kind: header, header: X-Api-Key, value_file: FOLDER/grafana';
const bearer = 'kind: header, prefix: "Bearer ", value_file: FOLDER/sonar';
const client = (idp, more = '', id = 'portal') => `kind: oauth2_client_credentials, token_url: "${idp.url}/token", client_id: ${id}, client_secret_file: FOLDER/${id}, scopes: [api], audience: "${AUDIENCE}"${more}`;

const ask = async (door, where, headers = ada) => {
  const answer = await fetch(`${door.url}${where}`, { headers });
  const body = await answer.json().catch(() => ({}));
  return { status: answer.status, code: body.code, retryAfter: answer.headers.get('retry-after'), seen: body.headers, id: body.request_id };
};
const credentials = async (door) => (await (await door.admin('/state')).json()).credentials;
const counted = async (door, name, result) => {
  const line = (await (await door.admin('/metrics')).text()).split('\n').find((l) => l.startsWith(`stagedoor_credential_fetches_total{credential="${name}",result="${result}"}`));
  return Number(line?.split(' ')[1] ?? 0);
};

test('an upstream sees its credential and not the caller’s token; who is calling, in our headers', async () => {
  const idp = await oidc();
  const door = await stagedoor(config({ jenkins: basic, grafana: header, sonar: bearer, dxcp: client(idp), auth0: client(idp, ', client_auth: post', 'portal-post') }));
  const expected = {
    jenkins: ['authorization', `Basic ${Buffer.from('portal:planted-jenkins:pässword').toString('base64')}`],
    grafana: ['x-api-key', 'planted-grafana'], sonar: ['authorization', 'Bearer planted-sonar'],
  };
  for (const [name, [shown, value]] of Object.entries(expected)) {
    for (const where of [`/${name}/x`, `/open/${name}/x`]) {
      const { status, seen } = await ask(door, where, { ...ada, cookie: 'a=b' });
      assert.equal(status, 200);
      assert.equal(seen[shown], value);
      assert.equal(seen.cookie, 'a=b');
      assert.ok(!JSON.stringify(up.last().raw).includes(ada.authorization), where);
      assert.equal(seen['x-orbit-user-id'], where.startsWith('/open') ? undefined : 'ada');
    }
  }
  for (const [name, id] of [['dxcp', 'portal'], ['auth0', 'portal-post']]) {
    const { status, seen } = await ask(door, `/${name}/x`);
    assert.equal(status, 200);
    const { aud, client_id: who, scope } = claims(seen.authorization);
    assert.deepEqual({ aud, who, scope }, { aud: AUDIENCE, who: id, scope: 'api' });
    assert.equal(seen['x-orbit-user-id'], 'ada');
  }
  assert.equal((await ask(door, '/plain/x')).seen.authorization, ada.authorization, 'another upstream sees what came');
  assert.deepEqual(idp.tokens.map((head) => /^Basic /.test(head.authorization)), [true, false]);

  const record = await door.record((r) => r.route === 'dxcp');
  assert.deepEqual([record.credential, record.caller, record.code], ['dxcp', 'ada', 'ok']);
  assert.equal((await door.record((r) => r.route === 'plain')).credential, undefined);
  const facts = await credentials(door);
  assert.deepEqual(facts.map(({ name, kind }) => [name, kind]), [['auth0', 'oauth2_client_credentials'], ['dxcp', 'oauth2_client_credentials'], ['grafana', 'header'], ['jenkins', 'basic'], ['sonar', 'header']]);
  const minutes = (facts[1].until - Date.now() / 1000) / 60;
  assert.ok(minutes > 9 && minutes <= 10, `${minutes} minutes`);
  assert.equal(facts[3].until, null);
  const explained = execFileSync(binary, ['explain', '-c', door.file, '-p', '/grafana/x', '--as', 'ada', '--workspace', 'payments'], { encoding: 'utf8' });
  assert.match(explained, /^credential +grafana, in `x-api-key`$/m);
  await door.stop(); await idp.stop();
});

test('nothing of the client’s arrives in the credential’s place, however it is spelled', async () => {
  const idp = await oidc();
  const door = await stagedoor(config({ grafana: header, dxcp: client(idp) }));
  const lines = ['X-Api-Key: evil', 'x-api-key: evil', 'X_API_KEY: evil', 'x.api.key: evil', 'X-Api_Key: evil', 'x~api-key: evil', 'X-API-KEY:evil'];
  for (const line of lines) {
    const answer = await raw(door.ports.edge, `GET /grafana/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\n${line}\r\n${line}\r\nConnection: close\r\n\r\n`);
    assert.match(answer, /^HTTP\/1.1 200/);
    assert.ok(!JSON.stringify(up.last().raw).includes('evil'), `${line} arrived`);
    assert.equal(up.last().raw.filter((text) => text === 'planted-grafana').length, 1);
  }
  // Where nobody is asked who they are, anything may come.
  for (const line of ['Authorization: Basic ZXZpbA==', 'AUTHORIZATION: Bearer evil', 'authorization: Bearer evil\r\nAuthorization: Bearer evil2']) {
    for (const name of ['grafana', 'dxcp']) {
      const answer = await raw(door.ports.edge, `GET /open/${name}/x HTTP/1.1\r\nHost: a\r\n${line}\r\nConnection: close\r\n\r\n`);
      assert.match(answer, /^HTTP\/1.1 200/);
      assert.doesNotMatch(JSON.stringify(up.last().raw), /evil|ZXZpbA/, `${line} arrived`);
      assert.equal(up.last().raw.filter((text) => /^authorization$/i.test(text)).length, name === 'dxcp' ? 1 : 0);
    }
  }
  // A token that was not verified gets nothing.
  const seen = up.seen.length;
  for (const stolen of [up.last().headers.authorization, 'Bearer planted-grafana', `${ada.authorization}x`]) {
    assert.equal((await ask(door, '/grafana/x', { authorization: stolen })).status, 401);
  }
  assert.equal(up.seen.length, seen);
  // Nor can a client take it away again, or put another after it.
  for (const [name, nominated] of [['grafana', 'x-api-key'], ['dxcp', 'X-API-KEY']]) {
    await raw(door.ports.edge, `GET /${name}/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\nConnection: close, ${nominated}\r\n\r\n`);
    const { headers } = up.last();
    assert.ok(name === 'grafana' ? headers['x-api-key'] === 'planted-grafana' : claims(headers.authorization).aud === AUDIENCE);
    assert.doesNotMatch(headers.connection ?? '', /authorization|api-key/i, 'a proxy behind us would take it away');
  }
  // Who names the token for this hop only has shown none.
  const shown = up.seen.length;
  for (const name of ['grafana', 'dxcp']) {
    const answer = await raw(door.ports.edge, `GET /${name}/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\nConnection: close, Authorization\r\n\r\n`);
    assert.match(answer, /^HTTP\/1.1 401 /);
  }
  assert.equal(up.seen.length, shown);
  await raw(door.ports.edge, `POST /grafana/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Api-Key\r\n\r\n1\r\na\r\n0\r\nX-Api-Key: evil\r\nAuthorization: evil\r\n\r\n`);
  assert.ok(!up.last().raw.includes('evil') && !up.last().trailers.includes('evil'));
  await door.stop(); await idp.stop();
});

test('a WebSocket is shown the credential too, and not the token among its protocols', async () => {
  const door = await stagedoor(config({ grafana: header }));
  const token = ada.authorization.slice('Bearer '.length);
  const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/grafana/live`, ['chat', token]);
  const echoed = await new Promise((resolve, reject) => {
    ws.on('open', () => ws.send('hello'));
    ws.on('message', (data) => resolve(data.toString()));
    ws.on('error', reject);
  });
  assert.equal(echoed, 'hello');
  assert.equal(ws.protocol, 'chat');
  assert.equal(up.last().method, 'UPGRADE');
  assert.equal(up.last().headers['x-api-key'], 'planted-grafana');
  assert.equal(up.last().headers['x-orbit-user-id'], 'ada');
  assert.ok(!JSON.stringify(up.last().raw).includes(token));
  ws.close();
  await door.stop();
});

test('a file that is written anew is in force without a lost request; a bad one leaves the last', async () => {
  const door = await stagedoor(config({ grafana: header, jenkins: basic }));
  const file = path.join(door.folder, 'grafana');
  let stop = false;
  const answers = { 'planted-grafana': 0, 'planted-second': 0 };
  const load = Promise.all(Array.from({ length: 8 }, async () => {
    while (!stop) {
      const { status, seen } = await ask(door, '/grafana/x');
      assert.equal(status, 200);
      answers[seen['x-api-key']] += 1;
    }
  }));
  await until('requests', async () => answers['planted-grafana'] > 50);
  fs.writeFileSync(`${file}.new`, 'planted-second\n');
  fs.renameSync(`${file}.new`, file);
  await until('the second', async () => answers['planted-second'] > 50, 10000);
  const before = answers['planted-grafana'];
  await until('more', async () => answers['planted-second'] > 200, 10000);
  assert.equal(answers['planted-grafana'], before, 'the first is not shown any more');
  for (const bad of ['', 'planted-two\nplanted-lines\n', null]) {
    if (bad === null) fs.rmSync(file); else fs.writeFileSync(file, bad);
    const { successful, messages } = await door.reload();
    assert.ok(successful);
    assert.ok(messages.some((message) => message.includes(file) && message.includes('stays')), JSON.stringify(messages));
    assert.match(await (await door.admin('/metrics')).text(), /^stagedoor_config_last_reload_failures 1$/m);
    assert.equal((await ask(door, '/grafana/x')).seen['x-api-key'], 'planted-second');
  }
  fs.writeFileSync(file, 'planted-third');
  await until('the third', async () => (await ask(door, '/grafana/x')).seen['x-api-key'] === 'planted-third', 10000);
  stop = true;
  await load;
  assert.deepEqual(Object.keys(answers), ['planted-grafana', 'planted-second', 'planted-third']);

  // One that is new, or written otherwise, must be there.
  const written = fs.readFileSync(door.file, 'utf8');
  fs.writeFileSync(door.file, written.replace(`value_file: ${file}`, `value_file: ${file}-gone`));
  const { successful, messages } = await door.reload();
  assert.ok(!successful);
  assert.match(JSON.stringify(messages), /grafana-gone.*no such file/);
  assert.equal((await ask(door, '/grafana/x')).seen['x-api-key'], 'planted-third');
  assert.doesNotMatch(JSON.stringify(messages) + door.output(), /planted/);
  await door.stop();
});

test('it does not start with a secret that cannot be used, and check --files says which', async () => {
  const files = { grafana: 'planted-two\nplanted-lines\n' };
  await assert.rejects(stagedoor(config({ grafana: header }, { files })), (error) => {
    assert.match(error.message, /grafana`: it has several lines/);
    assert.doesNotMatch(error.message, /planted/);
    return true;
  });
  const door = await stagedoor(config({ grafana: header }));
  const check = () => execFileSync(binary, ['check', '--files', '-c', door.file], { encoding: 'utf8' });
  assert.match(check(), /valid/);
  fs.writeFileSync(path.join(door.folder, 'grafana'), 'planted-two\nplanted-lines\n');
  assert.throws(check, (error) => {
    assert.match(error.stdout, /stagedoor\.yaml:\d+:\d+: cannot use `.*grafana`: it has several lines/);
    assert.doesNotMatch(error.stdout, /planted/);
    return true;
  });
  await door.stop();
});

test('it starts without the provider, forwards nothing, and goes on when it is there; the last token stays while it lasts', async () => {
  const port = await freePort();
  const door = await stagedoor(config({ dxcp: client({ url: `http://127.0.0.1:${port}` }) }));
  const seen = up.seen.length;
  // More than the breaker would bear, if these were failures of the upstream.
  for (let n = 0; n < 8; n += 1) {
    const { status, code, retryAfter } = await ask(door, '/dxcp/x');
    assert.deepEqual([status, code, retryAfter], [503, 'credential_unavailable', '5']);
  }
  assert.equal(up.seen.length, seen, 'nothing reached the upstream');
  const record = await door.record((r) => r.code === 'credential_unavailable');
  assert.deepEqual([record.credential, record.attempts, record.upstream_address], ['dxcp', 0, undefined]);
  assert.equal(await counted(door, 'dxcp', 'error'), 3, 'three in a row');
  const [{ until: none, failing }] = await credentials(door);
  assert.equal(none, null);
  assert.match(failing, /cannot get/);

  const idp = await oidc({ port, lifetime: 8 });
  await until('a token', async () => (await ask(door, '/dxcp/x')).status === 200, 15000);
  assert.match(door.output(), /tokens can be fetched again/);
  await idp.stop();
  // It is renewed from half its life on; that fails, and nobody notices.
  const [{ until: ends }] = await credentials(door);
  let served = 0;
  while (Date.now() / 1000 < ends - 1) {
    assert.equal((await ask(door, '/dxcp/x')).status, 200);
    served += 1;
    await sleep(50);
  }
  assert.ok(served > 10, `${served}`);
  await until('its end', async () => (await ask(door, '/dxcp/x')).code === 'credential_unavailable', 4000);
  await idp.start();
  await until('another', async () => (await ask(door, '/dxcp/x')).status === 200, 15000);
  assert.equal((await (await door.admin('/state')).json()).breakers.find((b) => b.upstream === 'dxcp').position, 'closed');
  await door.stop(); await idp.stop();
});

test('a token is fetched once for all who wait, and renewed before it ends while nobody waits', async () => {
  const idp = await oidc({ lifetime: 4 });
  const door = await stagedoor(config({ dxcp: client(idp) }));
  const answers = await Promise.all(Array.from({ length: 50 }, () => ask(door, '/dxcp/x')));
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
  assert.equal(idp.tokens.length, 1);
  const tokens = new Set();
  const begun = Date.now();
  while (Date.now() - begun < 9000) {
    const { status, seen } = await ask(door, '/dxcp/x');
    assert.equal(status, 200);
    const { exp } = claims(seen.authorization);
    assert.ok(exp * 1000 > Date.now() - 1000, 'none has ended');
    tokens.add(seen.authorization);
    await sleep(20);
  }
  // From half its life on, as it is that short.
  assert.ok(tokens.size >= 3 && tokens.size <= 7, `${tokens.size} tokens`);
  // A reload that changes something else does not fetch another.
  const fetched = idp.tokens.length;
  fs.appendFileSync(door.file, '\n# changed\n');
  assert.ok((await door.reload()).successful);
  assert.ok(idp.tokens.length <= fetched + 1);
  await door.stop(); await idp.stop();
});

test('a 401 of the upstream leads to another token for the next request, once a minute', async () => {
  const idp = await oidc();
  const door = await stagedoor(config({ dxcp: client(idp) }));
  const token = async () => (await ask(door, '/dxcp/x')).seen.authorization;
  const first = await token();
  assert.equal(await token(), first);
  assert.equal((await fetch(`${door.url}/dxcp/x?do=status&n=401`, { headers: ada })).status, 401);
  const second = await token();
  assert.notEqual(second, first);
  for (let n = 0; n < 5; n += 1) assert.equal((await fetch(`${door.url}/dxcp/x?do=status&n=401`, { headers: ada })).status, 401);
  assert.equal(await token(), second);
  assert.equal(idp.tokens.length, 2);
  assert.equal(await counted(door, 'dxcp', 'ok'), 2);
  await door.stop(); await idp.stop();
});

test('the client’s secret that changes is used for the next token; until the provider knows it, the last one stays', async () => {
  const idp = await oidc();
  const door = await stagedoor(config({ dxcp: client(idp) }));
  const first = (await ask(door, '/dxcp/x')).seen.authorization;
  fs.writeFileSync(path.join(door.folder, 'portal'), 'planted-unknown');
  assert.ok((await door.reload()).successful);
  assert.equal((await ask(door, '/dxcp/x')).seen.authorization, first);
  const [{ failing }] = await credentials(door);
  assert.match(failing, /responded with 401: invalid_client/);
  fs.writeFileSync(path.join(door.folder, 'portal'), secretOf('portal'));
  assert.ok((await door.reload()).successful);
  assert.notEqual((await ask(door, '/dxcp/x')).seen.authorization, first);
  assert.equal((await credentials(door))[0].failing, null);
  await door.stop(); await idp.stop();
});

test('a token endpoint that is silent, floods, redirects or answers nonsense keeps nobody waiting and is not believed', async () => {
  let mode;
  let elsewhere = 0;
  const server = http.createServer((request, response) => {
    request.resume();
    if (request.url === '/elsewhere') elsewhere += 1;
    if (mode === 'silent') return undefined;
    if (mode === 'redirect') return response.writeHead(307, { location: '/elsewhere' }).end();
    if (mode === 'html') return response.end('<html>planted-page</html>');
    if (mode === 'split') return response.end(JSON.stringify({ access_token: 'planted\r\nx-evil: 1', expires_in: 60 }));
    const flood = () => { while (!response.destroyed && response.write('x'.repeat(65536))); };
    response.on('drain', flood);
    return flood();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  for (mode of ['silent', 'flood', 'redirect', 'html', 'split']) {
    const door = await stagedoor(config({ dxcp: client({ url }) }));
    const seen = up.seen.length;
    const begun = Date.now();
    const all = await Promise.all(Array.from({ length: 10 }, () => ask(door, '/dxcp/x')));
    assert.deepEqual([...new Set(all.map(({ code }) => code))], ['credential_unavailable'], mode);
    assert.ok(Date.now() - begun < 5000, `${mode} took ${Date.now() - begun} ms`);
    assert.equal(up.seen.length, seen);
    assert.match(door.output(), /no token could be fetched/);
    assert.doesNotMatch(door.output(), /planted/);
    await door.stop();
  }
  assert.equal(elsewhere, 0);
  // Less time than that: it is not the upstream that was late.
  mode = 'silent';
  const door = await stagedoor(config({ dxcp: client({ url }) }, { upstream: ', timeouts: {total: 300ms}, breaker: {requests_min: 1}' }));
  const begun = Date.now();
  for (let n = 0; n < 3; n += 1) assert.equal((await ask(door, '/dxcp/x')).code, 'credential_unavailable');
  assert.ok(Date.now() - begun < 2500);
  await door.stop();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test('a token endpoint proves itself by the CA that is named, and a client that hangs up breaks nothing off', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-credentials-'));
  const ca = authority(folder);
  const { cert, key } = ca.issue('idp', { names: ['127.0.0.1'] });
  let asked = 0;
  const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
    request.resume();
    asked += 1;
    setTimeout(() => response.end(JSON.stringify({ access_token: `planted-${asked}`, token_type: 'bearer', expires_in: 3600 })), 500);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `https://127.0.0.1:${server.address().port}`;
  const door = await stagedoor(config({ dxcp: client({ url }, `, ca: ${ca.ca}`), stranger: client({ url }) }));
  const leaving = new AbortController();
  const left = fetch(`${door.url}/dxcp/x`, { headers: ada, signal: leaving.signal }).catch((error) => error.name);
  await until('the fetch', async () => asked === 1);
  leaving.abort();
  assert.equal(await left, 'AbortError');
  assert.equal((await ask(door, '/dxcp/x')).seen.authorization, 'Bearer planted-1');
  assert.equal(asked, 1);
  assert.equal((await ask(door, '/stranger/x')).code, 'credential_unavailable');
  assert.equal(asked, 1);
  await door.stop();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  fs.rmSync(folder, { recursive: true });
});

test('no secret and no token is on any page, in metrics, logs or records', async () => {
  const idp = await oidc();
  const door = await stagedoor(config({ jenkins: basic, grafana: header, sonar: bearer, dxcp: client(idp), auth0: client(idp, ', client_auth: post', 'portal-post') }), { env: { STAGEDOOR_LOG: 'debug' } });
  const shown = [];
  for (const name of ['jenkins', 'grafana', 'sonar', 'dxcp', 'auth0']) {
    const { seen } = await ask(door, `/${name}/x`);
    shown.push(seen.authorization ?? seen['x-api-key']);
    await fetch(`${door.url}/${name}/x?do=status&n=401`, { headers: ada });
    await fetch(`${door.url}/${name}/x?do=garbage`, { headers: ada });
    await fetch(`${door.url}/${name}/x?do=close`, { headers: ada });
  }
  fs.writeFileSync(path.join(door.folder, 'portal'), 'planted-wrong');
  fs.writeFileSync(path.join(door.folder, 'jenkins'), 'planted-a\nplanted-b');
  await door.reload();
  await ask(door, '/dxcp/x');
  await idp.stop();
  await door.record((r) => r.route === 'auth0' && r.code === 'upstream_reset');
  const everything = { log: door.output(), records: JSON.stringify(door.records()) };
  for (const where of ['/metrics', '/config', '/state', '/jwks']) everything[where] = await (await door.admin(where)).text();
  const explained = execFileSync(binary, ['explain', '-c', door.file, '-p', '/grafana/x', '--as', 'ada', '--workspace', 'payments'], { encoding: 'utf8' });
  everything.explain = explained;
  const secrets = ['planted', secretOf('portal'), secretOf('portal-post'), ...shown.flatMap((value) => value.split(' ')).filter((part) => part.length > 8)];
  for (const [where, text] of Object.entries(everything)) for (const secret of secrets) assert.ok(!text.includes(secret), `${where} holds ${secret}`);
  assert.ok(everything['/config'].includes(`${door.folder}/portal`), 'it says where they are');
  await door.stop();
});
