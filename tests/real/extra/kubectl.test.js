'use strict';
// kubectl through the proxy of Backstage's Kubernetes plugin: what it prints of a denial. Debian: apt install kubernetes-client.

const assert = require('node:assert/strict');
const { execFile, spawnSync } = require('node:child_process');
const http = require('node:http');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { stagedoor } = require('../rig/stagedoor');

const missing = spawnSync('kubectl', ['version', '--client']).error && 'no kubectl here';
let door; let api; let ca;

// As much of the API as kubectl asks for before it asks for what it is told to.
const list = (kind, items) => ({ kind, apiVersion: 'v1', ...items });
const resource = (name, kind) => ({ name, singularName: '', namespaced: true, kind, verbs: ['get', 'list', 'delete'] });
const ANSWERS = {
  '/api': list('APIVersions', { versions: ['v1'] }),
  '/apis': list('APIGroupList', { groups: [] }),
  '/api/v1': list('APIResourceList', { groupVersion: 'v1', resources: [resource('pods', 'Pod'), resource('secrets', 'Secret')] }),
  '/api/v1/namespaces/default/pods': list('PodList', { metadata: {}, items: [] }),
};

before(async () => {
  if (missing) return;
  api = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://x');
    const answer = ANSWERS[pathname.replace('/api/kubernetes/proxy', '')];
    response.writeHead(answer ? 200 : 404, { 'content-type': 'application/json' }).end(JSON.stringify(answer ?? {}));
  });
  await new Promise((resolve) => api.listen(0, '127.0.0.1', resolve));
  door = await stagedoor((ports, folder) => {
    ca = authority(`${folder}/tls`);
    const { cert, key } = ca.issue('edge', { names: ['127.0.0.1'] });
    return `
listeners:
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${cert}, key: ${key}}]}}
${identity(folder)}
workspaces: {named: {payments: {}, small: {rate_limit: {rate: 1/s, burst: 1}}}}
upstreams: {portal: {url: "http://127.0.0.1:${api.address().port}"}}
presets:
- {preset: kubernetes, upstream: portal, open: [proxy]}
`;
  });
});
after(async () => { await door?.stop(); api?.closeAllConnections(); api?.close(); });

/** Runs kubectl as somebody; answers with all that it prints. */
const kubectl = (who, ...args) => new Promise((resolve) => {
  const server = `https://127.0.0.1:${door.ports.tls}/api/kubernetes/proxy`;
  const all = ['--server', server, '--certificate-authority', ca.ca, ...(who ? ['--token', orbit(...who)] : ['--username', 'x', '--password', 'y']), ...args];
  execFile('kubectl', all, { env: { ...process.env, HOME: door.folder, KUBECONFIG: '/dev/null' }, timeout: 30000 }, (error, out, err) => resolve(`${out}${err}`));
});

test('kubectl says what was refused, why, and under which request id', { skip: missing }, async () => {
  const ada = ['ada', ['payments']];
  assert.match(await kubectl(ada, 'get', 'pods'), /No resources found/);
  const refused = await kubectl(ada, 'delete', 'pod', 'x', '--wait=false');
  const [, id] = refused.match(/^Error from server \(Forbidden\): Forbidden \(route_closed\), request id (\S+)$/m) ?? assert.fail(refused);
  const record = await door.record((r) => r.id === id);
  assert.deepEqual([record.method, record.code, record.caller], ['DELETE', 'route_closed', 'ada']);
  assert.match(await kubectl(ada, 'get', 'secrets'), /^Error from server \(Forbidden\): Forbidden \(route_closed\)/m);
  assert.match(await kubectl(['vic', ['elsewhere']], 'get', 'pods'), /Error from server \(BadRequest\): .*\(workspace_missing\)/);
  assert.match(await kubectl(undefined, 'get', 'pods'), /Unauthorized|provide credentials/);
});

test('kubectl waits when it is over its limit, and goes on', { skip: missing }, async () => {
  const bob = ['bob', ['small']];
  for (let n = 0; n < 3; n += 1) assert.match(await kubectl(bob, 'get', 'pods'), /No resources found/);
  await door.record((r) => r.caller === 'bob' && r.code === 'rate_limited');
});
