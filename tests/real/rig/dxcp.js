'use strict';
// Stands in for DXCP, and answers as the real one does where the tests look: errors, ids,
// idempotency, engine fields, paths that it decodes. Tokens are verified against the provider's keys.

const crypto = require('node:crypto');
const http = require('node:http');

const ROLES = 'https://dxcp.example/claims/roles';

/** Starts it. `seen` are the requests that reached it. */
exports.dxcp = async ({ issuer, audience, port = 0 } = {}) => {
  const seen = [];
  const replays = new Map();
  let keys = [];
  const verified = async (request) => {
    const [header, payload, signature] = (request.headers.authorization ?? '').replace(/^bearer /i, '').split('.');
    if (!signature) return undefined;
    const { kid, alg } = JSON.parse(Buffer.from(header, 'base64url'));
    if (!keys.some((key) => key.kid === kid)) keys = (await (await fetch(`${issuer}/jwks`)).json()).keys;
    const jwk = keys.find((key) => key.kid === kid);
    if (alg !== 'RS256' || !jwk) return undefined;
    const good = crypto.verify('sha256', Buffer.from(`${header}.${payload}`), crypto.createPublicKey({ key: jwk, format: 'jwk' }), Buffer.from(signature, 'base64url'));
    const claims = JSON.parse(Buffer.from(payload, 'base64url'));
    return good && claims.iss === issuer && [claims.aud].flat().includes(audience) && claims.exp > Date.now() / 1000 ? claims : undefined;
  };
  const server = http.createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    seen.push({ method: request.method, url: request.url, headers: request.headers, raw: request.rawHeaders, body });
    const id = request.headers['x-request-id'] ?? crypto.randomUUID();
    const say = (status, value, headers = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': id, ...headers });
      response.end(JSON.stringify(value));
    };
    const fail = (status, code, cause = 'USER_ERROR') => say(status, { code, error_code: code, failure_cause: cause, message: code, request_id: id, operator_hint: 'Spinnaker connection failed' });
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    const path = decodeURIComponent(pathname);
    if (path === '/v1/health') return say(200, { status: 'ok' });
    if (path === '/openapi.json') return say(200, { openapi: '3.1.0' });
    if (path.length > 1 && path.endsWith('/')) { response.writeHead(307, { location: `http://${request.headers.host}${path.slice(0, -1)}` }); return response.end(); }
    const claims = await verified(request);
    if (!claims) return fail(401, 'UNAUTHORIZED');
    const roles = claims[ROLES] ?? [];
    if (!roles.some((role) => role.startsWith('dxcp-'))) return fail(403, 'AUTHZ_ROLE_REQUIRED');
    if (path.startsWith('/v1/admin/')) return say(200, { rate: 'limits' });
    if (/^\/v1\/services\/[^/]+\/delivery-status$/.test(path)) {
      if (!searchParams.get('environment')) return fail(400, 'INVALID_REQUEST');
      return say(200, { service: 'pay', hasDeployments: true, latest: { id: 'd-1', state: 'SUCCEEDED', engineExecutionId: '01E', engineExecutionUrl: 'http://engine' } });
    }
    if (path === '/v1/deployments' && request.method === 'POST') {
      if (!roles.includes('dxcp-delivery-owners')) return fail(403, 'ROLE_FORBIDDEN');
      const key = request.headers['idempotency-key'];
      if (!key) return fail(400, 'IDMP_KEY_REQUIRED');
      const replayed = replays.has(key);
      if (!replayed) { replays.set(key, { id: crypto.randomUUID(), state: 'PENDING', engineExecutionId: '01E' }); await new Promise((resolve) => { setTimeout(resolve, 300); }); }
      return say(201, replays.get(key), { 'idempotency-replayed': String(replayed) });
    }
    if (path === '/v1/services') return say(200, [{ service_name: 'pay' }]);
    return say(404, { detail: 'Not Found' });
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`, seen,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};
