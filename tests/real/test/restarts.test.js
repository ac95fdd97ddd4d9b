'use strict';
// A real Backstage that is restarted under load: readers get what they had, doers are told that it is away, and all is as before after it.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { backstage } = require('../rig/backstage');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');

let db; let portal; let door;
before(async () => {
  const [database, port] = await Promise.all([postgres(), freePort()]);
  db = database;
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    portal:
      kind: backstage
      issuer: http://127.0.0.1:${ports.edge}/api/auth
      audiences: [catalog]
      algorithms: [ES256]
      keys: {backstage_url: "http://127.0.0.1:${port}"}
workspaces: {named: {payments: {groups: ["user:default/ada"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}}
upstreams:
  portal: {url: "http://127.0.0.1:${port}", preserve_host: true}
presets:
- {preset: backstage, upstream: portal, detail: full, routes: {catalog: {fallback: {ttl: 5m}}}}`);
  portal = await backstage({ port, baseUrl: `http://127.0.0.1:${door.ports.edge}`, postgres: db });
});
after(async () => { await door?.stop(); await portal?.stop(); await db?.stop(); });

test('readers get what they had, doers are told, and all is as before after it', async () => {
  const signIn = async () => (await (await fetch(`${door.url}/api/auth/guest/refresh`)).json()).backstageIdentity.token;
  const headers = { 'x-orbit-workspace-id': 'payments', 'content-type': 'application/json' };
  /** What breaks off after it has begun can only be broken off for the client, too. */
  const broken = () => ({ status: 'broken', kept: false, names: '' });
  const read = async () => {
    const answer = await fetch(`${door.url}/api/catalog/entities`, { headers });
    const body = await answer.text();
    return { status: answer.status, kept: /fallback/.test(answer.headers.get('cache-status')), names: body.startsWith('[') ? JSON.parse(body).map((entity) => entity.metadata.name).sort().join() : body };
  };
  const act = async () => {
    const answer = await fetch(`${door.url}/api/catalog/refresh`, { method: 'POST', headers, body: '{"entityRef": "component:default/pay"}' });
    const text = await answer.text();
    const { code, error } = text.startsWith('{') ? JSON.parse(text) : {};
    return [answer.status, code ?? error?.code ?? error?.name].filter(Boolean).join(' ');
  };
  // A token has the groups that the catalog had when its caller signed in.
  await until('the catalog', async () => {
    headers.authorization = `Bearer ${await signIn()}`;
    const { status, names } = await read();
    return status === 200 && names.split(',').includes('pay');
  });
  const seen = await read();
  assert.equal(seen.kept, false);
  const reached = await act();
  assert.equal(reached, '200');

  const reads = []; const acts = [];
  let stopped = false;
  const work = (ask, kept) => (async () => { while (!stopped) { kept.push(await ask()); await new Promise((resolve) => { setTimeout(resolve, 20); }); } })();
  const workers = [work(() => read().catch(broken), reads), work(() => read().catch(broken), reads), work(() => act().catch(() => 'broken'), acts)];
  const outage = async (signal) => {
    const count = reads.filter((one) => one.kept).length;
    // As the kubelet does it: Backstage waits for connections that are in use, which ours are.
    const grace = setTimeout(() => portal.end('SIGKILL'), 3000);
    await portal.end(signal);
    clearTimeout(grace);
    await until('readers to get what was kept', async () => reads.filter((one) => one.kept).length > count + 10);
    await until('doers to be told', async () => /^50[234] /.test(acts.at(-1)));
    await portal.begin();
    const ready = performance.now();
    // Whatever is left of its breaker's 30 s.
    await until('an answer of its own', async () => !reads.at(-1).kept && reads.at(-1).status === 200);
    const took = performance.now() - ready;
    assert.ok(took < 1500, `an outage of ${Math.round(took)} ms more than Backstage's own`);
    await until('answers of its own', async () => reads.slice(-4).every((one) => !one.kept));
    await until('doers to be heard', async () => acts.at(-1) === reached);
  };
  try {
    for (const signal of ['SIGTERM', 'SIGKILL']) await outage(signal);
  } finally {
    stopped = true;
    await Promise.all(workers);
  }
  // What is odd is Backstage's own: while it stops it may answer 200 with nothing or say that it stops, and break off what it began; while it starts
  // it has a moment in which it answers 404 with nothing.
  const odd = reads.filter((one) => one.names !== seen.names || one.status !== 200);
  assert.ok(odd.every((one) => !one.kept && ((!one.names && [200, 404, 'broken'].includes(one.status)) || /^503.*ServiceUnavailableError/.test(`${one.status} ${one.names}`))), JSON.stringify(odd));
  // Where it broke between a request and its answer, nobody knows; what was refused says so.
  const outcomes = new Set(acts);
  for (const outcome of outcomes) assert.match(outcome, /^(200|404|broken|502 upstream_(reset|unreachable|malformed)|503 breaker_open|503 ServiceUnavailableError)$/, [...outcomes].join(', '));
  const { breakers } = await (await door.admin('/state')).json();
  await until('the circuit to be closed', async () => (await (await door.admin('/state')).json()).breakers.every((one) => one.position === 'closed'));
  assert.ok(breakers.some((one) => one.upstream === 'portal'));
  assert.equal((await fetch(`${door.url}/api/catalog/entities`, { headers: { ...headers, authorization: `Bearer ${await signIn()}` } })).status, 200, 'who signs in now gets in');
});
