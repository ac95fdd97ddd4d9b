'use strict';
// From what a listener with `report_only` let pass to rules in force: real clients call, the records
// become a proposal, somebody pastes it, and the same calls pass where others are refused.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { call } = require('../rig/calling');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { until } = require('../rig/ports');
const { binary, segments, stagedoor } = require('../rig/stagedoor');

let door; let names; let secure; let open; let folder; let httpsPort; let httpPort; let config;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-suggest-'));
  const ca = authority(folder);
  ca.issue('server', { names: ['api.egress.test', 'other.egress.test'] });
  const serve = (_, response) => response.end('hello from outside');
  secure = https.createServer({ cert: fs.readFileSync(`${folder}/server.crt`), key: fs.readFileSync(`${folder}/server.key`) }, serve);
  open = http.createServer(serve);
  const listen = (server) => new Promise((resolve) => { server.listen(0, '127.0.0.1', () => resolve(server.address().port)); });
  [httpsPort, httpPort] = await Promise.all([listen(secure), listen(open)]);
  const here = { A: ['127.0.0.1'] };
  names = await dns({ 'api.egress.test': here, 'other.egress.test': here, 'known.egress.test': here });
  config = ({ reportOnly, proposal = '' }) => (ports) => `
listeners:
  egress: {kind: forward, address: 127.0.0.1:${ports.edge}, plugin: catalog, workspace: web, report_only: ${reportOnly}}
workspaces: {named: {web: {}}}
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}
egress:
  private:
  - {host: "*.egress.test:${httpsPort}", addresses: [127.0.0.1/32]}
  - {host: "*.egress.test:${httpPort}", addresses: [127.0.0.1/32]}
  tls_ports: [${httpsPort}]
  hosts: {known: ["known.egress.test:${httpPort}"]}
${proposal}`;
  door = await stagedoor(config({ reportOnly: true }));
});
after(async () => {
  await door?.stop(); await names?.stop();
  for (const server of [secure, open]) { server?.closeAllConnections?.(); server?.close(); }
  fs.rmSync(folder, { recursive: true, force: true });
});

const run = (client, url) => call(client, url, door.url, { NODE_EXTRA_CA_CERTS: `${folder}/ca.crt` });
const stage = (...args) => new Promise((resolve) => {
  execFile(binary, args, (error, out, err) => resolve({ code: error?.code ?? 0, out, err }));
});

test('calls that were let pass become a proposal, and what is pasted of it lets the same calls pass', async () => {
  const calls = [
    ['fetch', `https://api.egress.test:${httpsPort}/x`],
    ['node-fetch', `https://api.egress.test:${httpsPort}/y`],
    ['https without an agent', `http://api.egress.test:${httpPort}/z`],
    ['axios', `http://known.egress.test:${httpPort}/z`],
  ];
  for (const [client, url] of calls) assert.equal(await run(client, url), '200 hello from outside', client);
  await until('the records', async () => door.records().filter((r) => r.would_deny === 'host_refused').length === calls.length);
  const before = fs.readdirSync(door.folder, { recursive: true }).sort();
  // A record that was being written when the disk was full.
  fs.writeFileSync(`${door.folder}/audit/audit-torn.jsonl`, '{"time":"2026-11-24T12:00:00.000000Z","target":"evil.egr');

  const suggested = await stage('suggest', 'egress', '--audit', `${door.folder}/audit`, '-c', door.file);
  assert.equal(suggested.code, 0, suggested.err);
  assert.match(suggested.err, /left out, not records \(torn, or not JSON\): 1 line\n/);
  const proposal = suggested.out;
  assert.match(proposal, /# plugin catalog, workspace web: 4 calls, .*; callers .*; identity_strength listener/);
  assert.match(proposal, new RegExp(`# 2 calls, .*\\n +- "api.egress.test:${httpsPort}"`));
  assert.match(proposal, new RegExp(`# Risk: plain HTTP.*\\n.*# Risk: seen only once\\n +- "api.egress.test:${httpPort}"`));
  assert.match(proposal, /- "known"\n/, 'a group of hosts by its name');
  assert.doesNotMatch(proposal, /evil/);
  assert.equal((await stage('suggest', 'egress', '--audit', ...segments(`${door.folder}/audit`), '-c', door.file)).out, proposal, 'files are as good as their folder, in any order');
  const blind = (await stage('suggest', 'egress', '--audit', `${door.folder}/audit`)).out;
  assert.match(blind, new RegExp(`- "known.egress.test:${httpPort}"`), 'without the config no group is known');
  assert.deepEqual(fs.readdirSync(door.folder, { recursive: true }).filter((f) => !f.endsWith('audit-torn.jsonl')).sort(), before, 'no file was written');

  fs.rmSync(`${door.folder}/audit/audit-torn.jsonl`);
  // What is below `egress:` goes below `egress:`.
  const rules = proposal.slice(proposal.indexOf('egress:\n') + 'egress:\n'.length);
  door.write(config({ reportOnly: false, proposal: rules })(door.ports));
  const checked = await stage('check', '-c', door.file);
  assert.equal(checked.code, 0, checked.out);
  const reloaded = await door.reload();
  assert.equal(reloaded.successful, true, JSON.stringify(reloaded));

  for (const [client, url] of calls) assert.equal(await run(client, url), '200 hello from outside', client);
  assert.match(await run('node-fetch', `https://other.egress.test:${httpsPort}/x`), /failed: .*403 host_refused/);
  const enforced = await door.record((r) => r.target === `api.egress.test:${httpsPort}` && r.egress_rule);
  assert.deepEqual([enforced.egress_rule, enforced.would_deny], ['catalog-web', undefined]);

  await door.record((r) => r.code === 'host_refused');
  // All of it allowed now, but for what was refused meanwhile.
  const again = (await stage('suggest', 'egress', '--audit', `${door.folder}/audit`, '-c', door.file)).out;
  assert.match(again, /# Left out: 4 calls that the rules already allow/);
  assert.match(again, /name: "catalog-web-2"/);
  assert.match(again, new RegExp(`- "other.egress.test:${httpsPort}"`));
  assert.doesNotMatch(again, /- "api\./);

  // It is whole by itself: included beside the rules in force, it adds to them.
  fs.writeFileSync(`${door.folder}/proposal.yaml`, again);
  door.write(`${config({ reportOnly: false, proposal: rules })(door.ports)}\ninclude: [proposal.yaml]`);
  const included = await door.reload();
  assert.equal(included.successful, true, JSON.stringify(included));
  assert.equal(await run('node-fetch', `https://other.egress.test:${httpsPort}/x`), '200 hello from outside');
});

test('wrong use is told, and ends with 2', async () => {
  assert.equal((await stage('suggest', 'egress')).code, 2);
  const missing = await stage('suggest', 'egress', '--audit', `${folder}/nothing`);
  assert.deepEqual([missing.code, missing.out], [2, '']);
  assert.match(missing.err, /cannot read `.*nothing`/);
});
