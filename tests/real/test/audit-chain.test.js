'use strict';
// Checkpoints that are signed, segments that are closed, and folders that have one writer.

const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { start } = require('../rig/process');
const { binary, segments, stagedoor, text } = require('../rig/stagedoor');

let up;
const keys = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-keys-'));
const key = (name) => ({ own: `${keys}/${name}.key`, shown: `${keys}/${name}.pub` });

before(async () => {
  up = http.createServer((request, response) => { request.resume(); request.on('end', () => response.end('{}')); });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  for (const { own, shown } of ['ours', 'other'].map(key)) {
    execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', own]);
    execFileSync('openssl', ['pkey', '-in', own, '-pubout', '-out', shown]);
  }
});
after(() => { up.closeAllConnections(); up.close(); fs.rmSync(keys, { recursive: true }); });

const config = (process = '') => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}${process}`;
const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const act = async (door) => (await fetch(`${door.url}/act`, { method: 'POST', headers: bearer })).status;
const look = async (door, where = 'x') => (await fetch(`${door.url}/read/${where}`, { headers: bearer })).status;
const audit = (...args) => {
  const { status, stdout, stderr } = spawnSync(binary, ['audit', ...args], { encoding: 'utf8' });
  return { status, out: stdout + stderr };
};
const verify = (folder, ...args) => audit('verify', folder, ...args);
const signed = (name, more = '') => `checkpoints: {key_file: ${key(name).own}${more}}`;
const all = (folder) => segments(folder).map(text).join('').trim().split('\n');

/** Gives lines digests that fit, as whoever can write the folder may. */
const sealed = (lines) => {
  let link = Buffer.alloc(32);
  return `${lines.map((line) => {
    const body = line.replace(/,"chain":"[0-9a-f]*"\}$/, '').replace(/\}$/, '');
    link = crypto.createHash('sha256').update(link).update(body).digest();
    return `${body},"chain":"${link.toString('hex')}"}`;
  }).join('\n')}\n`;
};

test('a chain that is written anew holds, and does not hold with the key', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-chain-'));
  const door = await stagedoor(config(), { folder, audit: signed('ours', ', lines_max: 4') });
  for (let n = 0; n < 7; n += 1) assert.equal(await act(door), 200);
  await until('the outcomes', async () => door.records().length === 7);
  door.signal('SIGTERM');
  assert.equal(await door.ended, 0);
  const own = `${folder}/audit`;
  const [file] = segments(own);
  const lines = all(own);
  const { shown } = key('ours');

  const good = verify(own, '--key', shown);
  assert.equal(good.status, 0, good.out);
  assert.match(good.out, /\n6 checkpoints signed; 0 lines after the last\n/);
  // No more than four lines are without one, and openssl finds the signatures good.
  let since = 0; let previous = Buffer.alloc(32);
  for (const line of lines) {
    const read = JSON.parse(line);
    since = read.kind === 'checkpoint' ? 0 : since + 1;
    assert.ok(since <= 4, line);
    if (read.kind === 'checkpoint') {
      fs.writeFileSync(`${keys}/said`, Buffer.concat([Buffer.from('stagedoor audit checkpoint v1\n'), previous, Buffer.from(line.slice(0, line.indexOf(',"signature"')))]));
      fs.writeFileSync(`${keys}/signature`, Buffer.from(read.signature, 'hex'));
      execFileSync('openssl', ['pkeyutl', '-verify', '-pubin', '-inkey', shown, '-rawin', '-in', `${keys}/said`, '-sigfile', `${keys}/signature`]);
    }
    previous = Buffer.from(read.chain, 'hex');
  }

  const attacks = {
    'a caller is changed': lines.map((line, n) => (n === 4 ? line.replace('"ada"', '"eve"') : line)),
    'a line is left out': lines.filter((_, n) => n !== 4),
    'checkpoints are left out': lines.filter((line, n) => n < 3 || !line.includes('"checkpoint"')),
    'all of them are': lines.filter((line) => !line.includes('"checkpoint"')),
    'a checkpoint says more': lines.map((line) => line.replace('"due":4', '"due":9999')),
  };
  for (const [what, changed] of Object.entries(attacks)) {
    fs.writeFileSync(file, sealed(changed));
    assert.equal(verify(own).status, 0, `${what}: nothing tells without the key`);
    const told = verify(own, '--key', shown);
    assert.equal(told.status, 1, `${what}: ${told.out}`);
    assert.match(told.out, /is not signed with the key|should have come before it|no checkpoint is signed/, what);
  }
  fs.writeFileSync(file, `${lines.join('\n')}\n`);
  assert.equal(verify(own, '--key', key('other').shown).status, 1);
  assert.equal(verify(own, '--key', key('other').shown, '--key', shown).status, 0, 'keys change');
  const misused = verify(own, '--key', key('ours').own);
  assert.deepEqual([misused.status, /is not an Ed25519 public key in PEM; `openssl pkey -in KEY -pubout` makes it/.test(misused.out)], [2, true]);
  fs.rmSync(folder, { recursive: true });
});

test('a checkpoint comes after a while, also if little is recorded', async () => {
  const door = await stagedoor(config(), { audit: signed('ours', ', interval: 100ms') });
  assert.equal(await look(door), 200);
  await door.record((r) => r.route === 'read');
  const checkpoints = () => door.written().filter((line) => line.kind === 'checkpoint');
  await until('a checkpoint', async () => door.written().at(-1).kind === 'checkpoint');
  const before_ = checkpoints().length;
  assert.equal(await look(door), 200);
  await until('another', async () => checkpoints().length === before_ + 1);
  await door.stop();
});

test('a key that cannot sign stops the start, and check says why', async () => {
  const rsa = `${keys}/rsa.key`;
  execFileSync('openssl', ['genpkey', '-algorithm', 'RSA', '-out', rsa, '-quiet']);
  await assert.rejects(stagedoor(config(), { audit: `checkpoints: {key_file: ${rsa}}` }), /rsa\.key`: it is not an Ed25519 key; make one with `openssl genpkey -algorithm ed25519`/);
  await assert.rejects(stagedoor(config(), { audit: 'checkpoints: {key_file: /nowhere.key}' }), /`\/nowhere\.key`: no such file/);
  const door = await stagedoor(config());
  fs.writeFileSync(door.file, fs.readFileSync(door.file, 'utf8').replace(/audit: \{/, `audit: {checkpoints: {key_file: ${rsa}}, `));
  const told = spawnSync(binary, ['check', '-c', door.file, '--files'], { encoding: 'utf8' });
  assert.equal(told.status, 1);
  assert.match(told.stdout + told.stderr, /it is not an Ed25519 key/);
  await door.stop();
});

test('the end of the chain is told for keeping elsewhere, and is on disk by then', async () => {
  const door = await stagedoor(config(), { audit: signed('ours') });
  assert.equal(await look(door), 200);
  await door.record((r) => r.route === 'read');
  const head = await (await door.admin('/audit/head')).json();
  assert.equal(head.last, door.written().at(-1).chain);
  assert.equal(head.lines, door.written().length);
  assert.deepEqual([head.run, head.segment], [door.written()[0].run, segments(`${door.folder}/audit`)[0]]);
  const told = execFileSync('openssl', ['pkey', '-pubin', '-inform', 'DER', '-outform', 'PEM'], { input: Buffer.from(head.key.spki, 'base64') }).toString();
  assert.equal(told, fs.readFileSync(key('ours').shown, 'utf8'));
  assert.equal(await act(door), 200);
  assert.equal(verify(`${door.folder}/audit`, '--anchor', head.last).status, 0);
  fs.rmSync(`${door.folder}/audit`, { recursive: true });
  assert.equal((await door.admin('/audit/head')).status, 503);
  await door.stop();
});

test('a folder has one writer, and is handed over with the sockets', async () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-two-'));
  const door = await stagedoor(config(`\nprocess: {drain_delay: 0s, drain_timeout: 3s, upgrade_socket: ${own}/upgrade.sock}`));
  const folder = `${door.folder}/audit`;
  const second = spawnSync(binary, ['run', '-c', door.file], { encoding: 'utf8', timeout: 10000 });
  assert.equal(second.status, 1);
  assert.ok((second.stdout + second.stderr).includes(`cannot write audit records to \`${folder}\``), second.stderr);
  assert.ok((second.stdout + second.stderr).includes(`process ${door.pid} writes to it; give each process its own folder`), second.stderr);

  const young = start(binary, ['run', '-c', door.file, '--upgrade']);
  try {
    await until('the new process to wait', async () => fs.existsSync(`${own}/upgrade.sock`));
    door.signal('SIGQUIT');
    await door.ended;
    await until('the new process to serve', async () => await act(door).catch(() => 0) === 200);
    // It has the folder by now.
    const third = spawnSync(binary, ['run', '-c', door.file], { encoding: 'utf8', timeout: 10000 });
    assert.equal(third.status, 1);
    assert.ok((third.stdout + third.stderr).includes(`process ${young.pid} writes to it`), third.stderr);
  } finally { await young.stop(); }
  const told = verify(folder);
  assert.equal(told.status, 0, told.out);
  assert.equal(new Set(door.written().filter((line) => line.kind === 'segment').map((line) => line.run)).size, 2);
  fs.rmSync(own, { recursive: true });
  fs.rmSync(door.folder, { recursive: true, force: true });
});

test('segments are closed by size and by age, compressed, and removed', async () => {
  const door = await stagedoor(config(), { audit: `segment_max: 1MiB, compress: true, segments_max: 3, ${signed('ours')}` });
  const folder = `${door.folder}/audit`;
  const long = 'x'.repeat(1500);
  const packed = () => segments(folder).filter((file) => file.endsWith('.zst'));
  const newest = () => path.basename(segments(folder).at(-1));
  const names = new Set();
  await until('five segments', async () => {
    await Promise.all(Array.from({ length: 100 }, () => look(door, long)));
    names.add(newest());
    return names.size === 5;
  }, 60000);
  await until('two to be packed, beside the one that is open', async () => packed().length === 2 && segments(folder).length === 3);
  const head = await (await door.admin('/audit/head')).json();
  const told = verify(folder, '--key', key('ours').shown, '--anchor', head.last);
  assert.equal(told.status, 0, told.out);
  // A segment ends with a checkpoint.
  for (const file of packed()) assert.equal(JSON.parse(text(file).trim().split('\n').at(-1)).kind, 'checkpoint');
  assert.ok(packed().every((file) => fs.statSync(file).size < 200_000));
  await door.stop();

  const aged = await stagedoor(config(), { audit: 'segment_age_max: 300ms' });
  assert.equal(await look(aged), 200);
  await until('another segment', async () => segments(`${aged.folder}/audit`).length === 2);
  await aged.record((r) => r.route === 'read');
  assert.equal(verify(`${aged.folder}/audit`).status, 0);
  // One without records stays.
  assert.equal(await look(aged), 200);
  await until('a third', async () => segments(`${aged.folder}/audit`).length === 3);
  assert.equal(text(segments(`${aged.folder}/audit`)[2]).trim().split('\n').length, 1);
  await aged.stop();
});

test('what a kill left of a compression is finished by the next process', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-packed-'));
  const first = await stagedoor(config(), { folder });
  assert.equal(await act(first), 200);
  await until('the outcome', async () => first.records().length === 1);
  process.kill(first.pid, 'SIGKILL');
  await first.ended;
  const [plain] = segments(`${folder}/audit`);
  fs.writeFileSync(`${plain}.zst.part`, 'half of it');
  const next = await stagedoor(config(), { folder, audit: 'compress: true' });
  await until('it to be packed', async () => !fs.existsSync(plain) && fs.existsSync(`${plain}.zst`) && !fs.existsSync(`${plain}.zst.part`));
  assert.equal(await act(next), 200);
  assert.equal(verify(`${folder}/audit`).status, 0);
  await next.stop();
});
