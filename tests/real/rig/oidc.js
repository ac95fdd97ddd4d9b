'use strict';
// A certified OpenID provider (npm oidc-provider): machine clients, JWT access tokens, people who sign
// in, token exchange, keys that can be rotated, slowed and taken away while it runs.

const crypto = require('node:crypto');
const http = require('node:http');
const { freePort } = require('./ports');

const RESOURCE = 'https://stagedoor.example';
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
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

const machine = (id, method, ...more) => ({
  client_id: id, client_secret: `${id}-secret-${id}-secret-${id}`, redirect_uris: [], response_types: [],
  grant_types: ['client_credentials', ...more], token_endpoint_auth_method: method,
});

/**
 * Starts a provider whose `claims` go into every access token, and `clientClaims[id]` into those of one
 * client. A request for a token names its audience in `resource`, or as Auth0's clients do in `audience`;
 * tokens live `lifetime` seconds.
 * `exchange` says for which `audiences` the clients `portal` and `portal-post` may exchange its tokens
 * (RFC 8693), how long what they get lives, and whose are `refused`; it may be changed while it runs.
 * `callbacks` are where the client `people` may send those who sign in: they are signed in at once, as `user` or as who
 * their cookie `person` says.
 */
exports.oidc = async ({
  claims = {}, clientClaims = {}, algorithms = ['RS256'], port, callbacks = [], user = 'ada', slash = false, host = '127.0.0.1', lifetime,
  exchange = {},
} = {}) => {
  const { default: Provider, errors } = await import('oidc-provider');
  port ??= await freePort();
  const url = `http://127.0.0.1:${port}`;
  // Auth0's issuers end in a slash; others know themselves by another `host` than they are asked at.
  const issuer = `http://${host}:${port}${slash ? '/' : ''}`;
  const clients = [machine('portal', 'client_secret_basic', EXCHANGE), machine('portal-post', 'client_secret_post', EXCHANGE), machine('ci', 'client_secret_basic')];
  const people = {
    client_id: 'people', client_secret: 'people-secret-people-secret-people', redirect_uris: callbacks,
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  };
  let keys = algorithms.map(makeKey);
  let mode = 'well';
  let delay = 0;
  let fetches = 0;
  const tokens = [];
  const exchanges = [];
  exchange = { audiences: [], refused: [], lifetime, delay: 0, ...exchange };
  let provider;
  let handler;
  let signing = algorithms[0];

  /** What a token of this provider says, if it is good now. */
  const verified = (token) => {
    const [head, body, signature] = String(token).split('.');
    try {
      const [header, said] = [head, body].map((part) => JSON.parse(Buffer.from(part, 'base64url')));
      const key = keys.find(({ kid, alg }) => kid === header.kid && alg === header.alg && alg === 'RS256');
      const good = crypto.verify('sha256', Buffer.from(`${head}.${body}`), crypto.createPublicKey({ key, format: 'jwk' }), Buffer.from(signature, 'base64url'));
      return good && said.iss === issuer && said.exp > Date.now() / 1000 ? said : undefined;
    } catch { return undefined; }
  };
  /** RFC 8693: a token of this provider for one of the same person, for somebody else's API. */
  const exchanged = async (context) => {
    const { params, client } = context.oidc;
    exchanges.push({ client: client.clientId, ...params });
    const { delay: ms } = exchange;
    if (ms) await new Promise((resolve) => { if (ms !== Infinity) setTimeout(resolve, ms); });
    if (params.subject_token_type !== ACCESS_TOKEN) throw new errors.InvalidRequest('subject_token_type is not supported');
    if (![undefined, ACCESS_TOKEN].includes(params.requested_token_type)) throw new errors.InvalidRequest('requested_token_type is not supported');
    const subject = verified(params.subject_token);
    if (!subject) throw new errors.InvalidRequest('subject_token is invalid');
    const audience = params.audience ?? params.resource;
    if (!exchange.audiences.includes(audience)) throw new errors.InvalidTarget('the audience is unknown');
    if (exchange.refused.includes(subject.sub)) throw new errors.InvalidGrant('not for them');
    const token = new provider.AccessToken({ client, accountId: subject.sub, scope: params.scope });
    token.resourceServer = new provider.ResourceServer(audience, { scope: 'api', accessTokenFormat: 'jwt', accessTokenTTL: exchange.lifetime, jwt: { sign: { alg: signing } } });
    context.body = {
      access_token: await token.save(), issued_token_type: ACCESS_TOKEN, token_type: 'Bearer', expires_in: token.expiration, scope: token.scope,
    };
  };

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
      // To everybody, as most providers do for a server's client: a page that is loaded again signs its person in by it.
      issueRefreshToken: (_, client) => client.grantTypeAllowed('refresh_token'),
      loadExistingGrant: async (context) => {
        const grant = new context.oidc.provider.Grant({ clientId: context.oidc.client.clientId, accountId: context.oidc.session.accountId });
        grant.addOIDCScope('openid profile email offline_access');
        await grant.save();
        return grant;
      },
    });
    provider.registerGrantType(EXCHANGE, exchanged, [
      'subject_token', 'subject_token_type', 'requested_token_type', 'audience', 'resource', 'scope', 'actor_token', 'actor_token_type',
    ]);
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
      const [, person = user] = /(?:^|; )person=(\w+)/.exec(request.headers.cookie ?? '') ?? [];
      return provider.interactionFinished(request, response, { login: { accountId: person } });
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
    /** What was asked to be exchanged, and how that is answered. */
    exchanges, exchange,
    /** A token of somebody who signed in, for `resource`, which RS256 signs. */
    person: (sub, more = {}) => {
      const now = Math.floor(Date.now() / 1000);
      const key = keys.find(({ alg }) => alg === 'RS256');
      const message = [
        { alg: 'RS256', typ: 'at+jwt', kid: key.kid },
        { ...claims, iss: issuer, aud: RESOURCE, client_id: 'people', iat: now, exp: now + 600, jti: crypto.randomUUID(), ...more, sub },
      ].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
      return `${message}.${crypto.sign('sha256', Buffer.from(message), crypto.createPrivateKey({ key, format: 'jwk' })).toString('base64url')}`;
    },
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
