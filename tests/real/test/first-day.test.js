'use strict';
// A portal's first day without a browser: what its pages ask (as Chromium was seen to ask), by three people
// at once, through one config of presets and default limits; plugins' calls out, and DXCP behind.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const { Agent, setGlobalDispatcher } = require('undici');
const { browser } = require('../rig/browser');
const { firstDay } = require('../rig/day');
const { until } = require('../rig/ports');

let day; let tokens;
const refs = (...entityRefs) => ({ entityRefs, fields: ['kind', 'metadata.name', 'metadata.namespace'] });
const PAY = '/api/catalog/entities/by-name/component/default/pay';
const ENTITY = { apiVersion: 'backstage.io/v1alpha1', kind: 'Component', metadata: { name: 'pay', annotations: { 'backstage.io/kubernetes-id': 'pay' } } };
/** What the catalog, an entity's page with its cards and tabs, settings and notifications ask, in their order. */
const VISIT = [
  ['/api/user-settings/multiget', { items: [] }],
  ...Array(6).fill(['/api/catalog/entity-facets?facet=kind']), ...Array(6).fill(['/api/catalog/entity-facets', { facets: ['kind'] }]),
  ...Array(8).fill(['/api/catalog/entities/by-query', { limit: 20 }]), ...Array(8).fill(['/api/catalog/entities/by-refs', refs('group:default/payments-dev')]),
  [PAY], [`${PAY}/ancestry`], ['/api/spacelift-io/stacks'], ['/api/argocd/find/name/pay'], ['/api/argocd/argoInstance/main/applications/name/pay'],
  ['/api/jenkins/v1/entity/default/Component/pay/projects?branch=master'], ['/api/sonarqube/entities/Component/default/pay/summary'],
  ['/api/azure-devops/builds/shop?entityRef=component%3Adefault%2Fpay&repoName=r-1&top=10'], ['/api/azure-devops/pull-requests/shop/r-1?top=10&status=1&entityRef=component%3Adefault%2Fpay'], ['/api/kubernetes/clusters'], ['/api/kubernetes/services/pay', { entity: ENTITY, auth: {} }],
  ['/api/notifications/status'], ['/api/notifications/settings'], ['/api/search/query?term=pay'], ['/api/permission/authorize', { items: [] }],
];
const get = (at, token, body) => fetch(`${day.url}${at}`, {
  method: body ? 'POST' : 'GET', body: body && JSON.stringify(body), headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
});
const signIn = async (name) => {
  const user = browser();
  const { host } = new URL(day.idp.url);
  user.jar.set('person', { host, path: '/', name: 'person', value: name });
  const { answer } = await user.follow(`${day.url}/api/auth/oidc/start?env=development&scope=openid%20profile%20email`);
  const [, text] = /decodeURIComponent\('([^']+)'\)/.exec(await answer.text()) ?? [];
  return JSON.parse(decodeURIComponent(text)).response?.backstageIdentity.token;
};

before(async () => {
  day = await firstDay();
  setGlobalDispatcher(new Agent({ connect: { ca: fs.readFileSync(day.ca), lookup: (name, options, found) => (options.all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4)) } }));
  // Groups are saved at sign-in, and before the catalog was read there are none.
  await until('the catalog', async () => {
    const { backstageIdentity: { token } } = await (await fetch(`${day.portal.url}/api/auth/guest/refresh`)).json();
    return (await (await fetch(`${day.portal.url}/api/catalog/entities/by-name/component/default/pay`, { headers: { authorization: `Bearer ${token}` } })).json()).metadata?.name;
  });
  tokens = await Promise.all(['ada', 'bob', 'eve'].map(signIn));
});
after(async () => { await day?.stop(); });

test('three people of one workspace visit the portal at once, and nothing is refused', async () => {
  const bad = [];
  await Promise.all(tokens.map(async (token) => {
    const rest = [...VISIT];
    // As many at once as a browser asks.
    await Promise.all(Array.from({ length: 6 }, async () => {
      for (let one = rest.shift(); one; one = rest.shift()) {
        const answer = await get(one[0], token, one[1]);
        const text = await answer.text();
        if (!answer.ok) bad.push(`${answer.status} ${one[0]} ${text.slice(0, 200)}`);
      }
    }));
  }));
  assert.deepEqual(bad, []);
  assert.deepEqual(await day.refusals(), []);
});

test('plugins’ calls went out by the gate, and DXCP answers behind it', async () => {
  // A tunnel is on record when it has ended, and undici keeps one for 4 s.
  const called = () => [...new Set(day.door.records().filter(({ method, decision }) => method === 'CONNECT' && decision === 'allow').map(({ target }) => target.split(':')[0]))].sort();
  const tools = ['acme.spacelift.example', 'argocd.example', 'devops.example', 'jenkins.example', 'kubernetes.example', 'sonarqube.example'];
  await until('all tunnels on record', async () => called().length >= tools.length, 15000);
  assert.deepEqual(called(), tools);
  for (const [which, { connected }] of Object.entries(day.up)) assert.deepEqual([...new Set(connected)], [day.door.pid], which);
  const answer = await get('/api/proxy/dxcp/v1/services/pay/delivery-status?environment=prod', await day.idp.token());
  assert.equal(answer.status, 200, await answer.text());
  assert.deepEqual(await day.refusals(), []);
});
