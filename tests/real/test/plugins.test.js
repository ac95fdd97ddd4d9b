'use strict';
// Published plugins in a real Backstage, all of whose calls go out through the proxy, to stand-ins that
// answer as the real APIs do.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { api } = require('../rig/api');
const { argocd } = require('../rig/argocd');
const { azureDevOps } = require('../rig/azure-devops');
const { backstage } = require('../rig/backstage');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { start } = require('../rig/process');
const { spacelift } = require('../rig/spacelift');
const { stagedoor } = require('../rig/stagedoor');

const PASSWORD = 'a-password-of-the-portal';
const PAT = 'p'.repeat(52);
const KEY = { id: 'the-key-of-the-portal', secret: 'the-secret-of-the-portal' };
const WATCH = path.join(__dirname, '../rig/connections.js');
const ROOT = path.join(__dirname, '../../..');
const NAMES = { argo: 'argocd.example', azure: 'devops.example', spacelift: 'acme.spacelift.example', evil: 'evil.example' };

let db; let names; let folder; let portal; let door; let token; let up; let portalPort;
const target = (which) => `${NAMES[which]}:${up[which].port}`;
const known = ['argo', 'azure', 'spacelift'];
const config = (allowed) => (ports) => `
listeners:
  egress: {kind: forward, address: 127.0.0.1:${ports.edge}}
workspaces: {named: {payments: {}}}
egress:
  rules:
  - {name: plugins, to: [${['nobody.example', ...allowed.map(target)].map((to) => `"${to}"`)}], workspaces: [payments]}
  private:
${Object.keys(up).map((which) => `  - {host: "${target(which)}", addresses: [127.0.0.1/32]}`).join('\n')}
  callers: {portal: {password_file: ${folder}/password, workspace: payments}}
  tls_ports: [${Object.values(up).map(({ port }) => port)}]
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-plugins-'));
  const ca = authority(folder);
  const certificate = (which) => ca.issue(which, { names: [NAMES[which]] });
  fs.writeFileSync(`${folder}/password`, PASSWORD);
  const organization = 'acme';
  [db, names, portalPort, up] = await Promise.all([
    postgres(),
    dns(Object.fromEntries(Object.values(NAMES).map((name) => [name, { A: ['127.0.0.1'] }]))),
    freePort(),
    Promise.all([
      argocd(certificate('argo'), { password: 'argo' }),
      azureDevOps(certificate('azure'), { host: NAMES.azure, organization, token: PAT }),
      spacelift(certificate('spacelift'), { keys: { [KEY.id]: KEY.secret } }),
      api(certificate('evil'), () => ({ body: {} })),
    ]).then(([argo, azure, runs, evil]) => ({ argo, azure, spacelift: runs, evil })),
  ]);
  door = await stagedoor(config(known));
  const proxy = `http://portal:${PASSWORD}@127.0.0.1:${door.ports.edge}`;
  portal = await backstage({
    port: portalPort, baseUrl: `http://127.0.0.1:${portalPort}`, postgres: db,
    plugins: ['@roadiehq/backstage-plugin-argo-cd-backend', '@backstage-community/plugin-azure-devops-backend', '@spacelift-io/backstage-integration-backend'],
    config: `
argocd:
  username: portal
  password: argo
  appLocatorMethods: [{type: config, instances: [{name: main, url: "https://${target('argo')}"}]}]
integrations:
  azure: [{host: "${target('azure')}", credentials: [{personalAccessToken: ${PAT}}]}]
# As many have it still: the token goes wherever a caller says.
azureDevOps: {host: "${target('azure')}", organization: ${organization}, token: ${PAT}}
spacelift: {hostUrl: "${target('spacelift')}", apiKey: ${KEY.id}, apiSecret: ${KEY.secret}}
`,
    env: {
      NODE_OPTIONS: `-r ${WATCH} -r ${path.join(ROOT, 'examples/egress-bootstrap.js')}`,
      NODE_PATH: path.join(__dirname, '../node_modules'), NODE_EXTRA_CA_CERTS: ca.ca, CONNECTIONS: `${folder}/connections`,
      HTTPS_PROXY: proxy, HTTP_PROXY: proxy, NO_PROXY: '127.0.0.1,localhost',
    },
  });
  token = (await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json()).backstageIdentity.token;
});
after(async () => {
  await portal?.stop(); await door?.stop(); await names?.stop(); await db?.stop();
  for (const one of Object.values(up ?? {})) await one.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

const ask = async (where, body) => {
  const answer = await fetch(`${portal.url}/api${where}`, {
    method: body ? 'POST' : 'GET', body: body && JSON.stringify(body),
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
  });
  return [answer.status, await answer.json()];
};
/** Puts another list in force. Tunnels that stand are not cut, so it waits until none does. */
const allow = async (allowed) => {
  await until('no tunnel to be left', async () => /stagedoor_calls_in_flight 0/.test(await (await door.admin('/metrics')).text()));
  await door.settled();
  door.write(config(allowed)(door.ports));
  const { successful, messages } = await door.reload();
  assert.ok(successful, JSON.stringify(messages));
};
/** The records of calls to a host, from `since` on, when there are `count`. */
const calls = (which, since, count) => until(`${count} records of ${NAMES[which]}`, async () => {
  const found = door.records().slice(since).filter((record) => record.target === target(which));
  return found.length >= count && found;
});
const facts = ({ method, target: to, caller, workspace, identity_strength: strength, decision, code, egress_rule: rule }) => ({ method, to, caller, workspace, strength, decision, code, rule });
const passed = (which) => ({ method: 'CONNECT', to: target(which), caller: 'portal', workspace: 'payments', strength: 'shared_secret', decision: 'allow', code: 'ok', rule: 'plugins' });
const refused = (which) => ({ ...passed(which), decision: 'deny', code: 'host_refused', rule: undefined });
/** What a plugin answers, and that each of its calls, at least so many, is on record as one that passed. */
const through = async (which, count, where, body) => {
  const since = door.records().length;
  const answer = await ask(where, body);
  for (const record of await calls(which, since, count)) assert.deepEqual(facts(record), passed(which));
  return answer;
};
const paths = (which, since) => up[which].seen.slice(since).map(({ method, path: at }) => `${method} ${at}`);

test('Argo CD’s plugin reads and syncs through the gate, with a session of its own for each call', async () => {
  assert.deepEqual(await through('argo', 2, '/argocd/find/name/pay'), [200, [{ name: 'main', url: `https://${target('argo')}`, appName: ['pay'] }]]);
  assert.deepEqual(paths('argo', 0), ['POST /api/v1/session', 'GET /api/v1/applications/pay']);
  const [status, { error }] = await through('argo', 2, '/argocd/argoInstance/main/applications/nobody');
  assert.deepEqual([status, error], [403, 'permission denied'], 'Argo CD’s own no passes');
  const synced = ['pay', 'pay-jobs'].map((name) => ({ status: 'Success', message: `Re-synced ${name} on main` }));
  assert.deepEqual(await through('argo', 5, '/argocd/sync', { appSelector: 'example.com/app=pay' }), [200, [synced]]);
  assert.deepEqual(up.argo.synced.sort(), ['pay', 'pay-jobs']);
});

test('Azure DevOps’ plugin reads through the gate, with four calls for one', async () => {
  const [status, [build]] = await through('azure', 4, '/azure-devops/builds/shop/r-1');
  assert.deepEqual([status, build.buildNumber], [200, '7']);
  assert.deepEqual(paths('azure', 0), ['OPTIONS /acme/_apis/Location', 'GET /acme/_apis/ResourceAreas', 'OPTIONS /acme/_apis/build', 'GET /acme/shop/_apis/build/builds']);
  const [, projects] = await through('azure', 4, `/azure-devops/projects?host=${target('azure')}&org=acme`);
  assert.deepEqual(projects.map(({ name }) => name), ['shop']);
});

test('Spacelift’s plugin reads and triggers through the gate', async () => {
  const [status, stacks] = await through('spacelift', 1, '/spacelift-io/stacks');
  assert.deepEqual([status, stacks.map(({ id }) => id)], [200, ['payments-network', 'payments-db', 'search-index']]);
  assert.deepEqual(await through('spacelift', 1, '/spacelift-io/stacks/payments-db/trigger', {}), [200, { id: 'run-1', state: 'QUEUED' }]);
  assert.deepEqual(up.spacelift.runs.map(({ stack }) => stack), ['payments-db']);
  assert.deepEqual({ ...up.spacelift.calls, apiKeyUser: 1 }, { apiKeyUser: 1, stacks: 1, runTrigger: 1 });
});

test('a plugin whose host is taken off the list says so in its own way, and nothing arrives there', async () => {
  const expected = {
    argo: [
      // The plugin swallows it: a sync that never was is a 200, too. Only the record tells.
      ['/argocd/find/name/pay', undefined, [200, []]],
      ['/argocd/sync', { appSelector: 'example.com/app=pay' }, [200, []]],
    ],
    azure: [['/azure-devops/builds/shop/r-1', undefined, [500, /refused connecting to 'devops\.example:\d+' \(HTTP\/1\.1 403 host_refused\)/]]],
    spacelift: [
      ['/spacelift-io/stacks', undefined, [500, { error: 'An unexpected internal error occurred' }]],
      ['/spacelift-io/stacks/payments-db/trigger', {}, [500, { error: 'An unexpected internal error occurred' }]],
    ],
  };
  for (const [which, cases] of Object.entries(expected)) {
    await allow(known.filter((other) => other !== which));
    const arrived = () => [up[which].connected.length, up[which].seen.length];
    const before = arrived();
    names.asked.length = 0;
    for (const [where, body, [status, said]] of cases) {
      const since = door.records().length;
      const [got, answer] = await ask(where, body);
      assert.equal(got, status, where);
      if (said instanceof RegExp) assert.match(answer.error.message, said); else assert.deepEqual(answer, said, where);
      for (const record of await calls(which, since, 1)) assert.deepEqual(facts(record), refused(which));
    }
    assert.deepEqual(arrived(), before, which);
    assert.deepEqual(names.asked, [], 'it is not even looked up');
  }
  await allow(known);
  for (const [where] of Object.values(expected).flat().filter(([, body]) => !body)) {
    const [status, answer] = await ask(where);
    assert.equal(status, 200);
    assert.ok(answer.length, `${where} is back`);
  }
});

test('a caller who makes Azure DevOps’ plugin call another host reaches nothing', async () => {
  const where = `/azure-devops/builds/shop/r-1?host=${target('evil')}&org=x`;
  const since = door.records().length;
  const [status, { error }] = await ask(where);
  assert.equal(status, 500);
  assert.match(error.message, /403 host_refused/);
  assert.deepEqual((await calls('evil', since, 1)).map(facts), [refused('evil')]);
  assert.deepEqual([up.evil.connected, up.evil.seen], [[], []]);
  // What the list keeps from happening: the token goes there.
  await allow(['evil']);
  await ask(where);
  assert.ok(up.evil.seen.some(({ headers }) => headers.authorization === `Basic ${Buffer.from(`PAT:${PAT}`).toString('base64')}`));
  await allow(known);
});

test('Backstage connects to its database, itself and the gate alone, and looks no name up', async () => {
  const ports = [db.port, portalPort, door.ports.edge].map((port) => `connect 127.0.0.1:${port}`);
  const begun = () => fs.readFileSync(`${folder}/connections`, 'utf8').trim().split('\n');
  assert.deepEqual([...new Set(begun())].sort(), ports.sort());
  for (const [which, { connected }] of Object.entries(up)) assert.deepEqual([...new Set(connected)], [door.pid], which);
  // One that went past the gate would have been seen, here and there.
  const other = start(process.execPath, ['-r', WATCH, '-e', `require('https').get('https://localhost:${up.evil.port}', { family: 4 }).on('error', () => {})`], { env: { ...process.env, CONNECTIONS: `${folder}/connections` } });
  await other.ended;
  assert.deepEqual(begun().slice(-2), ['lookup localhost', `connect 127.0.0.1:${up.evil.port}`]);
  assert.equal(up.evil.connected.at(-1), other.pid);
});
