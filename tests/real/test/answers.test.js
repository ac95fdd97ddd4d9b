'use strict';
// What becomes of an answer: its framing, what of it was meant for us alone, when it comes before the
// request has ended, and how clients of every age read it. Over HTTP/1.0, HTTP/1.1 and HTTP/2, from servers
// that write byte by byte what no good one would.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const crypto = require('node:crypto');
const { EventEmitter, once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { authority } = require('../rig/certificates');
const { freePort } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

const FIVE = Buffer.alloc(5 << 20, 'x');
let ca; let folder; let bytes; let secure; let modern; let door; let proxy; let hinting; let behind; let eitherPort;

/** Servers that write `answers[PATH](socket, head)` as soon as a head is there, on TCP or TLS. */
const answers = {};
const heads = [];
const connections = [];
const serve = (server) => {
  const handle = (socket) => {
    const connection = { socket, closed: false };
    connections.push(connection);
    socket.on('close', () => { connection.closed = true; });
    socket.on('error', () => {});
    let got = '';
    socket.on('data', (data) => {
      got += data.toString('latin1');
      const end = got.indexOf('\r\n\r\n');
      if (end < 0) return;
      const head = got.slice(0, end);
      got = '';
      const answer = answers[head.split(' ')[1]];
      // The rest of a body that is none of its business.
      if (!answer) return;
      heads.push(head);
      if (typeof answer === 'function') answer(socket, head); else socket.write(answer, 'latin1');
    });
  };
  server.on(server instanceof tls.Server ? 'secureConnection' : 'connection', handle);
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-answers-'));
  ca = authority(folder);
  ca.issue('portal', { names: ['portal.example', 'localhost'] });
  const pair = { cert: fs.readFileSync(`${folder}/portal.crt`), key: fs.readFileSync(`${folder}/portal.key`) };
  bytes = await serve(net.createServer());
  secure = await serve(tls.createServer(pair));
  modern = http2.createServer();
  modern.on('stream', (stream, headers) => { stream.on('error', () => {}); modern.answer(stream, headers); });
  await new Promise((resolve) => modern.listen(0, '127.0.0.1', resolve));
  proxy = await freePort();
  hinting = await freePort();
  behind = await freePort();
  eitherPort = await freePort();
  const calm = 'breaker: {requests_min: 1000000}';
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, limits: {body_max: 1GiB}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, limits: {body_max: 1GiB}, tls: {certificates: [{cert: ${folder}/portal.crt, key: ${folder}/portal.key}]}}
  out: {kind: forward, address: 127.0.0.1:${proxy}, workspace: payments, limits: {body_max: 1GiB}}
  behind: {kind: reverse, address: 127.0.0.1:${behind}, trusted_proxies: [127.0.0.1/32]}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 100000/s, burst: 100000}}
egress:
  rules: [{name: bytes, to: ["127.0.0.1:${bytes.address().port}"]}]
  private: [{host: "127.0.0.1:${bytes.address().port}", addresses: [127.0.0.1/32]}]
upstreams:
  bytes: {url: "http://127.0.0.1:${bytes.address().port}", ${calm}}
  secure: {url: "https://localhost:${secure.address().port}", tls: {ca: ${ca.ca}}, ${calm}}
  modern: {url: "http://127.0.0.1:${modern.address().port}", http: h2, ${calm}}
  hinting: {url: "http://127.0.0.1:${hinting}", ${calm}}
  either: {url: "https://localhost:${eitherPort}", tls: {ca: ${ca.ca}}, ${calm}}
  strict: {url: "http://127.0.0.1:${bytes.address().port}"}
  theirs: {url: "http://127.0.0.1:${bytes.address().port}", external: true, ${calm}}
  hasty: {url: "http://127.0.0.1:${bytes.address().port}", timeouts: {upstream: 1s}, ${calm}}
  sick: {url: "http://127.0.0.1:${bytes.address().port}", breaker: {requests_min: 5}}
routes:
- {name: modern, methods: [ANY], path: /modern/**, upstream: modern, class: read, options: {public: true, detail: full}}
- {name: secure, methods: [ANY], path: /tls/**, upstream: secure, class: read, options: {public: true, detail: full}}
- {name: hinting, methods: [ANY], path: /hinting/**, upstream: hinting, class: read, options: {public: true, detail: full}}
- {name: either, methods: [ANY], path: /either/**, upstream: either, class: read, options: {public: true, detail: full}}
- {name: strict, methods: [ANY], path: /strict/**, upstream: strict, class: read, options: {public: true, detail: full}}
- {name: theirs, methods: [ANY], path: /theirs/**, upstream: theirs, class: read, options: {public: true, detail: full}}
- {name: hasty, methods: [ANY], path: /hasty/**, upstream: hasty, class: read, options: {public: true, detail: full}}
- {name: sick, methods: [ANY], path: /sick/**, upstream: sick, class: read, options: {public: true, detail: full}}
- {name: redacted, methods: [ANY], path: /redacted/**, upstream: bytes, class: read, options: {public: true, detail: full, redact: [secret]}}
- {name: socket, methods: [GET], path: /socket/**, upstream: bytes, class: read, options: {public: true, upgrade: true, detail: full}}
- {name: bytes, methods: [ANY], path: /**, upstream: bytes, class: read, options: {public: true, detail: full}}`);
});
after(async () => {
  await door?.stop();
  connections.forEach(({ socket }) => socket.destroy());
  bytes?.close(); secure?.close(); modern?.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Says when a client has got a part of a body. */
const clients = new EventEmitter();

const curl = (...args) => new Promise((resolve, reject) => {
  const known = ['-sN', '--max-time', '20', '--cacert', ca.ca, '--resolve', `portal.example:${door.ports.tls}:127.0.0.1`, '-w', '\n%{http_code} %{http_version}'];
  const child = execFile('curl', [...known, ...args], { maxBuffer: 64 << 20 }, (error, out) => {
    const lines = out.split('\n');
    if (error && !/^[1-9]/.test(lines.at(-1))) return reject(error);
    return resolve({ said: lines.pop(), body: lines.join('\n'), broken: Boolean(error) });
  });
  child.stdout.on('data', () => clients.emit('part'));
  child.stdin.end();
});
const plain = (where) => `${door.url}${where}`;
const over2 = (where) => ['--http2', `https://portal.example:${door.ports.tls}${where}`];

/** All that comes back until the other side closes. */
const talk = (text, { port = door.ports.edge, until = () => false } = {}) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1');
  let got = '';
  let reset = false;
  const timer = setTimeout(() => socket.destroy(), 8000);
  socket.on('data', (data) => { got += data.toString('latin1'); if (until(got)) socket.destroy(); });
  socket.on('error', (error) => { reset = error.code === 'ECONNRESET'; });
  socket.on('close', () => { clearTimeout(timer); resolve({ got, reset, body: got.slice(got.indexOf('\r\n\r\n') + 4) }); });
  socket.write(text, 'latin1');
});

/** One request of HTTP/2; what came of it, interim answers included. */
const ask2 = (where, { method = 'GET', headers = {}, body } = {}) => new Promise((resolve, reject) => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'portal.example' });
  session.on('error', reject);
  const stream = session.request({ ':method': method, ':path': where, ':authority': 'portal.example', ...headers }, { endStream: body === undefined });
  const came = { interim: [], body: '' };
  stream.on('headers', (head) => came.interim.push(head));
  stream.on('response', (head) => { came.head = head; came.status = head[':status']; });
  stream.on('trailers', (trailers) => { came.trailers = trailers; });
  stream.on('data', (data) => { came.body += data; clients.emit('part'); });
  stream.on('error', (error) => { came.error = error.code; });
  stream.on('close', () => { came.broken = stream.rstCode !== 0; came.code = stream.rstCode; session.destroy(); resolve(came); });
  if (body !== undefined) stream.end(body);
});

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

test('an offer to go over to another protocol is ignored, unless it is WebSocket', async () => {
  answers['/offer'] = OK;
  const asks = [
    ['--http2'],
    ['-H', 'Connection: Upgrade', '-H', 'Upgrade: TLS/1.2'],
    ['-H', 'Connection: Upgrade, HTTP2-Settings', '-H', 'Upgrade: h2c', '-H', 'HTTP2-Settings: AAMAAABkAAQAAP__', '-X', 'POST', '-d', 'a=b'],
    ['-H', 'Upgrade: foo/1, bar'],
  ];
  for (const ask of asks) {
    heads.length = 0;
    assert.deepEqual(await curl(...ask, plain('/offer')), { said: '200 1.1', body: 'ok', broken: false });
    assert.doesNotMatch(heads[0], /\r\n(upgrade|http2-settings|connection):/i);
  }
  for (const name of ['websocket', 'WebSocket', 'h2c, WEBSOCKET', 'websocket/13']) {
    const refused = await curl('-H', 'Connection: Upgrade', '-H', `Upgrade: ${name}`, plain('/offer'));
    assert.equal(refused.said, '403 1.1', name);
    assert.match(refused.body, /upgrade_refused/);
  }
});

test('one of several offers may be WebSocket, where it is let through', async () => {
  answers['/socket/x'] = (socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello');
  const { got } = await talk('GET /socket/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n', { until: (text) => text.endsWith('hello') });
  assert.match(got, /^HTTP\/1.1 101 .*\r\n\r\nhello$/s);
  assert.match(heads.at(-1), /\r\nupgrade: websocket(\r\n|$)/i);
});

test('nobody is taken to another protocol than was asked for', async () => {
  const gone = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nsecret';
  answers['/gone'] = gone;
  answers['/socket/gone'] = gone;
  answers['/tls/gone'] = gone;
  const offers = ['', 'Connection: Upgrade\r\nUpgrade: h2c\r\n'];
  for (const [where, offer] of [['/gone', offers[0]], ['/gone', offers[1]], ['/tls/gone', offers[0]], ['/socket/gone', 'Connection: Upgrade\r\nUpgrade: websocket\r\n']]) {
    const { got } = await talk(`GET ${where} HTTP/1.1\r\nHost: a\r\n${offer}\r\n`, { until: (text) => text.includes('}') });
    assert.match(got, /^HTTP\/1.1 502 /, where);
    assert.match(got, /upstream_malformed.*101|101.*upstream_malformed/s);
    assert.doesNotMatch(got, /secret/);
  }
  assert.equal((await ask2('/gone')).status, 502);
  const { socket } = connections.at(-1);
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve));
});

test('framing that can be read in two ways is made right, or refused and said why', async () => {
  const head = (status, ...lines) => ['HTTP/1.1', status, ''].join(' ').trim() + ['', ...lines, '', ''].join('\r\n');
  const body = '2\r\nok\r\n0\r\n\r\n';
  const closes = (text) => (socket) => socket.end(text, 'latin1');
  const table = [
    // [what is written, status, body or why]
    [`${head('204 No Content', 'Content-Length: 5')}`, 204, ''],
    [closes(`${head('204 No Content', 'Content-Length: 5')}hello`), 204, ''],
    [`${head('204 No Content', 'Transfer-Encoding: chunked')}`, 204, ''],
    [`${head('304 Not Modified', 'Content-Length: 5')}`, 304, ''],
    [closes(`${head('304 Not Modified', 'Content-Length: 5')}hello`), 304, ''],
    [`${head('200 OK', 'Content-Length: 2', 'Content-Length: 2')}ok`, 200, 'ok'],
    [`${head('200 OK', 'Content-Length: 2, 2')}ok`, 200, 'ok'],
    [`${head('200 OK', 'Content-Length: 2', 'Content-Length: 3')}ok`, 502, /Content-Length/],
    [`${head('200 OK', 'Content-Length: +2')}ok`, 502, /Content-Length/],
    [`${head('200 OK', 'Content-Length: 2 2')}ok`, 502, /Content-Length/],
    [`${head('200 OK', 'Content-Length: 5', 'Transfer-Encoding: chunked')}${body}`, 200, 'ok'],
    [closes(`${head('200 OK', 'Transfer-Encoding: identity', 'Connection: close')}ok`), 200, 'ok'],
    [closes('HTTP/1.0 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok'), 200, 'ok'],
    [`${head('200 OK', 'Transfer-Encoding: identity', 'Content-Length: 2')}ok`, 502, /identity/],
    [closes(`${head('200 OK', 'Transfer-Encoding: identity', 'Content-Length: 2', 'Connection: close')}ok`), 200, 'ok'],
    [`${head('200 OK', 'Transfer-Encoding: cow')}ok`, 502, /Transfer-Encoding/],
    [`${head('200 OK', 'Transfer-Encoding: gzip, chunked')}${body}`, 502, /Transfer-Encoding/],
    [`${head('200 OK', 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')}${body}`, 502, /Transfer-Encoding/],
    [`${head('200 OK', 'Transfer-Encoding: chunked, identity')}${body}`, 502, /Transfer-Encoding/],
    [closes(`HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body}`), 200, 'ok'],
    [closes('HTTP/1.0 200 OK\r\n\r\nok'), 200, 'ok'],
    [`${head('200 OK', 'Content-Length : 2')}ok`, 200, 'ok'],
    // Put into one line on the way.
    [`${head('200 OK', 'Content-Length: 2', 'X-Folded: a', ' b')}ok`, 200, 'ok'],
    [`${head('200 OK', 'X-Folded:', '\tb', 'Content-Length: 2')}ok`, 200, 'ok'],
    ['HTTP/1.1 20 OK\r\n\r\n', 502, /not HTTP/],
    ['HTTP/3.1 200 OK\r\n\r\n', 502, /not HTTP/],
    ['HTTP/1.1 2000 OK\r\n\r\n', 502, /not HTTP/],
    ['ICY 200 OK\r\n\r\n', 502, /not HTTP/],
    [head('200 OK', 'X Y: a', 'Content-Length: 2'), 502, /not HTTP/],
    [head('200 OK', 'no colon', 'Content-Length: 2'), 502, /not HTTP/],
    [head('200 OK', 'X: a\x00b', 'Content-Length: 2'), 502, /not HTTP/],
  ];
  for (const [index, [written, status, expected]] of table.entries()) {
    const shown = `${index} ${typeof written === 'string' ? JSON.stringify(written) : written}`;
    for (const where of [`/odd/${index}`, `/tls/odd/${index}`]) {
      answers[where] = written;
      const came = [await curl('--http1.1', plain(where)), await curl(...over2(where))];
      for (const { said, body: got, broken } of came) {
        assert.equal(said.split(' ')[0], String(status), shown);
        assert.ok(!broken, shown);
        if (typeof expected === 'string') assert.equal(got, expected, shown); else assert.match(got, expected, shown);
        if (status === 502) assert.match(got, /upstream_malformed/, shown);
      }
    }
    const { got } = await talk(`GET /odd/${index} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    assert.ok((got.split('\r\n\r\n')[0].match(/\r\n(content-length|transfer-encoding):/gi) ?? []).length <= 1, `${shown}\n${got}`);
    if (status === 204) assert.doesNotMatch(got, /\r\n(content-length|transfer-encoding):/i, shown);
    assert.doesNotMatch(got.split('\r\n\r\n')[0], /[^\r]\n|\r[^\n]/);
  }
  const record = await door.record((line) => line.code === 'upstream_malformed' && line.status === 502);
  assert.equal(record.upstream, 'bytes');
});

test('a body that breaks off is seen to be broken', async () => {
  const length = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart';
  const chunk = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart';
  const last = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n';
  const cut = (text) => (socket) => socket.write(text, () => socket.destroy());
  /** Breaks off once its client has got the part before. */
  const later = (text, end) => (socket) => { once(clients, 'part').then(() => end(socket)); socket.write(text); };
  const stream2 = (end) => (stream) => { once(clients, 'part').then(() => end(stream)); stream.respond({ ':status': 200 }); stream.write('part'); };
  // Node ends the stream with CANCEL for this error, and for no other.
  const aborted = sleep(1, undefined, { signal: AbortSignal.abort() });
  aborted.catch(() => {});
  const broken = {
    '/cut/length': [cut(length), 'upstream_reset'],
    '/cut/chunk': [cut(chunk), 'upstream_reset'],
    '/cut/last': [cut(last), 'upstream_reset'],
    // Of a body whose length is known, small parts are put together on the way.
    '/cut/length/later': [later(`HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n${'x'.repeat(70000)}`, (socket) => socket.destroy()), 'upstream_reset', /^x+$/],
    '/cut/last/later': [later(last, (socket) => socket.end()), 'upstream_reset'],
    '/cut/none': [later('HTTP/1.1 200 OK\r\n\r\npart', (socket) => socket.resetAndDestroy()), 'upstream_reset'],
    '/cut/bad': [later(last, (socket) => socket.write('zz\r\n')), 'upstream_malformed'],
    '/cut/bad/at-once': [(socket) => socket.write(`${last}zz\r\n`), 'upstream_malformed'],
    '/hasty/length': [(socket) => socket.write(length), 'upstream_timeout'],
    '/hasty/chunk': [(socket) => socket.write(last), 'upstream_timeout'],
    '/redacted/lines': [later('HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{"secret": 1, "a": 2}\n', (socket) => socket.end('{"secret: 1}\n')), 'redaction_impossible', /^\{ ?"a": 2\}\n$/],
    '/modern/cut/error': [stream2((stream) => stream.destroy(new Error('it broke'))), 'upstream_reset'],
    // What the upstream takes back (CANCEL) is as broken as the rest.
    '/modern/cut/cancel': [stream2((stream) => aborted.catch((error) => stream.destroy(error))), 'upstream_reset'],
    '/modern/cut/gone': [stream2((stream) => stream.session.destroy()), 'upstream_reset'],
  };
  modern.answer = (stream, headers) => broken[headers[':path']][0](stream);
  for (const [where, [answer, code, body = /^part$/]] of Object.entries(broken)) {
    answers[where] = answer;
    assert.ok((await curl(plain(where))).broken, where);
    // Node, and those who read as it does, take CANCEL for the end of a whole answer (RFC 9113 7).
    const came = await ask2(where);
    assert.deepEqual([came.status, came.code, came.error], [200, http2.constants.NGHTTP2_INTERNAL_ERROR, 'ERR_HTTP2_STREAM_ERROR'], where);
    assert.match(came.body, body, where);
    const record = await door.record((line) => line.path === where);
    assert.deepEqual([record.status, record.code], [200, code], where);
  }
  // Whose answers are whole is told nothing of the kind, on the same connection.
  answers['/whole'] = OK;
  const whole = await ask2('/whole');
  assert.deepEqual([whole.body, whole.code, whole.error], ['ok', http2.constants.NGHTTP2_NO_ERROR, undefined]);
});

test('broken chunks are failures of the upstream: on record as such, counted, and no secret to its breaker', async () => {
  answers['/sick/chunks'] = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n';
  answers['/sick/trailers'] = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n0\r\nno trailer\rat all\r\n\r\n';
  for (const where of ['/sick/chunks', '/sick/trailers', '/sick/chunks', '/sick/chunks', '/sick/chunks']) {
    assert.ok((await curl(plain(where))).broken, where);
  }
  const records = () => door.records().filter((line) => line.upstream === 'sick');
  await door.record(() => records().length === 5);
  assert.deepEqual([...new Set(records().map(({ code }) => code))], ['upstream_malformed']);
  assert.match((await curl(plain('/sick/chunks'))).body, /breaker_open/);
  const metrics = await (await door.admin('/metrics')).text();
  assert.match(metrics, /stagedoor_[a-z_]*\{[^}]*upstream_malformed[^}]*\} [1-9]/);
  assert.doesNotMatch(door.output(), /unexpected/);
});

test('what was meant for us goes, with what Connection names', async () => {
  const lines = 'Connection: close, X-Mine\r\nConnection: X-Too\r\nX-Mine: a\r\nX-Too: b\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\nTrailer: X-Sum\r\nUpgrade: h2c\r\nX-Stays: c\r\n';
  answers['/hops'] = `HTTP/1.1 103 Early Hints\r\n${lines}\r\nHTTP/1.1 200 OK\r\n${lines}Content-Length: 2\r\n\r\nok`;
  const { got } = await talk('GET /hops HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  assert.equal((got.match(/x-stays: c/gi) ?? []).length, 2);
  assert.doesNotMatch(got, /x-mine|x-too|keep-alive|proxy-|\r\nte:|trailer|upgrade/i);
  const { head } = await ask2('/hops');
  assert.equal(head['x-stays'], 'c');
  assert.deepEqual(['x-mine', 'x-too', 'keep-alive', 'proxy-authenticate', 'te', 'trailer', 'upgrade'].filter((name) => name in head), []);
});

test('a client of HTTP/1.0 gets no chunks and no interim answer', async () => {
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n';
  answers['/old'] = `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${chunked}`;
  answers['/length'] = OK;
  answers['/none'] = 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n';
  const asked = await talk('GET /old HTTP/1.0\r\nHost: a\r\n\r\n');
  assert.match(asked.got, /^HTTP\/1.1 200 OK\r\n/);
  assert.equal(asked.body, 'hello world');
  assert.doesNotMatch(asked.got, /transfer-encoding|103/i);
  const kept = await talk('GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n');
  assert.equal(kept.body, 'hello world');
  assert.match(kept.got, /connection: close/i);
  // With a length its connection stays, if it wants that.
  const two = await talk('GET /length HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\nGET /length HTTP/1.0\r\nHost: a\r\n\r\n');
  assert.equal((two.got.match(/200 OK/g) ?? []).length, 2);
  assert.match(two.got, /connection: keep-alive/i);
  const head = await talk('HEAD /old HTTP/1.0\r\nHost: a\r\n\r\n');
  assert.doesNotMatch(head.got, /transfer-encoding|hello/i);
  const none = await talk('GET /none HTTP/1.0\r\nHost: a\r\n\r\n');
  assert.match(none.got, /^HTTP\/1.1 304 .*\r\n\r\n$/s);
  // Also what an upstream says in HTTP/2, and what we say.
  modern.answer = (stream) => { stream.respond({ ':status': 200 }); stream.write('hello'); stream.end(' world'); };
  const from2 = await talk('GET /modern/old HTTP/1.0\r\nHost: a\r\n\r\n');
  assert.equal(from2.body, 'hello world');
  assert.doesNotMatch(from2.got, /transfer-encoding/i);
  assert.deepEqual(await curl('--http1.0', plain('/old')), { said: '200 1.1', body: 'hello world', broken: false });
});

const hint = (link, ...lines) => `HTTP/1.1 103 Early Hints\r\nLink: <${link}>; rel=preload\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;
/** As links of upstreams are told to clients: what is relative stays so. */
const ours = (link) => `<${link}>; rel=preload`;
const links = ({ interim }) => interim.map((head) => [head[':status'], head.link]);

test('where an answer leads is told as the upstream told it, as long as that is not itself', async () => {
  const moved = (where) => `HTTP/1.1 302 Found\r\nLocation: ${where}\r\nContent-Location: ${where}\r\nContent-Length: 0\r\n\r\n`;
  const told = (text) => [/^location: (.*)\r$/mi.exec(text)[1], /^content-location: (.*)\r$/mi.exec(text)[1]];
  for (const where of ['/login', 'login?next=/', '?page=2', '../up', '//cdn.example/x', 'https://idp.example/authorize']) {
    answers['/moved'] = moved(where);
    for (const ask of [plain('/moved'), over2('/moved')]) {
      const { body } = await curl('-i', ...[ask].flat());
      assert.deepEqual(told(body), [where, where]);
    }
  }
  // Itself becomes us, as the client reaches us: a balancer before us says how.
  answers['/moved'] = moved(`http://127.0.0.1:${bytes.address().port}/x`);
  for (const [proto, scheme] of [['https', 'https'], ['HTTPS', 'https'], ['https,http', 'https'], ['http', 'http']]) {
    const { body } = await curl('-i', '-H', 'Host: portal.example', '-H', `X-Forwarded-Proto: ${proto}`, `http://127.0.0.1:${behind}/moved`);
    assert.deepEqual(told(body), [`${scheme}://portal.example/x`, `${scheme}://portal.example/x`], proto);
  }
});

test('interim answers pass, and have an end', async () => {
  answers['/hints'] = hint('/1', 'Content-Length: 3') + hint('/2') + OK;
  answers['/flood'] = (socket) => { const flood = setInterval(() => socket.write(hint('/0').repeat(50)), 1); socket.on('close', () => clearInterval(flood)); };
  const { got } = await talk('GET /hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  assert.match(got, /^HTTP\/1.1 103 .*<\/1>.*HTTP\/1.1 103 .*<\/2>.*HTTP\/1.1 200 .*ok$/s);
  assert.match((await curl(plain('/flood'))).body, /upstream_malformed/);

  const over = await ask2('/hints');
  assert.deepEqual(links(over), [[103, ours('/1')], [103, ours('/2')]]);
  over.interim.forEach((head) => assert.deepEqual(Object.keys(head).sort(), [':status', 'link']));
  assert.deepEqual([over.status, over.body, over.broken], [200, 'ok', false]);
  const flood = await ask2('/flood');
  assert.deepEqual([flood.status, flood.interim.length], [502, 16]);
  assert.match(flood.body, /upstream_malformed/);
});

test('an interim answer is there before the final one, whatever comes of that', async () => {
  answers['/soon'] = (socket) => socket.write(hint('/soon'));
  answers['/soon/broken'] = (socket) => socket.write(hint('/soon'), () => socket.destroy());
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'portal.example' });
  try {
    const ask = (where, method = 'GET') => session.request({ ':path': where, ':method': method, ':authority': 'portal.example' });
    const stream = ask('/soon');
    const [head] = await once(stream, 'headers');
    assert.equal(head.link, ours('/soon'));
    // Only now does the upstream answer.
    connections.at(-1).socket.write(OK);
    const [final] = await once(stream, 'response');
    assert.equal(final[':status'], 200);
    stream.resume();
    await once(stream, 'close');

    const broken = ask('/soon/broken', 'POST');
    broken.end('x');
    const [[hinted], [response]] = await Promise.all([once(broken, 'headers'), once(broken, 'response')]);
    assert.deepEqual([hinted[':status'], response[':status']], [103, 502]);
    broken.resume();
    await once(broken, 'close');
  } finally {
    session.destroy();
  }
});

test('what comes after the answer, or after its client has left, is no interim answer', async () => {
  answers['/late'] = OK + hint('/late');
  const late = await ask2('/late');
  assert.deepEqual([late.status, late.body, late.interim, late.broken], [200, 'ok', [], false]);

  let upstream;
  answers['/left'] = (socket) => { upstream = socket; };
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'portal.example' });
  try {
    const left = session.request({ ':path': '/left', ':method': 'POST', ':authority': 'portal.example' });
    left.end('x');
    left.on('error', () => {});
    while (!upstream) await new Promise((resolve) => setImmediate(resolve));
    left.close(http2.constants.NGHTTP2_CANCEL);
    await once(left, 'close');
    // An action goes on without its client: what it is told then is for nobody.
    upstream.write(hint('/nobody').repeat(3) + OK);
    const record = await door.record((line) => line.path === '/left' && line.method === 'POST');
    assert.equal(record.cut, true);
    const after = session.request({ ':path': '/hints', ':authority': 'portal.example' });
    const interim = [];
    after.on('headers', (head) => interim.push(head.link));
    const [response] = await once(after, 'response');
    assert.equal(response[':status'], 200);
    assert.deepEqual(interim, [ours('/1'), ours('/2')]);
    after.resume();
    await once(after, 'close');
  } finally {
    session.destroy();
  }
});

test('each of many streams gets its own interim answers', async () => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'portal.example' });
  try {
    const all = Array.from({ length: 200 }, async (_, index) => {
      const where = `/many/${index}`;
      answers[where] = hint(`${where}/a`) + hint(`${where}/b`, 'X-Kept: yes') + OK;
      const stream = session.request({ ':path': where, ':authority': 'portal.example', 'x-index': `${index}` });
      const interim = [];
      stream.on('headers', (head) => interim.push(head));
      const [head] = await once(stream, 'response');
      let body = '';
      for await (const data of stream) body += data;
      assert.deepEqual([head[':status'], body], [200, 'ok']);
      assert.deepEqual(interim.map((one) => [one[':status'], one.link, one['x-kept']]), [[103, ours(`${where}/a`), undefined], [103, ours(`${where}/b`), 'yes']]);
    });
    await Promise.all(all);
  } finally {
    session.destroy();
  }
});

test('an interim answer keeps the rules of an answer', async () => {
  const lines = ['Connection: X-Mine', 'X-Mine: a', 'Keep-Alive: timeout=5', 'Transfer-Encoding: chunked', 'Upgrade: h2c', 'Set-Cookie: a=b', 'X-Stays: c'];
  answers['/rules'] = hint('/rules', ...lines) + OK;
  const { interim: [head] } = await ask2('/rules');
  assert.deepEqual(Object.keys(head).sort(), [':status', 'link', 'set-cookie', 'x-stays']);
  // One of others leads nowhere into our network, and sets no cookies.
  answers['/theirs/hints'] = hint('http://10.0.0.1/x', 'Link: <https://cdn.example/y>; rel=preload', ...lines) + OK;
  const theirs = await ask2('/theirs/hints');
  assert.equal(theirs.status, 200);
  assert.deepEqual(Object.keys(theirs.interim[0]).sort(), [':status', 'link', 'x-stays']);
  assert.equal(theirs.interim[0].link, '<https://cdn.example/y>; rel=preload');
  const { got } = await talk('GET /theirs/hints HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
  assert.doesNotMatch(got, /10\.0\.0\.1|set-cookie/i);
  answers['/theirs/moved'] = hint('/x', 'Location: http://10.0.0.1/') + OK;
  assert.equal((await ask2('/theirs/moved')).status, 502);
  // Leave to send a body is for us, and switches are for nobody.
  answers['/continue'] = `HTTP/1.1 100 Continue\r\n\r\n${OK}`;
  assert.deepEqual(links(await ask2('/continue')), []);
  // Large ones are no hints any more.
  answers['/large'] = hint(`/${'a'.repeat(20000)}`) + hint(`/${'b'.repeat(20000)}`) + hint('/small') + OK;
  const large = await ask2('/large');
  assert.deepEqual([large.status, large.interim.length, large.interim[0].link.length], [200, 1, ours('/').length + 20000]);
});

test('hints of a server of Node reach clients of HTTP/2 of every make', async () => {
  const node = http.createServer((request, response) => {
    response.writeEarlyHints({ link: ['</style.css>; rel=preload; as=style', '</app.js>; rel=preload; as=script'], 'x-trace': 'abc' });
    response.end('ok');
  });
  await new Promise((resolve) => node.listen(hinting, '127.0.0.1', resolve));
  try {
    const direct = await ask2('/hinting/page');
    assert.deepEqual(links(direct), [[103, `${ours('/style.css')}; as=style, ${ours('/app.js')}; as=script`]]);
    assert.equal(direct.interim[0]['x-trace'], 'abc');
    const { body } = await curl('-i', ...over2('/hinting/page'));
    assert.match(body, /^HTTP\/2 103 \r\n.*\blink: <\/style.css>.*\r\n\r\nHTTP\/2 200 \r\n.*\r\n\r\nok$/s);
    const nghttp = await new Promise((resolve) => {
      execFile('nghttp', ['-v', '-n', '--no-verify-peer', `https://127.0.0.1:${door.ports.tls}/hinting/page`, '-H', ':authority: portal.example'], (error, out) => resolve(error?.code === 'ENOENT' ? undefined : out));
    });
    if (nghttp !== undefined) assert.match(nghttp, /:status: 103.*:status: 200/s);
  } finally {
    node.closeAllConnections();
    node.close();
  }
});

test('an answer that comes before the request has ended is passed on', async () => {
  const LARGE = 'HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig\n';
  const ends = {
    later: (socket) => { socket.pause(); socket.write(LARGE); setTimeout(() => socket.destroy(), 300); },
    now: (socket) => { socket.pause(); socket.write(LARGE, () => socket.destroy()); },
    reset: (socket) => { socket.pause(); socket.write(LARGE, () => (socket.encrypted ? socket.destroy() : socket.resetAndDestroy())); },
    'while it waits': (socket) => { socket.pause(); setTimeout(() => socket.write(LARGE, () => socket.destroy()), 100); },
  };
  fs.writeFileSync(`${folder}/five`, FIVE);
  const post = (...how) => curl('-H', 'Expect:', '-X', 'POST', '--data-binary', `@${folder}/five`, ...how);
  for (const [name, end] of Object.entries(ends)) {
    for (const where of ['/early', '/tls/early']) {
      answers[where] = end;
      const came = [];
      for (let i = 0; i < 3; i += 1) {
        came.push(await post(plain(where)), await post('-H', 'Transfer-Encoding: chunked', plain(where)), await post(...over2(where)));
      }
      assert.deepEqual([...new Set(came.map(({ said }) => said.split(' ')[0]))], ['413'], `${name} ${where}`);
    }
  }
  modern.answer = (stream) => { stream.respond({ ':status': 413 }); stream.end('big\n'); };
  for (const how of [[plain('/modern/early')], ['-H', 'Transfer-Encoding: chunked', plain('/modern/early')], over2('/modern/early')]) {
    assert.equal((await post(...how)).said.split(' ')[0], '413');
  }
});

test('an answer of an upstream that reads no more and stays is passed on at once', async () => {
  // More than all buffers on the way hold. The upstream never closes: only its answer can end it.
  fs.writeFileSync(`${folder}/large`, Buffer.alloc(48 << 20, 'x'));
  const upload = (...how) => curl('-H', 'Expect:', '-T', `${folder}/large`, ...how);
  const body = 'Content-Length: 4\r\n\r\nbig\n';
  const said = {
    refused: ['413', `HTTP/1.1 413 Too Large\r\n${body}`],
    empty: ['401', 'HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n'],
    chunked: ['400', 'HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbig\n\r\n0\r\n\r\n'],
    hinted: ['507', `HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 507 Insufficient Storage\r\n${body}`],
  };
  for (const [name, [status, text]] of Object.entries(said)) {
    for (const where of [`/stuck/${name}`, `/tls/stuck/${name}`]) {
      // Once before it has got much of the body, and once when nothing moves any more.
      for (const delay of [0, 500]) {
        answers[where] = (socket) => { socket.pause(); setTimeout(() => socket.write(text), delay); };
        for (const how of [[plain(where)], ['-H', 'Transfer-Encoding: chunked', plain(where)], over2(where)]) {
          const began = performance.now();
          const came = await upload(...how);
          assert.equal(came.said.split(' ')[0], status, `${where} ${how} ${delay}`);
          assert.ok(performance.now() - began < 6000, `${where} ${how} ${delay}: ${performance.now() - began} ms`);
        }
      }
    }
  }
  for (const [name, [status]] of Object.entries(said)) {
    const began = performance.now();
    const came = await upload('-x', `http://127.0.0.1:${proxy}`, `http://127.0.0.1:${bytes.address().port}/stuck/${name}`);
    assert.equal(came.said.split(' ')[0], status, name);
    assert.ok(performance.now() - began < 6000, name);
  }
  // An upstream of HTTP/2 says itself that it needs no more.
  modern.answer = (stream) => { stream.respond({ ':status': 413 }); stream.end('big\n'); };
  for (const how of [[plain('/modern/stuck')], over2('/modern/stuck')]) {
    assert.equal((await upload(...how)).said.split(' ')[0], '413');
  }
  // The record says what the client got, and no breaker holds it against the upstream.
  const records = () => door.records().filter((line) => line.path?.includes('/stuck/') && line.route);
  await door.record(() => records().length === 48);
  records().forEach((line) => assert.ok(line.code === 'ok' && Object.values(said).some(([status]) => status === `${line.status}`), JSON.stringify(line)));
  answers['/strict/stuck'] = (socket) => { socket.pause(); setTimeout(() => socket.write(said.refused[1]), 300); };
  answers['/strict/fine'] = OK;
  await Promise.all(Array.from({ length: 8 }, () => upload(...over2('/strict/stuck'))));
  await door.record(() => door.records().filter((line) => line.path === '/strict/stuck').length === 8);
  assert.equal((await curl(plain('/strict/fine'))).said, '200 1.1');
});

test('a client of HTTP/2 is told after the answer that the rest of its body is not needed', async () => {
  answers['/stuck/told'] = (socket) => { socket.pause(); socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig\n'); };
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'portal.example' });
  try {
    const stream = session.request({ ':method': 'POST', ':path': '/stuck/told', ':authority': 'portal.example' });
    stream.on('error', () => {});
    const feed = () => { while (!stream.destroyed && stream.write(Buffer.alloc(1 << 20))); };
    stream.on('drain', feed);
    feed();
    const began = performance.now();
    const [head] = await once(stream, 'response');
    assert.equal(head[':status'], 413);
    assert.ok(performance.now() - began < 2000);
    let text = '';
    stream.on('data', (data) => { text += data; });
    await once(stream, 'close');
    assert.deepEqual([text, stream.rstCode], ['big\n', http2.constants.NGHTTP2_NO_ERROR]);
    // The connection is as good as before.
    const next = session.request({ ':path': '/hints', ':authority': 'portal.example' });
    assert.equal((await once(next, 'response'))[0][':status'], 200);
    next.resume();
    await once(next, 'close');
  } finally {
    session.destroy();
  }
});

test('uploads to an upstream that turns out to speak HTTP/2 arrive, at once and one after the other', async () => {
  const pair = { cert: fs.readFileSync(`${folder}/portal.crt`), key: fs.readFileSync(`${folder}/portal.key`) };
  const either = http2.createSecureServer({ ...pair, allowHTTP1: true });
  const versions = new Set();
  either.on('request', (request, response) => {
    const hash = crypto.createHash('sha256');
    versions.add(request.httpVersion);
    request.on('data', (data) => hash.update(data));
    request.on('end', () => response.end(hash.digest('hex')));
  });
  await new Promise((resolve) => either.listen(eitherPort, '127.0.0.1', resolve));
  try {
    const sent = crypto.randomBytes(6 << 20);
    fs.writeFileSync(`${folder}/six`, sent);
    const expected = crypto.createHash('sha256').update(sent).digest('hex');
    const upload = async (...how) => assert.deepEqual(await curl('-H', 'Expect:', '-T', `${folder}/six`, ...how).then(({ body }) => body), expected);
    const ways = [[plain('/either/x')], ['-H', 'Transfer-Encoding: chunked', plain('/either/x')], over2('/either/x')];
    for (let round = 0; round < 3; round += 1) await Promise.all([...ways, ...ways].map((how) => upload(...how)));
    assert.deepEqual([...versions], ['2.0']);
  } finally {
    either.close();
  }
});

test('a client of HTTP/1 that goes on sending reads the answer, and that it is the last', async () => {
  answers['/stuck/goes-on'] = (socket) => { socket.pause(); socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig\n'); };
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  let got = '';
  socket.on('error', () => {});
  socket.on('data', (data) => { got += data; });
  const closed = once(socket, 'close');
  socket.write(`POST /stuck/goes-on HTTP/1.1\r\nHost: a\r\nContent-Length: ${1 << 30}\r\n\r\n`);
  const feed = () => { while (!socket.destroyed && socket.write(Buffer.alloc(1 << 20))); };
  socket.on('drain', feed);
  feed();
  const began = performance.now();
  while (!got.endsWith('big\n')) await once(socket, 'data');
  assert.ok(performance.now() - began < 2000);
  assert.match(got, /^HTTP\/1.1 413 .*\r\nconnection: close\r\n/is);
  await closed;
  assert.ok(performance.now() - began < 10000);
});

test('what an upstream is slow to take still reaches it, whatever it has answered', async () => {
  const size = 12 << 20;
  let got;
  const slowly = http.createServer((request, response) => {
    got = crypto.createHash('sha256');
    let bytes = 0;
    // A head and a part of a body come long before the request has ended.
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    response.write('early\n');
    request.on('data', (data) => {
      got.update(data);
      bytes += data.length;
      request.pause();
      setTimeout(() => request.resume(), 2);
    });
    request.on('end', () => response.end(`${bytes} ${got.digest('hex')}`));
  });
  await new Promise((resolve) => slowly.listen(hinting, '127.0.0.1', resolve));
  try {
    const sent = crypto.randomBytes(size);
    fs.writeFileSync(`${folder}/random`, sent);
    const expected = `early\n${size} ${crypto.createHash('sha256').update(sent).digest('hex')}`;
    for (const how of [[plain('/hinting/slowly')], ['-H', 'Transfer-Encoding: chunked', plain('/hinting/slowly')], over2('/hinting/slowly')]) {
      const came = await curl('-H', 'Expect:', '-T', `${folder}/random`, ...how);
      assert.deepEqual([came.said.split(' ')[0], came.body], ['200', expected], how.join(' '));
    }
  } finally {
    slowly.closeAllConnections();
    slowly.close();
  }
});

test('nobody is asked anything on a connection that was left within a body', async () => {
  // It answers at once, reads no more, and says nothing until it closes: all of the body may be on its way by then.
  answers['/left'] = (socket) => { socket.pause(); socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig\n'); setTimeout(() => socket.destroy(), 300); };
  const body = 'x'.repeat(300000);
  for (let i = 0; i < 20; i += 1) {
    const { got } = await talk(`POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`, { until: (text) => text.endsWith('big\n') });
    assert.match(got, /^HTTP\/1.1 413 /);
  }
});

test('an answer of HTTP/2 keeps its rules, and its trailers say only what trailers may', async () => {
  modern.answer = (stream, headers) => {
    switch (headers[':path']) {
      case '/modern/short':
        stream.respond({ ':status': 200, 'content-length': '10' });
        return stream.end('short');
      case '/modern/none':
        return stream.respond({ ':status': 204, 'content-length': '0' }, { endStream: true });
      case '/modern/trailers':
        stream.respond({ ':status': 200, trailer: 'x-sum' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '1', 'set-cookie': 'a=b', 'x-orbit-user-id': 'eve', 'content-type': 'text/html' }));
        return stream.end('body');
      default: return stream.close();
    }
  };
  const short = await ask2('/modern/short');
  assert.ok(short.broken || short.status === 502);
  assert.ok((await curl(plain('/modern/short'))).broken || (await curl(plain('/modern/short'))).said.startsWith('502'));
  const none = await ask2('/modern/none');
  assert.deepEqual([none.status, none.head['content-length']], [204, undefined]);
  const { trailers, body } = await ask2('/modern/trailers');
  assert.equal(body, 'body');
  assert.deepEqual(Object.entries(trailers), [['x-sum', '1']]);
});

test('cookies in pieces are one line to the upstream', async () => {
  answers['/cookies'] = OK;
  heads.length = 0;
  await curl('-H', 'cookie: theme=dark', '-H', 'cookie: session=abc', ...over2('/cookies'));
  await ask2('/cookies', { headers: { cookie: ['a=1', 'b=2', 'c=3'] } });
  assert.match(heads[0], /\r\ncookie: theme=dark; session=abc(\r\n|$)/i);
  assert.match(heads[1], /\r\ncookie: a=1; b=2; c=3(\r\n|$)/i);
  heads.forEach((head) => assert.equal(head.match(/\r\ncookie:/gi).length, 1));
  let seen;
  modern.answer = (stream, headers) => { seen = headers.cookie; stream.respond({ ':status': 200 }, { endStream: true }); };
  await ask2('/modern/cookies', { headers: { cookie: ['a=1', 'b=2'] } });
  assert.equal(seen, 'a=1; b=2');
});

const INSIDE = ['http://127.0.0.1:1/', 'http://2130706433/', 'http://0x7f.1/', 'http://0177.0.0.1/', '//10.0.0.1/x', 'http:\\\\169.254.169.254/latest/', 'http://[::1]/', 'http://[::ffff:10.0.0.1]/', 'http://localhost/'];
const redirect = (name, to, status = '302 Found') => `HTTP/1.1 ${status}\r\n${name}: ${to}\r\nContent-Length: 0\r\n\r\n`;

test('an answer of others that leads into our own network is refused', async () => {
  for (const [index, to] of INSIDE.entries()) {
    for (const where of [`/theirs/${index}`, `/plain/${index}`]) {
      answers[where] = redirect('Location', to);
      const came = where.startsWith('/plain')
        ? await curl('-x', `http://127.0.0.1:${proxy}`, `http://127.0.0.1:${bytes.address().port}${where}`)
        : await curl(plain(where));
      assert.equal(came.said.split(' ')[0], '502', `${where} ${to}`);
      assert.match(came.body, /redirect_refused/);
    }
  }
  for (const [name, to] of [['Content-Location', 'http://10.0.0.1/'], ['Refresh', '0; url=http://10.0.0.1/']]) {
    answers['/theirs/other'] = redirect(name, to, '200 OK');
    assert.equal((await curl(plain('/theirs/other'))).said, '502 1.1');
    assert.equal((await ask2('/theirs/other')).status, 502);
  }
  answers['/theirs/fine'] = redirect('Location', 'https://github.com/login');
  assert.equal((await curl(plain('/theirs/fine'))).said, '302 1.1');
  answers['/theirs/own'] = redirect('Location', `http://127.0.0.1:${bytes.address().port}/theirs/x`);
  assert.match((await talk('GET /theirs/own HTTP/1.1\r\nHost: portal.example\r\nConnection: close\r\n\r\n')).got, /location: http:\/\/portal\.example\/theirs\/x\r\n/i);
  answers['/ours'] = redirect('Location', 'http://10.0.0.1/');
  assert.equal((await curl(plain('/ours'))).said, '302 1.1');
  const record = await door.record((line) => line.code === 'redirect_refused');
  assert.equal(record.status, 502);
});

test('who calls is told to nobody outside', async () => {
  answers['/who'] = OK;
  heads.length = 0;
  const names = ['X-Orbit-User-Id', 'X-Orbit-Workspace-Id', 'X-Orbit-Anything', 'x_orbit_user_id', 'X-Stagedoor-Assertion', 'X-Forwarded-For', 'X_Forwarded_For', 'Forwarded', 'Proxy-Connection', 'Keep-Alive'];
  const came = await curl('-x', `http://127.0.0.1:${proxy}`, ...names.flatMap((name) => ['-H', `${name}: secret`]), '-H', 'X-Stays: a', `http://127.0.0.1:${bytes.address().port}/who`);
  assert.equal(came.said, '200 1.1');
  assert.doesNotMatch(heads[0], /secret|orbit|forwarded|assertion|proxy-/i);
  assert.match(heads[0], /x-stays: a/i);
  // What holds for answers to routes holds here.
  answers['/odd/plain'] = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nok';
  answers['/plain/101'] = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n';
  for (const where of ['/odd/plain', '/plain/101']) {
    assert.match((await curl('--http2', '-x', `http://127.0.0.1:${proxy}`, `http://127.0.0.1:${bytes.address().port}${where}`)).body, /upstream_malformed/);
  }
  assert.equal((await curl('--http2', '-x', `http://127.0.0.1:${proxy}`, `http://127.0.0.1:${bytes.address().port}/who`)).said, '200 1.1');
});
