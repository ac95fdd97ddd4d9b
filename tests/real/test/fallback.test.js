'use strict';
// The last good answer, while the upstream fails, to those who got it and to nobody else.

const assert = require('node:assert/strict');
const http = require('node:http');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let up; let door; let fails; let count = 0;
const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}, search: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
process: {drain_delay: 0s, drain_timeout: 5s, fallback_memory: 2MiB}
upstreams:
  up: {url: "http://127.0.0.1:${up.address().port}", retries: {attempts_max: 1}, breaker: {requests_min: 100000}}
  rests: {url: "http://127.0.0.1:${up.address().port}", retries: {attempts_max: 1}, breaker: {requests_min: 2, open_duration: 60s}}
routes:
- {name: kept, methods: [GET, POST], path: /kept/**, upstream: up, class: read, options: {fallback: {ttl: 1h}, redact: [secret]}}
- {name: brief, methods: [GET], path: /brief, upstream: up, class: read, options: {fallback: {ttl: 300ms}}}
- {name: small, methods: [GET], path: /small, upstream: up, class: read, options: {fallback: {bytes_max: 100B}}}
- {name: rests, methods: [GET], path: /rests/**, upstream: rests, class: read, options: {fallback: {}}}
- {name: open, methods: [GET], path: /open, upstream: up, class: read, options: {public: true, fallback: {}}}
- {name: not, methods: [GET], path: /not, upstream: up, class: read}`;

before(async () => {
  up = http.createServer((request, response) => {
    if (fails === 'reset') return request.socket.destroy();
    count += 1;
    const asks = new URL(request.url, 'http://x').searchParams;
    const headers = JSON.parse(asks.get('headers') ?? '{}');
    response.writeHead(fails ?? Number(asks.get('status') ?? 200), { 'content-type': 'application/json', ...headers });
    // As Backstage does to a request that comes while it stops: 200, and nothing.
    if (fails === 200) return response.end();
    response.end(JSON.stringify({ count, who: request.headers['x-orbit-user-id'], accept: request.headers.accept, secret: 'hunter2', filler: 'x'.repeat(Number(asks.get('size') ?? 0)) }));
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  door = await stagedoor(config);
});
after(async () => { await door.stop(); up.closeAllConnections(); up.close(); });

const token = (who, workspaces = ['payments'], claims = {}) => ({ authorization: `Bearer ${orbit(who, workspaces, claims)}` });
const ask = async (where, headers = token('ada'), method = 'GET') => {
  const answer = await fetch(`${door.url}${where}`, { method, headers });
  const text = await answer.text();
  return { status: answer.status, json: text.startsWith('{') ? JSON.parse(text) : text, headers: answer.headers };
};
/** While the upstream answers 500, with another status, or resets connections. */
const failing = async (how, body) => { fails = how; try { return await body(); } finally { fails = undefined; } };

test('while the upstream fails its last good answer is given, and says so', async () => {
  const good = await ask('/kept/a?x=1');
  for (const how of [500, 503, 'reset']) {
    const got = await failing(how, () => ask('/kept/a?x=1'));
    assert.deepEqual([got.status, got.json], [200, good.json], `${how}`);
    assert.match(got.headers.get('cache-status'), /^stagedoor; hit; ttl=3\d\d\d; detail=fallback$/);
    assert.match(got.headers.get('age'), /^\d+$/);
    assert.equal(got.headers.get('content-type'), 'application/json');
  }
  assert.equal(good.headers.get('cache-status'), null);
  assert.equal(good.json.secret, undefined, 'it is kept as it was redacted');
  const record = (await until('the records', async () => { const all = door.records().filter((r) => r.shared === 'fallback'); return all.length >= 3 && all; }));
  assert.deepEqual(record.map((r) => [r.decision, r.status, r.fallback_for]), [['allow', 200, 'upstream_failed'], ['allow', 200, 'upstream_failed'], ['allow', 200, 'upstream_reset']]);
  const back = await ask('/kept/a?x=1');
  assert.equal(back.headers.get('cache-status'), null);
  assert.ok(back.json.count > good.json.count, 'an answer is new whenever there is one');
  const metrics = await (await door.admin('/metrics')).text();
  assert.match(metrics, /stagedoor_shared_responses_total\{route="kept",shared="fallback"\} 3/);
  assert.match(metrics, /^backstage_cache_hits_total 3/m);
  assert.match(metrics, /^backstage_request_failures_total 3/m, 'the upstream failed, though nobody saw it');
});

test('an empty answer takes no good one\'s place', async () => {
  const { json } = await ask('/small');
  assert.ok(json.count);
  const empty = await failing(200, () => ask('/small'));
  assert.deepEqual([empty.status, empty.json], [200, '']);
  const got = await failing(500, () => ask('/small'));
  assert.deepEqual([got.status, got.json], [200, json]);
});

test('nobody gets what another one got', async () => {
  const mine = await ask('/kept/mine', { ...token('ada', ['payments', 'search']), 'x-orbit-workspace-id': 'payments', accept: 'application/json' });
  assert.equal(mine.json.who, 'ada');
  await failing(500, async () => {
    const check = async (what, where, headers) => assert.equal((await ask(where, headers)).status, 500, what);
    const asked = { ...token('ada', ['payments', 'search']), 'x-orbit-workspace-id': 'payments', accept: 'application/json' };
    assert.equal((await ask('/kept/mine', { ...asked, ...token('ada', ['payments', 'search'], { jti: 'another token' }) })).status, 200, 'the same with a newer token');
    await check('another caller', '/kept/mine', { ...asked, ...token('eve') });
    await check('another workspace', '/kept/mine', { ...asked, 'x-orbit-workspace-id': 'search' });
    await check('another path', '/kept/mine2', asked);
    await check('another query', '/kept/mine?x=2', asked);
    assert.equal((await ask('/kept/mine', { ...asked, authorization: 'Bearer forged' })).status, 401, 'a token is verified as ever');
    assert.equal((await ask('/kept/mine', { ...asked, ...token('ada', ['search']) })).status, 403, 'a membership that ended');
    assert.equal((await ask('/kept/mine', asked, 'POST')).status, 500);
    const range = await ask('/kept/mine', { ...asked, range: 'bytes=0-1' });
    assert.equal(range.status, 500, 'a part of it');
    const withBody = await new Promise((resolve) => {
      http.request(`${door.url}/kept/mine`, { method: 'GET', headers: { ...asked, 'content-length': 2 } }, (answer) => { answer.resume(); resolve(answer.statusCode); }).end('{}');
    });
    assert.equal(withBody, 500, 'another body');
  });
});

test('what the upstream does not want kept, what varies, and what is no good answer is not kept', async () => {
  const headers = (all) => `headers=${encodeURIComponent(JSON.stringify(all))}`;
  const refused = [headers({ 'cache-control': 'no-store' }), headers({ 'cache-control': 'must-revalidate' }), headers({ 'set-cookie': 'a=b' }), headers({ vary: '*' }), 'status=404', 'status=302', 'status=201'];
  for (const query of refused) {
    await ask(`/kept/refused?${query}`);
    const got = await failing(500, () => ask(`/kept/refused?${query}`));
    assert.equal(got.status, 500, query);
  }
  const varies = `/kept/varies?${headers({ vary: 'accept' })}`;
  await ask(varies, { ...token('ada'), accept: 'a/b' });
  await failing(500, async () => {
    assert.equal((await ask(varies, { ...token('ada'), accept: 'a/b' })).json.accept, 'a/b');
    assert.equal((await ask(varies, { ...token('ada'), accept: 'c/d' })).status, 500);
    assert.equal((await ask(varies, { ...token('ada'), accept: 'a/b', 'accept-encoding': 'br' })).status, 500);
  });
  await ask('/small?size=10'); await ask('/small?size=1000'); await ask('/not');
  await failing(500, async () => {
    assert.equal((await ask('/small?size=1000')).status, 500);
    assert.equal((await ask('/not')).status, 500, 'a route without fallback');
  });
  // Where nobody is asked who they are, the upstream may ask.
  await ask('/open', {}); await ask('/open', { authorization: 'Basic YTpi' });
  await failing(500, async () => {
    assert.equal((await ask('/open', {})).status, 200);
    assert.equal((await ask('/open', { authorization: 'Basic YTpi' })).status, 500);
    assert.equal((await ask('/open', { cookie: 'session=1' })).status, 500);
  });
});

test('an open breaker is answered for, and its upstream is not asked', async () => {
  const good = await ask('/rests/a');
  await failing(500, async () => { for (let n = 0; n < 3; n += 1) await ask('/rests/b'); });
  const before_ = count;
  const got = await ask('/rests/a');
  assert.deepEqual([got.status, got.json, count], [200, good.json, before_]);
  assert.equal((await door.record((r) => r.shared === 'fallback' && r.route === 'rests')).fallback_for, 'breaker_open');
  const other = await ask('/rests/c');
  assert.deepEqual([other.status, other.json.code], [503, 'breaker_open']);
});

test('it is given for its time and no longer, and all of it stays within its memory', async () => {
  await ask('/brief');
  assert.equal(await failing(500, async () => (await ask('/brief')).status), 200);
  await failing(500, () => until('it to be over', async () => (await ask('/brief')).status === 500, 3000));
  for (let n = 0; n < 100; n += 1) await ask(`/kept/big?n=${n}&size=100000`);
  const bytes = (await (await door.admin('/state')).json()).fallback_bytes;
  assert.ok(bytes > 1_000_000 && bytes <= 2 << 20, `${bytes}`);
});

test('a reload forgets what was kept, and the control plane can have no fallback', async () => {
  await ask('/kept/before');
  const text = await config(door.ports, door.folder);
  door.write(text.replace('redact: [secret]', 'redact: [secret, count]'));
  assert.equal((await door.reload()).successful, true);
  assert.equal(await failing(500, async () => (await ask('/kept/before')).status), 500, 'it holds what is redacted now');
  door.write(text.replace('  up: {url:', '  up: {authority: delivery, url:'));
  const refused = await door.reload();
  assert.equal(refused.successful, false);
  assert.ok(refused.messages.some((m) => /route `kept` cannot have a fallback: responses about delivery are never kept; remove `fallback`/.test(m)), refused.messages.join('\n'));
});
