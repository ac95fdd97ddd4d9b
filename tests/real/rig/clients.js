'use strict';
// Asks for a URL with one of the clients that Backstage's plugins use: `clients.js CLIENT URL`.
// Prints the status and the body, or what the client says of its failure.

const http = require('node:http');
const https = require('node:https');

const plain = (url, options) => new Promise((resolve, reject) => {
  const { request } = url.startsWith('https') ? https : http;
  request(url, options, (answer) => {
    let body = '';
    answer.on('data', (part) => { body += part; });
    answer.on('end', () => resolve([answer.statusCode, body]));
  }).on('error', reject).end();
});

const clients = {
  fetch: async (url) => { const answer = await fetch(url); return [answer.status, await answer.text()]; },
  'node-fetch': async (url) => { const answer = await require('node-fetch')(url); return [answer.status, await answer.text()]; },
  'cross-fetch': async (url) => { const answer = await require('cross-fetch')(url); return [answer.status, await answer.text()]; },
  axios: async (url) => { const { status, data } = await require('axios').get(url, { responseType: 'text', proxy: false }); return [status, data]; },
  got: async (url) => { const { statusCode, body } = await require('got')(url, { retry: 0 }); return [statusCode, body]; },
  octokit: async (url) => {
    const { Octokit } = await import('@octokit/core');
    const { status, data } = await new Octokit({ baseUrl: new URL(url).origin }).request(`GET ${new URL(url).pathname}`);
    return [status, typeof data === 'string' ? data : JSON.stringify(data)];
  },
  https: (url) => plain(url, {}),
  'https without an agent': (url) => plain(url, { agent: false }),
};

const [, , client, url] = process.argv;
clients[client](url)
  .then(([status, body]) => console.log(`${status} ${body}`))
  .catch((error) => console.log(`failed: ${error.message} ${error.cause?.message ?? ''}`));
