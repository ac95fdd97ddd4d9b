'use strict';
// Limits that a portal can live with: nothing is written about them, and people open pages, an office loads the app anew,
// machines probe; and floods are refused.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { backstage } = require('../rig/backstage');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { PAGES } = require('../rig/pages');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { binary, stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const HEADERS = ['retry-after', 'ratelimit', 'ratelimit-policy', 'x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset'];
/** The limit headers of a refusal, which must all be there and agree; `policy` is what they are about. */
const whole = (headers, policy) => {
  const all = Object.fromEntries(HEADERS.map((name) => [name, headers.get(name)]));
  for (const name of HEADERS) assert.ok(all[name], `${name} in ${JSON.stringify(all)}`);
  assert.ok(all['ratelimit-policy'].startsWith(`"${policy}";q=${all['x-ratelimit-limit']};`), JSON.stringify(all));
  assert.ok(all.ratelimit.startsWith(`"${policy}";r=0;t=${all['x-ratelimit-reset']}`), JSON.stringify(all));
  assert.equal(all['x-ratelimit-remaining'], '0');
  assert.equal(all['retry-after'], all['x-ratelimit-reset']);
  assert.ok(Number(all['retry-after']) >= 1);
};
/** Asks `count` times, `side` at a time; `ask(n)` answers what is counted. */
const many = async (count, side, ask) => {
  const seen = {};
  let next = 0;
  await Promise.all(Array.from({ length: side }, async () => {
    while (next < count) {
      next += 1;
      const what = await ask(next);
      seen[what] = (seen[what] ?? 0) + 1;
    }
  }));
  return seen;
};

describe('a real Backstage with nothing written', () => {
  let db; let portal; let door; let port;
  before(async () => {
    [db, port] = await Promise.all([postgres(), freePort()]);
    door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    portal: {kind: backstage, issuer: "http://127.0.0.1:${ports.edge}/api/auth", audiences: [catalog], algorithms: [ES256], keys: {backstage_url: "http://127.0.0.1:${port}"}}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
upstreams: {portal: {url: "http://127.0.0.1:${port}", preserve_host: true}}
presets: [{preset: backstage, upstream: portal, detail: full, actions: {groups: ["group:default/payments-dev"]}}]`);
    portal = await backstage({ port, baseUrl: door.url, postgres: db });
    await until('the catalog', async () => {
      const { backstageIdentity: { token } } = await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json();
      const { claims } = await (await fetch(`${portal.url}/api/auth/v1/userinfo`, { headers: { authorization: `Bearer ${token}` } })).json();
      return claims.ent.length > 1;
    });
  });
  after(async () => { await portal?.stop(); await door?.stop(); await db?.stop(); });

  const agent = new http.Agent({ keepAlive: true, maxSockets: 18 });
  /** A request by Node's own client, which is light enough for a flood. */
  const ask = (method, where, { token, body, headers = {} } = {}) => new Promise((resolve, reject) => {
    const text = body && JSON.stringify(body);
    const request = http.request(`${door.url}${where}`, {
      method, agent, headers: { ...(token && { authorization: `Bearer ${token}` }), ...(text && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }), ...headers },
    }, (answer) => {
      let got = '';
      answer.on('data', (data) => { got += data; });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: new Headers(Object.entries(answer.headers).map(([name, value]) => [name, String(value)])), text: got }));
    });
    request.on('error', reject);
    request.end(text);
  });
  const signIn = async () => JSON.parse((await ask('GET', '/api/auth/guest/refresh')).text).backstageIdentity.token;

  test('three people of one workspace open the catalog, an entity and settings at once, twice, and nobody is refused', async () => {
    const tokens = await Promise.all([signIn(), signIn(), signIn()]);
    const open = async (token) => {
      const pages = Object.values(PAGES).flat();
      return Promise.all(pages.map(async ([method, where, body]) => `${(await ask(method, where, { token: where.startsWith('/api/auth') ? undefined : token, body })).status} ${method} ${where}`));
    };
    for (let twice = 0; twice < 2; twice += 1) {
      const seen = (await Promise.all(tokens.map(open))).flat();
      assert.ok(seen.length > 200, `${seen.length} calls`);
      assert.deepEqual(seen.filter((line) => line.startsWith('429')), []);
      assert.ok(seen.some((line) => line.startsWith('200 GET /api/catalog/entity-facets')), seen.join('\n'));
    }
  });

  test('400 chunks for an office behind one address are no 429, and cost no sign-in, probe, webhook or key', async () => {
    const chunks = await many(400, 18, async (n) => (await ask('GET', `/static/${n}.chunk.js`)).status);
    assert.equal(chunks[429], undefined, JSON.stringify(chunks));
    for (const [method, where] of [['GET', '/.backstage/health/v1/readiness'], ['GET', '/api/auth/guest/refresh'], ['POST', '/api/events/http/github'], ['GET', '/api/auth/.well-known/jwks.json']]) {
      const { status } = await ask(method, where);
      assert.notEqual(status, 429, where);
    }
  });

  const explain = (...words) => execFileSync(binary, ['explain', '-c', door.file, '-H', `host: 127.0.0.1:${door.ports.edge}`, ...words], { encoding: 'utf8' });
  const as = ['--as', 'user:default/ada', '--group', 'group:default/payments-dev'];
  /** What a workspace has left of the limit that such a request counts against: the pages opened above have taken some. */
  const left = (method, where) => Number(/workspace `payments`[^:]*: (\d+) of \d+ left/.exec(
    explain('-X', method, '-p', where, ...as, '--admin', `127.0.0.1:${door.ports.admin}`))[1]);

  test('a flood of pages is refused, for its workspace, and so is one of actions', async () => {
    const token = await signIn();
    const flood = async (method, where, policy, sentence, options) => {
      const least = left(method, where);
      let refused; let passed = 0;
      await many(3000, 18, async () => {
        if (refused) return 'over';
        const answer = await ask(method, where, options);
        if (answer.status === 429) refused = answer;
        else passed += 1;
        return answer.status;
      });
      assert.ok(refused, `${passed} passed of ${where}`);
      whole(refused.headers, policy);
      assert.match(refused.text, sentence);
      assert.ok(passed >= least, `${passed} of ${where} passed, ${least} were left`);
    };
    await flood('GET', '/api/catalog/entities/by-name/component/default/pay', 'workspace-pages', /workspace `payments` is over its rate limit for bucket `pages`/, { token });
    await flood('POST', '/api/catalog/refresh', 'workspace', /workspace `payments` is over its rate limit \(/, { token, body: { entityRef: 'component:default/pay' } });
    assert.notEqual((await ask('GET', '/static/main.js')).status, 429);
    assert.equal((await ask('GET', '/.backstage/health/v1/readiness')).status, 200);
  });

  test('explain says which limit a request counts against, its numbers and its key', () => {
    assert.match(explain('-p', '/api/catalog/entities', ...as), /^limit +workspace `payments`, bucket `pages`: 1800\/m with a burst of 300, 299 left now \(rate_limit\.buckets\.pages\)$/m);
    assert.match(explain('-X', 'POST', '-p', '/api/catalog/refresh', ...as), /^limit +workspace `payments`: 100\/m with a burst of 10, 9 left now \(rate_limit\.per_workspace\)$/m);
    assert.match(explain('-p', '/static/a.js'), /^limit +client `127\.0\.0\.1`, bucket `frontend`: 6000\/m with a burst of 1000, 999 left now/m);
  });
});

describe('floods of strangers, with nothing written and nobody behind, which answers fast', () => {
  let door;
  before(async () => {
    const port = await freePort();
    door = await stagedoor((ports, at) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(at)}
workspaces: {named: {payments: {}}}
upstreams: {portal: {url: "http://127.0.0.1:${port}"}}
presets: [{preset: backstage, upstream: portal, detail: full}]`);
  });
  after(async () => { await door?.stop(); });

  const agent = new http.Agent({ keepAlive: true, maxSockets: 24 });
  const ask = (method, where, headers = {}) => new Promise((resolve, reject) => {
    const request = http.request(`${door.url}${where}`, { method, agent, headers }, (answer) => {
      let text = '';
      answer.on('data', (data) => { text += data; });
      answer.on('end', () => resolve({ status: answer.statusCode, headers: new Headers(Object.entries(answer.headers).map(([name, value]) => [name, String(value)])), text }));
    });
    request.on('error', reject);
    request.end();
  });
  /** Asks until it is refused; answers how many were not, and the refusal. */
  const flood = async (method, where, headers) => {
    let refused; let passed = 0;
    await many(30000, 24, async () => {
      if (refused) return;
      const answer = await ask(method, where, headers);
      if (answer.status === 429) refused = answer;
      else passed += 1;
    });
    assert.ok(refused, `${passed} passed of ${where}`);
    return { ...refused, passed };
  };

  test('files, probes, webhooks, sign-ins and bad tokens are each refused in time, and cost the others nothing', async () => {
    const bad = { authorization: `Bearer ${orbit('ada', ['payments']).slice(0, -4)}AAAA` };
    const kinds = [
      ['client-frontend', 'GET', '/static/1.chunk.js', 1000, { 'x-forwarded-for': '198.51.100.7' }],
      ['client-probes', 'GET', '/.backstage/health/v1/readiness', 200],
      ['client-webhooks', 'POST', '/api/events/http/github', 300],
      ['client-sign-in', 'GET', '/api/auth/oidc/start', 200],
      ['client', 'GET', '/api/catalog/entities', 200, bad],
    ];
    for (const [policy, method, where, burst, headers] of kinds) {
      const { passed, ...refused } = await flood(method, where, headers);
      assert.ok(passed >= burst, `${passed} of ${where}`);
      whole(refused.headers, policy);
      const bucket = policy.slice('client-'.length);
      assert.match(refused.text, bucket ? new RegExp(`client \`127\\.0\\.0\\.1\` is over its rate limit for bucket \`${bucket}\``) : /client `127\.0\.0\.1` is over its rate limit/);
    }
  });

  test('the log says once a minute that it may be a balancer, and what to write', async () => {
    const told = await until('the line', async () => door.output().split('\n').filter((line) => line.includes('a client address is over its limit')));
    assert.equal(told.length, 1);
    for (const part of [/X-Forwarded-For/, /trusted_proxies/, /rate_limit\.buckets\.frontend/, /6000\/m/]) assert.match(told[0], part);
  });
});

describe('each kind of 429', () => {
  let door; let up; let folder; let ca; let out; let held; let paced; let session;
  before(async () => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-limits-'));
    ca = authority(folder);
    ca.issue('server', { names: ['localhost'] });
    up = await upstream();
    [out, held] = await Promise.all([freePort(), freePort()]);
    const { port } = new URL(up.url);
    const route = (name, options, more = '') => `- {name: ${name}, methods: [GET], path: /${name}/**, upstream: up, class: read, ${more}options: {detail: full${options}}}`;
    door = await stagedoor((ports, at) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${folder}/server.crt, key: ${folder}/server.key}]}}
  out: {kind: forward, address: 127.0.0.1:${out}, plugin: catalog, workspace: payments}
  held: {kind: forward, address: 127.0.0.1:${held}, plugin: catalog, workspace: web}
${identity(at)}
workspaces: {undeclared: true, named: {payments: {}, web: {}}}
plugins: {jira: {rate_limit: {rate: 60/m, burst: 1}}}
rate_limit:
  per_workspace: {rate: 60/m, burst: 2}
  per_caller: {rate: 60/m, burst: 3}
  per_client: {rate: 60/m, burst: 1}
  buckets: {mine: {rate: 60/m, burst: 1}}
upstreams:
  up: {url: "${up.url}"}
  paced: {url: "${up.url}", pace: {rate: 2/m, burst: 1, wait_max: 1ms}}
routes:
${route('all', '')}
${route('narrow', ', rate_limit: {rate: 60/m, burst: 1}')}
${route('issues', '', 'plugin: jira, ')}
${route('bucket', ', bucket: mine')}
${route('roomy', ', bucket: probes')}
${route('alone', ', workspace: optional, bucket: mine')}
${route('open', ', public: true')}
${route('status', ', public: true, rate_limit: {rate: 60/m, burst: 2}')}
- {name: paced, methods: [GET], path: /paced, upstream: paced, class: read, options: {detail: full}}
egress:
  per_workspace: {rate: 1/m, burst: 2}
  tunnels_max: 1
  rules: [{name: up, to: ["127.0.0.1:${port}"]}]
  private: [{host: "127.0.0.1:${port}", addresses: [127.0.0.1/32]}]
  tls_ports: []`);
    session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
  });
  after(async () => { session?.close(); await door?.stop(); await up?.stop(); fs.rmSync(folder, { recursive: true, force: true }); });

  const over1 = async (where, token) => {
    const answer = await fetch(`${door.url}${where}`, { headers: token ? { authorization: `Bearer ${token}` } : {} });
    return { status: answer.status, headers: answer.headers, text: await answer.text() };
  };
  const over2 = (where, token) => new Promise((resolve, reject) => {
    const stream = session.request({ ':path': where, ...(token && { authorization: `Bearer ${token}` }) });
    let head; let text = '';
    stream.on('response', (headers) => { head = headers; });
    stream.on('data', (data) => { text += data; });
    stream.on('error', reject);
    stream.on('end', () => resolve({
      status: head[':status'], text, headers: new Headers(Object.entries(head).filter(([name]) => !name.startsWith(':')).map(([name, value]) => [name, String(value)])),
    }));
  });
  /** Asks until it is refused, `passes` times later. */
  const refused = async (ask, where, token, passes) => {
    for (let n = 0; n < passes; n += 1) assert.equal((await ask(where, token)).status, 200, `${where} ${n}`);
    const answer = await ask(where, token);
    assert.equal(answer.status, 429, where);
    return answer;
  };

  for (const [version, ask] of [['HTTP/1.1', over1], ['HTTP/2', over2]]) {
    test(`names what it is about and has all headers, over ${version}`, async () => {
      const suffix = version.slice(5, 6);
      const check = async (where, workspace, policy, sentence, passes) => {
        const token = workspace && orbit(`ada-${where.split('/')[1]}-${suffix}`, [].concat(workspace));
        const { headers, text } = await refused(ask, where, token, passes);
        whole(headers, policy);
        assert.match(JSON.parse(text).title, sentence, text);
      };
      const ws = (name) => `${name}-${suffix}`;
      await check('/all/x', ws('a'), 'workspace', new RegExp(`^workspace \`${ws('a')}\` is over its rate limit$`), 2);
      await check('/narrow/x', ws('b'), 'route', new RegExp(`^workspace \`${ws('b')}\` is over its rate limit for route \`narrow\`$`), 1);
      await check('/issues/x', ws('c'), 'plugin', new RegExp(`^workspace \`${ws('c')}\` is over its rate limit for plugin \`jira\`$`), 1);
      await check('/bucket/x', ws('d'), 'workspace-mine', new RegExp(`^workspace \`${ws('d')}\` is over its rate limit for bucket \`mine\`$`), 1);
      await check('/roomy/x', ws('e'), 'caller', new RegExp(`^caller \`ada-roomy-${suffix}\` is over its rate limit$`), 3);
      await check('/alone/x', [], 'caller-mine', new RegExp(`^caller \`ada-alone-${suffix}\` is over its rate limit for bucket \`mine\`$`), 1);
    });
  }

  test('strangers by their address, and a public route by what it says', async () => {
    const open = await refused(over1, '/open/x', undefined, 1);
    whole(open.headers, 'client');
    assert.match(JSON.parse(open.text).title, /^client `127\.0\.0\.1` is over its rate limit$/);
    const status = await refused(over1, '/status/x', undefined, 2);
    whole(status.headers, 'route');
    assert.match(JSON.parse(status.text).title, /^client `127\.0\.0\.1` is over its rate limit for route `status`$/);
  });

  test('an upstream\'s pace', async () => {
    const token = orbit('bob', ['payments']);
    const { headers, text } = await refused(over1, '/paced', token, 1);
    whole(headers, 'upstream');
    assert.match(text, /pace_exceeded/);
    assert.equal(headers.get('x-ratelimit-limit'), '2');
  });

  const parsed = (text) => {
    const [first, ...lines] = text.split('\r\n\r\n')[0].split('\r\n');
    return { status: Number(first.split(' ')[1]), headers: new Headers(lines.map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()])) };
  };
  const send = (port, text, keep) => new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(text));
    let got = '';
    socket.on('error', () => {});
    socket.on('data', (data) => {
      got += data;
      if (got.includes('\r\n\r\n')) { if (!keep) socket.destroy(); resolve({ ...parsed(got), socket }); }
    });
  });

  test('calls out, as plain requests and as tunnels, and tunnels at once', async () => {
    const { host } = new URL(up.url);
    const plain = () => send(out, `GET ${up.url}/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    const tunnel = (port, keep) => send(port, `CONNECT ${host} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, keep);
    assert.equal((await plain()).status, 200);
    assert.equal((await tunnel(out)).status, 200);
    for (const { status, headers } of [await plain(), await tunnel(out)]) {
      assert.equal(status, 429);
      whole(headers, 'workspace');
      assert.equal(headers.get('x-ratelimit-limit'), '1');
    }
    const first = await tunnel(held, true);
    assert.equal(first.status, 200);
    const second = await tunnel(held);
    assert.equal(second.status, 429);
    whole(second.headers, 'tunnels');
    first.socket.destroy();
  });

  test('an upstream\'s own 429 passes as it is', async () => {
    const { status, headers } = await over1('/all/x?do=status&n=429', orbit('kim', ['f']));
    assert.equal(status, 429);
    assert.equal(headers.get('retry-after'), '60');
    assert.equal(headers.get('x-ratelimit-remaining'), null);
  });
});
