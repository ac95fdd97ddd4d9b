'use strict';
// A real OpenID provider: discovery, rotation, outage, strangers' key ids.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { after, before, test } = require('node:test');
const { oidc } = require('../rig/oidc');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');
const { freePort, until } = require('../rig/ports');

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'];
const claims = { workspaces: ['payments'], groups: ['dev'], roles: ['deployer'] };
let up;
before(async () => { up = await upstream(); });
after(async () => { await up?.stop(); });

const config = (issuer, more = '') => (ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    idp: {issuer: "${issuer}", audiences: ["https://stagedoor.example"], algorithms: [${ALGORITHMS}], token_types: [at+jwt], authorized_parties: [portal]}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}, per_client: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, options: {access: {roles: [deployer]}}}
${more}`;
const ask = async (door, token) => {
  const answer = await fetch(`${door.url}/read/x`, { headers: { authorization: `Bearer ${token}` } });
  const body = await answer.json();
  return answer.status === 200 ? 200 : `${answer.status} ${body.code}`;
};

test('tokens of a certified provider are verified, whatever it signs with', async () => {
  const idp = await oidc({ claims, algorithms: ALGORITHMS });
  const door = await stagedoor(config(idp.issuer));
  for (const algorithm of ALGORITHMS) {
    idp.sign(algorithm);
    const token = await idp.token();
    assert.equal(JSON.parse(Buffer.from(token.split('.')[0], 'base64url')).alg, algorithm);
    assert.equal(await ask(door, token), 200, algorithm);
  }
  assert.equal(up.last().headers['x-orbit-user-id'], 'portal');
  assert.ok(idp.fetches() <= 2, `${idp.fetches()} fetches`);
  await door.stop(); await idp.stop();
});

test('keys that are rotated while it runs: new tokens pass at once, withdrawn ones no more', async () => {
  const idp = await oidc({ claims });
  const door = await stagedoor(config(idp.issuer));
  const old = await idp.token();
  assert.equal(await ask(door, old), 200);
  idp.rotate();
  assert.equal(await ask(door, await idp.token()), 200);
  assert.equal(await ask(door, old), '401 token_key_unknown', 'a verified token is not believed longer than its key');
  // Somebody goes on with the old one. That does not use up the fetches that the next key needs.
  for (let n = 0; n < 20; n += 1) assert.equal(await ask(door, old), '401 token_key_unknown');
  idp.rotate();
  assert.equal(await ask(door, await idp.token()), 200);
  await door.stop(); await idp.stop();
});

test('10,000 key ids that nobody has cost a handful of fetches', async () => {
  const idp = await oidc({ claims });
  const door = await stagedoor(config(idp.issuer));
  const good = await idp.token();
  assert.equal(await ask(door, good), 200);
  const [, payload, signature] = good.split('.');
  const before = idp.fetches();
  const begun = Date.now();
  let sent = 0;
  await Promise.all(Array.from({ length: 16 }, async () => {
    while (sent < 10000) {
      sent += 1;
      const header = Buffer.from(JSON.stringify({ alg: 'RS256', typ: 'at+jwt', kid: crypto.randomUUID() })).toString('base64url');
      assert.match(String(await ask(door, `${header}.${payload}.${signature}`)), /^401 token_key_unknown/);
    }
  }));
  // Three in a row, then one every 10 s.
  const allowed = 4 + Math.floor((Date.now() - begun) / 10000);
  assert.ok(idp.fetches() - before <= allowed, `${idp.fetches() - before} fetches, ${allowed} allowed`);
  assert.equal(await ask(door, good), 200);
  await door.stop(); await idp.stop();
});

test('it starts without the provider, says so, and goes on when it is there', async () => {
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const door = await stagedoor(config(issuer));
  const header = Buffer.from(JSON.stringify({ alg: 'RS256', typ: 'at+jwt', kid: 'a' })).toString('base64url');
  const payload = Buffer.from(JSON.stringify({ iss: issuer, aud: 'https://stagedoor.example', exp: 9999999999 })).toString('base64url');
  assert.equal(await ask(door, `${header}.${payload}.AAAA`), '503 keys_unavailable');
  const idp = await oidc({ claims, port });
  const token = await idp.token();
  await until('its keys', async () => (await ask(door, token)) === 200, 30000);
  // It goes away again: the last good keys stay.
  await idp.stop();
  assert.equal(await ask(door, token), 200);
  await door.stop();
});

test('a provider that answers in HTML, with errors or not at all is not believed, and keeps nobody waiting', async () => {
  for (const mode of ['html', 'error', 'silent']) {
    const idp = await oidc({ claims });
    const token = await idp.token();
    idp.mode(mode);
    const door = await stagedoor(config(idp.issuer));
    const begun = Date.now();
    assert.equal(await ask(door, token), '503 keys_unavailable', mode);
    assert.ok(Date.now() - begun < 7000, `${mode} took ${Date.now() - begun} ms`);
    assert.match(door.output(), /keys could not be fetched/);
    await door.stop(); await idp.stop();
  }
});

test('a public key is never taken for a secret', async () => {
  const idp = await oidc({ claims });
  const door = await stagedoor(config(idp.issuer));
  const [, payload] = (await idp.token()).split('.');
  assert.equal(await ask(door, await idp.token()), 200);
  const { keys } = await (await fetch(`${idp.issuer}/jwks`)).json();
  const key = crypto.createPublicKey({ key: keys[0], format: 'jwk' });
  const header = Buffer.from(JSON.stringify({ alg: 'HS256', typ: 'at+jwt', kid: keys[0].kid })).toString('base64url');
  for (const secret of [key.export({ type: 'spki', format: 'pem' }), key.export({ type: 'spki', format: 'der' }), keys[0].n]) {
    const signature = crypto.createHmac('sha256', secret).update(`${header}.${payload}`).digest('base64url');
    assert.equal(await ask(door, `${header}.${payload}.${signature}`), '401 token_algorithm_refused');
  }
  await door.stop(); await idp.stop();
});
