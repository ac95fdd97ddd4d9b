'use strict';
// A portal at https://corp.example.com/backstage: a real Backstage serves `/` and `/api` whatever its baseUrl says, so the part
// before is cut off on the way there and put back where answers speak of paths.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { backstage, callback } = require('../rig/backstage');
const { browser } = require('../rig/browser');
const { chromium } = require('../rig/chromium');
const { frontend } = require('../rig/frontend');
const { oidc } = require('../rig/oidc');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');
const { read } = require('../rig/token');

let folder; let db; let idp; let portal; let door; let plain; let base;
const seen = [];
/** An application that knows nothing of a path before its own. */
const app = (request, response) => {
  seen.push({ url: request.url, headers: request.headers });
  const answers = {
    '/login': [302, { location: '/home?from=login', 'set-cookie': ['session=1; Path=/; HttpOnly', 'own=2; Path=/backstage/app/api', '__Host-id=3; Path=/; Secure', 'bare=4'] }],
    '/told': [302, { location: '/backstage/app/home' }],
    '/away': [302, { location: 'https://idp.example/authorize?a=b' }],
    '/beside': [303, { location: '//idp.example/x' }],
    '/made': [201, { location: 'things/1', 'content-location': '/things/1', link: '</things?page=2>; rel="next"' }],
  };
  const [status, headers] = answers[request.url] ?? [200, {}];
  response.writeHead(status, headers).end(request.url);
};

before(async () => {
  // Backstage's own bundler finds out at run time where its files are. Ours wrote down that they are at the root.
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-frontend-'));
  fs.cpSync(frontend(), folder, { recursive: true });
  const files = `${folder}/app/dist/static`;
  for (const name of fs.readdirSync(files).filter((one) => one.endsWith('.js'))) fs.writeFileSync(`${files}/${name}`, fs.readFileSync(`${files}/${name}`, 'utf8').replaceAll('"/static/', '"./'));
  const [made, port] = await Promise.all([postgres(), freePort()]);
  db = made;
  plain = http.createServer(app);
  await new Promise((resolve) => plain.listen(0, '127.0.0.1', resolve));
  const to = `"http://127.0.0.1:${plain.address().port}"`;
  door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity:
  issuers:
    portal:
      kind: backstage
      issuer: http://127.0.0.1:${ports.edge}/backstage/api/auth
      audiences: [catalog, stage]
      algorithms: [ES256]
      keys: {backstage_url: "http://127.0.0.1:${port}"}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 1000/s, burst: 1000}}
upstreams:
  portal: {url: "http://127.0.0.1:${port}", preserve_host: true}
  plain: {url: ${to}, preserve_host: true}
  asked: {url: ${to}}
presets:
- {preset: backstage, upstream: portal, strip_prefix: /backstage}
- {preset: argocd, upstream: plain, strip_prefix: /backstage, detail: full}
routes:
- {name: app, methods: [ANY], path: /backstage/app/**, upstream: plain, class: read, options: {strip_prefix: /backstage/app, public: true}}
- {name: asked, methods: [GET], path: /asked/**, upstream: asked, class: read, options: {strip_prefix: /asked, public: true}}`);
  base = `${door.url}/backstage`;
  idp = await oidc({ callbacks: [callback(base)] });
  portal = await backstage({ port, baseUrl: base, postgres: db, oidc: idp, frontend: folder });
  // Groups are saved at sign-in, and before the catalog was read there are none.
  await until('the catalog', async () => {
    const { backstageIdentity: { token } } = await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json();
    const { claims } = await (await fetch(`${portal.url}/api/auth/v1/userinfo`, { headers: { authorization: `Bearer ${token}` } })).json();
    return claims.ent.length > 1;
  });
});
after(async () => { await portal?.stop(); await door?.stop(); await idp?.stop(); plain?.close(); await db?.stop(); fs.rmSync(folder, { recursive: true, force: true }); });

const get = (path, token, headers = {}) => fetch(`${base}${path}`, { redirect: 'manual', headers: { ...(token ? { authorization: `Bearer ${token}` } : {}), ...headers } });

test('a real Backstage serves its API at /api, and its tokens name the whole issuer', async () => {
  const { backstageIdentity: { token } } = await (await get('/api/auth/guest/refresh')).json();
  assert.equal(read(token).claims.iss, `${base}/api/auth`);
  const answer = await get('/api/catalog/entities?filter=kind=component', token);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  assert.equal(JSON.parse(text)[0].metadata.name, 'pay');
  const record = await door.record((r) => r.route === 'backstage.catalog');
  assert.deepEqual([record.path, record.caller, record.decision], ['/backstage/api/catalog/entities', 'user:default/ada', 'allow']);
  assert.equal((await fetch(`${door.url}/api/catalog/entities`, { headers: { authorization: `Bearer ${token}` } })).status, 403, 'nothing is beside the path');
});

test('people sign in there, and their cookies come back below the path and nowhere else', async () => {
  const user = browser();
  const { answer, seen: way } = await user.follow(`${base}/api/auth/oidc/start?env=development&scope=openid%20profile%20email`);
  const page = await answer.text();
  assert.equal(answer.status, 200, `${way.join('\n')}\n${page}`);
  const [, text] = /decodeURIComponent\('([^']+)'\)/.exec(page) ?? [];
  const { response, error } = JSON.parse(decodeURIComponent(text));
  assert.equal(error, undefined);
  assert.equal(read(response.backstageIdentity.token).claims.sub, 'user:default/ada');
  const here = [...user.jar.values()].filter((cookie) => cookie.host === new URL(base).host);
  assert.ok(here.length > 0);
  for (const cookie of here) assert.match(cookie.path, /^\/backstage(\/|$)/, JSON.stringify(cookie));
});

test('an upstream is asked for what follows and told of what was before; nobody else can tell it', async () => {
  assert.equal(await (await get('/app/static/x.js?a=b', undefined, { 'x-forwarded-prefix': '/forged' })).text(), '/static/x.js?a=b');
  assert.equal(seen.at(-1).headers['x-forwarded-prefix'], '/backstage/app');
  assert.equal(await (await get('/app')).text(), '/');
  const { backstageIdentity: { token } } = await (await get('/api/auth/guest/refresh')).json();
  const argo = await get('/api/argocd/argoInstance/one/applications/name/pay', token, { 'x-orbit-workspace-id': 'payments' });
  assert.notEqual(argo.status, 404, await argo.clone().text());
  const record = await door.record((r) => r.plugin === 'argocd' && r.path.startsWith('/backstage/api/argocd/'));
  if (record.decision === 'allow') assert.match(seen.at(-1).url, /^\/api\/argocd\//);
});

test('paths in answers are put below the part that was cut off, unless they are there', async () => {
  const login = await get('/app/login');
  assert.deepEqual([login.status, login.headers.get('location')], [302, '/backstage/app/home?from=login']);
  assert.deepEqual(login.headers.getSetCookie(), ['session=1; Path=/backstage/app; HttpOnly', 'own=2; Path=/backstage/app/api', '__Host-id=3; Path=/; Secure', 'bare=4']);
  const location = async (path) => (await get(`/app${path}`)).headers.get('location');
  assert.equal(await location('/told'), '/backstage/app/home');
  assert.equal(await location('/away'), 'https://idp.example/authorize?a=b');
  assert.equal(await location('/beside'), '//idp.example/x');
  const made = await get('/app/made');
  assert.deepEqual(['location', 'content-location', 'link'].map((name) => made.headers.get(name)), ['things/1', '/backstage/app/things/1', '</backstage/app/things?page=2>; rel="next"']);
  // One that is asked by its own name learns ours from nobody.
  const asked = await fetch(`${door.url}/asked/login`, { redirect: 'manual' });
  assert.equal(asked.headers.get('location'), '/asked/home?from=login');
  assert.equal(asked.headers.getSetCookie()[0], 'session=1; Path=/asked; HttpOnly');
});

test('its pages open in a browser, with all that they load and ask for', async () => {
  const opened = await chromium();
  try {
    const person = await opened.person();
    await person.page.goto(base);
    await person.page.getByRole('button', { name: /enter/i }).click();
    await person.page.getByText('pay', { exact: true }).first().waitFor();
    assert.match(person.page.url(), new RegExp(`^${base}`));
    const asked = person.answers.filter(({ url }) => url.startsWith(door.url));
    assert.ok(asked.some(({ url }) => url.startsWith(`${base}/static/`)) && asked.some(({ url }) => url.startsWith(`${base}/api/catalog/`)));
    assert.deepEqual(asked.filter(({ url }) => !url.startsWith(base)).map(({ url }) => url), [], 'nothing is asked for beside it');
    assert.deepEqual(person.refused().filter((line) => /^(401|403|429|5)/.test(line)), []);
    await person.leave();
  } finally { await opened.stop(); }
});
