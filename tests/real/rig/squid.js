'use strict';
// Squid, the proxy that most companies have between themselves and the internet: it asks who one is, and it
// alone knows the names behind it.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { freePort, until } = require('./ports');
const { start } = require('./process');

const HELPER = '/usr/lib/squid/basic_ncsa_auth';

/**
 * Starts Squid. `hosts` are the names that it knows and nobody else does, `users` their passwords by name (or none, and then it asks
 * nobody), `forbidden` is a domain that it refuses. Answers with its port and `log()`, its lines of access.
 */
exports.squid = async ({ hosts, users, forbidden = 'forbidden.test' }) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-squid-'));
  // It gives up the rights of root.
  fs.chmodSync(folder, 0o777);
  const port = await freePort();
  const write = (name, text) => { fs.writeFileSync(`${folder}/${name}`, text); fs.chmodSync(`${folder}/${name}`, 0o666); };
  write('hosts', Object.entries(hosts).map(([name, ip]) => `${ip} ${name}\n`).join(''));
  write('access.log', '');
  const hash = (password) => execFileSync('openssl', ['passwd', '-apr1', password], { encoding: 'utf8' }).trim();
  if (users) write('users', Object.entries(users).map(([name, password]) => `${name}:${hash(password)}\n`).join(''));
  write('squid.conf', `
http_port 127.0.0.1:${port}
hosts_file ${folder}/hosts
dns_nameservers 127.0.0.1
dns_timeout 1 seconds
${users ? `auth_param basic program ${HELPER} ${folder}/users
auth_param basic children 2 startup=1
acl known proxy_auth REQUIRED
http_access deny !known` : ''}
acl forbidden dstdomain ${forbidden}
http_access deny forbidden
http_access allow all
cache deny all
cache_mem 0 MB
max_filedescriptors 1024
logformat short %>Hs %rm %ru %un
access_log stdio:${folder}/access.log logformat=short
cache_log /dev/null
cache_store_log none
pid_filename none
coredump_dir ${folder}
pinger_enable off
netdb_filename none
shutdown_lifetime 0 seconds
visible_hostname parent.test
`);
  const program = start('squid', ['-N', '-f', `${folder}/squid.conf`], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  await until('Squid', async () => {
    if (!program.isRunning()) throw Object.assign(new Error(`it has ended: ${program.output()}`), { fatal: true });
    return fetch(`http://127.0.0.1:${port}/`).then(() => true);
  }, 20000);
  return {
    port,
    log: () => fs.readFileSync(`${folder}/access.log`, 'utf8').split('\n').filter((line) => line && !line.includes('error:')),
    stop: async () => { await program.stop('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); },
  };
};
