'use strict';
// TLS on both sides, HTTP/2, gRPC, certificates that change, and how the process ends.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const https = require('node:https');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { caller, grpc, rpc: startRpc } = require('../rig/rpc');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');
const { until } = require('../rig/ports');

let up; let door; let ca; let clients; let secure; let rpc; let folder;

before(async () => {
  folder = fs.mkdtempSync('/tmp/stagedoor-tls-');
  ca = authority(folder);
  clients = authority(folder, 'clients');
  ca.issue('first', { names: ['first.example', 'localhost'] });
  ca.issue('second', { names: ['*.second.example'] });
  ca.issue('upstream', { names: ['localhost'] });
  ca.issue('elsewhere', { names: ['elsewhere.example'] });
  clients.issue('ci', { uri: 'spiffe://example/ci' });
  clients.issue('stranger');
  up = await upstream();
  // An upstream over TLS that asks for a client certificate and speaks HTTP/2 too.
  secure = http2.createSecureServer({
    allowHTTP1: true, cert: fs.readFileSync(ca.file('upstream.crt')), key: fs.readFileSync(ca.file('upstream.key')),
    ca: fs.readFileSync(clients.ca), requestCert: true,
  }, (request, response) => {
    response.end(JSON.stringify({ version: request.httpVersion, client: request.socket.getPeerCertificate?.()?.subject?.CN ?? request.stream?.session?.socket?.getPeerCertificate()?.subject?.CN }));
  });
  await new Promise((resolve) => secure.listen(0, resolve));
  rpc = await startRpc();
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls:
    kind: reverse
    address: 127.0.0.1:${ports.tls}
    tls:
      certificates:
      - {cert: ${folder}/first.crt, key: ${folder}/first.key}
      - {cert: ${folder}/second.crt, key: ${folder}/second.key}
      client_ca: ${clients.ca}
    limits: {head_timeout: 1s}
${identity(own)}
  client_certificates:
  - {name: "spiffe://example/ci", caller: "service:ci", workspaces: [payments], roles: [robot]}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}, per_client: {rate: 100000/s, burst: 10000}}
upstreams:
  up: {url: ${up.url}}
  secure: {url: "https://localhost:${secure.address().port}", tls: {ca: ${ca.ca}, client_cert: ${folder}/ci.crt, client_key: ${folder}/ci.key}}
  wrong-ca: {url: "https://localhost:${secure.address().port}", tls: {ca: ${clients.ca}}}
  wrong-name: {url: "https://127.0.0.1:${secure.address().port}", tls: {ca: ${ca.ca}}}
  rpc: {url: "http://127.0.0.1:${rpc.port}", http: h2}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true, upgrade: true}}
- {name: read, methods: [ANY], path: /read/**, upstream: up, class: read}
- {name: secure, methods: [GET], path: /secure, upstream: secure, class: read, options: {public: true}}
- {name: wrong-ca, methods: [GET], path: /wrong-ca, upstream: wrong-ca, class: read, options: {public: true}}
- {name: wrong-name, methods: [GET], path: /wrong-name, upstream: wrong-name, class: read, options: {public: true}}
- {name: rpc, methods: [POST], path: "/echo.Echo/{method}", upstream: rpc, class: read, options: {public: true}}
process: {drain_delay: 0s, drain_timeout: 10s}`);
});
after(async () => {
  await door?.stop(); await up?.stop(); secure?.close(); rpc?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

const get = (where, options = {}) => new Promise((resolve, reject) => {
  const request = https.get({ host: '127.0.0.1', port: door.ports.tls, path: where, servername: 'first.example', ca: fs.readFileSync(ca.ca), agent: false, headers: { host: 'first.example' }, ...options }, (answer) => {
    let body = '';
    answer.on('data', (d) => { body += d; });
    answer.on('end', () => resolve({ status: answer.statusCode, body, headers: answer.headers }));
  });
  request.on('error', reject);
});
const hello = (options = {}) => new Promise((resolve, reject) => {
  const socket = tls.connect({ host: '127.0.0.1', port: door.ports.tls, servername: 'first.example', ca: fs.readFileSync(ca.ca), ALPNProtocols: ['h2', 'http/1.1'], ...options }, () => {
    const facts = { names: socket.getPeerCertificate().subjectaltname, serial: socket.getPeerCertificate().serialNumber, protocol: socket.getProtocol(), alpn: socket.alpnProtocol };
    socket.destroy();
    resolve(facts);
  });
  socket.on('error', reject);
});

test('a certificate is chosen by name, and TLS is 1.2 or 1.3', async () => {
  assert.match((await hello()).names, /first\.example/);
  assert.match((await hello({ servername: 'a.second.example' })).names, /second\.example/);
  assert.match((await hello({ servername: 'unknown.example', checkServerIdentity: () => undefined })).names, /first\.example/);
  assert.equal((await hello({ maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' })).protocol, 'TLSv1.2');
  assert.equal((await hello()).protocol, 'TLSv1.3');
  await assert.rejects(hello({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
  assert.equal((await hello()).alpn, 'h2');
  assert.equal((await hello({ ALPNProtocols: ['http/1.1'] })).alpn, 'http/1.1');
});

test('a changed certificate is served at once; a broken one keeps the old and says which file', async () => {
  const before = await hello();
  ca.issue('first', { names: ['first.example', 'localhost'] });
  await until('the new certificate', async () => (await hello()).serial !== before.serial, 15000);
  const serial = (await hello()).serial;
  const good = fs.readFileSync(`${folder}/first.key`);
  fs.copyFileSync(`${folder}/second.key`, `${folder}/first.key`);
  const result = await door.reload();
  assert.match(result.messages.join(), /first\.key`: it is not the key of .*the old certificate is kept/);
  assert.equal((await hello()).serial, serial);
  fs.writeFileSync(`${folder}/first.key`, good);
  await door.reload();
});

test('a client certificate is a caller', async () => {
  const pair = (name) => ({ cert: fs.readFileSync(`${folder}/${name}.crt`), key: fs.readFileSync(`${folder}/${name}.key`) });
  const answer = await get('/read/x', pair('ci'));
  assert.equal(answer.status, 200);
  assert.equal(up.last().headers['x-orbit-user-id'], 'service:ci');
  assert.equal((await get('/read/x', pair('stranger'))).status, 401);
  await assert.rejects(get('/read/x', pair('elsewhere')), 'it is from another authority');
  assert.equal((await get('/read/x')).status, 401);
  const record = await door.record((r) => r.caller === 'service:ci');
  assert.equal(record.proof, 'client_certificate');
});

test('an upstream over TLS is verified, is shown our certificate, and speaks HTTP/2', async () => {
  const answer = await get('/secure');
  assert.deepEqual([answer.status, JSON.parse(answer.body)], [200, { version: '2.0', client: 'ci' }]);
  // Also after a good connection to the same address is in the pool.
  for (const where of ['/wrong-ca', '/wrong-name']) {
    const wrong = await get(where);
    assert.deepEqual([wrong.status, JSON.parse(wrong.body).code], [502, 'upstream_tls'], where);
  }
});

test('an HTTP/2 body of unknown length leaves the upstream connection clean', async () => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'first.example' });
  const post = () => new Promise((resolve, reject) => {
    const stream = session.request({ ':method': 'POST', ':path': '/open/x', ':authority': 'first.example' });
    let body = '';
    stream.on('response', (headers) => { stream.status = headers[':status']; });
    stream.on('data', (d) => { body += d; });
    stream.on('end', () => resolve([stream.status, body]));
    stream.on('error', reject);
    stream.write('part');
    setImmediate(() => stream.end());
  });
  for (let n = 0; n < 30; n += 1) {
    const [status, body] = await post();
    assert.equal(status, 200);
    assert.equal(JSON.parse(body).body, 'part');
  }
  session.close();
});

test('HTTP/2 requests pass the same checks', async () => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'first.example' });
  const ask = (headers) => new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/read/x', ':authority': 'first.example', ...headers });
    stream.on('response', (h) => { resolve(h[':status']); stream.close(); });
    stream.on('error', reject);
    stream.end();
  });
  assert.equal(await ask({}), 401);
  assert.equal(await ask({ authorization: `Bearer ${orbit('ada', ['payments'])}`, 'x-orbit-user-id': 'evil', x_orbit_user_id: 'evil' }), 200);
  assert.equal(up.last().headers['x-orbit-user-id'], 'ada');
  assert.ok(!up.last().raw.includes('evil'));
  assert.equal(await ask({ ':path': '/read/%2e%2e/x' }), 400);
  session.close();
});

test('a head of HTTP/2 that can be read in two ways is refused and on record', async () => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'first.example' });
  const ask = (headers) => new Promise((resolve, reject) => {
    const stream = session.request({ ':path': '/open/x?secret=1', ...headers });
    const came = { body: '' };
    stream.on('response', (head) => { came.head = head; came.status = head[':status']; });
    stream.on('data', (data) => { came.body += data; });
    stream.on('error', reject);
    stream.on('close', () => resolve({ ...came, code: stream.rstCode }));
    stream.end(headers[':method'] === 'POST' ? 'abc' : undefined);
  });
  const bad = [
    { ':authority': 'first.example', host: 'second.example' },
    { ':authority': 'ada@first.example' },
    { ':authority': 'first.example', host: 'second.example', ':method': 'POST' },
  ];
  const seen = up.seen.length;
  for (const headers of bad) {
    const came = await ask(headers);
    assert.equal(came.status, 400);
    assert.match(came.head['content-type'], /^application\/problem\+json/);
    const body = JSON.parse(came.body);
    assert.deepEqual([body.code, body.request_id], ['head_malformed', came.head['x-request-id']]);
    const record = await door.record((r) => r.id === body.request_id);
    assert.deepEqual([record.code, record.status], ['head_malformed', 400]);
    assert.ok(JSON.stringify(record).includes(`${headers[':method'] ?? 'GET'} /open/x`) && !JSON.stringify(record).includes('secret'), JSON.stringify(record));
  }
  const page = await ask({ ...bad[0], accept: 'text/html' });
  assert.match(page.head['content-type'], /^text\/html/);
  const head = await ask({ ...bad[0], ':method': 'HEAD' });
  assert.deepEqual([head.status, head.body, Number(head.head['content-length']) > 0], [400, '', true]);
  assert.equal(up.seen.length, seen, 'nothing reached the upstream');
  assert.match(await (await door.admin('/metrics')).text(), /head_malformed[^}]*\} 5\b/);
  assert.equal((await ask({ ':authority': 'first.example' })).status, 200, 'the connection goes on');
  session.close();
});

test('a client that says nothing after choosing HTTP/2 is cut off', async () => {
  const socket = tls.connect({ host: '127.0.0.1', port: door.ports.tls, servername: 'first.example', ca: fs.readFileSync(ca.ca), ALPNProtocols: ['h2'] });
  const begun = Date.now();
  socket.on('error', () => {});
  socket.resume();
  await new Promise((resolve) => socket.once('close', resolve));
  assert.ok(Date.now() - begun < 8000);
});

test('gRPC passes with its trailers: unary, streams, errors', async () => {
  const call = caller(`localhost:${door.ports.tls}`, grpc.credentials.createSsl(fs.readFileSync(ca.ca)));
  assert.deepEqual(await call.unary('hi'), { text: 'hi', trailers: { 'x-trailer': 'yes' } });
  assert.deepEqual(await call.many(''), ['a', 'b', 'c']);
  assert.deepEqual(await call.both(['1', '2']), ['1', '2']);
  await assert.rejects(call.unary('', undefined, 'Fail'), { code: grpc.status.PERMISSION_DENIED, details: 'no' });
  call.close();
});

test('curl agrees, over HTTP/1.1 and HTTP/2', async () => {
  const curl = (...args) => new Promise((resolve, reject) => execFile('curl', ['-s', '--cacert', ca.ca, '--resolve', `first.example:${door.ports.tls}:127.0.0.1`, '-o', '/dev/null', '-w', '%{http_code} %{http_version}', ...args, `https://first.example:${door.ports.tls}/open/x`], (e, out) => (e ? reject(e) : resolve(out))));
  assert.equal(await curl('--http1.1'), '200 1.1');
  assert.equal(await curl('--http2'), '200 2');
});

test('SIGTERM lets what is under way end, refuses readiness first, and open WebSockets are bounded', async () => {
  const other = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true, upgrade: true}}
process: {drain_delay: 1s, drain_timeout: 3s}`);
  try {
    const slow = fetch(`${other.url}/open/x?do=sse&ms=1500`, { headers: { accept: 'text/event-stream' } }).then((a) => a.text());
    const ws = new WebSocket(`ws://127.0.0.1:${other.ports.edge}/open/ws`);
    ws.on('error', () => {});
    await new Promise((resolve) => ws.once('open', resolve));
    await until('both to be under way', async () => /requests_in_flight 2/.test(await (await other.admin('/metrics')).text()));
    other.signal('SIGTERM');
    await until('readiness to fail', async () => (await other.admin('/readyz')).status === 503);
    assert.equal((await fetch(`${other.url}/open/x`)).status, 200, 'it still serves while a load balancer looks');
    assert.match(await slow, /second/);
    const begun = Date.now();
    assert.equal(await other.ended, 0);
    assert.ok(Date.now() - begun < 8000, 'the WebSocket does not hold it up for ever');
  } finally {
    await other.stop();
  }
});

test('SIGQUIT hands the listeners to a new process and no request is lost', async () => {
  const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
upstreams: {up: {url: ${up.url}}}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true}}
process: {drain_delay: 0s, drain_timeout: 3s, upgrade_socket: ${own}/upgrade.sock}`;
  const old = await stagedoor(config);
  const { start } = require('../rig/process');
  const { binary } = require('../rig/stagedoor');
  let failed = 0; let served = 0; let running = true;
  const agent = new http.Agent({ keepAlive: false });
  const load = Promise.all(Array.from({ length: 4 }, async () => {
    while (running) {
      await new Promise((resolve) => {
        const request = http.get({ port: old.ports.edge, host: '127.0.0.1', path: '/open/x', agent }, (answer) => {
          if (answer.statusCode !== 200) failed += 1; else served += 1;
          answer.resume(); answer.on('end', resolve); answer.on('error', () => { failed += 1; resolve(); });
        });
        request.on('error', () => { failed += 1; resolve(); });
      });
    }
  }));
  const young = start(binary, ['run', '-c', old.file, '--upgrade']);
  try {
    await until('the new process to wait', async () => fs.existsSync(`${old.folder}/upgrade.sock`));
    old.signal('SIGQUIT');
    await old.ended;
    const before = served;
    await until('the new process to serve', async () => served > before + 50);
    running = false;
    await load;
    assert.equal(failed, 0);
    assert.ok(young.isRunning(), young.output());
  } finally {
    running = false;
    await young.stop('SIGINT');
    // It has ended already, but its folder is there.
    await old.stop();
  }
});
