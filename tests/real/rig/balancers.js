'use strict';
// Load balancers that pass connections on as they are, and say whose they were by the PROXY protocol: nginx (version 1) and HAProxy
// (both versions).

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { freePort, until } = require('./ports');
const { start } = require('./process');

const listens = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});
const running = async (name, command, args, port, folder) => {
  const program = start(command, args, { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  await until(name, async () => {
    if (!program.isRunning()) throw Object.assign(new Error(`it has ended: ${program.output()}`), { fatal: true });
    return listens(port);
  });
  return { port, stop: async () => { await program.stop('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); } };
};

/** nginx, which passes connections on to a port. */
exports.nginx = async (to) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-nginx-'));
  const port = await freePort();
  const module = '/usr/lib/nginx/modules/ngx_stream_module.so';
  fs.writeFileSync(`${folder}/nginx.conf`, `
${fs.existsSync(module) ? `load_module ${module};` : ''}
daemon off; master_process off; pid ${folder}/pid; error_log stderr;
events { worker_connections 64; }
stream { server { listen 127.0.0.1:${port}; proxy_pass 127.0.0.1:${to}; proxy_protocol on; } }
`);
  return running('nginx', 'nginx', ['-p', folder, '-c', `${folder}/nginx.conf`], port, folder);
};

/** HAProxy, which passes connections on to a port, and looks every 200 ms whether somebody is there. `version` is 1 or 2. */
exports.haproxy = async (to, version, more = '') => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-haproxy-'));
  const port = await freePort();
  fs.writeFileSync(`${folder}/haproxy.cfg`, `
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen all
  bind 127.0.0.1:${port}
  server one 127.0.0.1:${to} ${version === 2 ? 'send-proxy-v2' : 'send-proxy'} check inter 200ms ${more}
`);
  return running('HAProxy', 'haproxy', ['-db', '-f', `${folder}/haproxy.cfg`], port, folder);
};
