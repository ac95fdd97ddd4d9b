'use strict';
// Drills: what callers see while something is broken around a private copy; and that nothing of the
// operator's is touched meanwhile.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const dgram = require('node:dgram');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { until } = require('../rig/ports');
const { start } = require('../rig/process');
const { binary } = require('../rig/stagedoor');

const ROOT = path.join(__dirname, '../../..');
const FAULTS = ['upstream-slow', 'upstream-500', 'upstream-reset', 'cert-expired', 'own-cert-expired', 'idp-down', 'idp-slow', 'jwks-rotated', 'dns-poison', 'audit-full', 'redis-down', 'reload-broken'];
const HEADER = ['fault', 'admitted', 'added p50/p99', 'lost', 'twice', 'back after', 'callers saw'];

let home;
before(() => { home = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-drills-')); });
after(() => fs.rmSync(home, { recursive: true, force: true }));

/** What is left of drills: their folders, and processes that run from one. */
const left = (folder) => {
  const running = fs.readdirSync('/proc').filter((pid) => /^\d+$/.test(pid)).filter((pid) => {
    // A Redis changes what it is called; it is known by its folder.
    try { return [fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8'), fs.readlinkSync(`/proc/${pid}/cwd`)].some((text) => text.includes(`${folder}/stagedoor-drill-`)); } catch { return false; }
  });
  return [...fs.readdirSync(folder).filter((name) => name.startsWith('stagedoor-drill-')), ...running];
};

/** Runs a drill to its end, with a folder for temporary files of its own. */
const drill = (config, args, more = {}) => new Promise((resolve) => {
  const folder = fs.mkdtempSync(path.join(home, 'tmp-'));
  const env = { ...process.env, TMPDIR: folder, ...more };
  execFile(binary, ['drill', '-c', config, ...args], { env, maxBuffer: 16 << 20 }, (error, out, err) => resolve({ code: error?.code ?? 0, out, err, folder }));
});
const told = async (config, args, more) => {
  const ended = await drill(config, ['--json', ...args], more);
  assert.ok(ended.out.startsWith('{'), ended.out + ended.err);
  const found = JSON.parse(ended.out);
  assert.deepEqual(left(ended.folder), [], 'processes or folders are left');
  return { ...found, code: ended.code, of: (name) => found.faults.find(({ fault }) => fault === name) };
};
/** What a fault did; fails with its reason if it was not drilled. */
const drilled = (found, name) => {
  const row = found.of(name);
  assert.ok(row.drilled, JSON.stringify(row));
  return row.drilled;
};
const kept = (found, name) => {
  const row = drilled(found, name);
  assert.ok(row.records_lost <= row.records_lost_told, JSON.stringify(row));
  assert.deepEqual([row.records_wrong, row.actions_twice, row.reached, row.broken], [null, 0, 0, []], JSON.stringify(row));
  assert.ok(row.back_after !== null && row.calls.every((calls) => calls > 0), JSON.stringify(row));
  return row;
};
const saw = (row, ...labels) => labels.reduce((sum, label) => sum + (row.saw[label] ?? 0), 0);
const all = (row) => Object.values(row.saw).reduce((sum, count) => sum + count, 0);

/** Listens where an operator's real things would be, and notes who comes. */
const decoy = async (seen) => {
  const server = net.createServer((socket) => { seen.push(`${server.address().port}`); socket.destroy(); });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
};

test('nothing of the operator\'s is touched, and each fault does to callers what it should', async () => {
  const seen = [];
  const servers = await Promise.all(Array.from({ length: 10 }, () => decoy(seen)));
  const [up, away, issuer, control, sink, token, redis, edge, out, admin] = servers.map((server) => server.address().port);
  const names = dgram.createSocket('udp4');
  names.on('message', () => seen.push('names'));
  await new Promise((resolve) => names.bind(0, '127.0.0.1', resolve));
  const theirs = path.join(home, 'theirs');
  fs.mkdirSync(theirs);
  const file = path.join(home, 'whole.yaml');
  const quick = 'breaker: {window: 2s, open_duration: 2s}, retries: {attempts_max: 1}';
  fs.writeFileSync(file, `
version: stagedoor/v1
listeners:
  edge:
    kind: reverse
    address: 127.0.0.1:${edge}
    tls: {certificates: [{cert: /nowhere/tls.crt, key: /nowhere/tls.key}], client_ca: /nowhere/ca.crt, client_certificate: required}
  out: {kind: forward, address: 127.0.0.1:${out}}
  admin: {kind: admin, address: 127.0.0.1:${admin}}
identity:
  issuers:
    idp: {issuer: "http://127.0.0.1:${issuer}/realm", audiences: [stagedoor], claims: {roles: [realm_access, roles], subject: who}}
    shared: {issuer: shared, audiences: [stagedoor], algorithms: [HS256], keys: {secret_file: /nowhere/secret}}
workspaces: {named: {payments: {groups: [payers], rate_limit: {rate: 1/h}}}}
credentials:
  theirs: {kind: oauth2_client_credentials, token_url: "http://127.0.0.1:${token}/token", client_id: c, client_secret_file: /nowhere/client}
upstreams:
  up: {url: "http://127.0.0.1:${up}/base", http: h2, credential: theirs, ${quick}}
  away: {url: "https://127.0.0.1:${away}", ${quick}, tls: {ca: /nowhere/ca.crt, client_cert: /nowhere/c.crt, client_key: /nowhere/c.key}}
routes:
- {name: read, hosts: ["*.portal.example"], methods: [GET], path: "/read/{workspace}", upstream: up, class: read, options: {access: {roles: [reader]}}}
- {name: act, methods: [POST], path: /act, upstream: up, class: action, options: {access: {roles: [deployer]}}}
- {name: kept, methods: [GET], path: /kept/**, upstream: away, class: read, options: {fallback: {}}}
- {name: other, methods: [GET], path: /other, upstream: away, class: read}
- {name: shut, methods: [GET], path: /shut, upstream: up, class: read, options: {closed: true, access: {roles: [x]}}}
egress:
  rules: [{name: api, to: ["api.called.example", "plain.called.example:8080"], plugins: [catalog]}]
  callers: {catalog: {password_file: /nowhere/password, workspace: payments, plugin: catalog}}
control: {url: "http://127.0.0.1:${control}/control"}
store: {addresses: ["127.0.0.1:${redis}"], kind: sentinel, master: door, password_file: /nowhere/redis, sentinel_password_file: /nowhere/sentinel, tls: {ca: /nowhere/ca.crt}}
audit: {directory: ${theirs}, ship: {siem: {kind: webhook, url: "http://127.0.0.1:${sink}/"}}}
process: {name_servers: ["127.0.0.1:${names.address().port}"]}
`);
  const found = await told(file, ['--for', '2s', '--rate', '60/s']);
  for (const server of servers) server.close();
  names.close();

  assert.deepEqual(seen, [], 'somebody came to what is the operator\'s');
  assert.deepEqual(fs.readdirSync(theirs), [], 'somebody wrote where the operator\'s records go');
  assert.deepEqual(found.broken, []);
  assert.equal(found.code, 0);
  assert.deepEqual(found.faults.map(({ fault }) => fault), FAULTS);
  // Limits are tried as they were written: one an hour is spent by the first who tries it.
  const [of, calls] = ['workspaces', 'calls'].map((share) => found.limits.find((met) => met.share === share));
  assert.deepEqual([of.passed, of.refused, of.policy], [0, true, '"workspace";q=1;w=3600'], JSON.stringify(found.limits));
  assert.ok(of.retry_after > 3500 && calls.passed > 0, JSON.stringify(found.limits));
  const alone = kept(found, 'redis-down');
  assert.ok(alone.admitted >= 95 && alone.store.tokens_leased > 0, JSON.stringify(alone));
  assert.equal(found.driven, 6, JSON.stringify(found.not_driven));
  assert.deepEqual(found.not_driven, [{ of: 'route shut on edge', why: 'closed' }]);
  assert.ok(found.differences.includes('records are not shipped') && found.differences.some((text) => text.includes('control source')), String(found.differences));

  const slow = kept(found, 'upstream-slow');
  assert.ok(slow.added_p50 > 1500, `it took ${slow.added_p50} ms more`);
  const sick = kept(found, 'upstream-500');
  assert.ok(saw(sick, '503 breaker_open') > 0 && saw(sick, '500 from the upstream') > 0, JSON.stringify(sick.saw));
  // What is kept for callers is given to them.
  assert.ok(saw(sick, '200') > 0 && sick.admitted < 50, JSON.stringify(sick));
  assert.ok(sick.back_after >= 0.3, `it was back after ${sick.back_after} s: its breaker did not rest`);
  const reset = kept(found, 'upstream-reset');
  assert.ok(saw(reset, '502 upstream_reset', '503 breaker_open', 'connection broken') > 0, JSON.stringify(reset.saw));
  const expired = kept(found, 'cert-expired');
  assert.ok(saw(expired, '502 upstream_tls') > 0 && saw(expired, 'certificate not trusted') > 0, JSON.stringify(expired.saw));
  const own = kept(found, 'own-cert-expired');
  assert.ok(saw(own, 'certificate not trusted') > all(own) / 3, JSON.stringify(own.saw));
  for (const name of ['idp-down', 'jwks-rotated', 'reload-broken']) {
    assert.ok(kept(found, name).admitted >= 95, `${name}: ${JSON.stringify(found.of(name))}`);
  }
  assert.ok(kept(found, 'idp-slow').admitted >= 95);
  const poisoned = kept(found, 'dns-poison');
  assert.ok(saw(poisoned, '403 address_refused') > all(poisoned) / 5, JSON.stringify(poisoned.saw));
  const full = kept(found, 'audit-full');
  assert.deepEqual([full.admitted_reads >= 95, full.admitted_actions], [true, 0], JSON.stringify(full));
  assert.ok(saw(full, '503 audit_unavailable') > 0, JSON.stringify(full.saw));
});

/** The rows of the table for a sample in the docs, cell by cell. */
const documented = (text, name) => {
  const [, block] = text.split(`stagedoor drill -c examples/${name}.yaml\n`);
  return block.split('```')[0].split('\n').filter(Boolean).map((line) => line.split(/ {2,}/));
};
const DOCS = path.join(ROOT, 'docs/drill.md');
/** Faults of which each sample is drilled here; all are what `UPDATE=1` writes into the docs. */
const SAMPLES = {
  edge: ['jwks-rotated', 'audit-full', 'cert-expired', 'dns-poison'],
  sidecar: ['idp-down', 'audit-full', 'own-cert-expired'],
  egress: ['upstream-reset', 'cert-expired', 'own-cert-expired', 'idp-slow', 'dns-poison', 'audit-full', 'redis-down', 'reload-broken'],
  external: ['idp-down', 'dns-poison', 'own-cert-expired'],
  shared: ['redis-down', 'audit-full'],
};

// They mostly wait; but the docs are written by one after the other.
test('the samples keep their promises', { concurrency: process.env.UPDATE ? 1 : 2 }, (t) => Promise.all(Object.entries(SAMPLES).map(([name, faults]) => (
  t.test(`${name}, as docs/drill.md shows`, async () => {
    const file = path.join(ROOT, `examples/${name}.yaml`);
    if (process.env.UPDATE) {
      const { code, out } = await drill(file, []);
      assert.equal(code, 0, out);
      const text = fs.readFileSync(DOCS, 'utf8');
      const table = out.split('\n\n')[0];
      const start = `stagedoor drill -c examples/${name}.yaml\n`;
      const [head, rest] = [text.slice(0, text.indexOf(start) + start.length), text.slice(text.indexOf(start) + start.length)];
      fs.writeFileSync(DOCS, `${head}\n${table}\n${rest.slice(rest.indexOf('```'))}`);
      return;
    }
    // Long enough that each row is asked for, also on a busy machine: the edge has the most.
    const found = await told(file, ['--for', name === 'edge' ? '3s' : '1s', '--only', faults.join(',')]);
    assert.deepEqual([found.code, found.broken], [0, []], JSON.stringify(found.faults));
    const [header, ...rows] = documented(fs.readFileSync(DOCS, 'utf8'), name);
    assert.deepEqual(header, HEADER);
    assert.deepEqual(rows.map(([fault]) => fault), FAULTS);
    for (const fault of faults) {
      const row = rows.find(([of]) => of === fault);
      const { not_applicable: why } = found.of(fault);
      assert.equal(row.at(-1).startsWith('n/a: '), why !== undefined, `${fault}: ${row}`);
      if (why) { assert.equal(row.at(-1), `n/a: ${why}`); continue; }
      kept(found, fault);
    }
    if (name === 'egress') {
      const poisoned = drilled(found, 'dns-poison');
      assert.deepEqual(Object.keys(poisoned.saw), ['403 address_refused'], JSON.stringify(poisoned.saw));
    }
    if (name !== 'egress' && name !== 'external') {
      const full = drilled(found, 'audit-full');
      assert.deepEqual([full.admitted_reads >= 95, full.admitted_actions], [true, 0], JSON.stringify(full));
    }
  })
))));

test('limits that replicas share go on while their Redis is away, which the copy records', async () => {
  const file = path.join(ROOT, 'examples/shared.yaml');
  const { code, out, err, folder } = await drill(file, ['--for', '2s', '--only', 'redis-down', '--json', '--keep']);
  assert.equal(code, 0, out + err);
  const found = JSON.parse(out);
  const [{ drilled: row }] = found.faults;
  assert.ok(row.admitted >= 95 && row.back_after <= 2 && row.store.found_after <= 2, out);
  assert.ok(row.store.tokens_leased > 20, `the calm leased ${row.store.tokens_leased} tokens`);
  assert.deepEqual([row.records_lost, row.records_wrong, Object.keys(row.saw)], [0, null, ['200']], out);
  assert.ok(found.differences.some((text) => text.includes('the drill\'s own Redis')), out);
  assert.ok(found.differences.some((text) => text.includes('shared limits are 100/s')), out);
  const [where] = fs.readdirSync(folder);
  const copy = path.join(folder, where, '0');
  const store = JSON.parse(fs.readFileSync(path.join(copy, 'stagedoor.yaml'), 'utf8')).store;
  assert.match(store.addresses[0], /^127\.0\.0\.1:\d+$/);
  assert.deepEqual([store.prefix, store.on_error, store.password_file, store.tls], ['portal-edge', 'share', undefined, undefined]);
  const records = fs.readdirSync(path.join(copy, 'audit')).filter((name) => name.endsWith('.jsonl'))
    .flatMap((name) => fs.readFileSync(path.join(copy, 'audit', name), 'utf8').trim().split('\n').map((line) => JSON.parse(line)));
  const changes = records.filter(({ kind }) => kind === 'store').map(({ change }) => change);
  assert.deepEqual([changes[0], changes.includes('lost'), changes.at(-1)], ['found', true, 'found'], String(changes));
  assert.deepEqual(fs.readdirSync(path.join(copy, 'redis')), ['log'], 'it wrote something');
  assert.deepEqual(left(folder), [where], 'the Redis is left');
});

test('with `on_error: closed` callers see that, and nothing else', async () => {
  const file = path.join(home, 'closed.yaml');
  const open = fs.readFileSync(path.join(ROOT, 'examples/shared.yaml'), 'utf8');
  fs.writeFileSync(file, open.replace('on_error: share', 'on_error: closed'));
  const found = await told(file, ['--for', '2s', '--only', 'redis-down']);
  assert.deepEqual([found.code, found.broken], [0, []], JSON.stringify(found.faults));
  const row = kept(found, 'redis-down');
  assert.ok(saw(row, '503 limits_unavailable') > all(row) / 2, JSON.stringify(row.saw));
});

test('without a redis-server on the PATH, that fault is not drilled', async () => {
  const found = await told(path.join(ROOT, 'examples/shared.yaml'), ['--for', '500ms', '--only', 'redis-down,jwks-rotated'], { PATH: '/nowhere' });
  assert.deepEqual([found.code, found.of('redis-down').not_applicable], [0, 'no redis-server on the PATH']);
  kept(found, 'jwks-rotated');
});

test('a config that lets a name lead to this machine breaks a promise', async () => {
  const file = path.join(home, 'open.yaml');
  fs.writeFileSync(file, `
version: stagedoor/v1
listeners: {out: {kind: forward, address: "127.0.0.1:3128", plugin: catalog}}
egress:
  rules: [{name: api, to: [api.called.example]}]
  private: [{host: api.called.example, addresses: [127.0.0.0/8, 169.254.0.0/16]}]
audit: {directory: /nowhere}
`);
  const { code, out, err } = await drill(file, ['--for', '500ms', '--only', 'dns-poison']);
  assert.equal(code, 3, out + err);
  assert.match(out, /^BROKEN dns-poison: a poisoned address was reached, by \d+ connections?$/m);
  assert.match(out, /^BROKEN dns-poison: `egress.private` lets a host have 169.254.169.254$/m);
});

test('who ends a drill ends all of it', async () => {
  const folder = fs.mkdtempSync(path.join(home, 'tmp-'));
  const program = start(binary, ['drill', '-c', path.join(ROOT, 'examples/shared.yaml'), '--for', '60s', '--only', 'idp-down,redis-down'], { env: { ...process.env, TMPDIR: folder } });
  // A folder, a process for each of the two, and the Redis.
  await until('two copies', async () => {
    if (!program.isRunning()) throw Object.assign(new Error(program.output()), { fatal: true });
    return left(folder).length >= 4;
  });
  assert.equal(await program.stop('SIGINT'), 130, program.output());
  assert.deepEqual(left(folder), []);
});

test('what is wrong with a config or a command line is told, and nothing is drilled', async () => {
  const file = path.join(home, 'wrong.yaml');
  fs.writeFileSync(file, 'version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: nowhere}}\n');
  const wrong = await drill(file, []);
  const checked = await new Promise((resolve) => execFile(binary, ['check', '-c', file], (error, out) => resolve(out)));
  assert.deepEqual([wrong.code, wrong.out], [1, checked]);
  const misused = await drill(file, ['--only', 'upstream-501']);
  assert.equal(misused.code, 2);
  assert.match(misused.err, /upstream-500/);
});

test('a table tells what was not driven, and a folder is left where that is asked for', async () => {
  const { code, out, err, folder } = await drill(path.join(ROOT, 'examples/external.yaml'), ['--for', '500ms', '--only', 'redis-down,jwks-rotated', '--rate', '20/s', '--at-once', '1', '--keep', '--not-driven']);
  assert.equal(code, 0, out + err);
  assert.deepEqual(out.split('\n')[0].split(/ {2,}/), HEADER);
  assert.match(out, /^redis-down .*n\/a: limits are not shared$/m);
  assert.match(out, /^1 of 2 routes and hosts driven$/m);
  assert.match(out, /^not driven, its bodies are checked \(`graphql`\).*: route spacelift on spacelift$/m);
  assert.match(out, /^in the copy: rate limits and paces are lifted/m);
  const [, where] = err.match(/the copies are in `(.*)`/);
  assert.ok(where.startsWith(folder) && fs.readdirSync(where).length === 1, err);
  const [copy] = fs.readdirSync(where);
  assert.ok(fs.readdirSync(path.join(where, copy, 'audit')).some((name) => name.endsWith('.jsonl')));
  assert.ok(fs.readFileSync(path.join(where, copy, 'log'), 'utf8').includes('stopping'));
});
