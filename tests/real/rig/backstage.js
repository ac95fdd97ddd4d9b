'use strict';
// A real Backstage backend: sign-in as guest or through a provider, catalog, permissions, proxy, events,
// signals, and a plugin of ours that shows what Backstage's own services make.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { until } = require('./ports');
const { start } = require('./process');

const PLUGINS = [
  '@backstage/plugin-auth-backend',
  '@backstage/plugin-auth-backend-module-guest-provider',
  '@backstage/plugin-auth-backend-module-oidc-provider',
  '@backstage/plugin-catalog-backend',
  '@backstage/plugin-permission-backend',
  '@backstage/plugin-permission-backend-module-allow-all-policy',
  '@backstage/plugin-proxy-backend',
  '@backstage/plugin-events-backend',
  '@backstage/plugin-signals-backend',
];

/** Three routes of its proxy plugin to `target`, one for each thing it can do with credentials. */
exports.threeRoutes = (target) => {
  const common = {
    target, allowedMethods: ['GET', 'HEAD', 'POST', 'PUT', 'DELETE'],
    allowedHeaders: ['Idempotency-Key', 'Idempotency-Replayed', 'X-Request-Id', 'Retry-After'],
  };
  return {
    '/require': { ...common, credentials: 'require' },
    '/forward': { ...common, credentials: 'forward' },
    '/open': { ...common, credentials: 'dangerously-allow-unauthenticated', allowedHeaders: [...common.allowedHeaders, 'Authorization'] },
  };
};

/**
 * Starts Backstage on `port`. `baseUrl` is what its users see: the proxy's address. `endpoints` are those
 * of its proxy plugin. With `oidc`, from rig/oidc, people sign in there: it must allow the address
 * `callback(baseUrl)`. `plugins` are names of further plugins, `config` is YAML for them, `env` what its
 * environment has besides ours, and `auth` what its section has. `annotations` are those of its component `pay`, and `frontend` the folder of rig/frontend, if it serves one.
 */
exports.backstage = async ({ port, baseUrl, postgres, endpoints = {}, oidc, plugins = [], config = '', auth = {}, annotations = {}, frontend, env = {} }) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-backstage-'));
  const providers = { guest: { userEntityRef: 'user:default/ada', dangerouslyAllowOutsideDevelopment: true } };
  if (oidc) {
    providers.oidc = {
      development: {
        metadataUrl: `${oidc.url}/.well-known/openid-configuration`, clientId: oidc.people.client_id, clientSecret: oidc.people.client_secret,
        prompt: 'auto', additionalScopes: ['profile', 'email'],
        signIn: { resolvers: [{ resolver: 'emailMatchingUserEntityProfileEmail' }] },
      },
    };
  }
  fs.writeFileSync(`${folder}/app-config.yaml`, `
app: {title: Stage, baseUrl: "${baseUrl}", packages: all, extensions: [{"page:catalog": {config: {path: /}}}]}
organization: {name: Stage}
backend:
  baseUrl: "${baseUrl}"
  listen: {host: 127.0.0.1, port: ${port}}
  trustProxy: loopback
  database: {client: pg, connection: {host: 127.0.0.1, port: ${postgres.port}, user: postgres}}
  cors: {origin: "${baseUrl}"}
auth: ${JSON.stringify({ environment: 'development', session: { secret: 'stage' }, providers, ...auth })}
catalog:
  rules: [{allow: [Component, User, Group]}]
  locations: [{type: file, target: ${folder}/catalog.yaml}]
permission: {enabled: true}
proxy: {endpoints: ${typeof endpoints === 'string' ? endpoints : JSON.stringify(endpoints)}}
${config}`);
  fs.writeFileSync(`${folder}/catalog.yaml`, `
${['ada', 'bob', 'eve'].map((name) => `apiVersion: backstage.io/v1alpha1
kind: User
metadata: {name: ${name}}
spec: {profile: {email: ${name}@example.com}, memberOf: [payments-dev]}
---`).join('\n')}
apiVersion: backstage.io/v1alpha1
kind: Group
metadata: {name: payments-dev}
spec: {type: team, children: []}
---
apiVersion: backstage.io/v1alpha1
kind: Component
metadata: {name: pay, annotations: ${JSON.stringify({ 'dxcp.io/service': 'pay', ...annotations })}}
spec: {type: service, lifecycle: production, owner: payments-dev}
`);
  fs.writeFileSync(`${folder}/package.json`, '{"name":"stage","private":true,"version":"0.0.0"}');
  // `BACKSTAGE=previous` is the release before, in a folder of its own.
  const modules = path.join(__dirname, '..', process.env.BACKSTAGE ?? '');
  fs.writeFileSync(`${folder}/backend.js`, `
const load = require('node:module').createRequire(${JSON.stringify(`${modules}/package.json`)});
const { createBackend } = load('@backstage/backend-defaults');
const backend = createBackend();
for (const name of ${JSON.stringify([...PLUGINS, ...plugins, ...(frontend ? ['@backstage/plugin-app-backend'] : [])])}) {
  const plugin = load(name);
  backend.add(plugin.default ?? plugin);
}
backend.add(load(${JSON.stringify(path.join(__dirname, 'stage-plugin.js'))}));
backend.start();
`);
  const url = `http://127.0.0.1:${port}`;
  // Where app-backend finds the package `app`.
  const paths = [env.NODE_PATH, frontend].filter(Boolean).join(path.delimiter);
  let program;
  const begin = async () => {
    program = start(process.execPath, [`${folder}/backend.js`, '--config', `${folder}/app-config.yaml`], {
      cwd: folder, env: { ...process.env, NODE_ENV: 'production', LOG_LEVEL: 'warn', ...env, ...(paths ? { NODE_PATH: paths } : {}) },
    });
    await until('Backstage', async () => {
      if (!program.isRunning()) throw Object.assign(new Error('it has ended'), { fatal: true });
      return (await fetch(`${url}/.backstage/health/v1/readiness`)).ok;
    }, 90000).catch(async (error) => { await program.stop('SIGKILL'); throw new Error(`${error.message}\n${program.output()}`); });
  };
  await begin();
  return {
    url, folder, begin,
    get pid() { return program.pid; },
    output: () => program.output(),
    /** Ends it, so that it can begin again. */
    end: (signal) => program.stop(signal),
    stop: async () => { await program.stop('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); },
  };
};

/** Where its users come back to from the provider. */
exports.callback = (baseUrl) => `${baseUrl}/api/auth/oidc/handler/frame`;
