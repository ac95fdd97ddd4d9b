'use strict';
// The demo as its users see it: every command that it prints is run, and must do what is promised above it.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { freePort, until } = require('../rig/ports');
const { start } = require('../rig/process');
const { binary } = require('../rig/stagedoor');

const COUNT = 6;
let folder; let port; let demo; let lines;

/** Listens at a port of loopback until the answer is closed; refuses if somebody else does. */
const occupy = (at) => new Promise((resolve, reject) => {
  const server = net.createServer((socket) => socket.destroy());
  server.once('error', reject);
  server.listen(at, '127.0.0.1', () => resolve(server));
});
const close = (server) => new Promise((resolve) => server.close(resolve));

const given = [];
/** The first of `COUNT` ports in a row that nobody listens on; each row is given out once. */
const freeRow = async () => {
  for (let tries = 0; tries < 200; tries += 1) {
    const first = await freePort();
    if (first + COUNT > 65535 || given.some((other) => Math.abs(other - first) < COUNT)) continue;
    const row = await Promise.allSettled(Array.from({ length: COUNT }, (_, n) => occupy(first + n)));
    await Promise.all(row.filter((one) => one.value).map((one) => close(one.value)));
    if (row.every((one) => one.value)) { given.push(first); return first; }
  }
  throw new Error(`no ${COUNT} free ports in a row`);
};

/** With which code it ends; one that should end at once has some seconds for it. */
const ends = (program) => Promise.race([program.ended, until('its end', async () => !program.isRunning(), 6000).then(() => program.ended, () => 'still running')]);

const answers = async (at) => new Promise((resolve) => {
  const socket = net.connect(at, '127.0.0.1');
  socket.once('connect', () => { socket.destroy(); resolve(true); });
  socket.once('error', () => resolve(false));
});
/** Starts it, and waits until the proxy, the issuer and both stand-ins answer. */
const begin = async (args) => {
  const program = start(binary, ['demo', ...args]);
  await until('the demo', async () => {
    if (!program.isRunning()) throw Object.assign(new Error(program.output()), { fatal: true });
    const open = await Promise.all([0, 1, 2, 3, 4].map((n) => answers(port + n)));
    return open.every(Boolean) && program.output().includes('Ctrl-C stops the demo.');
  });
  return program;
};

/** Runs a line as somebody who pastes it into a shell, with the variables that were printed. */
const paste = (line) => new Promise((resolve) => {
  const variables = lines.filter((l) => /^(ADA|BO)=/.test(l)).join('\n');
  const child = spawn('bash', ['-c', `${variables}\n${line}`], {
    env: { ...process.env, PATH: `${path.dirname(binary)}:${process.env.PATH}` }, stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = ''; let err = '';
  child.stdout.on('data', (data) => { out += data; });
  child.stderr.on('data', (data) => { err += data; });
  child.once('close', (code) => resolve({ code, out, err }));
});
/** Runs the line that stands under a title. */
const under = (title) => {
  const at = lines.findIndex((line) => line.startsWith(`# ${title}`));
  assert.ok(at >= 0, `nothing is printed about: ${title}`);
  return paste(lines.slice(at + 1).find((line) => !line.startsWith('#')));
};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-demo-test-'));
  port = await freeRow();
  demo = await begin(['--port', String(port), '--folder', folder]);
  lines = demo.output().split('\n');
});
after(async () => {
  await demo?.stop('SIGKILL');
  if (folder) fs.rmSync(folder, { recursive: true, force: true });
});

test('every printed command does what is promised above it', async () => {
  const promised = lines.flatMap((line, n) => (line.startsWith('# -> ') ? [[lines[n - 1], line.slice(5), lines[n + 1]]] : []));
  const commands = lines.filter((line) => line.startsWith('curl '));
  assert.ok(promised.length >= 9, demo.output());
  assert.deepEqual(commands.filter((line) => !promised.some(([, , command]) => command === line)), [`curl -s http://127.0.0.1:${port + 1}/state`]);
  const came = [];
  for (const [title, expected, command] of promised) {
    const { code, out, err } = await paste(command);
    assert.equal(code, 0, `${command}\n${err}`);
    const answered = out.split('\n').map((line) => /^(.*) \[(\d{3})\]$/.exec(line)).filter(Boolean).map(([, body, status]) => ({ status, body: JSON.parse(body) }));
    const last = answered.at(-1);
    came.push([title, [last.status, last.body.code].filter(Boolean).join(' ')]);
    // What the words promise beside status and code.
    if (/engine's address/.test(title)) assert.doesNotMatch(out, /engine/i);
    if (/spoofed/.test(title)) assert.deepEqual([last.body['x-orbit-user-id'], last.body.x_orbit_user_id], ['user:default/ada', null]);
    if (/last of five/.test(title)) assert.deepEqual(answered.map((a) => a.status), ['200', '200', '200', '200', '429']);
    if (/after five failures/.test(title)) assert.deepEqual(answered.map((a) => a.status), ['500', '500', '500', '500', '500', '503']);
  }
  assert.deepEqual(came, promised.map(([title, expected]) => [title, expected]));
});

test('the printed look at the audit shows what was decided, and no token', async () => {
  const codes = ['ok', 'caller_missing', 'workspace_not_granted', 'access_denied', 'route_closed', 'rate_limited', 'breaker_open'];
  const records = await until('the records', async () => {
    const { code, out } = await under('What was decided, and why');
    const read = code === 0 && out.trim().split('\n').map((line) => JSON.parse(line));
    return read && codes.every((c) => read.some((r) => r.code === c)) && read;
  }, 5000);
  for (const decision of ['allow', 'deny']) assert.ok(records.some((r) => r.decision === decision));
  const text = JSON.stringify(records);
  for (const line of lines.filter((l) => /^(ADA|BO)=/.test(l))) {
    for (const part of line.split('=')[1].split('.')) assert.ok(!text.includes(part), 'a part of a token is on record');
  }
  for (const record of records.filter((r) => r.rule)) assert.match(record.rule, /stagedoor\.yaml:\d+:\d+$/);
});

test('the printed look at the state shows the open circuit', async () => {
  const { out } = await under('The proxy\'s own state');
  const state = JSON.parse(out);
  assert.deepEqual(state.breakers.filter((b) => b.position === 'open').map((b) => b.plugin), ['spacelift-io']);
  assert.equal(state.last_reload.successful, true);
  assert.ok(state.keys.some((key) => key.issuer === 'demo'));
});

test('the printed explanation says what the proxy then does', async () => {
  const { code, out } = await under('Why would this be denied?');
  const [, status, reason] = /^verdict +deny (\d+) (\w+)/m.exec(out);
  assert.equal(code, 1);
  const { out: really } = await paste(`curl -s -w ' [%{http_code}]' --cacert ${folder}/ca.crt -H "Authorization: Bearer $BO" -X POST https://dxcp.localhost:${port}/v1/deployments`);
  const [, body, got] = /^(.*) \[(\d+)\]$/.exec(really);
  assert.deepEqual([status, reason], [got, JSON.parse(body).code]);
  assert.match(out, /^route +\S+ .*stagedoor\.yaml:\d+:\d+$/m);
});

test('the config that it wrote is in force, and so is a change to it', async () => {
  const file = /^The config is (\S+)\. Changes to it/m.exec(demo.output())[1];
  const digest = async () => (await (await fetch(`http://127.0.0.1:${port + 1}/state`)).json()).config;
  const first = await digest();
  const services = `curl -s -o /dev/null -w '%{http_code}' --cacert ${folder}/ca.crt -H "Authorization: Bearer $ADA" https://dxcp.localhost:${port}/v1/services`;
  assert.equal((await paste(services)).out, '200');
  fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replace('    detail: full\n', '    detail: full\n    close: [services]\n'));
  await until('the change', async () => await digest() !== first, 10000);
  assert.equal((await paste(services)).out, '403');
});

test('Ctrl-C ends it with 0, and so does SIGTERM; the same folder may be used again', async () => {
  assert.equal(await demo.stop('SIGINT'), 0);
  demo = await begin(['--port', String(port), '--folder', folder]);
  assert.equal(await demo.stop('SIGTERM'), 0);
  for (let n = 0; n < COUNT; n += 1) assert.equal(await answers(port + n), false, `port ${port + n} is still open`);
});

test('a port that is taken ends it with that port\'s number, whichever of them it is', async () => {
  // Each in a row of its own, so that all can be tried at once.
  const rows = [];
  for (let n = 0; n < 5; n += 1) rows.push(await freeRow());
  const told = await Promise.all(rows.map(async (first, n) => {
    const other = await occupy(first + n);
    const program = start(binary, ['demo', '--port', String(first), '--folder', path.join(folder, `taken-${n}`)]);
    const code = await ends(program);
    await program.stop('SIGKILL');
    await close(other);
    return [n, code, new RegExp(`:${first + n}\\b.*in use`, 'i').test(program.output())];
  }));
  assert.deepEqual(told, rows.map((_, n) => [n, 1, true]));
});

test('a first port that leaves no room for the others is refused in words', async () => {
  const program = start(binary, ['demo', '--port', '65533', '--folder', folder]);
  const code = await ends(program);
  await program.stop('SIGKILL');
  assert.ok([1, 2].includes(code), `${code}\n${program.output().slice(-600)}`);
  assert.doesNotMatch(program.output(), /panicked/);
});
