'use strict';
// A person in several workspaces: the frontend's middleware of the manual in a real browser, and whoever says no header.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { promisify } = require('node:util');
const { chromium } = require('../rig/chromium');
const { identity, orbit } = require('../rig/jwt');
const { stagedoor } = require('../rig/stagedoor');
const typescript = require('typescript');
const { upstream } = require('../rig/upstream');

let up; let door;
before(async () => {
  up = await upstream();
  door = await stagedoor((ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces:
  choose_by: [header, host, cookie, only_membership, default]
  hosts: ['*.kube.test']
  default: ledger
  named: {payments: {}, web: {}, ledger: {}, ops: {}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: page, methods: [GET], path: /, upstream: up, class: read, options: {public: true}}
- {name: read, methods: [GET], path: /api/**, upstream: up, class: read, options: {upgrade: true}}`);
});
after(async () => { await door?.stop(); await up?.stop(); });

const ada = () => orbit('ada', ['payments', 'web']);
const ask = async (headers, token = ada()) => {
  const answer = await fetch(`${door.url}/api/x`, { headers: { authorization: `Bearer ${token}`, ...headers } });
  const { code } = await answer.json();
  return answer.status === 200 ? up.last().headers['x-orbit-workspace-id'] : `${answer.status} ${code}`;
};

/** What the manual gives a frontend, without its types. */
const snippet = () => {
  const manual = fs.readFileSync(path.join(__dirname, '../../../docs/workspaces.md'), 'utf8');
  const [code] = /const NAME[\s\S]*?^\}\);$/m.exec(/```ts\n([\s\S]*?)```/.exec(manual)[1]);
  const { outputText } = typescript.transpileModule(code.replaceAll('export ', ''), { compilerOptions: { target: 'ES2022' } });
  return `${outputText}\nreturn { choose, workspace, sayWorkspace };`;
};

test('the manual’s middleware says the workspace that was picked in Chromium, and its cookie what cannot', async () => {
  const browsers = await chromium();
  try {
    const { page, context } = await browsers.person();
    await page.goto(`${door.url}/`);
    const said = await page.evaluate(async ([code, token, base]) => {
      const { choose, workspace, sayWorkspace } = new Function(code)();
      // As `createFetchApi` puts them around `fetch`.
      const api = sayWorkspace(base).apply(fetch);
      const headers = { authorization: `Bearer ${token}` };
      const asked = async (go, where) => { const answer = await go(where, { headers }); return [answer.status, (await answer.json()).code ?? null]; };
      const none = await asked(api, `${base}/api/none`);
      choose('web');
      const picked = await asked(api, `${base}/api/picked`);
      const name = workspace();
      const plain = await asked(fetch, `${base}/api/plain`);
      choose('payments');
      const again = await asked(api, new URL(`${base}/api/again`));
      const request = await asked(api, new Request(`${base}/api/request`));
      choose('ops');
      const foreign = await asked(api, `${base}/api/foreign`);
      choose();
      const gone = await asked(api, `${base}/api/gone`);
      return { none, picked, name, plain, again, request, foreign, gone };
    }, [snippet().replaceAll('; secure', ''), ada(), door.url]);
    const ok = [200, null];
    assert.deepEqual(said, { none: [400, 'workspace_missing'], picked: ok, name: 'web', plain: ok, again: ok, request: ok, foreign: [403, 'workspace_not_granted'], gone: [400, 'workspace_missing'] });
    const of = (where) => up.seen.find(({ url }) => url === `/api/${where}`).headers['x-orbit-workspace-id'];
    assert.deepEqual([of('picked'), of('plain'), of('again'), of('request')], ['web', 'web', 'payments', 'payments']);
    assert.equal((await context.cookies()).filter(({ name }) => name === 'stagedoor-workspace').length, 0);
  } finally { await browsers.stop(); }
});

test('who can say no header says a host, a cookie, or has a default; a guess it never is', async () => {
  assert.equal(await ask({}), '400 workspace_missing');
  assert.equal(await ask({ cookie: 'a=b; stagedoor-workspace=web' }), 'web');
  assert.equal(await ask({ cookie: 'stagedoor-workspace=ops' }), '403 workspace_not_granted');
  assert.equal(await ask({ cookie: 'stagedoor-workspace=../x' }), '403 workspace_unknown');
  assert.equal(await ask({ cookie: 'stagedoor-workspace=web; stagedoor-workspace=payments' }), '400 workspace_ambiguous');
  assert.equal(await ask({ cookie: 'stagedoor-workspace=web', 'x-orbit-workspace-id': 'payments' }), 'payments');
  assert.equal(await ask({}, orbit('bo', ['payments', 'ledger'])), 'ledger', 'the default is one of theirs');
  assert.equal(await ask({}, orbit('bo', ['payments'])), 'payments');
  await door.settled();
  const record = await door.record((r) => r.cookie_workspace === 'ops');
  assert.deepEqual([record.code, record.caller], ['workspace_not_granted', 'ada']);
});

test('a host of its own says the workspace, as kubectl’s kubeconfig has one', async () => {
  // kubectl says a bearer token and nothing else; curl lets a name lead here.
  const kubectl = async (host) => {
    const { stdout } = await promisify(execFile)('curl', ['-s', '--resolve', `${host}:${door.ports.edge}:127.0.0.1`, '-H', `authorization: Bearer ${ada()}`, `http://${host}:${door.ports.edge}/api/kubernetes/proxy/api/v1/pods`]);
    return JSON.parse(stdout);
  };
  await kubectl('web.kube.test');
  assert.equal(up.last().headers['x-orbit-workspace-id'], 'web');
  assert.equal(up.last().url, '/api/kubernetes/proxy/api/v1/pods', 'its paths stay as they are');
  assert.equal((await kubectl('ops.kube.test')).code, 'workspace_not_granted');
  assert.equal((await kubectl('a.web.kube.test')).code, 'workspace_missing');
});
