'use strict';
// Whose an idempotency key is. The upstream replays by key alone, as DXCP does.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawnSync } = require('node:child_process');
const { after, before, test } = require('node:test');
const { dxcp } = require('../rig/dxcp');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { binary, stagedoor } = require('../rig/stagedoor');

let up; let folder; let file; let door; let replica; let open;
const config = (idempotency) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
upstreams: {up: {url: "${up.url}"${idempotency}}}
routes:
- {name: deploy, methods: [POST], path: /v1/deployments, upstream: up, class: action}`;
before(async () => {
  up = await dxcp({ mutations: 1000 });
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-idempotency-'));
  file = `${folder}/secret`;
  fs.writeFileSync(file, `${crypto.randomBytes(32).toString('base64')}\n`);
  const scoped = `, idempotency: {scope: caller, secret_file: ${file}}`;
  [door, replica, open] = [await stagedoor(config(scoped)), await stagedoor(config(scoped)), await stagedoor(config(''))];
});
after(async () => { for (const one of [door, replica, open, up]) await one?.stop(); fs.rmSync(folder, { recursive: true }); });

const deploy = async (at, caller, key, headers = {}) => {
  const answer = await fetch(`${at.url}/v1/deployments`, {
    method: 'POST', body: '{"service":"pay","environment":"prod","version":"1"}',
    headers: { authorization: `Bearer ${orbit(caller, ['payments'])}`, 'content-type': 'application/json', ...(key && { 'idempotency-key': key }), ...headers },
  });
  const sent = up.seen.at(-1).headers;
  return { status: answer.status, replayed: answer.headers.get('idempotency-replayed'), id: (await answer.json()).id, key: sent['idempotency-key'], sent };
};

test('a key of another\'s opens nothing, and one\'s own does what it did', async () => {
  const [key, other] = [crypto.randomUUID(), crypto.randomUUID()];
  // What it is about: without the scope, whoever has the key has the answer.
  const ada = await deploy(open, 'ada', other);
  const mallory = await deploy(open, 'mallory', other);
  assert.deepEqual([ada.key, ada.replayed, mallory.replayed, mallory.id], [other, 'false', 'true', ada.id]);

  const first = await deploy(door, 'ada', key);
  assert.deepEqual([first.status, first.replayed], [201, 'false']);
  assert.match(first.key, /^[\w-]{43}$/);
  const again = await deploy(door, 'ada', key);
  assert.deepEqual([again.replayed, again.id, again.key], ['true', first.id, first.key]);
  const elsewhere = await deploy(replica, 'ada', key);
  assert.deepEqual([elsewhere.replayed, elsewhere.id], ['true', first.id], 'at another replica, too');
  const attack = await deploy(door, 'mallory', key);
  assert.equal(attack.replayed, 'false');
  assert.notEqual(attack.id, first.id);
  const bare = await deploy(door, 'mallory', first.key);
  assert.equal(bare.replayed, 'false', 'not with the key that the upstream knows either');
});

test('a key comes through in no other way', async () => {
  const key = crypto.randomUUID();
  const own = await deploy(door, 'ada', key);
  for (const headers of [{ Idempotency_Key: own.key }, { 'idempotency.key': own.key }]) {
    const { status, sent } = await deploy(door, 'mallory', undefined, headers);
    assert.equal(status, 400, 'DXCP wants a key');
    assert.ok(!JSON.stringify(sent).includes(own.key), JSON.stringify(sent));
  }
  const both = await deploy(door, 'ada', key, { idempotency_key: 'theirs' });
  assert.deepEqual([both.replayed, both.sent.idempotency_key], ['true', undefined]);
  const hop = await new Promise((resolve, reject) => {
    const request = require('node:http').request(`${door.url}/v1/deployments`, {
      method: 'POST', headers: { authorization: `Bearer ${orbit('mallory', ['payments'])}`, 'idempotency-key': key, connection: 'idempotency-key', 'content-length': 2 },
    }, (response) => { response.resume(); response.on('end', () => resolve(up.seen.at(-1).headers['idempotency-key'])); });
    request.on('error', reject);
    request.end('{}');
  });
  assert.equal(hop, undefined, 'named as the hop\'s own, it is left out');
});

test('the record has the digest of the key that the client sent', async () => {
  const key = crypto.randomUUID();
  await deploy(door, 'ada', key);
  const digest = crypto.createHash('sha256').update(key).digest('hex');
  await door.record((line) => line.idempotency_key_sha256 && digest.startsWith(line.idempotency_key_sha256));
});

test('another secret is taken over, and makes other keys; one that is too short is not', async () => {
  const key = crypto.randomUUID();
  const first = await deploy(door, 'ada', key);
  fs.writeFileSync(file, `${crypto.randomBytes(32).toString('base64')}\n`);
  await until('the other secret', async () => (await deploy(door, 'ada', key)).key !== first.key);
  const now = (await deploy(door, 'ada', key)).key;
  fs.writeFileSync(file, 'short\n');
  const told = spawnSync(binary, ['check', '--files', '-c', door.file], { encoding: 'utf8' });
  assert.equal(told.status, 1);
  assert.match(told.stdout + told.stderr, /stagedoor\.yaml:\d+:\d+: cannot use `.*secret`: it has 5 bytes; a secret has at least 32, for example of `openssl rand -base64 32`/);
  assert.equal((await door.admin('/reload', { method: 'POST' })).ok, false);
  assert.equal((await deploy(door, 'ada', key)).key, now);
});
