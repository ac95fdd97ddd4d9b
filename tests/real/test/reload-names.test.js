'use strict';
// A reload waits for nobody else: not for name servers, not for issuers, not for a control source.

const assert = require('node:assert/strict');
const http = require('node:http');
const net = require('node:net');
const { after, before, test } = require('node:test');
const { dns } = require('../rig/dns');
const { identity } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

const NAMES = Array.from({ length: 20 }, (_, n) => `u${n}.example`);
let up; let names; let silent; let door; let ports; let folder;
/** The config with as many upstreams as `hosts`, and a route that the last one did not have. */
const config = (route, more = '') => (own, at) => { ports = own ?? ports; folder = at ?? folder; return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(folder)}
${more}
upstreams:
  known: {url: "http://known.example:${up.address().port}"}
${NAMES.map((name) => `  ${name.split('.')[0]}: {url: "http://${name}:${up.address().port}"}`).join('\n')}
routes:
- {name: known, methods: [GET], path: /known, upstream: known, class: read, options: {public: true}}
${NAMES.map((name) => `- {name: ${name.split('.')[0]}, methods: [GET], path: /${name.split('.')[0]}, upstream: ${name.split('.')[0]}, class: read, options: {public: true}}`).join('\n')}
- {name: own, methods: [GET], path: /${route}, upstream: known, class: read, options: {public: true}}
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`; };
const status = (path) => fetch(`${door.url}${path}`).then((answer) => answer.status);
/** How long it takes until a route of the new config is taken, in ms. */
const inForce = async (route, change) => {
  const began = performance.now();
  await change();
  while (await status(`/${route}`) !== 200) {
    if (performance.now() - began > 20000) throw new Error('not in force after 20 s');
    await new Promise((resolve) => { setTimeout(resolve, 10); });
  }
  return performance.now() - began;
};

before(async () => {
  up = http.createServer((request, response) => { request.resume(); response.end('up'); });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  // Takes connections and never says anything.
  silent = net.createServer((socket) => socket.on('error', () => {}));
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  names = await dns({ 'known.example': { A: ['127.0.0.1'] }, ...Object.fromEntries(NAMES.map((name) => [name, { A: ['127.0.0.1'] }])) });
  door = await stagedoor(config('before'));
  await until('the names', async () => (await Promise.all(NAMES.map((name) => status(`/${name.split('.')[0]}`)))).every((one) => one === 200));
});
after(async () => { await door?.stop(); await names?.stop(); up?.close(); silent?.close(); });

test('with twenty upstreams and a name server that is silent, a config is in force within 250 ms of SIGHUP', async () => {
  for (const name of [...NAMES, 'known.example']) names.zone[name] = null;
  for (const route of ['first', 'second', 'third']) {
    door.write(config(route)());
    const took = await inForce(route, async () => process.kill(door.pid, 'SIGHUP'));
    assert.ok(took < 250, `${route} after ${Math.round(took)} ms`);
  }
});

test('what was known of upstreams that are the same is known on', async () => {
  assert.equal(await status('/known'), 200);
  assert.equal(await status('/u7'), 200);
});

test('an issuer that takes connections and is silent keeps no config waiting', async () => {
  const issuers = Array.from({ length: 20 }, (_, n) => `    slow${n}: {issuer: "http://127.0.0.1:${silent.address().port}/${n}", audiences: [a]}`).join('\n');
  door.write(config('fourth', issuers)());
  const took = await inForce('fourth', async () => process.kill(door.pid, 'SIGHUP'));
  assert.ok(took < 250, `${Math.round(took)} ms`);
  door.write(config('fifth', issuers)());
  const again = await inForce('fifth', async () => process.kill(door.pid, 'SIGHUP'));
  assert.ok(again < 250, `${Math.round(again)} ms after another that looks around`);
});

test('whoever reloads and waits for the answer is told what did not come, in bounded time', async () => {
  const issuers = `    slow: {issuer: "http://127.0.0.1:${silent.address().port}", audiences: [a]}`;
  door.write(config('sixth', issuers)());
  const began = performance.now();
  const { successful, messages } = await door.reload();
  const took = performance.now() - began;
  assert.equal(successful, true);
  assert.ok(took < 6000, `${Math.round(took)} ms`);
  assert.ok(messages.some((message) => /issuer|keys/.test(message)), messages.join('\n'));
});
