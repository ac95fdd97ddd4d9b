'use strict';
// A control source that answers as a test says: our own shape, Orbit's, or none that is right.

const crypto = require('node:crypto');
const http = require('node:http');

/** Our own shape. */
exports.said = (rest = {}) => JSON.stringify({ version: 'stagedoor/control-v1', ...rest });

/** As Orbit's `GET /api/plugins/config`: Backstage's config, with the secrets in it. */
exports.orbits = (plugins = {}) => JSON.stringify({
  integrations: { github: [{ host: 'github.com', token: 'orbit-s3cret' }] },
  ...Object.fromEntries(Object.entries(plugins).map(([plugin, workspaces]) => [
    plugin, workspaces.map((id) => ({ host: `https://${plugin}.example`, token: 'orbit-s3cret', workspace_id: id })),
  ])),
});

/**
 * Starts it. `answers(body)` says what is answered from now on, `misbehaves(act)` lets
 * `act(request, response)` answer. `asked` are the requests so far.
 */
exports.control = async (body = exports.said(), { etags = true } = {}) => {
  const asked = [];
  let act;
  const answers = (text) => {
    act = (request, response) => {
      const etag = `"${crypto.createHash('sha256').update(text).digest('hex').slice(0, 12)}"`;
      if (etags) response.setHeader('etag', etag);
      if (etags && request.headers['if-none-match'] === etag) return response.writeHead(304).end();
      return response.writeHead(200, { 'content-type': 'application/json' }).end(text);
    };
  };
  answers(body);
  const server = http.createServer((request, response) => {
    asked.push({ url: request.url, method: request.method, headers: request.headers });
    act(request, response);
  });
  const listen = (port) => new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve));
  await listen(0);
  const { port } = server.address();
  const away = () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); });
  return {
    url: `http://127.0.0.1:${port}/api/plugins/config`,
    asked,
    answers,
    misbehaves: (how) => { act = how; },
    away,
    back: () => listen(port),
    stop: async () => { if (server.listening) await away(); },
  };
};
