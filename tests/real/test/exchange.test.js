'use strict';
// Upstreams that are shown the user instead of us: callers' tokens, exchanged at a real provider (RFC 8693).

const assert = require('node:assert/strict');
const fs = require('node:fs');
const https = require('node:https');
const path = require('node:path');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { authority } = require('../rig/certificates');
const { orbit, identity } = require('../rig/jwt');
const { oidc } = require('../rig/oidc');
const { stagedoor } = require('../rig/stagedoor');
const { read } = require('../rig/token');
const { upstream } = require('../rig/upstream');
const { until } = require('../rig/ports');

const claims = { workspaces: ['payments'] };
const secretOf = (client) => `${client}-secret-${client}-secret-${client}`;
let up;
before(async () => { up = await upstream(); });
after(async () => { await up?.stop(); });

/** A provider that exchanges its tokens for those of `orders` and `stock`. */
const provider = (exchange = {}) => oidc({ claims, exchange: { audiences: ['orders', 'stock', 'https://stock.example/api'], ...exchange } });

/** One upstream and a route for each credential; the rest of each is `written`, by name. */
const config = (idp, written = { orders: 'audience: orders' }, { listener = '', callers = '' } = {}) => (ports, folder) => {
  for (const client of ['portal', 'portal-post', 'ci']) fs.writeFileSync(`${folder}/${client}`, `${secretOf(client)}\n`);
  const names = Object.keys(written);
  const credential = (more) => `{kind: token_exchange, token_url: "${idp.url}/token", issuers: [idp], ${/client_id/.test(more) ? '' : `client_id: portal, client_secret_file: ${folder}/portal, `}${more.replaceAll('FOLDER', folder)}}`;
  return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${listener.replace('PORT', ports.tls)}
${identity(folder)}
    idp: {issuer: "${idp.issuer}", audiences: ["${idp.resource}"], algorithms: [RS256], token_types: [at+jwt]}
${callers}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}, per_client: {rate: 100000/s, burst: 100000}}
credentials:
${names.map((name) => `  ${name}: ${credential(written[name])}`).join('\n')}
upstreams:
  plain: {url: "${up.url}"}
${names.map((name) => `  ${name}: {url: "${up.url}", credential: ${name}, retries: {attempts_max: 1}}`).join('\n')}
routes:
${['plain', ...names].map((name) => `- {name: ${name}, methods: [ANY], path: /${name}/**, upstream: ${name}, class: read, options: {upgrade: true}}`).join('\n')}`;
};

const ask = async (door, where, token, more = {}) => {
  const answer = await fetch(`${door.url}${where}`, { headers: { authorization: `Bearer ${token}` }, ...more });
  const body = await answer.json().catch(() => ({}));
  return {
    status: answer.status, code: body.code, body, user: body.headers?.['x-orbit-user-id'],
    shown: body.headers?.authorization?.replace(/^Bearer /, ''), retryAfter: answer.headers.get('retry-after'),
  };
};
const failing = async (door, name) => (await (await door.admin('/state')).json()).credentials.find((one) => one.name === name).failing;
const counted = async (door, name, result) => {
  const line = (await (await door.admin('/metrics')).text()).split('\n').find((l) => l.startsWith(`stagedoor_credential_fetches_total{credential="${name}",result="${result}"}`));
  return Number(line?.split(' ')[1] ?? 0);
};
const asked = (idp, token) => idp.exchanges.filter((one) => one.subject_token === token).length;

test('an upstream sees a token of the caller that is meant for it, and neither the caller’s own nor one of ours', async () => {
  const idp = await provider();
  const door = await stagedoor(config(idp, {
    orders: 'audience: orders, scopes: [api], requested_token_type: access_token',
    stock: 'resource: "https://stock.example/api", client_id: portal-post, client_secret_file: FOLDER/portal-post, client_auth: post',
  }));
  const machine = await idp.token({ client: 'ci' });
  for (const [who, token] of [['ada', idp.person('ada')], ['vic', idp.person('vic')], ['ci', machine]]) {
    for (const [name, aud, client] of [['orders', 'orders', 'portal'], ['stock', 'https://stock.example/api', 'portal-post']]) {
      const { status, shown, user } = await ask(door, `/${name}/x`, token);
      assert.deepEqual([status, user], [200, who]);
      const said = read(shown).claims;
      assert.deepEqual([said.sub, said.aud, said.client_id, said.iss], [who, aud, client, idp.issuer]);
      assert.ok(!JSON.stringify(up.last().raw).includes(token), 'the caller’s own stays here');
      const { subject_token: subject, audience, resource, scope, requested_token_type: kind } = idp.exchanges.at(-1);
      const urn = 'urn:ietf:params:oauth:token-type:access_token';
      assert.deepEqual([subject, audience, resource, scope, kind], name === 'orders' ? [token, aud, undefined, 'api', urn] : [token, undefined, aud, undefined, undefined]);
    }
  }
  assert.deepEqual(new Set(idp.tokens.slice(1).map((head) => /^Basic /.test(head.authorization))), new Set([true, false]));
  const ada = idp.person('ada');
  assert.equal((await ask(door, '/plain/x', ada)).shown, ada, 'another upstream sees what came');
  const record = await door.record((r) => r.route === 'orders' && r.caller === 'ada');
  assert.deepEqual([record.credential, record.code], ['orders', 'ok']);

  // Where a browser cannot send the header, its token stands among the protocols of its WebSocket.
  const live = idp.person('eve');
  const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/orders/live`, ['chat', live]);
  await new Promise((resolve, reject) => { ws.on('open', resolve); ws.on('error', reject); });
  const { headers, raw } = up.last();
  const { claims } = read(headers.authorization.replace(/^Bearer /, ''));
  assert.deepEqual([claims.sub, claims.aud], ['eve', 'orders']);
  assert.ok(!JSON.stringify(raw).includes(live));
  ws.terminate();
  await door.stop(); await idp.stop();
});

test('nobody is shown as somebody else, with many at once and tokens that are nearly the same', async () => {
  const idp = await provider({ delay: 100 });
  const door = await stagedoor(config(idp));
  const now = Math.floor(Date.now() / 1000);
  // All but the end of what they say is the same, byte for byte.
  const same = { jti: 'same', iat: now, exp: now + 600, pad: 'x'.repeat(500) };
  const callers = Array.from({ length: 20 }, (_, n) => `caller-${n}`).map((who) => [who, idp.person(who, same)]);
  const [[, first], [, second]] = callers;
  let shared = 0;
  while (first[shared] === second[shared]) shared += 1;
  assert.ok(shared > 900, `${shared} characters`);
  const all = await Promise.all(Array.from({ length: 10 }).flatMap(() => callers.map(async ([who, token]) => [who, await ask(door, '/orders/x', token)])));
  for (const [who, { status, shown, user }] of all) assert.deepEqual([status, user, read(shown).claims.sub], [200, who, who]);
  assert.equal(new Set(all.map(([, { shown }]) => shown)).size, callers.length);
  assert.equal(idp.exchanges.length, callers.length, 'one exchange for each');

  // What was verified once vouches for nothing that is nearly it.
  const [message, claimed, signature] = first.split('.');
  const forged = [`${message}.${claimed}.${second.split('.')[2]}`, `${message}.${second.split('.')[1]}.${signature}`, first.slice(0, -4), `${first}AAAA`];
  const seen = up.seen.length;
  for (const token of forged) assert.equal((await ask(door, '/orders/x', token)).status, 401);
  assert.deepEqual([up.seen.length, idp.exchanges.length], [seen, callers.length]);
  // Another token of the same person is another: the first may have been withdrawn at the issuer.
  const again = await ask(door, '/orders/x', idp.person('caller-0'));
  assert.ok(read(again.shown).claims.sub === 'caller-0' && !all.some(([, { shown }]) => shown === again.shown));
  await door.stop(); await idp.stop();
});

test('one exchange serves all who wait, though the first hangs up, and another is had before it ends', async () => {
  const idp = await provider({ delay: 500 });
  const door = await stagedoor(config(idp));
  const ada = idp.person('ada');
  const leaving = new AbortController();
  const left = ask(door, '/orders/x', ada, { signal: leaving.signal }).catch((error) => error.name);
  await until('the exchange', async () => idp.exchanges.length === 1);
  leaving.abort();
  assert.equal(await left, 'AbortError');
  const all = await Promise.all(Array.from({ length: 50 }, () => ask(door, '/orders/x', ada)));
  assert.deepEqual([...new Set(all.map(({ status, shown }) => `${status} ${read(shown).claims.sub}`))], ['200 ada']);
  for (let n = 0; n < 20; n += 1) assert.equal((await ask(door, '/orders/x', ada)).shown, all[0].shown);
  assert.equal(idp.exchanges.length, 1);
  assert.equal(await counted(door, 'orders', 'ok'), 1);
  fs.appendFileSync(door.file, '\n# changed\n');
  assert.ok((await door.reload()).successful);
  assert.equal((await ask(door, '/orders/x', ada)).shown, all[0].shown, 'a reload takes it along');

  Object.assign(idp.exchange, { delay: 0, lifetime: 4 });
  const vic = idp.person('vic');
  const tokens = new Set();
  await until('two more', async () => {
    const { status, shown } = await ask(door, '/orders/x', vic);
    if (status !== 200) throw Object.assign(new Error(`${status}`), { fatal: true });
    tokens.add(shown);
    return tokens.size === 3;
  });
  assert.equal(asked(idp, vic), 3);
  await door.stop(); await idp.stop();
});

test('what the issuer refuses is refused to that caller alone, and it is not asked over and over', async () => {
  const idp = await provider({ refused: ['vic'] });
  const door = await stagedoor(config(idp, {
    orders: 'audience: orders', nowhere: 'audience: nowhere', jwt: 'audience: orders, subject_token_type: jwt',
  }));
  const [ada, vic] = [idp.person('ada'), idp.person('vic')];
  const seen = up.seen.length;
  const all = await Promise.all(Array.from({ length: 20 }, () => ask(door, '/orders/x', vic)));
  for (let n = 0; n < 20; n += 1) all.push(await ask(door, '/orders/x', vic));
  assert.deepEqual([...new Set(all.map(({ status, code }) => `${status} ${code}`))], ['403 token_exchange_refused']);
  assert.equal(up.seen.length, seen, 'nothing reached the upstream');
  assert.equal(idp.exchanges.length, 1);
  assert.equal(await counted(door, 'orders', 'refused'), 1);
  const record = await door.record((r) => r.code === 'token_exchange_refused');
  assert.deepEqual([record.caller, record.credential, record.attempts, record.upstream_address], ['vic', 'orders', 0, undefined]);
  assert.equal((await ask(door, '/orders/x', ada)).status, 200);
  assert.equal(await failing(door, 'orders'), null, 'the issuer works');
  assert.match(door.output(), /a caller's token was not exchanged.*invalid_grant/);

  for (const [name, cause] of [['nowhere', 'invalid_target'], ['jwt', 'invalid_request']]) {
    assert.equal((await ask(door, `/${name}/x`, ada)).code, 'token_exchange_refused', name);
    assert.match(door.output(), new RegExp(`not exchanged.*${cause}`));
  }
  await door.stop(); await idp.stop();
});

test('an issuer that is down or silent keeps nobody waiting; who has a token goes on, and the others when it is back', async () => {
  const idp = await provider();
  const door = await stagedoor(config(idp));
  const [ada, vic, eve] = ['ada', 'vic', 'eve'].map((who) => idp.person(who));
  assert.equal((await ask(door, '/orders/x', ada)).status, 200);
  await idp.stop();
  const seen = up.seen.length;
  let begun = Date.now();
  for (let n = 0; n < 8; n += 1) {
    const { status, code, retryAfter } = await ask(door, '/orders/x', vic);
    assert.deepEqual([status, code, retryAfter], [503, 'credential_unavailable', '5']);
  }
  assert.ok(Date.now() - begun < 5000, `${Date.now() - begun} ms`);
  assert.equal(up.seen.length, seen);
  assert.equal(await counted(door, 'orders', 'error'), 1, 'it is not asked again for the same caller');
  assert.match(await failing(door, 'orders'), /cannot get/);
  assert.equal((await ask(door, '/orders/x', ada)).status, 200);

  await idp.start();
  assert.equal((await ask(door, '/orders/x', eve)).status, 200, 'others do not wait for his turn');
  assert.equal(await failing(door, 'orders'), null);
  assert.match(door.output(), /tokens can be fetched again/);

  idp.exchange.delay = Infinity;
  begun = Date.now();
  const silent = await Promise.all(Array.from({ length: 60 }, (_, n) => ask(door, '/orders/x', idp.person(`many-${n}`))));
  assert.deepEqual([...new Set(silent.map(({ code }) => code))], ['credential_unavailable']);
  assert.ok(Date.now() - begun < 10000, `${Date.now() - begun} ms`);
  const places = idp.exchanges.filter((one) => read(one.subject_token).claims.sub.startsWith('many-')).length;
  assert.ok(places <= 32 + 3, `${places} at once`);
  assert.equal((await ask(door, '/orders/x', ada)).status, 200);
  idp.exchange.delay = 0;
  await until('him', async () => (await ask(door, '/orders/x', vic)).status === 200);
  assert.equal((await (await door.admin('/state')).json()).breakers.find((b) => b.upstream === 'orders').position, 'closed');
  await door.stop(); await idp.stop();
});

test('only a token that is good now, of an issuer that is named, is ever sent there', async () => {
  const idp = await provider();
  const folder = fs.mkdtempSync('/tmp/stagedoor-exchange-');
  const ca = authority(folder);
  const server = ca.issue('edge', { names: ['localhost'] });
  const client = ca.issue('ci', { uri: 'spiffe://example/ci' });
  const door = await stagedoor(config(idp, undefined, {
    listener: `  tls: {kind: reverse, address: "127.0.0.1:PORT", tls: {certificates: [{cert: ${server.cert}, key: ${server.key}}], client_ca: ${ca.ca}}}`,
    callers: '  client_certificates: [{name: "spiffe://example/ci", caller: "service:ci", workspaces: [payments]}]',
  }));
  const now = Math.floor(Date.now() / 1000);
  const seen = up.seen.length;
  const check = async (token, expected) => {
    const { status, code } = await ask(door, '/orders/x', token);
    assert.equal(`${status} ${code}`, expected);
  };
  await check(idp.person('ada', { exp: now - 3600 }), '401 token_expired');
  // The clock’s leeway, too, makes nothing new of what has ended.
  await check(idp.person('ada', { exp: now - 5 }), '401 token_expired');
  await check(idp.person('ada', { aud: 'https://elsewhere.example' }), '401 token_audience_wrong');
  await check(orbit('ada', ['payments']), '401 caller_token_missing');
  assert.equal((await ask(door, '/plain/x', orbit('ada', ['payments']))).status, 200, 'elsewhere it is good');

  const secure = (headers = {}) => new Promise((resolve, reject) => {
    https.get({ host: '127.0.0.1', port: door.ports.tls, path: '/orders/x', servername: 'localhost', ca: fs.readFileSync(ca.ca), cert: fs.readFileSync(client.cert), key: fs.readFileSync(client.key), agent: false, headers }, (answer) => {
      let text = '';
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => resolve(`${answer.statusCode} ${JSON.parse(text).code} ${answer.headers['www-authenticate']}`));
    }).on('error', reject);
  });
  assert.equal(await secure(), '401 caller_token_missing Bearer realm="stagedoor"');
  const record = await door.record((r) => r.caller === 'service:ci');
  assert.deepEqual([record.proof, record.code], ['client_certificate', 'caller_token_missing']);
  assert.equal(idp.exchanges.length, 0);
  assert.equal(up.seen.length, seen + 1);
  await door.stop(); await idp.stop();
  fs.rmSync(folder, { recursive: true });
});

test('a 401 of the upstream leads to another exchange for that caller’s next request, once a minute', async () => {
  const idp = await provider();
  const door = await stagedoor(config(idp));
  const [ada, vic] = [idp.person('ada'), idp.person('vic')];
  const shown = async (token) => (await ask(door, '/orders/x', token)).shown;
  const refused = async () => assert.equal((await ask(door, '/orders/x?do=status&n=401', ada)).status, 401);
  const [first, others] = [await shown(ada), await shown(vic)];
  await refused();
  const second = await shown(ada);
  assert.notEqual(second, first);
  assert.equal(read(second).claims.sub, 'ada');
  for (let n = 0; n < 5; n += 1) await refused();
  assert.equal(await shown(ada), second);
  assert.equal(await shown(vic), others);
  assert.deepEqual([asked(idp, ada), asked(idp, vic)], [2, 1]);
  await door.stop(); await idp.stop();
});

test('no exchanged token is shown after the caller’s own has ended', async () => {
  const idp = await provider({ lifetime: 3600 });
  const door = await stagedoor(config(idp));
  const exp = Math.floor(Date.now() / 1000) + 4;
  const ada = idp.person('ada', { exp });
  let served = 0;
  await until('its end', async () => {
    const begun = Date.now();
    const { status, code, shown } = await ask(door, '/orders/x', ada);
    if (status === 200) {
      served += 1;
      assert.ok(read(shown).claims.exp > exp + 3000, 'its own end is later');
      if (begun >= exp * 1000) throw Object.assign(new Error(`shown ${begun - exp * 1000} ms after`), { fatal: true });
    }
    return code === 'token_expired';
  });
  assert.ok(served > 0);
  assert.equal(asked(idp, ada), 1, 'another would end then, too');
  await door.stop(); await idp.stop();
});

test('the client’s secret that changes is used for the next exchange; what was exchanged stays', async () => {
  const idp = await provider();
  const door = await stagedoor(config(idp));
  const ada = idp.person('ada');
  const { shown } = await ask(door, '/orders/x', ada);
  fs.writeFileSync(path.join(door.folder, 'portal'), 'planted-unknown');
  assert.ok((await door.reload()).successful);
  assert.equal((await ask(door, '/orders/x', ada)).shown, shown);
  assert.equal((await ask(door, '/orders/x', idp.person('vic'))).code, 'credential_unavailable');
  assert.match(await failing(door, 'orders'), /responded with 401: invalid_client/);
  fs.writeFileSync(path.join(door.folder, 'portal'), secretOf('portal'));
  assert.ok((await door.reload()).successful);
  assert.equal((await ask(door, '/orders/x', idp.person('vic'))).status, 200);
  assert.equal((await ask(door, '/orders/x', ada)).shown, shown);
  assert.equal(asked(idp, ada), 1);
  await door.stop(); await idp.stop();
});

test('no token of a caller, none that was exchanged and no secret is on any page, in metrics, logs or records', async () => {
  const idp = await provider({ refused: ['vic'] });
  const door = await stagedoor(config(idp, {
    orders: 'audience: orders', stock: 'audience: stock, client_id: portal-post, client_secret_file: FOLDER/portal-post, client_auth: post',
  }), { env: { STAGEDOOR_LOG: 'debug' } });
  const tokens = [];
  for (const name of ['orders', 'stock']) {
    const [ada, vic] = [idp.person('ada'), idp.person('vic')];
    tokens.push(ada, vic, (await ask(door, `/${name}/x`, ada)).shown);
    assert.equal((await ask(door, `/${name}/x`, vic)).status, 403);
    for (const what of ['status&n=401', 'garbage', 'close']) await ask(door, `/${name}/x?do=${what}`, ada);
    const answer = await ask(door, `/${name}/x`, ada);
    tokens.push(answer.shown);
  }
  const late = idp.person('late');
  tokens.push(late);
  await idp.stop();
  const { body } = await ask(door, '/orders/x', late);
  assert.equal(body.code, 'credential_unavailable');
  await door.reload();
  await door.record((r) => r.code === 'credential_unavailable');
  const everything = { log: door.output(), records: JSON.stringify(door.records()), body: JSON.stringify(body) };
  for (const where of ['/metrics', '/config', '/state', '/jwks']) everything[where] = await (await door.admin(where)).text();
  const secrets = [secretOf('portal'), secretOf('portal-post'), ...tokens.flatMap((token) => token.split('.').slice(1))];
  const encoded = secrets.slice(0, 2).map((secret, n) => Buffer.from(`${['portal', 'portal-post'][n]}:${secret}`).toString('base64'));
  for (const [where, text] of Object.entries(everything)) {
    for (const secret of [...secrets, ...encoded]) assert.ok(!text.includes(secret), `${where} holds ${secret}`);
  }
  assert.match(everything.log, /DEBUG/);
  await door.stop();
});
