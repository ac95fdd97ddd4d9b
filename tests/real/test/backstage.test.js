'use strict';
// A real Backstage behind the proxy (edge) and in front of it (sidecar, towards DXCP).

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { backstage } = require('../rig/backstage');
const { dxcp } = require('../rig/dxcp');
const { oidc } = require('../rig/oidc');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');
const { freePort, until } = require('../rig/ports');

const ROLES = 'https://dxcp.example/claims/roles';
let db; let idp; let control; let portal; let door; let sidecarPort; let portalPort;

before(async () => {
  [db, portalPort, sidecarPort] = await Promise.all([postgres(), freePort(), freePort()]);
  idp = await oidc({ claims: { [ROLES]: ['dxcp-delivery-owners'], workspaces: ['payments'] } });
  control = await dxcp({ issuer: idp.issuer, audience: idp.resource });
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  sidecar: {kind: reverse, address: 127.0.0.1:${sidecarPort}, workspace: payments}
identity:
  issuers:
    portal:
      kind: backstage
      issuer: http://127.0.0.1:${ports.edge}/api/auth
      audiences: [catalog, proxy]
      algorithms: [ES256]
      keys: {backstage_url: "http://127.0.0.1:${portalPort}"}
    idp:
      issuer: ${idp.issuer}
      audiences: ["${idp.resource}"]
      claims: {roles: "${ROLES}"}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
upstreams:
  portal: {url: "http://127.0.0.1:${portalPort}", preserve_host: true}
  dxcp: {url: ${control.url}, authority: delivery}
presets:
- {preset: backstage, upstream: portal, listeners: [edge], detail: full}
- {preset: dxcp, upstream: dxcp, listeners: [sidecar], actions: {roles: [dxcp-delivery-owners]}}
routes:
- {name: to-dxcp, listeners: [edge], methods: [GET, POST], path: /api/proxy/dxcp/**, upstream: portal, plugin: dxcp, class: read}`);
  portal = await backstage({
    port: portalPort, baseUrl: `http://127.0.0.1:${door.ports.edge}`, postgres: db,
    endpoints: JSON.stringify({
      '/dxcp': { target: `http://127.0.0.1:${sidecarPort}`, credentials: 'dangerously-allow-unauthenticated', allowedHeaders: ['Authorization', 'Idempotency-Key', 'X-Request-Id', 'Idempotency-Replayed'], allowedMethods: ['GET', 'POST'] },
    }),
  });
});
after(async () => { await door?.stop(); await portal?.stop(); await control?.stop(); await idp?.stop(); await db?.stop(); });

const get = (path, token, options = {}) => fetch(`${door.url}${path}`, { ...options, headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...options.headers } });
const signIn = async () => (await (await get('/api/auth/guest/refresh')).json()).backstageIdentity.token;

test('what nobody could sign in without passes, and the rest does not', async () => {
  const status = async (path, options) => (await get(path, undefined, options)).status;
  assert.equal(await status('/.backstage/health/v1/readiness'), 200);
  assert.equal(await status('/api/auth/.well-known/jwks.json'), 200);
  assert.equal(await status('/api/catalog/.backstage/auth/v1/jwks.json'), 200);
  assert.equal(await status('/api/auth/guest/refresh'), 200);
  assert.equal(await status('/api/catalog/entities'), 401);
  assert.equal(await status('/api/devtools/info'), 403);
  assert.equal(await status('/api/nobody/knows'), 403);
  const preflight = await get('/api/catalog/entities', undefined, { method: 'OPTIONS', headers: { origin: door.url, 'access-control-request-method': 'GET' } });
  assert.equal(preflight.status, 204);
  const denied = await (await get('/api/catalog/entities')).json();
  assert.equal(denied.error.name, 'AuthenticationError', 'in the envelope that its clients read');
  assert.equal(denied.response.statusCode, 401);
});

test('its own user token is verified by its keys, with the groups that it does not carry', async () => {
  const token = await signIn();
  const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
  assert.equal(JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).typ, 'vnd.backstage.user');
  const entities = await until('the catalog', async () => {
    const answer = await get('/api/catalog/entities?filter=kind=component', token);
    const found = await answer.json();
    return found.length ? found : undefined;
  });
  assert.equal(entities[0].metadata.name, 'pay');
  const record = await door.record((r) => r.route === 'backstage.catalog' && r.decision === 'allow');
  assert.equal(record.caller, claims.sub);
  assert.equal(record.issuer, 'portal');
  assert.ok(record.groups.length > 0, 'groups come from user info');
});

test('a forged, foreign or limited token of Backstage is refused', async () => {
  const token = await signIn();
  const [header, payload, signature] = token.split('.');
  const edit = (part, change) => Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(part, 'base64url')), ...change })).toString('base64url');
  const code = async (text) => (await (await get('/api/catalog/entities', text)).json()).error.code;
  assert.equal(await code(`${header}.${edit(payload, { sub: 'user:default/root' })}.${signature}`), 'token_signature_wrong');
  assert.equal(await code(`${edit(header, { typ: 'vnd.backstage.limited-user' })}.${payload}.${signature}`), 'token_type_wrong');
  assert.equal(await code(`${edit(header, { kid: 'x' })}.${payload}.${signature}`), 'token_key_unknown');
  // Its limited user token is good in its cookie, on the paths that take it, and nowhere else.
  const { uip } = JSON.parse(Buffer.from(payload, 'base64url'));
  assert.ok(uip, 'the user token carries the limited one');
});

test('the proxy plugin reaches DXCP through the sidecar, and only its delivery surface', async () => {
  const token = await idp.token();
  const ask = (path, options) => get(`/api/proxy/dxcp${path}`, token, options);
  const status = await ask('/v1/services/pay/delivery-status?environment=prod');
  const text = await status.text();
  assert.equal(status.status, 200, text);
  assert.doesNotMatch(text, /engine/i);
  assert.equal(control.seen.at(-1).headers['x-orbit-workspace-id'], 'payments');
  assert.equal(control.seen.at(-1).headers['x-orbit-user-id'], 'portal');
  const before = control.seen.length;
  assert.equal((await ask('/v1/admin/system/rate-limits')).status, 403);
  assert.equal((await get('/api/proxy/dxcp/v1/%61dmin/system/rate-limits', token)).status, 403);
  assert.equal(control.seen.length, before, 'administration never reached it');
});

test('a deploy passes once, and two with one key run one after the other', async () => {
  const token = await idp.token();
  const deploy = (key) => fetch(`http://127.0.0.1:${sidecarPort}/v1/deployments`, {
    method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...(key ? { 'idempotency-key': key } : {}) },
    body: JSON.stringify({ service: 'pay', environment: 'prod', version: '1', changeSummary: 'x' }),
  });
  const both = await Promise.all([deploy('k1'), deploy('k1')]);
  assert.deepEqual(both.map((a) => a.status).sort(), [201, 409]);
  const again = await deploy('k1');
  assert.deepEqual([again.status, again.headers.get('idempotency-replayed')], [201, 'true']);
  const missing = await deploy();
  assert.equal(missing.status, 400);
  const body = await missing.json();
  assert.equal(body.code, 'IDMP_KEY_REQUIRED', 'its own errors pass');
  assert.equal(body.operator_hint, undefined);
  const record = await door.record((r) => r.route === 'dxcp.deploy' && r.status === 201);
  assert.ok(record.control_id && record.idempotency_key_sha256);
});

test('the long poll of the event bus outlives the usual timeouts', async () => {
  const token = await signIn();
  const answer = await get('/api/events/bus/v1/subscriptions/none/events', token);
  assert.ok([202, 403, 404].includes(answer.status), String(answer.status));
});

test('signals: the token stands in Sec-WebSocket-Protocol', async () => {
  const token = await signIn();
  const open = (protocols) => new Promise((resolve) => {
    const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/api/signals`, protocols);
    ws.on('open', () => { ws.terminate(); resolve('open'); });
    ws.on('unexpected-response', (_, answer) => { resolve(answer.statusCode); answer.resume(); });
    ws.on('error', () => {});
  });
  assert.equal(await open([]), 401, 'nobody in particular');
  // The first upgrade after a start of Backstage is never answered: ours ends it.
  const first = await open([token]);
  assert.ok(first === 'open' || first === 504, String(first));
  assert.equal(await open([token]), 'open');
  const record = await door.record((r) => r.route === 'backstage.signals' && r.upgraded);
  assert.equal(record.proof, 'websocket_protocol');
});
