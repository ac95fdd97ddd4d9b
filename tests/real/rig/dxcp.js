'use strict';
// Stands in for DXCP, and answers as the real one does where the tests look: errors, ids, idempotency
// that is not atomic, limits without Retry-After, engine fields, paths that it decodes.

const crypto = require('node:crypto');
const http = require('node:http');

const ROLES = 'https://dxcp.example/claims/roles';
/** From its roles' names in tokens to its own, the mightiest first. */
const RANKS = [
  ['dxcp-platform-admins', 'PLATFORM_ADMIN'], ['dxcp-delivery-owners', 'DELIVERY_OWNER'],
  ['dxcp-observers', 'OBSERVER'], ['dxcp-ci-publishers', 'CI_PUBLISHER'],
];
const MINUTE = 60000;

/** Answers what a token says if it is one of `issuer` for `audience`, signed with RS256. */
const verifier = ({ issuer, audience, jwks }) => {
  let keys = [];
  const verify = async (text) => {
    const [header, payload, signature] = text.split('.');
    if (!signature) return undefined;
    const { kid, alg } = JSON.parse(Buffer.from(header, 'base64url'));
    if (!keys.some((key) => key.kid === kid)) keys = (await (await fetch(jwks)).json()).keys;
    const jwk = keys.find((key) => key.kid === kid);
    if (alg !== 'RS256' || !jwk) return undefined;
    const good = crypto.verify('sha256', Buffer.from(`${header}.${payload}`), crypto.createPublicKey({ key: jwk, format: 'jwk' }), Buffer.from(signature, 'base64url'));
    const claims = JSON.parse(Buffer.from(payload, 'base64url'));
    return good && claims.iss === issuer && [claims.aud].flat().includes(audience) && claims.exp > Date.now() / 1000 ? claims : undefined;
  };
  return (text) => verify(text).catch(() => undefined);
};

/**
 * Starts it. `seen` are the requests that reached it, also at GET /__seen. Without an `issuer` it believes
 * whoever comes to have `roles`. `reads` and `mutations` are what each subject may do in a minute.
 */
exports.dxcp = async ({
  issuer, audience, jwks = `${issuer?.replace(/\/$/, '')}/jwks`, roles: anyones = ['dxcp-delivery-owners'], port = 0, reads = 60, mutations = 10,
} = {}) => {
  const seen = [];
  const replays = new Map();
  const used = new Map();
  const deployments = [];
  const control = { mutationsDisabled: false, engine: 'well' };
  const verified = verifier({ issuer, audience, jwks });

  const server = http.createServer(async (request, response) => {
    const chunks = [];
    try { for await (const chunk of request) chunks.push(chunk); } catch { return; }
    const body = Buffer.concat(chunks).toString();
    const id = request.headers['x-request-id'] ?? crypto.randomUUID();
    const say = (status, value, headers = {}) => {
      if (response.destroyed) return;
      response.writeHead(status, { 'content-type': 'application/json', 'x-request-id': id, ...headers });
      response.end(JSON.stringify(value));
    };
    if (request.url === '/__seen') return say(200, seen);
    seen.push({ method: request.method, url: request.url, headers: request.headers, raw: request.rawHeaders, body });
    const fail = (status, code, { cause = 'USER_ERROR', hint, details } = {}) => say(status, {
      code, error_code: code, failure_cause: cause, message: code, request_id: id,
      operator_hint: hint ?? 'Spinnaker connection failed', ...(details ? { details } : {}),
    });
    const { pathname, searchParams } = new URL(request.url, 'http://x');
    const path = decodeURIComponent(pathname);
    const { method } = request;
    if (path === '/v1/health') return say(200, { status: 'ok' });
    if (path === '/openapi.json' || path === '/docs') return say(200, { openapi: '3.1.0' });
    if (path.length > 1 && path.endsWith('/')) { response.writeHead(307, { location: `http://${request.headers.host}${path.slice(0, -1)}` }); return response.end(); }
    const route = routes.find(([of, shape]) => of === method && shape.test(path));
    if (!route) {
      const known = routes.some(([, shape]) => shape.test(path));
      return say(known ? 405 : 404, { detail: known ? 'Method Not Allowed' : 'Not Found' });
    }

    const bearer = /^bearer (\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const claims = issuer ? bearer && await verified(bearer) : { sub: 'anyone', [ROLES]: anyones };
    if (!claims) return fail(401, 'UNAUTHORIZED');
    const role = RANKS.find(([name]) => [claims[ROLES]].flat().includes(name))?.[1];
    if (!role) return fail(403, 'AUTHZ_ROLE_REQUIRED');

    const [, shape, { roles = [], kind = 'read', answer }] = route;
    const bucket = `${kind} ${claims.sub} ${Math.floor(Date.now() / MINUTE)}`;
    used.set(bucket, (used.get(bucket) ?? 0) + 1);
    if (used.get(bucket) > (kind === 'read' ? reads : mutations)) return fail(429, 'RATE_LIMITED', { cause: 'POLICY_CHANGE' });
    if (roles.length && !roles.includes(role)) return fail(403, roles.includes('CI_PUBLISHER') ? 'CI_ONLY' : 'ROLE_FORBIDDEN');

    let intent = {};
    if (body) { try { intent = JSON.parse(body); } catch { return fail(400, 'INVALID_REQUEST'); } }
    return answer({
      say, fail, claims, role, intent, method, path, request, search: searchParams, names: shape.exec(path).slice(1),
    });
  });

  const owners = ['PLATFORM_ADMIN', 'DELIVERY_OWNER'];
  const admins = ['PLATFORM_ADMIN'];
  /** Runs `make` for a new key; a known one gets the old answer. Two at once both run: so does the real one. */
  const once = async ({ say, fail, method, path, request }, fingerprint, make, mark) => {
    const key = request.headers['idempotency-key'];
    if (!key) return fail(400, 'IDMP_KEY_REQUIRED');
    const before = replays.get(`${key}:${method}:${path}`);
    if (before && before.fingerprint !== fingerprint) return fail(409, 'IDEMPOTENCY_CONFLICT');
    const replayed = (value) => (mark ? { 'idempotency-replayed': value } : {});
    if (before) return say(201, before.record, replayed('true'));
    if (control.mutationsDisabled) return fail(503, 'MUTATIONS_DISABLED', { cause: 'POLICY_CHANGE' });
    await new Promise((resolve) => { setTimeout(resolve, 300); });
    if (control.engine === 'away') return fail(503, 'ENGINE_UNAVAILABLE', { cause: 'UNKNOWN', details: { engine_unavailable: true } });
    if (control.engine === 'slow') return fail(504, 'ENGINE_TIMEOUT', { cause: 'UNKNOWN' });
    const record = { id: crypto.randomUUID(), state: 'PENDING', engineExecutionId: '01E', engineExecutionUrl: 'http://engine/01E', ...make() };
    deployments.push(record);
    replays.set(`${key}:${method}:${path}`, { fingerprint, record });
    return say(201, record, replayed('false'));
  };
  const wanted = ({ service, environment, version, changeSummary, recipeId }) => ({ service, environment, version, changeSummary, recipeId });
  const routes = [
    ['GET', /^\/v1\/services\/([^/]+)\/delivery-status$/, {
      answer: ({ say, fail, search, names: [service] }) => {
        const environment = search.get('environment');
        if (!environment) return fail(400, 'INVALID_REQUEST');
        return say(200, {
          service, environment, hasDeployments: true,
          latest: { id: 'd-1', state: 'SUCCEEDED', engineExecutionId: '01E', engineExecutionUrl: 'http://engine' },
          currentRunning: null, promotionCandidate: null,
        });
      },
    }],
    ['GET', /^\/v1\/services\/([^/]+)\/allowed-actions$/, {
      answer: ({ say, role, names: [service] }) => {
        const may = owners.includes(role);
        return say(200, { service, actions: { view: true, deploy: may, rollback: may }, role });
      },
    }],
    ['GET', /^\/v1\/services\/([^/]+)\/running$/, { answer: ({ say }) => say(200, null) }],
    ['GET', /^\/v1\/services$/, { answer: ({ say }) => say(200, [{ service_name: 'pay' }]) }],
    ['GET', /^\/v1\/insights\/failures$/, { answer: ({ say }) => say(200, { windowDays: 7, totalDeployments: 0, totalRollbacks: 0, rollbackRate: 0 }) }],
    ['GET', /^\/v1\/whoami$/, { answer: ({ say, claims }) => say(200, { actor_id: claims.sub, sub: claims.sub, iss: claims.iss, aud: claims.aud, azp: claims.azp ?? null }) }],
    ['GET', /^\/v1\/deployments$/, { answer: ({ say }) => say(200, deployments) }],
    ['POST', /^\/v1\/deployments\/validate$/, { roles: owners, answer: ({ say, intent }) => say(200, { ...wanted(intent), policy: { max_concurrent_deployments: 1 }, validatedAt: new Date().toISOString() }) }],
    ['POST', /^\/v1\/deployments$/, {
      roles: owners, kind: 'mutation', answer: (exchange) => once(exchange, JSON.stringify(wanted(exchange.intent)), () => ({ ...wanted(exchange.intent), deploymentKind: 'ROLL_FORWARD' }), true),
    }],
    ['POST', /^\/v1\/deployments\/([^/]+)\/rollback$/, {
      roles: owners, kind: 'mutation', answer: (exchange) => once(exchange, '', () => ({ deploymentKind: 'ROLLBACK', rollbackOf: exchange.names[0] }), false),
    }],
    ['GET', /^\/v1\/deployments\/([^/]+)(?:\/failures|\/timeline)?$/, {
      roles: [...owners, 'OBSERVER'],
      answer: ({ say, fail, names: [id] }) => { const record = deployments.find((d) => d.id === id); return record ? say(200, record) : fail(404, 'NOT_FOUND'); },
    }],
    ['POST', /^\/v1\/builds(?:\/register|\/upload-capability)?$/, { roles: ['CI_PUBLISHER'], kind: 'mutation', answer: ({ say }) => say(201, { id: crypto.randomUUID() }) }],
    ...['GET', 'PUT', 'PATCH'].map((method) => [method, /^\/v1\/admin\//, { roles: admins, kind: method === 'GET' ? 'read' : 'mutation', answer: ({ say }) => say(200, { rate: 'limits' }) }]),
    ['GET', /^\/v1\/audit\/events$/, { roles: admins, answer: ({ say }) => say(200, []) }],
    ['GET', /^\/v1\/spinnaker\/status$/, { roles: admins, answer: ({ say }) => say(200, { status: 'DOWN' }) }],
  ];

  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`, seen,
    /** Its kill switch: `mutationsDisabled`; its engine: `well`, `away`, `slow`. */
    control,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};
