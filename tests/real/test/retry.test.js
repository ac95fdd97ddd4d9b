'use strict';
// Reads that failed are asked again, actions never, and never without end.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { stagedoor } = require('../rig/stagedoor');

let up; let door; let gone;
/** What is answered to each request, in turn; then 200. */
let script = [];
const seen = [];
const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams:
  up: {url: "http://127.0.0.1:${up.address().port}", retries: {budget_percent: 100}, breaker: {requests_min: 1000}}
  gone: {url: "http://127.0.0.1:${gone}", breaker: {requests_min: 1000}}
  once: {url: "http://127.0.0.1:${up.address().port}", retries: {attempts_max: 1}, breaker: {requests_min: 1000}}
  sick: {url: "http://127.0.0.1:${up.address().port}", retries: {budget_percent: 10}, breaker: {requests_min: 100000}}
  breaks: {url: "http://127.0.0.1:${up.address().port}", breaker: {requests_min: 2, open_duration: 60s}}
  dxcp: {url: "http://127.0.0.1:${up.address().port}", breaker: {requests_min: 1000, ignore: [{status: 503, content_type: application/json}]}}
routes:
${['up', 'gone', 'once', 'sick', 'breaks', 'dxcp'].map((name) => `- {name: ${name}, methods: [GET, HEAD, POST], path: /${name}/**, upstream: ${name}, class: read}
- {name: ${name}-act, methods: [GET, POST], path: /act/${name}, upstream: ${name}, class: action}`).join('\n')}
- {name: brief, methods: [GET], path: /brief, upstream: up, class: read, options: {timeouts: {total: 1s}}}`;

before(async () => {
  up = http.createServer((request, response) => {
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      seen.push({ at: Date.now(), method: request.method, url: request.url, body });
      const answer = (typeof script === 'function' ? script(request) : script.shift()) ?? 200;
      if (answer === 'reset') return request.socket.destroy();
      if (answer === 'half') { response.writeHead(200, { 'content-length': 100 }); response.write('half'); return setTimeout(() => request.socket.destroy(), 50); }
      const { status, headers, text } = typeof answer === 'number' ? { status: answer } : answer;
      response.writeHead(status, headers);
      response.end(text ?? `answer ${seen.length}`);
    });
  });
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  gone = await freePort();
  door = await stagedoor(config);
  // They earn what is asked again in the tests.
  for (let n = 0; n < 100; n += 1) await ask('/up/earn');
});
after(async () => { await door.stop(); up.closeAllConnections(); up.close(); });

const bearer = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
const ask = async (where, { method = 'GET', ...options } = {}) => {
  seen.length = 0;
  const began = Date.now();
  const answer = await fetch(`${door.url}${where}`, { method, headers: bearer, ...options });
  const text = await answer.text().catch(() => 'cut');
  return { status: answer.status, text, attempts: seen.length, took: Date.now() - began, headers: answer.headers };
};
const last = async (fits) => (await until('its record', async () => door.records().filter(fits).at(-1)));
const metric = async (line) => Number((await (await door.admin('/metrics')).text()).split('\n').find((l) => l.startsWith(line))?.split(' ').at(-1) ?? 0);

test('a read is asked again after 502, 503 and 504, and once more', async () => {
  for (const status of [502, 503, 504]) {
    script = [status, status];
    const got = await ask(`/up/${status}`);
    assert.deepEqual([got.status, got.attempts, got.text], [200, 3, 'answer 3'], `${status}`);
    assert.equal((await last((r) => r.path === `/up/${status}`)).attempts, 3);
  }
  script = [503, 503, 503, 503];
  const got = await ask('/up/all');
  assert.deepEqual([got.status, got.attempts, got.text], [503, 3, 'answer 3'], 'the last answer is passed on as it is');
  assert.ok(await metric('stagedoor_retries_total{upstream="up"}') >= 8);
  assert.equal(await metric('backstage_retry_attempts_total'), await metric('stagedoor_retries_total{upstream="up"}'));
});

test('what is no passing failure is answered once', async () => {
  for (const status of [200, 304, 400, 401, 404, 429, 500, 501]) {
    script = [status];
    const got = await ask('/up/other');
    assert.deepEqual([got.status, got.attempts], [status, 1]);
  }
  // The control plane is up, and says so in JSON: an answer of policy.
  script = [{ status: 503, headers: { 'content-type': 'application/json' }, text: '{"code":"MUTATIONS_DISABLED"}' }];
  const got = await ask('/dxcp/x');
  assert.deepEqual([got.status, got.attempts, got.text], [503, 1, '{"code":"MUTATIONS_DISABLED"}']);
});

test('an action is asked once, whatever comes of it and whatever its method', async () => {
  for (const [answer, status] of [[503, 503], [502, 502], ['reset', 502]]) {
    for (const method of ['POST', 'GET']) {
      script = [answer];
      const got = await ask('/act/up', { method });
      assert.deepEqual([got.status, got.attempts], [status, 1], `${method} ${answer}`);
    }
  }
  script = [503];
  const read = await ask('/up/x', { method: 'POST', body: 'b' });
  assert.deepEqual([read.status, read.attempts], [503, 1], 'nor is a POST that reads');
});

test('a connection that breaks before the answer is one more attempt, and within it is not', async () => {
  script = ['reset', 'reset'];
  const got = await ask('/up/reset');
  assert.deepEqual([got.status, got.text], [200, `answer ${seen.length}`]);
  script = ['half'];
  const half = await ask('/up/half');
  assert.deepEqual([half.text, half.attempts], ['cut', 1]);
});

test('an upstream over HTTP/2 that breaks each connection has reset it, at whatever moment', async (t) => {
  const raw = new Map();
  /** What a connection over TLS comes to. */
  const ways = {
    'at once': (break_) => break_(),
    'when we are greeted': (break_, socket) => socket.once('data', break_),
    'when something is asked': (break_, socket) => asked(socket, break_),
    // GOAWAY, before the first stream.
    'by going away': (_, socket) => asked(socket, () => socket.end(Buffer.from([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))),
    // INTERNAL_ERROR. The last, for the connection stays.
    'with its stream alone': (_, socket) => asked(socket, (stream) => socket.write(Buffer.from([0, 0, 4, 3, 0, ...stream, 0, 0, 0, 2]))),
  };
  /** Greets, and tells the streams on which something is asked. */
  const asked = (socket, then) => {
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
    let got = Buffer.alloc(0);
    let preface = 24;
    socket.on('data', (data) => {
      got = Buffer.concat([got, data]);
      if (got.length < preface) return;
      got = got.subarray(preface);
      preface = 0;
      for (let length; got.length >= 9 && got.length >= (length = 9 + got.readUIntBE(0, 3)); got = got.subarray(length)) {
        if (got[3] === 1) then(got.subarray(5, 9));
      }
    });
  };
  let way;
  let issued;
  const own = await stagedoor((ports, folder) => {
    const { issue, ca } = authority(folder);
    issued = issue('up', { names: ['127.0.0.1'] });
    return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(folder)}
workspaces: {named: {payments: {}}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}}
upstreams:
  up: {url: "https://127.0.0.1:${ports.tls}", http: h2, tls: {ca: ${ca}}, breaker: {requests_min: 100000}}
routes:
- {name: act, methods: [POST], path: /act, upstream: up, class: action}`;
  });
  t.after(() => own.stop());
  const breaks = tls.createServer({ cert: fs.readFileSync(issued.cert), key: fs.readFileSync(issued.key), ALPNProtocols: ['h2'] }, (socket) => {
    socket.on('error', () => {});
    way(() => raw.get(socket.remotePort)?.resetAndDestroy(), socket);
  });
  breaks.on('connection', (socket) => { raw.set(socket.remotePort, socket); socket.on('error', () => {}); });
  await new Promise((resolve) => breaks.listen(own.ports.tls, '127.0.0.1', resolve));
  t.after(() => { breaks.close(); raw.forEach((socket) => socket.destroy()); });
  const found = {};
  for (const [name, one] of Object.entries(ways)) {
    way = one;
    found[name] = {};
    for (let n = 0; n < 40; n += 1) {
      const answer = await fetch(`${own.url}/act`, { method: 'POST', headers: bearer, signal: AbortSignal.timeout(20000) });
      const { code } = await answer.json();
      found[name][`${answer.status} ${code}`] = (found[name][`${answer.status} ${code}`] ?? 0) + 1;
    }
  }
  assert.deepEqual(found, Object.fromEntries(Object.keys(ways).map((name) => [name, { '502 upstream_reset': 40 }])));
});

test('an upstream that takes no connection is asked three times', async () => {
  const got = await ask('/gone/x');
  assert.equal(got.status, 502);
  const record = await last((r) => r.route === 'gone');
  assert.deepEqual([record.attempts, record.code], [3, 'upstream_unreachable']);
  const back = net.createServer((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'));
  const asking = ask('/gone/y');
  await new Promise((resolve) => back.listen(gone, '127.0.0.1', resolve));
  const found = await asking;
  back.close();
  assert.ok(found.status === 200 || found.took < 400, 'it came too late');
  assert.equal((await ask('/act/gone', { method: 'POST' })).status, 502);
  assert.equal((await last((r) => r.route === 'gone-act')).attempts, 1);
});

test('Retry-After is waited for if there is time, and else the answer is passed on', async () => {
  script = [{ status: 503, headers: { 'retry-after': '1' } }];
  const got = await ask('/up/after');
  assert.deepEqual([got.status, got.attempts], [200, 2]);
  assert.ok(seen[1].at - seen[0].at >= 990, `${seen[1].at - seen[0].at} ms`);
  for (const value of ['11', '9999999999999999999']) {
    script = [{ status: 503, headers: { 'retry-after': value } }];
    const passed = await ask('/up/later');
    assert.equal(passed.status, value === '11' ? 503 : passed.status);
    if (value === '11') assert.deepEqual([passed.attempts, passed.headers.get('retry-after')], [1, '11']);
  }
  script = [{ status: 503, headers: { 'retry-after': '1' } }];
  assert.deepEqual([(await ask('/brief')).status, seen.length], [503, 1], 'the exchange has one second');
});

test('one attempt is what attempts_max: 1 says', async () => {
  script = [503];
  assert.deepEqual([(await ask('/once/x')).status, seen.length], [503, 1]);
});

test('a body that came with a read is sent again, whole', async () => {
  script = [503];
  const got = await new Promise((resolve) => {
    seen.length = 0;
    const request = http.request(`${door.url}/up/body`, { method: 'GET', headers: { ...bearer, 'content-length': 5 } }, (answer) => { answer.resume(); answer.on('end', () => resolve(answer.statusCode)); });
    request.end('hello');
  });
  assert.deepEqual([got, seen.map((request) => request.body)], [200, ['hello', 'hello']]);
});

test('a sick upstream gets a tenth more and a few a second, not three times as much', async () => {
  script = () => 503;
  seen.length = 0;
  const began = Date.now();
  const answers = await Promise.all(Array.from({ length: 300 }, () => fetch(`${door.url}/sick/x`, { headers: bearer }).then((r) => r.arrayBuffer().then(() => r.status))));
  script = [];
  assert.deepEqual([...new Set(answers)], [503]);
  const seconds = (Date.now() - began) / 1000;
  // The clock of the budget began with the process: what was saved up meanwhile is at most 100.
  assert.ok(seen.length > 300 && seen.length <= 300 + 30 + 100 + 3 * Math.ceil(seconds), `${seen.length} attempts for 300 requests`);
});

test('each attempt counts for the breaker, which ends them', async () => {
  script = () => 503;
  const got = await ask('/breaks/x');
  assert.deepEqual([got.status, got.attempts], [503, 2], 'the second failure opened it');
  const next = await ask('/breaks/x');
  assert.deepEqual([next.status, next.attempts, JSON.parse(next.text).code], [503, 0, 'breaker_open']);
  script = [];
});
