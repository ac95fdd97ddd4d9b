'use strict';
// Tokens as issuers and proxies really make and show them: each way in is as strict as a bearer token.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { execFileSync, spawnSync } = require('node:child_process');
const { after, before, test } = require('node:test');
const { browser } = require('../rig/browser');
const { authority } = require('../rig/certificates');
const { SECRET } = require('../rig/jwt');
const { oidc } = require('../rig/oidc');
const { freePort, until } = require('../rig/ports');
const { binary, stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const claims = { workspaces: ['payments'], groups: ['dev'], roles: ['deployer'] };
let up; let folder;
before(async () => {
  up = await upstream();
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-tokens-'));
});
after(async () => { await up?.stop(); fs.rmSync(folder, { recursive: true, force: true }); });

/** An edge with these issuers, and whatever more. */
const config = (identity, { listeners = '', more = '' } = {}) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${typeof listeners === 'function' ? listeners(ports, own) : listeners}
identity:
${typeof identity === 'function' ? identity(own) : identity}
workspaces: {named: {payments: {}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: admins, methods: [GET], path: /admins/**, upstream: up, class: read, options: {workspace: optional, access: {groups: [Admins]}, detail: full}}
- {name: open, methods: [GET], path: /open/**, upstream: up, class: read, options: {public: true}}
${more}`;
const of = async (answer) => {
  const body = await answer.json();
  return answer.status === 200 ? 200 : `${answer.status} ${body.code}`;
};
const get = (base, where, headers) => fetch(`${base}${where}`, { headers });
const bearer = (token) => ({ authorization: `Bearer ${token}` });

const part = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const keys = () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwk = ({ publicKey }, kid) => ({ ...publicKey.export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' });
const signed = ({ privateKey }, header, said, encode = part) => {
  const now = Math.floor(Date.now() / 1000);
  const message = `${encode({ alg: 'ES256', typ: 'JWT', ...header })}.${encode({ iat: now, exp: now + 600, ...said })}`;
  const signature = crypto.sign('sha256', Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${message}.${encode === part ? signature.toString('base64url') : encode(signature)}`;
};

test('an ID token of a real provider is no access token, unless the operator takes them', async () => {
  const port = await freePort();
  const back = `http://127.0.0.1:${port}/back`;
  const idp = await oidc({ claims, callbacks: [back] });
  const server = http.createServer((_, response) => response.end());
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  const query = new URLSearchParams({ client_id: 'people', response_type: 'code', scope: 'openid', redirect_uri: back, nonce: 'n', state: 's' });
  const { seen } = await browser().follow(`${idp.issuer}/auth?${query}`);
  const code = new URL(seen.at(-1)).searchParams.get('code');
  assert.ok(code, seen.join('\n'));
  const answer = await fetch(`${idp.issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('people:people-secret-people-secret-people').toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: back }),
  });
  const { id_token: id } = await answer.json();
  assert.equal(JSON.parse(Buffer.from(id.split('.')[1], 'base64url')).nonce, 'n');
  const issuer = `issuer: "${idp.issuer}", audiences: [people, "${idp.resource}"]`;
  const door = await stagedoor(config(`  issuers: {idp: {${issuer}}}`, { more: '- {name: whoever, methods: [GET], path: /whoever, upstream: up, class: read, options: {workspace: optional}}' }));
  assert.equal(await of(await get(door.url, '/whoever', bearer(id))), '401 token_type_wrong');
  assert.equal(await of(await get(door.url, '/read/x', bearer(await idp.token()))), 200, 'its access tokens pass');
  await door.settled();
  const record = await door.record((r) => r.code === 'token_type_wrong');
  assert.match(record.token_fault, /an ID token, by `nonce`|an ID token, by `at_hash`/);
  door.write(await config(`  issuers: {idp: {${issuer}, id_tokens: true}}`, { more: '- {name: whoever, methods: [GET], path: /whoever, upstream: up, class: read, options: {workspace: optional}}' })(door.ports, door.folder));
  assert.ok((await door.reload()).successful);
  assert.equal(await of(await get(door.url, '/whoever', bearer(id))), 200);
  await door.stop(); server.close(); await idp.stop();
});

test('a key that is unknown while its issuer is away is no fault of the token, and no stranger makes a flood of that', async () => {
  const idp = await oidc({ claims });
  const door = await stagedoor(config(`  issuers: {idp: {issuer: "${idp.issuer}", audiences: ["${idp.resource}"]}}`));
  const good = await idp.token();
  assert.equal(await of(await get(door.url, '/read/x', bearer(good))), 200);
  idp.rotate();
  const rotated = await idp.token();
  idp.mode('error');
  const before = idp.fetches();
  const answer = await get(door.url, '/read/x', bearer(rotated));
  assert.ok(Number(answer.headers.get('retry-after')) > 0);
  assert.equal(answer.headers.get('www-authenticate'), null, 'to sign in again would not help');
  assert.equal(await of(answer), '503 keys_unavailable');
  assert.equal(await of(await get(door.url, '/read/x', bearer(good))), 200, 'what is known goes on');
  const [, payload, signature] = good.split('.');
  const begun = Date.now();
  for (let n = 0; n < 300; n += 1) {
    const stranger = `${part({ alg: 'RS256', typ: 'at+jwt', kid: `stranger-${n}` })}.${payload}.${signature}`;
    assert.match(String(await of(await get(door.url, '/read/x', bearer(stranger)))), /^(503 keys_unavailable|429 rate_limited)$/);
  }
  // The keys of an issuer that is discovered are not even asked for while its discovery fails; whatever is asked, is asked seldom.
  const allowed = 3 + Math.ceil((Date.now() - begun) / 10000);
  assert.ok(idp.fetches() - before <= allowed, `${idp.fetches() - before} fetches`);
  idp.mode('well');
  await until('its keys', async () => (await of(await get(door.url, '/read/x', bearer(rotated)))) === 200, 25000);
  await door.stop(); await idp.stop();
});

test('two keys of one name spoil no others, and the log and the state tell of them', async () => {
  const [good, one, two] = [keys(), keys(), keys()];
  const file = path.join(folder, 'twice.json');
  fs.writeFileSync(file, JSON.stringify({ keys: [jwk(good, 'good'), jwk(one, 'x'), jwk(two, 'x')] }));
  const door = await stagedoor(config(`  issuers: {idp: {issuer: i, audiences: [a], algorithms: [ES256], keys: {file: ${file}}}}`));
  const token = (key, kid) => signed(key, { kid }, { iss: 'i', aud: 'a', sub: 'ada', ...claims });
  for (const [key, kid] of [[good, 'good'], [one, 'x'], [two, 'x']]) assert.equal(await of(await get(door.url, '/read/x', bearer(token(key, kid)))), 200, kid);
  assert.equal(await of(await get(door.url, '/read/x', bearer(token(keys(), 'x')))), '401 token_signature_wrong');
  assert.match(door.output(), /several keys with the same key id.*\bx\b|\bx\b.*several keys with the same key id/);
  const state = await (await door.admin('/state')).json();
  assert.deepEqual(state.keys.map((key) => [key.kid, key.repeated]).sort(), [['good', false], ['x', true], ['x', true]]);
  await door.stop();
});

test('the header of a proxy counts from trusted proxies alone, and no upstream sees it unless asked', async () => {
  const key = keys();
  const file = path.join(folder, 'iap.json');
  fs.writeFileSync(file, JSON.stringify({ keys: [jwk(key, 'k')] }));
  const behind = await freePort();
  const door = await stagedoor(config(`  issuers:
    iap: {issuer: iap, audiences: [a], algorithms: [ES256], keys: {file: ${file}}, token_from: {header: x-goog-iap-jwt-assertion}}
    access: {issuer: access, audiences: [a], algorithms: [ES256], keys: {file: ${file}}, token_from: {header: cf-access-jwt-assertion, preserve: true}}
    alb: {issuer: alb, audiences: ['arn:1'], audience_header: signer, algorithms: [ES256], keys: {file: ${file}}, token_from: {header: x-amzn-oidc-data, padding: allowed}}`,
  { listeners: `  behind: {kind: reverse, address: "127.0.0.1:${behind}", trusted_proxies: [127.0.0.0/8]}` }));
  const proxied = `http://127.0.0.1:${behind}`;
  const token = (iss, header = {}, encode = part) => signed(key, { kid: 'k', ...header }, { iss, sub: 'ada', ...(iss === 'alb' ? {} : { aud: 'a' }), ...claims }, encode);
  const padded = (value) => {
    const bytes = Buffer.isBuffer(value) ? value : Buffer.from(JSON.stringify(value).replace(/}$/, '        }').slice(0, -1) + '}');
    // One byte over a multiple of three needs two signs of padding.
    const spaces = Buffer.isBuffer(value) ? '' : ' '.repeat((4 - (bytes.length % 3)) % 3);
    return Buffer.concat([bytes, Buffer.from(spaces)]).toString('base64').replaceAll('+', '-').replaceAll('/', '_');
  };
  const all = {
    'x-goog-iap-jwt-assertion': token('iap'),
    'cf-access-jwt-assertion': token('access'),
    'x-amzn-oidc-data': token('alb', { signer: 'arn:1' }, padded),
  };
  assert.match(all['x-amzn-oidc-data'], /=\./);
  for (const [header, text] of Object.entries(all)) {
    assert.equal(await of(await get(proxied, '/read/x', { [header]: text })), 200, header);
    const { headers } = up.last();
    assert.equal(headers['x-orbit-user-id'], 'ada');
    assert.equal(headers[header], header.startsWith('cf-') ? text : undefined, header);
    // From anybody else it is nothing, also as a bearer token, and no upstream sees it.
    assert.equal(await of(await get(door.url, '/read/x', { [header]: text })), '401 caller_missing', header);
    assert.match(String(await of(await get(proxied, '/read/x', bearer(text)))), /^401 token_(issuer_unknown|malformed)$/);
    for (const spelling of [header, header.replaceAll('-', '_'), header.toUpperCase()]) {
      assert.equal((await get(door.url, '/open/x', { [spelling]: text })).status, 200);
      assert.ok(!up.last().raw.includes(text), `${spelling} of a stranger`);
    }
  }
  assert.equal(await of(await get(proxied, '/read/x', { 'x-goog-iap-jwt-assertion': all['cf-access-jwt-assertion'] })), '401 token_issuer_unknown');
  assert.equal(await of(await get(proxied, '/read/x', { 'x-amzn-oidc-data': token('alb', { signer: 'arn:2' }, padded) })), '401 token_audience_wrong');
  await door.settled();
  assert.equal((await door.record((r) => r.issuer === 'iap')).proof, 'proxy_header');
  // `explain` says the same, of a client that is a trusted proxy and of one that is none.
  const explain = (client) => spawnSync(binary, ['explain', '-c', door.file, '--listener', 'behind', '--client', client, '-p', '/read/x', '-H', `x-amzn-oidc-data: ${all['x-amzn-oidc-data']}`], { encoding: 'utf8' });
  assert.match(explain('127.0.0.1').stdout, /ada by alb \(proxy_header\)[\s\S]*allow read/);
  assert.match(explain('192.0.2.1').stdout, /deny 401 caller_missing/);
  await door.stop();
});

test('an opaque token is known by its digest, changes without a restart, and stands nowhere', async () => {
  const TOKEN = '8f3ca9d1e7b24c5f9a0d';
  const NEXT = 'b7d1f0c2a9e84d35';
  const door = await stagedoor(config((own) => {
    fs.writeFileSync(`${own}/ci`, `${TOKEN}\n`);
    fs.writeFileSync(`${own}/digests`, execFileSync('sha256sum', { input: NEXT }));
    return `  tokens:
    ci: {token_file: ${own}/ci, caller: "external:ci", workspaces: [payments]}
    other: {digest_file: ${own}/digests, caller: "external:other", groups: [Admins]}`;
  }));
  assert.equal(await of(await get(door.url, '/read/x', bearer(TOKEN))), 200);
  assert.equal(up.last().headers.authorization, `Bearer ${TOKEN}`, 'Backstage verifies it itself');
  assert.equal(up.last().headers['x-orbit-user-id'], 'external:ci');
  assert.equal(await of(await get(door.url, '/admins/x', bearer(TOKEN))), '403 access_denied');
  assert.equal(await of(await get(door.url, '/admins/x', bearer(NEXT))), 200);
  assert.equal(await of(await get(door.url, '/read/x', bearer(`${TOKEN}x`))), '401 token_malformed');
  const explained = execFileSync(binary, ['explain', '-c', door.file, '-p', '/read/x', '-H', `authorization: Bearer ${TOKEN}`], { encoding: 'utf8' });
  assert.match(explained, /external:ci by static-token \(static_token\)/);
  fs.writeFileSync(`${door.folder}/ci`, 'another-token-of-25-bytes\n');
  await until('the next token', async () => (await of(await get(door.url, '/read/x', bearer('another-token-of-25-bytes')))) === 200, 15000);
  assert.equal(await of(await get(door.url, '/read/x', bearer(TOKEN))), '401 token_malformed');
  // A broken file keeps what was in force, and says which and why.
  fs.writeFileSync(`${door.folder}/ci`, 'short\n');
  await until('its problem', async () => /a token has 5 bytes/.test(door.output()), 15000);
  assert.equal(await of(await get(door.url, '/read/x', bearer('another-token-of-25-bytes'))), 200);
  await door.settled();
  const record = await door.record((r) => r.caller === 'external:ci');
  assert.deepEqual([record.proof, record.issuer, record.workspace], ['static_token', 'static-token', 'payments']);
  const told = `${JSON.stringify(door.written())}${door.output()}${await (await door.admin('/state')).text()}`;
  for (const secret of [TOKEN, NEXT, 'another-token', crypto.createHash('sha256').update(TOKEN).digest('hex')]) assert.ok(!told.includes(secret), secret);
  const checked = spawnSync(binary, ['check', '--files', '-c', door.file], { encoding: 'utf8' });
  assert.match(checked.stdout, /a token has 5 bytes; it needs 16 to 1024/);
  await door.stop();
});

test('keys that the API server shows to pods alone are fetched with the token of now, and it goes nowhere else', async () => {
  const key = keys();
  const ca = authority(`${folder}/ca`);
  const pair = ca.issue('kubernetes', { names: ['localhost', '127.0.0.1'] });
  const asked = [];
  let wanted = 'pod-token-1';
  let document = (port) => ({ issuer: `https://localhost:${port}`, jwks_uri: `https://localhost:${port}/openid/v1/jwks` });
  const answer = (request, response) => {
    asked.push([request.url, request.headers.authorization]);
    const { port } = server.address();
    if (request.headers.authorization !== `Bearer ${wanted}`) { response.statusCode = 401; return response.end('{}'); }
    return response.end(JSON.stringify(request.url.startsWith('/.well-known') ? document(port) : { keys: [jwk(key, 'k')] }));
  };
  const server = https.createServer({ cert: fs.readFileSync(pair.cert), key: fs.readFileSync(pair.key) }, answer);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  const tokenFile = path.join(folder, 'pod-token');
  fs.writeFileSync(tokenFile, `${wanted}\n`);
  const issuer = `https://localhost:${port}`;
  const identity = (more) => `  issuers: {cluster: {issuer: "${issuer}", audiences: [stagedoor], algorithms: [ES256], keys: {ca: ${ca.ca}, token_file: ${tokenFile}${more}}, claims: {workspaces: [kubernetes.io, namespace]}}}`;
  const token = () => signed(key, { kid: 'k', typ: undefined }, { iss: issuer, aud: ['stagedoor'], sub: 'system:serviceaccount:payments:ci', 'kubernetes.io': { namespace: 'payments', pod: { name: 'x' } } });
  const door = await stagedoor(config(identity(`, url: "${issuer}/openid/v1/jwks"`)));
  assert.equal(await of(await get(door.url, '/read/x', bearer(token()))), 200);
  assert.deepEqual(asked.at(-1), ['/openid/v1/jwks', 'Bearer pod-token-1']);
  // The kubelet writes another one each hour.
  wanted = 'pod-token-2';
  fs.writeFileSync(tokenFile, wanted);
  const other = signed(key, { kid: 'unknown' }, { iss: issuer, aud: 'stagedoor', sub: 'x' });
  assert.equal(await of(await get(door.url, '/read/x', bearer(other))), '401 token_key_unknown');
  assert.deepEqual(asked.at(-1), ['/openid/v1/jwks', 'Bearer pod-token-2']);
  await door.stop();
  // Found by discovery, it is shown on the same host, and to no other that the document names.
  const found = await stagedoor(config(identity('')));
  assert.equal(await of(await get(found.url, '/read/x', bearer(token()))), 200);
  await found.stop();
  const elsewhere = [];
  const lurking = http.createServer((request, response) => { elsewhere.push(request.headers.authorization); response.end(JSON.stringify({ keys: [jwk(key, 'k')] })); });
  await new Promise((resolve) => lurking.listen(0, '127.0.0.1', resolve));
  document = () => ({ issuer, jwks_uri: `http://localhost:${lurking.address().port}/jwks` });
  const led = await stagedoor(config(identity('')));
  assert.equal(await of(await get(led.url, '/read/x', bearer(token()))), '503 keys_unavailable');
  await until('advice', async () => /names keys at `[^`]*`, without TLS;.*insecure_http: true/.test(led.output()), 5000);
  assert.deepEqual(elsewhere, []);
  led.write(await config(identity(', insecure_http: true'))(led.ports, led.folder));
  await led.reload();
  await until('its keys', async () => (await of(await get(led.url, '/read/x', bearer(token())))) === 200, 25000);
  assert.deepEqual([...new Set(elsewhere)], [undefined], 'not the pod’s token');
  await led.stop();
  server.closeAllConnections(); server.close(); lurking.closeAllConnections(); lurking.close();
});

test('Orbit’s tokens as its design writes them pass on a listener that takes nothing else', async () => {
  const own = await freePort();
  const door = await stagedoor(config((dir) => {
    fs.writeFileSync(`${dir}/secret`, `${SECRET}\n`);
    return `  tokens: {ci: {token_file: ${dir}/secret, caller: ci, workspaces: [payments]}}
  issuers:
    orbit: {kind: orbit, listeners: [own], algorithms: [HS256], keys: {secret_file: ${dir}/secret}, claims: {roles: role}}
    named: {issuer: orbit, audiences: [stagedoor], algorithms: [HS256], keys: {secret_file: ${dir}/secret}}`;
  }, { listeners: `  own: {kind: reverse, address: "127.0.0.1:${own}"}` }));
  const now = Math.floor(Date.now() / 1000);
  const design = { sub: 'user-123', email: 'user@example.com', workspaces: ['payments'], role: 'developer', permissions: { payments: ['read'] }, exp: now + 600, iat: now };
  // As golang-jwt writes it.
  const hmac = (said) => {
    const message = `${part({ alg: 'HS256', typ: 'JWT' })}.${part(said)}`;
    return `${message}.${crypto.createHmac('sha256', SECRET).update(message).digest('base64url')}`;
  };
  const there = `http://127.0.0.1:${own}`;
  assert.equal(await of(await get(there, '/read/x', bearer(hmac(design)))), 200);
  assert.equal(up.last().headers['x-orbit-user-id'], 'user-123');
  assert.equal(await of(await get(door.url, '/read/x', bearer(hmac(design)))), '401 token_claim_missing');
  const named = hmac({ ...design, iss: 'orbit', aud: 'stagedoor' });
  assert.equal(await of(await get(door.url, '/read/x', bearer(named))), 200);
  assert.equal(await of(await get(there, '/read/x', bearer(named))), '401 token_issuer_unknown');
  assert.equal(await of(await get(door.url, '/read/x', bearer(SECRET))), 200);
  assert.equal(await of(await get(there, '/read/x', bearer(SECRET))), '401 token_malformed');
  await door.stop();
});

test('groups that Entra leaves out are told by a code of their own, and a text is one group', async () => {
  const key = keys();
  const file = path.join(folder, 'entra.json');
  fs.writeFileSync(file, JSON.stringify({ keys: [jwk(key, 'k')] }));
  const door = await stagedoor(config(`  issuers: {idp: {issuer: i, audiences: [a], algorithms: [ES256], keys: {file: ${file}}}}`));
  const ask = async (said) => {
    const answer = await get(door.url, '/admins/x', bearer(signed(key, { kid: 'k' }, { iss: 'i', aud: 'a', sub: 'ada', ...said })));
    assert.equal(answer.headers.get('www-authenticate'), null, 'nobody should sign in again');
    return of(answer);
  };
  assert.equal(await ask({ groups: 'Domain Admins' }), '403 access_denied');
  assert.equal(await ask({ groups: 'Admins' }), 200);
  assert.equal(await ask({ _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: 'https://graph.example/x' } } }), '403 groups_left_out');
  assert.equal(await ask({ hasgroups: 'true' }), '403 groups_left_out');
  assert.equal(await ask({}), '403 access_denied');
  await door.stop();
});
