'use strict';
// An upstream at several addresses of loopback, all on one port. Each does what a test says.

const http = require('node:http');
const { WebSocketServer } = require('ws');
const { freePort } = require('./ports');

/**
 * Starts one server at each of `hosts`. `does[host]` is what it answers: a status, `hang`, `reset`, or a
 * function of the request and the response; `checked[host]` is what it answers below /health. `seen` are the requests,
 * with the `host` that got them. `stop(host)` makes it refuse connections, `start(host)` takes them again.
 */
exports.farm = async (hosts) => {
  const port = await freePort();
  const farm = { port, seen: [], does: {}, checked: {} };
  const servers = {};
  const answer = (host, request, response) => {
    farm.seen.push({ host, method: request.method, url: request.url, headers: request.headers });
    const what = (request.url.startsWith('/health') ? farm.checked : farm.does)[host] ?? 200;
    if (typeof what === 'function') return what(request, response);
    if (what === 'hang') return undefined;
    if (what === 'reset') return request.socket.resetAndDestroy();
    response.writeHead(what, { 'content-type': 'text/plain' });
    return response.end(host);
  };
  farm.start = async (host) => {
    const server = http.createServer((request, response) => {
      request.resume();
      request.on('end', () => answer(host, request, response));
      request.on('error', () => {});
    });
    const sockets = new WebSocketServer({ noServer: true });
    server.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.on('message', (data) => ws.send(`${host} ${data}`));
    }));
    await new Promise((resolve, reject) => { server.once('error', reject); server.listen(port, host, resolve); });
    servers[host] = { server, sockets };
  };
  farm.stop = async (host) => {
    const { server, sockets } = servers[host];
    sockets.clients.forEach((client) => client.terminate());
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
    delete servers[host];
  };
  farm.stopAll = () => Promise.all(Object.keys(servers).map(farm.stop));
  for (const host of hosts) await farm.start(host);
  return farm;
};
