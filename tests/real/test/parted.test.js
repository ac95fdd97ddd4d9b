'use strict';
// Replicas with addresses of their own, whose network to Redis is taken away, one after the other.

const assert = require('node:assert/strict');
const http = require('node:http');
const { test } = require('node:test');
const { identity } = require('../rig/jwt');
const { again, hosts, isOutside, network } = require('../rig/namespace');
const { until } = require('../rig/ports');
const { redis } = require('../rig/redis');
const { closing, found, lost, seen, storm, workspace } = require('../rig/replicas');
const { stagedoor } = require('../rig/stagedoor');

if (isOutside) {
  test('in a network of its own', () => again(__filename));
} else {
  test('one after the other is cut off and enforces its part; the limit of all holds', { skip: network.alone ? false : 'no network of its own is allowed here' }, async () => {
    const net = closing(await hosts(3));
    const server = closing(await redis({ bind: `${net.other} 127.0.0.1`, 'protected-mode': 'no' }));
    const up = http.createServer((_, answer) => answer.end('ok'));
    await new Promise((resolve) => { up.listen(0, net.here, resolve); });
    closing({ stop: () => new Promise((resolve) => { up.close(resolve); up.closeAllConnections(); }) });
    const doors = await Promise.all(net.all.map(({ address, under }) => stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: ${address}:${ports.edge}}
${identity(own)}
store: {addresses: ["${net.other}:${server.port}"], timeout: 900ms, connect_timeout: 900ms}
workspaces: {undeclared: true}
rate_limit: {per_workspace: {rate: 60/s, burst: 60}, per_client: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://${net.here}:${up.address().port}"}}
routes: [{name: read, methods: [GET], path: "/read", upstream: up, class: read}]`, { host: address, under })));
    doors.forEach(closing);
    await found(doors);
    // Redis sees each at an address of its own.
    const clients = (await server.cli('CLIENT', 'LIST')).match(/ addr=10\.78\.0\.\d+/g);
    assert.equal(new Set(clients).size, 3, clients);

    let done = false; let apart = 0;
    const all = storm(doors, workspace(), () => !done);
    for (const [n, host] of net.all.entries()) {
      const others = doors.filter((door) => door !== doors[n]);
      await until('some requests', async () => (await seen(doors[n])).tokens_spent > 0);
      const began = performance.now();
      host.cut();
      await lost(doors[n]);
      await found(others, 2);
      // It holds to the part that it had.
      assert.equal((await seen(doors[n])).replicas, 3);
      host.mend();
      await found(doors);
      apart += (performance.now() - began) / 1000;
    }
    done = true;
    const sum = await all;
    const most = 60 + 60 * sum.seconds + 20 * (apart + 3);
    assert.ok(sum.through <= most + 18, `${sum.through} of ${most}: ${JSON.stringify(sum)}`);
    assert.ok(sum.through >= 60 * sum.seconds * 0.8, JSON.stringify(sum));
    assert.deepEqual(Object.keys(sum.statuses).sort(), ['200', '429']);
  });
}
