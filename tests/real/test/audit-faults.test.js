'use strict';
// Records while the disk, the clock, the folder and the clients misbehave.

const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { binary, segments, stagedoor, text } = require('../rig/stagedoor');

let up;
const seen = [];
before(async () => {
  up = http.createServer((request, response) => { seen.push(request.url); request.resume(); request.on('end', () => response.end('{}')); });
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
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}`;
// Good also for a clock that was put back.
const bearer = () => ({ authorization: `Bearer ${orbit('ada', ['payments'], { iat: 1_700_000_000 })}` });
const act = async (door, headers = {}) => (await fetch(`${door.url}/act`, { method: 'POST', headers: { ...bearer(), ...headers } })).status;
const look = async (door, where = 'x') => (await fetch(`${door.url}/read/${where}`, { headers: bearer() })).status;
const verify = (folder, ...args) => {
  const { status, stdout, stderr } = spawnSync(binary, ['audit', 'verify', folder, ...args], { encoding: 'utf8' });
  return { status, out: stdout + stderr };
};
const took = async (work) => { const began = process.hrtime.bigint(); await work(); return Number(process.hrtime.bigint() - began) / 1e6; };
const median = (all) => [...all].sort((a, b) => a - b)[Math.floor(all.length / 2)];

test('a slow disk slows actions, which share its syncs, and no read', async () => {
  const DELAY = 300;
  const door = await stagedoor(config, { under: ['strace', '-D', '-f', '-qq', '--seccomp-bpf', '-e', 'trace=fdatasync', '-e', 'signal=none', '-o', '/dev/null', '-e', `inject=fdatasync:delay_exit=${DELAY * 1000}`] });
  assert.equal(await look(door), 200);
  const alone = await took(async () => assert.equal(await act(door), 200));
  assert.ok(alone >= DELAY, `an action took ${alone} ms: it did not wait for the disk`);
  const acting = Array.from({ length: 100 }, () => act(door));
  const all = took(async () => assert.deepEqual([...new Set(await Promise.all(acting))], [200]));
  const reads = [];
  for (let n = 0; n < 30; n += 1) reads.push(await took(async () => assert.equal(await look(door), 200)));
  assert.ok(median(reads) < DELAY / 3, `reads took ${median(reads)} ms`);
  // One sync may have been under way, and what came in two turns needs two.
  assert.ok(await all < 6 * DELAY, `a hundred actions took ${await all} ms: each had a sync of its own`);
  await door.stop();
});

test('a clock that is put back loses nothing, and the chain goes on', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-clock-'));
  const library = execFileSync('find', ['/usr/lib', '-name', 'libfaketimeMT.so.1'], { encoding: 'utf8' }).trim().split('\n')[0];
  const clock = `${folder}/clock`;
  const env = { LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: clock, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  const run = async (body) => {
    const door = await stagedoor(config, { folder, env });
    await body(door);
    door.signal('SIGTERM');
    assert.equal(await door.ended, 0);
  };
  const acted = async (door, id) => {
    assert.equal(await act(door, { 'x-request-id': id }), 200);
    return (await door.record((r) => r.id === id)).time;
  };
  fs.writeFileSync(clock, '+0');
  let before_; let back;
  await run(async (door) => {
    before_ = await acted(door, 'first');
    fs.writeFileSync(clock, '-40m');
    back = await acted(door, 'second');
  });
  assert.ok(back < before_, `${back} is not before ${before_}`);
  await run((door) => acted(door, 'third'));
  const all = segments(`${folder}/audit`);
  assert.equal(all.length, 2);
  assert.deepEqual(all.flatMap((file) => text(file).trim().split('\n')).map((line) => JSON.parse(line)).filter((r) => !r.kind).map((r) => r.id), ['first', 'second', 'third']);
  const told = verify(`${folder}/audit`);
  assert.equal(told.status, 0, told.out);
  fs.rmSync(folder, { recursive: true });
});

test('a folder that cannot be written to stops the start with a sentence', async () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-denied-'));
  const inside = (mount) => ['unshare', '-rm', 'sh', '-c', `${mount} && exec "$0" "$@"`];
  await assert.rejects(stagedoor(config, { folder: own, under: inside(`mount -t tmpfs -o ro tmpfs "${own}/audit"`) }), new RegExp(`cannot write audit records to \`${own}/audit\``));
  fs.rmSync(own, { recursive: true });
  const gone = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-denied-'));
  await assert.rejects(stagedoor(config, { folder: gone, under: inside(`rmdir "${gone}/audit"`) }), /cannot write audit records to/);
  fs.rmSync(gone, { recursive: true });
  if (process.getuid() !== 0) return;
  const theirs = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-denied-'));
  fs.chmodSync(theirs, 0o755);
  await assert.rejects(stagedoor(config, { folder: theirs, under: ['setpriv', '--reuid=65534', '--clear-groups', '--inh-caps=-all'] }), /cannot write audit records to[^]*[Pp]ermission denied/);
  fs.rmSync(theirs, { recursive: true });
});

test('a line of elsewhere, or of another time, is told', async () => {
  const [here, there] = [await stagedoor(config, { audit: 'segment_age_max: 200ms' }), await stagedoor(config)];
  for (let n = 0; n < 3; n += 1) {
    assert.deepEqual([await act(here), await act(there)], [200, 200]);
    await until('another segment', async () => segments(`${here.folder}/audit`).length > n + 1);
  }
  await until('the outcomes', async () => there.records().length === 3);
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-spliced-'));
  const anew = () => {
    fs.rmSync(folder, { recursive: true });
    fs.cpSync(`${here.folder}/audit`, folder, { recursive: true });
    return segments(folder);
  };
  const lines = (file) => text(file).split('\n').filter(Boolean);
  const put = (file, all) => fs.writeFileSync(file, `${all.join('\n')}\n`);
  const [foreign] = segments(`${there.folder}/audit`);
  anew();
  assert.equal(verify(folder).status, 0);
  const attacks = {
    'a line of another process': ([, file]) => { const all = lines(file); put(file, [...all.slice(0, 2), lines(foreign).at(-1), ...all.slice(2)]); return [file, 3]; },
    'a line of another segment': ([first, file]) => { const all = lines(file); put(file, [all[0], lines(first)[1], ...all.slice(1)]); return [file, 2]; },
    'a segment twice': ([first, second]) => { const again = `${second.slice(0, -6)}1.jsonl`; fs.copyFileSync(first, again); return [again, 1]; },
    'a segment is gone': ([, second, third]) => { fs.rmSync(second); return [third, 1]; },
    'the beginning of another is put on': ([, file]) => { const all = lines(file); put(file, [lines(foreign)[0], ...all.slice(1)]); return [file, 2]; },
    'a segment is cut': ([, file, third]) => { put(file, lines(file).slice(0, -1)); return [third, 1]; },
    'a line is cut': ([, file]) => { const all = lines(file); put(file, [all[0], all[1].slice(0, 40), ...all.slice(2)]); return [file, 2]; },
    'two segments are swapped': ([first, second]) => { const [a, b] = [text(first), text(second)]; fs.writeFileSync(first, b); fs.writeFileSync(second, a); return [second, 1]; },
  };
  for (const [what, attack] of Object.entries(attacks)) {
    const [file, line] = attack(anew());
    const told = verify(folder);
    assert.equal(told.status, 1, `${what}: ${told.out}`);
    assert.ok(told.out.startsWith(`${file}:${line} (byte `), `${what}: ${told.out}`);
  }
  fs.rmSync(folder, { recursive: true });
  await Promise.all([here.stop(), there.stop()]);
});

test('whatever a client sends becomes one line of plain JSON, and a long path a short one', async () => {
  const door = await stagedoor(config);
  const token = orbit('ada', ['payments']);
  const send = (head) => new Promise((resolve) => {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let got = '';
    socket.on('data', (data) => { got += data; });
    socket.on('close', () => resolve(got.slice(9, 12)));
    socket.on('error', () => {});
    socket.write(Buffer.isBuffer(head) ? head : Buffer.from(head, 'latin1'));
  });
  const get = (target, ...headers) => `GET ${target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n${headers.map((header) => `${header}\r\n`).join('')}connection: close\r\n\r\n`;
  const odd = '\x01\x1b[2J\x7f\x80\xff\xc3\x28\xe2\x80\xae';
  const sent = [
    get(`/read/${'x'.repeat(20_000)}`), get(`/read/${'x'.repeat(65_536)}`), get(`/read/${'%0a%22%7d%0d'.repeat(50)}`),
    get(`/read/${odd}`), get(`/${odd}?q=${odd}`), `GET /read/a HTTP/1.1\r\nhost: ${odd}\r\n\r\n`, `${odd} /read HTTP/1.1\r\nhost: x\r\n\r\n`,
    get('/read/a', `x-request-id: ${odd}`), get('/read/a', `x-request-id: "},{"id":"forged`), get('/read/a', `traceparent: ${odd}`),
    get('/read/a', `idempotency-key: ${odd}`), get('/read/a', `x-orbit-workspace-id: ${odd}`), get('/read/a', 'x-orbit-workspace-id: a\\u0022'),
    Buffer.from([0, 10, 13, 10, 13, 10]), '\n"}\n{"kind":"gap"}\n\r\n\r\n', `GET /\u2028{"kind":"gap","lost":1}\n HTTP/1.1\r\n\r\n`,
  ];
  const statuses = [];
  for (const head of sent) statuses.push(await send(head));
  assert.ok(statuses.every((status) => /^(200|4\d\d)?$/.test(status)), statuses.join(' '));
  assert.ok(statuses.includes('200') && statuses.includes('400'), statuses.join(' '));
  await until('a record of each', async () => door.records().length >= sent.length - 1);
  const folder = `${door.folder}/audit`;
  const lines = segments(folder).map(text).join('').trimEnd().split('\n');
  for (const line of lines) {
    assert.match(line, /^[ -~]*$/, 'plain, so that no terminal is turned');
    assert.ok(line.length < 8192, `${line.length} bytes`);
    JSON.parse(line);
  }
  assert.deepEqual([...new Set(lines.map((line) => JSON.parse(line).kind ?? ''))].sort(), ['', 'config', 'keys', 'segment'], 'nobody writes a line of another kind');
  assert.ok(!lines.some((line) => JSON.parse(line).id === 'forged'));
  assert.equal(verify(folder).status, 0);
  await door.stop();
});
