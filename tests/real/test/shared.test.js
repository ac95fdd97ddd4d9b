'use strict';
// Three replicas beside one Redis: what they let through together, and what it costs.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { authority } = require('../rig/certificates');
const { orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { hasTls, redis } = require('../rig/redis');
const { as, ask, closing, found, holds, lost, metric, passed, replicas, seen, storm, store, up, workspace } = require('../rig/replicas');

test('three replicas let through what one would, with the same denials and headers', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 60/h, burst: 6}');
  await found(doors);
  const name = workspace();
  const remaining = [];
  for (let n = 0; n < 6; n += 1) {
    const { status, headers } = await ask(doors[n % 3], name);
    assert.equal(status, 200);
    assert.equal(headers.get('x-ratelimit-limit'), '60');
    remaining.push(headers.get('x-ratelimit-remaining'));
  }
  assert.deepEqual(remaining, ['5', '4', '3', '2', '1', '0']);
  for (const door of doors) {
    const { status, code, headers } = await ask(door, name);
    assert.deepEqual([status, code, headers.get('x-ratelimit-remaining')], [429, 'rate_limited', '0']);
    const wait = Number(headers.get('retry-after'));
    assert.ok(wait > 50 && wait <= 60, `Retry-After: ${wait}`);
  }
  // All that is in Redis ends by itself, is in one slot, and says nothing of who it is about.
  const keys = (await server.cli('KEYS', '*')).split('\n').sort();
  assert.match(keys.join(' '), /^\{stagedoor\}:replicas \{stagedoor\}:workspace:[0-9a-f]{32}$/);
  for (const key of keys) assert.ok(Number(await server.cli('PTTL', key)) > 0, `${key} has no end`);
  // Other workspaces are not affected, and strangers are counted by each alone.
  assert.equal((await ask(doors[0], workspace())).status, 200);
  assert.equal((await ask(doors[0], 'x', '/open')).status, 200);
});

test('a narrow limit is shared as well, in the same round trip, and what it refuses is not charged wider', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 60/h, burst: 10}');
  await found(doors);
  const name = workspace();
  const asked = await server.calls('evalsha');
  const statuses = [];
  for (let n = 0; n < 6; n += 1) statuses.push((await ask(doors[n % 3], name, '/narrow')).status);
  assert.deepEqual(statuses, [200, 200, 200, 429, 429, 429]);
  // One for each of the first six at most, beside the beats of three replicas.
  const trips = await server.calls('evalsha') - asked;
  assert.ok(trips <= 6 + 3 * 3, `${trips} round trips`);
  const left = [];
  for (let n = 0; n < 8; n += 1) left.push((await ask(doors[n % 3], name)).status);
  assert.deepEqual(left, [200, 200, 200, 200, 200, 200, 200, 429]);
});

test('calls out are counted together, too', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 60/h, burst: 6}', { number: 2 });
  await found(doors);
  const call = (door) => new Promise((resolve, reject) => {
    const { host } = new URL(up().url);
    http.get({ port: door.ports.tls, path: `${up().url}/read`, headers: { host } }, (answer) => { answer.resume(); resolve(answer.statusCode); }).on('error', reject);
  });
  const statuses = [];
  for (let n = 0; n < 6; n += 1) statuses.push(await call(doors[n % 2]));
  assert.deepEqual(statuses, [200, 200, 200, 200, 429, 429]);
});

test('a workspace that asks for more than it may gets exactly that, whoever is asked', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 100/s, burst: 50}');
  await found(doors);
  const asked = await server.calls('evalsha');
  const sum = await storm(doors, workspace(), 4000);
  holds(sum, 100, 50);
  assert.ok(sum.asked > 600, `only ${sum.asked} were asked`);
  // Who was refused is refused without asking: each replica asks some 20 times in a second.
  const trips = await server.calls('evalsha') - asked;
  assert.ok(trips < 3 * 35 * sum.seconds, `${trips} round trips in ${sum.seconds} s`);
});

test('a hot workspace costs a round trip for fifty requests, and its requests do not wait for one', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 100000/s, burst: 10000}');
  await found(doors);
  const name = workspace();
  await storm(doors, name, 1000);
  const asked = await server.calls('evalsha');
  const sum = await storm(doors, name, 3000, { parallel: 8 });
  const trips = await server.calls('evalsha') - asked;
  assert.equal(sum.through, sum.asked);
  // Beats, and leases that end after a second, come on top.
  assert.ok(trips - 3 * 3 * (sum.seconds + 1) <= sum.asked / 50, `${trips} round trips for ${sum.asked} requests`);
  const state = await seen(doors[0]);
  assert.ok(state.tokens_leased >= state.tokens_spent && state.tokens_spent > 0 && state.leases >= 1, JSON.stringify(state));
  assert.ok(await metric(doors[0], 'stagedoor_store_round_trips_total{result="ok"}') > 0);
  assert.equal(await metric(doors[0], 'stagedoor_store_up'), 1);
  assert.equal(await metric(doors[0], 'stagedoor_store_replicas'), 3);
  assert.ok(await metric(doors[0], 'stagedoor_store_tokens_total{change="leased"}') > 0);
  assert.ok(await metric(doors[0], 'stagedoor_store_tokens_total{change="spent"}') > 0);
});

test('a replica that is killed gives back what it held, and counts no longer', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 1/h, burst: 120}');
  await found(doors);
  const name = workspace();
  // It asks as fast as it can, and so holds some.
  const first = await storm([doors[0]], name, 150, { parallel: 1 });
  await doors[0].stop('SIGKILL');
  await found(doors.slice(1), 2);
  let rest = 0;
  await until('all that is left', async () => {
    rest += (await storm(doors.slice(1), name, 100)).through;
    return first.through + rest >= 119;
  }, 10000);
  // What it held is given back whole, though it may have spent some of it.
  assert.ok(first.through + rest <= 120 + 10, `${first.through} and ${rest}`);
});

test('a replica whose clock is wrong counts as the others do', async () => {
  const server = closing(await redis());
  const library = execFileSync('find', ['/usr/lib', '-name', 'libfaketimeMT.so.1'], { encoding: 'utf8' }).trim().split('\n')[0];
  const env = { LD_PRELOAD: library, FAKETIME: '+5y', FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  const [skewed] = await replicas(store(server.address), '{rate: 60/h, burst: 6}', { number: 1, env });
  const [right] = await replicas(store(server.address), '{rate: 60/h, burst: 6}', { number: 1 });
  await found([skewed, right]);
  assert.ok((await seen(skewed)).since > Date.now() / 1000 + 4 * 365 * 86400, 'its clock is right');
  const name = workspace();
  const statuses = [];
  // Its tokens have ended for the one in the future.
  const later = (exp) => ({ authorization: `Bearer ${orbit('ada', [name], { exp })}`, 'x-orbit-workspace-id': name });
  const headers = later(Math.floor(Date.now() / 1000) + 6 * 365 * 86400);
  for (let n = 0; n < 8; n += 1) {
    const answer = await fetch(`${[skewed, right][n % 2].url}/read`, { headers });
    statuses.push(answer.status);
    await answer.text();
  }
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
});

// Debian's Redis has TLS. Of another server it is asked if it has.
const tls = hasTls || !process.env.REDIS_SERVER ? test : () => {};
tls('TLS with a certificate of ours, and a user that may do no more than it must', { skip: hasTls ? false : 'this server was built without TLS' }, async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-shared-'));
  const ca = authority(folder);
  const served = ca.issue('redis', { names: ['127.0.0.1'] });
  const shown = ca.issue('door');
  const acl = path.join(folder, 'users.acl');
  fs.writeFileSync(acl, 'user default off\nuser door on >s3cret ~{doors}:* resetchannels -@all +evalsha +eval +time +zadd +zrem +zremrangebyscore +zcard +pexpire +hgetall +hset +hdel +set +get +del +ping\n');
  const server = closing(await redis({
    aclfile: acl,
    'tls-cert-file': served.cert, 'tls-key-file': served.key, 'tls-ca-cert-file': ca.ca,
    cli: ['--tls', '--cacert', ca.ca, '--cert', shown.cert, '--key', shown.key, '--user', 'door', '--pass', 's3cret', '--no-auth-warning'],
  }));
  const file = path.join(folder, 'acl-password');
  fs.writeFileSync(file, 's3cret\n');
  const stored = (more) => store(server.address, `prefix: doors, username: door, password_file: ${file}, tls: {${more}}`);
  const key = `client_cert: ${shown.cert}, client_key: ${shown.key}`;
  const doors = await replicas(stored(`ca: ${ca.ca}, ${key}`), '{rate: 60/h, burst: 6}', { number: 2 });
  await found(doors);
  const name = workspace();
  const statuses = [];
  for (let n = 0; n < 8; n += 1) statuses.push((await ask(doors[n % 2], name)).status);
  assert.deepEqual(statuses, [200, 200, 200, 200, 200, 200, 429, 429]);
  const [other] = await replicas(stored(`ca: ${ca.ca}`), '{rate: 60/h, burst: 6}', { number: 1 });
  await until('it is refused without a certificate', async () => ['tls', 'closed', 'unreachable'].includes((await seen(other)).cause));
  const [strange] = await replicas(stored(key), '{rate: 60/h, burst: 6}', { number: 1 });
  await lost(strange, 'tls');
  fs.rmSync(folder, { recursive: true, force: true });
});

test('a request with an idempotency key runs once at a time on all replicas, and on each alone without Redis', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 1000/s, burst: 1000}', { number: 2 });
  await found(doors);
  const name = workspace();
  const headers = { 'idempotency-key': 'once' };
  const act = (door, where = '/act') => ask(door, name, where, { method: 'POST', headers });
  const begin = async () => {
    const before = passed();
    const first = act(doors[0], '/act?do=slow&ms=4000');
    await until('the first to be under way', async () => passed() > before);
    return { first };
  };
  const { first } = await begin();
  const second = await act(doors[1]);
  assert.deepEqual([second.status, second.code, second.headers.get('retry-after')], [409, 'idempotency_in_flight', '1']);
  assert.equal((await act(doors[0])).status, 409);
  // Another caller's key is another.
  assert.equal((await ask(doors[1], name, '/act', { method: 'POST', headers, who: 'bo' })).status, 200);
  const [key] = (await server.cli('KEYS', '{stagedoor}:once:*')).split('\n').filter(Boolean);
  const ends = Number(await server.cli('PTTL', key));
  assert.ok(ends > 60000 && ends <= 70000, `it ends in ${ends} ms`);
  assert.equal((await first).status, 200);
  await until('the first to have ended', async () => (await act(doors[1])).status === 200);
  await until('no key to be left', async () => (await server.cli('KEYS', '{stagedoor}:once:*')) === '');
  await server.kill();
  await Promise.all(doors.map((door) => lost(door)));
  const { first: again } = await begin();
  assert.equal((await act(doors[0])).status, 409);
  assert.equal((await act(doors[1])).status, 200);
  assert.equal((await again).status, 200);
});

test('an operator switches all replicas at one of them, and a Redis that forgets or is away changes nothing', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 1000/s, burst: 1000}', { number: 2 });
  await found(doors);
  const [one, other] = doors;
  const post = (door, body) => door.admin('/switches', { method: 'POST', body: JSON.stringify({ position: 'open', for: '1m', by: 'ada', reason: 'it burns', ...body }) });
  const list = async (door) => (await door.admin('/switches')).json();
  const off = async (door, name) => (await ask(door, name)).code === 'switched_off';
  const [first, second] = [workspace(), workspace()];
  const set = await (await post(one, { workspace: first })).json();
  // It counts at once where it was set, and within two seconds everywhere.
  assert.ok(await off(one, first));
  const began = performance.now();
  await until('the other replica', () => off(other, first));
  const [taken] = await list(other);
  assert.ok(performance.now() - began < 4000, 'it took too long');
  assert.deepEqual([taken.id, taken.by, taken.reason, taken.workspace], [set.id, 'ada', 'it burns', first]);
  assert.ok(taken.seconds_left > 40 && taken.seconds_left <= 60, JSON.stringify(taken));
  assert.equal(await off(other, second), false);
  await until('its record', async () => other.written().some((line) => line.kind === 'switch' && line.change === 'set' && line.switch === set.id));
  // Redis forgets: it is told again, and so is one that comes later.
  await server.cli('FLUSHALL');
  await until('it to be told again', async () => (await server.cli('HLEN', '{stagedoor}:switches')) === '1');
  const [later] = await replicas(store(server.address), '{rate: 1000/s, burst: 1000}', { number: 1 });
  await until('one that came later', () => off(later, first));
  // Away: what was known holds, and what is set meanwhile is told when it is back. So is what is removed.
  await server.kill();
  await Promise.all([one, other, later].map((door) => lost(door)));
  assert.ok(await off(other, first));
  assert.equal((await post(one, { workspace: second })).status, 201);
  assert.equal((await other.admin(`/switches/${set.id}`, { method: 'DELETE', body: '{"by": "bo"}' })).status, 200);
  assert.deepEqual([await off(one, first), await off(other, first), await off(other, second)], [true, false, false]);
  await server.begin();
  await until('both to be everywhere', async () => {
    const all = await Promise.all([one, other, later].map(async (door) => [await off(door, first), await off(door, second)]));
    return all.every(([removed, kept]) => !removed && kept);
  });
  await until('who removed it', async () => one.written().some((line) => line.kind === 'switch' && line.removed_by === 'bo'));
  // It ends everywhere.
  const short = workspace();
  await post(one, { workspace: short, for: '6s' });
  await until('a short one everywhere', () => off(later, short));
  await until('its end', async () => !(await off(later, short)) && !(await off(one, short)));
  await until('it to be forgotten', async () => !(await server.cli('HVALS', '{stagedoor}:switches')).includes(short));
});
