'use strict';
// Whoever is slow is known for it: a client is never a failure of the upstream, a body that moves is never cut, and who trickles is.

const { execFile } = require('node:child_process');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { promisify } = require('node:util');
const { authority } = require('../rig/certificates');
const { stagedoor } = require('../rig/stagedoor');
const { until } = require('../rig/ports');

const run = promisify(execFile);
/** Answers as the query says: a line each 300 ms, or a quiet stream, or bytes as fast as they are taken. */
const answer = (request, response) => {
  const query = new URL(request.url, 'http://x').searchParams;
  const lines = (ms, count) => {
    let n = 0;
    const timer = setInterval(() => { n += 1; if (n > count) { clearInterval(timer); response.end(); } else response.write(`line ${n}\n`); }, ms);
    response.on('close', () => clearInterval(timer));
  };
  const length = query.get('length');
  const head = { ...(query.get('type') && { 'content-type': query.get('type') }), ...(length && { 'content-length': length }) };
  if (query.has('every')) { response.writeHead(200, head); response.write('first\n'); return lines(Number(query.get('every')), Number(query.get('count'))); }
  if (query.has('deaf')) return request.pause();
  if (query.has('processing')) {
    const timer = setInterval(() => response.writeProcessing(), 300);
    return response.on('close', () => clearInterval(timer));
  }
  if (query.has('bytes')) {
    response.writeHead(200, { 'content-length': query.get('bytes'), 'content-type': 'application/octet-stream' });
    return response.end(Buffer.alloc(Number(query.get('bytes'))));
  }
  let size = 0;
  request.on('data', (part) => { size += part.length; });
  request.on('end', () => response.end(String(size)));
  return undefined;
};

let one; let two; let door; let tls;
before(async () => {
  one = http.createServer({ requestTimeout: 0 }, answer);
  two = http2.createServer(answer);
  for (const server of [one, two]) await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  door = await stagedoor((ports, folder) => {
    const ca = authority(folder);
    tls = { ca: ca.ca, ...ca.issue('edge', { names: ['localhost'] }) };
    const limits = 'limits: {body_timeout: 30s, write_timeout: 2s, body_max: 64MiB}';
    const options = 'options: {public: true, workspace: optional';
    return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, ${limits}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${tls.cert}, key: ${tls.key}}]}, ${limits}}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 1000/s, burst: 10000}}
upstreams:
  one: {url: "http://127.0.0.1:${one.address().port}", timeouts: {upstream: 1s, total: 2s, stream_idle: 5s}}
  two: {url: "http://127.0.0.1:${two.address().port}", http: h2, timeouts: {upstream: 1s, total: 2s, stream_idle: 5s}}
  odd: {url: "http://127.0.0.1:${one.address().port}", timeouts: {upstream: 1s, total: 2s, stream_idle: 5s}, breaker: {requests_min: 1000000}}
  sick: {url: "http://127.0.0.1:${one.address().port}", timeouts: {upstream: 1s, total: 2s}, breaker: {requests_min: 1}}
routes:
- {name: one, methods: [ANY], path: /one/**, upstream: one, class: read, ${options}}}
- {name: two, methods: [ANY], path: /two/**, upstream: two, class: read, ${options}}}
- {name: sick, methods: [ANY], path: /sick/**, upstream: sick, class: read, ${options}}}
- {name: odd, methods: [ANY], path: /odd/**, upstream: odd, class: read, ${options}}}
- {name: told, methods: [ANY], path: /told/**, upstream: odd, class: read, ${options}, stream: true}}
- {name: watch, methods: [ANY], path: /watch/**, upstream: odd, class: read, ${options}, stream_if: [watch]}}
`;
  });
});
after(async () => { await door?.stop(); for (const server of [one, two]) { server?.closeAllConnections?.(); server?.close(); } });

const text = async (where) => (await fetch(`${door.url}${where}`)).text();
const breakers = async () => Object.fromEntries((await (await door.admin('/state')).json()).breakers.map((one) => [one.upstream, one.position]));
/** A POST of so many bytes, one a second. */
const trickle = (where, { ms = 1000 } = {}) => new Promise((resolve) => {
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  let got = '';
  socket.on('data', (data) => { got += data; });
  socket.on('error', () => {});
  socket.on('close', () => { clearInterval(timer); resolve(got); });
  socket.write(`POST ${where} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n`);
  const timer = setInterval(() => socket.write('x'), ms);
});

test('a thousand strangers with a byte a second are told so, and nobody else notices', async () => {
  const began = Date.now();
  const strangers = Promise.all(Array.from({ length: 1000 }, (_, n) => trickle(n % 2 ? '/one/x' : '/two/x')));
  const others = [];
  let done = false;
  const asking = (async () => {
    while (!done) {
      const asked = Date.now();
      const answers = await Promise.all(['/one/ok', '/two/ok'].map((where) => fetch(`${door.url}${where}`)));
      for (const one of answers) { await one.text(); others.push([one.status, Date.now() - asked]); }
      await new Promise((resolve) => { setTimeout(resolve, 200); });
    }
  })();
  const answers = await strangers;
  done = true;
  await asking;
  for (const got of answers) assert.match(got, /^HTTP\/1.1 408 .*"code":"body_slow"/s);
  assert.ok(Date.now() - began < 40_000, `${Date.now() - began} ms`);
  assert.deepEqual([...new Set(others.map(([status]) => status))], [200]);
  assert.deepEqual(await breakers(), { odd: 'closed', one: 'closed', sick: 'closed', two: 'closed' });
  const record = await door.record((r) => r.code === 'body_slow');
  assert.deepEqual([record.status, record.route], [408, record.route]);
  assert.ok(door.records().filter((r) => r.code === 'body_slow').length === 1000);
});

test('an upload that moves passes, however long it takes, over both protocols on both sides', async () => {
  const file = path.join(door.folder, 'upload');
  fs.writeFileSync(file, Buffer.alloc(1_500_000));
  const curl = async (...args) => (await run('curl', ['-sS', '-m', '30', '-H', 'Expect:', '--limit-rate', '300k', '-T', file, ...args])).stdout;
  const secure = ['--cacert', tls.ca, '--http2'];
  const sizes = await Promise.all([
    curl(`${door.url}/one/x`), curl(`${door.url}/two/x`),
    curl(...secure, `https://localhost:${door.ports.tls}/one/x`), curl(...secure, `https://localhost:${door.ports.tls}/two/x`),
  ]);
  assert.deepEqual(sizes, Array(4).fill('1500000'));
});

test('a download that moves passes, however slowly it is taken, over both protocols on both sides', async () => {
  // curl takes what is there and then waits until it was slow enough: for less than `write_timeout`, however much was there.
  const curl = async (...args) => (await run('curl', ['-sS', '-m', '30', '--limit-rate', '6M', '-o', '/dev/null', '-w', '%{size_download} %{http_version}', ...args])).stdout;
  const secure = ['--cacert', tls.ca, '--http2'];
  const all = await Promise.all([
    curl(`${door.url}/one/x?bytes=15000000`), curl(`${door.url}/two/x?bytes=15000000`),
    curl(...secure, `https://localhost:${door.ports.tls}/one/x?bytes=15000000`), curl(...secure, `https://localhost:${door.ports.tls}/two/x?bytes=15000000`),
  ]);
  assert.deepEqual(all, ['15000000 1.1', '15000000 1.1', '15000000 2', '15000000 2']);
  assert.equal((await breakers()).one, 'closed');
});

test('streams are known by their type and their length, and may be quiet', async () => {
  const types = ['application/x-ndjson', 'text/plain', 'application/json;stream=watch', 'application/grpc-web+proto', 'application/connect+json', 'Text/Event-Stream'];
  const moving = types.map((type) => text(`/one/x?type=${encodeURIComponent(type)}&every=300&count=9`));
  const quiet = types.map((type) => text(`/one/x?type=${encodeURIComponent(type)}&every=2500&count=1`));
  const told = [text('/told/x?type=application/json&every=2500&count=1'), text('/watch/x?watch=true&type=application/json&every=2500&count=1')];
  const unknown = text('/one/x?type=application/json&every=300&count=9');
  for (const got of await Promise.all([...moving, unknown])) assert.match(got, /line 9\n$/);
  for (const got of await Promise.all([...quiet, ...told])) assert.match(got, /line 1\n$/);
  assert.equal((await breakers()).one, 'closed');
});

test('an answer that stands still is its upstream\'s failure, unless it is a stream', async () => {
  await assert.rejects(text('/sick/x?type=application/json&every=2500&count=1'));
  const record = await door.record((r) => r.route === 'sick');
  assert.deepEqual([record.status, record.code], [200, 'upstream_timeout']);
  assert.equal((await breakers()).sick, 'open');
  // It takes connections, so it is tried again at once, and that goes well.
  await until('it to be tried', async () => (await fetch(`${door.url}/sick/ok`)).status === 200);
  // Where the answer has a length, it has a least rate, too.
  await assert.rejects(text('/odd/x?type=application/json&every=500&count=1000&length=9000'));
  const slow = await door.record((r) => r.code === 'upstream_slow');
  assert.deepEqual([slow.status, slow.cut], [200, undefined]);
  await assert.rejects(text('/told/x?type=application/json&every=6000&count=1'), 'a stream has its own');
});

test('an upstream that does not take a body is waited for no longer than one that does not answer', async () => {
  const large = (where) => fetch(`${door.url}${where}`, { method: 'POST', body: Buffer.alloc(20_000_000) }).then((answered) => answered.status, () => 'broken');
  const began = Date.now();
  const ends = await Promise.all([large('/odd/deaf?deaf'), large('/two/deaf?deaf')]);
  assert.ok(ends.every((end) => end === 504 || end === 'broken'), ends.join());
  assert.ok(Date.now() - began < 10_000, `${Date.now() - began} ms`);
  for (const route of ['odd', 'two']) {
    const record = await door.record((r) => r.route === route && r.path.endsWith('/deaf'));
    assert.equal(record.code, 'upstream_timeout', route);
  }
});

test('who says again and again that it is at work has only so long', async () => {
  const began = Date.now();
  const answered = await fetch(`${door.url}/odd/x?processing`);
  assert.deepEqual([answered.status, (await answered.json()).code], [504, 'whole_timeout']);
  assert.ok(Date.now() - began < 4000);
});

test('who does not take the answer is cut off, and the upstream has done nothing wrong', async () => {
  const heldBack = (session, where) => new Promise((resolve) => {
    const stream = session.request({ ':path': where });
    stream.on('error', () => {});
    stream.on('close', () => resolve(stream.rstCode));
    // Nobody reads it.
    stream.pause();
  });
  const socket = net.connect({ port: door.ports.edge, host: '127.0.0.1' });
  socket.pause();
  socket.on('error', () => {});
  socket.write('GET /one/held?bytes=50000000 HTTP/1.1\r\nHost: a\r\n\r\n');
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(tls.ca) });
  session.on('error', () => {});
  // One that does not read what it asked for does not hold up the others on the upstream's connection.
  const held = ['/one/held2', '/two/held3'].map((where) => heldBack(session, `${where}?bytes=50000000`));
  assert.equal((await fetch(`${door.url}/two/ok`)).status, 200);
  const { NGHTTP2_INTERNAL_ERROR } = http2.constants;
  assert.deepEqual(await Promise.all(held), [NGHTTP2_INTERNAL_ERROR, NGHTTP2_INTERNAL_ERROR]);
  for (const part of ['held', 'held2', 'held3']) {
    const record = await door.record((r) => r.path.endsWith(`/${part}`));
    assert.deepEqual([record.status, record.code], [200, 'client_slow'], part);
  }
  socket.destroy();
  session.destroy();
  const now = await breakers();
  assert.deepEqual([now.one, now.two], ['closed', 'closed']);
});
