'use strict';
// What lasts outlives reloads: a thousand WebSockets, streams, calls of gRPC and tunnels, through a hundred of them.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

const SOCKETS = 1000;
const RELOADS = 100;

let folder; let ca; let up; let rpc; let echo; let sockets; let door; let out;
/** The streams of server-sent events that the upstream writes to. */
const streams = new Set();
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-reloads-'));
  ca = authority(folder);
  const edge = ca.issue('edge', { names: ['localhost'] });
  sockets = new WebSocket.WebSocketServer({ noServer: true });
  up = http.createServer((request, response) => {
    if (request.url.startsWith('/plain')) { response.end('{}'); return; }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: first\n\n');
    streams.add(response);
    response.on('close', () => streams.delete(response));
  });
  up.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, (ws) => ws.on('message', (data) => ws.send(`${data}`))));
  rpc = http2.createServer();
  rpc.on('stream', (stream) => {
    stream.on('error', () => {});
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
    stream.on('data', (data) => stream.write(data));
  });
  echo = net.createServer((socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
  const [upPort, rpcPort, echoPort] = [await listen(up), await listen(rpc), await listen(echo)];
  out = await freePort();
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, limits: {connections_max: 3000}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${edge.cert}, key: ${edge.key}}]}}
  out: {kind: forward, address: 127.0.0.1:${out}, plugin: catalog, workspace: payments}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
egress:
  rules: [{name: echo, to: ["127.0.0.1:${echoPort}"]}]
  private: [{host: "127.0.0.1:${echoPort}", addresses: [127.0.0.1/32]}]
upstreams:
  up: {url: "http://127.0.0.1:${upPort}"}
  rpc: {url: "http://127.0.0.1:${rpcPort}", http: h2}
routes:
- {name: socket, methods: [GET], path: /socket, upstream: up, class: read, options: {upgrade: true}}
- {name: stream, methods: [GET], path: /stream, upstream: up, class: read}
- {name: plain, methods: [GET], path: /plain-0, upstream: up, class: read}
- {name: rpc, methods: [POST], path: /rpc, upstream: rpc, class: read}`);
  door.echo = echoPort;
});
after(async () => {
  await door?.stop();
  sockets.close(); up.closeAllConnections();
  [up, rpc, echo].forEach((server) => server.close());
  fs.rmSync(folder, { recursive: true });
});

const headers = { authorization: `Bearer ${orbit('ada', ['payments'])}` };

/** Each answers with `says(text)`, a promise of what came back, `ended()` and `close()`. */
const begin = {
  socket: () => new Promise((resolve, reject) => {
    const ws = new WebSocket(`${door.url.replace('http', 'ws')}/socket`, { headers });
    let ended = false;
    ws.on('error', reject);
    ws.on('close', () => { ended = true; });
    ws.on('open', () => resolve({
      says: (text) => new Promise((back) => { ws.once('message', (data) => back(`${data}`)); ws.send(text); }),
      ended: () => ended, close: () => ws.terminate(),
    }));
  }),
  stream: () => new Promise((resolve, reject) => {
    const request = http.get(`${door.url}/stream`, { headers: { ...headers, accept: 'text/event-stream' } }, (answer) => {
      let ended = false;
      answer.on('close', () => { ended = true; });
      answer.on('error', () => {});
      answer.once('data', () => resolve({
        says: (text) => new Promise((back) => { answer.once('data', (data) => back(`${data}`.trim().slice(6))); streams.forEach((one) => one.write(`data: ${text}\n\n`)); }),
        ended: () => ended, close: () => request.destroy(),
      }));
    });
    request.on('error', reject);
  }),
  rpc: () => new Promise((resolve, reject) => {
    const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
    const call = session.request({ ':method': 'POST', ':path': '/rpc', 'content-type': 'application/grpc', te: 'trailers', ...headers });
    let ended = false;
    session.on('error', reject);
    call.on('error', () => {});
    call.on('close', () => { ended = true; });
    call.on('response', () => resolve({
      says: (text) => new Promise((back) => { call.once('data', (data) => back(`${data}`)); call.write(text); }),
      ended: () => ended, close: () => session.destroy(),
    }));
  }),
  tunnel: () => new Promise((resolve, reject) => {
    const socket = net.connect(out, '127.0.0.1');
    let ended = false;
    socket.on('error', reject);
    socket.on('close', () => { ended = true; });
    socket.write(`CONNECT 127.0.0.1:${door.echo} HTTP/1.1\r\nHost: 127.0.0.1:${door.echo}\r\n\r\n`);
    socket.once('data', () => resolve({
      says: (text) => new Promise((back) => { socket.once('data', (data) => back(`${data}`)); socket.write(text); }),
      ended: () => ended, close: () => socket.destroy(),
    }));
  }),
};

test(`${SOCKETS} WebSockets, streams, calls and tunnels outlive ${RELOADS} reloads, each of which is in force`, async () => {
  const lasting = [];
  for (let n = 0; n < SOCKETS; n += 50) lasting.push(...await Promise.all(Array.from({ length: 50 }, begin.socket)));
  for (const kind of ['stream', 'rpc', 'tunnel']) lasting.push(await begin[kind]());
  const say = async (text) => {
    for (let n = 0; n < lasting.length; n += 100) assert.deepEqual(new Set(await Promise.all(lasting.slice(n, n + 100).map((one) => one.says(text)))), new Set([text]));
  };
  await say('before');
  const memory = () => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${door.pid}/status`, 'utf8'))[1]);
  let settled;
  for (let n = 1; n <= RELOADS; n += 1) {
    fs.writeFileSync(door.file, fs.readFileSync(door.file, 'utf8').replace(`/plain-${n - 1}`, `/plain-${n}`));
    const { successful, messages } = await door.reload();
    assert.deepEqual([successful, messages], [true, []]);
    const status = async (at) => (await fetch(`${door.url}/plain-${at}`, { headers })).status;
    assert.deepEqual([await status(n), await status(n - 1)], [200, 403], `reload ${n}`);
    if (n === 20) settled = memory();
  }
  assert.equal(lasting.filter((one) => one.ended()).length, 0);
  await say('after');
  assert.ok(memory() < settled + 16 * 1024, `${settled} KiB after 20 reloads, ${memory()} after ${RELOADS}`);
  lasting.forEach((one) => one.close());
  await until('their records', async () => door.records().filter((line) => ['socket', 'stream', 'rpc'].includes(line.route) || line.listener === 'out').length === lasting.length);
});
