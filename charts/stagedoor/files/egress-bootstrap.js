'use strict';
// Sends the HTTP clients of a Backstage backend through a forward proxy:
//
//   npm install global-agent undici
//   HTTPS_PROXY=http://127.0.0.1:3128 HTTP_PROXY=http://127.0.0.1:3128 \
//   NO_PROXY=127.0.0.1,localhost node -r ./egress-bootstrap.js packages/backend
//
// Both halves are needed: Node's own `http` and everything built on it (node-fetch, axios, got, the
// proxy and kubernetes plugins) uses the first, the built-in `fetch` the second. NO_PROXY is needed,
// too, because plugins call each other at localhost.

const https = require('node:https');
const { bootstrap } = require('global-agent');
const { EnvHttpProxyAgent, setGlobalDispatcher } = require('undici');

const { env } = process;
env.GLOBAL_AGENT_HTTP_PROXY ??= env.HTTP_PROXY ?? env.http_proxy ?? '';
env.GLOBAL_AGENT_HTTPS_PROXY ??= env.HTTPS_PROXY ?? env.https_proxy ?? '';
env.GLOBAL_AGENT_NO_PROXY ??= env.NO_PROXY ?? env.no_proxy ?? '';
bootstrap();
// global-agent 4.1 treats every connection as plain: it would leave out the server name in TLS, and
// check the certificate for the wrong host.
const { addRequest } = https.globalAgent;
https.globalAgent.addRequest = function addSecure(request, options) {
  return addRequest.call(this, request, { ...options, secureEndpoint: true });
};
setGlobalDispatcher(new EnvHttpProxyAgent());
