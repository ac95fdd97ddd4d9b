'use strict';
// An action that was sent goes on when its client has gone, and what came of it is on record. Nothing else does.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let folder; let ca; let door; let up; let other;
/** Requests that wait for their answer, by request id, and whether the upstream was left. */
const held = new Map();
const hold = (id, respond, left) => {
  held.set(id, { respond, left: false });
  left(() => { held.get(id).left = true; });
};
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-unattended-'));
  ca = authority(folder);
  const edge = ca.issue('edge', { names: ['localhost'] });
  up = http.createServer((request, response) => {
    request.resume();
    let done = false;
    hold(request.headers['x-request-id'], (status, body) => { done = true; response.writeHead(status, { 'content-type': 'application/json' }); response.end(body); },
      (left) => response.on('close', () => { if (!done) left(); }));
  });
  other = http2.createServer();
  other.on('stream', (stream, headers) => {
    stream.resume();
    stream.on('error', () => {});
    let done = false;
    hold(headers['x-request-id'], (status, body) => { done = true; stream.respond({ ':status': status, 'content-type': 'application/json' }); stream.end(body); },
      (left) => stream.on('close', () => { if (!done) left(); }));
  });
  for (const server of [up, other]) await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${edge.cert}, key: ${edge.key}}]}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
upstreams:
  up: {url: "http://127.0.0.1:${up.address().port}", timeouts: {upstream: 6s, total: 12s}}
  other: {url: "http://127.0.0.1:${other.address().port}", http: h2, timeouts: {upstream: 6s, total: 12s}}
routes:
- {name: act, methods: [POST], path: /act, upstream: up, class: action, options: {redact: [secret]}}
- {name: act2, methods: [POST], path: /act2, upstream: other, class: action, options: {redact: [secret]}}
- {name: read, methods: [GET, POST], path: /read, upstream: up, class: read}`);
});
after(async () => { await door?.stop(); up.closeAllConnections(); up.close(); other.close(); fs.rmSync(folder, { recursive: true }); });

const token = `Bearer ${orbit('ada', ['payments'])}`;
const body = '{"service":"pay"}';
let count = 0;
const name = () => `unattended-${count += 1}`;
const reached = (id) => until('the upstream to be asked', async () => held.get(id));
const record = (id) => until('a record', async () => door.records().find((line) => line.id === id), 20000);
const head = (id, method, where, length) => [`${method} ${where} HTTP/1.1`, 'Host: localhost', `Authorization: ${token}`, `X-Request-Id: ${id}`, `Content-Length: ${length}`, '', ''].join('\r\n');
const socket = async (text) => {
  const connection = net.connect(door.ports.edge, '127.0.0.1');
  connection.on('error', () => {});
  await new Promise((resolve) => connection.write(text, resolve));
  return connection;
};
const sent = (id, method, where) => (method === 'POST' ? socket(head(id, method, where, body.length) + body) : socket(head(id, method, where, 0)));
const stream = async (id, method, where) => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
  const request = session.request({ ':method': method, ':path': where, authorization: token, 'x-request-id': id });
  for (const one of [session, request]) one.on('error', () => {});
  if (method === 'POST') request.end(body);
  return { session, request };
};
/** Ways to send a request and then go away. */
const leaves = {
  'a closed connection': async (id, method, where) => {
    const connection = await sent(id, method, where);
    return () => connection.destroy();
  },
  'a reset connection': async (id, method, where) => {
    const connection = await sent(id, method, where);
    return () => connection.resetAndDestroy();
  },
  'a cancelled stream': async (id, method, where) => {
    const { request, session } = await stream(id, method, where);
    return () => { request.close(http2.constants.NGHTTP2_CANCEL); setImmediate(() => session.close()); };
  },
  'a connection with streams that is gone': async (id, method, where) => {
    const { session } = await stream(id, method, where);
    return () => session.destroy();
  },
};

for (const [how, begin] of Object.entries(leaves)) {
  for (const where of ['/act', '/act2']) {
    test(`an action at ${where} goes on after ${how}`, async () => {
      const id = name();
      const leave = await begin(id, 'POST', where);
      const asked = await reached(id);
      leave();
      // A read whose client leaves in the same way after it is taken back: by then this one would have been, too.
      const read = name();
      const leaveRead = await begin(read, 'GET', '/read');
      const other = await reached(read);
      leaveRead();
      await until('the read to be taken back', async () => other.left);
      const taken = await record(read);
      assert.equal(taken.cut, true, JSON.stringify(taken));
      assert.equal(asked.left, false);
      asked.respond(201, '{"id":"dep-7","secret":"x"}');
      const { status, cut, decision, intended, control_id, code } = await record(id);
      assert.deepEqual({ status, cut, decision, intended, control_id, code }, { status: 201, cut: true, decision: 'allow', intended: true, control_id: 'dep-7', code: 'ok' });
      assert.equal(asked.left, false);
    });
  }
}

test('that its upstream fails is on record, too', async () => {
  const id = name();
  const leave = await leaves['a cancelled stream'](id, 'POST', '/act');
  const asked = await reached(id);
  leave();
  const { status, code } = await record(id);
  assert.deepEqual({ status, code }, { status: 504, code: 'upstream_timeout' });
  assert.equal(asked.left, true);
});

test('an action of which only a part was sent is not gone on with', async () => {
  const id = name();
  const connection = await socket(head(id, 'POST', '/act', 1000) + body);
  const asked = await reached(id);
  connection.destroy();
  await until('it to be taken back', async () => asked.left);
  assert.equal((await record(id)).cut, true);
});

test('a client that stays gets its answer, whatever is spoken on either side', async () => {
  for (const where of ['/act', '/act2']) {
    for (const begin of [stream, null]) {
      const id = name();
      if (begin) {
        const { request, session } = await begin(id, 'POST', where);
        const answered = new Promise((resolve) => request.on('response', resolve));
        (await reached(id)).respond(201, '{"id":"dep-8","secret":"x"}');
        assert.equal((await answered)[':status'], 201);
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        assert.equal(Buffer.concat(chunks).toString(), '{"id":"dep-8"}');
        session.close();
      } else {
        const answering = fetch(`${door.url}${where}`, { method: 'POST', body, headers: { authorization: token, 'x-request-id': id } });
        (await reached(id)).respond(201, '{"id":"dep-8","secret":"x"}');
        const answer = await answering;
        assert.deepEqual([answer.status, await answer.text()], [201, '{"id":"dep-8"}']);
      }
      const { status, cut } = await record(id);
      assert.deepEqual({ status, cut }, { status: 201, cut: undefined });
    }
  }
});
