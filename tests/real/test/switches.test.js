'use strict';
// What an operator switches off while it runs, or holds closed: at once, for a while, on record.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const http = require('node:http');
const net = require('node:net');
const { after, afterEach, before, test } = require('node:test');
const WebSocket = require('ws');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

let door; let up; let forward;
const config = (limit) => (ports, folder) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  out: {kind: forward, address: 127.0.0.1:${forward}, plugin: catalog, workspace: payments}
${identity(folder)}
workspaces: {named: {payments: {}, web: {}}}
rate_limit: {per_workspace: {rate: ${limit}/s, burst: 100000}}
egress:
  tls_ports: []
  rules: [{name: up, to: ["127.0.0.1:${up.port}"]}]
  private: [{host: "127.0.0.1:${up.port}", addresses: [127.0.0.1/32]}]
upstreams:
  up: {url: "${up.url}"}
  other: {url: "${up.url}"}
  sick: {url: "${up.url}", breaker: {requests_min: 2, window: 10s, open_duration: 60s}}
routes:
- {name: apps, methods: [GET], path: "/apps", upstream: up, class: read, plugin: argocd, options: {upgrade: true}}
- {name: sync, methods: [POST], path: /apps, upstream: up, class: action, plugin: argocd}
- {name: shared, methods: [GET], path: /shared, upstream: up, class: read, plugin: argocd, options: {coalesce: {scope: all, ttl: 60s}}}
- {name: other, methods: [GET], path: /other, upstream: other, class: read, plugin: vault}
- {name: sick, methods: [GET], path: /sick, upstream: sick, class: read, plugin: vault}
- {name: open, methods: [GET], path: /open, upstream: other, class: read, options: {public: true}}`;
const as = (workspace, who = 'ada') => ({ authorization: `Bearer ${orbit(who, [workspace])}` });
const ask = async (path, { workspace = 'payments', who, method = 'GET' } = {}) => {
  const answer = await fetch(`${door.url}${path}`, { method, headers: as(workspace, who) });
  const code = answer.headers.get('proxy-status')?.match(/details="(.*)"/)?.[1];
  await answer.text();
  return code ? `${answer.status} ${code}` : `${answer.status}`;
};
const OFF = '503 switched_off';
const post = (body, headers = {}) => door.admin('/switches', { method: 'POST', headers, body: typeof body === 'string' ? body : JSON.stringify(body) });
const set = async (scope, position = 'open', time = '1m') => {
  const answer = await post({ ...scope, position, for: time, reason: 'it burns', by: 'ada' });
  assert.equal(answer.status, 201, await answer.clone().text());
  return answer.json();
};
const list = async () => (await door.admin('/switches')).json();
const remove = async (id) => (await door.admin(`/switches/${id}`, { method: 'DELETE', body: '{"by": "bo"}' })).status;
const gauges = async () => (await (await door.admin('/metrics')).text()).split('\n').filter((line) => line.startsWith('stagedoor_switches{')).sort();
const upgrade = (path) => new Promise((resolve) => {
  const socket = new WebSocket(`${door.url.replace('http', 'ws')}${path}`, { headers: as('payments') });
  socket.on('unexpected-response', (_, answer) => resolve(`${answer.statusCode}`));
  socket.on('open', () => { socket.terminate(); resolve('open'); });
  socket.on('error', () => {});
});
const connect = () => new Promise((resolve) => {
  const socket = net.connect(forward, '127.0.0.1', () => socket.write(`CONNECT 127.0.0.1:${up.port} HTTP/1.1\r\nhost: 127.0.0.1:${up.port}\r\n\r\n`));
  socket.once('data', (data) => { socket.destroy(); resolve(`${data}`.split('\r\n')[0]); });
});
const through = (path) => new Promise((resolve, reject) => {
  http.get({ port: forward, path: `${up.url}${path}`, headers: { host: `127.0.0.1:${up.port}` } }, (answer) => { answer.resume(); resolve(answer.statusCode); }).on('error', reject);
});
const event = (fits) => until('a switch event', async () => door.written().find((line) => line.kind === 'switch' && fits(line)), 5000);

before(async () => {
  forward = await freePort();
  up = await upstream();
  door = await stagedoor(config(1000));
});
after(async () => { await door.stop(); await up.stop(); });
afterEach(async () => { await Promise.all((await list()).map(({ id }) => remove(id))); });

test('a plugin is switched off at once, as curl does it, and on again', async () => {
  assert.deepEqual([await ask('/apps'), await upgrade('/apps'), await ask('/shared')], ['200', 'open', '200']);
  const before = up.seen.length;
  const shown = JSON.parse(execFileSync('curl', ['-s', `http://127.0.0.1:${door.ports.admin}/switches`, '-d',
    '{"plugin": "argocd", "position": "open", "for": "30m", "reason": "it deletes applications", "by": "ada"}']));
  assert.deepEqual([shown.plugin, shown.position, shown.until - shown.set], ['argocd', 'open', 1800]);
  const answer = await fetch(`${door.url}/apps`, { headers: as('payments') });
  assert.deepEqual([answer.status, (await answer.json()).code], [503, 'switched_off']);
  const after = Number(answer.headers.get('retry-after'));
  assert.ok(after > 1790 && after <= 1800, `${after}`);
  // A kept answer, an upgrade and an action are refused alike.
  assert.deepEqual([await ask('/shared'), await upgrade('/apps'), await ask('/apps', { method: 'POST' })], [OFF, '503', OFF]);
  assert.equal(up.seen.length, before, 'the upstream is not asked');
  assert.deepEqual([await ask('/other'), await ask('/open')], ['200', '200']);
  assert.deepEqual((await list()).map(({ id, seconds_left: left }) => [id, left > 1790]), [[shown.id, true]]);
  assert.deepEqual((await (await door.admin('/state')).json()).switches[0].id, shown.id);
  assert.deepEqual(await gauges(), ['stagedoor_switches{position="open",scope="plugin"} 1']);
  assert.deepEqual([await remove(shown.id), await remove(shown.id)], [200, 404]);
  assert.deepEqual([await ask('/apps'), await gauges()], ['200', []]);
});

test('a workspace, an upstream, a class, a caller: and only what fits all that is named', async () => {
  const check = async (scope, expected) => {
    const { id } = await set(scope);
    const is = [await ask('/apps'), await ask('/apps', { workspace: 'web', who: 'bo' }), await ask('/other'), await ask('/apps', { method: 'POST' }), await ask('/open')];
    assert.deepEqual(is.map((answer) => answer === OFF), expected, JSON.stringify(scope));
    await remove(id);
  };
  await check({ workspace: 'payments' }, [true, false, true, true, false]);
  await check({ upstream: 'up' }, [true, true, false, true, false]);
  await check({ upstream: 'other' }, [false, false, true, false, true]);
  await check({ class: 'action' }, [false, false, false, true, false]);
  await check({ caller: 'ada' }, [true, false, true, true, false]);
  await check({ upstream: 'up', workspace: 'web' }, [false, true, false, false, false]);
  await check({ plugin: 'argocd', class: 'read' }, [true, true, false, false, false]);
});

test('calls of a plugin and a workspace are refused, tunnels and plain ones', async () => {
  assert.deepEqual([await connect(), await through('/x')], ['HTTP/1.1 200 Connection Established', 200]);
  for (const scope of [{ plugin: 'catalog' }, { workspace: 'payments' }, { caller: 'catalog', plugin: 'catalog' }]) {
    const { id } = await set(scope);
    const expected = scope.caller ? 'HTTP/1.1 200 Connection Established' : 'HTTP/1.1 503 switched_off';
    assert.equal(await connect(), expected);
    assert.equal(await through('/x'), scope.caller ? 200 : 503);
    await remove(id);
  }
  const { id } = await set({ upstream: 'up' });
  assert.equal(await through('/x'), 200, 'a call goes to no upstream');
  await remove(id);
});

test('it ends by itself, and says so', async () => {
  const { id } = await set({ plugin: 'argocd' }, 'open', '1s500ms');
  assert.equal(await ask('/apps'), OFF);
  await until('the end', async () => await ask('/apps') === '200', 5000);
  const expired = await event((e) => e.switch === id && e.change === 'expired');
  assert.deepEqual([expired.by, expired.reason, expired.plugin], ['ada', 'it burns', 'argocd']);
  assert.deepEqual(await list(), []);
});

test('it outlives a reload', async () => {
  await set({ plugin: 'argocd' });
  door.write(await config(999)(door.ports, door.folder));
  assert.equal((await door.reload()).successful, true);
  assert.equal(await ask('/apps'), OFF);
});

test('a breaker that is held closed lets all through, and is where it was afterwards', async () => {
  const sick = () => ask('/sick?do=status&n=500');
  await sick(); await sick();
  assert.equal(await ask('/sick'), '503 breaker_open');
  const { id } = await set({ upstream: 'sick' }, 'closed');
  for (let i = 0; i < 10; i += 1) assert.equal(await sick(), '500');
  assert.equal(await ask('/sick'), '200');
  const { id: off } = await set({ plugin: 'vault' });
  assert.equal(await ask('/sick'), OFF, 'what is open stays open');
  await remove(off);
  await remove(id);
  assert.equal(await ask('/sick'), '503 breaker_open');
});

test('who, what, why and until when is on record', async () => {
  const { id, until: end } = await set({ workspace: 'web', class: 'read' });
  await ask('/apps', { workspace: 'web', who: 'bo' });
  await remove(id);
  const told = await event((e) => e.switch === id && e.change === 'removed');
  const { by, reason, removed_by: remover, workspace, class: kind, position } = told;
  assert.deepEqual([by, reason, remover, workspace, kind, position], ['ada', 'it burns', 'bo', 'web', 'read', 'open']);
  assert.equal(Math.floor(Date.parse(told.until) / 1000), end);
  const first = await event((e) => e.switch === id);
  assert.deepEqual([first.change, first.removed_by], ['set', undefined]);
  const record = await door.record((r) => r.code === 'switched_off' && r.caller === 'bo' && r.workspace === 'web');
  assert.deepEqual([record.decision, record.status, record.attempts], ['deny', 503, 0]);
});

test('what makes no sense is refused with what to write instead', async () => {
  const rest = { position: 'open', for: '5m', reason: 'r', by: 'b' };
  const check = async (body, status, expected, headers) => {
    const answer = await post(body, headers);
    const text = await answer.text();
    assert.equal(answer.status, status, text);
    assert.ok(text.includes(expected), text);
  };
  await check({ plugin: 'argcd', ...rest }, 422, 'did you mean `argocd`?');
  await check({ upstream: 'upp', ...rest }, 422, 'did you mean `up`?');
  await check({ workspace: 'nobody', ...rest }, 422, 'there is `payments`, `web`');
  await check(rest, 422, 'it names nothing');
  await check({ plugin: 'argocd', ...rest, for: '30d' }, 422, 'at most `7d`');
  await check({ plugin: 'argocd', ...rest, untill: 'x' }, 422, '`untill` is unknown');
  await check('not JSON', 422, 'write for example');
  await check('', 422, 'write for example');
  await check('x'.repeat(20000), 413, '16 KiB');
  await check({ plugin: 'argocd', ...rest }, 403, 'browser', { origin: 'http://evil.example' });
  assert.equal((await door.admin('/switches', { method: 'PUT' })).status, 405);
  assert.equal((await door.admin('/switches/1', { method: 'GET' })).status, 405);
  assert.equal((await door.admin('/switches/x', { method: 'DELETE', body: '{"by": "a"}' })).status, 404);
  const { id } = await set({ plugin: 'argocd' });
  assert.equal((await door.admin(`/switches/${id}`, { method: 'DELETE' })).status, 422, 'nobody removes it');
  assert.equal((await door.admin(`/switches/${id}`, { method: 'DELETE', body: '{"by": "a"}', headers: { origin: 'null' } })).status, 403);
  assert.equal((await list()).length, 1);
});

test('there are a thousand and no more', async () => {
  await Promise.all(Array.from({ length: 1000 }, (_, i) => set({ caller: `nobody-${i}`, plugin: 'vault' })));
  const answer = await post({ plugin: 'argocd', position: 'open', for: '1m', reason: 'r', by: 'b' });
  assert.equal(answer.status, 409);
  assert.equal(await ask('/other'), '200');
});
