'use strict';
// Records that cannot be changed unseen, and actions that are on disk before they are asked for.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { binary, segments, stagedoor, text } = require('../rig/stagedoor');

/** More of them come with `make extra`. */
const KILLS = Number(process.env.KILLS ?? 40);
let up; let port; let onRequest = () => {};
const seen = [];

before(async () => {
  up = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      seen.push(request.headers['x-request-id']);
      onRequest(request);
      response.end('{}');
    });
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  ({ port } = up.address());
});
after(() => { up.closeAllConnections(); up.close(); });

const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${port}"}}
routes:
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
- {name: read, methods: [GET], path: /read, upstream: up, class: read}`;
const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const act = (door, headers = {}) => fetch(`${door.url}/act`, { method: 'POST', headers: { ...bearer, ...headers } });
const verify = (folder, ...args) => {
  const { status, stdout, stderr } = spawnSync(binary, ['audit', 'verify', folder, ...args], { encoding: 'utf8' });
  return { status, out: stdout + stderr };
};
const lines = (folder) => segments(folder).flatMap((file) => text(file).split('\n').filter((line) => line.endsWith('}')).map((line) => JSON.parse(line)));

test('an action is on disk before the upstream is asked, and a read is not waited for', async () => {
  const door = await stagedoor(config);
  const found = [];
  onRequest = (request) => found.push(door.written().filter((line) => line.kind === 'intent' && line.id === request.headers['x-request-id']).length);
  assert.equal((await act(door, { 'x-request-id': 'deploy-1', 'idempotency-key': 'k1' })).status, 200);
  assert.equal((await fetch(`${door.url}/read`, { headers: { ...bearer, 'x-request-id': 'look-1' } })).status, 200);
  onRequest = () => {};
  assert.deepEqual(found, [1, 0]);
  const outcome = await door.record((r) => r.id === 'deploy-1');
  const intent = door.written().find((line) => line.kind === 'intent');
  assert.deepEqual([outcome.intended, outcome.status, intent.caller, intent.route, intent.class, intent.config], [true, 200, 'ada', 'act', 'action', outcome.config]);
  assert.equal(intent.idempotency_key_sha256, outcome.idempotency_key_sha256);
  assert.equal((await door.record((r) => r.id === 'look-1')).intended, undefined);
  await door.stop();
});

test('what cannot be put on disk is not asked of the upstream', async () => {
  const door = await stagedoor(config);
  assert.equal((await act(door)).status, 200);
  fs.rmSync(`${door.folder}/audit`, { recursive: true });
  const asked = seen.length;
  const answer = await act(door);
  assert.deepEqual([answer.status, (await answer.json()).code], [503, 'audit_unavailable']);
  assert.equal(seen.length, asked);
  fs.mkdirSync(`${door.folder}/audit`);
  await until('actions to pass again', async () => (await act(door)).status === 200, 10000);
  await door.stop();
});

test('anybody can check the chain, and what is done to a record is told with its place', async () => {
  const door = await stagedoor(config);
  for (let n = 0; n < 5; n += 1) assert.equal((await act(door, { 'x-request-id': `deploy-${n}` })).status, 200);
  await until('the outcomes', async () => door.records().length === 5);
  const audit = `${door.folder}/audit`;
  const [file] = segments(audit);
  const whole = fs.readFileSync(file, 'utf8');
  // The same, computed by somebody else.
  let link = Buffer.alloc(32);
  for (const line of whole.trim().split('\n')) {
    const at = line.lastIndexOf(',"chain":"');
    link = crypto.createHash('sha256').update(link).update(line.slice(0, at)).digest();
    assert.equal(JSON.parse(line).chain, link.toString('hex'));
  }
  const good = verify(audit);
  assert.equal(good.status, 0, good.out);
  assert.match(good.out, /1 segment and 13 lines verified; 5 intents and 0 lost records among them\nlast [0-9a-f]{64}\n/);
  assert.equal(verify(audit, '--anchor', link.toString('hex')).status, 0);
  const all = whole.trim().split('\n');
  const broken = {
    'a caller is changed': [all.map((line, n) => (n === 4 ? line.replace('"ada"', '"eve"') : line)), 5],
    'a line is removed': [all.filter((_, n) => n !== 4), 5],
    'a line is put in': [[...all.slice(0, 4), all[2], ...all.slice(4)], 5],
    'two are swapped': [[...all.slice(0, 4), all[5], all[4], ...all.slice(6)], 5],
    'the beginning is gone': [all.slice(1), 1],
    'a digest is gone': [all.map((line, n) => (n === 6 ? line.replace(/,"chain".*/, '}') : line)), 7],
  };
  for (const [what, [changed, at]] of Object.entries(broken)) {
    fs.writeFileSync(file, `${changed.join('\n')}\n`);
    const told = verify(audit);
    assert.equal(told.status, 1, what);
    const byte = Buffer.byteLength(changed.slice(0, at - 1).map((line) => `${line}\n`).join(''));
    assert.ok(told.out.startsWith(`${file}:${at} (byte ${byte}): `), `${what}: ${told.out}`);
  }
  // A process that goes on from something that is not there.
  const headless = `${audit}/audit-9-9.jsonl`;
  const body = `{"kind":"segment","version":1,"time":"2026-01-01T00:00:00Z","run":"other","previous":"${'ab'.repeat(32)}"`;
  fs.writeFileSync(file, whole);
  fs.writeFileSync(headless, `${body},"chain":"${crypto.createHash('sha256').update(Buffer.from('ab'.repeat(32), 'hex')).update(body).digest('hex')}"}\n`);
  assert.ok(verify(audit).out.startsWith(`${headless}:1 (byte 0): the line that this one continues is missing`), verify(audit).out);
  // A first line that was not written whole is no fault.
  fs.writeFileSync(headless, body);
  assert.match(verify(audit).out, /13 lines verified[^]*1 last line incomplete/);
  fs.rmSync(headless);
  // An end that was cut off is whole without it; an anchor that was kept elsewhere tells.
  fs.writeFileSync(file, `${all.slice(0, -2).join('\n')}\n`);
  assert.equal(verify(audit).status, 0);
  assert.equal(verify(audit, '--anchor', link.toString('hex')).status, 1);
  assert.equal(verify(audit, '--anchor', 'xyz').status, 2);
  assert.equal(verify('/nowhere').status, 2);
  fs.writeFileSync(file, whole);
  await door.stop();
});

test('a process that is killed leaves no action without its intent, and the next says what is unknown', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-kill-'));
  seen.length = 0;
  let number = 0;
  for (let round = 0; round < KILLS; round += 1) {
    const door = await stagedoor(config, { folder });
    const begun = seen.length;
    let running = true;
    const load = Promise.all(Array.from({ length: 6 }, async () => {
      while (running) {
        number += 1;
        await act(door, { 'x-request-id': `deploy-${number}` }).then((r) => r.arrayBuffer()).catch(() => {});
      }
    }));
    await until('some actions', async () => seen.length > begun + Math.floor(Math.random() * 60));
    process.kill(door.pid, 'SIGKILL');
    running = false;
    await load;
    await door.ended;
  }
  const last = await stagedoor(config, { folder });
  const written = lines(`${folder}/audit`);
  const intents = new Set(written.filter((line) => line.kind === 'intent').map((line) => line.id));
  assert.equal(new Set(written.filter((line) => !line.kind).map((line) => line.id)).size, written.filter((line) => !line.kind).length, 'no id twice');
  assert.equal(intents.size, written.filter((line) => line.kind === 'intent').length);
  assert.deepEqual(seen.filter((id) => !intents.has(id)), [], 'every action that the upstream saw has its intent');
  const ended = new Set(written.filter((line) => line.intended).map((line) => line.id));
  const unknown = new Set(written.flatMap((line) => line.unknown ?? []));
  assert.deepEqual([...intents].filter((id) => !ended.has(id) && !unknown.has(id)), [], 'and an outcome, or is said to be unknown');
  assert.deepEqual([...ended].filter((id) => unknown.has(id)), []);
  const told = verify(`${folder}/audit`);
  assert.equal(told.status, 0, told.out);
  await last.stop();
});
