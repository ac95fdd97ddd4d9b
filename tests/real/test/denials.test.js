'use strict';
// What those read who are refused: people, pages on other origins, clients of gRPC and its kin, kubectl's.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { chromium } = require('../rig/chromium');
const { connect, frontend } = require('../rig/connect');
const { identity, orbit } = require('../rig/jwt');
const { freePort } = require('../rig/ports');
const { caller, grpc, rpc } = require('../rig/rpc');
const { stagedoor } = require('../rig/stagedoor');
const { raw, upstream } = require('../rig/upstream');

let up; let echo; let web; let front; let browser; let door; let ca; let silent;
const started = [];
const begin = async (made) => { const it = await made; started.unshift(it); return it; };

before(async () => {
  const [upstreamBegun, echoBegun, webBegun, frontBegun, browserBegun] = await Promise.all([
    begin(upstream()), begin(rpc()), begin(connect()), begin(frontend()), begin(chromium()),
  ]);
  up = upstreamBegun; echo = echoBegun; web = webBegun; front = frontBegun; browser = browserBegun;
  // Keys are never to be had here, and who asks for them is seen.
  silent = await begin(upstream());
  const dead = await freePort();
  door = await begin(stagedoor((ports, folder) => {
    ca = authority(`${folder}/tls`);
    const { cert, key } = ca.issue('edge', { names: ['127.0.0.1', 'localhost'] });
    const cors = `cors: {origins: ["${front.url}"]}`;
    return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, ${cors}, limits: {head_max: 8KiB}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, ${cors}, tls: {certificates: [{cert: ${cert}, key: ${key}}]}}
${identity(folder)}
    portal: {kind: backstage, issuer: http://portal/api/auth, audiences: [stagedoor], algorithms: [ES256], keys: {backstage_url: "${silent.url}"}}
workspaces: {named: {payments: {}, web: {}, once: {rate_limit: {rate: 1/h, burst: 1}}, calls: {rate_limit: {rate: 1/h, burst: 1}}, pages: {rate_limit: {rate: 1/h, burst: 1}}}}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
upstreams:
  up: {url: ${up.url}, breaker: {requests_min: 1000000}}
  aware: {url: ${up.url}, breaker: {requests_min: 1000000}}
  dead: {url: "http://127.0.0.1:${dead}", breaker: {requests_min: 1000000}}
  sick: {url: ${up.url}, timeouts: {upstream: 100ms}, breaker: {requests_min: 1, open_duration: 1h}}
  echo: {url: "http://127.0.0.1:${echo.port}", http: h2}
  web: {url: ${web.url}}
presets:
- {preset: kubernetes, upstream: up, open: [proxy]}
routes:
- {name: api, methods: [GET, PUT, HEAD], path: /api/**, upstream: up, class: read, options: {errors: backstage}}
- {name: full, methods: [GET], path: "/full/{workspace}/**", upstream: up, class: read, options: {detail: full}}
- {name: open, methods: [GET, HEAD, POST, OPTIONS], path: /open/**, upstream: up, class: read, options: {public: true}}
- {name: dead, methods: [ANY], path: /dead/**, upstream: dead, class: read, options: {public: true}}
- {name: sick, methods: [ANY], path: /sick/**, upstream: sick, class: read, options: {public: true}}
- {name: shut, methods: [ANY], path: /shut/**, upstream: up, class: read, options: {closed: true}}
- {name: rule, methods: [ANY], path: /rule/**, upstream: up, class: admin}
- {name: query, methods: [GET], path: /query, upstream: up, class: read, options: {query: {allow: {org: [acme]}}}}
- {name: echo, methods: [POST], path: "/echo.Echo/{method}", hosts: [localhost], upstream: echo, class: read}
- {name: web, methods: [POST], path: "/echo.Echo/{method}", hosts: [127.0.0.1], upstream: web, class: read}
`;
  }));
});
after(async () => { for (const it of started) await it.stop(); });

const HTML = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' };
const bearer = (...args) => ({ authorization: `Bearer ${orbit(...args)}` });
const get = (path, options) => fetch(`${door.url}${path}`, options);

test('a browser that goes to a page shows one, in the light and in the dark, and runs nothing', async () => {
  for (const [colorScheme, background] of [['light', 'rgb(255, 255, 255)'], ['dark', 'rgb(13, 17, 23)']]) {
    const ada = await browser.person({ colorScheme });
    const said = [];
    ada.page.on('console', (message) => said.push(message.text()));
    const answer = await ada.page.goto(`https://127.0.0.1:${door.ports.tls}/dead/x`);
    assert.equal(answer.status(), 502);
    assert.equal(await ada.page.title(), '502 Bad Gateway');
    assert.equal(await ada.page.locator('html').getAttribute('lang'), 'en');
    assert.match(await ada.page.getByRole('main').innerText(), /is not responding\. Try again in a minute/);
    assert.equal(await ada.page.getByRole('heading', { level: 1 }).innerText(), '502 Bad Gateway');
    // Its style counts, so its policy lets it; and nothing else was asked for or complained about.
    assert.equal(await ada.page.evaluate(() => getComputedStyle(document.body).backgroundColor), background);
    assert.equal(ada.answers.length, 1);
    assert.deepEqual(said.filter((text) => !text.includes('status of 502')), []);
    const id = await answer.headerValue('x-request-id');
    assert.ok((await ada.page.locator('dl').innerText()).includes(id));
    assert.deepEqual([(await door.record((r) => r.id === id)).code], ['upstream_unreachable']);
    await ada.leave();
  }
});

test('a page passes every rule of axe, contrast among them, in the light and in the dark', async () => {
  await get('/sick/x?do=status&n=500');
  const pages = {
    '/dead/x': [502, {}], '/sick/x': [503, {}], '/api/x': [401, {}], '/nowhere': [403, {}], '/full/web/x': [403, bearer('ada', ['payments'])],
    '/api/limited': [429, bearer('ada', ['pages'])],
  };
  await get('/api/x', { headers: bearer('ada', ['pages']) });
  for (const colorScheme of ['light', 'dark']) {
    // Its policy lets no script in; axe is the test's.
    const ada = await browser.person({ colorScheme, bypassCSP: true });
    for (const [path, [status, headers]] of Object.entries(pages)) {
      await ada.context.setExtraHTTPHeaders(headers);
      assert.equal((await ada.page.goto(`https://127.0.0.1:${door.ports.tls}${path}`)).status(), status, path);
      await ada.page.addScriptTag({ path: require.resolve('axe-core/axe.min.js') });
      const { violations, incomplete, passes } = await ada.page.evaluate(() => window.axe.run(document, {
        rules: Object.fromEntries(window.axe.getRules().map(({ ruleId }) => [ruleId, { enabled: true }])),
      }));
      const told = ({ id, nodes }) => `${id}: ${nodes.map(({ target, failureSummary }) => `${target} ${failureSummary}`).join('; ')}`;
      assert.deepEqual([...violations, ...incomplete].map(told), [], `${path}, ${colorScheme}`);
      // It did measure.
      const measured = passes.find(({ id }) => id === 'color-contrast-enhanced');
      assert.ok(measured.nodes.length >= 5, JSON.stringify(measured));
    }
    await ada.leave();
  }
});

test('a page tells when to come back, what a person can do, and the reason only where that is written', async () => {
  await get('/sick/x?do=status&n=500');
  const rest = await get('/sick/x', { headers: HTML });
  assert.equal(rest.status, 503);
  const page = await rest.text();
  assert.match(page, /breaker_open/);
  assert.match(page, /Try again in (60|59) minutes: <time datetime="[\dT:-]+Z">[\d:]+ UTC<\/time>/);
  assert.ok(Number(rest.headers.get('retry-after')) > 3500);
  assert.match(rest.headers.get('content-security-policy'), /^default-src 'none'; style-src 'sha256-[^']+'; base-uri 'none'; form-action 'none'/);
  assert.ok(!page.includes('upstream'), 'the reason is the operators');
  assert.match(await (await get('/api/x', { headers: HTML })).text(), /Sign in, then open this page again/);
  const strange = await (await get('/full/%3Cb%3E%22x/y', { headers: { ...HTML, ...bearer('ada', ['payments']) } })).text();
  assert.match(strange, /workspace `[^`]*`/);
  assert.ok(!strange.includes('<b>'), strange);
});

test('markup in whatever a stranger writes stays text', async () => {
  const evil = '<script>alert(1)</script>';
  const lines = `Accept: text/html\r\nX-Request-Id: ${evil}\r\nX-Orbit-Workspace-Id: ${evil}\r\nAuthorization: Bearer ${orbit('ada', ['payments'])}\r\nConnection: close\r\n`;
  for (const head of [
    `GET /full/${evil}/x HTTP/1.1\r\nHost: a\r\n${lines}`,
    `GET /nowhere/${evil}?${evil} HTTP/1.1\r\nHost: a\r\n${lines}`,
    `GET /api/x HTTP/1.1\r\nHost: <b>\r\n${lines}`,
    `GET /api/x HTTP/1.1\r\nHost: a\r\n<b>: x\r\n${lines}`,
    `${'<b>'.repeat(20)} / HTTP/1.1\r\nHost: a\r\n${lines}`,
  ]) {
    const answer = await raw(door.ports.edge, `${head}\r\n`);
    assert.match(answer, /content-type: text\/html/i, head);
    assert.ok(!answer.includes('<script') && !answer.includes('<b>'), answer);
  }
});

test('a page elsewhere reads why it was refused, by whatever method', async () => {
  const ada = await browser.person();
  await ada.page.goto(front.url);
  const ask = (path, options) => ada.page.evaluate(async ([url, init]) => {
    try {
      const answer = await fetch(url, { credentials: 'include', ...init });
      const seen = ['retry-after', 'x-request-id', 'ratelimit', 'x-ratelimit-remaining'].filter((name) => answer.headers.has(name));
      const text = await answer.text();
      return { status: answer.status, code: text.match(/"code":"(\w+)"/)?.[1], seen };
    } catch (error) { return String(error); }
  }, [`https://127.0.0.1:${door.ports.tls}${path}`, options]);
  assert.deepEqual(await ask('/api/x'), { status: 401, code: 'caller_missing', seen: ['x-request-id'] });
  // No route takes OPTIONS here: the preflight is refused, and the page may ask all the same.
  const once = { headers: bearer('ada', ['once']) };
  assert.equal((await ask('/api/x', once)).status, 200, 'the upstream says nothing of origins');
  const over = { status: 429, code: 'rate_limited', seen: ['retry-after', 'x-request-id', 'ratelimit', 'x-ratelimit-remaining'] };
  assert.deepEqual(await ask('/api/x', once), over);
  assert.deepEqual(await ask('/api/x', { ...once, method: 'PUT', body: '{}' }), over);
  assert.deepEqual(await ask('/dead/x', { headers: { 'x-mine': '1' } }), { status: 502, code: 'upstream_unreachable', seen: ['x-request-id', 'ratelimit', 'x-ratelimit-remaining'] });
  assert.deepEqual(await ask('/nowhere'), { status: 403, code: 'route_unknown', seen: ['x-request-id'] });
  const preflight = await door.record((r) => r.method === 'OPTIONS' && r.path === '/api/x');
  assert.deepEqual([preflight.decision, preflight.status, preflight.code], ['deny', 403, 'route_unknown']);
  // The same page by another name is another origin.
  await ada.page.goto(front.url.replace('127.0.0.1', 'localhost'));
  assert.match(await ask('/api/x'), /TypeError/);
  assert.match(await ask('/api/x', { ...once, method: 'PUT' }), /TypeError/);
  await ada.leave();
});

test('only a whole origin counts, and what the upstream says of origins stays', async () => {
  const from = async (origin, path = '/api/x', more = '') => {
    const answer = await raw(door.ports.edge, `${more.startsWith('Access') ? 'OPTIONS' : 'GET'} ${path} HTTP/1.1\r\nHost: a\r\n${origin}${more}Connection: close\r\n\r\n`);
    return answer.split('\r\n\r\n')[0];
  };
  const good = `Origin: ${front.url}\r\n`;
  assert.match(await from(good), new RegExp(`access-control-allow-origin: ${front.url}\r\n`, 'i'));
  assert.match(await from(''), /\r\nvary: origin/i);
  const preflight = 'Access-Control-Request-Method: PUT\r\n';
  assert.match(await from(good, '/api/x', preflight), /^HTTP\/1.1 204 /);
  for (const evil of [`Origin: ${front.url}0\r\n`, `Origin: ${front.url}.evil.example\r\n`, 'Origin: null\r\n', `Origin: ${front.url.toUpperCase()}\r\n`,
    `Origin: ${front.url}/\r\n`, 'Origin: http://127.0.0.1\r\n', `Origin: https${front.url.slice(4)}\r\n`, `${good}${good}`, `Origin: http://evil.example, ${front.url}\r\n`]) {
    assert.ok(!/access-control/i.test(await from(evil)), evil);
    const answer = await from(evil, '/api/x', preflight);
    assert.ok(/^HTTP\/1.1 403 /.test(answer) && !/access-control/i.test(answer), evil);
  }
  // It is the upstream's to answer a preflight that reaches it.
  assert.ok(!/access-control/i.test(await from(good, '/open/x', preflight)));
});

test('clients of gRPC get a status of theirs, and the record keeps ours', async () => {
  const fs = require('node:fs');
  const tls = grpc.credentials.createSsl(fs.readFileSync(ca.ca));
  const client = await caller(`localhost:${door.ports.tls}`, tls);
  const call = async (claims, id, workspace) => {
    const metadata = new grpc.Metadata();
    if (workspace) metadata.set('x-orbit-workspace-id', workspace);
    metadata.set('x-request-id', id);
    if (claims) metadata.set('authorization', `Bearer ${orbit(...claims)}`);
    try { return await client.unary('x', metadata); } catch (error) { return error; }
  };
  const none = await call(undefined, 'grpc-none');
  assert.deepEqual([grpc.status[none.code], none.details], ['UNAUTHENTICATED', 'Unauthorized (caller_missing)']);
  const other = await call(['ada', ['payments']], 'grpc-other', 'web');
  assert.equal(grpc.status[other.code], 'PERMISSION_DENIED');
  assert.equal((await call(['bob', ['calls']], 'grpc-once')).text, 'x');
  const over = await call(['bob', ['calls']], 'grpc-over');
  assert.deepEqual([grpc.status[over.code], over.details], ['RESOURCE_EXHAUSTED', 'Too Many Requests (rate_limited)']);
  assert.ok(over.metadata.get('retry-after').length && over.metadata.get('grpc-status-details-bin')[0].includes('RATE_LIMITED'));
  await echo.stop();
  const down = await call(['ada', ['payments']], 'grpc-down');
  assert.equal(grpc.status[down.code], 'UNAVAILABLE');
  for (const [id, status, code] of [['grpc-none', 401, 'caller_missing'], ['grpc-other', 403, 'workspace_not_granted'], ['grpc-over', 429, 'rate_limited'], ['grpc-down', 502, 'upstream_']]) {
    const record = await door.record((r) => r.id === id);
    // The connection of before may be found closed, or no new one be had.
    assert.deepEqual([record.status, record.code.replace(/unreachable$|reset$/, '')], [status, code]);
  }
  client.close();
});

test('clients of gRPC-Web and Connect in a page get errors of theirs', async () => {
  const ada = await browser.person();
  await ada.page.goto(front.url);
  await ada.page.waitForFunction(() => window.rpc);
  const edge = `https://127.0.0.1:${door.ports.tls}`;
  const call = (...args) => ada.page.evaluate((all) => window.rpc(...all), args);
  for (const [kind, method, options] of [
    ['grpc-web', 'unary'], ['grpc-web', 'many'], ['grpc-web', 'unary', { useBinaryFormat: false }],
    ['connect', 'unary'], ['connect', 'many'], ['connect', 'unary', { useBinaryFormat: true }], ['connect', 'many', { useBinaryFormat: true }],
  ]) {
    const what = `${kind} ${method} ${JSON.stringify(options)}`;
    const none = await call(kind, edge, undefined, method, options);
    assert.deepEqual([none.code, none.message], ['Unauthenticated', 'Unauthorized (caller_missing)'], what);
    const good = orbit(`${kind}-${method}`, ['payments']);
    assert.deepEqual(await call(kind, edge, good, method, options), method === 'unary' ? ['x'] : ['xa', 'xb'], what);
    const over = await call(kind, edge, orbit('ada', ['once']), method, options);
    assert.deepEqual([over.code, over.message], ['ResourceExhausted', 'Too Many Requests (rate_limited)'], what);
    assert.deepEqual(over.details, ['google.rpc.ErrorInfo', 'google.rpc.RequestInfo', 'google.rpc.RetryInfo'], what);
  }
  await ada.leave();
});

test('text of gRPC-Web is base64, and all of them end as they say', async () => {
  const post = (type, headers = {}) => get('/echo.Echo/Unary', { method: 'POST', headers: { 'content-type': type, ...headers }, body: 'x' });
  const text = await post('application/grpc-web-text+proto');
  assert.deepEqual([text.status, text.headers.get('content-type')], [200, 'application/grpc-web-text+proto']);
  const frame = Buffer.from(await text.text(), 'base64');
  assert.deepEqual([frame[0], frame.readUInt32BE(1)], [0x80, frame.length - 5]);
  assert.match(frame.subarray(5).toString(), /^grpc-status: 16\r\ngrpc-message: Unauthorized \(caller_missing\)\r\n/);
  const unary = await post('application/json', { 'connect-protocol-version': '1' });
  assert.deepEqual([unary.status, (await unary.json()).code], [401, 'unauthenticated']);
  const json = await post('application/json', { accept: '*/*' });
  assert.deepEqual([json.status, (await json.json()).code], [401, 'caller_missing']);
});

test('clients of Kubernetes get a status of theirs', async () => {
  const answer = await get('/api/kubernetes/proxy/api/v1/pods', { headers: { accept: 'application/json' } });
  const { metadata, ...status } = await answer.json();
  const id = answer.headers.get('x-request-id');
  assert.deepEqual(status, {
    kind: 'Status', apiVersion: 'v1', status: 'Failure', reason: 'Unauthorized', code: 401,
    message: `Unauthorized (caller_missing), request id ${id}`,
    details: { causes: [{ reason: 'caller_missing', message: `request id ${id}` }] },
  });
});

test('who asks for what nobody gets is on record, and learns nothing by it', async () => {
  const good = bearer('ada', ['payments']);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  // The keys of a plugin are fetched when it is met.
  const fetched = `${part({ alg: 'ES256', kid: 'x', typ: 'vnd.backstage.plugin' })}.${part({ aud: 'stagedoor', sub: 'unmet', iat: 1, exp: 9999999999 })}.${Buffer.alloc(64).toString('base64url')}`;
  const met = () => silent.seen.filter(({ url }) => url.includes('unmet')).length;
  const strange = { authorization: `Bearer ${orbit('ada', ['payments']).slice(0, -4)}AAAA` };
  for (const [path, code] of [['/shut/x', 'route_closed'], ['/rule/x', 'class_admin'], ['/query?org=evil', 'query_refused'], ['/nowhere', 'route_unknown'],
    ['/api/a%2Fb', 'path_ambiguous'], ['/api/x', 'upgrade_refused']]) {
    const bodies = [];
    for (const [name, headers, who] of [['good', good, 'ada'], ['none', {}], ['evil', strange], ['away', { authorization: `Bearer ${fetched}` }]]) {
      const id = `who-${code}-${name}`;
      const upgrade = code === 'upgrade_refused' ? 'Upgrade: websocket\r\n' : '';
      const lines = Object.entries(headers).map(([key, value]) => `${key}: ${value}\r\n`).join('');
      const answer = await raw(door.ports.edge, `GET ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: ${id}\r\n${lines}${upgrade}Connection: ${upgrade ? 'upgrade, ' : ''}close\r\n\r\n`, { ms: 2000 });
      bodies.push(answer.replaceAll(id, 'ID').replace(/\r\ndate: [^\r]+/i, ''));
      const record = await door.record((r) => r.id === id);
      assert.deepEqual([record.code, record.caller], [code, who], `${path} ${name}`);
    }
    assert.equal(new Set(bodies).size, 1, bodies.join('\n\n'));
  }
  assert.equal(met(), 0, 'nothing was fetched');
  assert.equal((await get('/api/x', { headers: { authorization: `Bearer ${fetched}` } })).status, 503);
  assert.equal(met(), 1, 'as it is where somebody may pass');
});

test('HEAD has no body, HTTP/1.0 no chunks, and a connection ends as it says', async () => {
  const head = (line, lines = '') => raw(door.ports.edge, `${line}\r\nHost: a\r\n${lines}\r\n`, { ms: 3000 });
  for (const accept of ['Accept: */*\r\n', 'Accept: text/html\r\n']) {
    const [given, asked] = [await head('GET /api/x HTTP/1.1', `${accept}Connection: close\r\n`), await head('HEAD /api/x HTTP/1.1', `${accept}Connection: close\r\n`)];
    const [, body] = given.split('\r\n\r\n');
    const length = (answer) => Number(answer.match(/content-length: (\d+)/i)[1]);
    assert.deepEqual([length(given), length(asked), asked.split('\r\n\r\n')[1]], [body.length, body.length, '']);
    for (const old of [await head('GET /api/x HTTP/1.0', accept), await head('GET /dead/x HTTP/1.0', accept), await head('GET /nowhere HTTP/1.0', `${accept}Connection: keep-alive, close\r\n`)]) {
      assert.ok(!/transfer-encoding/i.test(old), old);
      assert.equal(length(old), old.split('\r\n\r\n')[1].length);
      assert.match(old, /connection: close/i);
    }
  }
  // What never became a request, too.
  const broken = await head('HEAD /api/x HTTP/1.1', 'Host: b\r\n');
  assert.match(broken, /^HTTP\/1.1 400 [^]*content-length: [1-9][^]*\r\n\r\n$/i);
  assert.match(await head('GET /api/x HTTP/1.1', 'Host: b\r\nAccept: text/html\r\n'), /^HTTP\/1.1 400 [^]*<h1>400 Bad Request<\/h1>/);
  // Two refusals on one connection: the first ended where it said.
  const two = await raw(door.ports.edge, 'HEAD /api/x HTTP/1.1\r\nHost: a\r\n\r\nGET /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', { ms: 3000 });
  assert.equal(two.match(/HTTP\/1.1 401/g).length, 2);
  assert.match(two, /\r\n\r\nHTTP\/1.1 401/);
});
