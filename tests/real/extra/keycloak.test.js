'use strict';
// Keycloak itself, with a realm as the platform's: nested roles, no audience mapper, tokens of 300 s.
// SAMPLES=1 prints what its tokens say.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { keycloak, missing } = require('../rig/keycloak');
const { stagedoor } = require('../rig/stagedoor');
const { read } = require('../rig/token');
const { upstream } = require('../rig/upstream');

const skip = missing();
const show = (what, value) => { if (process.env.SAMPLES) console.log(what, JSON.stringify(value)); };

let idp; let up; let door;
before(async () => {
  if (skip) return;
  const begun = Date.now();
  idp = await keycloak();
  show('Keycloak was ready after ms', Date.now() - begun);
  up = await upstream();
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    keycloak:
      issuer: ${idp.issuer}
      audiences: [account]
      authorized_parties: [${idp.client.id}]
      claims: {subject: preferred_username, roles: [resource_access, ${idp.client.id}, roles]}
workspaces: {named: {payments: {callers: [ada, vic, una]}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: act, methods: [POST], path: /act/**, upstream: up, class: action, options: {access: {roles: [developer]}}}`);
});
after(async () => { await door?.stop(); await up?.stop(); await idp?.stop(); });

const token = async (user) => (await idp.signIn(user)).access_token;
const ask = async (method, path, bearer) => {
  const answer = await fetch(`${door.url}${path}`, { method, headers: { authorization: `Bearer ${bearer}` } });
  return answer.status === 200 ? 200 : `${answer.status} ${(await answer.json()).code}`;
};

test('its tokens are verified, with roles from a nested claim and the party beside the audience', { skip }, async () => {
  const ada = await token('ada');
  const { header, claims } = read(ada);
  show('access token', { header, claims });
  assert.deepEqual([header.typ, claims.typ, claims.aud, claims.azp], ['JWT', 'Bearer', 'account', idp.client.id]);
  assert.deepEqual(claims.resource_access[idp.client.id].roles, ['developer']);
  assert.equal(claims.groups, undefined);
  assert.equal(claims.exp - claims.iat, 300);
  assert.equal(await ask('GET', '/read/x', ada), 200);
  assert.equal(up.last().headers['x-orbit-user-id'], 'ada');
  assert.equal(await ask('POST', '/act/x', ada), 200);
  assert.equal(await ask('POST', '/act/x', await token('vic')), '403 access_denied');
});

test('a token of a user without default roles names no audience, and is refused', { skip }, async () => {
  const una = await token('una');
  show('access token without an audience', read(una).claims);
  assert.equal(read(una).claims.aud, undefined);
  assert.equal(await ask('GET', '/read/x', una), '401 token_audience_wrong');
});

test('an ID token and a refresh token are not access tokens', { skip }, async () => {
  const { id_token: id, refresh_token: refresh } = await idp.signIn('ada', { scope: 'openid' });
  show('ID token', read(id));
  show('refresh token', read(refresh));
  assert.equal(await ask('GET', '/read/x', id), '401 token_type_wrong');
  assert.match(await ask('GET', '/read/x', refresh), /^401 /);
});

test('a token that was changed to come from another realm is refused', { skip }, async () => {
  const [header, payload, signature] = (await token('ada')).split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url'));
  const edited = Buffer.from(JSON.stringify({ ...claims, iss: claims.iss.replace('pcp', 'master') })).toString('base64url');
  assert.equal(await ask('GET', '/read/x', `${header}.${edited}.${signature}`), '401 token_issuer_unknown');
});

test('a key that it adds is taken up, and tokens of one that it withdraws are refused', { skip }, async () => {
  const old = await token('ada');
  assert.equal(await ask('GET', '/read/x', old), 200);
  await idp.addKey();
  const young = await token('ada');
  assert.notEqual(read(young).header.kid, read(old).header.kid);
  assert.equal(await ask('GET', '/read/x', young), 200);
  assert.equal(await ask('GET', '/read/x', old), 200, 'the old key is still served');
  await idp.dropOldKeys();
  await idp.addKey();
  assert.equal(await ask('GET', '/read/x', await token('ada')), 200);
  assert.equal(await ask('GET', '/read/x', old), '401 token_key_unknown');
});
