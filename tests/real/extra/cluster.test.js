'use strict';
// Replicas that count in a real Redis Cluster of three masters, each with a copy.

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { until } = require('../rig/ports');
const { cluster } = require('../rig/redis');
const { ask, closing, found, holds, lost, replicas, seen, storm, workspace } = require('../rig/replicas');

test('of a cluster the node with our keys is asked, its copy when it fails, and another when they move', async () => {
  const servers = closing(await cluster());
  const stored = `store: {kind: cluster, addresses: ["127.0.0.1:1", "${servers.addresses[0]}", "${servers.addresses[4]}"], timeout: 900ms, connect_timeout: 900ms}`;
  const doors = await replicas(stored, '{rate: 60/s, burst: 60}');
  await found(doors);
  holds(await storm(doors, workspace(), 3000), 60, 60);
  // All that we have is on one node.
  const slot = await servers.nodes[0].cli('CLUSTER', 'KEYSLOT', '{stagedoor}');
  const holding = async () => {
    const counts = await Promise.all(servers.nodes.map(async (node) => [node, (await node.cli('ROLE').catch(() => '')).startsWith('master'), Number(await node.cli('CLUSTER', 'COUNTKEYSINSLOT', slot).catch(() => 0))]));
    return counts.filter(([, master, keys]) => master && keys > 0).map(([node]) => node);
  };
  const [owner, ...others] = await holding();
  assert.deepEqual(others, []);
  for (const node of servers.nodes.filter((one) => one !== owner)) {
    if ((await node.cli('ROLE')).startsWith('master')) assert.equal(await node.cli('DBSIZE'), '0');
  }

  const statuses = new Set();
  await owner.kill();
  await Promise.all(doors.map((door) => lost(door)));
  await until('its copy', async () => {
    statuses.add((await ask(doors[0], workspace())).status);
    return (await seen(doors[0])).there;
  }, 60000);
  await found(doors);
  assert.deepEqual([...statuses], [200]);

  // The slot moves to another master.
  const masters = [];
  for (const node of servers.nodes.filter((one) => one !== owner)) if ((await node.cli('ROLE')).startsWith('master')) masters.push(node);
  const [from] = await holding();
  const to = masters.find((node) => node !== from);
  const id = async (node) => node.cli('CLUSTER', 'MYID');
  await to.cli('CLUSTER', 'SETSLOT', slot, 'IMPORTING', await id(from));
  await from.cli('CLUSTER', 'SETSLOT', slot, 'MIGRATING', await id(to));
  for (const key of (await from.cli('CLUSTER', 'GETKEYSINSLOT', slot, '1000')).split('\n').filter(Boolean)) {
    await from.cli('MIGRATE', '127.0.0.1', String(to.port), key, '0', '5000');
  }
  for (const node of masters) await node.cli('CLUSTER', 'SETSLOT', slot, 'NODE', await id(to));
  await until('the other node to be asked', async () => (await to.calls('evalsha')) > 0 && (await to.cli('CLUSTER', 'COUNTKEYSINSLOT', slot)) !== '0');
  await found(doors);
  holds(await storm(doors, workspace(), 3000), 60, 60);
});
