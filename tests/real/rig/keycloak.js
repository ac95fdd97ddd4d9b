'use strict';
// Keycloak itself, from Maven Central, with a realm as the platform's chart makes it: client roles given
// by groups, no audience mapper, no groups scope, tokens of 300 s.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { freePort, until } = require('./ports');
const { start } = require('./process');

/** The newest one that runs on Java 17. */
const VERSION = '26.7.3';
const CLIENT = { id: 'backstage', secret: 'backstage-secret' };
const ADMIN = { username: 'root', password: 'root' };

/** Users sign in with their name as password. */
const USERS = { ada: 'developer', vic: 'viewer', una: 'developer' };
/** One that was imported without the realm's default roles: Keycloak then puts no `aud` into the token at all. */
const BARE = 'una';

const realm = {
  realm: 'pcp', enabled: true, accessTokenLifespan: 300, ssoSessionIdleTimeout: 1800, ssoSessionMaxLifespan: 36000, sslRequired: 'none',
  clients: [{
    clientId: CLIENT.id, secret: CLIENT.secret, enabled: true, publicClient: false, protocol: 'openid-connect',
    directAccessGrantsEnabled: true, standardFlowEnabled: true, serviceAccountsEnabled: false, redirectUris: ['*'],
    defaultClientScopes: ['basic', 'profile', 'email', 'roles'],
  }],
  roles: { client: { [CLIENT.id]: [{ name: 'admin' }, { name: 'developer' }, { name: 'viewer' }] } },
  groups: ['admin', 'developer', 'viewer'].map((role) => ({ name: `platform-${role}s`, clientRoles: { [CLIENT.id]: [role] } })),
  users: Object.entries(USERS).map(([username, role]) => ({
    username, enabled: true, email: `${username}@example.com`, emailVerified: true, firstName: username, lastName: 'Example',
    credentials: [{ type: 'password', value: username, temporary: false }], groups: [`/platform-${role}s`],
    ...(username === BARE ? {} : { realmRoles: ['default-roles-pcp'] }),
  })),
};

/** Its folder: $KEYCLOAK, or the cache, filled at the first call. */
const home = () => {
  if (process.env.KEYCLOAK) return process.env.KEYCLOAK;
  const cache = process.env.STAGEDOOR_CACHE ?? path.join(os.homedir(), '.cache/stagedoor');
  const folder = `${cache}/keycloak-${VERSION}`;
  if (fs.existsSync(`${folder}/bin/kc.sh`)) return folder;
  fs.mkdirSync(cache, { recursive: true });
  const unpacked = fs.mkdtempSync(`${cache}/unpacking-`);
  execFileSync('mvn', ['-q', '-B', 'dependency:copy', `-Dartifact=org.keycloak:keycloak-quarkus-dist:${VERSION}:zip`, `-DoutputDirectory=${unpacked}`], { cwd: unpacked, stdio: 'pipe' });
  execFileSync('jar', ['xf', `keycloak-quarkus-dist-${VERSION}.zip`], { cwd: unpacked, stdio: 'pipe' });
  for (const script of ['kc.sh', 'kcadm.sh', 'kcreg.sh']) fs.chmodSync(`${unpacked}/keycloak-${VERSION}/bin/${script}`, 0o755);
  // Renamed last, so that a download that was interrupted is not taken for Keycloak.
  fs.renameSync(`${unpacked}/keycloak-${VERSION}`, folder);
  fs.rmSync(unpacked, { recursive: true, force: true });
  return folder;
};

/** Whether this machine has what Keycloak needs, or has it already. */
exports.missing = () => {
  const has = (program, ...args) => { try { execFileSync(program, args, { stdio: 'ignore' }); return true; } catch { return false; } };
  return has('java', '-version') && (process.env.KEYCLOAK || (has('mvn', '-v') && has('jar', '--version'))) ? false : 'needs Java 17 or newer, with Maven';
};

/** Starts it, with nothing kept from an earlier run. */
exports.keycloak = async ({ port } = {}) => {
  port ??= await freePort();
  const folder = home();
  fs.mkdirSync(`${folder}/data/import`, { recursive: true });
  fs.writeFileSync(`${folder}/data/import/pcp.json`, JSON.stringify(realm));
  const program = start(`${folder}/bin/kc.sh`, [
    'start-dev', '--import-realm', '--db=dev-mem', '--cache=local', '--http-host=127.0.0.1', `--http-port=${port}`,
  ], {
    // Its script starts Java as a child: the group is what must end.
    detached: true,
    env: { ...process.env, JAVA_OPTS_APPEND: '-Xmx512m', KC_BOOTSTRAP_ADMIN_USERNAME: ADMIN.username, KC_BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password },
  });
  const stop = async () => {
    if (program.isRunning()) process.kill(-program.pid, 'SIGKILL');
    return program.ended;
  };
  const url = `http://127.0.0.1:${port}`;
  const issuer = `${url}/realms/pcp`;
  await until('Keycloak', async () => {
    if (!program.isRunning()) throw Object.assign(new Error('it has ended'), { fatal: true });
    return (await fetch(`${issuer}/.well-known/openid-configuration`)).ok;
  }, 240000).catch(async (error) => { await stop(); throw new Error(`${error.message}\n${program.output()}`); });

  const grant = async (where, form) => {
    const answer = await fetch(`${url}/realms/${where}/protocol/openid-connect/token`, { method: 'POST', body: new URLSearchParams(form) });
    const body = await answer.json();
    if (!body.access_token) throw new Error(JSON.stringify(body));
    return body;
  };
  const admin = async (method, what, body) => {
    const { access_token: token } = await grant('master', { grant_type: 'password', client_id: 'admin-cli', ...ADMIN });
    const answer = await fetch(`${url}/admin/realms/pcp${what}`, { method, headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: body && JSON.stringify(body) });
    if (!answer.ok) throw new Error(`${method} ${what}: ${answer.status} ${await answer.text()}`);
    return answer.status === 200 ? answer.json() : undefined;
  };
  return {
    ...program, stop, url, issuer, admin, client: CLIENT,
    jwks: `${issuer}/protocol/openid-connect/certs`,
    /** All that it answers to a sign-in of `user`. */
    signIn: (user, form = {}) => grant('pcp', { grant_type: 'password', client_id: CLIENT.id, client_secret: CLIENT.secret, username: user, password: user, ...form }),
    /** A new key signs from now on; the old ones are still served. */
    addKey: () => admin('POST', '/components', {
      name: `rsa-${Date.now()}`, providerId: 'rsa-generated', providerType: 'org.keycloak.keys.KeyProvider',
      config: { priority: [String(Date.now())], enabled: ['true'], active: ['true'], algorithm: ['RS256'], keySize: ['2048'] },
    }),
    /** Withdraws all RS256 keys but the one that signs. */
    dropOldKeys: async () => {
      const providers = await admin('GET', '/components?type=org.keycloak.keys.KeyProvider');
      const signing = providers.filter((p) => p.providerId === 'rsa-generated')
        .sort((a, b) => Number(b.config.priority[0]) - Number(a.config.priority[0]));
      for (const old of signing.slice(1)) await admin('DELETE', `/components/${old.id}`);
    },
  };
};
