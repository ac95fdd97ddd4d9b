'use strict';
// GitHub's API, as far as an app needs it: tokens of installations, for statements that its key signed.

const crypto = require('node:crypto');
const http = require('node:http');

const read = (part) => JSON.parse(Buffer.from(part, 'base64url'));

/**
 * Starts it. `app` has `id`, `publicKey` and `installation`; `lives(seconds)` says how long the next tokens
 * last. `asked` are the bodies of requests for tokens, `seen` the requests with one.
 */
exports.github = async ({ app, base = '' }) => {
  let lifetime = 3600;
  const asked = []; const seen = []; const tokens = [];
  const verified = (authorization) => {
    const [header, claims, signature] = (/^Bearer (\S+)$/.exec(authorization ?? '')?.[1] ?? '').split('.');
    if (!signature) return false;
    const { alg } = read(header); const { iss, iat, exp } = read(claims); const now = Date.now() / 1000;
    return alg === 'RS256' && String(iss) === app.id && iat <= now && exp > now && exp - now <= 600
      && crypto.verify('sha256', Buffer.from(`${header}.${claims}`), app.publicKey(), Buffer.from(signature, 'base64url'));
  };
  const server = http.createServer((request, response) => {
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      const json = (status, what) => response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(what));
      if (!request.headers['user-agent']) return json(403, { message: 'Request forbidden by administrative rules.' });
      const [, id] = new RegExp(`^${base}/app/installations/(\\d+)/access_tokens$`).exec(request.url) ?? [];
      if (!id) {
        seen.push({ url: request.url, authorization: request.headers.authorization });
        const known = tokens.some(({ token, until }) => `Bearer ${token}` === request.headers.authorization && Date.now() < until);
        return known ? json(200, { login: 'acme' }) : json(401, { message: 'Bad credentials' });
      }
      if (!verified(request.headers.authorization)) return json(401, { message: 'A JSON web token could not be decoded', documentation_url: 'https://docs.github.com/rest', status: '401' });
      if (Number(id) !== app.installation) return json(404, { message: 'Not Found', status: '404' });
      asked.push({ ...JSON.parse(body || '{}'), accept: request.headers.accept, version: request.headers['x-github-api-version'] });
      const until = Date.now() + lifetime * 1000;
      const token = `ghs_${crypto.randomBytes(18).toString('hex')}`;
      tokens.push({ token, until });
      return json(201, { token, expires_at: new Date(until).toISOString().replace(/\.\d+Z/, 'Z'), permissions: asked.at(-1).permissions ?? { contents: 'write' }, repository_selection: 'selected' });
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}${base}`, asked, seen, tokens,
    lives: (seconds) => { lifetime = seconds; },
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};
