'use strict';
// The listeners for operators and probes: nobody uses them up, and they answer until the process ends.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');
const { raw } = require('../rig/upstream');

const KINDS = ['admin', 'status'];

let folder; let up; let ca; let clients; let held = [];
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-probes-'));
  ca = authority(path.join(folder, 'ca'));
  ca.issue('own', { names: ['localhost'] });
  clients = authority(path.join(folder, 'clients'), 'clients');
  clients.issue('operator');
  // Answers when a test says so.
  up = http.createServer((request, response) => { held.push(response); });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
});
after(() => {
  up.closeAllConnections(); up.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** A proxy with one more listener of a kind, with `more` of its config; `ports.own` is where it listens. */
const withListener = async (kind, more, body, process = 'process: {drain_delay: 0s, drain_timeout: 5s}') => {
  const own = await freePort();
  const door = await stagedoor((ports) => `
listeners:
  own: {kind: ${kind}, address: 127.0.0.1:${own}${more && `, ${more}`}}
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true}}
${process}`);
  try {
    return await body(door, own);
  } finally {
    await door.stop('SIGINT');
  }
};

/** What a connection that only says this is told until it is closed by the other side; undefined if it never is. */
const told = (port, bytes) => new Promise((resolve, reject) => {
  const socket = net.connect(port, '127.0.0.1');
  let got = '';
  socket.on('data', (data) => { got += data; });
  socket.on('error', reject);
  socket.on('close', () => resolve(got));
  socket.setTimeout(20000, () => { socket.destroy(); reject(new Error(`open for ever: ${got}`)); });
  if (bytes) socket.write(bytes);
});

/** A client with one connection, which it keeps; answers with the status, and whether the connection was that of before. */
const keeping = (port) => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (where) => new Promise((resolve, reject) => {
    const request = http.get({ port, host: '127.0.0.1', path: where, agent }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve({ status: answer.statusCode, kept: request.reusedSocket, connection: answer.headers.connection }));
    }).on('error', reject);
  });
  return { ask, end: () => agent.destroy() };
};

/** Refusals of the listener that were recorded. */
const refused = (door, code) => door.record((record) => record.listener === 'own' && record.code === code);

for (const kind of KINDS) {
  test(`${kind}: who says nothing, half a head or half a body is not waited for`, async () => {
    await withListener(kind, 'limits: {head_timeout: 1s, body_timeout: 1s, keepalive_timeout: 1s}', async (door, own) => {
      const [nothing, half, body, idle] = await Promise.all([
        told(own), told(own, 'GET /livez HTTP/1.1\r\nHost: a\r\n'),
        told(own, 'GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab'),
        told(own, 'GET /livez HTTP/1.1\r\nHost: a\r\n\r\n'),
      ]);
      assert.equal(nothing, '');
      assert.match(half, /^HTTP\/1\.1 408 .*head_timeout/s);
      for (const answer of [body, idle]) assert.match(answer, /^HTTP\/1\.1 200 .*\r\n\r\nok\n$/s);
      const record = await refused(door, 'head_timeout');
      assert.ok([0, 408].includes(record.status), JSON.stringify(record));
    });
  });

  test(`${kind}: more connections than allowed are refused, until one ends`, async () => {
    await withListener(kind, 'limits: {connections_max: 2}', async (door, own) => {
      const those = [keeping(own), keeping(own)];
      for (const one of those) assert.equal((await one.ask('/livez')).status, 200);
      const third = () => raw(own, 'GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
      const answer = await third();
      assert.match(answer, /^HTTP\/1\.1 503 .*\r\nRetry-After: 1\r\n/s);
      const { code, request_id: id } = JSON.parse(answer.split('\r\n\r\n')[1]);
      assert.equal(code, 'connections_exhausted');
      assert.equal((await refused(door, code)).id, id);
      assert.equal((await those[0].ask('/livez')).kept, true, 'those that are there live on');
      those[1].end();
      const fourth = keeping(own);
      await until('its place', async () => (await fourth.ask('/livez')).status === 200, 5000);
      fourth.end(); those[0].end();
    });
  });

  test(`${kind}: a head that can be read in two ways, or is too large, is refused and on record`, async () => {
    await withListener(kind, 'limits: {head_max: 2KiB, headers_max: 10, keepalive_requests_max: 2}', async (door, own) => {
      const head = (...lines) => ['GET /livez HTTP/1.1', 'Host: a', ...lines, '', ''].join('\r\n');
      for (const [bytes, status, code] of [
        [`${head('Content-Length: 1', 'Content-Length: 1')}x`, 400, 'framing_ambiguous'],
        [head('Content-Length: 1', 'Transfer-Encoding: chunked'), 400, 'framing_ambiguous'],
        [head(`X: ${'x'.repeat(4096)}`), 431, 'head_too_large'],
        [head(...Array.from({ length: 20 }, (_, n) => `X-${n}: x`)), 431, 'head_too_large'],
      ]) {
        const answer = await told(own, bytes);
        assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), bytes);
        const { code: got, request_id: id } = JSON.parse(answer.split('\r\n\r\n')[1]);
        assert.equal(got, code, bytes);
        assert.equal((await door.record((record) => record.id === id)).listener, 'own');
      }
      const metrics = await (await door.admin('/metrics')).text();
      assert.match(metrics, /^stagedoor_denials_total\{.*code="framing_ambiguous".*\} 2$/m);
      const client = keeping(own);
      const all = [];
      for (let n = 0; n < 4; n += 1) all.push(await client.ask('/livez'));
      client.end();
      assert.deepEqual(all.map((one) => [one.status, one.kept, one.connection]), [
        [200, false, 'keep-alive'], [200, true, 'close'], [200, false, 'keep-alive'], [200, true, 'close'],
      ]);
    });
  });

  test(`${kind}: over TLS and HTTP/2, with client certificates, within the same limits`, async () => {
    const at = (name) => path.join(folder, name);
    const secured = `tls: {certificates: [{cert: ${at('ca/own.crt')}, key: ${at('ca/own.key')}}], client_ca: ${clients.ca}, client_certificate: required}`;
    await withListener(kind, `${secured}, limits: {streams_max: 7, head_timeout: 1s, keepalive_timeout: 1s, connections_max: 3}`, async (door, own) => {
      const shown = ['--cert', at('clients/operator.crt'), '--key', at('clients/operator.key')];
      const curl = (...args) => new Promise((resolve) => execFile('curl', ['-s', '--cacert', ca.ca, '-o', '/dev/null', '-w', '%{http_code} %{http_version}', ...args, `https://localhost:${own}/readyz`], (error, out) => resolve(error ? error.code : out)));
      assert.equal(await curl('--http1.1', ...shown), '200 1.1');
      assert.equal(await curl('--http2', ...shown), '200 2');
      assert.notEqual(await curl('--http2'), '200 2', 'without a certificate');
      const pair = { ca: fs.readFileSync(ca.ca), cert: fs.readFileSync(at('clients/operator.crt')), key: fs.readFileSync(at('clients/operator.key')) };
      const session = http2.connect(`https://localhost:${own}`, pair);
      const closed = new Promise((resolve) => { session.once('close', resolve); session.on('error', () => {}); });
      await new Promise((resolve) => { session.once('remoteSettings', resolve); });
      assert.equal(session.remoteSettings.maxConcurrentStreams, 7);
      const ask = (where) => new Promise((resolve, reject) => {
        const stream = session.request({ ':path': where });
        stream.on('response', (head) => resolve(head[':status']));
        stream.on('error', reject);
        stream.resume();
      });
      assert.deepEqual(await Promise.all(['/livez', '/readyz', '/metrics'].map(ask)), [200, 200, 200]);
      // Idle, it is closed; and one that says nothing never begins.
      await closed;
      const silent = tls.connect({ port: own, host: '127.0.0.1', servername: 'localhost', ALPNProtocols: ['h2'], ...pair });
      silent.on('error', () => {});
      silent.resume();
      await new Promise((resolve) => { silent.once('close', resolve); });
      await refused(door, 'head_timeout');
    });
  });

  test(`${kind}: probes are answered throughout a drain, on new and on kept connections, and do not prolong it`, async () => {
    held = [];
    await withListener(kind, '', async (door, own) => {
      const fresh = (where) => { const one = keeping(own); return one.ask(where).finally(one.end); };
      const [kept, resting] = [keeping(own), keeping(own)];
      assert.equal((await kept.ask('/readyz')).status, 200);
      assert.equal((await resting.ask('/livez')).status, 200);
      const slow = fetch(`${door.url}/open/x`).then((answer) => answer.text());
      await until('it to be under way', async () => held.length === 1);
      // Whatever an operator has half asked for is nothing that a drain is about.
      const half = net.connect(own, '127.0.0.1');
      half.on('error', () => {});
      half.write('POST /switches HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{');
      door.signal('SIGTERM');
      await until('readiness to fail', async () => (await fresh('/readyz')).status === 503);
      // Until well after idle connections of others were closed.
      for (const begun = Date.now(); Date.now() - begun < 3000;) {
        const [a, b, c, d] = [await kept.ask('/livez'), await kept.ask('/readyz'), await fresh('/livez'), await fresh('/readyz')];
        assert.deepEqual([a.status, b.status, c.status, d.status], [200, 503, 200, 503]);
        assert.ok(a.kept && b.kept && a.connection === 'keep-alive', 'a connection lives on');
      }
      const rested = await resting.ask('/readyz');
      assert.deepEqual([rested.status, rested.kept], [503, true], 'it was not closed meanwhile');
      const begun = Date.now();
      held[0].end('done');
      assert.equal(await slow, 'done');
      assert.equal(await door.ended, 0);
      assert.ok(Date.now() - begun < 20000, 'it waits for nobody who asks how it is');
      half.destroy(); kept.end(); resting.end();
    }, 'process: {drain_delay: 1s, drain_timeout: 60s}');
  });
}

test('what operators do works as before: switches, reloads, long answers, and each is on record', async () => {
  await withListener('admin', 'limits: {keepalive_requests_max: 100}', async (door, own) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const ask = (method, where, parts = []) => new Promise((resolve, reject) => {
      const request = http.request({ port: own, host: '127.0.0.1', method, path: where, agent }, (answer) => {
        let text = '';
        answer.on('data', (data) => { text += data; });
        answer.on('end', () => resolve({ status: answer.statusCode, text, kept: request.reusedSocket }));
        answer.on('error', reject);
      }).on('error', reject);
      for (const part of parts) request.write(part);
      request.end();
    });
    const wanted = JSON.stringify({ upstream: 'up', position: 'open', for: '1m', by: 'ada', reason: 'a test' });
    const set = await ask('POST', '/switches', [wanted.slice(0, 20), wanted.slice(20)]);
    assert.equal(set.status, 201, set.text);
    for (const [method, where, status] of [['GET', '/config', 200], ['HEAD', '/state', 200], ['POST', '/reload', 200], ['GET', '/metrics', 200], ['GET', '/nothing', 404], ['PUT', '/reload', 405]]) {
      const answer = await ask(method, where);
      assert.deepEqual([answer.status, answer.kept], [status, true], `${method} ${where}`);
      assert.equal(answer.text.length > 0, method !== 'HEAD', where);
    }
    agent.destroy();
    await until('each to be on record', async () => {
      const asked = door.written().filter((line) => line.kind === 'admin').map((line) => `${line.method} ${line.path} ${line.status}`);
      return ['POST /switches 201', 'GET /config 200', 'HEAD /state 200', 'POST /reload 200', 'GET /nothing 404', 'PUT /reload 405'].every((one) => asked.includes(one)) && !asked.some((one) => one.includes('/metrics'));
    }, 5000);
  });
});
