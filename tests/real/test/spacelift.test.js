'use strict';
// Spacelift's plugin with a key that is none of Spacelift's: the proxy stands in front of Spacelift's
// GraphQL, holds the real key, and lets through what rules name.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http2 = require('node:http2');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const zlib = require('node:zlib');
const { after, before, test } = require('node:test');
const { backstage } = require('../rig/backstage');
const { authority } = require('../rig/certificates');
const { inMemory } = require('../rig/memory');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { spacelift } = require('../rig/spacelift');
const { binary, segments, stagedoor, text: written } = require('../rig/stagedoor');

// What only the proxy's files hold.
const REAL = { id: '01JREALKEYOFTHEPORTAL', secret: 'real-secret-7c1f4e0b9a8d4f6e8b3a5d2c1e0f9a8b' };
// What Backstage holds instead: a caller of the proxy, and its password.
const PORTAL = { id: 'portal', secret: 'password-of-the-portal-5b2e9d' };
const WATCHER = { id: 'watcher', secret: 'password-of-the-watcher-1a7c3f' };

let db; let folder; let ca; let portal; let portalPort; let door; let real; let bare; let token;

/**
 * The proxy's config: in front of Backstage (`edge`) and in front of Spacelift (`graphql`, over TLS).
 * `deployer` may trigger by Backstage; at Spacelift `portal` may, and only the stacks of its workspace.
 */
const config = (deployer = 'user:default/ada') => (ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  graphql: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${folder}/gate.crt, key: ${folder}/gate.key}]}}
identity:
  issuers:
    portal:
      kind: backstage
      issuer: http://127.0.0.1:${ports.edge}/api/auth
      audiences: [spacelift-io]
      algorithms: [ES256]
      keys: {backstage_url: "http://127.0.0.1:${portalPort}"}
workspaces: {named: {payments: {callers: ["user:default/ada"], resources: {spacelift-stack: [payments-network, payments-db]}}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 1000/s, burst: 1000}}
credentials:
  spacelift:
    kind: spacelift_api_key
    token_url: "https://localhost:${real.port}/graphql"
    key_id: ${REAL.id}
    key_secret_file: ${folder}/key-secret
    ca: ${ca.ca}
egress:
  callers:
    portal: {password_file: ${folder}/portal, workspace: payments}
    watcher: {password_file: ${folder}/watcher, workspace: payments}
upstreams:
  portal: {url: "http://127.0.0.1:${portalPort}", preserve_host: true}
  spacelift: {url: "https://localhost:${real.port}", tls: {ca: ${ca.ca}}, credential: spacelift}
presets:
- {preset: backstage, upstream: portal, listeners: [edge]}
- {preset: spacelift, upstream: portal, listeners: [edge], actions: {callers: ["${deployer}"]}, routes: {trigger: {resources: {spacelift-stack: stack}}}}
routes:
- name: graphql
  listeners: [graphql]
  methods: [POST]
  path: /graphql
  upstream: spacelift
  plugin: spacelift-io
  class: read
  options:
    access: {callers: [portal, watcher]}
    graphql:
    - {query: [stacks, stack]}
    - {mutation: [runTrigger], access: {callers: [portal]}, resources: {spacelift-stack: stack}}`;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-spacelift-'));
  ca = authority(folder);
  const certificate = ca.issue('spacelift', { names: ['localhost'] });
  ca.issue('gate', { names: ['localhost'] });
  const files = { 'key-secret': REAL.secret, portal: PORTAL.secret, watcher: WATCHER.secret };
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(`${folder}/${name}`, `${text}\n`);
  const keys = { [REAL.id]: REAL.secret };
  [db, portalPort, real, bare] = await Promise.all([postgres(), freePort(), spacelift(certificate, { keys }), spacelift(certificate, { keys })]);
  door = await stagedoor(config());
  portal = await backstage({
    port: portalPort, baseUrl: door.url, postgres: db, plugins: ['@spacelift-io/backstage-integration-backend'],
    config: `spacelift: {hostUrl: "localhost:${door.ports.tls}", apiKey: ${PORTAL.id}, apiSecret: ${PORTAL.secret}}\n`,
    env: { NODE_EXTRA_CA_CERTS: ca.ca, STAGE_MARK: 'a-mark-in-the-environment' },
  });
  token = (await (await fetch(`${door.url}/api/auth/guest/refresh`)).json()).backstageIdentity.token;
});
after(async () => {
  await portal?.stop(); await door?.stop(); await real?.stop(); await bare?.stop(); await db?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Asks Backstage's plugin, through the proxy in front of it. */
const plugin = async (where, method = 'GET') => {
  const answer = await fetch(`${door.url}/api/spacelift-io${where}`, { method, headers: { authorization: `Bearer ${token}` } });
  return [answer.status, await answer.json()];
};
/** Asks GraphQL, at the gate or at a Spacelift. */
const ask = (port, body, bearer, { method = 'POST', at = '/graphql', headers = {} } = {}) => new Promise((resolve, reject) => {
  const request = https.request({
    host: 'localhost', family: 4, port, path: at, method, ca: fs.readFileSync(ca.ca), agent: false,
    headers: { 'content-type': 'application/json', ...(bearer ? { authorization: `Bearer ${bearer}` } : {}), ...headers },
  }, (answer) => {
    let text = '';
    answer.on('data', (data) => { text += data; });
    answer.on('end', () => { let said; try { said = JSON.parse(text); } catch { /* not all denials are JSON */ } resolve({ status: answer.statusCode, text, ...(Array.isArray(said) ? { batch: said } : said) }); });
  });
  request.on('error', reject);
  request.end(Buffer.isBuffer(body) || typeof body === 'string' ? body : body && JSON.stringify(body));
});
const gate = (body, bearer, options) => ask(door.ports.tls, body, bearer, options);
const LOGIN = 'mutation GetSpaceliftToken($apiKey: ID!, $apiSecret: String!) { apiKeyUser(id: $apiKey, secret: $apiSecret) { id jwt } }';
const logIn = async (port, { id, secret }) => (await ask(port, { query: LOGIN, variables: { apiKey: id, apiSecret: secret } })).data?.apiKeyUser?.jwt;
const isRefused = ({ status, errors }) => status >= 400 || errors?.length > 0;
const STACKS = '{ stacks { id } }';

test('the plugin lists stacks and triggers with a key that is none of Spacelift’s', async () => {
  const [status, stacks] = await plugin('/stacks');
  assert.equal(status, 200, JSON.stringify(stacks));
  assert.ok(stacks.some(({ id }) => id === 'payments-db'));
  assert.deepEqual(await plugin('/stacks/payments-db/trigger', 'POST'), [200, { id: 'run-1', state: 'QUEUED' }]);
  assert.deepEqual(real.runs.map(({ stack }) => stack), ['payments-db']);
  assert.deepEqual(real.calls, { apiKeyUser: 1, stacks: 1, runTrigger: 1 }, 'one exchange of the real key serves all');
  assert.deepEqual([...new Set(real.connected)], [door.pid]);
  const shown = real.seen.map(({ headers }) => headers.authorization).filter(Boolean);
  assert.deepEqual([...new Set(shown)], [`Bearer ${real.tokens[0]}`]);
  const record = await door.record((r) => r.route === 'graphql' && r.decision === 'allow' && JSON.stringify(r).includes('runTrigger'));
  assert.deepEqual([record.caller, record.workspace, record.credential], ['portal', 'payments', 'spacelift']);
});

test('nobody signs in while an operator has switched the upstream off', async () => {
  const seen = real.seen.length;
  const switched = { upstream: 'spacelift', position: 'open', for: '1m', reason: 'it burns', by: 'ada' };
  const { id } = await (await door.admin('/switches', { method: 'POST', body: JSON.stringify(switched) })).json();
  const { status, code } = await gate({ query: LOGIN, variables: { apiKey: PORTAL.id, apiSecret: PORTAL.secret } });
  assert.deepEqual([status, code, real.seen.length], [503, 'switched_off', seen]);
  await door.admin(`/switches/${id}`, { method: 'DELETE', body: '{"by": "ada"}' });
  assert.ok(await logIn(door.ports.tls, PORTAL));
});

test('a token of the gate is a password’s alone, and no token of Spacelift’s', async () => {
  const opaque = await logIn(door.ports.tls, PORTAL);
  assert.ok(opaque, 'portal has one');
  assert.ok(!real.tokens.includes(opaque));
  assert.equal((await gate({ query: STACKS }, opaque)).data.stacks.length > 0, true);
  const { apiKeyUser: exchanged } = real.calls;
  for (const wrong of [{ ...PORTAL, secret: WATCHER.secret }, { ...PORTAL, secret: '' }, { id: 'nobody', secret: PORTAL.secret }, REAL]) assert.equal(await logIn(door.ports.tls, wrong), undefined, wrong.id);
  assert.equal(real.calls.apiKeyUser, exchanged, 'nobody’s password is tried at Spacelift');
  const seen = real.seen.length;
  const last = opaque.at(-1) === 'A' ? 'B' : 'A';
  for (const wrong of [undefined, real.tokens[0], `${opaque.slice(0, -1)}${last}`, `${opaque}x`, '', PORTAL.secret]) assert.ok(isRefused(await gate({ query: STACKS }, wrong)), String(wrong));
  assert.equal(real.seen.length, seen, 'and none of these is asked on');
});

test('the real key and token are nowhere in Backstage, and nowhere in what the proxy writes', async () => {
  await plugin('/stacks');
  const secrets = [REAL.id, REAL.secret, Buffer.from(REAL.secret).toString('base64'), ...real.tokens, ...real.tokens.map((jwt) => jwt.split('.')[2])];
  // What is known to be there is found in the same way.
  const { found, bytesRead } = inMemory(portal.pid, [PORTAL.secret, ...secrets]);
  assert.deepEqual(found, [PORTAL.secret], `in ${bytesRead} bytes`);
  const environment = fs.readFileSync(`/proc/${portal.pid}/environ`, 'latin1');
  assert.ok(environment.includes('a-mark-in-the-environment'));
  const audit = segments(`${door.folder}/audit`).map(written).join('');
  assert.ok(audit.includes('"portal"'));
  const told = { environment, 'Backstage’s output': portal.output(), audit, 'the proxy’s output': door.output() };
  for (const where of ['/metrics', '/config', '/state']) told[where] = await (await door.admin(where)).text();
  for (const [where, text] of Object.entries(told)) {
    // Of the key, its name stands in the config.
    for (const secret of secrets.filter((one) => where !== '/config' || one !== REAL.id)) assert.ok(!text.includes(secret), `${where} has ${secret.slice(0, 8)}…`);
    if (where !== 'environment') assert.ok(!text.includes(PORTAL.secret), `${where} has the password`);
  }
});

test('in front of Backstage a caller without the right triggers nothing, nor a stack of another workspace', async () => {
  const before = real.runs.length;
  const [other] = await plugin('/stacks/search-index/trigger', 'POST');
  assert.ok(other >= 400, 'a stack that is not of the workspace');
  await door.record((r) => r.route === 'spacelift.trigger' && r.decision === 'deny' && r.path?.includes('search-index'));
  for (const spelled of ['payments-db%2f..%2fsearch-index', 'search%2dindex', 'SEARCH-INDEX']) assert.notEqual((await fetch(`${door.url}/api/spacelift-io/stacks/${spelled}/trigger`, { method: 'POST', headers: { authorization: `Bearer ${token}` } })).status, 200, spelled);
  door.write(config('user:default/kim')(door.ports));
  assert.ok((await door.reload()).successful);
  const [status, { error }] = await plugin('/stacks/payments-db/trigger', 'POST');
  assert.deepEqual([status, typeof error], [403, 'string'], 'as its frontend reads it');
  assert.equal((await plugin('/stacks'))[0], 200, 'reading is for all of the workspace');
  assert.equal(real.runs.length, before);
  door.write(config()(door.ports));
  assert.ok((await door.reload()).successful);
  assert.equal((await plugin('/stacks/payments-db/trigger', 'POST'))[0], 200);
  assert.equal(real.runs.length, before + 1);
});

/** What must not pass, by what it is. Each does run at a Spacelift that nobody guards. */
const forbidden = {
  'a stack is deleted': { query: 'mutation { stackDelete(id: "payments-db") { id } }' },
  'a key is made': { query: 'mutation { apiKeyCreate(name: "x", admin: true) { id secret } }' },
  'a command is run': { query: 'mutation { taskCreate(stack: "payments-db", command: "env") { id } }' },
  'a run is confirmed': { query: 'mutation { runConfirm(stack: "payments-db", run: "1") { id } }' },
  'a stack of others is triggered': { query: 'mutation { runTrigger(stack: "search-index") { id } }' },
  'by a variable': { query: 'mutation A($s: ID!) { runTrigger(stack: $s) { id } }', variables: { s: 'search-index' } },
  'by the default of a variable': { query: 'mutation A($s: ID = "search-index") { runTrigger(stack: $s) { id } }' },
  'by a default that a variable would overrule': { query: 'mutation A($s: ID! = "payments-db") { runTrigger(stack: $s) { id } }', variables: { s: 'search-index' } },
  'by a block string': { query: 'mutation { runTrigger(stack: """search-index""") { id } }' },
  'by an escape': { query: 'mutation { runTrigger(stack: "se\\u0061rch-index") { id } }' },
  'under another name': { query: 'mutation { stacks: stackDelete(id: "payments-db") { id } }' },
  'under the name of what is allowed': { query: 'mutation { runTrigger: stackDelete(id: "payments-db") { id } }' },
  'beside what is allowed': { query: 'mutation { runTrigger(stack: "payments-db") { id } stackDelete(id: "payments-db") { id } }' },
  'a second trigger beside an allowed one': { query: 'mutation { a: runTrigger(stack: "payments-db") { id } b: runTrigger(stack: "search-index") { id } }' },
  'in a fragment': { query: 'mutation { ...F } fragment F on Mutation { stackDelete(id: "payments-db") { id } }' },
  'in a fragment of a fragment': { query: 'mutation { ...F } fragment F on Mutation { ...G } fragment G on Mutation { stackDelete(id: "payments-db") { id } }' },
  'in an inline fragment': { query: 'mutation { ... on Mutation { stackDelete(id: "payments-db") { id } } }' },
  'in an inline fragment without a type': { query: 'mutation { ... { stackDelete(id: "payments-db") { id } } }' },
  'in an operation that is chosen by name': { query: 'query A { stacks { id } } mutation B { stackDelete(id: "payments-db") { id } }', operationName: 'B' },
  'with a directive': { query: 'mutation { stackDelete(id: "payments-db") @include(if: true) { id } }' },
  'behind comments and commas': { query: '#query { stacks { id } }\n,,mutation,{,stackDelete(id:"payments-db"),{id}}' },
  'behind a byte order mark': { query: '\ufeffmutation { stackDelete(id: "payments-db") { id } }' },
  'in a batch': [{ query: STACKS }, { query: 'mutation { stackDelete(id: "payments-db") { id } }' }],
  'in a batch of one': [{ query: 'mutation { stackDelete(id: "payments-db") { id } }' }],
  'in the second of two queries': '{"query": "{ stacks { id } }", "query": "mutation { stackDelete(id: \\"payments-db\\") { id } }"}',
  'in a query whose key is escaped': '{"query": "{ stacks { id } }", "\\u0071uery": "mutation { stackDelete(id: \\"payments-db\\") { id } }"}',
  'in the second of two variables': '{"query": "mutation A($s: ID!) { runTrigger(stack: $s) { id } }", "variables": {"s": "payments-db", "s": "search-index"}}',
  'an empty list of variables': { query: 'mutation A () { stackDelete(id: "payments-db") { id } }' },
  'a login beside it': { query: `mutation { apiKeyUser(id: "${PORTAL.id}", secret: "${PORTAL.secret}") { id jwt } stackDelete(id: "payments-db") { id } }` },
};
const effects = ({ calls }) => Object.entries(calls).filter(([name]) => !['apiKeyUser', 'stacks', 'stack', 'viewer'].includes(name)).map(([name, count]) => `${name} ${count}`).join();

test('what no rule names does not pass the gate, however it is written', async () => {
  const [opaque, own] = await Promise.all([logIn(door.ports.tls, PORTAL), logIn(bare.port, REAL)]);
  for (const [what, body] of Object.entries(forbidden)) {
    const unguarded = effects(bare);
    await ask(bare.port, body, own);
    assert.notEqual(effects(bare), unguarded, `it does run, unguarded: ${what}`);
    if (bare.stacks.length < 3) bare.stacks.push({ ...bare.stacks[0], id: 'payments-db' });
    const before = effects(real);
    const answer = await gate(body, opaque);
    assert.ok(isRefused(answer) && !answer.data && !answer.batch, `${what}: ${answer.text}`);
    assert.equal(effects(real), before, what);
  }
});

test('what is not plainly GraphQL in JSON does not pass the gate', async () => {
  const opaque = await logIn(door.ports.tls, PORTAL);
  const danger = JSON.stringify({ query: 'mutation { stackDelete(id: "payments-db") { id } }' });
  const query = `?query=${encodeURIComponent('mutation { stackDelete(id: "payments-db") { id } }')}`;
  const odd = {
    'in the URL': ['', { method: 'GET', at: `/graphql${query}` }],
    'in the URL, and something else in the body': [JSON.stringify({ query: STACKS }), { at: `/graphql${query}` }],
    'compressed': [zlib.gzipSync(danger), { headers: { 'content-encoding': 'gzip' } }],
    'as plain GraphQL': ['mutation { stackDelete(id: "payments-db") { id } }', { headers: { 'content-type': 'application/graphql' } }],
    'as a form': [query.slice(1), { headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
    'as text': [danger, { headers: { 'content-type': 'text/plain' } }],
    'in another charset': [Buffer.from(danger, 'utf16le'), { headers: { 'content-type': 'application/json; charset=utf-16le' } }],
    'with an override of the method': [danger, { headers: { 'x-http-method-override': 'GET' } }],
    'at another path': [danger, { at: '/graphql/' }],
    'at a path in capitals': [danger, { at: '/GraphQL' }],
    'at a path with two slashes': [danger, { at: '//graphql' }],
    'nothing': ['', {}],
    'null': ['null', {}],
    'no query': ['{}', {}],
    'a query that is none': ['{"query": {}}', {}],
    'a saved query': [JSON.stringify({ extensions: { persistedQuery: { version: 1, sha256Hash: 'a'.repeat(64) } } }), {}],
    'half a query': [JSON.stringify({ query: '{ stacks { id }' }), {}],
    'a very deep one': [JSON.stringify({ query: `{ stacks ${'{ a '.repeat(20000)}${'}'.repeat(20000)} }` }), {}],
  };
  for (const [what, [body, options]] of Object.entries(odd)) {
    const before = effects(real);
    const answer = await gate(body, opaque, options);
    assert.ok(isRefused(answer) && !answer.data, `${what}: ${answer.text}`);
    assert.equal(effects(real), before, what);
  }
  assert.ok((await gate({ query: STACKS }, opaque)).data.stacks, 'the gate still stands');
});

test('over HTTP/2 a body is judged and passed on as it is over HTTP/1.1', async () => {
  const opaque = await logIn(door.ports.tls, PORTAL);
  const client = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
  const post = (parts) => new Promise((resolve, reject) => {
    const stream = client.request({ ':method': 'POST', ':path': '/graphql', 'content-type': 'application/json', authorization: `Bearer ${opaque}` });
    let status; let text = '';
    stream.on('response', (headers) => { status = headers[':status']; });
    stream.on('data', (data) => { text += data; });
    stream.on('end', () => resolve({ status, ...JSON.parse(text) }));
    stream.on('error', reject);
    parts.forEach((part) => stream.write(part));
    stream.end();
  });
  try {
    const body = JSON.stringify({ query: STACKS });
    assert.ok((await post([body.slice(0, 5), body.slice(5)])).data.stacks.length);
    const before = effects(real);
    const refused = await post(['{"query": "mutation { stackDelete', '(id: \\"payments-db\\") { id } }"}']);
    assert.deepEqual([refused.status, refused.code], [403, 'graphql_refused']);
    const large = await post([JSON.stringify({ query: `${STACKS} ${'#'.repeat(70_000)}` })]);
    assert.deepEqual([large.status, large.code], [413, 'body_too_large']);
    assert.equal(effects(real), before);
  } finally { client.close(); }
});

test('who may only read triggers nothing at the gate', async () => {
  const [watcher, opaque] = await Promise.all([logIn(door.ports.tls, WATCHER), logIn(door.ports.tls, PORTAL)]);
  const trigger = { query: 'mutation TriggerRun($stackId: ID!) { runTrigger(stack: $stackId) { id state } }', variables: { stackId: 'payments-db' } };
  assert.ok((await gate({ query: STACKS }, watcher)).data.stacks.length);
  const before = real.runs.length;
  assert.ok(isRefused(await gate(trigger, watcher)));
  assert.equal(real.runs.length, before);
  const record = await door.record((r) => r.route === 'graphql' && r.decision === 'deny' && r.caller === 'watcher');
  assert.equal(record.upstream_address, undefined);
  assert.equal((await gate(trigger, opaque)).data.runTrigger.state, 'QUEUED');
  assert.equal(real.runs.length, before + 1);
});

test('explain says of a body what the gate does with it', () => {
  const explained = (query) => {
    const args = ['explain', '-c', door.file, '--listener', 'graphql', '-X', 'POST', '-p', '/graphql', '-b', JSON.stringify({ query }), '--as', 'portal', '--workspace', 'payments'];
    const { status, stdout } = spawnSync(binary, args, { encoding: 'utf8' });
    return [status, /^operation +(.*)$/m.exec(stdout)?.[1], /^verdict +(.*)$/m.exec(stdout)[1]];
  };
  assert.deepEqual(explained(STACKS), [0, 'query stacks', 'allow graphql to spacelift']);
  assert.deepEqual(explained('mutation { runTrigger(stack: "payments-db") { id } }'), [0, 'mutation runTrigger', 'allow graphql to spacelift']);
  assert.deepEqual(explained('mutation { runTrigger(stack: "search-index") { id } }'), [1, 'mutation runTrigger', 'deny 403 resource_refused: `search-index` is not a `spacelift-stack` in the workspace\'s `resources`']);
});

test('a real token is exchanged again before it ends, and nobody notices', async () => {
  real.lives(4);
  const fresh = await stagedoor(config());
  try {
    const opaque = await logIn(fresh.ports.tls, PORTAL);
    const exchanged = real.calls.apiKeyUser;
    const first = real.tokens.length;
    let answered = 0;
    await until('the first token to end', async () => {
      const { data, text } = await ask(fresh.ports.tls, { query: STACKS }, opaque);
      if (!data?.stacks.length) throw Object.assign(new Error(text), { fatal: true });
      answered += 1;
      const [, claims] = (real.tokens[first] ?? real.tokens.at(-1)).split('.');
      return JSON.parse(Buffer.from(claims, 'base64url')).exp + 1 < Date.now() / 1000;
    });
    assert.ok(answered > 1 && real.calls.apiKeyUser > exchanged);
  } finally { real.lives(3600); await fresh.stop(); }
});
