'use strict';
// Connect's own server, which speaks Connect, gRPC-Web and gRPC; and a page that holds its clients for browsers, unbundled.

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { create, createFileRegistry } = require('@bufbuild/protobuf');
const { connectNodeAdapter } = require('@connectrpc/connect-node');

/** `echo.proto` without a compiler. A page makes it from the same text. */
const FILE = {
  name: 'echo.proto',
  package: 'echo',
  syntax: 'proto3',
  messageType: [{ name: 'Text', field: [{ name: 'text', number: 1, type: 9, label: 1, jsonName: 'text' }] }],
  service: [{
    name: 'Echo',
    method: [
      { name: 'Unary', inputType: '.echo.Text', outputType: '.echo.Text' },
      { name: 'Many', inputType: '.echo.Text', outputType: '.echo.Text', serverStreaming: true },
    ],
  }],
};
const Echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [FILE] })).getService('echo.Echo');

/** The server. It knows nothing of other origins. */
exports.connect = async () => {
  const server = http.createServer(connectNodeAdapter({
    routes: (router) => router.service(Echo, {
      unary: (asked) => ({ text: asked.text }),
      async* many(asked) { for (const text of ['a', 'b']) yield { text: `${asked.text}${text}` }; },
    }),
  }));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};

const MODULES = path.join(__dirname, '../node_modules');
const PACKAGES = ['@bufbuild/protobuf', '@connectrpc/connect', '@connectrpc/connect-web'];

const imports = () => Object.fromEntries(PACKAGES.flatMap((name) => {
  const { exports: all } = JSON.parse(fs.readFileSync(path.join(MODULES, name, 'package.json')));
  return Object.entries(all).filter(([, to]) => to.import).map(([from, to]) => [path.posix.join(name, from), `/${path.posix.join(name, to.import)}`]);
}));

const page = () => `<!doctype html><title>A frontend</title>
<script type="importmap">${JSON.stringify({ imports: imports() })}</script>
<script type="module">
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';
const Echo = createFileRegistry(create(FileDescriptorSetSchema, { file: [${JSON.stringify(FILE)}] })).getService('echo.Echo');
// Calls; answers with the texts, or with what the error says.
window.rpc = async (kind, baseUrl, token, method, options = {}) => {
  const make = kind === 'grpc-web' ? createGrpcWebTransport : createConnectTransport;
  const client = createClient(Echo, make({ baseUrl, ...options }));
  const headers = token ? { authorization: 'Bearer ' + token } : {};
  try {
    if (method === 'unary') return [(await client.unary({ text: 'x' }, { headers })).text];
    const got = [];
    for await (const { text } of client.many({ text: 'x' }, { headers })) got.push(text);
    return got;
  } catch (error) {
    const { code, rawMessage, details, metadata } = ConnectError.from(error);
    return { code: Code[code], message: rawMessage, details: details.map((d) => d.type), id: metadata.get('x-request-id') };
  }
};
</script>`;

/** A frontend on an origin of its own: `/` is a page with `rpc(...)`, everything else what it imports. */
exports.frontend = async () => {
  const server = http.createServer((request, response) => {
    if (request.url === '/') return response.setHeader('content-type', 'text/html').end(page());
    const file = path.join(MODULES, path.normalize(request.url));
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    return response.setHeader('content-type', 'text/javascript').end(fs.readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  return {
    port, url: `http://127.0.0.1:${port}`,
    stop: () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); }),
  };
};
