'use strict';
// Behind a company's proxy: Squid alone knows the names of what is outside, asks who we are, and all that
// leaves goes through it. A stand-in before it can misbehave in its name.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { said } = require('../rig/control');
const { dns } = require('../rig/dns');
const { freePort, until } = require('../rig/ports');
const { squid } = require('../rig/squid');
const { stagedoor } = require('../rig/stagedoor');

const USER = 'stage'; const PASSWORD = 'p@ss:w0rd of the proxy';
const LOGIN = Buffer.from(`${USER}:${PASSWORD}`).toString('base64');
const NAMES = ['api', 'idp', 'sink', 'control', 'token', 'ext'].map((name) => `${name}.outside.test`);
const part = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

let folder; let ca; let names; let parent; let front; let secure; let open; let door; let fronted;
let port; let openPort;
const seen = []; const shipped = [];
const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
const token = () => {
  const now = Math.floor(Date.now() / 1000);
  const message = `${part({ alg: 'ES256', kid: 'one' })}.${part({ iss: `https://idp.outside.test:${port}`, aud: 'stage', sub: 'ada', iat: now, exp: now + 600 })}`;
  return `${message}.${crypto.sign('sha256', Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
/** All that is outside, by the name that it is asked for. */
const outside = (request, response) => {
  const [name] = (request.headers.host ?? '').split('.');
  seen.push({ name, url: request.url, headers: request.headers, raw: request.rawHeaders.join('\n') });
  const json = (value) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  if (name === 'idp' && request.url.startsWith('/.well-known')) return json({ issuer: `https://idp.outside.test:${port}`, jwks_uri: `https://idp.outside.test:${port}/jwks` });
  if (name === 'idp') return json({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'ES256', use: 'sig' }] });
  if (name === 'control') return response.writeHead(200, { 'content-type': 'application/json' }).end(said());
  if (name === 'token') return json({ access_token: 'of-the-issuer', token_type: 'Bearer', expires_in: 600 });
  if (name !== 'sink') return response.end(`hello from ${name}`);
  let body = '';
  request.on('data', (data) => { body += data; }).on('end', () => { shipped.push(...JSON.parse(body).records); response.end(); });
  return undefined;
};

/** What clients take for the parent: Squid, or whatever a test puts in its place. */
const standIn = async () => {
  let act; let open = new Set(); const asked = [];
  const server = net.createServer((socket) => {
    open.add(socket);
    socket.on('error', () => {}).on('close', () => open.delete(socket));
    act(socket);
  });
  const at = await freePort();
  const listen = () => new Promise((resolve) => server.listen(at, '127.0.0.1', resolve));
  const relay = (socket) => {
    const there = net.connect(parent.port, '127.0.0.1');
    there.on('error', () => socket.destroy());
    socket.once('data', (data) => asked.push(String(data)));
    socket.pipe(there).pipe(socket);
  };
  act = relay;
  await listen();
  return {
    port: at,
    /** The heads that it was asked with, on new connections. */
    asked,
    is: (how) => { act = how; },
    answers: (text) => { act = (socket) => socket.once('data', () => socket.end(text)); },
    mend: () => { act = relay; },
    away: () => new Promise((resolve) => { for (const socket of open) socket.destroy(); open = new Set(); server.close(resolve); }),
    back: listen,
    stop: () => new Promise((resolve) => { for (const socket of open) socket.destroy(); server.close(resolve); }),
  };
};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-parent-'));
  ca = authority(folder);
  ca.issue('server', { names: [...NAMES, 'beside.egress.test'] });
  const proxyCa = authority(folder, 'proxy-ca');
  proxyCa.issue('proxy', { names: ['localhost'] });
  fs.writeFileSync(`${folder}/password`, `${PASSWORD}\n`);
  fs.writeFileSync(`${folder}/secret`, 'of the client\n');
  secure = https.createServer({ cert: fs.readFileSync(`${folder}/server.crt`), key: fs.readFileSync(`${folder}/server.key`) }, outside);
  secure.on('upgrade', (request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
    socket.on('data', (data) => socket.write(data)).on('error', () => {});
  });
  open = http.createServer(outside);
  const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
  [port, openPort] = await Promise.all([listen(secure), listen(open)]);
  parent = await squid({ hosts: Object.fromEntries([...NAMES, 'x.forbidden.test', 'evilvetted.egress.test'].map((name) => [name, '127.0.0.1'])), users: { [USER]: PASSWORD }, forbidden: '.forbidden.test' });
  front = await standIn();
  // None of the names outside is here.
  names = await dns({ 'direct.egress.test': { A: ['127.0.0.1'] }, 'vetted.egress.test': { A: ['127.0.0.1'] }, 'beside.egress.test': { A: ['127.0.0.1'] } });
  door = await stagedoor((ports) => config(ports, `{url: "http://127.0.0.1:${front.port}", username: ${USER}, password_file: ${folder}/password, no_proxy: [vetted.egress.test]}`), { audit: `ship: {sink: {kind: webhook, url: "https://sink.outside.test:${port}/hook", ca: ${ca.ca}, interval: 20ms}}` });
});
after(async () => {
  await door?.stop(); await fronted?.stop(); await front?.stop(); await parent?.stop(); await names?.stop();
  for (const server of [secure, open]) { server?.closeAllConnections(); server?.close(); }
  fs.rmSync(folder, { recursive: true, force: true });
});

/** All that leaves, in one config. */
const config = (ports, written) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  out: {kind: forward, address: 127.0.0.1:${ports.tls}, plugin: catalog, workspace: payments}
identity: {issuers: {idp: {issuer: "https://idp.outside.test:${port}", audiences: [stage], algorithms: [ES256], keys: {ca: ${ca.ca}}}}}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 10000/s, burst: 10000}, per_workspace: {rate: 10000/s, burst: 10000}}
credentials:
  key: {kind: oauth2_client_credentials, token_url: "https://token.outside.test:${port}/token", client_id: stage, client_secret_file: ${folder}/secret, ca: ${ca.ca}}
control: {url: "https://control.outside.test:${port}/says", ca: ${ca.ca}, interval: 10m, stale_after: 20m}
upstreams:
  ext: {url: "https://ext.outside.test:${port}", external: true, credential: key, tls: {ca: ${ca.ca}}, breaker: {requests_min: 2, failure_percent: 50}}
  open: {url: "http://ext.outside.test:${openPort}", external: true}
  address: {url: "https://10.9.8.7:${port}", external: true}
routes:
- {name: ext, methods: [GET], path: /ext/**, upstream: ext, class: read, options: {strip_prefix: /ext, public: true}}
- {name: live, methods: [GET], path: /live, upstream: ext, class: read, options: {public: true, upgrade: true}}
- {name: open, methods: [GET], path: /open/**, upstream: open, class: read, options: {strip_prefix: /open, public: true}}
- {name: address, methods: [GET], path: /address, upstream: address, class: read, options: {public: true}}
- {name: mine, methods: [GET], path: /mine, upstream: ext, class: read, options: {workspace: optional}}
egress:
  ${written ? `parent: ${written}` : ''}
  rules:
  - {name: outside, to: ["api.outside.test:${port}", "api.outside.test:${openPort}", "x.forbidden.test:${port}", "10.9.8.7:${port}", "evilvetted.egress.test:${port}"]}
  - {name: here, to: ["direct.egress.test:${port}", "direct.egress.test:${openPort}", "vetted.egress.test:${port}", "beside.egress.test:${port}"]}
  private: [{host: direct.egress.test, addresses: [127.0.0.1/32]}]
  tls_ports: [${port}]
  connect_timeout: 1s
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`;

const curl = (url, { through = door, more = [] } = {}) => new Promise((resolve) => {
  execFile('curl', ['-sS', '-i', '--max-time', '10', '--cacert', `${folder}/ca.crt`, ...(through ? ['-x', `http://127.0.0.1:${through.ports.tls}`] : []), ...more, url], (error, out, err) => resolve(`${out}${err}`));
});
/** What the forward listener says to a CONNECT. */
const connect = (target, through = door) => new Promise((resolve) => {
  const socket = net.connect(through.ports.tls, '127.0.0.1', () => socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`));
  socket.once('data', (data) => { socket.destroy(); resolve(String(data).split('\r\n')[0]); });
  socket.once('error', (error) => resolve(String(error)));
});
const get = async (where, proxy = door, headers = {}) => {
  const answer = await fetch(`${proxy.url}${where}`, { headers });
  return answer.status === 200 ? `200 ${await answer.text()}` : `${answer.status} ${(await answer.json()).code}`;
};
const neverLookedUp = () => assert.deepEqual(names.asked.filter((name) => name.includes('outside')), []);
const lines = (text) => parent.log().filter((line) => line.includes(text));

test('a tunnel goes through the parent, which resolves the name, and the record says so', async () => {
  assert.match(await curl(`https://api.outside.test:${port}/x`), /^HTTP\/1.1 200 Connection Established[^]*hello from api/);
  const record = await door.record((r) => r.target === `api.outside.test:${port}` && r.status === 200);
  assert.deepEqual(
    [record.method, record.egress_rule, record.parent, record.upstream_address, record.resolved, record.hello, record.server_name],
    ['CONNECT', 'outside', `127.0.0.1:${front.port}`, `127.0.0.1:${front.port}`, undefined, 'tls', 'api.outside.test'],
  );
  assert.deepEqual(lines('CONNECT api'), [`200 CONNECT api.outside.test:${port} ${USER}`]);
  neverLookedUp();
  assert.ok(!seen.some((one) => one.raw.toLowerCase().includes('proxy-authorization') || one.raw.includes(LOGIN)), 'the target learns nothing of who we are to the parent');
});

test('within a tunnel the client must speak TLS for the name that it asked for', async () => {
  const says = (hello) => new Promise((resolve) => {
    const socket = net.connect(door.ports.tls, '127.0.0.1');
    socket.once('data', () => hello(socket, resolve));
    socket.write(`CONNECT api.outside.test:${port} HTTP/1.1\r\nHost: api.outside.test:${port}\r\n\r\n`);
  });
  const other = await says((socket, resolve) => tls.connect({ socket, servername: 'idp.outside.test', rejectUnauthorized: false }).once('error', resolve).once('secureConnect', () => resolve('open')));
  assert.match(String(other), /access denied|alert/i);
  await says((socket, resolve) => { socket.write('GET / HTTP/1.1\r\n\r\n'); socket.once('close', resolve); });
  await until('both refusals', async () => door.records().filter((r) => r.code === 'hello_refused').length === 2);
});

test('a plain call asks the parent for the URL that was judged', async () => {
  const asked = `http://API.Outside.test.:${openPort}/plain?a=1`;
  assert.match(await curl(asked), /^HTTP\/1.1 200 [^]*hello from api/);
  assert.equal(lines('GET http://api').at(-1), `200 GET http://api.outside.test:${openPort}/plain? ${USER}`);
  // Records are shipped there meanwhile.
  const { headers, url } = seen.findLast((one) => one.url !== '/hook');
  assert.deepEqual([url, headers.host, headers['proxy-authorization']], ['/plain?a=1', `api.outside.test:${openPort}`, undefined]);
  const record = await door.record((r) => r.path === '/plain');
  assert.deepEqual([record.parent, record.status], [`127.0.0.1:${front.port}`, 200]);
  neverLookedUp();
});

test('addresses, hosts of ours, and what needs no parent are judged as ever', async () => {
  const before = parent.log().length;
  assert.equal(await connect(`10.9.8.7:${port}`), 'HTTP/1.1 403 address_refused');
  assert.equal(await get('/address'), '403 address_refused');
  assert.match(await curl(`http://direct.egress.test:${openPort}/x`), /^HTTP\/1.1 200 [^]*hello from direct/);
  assert.equal(await connect(`direct.egress.test:${port}`), 'HTTP/1.1 200 Connection Established');
  assert.equal(await connect(`vetted.egress.test:${port}`), 'HTTP/1.1 403 address_refused');
  assert.equal(parent.log().length, before, 'none of them was asked of the parent');
  // Its name only ends like one that is reached directly.
  assert.equal(await connect(`evilvetted.egress.test:${port}`), 'HTTP/1.1 200 Connection Established');
  await until('the parent to tell of it', async () => lines('evilvetted').length > 0);
});

test('keys, tokens, the control source and records go through it, and upstreams that are external', async () => {
  assert.equal(await get('/ext/a'), '200 hello from ext');
  assert.equal(seen.at(-1).headers.authorization, 'Bearer of-the-issuer');
  // An answer may be there a moment before its tunnel is free for the next.
  for (let n = 0; n < 5; n += 1) assert.equal(await get('/ext/b'), '200 hello from ext');
  assert.ok(front.asked.filter((head) => head.startsWith('CONNECT ext')).length < 6, 'no tunnel is used again');
  assert.equal(await get('/open/c?d=e'), '200 hello from ext');
  assert.equal(lines(`GET http://ext.outside.test:${openPort}/c?`).length, 1);
  assert.equal(await get('/mine', door, { authorization: `Bearer ${token()}` }), '200 hello from ext');
  const state = await (await door.admin('/state')).json();
  assert.equal(state.control.answered, true, JSON.stringify(state.control));
  await until('records to be shipped', async () => shipped.some((record) => record.path === '/ext/a'));
  for (const name of ['idp', 'token', 'control', 'sink', 'ext']) assert.ok(front.asked.some((head) => head.startsWith(`CONNECT ${name}.outside.test:${port} HTTP/1.1\r\n`)), name);
  assert.ok(front.asked.every((head) => head.toLowerCase().includes(`proxy-authorization: basic ${LOGIN}`.toLowerCase())), 'it knows who asks');
  assert.ok(!seen.some((one) => one.raw.includes(LOGIN)));
  neverLookedUp();
});

test('a WebSocket of an external upstream goes through it', async () => {
  const got = await new Promise((resolve, reject) => {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let all = '';
    socket.on('data', (data) => { all += data; if (all.includes('\r\n\r\n') && !all.includes('ping')) socket.write('ping'); if (all.includes('ping')) { socket.destroy(); resolve(all); } });
    socket.on('error', reject).on('close', () => resolve(all));
    socket.write('GET /live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  });
  assert.match(got, /^HTTP\/1.1 101 [^]*ping$/);
});

test('a parent that refuses, misbehaves or is away is told by a code of its own, and opens no breaker', async () => {
  const both = async (expected, more = expected) => {
    assert.equal(await connect(`api.outside.test:${port}`), `HTTP/1.1 ${expected}`);
    // Another path each time, so that it is no connection of before.
    for (let n = 0; n < 4; n += 1) assert.equal(await get(`/ext/${n}`), more);
  };
  assert.equal(await connect(`x.forbidden.test:${port}`), 'HTTP/1.1 502 parent_refused');
  const refused = await door.record((r) => r.target === `x.forbidden.test:${port}`);
  assert.deepEqual([refused.code, refused.parent], ['parent_refused', `127.0.0.1:${front.port}`]);

  // Connections that are kept would be used.
  await front.away(); await front.back();
  front.answers('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n');
  await both('502 parent_refused');
  const plain = await curl(`http://api.outside.test:${openPort}/x`);
  assert.match(plain, /^HTTP\/1.1 502 /);
  assert.match(plain, /parent_refused/);
  assert.doesNotMatch(plain, /proxy-authenticate/i);
  assert.equal(await get('/open/x'), '502 parent_refused');
  front.answers('HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n');
  await both('502 parent_refused');
  front.answers('220 mail.corp.test ESMTP\r\n\r\n');
  await both('502 parent_malformed');
  front.answers(`HTTP/1.1 200 OK\r\nX: ${'a'.repeat(70000)}\r\n\r\n`);
  await both('502 parent_malformed');
  front.answers('');
  await both('502 parent_unreachable');
  front.is(() => {});
  assert.equal(await connect(`api.outside.test:${port}`), 'HTTP/1.1 504 parent_timeout');
  await front.away();
  await both('502 parent_unreachable');
  assert.equal(await connect(`direct.egress.test:${port}`), 'HTTP/1.1 200 Connection Established', 'what does not need it goes on');
  await front.back();
  front.mend();
  assert.equal(await get('/ext/again'), '200 hello from ext', 'no breaker is open');
  assert.equal(await connect(`api.outside.test:${port}`), 'HTTP/1.1 200 Connection Established');
});

test('a password is read anew, and one that is wrong is told', async () => {
  fs.writeFileSync(`${folder}/password`, 'wrong\n');
  assert.equal((await door.reload()).successful, true);
  assert.equal(await connect(`api.outside.test:${port}`), 'HTTP/1.1 502 parent_refused');
  await door.admin('/reload', { method: 'POST' });
  await until('the log to name the status', async () => door.output().includes(`the parent proxy \`127.0.0.1:${front.port}\` responded with 407`), 10000);
  fs.writeFileSync(`${folder}/password`, `${PASSWORD}\n`);
  assert.equal((await door.reload()).successful, true);
  assert.equal(await connect(`api.outside.test:${port}`), 'HTTP/1.1 200 Connection Established');
  assert.ok(!door.output().includes(PASSWORD) && !door.output().includes(LOGIN), 'no log tells it');
});

test('explain says what becomes of a call', async () => {
  const { binary } = require('../rig/stagedoor');
  const explained = (target) => new Promise((resolve) => {
    execFile(binary, ['explain', '-c', door.file, '--listener', 'out', '--call', target], (_, out, err) => resolve(out + err));
  });
  assert.match(await explained(`api.outside.test:${port}`), new RegExp(`parent +http://127.0.0.1:${front.port}, which resolves the name`));
  assert.match(await explained(`direct.egress.test:${port}`), /address +127.0.0.1, loopback/);
});

test('the environment says where it is, where the config does not; who we are is in no log', async () => {
  const env = { HTTPS_PROXY: `http://${USER}:${encodeURIComponent(PASSWORD)}@127.0.0.1:${parent.port}`, no_proxy: 'vetted.egress.test, .corp.test' };
  const proxy = await stagedoor((ports) => config(ports), { env });
  try {
    assert.match(proxy.output(), new RegExp(`"parent":"http://127.0.0.1:${parent.port}","from":"HTTPS_PROXY","no_proxy":"vetted.egress.test,corp.test"`));
    assert.ok(!proxy.output().includes(encodeURIComponent(PASSWORD)) && !proxy.output().includes(LOGIN));
    assert.match(await curl(`https://api.outside.test:${port}/x`, { through: proxy }), /hello from api/);
    assert.equal(await get('/ext/a', proxy), '200 hello from ext');
    assert.equal(await get('/mine', proxy, { authorization: `Bearer ${token()}` }), '200 hello from ext');
    assert.equal(await connect(`vetted.egress.test:${port}`, proxy), 'HTTP/1.1 403 address_refused');
    // There is no HTTP_PROXY.
    assert.match(await curl(`http://api.outside.test:${openPort}/x`, { through: proxy }), /host_unresolved/);
  } finally { await proxy.stop(); }
});

test('a variable that leads back to a listener of ours is left aside, and told', async () => {
  const at = await freePort();
  const proxy = await stagedoor((ports) => { ports.tls = at; return config(ports).replace(/^control:.*$/m, ''); }, { env: { https_proxy: `http://127.0.0.1:${at}` } });
  try {
    assert.match(proxy.output(), /`HTTPS_PROXY` names our own listener `out`/);
    assert.equal(await connect(`direct.egress.test:${port}`, proxy), 'HTTP/1.1 200 Connection Established');
  } finally { await proxy.stop(); }
});

test('a parent is spoken to within TLS, and must be who it says', async () => {
  // Squid of Debian cannot: TLS is before it.
  const before = tls.createServer({ cert: fs.readFileSync(`${folder}/proxy.crt`), key: fs.readFileSync(`${folder}/proxy.key`) }, (socket) => {
    const there = net.connect(parent.port, '127.0.0.1');
    there.on('error', () => socket.destroy());
    socket.on('error', () => there.destroy());
    socket.pipe(there).pipe(socket);
  });
  await new Promise((resolve) => before.listen(0, '127.0.0.1', resolve));
  const url = (host) => `url: "https://${host}:${before.address().port}", username: ${USER}, password_file: ${folder}/password`;
  try {
    fronted = await stagedoor((ports) => config(ports, `{${url('localhost')}, ca: ${folder}/proxy-ca.crt}`));
    assert.match(await curl(`https://api.outside.test:${port}/x`, { through: fronted }), /hello from api/);
    assert.match(await curl(`http://api.outside.test:${openPort}/x`, { through: fronted }), /hello from api/);
    assert.equal(await get('/ext/a', fronted), '200 hello from ext');
    assert.equal(await get('/open/a', fronted), '200 hello from ext');
    assert.equal(await get('/mine', fronted, { authorization: `Bearer ${token()}` }), '200 hello from ext');
    // Those who vouch for what is outside do not for the parent.
    fs.writeFileSync(fronted.file, fs.readFileSync(fronted.file, 'utf8').replace(`ca: ${folder}/proxy-ca.crt}`, `ca: ${ca.ca}}`));
    assert.equal((await fronted.reload()).successful, true);
    assert.equal(await connect(`api.outside.test:${port}`, fronted), 'HTTP/1.1 502 parent_unreachable');
    assert.equal(await get('/open/b', fronted), '502 parent_unreachable');
  } finally { await fronted?.stop(); fronted = undefined; before.close(); }
});
