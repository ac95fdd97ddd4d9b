'use strict';
// A switch that also ends what is under way: upgraded connections, streams and calls, silent ones
// too. What it is not about goes on, also on the same connection.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, afterEach, before, test } = require('node:test');
const WebSocket = require('ws');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let door; let up; let rpc; let echo; let ca; let out; let web; let session;
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-cut-'));
/** What is open at the upstreams, by what it was asked as. */
const open = new Map();
const begun = (name, on) => { open.set(name, (open.get(name) ?? 0) + 1); on('close', () => open.set(name, open.get(name) - 1)); };
const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
const who = ({ workspace = 'payments', caller = 'ada' } = {}) => ({ authorization: `Bearer ${orbit(caller, [workspace])}` });

before(async () => {
  ca = authority(folder);
  ca.issue('edge', { names: ['localhost'] });
  const sockets = new WebSocket.WebSocketServer({ noServer: true });
  up = http.createServer((request, response) => {
    if (request.url === '/quiet') { setTimeout(() => response.end('done'), 1000); return; }
    begun('stream', (...args) => response.on(...args));
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: first\n\n');
  });
  up.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, (ws) => {
    begun('socket', (...args) => ws.on(...args));
    ws.on('message', (data) => ws.send(`${data}`));
  }));
  rpc = http2.createServer();
  rpc.on('stream', (stream) => {
    begun('rpc', (...args) => stream.on(...args));
    stream.on('error', () => {});
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    stream.write('first');
  });
  echo = net.createServer((socket) => { begun('tunnel', (...args) => socket.on(...args)); socket.on('error', () => {}); socket.pipe(socket); });
  const [upPort, rpcPort, echoPort] = [await listen(up), await listen(rpc), await listen(echo)];
  [out, web] = [await freePort(), await freePort()];
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${folder}/edge.crt, key: ${folder}/edge.key}]}}
  out: {kind: forward, address: 127.0.0.1:${out}, plugin: catalog, workspace: payments}
  web: {kind: forward, address: 127.0.0.1:${web}, plugin: catalog, workspace: web}
${identity(own)}
workspaces: {named: {payments: {}, web: {}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
egress:
  rules: [{name: echo, to: ["127.0.0.1:${echoPort}", "127.0.0.1:${upPort}"]}]
  private:
  - {host: "127.0.0.1:${echoPort}", addresses: [127.0.0.1/32]}
  - {host: "127.0.0.1:${upPort}", addresses: [127.0.0.1/32]}
upstreams:
  up: {url: "http://127.0.0.1:${upPort}"}
  rpc: {url: "http://127.0.0.1:${rpcPort}", http: h2}
routes:
- {name: socket, methods: [GET], path: /socket, upstream: up, class: read, plugin: events, options: {upgrade: true}}
- {name: stream, methods: [GET], path: /stream, upstream: up, class: read, plugin: logs}
- {name: quiet, methods: [GET], path: /quiet, upstream: up, class: read, plugin: logs}
- {name: rpc, methods: [POST], path: /rpc, upstream: rpc, class: read, plugin: rpc}`);
  session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
});
after(async () => { session.close(); await door.stop(); up.closeAllConnections(); [up, rpc, echo].forEach((server) => server.close()); fs.rmSync(folder, { recursive: true }); });
afterEach(async () => {
  for (const { id } of await (await door.admin('/switches')).json()) await door.admin(`/switches/${id}`, { method: 'DELETE', body: '{"by": "bo"}' });
});

/** Each answers with `closed`, a promise, `isOpen()` and `close()`, once its first part is there. */
const kinds = {
  socket: (as) => new Promise((resolve, reject) => {
    const ws = new WebSocket(`${door.url.replace('http', 'ws')}/socket`, { headers: who(as) });
    const closed = new Promise((done) => ws.on('close', done));
    ws.on('error', reject);
    ws.on('open', () => ws.send('first'));
    ws.once('message', () => resolve({ closed, close: () => ws.terminate(), isOpen: () => new Promise((yes) => { ws.once('message', (m) => yes(`${m}` === 'again')); ws.send('again'); }) }));
  }),
  stream: (as) => new Promise((resolve, reject) => {
    const request = http.get(`${door.url}/stream`, { headers: who(as), agent: false }, (answer) => {
      let isOpen = true;
      const closed = new Promise((done) => answer.on('close', () => { isOpen = false; done(); }));
      answer.on('error', () => {});
      answer.once('data', () => resolve({ closed, close: () => request.destroy(), isOpen: async () => isOpen }));
    });
    request.on('error', reject);
  }),
  h2: (as, headers = { ':path': '/stream' }) => new Promise((resolve) => {
    const stream = session.request({ ...who(as), ...headers });
    let isOpen = true;
    const closed = new Promise((done) => stream.on('close', () => { isOpen = false; done(stream.rstCode); }));
    stream.on('error', () => {});
    stream.once('data', () => resolve({ closed, close: () => stream.destroy(), isOpen: async () => isOpen }));
  }),
  rpc: (as) => kinds.h2(as, { ':path': '/rpc', ':method': 'POST', 'content-type': 'application/grpc', te: 'trailers' }),
  plain: ({ workspace }) => new Promise((resolve, reject) => {
    const { port } = up.address();
    const request = http.get({ port: workspace === 'web' ? web : out, path: `http://127.0.0.1:${port}/stream`, headers: { host: `127.0.0.1:${port}` }, agent: false }, (answer) => {
      let isOpen = true;
      const closed = new Promise((done) => answer.on('close', () => { isOpen = false; done(); }));
      answer.on('error', () => {});
      answer.once('data', () => resolve({ closed, close: () => request.destroy(), isOpen: async () => isOpen }));
    });
    request.on('error', reject);
  }),
  tunnel: ({ workspace }) => new Promise((resolve, reject) => {
    const { port } = echo.address();
    const socket = net.connect(workspace === 'web' ? web : out, '127.0.0.1', () => socket.write(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\n\r\n`));
    const closed = new Promise((done) => socket.on('close', done));
    socket.on('error', reject);
    socket.once('data', (data) => {
      if (!/ 200 /.test(`${data}`)) return reject(new Error(`${data}`));
      socket.write('first');
      socket.once('data', () => resolve({ closed, close: () => socket.destroy(), isOpen: () => new Promise((yes) => { socket.once('data', (m) => yes(`${m}` === 'again')); socket.write('again'); }) }));
    });
  }),
};
const refused = () => new Promise((resolve) => session.request({ ...who(), ':path': '/stream' }).on('response', (headers) => resolve(headers[':status'])));
const cut = async (scope, more = {}) => {
  const answer = await door.admin('/switches', { method: 'POST', body: JSON.stringify({ ...scope, position: 'open', for: '1m', reason: 'it burns', by: 'ada', cut: true, ...more }) });
  const shown = await answer.json();
  assert.equal(answer.status, 201, JSON.stringify(shown));
  return shown;
};
const within = (promise, what) => Promise.race([promise, new Promise((_, reject) => setTimeout(() => reject(new Error(`${what} was not cut`)), 3000))]);
const underWay = async () => (await (await door.admin('/state')).json()).requests_in_flight;
const records = () => door.records().filter((record) => record.cut && record.code === 'switched_off');

for (const kind of ['socket', 'stream', 'h2', 'rpc', 'tunnel', 'plain']) {
  const route = { h2: 'stream', plain: 'stream' }[kind] ?? kind;
  test(`${kind}: what matches is cut, and nothing else`, async () => {
    const own = await kinds[kind]({ workspace: 'payments' });
    const other = await kinds[kind]({ workspace: 'web', caller: 'bo' });
    assert.equal(open.get(route), 2);
    const before = records().length;
    assert.equal((await cut({ upstream: 'up', workspace: 'web', class: 'action' })).cut, 0);
    assert.equal((await cut({ workspace: 'payments' }, { cut: false })).cut, undefined);
    fs.appendFileSync(door.file, '\n# another config\n');
    assert.equal((await door.reload()).successful, true);
    assert.ok(await own.isOpen(), 'neither a reload nor a switch that does not say so cuts anything');
    const shown = await cut({ workspace: 'payments' });
    assert.equal(shown.cut, 1);
    const code = await within(own.closed, kind);
    // Nobody takes it for whole.
    if (['h2', 'rpc'].includes(kind)) assert.equal(code, http2.constants.NGHTTP2_INTERNAL_ERROR);
    assert.ok(await other.isOpen(), 'the other goes on');
    await until('the upstream to see its end', async () => open.get(route) === 1, 3000);
    const told = await until('its record', async () => records()[before], 5000);
    assert.deepEqual([told.decision, told.code, told.workspace, told.status, told.cut], ['deny', 'switched_off', 'payments', kind === 'socket' ? 101 : 200, true]);
    assert.ok(told.bytes_out > 0 && told.duration_us > 0, JSON.stringify(told));
    assert.equal(told.upgraded, kind === 'socket' ? true : undefined);
    assert.equal(records().length, before + 1, 'once');
    const event = await until('its event', async () => door.written().find((line) => line.kind === 'switch' && line.switch === shown.id), 5000);
    assert.equal(event.cut, 1);
    other.close();
    await until('the end of the other', async () => await underWay() === 0 && open.get(route) === 0, 5000);
  });
}

test('many at once, by plugin, upstream and caller', async () => {
  for (const [kind, scope] of [['socket', { plugin: 'events' }], ['stream', { upstream: 'up' }], ['rpc', { caller: 'ada' }], ['h2', { class: 'read', plugin: 'logs' }]]) {
    const all = await Promise.all(Array.from({ length: 20 }, () => kinds[kind]({ workspace: 'payments' })));
    const { cut: count, id } = await cut(scope);
    assert.equal(count, 20);
    await within(Promise.all(all.map((one) => one.closed)), kind);
    await until('their end', async () => await underWay() === 0, 5000);
    if (kind === 'h2') assert.equal(await refused(), 503);
    await door.admin(`/switches/${id}`, { method: 'DELETE', body: '{"by": "bo"}' });
  }
  assert.ok(!session.closed && !session.destroyed, 'the connection that streams share stays');
  const again = await kinds.h2({ workspace: 'payments' });
  again.close();
});

test('a request that ends by itself is let to', async () => {
  const answer = fetch(`${door.url}/quiet`, { headers: who() });
  await until('it to be under way', async () => await underWay() > 0, 3000);
  assert.equal((await cut({ plugin: 'logs' })).cut, 0);
  assert.equal(await (await answer).text(), 'done');
});
