'use strict';
// Clients that Backstage's plugins use, each in a Node process of its own that goes out through a proxy.

const { execFile } = require('node:child_process');
const path = require('node:path');

const BOOTSTRAP = path.join(__dirname, '../../../examples/egress-bootstrap.js');

/** What a Node process needs to go out through `proxy`. */
const through = (proxy, env = {}) => ({
  ...process.env, NODE_PATH: path.join(__dirname, '../node_modules'), HTTPS_PROXY: proxy, HTTP_PROXY: proxy, NO_PROXY: '127.0.0.1,localhost', ...env,
});

/** Asks for a URL with a client, and answers what it printed. */
exports.call = (client, url, proxy, env = {}) => new Promise((resolve) => {
  execFile(process.execPath, ['-r', BOOTSTRAP, path.join(__dirname, 'clients.js'), client, url], { timeout: 60000, env: through(proxy, env) }, (_, out, err) => resolve(out.trim() || err));
});
Object.assign(exports, { BOOTSTRAP, through });
