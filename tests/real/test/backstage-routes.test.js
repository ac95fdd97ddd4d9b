'use strict';
// What the routers of a real Backstage serve, beside the rows of the presets: each route has a row that decides it on purpose,
// and what discovery announces can be opened. Signing in as a program does, and WebSockets of a plugin.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { backstage } = require('../rig/backstage');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');

const ROOT = path.join(__dirname, '../../..');
const PRESETS = ['backstage', 'argocd', 'azure-devops', 'harbor', 'jenkins', 'kubernetes', 'pagerduty', 'sonarqube', 'spacelift', 'vault'];
const PLUGINS = [
  '@backstage/plugin-catalog-backend-module-unprocessed', '@backstage/plugin-devtools-backend', '@backstage/plugin-kubernetes-backend',
  '@backstage/plugin-mcp-actions-backend', '@backstage/plugin-notifications-backend', '@backstage/plugin-scaffolder-backend',
  '@backstage/plugin-search-backend', '@backstage/plugin-search-backend-module-catalog', '@backstage/plugin-search-backend-module-pg',
  '@backstage/plugin-techdocs-backend', '@backstage/plugin-user-settings-backend', '@backstage-community/plugin-argocd-backend',
  '@backstage-community/plugin-azure-devops-backend', '@backstage-community/plugin-vault-backend', '@digitalist-open-cloud/backstage-plugin-harbor-backend',
  '@pagerduty/backstage-plugin-backend',
  '@backstage-community/plugin-jenkins-backend', '@backstage-community/plugin-sonarqube-backend', '@roadiehq/backstage-plugin-argo-cd-backend',
  '@spacelift-io/backstage-integration-backend',
];
const NOWHERE = 'https://127.0.0.1:1';
const CLIENT = { id: 'a-tool', secret: 'a-secret-of-the-tool', redirect: 'http://127.0.0.1:8055/callback' };
/** As docs/backstage.md has it. */
const OAUTH = ['oauth-client', 'oauth-authorize', 'oauth-token', 'oauth-revoke', 'oauth-session', 'oauth-approve', 'oauth-reject', 'mcp'];
let db; let portal; let door; let served;
const config = (port, open) => (ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    portal: {kind: backstage, issuer: "http://127.0.0.1:${ports.edge}/api/auth", audiences: [catalog, stage], algorithms: [ES256], keys: {backstage_url: "http://127.0.0.1:${port}"}}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 1000/s, burst: 1000}}
upstreams: {portal: {url: "http://127.0.0.1:${port}", preserve_host: true}}
presets:
${PRESETS.map((preset) => `- {preset: ${preset}, upstream: portal, detail: full${preset === 'backstage' ? `, open: [${open}]` : ''}}`).join('\n')}
- {preset: argocd, name: argocd-community, prefix: /api/backstage-community-argocd, upstream: portal, detail: full}
routes:
- {name: stage, methods: [GET], path: /api/stage/**, upstream: portal, plugin: stage, class: read}
- {name: socket, methods: [GET], path: /api/stage/socket, upstream: portal, plugin: stage, class: read, options: {upgrade: true}}`;

before(async () => {
  let port;
  [db, port] = await Promise.all([postgres(), freePort()]);
  door = await stagedoor(config(port, OAUTH));
  const routes = `${door.folder}/routes`;
  portal = await backstage({
    port, baseUrl: door.url, postgres: db, plugins: PLUGINS,
    auth: {
      clientIdMetadataDocuments: { enabled: true }, experimentalRefreshToken: { enabled: true },
      staticClients: [{ clientId: CLIENT.id, clientSecret: CLIENT.secret, redirectUris: [CLIENT.redirect] }],
    },
    config: `
argocd: {username: a, password: b, appLocatorMethods: [{type: config, instances: [{name: main, url: "${NOWHERE}"}]}]}
azureDevOps: {host: "127.0.0.1:1", organization: acme, token: ${'p'.repeat(52)}}
events: {http: {topics: [github]}}
jenkins: {baseUrl: "${NOWHERE}", username: a, apiKey: b}
kubernetes: {serviceLocatorMethod: {type: multiTenant}, clusterLocatorMethods: [{type: config, clusters: []}]}
harbor: {baseUrl: "${NOWHERE}", username: a, password: b}
pagerDuty: {apiToken: a, apiBaseUrl: "${NOWHERE}"}
vault: {baseUrl: "${NOWHERE}", token: a, schedule: false}
sonarqube: {baseUrl: "${NOWHERE}", apiKey: a}
spacelift: {hostUrl: "127.0.0.1:1", apiKey: a, apiSecret: b}
techdocs: {builder: local, generator: {runIn: local}, publisher: {type: local}}
`,
    // In production Backstage takes no client without TLS.
    env: { NODE_OPTIONS: `-r ${path.join(__dirname, '../rig/routes.js')}`, ROUTES: routes, NODE_ENV: 'development' },
  });
  process.kill(portal.pid, 'SIGUSR2');
  await until('its routes', async () => fs.existsSync(routes));
  // Groups are saved at sign-in, and before the catalog was read there are none.
  await until('the catalog', async () => {
    const { backstageIdentity: { token } } = await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json();
    return (await (await fetch(`${portal.url}/api/auth/v1/userinfo`, { headers: { authorization: `Bearer ${token}` } })).json()).claims.ent.length > 1;
  });
  served = fs.readFileSync(routes, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
});
after(async () => { await portal?.stop(); await door?.stop(); await db?.stop(); });

const get = (at, token, options = {}) => fetch(`${door.url}${at}`, { redirect: 'manual', ...options, headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...options.headers } });
const guest = async () => (await (await get('/api/auth/guest/refresh')).json()).backstageIdentity.token;
/** Asks for a path as it stands, and answers the id of the exchange. */
const ask = (method, at) => new Promise((resolve, reject) => {
  http.request(`${door.url}${at}`, { method, headers: { 'content-length': 0 } }, (answer) => {
    answer.resume().on('close', () => resolve(answer.headers['x-request-id']));
  }).on('error', reject).end();
});
/** The records of exchanges, by their id. */
/** Records by id, once these are among them: an answer is there a moment before its record. */
const recorded = (ids) => until('their records', async () => {
  await door.settled();
  const all = new Map(door.records().map((record) => [record.id, record]));
  return ids.every((id) => all.has(id)) && all;
}, 10000);

/** Rows for whatever no other row takes. */
const CATCH_ALLS = ['backstage.frontend', 'backstage.other-apis', 'backstage.other-internals', 'backstage.other-plugins', undefined];
/** What Express calls a route and nobody is served by. */
const NO_ROUTES = ['/api', '/api/auth/:provider', '/api/auth/oidc'];

test('each route that its routers serve has a row that decides it on purpose, and each row a route', async () => {
  assert.ok(served.length > 200, `${served.length} routes`);
  // What each plugin has is asked of three alone.
  const alike = ({ path: at }) => /^\/api\/(?!catalog|proxy|signals)[\w-]+\/\.(backstage|well-known\/backstage)\//.test(at);
  const asked = served.filter((route) => !NO_ROUTES.includes(route.path) && !alike(route)).flatMap(({ method, path: at, prefix }) => {
    // The scaffolder's router is mounted where Express does not tell.
    const there = (/^\/(v2|openapi\.json)/.test(at) ? `/api/scaffolder${at}` : at).replace(/:(\w+)\(\*\)/g, 'x/y').replace(/:\w+/g, 'x') + (prefix ? '/x' : '');
    return (method !== 'ANY' ? [method] : at.includes('static') ? ['GET'] : ['GET', 'POST']).map((each) => ({ method: each, there, own: there.startsWith('/api/stage/') }));
  });
  const rest = [...asked];
  await Promise.all(Array.from({ length: 8 }, async () => {
    for (let one = rest.pop(); one; one = rest.pop()) one.id = await ask(one.method, one.there);
  }));
  const rows = new Map([...await recorded(asked.map(({ id }) => id))].map(([id, { route }]) => [id, route]));
  const missing = asked.filter(({ id, own }) => !own && CATCH_ALLS.includes(rows.get(id))).map(({ method, there, id }) => `${method} ${there} ${rows.get(id)}`);
  assert.deepEqual(missing, []);

  const hit = new Set([...rows.values()].map((name) => name?.replace('argocd-community', 'argocd')));
  const named = (preset) => [...fs.readFileSync(`${ROOT}/config/presets/${preset}.yaml`, 'utf8').matchAll(/(?:\{|- )name: ([\w-]+)[,\n]/g)].map(([, name]) => `${preset}.${name}`);
  const idle = PRESETS.flatMap(named).filter((name) => !hit.has(name));
  assert.deepEqual(idle.filter((name) => !/other-spelling/.test(name)).sort(), [
    // What only older versions serve or ask for.
    'argocd.app-revision', 'azure-devops.build-definitions', 'azure-devops.repo-builds', 'backstage.oauth-register', 'harbor.team-artifacts',
    'pagerduty.all-services', 'pagerduty.auto-match', 'pagerduty.filtered-services',
    // Parts of a prefix that Express tells as one, what depends on the config, and what is for all plugins alike.
    ...['attach', 'exec', 'node-proxy', 'old-proxy', 'old-watch', 'pod-proxy', 'port-forward', 'secrets', 'secrets-of-namespace', 'service-proxy'].map((name) => `kubernetes.${name}`),
    ...['app', 'app-cookie', 'app-health', 'app-internals', 'app-jwks', 'frontend', 'oauth-consent', 'proxy', 'proxy-writes', 'sign-out', 'techdocs-cookie'].map((name) => `backstage.${name}`),
    ...['metrics', 'other-apis', 'other-internals', 'other-plugins', 'preflight'].map((name) => `backstage.${name}`),
  ].sort());
});

test('what discovery announces is open where the manual says so, and closed for good otherwise', async () => {
  const announced = new Set();
  const read = async (at) => { const answer = await get(at); assert.equal(answer.status, 200, at); return answer.json(); };
  for (const at of ['/api/auth/.well-known/openid-configuration', '/.well-known/oauth-authorization-server', '/.well-known/oauth-protected-resource/api/mcp-actions/v1', '/api/auth/.well-known/oauth-client/cli.json']) {
    const found = JSON.stringify(await read(at));
    for (const [url] of found.matchAll(/https?:\/\/[^"]+/g)) if (url.startsWith(door.url)) announced.add(url.slice(door.url.length));
  }
  announced.delete('/api/auth');
  assert.ok(announced.has('/api/auth/v1/authorize') && announced.has('/api/auth/v1/token') && announced.has('/api/mcp-actions/v1'), [...announced].join());
  const ids = [];
  for (const at of announced) for (const method of /token|revoke|mcp/.test(at) ? ['POST'] : ['GET']) ids.push([at, await ask(method, at)]);
  const records = await recorded(ids.map(([, id]) => id));
  for (const [at, id] of ids) {
    assert.notEqual(records.get(id).code, 'route_closed', at);
    assert.ok(!CATCH_ALLS.includes(records.get(id).route), `${at} ${records.get(id).route}`);
  }
  assert.equal((await (await get('/api/auth/v1/offline-sessions/revoke', await guest(), { method: 'POST' })).json()).error.code, 'route_closed');
  const manual = fs.readFileSync(`${ROOT}/docs/backstage.md`, 'utf8');
  assert.ok(manual.includes(`open: [${OAUTH.join(', ')}]`), 'the manual has the same list');
});

const form = (fields) => ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fields) });
const code = async (client, more = {}) => {
  const verifier = crypto.randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    client_id: client, redirect_uri: CLIENT.redirect, response_type: 'code', scope: 'openid offline_access', state: 's',
    code_challenge: crypto.createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256', ...more,
  });
  const begun = await get(`/api/auth/v1/authorize?${query}`);
  assert.equal(begun.status, 302, await begun.text());
  const page = new URL(begun.headers.get('location'));
  const session = page.pathname.split('/').at(-1);
  assert.equal(page.pathname, `/oauth2/authorize/${session}`, 'the frontend’s page asks');
  assert.equal((await get(`/api/auth/v1/sessions/${session}/approve`, undefined, { method: 'POST' })).status, 401, 'nobody in particular approves nothing');
  const user = await guest();
  assert.equal((await (await get(`/api/auth/v1/sessions/${session}`, user)).json()).id, session);
  const approved = await (await get(`/api/auth/v1/sessions/${session}/approve`, user, { method: 'POST' })).json();
  return { code: new URL(approved.redirectUrl).searchParams.get('code'), verifier };
};

test('the command line signs in, stays signed in and signs out', async () => {
  const client = `${door.url}/api/auth/.well-known/oauth-client/cli.json`;
  const { code: given, verifier } = await code(client);
  const answer = await get('/api/auth/v1/token', undefined, form({ grant_type: 'authorization_code', code: given, redirect_uri: CLIENT.redirect, code_verifier: verifier }));
  const tokens = await answer.json();
  assert.equal(answer.status, 200, JSON.stringify(tokens));
  assert.equal((await get('/api/catalog/entities', tokens.access_token)).status, 200);
  const renewed = await (await get('/api/auth/v1/token', undefined, form({ grant_type: 'refresh_token', refresh_token: tokens.refresh_token, client_id: client }))).json();
  assert.equal((await get('/api/catalog/entities', renewed.access_token)).status, 200, JSON.stringify(renewed));
  assert.equal((await get('/api/auth/v1/revoke', undefined, form({ token: renewed.refresh_token, client_id: client }))).status, 200);
  assert.notEqual((await get('/api/auth/v1/token', undefined, form({ grant_type: 'refresh_token', refresh_token: renewed.refresh_token, client_id: client }))).status, 200);
  const { decision, class: kind } = await door.record((r) => r.route === 'backstage.oauth-approve' && r.decision === 'allow');
  assert.deepEqual([decision, kind], ['allow', 'action']);
});

test('a static client proves itself by its secret, which is no token of ours', async () => {
  const { code: given, verifier } = await code(CLIENT.id);
  const exchange = (secret) => get('/api/auth/v1/token', undefined, {
    ...form({ grant_type: 'authorization_code', code: given, redirect_uri: CLIENT.redirect, code_verifier: verifier }),
    headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${CLIENT.id}:${secret}`).toString('base64')}` },
  });
  const wrong = await exchange('another');
  assert.deepEqual([wrong.status, (await wrong.json()).error], [401, 'invalid_client'], 'Backstage’s own answer passes');
  const tokens = await (await exchange(CLIENT.secret)).json();
  assert.equal((await get('/api/catalog/entities', tokens.access_token)).status, 200, JSON.stringify(tokens));
  // With it a model uses what plugins offer.
  const asked = await get('/api/mcp-actions/v1', tokens.access_token, {
    method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params: { protocolVersion: '2025-03-26', capabilities: {}, clientInfo: { name: 'x', version: '1' } } }),
  });
  assert.match(await asked.text(), /"serverInfo"/);
});

test('a plugin’s WebSocket takes the token as a protocol or as Bearer, and nobody without one', async () => {
  const token = await guest();
  const open = (protocols, headers) => new Promise((resolve) => {
    const socket = new WebSocket(`${door.url.replace('http', 'ws')}/api/stage/socket`, protocols, { headers });
    socket.on('message', (data) => { resolve(JSON.parse(data).userEntityRef); socket.terminate(); });
    socket.on('unexpected-response', (_, answer) => { resolve(answer.statusCode); answer.resume(); });
    socket.on('error', () => {});
  });
  assert.equal(await open([token]), 'user:default/ada');
  assert.equal(await open(['graphql-ws', token]), 'user:default/ada');
  assert.equal(await open([], { authorization: `Bearer ${token}` }), 'user:default/ada');
  assert.equal(await open([]), 401);
  assert.equal(await open(['graphql-ws']), 401);
  // On a route that lets none through, it is an ordinary request.
  const plain = new WebSocket(`${door.url.replace('http', 'ws')}/api/stage/echo`, [token]);
  assert.equal(await new Promise((resolve) => { plain.on('unexpected-response', (_, answer) => { resolve(answer.statusCode < 500); answer.resume(); }); plain.on('open', () => resolve('open')); plain.on('error', () => {}); }), true);
});

test('a posted query of the search, notifications, a key with a slash and the scaffolder’s stream pass', async () => {
  const token = await guest();
  // This release serves no POST there yet: the answer is Backstage’s own.
  assert.doesNotMatch(await (await get('/api/search/query', token, form({ term: 'pay' }))).text(), /route_|_refused/);
  assert.equal((await door.record((r) => r.method === 'POST' && r.path === '/api/search/query')).decision, 'allow');
  assert.equal((await get('/api/search/query?term=pay', token)).status, 200);
  assert.deepEqual(await (await get('/api/notifications/status', token)).json(), { unread: 0, read: 0 });
  const key = '/api/user-settings/buckets/stars/keys/component/pay';
  assert.equal((await get(key, token, { ...form({ value: 'x' }), method: 'PUT' })).status, 200);
  assert.equal((await (await get(key, token)).json()).value, 'x');
  // A run that does not exist is still a stream: Backstage waits for its first event.
  const events = await get('/api/scaffolder/v2/tasks/00000000-0000-4000-8000-000000000000/eventstream', token, { signal: AbortSignal.timeout(20000), headers: { accept: 'text/event-stream' } });
  assert.match(events.headers.get('content-type') ?? '', /event-stream|json/, String(events.status));
  await events.body.cancel();
});
