'use strict';
// Keycloak itself, with a realm as the platform's: client roles given by groups, no audience mapper,
// tokens of 300 s. $KEYCLOAK is its folder.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const { start } = require('../rig/process');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');
const { freePort, until } = require('../rig/ports');

const realm = {
  realm: 'pcp', enabled: true, accessTokenLifespan: 300, sslRequired: 'none',
  clients: [{
    clientId: 'backstage', secret: 'backstage-secret', enabled: true, publicClient: false, protocol: 'openid-connect',
    directAccessGrantsEnabled: true, standardFlowEnabled: true, serviceAccountsEnabled: false, redirectUris: ['*'],
    defaultClientScopes: ['basic', 'profile', 'email', 'roles'],
  }],
  roles: { client: { backstage: [{ name: 'admin' }, { name: 'developer' }, { name: 'viewer' }] } },
  groups: ['admin', 'developer', 'viewer'].map((role) => ({ name: `platform-${role}s`, clientRoles: { backstage: [role] } })),
  users: [['ada', 'developer'], ['vic', 'viewer']].map(([username, role]) => ({
    username, enabled: true, email: `${username}@example.com`, emailVerified: true, firstName: username, lastName: 'Example',
    credentials: [{ type: 'password', value: username, temporary: false }], groups: [`/platform-${role}s`],
  })),
};

let keycloak; let up; let door; let port; let home;
before(async () => {
  port = await freePort();
  home = process.env.KEYCLOAK;
  fs.mkdirSync(`${home}/data/import`, { recursive: true });
  fs.writeFileSync(`${home}/data/import/pcp.json`, JSON.stringify(realm));
  fs.rmSync(`${home}/data/h2`, { recursive: true, force: true });
  keycloak = start(`${home}/bin/kc.sh`, ['start-dev', '--import-realm', `--http-port=${port}`, '--http-host=127.0.0.1', '--hostname-strict=false'], {
    detached: true, env: { ...process.env, JAVA_OPTS_APPEND: '-Xmx512m' },
  });
  await until('Keycloak', async () => {
    if (!keycloak.isRunning()) throw Object.assign(new Error(keycloak.output()), { fatal: true });
    return (await fetch(`http://127.0.0.1:${port}/realms/pcp/.well-known/openid-configuration`)).ok;
  }, 240000);
  up = await upstream();
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    keycloak:
      issuer: http://127.0.0.1:${port}/realms/pcp
      audiences: [account, backstage]
      authorized_parties: [backstage]
      claims: {subject: preferred_username, roles: [resource_access, backstage, roles]}
workspaces: {named: {payments: {callers: [ada, vic]}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: act, methods: [POST], path: /act/**, upstream: up, class: action, options: {access: {roles: [developer]}}}`);
});
after(async () => {
  await door?.stop(); await up?.stop();
  // Its script starts Java as a child: end the group.
  if (keycloak?.isRunning()) process.kill(-keycloak.pid, 'SIGKILL');
});

const token = async (user) => (await (await fetch(`http://127.0.0.1:${port}/realms/pcp/protocol/openid-connect/token`, {
  method: 'POST',
  body: new URLSearchParams({ grant_type: 'password', client_id: 'backstage', client_secret: 'backstage-secret', username: user, password: user }),
})).json()).access_token;
const ask = async (method, path, bearer) => {
  const answer = await fetch(`${door.url}${path}`, { method, headers: { authorization: `Bearer ${bearer}` } });
  return answer.status === 200 ? 200 : `${answer.status} ${(await answer.json()).code}`;
};

test('its tokens are verified, with roles from a nested claim and the party instead of an audience', async () => {
  const ada = await token('ada');
  const claims = JSON.parse(Buffer.from(ada.split('.')[1], 'base64url'));
  assert.deepEqual(claims.resource_access.backstage.roles, ['developer']);
  assert.equal(claims.exp - claims.iat, 300);
  // Without an audience mapper there may be no `aud` at all: then it is not ours to believe.
  const read = await ask('GET', '/read/x', ada);
  if (claims.aud) {
    assert.equal(read, 200);
    assert.equal(up.last().headers['x-orbit-user-id'], 'ada');
    assert.equal(await ask('POST', '/act/x', ada), 200);
    assert.equal(await ask('POST', '/act/x', await token('vic')), '403 access_denied');
  } else {
    assert.equal(read, '401 token_audience_wrong');
  }
});

test('a token of another client or realm is refused', async () => {
  const master = await (await fetch(`http://127.0.0.1:${port}/realms/master/protocol/openid-connect/certs`)).json();
  assert.ok(master.keys.length);
  const [header, payload, signature] = (await token('ada')).split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url'));
  const edited = Buffer.from(JSON.stringify({ ...claims, iss: claims.iss.replace('pcp', 'master') })).toString('base64url');
  assert.equal(await ask('GET', '/read/x', `${header}.${edited}.${signature}`), '401 token_issuer_unknown');
});
