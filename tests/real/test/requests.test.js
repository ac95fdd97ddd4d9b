'use strict';
// What a request may look like, and what becomes of what it must not say: over HTTP/1.1 and HTTP/2, by clients
// that nobody here wrote, and byte by byte where none of them would send it.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const h2 = require('../rig/frames');
const { stagedoor } = require('../rig/stagedoor');
const { upstream, raw } = require('../rig/upstream');
const { freePort, until } = require('../rig/ports');

let up; let door; let ca; let folder; let early;

before(async () => {
  folder = fs.mkdtempSync('/tmp/stagedoor-requests-');
  ca = authority(folder);
  ca.issue('portal', { names: ['portal.example', 'localhost'] });
  up = await upstream();
  early = await earlyBird();
  const pair = `certificates: [{cert: ${folder}/portal.crt, key: ${folder}/portal.key}]`;
  const [behind, few] = [await freePort(), await freePort()];
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, limits: {head_timeout: 2s, body_timeout: 2s, keepalive_timeout: 3s}}
  behind: {kind: reverse, address: 127.0.0.1:${behind}, trusted_proxies: [127.0.0.1/32]}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {${pair}}, limits: {body_timeout: 2s}}
  few: {kind: reverse, address: 127.0.0.1:${few}, tls: {${pair}}, limits: {head_timeout: 3s, handshakes_max: 20, handshakes_per_client_max: 5}}
workspaces: {named: {payments: {}}}
headers: {remove: [x-internal-*, x-team]}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
upstreams:
  up: {url: ${up.url}, breaker: {requests_min: 1000000}}
  kept: {url: ${up.url}, preserve_host: true}
  early: {url: "http://127.0.0.1:${early.port}", breaker: {requests_min: 1000000}}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true}}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, options: {public: true}}
- {name: sign-in, methods: [GET], path: /sign-in, upstream: up, class: read, options: {public: true, unsafe_get: true}}
- {name: bytes, methods: [GET], path: /bytes/**, upstream: up, class: read, options: {public: true, any_bytes: true}}
- {name: kept, methods: [GET], path: /kept, hosts: [portal.example], upstream: kept, class: read, options: {public: true}}
- {name: early, methods: [POST], path: /early/**, upstream: early, class: read, options: {public: true}}`);
  Object.assign(door.ports, { behind, few });
});
after(async () => {
  await door?.stop(); await up?.stop(); early?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** An upstream that answers a request's head, whatever of its body is still to come. */
async function earlyBird() {
  const seen = [];
  const server = net.createServer((socket) => {
    const connection = [];
    seen.push(connection);
    let got = '';
    let answered = false;
    socket.on('data', (data) => {
      connection.push(data.toString('latin1'));
      got += data.toString('latin1');
      if (answered || !got.includes('\r\n\r\n')) return;
      answered = true;
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly');
    });
    socket.on('error', () => {});
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: server.address().port, seen, stop: () => server.close() };
}

const curl = (...args) => new Promise((resolve, reject) => {
  execFile('curl', ['-s', '--max-time', '10', '--cacert', ca.ca, '--resolve', `portal.example:${door.ports.tls}:127.0.0.1`, '-w', '\n%{http_code} %{http_version}', ...args], (error, out) => {
    if (error) return reject(error);
    const lines = out.split('\n');
    return resolve({ said: lines.pop(), body: lines.join('\n') });
  });
});
/** The same over HTTP/1.1 and HTTP/2. */
const both = async (check) => {
  await check((path, ...args) => curl('--http1.1', ...args, `http://127.0.0.1:${door.ports.edge}${path}`), '1.1');
  await check((path, ...args) => curl('--http2', ...args, `https://portal.example:${door.ports.tls}${path}`), '2');
};
const names = () => Object.keys(up.last().headers);

test('a method is what was decided about: no header says another', async () => {
  await both(async (ask, version) => {
    const overrides = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override', 'x_http_method_override', 'X-Http-Method--Override', 'x.method.override'];
    const answer = await ask('/open/x', '-X', 'POST', '-d', 'a', ...overrides.flatMap((name) => ['-H', `${name}: DELETE`]), '-H', 'X-Original-URL: /admin');
    assert.equal(answer.said, `200 ${version}`);
    assert.equal(up.last().method, 'POST');
    assert.ok(!up.last().raw.includes('DELETE') && !up.last().raw.includes('/admin'), up.last().raw.join());
  });
});

const OF_PROXIES = ['True-Client-IP', 'X-Client-Cert', 'X-Envoy-External-Address', 'X-Envoy-Original-Path', 'X-Forwarded-Path', 'X-Forwarded-Uri', 'X-Forwarded-Method', 'X-Forwarded-Scheme', 'X-Forwarded-Ssl',
  'X-Forwarded-User', 'X-Client-IP', 'CF-Connecting-IP', 'Fastly-Client-IP', 'X-Cluster-Client-IP', 'X-Original-Host', 'X-SSL-Client-Verify', 'Client-Cert', 'X-Remote-User', 'X-WebAuth-User'];
const LOOK_ALIKES = ['X-Orbit--Workspace-Id', 'X-Orbit-Workspace-Id-', 'x_orbit_user_id', 'x.orbit.user.id', '_X-Orbit-User-Id', 'X-Stagedoor-Assertion_', 'X-Forwarded-Client-Cert', 'X-Real-IP', 'X-Internal-Role', 'x_internal__role', 'X-Team'];

test('what only we or a proxy may say of a client does not come from one', async () => {
  const lines = [...OF_PROXIES, ...LOOK_ALIKES].flatMap((name) => ['-H', `${name}: evil`]);
  await both(async (ask, version) => {
    assert.equal((await ask('/open/x', ...lines, '-H', 'X-Internals: 1', '-H', 'X-Requested-With: x')).said, `200 ${version}`);
    assert.ok(!up.last().raw.includes('evil'), up.last().raw.join());
    assert.ok(names().includes('x-internals') && names().includes('x-requested-with'));
  });
  // A proxy that is trusted may.
  await curl(...lines, `http://127.0.0.1:${door.ports.behind}/open/x`);
  for (const name of OF_PROXIES) assert.equal(up.last().headers[name.toLowerCase()], 'evil', name);
  for (const name of LOOK_ALIKES) assert.ok(!names().includes(name.toLowerCase()), name);
});

test('characters that browsers leave as they are go on as RFC 3986 wants them', async () => {
  await both(async (ask, version) => {
    assert.equal((await ask('/open/a|b[c]^d?e=f|g', '--globoff')).said, `200 ${version}`);
    assert.equal(up.last().url, '/open/a%7Cb%5Bc%5D%5Ed?e=f|g');
  });
});

test('what is meant for the next hop goes no further, and nothing of ours can be named among it', async () => {
  const answer = await raw(door.ports.edge, 'GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, Keep-Alive\r\nX-Mine: evil\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: evil\r\nTrailer: X-Evil\r\n\r\n');
  assert.match(answer, /^HTTP\/1.1 200 /);
  assert.ok(!up.last().raw.includes('evil'), up.last().raw.join());
  for (const name of ['te', 'keep-alive', 'proxy-connection', 'trailer']) assert.ok(!names().includes(name), name);
  // What is ours, or a proxy's, nobody can name away; nor can he name where the request ends, and what is no name is nothing.
  for (const named of ['X-Request-Id', 'Host', 'X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host', 'Content-Length', 'Transfer-Encoding', ':path', '"X-Forwarded-For"', Array.from({ length: 40 }, (_, n) => `a${n}`).join(',')]) {
    assert.match(await raw(door.ports.edge, `POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close, ${named}\r\n\r\na`), /^HTTP\/1.1 200 /, named);
    const { headers, body } = up.last();
    assert.ok(headers['x-request-id'] && headers['x-forwarded-host'] === 'a' && headers['x-forwarded-for'] === '127.0.0.1' && body === 'a', named);
  }
  await raw(door.ports.behind, 'GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close, X-Client-Cert, X-Forwarded-For\r\nX-Client-Cert: mine\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n');
  assert.deepEqual([up.last().headers['x-client-cert'], up.last().headers['x-forwarded-for']], ['mine', '192.0.2.7, 127.0.0.1']);
});

test('a URL says the host, whatever stands beside it', async () => {
  // As a client does that takes us for a proxy.
  const proxied = (...args) => curl('--http1.1', '-x', `http://127.0.0.1:${door.ports.edge}`, ...args);
  assert.equal((await proxied('http://portal.example/kept?a=1')).said, '200 1.1');
  assert.deepEqual([up.last().url, up.last().headers.host], ['/kept?a=1', 'portal.example']);
  assert.equal((await proxied('-H', 'Host: evil.example', 'http://portal.example/kept')).said, '200 1.1');
  assert.deepEqual([up.last().url, up.last().headers.host], ['/kept', 'portal.example']);
  assert.equal((await proxied('-H', 'Host: portal.example', 'http://evil.example/kept')).said, '403 1.1');
  const ask = (target, host = 'a', version = '1.1') => raw(door.ports.edge, `GET ${target} HTTP/${version}\r\n${host && `Host: ${host}\r\n`}Connection: close\r\n\r\n`);
  assert.match(await ask('https://portal.example:8443/kept', 'a'), /^HTTP\/1.1 200 /);
  assert.equal(up.last().headers.host, 'portal.example:8443');
  assert.match(await ask('http://portal.example/kept', '', '1.0'), /^HTTP\/1.[01] 200 /);
  assert.equal(up.last().headers.host, 'portal.example');
  const reached = up.seen.length;
  for (const target of ['http://user@portal.example/kept', 'http://portal.example:99999/kept', 'ftp://portal.example/kept', 'http:///kept', 'http:/kept', 'http://portal.example/../kept', 'http://portal.example//kept', 'http://portal.example/kept#x']) {
    assert.match(await ask(target, 'portal.example'), /^HTTP\/1.1 400 /, target);
  }
  assert.equal(up.seen.length, reached);
});

test('a host has a port that is one', async () => {
  for (const host of ['a:99999', 'a:65536', 'a:abc', 'a:-1', 'a:80:80', '[::1', '[::1]:x', ':80']) {
    assert.match(await raw(door.ports.edge, `GET /open/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`), /^HTTP\/1.1 400 .*head_malformed/s, host);
  }
  for (const host of ['a', 'a:', 'a:80', 'a:65535', '[::1]:80']) {
    assert.match(await raw(door.ports.edge, `GET /open/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`), /^HTTP\/1.1 200 /, host);
  }
  const client = await h2.connect(door.ports.tls, tlsOptions());
  client.write(request(1, '/open/x', { authority: 'portal.example:99999', end: true }));
  const answer = await client.find((f) => f.stream === 1 && f.type === h2.DATA);
  assert.match(String(answer.payload), /host_invalid/);
  client.socket.destroy();
});

test('an empty line before a request is left out, and no more than two', async () => {
  const get = 'GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';
  const post = 'POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na';
  for (const [bytes, answers] of [[`\r\n${get}`, 1], [`\r\n\r\n${get}`, 1], [`${post}\r\n${get}`, 2], [`${post}\r\n${post}\r\n${get}`, 3]]) {
    assert.equal((await raw(door.ports.edge, bytes)).match(/HTTP\/1.1 200 /g)?.length, answers, JSON.stringify(bytes));
  }
  assert.match(await raw(door.ports.edge, ['\r', '\n', get]), /^HTTP\/1.1 200 /);
  for (const bytes of [`\r\n\r\n\r\n${get}`, `\n${get}`, `\r${get}`, ` \r\n${get}`]) {
    assert.match(await raw(door.ports.edge, bytes), /^HTTP\/1.1 400 .*head_malformed/s, JSON.stringify(bytes));
  }
  // Whoever sends one after an answer is idle, and not late with a head.
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  let got = '';
  socket.on('data', (data) => { got += data; });
  socket.write(`${post}\r\n`);
  await new Promise((resolve) => socket.once('close', resolve));
  assert.equal(got.match(/HTTP\/1.1 /g).length, 1, got);
});

test('HEAD goes where GET goes, unless a GET there changes something', async () => {
  await both(async (ask, version) => {
    assert.equal((await ask('/read/x', '-I')).said, `200 ${version}`);
    assert.equal(up.last().method, 'HEAD');
    const reached = up.seen.length;
    assert.equal((await ask('/sign-in', '-I')).said, `403 ${version}`);
    assert.equal(up.seen.length, reached);
    assert.equal((await ask('/sign-in')).said, `200 ${version}`);
    assert.equal((await ask('/read/x', '-X', 'POST')).said, `403 ${version}`);
  });
});

test('a path is text that everybody reads alike', async () => {
  await both(async (ask, version) => {
    for (const path of ['/%C0%AE%C0%AE/x', '/..%C0%AF..', '/%E0%80%AF', '/%E9', '/a%EF%BC%8Fb', '/%EF%BC%8E%EF%BC%8E/x', '/.%E2%80%8B./x']) {
      const answer = await ask(`/open${path}`, '--path-as-is');
      assert.equal(answer.said, `400 ${version}`, path);
      assert.equal(JSON.parse(answer.body).code, 'path_ambiguous', path);
      if (!path.includes('..%')) assert.equal((await ask(`/bytes${path}`, '--path-as-is')).said, `200 ${version}`, path);
    }
    assert.equal((await ask('/open/caf%C3%A9')).said, `200 ${version}`);
  });
});

// Bodies.

const tlsOptions = () => ({ servername: 'portal.example', ca: fs.readFileSync(ca.ca) });
const pseudo = (path, authority, method) => [[':method', method], [':scheme', 'https'], [':path', path], [':authority', authority]];
const request = (stream, path, { authority: host = 'portal.example', method = 'GET', end = false, headers = [], indexed = false } = {}) => h2.frame(h2.HEADERS, h2.END_HEADERS | (end ? h2.END_STREAM : 0), stream, h2.block([...pseudo(path, host, method), ...headers], indexed));

const BAD_ENDS = ['0\r\nno colon\r\n\r\n', '0\r\n:path: /x\r\n\r\n', '0\r\nA: b\r\n c\r\n\r\n', '0\r\nA : b\r\n\r\n', '0\r\nA: b\n\r\n', '0\r\n\n', '0\n\r\n', '0 \r\n\r\n', '0x0\r\n\r\n', '-0\r\n\r\n', '0\r\nTransfer-Encoding: chunked\r\n\r\n', '0\r\nContent-Length: 5\r\n\r\n', '0\r\nHost: b\r\n\r\n', '0;a\nb\r\n\r\n', '0\rX\r\n\r\n'];

test('a chunked body whose end is broken is refused, and is one record', async () => {
  const head = 'POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';
  const next = 'GET /open/next HTTP/1.1\r\nHost: a\r\n\r\n';
  for (const end of BAD_ENDS) {
    const reached = up.seen.length;
    // Together, and when the upstream has begun to read it.
    const together = await raw(door.ports.edge, `${head}1\r\na\r\n${end}${next}`);
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let apart = '';
    socket.on('data', (data) => { apart += data; });
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(`${head}1\r\na\r\n`);
    await until('it to be under way', async () => (await (await door.admin('/state')).json()).requests_in_flight === 1);
    socket.write(`${end}${next}`);
    await closed;
    for (const answer of [together, apart]) {
      assert.match(answer, /^HTTP\/1.1 400 /, JSON.stringify(end));
      assert.equal(answer.match(/HTTP\/1.1 /g).length, 1, 'what follows is no request');
      const { code, request_id: id } = JSON.parse(answer.split('\r\n\r\n')[1]);
      assert.equal(code, 'body_malformed', JSON.stringify(end));
      await door.record((r) => r.id === id && r.code === code);
    }
    assert.equal(up.seen.length, reached, JSON.stringify(end));
  }
  // What is no fault is left out.
  const good = await raw(door.ports.edge, 'POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0;x=y\r\nX-Orbit-User-Id: evil\r\nX-Sum: 1\r\n\r\n');
  assert.match(good, /^HTTP\/1.1 200 /);
  assert.ok(!up.last().raw.includes('evil') && !up.last().trailers.includes('evil'));
});

test('what an early answer leaves of a body is nobody\'s request', async () => {
  const smuggled = 'GET /open/smuggled HTTP/1.1\r\nHost: a\r\n\r\n';
  const head = (path, length) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`;
  // The upstream answers first; a denial; a body that is too large; each time the rest comes later.
  for (const [path, length, status] of [['/early/x', 4000, 200], ['/nowhere', 4000, 403], ['/open/x', 99_999_999, 413]]) {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let got = '';
    socket.on('data', (data) => { got += data; });
    let failed;
    socket.on('error', (error) => { failed = error; });
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write(`${head(path, length)}begun`);
    await until('the answer', async () => got.includes('\r\n\r\n'));
    const reached = up.seen.length;
    socket.write(smuggled);
    await closed;
    assert.match(got, new RegExp(`^HTTP/1.1 ${status} `), path);
    assert.equal(got.match(/HTTP\/1.1 /g).length, 1, got);
    assert.equal(failed, undefined, 'it was not reset before it had read the answer');
    assert.equal(up.seen.length, reached);
  }
  // Nor do two requests share a connection to the upstream, of which the first was not sent to its end.
  const before = early.seen.length;
  for (let n = 0; n < 3; n += 1) {
    assert.match(await raw(door.ports.edge, `${head('/early/x', 4000)}begun`, { ms: 400 }), /^HTTP\/1.1 200 /);
  }
  assert.equal(early.seen.length, before + 3);
  for (const connection of early.seen) assert.equal(connection.join('').match(/POST /g).length, 1);
});

test('a client that uploads on reads an early answer to its end', async () => {
  // 413 comes with the head; the client goes on sending for a while.
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  let got = '';
  let failed;
  socket.on('data', (data) => { got += data; });
  socket.on('error', (error) => { failed = error; });
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write('POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n');
  for (let n = 0; n < 40; n += 1) {
    socket.write(Buffer.alloc(64 << 10));
    await new Promise(setImmediate);
  }
  await until('the answer', async () => got.includes('body_too_large'));
  socket.end();
  await closed;
  assert.equal(failed, undefined);
});

test('trailers of HTTP/2 that are none end their stream, and others are left out', async () => {
  const client = await h2.connect(door.ports.tls, tlsOptions());
  const post = (stream, trailers, { flags = h2.END_HEADERS | h2.END_STREAM, indexed } = {}) => client.write(
    request(stream, '/open/trailers', { method: 'POST', indexed }),
    h2.frame(h2.DATA, 0, stream, Buffer.from('a')),
    h2.frame(h2.HEADERS, flags, stream, Buffer.isBuffer(trailers) ? trailers : h2.block(trailers)),
  );
  const ended = (stream) => client.find((f) => f.stream === stream && (f.type === h2.RST_STREAM || f.type === h2.HEADERS));
  post(1, [['x-sum', '1'], ['x-orbit-user-id', 'evil']]);
  assert.equal((await ended(1)).type, h2.HEADERS);
  assert.ok(!up.last().raw.includes('evil') && !up.last().trailers.includes('evil'));
  let stream = 1;
  const reached = up.seen.length;
  const bad = [[['x', '1'], [':path', '/x']], [[':path', '/x']], [[':status', '200'], ['x', '1']], [['connection', 'close']], [['transfer-encoding', 'chunked']],
    // By number: a method, and the path of the request, of which the table knows.
    Buffer.from([0x82]), Buffer.from([0xbf])];
  for (const trailers of bad) {
    stream += 2;
    post(stream, trailers, { indexed: trailers === bad.at(-1) });
    const { type, payload } = await ended(stream) ?? assert.fail(`the connection ended: ${JSON.stringify(client.frames)}`);
    assert.deepEqual([type, payload.readUInt32BE(0)], [h2.RST_STREAM, 1], JSON.stringify(trailers));
  }
  assert.equal(up.seen.length, reached);
  // The connection lives on, and each was one record.
  post(stream + 2, [['x-sum', '1']]);
  assert.equal((await ended(stream + 2)).type, h2.HEADERS);
  await until('the records', async () => door.records().filter((r) => r.path === '/open/trailers').length === bad.length + 2);
  assert.equal(door.records().filter((r) => r.path === '/open/trailers' && r.code === 'body_malformed').length, bad.length);
  client.socket.destroy();
});

// Floods.

const calm = async (name, client) => {
  const goaway = await client.find((f) => f.type === h2.GOAWAY && f.payload.readUInt32BE(4) !== 0);
  assert.ok(goaway, `${name}: the connection ended without a word: ${JSON.stringify(client.frames.slice(-3))}`);
  return goaway.payload.readUInt32BE(4);
};

test('a client whose streams must be ended again and again is told to calm down', async () => {
  const wrongs = {
    'a window that overflows': (stream) => [request(stream, '/open/x?do=hang'), h2.frame(h2.WINDOW_UPDATE, 0, stream, h2.u32(0x7fffffff))],
    'an increment of zero': (stream) => [request(stream, '/open/x?do=hang'), h2.frame(h2.WINDOW_UPDATE, 0, stream, h2.u32(0))],
    'data after the end': (stream) => [request(stream, '/open/x?do=hang', { end: true }), h2.frame(h2.DATA, 0, stream, Buffer.from('x'))],
    'more than was announced': (stream) => [request(stream, '/open/x', { method: 'POST', headers: [['content-length', '1']] }), h2.frame(h2.DATA, h2.END_STREAM, stream, Buffer.from('xxx'))],
    'a header that HTTP/2 does not have': (stream) => [request(stream, '/open/x', { headers: [['connection', 'close']], end: true })],
  };
  for (const [name, wrong] of Object.entries(wrongs)) {
    const client = await h2.connect(door.ports.tls, tlsOptions());
    client.socket.on('error', () => {});
    for (let n = 0; n < 600 && !client.socket.destroyed; n += 1) {
      client.write(...wrong(1 + 2 * n));
      if (n % 20 < 19) continue;
      // It has read all of it, or has ended.
      client.write(h2.frame(h2.PING, 0, 0, Buffer.from(String(n).padStart(8))));
      const heard = await client.find((f) => f.type === h2.GOAWAY || (f.type === h2.PING && Number(String(f.payload)) === n));
      if (heard?.type !== h2.PING) break;
    }
    const reason = await calm(name, client);
    // Some end it at once.
    assert.equal(reason, /zero|after/.test(name) ? 1 : 0xb, name);
    client.socket.destroy();
  }
  // As one is that ends so many of them itself, before they have begun.
  const rapid = await h2.connect(door.ports.tls, tlsOptions());
  rapid.write(...Array.from({ length: 100 }, (_, n) => [request(1 + 2 * n, '/open/x?do=hang', { end: true }), h2.frame(h2.RST_STREAM, 0, 1 + 2 * n, h2.u32(8))]).flat());
  assert.equal(await calm('rapid reset', rapid), 0xb);
  rapid.socket.destroy();
  // A few faults are forgiven.
  const client = await h2.connect(door.ports.tls, tlsOptions());
  for (let n = 0; n < 50; n += 1) client.write(...wrongs['a window that overflows'](1 + 2 * n));
  client.write(request(201, '/open/x', { end: true }));
  assert.ok(await client.find((f) => f.stream === 201 && f.type === h2.HEADERS));
  client.socket.destroy();
});

const open = (port) => new Promise((resolve, reject) => {
  const socket = net.connect(port, '127.0.0.1', () => resolve(socket));
  socket.on('error', reject);
});

test('a handshake that goes nowhere holds its place for head_timeout, and a client holds few', async () => {
  const begun = Date.now();
  const held = await Promise.all(Array.from({ length: 8 }, () => open(door.ports.few)));
  // Some say nothing, some the beginning of a record, some half of a hello.
  held.forEach((socket, n) => {
    if (n % 3 === 1) socket.write(Buffer.from([0x16, 3, 1, 2, 0]));
    if (n % 3 === 2) socket.write(Buffer.concat([Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]), Buffer.alloc(200)]));
  });
  const took = [];
  const ended = held.map((socket) => new Promise((resolve) => { socket.once('close', () => { took.push(Date.now() - begun); resolve(); }); socket.on('error', () => {}); socket.resume(); }));
  await until('those that are too many to be closed', async () => took.length === 3, 2900);
  const hello = () => new Promise((resolve) => {
    const socket = tls.connect({ host: '127.0.0.1', port: door.ports.few, ...tlsOptions(), ALPNProtocols: ['http/1.1'] }, () => { socket.destroy(); resolve('served'); });
    socket.on('error', () => {});
    socket.on('close', () => resolve('closed'));
  });
  assert.equal(await hello(), 'closed', 'the client has no place left');
  await door.record((r) => r.code === 'handshakes_exhausted');
  await Promise.all(ended);
  assert.equal(took.filter((ms) => ms >= 2500 && ms < 9000).length, 5, took.join());
  await until('its record', async () => door.records().filter((r) => r.code === 'handshake_timeout').length === 5);
  const record = await door.record((r) => r.code === 'handshake_timeout');
  assert.deepEqual([record.listener, record.status], ['few', 0]);
  assert.equal(await hello(), 'served');
  const metrics = await (await door.admin('/metrics')).text();
  assert.match(metrics, /^stagedoor_denials_total\{.*code="handshake_timeout".*\} 5$/m);
  // What has shaken hands holds no place of that kind.
  const kept = [];
  for (let n = 0; n < 8; n += 1) {
    kept.push(await new Promise((resolve, reject) => {
      const socket = tls.connect({ host: '127.0.0.1', port: door.ports.few, ...tlsOptions() }, () => resolve(socket));
      socket.on('error', reject);
    }));
  }
  assert.equal(kept.length, 8);
  kept.forEach((socket) => socket.destroy());
});
