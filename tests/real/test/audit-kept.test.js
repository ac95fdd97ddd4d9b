'use strict';
// What a folder of records says of itself: who was killed, what was pruned, what nobody can know, who may read it.

const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { binary, segments, stagedoor } = require('../rig/stagedoor');

let up;
const held = [];
before(async () => {
  up = http.createServer((request, response) => {
    if (request.url !== '/read/held') return response.end('{}');
    const one = { left: false };
    response.on('close', () => { one.left = true; });
    return held.push(one);
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
});
after(() => { up.closeAllConnections(); up.close(); });

const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}`;
const verify = (folder, ...args) => {
  const { status, stdout, stderr } = spawnSync(binary, ['audit', 'verify', folder, ...args], { encoding: 'utf8' });
  return { status, out: stdout + stderr };
};
const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const look = async (door, id = 'x') => {
  const answer = await fetch(`${door.url}/read/x`, { headers: { ...bearer, 'x-request-id': id } });
  await answer.text();
  return answer.status;
};
const kill = async (door) => { door.signal('SIGKILL'); await door.ended; };
const end = async (door) => { door.signal('SIGTERM'); assert.equal(await door.ended, 0); };

test('who was killed is on record after the next start, once, and who ended in order is not', async () => {
  const first = await stagedoor(config);
  const { folder } = first;
  const gaps = (door) => door.written().filter((line) => line.kind === 'gap');
  assert.equal(await look(first), 200);
  await kill(first);
  const second = await stagedoor(config, { folder });
  assert.deepEqual(gaps(second).map((line) => [line.cause, line.lost]), [['killed', undefined]]);
  const [{ run }] = second.written();
  assert.equal(gaps(second)[0].run, run);
  await end(second);
  const third = await stagedoor(config, { folder });
  assert.equal(gaps(third).length, 1);
  await third.settled();
  assert.match(verify(`${folder}/audit`).out, /the last process still runs, was killed, or its last lines were removed/);
  await end(third);
  assert.equal(third.written().at(-1).kind, 'end');
  const told = verify(`${folder}/audit`);
  assert.equal(told.status, 0, told.out);
  assert.match(told.out, /1 process was killed: records that were not written yet are lost/);
  assert.doesNotMatch(told.out, /still runs/);
  assert.match(told.out, /not known: whether lines were cut off at the end; keep `last` in another place and verify with `--anchor`/);
  assert.match(told.out, /not known: whether everything was rewritten; sign the chain/);
  fs.rmSync(folder, { recursive: true });
});

test('with `reads: before_response` a kill loses no read that was answered', async () => {
  const door = await stagedoor(config, { audit: 'reads: before_response' });
  const answered = [];
  let asking = true;
  const clients = Array.from({ length: 8 }, async (_, client) => {
    for (let n = 0; asking; n += 1) {
      const id = `read-${client}-${n}`;
      const status = await look(door, id).catch(() => 0);
      if (status === 200) answered.push(id);
    }
  });
  await until('some to be answered', async () => answered.length > 400);
  await kill(door);
  asking = false;
  await Promise.all(clients);
  const kept = new Set(door.written().map((line) => line.id));
  assert.deepEqual(answered.filter((id) => !kept.has(id)), []);
  fs.rmSync(door.folder, { recursive: true });
});

test('a read that is on disk before its answer ends with its client all the same', async () => {
  const door = await stagedoor(config, { audit: 'reads: before_response' });
  const leaving = new AbortController();
  const asked = fetch(`${door.url}/read/held`, { headers: bearer, signal: leaving.signal }).catch(() => 'left');
  await until('the upstream to be asked', async () => held.length === 1);
  leaving.abort();
  assert.equal(await asked, 'left');
  await until('the upstream to be left', async () => held[0].left);
  await door.record((r) => r.path === '/read/held' && r.cut);
  await door.stop();
});

test('the oldest segments may be pruned, and not be removed by anybody else', async () => {
  const door = await stagedoor(config, { audit: 'segment_max: 4KiB, segments_max: 3' });
  const folder = `${door.folder}/audit`;
  await until('a pruning', async () => {
    await Promise.all(Array.from({ length: 20 }, () => look(door)));
    return door.written().some((line) => line.kind === 'pruned') && segments(folder).length === 3;
  });
  await end(door);
  const told = verify(folder);
  assert.equal(told.status, 0, told.out);
  const [oldest, next] = segments(folder);
  fs.rmSync(oldest);
  const removed = verify(folder);
  assert.equal(removed.status, 1, removed.out);
  assert.ok(removed.out.startsWith(`${next}:1 (byte 0): segments before this one are missing, and no pruning on record explains it`), removed.out);
  assert.equal(verify(folder, '--partial').status, 0);
  fs.rmSync(door.folder, { recursive: true });
});

test('no segment is longer than `segment_max`, however many records come at once', async () => {
  const limit = 4096;
  const keys = fs.mkdtempSync(`${os.tmpdir()}/stagedoor-keys-`);
  execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', `${keys}/own`]);
  const door = await stagedoor(config, { audit: `segment_max: 4KiB, segments_max: 0, checkpoints: {key_file: ${keys}/own}` });
  const folder = `${door.folder}/audit`;
  await Promise.all(Array.from({ length: 300 }, () => look(door)));
  await end(door);
  const lengths = segments(folder).map((file) => fs.statSync(file).size);
  assert.ok(lengths.length > 30, `only ${lengths.length}`);
  assert.deepEqual(lengths.filter((length) => length > limit), []);
  const told = verify(folder);
  assert.equal(told.status, 0, told.out);
  fs.rmSync(door.folder, { recursive: true });
  fs.rmSync(keys, { recursive: true });
});

test('records are for their owner and a group, and take no more room than they need', async () => {
  const door = await stagedoor(config, { audit: 'segment_max: 4KiB, compress: true' });
  const folder = `${door.folder}/audit`;
  await until('a closed segment', async () => { await look(door); return segments(folder).some((file) => file.endsWith('.zst')); });
  await end(door);
  for (const name of fs.readdirSync(folder)) {
    const data = fs.statSync(`${folder}/${name}`);
    assert.equal(data.mode & 0o777, 0o640, name);
    assert.ok(data.blocks * 512 <= data.size + 8192, `${name} has ${data.blocks} blocks`);
  }
  fs.rmSync(door.folder, { recursive: true });
});
