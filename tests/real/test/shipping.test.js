'use strict';
// Records get to where they are wanted: all of them, in order, whatever happens on the way.

const assert = require('node:assert/strict');
const { execFileSync, spawn, spawnSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const rig = { start: require('../rig/process').start, stagedoor: require('../rig/stagedoor').stagedoor, webhook: require('../rig/webhook').webhook };
const { python } = require('../rig/python');
const syslog = require('../rig/rsyslog');
const { binary } = require('../rig/stagedoor');

const KEY = `whsec_${crypto.randomBytes(32).toString('base64')}`;
const TOKEN = 'a-token-that-nobody-may-see';
/** Answers that wait for a test to give them. */
const held = [];
/** What a test that fails leaves running. */
const begun = [];
const kept = (program) => { begun.push(program); return program; };
const start = (...args) => kept(rig.start(...args));
const rsyslogd = async (options) => kept(await syslog.rsyslog(options));
const webhook = async (options) => kept(await rig.webhook(options));

let folder; let up; let ca; let other; let server; let wrong;
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-ship-'));
  ca = authority(`${folder}/ca`);
  server = ca.issue('server', { names: ['127.0.0.1', 'localhost'] });
  other = authority(`${folder}/other`, 'other');
  wrong = other.issue('server', { names: ['127.0.0.1', 'localhost'] });
  fs.writeFileSync(`${folder}/key`, `${KEY}\n`);
  fs.writeFileSync(`${folder}/token`, `${TOKEN}\n`);
  up = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => (request.url.endsWith('/slow') ? held.push(response) : response.end('{}')));
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
});
after(async () => {
  for (const program of begun) await program.stop('SIGKILL');
  up.closeAllConnections(); up.close(); fs.rmSync(folder, { recursive: true, force: true });
});

/** A config with these sinks. */
const config = (sinks) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}, per_client: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
- {name: read, methods: [GET], path: "/read/{what}", upstream: up, class: read}
audit:
  directory: ${own}/audit
  segment_max: 1MiB
  ship:
${Object.entries(sinks).map(([name, text]) => `    ${name}: ${text}`).join('\n')}`;
const hook = (port, more = '') => `{kind: webhook, url: "https://127.0.0.1:${port}/audit", secret_file: ${folder}/key, ca: ${ca.ca}, interval: 20ms, timeout: 5s${more}}`;
const door = (sinks, options = {}) => rig.stagedoor(config(sinks), { audit: false, ...options }).then(kept);
const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const act = (at, id) => fetch(`${at.url}/act`, { method: 'POST', headers: { ...bearer, ...(id && { 'x-request-id': id }) } });
const read = (at, what = 'x', headers = {}) => fetch(`${at.url}/read/${what}`, { headers: { ...bearer, ...headers } });
/** So many exchanges, some at once. */
const load = async (at, count) => {
  for (let n = 0; n < count; n += 20) await Promise.all(Array.from({ length: Math.min(20, count - n) }, (_, i) => (i % 4 ? read(at, `${n + i}`) : act(at))));
};
/** All lines in the folder, in the order of segments. */
const log = (at) => {
  const own = `${at.folder ?? at}/audit`;
  return fs.readdirSync(own).filter((name) => /^audit-.*\.jsonl$/.test(name)).sort()
    .flatMap((name) => fs.readFileSync(`${own}/${name}`, 'utf8').split('\n').filter((line) => line.endsWith('}')));
};
/** The beginning of the segment, the config that was taken over, and the keys of its issuer. */
const FIRST = 3;
const chain = (line) => JSON.parse(line).chain;
const chains = (records) => records.map((record) => record.chain);
/** Whether each follows the one before: computed by somebody else. */
const holds = (lines) => {
  let link = Buffer.alloc(32);
  for (const line of lines) {
    const { kind, previous, chain: told } = JSON.parse(line);
    if (kind === 'segment') link = Buffer.from(previous, 'hex');
    link = crypto.createHash('sha256').update(link).update(line.slice(0, line.lastIndexOf(',"chain":"'))).digest();
    assert.equal(told, link.toString('hex'), line);
  }
};
const sinkOf = async (at, name) => (await (await at.admin('/state')).json()).audit.ship.find((sink) => sink.name === name);
const metric = async (at, name, sink) => Number((await (await at.admin('/metrics')).text()).match(new RegExp(`^${name}\\{sink="${sink}"\\} (\\S+)$`, 'm'))?.[1]);
const behind = (at, sink) => metric(at, 'stagedoor_audit_ship_lag_seconds', sink);
/** Each once, in the order of their first coming. */
const once = (all) => [...new Set(all)];

test('all kinds of sinks get all lines, in order, with the chain that holds', async (t) => {
  const ports = { otlp: await freePort(), syslog: await freePort() };
  const first = await webhook({ ...pairOf(server), secret: KEY });
  const second = await webhook({ ...pairOf(server) });
  const otlp = start(python(), [path.join(__dirname, '../rig/otlp.py'), ports.otlp, server.cert, server.key].map(String));
  const rsyslog = syslog.missing() ? undefined : await rsyslogd({ folder: `${folder}/rsyslog`, port: ports.syslog, ca: ca.ca, ...pairOf(server) });
  const at = await door({
    otlp: `{kind: otlp_http, url: "https://localhost:${ports.otlp}", headers: {authorization: {value_file: ${folder}/token, prefix: "Bearer "}}, ca: ${ca.ca}, interval: 20ms}`,
    siem: hook(first.port, ', batch_max: 7'),
    lake: `{kind: webhook, url: "https://127.0.0.1:${second.port}", format: ocsf, ca: ${ca.ca}, interval: 20ms}`,
    out: '{kind: stdout, interval: 20ms}',
    ...(rsyslog && { logs: `{kind: syslog_tls, address: "127.0.0.1:${ports.syslog}", ca: ${ca.ca}, interval: 20ms}` }),
  });
  await load(at, 60);
  assert.equal((await read(at, '%E2%80%AE', { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' })).status, 200);
  assert.equal((await fetch(`${at.url}/read/x`)).status, 401);
  await net.connect(at.ports.edge, '127.0.0.1').end('nonsense\r\n\r\n');
  assert.equal((await fetch(`${at.url}/read/x`, { method: 'PATCH', headers: bearer })).status, 403);
  const lines = await until('the records', async () => { const all = log(at); return all.length === FIRST + 60 + 15 + 4 && all; });
  holds(lines);
  await until('the webhook to have them', async () => first.records.length === lines.length, 10000);
  assert.deepEqual(chains(first.records), lines.map(chain));
  assert.ok(first.batches.every((batch) => batch.records.length <= 7));
  await until('standard output to have them', async () => printed(at).length === lines.length, 10000);
  assert.deepEqual(printed(at), lines);

  const seen = await until('the OTLP receiver to have them', async () => {
    const all = JSON.parse(await ask(ports.otlp));
    return all.length === lines.length && all;
  }, 10000);
  assert.deepEqual(seen.map((record) => record.body), lines);
  const one = seen.find((record) => record.trace);
  const itself = JSON.parse(one.body);
  assert.equal(one.trace, '0af7651916cd43dd8448eb211c80319c');
  assert.equal(one.time, Number(BigInt(Date.parse(itself.time.replace(/\d{3}Z$/, 'Z'))) * 1000000n + BigInt(itself.time.slice(-4, -1)) * 1000n));
  assert.deepEqual([one.severity, one.number, one.event, one.scope], ['INFO', 9, 'stagedoor.audit.exchange', 'stagedoor.audit']);
  assert.deepEqual([one.resource['service.name'], one.resource['host.name'], one.authorization], ['stagedoor', os.hostname(), `Bearer ${TOKEN}`]);
  const { attributes } = one;
  assert.deepEqual([attributes['http.request.method'], attributes['http.response.status_code'], attributes['url.path'], attributes['server.address'], attributes['server.port'], attributes['user.id']],
    ['GET', 200, itself.path, '127.0.0.1', at.ports.edge, 'ada']);
  assert.deepEqual([attributes['stagedoor.route'], attributes['stagedoor.workspace'], attributes['stagedoor.chain']], ['read', 'payments', itself.chain]);
  assert.ok(seen.some((record) => record.severity === 'WARN' && record.attributes['stagedoor.decision'] === 'deny'));

  await until('the lake to have them', async () => second.records.length === lines.length, 10000);
  assert.deepEqual(second.records.map((event) => event.raw_data), lines);
  assert.ok(second.records.some((event) => event.class_uid === 1008) && second.records.some((event) => event.class_uid === 6003 && event.action_id === 2));
  const { stdout, stderr } = spawnSync(python(), [path.join(__dirname, '../rig/ocsf.py')], { input: second.records.map((event) => `${JSON.stringify(event)}\n`).join(''), encoding: 'utf8' });
  assert.equal(stdout, `${lines.length} events of 2 classes\n`, stderr);
  const { actor, ...rest } = second.records.find((event) => event.class_uid === 6003);
  assert.ok(actor);
  const wrongly = spawnSync(python(), [path.join(__dirname, '../rig/ocsf.py')], { input: JSON.stringify(rest), encoding: 'utf8' });
  assert.match(wrongly.stdout, /'actor' is a required property/, 'the schema tells');

  if (rsyslog) {
    const messages = await until('rsyslog to have them', async () => { const all = rsyslog.messages(); return all.length === lines.length && all; }, 10000);
    assert.deepEqual(messages.map((message) => message.text), lines);
    const { time } = JSON.parse(messages.at(-1).text);
    const [facility, severity, when, host, app, id, origin] = messages.at(-1).head.split(' ');
    assert.deepEqual([facility, host, app], ['audit', os.hostname(), 'stagedoor']);
    assert.ok(['info', 'warning'].includes(severity) && ['exchange', 'intent'].includes(id) && origin === '[origin');
    assert.equal(when.slice(0, 26), time.slice(0, 26));
    await until('the cursor to be at the end', async () => await behind(at, 'logs') === 0 && JSON.parse(fs.readFileSync(`${at.folder}/audit/ship-logs.cursor`)).chain === chain(lines.at(-1)));
  } else t.diagnostic('no rsyslog here');
  const names = ['otlp', 'siem', 'lake', 'out'];
  for (const name of names) assert.equal(await metric(at, 'stagedoor_audit_shipped_records_total', name), lines.length, name);
  for (const name of names) {
    assert.equal((await sinkOf(at, name)).failing, null);
  }
  // What is told of sinks: everything but their secrets.
  const told = at.output() + await (await at.admin('/state')).text() + await (await at.admin('/config')).text() + await (await at.admin('/metrics')).text();
  assert.ok(!told.includes(TOKEN) && !told.includes(KEY.slice(6)));
  assert.equal(await at.stop(), 0);
  await Promise.all([first.stop(), second.stop(), otlp.stop(), rsyslog?.stop('SIGKILL')]);
});

test('a sink that is away delays no request, and gets all of it when it is back', async () => {
  const port = await freePort();
  const at = await door({ siem: hook(port), quiet: '{kind: stdout}' });
  const times = [];
  for (let n = 0; n < 60; n += 1) {
    const begun = process.hrtime.bigint();
    assert.equal((await (n % 4 ? read(at) : act(at))).status, 200);
    times.push(Number(process.hrtime.bigint() - begun) / 1e6);
  }
  const failing = await until('it to be told', async () => { const sink = await sinkOf(at, 'siem'); return sink.failing && sink; });
  assert.match(failing.failing, /cannot post to `https:\/\/127\.0\.0\.1:\d+\/audit`: .*refused/i);
  assert.ok(failing.failing_since > 1e9 && await metric(at, 'stagedoor_audit_ship_failures_total', 'siem') > 0);
  assert.match(at.output(), /audit records cannot be shipped; they wait in the folder/);
  times.sort((a, b) => a - b);
  assert.ok(times[times.length / 2] < 250, `${times}`);
  await until('it to be behind', async () => await behind(at, 'siem') > 0);
  assert.ok(await metric(at, 'stagedoor_audit_ship_behind_seconds', 'siem') > 0, 'under its old name too');
  const receiver = await webhook({ port, ...pairOf(server), secret: KEY });
  const isOurs = (line) => [undefined, 'intent'].includes(JSON.parse(line).kind);
  await until('the records', async () => log(at).filter(isOurs).length === 60 + 15);
  await until('it to have them', async () => receiver.records.length === log(at).length);
  assert.deepEqual(chains(receiver.records), log(at).map(chain));
  assert.equal((await sinkOf(at, 'siem')).failing, null);
  assert.match(at.output(), /audit records are being shipped again/);
  // The end ships what was written last.
  await load(at, 40);
  const kept = fs.mkdtempSync(`${folder}/kept-`);
  process.kill(at.pid, 'SIGTERM');
  assert.equal(await at.ended, 0);
  fs.cpSync(`${at.folder}/audit`, `${kept}/audit`, { recursive: true });
  assert.deepEqual(chains(receiver.records), log(kept).map(chain));
  await at.stop();
  await receiver.stop();
});

test('whoever cannot prove that it is the receiver gets nothing', async () => {
  const port = await freePort();
  const syslogPort = await freePort();
  const eve = await webhook({ port, ...pairOf(wrong) });
  const listening = require('node:tls').createServer({ cert: fs.readFileSync(wrong.cert), key: fs.readFileSync(wrong.key) }, (socket) => socket.on('data', (data) => heard.push(data)));
  const heard = [];
  listening.on('tlsClientError', () => {});
  await new Promise((resolve) => listening.listen(syslogPort, '127.0.0.1', resolve));
  const at = await door({ siem: hook(port), logs: `{kind: syslog_tls, address: "127.0.0.1:${syslogPort}", ca: ${ca.ca}, interval: 20ms}` });
  for (const name of ['siem', 'logs']) await until(`${name} to fail`, async () => /certificate/i.test((await sinkOf(at, name)).failing));
  assert.deepEqual([eve.batches.length, heard.length], [0, 0]);
  await eve.stop();
  const receiver = await webhook({ port, ...pairOf(server), secret: KEY });
  await until('the right one to have it', async () => receiver.records.length > 0);
  await at.stop();
  await receiver.stop();
  listening.close();
});

test('a process that is killed while it ships leaves nothing out', async () => {
  const own = fs.mkdtempSync(`${folder}/kill-`);
  const receiver = await webhook({ ...pairOf(server), secret: KEY, answer: () => new Promise((resolve) => { setImmediate(() => resolve(200)); }) });
  for (let round = 0; round < 4; round += 1) {
    const at = await door({ siem: hook(receiver.port, ', batch_max: 5') }, { folder: own });
    const begun = receiver.records.length;
    const under = load(at, 200).catch(() => {});
    await until('some of it', async () => receiver.records.length > begun + 60 + Math.floor(Math.random() * 60));
    process.kill(at.pid, 'SIGKILL');
    await at.ended;
    await under;
  }
  const last = await door({ siem: hook(receiver.port) }, { folder: own });
  const all = log(own).map(chain);
  await until('all of it', async () => once(chains(receiver.records)).length === all.length);
  assert.deepEqual(once(chains(receiver.records)), all, 'nothing is missing, and a line comes first where it stands');
  await last.stop();
  await receiver.stop();
});

test('a record that is refused by itself is set aside, and those around it get there', async () => {
  const poison = ['poison-1', 'poison-2'];
  const receiver = await webhook({ ...pairOf(server), secret: KEY, answer: (batch) => (batch.records.some((record) => poison.includes(record.id) && !record.kind) ? 422 : 200) });
  const at = await door({ siem: hook(receiver.port) });
  for (let n = 0; n < 40; n += 1) assert.equal((await act(at, n % 20 === 7 ? poison[Math.floor(n / 20)] : `deploy-${n}`)).status, 200);
  const lines = await until('the records', async () => { const all = log(at); return all.length === FIRST + 80 && all; });
  await until('the others', async () => receiver.records.length === lines.length - 2);
  const rest = lines.filter((line) => !(poison.includes(JSON.parse(line).id) && !JSON.parse(line).kind));
  assert.deepEqual(chains(receiver.records), rest.map(chain));
  const aside = fs.readFileSync(`${at.folder}/audit/ship-siem.refused.jsonl`, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(aside.map(({ record }) => record.id), poison);
  assert.match(aside[0].cause, /responded with 422/);
  assert.equal(await metric(at, 'stagedoor_audit_ship_refused_records_total', 'siem'), 2);
  for (const id of poison) assert.match(at.output(), new RegExp(`the sink refused an audit record, which was set aside.*${id}`));
  await at.stop();
  await receiver.stop();
});

test('a receiver that wants to be left alone is, and one that hangs is asked again with the same batch', async () => {
  const answers = [{ status: 429, headers: { 'retry-after': '2' } }, 'hang', 503, 401, 200];
  const receiver = await webhook({ ...pairOf(server), secret: KEY, answer: () => answers.shift() ?? 200 });
  const at = await door({ siem: hook(receiver.port).replace('timeout: 5s', 'timeout: 300ms') });
  await until('the batch to be taken', async () => receiver.records.length > 0);
  const [busy, hung, broken, strange, taken] = receiver.batches;
  assert.ok(hung.at - busy.at >= 2000, `${hung.at - busy.at}`);
  assert.ok(broken.at - hung.at >= 300);
  for (const batch of [hung, broken, strange, taken]) {
    assert.equal(batch.headers['webhook-id'], busy.headers['webhook-id']);
    assert.deepEqual(chains(batch.records), chains(busy.records));
  }
  assert.match(at.output(), /responded with 429/);
  assert.match(at.output(), /no response within 300ms/);
  assert.equal(once(chains(receiver.records)).length, receiver.records.length, 'each was taken once');
  // Nor does one that hangs keep the process.
  receiver.answer = () => 'hang';
  const seen = receiver.batches.length;
  await read(at);
  await until('a batch that hangs', async () => receiver.batches.length > seen);
  const begunToStop = Date.now();
  assert.equal(await at.stop(), 0);
  assert.ok(Date.now() - begunToStop < 8000);
  await receiver.stop();
});

test('a secret that changes is in force at the next batch, and one that is gone stays', async () => {
  fs.writeFileSync(`${folder}/changing`, 'first-token\n');
  const receiver = await webhook({ ...pairOf(server), secret: KEY });
  const at = await door({ siem: hook(receiver.port, `, headers: {x-key: {value_file: ${folder}/changing}}`) });
  const shown = async () => { const seen = receiver.batches.length; await read(at); await until('a batch', async () => receiver.batches.length > seen); return receiver.batches.at(-1).headers['x-key']; };
  assert.equal(await shown(), 'first-token');
  fs.writeFileSync(`${folder}/changing`, 'second-token\n');
  assert.equal(await shown(), 'second-token');
  fs.rmSync(`${folder}/changing`);
  assert.equal(await shown(), 'second-token');
  await until('it to be told', async () => /a sink keeps using its last secrets.*changing/.test(at.output()));
  assert.ok(!/first-token|second-token/.test(at.output() + await (await at.admin('/state')).text()));
  await at.stop();
  await receiver.stop();
});

/** Segments as an earlier process left them; answers with the lines of each. */
const earlier = (own, count, each) => {
  fs.mkdirSync(own, { recursive: true });
  let link = Buffer.alloc(32);
  const seal = (body) => { link = crypto.createHash('sha256').update(link).update(body).digest(); return `${body},"chain":"${link.toString('hex')}"}`; };
  return Array.from({ length: count }, (_, s) => {
    const time = new Date(Date.UTC(2026, 0, 1, s)).toISOString().replace('Z', '000Z');
    const lines = [seal(`{"kind":"segment","version":1,"time":"${time}","run":"earlier","previous":"${link.toString('hex')}"`)];
    for (let n = 0; n < each; n += 1) lines.push(seal(`{"time":"${time}","id":"s${s}-${n}","client":"10.0.0.1","method":"GET","path":"/read/${n}","decision":"allow","code":"ok","status":200`));
    const file = `${own}/audit-${time.replace(/[:.]/g, '')}-4194999.jsonl`;
    fs.writeFileSync(file, `${lines.join('\n')}\n`);
    return { file, lines };
  });
};
const compress = (file) => {
  execFileSync(python(), ['-c', 'import sys, zstandard\nwith open(sys.argv[1], "rb") as f: data = f.read()\nopen(sys.argv[1] + ".zst", "wb").write(zstandard.compress(data))', file]);
  fs.rmSync(file);
};

test('a sink that was away for long gets every segment, compressed ones too, and is told what was removed', async () => {
  const own = fs.mkdtempSync(`${folder}/long-`);
  const segments = earlier(`${own}/audit`, 30, 200);
  segments.slice(0, 10).forEach(({ file }) => compress(file));
  const port = await freePort();
  let receiver = await webhook({ port, ...pairOf(server), secret: KEY });
  let taken = 0;
  // It goes away in the middle of the sixth segment, which is compressed.
  receiver.answer = (batch) => { taken += batch.records.length; return taken > 1100 ? 503 : 200; };
  const at = await door({ siem: hook(port, ', batch_max: 90') }, { folder: own });
  await until('it to be away', async () => (await sinkOf(at, 'siem')).failing);
  const before = receiver.records;
  const cursor = JSON.parse(fs.readFileSync(`${own}/audit/ship-siem.cursor`));
  assert.equal(cursor.segment, path.basename(segments[5].file, '.jsonl'));
  assert.equal(cursor.byte, segments[5].lines.slice(0, segments[5].lines.findIndex((line) => chain(line) === cursor.chain) + 1).join('\n').length + 1);
  process.kill(at.pid, 'SIGKILL');
  await at.ended;
  await receiver.stop();
  // Meanwhile another is compressed under it, and some that it needs are removed.
  compress(segments[12].file);
  for (const s of [8, 9]) fs.rmSync(`${segments[s].file}.zst`);
  receiver = await webhook({ port, ...pairOf(server), secret: KEY });
  const again = await door({ siem: hook(port) }, { folder: own });
  const wanted = segments.flatMap(({ lines }, s) => (s === 8 || s === 9 ? [] : lines)).map(chain);
  const got = () => chains(before).concat(chains(receiver.records));
  const rest = () => log(again).map(chain).filter((link) => !wanted.includes(link));
  await until('all that is there', async () => once(got()).length >= wanted.length + rest().length && await behind(again, 'siem') === 0);
  assert.deepEqual(once(got()), [...wanted, ...rest()]);
  assert.ok((await metric(again, 'stagedoor_audit_shipped_records_total', 'siem')) > 4000);
  await again.stop();
  await receiver.stop();
});

test('a segment that is removed before it was shipped is told, once', async () => {
  const own = fs.mkdtempSync(`${folder}/gone-`);
  const segments = earlier(`${own}/audit`, 4, 20);
  fs.writeFileSync(`${own}/audit/ship-siem.cursor`, JSON.stringify({ segment: path.basename(segments[1].file, '.jsonl'), byte: `${segments[1].lines[0]}\n`.length, chain: chain(segments[1].lines[0]) }));
  fs.rmSync(segments[0].file);
  fs.rmSync(segments[1].file);
  const receiver = await webhook({ ...pairOf(server), secret: KEY });
  const at = await door({ siem: hook(receiver.port) }, { folder: own });
  const wanted = [...segments[2].lines, ...segments[3].lines].map(chain);
  await until('the rest', async () => receiver.records.length > wanted.length);
  assert.deepEqual(chains(receiver.records).slice(0, wanted.length), wanted);
  assert.equal(await metric(at, 'stagedoor_audit_ship_lost_segments_total', 'siem'), 1);
  assert.match(at.output(), /a segment was removed before it was shipped/);
  await at.stop();
  await receiver.stop();
});

test('what a process hands over is shipped by one at a time, and to its end', async () => {
  const own = fs.mkdtempSync(`${folder}/hand-`);
  const receiver = await webhook({ ...pairOf(server), secret: KEY });
  const ports = { edge: await freePort(), admin: await freePort() };
  fs.mkdirSync(`${own}/audit`);
  fs.writeFileSync(`${own}/stagedoor.yaml`, ['version: stagedoor/v1', config({ siem: hook(receiver.port) })(ports, own).replace('listeners:', `listeners:\n  admin: {kind: admin, address: 127.0.0.1:${ports.admin}}`),
    `process: {drain_delay: 0s, drain_timeout: 5s, upgrade_socket: ${own}/upgrade.sock}`].join('\n'));
  const at = { url: `http://127.0.0.1:${ports.edge}`, folder: own };
  const first = start(binary, ['run', '-c', `${own}/stagedoor.yaml`]);
  await until('the first', async () => (await read(at)).status === 200);
  const second = start(binary, ['run', '-c', `${own}/stagedoor.yaml`, '--upgrade']);
  await until('its socket', async () => fs.existsSync(`${own}/upgrade.sock`));
  let running = true;
  const under = (async () => { while (running) await read(at).then((r) => r.arrayBuffer()).catch(() => {}); })();
  // The old process still has something to write when the new one has begun to.
  const slow = read(at, 'slow', { 'x-request-id': 'slow' }).then((r) => r.status);
  await until('it to be under way', async () => held.length === 1);
  first.signal('SIGQUIT');
  await until('the new one to write', async () => fs.readdirSync(`${own}/audit`).some((name) => name.endsWith(`-${second.pid}.jsonl`)
    && fs.readFileSync(`${own}/audit/${name}`, 'utf8').split('\n').length > 10));
  held[0].end('{}');
  assert.equal(await slow, 200);
  assert.equal(await first.ended, 0, first.output());
  await until('the second to ship', async () => {
    const state = await (await fetch(`http://127.0.0.1:${ports.admin}/state`)).json();
    return state.audit.ship[0].elsewhere === false && state.audit.ship[0].records_shipped > 0;
  });
  running = false;
  await under;
  await second.stop();
  const all = log(own).map(chain);
  await until('all of it', async () => once(chains(receiver.records)).length === all.length);
  for (const name of fs.readdirSync(`${own}/audit`).filter((file) => file.startsWith('audit-'))) {
    const its = fs.readFileSync(`${own}/audit/${name}`, 'utf8').trim().split('\n').map(chain);
    assert.deepEqual(chains(receiver.records).filter((link) => its.includes(link)), its, 'in order, each process for itself');
  }
  assert.deepEqual(chains(receiver.records), once(chains(receiver.records)), 'and none twice');
  assert.equal(receiver.records.filter((record) => record.id === 'slow').length, 1);
  await receiver.stop();
});

test('records that an OTLP receiver rejects of a batch are counted and told, and 413 halves it', async () => {
  const port = await freePort();
  const otlp = start(python(), [path.join(__dirname, '../rig/otlp.py'), port, server.cert, server.key].map(String));
  const mode = (text) => ask(port, '/mode', text);
  await until('it', () => mode({ reject: 2 }).then(() => true));
  const at = await door({ otlp: `{kind: otlp_http, url: "https://127.0.0.1:${port}/v1/logs", ca: ${ca.ca}, interval: 20ms}` });
  await until('it to be counted', async () => await metric(at, 'stagedoor_audit_ship_refused_records_total', 'otlp') === 2);
  assert.match(at.output(), /some of the records before this position were refused.*too old/);
  await mode({ status: 413 });
  assert.equal((await act(at, 'too-much')).status, 200);
  await until('both lines to be set aside', async () => fs.readFileSync(`${at.folder}/audit/ship-otlp.refused.jsonl`, 'utf8').split('too-much').length === 3);
  await at.stop();
  await otlp.stop();
});

test('a connection of syslog that breaks is opened again, and what was on it is sent again', { skip: syslog.missing() }, async () => {
  const port = await freePort();
  let rsyslog = await rsyslogd({ folder: `${folder}/rsyslog-1`, port, ca: ca.ca, ...pairOf(server) });
  const at = await door({ logs: `{kind: syslog_tls, address: "127.0.0.1:${port}", ca: ${ca.ca}, interval: 20ms}` });
  await load(at, 40);
  await until('some messages', async () => rsyslog.messages().length > 10);
  await rsyslog.stop('SIGKILL');
  const first = rsyslog.messages();
  await load(at, 40);
  rsyslog = await rsyslogd({ folder: `${folder}/rsyslog-2`, port, ca: ca.ca, ...pairOf(server) });
  const all = await until('all of it', async () => {
    const both = once([...first, ...rsyslog.messages()].map((message) => message.text));
    return both.length === FIRST + 80 + 20 && both;
  });
  assert.deepEqual(all, log(at));
  await at.stop();
  await rsyslog.stop('SIGKILL');
});

test('standard output that nobody reads keeps no request, no other sink and no end waiting', async () => {
  const receiver = await webhook({ ...pairOf(server), secret: KEY });
  const own = fs.mkdtempSync(`${folder}/stuck-`);
  earlier(`${own}/audit`, 4, 400);
  const edge = await freePort();
  fs.writeFileSync(`${own}/stagedoor.yaml`, `version: stagedoor/v1\n${config({ out: '{kind: stdout}', siem: hook(receiver.port) })({ edge }, own)}\nprocess: {drain_delay: 0s, drain_timeout: 5s}`);
  const child = spawn(binary, ['run', '-c', `${own}/stagedoor.yaml`], { stdio: ['ignore', 'pipe', 'ignore'] });
  child.stdout.pause();
  const ended = new Promise((resolve) => child.on('exit', resolve));
  const at = { url: `http://127.0.0.1:${edge}` };
  await until('it', async () => (await read(at)).status === 200);
  await load(at, 200);
  const lines = log(own);
  await until('the other sink to have them', async () => receiver.records.length >= lines.length);
  const from = Date.now();
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
  assert.ok(Date.now() - from < 9000);
  await receiver.stop();
});

test('a config that would lose records or show them is told before it runs', () => {
  const check = (text) => {
    fs.writeFileSync(`${folder}/check.yaml`, `version: stagedoor/v1\nlisteners: {edge: {kind: reverse, address: "127.0.0.1:1"}}\naudit: ${text}\n`);
    const { stdout, stderr } = spawnSync(binary, ['check', '--files', '-c', `${folder}/check.yaml`], { encoding: 'utf8' });
    return stdout + stderr;
  };
  const of = (sink, own = `directory: ${folder}, `) => check(`{${own}ship: {siem: {${sink}}}}`);
  assert.match(of(`kind: webhook, url: "https://siem.example", secret_file: ${folder}/key`), /: valid\n/);
  assert.match(of('kind: webhook, url: "https://siem.example"', ''), /`siem` ships records from `audit\.directory`/);
  assert.match(of('kind: webhook'), /`siem` is of kind `webhook` and needs `url`/);
  assert.match(of('kind: syslog_tls, url: "https://siem.example"'), /`url` is only for kind `otlp_http` or `webhook`[^]*needs `address`/);
  assert.match(of('kind: syslog_tls, address: siem.example'), /write for example `logs\.example\.com:6514`/);
  assert.match(of('kind: otlp_http, url: "http://collector.example:4318"'), /warning: the records of `siem` go over the network in clear text/);
  assert.match(of('kind: otlp_http, url: "http://127.0.0.1:4318"'), /^[^\n]*: valid\n$/);
  assert.match(of('kind: otlp_http, url: "https://a.example", batch_max: 0'), /a batch has 1 to 10000 records/);
  assert.match(of('kind: otlp_http, url: "https://a.example", interval: 0s'), /`interval` must be more than 0s/);
  assert.match(of('kind: otlp_http, url: "https://a.example", header: {}'), /headers/);
  assert.match(of('kind: otlp_http, url: "https://a.example", headers: {content-type: {value_file: /x}}'), /belongs to HTTP/);
  assert.match(of('kind: webhook, url: "https://a.example", secret_file: /nowhere'), /\/nowhere/);
});

/** What this receiver's own certificate and key are. */
function pairOf({ cert, key }) { return { cert, key }; }
/** What was written on standard output, of records. */
function printed(at) { return at.output().split('\n').filter((line) => line.endsWith('"}') && line.includes('"chain":"')); }
/** Asks a receiver of the rig. */
function ask(port, where = '/', body = undefined) {
  return new Promise((resolve, reject) => {
    const request = require('node:https').request({ host: '127.0.0.1', port, path: where, method: body ? 'POST' : 'GET', ca: fs.readFileSync(ca.ca), agent: false }, (answer) => {
      let text = '';
      answer.on('data', (data) => { text += data; });
      answer.on('end', () => resolve(text));
    });
    request.on('error', reject);
    request.end(body && JSON.stringify(body));
  });
}
