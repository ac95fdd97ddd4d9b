'use strict';
// A real Backstage behind the proxy, as people and its plugins use it: sign-in at a real provider,
// cookies, tokens on behalf of someone, and what a plugin sees of what was verified.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { backstage, callback, threeRoutes } = require('../rig/backstage');
const { browser } = require('../rig/browser');
const { oidc } = require('../rig/oidc');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');
const { read } = require('../rig/token');
const { upstream } = require('../rig/upstream');

// As an operator makes one for a job: `openssl rand -hex 24`.
const STATIC = 'c0ffee8f3ca9d1e7b24c5f9a0d1b2c3d4e5f60718293a4b5';
let db; let idp; let portal; let door; let up;
const config = (port, outer) => (ports, own) => {
  fs.writeFileSync(`${own}/ci-token`, STATIC);
  return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  tokens: {ci: {token_file: ${own}/ci-token, caller: "external:ci", workspaces: [payments]}}
  issuers:
    portal:
      kind: backstage
      issuer: http://127.0.0.1:${outer ?? ports.edge}/api/auth
      audiences: [catalog, stage]
      algorithms: [ES256]
      keys: {backstage_url: "http://127.0.0.1:${port}"}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 1000/s, burst: 1000}}
upstreams: {portal: {url: "http://127.0.0.1:${port}", preserve_host: true}}
presets:
- {preset: backstage, upstream: portal, listeners: [edge], detail: full, routes: {signals: {timeouts: {upgrade: 1s}}}}
routes:
- {name: stage, methods: [GET], path: /api/stage/**, upstream: portal, plugin: stage, class: read}
- {name: proxied, methods: [GET, POST], path: "/api/proxy/{endpoint}/**", upstream: portal, plugin: proxied, class: read}`;
};
before(async () => {
  const [base, port] = await Promise.all([postgres(), freePort()]);
  db = base;
  up = await upstream();
  door = await stagedoor(config(port));
  idp = await oidc({ callbacks: [callback(door.url)] });
  portal = await backstage({ port, baseUrl: door.url, postgres: db, oidc: idp, endpoints: threeRoutes(up.url),
    env: { APP_CONFIG_backend_auth_externalAccess: JSON.stringify([{ type: 'static', options: { token: STATIC, subject: 'ci' } }]) },
  });
  // Groups are saved at sign-in, and before the catalog was read there are none.
  await until('the catalog', async () => {
    const { backstageIdentity: { token } } = await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json();
    const { claims } = await (await fetch(`${portal.url}/api/auth/v1/userinfo`, { headers: { authorization: `Bearer ${token}` } })).json();
    return claims.ent.length > 1;
  });
});
after(async () => { await portal?.stop(); await door?.stop(); await idp?.stop(); await up?.stop(); await db?.stop(); });

const get = (path, token, headers = {}) => fetch(`${door.url}${path}`, { headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...headers } });
const guest = async () => (await (await get('/api/auth/guest/refresh')).json()).backstageIdentity.token;

test('people sign in at the provider through the proxy, and each cookie stays a line of its own', async () => {
  const signIn = async (base) => {
    const user = browser();
    const { answer, seen } = await user.follow(`${base}/api/auth/oidc/start?env=development&scope=openid%20profile%20email`);
    return { user, seen, page: await answer.text(), status: answer.status };
  };
  const { user, seen, page, status } = await signIn(door.url);
  assert.equal(status, 200, `${seen.join('\n')}\n${page}`);
  const [, text] = /decodeURIComponent\('([^']+)'\)/.exec(page) ?? [];
  const { response, error } = JSON.parse(decodeURIComponent(text));
  assert.equal(error, undefined);
  assert.equal(read(response.backstageIdentity.token).claims.sub, 'user:default/ada');
  const first = (await fetch(`${door.url}/api/auth/oidc/start?env=development&scope=openid`, { redirect: 'manual' })).headers.getSetCookie();
  const direct = (await fetch(`${portal.url}/api/auth/oidc/start?env=development&scope=openid`, { redirect: 'manual' })).headers.getSetCookie();
  const names = (lines) => lines.map((line) => line.split('=')[0]);
  assert.deepEqual(names(first), names(direct));
  assert.ok(first.length >= 2);
  assert.ok([...user.jar.values()].some((cookie) => cookie.name === 'connect.sid'));
});

test('a plugin sees the caller, workspace and plugin that were verified, and no others', async () => {
  const forged = { 'x-orbit-user-id': 'root', 'X_Orbit_Workspace_Id': 'billing', 'x-orbit-plugin-id': 'admin' };
  const answer = await get('/api/stage/echo', await guest(), { ...forged, 'x-orbit-workspace-id': 'payments' });
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  const { headers } = JSON.parse(text);
  const lines = [];
  for (let i = 0; i < headers.length; i += 2) if (/^x.orbit/i.test(headers[i])) lines.push([headers[i].toLowerCase(), headers[i + 1]]);
  assert.deepEqual(Object.fromEntries(lines), { 'x-orbit-workspace-id': 'payments', 'x-orbit-user-id': 'user:default/ada', 'x-orbit-plugin-id': 'stage' });
  assert.equal(lines.length, 3, 'each once');
});

test('a token that a plugin shows on behalf of a user passes where it is meant to, as that user', async () => {
  const user = await guest();
  const { token } = await (await get('/api/stage/token?target=catalog', user)).json();
  const answer = await get('/api/catalog/entities?filter=kind=component', token);
  assert.equal(answer.status, 200, await answer.text());
  const record = await door.record((r) => r.route === 'backstage.catalog' && r.decision === 'allow');
  assert.deepEqual([record.caller, record.on_behalf_of, record.groups], ['plugin:stage', 'user:default/ada', ['user:default/ada', 'group:default/payments-dev']]);
  const foreign = await (await get('/api/stage/token?target=scaffolder', user)).json();
  assert.equal((await (await get('/api/catalog/entities', foreign.token)).json()).error.code, 'token_audience_wrong');
});

test('a proxy that has just started learns all it needs from one request, whichever token it brings', async () => {
  const user = await guest();
  const { token: plugin } = await (await get('/api/stage/token?target=catalog', user)).json();
  const cookie = (await get('/api/stage/cookie', user)).headers.getSetCookie().find((line) => line.startsWith('backstage-auth='));
  const fresh = async (ask) => {
    const other = await stagedoor(config(new URL(portal.url).port, door.ports.edge));
    try {
      await ask(other);
      const [record] = await until('its record', async () => { const all = other.records(); return all.length && all; });
      assert.deepEqual([record.decision, record.workspace, record.groups?.includes('group:default/payments-dev')], ['allow', 'payments', true], JSON.stringify(record));
    } finally { await other.stop(); }
  };
  await fresh((other) => fetch(`${other.url}/api/stage/echo`, { headers: { authorization: `Bearer ${user}` } }));
  await fresh((other) => fetch(`${other.url}/api/catalog/entities`, { headers: { authorization: `Bearer ${plugin}` } }));
  await fresh((other) => fetch(`${other.url}/api/app/x`, { headers: { cookie: cookie.split(';')[0] } }));
  const signals = (base) => new Promise((resolve) => {
    const socket = new WebSocket(`${base.replace('http', 'ws')}/api/signals`, [user]);
    socket.on('open', () => { socket.close(); resolve(true); });
    socket.on('error', () => resolve(false));
  });
  // Backstage never answers the first upgrade after its start.
  await until('signals', () => signals(door.url));
  await fresh((other) => signals(other.url));
});

test('a limited token is no bearer token, and its cookie opens nothing but what takes it', async () => {
  const user = await guest();
  const set = await get('/api/stage/cookie', user);
  const cookies = set.headers.getSetCookie().filter((line) => line.startsWith('backstage-auth='));
  assert.equal(cookies.length, 1);
  const limited = cookies[0].slice('backstage-auth='.length).split(';')[0];
  const bearer = await get('/api/catalog/entities', limited);
  const cookie = await get('/api/catalog/entities', undefined, { cookie: `backstage-auth=${limited}` });
  assert.deepEqual([bearer.status, (await bearer.json()).error.code], [401, 'token_type_wrong']);
  assert.deepEqual([cookie.status, (await cookie.json()).error.code], [401, 'caller_missing']);
});

test('the proxy plugin hands on what its kind of route says, and none of our headers', async () => {
  const user = await guest();
  assert.equal((await get('/api/proxy/require/x', user, { 'idempotency-key': 'k', 'x-orbit-workspace-id': 'payments' })).status, 200);
  const { headers } = up.last();
  assert.deepEqual([headers.authorization, headers['idempotency-key'], headers['x-orbit-user-id']], [undefined, 'k', undefined]);
  assert.ok(headers['x-request-id'], 'the id of the exchange arrives: it is allowed by name');
});

test('a static token of `externalAccess` passes as who it is, to Backstage too, and is told of on record', async () => {
  const answer = await get('/api/catalog/entities?filter=kind=component', STATIC);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  assert.equal(JSON.parse(text)[0].metadata.name, 'pay');
  const whoami = await (await get('/api/stage/whoami', STATIC)).json();
  assert.deepEqual([whoami.type, whoami.subject], ['service', 'ci'], 'as Backstage itself calls it');
  await door.settled();
  const record = await door.record((r) => r.route === 'backstage.catalog' && r.caller === 'external:ci');
  assert.deepEqual([record.decision, record.proof, record.workspace], ['allow', 'static_token', 'payments']);
  assert.equal((await (await get('/api/catalog/entities', STATIC.replace('c0ffee', 'c0ffed'))).json()).error.code, 'token_malformed');
  assert.ok(!JSON.stringify(door.written()).includes(STATIC.slice(0, 12)));
});
