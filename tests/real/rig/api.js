'use strict';
// An API of somebody else's, over TLS and in JSON: the ground on which the stand-ins for such APIs stand.

const fs = require('node:fs');
const https = require('node:https');
const { owner } = require('./sockets');

/**
 * Starts it with a certificate of rig/certificates. `answer({ method, path, query, headers, body })` says
 * `{ status, body, headers }`. `seen` are the requests that reached it, `connected` the process
 * behind each connection.
 */
exports.api = async ({ cert, key }, answer) => {
  const seen = [];
  const connected = [];
  const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', async () => {
      const { pathname, searchParams } = new URL(request.url, 'https://api');
      const asked = { method: request.method, path: pathname, query: searchParams, headers: request.headers, body: Buffer.concat(chunks).toString() };
      seen.push(asked);
      const { status = 200, body, headers = {} } = await Promise.resolve(asked).then(answer).catch((error) => ({ status: 500, body: { message: error.message } }));
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body === undefined ? '' : JSON.stringify(body));
    });
  });
  server.on('connection', (socket) => connected.push(owner(socket.remotePort, socket.localPort)));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: server.address().port, seen, connected,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};
