'use strict';
// What governs exchanges is on record, too: configs, breakers, keys, certificates, admins.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let up; let door; let isSick = false;
const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-events-'));
const ca = authority(own);
const jwks = (...names) => fs.writeFileSync(`${own}/jwks.json`, JSON.stringify({
  keys: names.map((kid) => ({ kid, alg: 'ES256', use: 'sig', ...crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' }) })),
}));
const config = (limit, more = '') => (ports, folder) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${own}/edge.crt, key: ${own}/edge.key}]}}
${identity(folder)}
    idp: {issuer: "https://idp.example", audiences: [x], algorithms: [ES256], keys: {file: ${own}/jwks.json}}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: ${limit}/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}", breaker: {requests_min: 2, window: 10s, open_duration: 300ms, half_open_requests: 1}}}
routes:
- {name: read, methods: [GET], path: /read, upstream: up, class: read}${more}`;
const events = (kind) => door.written().filter((line) => line.kind === kind);
const event = (kind, fits = () => true) => until(`a ${kind} event`, async () => events(kind).find(fits), 10000);
const read = async () => (await fetch(`${door.url}/read`, { headers: { authorization: `Bearer ${orbit('ada', ['payments'])}` } })).status;

before(async () => {
  up = http.createServer((_, response) => { response.statusCode = isSick ? 500 : 200; response.end('{}'); });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  ca.issue('edge', { names: ['localhost'] });
  jwks('k1');
  door = await stagedoor(config(100));
});
after(async () => { await door.stop(); up.closeAllConnections(); up.close(); fs.rmSync(own, { recursive: true }); });

test('a config is told by what is different in effect, and one that is refused by why', async () => {
  const first = await event('config');
  assert.deepEqual([first.source, first.successful, first.config.length], ['start', true, 32]);
  const rewrite = async (text) => door.write(await text(door.ports, door.folder));
  await rewrite(config(250, '\n- {name: more, methods: [GET], path: /more, upstream: up, class: read}'));
  await door.reload();
  const changed = await event('config', (e) => e.source === 'admin');
  assert.deepEqual([changed.successful, changed.previous_config], [true, first.config]);
  assert.notEqual(changed.config, first.config);
  assert.deepEqual(changed.changes.map((change) => change.slice(0, 52)).sort(), ['rate_limit.per_workspace.rate: "100/s" → "250/s"', 'routes[more]: none → {"name":"more","listeners":[],"'.slice(0, 52)]);
  assert.equal((await door.admin('/state').then((r) => r.json())).config, changed.config);

  await rewrite(config('many'));
  await door.reload();
  const refused = await event('config', (e) => !e.successful);
  assert.equal(refused.config, changed.config, 'the last is in force');
  assert.match(refused.messages[0], /`many\/s` is not a rate/);
  assert.equal(refused.changes, undefined);
  await rewrite(config(100));
  door.signal('SIGHUP');
  // Whoever comes first: the watch may see the file before the signal does.
  await event('config', (e) => e.successful && ['signal', 'files'].includes(e.source));
  await rewrite(config(99));
  await event('config', (e) => e.source === 'files');
});

test('a breaker is told at each move', async () => {
  isSick = true;
  await until('the breaker to open', async () => await read() === 503);
  isSick = false;
  await until('the breaker to close', async () => await read() === 200);
  await event('breaker', (e) => e.position === 'closed');
  const moves = events('breaker');
  assert.deepEqual([...new Set(moves.map((move) => move.upstream))], ['up']);
  assert.deepEqual(moves.map((move) => move.position), ['open', 'half_open', 'closed']);
});

test('other keys of an issuer are told by their ids', async () => {
  assert.deepEqual((await event('keys', (e) => e.issuer === 'idp')).added, ['k1']);
  jwks('k2', 'k3');
  const rotated = await event('keys', (e) => e.issuer === 'idp' && e.removed);
  assert.deepEqual([rotated.added, rotated.removed], [['k2', 'k3'], ['k1']]);
  assert.ok(!JSON.stringify(events('keys')).includes('0123456789abcdef'), 'a secret is a key without an id');
});

test('another certificate is told, and the same one again is not', async () => {
  await door.reload();
  await door.settled();
  assert.deepEqual(events('certificate'), []);
  ca.issue('edge', { names: ['localhost'] });
  const swapped = await event('certificate');
  const serial = new crypto.X509Certificate(fs.readFileSync(`${own}/edge.crt`)).serialNumber.toLowerCase();
  assert.deepEqual([swapped.listener, swapped.file, BigInt(`0x${swapped.serial}`)], ['tls', `${own}/edge.crt`, BigInt(`0x${serial}`)]);
  assert.ok(swapped.not_after > Date.now() / 1000);
});

test('who called the admin listener is told, and probes are not', async () => {
  for (const where of ['/config', '/nowhere?token=s3cret', '/readyz', '/livez', '/metrics']) await door.admin(where);
  await event('admin', (e) => e.path === '/nowhere');
  const told = events('admin').map((e) => `${e.client} ${e.method} ${e.path} ${e.status}`);
  assert.ok(told.includes('127.0.0.1 GET /config 200') && told.includes('127.0.0.1 GET /nowhere 404') && told.includes('127.0.0.1 POST /reload 422'), told.join('\n'));
  assert.ok(!told.some((call) => /readyz|livez|metrics|s3cret/.test(call)), told.join('\n'));
});
