'use strict';
// A certified OpenID provider (npm oidc-provider): machine clients, JWT access tokens, people who sign
// in, keys that can be rotated, slowed and taken away while it runs.

const crypto = require('node:crypto');
const http = require('node:http');
const { freePort } = require('./ports');

const RESOURCE = 'https://stagedoor.example';
let serial = 0;

const makeKey = (alg) => {
  const kinds = {
    RS256: ['rsa', { modulusLength: 2048 }], PS256: ['rsa', { modulusLength: 2048 }],
    ES256: ['ec', { namedCurve: 'P-256' }], ES384: ['ec', { namedCurve: 'P-384' }], EdDSA: ['ed25519', {}],
  };
  const [kind, options] = kinds[alg];
  const { privateKey } = crypto.generateKeyPairSync(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${++serial}` };
};
exports.makeKey = makeKey;

const machine = (id, method) => ({
  client_id: id, client_secret: `${id}-secret-${id}-secret-${id}`, redirect_uris: [], response_types: [],
  grant_types: ['client_credentials'], token_endpoint_auth_method: method,
});

/**
 * Starts a provider whose `claims` go into every access token, and `clientClaims[id]` into those of one
 * client. A request for a token names its audience in `resource`, or as Auth0's clients do in `audience`;
 * tokens live `lifetime` seconds.
 * `callbacks` are where the client `people` may send those who sign in: they are signed in as `user` at once.
 */
exports.oidc = async ({
  claims = {}, clientClaims = {}, algorithms = ['RS256'], port, callbacks = [], user = 'ada', slash = false, lifetime,
} = {}) => {
  const { default: Provider } = await import('oidc-provider');
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  // Auth0's issuers end in a slash.
  const issuer = slash ? `${url}/` : url;
  const clients = [machine('portal', 'client_secret_basic'), machine('portal-post', 'client_secret_post'), machine('ci', 'client_secret_basic')];
  const people = {
    client_id: 'people', client_secret: 'people-secret-people-secret-people', redirect_uris: callbacks,
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  };
  let keys = algorithms.map(makeKey);
  let mode = 'well';
  let delay = 0;
  let fetches = 0;
  const tokens = [];
  let provider;
  let handler;
  let signing = algorithms[0];
  const build = () => {
    provider = new Provider(issuer, {
      clients: callbacks.length ? [...clients, people] : clients,
      jwks: { keys },
      cookies: { keys: ['stagedoor'] },
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] },
      scopes: ['openid', 'offline_access', 'profile', 'email', 'api'],
      claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'] },
      conformIdTokenClaims: false,
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          defaultResource: (context) => context.oidc.body?.audience,
          getResourceServerInfo: (_, resource) => ({
            scope: 'api', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: lifetime, jwt: { sign: { alg: signing } },
          }),
        },
      },
      extraTokenClaims: (_, token) => ({ ...claims, ...clientClaims[token.clientId] }),
      interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
      findAccount: (_, id) => ({
        accountId: id,
        claims: () => ({ sub: id, name: id, preferred_username: id, email: `${id}@example.com`, email_verified: true }),
      }),
      loadExistingGrant: async (context) => {
        const grant = new context.oidc.provider.Grant({ clientId: context.oidc.client.clientId, accountId: context.oidc.session.accountId });
        grant.addOIDCScope('openid profile email offline_access');
        await grant.save();
        return grant;
      },
    });
    handler = provider.callback();
  };
  build();

  const set = {
    /** A new key; the next token of that algorithm is signed with it. */
    addKey: (alg = algorithms[0]) => { const key = makeKey(alg); keys = [key, ...keys]; build(); return key.kid; },
    /** Withdraws a key, for tokens that were signed with it too. */
    dropKey: (kid) => { keys = keys.filter((key) => key.kid !== kid); build(); },
    /** New keys in the place of all others. */
    rotate: () => { keys = algorithms.map(makeKey); build(); },
    /** How keys and discovery are answered: `well`, `html`, `error`, `silent`, or `slow` by `ms`. */
    mode: (next, ms = 0) => { mode = next; delay = ms; },
    sign: (alg) => { signing = alg; build(); },
  };
  /** The same for programs elsewhere: POST /__rig/addKey?with=RS256, /__rig/mode?with=slow&with=2000. */
  const rig = (request, response) => {
    const { pathname, searchParams } = new URL(request.url, url);
    const answer = set[pathname.slice('/__rig/'.length)](...searchParams.getAll('with'));
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ answer, keys: keys.map((key) => key.kid), fetches }));
  };
  const server = http.createServer(async (request, response) => {
    if (request.method === 'POST' && request.url.startsWith('/__rig/')) return rig(request, response);
    if (request.url.startsWith('/interaction/')) {
      return provider.interactionFinished(request, response, { login: { accountId: user } });
    }
    if (request.url === '/token') tokens.push(request.headers);
    const isKeys = request.url.startsWith('/jwks') || request.url.startsWith('/.well-known');
    if (request.url.startsWith('/jwks')) fetches += 1;
    if (isKeys && mode === 'html') return response.end('<html>maintenance</html>');
    if (isKeys && mode === 'error') { response.statusCode = 500; return response.end(); }
    if (isKeys && mode === 'silent') return undefined;
    if (isKeys && mode === 'slow') await new Promise((resolve) => { setTimeout(resolve, Number(delay)); });
    return handler(request, response);
  });
  const listen = () => new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  await listen();
  return {
    ...set, issuer, url, resource: RESOURCE, people,
    jwks: `${url}/jwks`,
    fetches: () => fetches,
    /** The heads of requests for tokens. */
    tokens,
    token: async ({ client = 'portal', resource = RESOURCE } = {}) => {
      const { client_id: id, client_secret: secret, token_endpoint_auth_method: method } = clients.find((c) => c.client_id === client);
      const post = method === 'client_secret_post';
      const answer = await fetch(`${url}/token`, {
        method: 'POST',
        headers: post ? {} : { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
        body: new URLSearchParams({
          grant_type: 'client_credentials', scope: 'api',
          ...(post ? { client_id: id, client_secret: secret, audience: resource } : { resource }),
        }),
      });
      const body = await answer.json();
      if (!body.access_token) throw new Error(JSON.stringify(body));
      return body.access_token;
    },
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
    start: listen,
  };
};
