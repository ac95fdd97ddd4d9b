'use strict';
// Three replicas behind a plain TCP balancer, restarted one after the other under load, as a rollout does: nobody loses a request.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const https = require('node:https');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { start } = require('../rig/process');
const { binary, segments, text } = require('../rig/stagedoor');

const ROUNDS = Number(process.env.ROLLS ?? 2);
const REPLICAS = 3;

let folder; let ca; let up; let balancer; let replicas;
/** How often each action ran. */
const ran = new Map();

/** Leads each connection to one of the targets that are ready, by turns; knows nothing of HTTP. */
const balance = async (targets) => {
  let next = 0;
  const open = new Set();
  const server = net.createServer((client) => {
    client.on('error', () => {});
    open.add(client);
    client.on('close', () => open.delete(client));
    const ready = targets.filter((target) => target.ready);
    const attempt = (left) => {
      if (!left) { client.destroy(); return; }
      const target = ready[next++ % ready.length];
      const there = net.connect(target.port, '127.0.0.1');
      const early = () => attempt(left - 1);
      there.once('error', early);
      there.once('connect', () => {
        there.off('error', early);
        there.on('error', () => client.destroy());
        client.on('error', () => there.destroy());
        client.pipe(there);
        there.pipe(client);
      });
    };
    attempt(ready.length);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const look = setInterval(() => targets.forEach(async (target) => {
    target.ready = await fetch(`http://127.0.0.1:${target.status}/readyz`, { signal: AbortSignal.timeout(1000) }).then((answer) => answer.ok, () => false);
  }), 50);
  return { port: server.address().port, stop: () => { clearInterval(look); open.forEach((one) => one.destroy()); server.close(); } };
};

const replica = async (name, timeout = '60s') => {
  const own = `${folder}/${name}`;
  fs.mkdirSync(`${own}/audit`, { recursive: true });
  const ports = { port: await freePort(), status: await freePort() };
  fs.writeFileSync(`${own}/stagedoor.yaml`, `
version: stagedoor/v1
listeners:
  status: {kind: status, address: 127.0.0.1:${ports.status}}
  edge: {kind: reverse, address: 127.0.0.1:${ports.port}, tls: {certificates: [{cert: ${folder}/tls/tls.crt, key: ${folder}/tls/tls.key}]}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams: {up: {url: "http://127.0.0.1:${up.address().port}"}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: act, methods: [POST], path: /act, upstream: up, class: action}
audit: {directory: ${own}/audit}
process: {drain_delay: 500ms, drain_timeout: ${timeout}}
`);
  const target = { ...ports, ready: false, own };
  const begin = async () => {
    target.program = start(binary, ['run', '-c', `${own}/stagedoor.yaml`]);
    await until(`${name} to be ready`, async () => {
      if (!target.program.isRunning()) throw Object.assign(new Error(target.program.output()), { fatal: true });
      return target.ready;
    });
  };
  return Object.assign(target, { begin });
};

/** Puts a certificate where the replicas look, as the kubelet swaps a Secret. */
let version = 0;
const mountPair = (name) => {
  const { cert, key } = ca.issue(name, { names: ['localhost'] });
  const at = `${folder}/tls`;
  fs.mkdirSync(`${at}/..${version += 1}`, { recursive: true });
  fs.copyFileSync(cert, `${at}/..${version}/tls.crt`);
  fs.copyFileSync(key, `${at}/..${version}/tls.key`);
  fs.symlinkSync(`..${version}`, `${at}/..data_tmp`);
  fs.renameSync(`${at}/..data_tmp`, `${at}/..data`);
  for (const file of ['tls.crt', 'tls.key']) if (!fs.existsSync(`${at}/${file}`)) fs.symlinkSync(`..data/${file}`, `${at}/${file}`);
};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-rolling-'));
  ca = authority(folder);
  mountPair('edge-0');
  up = http.createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      const key = request.headers['idempotency-key'];
      if (key) ran.set(key, (ran.get(key) ?? 0) + 1);
      if (request.url.endsWith('/long')) {
        const more = setInterval(() => response.write('x'), 50);
        response.on('close', () => clearInterval(more));
        return;
      }
      // Some are long enough to be under way when their replica is told to end.
      setTimeout(() => response.end('{}'), request.url.endsWith('/slow') ? 300 : 5);
    });
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  replicas = [];
  for (let n = 0; n < REPLICAS; n += 1) replicas.push(await replica(`replica-${n}`));
  balancer = await balance(replicas);
  await Promise.all(replicas.map((one) => one.begin()));
});
after(async () => {
  balancer?.stop();
  for (const one of replicas ?? []) await one.program?.stop('SIGKILL');
  up.closeAllConnections(); up.close();
  fs.rmSync(folder, { recursive: true });
});

const authorization = `Bearer ${orbit('ada', ['payments'])}`;
/**
 * Asks on a session; answers with the status when all of the answer is there. `refused` is an error after which a client may ask
 * again whatever it was, because nobody began with it (RFC 9113 8.7): Node's own, if it had read GOAWAY but not looked at it.
 */
const on = (session, method, where, headers) => new Promise((resolve, reject) => {
  if (session.closed) throw Object.assign(new Error('its client was told to leave'), { refused: true });
  const stream = session.request({ ':method': method, ':path': where, ...headers }, { endStream: true });
  let status;
  stream.on('response', (head) => { status = head[':status']; });
  stream.on('error', (error) => reject(Object.assign(error, { refused: stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM })));
  stream.on('end', () => resolve(status));
  stream.resume();
});

/** Ways to ask, each with connections that it keeps. */
const clients = () => {
  const trusted = fs.readFileSync(ca.ca);
  const agent = new https.Agent({ keepAlive: true, maxSockets: 4, ca: trusted });
  const http1 = (method, where, headers) => new Promise((resolve, reject) => {
    const request = https.request({ host: 'localhost', port: balancer.port, method, path: where, agent, headers: { ...headers, 'content-length': 0 } }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode));
      answer.on('error', reject);
    });
    request.on('error', reject);
    request.end();
  });
  let session;
  const connect = () => {
    const made = http2.connect(`https://localhost:${balancer.port}`, { ca: trusted });
    const over = () => { if (session === made) session = undefined; };
    made.on('goaway', over); made.on('close', over); made.on('error', over);
    return made;
  };
  const h2 = (method, where, headers) => {
    const used = session ??= connect();
    return on(used, method, where, headers).catch((error) => {
      if (!error.refused) throw error;
      if (session === used) session = undefined;
      return h2(method, where, headers);
    });
  };
  return { ask: { http1, h2 }, close: () => { agent.destroy(); session?.destroy(); } };
};

/** Asks without a pause until it is told to stop; what came of it, by outcome. */
const load = (kinds) => {
  const { ask, close } = clients();
  const outcomes = {}; const keys = [];
  let stopped = false;
  const worker = async (kind, name) => {
    for (let n = 0; !stopped; n += 1) {
      const action = n % 5 === 4;
      const key = `${name}-${n}`;
      const outcome = await ask[kind](action ? 'POST' : 'GET', action ? '/act' : `/read/${n % 7 ? 'fast' : 'slow'}`, { authorization, ...(action && { 'idempotency-key': key }) })
        .catch((error) => `${kind} ${action ? 'action' : 'read'}: ${error.code ?? error.message}`);
      if (action && outcome === 200) keys.push(key);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    }
  };
  const workers = kinds.flatMap((kind, k) => Array.from({ length: 4 }, (_, n) => worker(kind, `${kind}-${k}-${n}-${Math.random()}`)));
  return { stop: async () => { stopped = true; await Promise.all(workers); close(); return { outcomes, keys }; } };
};

test(`no request is lost in ${ROUNDS} rolling restarts of ${REPLICAS} replicas, and no action runs twice`, async () => {
  const under = load(['http1', 'h2']);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const one of replicas) {
      const begun = Date.now();
      assert.equal(await one.program.stop('SIGTERM'), 0);
      assert.ok(Date.now() - begun < 30000, 'its clients leave it when they are told, long before `drain_timeout`');
      await one.begin();
    }
  }
  const { outcomes, keys } = await under.stop();
  assert.deepEqual(Object.keys(outcomes), ['200'], JSON.stringify(outcomes));
  assert.ok(outcomes[200] > 100 * ROUNDS && keys.length > 20 * ROUNDS, JSON.stringify(outcomes));
  assert.deepEqual(keys.filter((key) => ran.get(key) !== 1), []);
  const served = replicas.map(({ own }) => fs.readdirSync(`${own}/audit`).filter((name) => name.endsWith('.jsonl')).length);
  assert.ok(served.every((segments) => segments > ROUNDS), `each served in each of its lives: ${served}`);
});

test('a certificate that the kubelet swaps is served by all replicas, and nobody notices', async () => {
  const under = load(['http1', 'h2']);
  mountPair('edge-1');
  const wanted = new (require('node:crypto').X509Certificate)(fs.readFileSync(ca.file('edge-1.crt'))).serialNumber;
  const serial = (port) => new Promise((resolve, reject) => {
    const socket = require('node:tls').connect({ port, host: '127.0.0.1', servername: 'localhost', ca: fs.readFileSync(ca.ca) }, () => { resolve(socket.getPeerCertificate().serialNumber); socket.destroy(); });
    socket.on('error', reject);
  });
  for (const one of replicas) await until('the new certificate', async () => await serial(one.port) === wanted, 15000);
  const { outcomes } = await under.stop();
  assert.deepEqual(Object.keys(outcomes), ['200'], JSON.stringify(outcomes));
});

/** A replica of its own that a test ends, and sessions with it; each notes when it was told to leave, and when it was closed. */
const leaving = async (name, timeout, body) => {
  const one = await replica(name, timeout);
  one.ready = true;
  await one.begin();
  await until('it to serve', async () => (await fetch(`http://127.0.0.1:${one.status}/readyz`)).ok);
  const sessions = [];
  const connect = () => {
    const session = http2.connect(`https://localhost:${one.port}`, { ca: fs.readFileSync(ca.ca) });
    const facts = { session, told: undefined, closed: undefined, there: new Promise((resolve) => { session.once('remoteSettings', resolve); }) };
    session.on('goaway', (code) => { assert.equal(code, http2.constants.NGHTTP2_NO_ERROR); facts.told ??= Date.now(); });
    session.on('close', () => { facts.closed ??= Date.now(); });
    session.on('error', () => {});
    sessions.push(session);
    return facts;
  };
  try {
    await body(one, connect);
  } finally {
    sessions.forEach((session) => session.destroy());
    await one.program.stop('SIGKILL');
  }
};
const read = (session, where = '/read/fast') => on(session, 'GET', where, { authorization });

test('clients of HTTP/2 are told to leave after the delay, get all of their answers, and hold nothing up', async () => {
  await leaving('told', '60s', async (one, connect) => {
    const [unused, idle, busy] = [connect(), connect(), connect()];
    assert.equal(await read(idle.session), 200);
    await unused.there;
    const outcomes = {}; const refused = [];
    // There is always something under way, and each asks again at once, until it is told.
    const workers = Array.from({ length: 12 }, async (_, n) => {
      for (let k = 0; !busy.told; k += 1) {
        const where = `/read/${n}-${k}/${n % 3 ? 'fast' : 'slow'}`;
        const outcome = await read(busy.session, where).catch((error) => (error.refused ? refused.push(where) && 'refused' : error.code ?? error.message));
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
      }
    });
    await until('it to be busy', async () => outcomes[200] > 50);
    const begun = Date.now();
    one.program.signal('SIGTERM');
    assert.equal(await one.program.ended, 0);
    assert.ok(Date.now() - begun < 30000, 'nobody holds it');
    await Promise.all(workers);
    assert.deepEqual(Object.keys(outcomes).filter((one) => one !== 'refused'), ['200'], JSON.stringify(outcomes));
    const records = segments(`${one.own}/audit`).map(text).join('');
    assert.equal((records.match(/\/(fast|slow)"/g) ?? []).length, outcomes[200] + 1, 'one record for each answer');
    assert.deepEqual(refused.filter((where) => records.includes(where)), [], 'nothing was begun that its client takes for refused');
    for (const facts of [unused, idle, busy]) {
      await until('it to be closed', async () => facts.closed);
      assert.ok(facts.told >= begun + 400, 'not before a balancer has noticed');
    }
  });
});

test('a long stream of HTTP/2 goes on after its client was told to leave, until `drain_timeout`', async () => {
  await leaving('long', '6s', async (one, connect) => {
    const facts = connect();
    const stream = facts.session.request({ ':path': '/read/long', authorization });
    const ended = new Promise((resolve) => { stream.on('close', resolve); stream.on('error', () => {}); });
    let last = 0;
    stream.on('data', () => { last = Date.now(); });
    await until('it to begin', async () => last > 0);
    one.program.signal('SIGTERM');
    await until('its client to be told', async () => facts.told);
    // Who comes now is answered once, and told then; not before, or it would come again and again.
    const late = connect();
    await late.there;
    await new Promise((resolve) => { late.session.ping(() => resolve()); });
    assert.equal(late.told, undefined);
    assert.equal(await read(late.session), 200);
    await until('it to be told', async () => late.told && late.closed);
    await ended;
    assert.ok(last - facts.told > 4000, `it went on for ${last - facts.told} ms`);
    assert.equal(await one.program.ended, 0);
  });
});
