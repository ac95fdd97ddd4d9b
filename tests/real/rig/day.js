'use strict';
// The first day of a portal: Stagedoor in front of Backstage, behind it towards DXCP and beside it for its calls out, by one
// config of presets and default limits; Backstage with the plugins that most have, and what they reach.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { argocd } = require('./argocd');
const { azureDevOps } = require('./azure-devops');
const { backstage, callback } = require('./backstage');
const { authority } = require('./certificates');
const { dns } = require('./dns');
const { dxcp } = require('./dxcp');
const { oidc } = require('./oidc');
const { freePort } = require('./ports');
const { postgres } = require('./postgres');
const { spacelift } = require('./spacelift');
const { stagedoor } = require('./stagedoor');
const { jenkins, kubernetes, sonarqube } = require('./tools');

const ROLES = 'https://dxcp.example/claims/roles';
const PORTAL = 'portal.example';
const PAT = 'p'.repeat(52);
const KEY = { id: 'the-key-of-the-portal', secret: 'the-secret-of-the-portal' };
const PASSWORD = 'a-password-of-the-portal';
const NAMES = { argocd: 'argocd.example', azure: 'devops.example', spacelift: 'acme.spacelift.example', jenkins: 'jenkins.example', sonarqube: 'sonarqube.example', kubernetes: 'kubernetes.example' };
/** Published backends, besides those that every rig/backstage has. */
const PLUGINS = [
  '@backstage/plugin-kubernetes-backend', '@backstage/plugin-notifications-backend', '@backstage/plugin-search-backend',
  '@backstage/plugin-search-backend-module-catalog', '@backstage/plugin-search-backend-module-pg', '@backstage/plugin-user-settings-backend',
  '@backstage-community/plugin-azure-devops-backend', '@backstage-community/plugin-jenkins-backend', '@backstage-community/plugin-sonarqube-backend',
  '@roadiehq/backstage-plugin-argo-cd-backend', '@spacelift-io/backstage-integration-backend',
];
/** What makes the plugins' cards show on the page of component `pay`. */
const ANNOTATIONS = {
  'argocd/app-name': 'pay', 'backstage.io/kubernetes-id': 'pay', 'dev.azure.com/project-repo': 'shop/r-1',
  'jenkins.io/job-full-name': 'pay', 'sonarqube.org/project-key': 'pay',
};

/** The one config. Nothing in it is about limits, breakers or timeouts. */
const config = ({ certificate, issuer, audience, portal, sidecar, egress, control, folder, names, up }) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${portal.edge}, tls: {certificates: [{cert: ${certificate.cert}, key: ${certificate.key}}]}}
  sidecar: {kind: reverse, address: 127.0.0.1:${sidecar}, workspace: payments}
  egress: {kind: forward, address: 127.0.0.1:${egress}}
identity:
  issuers:
    portal: {kind: backstage, issuer: "${portal.url}/api/auth", audiences: [catalog], algorithms: [ES256], keys: {backstage_url: "http://127.0.0.1:${portal.port}"}}
    idp: {issuer: "${issuer}", audiences: ["${audience}"], claims: {roles: "${ROLES}"}}
workspaces: {named: {payments: {groups: ["group:default/payments-dev"]}}}
upstreams:
  portal: {url: "http://127.0.0.1:${portal.port}", preserve_host: true}
  dxcp: {url: ${control}, authority: delivery}
presets:
- {preset: backstage, upstream: portal, listeners: [edge]}
${['argocd', 'azure-devops', 'jenkins', 'kubernetes', 'sonarqube', 'spacelift'].map((preset) => `- {preset: ${preset}, upstream: portal, listeners: [edge]}`).join('\n')}
- {preset: dxcp, upstream: dxcp, listeners: [sidecar], actions: {roles: [dxcp-delivery-owners]}}
routes:
- {name: to-dxcp, listeners: [edge], methods: [GET, POST], path: /api/proxy/dxcp/**, upstream: portal, plugin: dxcp, class: read}
egress:
  rules: [{name: tools, to: [${up.map((to) => `"${to}"`).join(', ')}], workspaces: [payments]}]
  private: [${up.map((to) => `{host: "${to}", addresses: [127.0.0.1/32]}`).join(', ')}]
  tls_ports: [${up.map((to) => to.split(':')[1]).join(', ')}]
  callers: {portal: {password_file: ${folder}/password, workspace: payments}}
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names}"]}`;

/** Starts it all. `frontend` is the folder of rig/frontend, if Backstage serves one. */
exports.firstDay = async ({ frontend } = {}) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-day-'));
  const ca = authority(folder);
  const stops = [];
  const stop = async () => {
    for (const end of stops.reverse()) await end();
    fs.rmSync(folder, { recursive: true, force: true });
  };
  const begun = async (part) => { const one = await part; stops.push(one.stop); return one; };
  try {
    fs.writeFileSync(`${folder}/password`, PASSWORD);
    const issue = (name) => ca.issue(name, { names: [name] });
    const [db, names, idpPort, port, sidecar, egress, edge] = await Promise.all([
      begun(postgres()), begun(dns(Object.fromEntries(Object.values(NAMES).map((name) => [name, { A: ['127.0.0.1'] }])))), ...Array.from({ length: 5 }, freePort),
    ]);
    const url = `https://${PORTAL}:${edge}`;
    const up = {
      argocd: await begun(argocd(issue(NAMES.argocd), { password: 'argo' })),
      azure: await begun(azureDevOps(issue(NAMES.azure), { host: NAMES.azure, organization: 'acme', token: PAT })),
      spacelift: await begun(spacelift(issue(NAMES.spacelift), { keys: { [KEY.id]: KEY.secret } })),
      jenkins: await begun(jenkins(issue(NAMES.jenkins), { username: 'portal', token: 'jenkins' })),
      sonarqube: await begun(sonarqube(issue(NAMES.sonarqube), { token: 'sonarqube' })),
      kubernetes: await begun(kubernetes(issue(NAMES.kubernetes), { token: 'kubernetes' })),
    };
    const target = (which) => `${NAMES[which]}:${up[which].port}`;
    const idp = await begun(oidc({ port: idpPort, callbacks: [callback(url)], claims: { [ROLES]: ['dxcp-delivery-owners'], workspaces: ['payments'] } }));
    const controlOptions = { issuer: idp.issuer, audience: idp.resource };
    let control = await dxcp(controlOptions);
    stops.push(() => control.stop());
    const certificate = issue(PORTAL);
    const door = await begun(stagedoor(() => config({
      certificate, issuer: idp.issuer, audience: idp.resource, portal: { url, port, edge }, sidecar, egress, control: control.url, folder, names: names.address,
      up: Object.keys(up).map(target),
    })));
    const proxy = `http://portal:${PASSWORD}@127.0.0.1:${egress}`;
    const portal = await begun(backstage({
      port, baseUrl: url, postgres: db, oidc: idp, plugins: PLUGINS, annotations: ANNOTATIONS, frontend,
      endpoints: {
        '/dxcp': { target: `http://127.0.0.1:${sidecar}`, credentials: 'dangerously-allow-unauthenticated', allowedHeaders: ['Authorization', 'Idempotency-Key', 'X-Request-Id', 'Idempotency-Replayed', 'Proxy-Status', 'Retry-After'], allowedMethods: ['GET', 'POST'] },
      },
      config: `
argocd: {username: portal, password: argo, appLocatorMethods: [{type: config, instances: [{name: main, url: "https://${target('argocd')}"}]}]}
azureDevOps: {host: "${target('azure')}", organization: acme, token: ${PAT}}
jenkins: {baseUrl: "https://${target('jenkins')}", username: portal, apiKey: jenkins}
kubernetes:
  serviceLocatorMethod: {type: multiTenant}
  clusterLocatorMethods: [{type: config, clusters: [{name: main, url: "https://${target('kubernetes')}", authProvider: serviceAccount, serviceAccountToken: kubernetes, caFile: ${ca.ca}}]}]
sonarqube: {baseUrl: "https://${target('sonarqube')}", apiKey: sonarqube}
spacelift: {hostUrl: "${target('spacelift')}", apiKey: ${KEY.id}, apiSecret: ${KEY.secret}}
`,
      env: {
        NODE_OPTIONS: `-r ${path.join(__dirname, '../../../examples/egress-bootstrap.js')}`, NODE_PATH: path.join(__dirname, '../node_modules'),
        NODE_EXTRA_CA_CERTS: ca.ca, HTTPS_PROXY: proxy, HTTP_PROXY: proxy, NO_PROXY: '127.0.0.1,localhost',
      },
    }));
    return {
      url, names: { [PORTAL]: `127.0.0.1:${edge}` }, name: PORTAL, edge, ca: ca.ca, up, idp, portal, door, stop,
      control: {
        get seen() { return control.seen; },
        end: () => control.stop(),
        begin: async () => { control = await dxcp({ ...controlOptions, port: Number(new URL(control.url).port) }); },
      },
      /** What was refused, a line each. */
      refusals: async () => {
        await door.settled();
        return door.records().filter(({ decision }) => decision === 'deny').map(({ code, listener, method, path: at, target: to, route }) => [code, listener, method, at ?? to, route].join(' '));
      },
    };
  } catch (error) { await stop(); throw error; }
};
