'use strict';
// What holds while the Redis that replicas count in is away, whatever the reason, and when it comes back.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { until } = require('../rig/ports');
const { redis, sentinel, way } = require('../rig/redis');
const { ask, closing, found, holds, lost, metric, passed, replicas, seen, storm, store, workspace } = require('../rig/replicas');

test('a Redis that is killed costs no request, and each replica enforces its part; its return is no burst', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 60/s, burst: 60}');
  await found(doors);
  const name = workspace();
  // Asked for more than there is all the time, so that nothing gathers.
  const start = passed();
  const all = storm(doors, name, 7000);
  await until('the burst to be spent', async () => passed() - start > 75);
  await server.kill();
  await Promise.all(doors.map((door) => lost(door)));
  const [before, began] = [passed(), performance.now()];
  await until('some seconds without it', async () => performance.now() - began > 2000);
  const away = passed() - before;
  const most = 60 * (performance.now() - began) / 1000;
  assert.ok(away <= most + 12 && away >= most * 0.75 - 6, `${away} of ${most} while it was away`);
  assert.equal(await metric(doors[0], 'stagedoor_store_up'), 0);
  assert.ok(await metric(doors[0], 'stagedoor_store_errors_total{cause="refused"}') > 0);
  // It remembers nothing.
  await server.begin();
  await found(doors);
  holds(await all, 60, 60);
  const events = () => doors[0].written().filter((line) => line.kind === 'store');
  await until('records of it', async () => events().map(({ change }) => change).join().endsWith('found,lost,found'));
  const { cause, replicas: last, on_error: on } = events().at(-2);
  assert.ok(['refused', 'closed'].includes(cause) && last === 3 && on === 'share', JSON.stringify(events()));
});

test('a Redis that hangs is waited for once, and then by nobody', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address).replace('timeout: 900ms', 'timeout: 100ms'), '{rate: 60/s, burst: 30}', { number: 1 });
  await found(doors);
  server.signal('SIGSTOP');
  await lost(doors[0], 'timeout');
  const before = await metric(doors[0], 'stagedoor_store_errors_total{cause="timeout"}');
  const sum = await storm(doors, workspace(), 2000);
  holds(sum, 60, 30);
  // Each look for it waits for a connection. Had requests waited, there would be few.
  assert.ok(sum.asked > 200, JSON.stringify(sum));
  assert.ok(await metric(doors[0], 'stagedoor_store_errors_total{cause="timeout"}') - before <= 12);
  server.signal('SIGCONT');
  await found(doors);
  assert.equal((await ask(doors[0], workspace())).status, 200);
});

test('a Redis that is paused, slow, full, a replica or loses its scripts is no error to anybody', async () => {
  const server = closing(await redis({ 'maxmemory-policy': 'noeviction' }));
  const slow = closing(await way(server.port));
  const doors = await replicas(store(slow.address).replace('timeout: 900ms', 'timeout: 200ms'), '{rate: 60/s, burst: 30}', { number: 2 });
  await found(doors);
  const name = workspace();
  const fine = async () => { const sum = await storm(doors, name, 500); assert.ok(sum.through > 0, JSON.stringify(sum)); assert.deepEqual(Object.keys(sum.statuses).filter((s) => s > 429), []); };
  await server.cli('CLIENT', 'PAUSE', '1500', 'ALL');
  await fine();
  await found(doors);
  slow.slow(150);
  await lost(doors[0], 'timeout');
  await fine();
  slow.slow(0);
  await found(doors);
  await server.cli('CONFIG', 'SET', 'maxmemory', '1');
  await lost(doors[0], 'out_of_memory');
  await fine();
  await server.cli('CONFIG', 'SET', 'maxmemory', '0');
  await found(doors);
  await server.cli('REPLICAOF', '127.0.0.1', '1');
  await lost(doors[0], 'read_only');
  await fine();
  await server.cli('REPLICAOF', 'NO', 'ONE');
  await found(doors);
  await server.cli('SCRIPT', 'FLUSH');
  await fine();
  await found(doors);
  assert.ok(await server.calls('eval') > 0);
});

test('a Redis that was flushed is told what is gone', async () => {
  const server = closing(await redis());
  const doors = await replicas(store(server.address), '{rate: 60/m, burst: 30}');
  await found(doors);
  const name = workspace();
  const first = await storm(doors, name, 1500);
  assert.ok(first.through >= 30, JSON.stringify(first));
  await server.cli('FLUSHALL');
  await found(doors);
  const second = await storm(doors, name, 1500);
  assert.ok(second.through <= second.seconds * 3 + 15, JSON.stringify(second));
});

test('the limit is its own for each replica with `open`, and without Redis there is none with `closed`', async () => {
  const nowhere = '127.0.0.1:1';
  const opened = await replicas(store(nowhere, 'on_error: open'), '{rate: 1/h, burst: 4}', { number: 2 });
  const name = workspace();
  for (const door of opened) {
    const statuses = [];
    for (let n = 0; n < 5; n += 1) statuses.push((await ask(door, name)).status);
    assert.deepEqual(statuses, [200, 200, 200, 200, 429]);
  }
  const [closed] = await replicas(store(nowhere, 'on_error: closed'), '{rate: 1/h, burst: 4}', { number: 1 });
  const { status, code, headers } = await ask(closed, name);
  assert.deepEqual([status, code, headers.get('retry-after')], [503, 'limits_unavailable', '1']);
  // Strangers are counted here.
  assert.equal((await ask(closed, name, '/open')).status, 200);
  assert.equal((await closed.admin('/readyz')).status, 200);
});

test('one of three that is cut off enforces its part; the others go on with the limit', async () => {
  const server = closing(await redis());
  const parted = closing(await way(server.port));
  const doors = await replicas([store(server.address), store(server.address), store(parted.address)], '{rate: 60/s, burst: 60}');
  await found(doors);
  const name = workspace();
  const all = storm(doors, name, 8000);
  await until('some requests', async () => (await seen(doors[2])).tokens_spent > 0);
  parted.cut();
  await lost(doors[2], 'timeout');
  const began = performance.now();
  await found(doors.slice(0, 2), 2);
  assert.equal((await seen(doors[2])).replicas, 3);
  parted.mend();
  await found(doors);
  const cut = (performance.now() - began) / 1000;
  const sum = await all;
  const most = 60 + 60 * sum.seconds + 20 * (cut + 1);
  assert.ok(sum.through <= most + 18, `${sum.through} of ${most}: ${JSON.stringify(sum)}`);
  assert.ok(sum.through >= 60 * sum.seconds * 0.8, JSON.stringify(sum));
  assert.deepEqual(Object.keys(sum.statuses).sort(), ['200', '429']);
});

test('a wrong password is told, and one that is put right is taken without a restart', async () => {
  const server = closing(await redis({ requirepass: 'right-one', cli: ['-a', 'right-one', '--no-auth-warning'] }));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-shared-'));
  const file = path.join(folder, 'password');
  fs.writeFileSync(file, 'wrong-one\n');
  const [door] = await replicas(store(server.address, `password_file: ${file}`), '{rate: 60/h, burst: 6}', { number: 1 });
  await lost(door, 'password');
  assert.equal((await ask(door, workspace())).status, 200);
  assert.doesNotMatch(door.output() + JSON.stringify(await seen(door)), /wrong-one/);
  fs.writeFileSync(file, 'right-one\n');
  await found([door]);
  // It takes connections, and greets nobody.
  server.signal('SIGSTOP');
  await until('a greeting to be missed', async () => /store\.connect_timeout/.test((await seen(door)).failing));
  server.signal('SIGCONT');
  await found([door]);
  fs.rmSync(folder, { recursive: true, force: true });
});

test('sentinels are asked where the master is, and again when it fails', async () => {
  const master = closing(await redis());
  const second = closing(await redis({ replicaof: ['127.0.0.1', master.port] }));
  await until('a copy', async () => (await second.cli('INFO', 'replication')).includes('master_link_status:up'));
  const watch = closing(await sentinel(master, { more: ['user door on >s3ntinel allchannels +@all'] }));
  await until('the sentinel knows the copy', async () => (await watch.cli('SENTINEL', 'REPLICAS', 'door')).includes(String(second.port)));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-shared-'));
  const file = path.join(folder, 'sentinel-password');
  fs.writeFileSync(file, 'wrong\n');
  const shown = `sentinel_username: door, sentinel_password_file: ${file}`;
  const stored = `store: {kind: sentinel, master: door, addresses: ["127.0.0.1:1", "${watch.address}"], timeout: 900ms, connect_timeout: 900ms, ${shown}}`;
  const doors = await replicas(stored, '{rate: 1/h, burst: 20}', { number: 2 });
  await lost(doors[0], 'password');
  fs.writeFileSync(file, 's3ntinel\n');
  await found(doors);
  const name = workspace();
  for (let n = 0; n < 10; n += 1) assert.equal((await ask(doors[n % 2], name)).status, 200);
  await until('the copy is up to date', async () => (await second.cli('WAIT', '0', '0').catch(() => '')) !== undefined);
  await master.kill();
  const statuses = new Set();
  await until('the new master', async () => {
    statuses.add((await ask(doors[0], workspace())).status);
    return (await second.cli('ROLE')).startsWith('master') && (await seen(doors[0])).there;
  }, 30000);
  await found(doors);
  assert.deepEqual([...statuses], [200]);
  // It goes on from where the first was.
  let through = 0;
  for (let n = 0; n < 20; n += 1) through += Number((await ask(doors[n % 2], name)).status === 200);
  assert.ok(through <= 11, `${through} passed`);
  fs.rmSync(folder, { recursive: true, force: true });
});
