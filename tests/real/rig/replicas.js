'use strict';
// Replicas that count in one Redis, and how much they let through together.

const assert = require('node:assert/strict');
const { after, afterEach, before } = require('node:test');
const { Pool } = require('undici');
const { identity, orbit } = require('./jwt');
const { until } = require('./ports');
const { stagedoor } = require('./stagedoor');
const { upstream } = require('./upstream');

let up; let count = 0; let open = [];
before(async () => { up = await upstream(); });
after(async () => { await up.stop() });
afterEach(async () => { await Promise.all(open.map((one) => one.stop())); open = []; });

const closing = (one) => { open.push(one); return one; };
/** A machine that is busy is no Redis that is away. */
const store = (address, more = '') => `store: {addresses: ["${address}"], timeout: 900ms, connect_timeout: 900ms, ${more}}`;
const config = (stored, limits, more) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  out: {kind: forward, address: 127.0.0.1:${ports.tls}, plugin: catalog, workspace: calls}
${identity(own)}
${stored}
workspaces: {undeclared: true}
rate_limit: {per_workspace: ${limits}, per_client: {rate: 100000/s, burst: 100000}}
egress:
  per_workspace: {rate: 60/h, burst: 4}
  rules: [{name: up, to: ["${new URL(up.url).host}"]}]
  private: [{host: "${new URL(up.url).host}", addresses: [127.0.0.1/32]}]
upstreams: {up: {url: "${up.url}"}}
routes:
- {name: read, methods: [GET], path: "/read", upstream: up, class: read}
- {name: act, methods: [POST], path: "/act", upstream: up, class: action, options: {timeouts: {upstream: 30s, total: 60s}}}
- {name: narrow, methods: [GET], path: "/narrow", upstream: up, class: read, options: {rate_limit: {rate: 1/h, burst: 3}}}
- {name: open, methods: [GET], path: "/open", upstream: up, class: read, options: {public: true}}
${more ?? ''}`;
const seen = async (door) => (await (await door.admin('/state')).json()).store;
const metrics = async (door) => (await (await door.admin('/metrics')).text());
const metric = async (door, name) => Number((await metrics(door)).match(new RegExp(`^${name.replace(/[{}]/g, '\\$&')} (\\S+)`, 'm'))?.[1] ?? NaN);
const found = (doors, replicas = doors.length) => until(`a store with ${replicas} replicas`, async () => {
  const all = await Promise.all(doors.map(seen));
  return all.every((store) => store.there && store.replicas === replicas);
}, 15000);
const lost = (door, cause) => until(`a store that is away: ${cause}`, async () => {
  const now = await seen(door);
  return !now.there && (!cause || now.cause === cause);
}, 15000);
/** Replicas of one config; `stores` has a store for each, if not all have the same. */
const replicas = async (stores, limits, { number = 3, more, ...options } = {}) => {
  const each = Array.isArray(stores) ? stores : Array(number).fill(stores);
  const doors = await Promise.all(each.map((stored) => stagedoor(config(stored, limits, more), options)));
  doors.forEach(closing);
  return doors;
};
const workspace = () => { count += 1; return `w${process.pid}x${count}`; };
const as = (name, who = 'ada') => ({ authorization: `Bearer ${orbit(who, [name])}`, 'x-orbit-workspace-id': name });
const ask = async (door, name, where = '/read', { who, ...options } = {}) => {
  const answer = await fetch(`${door.url}${where}`, { ...options, headers: { ...as(name, who), ...options.headers } });
  await answer.text();
  const code = answer.headers.get('proxy-status')?.match(/details="(.*)"/)?.[1];
  return { status: answer.status, code, headers: answer.headers };
};
/** All that these replicas let through of as much as is asked in so many milliseconds, or while `goes()`. */
const storm = async (doors, name, time, { parallel = 4 } = {}) => {
  const headers = as(name);
  const sum = { through: 0, asked: 0, statuses: {} };
  const began = performance.now();
  const goes = typeof time === 'function' ? time : () => performance.now() - began < time;
  await Promise.all(doors.map(async (door) => {
    const pool = new Pool(door.url, { connections: parallel });
    const one = async () => {
      while (goes()) {
        const { statusCode, body } = await pool.request({ path: '/read', method: 'GET', headers });
        await body.dump();
        sum.asked += 1;
        sum.statuses[statusCode] = (sum.statuses[statusCode] ?? 0) + 1;
        if (statusCode === 200) sum.through += 1;
      }
    };
    await Promise.all(Array(parallel).fill().map(one));
    await pool.close();
  }));
  sum.seconds = (performance.now() - began) / 1000;
  return sum;
};
/** At most the burst, the rate, and what is held ahead; and not much less. */
const holds = (sum, rate, burst, { ahead = burst / 4 + 3, times = 1 } = {}) => {
  const most = times * (burst + rate * sum.seconds);
  assert.ok(sum.through <= most + ahead, `${sum.through} passed, of ${most}: ${JSON.stringify(sum)}`);
  assert.ok(sum.through >= most * 0.8 - 2, `only ${sum.through} passed, of ${most}: ${JSON.stringify(sum)}`);
  assert.deepEqual(Object.keys(sum.statuses).filter((status) => !['200', '429'].includes(status)), [], JSON.stringify(sum));
};

module.exports = { ask, as, closing, found, holds, lost, metric, passed: () => up.seen.length, replicas, seen, storm, store, up: () => up, workspace };
