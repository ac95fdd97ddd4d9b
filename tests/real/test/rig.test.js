'use strict';
// The rig itself, without the proxy: that its programs are what the other tests take them for.
// SAMPLES=1 prints each kind of token.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const { backstage, callback, threeRoutes } = require('../rig/backstage');
const { browser } = require('../rig/browser');
const { authority } = require('../rig/certificates');
const { chromium } = require('../rig/chromium');
const { dxcp } = require('../rig/dxcp');
const { inMemory } = require('../rig/memory');
const { oidc } = require('../rig/oidc');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { start } = require('../rig/process');
const { caller, grpc, rpc } = require('../rig/rpc');
const { spacelift } = require('../rig/spacelift');
const { read } = require('../rig/token');
const { raw, upstream } = require('../rig/upstream');

const ROLES = 'https://dxcp.example/claims/roles';
const show = (what, value) => { if (process.env.SAMPLES) console.log(what, typeof value === 'string' ? value : JSON.stringify(value)); };
const json = async (url, options) => (await fetch(url, options)).json();
const bearer = (token, more = {}) => ({ headers: { authorization: `Bearer ${token}`, ...more } });

let db; let idp; let portal; let up;
before(async () => {
  const [base, port] = await Promise.all([postgres(), freePort()]);
  db = base;
  up = await upstream();
  idp = await oidc({
    callbacks: [callback(`http://127.0.0.1:${port}`)],
    algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'],
    claims: { workspaces: ['payments'], groups: ['dev'], role: 'developer', roles: ['deployer'] },
    clientClaims: { 'portal-post': { [ROLES]: ['dxcp-delivery-owners'] } },
  });
  const begun = Date.now();
  portal = await backstage({ port, baseUrl: `http://127.0.0.1:${port}`, postgres: db, oidc: idp, endpoints: threeRoutes(up.url) });
  show('Backstage was ready after', `${Date.now() - begun} ms`);
});
after(async () => { await portal?.stop(); await idp?.stop(); await up?.stop(); await db?.stop(); });

const at = (path) => `${portal.url}${path}`;
const guest = async () => (await json(at('/api/auth/guest/refresh'))).backstageIdentity.token;

test('the provider signs access tokens as RFC 9068 says, with each algorithm', async () => {
  for (const algorithm of ['PS256', 'ES256', 'EdDSA', 'RS256']) {
    idp.sign(algorithm);
    const { header, claims } = read(await idp.token());
    assert.deepEqual([header.alg, header.typ], [algorithm, 'at+jwt']);
    assert.deepEqual([claims.iss, claims.aud, claims.sub, claims.workspaces, claims.role], [idp.issuer, idp.resource, 'portal', ['payments'], 'developer']);
    show(`access token ${algorithm}`, { header, claims });
  }
});

test('a client of the kind that Auth0 has names its audience, and gets claims of its own', async () => {
  const { claims } = read(await idp.token({ client: 'portal-post', resource: 'https://dxcp-api' }));
  assert.equal(claims.aud, 'https://dxcp-api');
  assert.deepEqual(claims[ROLES], ['dxcp-delivery-owners']);
  show('access token for DXCP', claims);
});

test('keys are added, signed with, and dropped, by call and over HTTP', async () => {
  const kids = async () => (await json(idp.jwks)).keys.map((key) => key.kid);
  const old = read(await idp.token()).header.kid;
  const { answer: young } = await json(`${idp.url}/__rig/addKey?with=RS256`, { method: 'POST' });
  assert.equal(read(await idp.token()).header.kid, young);
  assert.ok((await kids()).includes(old), 'the old key is still served');
  idp.dropKey(old);
  assert.ok(!(await kids()).includes(old));
});

test('the provider can be slow, out of its mind, and away', async () => {
  idp.mode('slow', 300);
  const begun = Date.now();
  await json(idp.jwks);
  assert.ok(Date.now() - begun >= 290);
  idp.mode('html');
  assert.match(await (await fetch(idp.jwks)).text(), /<html>/);
  idp.mode('well');
  await idp.stop();
  await assert.rejects(fetch(idp.jwks));
  await idp.start();
  assert.ok((await json(idp.jwks)).keys.length);
});

test('Backstage makes user tokens, and serves their key', async () => {
  const token = await guest();
  const { header, claims } = read(token);
  show('user token', { header, claims });
  assert.deepEqual([header.typ, header.alg], ['vnd.backstage.user', 'ES256']);
  assert.deepEqual([claims.iss, claims.sub, claims.aud], [at('/api/auth'), 'user:default/ada', 'backstage']);
  assert.equal(claims.exp - claims.iat, 3600);
  assert.equal(claims.ent, undefined, 'groups are not in it');
  const { keys } = await json(at('/api/auth/.well-known/jwks.json'));
  assert.ok(keys.some((key) => key.kid === header.kid));
});

test('user info tells the groups that a user token does not, as they were at sign-in', async () => {
  const info = async (token) => {
    const answer = await fetch(at('/api/auth/v1/userinfo'), bearer(token));
    return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() };
  };
  // Right after a start the catalog knows nobody yet.
  const early = await guest();
  show('user info, before the catalog was read', await info(early));
  const { status, text } = await until('the catalog', async () => {
    const found = await info(await guest());
    return found.text.includes('payments-dev') && found;
  });
  show('user info', text);
  assert.deepEqual([status, JSON.parse(text)], [200, { claims: { sub: 'user:default/ada', ent: ['user:default/ada', 'group:default/payments-dev'] } }]);
  show('user info, with the early token, after a later sign-in', await info(early));
  const { token: plugin } = await json(at('/api/stage/token?target=auth'), bearer(early));
  show('user info, asked by a plugin on behalf of the user', await info(plugin));
  show('user info, asked with a foreign token', await info(await idp.token()));
  show('user info, asked with a limited token', await info(read(plugin).claims.obo));
  const refused = await fetch(at('/api/auth/v1/userinfo'));
  assert.equal(refused.status, 401);
  show('user info, without a token', await refused.text());
});

test('a plugin shows another plugin a token on behalf of a user, with a key of its own', async () => {
  const user = await guest();
  const { token } = await json(at('/api/stage/token?target=catalog'), bearer(user));
  const { header, claims } = read(token);
  show('plugin token', { header, claims });
  assert.deepEqual([header.typ, claims.sub, claims.aud, claims.iss], ['vnd.backstage.plugin', 'stage', 'catalog', undefined]);
  const limited = read(claims.obo);
  show('limited user token', limited);
  assert.deepEqual([limited.header.typ, limited.claims.sub, limited.claims.iss], ['vnd.backstage.limited-user', 'user:default/ada', undefined]);
  const { keys } = await json(at('/api/stage/.backstage/auth/v1/jwks.json'));
  assert.ok(keys.some((key) => key.kid === header.kid));
  assert.equal((await fetch(at('/api/catalog/entities'), bearer(token))).status, 200);
  assert.equal((await fetch(at('/api/stage/whoami'), bearer(token))).status, 401, 'it is for the catalog alone');
  const own = read((await json(at('/api/stage/token?own=1'), bearer(user))).token);
  show('plugin token in its own name', own);
  assert.equal(own.claims.obo, undefined);
});

test('a limited user token is good as a cookie, where a path takes it, and nowhere else', async () => {
  const answer = await fetch(at('/api/stage/cookie'), bearer(await guest()));
  const [line] = answer.headers.getSetCookie();
  show('limited user cookie', line.replace(/=[^;]*/, '=…'));
  show('cookie answer', await answer.text());
  const [, token] = /^backstage-auth=([^;]+)/.exec(line);
  assert.equal(read(token).header.typ, 'vnd.backstage.limited-user');
  const asset = await fetch(at('/api/stage/asset'), { headers: { cookie: `backstage-auth=${token}` } });
  show('principal behind a cookie', await asset.clone().text());
  assert.equal(asset.status, 200);
  assert.equal((await fetch(at('/api/catalog/entities'), { headers: { cookie: `backstage-auth=${token}` } })).status, 401);
  assert.equal((await fetch(at('/api/catalog/entities'), bearer(token))).status, 401);
});

test('people sign in at the provider, and Backstage sets its cookies in lines of their own', async () => {
  const user = browser();
  const { answer, seen } = await user.follow(at('/api/auth/oidc/start?env=development&scope=openid%20profile%20email'));
  const page = await answer.text();
  assert.equal(answer.status, 200, `${seen.join('\n')}\n${page}`);
  show('redirects of a sign-in', seen.map((url) => url.split('?')[0]));
  show('cookies', user.lines.map((line) => line.replace(/=[^;]*/, '=…')));
  const [, text] = /decodeURIComponent\('([^']+)'\)/.exec(page) ?? [];
  const message = JSON.parse(decodeURIComponent(text));
  assert.equal(message.error, undefined, JSON.stringify(message.error));
  const { header, claims } = read(message.response.backstageIdentity.token);
  assert.deepEqual([header.typ, claims.sub], ['vnd.backstage.user', 'user:default/ada']);
});

test('its proxy plugin shows an upstream what its three kinds of routes say', async () => {
  const user = await guest();
  const headers = { 'idempotency-key': 'k', 'x-request-id': 'r', 'x-orbit-workspace-id': 'payments', cookie: 'a=b' };
  const status = async (route, token) => (await fetch(at(`/api/proxy/${route}/x`), { headers: { ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}) } })).status;
  assert.equal(await status('require'), 401);
  assert.equal(await status('require', user), 200);
  assert.deepEqual([up.last().headers.authorization, up.last().headers['idempotency-key'], up.last().headers['x-request-id']], [undefined, 'k', 'r']);
  assert.deepEqual([up.last().headers['x-orbit-workspace-id'], up.last().headers.cookie], [undefined, undefined]);
  assert.equal(await status('forward', user), 200);
  assert.equal(up.last().headers.authorization, `Bearer ${user}`);
  assert.equal(await status('forward', await idp.token()), 401);
  const foreign = await idp.token();
  assert.equal(await status('open', foreign), 200);
  assert.equal(up.last().headers.authorization, `Bearer ${foreign}`);
});

test('the catalog has our entities', async () => {
  const user = await guest();
  const found = await until('the catalog', async () => {
    const entities = await json(at('/api/catalog/entities?filter=kind=component'), bearer(user));
    return entities.length ? entities : undefined;
  });
  assert.equal(found[0].metadata.annotations['dxcp.io/service'], 'pay');
});

test('the stand-in for DXCP has its errors, its replays and its limits', async () => {
  const control = await dxcp({ issuer: idp.issuer, audience: 'https://dxcp-api', reads: 4, mutations: 10 });
  const token = await idp.token({ client: 'portal-post', resource: 'https://dxcp-api' });
  const ask = async (path, { method = 'GET', body, headers = {}, who = token } = {}) => {
    const answer = await fetch(`${control.url}${path}`, { method, redirect: 'manual', headers: { ...headers, ...(who ? { authorization: `Bearer ${who}` } : {}) }, body: body && JSON.stringify(body) });
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, body: text ? JSON.parse(text) : undefined };
  };
  const refused = await ask('/v1/services', { who: '', headers: { 'x-request-id': 'r-1' } });
  assert.deepEqual([refused.status, refused.body.code, refused.body.request_id, refused.headers.get('x-request-id')], [401, 'UNAUTHORIZED', 'r-1', 'r-1']);
  assert.equal((await ask('/v1/services', { who: await idp.token() })).status, 401, 'for another audience');
  assert.equal((await ask('/v1/services/')).status, 307);
  assert.deepEqual((await ask('/v2')).body, { detail: 'Not Found' });
  assert.deepEqual((await ask('/v1/%61dmin/system/rate-limits')).body.code, 'ROLE_FORBIDDEN', 'decoded, and found');

  const intent = { service: 'pay', environment: 'prod', version: '1', changeSummary: 'x' };
  const deploy = (key, body = intent) => ask('/v1/deployments', { method: 'POST', body, headers: key ? { 'idempotency-key': key } : {} });
  assert.equal((await deploy()).body.code, 'IDMP_KEY_REQUIRED');
  const both = await Promise.all([deploy('k'), deploy('k')]);
  assert.notEqual(both[0].body.id, both[1].body.id, 'it runs two at once, as the real one');
  const again = await deploy('k');
  assert.deepEqual([again.status, again.headers.get('idempotency-replayed')], [201, 'true']);
  assert.equal((await deploy('k', { ...intent, version: '2' })).body.code, 'IDEMPOTENCY_CONFLICT');
  const back = await ask(`/v1/deployments/${again.body.id}/rollback`, { method: 'POST', headers: { 'idempotency-key': 'b' } });
  assert.deepEqual([back.status, back.body.rollbackOf, back.headers.get('idempotency-replayed')], [201, again.body.id, null]);
  control.control.mutationsDisabled = true;
  assert.deepEqual((await deploy('k2')).body.code, 'MUTATIONS_DISABLED');

  let last;
  for (let i = 0; i < 5; i += 1) last = await ask('/v1/services/pay/allowed-actions');
  assert.deepEqual([last.status, last.body.code, last.headers.get('retry-after')], [429, 'RATE_LIMITED', null]);
  const seen = await json(`${control.url}/__seen`);
  assert.ok(seen.at(-1).raw.includes('authorization'), 'with header lines as they came');
  await control.stop();
});

test('the upstream streams, hangs, breaks off and ends with trailers', async () => {
  const get = (query) => fetch(`${up.url}/x?${query}`);
  assert.match(await (await get('do=sse&ms=50')).text(), /first[^]*second/);
  assert.equal((await (await get('do=chunks&n=1000')).text()).split('\n').length, 1001);
  for (const what of ['reset', 'close', 'garbage']) await assert.rejects(get(`do=${what}`), what);
  for (const what of ['cut', 'cut-chunk']) await assert.rejects(get(`do=${what}`).then((a) => a.text()), what);
  assert.match(await raw(up.port, 'GET /x?do=trailers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), /0\r\nx-trailer: yes\r\n\r\n$/);
  const seen = await json(`${up.url}/?do=seen`);
  assert.ok(seen.length && seen.at(-1).url.includes('trailers'));
});

test('gRPC works without a proxy: unary, streams, trailers alone, over TLS too', async () => {
  const folder = fs.mkdtempSync('/tmp/stagedoor-rpc-');
  const { ca, file, issue } = authority(folder);
  issue('server', { names: ['localhost', '127.0.0.1'] });
  const pem = (path) => fs.readFileSync(path);
  const pair = [{ cert_chain: pem(file('server.crt')), private_key: pem(file('server.key')) }];
  for (const [server, client] of [
    [grpc.ServerCredentials.createInsecure(), grpc.credentials.createInsecure()],
    [grpc.ServerCredentials.createSsl(null, pair), grpc.credentials.createSsl(pem(ca))],
  ]) {
    const service = await rpc({ credentials: server });
    const call = caller(`localhost:${service.port}`, client);
    assert.deepEqual(await call.unary('hi'), { text: 'hi', trailers: { 'x-trailer': 'yes' } });
    assert.deepEqual(await call.many(''), ['a', 'b', 'c']);
    assert.deepEqual(await call.both(['1', '2']), ['1', '2']);
    await assert.rejects(call.unary('', undefined, 'Fail'), { code: grpc.status.PERMISSION_DENIED, details: 'no' });
    call.close();
    service.stop();
  }
  fs.rmSync(folder, { recursive: true, force: true });
});

test('what a program holds in its memory is found, in both ways that V8 keeps text', async (t) => {
  const holder = start(process.execPath, ['-e', "const kept = ['planted', process.pid, 'here'].join('-'); const wide = Buffer.from(`${kept}☃`, 'utf16le').toString('utf16le'); setInterval(() => [kept, wide], 1000); console.log('ready');"]);
  t.after(() => holder.stop());
  await until('the program', async () => holder.output().includes('ready'));
  const planted = `planted-${holder.pid}-here`;
  assert.deepEqual(inMemory(holder.pid, [planted, `${planted}☃`, `${planted}-not`]).found.sort(), [planted, `${planted}☃`]);
});

test('Spacelift’s stand-in runs what a token of its own may, and says no with 200', async () => {
  const folder = fs.mkdtempSync('/tmp/stagedoor-rig-');
  const certificate = authority(folder).issue('spacelift', { names: ['localhost'] });
  const runs = await spacelift(certificate, { keys: { key: 'secret' } });
  const { Agent, fetch: ask } = require('undici');
  const dispatcher = new Agent({ connect: { ca: fs.readFileSync(`${folder}/ca.crt`), family: 4 } });
  const post = async (body, jwt) => {
    const answer = await ask(`https://localhost:${runs.port}/graphql`, { dispatcher, method: 'POST', headers: jwt ? { authorization: `Bearer ${jwt}` } : {}, body: JSON.stringify(body) });
    assert.equal(answer.status, 200);
    return answer.json();
  };
  const logIn = (secret) => post({ query: 'mutation A($s: String!) { apiKeyUser(id: "key", secret: $s) { jwt validUntil } }', variables: { s: secret } });
  assert.match((await logIn('wrong')).errors[0].message, /unauthorized/);
  const { data: { apiKeyUser: { jwt, validUntil } } } = await logIn('secret');
  assert.equal(read(jwt).claims.exp, validUntil);
  assert.match((await post({ query: '{ stacks { id } }' })).errors[0].message, /unauthorized/);
  const last = jwt.at(-2) === 'A' ? 'B' : 'A';
  assert.match((await post({ query: '{ stacks { id } }' }, `${jwt.slice(0, -2)}${last}${jwt.at(-1)}`)).errors[0].message, /unauthorized/);
  assert.match((await post({ query: 'query A () { nothing }' }, jwt)).errors[0].message, /Cannot query field/);
  const trigger = 'mutation { one: runTrigger(stack: "payments-db") { id } two: runTrigger(stack: "search-index") { id } }';
  const [first, second] = await post([{ query: 'query A () { stacks { id } }' }, { query: trigger }], jwt);
  assert.deepEqual([first.data.stacks.length, second.data.two.id], [3, 'run-2']);
  assert.deepEqual(runs.calls, { apiKeyUser: 2, stacks: 1, runTrigger: 2 });
  await dispatcher.close(); await runs.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

test('Chromium tells what its pages asked and were answered, one person’s apart from another’s', async () => {
  const { port } = new URL(up.url);
  const browsers = await chromium({ names: { 'up.test': `127.0.0.1:${port}` } });
  try {
    const [ada, vic] = await Promise.all([browsers.person(), browsers.person()]);
    await ada.page.goto('http://up.test/?do=cookies');
    await ada.page.goto(`http://up.test/x`);
    assert.match(await ada.page.textContent('body'), /"cookie":"a=1; b=2; c=3"/);
    await vic.page.goto('http://up.test/?do=status&n=403&type=text/html');
    assert.equal((await vic.context.cookies()).length, 0);
    assert.deepEqual(vic.refused(), ['403 GET http://up.test/?do=status&n=403&type=text/html']);
    assert.ok(!ada.refused().some((line) => line.includes('/x')));
    await vic.page.goto('http://elsewhere.test/').catch(() => {});
    assert.ok(vic.failures.some(({ error }) => error === 'net::ERR_NAME_NOT_RESOLVED'), JSON.stringify(vic.failures));
  } finally { await browsers.stop(); }
});
