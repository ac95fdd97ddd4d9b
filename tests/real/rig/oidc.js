'use strict';
// A certified OpenID provider (npm oidc-provider): machine clients, JWT access tokens, keys that can
// be rotated, slowed and taken away while it runs.

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

/** Starts a provider whose `claims` go into every access token. */
exports.oidc = async ({ claims = {}, algorithms = ['RS256'], port } = {}) => {
  const { default: Provider } = await import('oidc-provider');
  port ??= await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  let keys = algorithms.map(makeKey);
  let mode = 'well';
  let fetches = 0;
  let handler;
  let signing = algorithms[0];
  const build = () => {
    const provider = new Provider(issuer, {
      clients: [{
        client_id: 'portal', client_secret: 'portal-secret-portal-secret-portal', redirect_uris: [], response_types: [],
        grant_types: ['client_credentials'], token_endpoint_auth_method: 'client_secret_basic',
      }],
      jwks: { keys },
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: () => ({
            scope: 'api', audience: RESOURCE, accessTokenFormat: 'jwt', jwt: { sign: { alg: signing } },
          }),
        },
      },
      extraTokenClaims: () => claims,
    });
    handler = provider.callback();
  };
  build();
  const server = http.createServer((request, response) => {
    const isKeys = request.url.startsWith('/jwks') || request.url.startsWith('/.well-known');
    if (request.url.startsWith('/jwks')) fetches += 1;
    if (isKeys && mode === 'html') return response.end('<html>maintenance</html>');
    if (isKeys && mode === 'error') { response.statusCode = 500; return response.end(); }
    if (isKeys && mode === 'silent') return undefined;
    return handler(request, response);
  });
  const listen = () => new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  await listen();
  return {
    issuer, resource: RESOURCE,
    fetches: () => fetches,
    mode: (next) => { mode = next; },
    /** New keys in the place of all others. */
    rotate: () => { keys = algorithms.map(makeKey); build(); },
    sign: (alg) => { signing = alg; build(); },
    token: async () => {
      const answer = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: {
          authorization: `Basic ${Buffer.from('portal:portal-secret-portal-secret-portal').toString('base64')}`,
          'content-type': 'application/x-www-form-urlencoded',
        },
        body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'api', resource: RESOURCE }),
      });
      const body = await answer.json();
      if (!body.access_token) throw new Error(JSON.stringify(body));
      return body.access_token;
    },
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
    start: listen,
  };
};
