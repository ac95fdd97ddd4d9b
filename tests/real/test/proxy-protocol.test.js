'use strict';
// Load balancers that say whose a connection is before all else (PROXY protocol): real ones, over TLS and without, and strangers who say so,
// too.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { haproxy, nginx } = require('../rig/balancers');
const { authority } = require('../rig/certificates');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

let door; let up; let folder; let ca; let balancers; let plainOnly; let strict;
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-proxy-protocol-'));
  ca = authority(folder);
  ca.issue('edge', { names: ['localhost', '127.0.0.1'] });
  up = await upstream();
  [plainOnly, strict] = await Promise.all([freePort(), freePort()]);
  const ends = `tls: {certificates: [{cert: ${folder}/edge.crt, key: ${folder}/edge.key}]}`;
  // Clients come from 127.0.0.2, and balancers from 127.0.0.1.
  const tlsOnly = await freePort();
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, trusted_proxies: [198.51.100.0/24, 127.0.0.2/32], proxy_protocol: {from: [127.0.0.1/32]}, limits: {head_timeout: 1s}}
  secure: {kind: reverse, address: 127.0.0.1:${ports.tls}, proxy_protocol: {from: [127.0.0.1/32]}, ${ends}, limits: {head_timeout: 1s}}
  out: {kind: forward, address: 127.0.0.1:${strict}, workspace: payments, trusted_proxies: [127.0.0.1/32], proxy_protocol: {}}
  bare: {kind: reverse, address: 127.0.0.1:${plainOnly}}
  bare-secure: {kind: reverse, address: 127.0.0.1:${tlsOnly}, ${ends}}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 10000/s, burst: 10000}}
upstreams: {up: {url: "${up.url}"}}
routes: [{name: all, methods: [ANY], path: /**, upstream: up, class: read, options: {public: true}}]
egress: {rules: [{name: a, to: ["a.test:80"]}]}`);
  Object.assign(door.ports, { bare: plainOnly, out: strict, bareSecure: tlsOnly });
  const [one, two, three, secured] = await Promise.all([nginx(door.ports.edge), haproxy(door.ports.edge, 1), haproxy(door.ports.edge, 2, 'proxy-v2-options crc32c,unique-id,authority'), haproxy(door.ports.tls, 2)]);
  const nginxSecured = await nginx(door.ports.tls);
  balancers = { nginx: one, 'HAProxy, version 1': two, 'HAProxy, version 2': three, secured, nginxSecured };
});
after(async () => {
  await Promise.all(Object.values(balancers ?? {}).map((one) => one.stop()));
  await door?.stop(); await up?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

const curl = (url, ...more) => new Promise((resolve, reject) => {
  execFile('curl', ['-sS', '--max-time', '10', '--interface', '127.0.0.2', '--cacert', `${folder}/ca.crt`, ...more, url], (error, out, err) => (error ? reject(new Error(err)) : resolve(out)));
});
const forwarded = async (url, ...more) => JSON.parse(await curl(url, ...more)).headers['x-forwarded-for'];
/** Sends bytes, and answers all that comes back. */
const ask = (bytes, { port = door.ports.edge, from = '127.0.0.1' } = {}) => new Promise((resolve) => {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: from }, () => socket.write(bytes));
  let got = '';
  socket.setTimeout(8000, () => socket.destroy());
  socket.on('data', (data) => { got += data; }).on('error', () => {}).on('close', () => resolve(got));
});
const GET = 'GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n';
const seen = (answer) => /"x-forwarded-for":"([^"]*)"/.exec(answer)?.[1] ?? answer;
const code = (answer) => /"code":"(\w+)"/.exec(answer)?.[1] ?? (answer || 'closed');
const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
const v2 = (command, family, rest, length = rest.length) => Buffer.concat([SIGNATURE, Buffer.from([command, family, length >> 8, length & 255]), rest]);
const V4 = Buffer.from('cb0071070a000001c7a701bb', 'hex');
const refused = (code) => door.records().filter((r) => r.code === code);

test('whose a connection is, real balancers say: without TLS, and before it', async () => {
  for (const name of ['nginx', 'HAProxy, version 1', 'HAProxy, version 2']) {
    assert.equal(await forwarded(`http://127.0.0.1:${balancers[name].port}/x`), '127.0.0.2', name);
    const record = await door.record((r) => r.client === '127.0.0.2' || r.peer === '127.0.0.2');
    assert.ok(record, name);
  }
  for (const name of ['secured', 'nginxSecured']) {
    for (const version of ['--http1.1', '--http2']) assert.equal(await forwarded(`https://localhost:${balancers[name].port}/x`, version), '127.0.0.2', `${name} ${version}`);
  }
});

test('a balancer that looks whether somebody is there is no refusal', async () => {
  await door.settled();
  assert.deepEqual(door.records().filter((r) => r.decision === 'deny').map((r) => r.code), []);
});

test('a request that is sent after the header, in one piece or byte by byte, is the client\'s', async () => {
  const header = 'PROXY TCP4 203.0.113.7 10.0.0.1 51111 443\r\n';
  assert.equal(seen(await ask(`${header}${GET}`)), '203.0.113.7');
  assert.equal(seen(await ask(`PROXY TCP6 2001:db8::7 ::1 51111 443\r\n${GET}`)), '2001:db8::7');
  assert.equal(seen(await ask(`PROXY UNKNOWN\r\n${GET}`)), '127.0.0.1');
  assert.equal(seen(await ask(Buffer.concat([v2(0x21, 0x11, V4), Buffer.from(GET)]))), '203.0.113.7');
  assert.equal(seen(await ask(Buffer.concat([v2(0x20, 0x00, Buffer.alloc(0)), Buffer.from(GET)]))), '127.0.0.1');
  const bytes = Buffer.concat([v2(0x21, 0x11, V4), Buffer.from(GET)]);
  const slow = await new Promise((resolve) => {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let got = '';
    socket.setNoDelay(true);
    socket.on('data', (data) => { got += data; }).on('close', () => resolve(got));
    let at = 0;
    const next = () => { if (at < bytes.length) { socket.write(bytes.subarray(at, at + 1), () => setImmediate(next)); at += 1; } };
    next();
  });
  assert.equal(seen(slow), '203.0.113.7');
});

test('whether what is said further is believed depends on whose the connection is', async () => {
  const said = GET.replace('Host', 'X-Forwarded-For: 192.0.2.99\r\nHost');
  assert.equal(seen(await ask(`PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\n${said}`)), '203.0.113.7', 'a client says what it likes');
  assert.equal(seen(await ask(`PROXY TCP4 198.51.100.9 10.0.0.1 1 443\r\n${said}`)), '192.0.2.99, 198.51.100.9', 'a proxy behind the balancer');
});

test('a stranger cannot say whose its connection is, nor come without saying', async () => {
  const stranger = { from: '127.0.0.3' };
  assert.equal(code(await ask(`PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\n${GET}`, stranger)), 'proxy_header_refused');
  assert.equal(code(await ask(Buffer.concat([v2(0x21, 0x11, V4), Buffer.from(GET)]), stranger)), 'proxy_header_refused');
  assert.equal(code(await ask(GET, stranger)), 'proxy_header_refused');
  await door.settled();
  const [record] = refused('proxy_header_refused');
  assert.equal(record.peer ?? record.client, '127.0.0.3');
  assert.equal(await ask(`PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\n${GET}`, { ...stranger, port: door.ports.tls }), '', 'closed: it is spoken to in TLS alone');
  await until('the record', async () => refused('proxy_header_refused').length === 4);
});

test('a connection without a header is refused, and a broken header too, within bounds', async () => {
  assert.equal(code(await ask(GET)), 'proxy_header_missing');
  assert.equal(code(await ask('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03')), 'proxy_header_missing');
  for (const bad of [
    'PROXY TCP4 203.0.113.07 10.0.0.1 1 443\r\n', `PROXY UNKNOWN ${'a'.repeat(10 << 10)}\r\n`, 'PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n',
    v2(0x21, 0x11, V4.subarray(0, 8)), v2(0x21, 0x11, Buffer.alloc(0), 65535), v2(0x31, 0x11, V4), v2(0x21, 0x11, Buffer.concat([V4, Buffer.from([3, 0, 4, 1, 2, 3, 4])])), v2(0x21, 0x11, Buffer.concat([V4, Buffer.from([4, 255, 255])])),
  ]) assert.equal(code(await ask(Buffer.concat([Buffer.from(bad), Buffer.from(GET)]))), 'proxy_header_malformed', String(bad).slice(0, 40));
  // A second one is no request.
  assert.equal(code(await ask(`PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\nPROXY TCP4 192.0.2.1 10.0.0.1 1 443\r\n${GET}`)), 'head_malformed');
  assert.equal(await ask(GET, { port: door.ports.tls }), '');
  const began = Date.now();
  await ask('PROXY TCP4 203');
  await ask(SIGNATURE);
  await ask('');
  assert.ok(Date.now() - began < 6000, 'each had the time of a head');
  await until('the records', async () => refused('head_timeout').length >= 2);
});

test('a listener that expects none says what it is that came', async () => {
  const what = /begins with a PROXY protocol header: write `proxy_protocol`/;
  for (const header of ['PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\n', v2(0x21, 0x11, V4)]) {
    const answer = await ask(Buffer.concat([Buffer.from(header), Buffer.from(GET)]), { port: door.ports.bare });
    assert.match(answer, /^HTTP\/1.1 400 /);
    assert.match(answer, what);
    await ask(Buffer.concat([Buffer.from(header), Buffer.from(GET)]), { port: door.ports.bareSecure });
  }
  await until('both of those who were spoken to in TLS', async () => refused('head_malformed').filter((r) => r.listener === 'bare-secure').length === 2);
  const fine = await new Promise((resolve, reject) => {
    const socket = tls.connect({ port: door.ports.bareSecure, host: '127.0.0.1', ca: fs.readFileSync(`${folder}/ca.crt`) }, () => { socket.destroy(); resolve('open'); });
    socket.on('error', reject);
  });
  assert.equal(fine, 'open');
});

test('a forward listener behind a balancer takes those that trusted_proxies names', async () => {
  const answer = await ask(`PROXY TCP4 203.0.113.7 10.0.0.1 1 443\r\nCONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n`, { port: door.ports.out });
  assert.match(answer, /^HTTP\/1.1 403 host_refused/);
  const record = await door.record((r) => r.target === 'b.test:443');
  assert.equal(record.client ?? record.peer, '203.0.113.7');
});
