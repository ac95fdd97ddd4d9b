'use strict';
// An upstream that goes and comes back: requests pass as soon as it is there, and what is behind a gateway is not taken for it.

const assert = require('node:assert/strict');
const http = require('node:http');
const { after, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { stagedoor } = require('../rig/stagedoor');
const { freePort, until } = require('../rig/ports');

const stops = [];
after(async () => { for (const stop of stops.reverse()) await stop(); });
/** A server that can go and come back at its port. */
const server = async (answer) => {
  const port = await freePort();
  let http1;
  const begin = () => new Promise((resolve) => { http1 = http.createServer(answer); http1.listen(port, '127.0.0.1', resolve); });
  const end = () => new Promise((resolve) => { http1.close(resolve); http1.closeAllConnections(); });
  await begin();
  stops.push(() => (http1.listening ? end() : undefined));
  return { port, begin, end };
};
const gate = async (config, options) => { const door = await stagedoor(config, options); stops.push(() => door.stop()); return door; };
const state = async (door) => (await (await door.admin('/state')).json()).breakers.filter((one) => one.position !== 'closed').map((one) => [one.upstream, one.part, one.position, one.cause].filter(Boolean).join(' '));
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const open = 'class: read, options: {public: true, workspace: optional';

test('requests pass within 1.5 s of its return, by a connection or by a check, whatever is left of the rest', async () => {
  let ready = true;
  const answer = (request, response) => { response.statusCode = request.url !== '/ready' || ready ? 200 : 503; response.end('ok'); };
  const [plain, named, checked] = [await server(answer), await server(answer), await server(answer)];
  const check = 'health_check: {path: /ready, interval: 10s, timeout: 1s, healthy_threshold: 2, unhealthy_threshold: 3}';
  const door = await gate((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
upstreams:
  plain: {url: "http://127.0.0.1:${plain.port}", retries: {attempts_max: 1}}
  named: {url: "http://localhost:${named.port}", retries: {attempts_max: 1}}
  checked: {url: "http://127.0.0.1:${checked.port}", retries: {attempts_max: 1}, ${check}}
routes:
${['plain', 'named', 'checked'].map((name) => `- {name: ${name}, methods: [ANY], path: /${name}, upstream: ${name}, ${open}}}`).join('\n')}`);
  const ask = async (name) => { const answer = await fetch(`${door.url}/${name}`); await answer.text(); return answer.status; };
  const outage = async (name, up) => {
    await up.end();
    await until('it to be left alone', async () => { await ask(name); return (await state(door)).includes(`${name} open no_response`); });
    // Long enough for it to have been looked for.
    await pause(1500);
    const refused = await fetch(`${door.url}/${name}`);
    assert.deepEqual([refused.status, refused.headers.get('retry-after'), (await refused.json()).code], [503, '1', 'breaker_open']);
    assert.match(refused.headers.get('proxy-status'), /^stagedoor; error=destination_unavailable; details="breaker_open"$/);
    if (name === 'checked') {
      // It takes connections, and is not ready yet.
      ready = false;
      await up.begin();
      await pause(1500);
      assert.equal(await ask(name), 503);
      ready = true;
    } else await up.begin();
    const back = performance.now();
    await until('an answer', async () => (await ask(name)) === 200);
    const took = performance.now() - back;
    assert.ok(took < 1500, `${name}: ${Math.round(took)} ms`);
    // A page asks for much at once.
    const all = await Promise.all(Array.from({ length: 30 }, () => ask(name)));
    assert.deepEqual([...new Set(all)], [200]);
  };
  await Promise.all([outage('plain', plain), outage('named', named), outage('checked', checked)]);
  assert.deepEqual(await state(door), []);
  const moved = door.written().filter((line) => line.kind === 'breaker' && line.upstream === 'plain').map((line) => `${line.position} ${line.cause}`);
  assert.deepEqual(moved, ['open no_response', 'closed no_response']);
  const metrics = await (await door.admin('/metrics')).text();
  assert.match(metrics, /stagedoor_breaker_probes_total\{result="down",upstream="plain"\} [1-9]/);
  assert.match(metrics, /stagedoor_breaker_probes_total\{result="up",upstream="plain"\} 1/);
});

test('one that answers badly rests, though it takes connections', async () => {
  const sick = await server((_, response) => { response.statusCode = 500; response.end(); });
  const door = await gate((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
workspaces: {named: {payments: {}}}
upstreams: {sick: {url: "http://127.0.0.1:${sick.port}"}}
routes: [{name: sick, methods: [ANY], path: /, upstream: sick, ${open}}}]`);
  for (let n = 0; n < 5; n += 1) assert.equal((await fetch(door.url)).status, 500);
  await pause(2500);
  const refused = await fetch(door.url);
  assert.equal(refused.status, 503);
  assert.ok(Number(refused.headers.get('retry-after')) > 20);
  assert.deepEqual(await state(door), ['sick open failures']);
  assert.match(await (await door.admin('/metrics')).text(), /stagedoor_breakers_open\{cause="failures",host="",plugin="",upstream="sick"\} 1/);
});

test('what another gate refuses is no failure, and each endpoint of the proxy breaks alone', async () => {
  const dxcp = await server((_, response) => response.end('dxcp'));
  const inner = await gate((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
workspaces: {named: {payments: {}}}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
upstreams: {dxcp: {url: "http://127.0.0.1:${dxcp.port}", retries: {attempts_max: 1}}}
routes: [{name: dxcp, methods: [ANY], path: /**, upstream: dxcp, ${open}}}]`);
  // As Backstage's proxy plugin: of the headers it passes on what every page may see.
  const portal = await server(async (request, response) => {
    if (!request.url.startsWith('/api/proxy/dxcp')) {
      response.statusCode = request.url.startsWith('/api/proxy/broken') ? 500 : 200;
      return response.end('echo');
    }
    const answer = await fetch(`${inner.url}/`);
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' });
    return response.end(await answer.text());
  });
  const edge = await gate((ports, folder) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(folder)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 100000/s, burst: 10000}}
upstreams:
  portal: {url: "http://127.0.0.1:${portal.port}", retries: {attempts_max: 1}}
  inner: {url: "${inner.url}", retries: {attempts_max: 1}}
presets: [{preset: backstage, upstream: portal, open: [proxy]}]
routes: [{name: straight, methods: [ANY], path: /straight, upstream: inner, ${open}}}]`);
  const headers = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
  const ask = async (where) => { const answer = await fetch(`${edge.url}${where}`, { headers }); return `${answer.status} ${await answer.text()}`; };
  assert.equal(await ask('/api/proxy/dxcp/x'), '200 dxcp');
  await dxcp.end();
  const seen = [];
  for (let n = 0; n < 12; n += 1) seen.push(await ask('/api/proxy/dxcp/x'), await ask('/straight'));
  assert.ok(seen.every((one) => /^50[23] /.test(one)), seen.join('\n'));
  assert.match(seen.at(-1), /"breaker_open"/);
  assert.deepEqual(await state(edge), [], 'it is the inner one that knows');
  assert.deepEqual(await state(inner), ['dxcp open no_response']);
  await dxcp.begin();
  const back = performance.now();
  await until('an answer', async () => (await ask('/api/proxy/dxcp/x')) === '200 dxcp');
  assert.ok(performance.now() - back < 1500);
  // One that is broken by itself does not take the others with it.
  for (let n = 0; n < 6; n += 1) await ask('/api/proxy/broken/x');
  assert.match(await ask('/api/proxy/broken/x'), /^503 .*breaker_open/);
  assert.equal(await ask('/api/proxy/echo/x'), '200 echo');
  assert.deepEqual(await state(edge), ['portal broken open failures']);
});
