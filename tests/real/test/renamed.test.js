'use strict';
// Names that have changed: for one version the old ones work, and whoever uses one is told the new one.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { until } = require('../rig/ports');
const { binary, stagedoor, unproxied } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

let up;
before(async () => { up = await upstream(); });
after(async () => { await up?.stop(); });

const run = (...args) => new Promise((resolve) => {
  execFile(binary, args, { env: unproxied() }, (error, out, err) => resolve({ code: error ? error.code : 0, out, err }));
});
/** Every kind of an old name: within a map of a name, in an option of a route, in a preset, in a limit. */
const config = ({ ejection = 'ejection', failures = 'failures', rest = 'rest', whole = 'whole', keep = 'keep', each = 'each_client', more = '' } = {}) => (ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
upstreams:
  up: {url: "${up.url}", ${ejection}: {${failures}: 4}, breaker: {requests_min: 2, ${rest}: 30s}}
routes:
- {name: kept, methods: [GET], path: /kept, upstream: up, class: read, options: {public: true, timeouts: {${whole}: 3s}, coalesce: {${keep}: 30s}}}
rate_limit: {${each}: {rate: 1000/s, burst: 1000}}
${more}`;
const NEW = { ejection: 'outlier_detection', failures: 'consecutive_failures', rest: 'open_duration', whole: 'total', keep: 'ttl', each: 'per_client' };
const OLD = Object.keys(NEW).map((name) => (name === 'each' ? 'each_client' : name));

test('old keys work: `check` passes and tells the new ones, the log tells them once at the start and at each reload', async () => {
  const door = await stagedoor(config());
  const checked = await run('check', '-c', door.file);
  assert.equal(checked.code, 0, checked.out + checked.err);
  const told = (text) => [...text.matchAll(/stagedoor\.yaml:\d+:\d+: (?:warning: )?`(\w+)` is now called `(\w+)`; write `\2: \.\.\.`\. The old name goes with the next version/g)].map(([, old, now]) => [old, now]);
  assert.deepEqual(told(checked.out + checked.err), OLD.map((old, n) => [old, Object.values(NEW)[n]]));
  assert.equal((await run('check', '-c', door.file, '--strict')).code, 1);
  assert.deepEqual(told(door.output()).map(([old]) => old), OLD);
  const reloaded = await door.reload();
  assert.equal(reloaded.successful, true);
  assert.deepEqual(told(reloaded.messages.join('\n')).map(([old]) => old), OLD);
  await until('the reload in the log', async () => told(door.output()).length === 2 * OLD.length);
  // What they say is in force, and is the same as under the new names.
  const inForce = (await (await door.admin('/config')).json()).digest;
  assert.equal((await fetch(`${door.url}/kept`)).status, 200);
  door.write(config(NEW)(door.ports));
  const { messages, digest } = await door.reload();
  assert.deepEqual(messages, []);
  assert.notEqual(digest, inForce);
  const record = await until('the reload on record', async () => door.written().findLast((line) => line.kind === 'config' && line.source === 'admin' && line.config === digest));
  assert.equal(record.successful, true);
  assert.equal(record.changes, undefined, 'nothing is different but the names');
  // Both names at once mean nothing.
  door.write(config({ ...NEW, rest: 'rest: 1s, open_duration' })(door.ports));
  const both = await run('check', '-c', door.file);
  assert.equal(both.code, 1);
  assert.match(both.out + both.err, /stagedoor\.yaml:\d+:\d+: `rest` is the old name of `open_duration`, which is also set, at \S+stagedoor\.yaml:\d+:\d+; remove `rest`/);
  await door.stop('SIGINT');
});

test('renamed metrics have the same values under their old names, unless aliases are off', async () => {
  const paced = 'process: {drain_delay: 0s, metric_aliases: true}';
  const door = await stagedoor(config({ ...NEW, more: paced }));
  for (let n = 0; n < 3; n += 1) assert.equal((await fetch(`${door.url}/kept`)).status, 200);
  const hits = /^stagedoor_shared_responses_total\{route="kept",shared="hit"\} 2$/m;
  /** All metrics, once what was answered has been counted. */
  const page = (of) => until('two hits', async () => { const text = await (await of.admin('/metrics')).text(); return hits.test(text) && text; });
  const metrics = await page(door);
  assert.match(metrics, /^# HELP stagedoor_shared_answers_total Renamed to stagedoor_shared_responses_total$/m);
  assert.match(metrics, /^stagedoor_shared_answers_total\{route="kept",shared="hit"\} 2$/m);
  await door.stop('SIGINT');
  const without = await stagedoor(config({ ...NEW, more: paced.replace('true', 'false') }));
  for (let n = 0; n < 3; n += 1) assert.equal((await fetch(`${without.url}/kept`)).status, 200);
  assert.doesNotMatch(await page(without), /stagedoor_shared_answers_total/);
  await without.stop('SIGINT');
});

test('`/standing` answers as `/quota-status` and says so; `explain --admin` asks an older process there', async () => {
  const door = await stagedoor(config(NEW));
  const query = '?route=kept&client=192.0.2.1';
  const [old, now] = await Promise.all(['/standing', '/quota-status'].map((where) => door.admin(`${where}${query}`)));
  assert.deepEqual([old.status, now.status], [200, 200]);
  assert.match(old.headers.get('deprecation'), /^@\d+$/);
  assert.equal(old.headers.get('link'), '</quota-status>; rel="successor-version"');
  assert.equal(now.headers.get('deprecation'), null);
  const said = await now.text();
  assert.equal(await old.text(), said);
  assert.equal((await door.admin('/standing', { method: 'POST' })).status, 405);
  assert.equal((await door.admin('/standing?route=none')).status, 422);

  // A process of the version before: it knows the old path and the old causes.
  const paths = [];
  const older = http.createServer(({ url }, answer) => {
    paths.push(url.split('?')[0]);
    if (!url.startsWith('/standing?')) { answer.writeHead(404).end('there is /standing\n'); return; }
    const standing = JSON.parse(said);
    Object.assign(standing.breaker, { position: 'open', since: 1, for_seconds: 2, tried_in_seconds: 3, cause: 'silence' });
    answer.end(JSON.stringify(standing));
  });
  await new Promise((resolve) => { older.listen(0, '127.0.0.1', resolve); });
  const explained = await run('explain', '-c', door.file, '-p', '/kept', '--client', '192.0.2.1', '--admin', `127.0.0.1:${older.address().port}`);
  assert.deepEqual(paths, ['/quota-status', '/standing']);
  assert.match(explained.out, /^breaker now +of upstream `up`: open since \S+ \(2 s\), because it does not respond \(`no_response`\); it is probed every second/m);
  const lost = http.createServer((_, answer) => { answer.writeHead(404).end(); });
  await new Promise((resolve) => { lost.listen(0, '127.0.0.1', resolve); });
  const none = await run('explain', '-c', door.file, '-p', '/kept', '--admin', `127.0.0.1:${lost.address().port}`);
  assert.match(none.err, /\/quota-status` responded with 404; name an `admin` listener/);
  older.close(); lost.close();
  await door.stop('SIGINT');
});

test('a record of the version before is read: `turn_us` is the pacing delay', async () => {
  const door = await stagedoor(config(NEW));
  assert.equal((await fetch(`${door.url}/kept`)).status, 200);
  const record = await door.record((r) => r.route === 'kept');
  const old = path.join(door.folder, 'old.jsonl');
  fs.writeFileSync(old, `${JSON.stringify({ ...record, turn_us: 1234 })}\n`);
  const explained = await run('explain', '-c', door.file, '--audit', old, '--audit-id', record.id);
  assert.match(explained.out, /waited 1234 us for its turn/);
  const csv = await run('audit', 'query', old, '--output', 'csv');
  const [names, values] = csv.out.trim().split('\n').map((line) => line.split(','));
  assert.equal(values[names.indexOf('pacing_delay_us')], '1234', csv.out + csv.err);
  await door.stop('SIGINT');
});
