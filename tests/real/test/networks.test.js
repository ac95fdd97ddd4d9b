'use strict';
// Where names come from: the hosts file, for what is called as for upstreams, and `egress.private` on whichever
// port a rule allows. In a mount namespace of its own, so that the machine's hosts file stays as it is.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { dns } = require('../rig/dns');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let folder; let up; let other; let names; let door; let skip;
const hosts = (text) => fs.writeFileSync(`${folder}/hosts`, text);

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-networks-'));
  hosts('127.0.0.1 localhost\n');
  const under = ['unshare', '-rm', 'sh', '-c', `mount --bind ${folder}/hosts /etc/hosts && exec "$0" "$@"`];
  try { execFileSync(under[0], [...under.slice(1), 'true'], { stdio: 'ignore' }); } catch { skip = 'this machine has no namespaces'; return; }
  const listen = (server) => new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
  up = http.createServer((request, response) => response.end(`hello to ${request.headers.host}`));
  other = http.createServer((_, response) => response.end('another'));
  await Promise.all([listen(up), listen(other)]);
  names = await dns({ 'both.corp.test': { A: ['127.0.0.9'] } });
  const port = up.address().port;
  hosts(`127.0.0.1 localhost\n# aliases of the pod\n127.0.0.1 GHES.corp.test both.corp.test\n10.0.0.7 inside.corp.test\n169.254.169.254 meta.corp.test\n`);
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  out: {kind: forward, address: 127.0.0.1:${ports.tls}, workspace: payments}
workspaces: {named: {payments: {}}}
upstreams:
  up: {url: "http://ghes.corp.test:${port}"}
  outside: {url: "http://ghes.corp.test:${port}", external: true}
routes:
- {name: up, methods: [GET], path: /up, upstream: up, class: read, options: {public: true}}
- {name: outside, methods: [GET], path: /outside, upstream: outside, class: read, options: {public: true}}
egress:
  rules:
  - {name: a, to: ["ghes.corp.test:${port}", "both.corp.test:${port}", "inside.corp.test:${port}", "meta.corp.test:${port}", "later.corp.test:${port}", "none.corp.test:${port}"]}
  private:
  - {host: ghes.corp.test, addresses: [127.0.0.1/32]}
  - {host: both.corp.test, addresses: [127.0.0.1/32]}
  - {host: "*.corp.test:1", addresses: [10.0.0.0/8]}
  - {host: later.corp.test, addresses: [127.0.0.1/32]}
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`, { under });
});
after(async () => {
  await door?.stop(); await names?.stop(); up?.close(); other?.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

const plain = (host, port = up.address().port) => new Promise((resolve) => {
  const socket = net.connect(door.ports.tls, '127.0.0.1', () => socket.write(`GET http://${host}:${port}/x HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`));
  let got = '';
  socket.on('data', (data) => { got += data; }).on('error', () => {}).on('close', () => resolve(got));
});
const code = (answer) => /"code":"(\w+)"/.exec(answer)?.[1] ?? answer.split('\r\n\r\n')[1];
const get = async (where) => (await fetch(`${door.url}${where}`)).text();

test('a name of the hosts file is found by routes and by calls alike, and before DNS', async (t) => {
  if (skip) return t.skip(skip);
  const port = up.address().port;
  assert.equal(await get('/up'), `hello to ghes.corp.test:${port}`);
  assert.equal(await get('/outside'), `hello to ghes.corp.test:${port}`);
  assert.equal(code(await plain('ghes.corp.test')), `hello to ghes.corp.test:${port}`);
  assert.equal(code(await plain('both.corp.test')), `hello to both.corp.test:${port}`);
  assert.deepEqual(names.asked, [], 'no name server was asked');
  return undefined;
});

test('what it says is judged as what DNS says is', async (t) => {
  if (skip) return t.skip(skip);
  assert.equal(code(await plain('inside.corp.test')), 'address_refused');
  assert.equal(code(await plain('meta.corp.test')), 'address_refused');
  const record = await door.record((r) => r.code === 'address_refused');
  assert.deepEqual(record.resolved, ['10.0.0.7']);
  assert.equal(code(await plain('none.corp.test')), 'host_unresolved');
  return undefined;
});

test('a change of the file is seen', async (t) => {
  if (skip) return t.skip(skip);
  assert.equal(code(await plain('later.corp.test')), 'host_unresolved');
  fs.appendFileSync(`${folder}/hosts`, '127.0.0.1 later.corp.test\n');
  await until('the new name', async () => code(await plain('later.corp.test')).startsWith('hello'), 5000);
  return undefined;
});

test('a private address without a port is open on the ports of rules, and on no other', async (t) => {
  if (skip) return t.skip(skip);
  assert.match(code(await plain('ghes.corp.test')), /^hello/);
  assert.equal(code(await plain('ghes.corp.test', other.address().port)), 'host_refused');
  return undefined;
});
