'use strict';
// `explain --admin`: what the breaker and the limits of a running process say of a request, and that asking
// takes nothing from them.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { redis } = require('../rig/redis');
const { binary, stagedoor, unproxied } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

let up; let gone;
before(async () => { up = await upstream(); gone = await freePort(); });
after(async () => { await up?.stop(); });

const config = (more = '') => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}, web: {}}}
rate_limit: {per_workspace: {rate: 6/h, burst: 4}, per_caller: {rate: 60/h, burst: 200}, per_client: {rate: 6/h, burst: 3}, buckets: {apart: {rate: 6/h, burst: 2}, gone: {rate: 100/s, burst: 100}}}
upstreams:
  up: {url: "${up.url}"}
  gone: {url: "http://127.0.0.1:${gone}", retries: {attempts_max: 1}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: apart, methods: [GET], path: /apart/**, upstream: up, class: read, options: {bucket: apart}}
- {name: open, methods: [GET], path: /open/**, upstream: up, class: read, options: {public: true}}
- {name: gone, methods: [GET], path: "/gone/{engine}/**", upstream: gone, class: read, options: {breaker_by: engine, bucket: gone}}
${more}`;
const headers = (workspace) => ({ authorization: `Bearer ${orbit('ada', [workspace])}` });
const ask = async (door, where, workspace = 'payments') => (await fetch(`${door.url}${where}`, { headers: headers(workspace) })).status;
const run = (...args) => new Promise((resolve) => {
  execFile(binary, args, { env: unproxied() }, (error, out, err) => resolve({ code: error ? error.code : 0, out, err }));
});
const explain = (door, where, ...more) => run('explain', '-c', door.file, '-p', where, '--as', 'ada', '--workspace', 'payments', '--admin', `http://127.0.0.1:${door.ports.admin}`, ...more);
const now = ({ out }, what) => out.split('\n').filter((line) => line.startsWith(`${what} now`)).map((line) => line.replace(/^\w+ now +/, ''));

test('what is left of each limit, and asking takes nothing of it', async () => {
  const door = await stagedoor(config());
  const before = await explain(door, '/read/x');
  assert.equal(before.code, 0, before.out + before.err);
  assert.deepEqual(now(before, 'limit'), ['caller `ada`: 200 of 200 left', 'workspace `payments`: 4 of 4 left']);
  assert.deepEqual(now(before, 'breaker'), ['of upstream `up`: closed']);
  assert.deepEqual(now(before, 'verdict'), ['neither breaker nor limits refuse it']);
  assert.equal(await ask(door, '/read/x'), 200);
  for (let n = 0; n < 10; n += 1) {
    assert.deepEqual(now(await explain(door, '/read/x'), 'limit').map((line) => line.replace(/, all of them in .*/, '')), ['caller `ada`: 199 of 200 left', 'workspace `payments`: 3 of 4 left']);
  }
  // As many pass as it said.
  for (let n = 0; n < 3; n += 1) assert.equal(await ask(door, '/read/x'), 200);
  const empty = await explain(door, '/read/x');
  assert.match(now(empty, 'limit')[1], /^workspace `payments`: 0 of 4 left, one more in (600|59\d) s, all of them in (2400|23\d\d) s$/);
  assert.deepEqual(now(empty, 'verdict'), ['deny 429 rate_limited']);
  assert.equal(empty.code, 1);
  assert.equal(await ask(door, '/read/x'), 429);
  // Another bucket and another workspace have theirs.
  assert.match(now(await explain(door, '/apart/x'), 'limit')[1], /^workspace `payments`, bucket `apart`: 2 of 2 left$/);
  assert.match(now(await run('explain', '-c', door.file, '-p', '/read/x', '--as', 'ada', '--workspace', 'web', '--admin', `127.0.0.1:${door.ports.admin}`), 'limit')[1], /^workspace `web`: 4 of 4 left$/);
  // By a token, too, and of an address where nobody is asked who they are.
  const token = await run('explain', '-c', door.file, '-p', '/read/x', '-H', `authorization: Bearer ${orbit('ada', ['payments'])}`, '--admin', `http://127.0.0.1:${door.ports.admin}`);
  assert.match(now(token, 'limit')[1], /^workspace `payments`: 0 of 4 left/);
  assert.equal((await fetch(`${door.url}/open/x`)).status, 200);
  assert.match(now(await explain(door, '/open/x'), 'limit')[0], /^client `127\.0\.0\.1`: 2 of 3 left/);
  assert.match(now(await explain(door, '/open/x', '--client', '192.0.2.7'), 'limit')[0], /^client `192\.0\.2\.7`: 3 of 3 left/);
  await door.stop('SIGINT');
});

test('a breaker that is open: since when, why, and when it is tried next', async () => {
  const door = await stagedoor(config());
  for (let n = 0; n < 6; n += 1) assert.ok([502, 503].includes(await ask(door, '/gone/one/x')));
  const open = await explain(door, '/gone/one/x');
  assert.equal(open.code, 1, open.out + open.err);
  assert.match(now(open, 'breaker')[0], /^of upstream `gone`, part `one`: open since 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ \((\d+ ms|\d s)\), because it does not respond \(`no_response`\); it is probed every second, and requests try it in (30|2\d) s at the latest$/);
  assert.deepEqual(now(open, 'verdict'), ['deny 503 breaker_open']);
  assert.deepEqual(now(await explain(door, '/gone/two/x'), 'breaker'), ['of upstream `gone`, part `two`: closed']);
  // Asking neither opens nor closes it, and makes none.
  const { breakers } = await (await door.admin('/state')).json();
  assert.deepEqual(breakers.filter(({ part }) => part).map(({ part, position }) => [part, position]), [['one', 'open']]);
  const back = await upstream({ port: gone });
  // If nobody had looked for it while it was gone, three requests must show that it answers.
  await until('it to be closed', async () => (await ask(door, '/gone/one/x')) === 200
    && now(await explain(door, '/gone/one/x'), 'breaker')[0] === 'of upstream `gone`, part `one`: closed', 40000);
  await back.stop();
  await door.stop('SIGINT');
});

test('a limit that replicas share is told as this one knows it', async () => {
  const store = await redis();
  const door = await stagedoor(config(`store: {kind: standalone, addresses: ["${store.address}"]}`));
  await until('the store', async () => (await (await door.admin('/state')).json()).store.there);
  assert.match(now(await explain(door, '/read/x'), 'limit')[1], /^workspace `payments`: this replica has not queried the store about it yet$/);
  for (let n = 0; n < 4; n += 1) assert.equal(await ask(door, '/read/x'), 200);
  assert.equal(await ask(door, '/read/x'), 429);
  const told = await explain(door, '/read/x');
  assert.match(now(told, 'limit')[1], /^workspace `payments`: 0 of 4 left, .*; replicas share it, and this is what this replica knows$/);
  await door.stop('SIGINT'); await store.stop();
});

test('it says what it cannot ask: another config, no such route, a refusal before anything counts, nobody there', async () => {
  const door = await stagedoor(config());
  const admin = `http://127.0.0.1:${door.ports.admin}`;
  const changed = path.join(door.folder, 'changed.yaml');
  fs.writeFileSync(changed, fs.readFileSync(door.file, 'utf8').replace('rate: 6/h, burst: 4', 'rate: 6/h, burst: 5').replace('name: apart,', 'name: aside,'));
  const of = (where, ...more) => run('explain', '-c', changed, '-p', where, '--as', 'ada', '--workspace', 'payments', '--admin', admin, ...more);
  const other = await of('/read/x');
  assert.match(other.out, /^right now +`http:\S+` runs a different config \(\w+\) from this one \(\w+\)$/m);
  assert.match(now(other, 'limit')[1], /4 of 4 left/);
  const unknown = await of('/apart/x');
  assert.equal(unknown.code, 2);
  assert.match(unknown.err, /the config in force has no route `aside`/);
  const closed = await explain(door, '/none');
  assert.equal(closed.code, 1);
  assert.match(closed.out, /^right now +not queried: the request is refused before it counts anywhere$/m);
  const nobody = await run('explain', '-c', door.file, '-p', '/read/x', '--as', 'ada', '--workspace', 'payments', '--admin', `http://127.0.0.1:${gone}`);
  assert.equal(nobody.code, 2);
  assert.match(nobody.err, /cannot get `http:\S+\/quota-status`/);
  // The endpoint itself: bounded words, reads only, and nothing is kept of a name that somebody makes up.
  const { limiters } = await (await door.admin('/state')).json();
  const of422 = async (query) => { const answer = await door.admin(`/quota-status?${query}`); return [answer.status, (await answer.json()).messages[0]]; };
  assert.deepEqual(await of422(''), [422, 'write `route`: the name of a route']);
  assert.deepEqual(await of422('route=read'), [422, 'write `caller`: its limits count per caller']);
  assert.deepEqual(await of422('route=open'), [422, 'that route is public and has no caller: write `client`']);
  assert.deepEqual((await of422(`route=read&caller=${'x'.repeat(300)}`))[0], 422);
  assert.deepEqual((await of422('route=read&callr=a'))[0], 422);
  for (let n = 0; n < 50; n += 1) assert.equal((await door.admin(`/quota-status?route=read&caller=made-up-${n}&workspace=w${n}`)).status, 200);
  assert.deepEqual((await (await door.admin('/state')).json()).limiters, limiters);
  assert.equal((await door.admin('/quota-status?route=read', { method: 'POST' })).status, 405);
  await door.stop('SIGINT');
});
