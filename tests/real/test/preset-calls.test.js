'use strict';
// Each call that a plugin's own client class can make, through the plugin's preset and nothing else, to the plugin's own backend: what
// is refused is a row that the manual says how to open. A method or an option that a new version brings fails until it is listed here.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { api } = require('../rig/api');
const { argocd } = require('../rig/argocd');
const { azureDevOps } = require('../rig/azure-devops');
const { backstage } = require('../rig/backstage');
const { authority } = require('../rig/certificates');
const { clients } = require('../rig/frontend');
const { freePort, until } = require('../rig/ports');
const { postgres } = require('../rig/postgres');
const { stagedoor } = require('../rig/stagedoor');
const { jenkins, kubernetes, sonarqube } = require('../rig/tools');

const ROOT = path.join(__dirname, '../../..');
const PAT = 'p'.repeat(52);
const BACKENDS = [
  '@backstage/plugin-kubernetes-backend', '@backstage/plugin-notifications-backend', '@backstage/plugin-scaffolder-backend', '@backstage/plugin-search-backend',
  '@backstage/plugin-search-backend-module-catalog', '@backstage/plugin-search-backend-module-pg', '@backstage/plugin-techdocs-backend',
  '@backstage/plugin-user-settings-backend', '@backstage-community/plugin-argocd-backend', '@backstage-community/plugin-azure-devops-backend',
  '@backstage-community/plugin-jenkins-backend', '@backstage-community/plugin-sonarqube-backend', '@backstage-community/plugin-vault-backend',
  '@digitalist-open-cloud/backstage-plugin-harbor-backend', '@pagerduty/backstage-plugin-backend', '@roadiehq/backstage-plugin-argo-cd-backend',
  '@spacelift-io/backstage-integration-backend',
];
const PAY = 'component:default/pay';
const ENTITY = { apiVersion: 'backstage.io/v1alpha1', kind: 'Component', metadata: { name: 'pay', namespace: 'default', annotations: { 'backstage.io/kubernetes-id': 'pay' } }, spec: { type: 'service', lifecycle: 'production', owner: 'payments-dev' } };
const ID = { kind: 'component', namespace: 'default', name: 'pay' };
const NOBODY = '00000000-0000-4000-8000-000000000000';
const LOCATION = { type: 'url', target: 'https://git.example/pay/catalog-info.yaml' };
const FILTER = { kind: 'component', 'metadata.name': ['pay', 'x/y'] };
const TOKEN = { get token() { return token; } };
const JOB = { entity: { namespace: 'default', kind: 'Component', name: 'pay' }, jobFullName: 'pay', buildNumber: '7' };
const FOLDER = { ...JOB, jobFullName: 'shop/pay' };
const AT = { instance: 'main', instanceName: 'main', url: '/argoInstance/main', appName: 'pay', app: 'pay', appSelector: 'example.com/app=pay', appNamespace: 'argocd', projectName: 'shop', project: 'shop', revisionID: 'c0ffee' };
const AZURE = () => [`localhost:${up.azure.port}`, 'acme'];

/** What streams gives until it was asked for once. */
const first = (observable, seen) => new Promise((resolve) => {
  const found = observable.subscribe({ error: () => {} });
  until('its call', async () => seen.length).finally(() => { found.unsubscribe(); resolve(); });
});
const pick = (from, ...names) => Object.fromEntries(names.map((name) => [name, from[name]]));

/**
 * For each client class: the preset, how it is made, and for each method what it is called with, one list of arguments a call, or a
 * function that does it. `statuses` are answers from 400 on that Backstage itself gives, by method; `made` says how one of its pages
 * makes it otherwise.
 */
const CLIENTS = [
  {
    preset: 'argocd', name: 'RoadieArgoCD', make: (Client, apis) => new Client({ ...apis, backendBaseUrl: apis.url, searchInstances: true, useNamespacedApps: true }),
    calls: {
      getAppDetails: [[pick(AT, 'url', 'instance', 'appName', 'appNamespace')]],
      getAppListDetails: [[pick(AT, 'url', 'instance', 'appSelector', 'appNamespace')]],
      getRevisionDetails: [[pick(AT, 'url', 'instanceName', 'app', 'revisionID', 'appNamespace')]],
      serviceLocatorUrl: [[{ appName: 'pay', appSelector: undefined, appNamespace: 'argocd' }], [{ appName: undefined, appSelector: 'example.com/app=pay', appNamespace: 'argocd' }]],
    },
    // With `searchInstances` its pages do not call it; without, it is a path of the proxy plugin.
    never: ['listApps'],
  },
  {
    preset: 'argocd', use: 'argocd-community', name: 'CommunityArgoCD', make: (Client, apis) => new Client({ ...apis, useNamespacedApps: true }),
    calls: {
      listApps: [[{ ...pick(AT, 'url', 'projectName', 'appNamespace'), appSelector: 'app=pay' }]],
      getApplication: [[pick(AT, 'url', 'appName', 'appNamespace', 'project')]],
      findApplications: [[{ ...pick(AT, 'appName', 'appNamespace', 'project'), expand: 'applications' }]],
      getRevisionDetails: [[{ ...pick(AT, 'instanceName', 'app', 'revisionID', 'appNamespace'), sourceIndex: 0 }]],
      getRevisionDetailsList: [[{ revisionIDs: ['c0ffee'], appNamespace: 'argocd', apps: [{ metadata: { name: 'pay', instance: { name: 'main' } }, status: { history: [{ revision: 'c0ffee' }] } }] }]],
    },
  },
  {
    preset: 'azure-devops', name: 'AzureDevOpsClient', make: (Client, apis) => new Client(apis),
    calls: {
      getGitTags: [['shop', 'r-1', PAY, ...[undefined, undefined]], () => ['shop', 'r-1', PAY, ...AZURE()]],
      getPullRequests: [() => ['shop', 'r-1', PAY, ...AZURE(), { top: 1, status: 1, teamsLimit: 2 }]],
      getDashboardPullRequests: [['shop', 3]],
      getAllTeams: [[3]],
      getUserTeamIds: [['u-1']],
      getBuildRuns: [() => ['shop', PAY, 'r-1', 'pay', ...AZURE(), { top: 1 }], () => ['shop', PAY, 'r-1', 'pay, pay', ...AZURE(), { top: 1 }], ['shop', PAY, undefined, undefined, undefined, undefined, undefined]],
      getReadme: [() => { const [host, org] = AZURE(); return [{ host, org, project: 'shop', repo: 'r-1', entityRef: PAY, path: '/docs/README.md' }]; }],
      getBuildRunLog: [() => ['shop', PAY, 7, ...AZURE()]],
      getRepoBuilds: [() => ['shop', 'r-1', ...AZURE(), { top: 1 }]],
    },
    // Its own client of this release does not send what its backend insists on, and asks for what is gone.
    statuses: { getAllTeams: 400, getUserTeamIds: 400, getRepoBuilds: 404 },
  },
  {
    preset: 'grafana', name: 'GrafanaApiClient', make: (Client, apis) => new Client({ ...apis, hosts: [{ id: 'old', domain: 'https://grafana.example', unifiedAlerting: false, proxyPath: undefined }, { id: 'new', domain: 'https://grafana.example', unifiedAlerting: true, proxyPath: '/grafana/api' }] }),
    calls: {
      isUnifiedAlerting: [['old']], resolveClientHost: [['old']], listDashboards: [['pay', 'old'], ['tag1 || tag2', 'new']],
      alertsForSelector: [['pay', 'old'], [['app=pay'], 'new']],
    },
    // It reads an answer.
    never: ['getState'],
  },
  {
    preset: 'jenkins', name: 'JenkinsClient', make: (Client, apis) => new Client(apis),
    calls: {
      getProjects: [[{ entity: JOB.entity, filter: { branch: 'master' } }], [{ entity: JOB.entity, filter: {} }]],
      getBuild: [[JOB], [FOLDER]], getJobBuilds: [[pick(JOB, 'entity', 'jobFullName')]], getBuildConsoleText: [[JOB]], retry: [[JOB], [FOLDER]],
    },
  },
  {
    preset: 'kubernetes', name: 'KubernetesBackendClient', make: (Client, apis) => new Client({ ...apis, clustersCacheTtlMs: undefined, kubernetesAuthProvidersApi: { getCredentials: async () => ({ token: 'kubernetes' }) } }),
    calls: {
      getClusters: [[]], getCluster: [['main']],
      getObjectsByEntity: [[{ entity: ENTITY, auth: {} }]],
      getWorkloadsByEntity: [[{ entity: ENTITY, auth: {} }]],
      getCustomObjectsByEntity: [[{ entity: ENTITY, auth: {}, customResources: [{ group: 'example.com', apiVersion: 'v1', plural: 'shops' }] }]],
      proxy: [[{ clusterName: 'main', path: '/api/v1/namespaces/default/pods', init: { method: 'GET', headers: {} } }]],
    },
    reached: ['getCredentials', 'postRequired', 'handleResponse'],
  },
  {
    preset: 'kubernetes', name: 'KubernetesProxyClient', make: (Client, apis, all) => new Client({ kubernetesApi: new all.KubernetesBackendClient({ ...apis, kubernetesAuthProvidersApi: { getCredentials: async () => ({ token: 'kubernetes' }) } }) }),
    calls: {
      getEventsByInvolvedObjectName: [[{ clusterName: 'main', involvedObjectName: 'pay-1', namespace: 'default' }]],
      getPodLogs: [[{ clusterName: 'main', podName: 'pay-1', namespace: 'default', containerName: 'pay', previous: true }]],
      deletePod: [[{ clusterName: 'main', podName: 'pay-1', namespace: 'default' }]],
    },
  },
  { preset: 'sonarqube', name: 'SonarQubeClient', make: (Client, apis) => new Client(apis), calls: { getSummaries: [[[ENTITY]]] } },
  {
    preset: 'vault', name: 'VaultClient', make: (Client, apis) => new Client(apis),
    calls: { listSecrets: [['shop/pay', { secretEngine: 'secrets' }]], getCreateUrl: [['shop/pay', { secretEngine: 'secrets' }]] },
  },
  {
    preset: 'backstage', name: 'CatalogClient', make: (Client, apis) => new Client(apis),
    calls: {
      getEntityAncestors: [[{ entityRef: PAY }, TOKEN]], getEntityByRef: [[PAY, TOKEN]], getEntityByName: [[ID, TOKEN]],
      getLocations: [[{}, TOKEN]], queryLocations: [[{ limit: 5, query: { type: 'url' } }, TOKEN]], getLocationById: [[NOBODY, TOKEN]], getLocationByEntity: [[PAY, TOKEN]], getLocationByRef: [['url:https://git.example/x.yaml', TOKEN]],
      streamLocations: [async (client) => { for await (const page of client.streamLocations({ limit: 5 }, {})) assert.ok(page); }],
      streamEntities: [async (client) => { for await (const page of client.streamEntities({ limit: 5 }, {})) assert.ok(page); }],
      getEntities: [[{ filter: FILTER, fields: ['kind', 'metadata.name'], order: { field: 'kind', order: 'asc' }, offset: 1, limit: 2, after: undefined }, TOKEN]],
      getEntitiesByRefs: [[{ entityRefs: [PAY], fields: ['kind'], filter: FILTER, query: undefined }, TOKEN], [{ entityRefs: [PAY], fields: ['kind'], filter: undefined, query: { kind: 'component' } }, TOKEN]],
      queryEntities: [
        [{ filter: FILTER, fields: ['kind'], limit: 2, offset: 0, orderFields: { field: 'kind', order: 'asc' }, fullTextFilter: { term: 'pay', fields: ['metadata.name'] }, totalItems: 'include', query: undefined, cursor: undefined }, TOKEN],
        [{ query: { kind: 'component' }, filter: undefined, fields: ['kind'], limit: 1, offset: 0, orderFields: { field: 'kind', order: 'asc' }, fullTextFilter: { term: 'pay' }, totalItems: 'include', cursor: undefined }, TOKEN],
      ],
      getEntityFacets: [[{ facets: ['kind', 'spec.type'], filter: FILTER, query: undefined }, TOKEN], [{ facets: ['kind'], filter: undefined, query: { kind: 'component' } }, TOKEN]],
      validateEntity: [[ENTITY, 'url:https://git.example/x.yaml', TOKEN]], refreshEntity: [[PAY, TOKEN]],
      analyzeLocation: [[{ location: LOCATION, catalogFilename: 'catalog-info.yaml' }, TOKEN]],
      addLocation: [[{ ...LOCATION, dryRun: true, onConflict: undefined }, TOKEN]],
      updateLocation: [[NOBODY, LOCATION, TOKEN]], removeLocationById: [[NOBODY, TOKEN]], removeEntityByUid: [[NOBODY, TOKEN]],
    },
    reached: ['getEntityFacetsByPredicate', 'queryEntitiesByPredicate', 'getFilterValue', 'requestIgnored', 'requestRequired', 'requestOptional'],
    // No scaffolding to read a repository is there, and nothing has that id.
    statuses: { getLocationById: 404, getLocationByEntity: 404, getEntityByRef: 404, updateLocation: 404, removeLocationById: 404, removeEntityByUid: 404, analyzeLocation: 400, addLocation: 400 },
  },
  {
    preset: 'backstage', name: 'CatalogImportClient',
    make: (Client, apis, all) => new Client({ ...apis, catalogApi: new all.CatalogClient(apis), scmIntegrationsApi: { byUrl: () => ({ type: 'github', title: 'GitHub' }) }, scmAuthApi: {} }),
    calls: {
      analyzeUrl: [['https://git.example/pay/catalog-info.yaml'], ['https://git.example/pay']], preparePullRequest: [[]],
      submitPullRequest: [async (client) => { await client.submitPullRequest({ repositoryUrl: 'https://git.example/pay', fileContent: 'kind: Component', title: 'x', body: 'x' }); }],
    },
    statuses: { analyzeUrl: 400, analyzeLocation: 400, submitPullRequest: 400 },
  },
  {
    preset: 'backstage', name: 'NotificationsClient', make: (Client, apis) => new Client(apis),
    calls: {
      getNotifications: [[{ limit: 5, offset: 1, sort: 'created', sortOrder: 'asc', search: 'x', read: true, saved: false, createdAfter: new Date(0), minimumSeverity: 'high', topic: 'x' }]],
      getNotification: [[NOBODY]], getStatus: [[]], updateNotifications: [[{ ids: [NOBODY], read: true }]], getNotificationSettings: [[]],
      updateNotificationSettings: [[{ channels: [{ id: 'Web', origins: [{ id: 'shop', enabled: true, topics: [] }] }] }]], getTopics: [[{ search: 'x', read: true, saved: false, createdAfter: new Date(0), minimumSeverity: 'high' }]],
    },
    statuses: { getNotification: 404 },
  },
  {
    preset: 'backstage', name: 'PermissionClient', make: (Client, apis) => new Client({ ...apis, discovery: apis.discoveryApi }),
    calls: { authorize: [[[{ permission: { name: 'catalog.entity.create', type: 'basic', attributes: {} } }], TOKEN]], authorizeConditional: [[[{ permission: { name: 'catalog.entity.read', type: 'resource', resourceType: 'catalog-entity', attributes: {} } }], TOKEN]] },
    // An option of the frontend's config.
    never: ['makeBatchedRequest'],
    // Backstage tells conditions to services alone.
    statuses: { authorizeConditional: 400 },
  },
  {
    preset: 'backstage', name: 'ScaffolderClient', make: (Client, apis) => new Client({ ...apis, useLongPollingLogs: undefined, scmIntegrationsApi: Object.fromEntries(['azure', 'bitbucketCloud', 'bitbucketServer', 'gerrit', 'gitea', 'github', 'gitlab'].map((name) => [name, { list: () => [] }])) }),
    calls: {
      listTasks: [[{ filterByOwnership: 'owned', limit: 5, offset: 0 }, TOKEN], [{ filterByOwnership: 'all', limit: 5, offset: 0 }, TOKEN]],
      getIntegrationsList: [[{ allowedHosts: [] }]], getTemplateParameterSchema: [['template:default/x', TOKEN]],
      scaffold: [[{ templateRef: 'template:default/x', values: {}, secrets: {} }, TOKEN]], getTask: [[NOBODY, TOKEN]],
      streamLogs: [(client, seen) => first(client.streamLogs({ taskId: NOBODY, after: 3, isTaskRecoverable: true }, TOKEN), seen)],
      streamLogsPolling: [(client, seen) => first(client.streamLogsPolling({ taskId: NOBODY, after: 3 }, TOKEN), seen)],
      dryRun: [[{ template: { apiVersion: 'scaffolder.backstage.io/v1beta3', kind: 'Template', metadata: { name: 'x' }, spec: { type: 'x', steps: [] } }, values: {}, secrets: {}, directoryContents: [] }, TOKEN]],
      listActions: [[TOKEN]], listTemplatingExtensions: [[TOKEN]], cancelTask: [[NOBODY, TOKEN]], retry: [[NOBODY, TOKEN]],
      autocomplete: [[{ token: 'x', resource: 'repositories', provider: 'github', context: {} }, TOKEN]],
    },
    statuses: { getTemplateParameterSchema: 404, scaffold: 404, getTask: 404, cancelTask: 404, retry: 404, streamLogs: 404, streamLogsPolling: 404, autocomplete: 400 },
  },
  { preset: 'backstage', name: 'SearchClient', make: (Client, apis) => new Client(apis), calls: { query: [[{ term: 'pay', types: ['software-catalog'], filters: { kind: ['Component'] }, pageLimit: 10, pageCursor: undefined }, { signal: undefined }]] } },
  {
    preset: 'backstage', name: 'TechDocsClient', make: (Client, apis) => new Client(apis),
    calls: { getCookie: [[]], getTechDocsMetadata: [[ID]], getEntityMetadata: [[ID]] },
    statuses: { getTechDocsMetadata: 404, getCookie: 404 },
  },
  {
    preset: 'backstage', name: 'TechDocsStorageClient', make: (Client, apis) => new Client(apis),
    calls: { getStorageUrl: [[]], getBuilder: [[]], getEntityDocs: [[ID, 'overview/new']], syncEntityDocs: [[ID, undefined]], getBaseUrl: [['x.png', ID, 'overview']] },
    statuses: { getEntityDocs: 404, syncEntityDocs: 404 },
  },
  {
    preset: 'backstage', name: 'UserSettingsStorage', make: (Client, apis) => new Client('shop', apis.fetchApi, apis.discoveryApi, { post() {} }, apis.identityApi, { set() {}, snapshot() {} }, undefined),
    calls: {
      set: [['stars/pay', { a: 1 }]], remove: [['stars/pay']], snapshot: [['stars/pay']], forBucket: [['more']],
      observe$: [(client, seen) => first(client.observe$('stars/pay'), seen)],
    },
  },
];

/** Presets of frontends that the registry has not. */
const UNPUBLISHED = ['harbor', 'jira', 'pagerduty', 'spacelift'];

let db; let folder; let portal; let door; let all; let up; let token;
/** Where each use of a preset listens: as it is, and with all that may be opened. */
const listeners = {};
const USES = [...new Set([...CLIENTS.map(({ preset, use = preset }) => `${preset} ${use}`), ...UNPUBLISHED.map((preset) => `${preset} ${preset}`)])].map((line) => line.split(' '));

/** The rows of a preset, by name, with their state. */
const rows = (preset) => Object.fromEntries(fs.readFileSync(`${ROOT}/config/presets/${preset}.yaml`, 'utf8').split(/\n +- /).slice(1)
  .map((row) => [/name: ([\w-]+)/.exec(row)?.[1], /state: (\w+)/.exec(row)?.[1] ?? 'open']).filter(([name]) => name));

const config = async (ports, port) => {
  for (const [, use] of USES) listeners[use] = { bare: use === 'backstage' ? ports.edge : await freePort(), open: await freePort() };
  const of = (kind) => USES.map(([preset, use]) => {
    const open = Object.entries(rows(preset)).filter(([, state]) => state === 'opt_in').map(([name]) => name);
    return `- {preset: ${preset}, name: ${use}${kind === 'open' ? '-open' : ''}, upstream: portal, listeners: [${use}-${kind}], detail: full${
      kind === 'open' && open.length ? `, open: [${open.join(', ')}]` : ''}${
      preset === 'azure-devops' ? `, query_allow: {host: ["${AZURE()[0]}"], org: [acme]}` : ''}${use === 'argocd-community' ? ', prefix: /api/backstage-community-argocd' : ''}}`;
  }).join('\n');
  return `
listeners:
${Object.entries(listeners).flatMap(([use, at]) => ['bare', 'open'].map((kind) => `  ${use}-${kind}: {kind: reverse, address: 127.0.0.1:${at[kind]}}`)).join('\n')}
identity:
  issuers:
    portal: {kind: backstage, issuer: "http://127.0.0.1:${ports.edge}/api/auth", audiences: [catalog], algorithms: [ES256], keys: {backstage_url: "http://127.0.0.1:${port}"}}
workspaces: {named: {payments: {callers: ["user:default/ada"]}}}
rate_limit: {per_workspace: {rate: 1000/s, burst: 1000}, per_client: {rate: 1000/s, burst: 1000}}
upstreams: {portal: {url: "http://127.0.0.1:${port}", preserve_host: true, breaker: {requests_min: 1000000}, retries: {attempts_max: 1}}}
presets:
${of('bare')}
${of('open')}`;
};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-calls-'));
  all = clients(folder);
  const ca = authority(folder);
  const issued = ca.issue('tool', { names: ['localhost'] });
  const port = await freePort();
  const [base, ...tools] = await Promise.all([
    postgres(), argocd(issued, { password: 'argo' }), azureDevOps(issued, { host: 'localhost', organization: 'acme', token: PAT }),
    jenkins(issued, { username: 'portal', token: 'jenkins' }), kubernetes(issued, { token: 'kubernetes' }), sonarqube(issued, { token: 'sonarqube' }),
    // Vault, PagerDuty, and whatever else: no more of them than these.
    api(issued, ({ path: where }) => ({ body: where.startsWith('/v1/') ? { data: { keys: ['a'] } } : where.startsWith('/services') ? { services: [], more: false } : [] })),
  ]);
  db = base;
  up = Object.fromEntries(['argocd', 'azure', 'jenkins', 'kubernetes', 'sonarqube', 'any'].map((name, n) => [name, tools[n]]));
  const at = (which) => `https://localhost:${up[which].port}`;
  door = await stagedoor((ports) => config(ports, port));
  portal = await backstage({
    port, baseUrl: door.url, postgres: db, plugins: BACKENDS, endpoints: Object.fromEntries(['/grafana/api', '/jira/api'].map((name) => [name, { target: at('any') }])),
    annotations: { 'backstage.io/kubernetes-id': 'pay', 'jenkins.io/job-full-name': 'pay', 'sonarqube.org/project-key': 'pay', 'backstage.io/techdocs-ref': 'dir:.' },
    config: `
argocd: {username: portal, password: argo, appLocatorMethods: [{type: config, instances: [{name: main, url: "${at('argocd')}"}]}]}
integrations: {azure: [{host: "localhost:${up.azure.port}", credentials: [{personalAccessToken: ${PAT}}]}]}
azureDevOps: {host: "localhost:${up.azure.port}", organization: acme, token: ${PAT}}
jenkins: {baseUrl: "${at('jenkins')}", username: portal, apiKey: jenkins}
kubernetes:
  serviceLocatorMethod: {type: multiTenant}
  clusterLocatorMethods: [{type: config, clusters: [{name: main, url: "${at('kubernetes')}", authProvider: serviceAccount, serviceAccountToken: kubernetes, caFile: ${ca.ca}}]}]
sonarqube: {baseUrl: "${at('sonarqube')}", apiKey: sonarqube}
techdocs: {builder: external, generator: {runIn: local}, publisher: {type: local}}
harbor: {baseUrl: "${at('any')}", username: a, password: b}
pagerDuty: {apiToken: a, apiBaseUrl: "${at('any')}"}
spacelift: {hostUrl: "localhost:${up.any.port}", apiKey: a, apiSecret: b}
vault: {baseUrl: "${at('any')}", token: vault, schedule: false}
`,
    env: { NODE_EXTRA_CA_CERTS: ca.ca },
  });
  token = (await (await fetch(`${portal.url}/api/auth/guest/refresh`)).json()).backstageIdentity.token;
  await until('the catalog', async () => (await fetch(`${portal.url}/api/catalog/entities/by-name/component/default/pay`, { headers: { authorization: `Bearer ${token}` } })).ok);
});
after(async () => {
  await portal?.stop(); await door?.stop(); await db?.stop();
  for (const one of Object.values(up ?? {})) await one.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

// What a browser has and Node has not.
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
globalThis.window = { setTimeout, clearTimeout };
const ask = globalThis.fetch;
/** What Backstage gives a client, at the listener of a port: `seen` is all that it asked. */
const apis = (port, seen) => {
  const url = `http://127.0.0.1:${port}`;
  const fetch = async (input, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set('authorization', `Bearer ${token}`);
    const where = String(input?.url ?? input).slice(url.length);
    const answer = await ask(`${url}${where}`, { ...init, headers });
    // To its end, which is when it is recorded.
    const body = await answer.arrayBuffer();
    seen.push({ method: init.method ?? 'GET', where, status: answer.status, id: answer.headers.get('x-request-id'), said: answer.ok ? '' : Buffer.from(body).toString().slice(0, 200) });
    return new Response([204, 304].includes(answer.status) ? null : body, { status: answer.status, headers: answer.headers });
  };
  return {
    url, fetchApi: { fetch }, fetch, discoveryApi: { getBaseUrl: async (plugin) => `${url}/api/${plugin}` },
    identityApi: { getCredentials: async () => ({ token }), getBackstageIdentity: async () => ({ userEntityRef: 'user:default/ada' }) },
    configApi: { getOptionalString: () => undefined, getString: () => url }, config: { getOptionalBoolean: (key) => key === 'permission.enabled' },
  };
};
/** The same options; what is looked for among them and is not there goes to `unknown`. */
const watched = (options, unknown) => (options === null || typeof options !== 'object' || Array.isArray(options) || options instanceof Date ? options : new Proxy(options, {
  get: (from, name) => {
    if (typeof name === 'string' && !(name in from) && !['then', 'toJSON'].includes(name)) unknown.add(name);
    return from[name];
  },
}));
/** Does all that a client's row lists, at a port: what was asked, for each method, and which methods ran. */
const run = async ({ name, make, calls }, port) => {
  const Client = all[name];
  const [asked, reached, faults] = [[], new Set(), []];
  const own = Object.getOwnPropertyNames(Client.prototype).filter((method) => method !== 'constructor' && typeof Client.prototype[method] === 'function');
  for (const [method, each] of Object.entries(calls)) {
    for (const how of each) {
      const seen = [];
      const given = apis(port, seen);
      const client = make(Client, given, all);
      for (const one of own) client[one] = function noted(...args) { reached.add(one); return Client.prototype[one].apply(this, args); };
      globalThis.fetch = given.fetch;
      const args = typeof how === 'function' && how.length === 0 ? how() : how;
      if (typeof args !== 'function' && args.length < Client.prototype[method].length) faults.push(`${name}.${method} takes ${Client.prototype[method].length} arguments`);
      const unknown = new Set();
      try {
        // What it makes of the answer is its own.
        await (typeof args === 'function' ? args(client, seen) : client[method](...args.map((arg) => watched(arg, unknown))));
      } catch (error) { if (!seen.length) faults.push(`${name}.${method} ${error.stack}`); } finally { globalThis.fetch = ask; }
      for (const option of unknown) faults.push(`${name}.${method} has an option \`${option}\``);
      asked.push(...seen.map((one) => ({ ...one, from: method })));
    }
  }
  return { asked, reached, faults, own };
};
/** The records of what was asked, by their id. */
const recorded = (asked) => until('their records', async () => {
  const found = new Map(door.records().map((record) => [record.id, record]));
  return asked.every(({ id }) => found.has(id)) && found;
});

for (const row of CLIENTS) {
  const { preset, use = preset, name, statuses = {}, never = [] } = row;
  test(`what ${name} asks passes by preset ${preset} alone, or is opened by a row of it`, async () => {
    const bare = await run(row, listeners[use].bare);
    assert.deepEqual(bare.faults, [], 'nothing is new to this list');
    assert.ok(bare.asked.length, 'it asked something');
    const states = rows(preset);
    const closed = new Set();
    let records = await recorded(bare.asked);
    const wrong = [];
    for (const { from, method, where, status, id, said } of bare.asked) {
      const { decision, code, route } = records.get(id) ?? {};
      const line = `${from}: ${method} ${where} ${status} ${code} ${route} ${said}`;
      const [of, at] = (route ?? '').split('.');
      if (decision === 'allow' && of === use) { if (status >= 400 && statuses[from] !== status) wrong.push(line); } else if (code === 'route_closed' && states[at] === 'opt_in') closed.add(from); else wrong.push(line);
    }
    assert.deepEqual(wrong, []);
    assert.deepEqual(bare.own.filter((method) => !bare.reached.has(method) && !never.includes(method)), [], 'each method ran');
    if (!closed.size) return;
    const open = await run({ ...row, calls: Object.fromEntries(Object.entries(row.calls).filter(([method]) => closed.has(method))) }, listeners[use].open);
    records = await recorded(open.asked);
    for (const { from, method, where, status, id } of open.asked) assert.deepEqual([records.get(id).decision, status < 400 || statuses[from] === status], ['allow', true], `${from}: ${method} ${where} ${status}`);
  });
}

/** What the sources of those ask, by hand. */
const BY_HAND = {
  jira: [
    'GET /api/proxy/jira/api/rest/api/latest/project/PAY', 'POST /api/proxy/jira/api/rest/api/latest/search/jql', 'POST /api/proxy/jira/api/rest/api/2/search',
    'GET /api/proxy/jira/api/activity?maxResults=25&streams=key+IS+PAY&streams=issue-key+IS+PAY-1+PAY-2&os_authType=basic', 'GET /api/proxy/jira/api/rest/api/latest/project/PAY/statuses',
    'GET /api/proxy/jira/api/rest/api/latest/issue/PAY-1?expand=changelog', 'GET /api/proxy/jira/api/rest/dev-status/1.0/issue/detail?issueId=1&applicationType=stash&dataType=pullrequest',
    'GET /api/proxy/jira/api/rest/api/latest/user?username=ada',
  ],
  harbor: ['GET /api/harbor/artifacts?project=shop&repository=pay&host=', 'POST /api/harbor/search?team=x&host='],
  pagerduty: [
    'GET /api/pagerduty/services?integration_key=x&account=x', 'GET /api/pagerduty/services/P1?account=x', 'GET /api/pagerduty/settings/x', 'GET /api/pagerduty/mapping/entity',
    ...['incidents', 'change-events', 'standards', 'metrics'].map((part) => `GET /api/pagerduty/services/P1/${part}?account=x`), 'GET /api/pagerduty/oncall-users?escalation_policy_ids[]=P1&account=x',
    'POST /api/pagerduty/mapping/entities', 'POST /api/pagerduty/settings []', 'POST /api/pagerduty/mapping/entity', 'POST /api/pagerduty/mapping/entity/auto-match/start',
    'GET /api/pagerduty/mapping/entity/auto-match/1', 'GET /api/pagerduty/custom-fields?enabled=true',
  ],
  spacelift: ['GET /api/spacelift-io/stacks', 'POST /api/spacelift-io/stacks/payments-db/trigger'],
};
for (const preset of UNPUBLISHED) {
  const lines = BY_HAND[preset];
  test(`what the frontend of ${preset} asks passes by its preset alone, or is opened by a row of it`, async () => {
    const states = rows(preset);
    for (const kind of ['bare', 'open']) {
      const seen = [];
      const { fetch, url } = apis(listeners[preset][kind], seen);
      for (const line of lines) {
        const [method, where, body = '{}'] = line.split(' ');
        await fetch(`${url}${where}`, { method, ...(method === 'POST' ? { body, headers: { 'content-type': 'application/json' } } : {}) });
      }
      const records = await recorded(seen);
      const wrong = seen.map(({ method, where, id }) => ({ line: `${method} ${where}`, ...records.get(id) }))
        .filter(({ decision, code, route }) => decision !== 'allow' && (kind === 'open' || code !== 'route_closed' || states[route?.split('.')[1]] !== 'opt_in'));
      assert.deepEqual(wrong.map(({ line, code, route }) => `${line} ${code} ${route}`), [], kind);
    }
  });
}

test('SignalClient opens its WebSocket by preset backstage alone, and subscribes', async () => {
  globalThis.WebSocket = WebSocket;
  const client = all.SignalClient.create({ identity: apis(listeners.backstage.bare, []).identityApi, discoveryApi: apis(listeners.backstage.bare, []).discoveryApi, connectTimeout: 5000, reconnectTimeout: 100 });
  const { unsubscribe } = client.subscribe('shop', () => {});
  await until('it to be open', async () => client.ws?.readyState === WebSocket.OPEN && client.subscribedChannels.has('shop'), 20000);
  unsubscribe();
  const { decision, route, status } = await door.record((record) => record.route === 'backstage.signals' && record.status === 101);
  assert.deepEqual([decision, route, status], ['allow', 'backstage.signals', 101]);
});
