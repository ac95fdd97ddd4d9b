'use strict';
// The whole way of Azure DevOps' plugin: its own client, the edge, its own backend, the way out, and an API that answers as the real one
// does. By `host` and `org` a caller chooses where the integration's token goes, so only those of a list pass.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { api } = require('../rig/api');
const { azureDevOps } = require('../rig/azure-devops');
const { backstage } = require('../rig/backstage');
const { authority } = require('../rig/certificates');
const { dns } = require('../rig/dns');
const { clients } = require('../rig/frontend');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');

const PASSWORD = 'a-password-of-the-portal';
const PAT = 'p'.repeat(52);
const ORG = 'acme';
const NAMES = { azure: 'devops.example', evil: 'evil.example' };
const PAY = 'component:default/pay';

let db; let names; let folder; let portal; let door; let token; let up; let AzureDevOpsClient; let listless;
const target = (which) => `${NAMES[which]}:${up[which].port}`;
/** Both hosts may be called: whatever is not called, the edge has kept. */
const config = (port) => (ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  listless: {kind: reverse, address: 127.0.0.1:${listless}}
  egress: {kind: forward, address: 127.0.0.1:${ports.tls}}
identity:
  issuers:
    portal: {kind: backstage, issuer: "http://127.0.0.1:${ports.edge}/api/auth", audiences: [catalog], algorithms: [ES256], keys: {backstage_url: "http://127.0.0.1:${port}"}}
workspaces: {named: {payments: {callers: ["user:default/ada"]}}}
upstreams: {portal: {url: "http://127.0.0.1:${port}", preserve_host: true}}
presets:
- {preset: azure-devops, upstream: portal, listeners: [edge], query_allow: {host: ["${target('azure')}"], org: [${ORG}]}}
- {preset: azure-devops, name: listless, upstream: portal, listeners: [listless]}
egress:
  rules: [{name: plugins, to: ["${target('azure')}", "${target('evil')}"], workspaces: [payments]}]
  private: [{host: "${target('azure')}", addresses: [127.0.0.1/32]}, {host: "${target('evil')}", addresses: [127.0.0.1/32]}]
  callers: {portal: {password_file: ${folder}/password, workspace: payments}}
  tls_ports: [${up.azure.port}, ${up.evil.port}]
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}`;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-azure-'));
  ({ AzureDevOpsClient } = clients(folder));
  const ca = authority(folder);
  fs.writeFileSync(`${folder}/password`, PASSWORD);
  const issue = (which) => ca.issue(which, { names: [NAMES[which]] });
  let port; let azure; let evil;
  [db, names, port, listless, azure, evil] = await Promise.all([
    postgres(), dns(Object.fromEntries(Object.values(NAMES).map((name) => [name, { A: ['127.0.0.1'] }]))), freePort(), freePort(),
    azureDevOps(issue('azure'), { host: NAMES.azure, organization: ORG, token: PAT }), api(issue('evil'), () => ({ body: {} })),
  ]);
  up = { azure, evil };
  door = await stagedoor(config(port));
  const proxy = `http://portal:${PASSWORD}@127.0.0.1:${door.ports.tls}`;
  portal = await backstage({
    port, baseUrl: door.url, postgres: db, plugins: ['@backstage-community/plugin-azure-devops-backend'],
    config: `
integrations: {azure: [{host: "${target('azure')}", credentials: [{personalAccessToken: ${PAT}}]}]}
# As many have it still: the token goes wherever a caller says.
azureDevOps: {host: "${target('azure')}", organization: ${ORG}, token: ${PAT}}
`,
    env: {
      NODE_OPTIONS: `-r ${path.join(__dirname, '../../../examples/egress-bootstrap.js')}`, NODE_PATH: path.join(__dirname, '../node_modules'),
      NODE_EXTRA_CA_CERTS: ca.ca, HTTPS_PROXY: proxy, HTTP_PROXY: proxy, NO_PROXY: '127.0.0.1,localhost',
    },
  });
  token = (await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json()).backstageIdentity.token;
});
after(async () => {
  await portal?.stop(); await door?.stop(); await names?.stop(); await db?.stop();
  for (const one of Object.values(up ?? {})) await one.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

const ask = (base) => (url) => fetch(`${base}${new URL(url).pathname}${new URL(url).search}`, { headers: { authorization: `Bearer ${token}` } });
/** The plugin's own client, in a page that is at `base`. */
const client = (base = door.url) => new AzureDevOpsClient({ discoveryApi: { getBaseUrl: async (plugin) => `${base}/api/${plugin}` }, fetchApi: { fetch: ask(base) } });
const get = (where, base = door.url) => ask(base)(`${base}/api/azure-devops${where}`);
/** What a call did on the way out: records, lookups, and what arrived. */
const outside = () => ({
  calls: door.records().filter(({ method }) => method === 'CONNECT').length, names: names.asked.length,
  azure: [up.azure.connected.length, up.azure.seen.length], evil: [up.evil.connected.length, up.evil.seen.length],
});

test('its client gets what it asks for, with a host and an organization of the list and without', async () => {
  const [host, org] = [target('azure'), ORG];
  for (const given of [[host, org], [undefined, undefined]]) {
    const since = up.azure.seen.length;
    const { items } = await client().getBuildRuns('shop', PAY, 'r-1', undefined, ...given, { top: 10 });
    assert.deepEqual(items.map(({ id, status }) => [id, status]), [[7, 2]]);
    assert.deepEqual(up.azure.seen.slice(since).filter(({ method }) => method === 'GET').map((one) => one.path).at(-1), '/acme/shop/_apis/build/builds');
  }
  assert.deepEqual((await client().getGitTags('shop', 'r-1', PAY, host, org)).items.map(({ name }) => name), ['v1']);
  assert.deepEqual((await client().getBuildRunLog('shop', PAY, 7, host, org)).log, ['built', 'done']);
  assert.match((await client().getReadme({ project: 'shop', repo: 'r-1', entityRef: PAY, host, org })).content, /pay/);
  // What the plugin refuses without them.
  const query = new URLSearchParams({ host, org });
  for (const [where, field, expected] of [['/projects', 'name', ['shop']], ['/all-teams', 'name', ['tillers']]]) {
    const answer = await get(`${where}?${query}`);
    assert.equal(answer.status, 200, await answer.clone().text());
    assert.deepEqual((await answer.json()).map((one) => one[field]), expected);
    assert.equal((await get(where)).status, 400, 'the plugin itself insists');
  }
  assert.equal((await get(`/users/u-1/team-ids?${query}`)).status, 200);
  const { decision, egress_rule: rule, caller } = await door.record((record) => record.method === 'CONNECT' && record.target === host);
  assert.deepEqual([decision, rule, caller], ['allow', 'plugins', 'portal']);
});

test('a host or an organization that is not on the list is refused at the edge, in every spelling, and nothing is called', async () => {
  await until('no tunnel to be left', async () => /stagedoor_calls_in_flight 0/.test(await (await door.admin('/metrics')).text()));
  await door.settled();
  const before = outside();
  const evil = target('evil');
  await assert.rejects(client().getBuildRuns('shop', PAY, 'r-1', undefined, evil, ORG, { top: 10 }), (error) => error.body.error.code === 'query_refused' && error.statusCode === 403);
  await assert.rejects(client().getReadme({ project: 'shop', repo: 'r-1', entityRef: PAY, host: evil, org: ORG }), /403/);
  await assert.rejects(client().getGitTags('shop', 'r-1', PAY, target('azure'), 'other'), /403/);
  const bad = [
    `host=${evil}&org=${ORG}`, `h%6fst=${evil}`, `host%5B%5D=${evil}`, `host[a]=${evil}`, `host=${target('azure')}&host=${evil}`, `host=${evil}%00&org=${ORG}`,
    `host=${target('azure')}@${evil}`, `host=${target('azure')}.${evil}`, `host=${target('azure').toUpperCase()}`, `org=../other&host=${target('azure')}`, 'org=', `host=${NAMES.azure}`,
  ];
  for (const query of bad) {
    for (const where of ['/projects', '/builds/shop', '/readme/shop/r-1', '/users/u-1/team-ids']) {
      const answer = await get(`${where}?entityRef=${PAY}&${query}`);
      assert.deepEqual([answer.status, (await answer.json()).error.code], [403, 'query_refused'], `${where}?${query}`);
    }
  }
  await door.settled();
  assert.deepEqual(outside(), before);
  const refused = door.records().filter(({ code }) => code === 'query_refused');
  assert.equal(refused.length, bad.length * 4 + 3);
  for (const { decision, listener, caller, route } of refused) assert.deepEqual([decision, listener, caller, route.split('.')[0]], ['deny', 'edge', 'user:default/ada', 'azure-devops']);
});

test('without a list they are taken away, and the plugin asks where it is configured to', async () => {
  const [evil, base] = [target('evil'), `http://127.0.0.1:${listless}`];
  const { items } = await client(base).getBuildRuns('shop', PAY, 'r-1', undefined, evil, 'x', { top: 10 });
  assert.deepEqual(items.map(({ id }) => id), [7]);
  assert.equal((await get(`/projects?host=${evil}&org=x`, base)).status, 400);
  assert.deepEqual([up.evil.connected, up.evil.seen], [[], []]);
});

test('past the edge the same caller has the token sent wherever they say', async () => {
  await client(portal.url).getBuildRuns('shop', PAY, 'r-1', undefined, target('evil'), 'x', { top: 10 }).catch(() => {});
  assert.ok(up.evil.seen.some(({ headers }) => headers.authorization === `Basic ${Buffer.from(`PAT:${PAT}`).toString('base64')}`));
});
