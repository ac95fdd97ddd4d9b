'use strict';
// What only sockets show: framing, limits, headers, timeouts, streams. A real upstream in Node.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const { after, before, test } = require('node:test');
const WebSocket = require('ws');
const { identity, orbit } = require('../rig/jwt');
const { stagedoor } = require('../rig/stagedoor');
const { upstream, raw } = require('../rig/upstream');
const { freePort, until } = require('../rig/ports');

let up; let door; let ada; let eagerPort;
const config = (dead) => (ports, folder) => `
listeners:
  edge:
    kind: reverse
    address: 127.0.0.1:${ports.edge}
    limits: {head_timeout: 1s, body_timeout: 1s, keepalive_timeout: 2s, head_max: 16KiB, body_max: 100KiB}
${identity(folder)}
workspaces: {named: {payments: {}, web: {}}}
upstreams:
  up: {url: ${up.url}, timeouts: {upstream: 1s, total: 2s, upgrade: 1s}, breaker: {requests_min: 1000000}}
  eager: {url: "http://127.0.0.1:${eagerPort}"}
  dead: {url: "http://127.0.0.1:${dead}", breaker: {requests_min: 1000000}}
  half: {url: "${up.url.replace('127.0.0.1', 'localhost')}"}
  dxcp: {url: ${up.url}, authority: delivery, breaker: {requests_min: 1000000}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 10000}, per_client: {rate: 100000/s, burst: 10000}}
presets:
- {preset: dxcp, upstream: dxcp, hosts: [dxcp.example]}
routes:
- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true, upgrade: true}}
- {name: read, methods: [ANY], path: /read/**, upstream: up, class: read}
- {name: act, methods: [ANY], path: /act/**, upstream: up, class: action}
- {name: eager, methods: [GET], path: /eager, upstream: eager, class: read, options: {public: true, upgrade: true}}
- {name: dead, methods: [ANY], path: /dead, upstream: dead, class: read, options: {public: true}}
- {name: half, methods: [POST], path: /half, upstream: half, class: action, options: {public: true}}
`;

before(async () => {
  up = await upstream();
  eagerPort = await freePort();
  door = await stagedoor(config(await freePort()));
  ada = { authorization: `Bearer ${orbit('ada', ['payments'])}` };
});
after(async () => { await door?.stop(); await up?.stop(); });

const get = (path, options) => fetch(`${door.url}${path}`, options);
const code = async (answer) => [answer.status, (await answer.json()).code];

test('a governed request arrives with what was verified, and ends as one record', async () => {
  const answer = await get('/read/x?a=1', { headers: { ...ada, 'x-request-id': 'test-1', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' } });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get('x-request-id'), 'test-1');
  const { headers } = up.last();
  assert.equal(headers['x-orbit-workspace-id'], 'payments');
  assert.equal(headers['x-orbit-user-id'], 'ada');
  assert.equal(headers['x-request-id'], 'test-1');
  const record = await door.record((r) => r.id === 'test-1');
  assert.deepEqual(
    { caller: record.caller, workspace: record.workspace, route: record.route, decision: record.decision, status: record.status, trace: record.trace_id },
    { caller: 'ada', workspace: 'payments', route: 'read', decision: 'allow', status: 200, trace: '0af7651916cd43dd8448eb211c80319c' },
  );
  assert.match(record.rule, /stagedoor\.yaml:\d+:\d+$/);
});

test('the assertion is signed by the key at /jwks', async () => {
  await get('/read/x', { headers: ada });
  const token = up.last().headers['x-stagedoor-assertion'];
  const [header, claims, signature] = token.split('.');
  const parsed = JSON.parse(Buffer.from(claims, 'base64url'));
  assert.equal(parsed.sub, 'ada');
  assert.equal(parsed.aud, 'up');
  assert.equal(parsed.workspace, 'payments');
  assert.ok(parsed.exp - parsed.iat <= 60);
  const { keys } = await (await door.admin('/jwks')).json();
  const key = require('node:crypto').createPublicKey({ key: keys[0], format: 'jwk' });
  const good = require('node:crypto').verify('sha256', Buffer.from(`${header}.${claims}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
  assert.ok(good);
});

test('no spelling of an identity header survives, nor can Connection take ours away', async () => {
  const head = (lines) => `GET /read/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\n${lines}Connection: close\r\n\r\n`;
  for (const line of ['X-Orbit-User-Id: evil', 'x-orbit-user-id: evil', 'X_Orbit_User_Id: evil', 'X-ORBIT_USER-ID: evil', 'x.orbit.user.id: evil',
    'X-Stagedoor-Assertion: evil', 'x_stagedoor_assertion: evil', 'X-Orbit-Plugin-Id: evil', 'Forwarded: for=evil', 'X-Real-IP: evil', 'X-Forwarded-For: evil', 'X-Forwarded-Host: evil']) {
    const before = up.seen.length;
    assert.match(await raw(door.ports.edge, head(`${line}\r\n${line}\r\n`)), /^HTTP\/1.1 200/);
    assert.equal(up.seen.length, before + 1);
    assert.ok(!up.last().raw.includes('evil'), `${line} reached the upstream`);
  }
  for (const nominated of ['x-orbit-user-id', 'x-orbit-workspace-id, x-stagedoor-assertion', 'X-Request-Id']) {
    const answer = await raw(door.ports.edge, `GET /read/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\nConnection: close, ${nominated}\r\n\r\n`);
    assert.match(answer, /^HTTP\/1.1 200/);
    assert.equal(up.last().headers['x-orbit-user-id'], 'ada');
    assert.equal(up.last().headers['x-orbit-workspace-id'], 'payments');
    assert.ok(up.last().headers['x-stagedoor-assertion']);
  }
  await raw(door.ports.edge, `POST /read/x HTTP/1.1\r\nHost: a\r\nAuthorization: ${ada.authorization}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Orbit-User-Id\r\n\r\n1\r\na\r\n0\r\nX-Orbit-User-Id: evil\r\n\r\n`);
  assert.ok(!up.last().raw.includes('evil') && !up.last().trailers.includes('evil'));
});

test('a head that can be read in two ways is refused and on record', async () => {
  const bad = [
    ['GET /open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 400, 'head_malformed'],
    ['GET /open/x HTTP/1.1\nHost: a\n\n\r\n\r\n', 400, 'head_malformed'],
    ['GET /open/x HTTP/1.1\r\nHost : a\r\n\r\n', 400, 'head_malformed'],
    ['POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400, 'framing_ambiguous'],
    ['POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc', 400, 'framing_ambiguous'],
    ['POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc', 400, 'framing_ambiguous'],
    ['POST /open/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n', 400, 'framing_ambiguous'],
    ['CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n', 400, 'connect_refused'],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'head_malformed'],
    [`GET /open/x HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20000)}\r\n\r\n`, 431, 'head_too_large'],
    [`GET /open/x HTTP/1.1\r\nHost: a\r\n${'a: b\r\n'.repeat(101)}\r\n`, 431, 'head_too_large'],
  ];
  for (const [bytes, status, expected] of bad) {
    const seen = up.seen.length;
    const answer = await raw(door.ports.edge, bytes);
    assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `), bytes.slice(0, 80));
    const body = JSON.parse(answer.split('\r\n\r\n')[1]);
    assert.equal(body.code, expected);
    assert.equal(up.seen.length, seen, 'nothing reached the upstream');
    const record = await door.record((r) => r.id === body.request_id);
    assert.equal(record.code, expected);
  }
});

test('a CONNECT after a good request on the same connection is refused too', async () => {
  const good = 'GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n';
  const socket = net.connect(door.ports.edge, '127.0.0.1');
  let got = '';
  socket.on('data', (d) => { got += d; });
  socket.write(good);
  await until('the first answer', async () => got.includes('200 OK'));
  socket.write('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n');
  await until('the refusal', async () => got.includes('connect_refused'));
  socket.destroy();
});

test('a slow client is cut off: in its head, in its body, when it says nothing', async () => {
  const begun = Date.now();
  const [head, body, nothing] = await Promise.all([
    raw(door.ports.edge, 'GET /open/x HTTP/1.1\r\nHost: a\r\n', { ms: 8000 }),
    raw(door.ports.edge, 'POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab', { ms: 8000 }),
    raw(door.ports.edge, [], { ms: 8000 }),
  ]);
  assert.match(head, /^HTTP\/1.1 408 .*head_timeout/s);
  assert.match(body, /^HTTP\/1.1 408 .*body_timeout/s);
  assert.equal(nothing, '');
  assert.ok(Date.now() - begun < 7000);
});

test('a token after two spaces counts, and goes on as it came', async () => {
  // Node's client would send one space.
  const head = await raw(door.ports.edge, `GET /read/spaces HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer  ${ada.authorization.split(' ')[1]}\r\nConnection: close\r\n\r\n`);
  assert.match(head, /^HTTP\/1.1 200 /);
  assert.equal(up.last().headers.authorization, ada.authorization.replace(' ', '  '));
});

test('a body over the limit is refused, told ahead or not', async () => {
  assert.deepEqual(await code(await get('/open/x', { method: 'POST', body: 'x'.repeat(200 * 1024) })), [413, 'body_too_large']);
  const stream = new ReadableStream({ pull(c) { c.enqueue(Buffer.alloc(16384)); if ((this.n = (this.n ?? 0) + 1) > 20) c.close(); } });
  const answer = await get('/open/x', { method: 'POST', body: stream, duplex: 'half' }).catch((error) => error);
  if (answer.status) assert.equal(answer.status, 413);
  await door.record((r) => r.code === 'body_too_large' && r.bytes_in > 0);
});

test('what an upstream does wrong has a code of its own', async () => {
  const check = async (path, status, expected) => {
    const answer = await get(path);
    assert.deepEqual(await code(answer), [status, expected], path);
    assert.ok(!answer.headers.get('x-powered-by'));
  };
  await check('/dead', 502, 'upstream_unreachable');
  await check('/open/x?do=reset', 502, 'upstream_reset');
  await check('/open/x?do=close', 502, 'upstream_reset');
  await check('/open/x?do=garbage', 502, 'upstream_malformed');
  await check('/open/x?do=hang', 504, 'upstream_timeout');
  await assert.rejects(async () => (await get('/open/x?do=cut')).text());
  const moving = await get('/open/x?do=trickle');
  let parts = 0;
  for await (const _ of moving.body) { parts += 1; if (parts > 30) break; }
  assert.ok(parts > 30, 'what moves may take its time');
  // Its own answers pass as they are.
  for (const status of [404, 410, 418, 500, 503]) assert.equal((await get(`/open/x?do=status&n=${status}`)).status, status);
  const limited = await get('/open/x?do=status&n=429');
  assert.deepEqual([limited.status, limited.headers.get('retry-after')], [429, '60']);
});

test('an address of an upstream that nobody listens at is passed over, every time', async () => {
  // `localhost` is two addresses, and the upstream has one of them.
  for (let n = 0; n < 20; n += 1) assert.equal((await get('/half', { method: 'POST', body: 'x' })).status, 200);
});

test('an action is asked of the upstream once, whatever happens', async () => {
  const before = up.seen.length;
  const answer = await get('/act/x?do=reset', { method: 'POST', headers: ada });
  assert.equal(answer.status, 502);
  assert.equal((await get('/act/x?do=close', { method: 'PUT', headers: ada })).status, 502);
  assert.equal(up.seen.length, before + 2);
});

test('answers of the control plane are not stored, and what must not leave is cut out', async () => {
  const body = JSON.stringify({ id: 'd1', engineExecutionId: 'E', latest: { engineExecutionUrl: 'http://engine', state: 'OK' }, n: 1.50 });
  const ask = (query, headers = {}) => raw(door.ports.edge, `GET /v1/services?${query} HTTP/1.1\r\nHost: dxcp.example\r\nAuthorization: ${ada.authorization}\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n`);
  const answer = await ask(`do=json&body=${encodeURIComponent(body)}`);
  assert.match(answer, /cache-control: no-store/i);
  assert.doesNotMatch(answer, /etag/i);
  assert.match(answer, /\{"id":"d1","latest":\{"state":"OK"\},"n":1.5\}/);
  assert.equal(up.last().headers['accept-encoding'], undefined);
  const same = JSON.stringify({ code: 'QUOTA_EXCEEDED', message: 'x' });
  assert.ok((await ask(`do=json&body=${encodeURIComponent(same)}`)).includes(same));
  assert.match(await ask('do=gzip'), /^HTTP\/1.1 502 .*redaction_impossible/s);
  assert.match(await ask(`do=json&body=${encodeURIComponent('{"operator_hint": "x"')}`), /^HTTP\/1.1 (502|200)/);
  assert.ok(!(await ask(`do=json&body=${encodeURIComponent('{"operator_hint": "x"')}`)).includes('operator_hint'));
});

test('several cookies stay several', async () => {
  const answer = await get('/open/x?do=cookies');
  assert.deepEqual(answer.headers.getSetCookie(), ['a=1', 'b=2', 'c=3']);
});

test('server-sent events come as they are sent, past the usual timeouts', async () => {
  const answer = await get('/open/x?do=sse&ms=2500', { headers: { accept: 'text/event-stream' } });
  const reader = answer.body.getReader();
  const first = Buffer.from((await reader.read()).value).toString();
  assert.match(first, /first/);
  assert.match(Buffer.from((await reader.read()).value).toString(), /second/);
});

test('a WebSocket passes the same checks as any request', async () => {
  const open = (path, options) => new Promise((resolve) => {
    const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}${path}`, options?.protocols ?? [], options);
    ws.on('open', () => resolve(ws));
    ws.on('unexpected-response', (_, answer) => resolve(answer.statusCode));
    ws.on('error', () => {});
  });
  assert.equal(await open('/read/ws'), 403, 'the route lets no upgrade through');
  const ws = await open('/open/ws');
  const echoed = new Promise((resolve) => ws.once('message', (data) => resolve(String(data))));
  ws.send('hello');
  assert.equal(await echoed, 'hello');
  ws.close();
  await door.record((r) => r.upgraded === true);
});

test('a WebSocket may be silent for longer than an answer may take', async () => {
  const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/open/ws`);
  await new Promise((resolve) => ws.once('open', resolve));
  let closed = false;
  ws.once('close', () => { closed = true; });
  // The upstream's timeout is 1 s: two other exchanges run into it one after the other.
  await get('/open/x?do=hang');
  await get('/open/x?do=hang');
  assert.equal(closed, false);
  const echoed = new Promise((resolve) => ws.once('message', (data) => resolve(String(data))));
  ws.send('still here');
  assert.equal(await echoed, 'still here');
  ws.close();
});

test('an upgrade whose upstream answers at once is not torn down', async () => {
  // It says 101 as soon as it is called, which is before the end of the request has been noted.
  const eager = net.createServer((socket) => {
    socket.setNoDelay(true);
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n');
    let head = true;
    socket.on('data', (data) => {
      const end = head ? data.indexOf('\r\n\r\n') : -4;
      if (end < 0 && head) return;
      head = false;
      if (data.length > end + 4) socket.write(data.subarray(end + 4));
    });
    socket.on('error', () => {});
  });
  await new Promise((resolve) => eager.listen(eagerPort, '127.0.0.1', resolve));
  let failed = 0;
  const one = () => new Promise((resolve) => {
    const socket = net.connect(door.ports.edge, '127.0.0.1');
    let got = '';
    let sent = false;
    socket.on('data', (data) => {
      got += data;
      if (!sent && got.includes('\r\n\r\n')) { sent = true; socket.write('ping'); }
      if (got.endsWith('ping')) { socket.destroy(); resolve(); }
    });
    socket.on('error', () => {});
    socket.on('close', () => { if (!got.endsWith('ping')) { failed += 1; resolve(); } });
    socket.write('GET /eager HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  });
  for (let n = 0; n < 60; n += 1) await Promise.all(Array.from({ length: 10 }, one));
  eager.close();
  assert.equal(failed, 0);
});

test('an upgrade that is never answered ends in time', async () => {
  const begun = Date.now();
  const status = await new Promise((resolve) => {
    const ws = new WebSocket(`ws://127.0.0.1:${door.ports.edge}/open/ws?do=silent`);
    ws.on('unexpected-response', (_, answer) => resolve(answer.statusCode));
    ws.on('error', () => {});
    ws.on('close', () => resolve('closed'));
  });
  assert.equal(status, 504);
  assert.ok(Date.now() - begun < 5000);
});

test('secrets do not get into records, logs, metrics or the config page', async () => {
  await get('/read/x?token=topsecret1', { headers: { ...ada, cookie: 'session=topsecret2', 'x-api-key': 'topsecret3' } });
  await raw(door.ports.edge, 'GET /x?token=topsecret4 HTTP/1.1\r\nHost : a\r\n\r\n');
  await get('/read/x', { headers: { authorization: 'Bearer topsecret5' } });
  await door.record((r) => r.code === 'token_malformed');
  const everything = JSON.stringify(door.records()) + door.output()
    + await (await door.admin('/metrics')).text() + await (await door.admin('/config')).text() + await (await door.admin('/state')).text();
  assert.doesNotMatch(everything, /topsecret\d/);
  assert.ok(!everything.includes(ada.authorization.split('.')[2]));
  assert.ok(!everything.includes('0123456789abcdef0123456789abcdef'));
});

test('every exchange has exactly one record', async () => {
  const ids = Array.from({ length: 50 }, (_, n) => `count-${n}`);
  await Promise.all(ids.map((id, n) => get(n % 2 ? '/open/x' : '/read/x', { headers: { 'x-request-id': id } }).then((a) => a.text())));
  await until('the records', async () => door.records().filter((r) => r.id.startsWith('count-')).length >= 50, 5000);
  assert.equal(door.records().filter((r) => r.id.startsWith('count-')).length, 50);
});

test('a broken config changes nothing under load, and is told; a good one is in force', async () => {
  const good = fs.readFileSync(door.file, 'utf8');
  let failed = 0; let running = true;
  const load = Promise.all(Array.from({ length: 8 }, async () => {
    while (running) if ((await get('/open/x')).status !== 200) failed += 1;
  }));
  fs.writeFileSync(door.file, good.replace('class: action', 'clas: action'));
  const bad = await door.reload();
  assert.equal(bad.successful, false);
  assert.match(bad.messages.join(), /stagedoor\.yaml:\d+:\d+: unknown key `clas`.*did you mean `class`/);
  assert.match(await (await door.admin('/metrics')).text(), /stagedoor_config_last_reload_successful 0/);
  fs.writeFileSync(door.file, good.replace('path: /dead,', 'path: /dead2,'));
  const better = await door.reload();
  assert.equal(better.successful, true, better.messages.join());
  assert.equal((await get('/dead')).status, 403);
  running = false;
  await load;
  assert.equal(failed, 0);
  assert.match(await (await door.admin('/metrics')).text(), /stagedoor_config_last_reload_successful 1/);
});
