'use strict';
// What can be asked of the records, against the records of a proxy that runs.

const assert = require('node:assert/strict');
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { start } = require('../rig/process');
const rig = require('../rig/stagedoor');
const { binary, stagedoor } = rig;

const FORMULA = '=cmd|"x",1!A1';
let up; let door; let folder; let middle;

before(async () => {
  up = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => response.writeHead(request.url.includes('missing') ? 404 : 200).end('hello'));
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  const { port } = up.address();
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
audit: {directory: ${own}/audit, segment_max: 1MiB}
workspaces: {named: {payments: {}, search: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {one: {url: "http://127.0.0.1:${port}"}, two: {url: "http://127.0.0.1:${port}"}}
routes:
- {name: act, methods: [POST], path: /act, upstream: two, class: action, plugin: deploys}
- {name: read, methods: [GET], path: "/read/**", upstream: one, class: read, plugin: catalog}`, { audit: false });
  folder = `${door.folder}/audit`;
  const call = (method, where, caller, workspace, headers = {}) => fetch(`${door.url}${where}`, {
    method, headers: { ...(caller && { authorization: `Bearer ${orbit(caller, [workspace])}` }), ...headers },
  }).then((r) => r.arrayBuffer());
  let asked = 0;
  const times = async (count, ...what) => { for (let n = 0; n < count; n += 1) { await call(...what); asked += 1; } };
  await times(7, 'GET', '/read/a', 'ada', 'payments');
  await times(3, 'GET', '/read/missing', 'ada', 'search');
  await times(4, 'POST', '/act', 'bob', 'payments');
  middle = new Date().toISOString();
  await until('the next millisecond', async () => Date.now() > Date.parse(middle));
  await times(2, 'GET', '/read/a', FORMULA, 'search');
  await times(1, 'GET', '/read/%E2%80%AE%1B', 'ada', 'search');
  await times(3, 'GET', '/nowhere', 'adam', 'payments');
  await times(2, 'GET', '/read/a');
  await times(1, 'POST', '/act', 'bob', 'search', { 'x-request-id': 'deploy-7', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' });
  await until('the records', async () => door.records().length === asked);
});
after(async () => { await door?.stop(); up.closeAllConnections(); up.close(); });

const run = (...args) => {
  const { status, stdout, stderr } = spawnSync(binary, ['audit', ...args], { encoding: 'utf8', maxBuffer: 1 << 28 });
  return { status, out: stdout, err: stderr };
};
const ask = (...args) => run('query', folder, ...args);
const linesOf = (text) => text.split('\n').filter(Boolean);
const inFiles = () => rig.segments(folder).flatMap((file) => linesOf(rig.text(file)));
/** A Zstandard frame (RFC 8878) of blocks that are stored as they are. */
const zst = (text) => {
  const bytes = Buffer.from(text);
  const parts = [Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58])];
  for (let at = 0; at === 0 || at < bytes.length; at += 1 << 17) {
    const block = bytes.subarray(at, at + (1 << 17));
    const header = Buffer.alloc(3);
    header.writeUIntLE((block.length << 3) | (at + (1 << 17) >= bytes.length ? 1 : 0), 0, 3);
    parts.push(header, block);
  }
  return Buffer.concat(parts);
};
/** RFC 4180, read by somebody else. */
const csv = (text) => {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ',') rows.push([]);
  }
  const [head, ...rest] = rows.filter((row) => row.length > 0);
  return rest.map((row) => {
    assert.equal(row.length, head.length);
    return Object.fromEntries(row.map((field, n) => [head[n], field]));
  });
};

test('each filter finds what a search through all lines finds, byte for byte', () => {
  const cases = {
    '': () => true,
    '--caller ada': (r) => r.caller === 'ada',
    '--caller ada*': (r) => r.caller?.startsWith('ada'),
    '--caller ada --caller bob': (r) => ['ada', 'bob'].includes(r.caller),
    '--caller ada --workspace search': (r) => r.caller === 'ada' && r.workspace === 'search',
    '--caller *': (r) => r.caller,
    '--workspace payments': (r) => r.workspace === 'payments',
    '--plugin deploys': (r) => r.plugin === 'deploys',
    '--route read': (r) => r.route === 'read',
    '--upstream two': (r) => r.upstream === 'two',
    '--decision deny': (r) => r.decision === 'deny',
    '--code ok': (r) => r.code === 'ok',
    '--class action': (r) => r.class === 'action',
    '--method post': (r) => r.method === 'POST',
    '--listener edge': (r) => r.listener === 'edge',
    '--client 127.0.0.1': (r) => r.client === '127.0.0.1',
    '--host 127.*': (r) => r.host?.startsWith('127.'),
    '--path /read/*': (r) => r.path?.startsWith('/read/'),
    '--id deploy-7': (r) => r.id === 'deploy-7',
    '--trace 0af7651916cd43dd8448eb211c80319c': (r) => r.trace_id === '0af7651916cd43dd8448eb211c80319c',
    '--status 404': (r) => r.status === 404,
    '--status 4xx': (r) => r.status >= 400 && r.status < 500,
    '--status 404 --status 2xx --decision allow': (r) => r.decision === 'allow' && [404, 200].includes(r.status),
    [`--since ${middle}`]: (r) => r.time >= middle.replace('Z', '000Z'),
    [`--until ${middle}`]: (r) => r.time < middle.replace('Z', '000Z'),
    '--since 1h': () => true,
  };
  const all = inFiles().filter((line) => !JSON.parse(line).kind);
  for (const [flags, fits] of Object.entries(cases)) {
    const expected = all.filter((line) => fits(JSON.parse(line)));
    assert.ok(expected.length > 0 && (expected.length < all.length || fits({})
      || /client|listener|host/.test(flags)), `${flags}: ${expected.length} of ${all.length}`);
    const told = ask(...flags.split(' ').filter(Boolean));
    assert.deepEqual([told.status, told.err, linesOf(told.out)], [0, '', expected], flags);
    assert.deepEqual(linesOf(ask('--reverse', ...flags.split(' ').filter(Boolean)).out), expected.toReversed(), flags);
  }
  assert.deepEqual(linesOf(ask('--limit', '2').out), all.slice(0, 2));
  assert.deepEqual(linesOf(ask('--limit', '2', '--reverse').out), all.toReversed().slice(0, 2));
  const intents = inFiles().filter((line) => JSON.parse(line).kind === 'intent');
  assert.equal(intents.length, 5);
  assert.deepEqual(linesOf(ask('--kind', 'intent').out), intents);
  assert.deepEqual(linesOf(ask('--kind', 'all').out), inFiles());
});

test('exit codes say whether something was found, and misuse is told with what to write', () => {
  assert.deepEqual(ask('--caller', 'nobody'), { status: 1, out: '', err: '' });
  assert.equal(ask('--until', '1h').status, 1);
  for (const [args, expected] of [
    [['query', '/nowhere'], /\/nowhere`: No such file/],
    [['query'], /name a folder.*-c stagedoor.yaml/],
    [['query', folder, '--status', 'bad'], /4xx/],
    [['query', folder, '--since', 'noon'], /2h/],
    [['query', folder, '--caller', '*da'], /may only be at the end/],
    [['stats', folder, '--by', 'tenant'], /`tenant` is not a member.*workspace/],
  ]) {
    const told = run(...args);
    assert.equal(told.status, 2, told.err);
    assert.match(told.err, expected);
  }
  for (const args of [['tail', '/dev/stdin'], ['query', '--reverse', '/dev/stdin']]) {
    const piped = spawnSync('bash', ['-c', 'cat /dev/null | "$0" audit "$@"', binary, ...args], { encoding: 'utf8' });
    assert.equal(piped.status, 2);
    assert.match(piped.stderr, /can be read only once: use `query`/);
  }
  assert.equal(run('query', '-c', door.file, '--id', 'deploy-7').status, 0);
});

test('a table and CSV show the same records, and nothing in them does anything', () => {
  const all = inFiles().filter((line) => !JSON.parse(line).kind).map((line) => JSON.parse(line));
  const text = ask('--output', 'csv').out;
  const rows = csv(text);
  assert.equal(rows.length, all.length);
  rows.forEach((row, n) => {
    for (const [name, value] of Object.entries(all[n])) {
      const expected = typeof value === 'string' ? value : JSON.stringify(value);
      assert.equal(row[name].replace(/^'(?=[=+@-])/, ''), expected, name);
    }
    for (const [name, field] of Object.entries(row)) {
      assert.ok(!/^[=+@-]/.test(field), `${name}: ${field}`);
      if (!(name in all[n])) assert.equal(field, '');
    }
  });
  assert.equal(rows.filter((row) => row.caller === `'${FORMULA}`).length, 2);
  const table = ask('--output', 'table').out;
  assert.match(table, /^TIME +DECISION +CODE +STATUS +MS +CALLER/);
  assert.equal(linesOf(table).length, all.length + 1);
  for (const shown of [table, text]) assert.ok(/^[ -~\r\n]*$/.test(shown));
});

test('what is no record is counted and left out', () => {
  const file = `${door.folder}/broken.jsonl`;
  const [first, second] = inFiles().filter((line) => !JSON.parse(line).kind);
  fs.writeFileSync(file, `${first}\nnot JSON\n\u0000\u00ff\n${second}\n${second.slice(0, 50)}`);
  const told = run('query', file);
  assert.deepEqual([told.status, linesOf(told.out)], [0, [first, second]]);
  assert.match(told.err, /left out, not records \(torn, or not JSON\): 3 lines/);
  assert.match(run('query', file, '--caller', 'ada').err, /3 lines/);
  assert.equal(JSON.parse(run('stats', file, '--output', 'json').out).not_records, 3);
  const packed = `${door.folder}/packed.jsonl.zst`;
  fs.writeFileSync(packed, zst(`${first}\n${second}\n`));
  assert.deepEqual(linesOf(run('query', packed).out), [first, second]);
  fs.writeFileSync(packed, 'not compressed');
  const both = run('query', packed, file);
  assert.deepEqual([both.status, linesOf(both.out)], [2, [first, second]]);
  assert.match(both.err, /cannot read `.*packed/);
});

test('numbers are those that somebody else counts', () => {
  const all = inFiles().map((line) => JSON.parse(line));
  const exchanges = all.filter((r) => !r.kind);
  const stats = (...args) => JSON.parse(run('stats', folder, '--output', 'json', ...args).out);
  const check = (group, of) => {
    const sum = (name) => of.reduce((total, r) => total + (r[name] ?? 0), 0);
    const took = of.map((r) => r.duration_us).filter((us) => us !== undefined).sort((a, b) => a - b);
    assert.deepEqual(
      [group.records, group.denied, group.bytes_in, group.bytes_out, group.max_us],
      [of.length, of.filter((r) => r.decision === 'deny').length, sum('bytes_in'), sum('bytes_out'), took.at(-1)],
    );
    for (const [name, share] of [['p50_us', 50], ['p95_us', 95], ['p99_us', 99]]) {
      const exact = took[Math.ceil((took.length * share) / 100) - 1];
      assert.ok(exact <= group[name] && group[name] <= exact * (1 + 1 / 32), `${name}: ${exact} ${group[name]}`);
    }
  };
  const times = exchanges.map((r) => r.time).sort();
  const whole = stats();
  check(whole, exchanges);
  assert.deepEqual(
    [whole.from, whole.to, whole.lost, whole.intents, whole.unknown, whole.not_records],
    [times[0], times.at(-1), 0, all.filter((r) => r.kind === 'intent').length, 0, 0],
  );
  for (const { members, groups, other } of [...whole.by, ...stats('--by', 'code,workspace,caller').by]) {
    assert.equal(other, null);
    const key = (r) => JSON.stringify(members.map((name) => r[name] ?? null));
    const expected = new Map();
    for (const r of exchanges) expected.set(key(r), [...expected.get(key(r)) ?? [], r]);
    assert.deepEqual(groups.map(key).sort(), [...expected.keys()].sort());
    groups.forEach((group) => check(group, expected.get(key(group))));
  }
  check(stats('--caller', 'ada*'), exchanges.filter((r) => r.caller?.startsWith('ada')));
  const rows = csv(run('stats', folder, '--output', 'csv', '--by', 'caller', '--top', '1').out);
  assert.deepEqual(rows.map((row) => row.row), ['all', 'group', 'other']);
  assert.equal(Number(rows[1].records) + Number(rows[2].records), exchanges.length);
  assert.match(run('stats', folder, '--output', 'table').out, /records +\d+, from [^]*DECISION +CODE +RECORDS[^]*WORKSPACE[^]*CALLER/);
});

test('tail waits for the first record of a folder that has none yet', async () => {
  const empty = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-tail-'));
  assert.equal(run('tail', empty).status, 2);
  assert.equal(run('tail', '-f', path.join(empty, 'not-there')).status, 2);
  const tail = start(binary, ['audit', 'tail', empty, '-f', '-o', 'json']);
  // It has looked, and sleeps.
  await until('a look', async () => /^State:\s+S/m.test(fs.readFileSync(`/proc/${tail.pid}/status`, 'utf8')));
  const [line] = linesOf(run('query', folder, '-o', 'json').out);
  fs.writeFileSync(path.join(empty, 'audit-1.jsonl'), `${line}\n`);
  await until('the record', async () => tail.output() !== '');
  assert.equal(tail.output(), `${line}\n`);
  await tail.stop('SIGKILL');
  fs.rmSync(empty, { recursive: true });
});

test('tail goes on over new segments, and over those that are compressed or removed meanwhile', async () => {
  const before = inFiles().filter((line) => !JSON.parse(line).kind);
  assert.deepEqual(linesOf(run('tail', folder, '-n', '3').out), before.slice(-3));
  assert.deepEqual(linesOf(run('tail', folder, '-n', '2', '--caller', 'ada').out), before.filter((line) => line.includes('"caller":"ada"')).slice(-2));
  const tail = spawn(binary, ['audit', 'tail', folder, '-n', '1', '--follow', '--route', 'read', '--output', 'json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = ''; let err = '';
  tail.stdout.on('data', (data) => { out += data; });
  tail.stderr.on('data', (data) => { err += data; });
  const read = before.filter((line) => line.includes('"route":"read"'));
  await until('the last', async () => out === `${read.at(-1)}\n`);
  const segments = () => fs.readdirSync(folder).filter((name) => name.startsWith('audit-')).sort();
  const headers = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
  const long = 'x'.repeat(1900);
  let number = 0;
  const expected = [];
  let kept;
  const pack = (name) => {
    kept = fs.readFileSync(path.join(folder, name));
    fs.writeFileSync(path.join(folder, `${name}.zst.part`), zst(kept));
    fs.renameSync(path.join(folder, `${name}.zst.part`), path.join(folder, `${name}.zst`));
    fs.rmSync(path.join(folder, name));
  };
  const [first] = segments();
  while (segments().length < 4) {
    await Promise.all(Array.from({ length: 20 }, async () => {
      number += 1;
      const id = `long-${number}`;
      expected.push(id);
      await fetch(`${door.url}/read/${long}`, { headers: { ...headers, 'x-request-id': id } }).then((r) => r.arrayBuffer());
    }));
    if (segments().length > 1 && segments().includes(first)) pack(first);
  }
  const ids = () => linesOf(out).slice(1).map((line) => JSON.parse(line).id);
  await until('all that came', async () => ids().length >= expected.length, 10000);
  assert.deepEqual(ids().sort(), expected.sort());
  const written = new Set([...linesOf(kept.toString()), ...inFiles()]);
  assert.ok(linesOf(out).every((line) => written.has(line)));
  // One that is pruned is not missed.
  fs.rmSync(path.join(folder, `${first}.zst`));
  await fetch(`${door.url}/read/last`, { headers: { ...headers, 'x-request-id': 'last' } }).then((r) => r.arrayBuffer());
  await until('the last', async () => ids().at(-1) === 'last', 10000);
  assert.equal(err, '');
  tail.kill('SIGKILL');
});

test('a line that is completed later is told once, and a reader that has seen enough ends it quietly', async () => {
  const file = `${door.folder}/torn.jsonl`;
  const [first, second, third] = inFiles().filter((line) => !JSON.parse(line).kind);
  fs.writeFileSync(file, `${first}\n${second.slice(0, 40)}`);
  const tail = spawn(binary, ['audit', 'tail', file, '-f', '-o', 'json'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  tail.stdout.on('data', (data) => { out += data; });
  await until('the first', async () => out === `${first}\n`);
  const bytesRead = () => Number(/^rchar: (\d+)/m.exec(fs.readFileSync(`/proc/${tail.pid}/io`, 'utf8'))[1]);
  const had = bytesRead();
  fs.appendFileSync(file, second.slice(40, 90));
  await until('it to look again', async () => bytesRead() >= had + 50);
  fs.appendFileSync(file, `${second.slice(90)}\n${third}\n`);
  await until('the rest', async () => linesOf(out).length === 3);
  assert.deepEqual(linesOf(out), [first, second, third]);
  tail.kill('SIGKILL');

  const many = `${door.folder}/many.jsonl`;
  fs.writeFileSync(many, `${first}\n`.repeat(50000));
  const head = spawnSync('bash', ['-c', '"$0" audit query "$1" | head -1; echo "${PIPESTATUS[0]}"', binary, many], { encoding: 'utf8' });
  assert.deepEqual([head.stdout, head.stderr], [`${first}\n0\n`, '']);
});
