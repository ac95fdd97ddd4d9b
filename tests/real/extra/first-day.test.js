'use strict';
// A real portal's first day in Chromium: its own frontend with plugins' pages, three people at once, and everything behind it
// starting anew, through one config of presets and default limits.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { chromium } = require('../rig/chromium');
const { firstDay } = require('../rig/day');
const { frontend } = require('../rig/frontend');
const { until } = require('../rig/ports');

const PEOPLE = ['ada', 'bob', 'eve'];
let day; let browsers; let people;

/** Somebody who has signed in at the provider, in a window of its own as the frontend opens it. */
const signedIn = async (name) => {
  const person = await browsers.person({ viewport: { width: 1400, height: 1600 } });
  const { page } = person;
  await person.context.addCookies([{ name: 'person', value: name, url: day.idp.url }]);
  await page.goto(`${day.url}/`);
  await Promise.all([page.waitForEvent('popup'), page.getByRole('button', { name: /sign in/i }).click()]);
  await page.getByRole('link', { name: 'pay', exact: true }).first().waitFor();
  return { name, ...person };
};
before(async () => {
  day = await firstDay({ frontend: frontend() });
  browsers = await chromium({ names: day.names });
  people = await Promise.all(PEOPLE.map(signedIn));
}, { timeout: 600000 });
after(async () => { await browsers?.stop(); await day?.stop(); });

/** What Chromium was refused, but for Backstage's own question whether somebody is signed in already. */
const refused = () => people.flatMap(({ name, refused: all }) => all().filter((line) => !line.includes('/refresh?optional')).map((line) => `${name}: ${line.replace(day.url, '')}`));

test('three people of one workspace open catalog, an entity’s page with plugins’ cards, settings and search at once', async () => {
  await Promise.all(people.map(async ({ page }) => {
    await page.getByRole('link', { name: 'pay', exact: true }).first().click();
    await page.getByText('payments-network').waitFor();
    // Each card shows what its tool said: Argo CD, Jenkins, SonarQube.
    await Promise.all([/^Synced$/, 'See more on Jenkins', /Code Smells/i].map((text) => page.getByText(text).first().waitFor()));
    for (const [tab, asked] of [['CI/CD', 'jenkins/v1/entity/'], ['Pipelines', 'azure-devops/builds/'], ['Pull requests', 'azure-devops/pull-requests/'], ['Kubernetes', 'kubernetes/services/']]) {
      await Promise.all([page.waitForResponse((answer) => answer.url().includes(`/api/${asked}`)), page.getByText(tab, { exact: true }).first().click()]);
    }
    for (const [where, asked] of [['settings', 'catalog/entities/by-name/user/'], ['notifications', 'notifications/notifications?'], ['search?query=pay', 'search/query?']]) {
      await Promise.all([page.waitForResponse((answer) => answer.url().includes(`/api/${asked}`)), page.goto(`${day.url}/${where}`)]);
    }
  }));
  assert.deepEqual(refused(), []);
  assert.deepEqual(await day.refusals(), []);
});

test('their calls went out by the gate, each to the tool it was meant for', async () => {
  await day.door.settled();
  const called = new Set(day.door.records().filter(({ method, decision }) => method === 'CONNECT' && decision === 'allow').map(({ target }) => target.split(':')[0]));
  assert.deepEqual([...called].sort(), ['acme.spacelift.example', 'argocd.example', 'devops.example', 'jenkins.example', 'kubernetes.example', 'sonarqube.example']);
  for (const [which, { connected }] of Object.entries(day.up)) assert.deepEqual([...new Set(connected)], [day.door.pid], which);
});

/** From a page, as a frontend asks: DXCP by the proxy plugin, with a token of the provider's. */
const deliver = ({ page }, token) => page.evaluate(async (bearer) => {
  const answer = await fetch('/api/proxy/dxcp/v1/services/pay/delivery-status?environment=prod', { headers: { authorization: `Bearer ${bearer}` } });
  return answer.status;
}, token);

test('DXCP answers through the proxy plugin and the gate behind it', async () => {
  assert.equal(await deliver(people[0], await day.idp.token()), 200);
  assert.deepEqual(await day.refusals(), []);
});

/** Asks in a page every `each` ms until it is answered well again, after `what` has ended and begun: the outage that its person saw, in ms. */
const outage = async ({ page }, where, token, what, each) => {
  await page.evaluate(([path, bearer, pause]) => {
    window.outage = undefined; window.broken = undefined;
    const ask = async () => {
      const good = await fetch(path, { headers: { authorization: `Bearer ${bearer}` } }).then((answer) => answer.ok, () => false);
      if (!good) window.broken ??= performance.now();
      if (good && window.broken !== undefined) window.outage = performance.now() - window.broken; else setTimeout(ask, pause);
    };
    ask();
  }, [where, token, each]);
  const own = await what();
  const seen = await until('the end of the outage', () => page.evaluate(() => window.outage), 60000);
  return { seen, own };
};
/** How long `end` to `begin` took. */
const restart = (end, begin) => async () => {
  const began = Date.now();
  await end();
  await begin();
  return Date.now() - began;
};
/** The token that the frontend asked with last. DXCP is asked with one of the provider's. */
const userToken = ({ answers }) => answers.filter(({ url }) => !url.includes('/api/proxy/')).map(({ answer }) => answer.request().headers().authorization).filter((line) => line?.startsWith('Bearer ey')).at(-1).slice('Bearer '.length);

test('a Backstage that starts anew is away for as long as that takes, and 1.5 s', async () => {
  const token = userToken(people[0]);
  const { seen, own } = await outage(people[0], '/api/catalog/entity-facets?facet=kind', token, restart(() => day.portal.end('SIGKILL'), () => day.portal.begin()), 250);
  assert.ok(seen <= own + 1750, `${Math.round(seen)} ms, of which its own start ${own} ms`);
  await people[0].page.goto(`${day.url}/`);
  await people[0].page.getByRole('link', { name: 'pay', exact: true }).first().waitFor();
});

test('so is DXCP, and nobody else is away meanwhile', async () => {
  const since = day.door.records().length;
  const token = await day.idp.token();
  let others;
  const { seen, own } = await outage(people[0], '/api/proxy/dxcp/v1/services/pay/delivery-status?environment=prod', token, restart(() => day.control.end(), async () => {
    // For as long as it takes to see that the breaker of one does not hold others.
    await until('a refusal', async () => { await day.door.settled(); return day.door.records().slice(since).filter(({ path, status }) => path?.startsWith('/api/proxy/dxcp') && status >= 500).length >= 6; }, 20000);
    const user = userToken(people[1]);
    others = await people[1].page.evaluate(async (bearer) => Promise.all(['/api/catalog/entity-facets?facet=kind', '/api/spacelift-io/stacks'].map(async (path) => (await fetch(path, { headers: { authorization: `Bearer ${bearer}` } })).status)), user);
    await day.control.begin();
  }), 700);
  assert.deepEqual(others, [200, 200]);
  // One question each 0.7 s: more would be over DXCP's limit.
  assert.ok(seen <= own + 2200, `${Math.round(seen)} ms, of which it was away ${own} ms`);
});

test('while the issuer starts anew, whoever is signed in goes on', async () => {
  await day.idp.stop();
  const { page } = people[2];
  const statuses = await page.evaluate(async (bearer) => Promise.all(['/api/catalog/entity-facets?facet=kind', '/api/spacelift-io/stacks'].map(async (path) => (await fetch(path, { headers: { authorization: `Bearer ${bearer}` } })).status)), userToken(people[2]));
  assert.deepEqual(statuses, [200, 200]);
  await day.idp.start();
  await Promise.all([page.waitForResponse((answer) => answer.url().includes('/api/catalog/')), page.goto(`${day.url}/`)]);
  assert.equal(await deliver(people[2], await day.idp.token()), 200);
});

test('what was refused in all that is what was away', async () => {
  const codes = (await day.refusals()).map((line) => line.split(' ')[0]);
  assert.deepEqual([...new Set(codes)].filter((code) => !/^(breaker_open|upstream_\w+)$/.test(code)), []);
});
