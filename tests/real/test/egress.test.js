'use strict';
// The way out: clients that Backstage's plugins use, through the forward proxy, to where they may go
// and nowhere else. Names come from a DNS server of the test's own.

const assert = require('node:assert/strict');
const { execFile, execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { call } = require('../rig/calling');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { freePort, until } = require('../rig/ports');
const { start } = require('../rig/process');
const { stagedoor } = require('../rig/stagedoor');

const PASSWORD = 'a-password-of-the-catalog';
const NAMES = ['api.egress.test', 'other.egress.test', 'flip.egress.test', 'alias.egress.test', 'six.egress.test', 'wide.egress.test'];

let door; let names; let secure; let open; let ca; let folder; let httpsPort; let httpPort; let rawPort; let raw;
const seen = [];

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-egress-'));
  ca = authority(folder);
  ca.issue('server', { names: NAMES });
  ca.issue('proxy', { names: ['localhost', '127.0.0.1'] });
  ca.issue('scaffolder', { names: ['scaffolder'] });
  fs.writeFileSync(`${folder}/password`, `${PASSWORD}\n`);
  // A repository that is served as files.
  const git = (...args) => execFileSync('git', args, { cwd: folder, stdio: 'pipe', env: { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null' } });
  git('init', '-q', 'work');
  git('-C', 'work', '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-q', '--allow-empty', '-m', 'first');
  git('clone', '-q', '--bare', 'work', 'repo.git');
  git('-C', 'repo.git', 'update-server-info');
  const serve = (request, response) => {
    seen.push({ url: request.url, headers: request.headers, raw: request.rawHeaders.join('\n') });
    const file = path.join(folder, request.url.split('?')[0]);
    if (request.url.startsWith('/repo.git/')) return fs.existsSync(file) && fs.statSync(file).isFile() ? fs.createReadStream(file).pipe(response) : response.writeHead(404).end();
    if (request.url === '/silent') return undefined;
    if (request.method === 'POST') return request.pipe(response);
    if (request.url === '/large') return response.end(Buffer.alloc(5 << 20, 'x'));
    return response.end('hello from outside');
  };
  secure = https.createServer({ cert: fs.readFileSync(`${folder}/server.crt`), key: fs.readFileSync(`${folder}/server.key`) }, serve);
  open = http.createServer(serve);
  // Whatever comes, and then its own goodbye.
  raw = net.createServer({ allowHalfOpen: true }, (socket) => {
    let got = '';
    socket.on('data', (data) => { got += data; });
    socket.on('end', () => socket.end(`got ${got}`));
    socket.on('error', () => {});
  });
  const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
  [httpsPort, httpPort, rawPort] = await Promise.all([listen(secure), listen(open), listen(raw)]);
  names = await dns({
    'api.egress.test': { A: ['127.0.0.1'] },
    'other.egress.test': { A: ['127.0.0.1'] },
    'wide.egress.test': { A: ['127.0.0.1'] },
    'alias.egress.test': { CNAME: 'inside.egress.test' },
    'inside.egress.test': { A: ['10.0.0.7'] },
    'six.egress.test': { AAAA: ['::ffff:127.0.0.1', '64:ff9b::7f00:1', 'fd00::1'] },
    'meta.egress.test': { A: ['169.254.169.254'] },
    'mute.egress.test': () => null,
    'dead.egress.test': { A: ['127.0.0.1'] },
    'several.egress.test': { A: ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.1', '127.0.0.5'] },
    'all-dead.egress.test': { A: ['127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5'] },
    'swallowed.egress.test': { A: ['127.0.0.9', '127.0.0.2', '127.0.0.3', '127.0.0.1'] },
  });
  const [dead, asking, learning] = await Promise.all([freePort(), freePort(), freePort()]);
  names.dead = dead;
  const hosts = ['api', 'alias', 'six', 'meta', 'mute', 'none', 'flip'].map((name) => `${name}.egress.test:${httpsPort}`);
  door = await stagedoor((ports) => `
listeners:
  egress: {kind: forward, address: 127.0.0.1:${ports.edge}, plugin: catalog, workspace: payments, limits: {body_max: 100KiB}}
  asking: {kind: forward, address: 127.0.0.1:${asking}, limits: {head_timeout: 1s, head_max: 16KiB}}
  gateway:
    kind: forward
    address: 127.0.0.1:${ports.tls}
    tls: {certificates: [{cert: ${folder}/proxy.crt, key: ${folder}/proxy.key}], client_ca: ${folder}/ca.crt}
  learning: {kind: forward, address: 127.0.0.1:${learning}, workspace: web, report_only: true}
identity:
  client_certificates: [{name: scaffolder, caller: "service:scaffolder", workspaces: [web], plugin: scaffolder}]
workspaces: {named: {payments: {}, web: {}}}
rate_limit: {per_client: {rate: 10000/s, burst: 10000}}
egress:
  hosts: {outside: ["${hosts.join('", "')}"]}
  rules:
  - {name: catalog, to: [outside, "api.egress.test:${httpPort}", "api.egress.test:${rawPort}", "dead.egress.test:${dead}"], plugins: [catalog]}
  - {name: several, to: ["several.egress.test:${httpPort}", "all-dead.egress.test:${httpPort}", "swallowed.egress.test:${httpPort}"], plugins: [catalog]}
  - {name: scaffolder, to: ["other.egress.test:${httpsPort}"], plugins: [scaffolder]}
  - {name: over, to: ["api.egress.test:9"], plugins: [catalog], expires: 2020-01-01}
  private:
  - {host: "*.egress.test:${httpsPort}", addresses: [127.0.0.1/32]}
  - {host: "*.egress.test:${httpPort}", addresses: [127.0.0.1/32]}
  - {host: "several.egress.test:${httpPort}", addresses: [127.0.0.0/28]}
  - {host: "all-dead.egress.test:${httpPort}", addresses: [127.0.0.0/28]}
  - {host: "swallowed.egress.test:${httpPort}", addresses: [127.0.0.0/28]}
  - {host: "*.egress.test:${rawPort}", addresses: [127.0.0.1/32]}
  - {host: "dead.egress.test:${dead}", addresses: [127.0.0.1/32]}
  callers: {catalog: {password_file: ${folder}/password, workspace: payments, plugin: catalog}}
  tls_ports: [${httpsPort}]
  client_hello_timeout: 1s
  idle_timeout: 2s
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`);
  Object.assign(door.ports, { asking, learning });
});
after(async () => {
  await door?.stop(); await names?.stop();
  for (const server of [secure, open, raw]) { server?.closeAllConnections?.(); server?.close(); }
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Sends a head, and answers all that comes until the proxy is silent or closes. */
const ask = (text, { port = door.ports.edge, patience = 8000, until: enough = () => false } = {}) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1');
  let got = '';
  socket.setTimeout(patience, () => socket.destroy());
  socket.on('data', (data) => { got += data; if (enough(got)) socket.destroy(); });
  socket.on('error', () => {});
  socket.on('close', () => resolve(got));
  socket.write(text);
});
const connect = (target, { lines = '', ...options } = {}) => ask(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${lines}\r\n`, { until: (got) => got.includes('\r\n\r\n'), ...options });
const first = (answer) => answer.split('\r\n')[0];
/** A TLS connection through a tunnel. */
const through = (target, { servername, port = door.ports.edge } = {}) => new Promise((resolve, reject) => {
  const socket = net.connect(port, '127.0.0.1');
  socket.once('data', (data) => {
    if (!String(data).startsWith('HTTP/1.1 200')) { socket.destroy(); return reject(new Error(String(data).split('\r\n')[0])); }
    const client = tls.connect({ socket, servername: servername ?? target.split(':')[0], ca: fs.readFileSync(`${folder}/ca.crt`), checkServerIdentity: () => undefined });
    client.once('secureConnect', () => resolve(client));
    client.once('error', reject);
    return undefined;
  });
  socket.once('error', reject);
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
});
const run = (client, url, env = {}) => call(client, url, `http://127.0.0.1:${door.ports.edge}`, { NODE_EXTRA_CA_CERTS: `${folder}/ca.crt`, ...env });

test('every client that plugins use goes through, and is on record', async () => {
  for (const client of ['fetch', 'node-fetch', 'cross-fetch', 'axios', 'got', 'octokit', 'https', 'https without an agent']) {
    const before = door.records().length;
    assert.equal(await run(client, `https://api.egress.test:${httpsPort}/x`), '200 hello from outside', client);
    const record = await until('its record', async () => door.records().slice(before).find((r) => r.target), 5000);
    assert.deepEqual(
      { method: record.method, target: record.target, rule: record.egress_rule, plugin: record.plugin, workspace: record.workspace, decision: record.decision, strength: record.identity_strength, address: record.upstream_address },
      { method: 'CONNECT', target: `api.egress.test:${httpsPort}`, rule: 'catalog', plugin: 'catalog', workspace: 'payments', decision: 'allow', strength: 'listener', address: `127.0.0.1:${httpsPort}` },
      client,
    );
    assert.ok(record.bytes_in > 100 && record.bytes_out > 100);
  }
});

test('what a client says of a refusal names the code, where it can', async () => {
  const url = `https://other.egress.test:${httpsPort}/x`;
  for (const client of ['node-fetch', 'axios', 'https without an agent']) assert.match(await run(client, url), /failed: .*403 host_refused/, client);
  assert.match(await run('fetch', url), /^failed: /);
});

test('a plain request goes out in origin form, without what was meant for the proxy', async () => {
  const line = `GET http://api.egress.test:${httpPort}/plain?a=1 HTTP/1.1`;
  const answer = await ask(`${line}\r\nHost: api.egress.test:${httpPort}\r\nProxy-Authorization: Basic ${Buffer.from(`catalog:${PASSWORD}`).toString('base64')}\r\nProxy-Connection: keep-alive\r\nX-Mine: 1\r\nConnection: close\r\n\r\n`);
  assert.match(answer, /^HTTP\/1.1 200 [^]*hello from outside$/);
  const { url, headers } = seen.at(-1);
  assert.deepEqual([url, headers.host, headers['x-mine'], headers['proxy-authorization'], headers['proxy-connection']], ['/plain?a=1', `api.egress.test:${httpPort}`, '1', undefined, undefined]);
  const record = await door.record((r) => r.path === '/plain');
  assert.deepEqual([record.target, record.egress_rule, record.status], [`api.egress.test:${httpPort}`, 'catalog', 200]);
  assert.equal(await run('node-fetch', `http://api.egress.test:${httpPort}/x`), '200 hello from outside');
});

const post = (host, body) => ask(`POST http://${host}:${httpPort}/posted HTTP/1.1\r\nHost: ${host}:${httpPort}\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`);

test('a plain request goes to the first address that can be connected to, whole and once', async () => {
  seen.length = 0;
  assert.match(await post('several.egress.test', 'a whole body'), /^HTTP\/1.1 200 [^]*a whole body/);
  assert.equal(seen.length, 1);
  const record = await door.record((r) => r.target === `several.egress.test:${httpPort}`);
  assert.deepEqual([record.upstream_address, record.status, record.bytes_in], [`127.0.0.1:${httpPort}`, 200, 12]);
  assert.match(await post('all-dead.egress.test', 'a whole body'), /^HTTP\/1.1 502 [^]*upstream_unreachable/);
  assert.equal(seen.length, 1);
});

test('an address that swallows packets leaves time for the others', async () => {
  // Its queue is full and nobody takes from it, so what comes more is dropped.
  const stopped = start(process.execPath, ['-e', `net.createServer().listen({ port: ${httpPort}, host: '127.0.0.9', backlog: 1 }, () => console.log('listens'))`]);
  await until('it to listen', async () => stopped.output().includes('listens'));
  stopped.signal('SIGSTOP');
  await until('it to stand still', async () => fs.readFileSync(`/proc/${stopped.pid}/stat`, 'utf8').includes(') T '));
  let connected = 0;
  const waiting = Array.from({ length: 4 }, () => net.connect(httpPort, '127.0.0.9', () => { connected += 1; }).on('error', () => {}));
  await until('its queue to be full', async () => connected === 2);
  assert.match(await post('swallowed.egress.test', 'late'), /^HTTP\/1.1 200 [^]*late/);
  const record = await door.record((r) => r.target === `swallowed.egress.test:${httpPort}`);
  // Of four addresses each has a quarter of the 5 s.
  assert.ok(record.duration_us > 1.2e6 && record.duration_us < 5e6, String(record.duration_us));
  for (const socket of waiting) socket.destroy();
  await stopped.stop('SIGKILL');
});

test('a host that is silent to a plain request is waited for as long as to a tunnel', async () => {
  const silent = await ask(`GET http://api.egress.test:${httpPort}/silent HTTP/1.1\r\nHost: api.egress.test:${httpPort}\r\nConnection: close\r\n\r\n`, { patience: 50000 });
  assert.match(silent, /^HTTP\/1.1 504 [^]*upstream_timeout/);
  const record = await door.record((r) => r.code === 'upstream_timeout');
  assert.ok(record.duration_us >= 2e6, String(record.duration_us));
});

test('a host that no rule allows is refused, and not even looked up', async () => {
  names.asked.length = 0;
  const refused = [
    `other.egress.test:${httpsPort}`, `api.egress.test:1`, `evilapi.egress.test:${httpsPort}`, `api.egress.test.evil.com:${httpsPort}`,
    'xn--pi-6kc.egress.test:443', `127.0.0.1:${httpsPort}`, `[::1]:${httpsPort}`, '[::ffff:127.0.0.1]:443', '169.254.169.254:80', 'api.egress.test:9',
  ];
  for (const target of refused) assert.equal(first(await connect(target)), 'HTTP/1.1 403 host_refused', target);
  assert.equal(first(await ask(`GET http://other.egress.test:${httpPort}/ HTTP/1.1\r\nHost: other.egress.test:${httpPort}\r\nConnection: close\r\n\r\n`)), 'HTTP/1.1 403 Forbidden');
  assert.deepEqual(names.asked, []);
  // The same name in another spelling is the same name.
  assert.match(await connect(`API.Egress.TEST.:${httpsPort}`), /^HTTP\/1.1 200/);
});

test('a target says the host, whatever stands beside it', async () => {
  const there = `api.egress.test:${httpPort}`;
  assert.match(first(await ask(`CONNECT api.egress.test:${httpsPort} HTTP/1.1\r\nHost: evil.com\r\n\r\n`, { until: (got) => got.includes('\r\n\r\n') })), /^HTTP\/1.1 200 /);
  assert.equal(first(await ask(`CONNECT other.egress.test:${httpsPort} HTTP/1.1\r\nHost: api.egress.test:${httpsPort}\r\n\r\n`)), 'HTTP/1.1 403 host_refused');
  assert.match(await ask(`GET http://${there}/beside HTTP/1.1\r\nA: 1\r\nHost: evil.com\r\nConnection: close\r\n\r\n`), /^HTTP\/1.1 200 /);
  assert.deepEqual([seen.at(-1).url, seen.at(-1).headers.host, seen.at(-1).headers.a], ['/beside', there, '1']);
  assert.equal(first(await ask(`GET http://other.egress.test:${httpPort}/ HTTP/1.1\r\nHost: ${there}\r\nConnection: close\r\n\r\n`)), 'HTTP/1.1 403 Forbidden');
  for (const host of ['evil.com:99999', 'a b', 'user@evil.com']) {
    assert.match(first(await ask(`CONNECT api.egress.test:${httpsPort} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)), /^HTTP\/1.1 400 /, host);
  }
});

test('a target that could be read in two ways is refused', async () => {
  const bad = [
    'api.egress.test', `api.egress.test:`, 'api.egress.test:0', 'api.egress.test:65536', 'api.egress.test:0443', `user@api.egress.test:${httpsPort}`,
    `api.egress.test:${httpsPort}@evil.com:443`, '0x7f.1:443', '2130706433:443', '017700000001:443', '127.1:443', '127.0.0.1.:443', '0.0.0.0x0:443', `api..egress.test:${httpsPort}`, 'xn--a-.test:443', 'a%2e.test:443',
  ];
  for (const target of bad) assert.equal(first(await ask(`CONNECT ${target} HTTP/1.1\r\nHost: api.egress.test:${httpsPort}\r\n\r\n`)), 'HTTP/1.1 400 target_invalid', target);
  const record = await door.record((r) => r.code === 'target_invalid');
  assert.deepEqual([record.method, record.host], ['CONNECT', 'api.egress.test'], 'what was asked for is on record');
  assert.match(first(await ask('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')), /^HTTP\/1.1 400 /);
  assert.match(first(await ask(`GET https://api.egress.test:${httpsPort}/ HTTP/1.1\r\nHost: api.egress.test:${httpsPort}\r\nConnection: close\r\n\r\n`)), /^HTTP\/1.1 400 /);
});

test('an allowed name does not lead into a network of ours, whatever it resolves to', async () => {
  for (const name of ['alias', 'six', 'meta']) {
    assert.equal(first(await connect(`${name}.egress.test:${httpsPort}`)), 'HTTP/1.1 403 address_refused', name);
  }
  for (const [ip, family] of [['0.0.0.0', 'A'], ['100.64.0.1', 'A'], ['127.0.0.2', 'A'], ['192.168.1.1', 'A'], ['224.0.0.1', 'A'], ['255.255.255.255', 'A'], ['::1', 'AAAA'], ['::7f00:1', 'AAAA'], ['2002:7f00:1::', 'AAAA'], ['2001:0:4136:e378:8000:63bf:3fff:fdd2', 'AAAA'], ['fe80::1', 'AAAA'], ['64:ff9b:1::a00:1', 'AAAA']]) {
    names.zone['flip.egress.test'] = { [family]: [ip] };
    assert.equal(first(await connect(`flip.egress.test:${httpsPort}`)), 'HTTP/1.1 403 address_refused', ip);
  }
});

test('a name that flips between lookups gains nothing: the address that passed is the one dialled', async () => {
  let asks = 0;
  names.zone['flip.egress.test'] = (type) => {
    if (type !== 'A') return {};
    asks += 1;
    return { A: [asks % 2 ? '127.0.0.1' : '169.254.169.254'] };
  };
  for (let n = 0; n < 6; n += 1) {
    const answer = first(await connect(`flip.egress.test:${httpsPort}`));
    const record = await until('its record', async () => door.records().filter((r) => r.target === `flip.egress.test:${httpsPort}` && r.upstream_address !== undefined || r.code === 'address_refused').at(-1));
    assert.ok(/200|403 address_refused/.test(answer), answer);
    assert.ok(record.upstream_address === undefined || record.upstream_address === `127.0.0.1:${httpsPort}`);
  }
  assert.equal(asks, 6, 'one lookup for each call');
  // One of several is enough, and only that one is dialled.
  names.zone['flip.egress.test'] = { A: ['10.0.0.1', '127.0.0.1'] };
  const client = await through(`flip.egress.test:${httpsPort}`);
  client.destroy();
});

test('a name without an address, and a resolver that says nothing, are told apart from a refusal', async () => {
  assert.equal(first(await connect(`none.egress.test:${httpsPort}`)), 'HTTP/1.1 502 host_unresolved');
  assert.equal(first(await connect(`mute.egress.test:${httpsPort}`)), 'HTTP/1.1 502 host_unresolved');
  assert.equal(first(await connect(`dead.egress.test:${names.dead}`)), 'HTTP/1.1 502 upstream_unreachable');
});

test('in a tunnel to a TLS port the client must ask for the host of the tunnel', async () => {
  const target = `api.egress.test:${httpsPort}`;
  const before = seen.length;
  await assert.rejects(through(target, { servername: 'other.egress.test' }), /alert|closed|disconnected|reset/i);
  const said = (text) => new Promise((resolve) => {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let got = '';
    socket.on('data', (data) => { if (!got) socket.write(text); got += data.toString('latin1'); });
    socket.on('error', () => {});
    socket.on('close', () => resolve(got));
    socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  });
  assert.match(await said('GET / HTTP/1.1\r\nHost: api.egress.test\r\n\r\n'), /^HTTP\/1.1 200 [^]*\x15\x03\x03/);
  await said('\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00');
  assert.equal(seen.length, before, 'nothing reached the host');
  const codes = await until('the records', async () => { const all = door.records().filter((r) => r.code === 'hello_refused'); return all.length >= 3 && all; }, 5000);
  assert.ok(codes.every((r) => r.decision === 'deny' && r.status === 200 && r.bytes_in === 0), JSON.stringify(codes));
  // Without a word in time.
  await ask(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  await door.record((r) => r.code === 'hello_timeout');
});

test('a plain request to a TLS port is refused, and so is a body over the limit', async () => {
  const head = (port, lines = '') => `POST http://api.egress.test:${port}/ HTTP/1.1\r\nHost: api.egress.test:${port}\r\nConnection: close\r\n${lines}\r\n`;
  assert.match(await ask(head(httpsPort, 'Content-Length: 0\r\n')), /^HTTP\/1.1 403 [^]*hello_refused/);
  const large = 'x'.repeat(200 * 1024);
  assert.match(await ask(`${head(httpPort, `Content-Length: ${large.length}\r\n`)}${large}`), /^HTTP\/1.1 413 [^]*body_too_large/);
  await door.record((r) => r.code === 'body_too_large' && r.target === `api.egress.test:${httpPort}`);
});

test('a hello in pieces is read as one, and bytes that came early are kept in order', async () => {
  const target = `api.egress.test:${httpsPort}`;
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  socket.setNoDelay(true);
  const answered = new Promise((resolve) => socket.once('data', resolve));
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`);
  assert.match(String(await answered), /^HTTP\/1.1 200/);
  // Every write of the TLS client goes out in two pieces.
  const { Duplex } = require('node:stream');
  const pieces = new Duplex({
    read() {},
    write(chunk, _, done) { socket.write(chunk.subarray(0, 7), () => socket.write(chunk.subarray(7), done)); },
  });
  socket.on('data', (data) => pieces.push(data));
  const client = tls.connect({ socket: pieces, servername: 'api.egress.test', ca: fs.readFileSync(`${folder}/ca.crt`) });
  await new Promise((resolve, reject) => { client.once('secureConnect', resolve); client.once('error', reject); });
  client.write('GET /pieces HTTP/1.1\r\nHost: api.egress.test\r\nConnection: close\r\n\r\n');
  let got = '';
  for await (const data of client) { got += data; if (got.includes('hello from outside')) break; }
  assert.match(got, /hello from outside/);
  socket.destroy();
  // On a port that is not for TLS all that follows the head is the host's, and each half ends alone.
  const answer = await new Promise((resolve) => {
    const early = net.connect({ port: door.ports.edge, host: '127.0.0.1', allowHalfOpen: true });
    let all = '';
    early.on('data', (data) => { all += data; });
    early.on('end', () => { early.destroy(); resolve(all); });
    early.end(`CONNECT api.egress.test:${rawPort} HTTP/1.1\r\nHost: api.egress.test:${rawPort}\r\n\r\none two three`);
  });
  assert.match(answer, /^HTTP\/1.1 200 [^]*got one two three$/);
});

test('a large answer passes whole, a silent tunnel is closed, and so is one whose client is gone', async () => {
  const client = await through(`api.egress.test:${httpsPort}`);
  client.write('GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  let length = 0;
  for await (const data of client) length += data.length;
  assert.ok(length > 5 << 20);
  const silent = await through(`api.egress.test:${httpsPort}`);
  await new Promise((resolve) => { silent.once('close', resolve); silent.resume(); silent.on('error', () => {}); });
  const gone = await through(`api.egress.test:${httpsPort}`);
  gone.destroy();
  await until('no call to be left', async () => /stagedoor_calls_in_flight 0/.test(await (await door.admin('/metrics')).text()), 8000);
});

test('who calls: a password, a certificate, or nobody', async () => {
  const target = `api.egress.test:${httpsPort}`;
  const basic = (name, password) => `Proxy-Authorization: Basic ${Buffer.from(`${name}:${password}`).toString('base64')}\r\n`;
  const at = { port: door.ports.asking };
  const nobody = await connect(target, at);
  assert.equal(first(nobody), 'HTTP/1.1 407 caller_missing');
  assert.match(nobody, /Proxy-Authenticate: Basic/);
  assert.equal(first(await connect(target, { ...at, lines: basic('catalog', 'wrong password!!') })), 'HTTP/1.1 407 password_wrong');
  assert.equal(first(await connect(target, { ...at, lines: basic('nobody', PASSWORD) })), 'HTTP/1.1 407 password_wrong');
  assert.equal(first(await connect(target, { ...at, lines: basic('catalog', PASSWORD).repeat(2) })), 'HTTP/1.1 400 authorization_ambiguous');
  assert.match(await connect(target, { ...at, lines: basic('catalog', PASSWORD) }), /^HTTP\/1.1 200/);
  const known = await door.record((r) => r.proof === 'password');
  assert.deepEqual([known.caller, known.workspace, known.plugin, known.identity_strength], ['catalog', 'payments', 'catalog', 'shared_secret']);
  const url = (user) => run('node-fetch', `https://${target}/x`, { HTTPS_PROXY: `http://${user}@127.0.0.1:${door.ports.asking}` });
  assert.equal(await url(`catalog:${encodeURIComponent(PASSWORD)}`), '200 hello from outside');
  // A central gateway: TLS, and the client's certificate says which plugin it is.
  const curl = (host, ...args) => new Promise((resolve) => execFile('curl', ['-s', '-o', '/dev/null', '-w', '%{http_connect} %{http_code}', '--proxy', `https://localhost:${door.ports.tls}`, '--proxy-cacert', `${folder}/ca.crt`, '--cacert', `${folder}/ca.crt`, ...args, `https://${host}:${httpsPort}/x`], (_, out) => resolve(out)));
  const certificate = ['--proxy-cert', `${folder}/scaffolder.crt`, '--proxy-key', `${folder}/scaffolder.key`];
  assert.equal(await curl('other.egress.test', ...certificate), '200 200');
  const proven = await door.record((r) => r.proof === 'client_certificate');
  assert.deepEqual([proven.caller, proven.workspace, proven.plugin, proven.identity_strength], ['service:scaffolder', 'web', 'scaffolder', 'certificate']);
  assert.equal(await curl('api.egress.test', ...certificate), '403 000');
  assert.equal(await curl('other.egress.test'), '407 000');
});

test('a password that is rotated in its file is taken over, and is nowhere to be read', async () => {
  const target = `api.egress.test:${httpsPort}`;
  const lines = (password) => `Proxy-Authorization: Basic ${Buffer.from(`catalog:${password}`).toString('base64')}\r\n`;
  const next = 'another-password-of-the-catalog';
  fs.writeFileSync(`${folder}/password`, next);
  await until('the new one', async () => (await connect(target, { port: door.ports.asking, lines: lines(next) })).startsWith('HTTP/1.1 200'));
  assert.equal(first(await connect(target, { port: door.ports.asking, lines: lines(PASSWORD) })), 'HTTP/1.1 407 password_wrong');
  const everything = JSON.stringify(door.records()) + door.output() + await (await door.admin('/metrics')).text() + await (await door.admin('/config')).text() + await (await door.admin('/state')).text();
  for (const secret of [PASSWORD, next, Buffer.from(`catalog:${next}`).toString('base64')]) assert.ok(!everything.includes(secret));
});

test('a listener that only reports lets pass what would be refused, but never to loopback or metadata', async () => {
  const learning = { port: door.ports.learning };
  const client = await through(`wide.egress.test:${httpsPort}`, learning);
  client.destroy();
  const record = await door.record((r) => r.target === `wide.egress.test:${httpsPort}`);
  assert.deepEqual([record.decision, record.would_deny, record.egress_rule], ['allow', 'host_refused', undefined]);
  assert.match(await (await door.admin('/metrics')).text(), /stagedoor_calls_total\{decision="would_deny",rule="none"\} [1-9]/);
  assert.equal(first(await connect(`meta.egress.test:${httpsPort}`, learning)), 'HTTP/1.1 403 address_refused');
  assert.equal(first(await connect(`127.0.0.1:${httpPort}`, learning)), 'HTTP/1.1 403 address_refused');
  const refused = await door.record((r) => r.target === `meta.egress.test:${httpsPort}` && r.listener === 'learning');
  assert.deepEqual([refused.decision, refused.code, refused.would_deny], ['deny', 'address_refused', undefined], 'it was refused: nothing would be');
});

test('slow and oversized heads are cut off here too', async () => {
  const at = { port: door.ports.asking };
  assert.match(await ask('CONNECT a:1 HTTP/1.1\r\n', at), /^HTTP\/1.1 408 /);
  assert.match(await ask(`CONNECT a:1 HTTP/1.1\r\nX: ${'x'.repeat(20000)}\r\n\r\n`, at), /^HTTP\/1.1 431 /);
  assert.match(await ask('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\nhello', at), /^HTTP\/1.1 400 /);
});

test('git clones through a tunnel', async () => {
  const clone = (host, to) => new Promise((resolve) => execFile('git', ['-c', `http.proxy=http://127.0.0.1:${door.ports.edge}`, 'clone', '-q', `https://${host}:${httpsPort}/repo.git`, to], {
    cwd: folder, env: { ...process.env, GIT_SSL_CAINFO: `${folder}/ca.crt`, GIT_CONFIG_GLOBAL: '/dev/null', no_proxy: '', NO_PROXY: '' },
  }, (error, _, err) => resolve(error ? err : 'cloned')));
  assert.equal(await clone('api.egress.test', 'cloned'), 'cloned');
  assert.match(await clone('other.egress.test', 'refused'), /403/);
});

test('SIGTERM bounds open tunnels, and each is on record', async () => {
  const client = await through(`api.egress.test:${httpsPort}`);
  const closed = new Promise((resolve) => { client.once('close', resolve); client.on('error', () => {}); client.resume(); });
  // Kept busy, so that it is not closed for being silent.
  const busy = setInterval(() => client.write('GET /x HTTP/1.1\r\nHost: a\r\n\r\n'), 200);
  const before = door.records().length;
  door.signal('SIGTERM');
  await closed;
  clearInterval(busy);
  assert.equal(await door.ended, 0);
  const record = door.records().slice(before).find((r) => r.cut);
  assert.deepEqual([record?.target, record?.cut, record?.decision], [`api.egress.test:${httpsPort}`, true, 'allow']);
});
