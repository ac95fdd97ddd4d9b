'use strict';
// What Stagedoor fetches for itself, keys and tokens, is kept out of our own network as calls of others
// are: a name leads where it is meant to, and what an issuer says leads no further.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const http = require('node:http');
const { after, before, test } = require('node:test');
const { dns } = require('../rig/dns');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

let idp; let port; let names; let up; let keysAt;
const asked = [];
const { publicKey, privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });

before(async () => {
  up = await upstream();
  idp = http.createServer((request, response) => {
    asked.push(`${request.headers.host.split(':')[0]}${request.url}`);
    const json = (body) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    if (request.url.endsWith('/openid-configuration')) return json({ issuer: `http://idp.test:${port}`, jwks_uri: keysAt });
    if (request.url.startsWith('/token')) return json({ access_token: 'theirs', token_type: 'Bearer', expires_in: 300 });
    return json({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] });
  });
  await new Promise((resolve) => idp.listen(0, '127.0.0.1', resolve));
  ({ port } = idp.address());
  names = await dns({ 'idp.test': { A: ['127.0.0.1'] }, 'inner.test': { A: ['127.0.0.1'] } });
});
after(async () => {
  await up?.stop(); await names?.stop();
  idp?.closeAllConnections(); idp?.close();
});

const token = () => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Math.floor(Date.now() / 1000);
  const message = `${part({ alg: 'ES256', kid: 'k' })}.${part({ iss: `http://idp.test:${port}`, aud: 'stagedoor', sub: 'ada', workspaces: ['payments'], iat: now, exp: now + 600 })}`;
  return `${message}.${crypto.sign('sha256', Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
};
const config = (meant) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
    idp: {issuer: "http://idp.test:${port}", audiences: [stagedoor], algorithms: [ES256], keys: {insecure_http: true}}
workspaces: {named: {payments: {}}}
credentials: {api: {kind: oauth2_client_credentials, token_url: "http://idp.test:${port}/token", client_id: a, client_secret_file: ${own}/secret}}
upstreams:
  up: {url: "${up.url}"}
  api: {url: "${up.url}", credential: api}
egress: {private: [${meant ? `{host: "idp.test:${port}", addresses: [127.0.0.1/32]}` : ''}]}
process: {drain_delay: 0s, drain_timeout: 2s, name_servers: ["${names.address}"]}
routes:
- {name: read, methods: [GET], path: /read, upstream: up, class: read}
- {name: api, methods: [GET], path: /api, upstream: api, class: read, options: {access: {callers: [ada]}}}`;
const ask = async (door, where, bearer) => {
  const response = await fetch(`${door.url}${where}`, { headers: { authorization: `Bearer ${bearer}` } });
  return [response.status, (await response.json()).code];
};
const ours = orbit('ada', ['payments']);

test('a name of ours that is not said to be is not asked for keys or tokens, and the log says what to write', async () => {
  keysAt = `http://idp.test:${port}/keys`;
  asked.length = 0;
  const door = await stagedoor(config(false));
  assert.deepEqual(await ask(door, '/read', token()), [503, 'keys_unavailable']);
  assert.deepEqual(await ask(door, '/api', ours), [503, 'credential_unavailable']);
  assert.deepEqual(asked, []);
  const advice = `write \`egress.private: [{host: \\"idp.test:${port}\\", addresses: [\\"127.0.0.1\\"]}]\``;
  await until('advice for keys and for tokens', async () => door.output().split(advice).length >= 3, 5000);
  // What it says is what helps, without a restart.
  door.write(await config(true)(door.ports, door.folder));
  await until('it to be in force', async () => (await door.reload()).successful && (await ask(door, '/read', token()))[0] === 200, 40000);
  await until('a token', async () => (await ask(door, '/api', ours))[0] === 200, 20000);
  await door.stop();
});

test('an issuer that is asked leads to no other place of ours, whatever it says', async () => {
  for (const [there, code] of [[`http://169.254.169.254/latest/meta-data`, 503], [`http://inner.test:${port}/keys`, 503], [`http://127.0.0.1:${port}/keys`, 503], [`http://[::ffff:127.0.0.1]:${port}/keys`, 503], [`http://localhost:${port}/keys`, 503], ['file:///etc/passwd', 503], [`http://idp.test:${port}/keys`, 200]]) {
    keysAt = there;
    asked.length = 0;
    const door = await stagedoor(config(true));
    assert.equal((await ask(door, '/read', token()))[0], code, there);
    assert.ok(asked.includes('idp.test/.well-known/openid-configuration'));
    assert.deepEqual(asked.some((what) => what.endsWith('/keys')), code === 200, there);
    await door.stop();
  }
});

test('who waited for keys is not held to the limits of when it came', async () => {
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  const slow = http.createServer(async (_, response) => {
    await held;
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] }));
  });
  await new Promise((resolve) => slow.listen(0, '127.0.0.1', resolve));
  const door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
    idp: {issuer: "http://idp.test:${port}", audiences: [stagedoor], algorithms: [ES256], keys: {url: "http://127.0.0.1:${slow.address().port}/"}}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 10/s, burst: 1}}
egress: {private: [{host: "127.0.0.1:${slow.address().port}", addresses: [127.0.0.1/32]}]}
upstreams: {up: {url: "${up.url}"}}
routes:
- {name: read, methods: [GET], path: /read, upstream: up, class: read}`);
  const waits = fetch(`${door.url}/read`, { headers: { authorization: `Bearer ${token()}` } });
  await until('it to wait', async () => (await (await door.admin('/state')).json()).requests_in_flight === 1);
  assert.equal((await fetch(`${door.url}/read`, { headers: { authorization: `Bearer ${ours}` } })).status, 200);
  // The share of its workspace is there again a tenth of a second later.
  const taken = Date.now();
  await until('the share', async () => Date.now() > taken + 150);
  release();
  assert.equal((await waits).status, 200);
  await door.stop();
  slow.closeAllConnections(); slow.close();
});
