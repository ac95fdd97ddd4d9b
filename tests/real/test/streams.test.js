'use strict';
// A stream that ends with the token of whoever opened it, where a route says so.

const assert = require('node:assert/strict');
const http = require('node:http');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { identity, orbit } = require('../rig/jwt');
const { stagedoor } = require('../rig/stagedoor');

let up; let door; let sockets;
before(async () => {
  sockets = new WebSocket.WebSocketServer({ noServer: true });
  up = http.createServer((_, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const timer = setInterval(() => response.write('data: tick\n\n'), 100);
    response.on('close', () => clearInterval(timer));
  });
  up.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, (ws) => ws.send('first')));
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: ends, methods: [GET], path: /ends/**, upstream: up, class: read, options: {upgrade: true, stream_max: token}}
- {name: lasts, methods: [GET], path: /lasts/**, upstream: up, class: read, options: {upgrade: true}}`);
});
after(async () => { await door.stop(); sockets.close(); up.closeAllConnections(); up.close(); });

const token = (seconds) => ({ authorization: `Bearer ${orbit('ada', ['payments'], { exp: Math.floor(Date.now() / 1000) + seconds })}` });
const socket = (where, headers) => new Promise((resolve, reject) => {
  const ws = new WebSocket(`${door.url.replace('http', 'ws')}${where}`, { headers });
  const closed = new Promise((done) => ws.on('close', () => done(Date.now())));
  ws.on('error', reject);
  ws.once('message', () => resolve({ ws, closed }));
});
/** When it ended. */
const events = async (where, headers, signal) => {
  const answer = await fetch(`${door.url}${where}`, { headers: { ...headers, accept: 'text/event-stream' }, signal });
  assert.equal(answer.status, 200);
  try { for await (const _ of answer.body) { /* it ticks */ } } catch { /* it was cut */ }
  return Date.now();
};

test('a stream ends when its caller\'s token does, silent or not, and one elsewhere goes on', async () => {
  const aborted = new AbortController();
  const began = Date.now();
  const short = token(3);
  const end = (Math.floor(began / 1000) + 3) * 1000;
  const [ends, later, lasts] = [await socket('/ends/socket', short), await socket('/ends/socket', token(3600)), await socket('/lasts/socket', short)];
  const others = events('/lasts/events', short, aborted.signal);
  const ticking = events('/ends/events', short);
  for (const at of [await ends.closed, await ticking]) assert.ok(at >= end - 50 && at < end + 3000, `${at - end} ms after the token`);
  for (const { ws } of [later, lasts]) assert.equal(ws.readyState, WebSocket.OPEN);
  assert.equal(await Promise.race([others, 'goes on']), 'goes on');
  aborted.abort();
  [later, lasts].forEach(({ ws }) => ws.terminate());
  const records = [await door.record((r) => r.route === 'ends' && r.status === 101 && r.cut), await door.record((r) => r.route === 'ends' && r.status === 200 && r.cut)];
  assert.deepEqual(records.map((r) => r.code), ['token_expired', 'token_expired']);
});
