'use strict';
// A GitHub App: its key stays here, and GitHub's API sees tokens of one installation.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const { after, before, test } = require('node:test');
const { Octokit } = require('@octokit/core');
const { github } = require('../rig/github');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let api; let enterprise; let keys;
const pair = () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };

before(async () => {
  keys = pair();
  const app = { id: 'Iv23liABCDEF', installation: 42, publicKey: () => keys.publicKey };
  [api, enterprise] = await Promise.all([github({ app }), github({ app, base: '/api/v3' })]);
});
after(async () => { await api?.stop(); await enterprise?.stop(); });

const pem = (type) => keys.privateKey.export({ type, format: 'pem' });
const config = (more = '', installation = 42) => (ports, own) => {
  if (!fs.existsSync(`${own}/key`)) fs.writeFileSync(`${own}/key`, pem('pkcs1'));
  fs.writeFileSync(`${own}/key8`, pem('pkcs8'));
  return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}}
credentials:
  github: {kind: github_app, api: "${api.url}", app_id: Iv23liABCDEF, installation_id: ${installation}, private_key_file: ${own}/key${more}}
  ghes: {kind: github_app, api: "${enterprise.url}", app_id: Iv23liABCDEF, installation_id: 42, private_key_file: ${own}/key8}
upstreams:
  github: {url: "${api.url}", credential: github}
  ghes: {url: "${enterprise.url}", credential: ghes}
routes:
- {name: github, methods: [GET], path: /ext/github/**, upstream: github, class: read, options: {strip_prefix: /ext/github, access: {callers: [ada]}}}
- {name: ghes, methods: [GET], path: /ext/ghes/**, upstream: ghes, class: read, options: {strip_prefix: /ext/ghes, access: {callers: [ada]}}}`;
};
const failing = async (door) => (await (await door.admin('/state')).json()).credentials.find(({ name }) => name === 'github').failing;

test('GitHub sees tokens of the installation, as narrow as the config says, and one serves many', async () => {
  const door = await stagedoor(config(', repositories: [shop], permissions: {contents: read, pull_requests: write}'));
  const octokit = new Octokit({ baseUrl: `${door.url}/ext/github` });
  const answers = await Promise.all(Array.from({ length: 20 }, () => octokit.request('GET /user', { headers: bearer })));
  assert.deepEqual([...new Set(answers.map(({ data }) => data.login))], ['acme']);
  assert.deepEqual(api.asked, [{ repositories: ['shop'], permissions: { contents: 'read', pull_requests: 'write' }, accept: 'application/vnd.github+json', version: '2022-11-28' }]);
  assert.deepEqual([...new Set(api.seen.map(({ authorization }) => authorization))], [`Bearer ${api.tokens[0].token}`]);
  assert.equal((await fetch(`${door.url}/ext/ghes/user`, { headers: bearer })).status, 200);
  assert.equal(enterprise.seen[0].url, '/api/v3/user');
  const everything = [door.output(), JSON.stringify(door.records()), ...await Promise.all(['/state', '/config', '/metrics'].map(async (where) => (await door.admin(where)).text()))];
  for (const text of everything) assert.ok(!text.includes('ghs_') && !text.includes(pem('pkcs1').split('\n')[1]));
  await door.stop();
});

test('a token is renewed before it ends, and nobody is refused meanwhile', async () => {
  api.lives(4);
  const door = await stagedoor(config());
  const before = api.tokens.length;
  await until('a third token', async () => {
    const { status } = await fetch(`${door.url}/ext/github/user`, { headers: bearer });
    if (status !== 200) throw Object.assign(new Error(`got ${status}`), { fatal: true });
    return api.tokens.length > before + 2;
  });
  api.lives(3600);
  await door.stop();
});

test('what GitHub does not take is told to the operator, and a key that is changed is taken over', async () => {
  const old = keys;
  keys = pair();
  const door = await stagedoor((ports, own) => { fs.writeFileSync(`${own}/key`, old.privateKey.export({ type: 'pkcs1', format: 'pem' })); return config()(ports, own); });
  const ask = async () => { const answer = await fetch(`${door.url}/ext/github/user`, { headers: bearer }); return [answer.status, (await answer.json()).code]; };
  assert.deepEqual(await ask(), [503, 'credential_unavailable']);
  assert.match(await failing(door), /401.*A JSON web token could not be decoded/);
  fs.writeFileSync(`${door.folder}/key`, pem('pkcs8'));
  await until('the new key', async () => (await door.reload()).successful && (await ask())[0] === 200, 40000);
  assert.equal(await failing(door), null);
  await door.stop();
  const wrong = await stagedoor(config('', 43));
  assert.equal((await fetch(`${wrong.url}/ext/github/user`, { headers: bearer })).status, 503);
  assert.match(await failing(wrong), /404/);
  await wrong.stop();
});
