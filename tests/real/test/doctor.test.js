'use strict';
// Clients that go out past the proxy are found by their connections, and told what they lack.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, afterEach, before, test } = require('node:test');
const { BOOTSTRAP, through } = require('../rig/calling');
const { dns } = require('../rig/dns');
const { again, isOutside, network } = require('../rig/namespace');
const { until } = require('../rig/ports');
const { start } = require('../rig/process');
const { binary, stagedoor } = require('../rig/stagedoor');

const CLIENTS = path.join(__dirname, '../rig/clients.js');
const name = 'held.egress.test';
let door; let names; let servers; let port; let config;
const held = new Set();
const clients = [];

/** Keeps every connection open, without an answer, until it is let go; but `/quick` is answered. */
const holding = () => http.createServer((request, response) => { if (request.url === '/quick') { response.end(); return; } held.add(response); response.on('close', () => held.delete(response)); });
const setUp = async () => {
  servers = [holding()];
  port = await new Promise((resolve) => { servers[0].listen(0, network.v4, () => resolve(servers[0].address().port)); });
  if (network.v6) {
    servers.push(holding());
    await new Promise((resolve) => { servers[1].listen(port, network.v6, resolve); });
  }
  names = await dns({ [name]: { A: [network.v4] } });
  door = await stagedoor((ports) => `
listeners:
  egress: {kind: forward, address: 127.0.0.1:${ports.edge}, plugin: catalog}
process: {drain_delay: 0s, drain_timeout: 1s, name_servers: ["${names.address}"]}
egress:
  per_workspace: {rate: 100000/s, burst: 100000}
  rules: [{name: held, to: ["${name}:${port}"]}]
  private: [{host: "${name}:${port}", addresses: [${network.v4}/32]}]`);
  config = path.join(os.tmpdir(), `stagedoor-doctor-${process.pid}.yaml`);
  fs.copyFileSync(door.file, config);
};
const tearDown = async () => {
  await door?.stop(); await names?.stop();
  for (const server of servers ?? []) { server.closeAllConnections(); server.close(); }
  if (config) fs.rmSync(config, { force: true });
};

/** A client that holds a connection: past the proxy, or through it. */
const client = (args, env) => {
  const program = start(process.execPath, args, { env });
  clients.push(program);
  return program;
};
const bare = () => Object.fromEntries(Object.entries(process.env).filter(([key]) => !/proxy|^NODE_OPTIONS$|^STAGEDOOR_CONFIG$/i.test(key)));
const past = (host, env = {}) => client([CLIENTS, 'https without an agent', `http://${host}:${port}/`], { ...bare(), ...env });
const guided = (kind) => client(['-r', BOOTSTRAP, CLIENTS, kind, `http://${name}:${port}/`], { ...bare(), ...through(door.url) });
const areHeld = (count) => until(`${count} connections`, async () => held.size === count);

const doctor = (...args) => new Promise((resolve) => {
  execFile(binary, ['doctor', ...args], { env: bare() }, (error, out, err) => resolve({ code: error?.code ?? 0, out, err }));
});
const examined = async (...args) => {
  const { code, out, err } = await doctor('--json', ...args);
  assert.equal(err, '');
  const report = JSON.parse(out);
  // Others are on the same machine where there is no network of our own.
  const bypasses = report.bypasses.filter((one) => network.alone || one.remote.endsWith(`:${port}`));
  return { code: network.alone ? code : bypasses.length && 3, ...report, bypasses };
};

if (isOutside) {
  test('in a network of their own', () => again(__filename));
} else if (!network.v4) {
  test('clients past the proxy', { skip: 'this machine has no address but loopback, and no network namespace may be made' });
} else {
  before(setUp);
  after(tearDown);
  afterEach(async () => { await Promise.all(clients.splice(0).map((one) => one.stop('SIGKILL'))); });

  test('a client that goes out directly is told of with its pid, and those that go through the proxy are not', async () => {
    const direct = past(network.v4, { HTTPS_PROXY: 'http://catalog:a-secret-of-mine@10.9.9.9:1' });
    const [plain, tunnel] = [guided('node-fetch'), guided('fetch')];
    await areHeld(3);
    const found = await examined('-c', door.file, '--for', '1s');
    assert.equal(found.code, 3);
    assert.deepEqual(
      found.bypasses.map(({ seen, command, ...rest }) => ({ ...rest, command: command.replace(/ .*\//, ' '), often: seen > 1 })),
      [{ remote: `${network.v4}:${port}`, pid: direct.pid, command: 'node clients.js', connections: 1, often: true }],
    );
    assert.ok(found.looks > 1, 'it looks several times');
    assert.deepEqual(found.proxies, [door.pid]);
    await door.record((r) => r.code === 'head_malformed' && r.listener === 'egress');
    assert.deepEqual(found.listeners, [{ name: 'egress', address: `127.0.0.1:${door.ports.edge}`, answers: true }]);

    const of = (program) => found.node.find((node) => node.pid === program.pid);
    const url = `http://127.0.0.1:${door.ports.edge}`;
    assert.deepEqual(of(direct).lacks, [
      { what: 'no bootstrap file is preloaded, so the proxy variables are ignored', write: 'NODE_OPTIONS=--require=/app/egress-bootstrap.js' },
      { what: 'HTTP_PROXY is missing', write: `HTTP_PROXY=${url}` },
      { what: 'HTTPS_PROXY points at 10.9.9.9:1, where no forward listener of the config is', write: `HTTPS_PROXY=${url}` },
      { what: 'NO_PROXY does not contain 127.0.0.1 and localhost', write: 'NO_PROXY=127.0.0.1,localhost' },
    ]);
    for (const program of [plain, tunnel]) assert.deepEqual(of(program).lacks, []);

    const { out } = await doctor('-c', door.file, '--for', '0s');
    assert.match(out, new RegExp(`bypasses the proxy: ${network.v4}:${port} from pid ${direct.pid}, node .*clients.js; 1 connection, seen 1 time`));
    assert.match(out, new RegExp(`pid ${direct.pid}, node .*clients.js:\\n  no bootstrap file is preloaded.*; write NODE_OPTIONS=--require=`));
    assert.match(out, /listener `egress` at 127.0.0.1:\d+ responds/);
    assert.ok(!(out + JSON.stringify(found)).includes('a-secret-of-mine'));
  });

  test('what is expected is left out, by address, network or name, on its port alone', async () => {
    past(network.v4);
    await areHeld(1);
    for (const host of [network.v4, `${network.v4.split('.').slice(0, 3).join('.')}.0/24`, name]) {
      const found = await examined('-c', door.file, '--for', '0s', '--expect', `${host}:${port}`);
      assert.deepEqual([found.bypasses, found.code], [[], 0], host);
    }
    assert.equal((await examined('-c', door.file, '--for', '0s', '--expect', `${network.v4}:1`)).code, 3);
  });

  test('without a config the proxy is known by its binary, and one look is enough for a connection that stays', async () => {
    guided('fetch');
    await areHeld(1);
    const fine = await examined('--for', '0s');
    assert.deepEqual([fine.code, fine.bypasses, fine.listeners, fine.looks], [0, [], [], 1]);
    if (network.alone) assert.match((await doctor('--for', '0s')).out, /^nothing bypassed the proxy, in 1 look$/m);
    const direct = past(network.v4);
    await areHeld(2);
    const found = await examined('--for', '0s');
    assert.deepEqual([found.code, found.bypasses.map(({ pid }) => pid)], [3, [direct.pid]]);
  });

  test('a proxy that makes many short connections is not taken for somebody else', async () => {
    let running = true;
    const asks = async () => {
      let count = 0;
      while (running) {
        const status = await new Promise((resolve, reject) => http.get({ host: '127.0.0.1', port: door.ports.edge, path: `http://${name}:${port}/quick`, headers: { host: `${name}:${port}` }, agent: false }, (answer) => { answer.resume(); answer.on('end', () => resolve(answer.statusCode)); }).on('error', reject));
        assert.equal(status, 200);
        count += 1;
      }
      return count;
    };
    const asking = [asks(), asks(), asks(), asks()];
    const found = await examined('--for', '1s');
    running = false;
    const counts = await Promise.all(asking);
    assert.ok(counts.every((count) => count > 0));
    assert.deepEqual([found.code, found.bypasses], [0, []]);
  });

  test('IPv6 is looked at too', { skip: network.v6 ? false : 'there is no IPv6 address of our own' }, async () => {
    const direct = past(`[${network.v6}]`);
    await areHeld(1);
    const found = await examined('--for', '0s');
    assert.deepEqual(found.bypasses.map(({ remote, pid }) => ({ remote, pid })), [{ remote: `[${network.v6}]:${port}`, pid: direct.pid }]);
    const six = await examined('--for', '0s', '--expect', `[${network.v6}]:${port}`);
    assert.equal(six.code, 0);
  });

  test('a connection that is only being opened is one', async () => {
    // Its queue is full and nobody takes from it, so what comes more is dropped.
    const stopped = client(['-e', `const s = net.createServer().listen({ port: 0, host: '${network.v4}', backlog: 1 }, () => console.log(s.address().port))`], bare());
    const deaf = Number(await until('it to listen', async () => stopped.output().trim()));
    stopped.signal('SIGSTOP');
    await until('it to stand still', async () => fs.readFileSync(`/proc/${stopped.pid}/stat`, 'utf8').includes(') T '));
    let connected = 0;
    const waiting = Array.from({ length: 2 }, () => net.connect(deaf, network.v4, () => { connected += 1; }).on('error', () => {}));
    await until('its queue to be full', async () => connected === 2);
    const direct = client([CLIENTS, 'https without an agent', `http://${network.v4}:${deaf}/`], bare());
    await until('it to be found', async () => JSON.parse((await doctor('--json', '--for', '0s')).out).bypasses.some((one) => one.pid === direct.pid && one.remote === `${network.v4}:${deaf}`));
    for (const socket of waiting) socket.destroy();
  });

  test('NODE_USE_ENV_PROXY alone is not enough', async () => {
    const direct = past(network.v4, { ...through(door.url), NODE_USE_ENV_PROXY: '1' });
    await areHeld(1);
    const found = await examined('-c', door.file, '--for', '0s');
    assert.match(found.node.find((node) => node.pid === direct.pid).lacks.map((lack) => lack.what).join(), /^only NODE_USE_ENV_PROXY .* bypass it$/);
  });

  test('a listener that does not answer is told of, and wrong use ends with 2', async () => {
    assert.equal((await doctor('--expect', 'db.example')).code, 2);
    assert.equal((await doctor('--for', 'long')).code, 2);
    assert.equal((await doctor('-c', `${config}.missing`)).code, 2);
    const unknown = await doctor('-c', door.file, '--expect', 'nowhere.egress.test:1', '--for', '0s');
    assert.deepEqual([unknown.code, unknown.out], [2, '']);
    assert.match(unknown.err, /--expect nowhere.egress.test:1: cannot resolve/);
    await door.stop();
    const { listeners, proxies } = await examined('-c', config, '--for', '0s');
    assert.deepEqual(listeners.map(({ answers }) => answers), [false]);
    assert.deepEqual(proxies, []);
    const { out } = await doctor('-c', config, '--for', '0s');
    assert.match(out, /does not respond\nno Stagedoor process is visible/);
  });
}
