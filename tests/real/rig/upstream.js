'use strict';
// An upstream that does what a path asks for: echoes, hangs, resets, breaks off. It keeps what it saw.

const http = require('node:http');
const net = require('node:net');
const { WebSocketServer } = require('ws');

/** Starts it. `seen` are the requests that reached it, with their raw headers. */
exports.upstream = async (options = {}) => {
  const seen = [];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      seen.push({ method: request.method, url: request.url, headers: request.headers, raw: request.rawHeaders, body, trailers: request.rawTrailers });
      answer(request, response, body);
    });
  });
  const answer = (request, response, body) => {
    const url = new URL(request.url, 'http://x');
    const what = url.searchParams.get('do');
    switch (what) {
      case 'seen':
        seen.pop();
        return response.end(JSON.stringify(seen));
      case 'hang': return undefined;
      case 'reset': return request.socket.resetAndDestroy();
      case 'close': return request.socket.destroy();
      case 'garbage': return request.socket.end('this is not HTTP\r\n\r\n');
      case 'cut':
        response.writeHead(200, { 'content-length': '1000' });
        return response.write('eight by', () => request.socket.destroy());
      case 'cut-chunk':
        response.writeHead(200);
        return response.write('eight by', () => request.socket.destroy());
      case 'chunks':
        response.writeHead(200, { 'content-type': 'text/plain' });
        for (let i = 0; i < Number(url.searchParams.get('n')); i += 1) response.write(`${i}\n`);
        return response.end();
      case 'trailers':
        response.writeHead(200, { trailer: 'x-trailer' });
        response.write('body');
        response.addTrailers({ 'x-trailer': 'yes' });
        return response.end();
      case 'slow': {
        const timer = setTimeout(() => response.end('late'), Number(url.searchParams.get('ms')));
        return request.socket.on('close', () => clearTimeout(timer));
      }
      case 'status':
        response.writeHead(Number(url.searchParams.get('n')), { 'content-type': url.searchParams.get('type') ?? 'text/plain' });
        return response.end('{}');
      case 'trickle': {
        response.writeHead(200, { 'content-type': 'text/plain' });
        const timer = setInterval(() => response.write('x'), 100);
        return request.socket.on('close', () => clearInterval(timer));
      }
      case 'sse': {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write('data: first\n\n');
        const timer = setTimeout(() => { response.write('data: second\n\n'); response.end(); }, Number(url.searchParams.get('ms') ?? 0));
        return request.socket.on('close', () => clearTimeout(timer));
      }
      case 'json':
        response.writeHead(200, { 'content-type': 'application/json', etag: '"1"' });
        return response.end(url.searchParams.get('body'));
      case 'gzip':
        response.writeHead(200, { 'content-type': 'application/json', 'content-encoding': 'gzip' });
        return response.end(require('node:zlib').gzipSync('{"operator_hint":"x"}'));
      case 'cookies':
        response.writeHead(200, [['set-cookie', 'a=1'], ['set-cookie', 'b=2'], ['set-cookie', 'c=3']].flat());
        return response.end();
      default:
        response.writeHead(200, { 'content-type': 'application/json' });
        return response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers, body }));
    }
  };
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: (protocols) => [...protocols][0] ?? false });
  server.on('upgrade', (request, socket, head) => {
    seen.push({ method: 'UPGRADE', url: request.url, headers: request.headers, raw: request.rawHeaders });
    if (request.url.includes('do=silent')) return socket.on('error', () => {});
    return sockets.handleUpgrade(request, socket, head, (ws) => {
      ws.on('message', (data, binary) => ws.send(data, { binary }));
    });
  });
  await new Promise((resolve) => server.listen(options.port ?? 0, '127.0.0.1', resolve));
  const { port } = server.address();
  return {
    port, seen, url: `http://127.0.0.1:${port}`,
    last: () => seen.at(-1),
    stop: () => new Promise((resolve) => { sockets.clients.forEach((c) => c.terminate()); server.closeAllConnections(); server.close(resolve); }),
  };
};

/** Sends bytes as they are; answers with all that comes back until the other side closes. */
exports.raw = (port, bytes, { ms = 5000, end = false } = {}) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1');
  let got = '';
  const done = () => { socket.destroy(); resolve(got); };
  const timer = setTimeout(done, ms);
  socket.on('data', (data) => { got += data.toString('latin1'); });
  socket.on('error', () => {});
  socket.on('close', () => { clearTimeout(timer); resolve(got); });
  for (const part of [bytes].flat()) socket.write(part, 'latin1');
  if (end) socket.end();
});
