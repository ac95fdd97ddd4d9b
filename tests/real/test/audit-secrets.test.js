'use strict';
// Secrets in every place where a client can put one, and none of them in what the proxy writes.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { WebSocket } = require('ws');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const PASSWORD = 'planted-password-of-the-catalog';
const planted = [];
/** A secret that is remembered, with the place it is put into. */
const secret = (place, text = `planted-${place.replace(/[^A-Za-z]+/g, '-')}-${planted.length}`) => { planted.push([place, text]); return text; };
const token = (place, claims) => { const jwt = orbit('ada', ['payments'], claims); secret(`${place} (signature)`, jwt.split('.')[2]); secret(place, jwt); return jwt; };

let up; let door; let forward; let tunnelled;

/** Sends bytes as they are, and waits until the other side closes. */
const raw = (port, text) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1');
  let got = '';
  socket.setTimeout(4000, () => socket.destroy());
  socket.on('data', (data) => { got += data; });
  socket.on('error', () => {});
  socket.on('close', () => resolve(got));
  socket.write(text);
});
const basic = (text) => Buffer.from(text).toString('base64');

before(async () => {
  up = await upstream();
  tunnelled = net.createServer((socket) => { socket.on('error', () => {}); socket.pipe(socket); });
  await new Promise((resolve) => tunnelled.listen(0, '127.0.0.1', resolve));
  forward = await freePort();
  door = await stagedoor((ports, folder) => {
    fs.writeFileSync(`${folder}/password`, PASSWORD);
    return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, limits: {head_max: 16KiB}}
  out: {kind: forward, address: 127.0.0.1:${forward}}
${identity(folder)}
workspaces: {named: {payments: {resources: {stack: ["pay-*"]}}}}
upstreams: {up: {url: "${up.url}"}}
routes:
- {name: read, methods: [GET], path: "/read/**", upstream: up, class: read, options: {query: {allow: {org: [acme]}, remove: [host]}}}
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
- {name: socket, methods: [GET], path: /socket, upstream: up, class: read, options: {upgrade: true, cookie: true}}
- name: graphql
  methods: [POST]
  path: /graphql
  upstream: up
  class: read
  options: {graphql: [{query: [stacks]}, {mutation: [run], resources: {stack: stack}}]}
egress:
  rules: [{name: local, to: ["127.0.0.1:${up.port}", "127.0.0.1:${tunnelled.address().port}", "127.0.0.1:1"]}]
  private: [{host: "127.0.0.1:${up.port}", addresses: [127.0.0.1/32]}, {host: "127.0.0.1:${tunnelled.address().port}", addresses: [127.0.0.1/32]}, {host: "127.0.0.1:1", addresses: [127.0.0.1/32]}]
  callers: {catalog: {password_file: ${folder}/password, workspace: payments, plugin: catalog}}
  tls_ports: [443]`;
  }, { env: { STAGEDOOR_LOG: 'debug' } });
});
after(async () => { await door.stop(); await up.stop(); tunnelled.close(); });

/** All that the proxy wrote and tells. */
const told = async () => {
  const folder = path.join(door.folder, 'audit');
  const files = fs.readdirSync(folder).map((name) => fs.readFileSync(path.join(folder, name), 'utf8'));
  const pages = await Promise.all(['/metrics', '/state', '/jwks'].map(async (where) => (await door.admin(where)).text()));
  return { audit: files.join('\n'), log: door.output(), metrics: pages[0], state: pages[1], keys: pages[2] };
};

test('no secret gets into records, logs, metrics or the state', async () => {
  const before = door.records().length;
  const ghp = secret('path, a GitHub token', `ghp_${'0123456789abcdefghijklmnopqrstuvwxyz'}`);
  const slack = secret('path, a Slack token', 'xoxb-1234567890-abcdefghijklmnop');
  const bearer = `Bearer ${token('authorization')}`;
  const get = (where, headers = {}) => fetch(`${door.url}${where}`, { headers: { authorization: bearer, ...headers } }).then(async (answer) => { await answer.text(); return answer.status; });
  const post = (where, body, headers = {}) => fetch(`${door.url}${where}`, { method: 'POST', body, headers: { authorization: bearer, ...headers } }).then(async (answer) => { await answer.text(); return answer.status; });

  // Requests that pass, and that carry something everywhere.
  assert.equal(await get(`/read/visible-path?q=${secret('query')}&${secret('query name')}&org=acme&host=${secret('query, removed')}`, {
    cookie: `session=${secret('cookie')}; backstage-auth=${secret('cookie of Backstage')}`,
    traceparent: `00-${secret('traceparent')}`,
    tracestate: secret('tracestate'),
    'x-api-key': secret('header'),
    [secret('header-name').toLowerCase()]: '1',
    'x-forwarded-for': secret('x-forwarded-for'),
    referer: `https://x/?t=${secret('referer')}`,
    'user-agent': secret('user-agent'),
    'proxy-authorization': `Basic ${secret('proxy-authorization on a reverse listener')}`,
  }), 200);
  assert.equal(await get(`/read/x?org=${secret('refused query')}`), 403);
  assert.equal(await get(`/read/${ghp}/and/${slack}`), 200);
  assert.equal(await get(`/read/${token('path')}`), 200);
  assert.equal(await get(`/nowhere/${token('path of no route')}`), 403);
  assert.equal(await get('/read/x', { 'x-orbit-workspace-id': token('asked workspace') }), 403);
  assert.equal(await post('/act', secret('body'), { 'idempotency-key': secret('idempotency key') }), 200);
  const graphql = (query, variables) => post('/graphql', JSON.stringify({ query, variables }), { 'content-type': 'application/json' });
  assert.equal(await graphql(`query { stacks(secret: "${secret('GraphQL argument')}") { id } }`), 200);
  assert.equal(await graphql('mutation Run($s: ID!, $t: String) { run(stack: $s, token: $t) { id } }', { s: 'pay-visible', t: secret('GraphQL variable') }), 200);
  assert.equal(await graphql(`mutation { run(stack: "${token('GraphQL resource')}") { id } }`), 403);
  assert.equal(await graphql(`{ "${secret('GraphQL, broken')}`), 400);

  // Callers that prove nothing.
  for (const headers of [
    { authorization: `Bearer ${secret('garbage token')}` },
    { authorization: `Basic ${basic(secret('basic on a reverse listener'))}` },
    { authorization: `${secret('unknown scheme')} x` },
    { authorization: `Bearer ${token('expired token', { exp: 1 })}` },
    { authorization: `Bearer ${token('token for others', { aud: 'others' })}` },
    { authorization: `Bearer ${token('token of nobody', { iss: 'nobody' })}` },
  ]) assert.notEqual(await get('/read/x', headers), 200);

  // WebSockets.
  const spoken = token('sec-websocket-protocol');
  await new Promise((resolve, reject) => {
    const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/socket?t=${secret('query of a socket')}`, ['chat', spoken]);
    ws.on('open', () => ws.send(secret('message')));
    ws.on('message', () => { ws.close(); resolve(); });
    ws.on('error', reject);
  });
  const refused = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/socket`, ['chat', `eyJ${secret('refused protocol')}.a.b`]);
  await new Promise((resolve) => refused.on('error', resolve));

  // Heads that never become a request.
  const edge = (text) => raw(door.ports.edge, text);
  await edge(`GET /read/x?t=${secret('refused head, query')} HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(20000)}\r\n\r\n`);
  await edge(`GET /read/${token('refused head, path')} HTTP/1.1\r\nno colon ${secret('refused head, header')}\r\n\r\n`);
  await edge(`GET http://user:${secret('refused head, userinfo')}@a/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n`);
  await edge(`authorization: Bearer ${secret('a header as request line')}\r\n\r\n`);
  await edge(`{"password":"${secret('a body as request line')}"}\r\n\r\n`);
  await edge(`${secret('method')} / HTTP/1.1\r\nhost: a\r\n\r\n`);
  await edge(`POST /act HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nauthorization: ${secret('smuggled')}\r\n\r\n${secret('smuggled body')}`);

  // Calls out.
  const echo = tunnelled.address().port;
  const proxy = (head, rest = '') => raw(forward, `${head}\r\n\r\n${rest}`);
  const known = `proxy-authorization: Basic ${basic(`catalog:${PASSWORD}`)}`;
  planted.push(['proxy password', PASSWORD], ['proxy password, encoded', basic(`catalog:${PASSWORD}`)]);
  assert.match(await proxy(`CONNECT 127.0.0.1:${echo} HTTP/1.1\r\nhost: 127.0.0.1:${echo}\r\n${known}`, secret('bytes of a tunnel')), /^HTTP\/1.1 200/);
  assert.match(await proxy(`GET http://127.0.0.1:${up.port}/visible-call?t=${secret('query of a call')} HTTP/1.1\r\nhost: 127.0.0.1:${up.port}\r\n${known}\r\nauthorization: ${secret('authorization of a call')}\r\nconnection: close`), /^HTTP\/1.1 200/);
  const wrong = basic(`catalog:${secret('wrong password')}`);
  secret('wrong password, encoded', wrong);
  assert.match(await proxy(`CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\nproxy-authorization: Basic ${wrong}`), /^HTTP\/1.1 407/);
  assert.match(await proxy(`CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\nproxy-authorization: Bearer ${secret('wrong token of a call')}`), /^HTTP\/1.1 407/);
  assert.match(await proxy(`CONNECT user:${secret('userinfo of CONNECT')}@a.example:443 HTTP/1.1\r\nhost: a.example:443\r\n${known}`), /^HTTP\/1.1 400/);
  assert.match(await proxy(`GET http://user:${secret('userinfo of a call')}@a.example/?t=${secret('query of a refused call')} HTTP/1.1\r\nhost: a.example\r\n${known}`), /^HTTP\/1.1 400/);
  assert.match(await proxy(`GET https://a.example/${token('path of a refused call')}?t=${secret('query of https')} HTTP/1.1\r\nhost: a.example\r\n${known}`), /^HTTP\/1.1 400/);
  await proxy(`GET http://127.0.0.1:${up.port}/${token('path of a call')} HTTP/1.1\r\nhost: 127.0.0.1:${up.port}\r\n${known}\r\nconnection: close`);
  assert.match(await proxy(`CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: 127.0.0.1:1\r\n${known}\r\nx: ${secret('header of a call that reaches nobody')}`), /^HTTP\/1.1 502/);
  await proxy(`CONNECT ${secret('nonsense target')}:x HTTP/1.1\r\nx-y ${secret('refused head of a call')}`);

  await until('the records', async () => door.records().length >= before + 34, 10000);
  const all = await told();
  const found = planted.flatMap(([place, text]) => Object.entries(all).filter(([, written]) => written.includes(text)).map(([where]) => `${place} in ${where}`));
  // What a client names as the host it wants is what the record is about.
  assert.deepEqual(found.filter((where) => !where.startsWith('nonsense target') && !where.startsWith('method ')), []);

  // The same search finds what is recorded on purpose.
  for (const shown of ['visible-path', '/visible-call', 'pay-visible', 'ghp_***', 'xoxb-***', '/nowhere/eyJ***', '"idempotency_key_sha256"', '"org":["acme"]', '"org":["sha256:', '"caller":"catalog"']) {
    assert.ok(all.audit.includes(shown), `${shown} is recorded`);
  }
  assert.ok(all.log.includes('"level":"DEBUG"'), 'the log was at debug');
  assert.ok(up.seen.some((request) => request.url.includes(planted.find(([place]) => place === 'query')[1])), 'the upstream got the query');
});
