'use strict';
// Real Redis servers, sentinels and clusters, and a way to them that can be cut.

const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { promisify } = require('node:util');
const { freePort, until } = require('./ports');
const { start } = require('./process');

const run = promisify(execFile);
// The suites of what replicas share pass with Valkey, too: `make extra`.
const SERVER = process.env.REDIS_SERVER ?? 'redis-server';
/** The build of Valkey that is to be had knows no TLS. */
exports.hasTls = !process.env.REDIS_SERVER;
// A shell's own file would be read by servers too: what they have is what stands here.
const words = (options) => Object.entries(options).flatMap(([name, value]) => [`--${name}`, ...[value].flat().map(String)]);

/** A server with these options, over TLS if it has a certificate; `cli(...)` asks it, `calls(command)` is how often that was run. */
exports.redis = async ({ cli: shown = [], ...options } = {}) => {
  const port = await freePort();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-redis-'));
  const listens = options['tls-cert-file'] ? { port: 0, 'tls-port': port } : { port };
  const all = { ...listens, bind: '127.0.0.1', dir: folder, save: '', appendonly: 'no', 'repl-diskless-sync-delay': 0, ...options };
  const cli = async (...args) => (await run('redis-cli', ['-h', '127.0.0.1', '-p', String(port), ...shown, ...args], { timeout: 20000 })).stdout.trim();
  let program;
  const begin = async () => {
    program = start(SERVER, words(all), { env: { ...process.env, LC_ALL: 'C' } });
    await until('redis', async () => {
      if (!program.isRunning()) throw Object.assign(new Error(program.output()), { fatal: true });
      return /PONG|NOAUTH/.test(await cli('PING'));
    });
  };
  await begin();
  return {
    port,
    folder,
    address: `127.0.0.1:${port}`,
    cli,
    calls: async (command) => Number((await cli('INFO', 'commandstats')).match(new RegExp(`cmdstat_${command}:calls=(\\d+)`))?.[1] ?? 0),
    signal: (signal) => program.signal(signal),
    kill: () => program.stop('SIGKILL'),
    begin,
    stop: async () => {
      program.signal('SIGCONT');
      await program.stop('SIGKILL');
      fs.rmSync(folder, { recursive: true, force: true });
    },
  };
};

/** A sentinel that watches `master`. */
exports.sentinel = async (master, { quorum = 1, down = 500, more = [] } = {}) => {
  const port = await freePort();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-sentinel-'));
  const file = path.join(folder, 'sentinel.conf');
  fs.writeFileSync(file, [
    `port ${port}`, 'bind 127.0.0.1', `dir ${folder}`,
    `sentinel monitor door 127.0.0.1 ${master.port} ${quorum}`,
    `sentinel down-after-milliseconds door ${down}`,
    'sentinel failover-timeout door 3000', ...more, '',
  ].join('\n'));
  const program = start('redis-sentinel', [file], { env: { ...process.env, LC_ALL: 'C' } });
  const cli = async (...args) => (await run('redis-cli', ['-h', '127.0.0.1', '-p', String(port), ...args], { timeout: 20000 })).stdout.trim();
  await until('a sentinel', async () => (await cli('PING')) === 'PONG');
  return {
    address: `127.0.0.1:${port}`,
    cli,
    stop: async () => { await program.stop('SIGKILL'); fs.rmSync(folder, { recursive: true, force: true }); },
  };
};

/** A cluster of as many masters, each with a replica. */
exports.cluster = async (masters = 3) => {
  // Its bus would listen 10000 above, where the system gives ports to connections.
  const buses = [];
  const nodes = [];
  const stop = () => Promise.all(nodes.map((one) => one.stop()));
  try {
    for (let n = 0; n < masters * 2; n += 1) {
      buses.push(await freePort());
      nodes.push(await exports.redis({ 'cluster-enabled': 'yes', 'cluster-node-timeout': 1000, 'cluster-config-file': 'nodes.conf', 'cluster-port': buses[n] }));
    }
    const named = nodes.map(({ address }, n) => `${address}@${buses[n]}`);
    await nodes[0].cli('--cluster', 'create', ...named, '--cluster-replicas', '1', '--cluster-yes');
    await until('the cluster', async () => (await Promise.all(nodes.map(({ cli }) => cli('CLUSTER', 'INFO')))).every((info) => info.includes('cluster_state:ok')));
  } catch (error) {
    await stop();
    throw error;
  }
  return { nodes, addresses: nodes.map(({ address }) => address), stop };
};

/** A way to a port: `cut()` holds back all that comes, as a network that is parted does; `mend()` lets it through again. */
exports.way = async (to) => {
  const open = new Set();
  let isCut = false; let delay = 0;
  const server = net.createServer((near) => {
    const far = net.connect(to, '127.0.0.1');
    open.add(near); open.add(far);
    const pass = (from, into) => from.on('data', (data) => {
      if (isCut) return;
      if (delay) setTimeout(() => into.writable && into.write(data), delay);
      else into.write(data);
    });
    pass(near, far); pass(far, near);
    for (const [one, other] of [[near, far], [far, near]]) {
      one.on('error', () => {});
      one.on('close', () => { open.delete(one); if (!isCut) other.destroy(); });
    }
  });
  const port = await freePort();
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    address: `127.0.0.1:${port}`,
    cut: () => { isCut = true; },
    mend: () => { isCut = false; open.forEach((socket) => socket.destroy()); },
    slow: (ms) => { delay = ms; },
    stop: async () => { open.forEach((socket) => socket.destroy()); await new Promise((resolve) => server.close(resolve)); },
  };
};
