'use strict';
// How a process begins and ends: its log, a full disk, listeners that another takes over, and readers that leave.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { start } = require('../rig/process');
const { listens } = require('../rig/sockets');
const { binary, segments, stagedoor } = require('../rig/stagedoor');

let up;
const held = [];
before(async () => {
  up = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      if (request.url.endsWith('/held')) return held.push(response);
      return response.end('{}');
    });
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
});
after(() => { up.closeAllConnections(); up.close(); });

const config = (more = '') => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}", timeouts: {upstream: 60s, total: 60s}}}
routes:
- {name: act, methods: [POST], path: /act/**, upstream: up, class: action}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
${more}`;
const bearer = () => ({ authorization: `Bearer ${orbit('ada', ['payments'])}` });
const ask = async (door, method, where, headers = {}) => {
  const answer = await fetch(`${door.url}${where}`, { method, headers: { ...bearer(), ...headers } });
  return answer.status === 200 ? 200 : `${answer.status} ${(await answer.json()).code}`;
};
const metric = async (door, name) => Number((await (await door.admin('/metrics')).text()).match(new RegExp(`^${name} (.*)$`, 'm'))[1]);

test('no command panics when its reader has left', async () => {
  const door = await stagedoor(config());
  assert.equal(await ask(door, 'POST', '/act/x'), 200);
  const audit = `${door.folder}/audit`;
  await door.stop('SIGTERM');
  fs.mkdirSync(audit, { recursive: true });
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-pipes-'));
  const file = `${own}/stagedoor.yaml`;
  fs.writeFileSync(file, 'version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: "127.0.0.1:1"}}\n');
  const broken = `${own}/broken.yaml`;
  fs.writeFileSync(broken, 'version: stagedoor/v1\nlisteners: {edge: {kind: nothing}}\n');
  for (const words of [
    ['schema'], ['schema', '--markdown'], ['check', '-c', file], ['check', '-c', broken], ['explain', '--preset', 'backstage'],
    ['audit', 'verify', audit], ['audit', 'query', audit], ['suggest', 'egress', '--audit', audit, '-c', file], ['--help'], ['nonsense'],
  ]) {
    for (const closed of ['>&3', '2>&3', '>&3 2>&3']) {
      // The reading end is closed before the command begins.
      const told = spawnSync('bash', ['-c', `exec 3> >(:); wait $!; "$0" "$@" ${closed}`, binary, ...words], { encoding: 'utf8' });
      assert.ok(told.status !== null && told.status < 3, `${words.join(' ')} ${closed}: ${told.status} ${told.signal} ${told.stderr}`);
      assert.doesNotMatch(told.stdout + told.stderr, /panicked/, words.join(' '));
    }
  }
  fs.rmSync(own, { recursive: true });
});

test('a command whose answer cannot be written says so in its exit code', () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-full-'));
  const file = `${own}/stagedoor.yaml`;
  fs.writeFileSync(file, 'version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: "127.0.0.1:1"}}\n');
  const audit = `${own}/audit`;
  fs.mkdirSync(audit);
  fs.writeFileSync(`${audit}/audit-1-1.jsonl`, '{"time":"2026-11-24T12:00:00.000000Z","id":"1","decision":"allow","code":"ok"}\n');
  for (const words of [
    ['schema'], ['schema', '--markdown'], ['check', '-c', file], ['check', '-c', file, '--format', 'json'], ['explain', '--preset', 'backstage'],
    ['audit', 'verify', audit], ['audit', 'query', audit], ['audit', 'stats', audit], ['audit', 'tail', audit],
    ['replay', '--audit', audit, '--candidate', file], ['suggest', 'egress', '--audit', audit, '-c', file], ['--help'], ['schema', '--help'], ['--version'],
  ]) {
    const told = spawnSync('bash', ['-c', '"$0" "$@" >/dev/full', binary, ...words], { encoding: 'utf8' });
    assert.equal(told.status, 2, `${words.join(' ')}: ${told.status} ${told.stderr}`);
    assert.match(told.stderr, /cannot write the output: No space left on device/, words.join(' '));
  }
  fs.rmSync(own, { recursive: true });
});

test('a start says in one line what is served, as JSON or as text', async () => {
  for (const [env, shown] of [
    [{}, /^\{.*"message":"serving","version":"[\d.]+","config":".*stagedoor\.yaml","policy":"[0-9a-f]{32}","listeners":"admin=admin@127\.0\.0\.1:\d+ edge=reverse@127\.0\.0\.1:\d+"/m],
    [{ STAGEDOOR_LOG_FORMAT: 'text' }, /^\S+Z +INFO serving version="[\d.]+" config=.*stagedoor\.yaml .*listeners="admin=admin@/m],
  ]) {
    const door = await stagedoor(config(), { env });
    assert.match(door.output(), shown);
    await door.stop();
  }
});

/** A small disk for audit records, which stays when the process that writes to it ends. */
const disk = async (size) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-disk-'));
  fs.mkdirSync(`${folder}/audit`);
  const holder = start('unshare', ['-m', 'sh', '-c', `mount -t tmpfs -o size=${size} tmpfs "${folder}/audit" && touch "${folder}/audit/there" && exec sleep 600`]);
  const seen = `/proc/${holder.pid}/root${folder}/audit`;
  await until('the disk', async () => fs.existsSync(`${seen}/there`));
  return {
    folder, seen,
    under: ['nsenter', `--mount=/proc/${holder.pid}/ns/mnt`],
    /** Leaves room for so many bytes. */
    fill: (left) => {
      fs.writeFileSync(`${seen}/filler`, '');
      const free = fs.statfsSync(seen);
      fs.writeFileSync(`${seen}/filler`, Buffer.alloc(Math.max(0, Number(free.bavail) * Number(free.bsize) - left)));
    },
    free: () => fs.rmSync(`${seen}/filler`),
    lines: () => segments(seen).flatMap((file) => fs.readFileSync(file, 'utf8').trim().split('\n')).filter(Boolean).map((line) => JSON.parse(line)),
    end: async () => { await holder.stop('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); },
  };
};

test('on a full disk it starts, serves reads and refuses actions, and goes on as soon as there is room', { skip: process.getuid() !== 0 && 'wants root' }, async () => {
  const small = await disk('6m');
  small.fill(0);
  const door = await stagedoor(config(), { folder: small.folder, under: small.under });
  assert.match(door.output(), /the audit disk is full: actions are refused until there is room/);
  assert.equal(await ask(door, 'GET', '/read/x'), 200);
  assert.equal(await ask(door, 'POST', '/act/x'), '503 audit_unavailable');
  assert.equal(await metric(door, 'stagedoor_audit_writable'), 0);
  small.free();
  await until('an action to pass', async () => await ask(door, 'POST', '/act/x') === 200);
  assert.equal(await metric(door, 'stagedoor_audit_writable'), 1);
  await door.settled();
  assert.ok(small.lines().some((line) => line.kind === 'gap' && line.lost > 0), 'what could not be kept is not told');
  door.signal('SIGTERM');
  await door.ended;
  await small.end();
});

test('what an action came to is asked after however often the process was killed on a full disk', { skip: process.getuid() !== 0 && 'wants root' }, async () => {
  const small = await disk('6m');
  const begin = () => stagedoor(config(), { folder: small.folder, under: small.under });
  const kill = async (door) => { door.signal('SIGKILL'); await door.ended; };
  const first = await begin();
  const asked = fetch(`${first.url}/act/held`, { method: 'POST', headers: { ...bearer(), 'x-request-id': 'unanswered' } }).catch(() => {});
  await until('the action to be under way', async () => held.length === 1);
  await kill(first);
  await asked;
  held.pop().destroy();
  small.fill(200 << 10);
  for (let n = 0; n < 3; n += 1) await kill(await begin());
  small.free();
  const last = await begin();
  await until('an action to pass', async () => await ask(last, 'POST', '/act/x') === 200);
  const recoveries = small.lines().filter((line) => line.kind === 'recovery');
  assert.deepEqual(recoveries.map((line) => line.unknown), [['unanswered']]);
  last.signal('SIGTERM');
  await last.ended;
  await small.end();
});

test('what the end of the process cuts off is on record once, a read as well as an action', async () => {
  const door = await stagedoor(config('process: {drain_delay: 0s, drain_timeout: 1s}'));
  const cut = Promise.allSettled([ask(door, 'GET', '/read/held'), ask(door, 'POST', '/act/held')]);
  await until('both to be under way', async () => held.length === 2);
  door.signal('SIGTERM');
  await door.ended;
  assert.deepEqual((await cut).map(({ status }) => status), ['rejected', 'rejected']);
  held.splice(0).forEach((response) => response.destroy());
  const records = door.records();
  fs.rmSync(door.folder, { recursive: true });
  assert.deepEqual(records.map(({ method, cut }) => [method, cut]).sort(), [['GET', true], ['POST', true]]);
});

test('what was not decided when the process ends is on record as refused, and was not sent', async () => {
  const door = await stagedoor((ports, own) => config('process: {drain_delay: 0s, drain_timeout: 1s}')(ports, own)
    .replace('upstreams: {up: {', 'upstreams: {up: {pace: {rate: 4/m, burst: 1, wait_max: 40s}, '));
  assert.equal(await ask(door, 'GET', '/read/first'), 200);
  const waiting = Promise.allSettled([ask(door, 'GET', '/read/held'), ask(door, 'POST', '/act/held')]);
  await until('one to wait for the pace', async () => (await metric(door, 'stagedoor_requests_in_flight')) >= 2);
  door.signal('SIGTERM');
  await door.ended;
  await waiting;
  assert.equal(held.length, 0, 'it was sent');
  const records = door.records().filter(({ path }) => path.endsWith('/held'));
  assert.equal(records.length, 2);
  for (const record of records) {
    assert.equal(record.decision, 'deny', JSON.stringify(record));
    assert.ok(!record.passed.includes('upstream') && record.step !== 'upstream', JSON.stringify(record));
  }
  assert.ok(records.some(({ code }) => code === 'stopping'), JSON.stringify(records));
  fs.rmSync(door.folder, { recursive: true });
});

test('whoever keeps a connection loses nothing while another process takes over', async () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-over-'));
  const door = await stagedoor(config(`process: {drain_delay: 0s, drain_timeout: 20s, upgrade_socket: ${own}/upgrade.sock}`));
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  let asking = true;
  const came = { 200: 0 };
  const told = { close: 0 };
  const once = (method, where) => new Promise((resolve) => {
    const request = http.request(`${door.url}${where}`, { method, agent, headers: bearer() }, (response) => {
      response.resume();
      if (response.headers.connection === 'close') told.close += 1;
      response.on('end', () => resolve(response.statusCode));
      response.on('error', (error) => resolve(error.code));
    });
    request.on('error', (error) => resolve(error.code));
    request.end();
  });
  const client = async (method, where) => {
    while (asking) {
      const answer = await once(method, where);
      came[answer] = (came[answer] ?? 0) + 1;
      await new Promise(setImmediate);
    }
  };
  const clients = [client('GET', '/read/x'), client('POST', '/act/x'), client('POST', '/act/y'), client('GET', '/read/y')];
  // What is under way when the listeners are gone has its time to end.
  const long = fetch(`${door.url}/act/held`, { method: 'POST', headers: bearer() });
  await until('a long action to be under way', async () => held.length === 1);
  const young = start(binary, ['run', '-c', door.file, '--upgrade']);
  try {
    await until('the new process to wait', async () => fs.existsSync(`${own}/upgrade.sock`));
    door.signal('SIGQUIT');
    await until('answers to be the last on their connections', async () => told.close > 0);
    await until('the old process to listen no more', async () => !listens(door.pid, door.ports.edge), 30000);
    assert.ok(door.isRunning(), 'it ended while an action was under way');
    held.pop().end('{}');
    assert.equal((await long).status, 200);
    await door.ended;
    asking = false;
    await Promise.all(clients);
    assert.deepEqual(Object.keys(came), ['200'], JSON.stringify(came));
  } finally { asking = false; agent.destroy(); await young.stop(); }
  fs.rmSync(own, { recursive: true });
  fs.rmSync(door.folder, { recursive: true, force: true });
});
