'use strict';
// What an operator does: checks and explains configs, changes them while the proxy runs, looks at its admin
// listener, and finds out what happens when a disk is full or an upstream does not answer.

const assert = require('node:assert/strict');
const { execFile, execFileSync, spawn } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const https = require('node:https');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const tls = require('node:tls');
const { after, before, test } = require('node:test');
const Ajv = require('ajv/dist/2020');
const { authority } = require('../rig/certificates');
const { control } = require('../rig/control');
const { identity, orbit, SECRET } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { start } = require('../rig/process');
const rig = require('../rig/stagedoor');
const { upstream, raw } = require('../rig/upstream');

const root = path.join(__dirname, '../../..');
const doc = (name) => fs.readFileSync(path.join(root, name), 'utf8');
/** Wide enough that no limit is met by accident. */
const WIDE = 'rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}, per_client: {rate: 100000/s, burst: 100000}}';

let folder; let up; let ca; let count = 0;
before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-operator-'));
  up = await upstream();
  ca = authority(path.join(folder, 'ca'));
  ca.issue('edge', { names: ['edge.example', 'localhost'] });
  ca.issue('other', { names: ['other.example'] });
});
after(async () => {
  await up?.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

/** Writes a file of the tests; answers with its path. */
const file = (text, name = `${count += 1}.yaml`) => {
  const at = path.join(folder, name);
  fs.writeFileSync(at, text);
  return at;
};

/** Runs the program to its end. */
const run = (args, { input = '', env = {}, cwd } = {}) => new Promise((resolve) => {
  const options = { env: { ...process.env, ...env }, cwd, timeout: 15000, maxBuffer: 1 << 24 };
  const child = execFile(rig.binary, args, options, (error, out, err) => resolve({ code: error ? error.code ?? error.signal : 0, out, err }));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
});

/** Runs a test's body with a proxy that ends with it. */
const withDoor = async (config, options, body) => {
  const door = await rig.stagedoor(config, options);
  try {
    return await body(door);
  } finally {
    // At once: how it drains is another test's matter.
    await door.stop('SIGINT');
  }
};

/** A proxy with one upstream and an issuer; `more` goes on with its config. */
const plain = (more) => (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
${WIDE}
${typeof more === 'function' ? more(ports, own) : more}`;
const OPEN = '- {name: open, methods: [ANY], path: /open/**, upstream: up, class: read, options: {public: true}}';

const bearer = (...args) => ({ authorization: `Bearer ${orbit(...args)}` });
const said = async (answer) => [answer.status, (await answer.json().catch(() => ({}))).code];
const listening = (port) => new Promise((resolve) => {
  const socket = net.connect(port, '127.0.0.1');
  socket.once('connect', () => { socket.destroy(); resolve(true); });
  socket.once('error', () => resolve(false));
});
const isState = new Ajv({ strict: false }).compile(JSON.parse(execFileSync(rig.binary, ['schema', '--state'], { encoding: 'utf8' })));
/** What `/state` says, which must be what its schema says. */
const state = async (door) => {
  const said = await (await door.admin('/state')).json();
  assert.ok(isState(said), JSON.stringify(isState.errors));
  return said;
};

/** Every sample at /metrics: name, labels, value. */
const samples = async (door) => (await (await door.admin('/metrics')).text()).split('\n')
  .filter((line) => line && !line.startsWith('#'))
  .map((line) => {
    const [, name, labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    return { name, labels: Object.fromEntries([...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key, text]) => [key, text])), value: Number(value) };
  });
/** The sum of the samples that fit; undefined if there is none. */
const metric = async (door, name, labels = {}) => {
  const found = (await samples(door)).filter((s) => s.name === name && Object.entries(labels).every(([key, text]) => s.labels[key] === text));
  return found.length ? found.reduce((sum, s) => sum + s.value, 0) : undefined;
};
/** An exchange is counted after its answer: waits until none is left to be counted. */
const counted = (door) => until('every exchange to be counted', async () => (await state(door)).requests_in_flight === 0);

// ---- check

const HEAD = `version: stagedoor/v1
listeners:
  edge: {kind: reverse, address: 127.0.0.1:18080}
upstreams:
  portal: {url: http://127.0.0.1:7007}
`;

test('check calls a good config valid, and tells every mistake of a broken one at its place with the correction', async () => {
  const good = file(`${HEAD}routes:\n- {name: a, methods: [GET], path: /a, upstream: portal, class: read}\n`);
  assert.deepEqual(await run(['check', '-c', good]), { code: 0, out: `${good}: valid\n`, err: '' });
  assert.equal((await run(['check'], { env: { STAGEDOOR_CONFIG: good } })).code, 0);

  const bad = file(`${HEAD}rate_limit: {per_workspace: {rate: 50 per second}}
process: {drain_timeout: 10}
routes:
- {name: a, methods: [GTE], path: /a, upstream: portal, class: read}
- {name: b, methods: [GET], path: /b, upstream: portal, class: read, optoins: {public: true}}
`);
  const { code, out, err } = await run(['check', '-c', bad]);
  assert.equal(code, 1);
  assert.equal(err, '');
  assert.deepEqual(out.trim().split('\n'), [
    `${bad}:6:36: \`50 per second\` is not a rate; write \`50/s\`, \`200/m\` or \`1000/h\``,
    `${bad}:7:26: \`10\` is not a duration; write \`10s\`, \`500ms\` or \`2m\``,
    `${bad}:9:23: \`routes[0].methods[0]\` cannot be \`GTE\`; did you mean \`GET\`?`,
    `${bad}:10:70: unknown key \`optoins\` in \`routes[1]\`; did you mean \`options\`?`,
  ]);
  const { problems, warnings } = JSON.parse((await run(['check', '--format', 'json', '-c', bad])).out);
  assert.deepEqual(problems.map((p) => p.place.line), [6, 7, 9, 10]);
  assert.deepEqual(warnings, []);
});

test('check tells a name that leads nowhere together with mistakes of another kind', async () => {
  const bad = file(`${HEAD}rate_limit: {per_workspace: {rate: 50 per second}}
routes:
- {name: a, methods: [GET], path: /a, upstream: prtal, class: read}
- {name: b, methods: [GET], path: /b, upstream: portal, class: read, optoins: {public: true}}
`);
  const { code, out } = await run(['check', '-c', bad]);
  assert.equal(code, 1);
  assert.match(out, /:6:36: `50 per second` is not a rate/);
  assert.match(out, /:9:70: unknown key `optoins`.*did you mean `options`/);
  assert.match(out, /:8:\d+: no upstream `prtal`; did you mean `portal`\?/);
});

test('check ends with 2 when it is used wrongly, with 1 and the name of a file that it cannot read', async () => {
  for (const args of [['check'], ['check', '--what'], ['check', '-c', 'x', '--format', 'xml'], ['chek'], []]) {
    const { code, out, err } = await run(args);
    assert.equal(code, 2, args.join(' '));
    assert.equal(out, '');
    assert.match(err, /Usage: stagedoor|try '--help'/);
  }
  const gone = path.join(folder, 'gone.yaml');
  assert.deepEqual(await run(['check', '-c', gone]), { code: 1, out: `${gone}:1:1: cannot read \`${gone}\`: no such file\n`, err: '' });
  assert.match((await run(['check', '-c', folder])).out, /^\S+:1:1: cannot read `.*directory/i);
  const including = file(`${HEAD}include: [more/none.yaml]\n`);
  assert.match((await run(['check', '-c', including])).out, /:6:11: cannot read `.*more\/none\.yaml`: no such file\n$/);
});

test('a warning does not make a config invalid, unless one is strict', async () => {
  const warned = file(`${HEAD}  spare: {url: http://127.0.0.1:7008}\nroutes:\n- {name: a, methods: [GET], path: /a, upstream: portal, class: read}\n`);
  const { code, out } = await run(['check', '-c', warned]);
  assert.equal(code, 0);
  assert.match(out, /:6:10: warning: no route goes to upstream `spare`\n.*: valid\n$/);
  assert.equal((await run(['check', '--strict', '-c', warned])).code, 1);
});

/** A config whose files are these, and otherwise good ones. */
const filed = (own = {}) => {
  const at = (name) => path.join(folder, 'ca', name);
  const good = {
    cert: at('edge.crt'), key: at('edge.key'), client_ca: at('ca.crt'), ca: at('ca.crt'), client_cert: at('other.crt'), client_key: at('other.key'),
    secret: file(SECRET, 'secret'), jwks: file(JSON.stringify({ keys: [crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' })] }), 'jwks'),
    keys_ca: at('ca.crt'), assertion_key: at('other.key'),
  };
  const f = { ...good, ...own };
  return file(`version: stagedoor/v1
listeners:
  edge:
    kind: reverse
    address: 127.0.0.1:18080
    tls: {certificates: [{cert: ${f.cert}, key: ${f.key}}], client_ca: ${f.client_ca}}
identity:
  issuers:
    orbit: {issuer: orbit, audiences: [a], algorithms: [HS256], keys: {secret_file: ${f.secret}}}
    filed: {issuer: filed, audiences: [a], algorithms: [ES256], keys: {file: ${f.jwks}}}
    far: {issuer: far, audiences: [a], keys: {url: "https://127.0.0.1:1/jwks", ca: ${f.keys_ca}}}
upstreams:
  up: {url: "https://127.0.0.1:1", tls: {ca: ${f.ca}, client_cert: ${f.client_cert}, client_key: ${f.client_key}}}
headers: {assertion_key: ${f.assertion_key}}
routes:
- {name: a, methods: [GET], path: /a, upstream: up, class: read}
`);
};

test('check --files names each certificate, key and secret that cannot be read', async () => {
  assert.equal((await run(['check', '--files', '-c', filed()])).code, 0);
  const gone = path.join(folder, 'gone.pem');
  const garbage = file('not a key\n', 'garbage.pem');
  const othersKey = path.join(folder, 'ca', 'other.key');
  for (const [name, at, cause] of [
    ['cert', gone, /no such file/], ['cert', garbage, /contains no certificate/], ['key', gone, /no such file/], ['key', garbage, /contains no private key/],
    ['key', othersKey, /not the key of `.*edge\.crt`/], ['key', folder, /directory/i], ['client_ca', garbage, /contains no certificate/],
    ['secret', gone, /no such file/i], ['jwks', gone, /no such file/i], ['ca', gone, /no such file/], ['ca', garbage, /contains no certificate/],
    ['client_key', garbage, /contains no private key/], ['client_cert', gone, /no such file/], ['keys_ca', gone, /no such file/i],
  ]) {
    const config = filed({ [name]: at });
    const { code, out } = await run(['check', '--files', '-c', config]);
    assert.equal(code, 1, `${name}: ${at}\n${out}`);
    assert.match(out, new RegExp(`^${config}:\\d+:\\d+: cannot (use|read) \`${at}\``, 'm'), name);
    assert.match(out, cause, name);
    assert.equal((await run(['check', '-c', config])).code, 0, 'without --files it does not look at them');
  }
  const all = (await run(['check', '--files', '-c', filed({ key: garbage, secret: gone, ca: garbage })])).out.trim().split('\n');
  assert.equal(all.length, 3, all.join('\n'));
});

test('check --files also finds what only run, or the first token, would stumble over', async () => {
  const garbage = file('not a key\n', 'garbage.pem');
  const missed = [];
  for (const [name, at] of [['assertion_key', path.join(folder, 'gone.pem')], ['assertion_key', garbage], ['secret', file('short', 'short')], ['jwks', garbage], ['keys_ca', garbage]]) {
    const { code, out } = await run(['check', '--files', '-c', filed({ [name]: at })]);
    if (code !== 1 || !out.includes(at)) missed.push(`${name}: ${path.basename(at)}`);
  }
  assert.deepEqual(missed, []);
});

test('the worked configs are valid; what they name under /etc is told by --files alone', async () => {
  for (const name of ['edge', 'sidecar', 'egress', 'shared']) {
    const { code, out } = await run(['check', '-c', `examples/${name}.yaml`], { cwd: root });
    assert.equal(code, 0, out);
    assert.match(out, new RegExp(`^examples/${name}\\.yaml: valid$`, 'm'));
  }
  const { code, out } = await run(['check', '--files', '-c', 'examples/edge.yaml'], { cwd: root });
  assert.equal(code, 1);
  assert.match(out, /^examples\/edge\.yaml:9:\d+: cannot use `\/etc\/stagedoor\/tls\/tls\.crt`: no such file$/m);
  assert.match((await run(['check', '--files', '-c', 'examples/sidecar.yaml'], { cwd: root })).out, /^examples\/sidecar\.yaml:\d+:\d+: cannot use `\/etc\/stagedoor\/audit\.key`: no such file$/m);
});

test('the schema and the manual are those in docs', async () => {
  assert.equal((await run(['schema'])).out, doc('docs/config.schema.json'));
  assert.equal((await run(['schema', '--markdown'])).out, doc('docs/config.md'));
  JSON.parse(doc('docs/config.schema.json'));
});

// ---- run, and what keeps it from running

test('run ends at once with a sentence when it cannot serve, and nothing listens', async () => {
  const ports = { edge: await freePort(), admin: await freePort() };
  const garbage = file('not a key\n', 'garbage.pem');
  const taken = net.createServer();
  await new Promise((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const config = ({ key = `${folder}/ca/edge.key`, edge = ports.edge, admin = ports.admin, more = '' } = {}) => file(`version: stagedoor/v1
listeners:
  admin: {kind: admin, address: 127.0.0.1:${admin}}
  edge: {kind: reverse, address: 127.0.0.1:${edge}, tls: {certificates: [{cert: ${folder}/ca/edge.crt, key: ${key}}]}}
${more}`);
  try {
    for (const [what, at, sentence] of [
      ['no config', path.join(folder, 'gone.yaml'), /cannot read `.*gone\.yaml`: no such file/],
      ['a broken config', config({ more: 'rate_limits: {}' }), /:5:1: unknown key `rate_limits`.*did you mean `rate_limit`/],
      ['a key that is none', config({ key: garbage }), /cannot use `.*garbage\.pem`: it contains no private key/],
      ['a key that is not there', config({ key: `${folder}/gone.key` }), /cannot use `.*gone\.key`: no such file/],
      ['a CA that is none', config({ more: `upstreams: {a: {url: "https://127.0.0.1:1", tls: {ca: ${garbage}}}}` }), /cannot use `.*garbage\.pem`/],
      ['an assertion key that is none', config({ more: `headers: {assertion_key: ${garbage}}` }), /cannot use `.*garbage\.pem`/],
      ['an audit folder that is not there', config({ more: `audit: {directory: ${folder}/gone}` }), /cannot write audit records to `.*gone`/],
      ['an address in use', config({ edge: taken.address().port }), new RegExp(`listener \`edge\` cannot listen on 127\\.0\\.0\\.1:${taken.address().port}: .*in use`)],
      ['an admin address in use', config({ admin: taken.address().port }), /listener `admin` cannot listen on .*in use/],
    ]) {
      const begun = Date.now();
      const { code, err } = await run(['run', '-c', at]);
      assert.equal(code, 1, `${what}\n${err}`);
      assert.match(err, sentence, what);
      assert.doesNotMatch(err, /panicked|RUST_BACKTRACE/, what);
      assert.ok(Date.now() - begun < 5000, `${what}: it took too long to say so`);
      assert.deepEqual([await listening(ports.edge), await listening(ports.admin)], [false, false], what);
    }
    assert.equal((await run(['run'])).code, 2);
    // The same config does run when nothing is wrong with it.
    const program = start(rig.binary, ['run', '-c', config()]);
    try {
      await until('it to listen', async () => await listening(ports.edge) && await listening(ports.admin), 10000);
    } finally {
      await program.stop('SIGINT');
    }
  } finally {
    taken.close();
  }
});

test('SIGINT ends it at once, though an exchange is under way; SIGQUIT without a successor only says so', async () => {
  await withDoor(plain(`upstreams: {up: {url: ${up.url}}}\nroutes:\n${OPEN}`), {}, async (door) => {
    door.signal('SIGQUIT');
    await until('the log to say so', async () => /set `process\.upgrade_socket`/.test(door.output()));
    const hanging = fetch(`${door.url}/open/x?do=hang`).catch(() => 'cut');
    await until('it to be under way', async () => (await state(door)).requests_in_flight === 1);
    const begun = Date.now();
    door.signal('SIGINT');
    assert.equal(await door.ended, 0);
    assert.ok(Date.now() - begun < 4000);
    assert.equal(await hanging, 'cut');
  });
});

// ---- explain

/** Sends a request as it is written; what came, as `explain` would say it. */
const really = async (door, method, target, headers) => {
  const lines = headers.map((line) => `${line}\r\n`).join('');
  const has = (name) => headers.some((line) => line.toLowerCase().startsWith(`${name}:`));
  const rest = `${has('host') ? '' : 'Host: localhost\r\n'}${has('connection') ? '' : 'Connection: close\r\n'}`;
  const answer = await raw(door.ports.edge, `${method} ${target} HTTP/1.1\r\n${rest}${lines}Content-Length: 0\r\n\r\n`);
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(answer)[1]);
  const id = /^x-request-id: (.*)\r$/im.exec(answer)[1];
  const record = await door.record((r) => r.id === id);
  return record.decision === 'deny' ? { verdict: `deny ${status} ${record.code}`, record } : { verdict: `allow ${record.route} to ${record.upstream}`, record };
};
const verdict = (out) => /^verdict +(deny \d+ \w+|allow \S+ to \S+)/m.exec(out)?.[1];
const asOptions = (method, target, headers) => ['-X', method, '-p', target, ...headers.flatMap((line) => ['-H', line])];

const EXPLAINED = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(own)}
${WIDE}
upstreams:
  up: {url: ${up.url}}
  dxcp: {url: ${up.url}, authority: delivery}
workspaces: {named: {payments: {groups: [pay-dev]}, web: {}}}
plugins: {off: {enabled_percent: 0}}
presets:
- {preset: dxcp, upstream: dxcp, hosts: [dxcp.example], actions: {roles: [deployer]}}
routes:
${OPEN}
- {name: closed, methods: [ANY], path: /open/closed, upstream: up, class: read, options: {closed: true}}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}
- {name: act, methods: [POST], path: /act/**, upstream: up, class: action, options: {access: {roles: [deployer]}}}
- {name: off, methods: [GET], path: /off, upstream: up, class: read, plugin: off}
`;

test('explain says of a request what the proxy does with it, by options or by its head', async () => {
  await withDoor(EXPLAINED, {}, async (door) => {
    const now = Math.floor(Date.now() / 1000);
    const token = (...args) => `authorization: Bearer ${orbit(...args)}`;
    const good = token('ada', ['payments']);
    const forged = `${good.slice(0, -4)}${good.endsWith('AAAA') ? 'BBBB' : 'AAAA'}`;
    const both = ['payments', 'web'];
    for (const [expected, method, target, ...headers] of [
      ['allow open to up', 'GET', '/open/x'],
      ['allow open to up', 'GET', '/open/a%20b?x=1&y=%2F'],
      ['deny 403 route_closed', 'GET', '/open/closed'],
      ['deny 403 route_unknown', 'GET', '/nothing'],
      ['deny 403 route_unknown', 'POST', '/read/x', good],
      ['deny 400 path_ambiguous', 'GET', '/open/%2e%2e/x'],
      ['deny 400 path_ambiguous', 'GET', '/open/a%2Fb'],
      ['deny 401 caller_missing', 'GET', '/read/x'],
      ['allow read to up', 'GET', '/read/x', good],
      ['allow read to up', 'GET', '/read/x', token('bo', both), 'x-orbit-workspace-id: web'],
      ['deny 400 workspace_missing', 'GET', '/read/x', token('bo', both)],
      ['deny 400 workspace_ambiguous', 'GET', '/read/x', token('bo', both), 'x-orbit-workspace-id: web', 'x-orbit-workspace-id: web'],
      ['deny 403 workspace_unknown', 'GET', '/read/x', token('bo', ['ghost', 'web']), 'x-orbit-workspace-id: ghost'],
      ['deny 403 workspace_not_granted', 'GET', '/read/x', good, 'x-orbit-workspace-id: web'],
      ['allow read to up', 'GET', '/read/x', token('cy', [], { groups: ['pay-dev'] })],
      ['deny 403 access_denied', 'POST', '/act/x', good],
      ['allow act to up', 'POST', '/act/x', token('ada', ['payments'], { roles: ['deployer'] })],
      ['deny 403 plugin_disabled', 'GET', '/off', good],
      ['deny 401 token_expired', 'GET', '/read/x', token('ada', ['payments'], { exp: now - 600 })],
      ['deny 401 token_not_yet_valid', 'GET', '/read/x', token('ada', ['payments'], { nbf: now + 600 })],
      ['deny 401 token_audience_wrong', 'GET', '/read/x', token('ada', ['payments'], { aud: 'others' })],
      ['deny 401 token_issuer_unknown', 'GET', '/read/x', token('ada', ['payments'], { iss: 'others' })],
      ['deny 401 token_signature_wrong', 'GET', '/read/x', forged],
      ['deny 401 token_malformed', 'GET', '/read/x', 'authorization: Bearer x'],
      ['deny 400 authorization_ambiguous', 'GET', '/read/x', good, good],
      ['deny 403 upgrade_refused', 'GET', '/read/x', good, 'connection: close, Upgrade', 'upgrade: websocket'],
      ['allow dxcp.services to dxcp', 'GET', '/v1/services', 'host: dxcp.example', good],
      ['deny 403 access_denied', 'POST', '/v1/deployments', 'host: dxcp.example', good],
      ['deny 403 route_closed', 'GET', '/v1/%61dmin/system/rate-limits', 'host: dxcp.example', good],
    ]) {
      const what = `${method} ${target} ${headers.join(' ').slice(0, 60)}`;
      const [options, head, { verdict: done, record }] = await Promise.all([
        run(['explain', '-c', door.file, ...asOptions(method, target, headers)]),
        run(['explain', '-c', door.file], { input: `${method} ${target} HTTP/1.1\r\n${headers.map((h) => `${h}\r\n`).join('')}\r\n` }),
        really(door, method, target, headers),
      ]);
      assert.deepEqual([verdict(options.out), verdict(head.out), done], [expected, expected, expected], what);
      assert.deepEqual([options.code, head.code], expected.startsWith('allow') ? [0, 0] : [1, 1], what);
      assert.equal(/^route .*, at (\S+)$/m.exec(options.out)?.[1], record.rule, what);
    }
  });
});

test('explain supposes a caller as a token would make one', async () => {
  await withDoor(EXPLAINED, {}, async (door) => {
    for (const [method, target, roles, groups, workspaces] of [
      ['POST', '/act/x', ['deployer'], [], ['payments']], ['POST', '/act/x', ['viewer'], [], ['payments']], ['POST', '/act/x', ['viewer', 'deployer'], ['pay-dev'], []],
      ['GET', '/read/x', [], [], []], ['GET', '/read/x', [], ['pay-dev'], []], ['GET', '/read/x', [], ['pay-dev'], ['web']], ['GET', '/off', [], [], ['web']],
    ]) {
      const supposed = ['--as', 'ada', ...roles.flatMap((r) => ['--role', r]), ...groups.flatMap((g) => ['--group', g]), ...workspaces.flatMap((w) => ['--workspace', w])];
      const { out, code } = await run(['explain', '-c', door.file, '-X', method, '-p', target, ...supposed]);
      const { verdict: done } = await really(door, method, target, [`authorization: Bearer ${orbit('ada', workspaces, { roles, groups })}`]);
      assert.equal(verdict(out), done, `${method} ${target} ${supposed.join(' ')}`);
      assert.equal(code, done.startsWith('allow') ? 0 : 1);
      assert.match(out, /^route +\S+ \(\S+\), at \S+stagedoor\.yaml:\d+:\d+$/m);
    }
  });
});

test('explain ends with 2 when it is used wrongly or the config is broken', async () => {
  const good = file(`${HEAD}routes:\n- {name: a, methods: [GET], path: /a, upstream: portal, class: read}\n`);
  for (const [args, words] of [
    [['explain'], /--config/], [['explain', '-c', good, '-p', '/a', '--group', 'x'], /--as/], [['explain', '-c', good, '-p', '/a', '-H', 'nonsense'], /`nonsense` is not a header/],
    [['explain', '-c', good], /is not a request line/], [['explain', '-c', good, '-p', '/a', '--listener', 'back'], /no listener `back`/],
    [['explain', '-c', good, '-p', '/a', '--client', 'me'], /--client/], [['explain', '--preset', 'dxpc'], /no preset `dxpc`/],
    [['explain', '-c', path.join(folder, 'gone.yaml'), '-p', '/a'], /cannot read/], [['explain', '-c', file('version: x\n'), '-p', '/a'], /:1:10: /],
  ]) {
    const { code, out, err } = await run(args);
    assert.deepEqual([code, out], [2, ''], args.join(' '));
    assert.match(err, words);
  }
});

test('explain prints the table of a preset, and the lines in README and docs/operating.md work as they stand', async () => {
  assert.deepEqual(await run(['explain', '--preset', 'dxcp']), { code: 0, out: doc('config/presets/dxcp.yaml'), err: '' });
  const lines = [doc('README.md'), doc('docs/operating.md')].flatMap((text) => text.replace(/\\\n\s*/g, '').split('\n').filter((line) => /^stagedoor explain .*-c /.test(line)));
  assert.equal(lines.length, 3);
  for (const [line, example, step] of [[lines[0], 'sidecar', 'route +.*, at'], [lines[1], 'egress', 'verdict +.*'], [lines[2], 'edge', 'route +.*, at']]) {
    const words = [...line.replace('stagedoor.yaml', `examples/${example}.yaml`).matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word]) => quoted ?? word);
    const { code, out, err } = await run(words.slice(1), { cwd: root });
    assert.ok([0, 1].includes(code), `${line}\n${err}`);
    // Where names cannot be looked up, a call ends there; its rule was found before.
    const found = new RegExp(`^${step} ?(examples/${example}\\.yaml:\\d+:\\d+|deny 502 host_unresolved.*)$`, 'm');
    assert.match(out, found, line);
  }
});

test('a route with all detail tells a client the sentence and the rule that explain tells', async () => {
  await withDoor(ROUTES('- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, options: {detail: full}}\n- {name: terse, methods: [GET], path: /terse, upstream: up, class: read}'), {}, async (door) => {
    const [full, terse] = await Promise.all(['/read/x', '/terse'].map(async (where) => (await fetch(`${door.url}${where}`)).json()));
    const { out } = await run(['explain', '-c', door.file, '-p', '/read/x']);
    assert.equal(`deny ${full.status} ${full.code}: ${full.title}`, /^verdict +(.*)$/m.exec(out)[1]);
    assert.deepEqual(full.rule, { route: 'read', place: /^route .*, at (\S+)$/m.exec(out)[1] });
    assert.deepEqual([terse.code, terse.title, terse.rule], ['caller_missing', 'Unauthorized', undefined]);
  });
});

test('explain asks Backstage for keys and then for groups, as the proxy does', async () => {
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const portal = http.createServer((request, response) => {
    response.setHeader('content-type', 'application/json');
    if (request.url === '/api/auth/.well-known/jwks.json') return response.end(JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', alg: 'ES256', use: 'sig' }] }));
    if (request.url === '/api/auth/v1/userinfo') return response.end(JSON.stringify({ claims: { sub: 'user:default/ada', ent: ['user:default/ada', 'group:default/pay-dev'] } }));
    return response.end('{}');
  });
  await new Promise((resolve) => portal.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${portal.address().port}`;
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const message = `${part({ typ: 'vnd.backstage.user', alg: 'ES256', kid: 'k' })}.${part({ iss: 'http://portal/api/auth', sub: 'user:default/ada', aud: 'backstage', iat: now, exp: now + 600, uip: 'x' })}`;
  const token = `${message}.${crypto.sign('sha256', Buffer.from(message), { key: privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  try {
    await withDoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity: {issuers: {portal: {kind: backstage, issuer: http://portal/api/auth, algorithms: [ES256], keys: {backstage_url: "${url}"}}}}
workspaces: {named: {payments: {groups: ["group:default/pay-dev"]}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}`, {}, async (door) => {
      const headers = [`authorization: Bearer ${token}`];
      await until('the keys', async () => (await state(door)).keys.length > 0);
      assert.equal((await really(door, 'GET', '/read/x', headers)).verdict, 'allow read to up');
      const { code, out } = await run(['explain', '-c', door.file, ...asOptions('GET', '/read/x', headers)]);
      assert.deepEqual([verdict(out), code], ['allow read to up', 0], out);
    });
  } finally {
    portal.closeAllConnections();
    portal.close();
  }
});

// ---- reload

/** What is in the log, on the admin listener and in the metrics of the last reload. */
const outcome = async (door) => {
  const { last_reload: last, config } = await state(door);
  const logged = door.output().split('\n').filter((line) => /policy in force|keeping the policy in force/.test(line)).map((line) => JSON.parse(line)).at(-1);
  return {
    successful: last.successful, messages: last.messages, digest: config,
    logged: logged && { level: logged.level, text: logged.messages ?? logged.problems, digest: logged.policy },
    metric: await metric(door, 'stagedoor_config_last_reload_successful'),
  };
};
const ROUTES = (routes) => plain(`upstreams: {up: {url: ${up.url}}}\nworkspaces: {named: {payments: {}, web: {}}}\nroutes:\n${routes}`);
const edit = (door, from, to) => {
  const text = fs.readFileSync(door.file, 'utf8');
  assert.ok(text.includes(from), from);
  fs.writeFileSync(door.file, text.replace(from, to));
};

test('a log that nobody reads any more stops nothing', async () => {
  await withDoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
upstreams: {up: {url: ${up.url}}}
routes: [{name: open, methods: [GET], path: /open, upstream: up, class: read, options: {public: true}}]`, {}, async (door) => {
    door.deafen();
    for (let n = 0; n < 3; n += 1) {
      const { successful } = await door.reload();
      assert.equal(successful, true);
      assert.equal((await fetch(`${door.url}/open`)).status, 200);
    }
    fs.writeFileSync(door.file, 'routes: [');
    assert.equal((await door.reload()).successful, false);
    assert.equal(await door.stop(), 0);
  });
});

test('a change of the file is in force without a call, by SIGHUP and by POST /reload; a broken one is told everywhere', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    const status = async (where) => (await fetch(`${door.url}${where}`)).status;
    const first = (await state(door)).config;
    edit(door, 'path: /open/**', 'path: /one/**');
    await until('the file to be looked at', async () => (await state(door)).config !== first, 10000);
    assert.deepEqual([await status('/open/x'), await status('/one/x')], [403, 200]);

    const second = (await state(door)).config;
    edit(door, 'path: /one/**', 'path: /two/**');
    door.signal('SIGHUP');
    await until('the reload', async () => (await state(door)).config !== second, 1500);
    assert.equal(await status('/two/x'), 200);
    assert.match(door.output(), /as SIGHUP asks/);

    edit(door, 'path: /two/**', 'path: /three/**');
    const answer = await door.admin('/reload', { method: 'POST' });
    assert.equal(answer.status, 200);
    const { digest } = await answer.json();
    assert.equal(await status('/three/x'), 200);
    const good = await outcome(door);
    assert.deepEqual(good, { successful: true, messages: [], digest, logged: { level: 'INFO', text: '[]', digest }, metric: 1 });

    edit(door, 'class: read', 'clas: read');
    const bad = await door.admin('/reload', { method: 'POST' });
    assert.equal(bad.status, 422);
    const { messages } = await bad.json();
    assert.equal(messages.length, 2, 'the key that is wrong and the one that is missing');
    assert.ok(messages.every((message) => message.startsWith(`${door.file}:`)));
    assert.match(messages.join('\n'), /unknown key `clas`.*did you mean `class`/);
    const told = await outcome(door);
    assert.deepEqual([told.successful, told.messages, told.digest, told.metric, told.logged.level], [false, messages, digest, 0, 'ERROR']);
    for (const message of messages) assert.ok(told.logged.text.includes(message.split('`')[1]));
    assert.equal(await status('/three/x'), 200, 'the last good config is in force');

    edit(door, 'clas: read', 'class: read');
    await until('the correction', async () => (await outcome(door)).successful, 10000);
    assert.equal((await outcome(door)).metric, 1);
  });
});

test('the admin listener tells what came of the last configs, and what each changed', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    const history = async () => (await door.admin('/config/history')).json();
    const [start, ...none] = await history();
    assert.deepEqual([none, start.source, start.successful, start.previous, start.digest], [[], 'start', true, null, (await state(door)).config]);
    edit(door, 'path: /open/**', 'path: /one/**');
    const { digest } = await door.reload();
    edit(door, 'class: read', 'clas: read');
    const refused = await door.reload();
    await door.reload();
    const [bad, good, first, ...more] = await history();
    assert.deepEqual([first, more], [start, []]);
    assert.deepEqual([good.source, good.successful, good.times, good.previous, good.digest, good.messages], ['admin', true, 1, start.digest, digest, []]);
    assert.match(good.changes.join('\n'), /^routes\[\w+\]\.path: "\/open\/\*\*" → "\/one\/\*\*"$/);
    // The file was also looked at in between, maybe.
    assert.deepEqual([bad.successful, bad.digest, bad.previous, bad.changes, bad.messages], [false, digest, digest, [], refused.messages]);
    assert.ok(bad.times >= 2 || bad.source === 'files', JSON.stringify(bad));
    assert.ok(bad.time >= good.time && good.time >= start.time && start.time > 1.7e9);
    assert.equal((await door.admin('/config/history', { method: 'POST' })).status, 405);
  });
});

test('a status listener answers probes and metrics, and nothing that changes or tells more', async () => {
  const port = await freePort();
  const config = (ports) => `listeners:\n  status: {kind: status, address: 127.0.0.1:${port}}\n  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}\nupstreams: {up: {url: ${up.url}}}\nroutes:\n${OPEN}`;
  await withDoor(config, {}, async (door) => {
    const ask = (where, options) => fetch(`http://127.0.0.1:${port}${where}`, options);
    for (const where of ['/livez', '/readyz', '/metrics']) {
      const [here, there] = [await ask(where), await door.admin(where)];
      assert.deepEqual([here.status, here.headers.get('content-type')], [200, there.headers.get('content-type')]);
    }
    assert.match(await (await ask('/metrics')).text(), /^stagedoor_build_info/m);
    const known = door.written().length;
    for (const where of ['/config', '/config/history', '/state', '/jwks', '/audit/head', '/switches', '/switches/1', '/', '/livez/', '//state', '/%73tate']) assert.equal((await ask(where)).status, 404, where);
    for (const where of ['/reload', '/switches', '/livez']) assert.ok([404, 405].includes((await ask(where, { method: 'POST', body: '{}' })).status), where);
    assert.equal((await (await door.admin('/switches')).json()).length, 0);
    assert.ok(door.written().length <= known + 1, 'nothing was done, so nothing is on record');
  });
});

/** A folder as Kubernetes mounts a ConfigMap or a Secret; `swap` puts new files in as it does. */
const mounted = (at, files) => {
  let version = 0;
  fs.mkdirSync(at, { recursive: true });
  const swap = (contents) => {
    const last = `..2026_${version}`; version += 1;
    const next = `..2026_${version}`;
    fs.mkdirSync(path.join(at, next));
    for (const [name, text] of Object.entries(contents)) fs.writeFileSync(path.join(at, next, name), text);
    fs.symlinkSync(next, path.join(at, '..data_tmp'));
    fs.renameSync(path.join(at, '..data_tmp'), path.join(at, '..data'));
    fs.rmSync(path.join(at, last), { recursive: true, force: true });
  };
  swap(files);
  for (const name of Object.keys(files)) fs.symlinkSync(`..data/${name}`, path.join(at, name));
  return swap;
};

test('a ConfigMap and a Secret that Kubernetes swaps are in force; old connections live on', async () => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-operator-'));
  const pair = (name) => ({ 'tls.crt': fs.readFileSync(ca.file(`${name}.crt`)), 'tls.key': fs.readFileSync(ca.file(`${name}.key`)) });
  const swapConfig = mounted(own, { 'stagedoor.yaml': '' });
  const swapSecret = mounted(path.join(own, 'tls'), pair('edge'));
  const config = (ports) => `
listeners:
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${own}/tls/tls.crt, key: ${own}/tls/tls.key}]}}
upstreams: {up: {url: ${up.url}}}
routes:
${OPEN}`;
  await withDoor(config, { folder: own }, async (door) => {
    assert.ok(fs.lstatSync(door.file).isSymbolicLink());
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: fs.readFileSync(ca.ca), servername: 'edge.example' });
    const get = (where, options = {}) => new Promise((resolve, reject) => {
      https.get({ host: '127.0.0.1', port: door.ports.tls, path: where, agent, headers: { host: 'edge.example' }, ...options }, (answer) => {
        const { serialNumber } = answer.socket.getPeerCertificate();
        answer.resume();
        answer.on('end', () => resolve({ status: answer.statusCode, serial: serialNumber, reused: answer.req.reusedSocket }));
      }).on('error', reject);
    });
    const before = await get('/open/x');
    assert.equal(before.status, 200);

    const first = (await state(door)).config;
    swapConfig({ 'stagedoor.yaml': fs.readFileSync(door.file, 'utf8').replace('/open/**', '/swapped/**') });
    await until('the swapped config', async () => (await state(door)).config !== first, 10000);
    assert.deepEqual([(await get('/swapped/x')).status, (await get('/open/x')).status], [200, 403]);

    ca.issue('edge', { names: ['edge.example', 'localhost'] });
    const next = new crypto.X509Certificate(fs.readFileSync(ca.file('edge.crt')));
    swapSecret(pair('edge'));
    const fresh = () => get('/swapped/x', { agent: false, ca: fs.readFileSync(ca.ca), servername: 'edge.example' });
    await until('the swapped certificate', async () => (await fresh()).serial === next.serialNumber, 10000);
    const old = await get('/swapped/x');
    assert.deepEqual([old.status, old.serial, old.reused], [200, before.serial, true]);
    const { certificates } = await state(door);
    assert.equal(BigInt(`0x${certificates[0].serial}`), BigInt(`0x${next.serialNumber}`));
    agent.destroy();
  });
});

test('a reload that needs a restart says so and applies the rest', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    const elsewhere = await freePort();
    edit(door, `127.0.0.1:${door.ports.edge}`, `127.0.0.1:${elsewhere}`);
    edit(door, 'path: /open/**', 'path: /moved/**');
    edit(door, 'process: {', 'process: {threads: 3, ');
    edit(door, 'drain_timeout: 5s', 'drain_timeout: 6s');
    const { successful, messages } = await door.reload();
    assert.equal(successful, true);
    assert.deepEqual(messages, ['listener `edge` has changed: restart to apply it', '`process.threads` has changed: restart to apply it']);
    const shown = await (await door.admin('/config')).json();
    assert.deepEqual([shown.needs_restart, (await state(door)).needs_restart], [messages, messages]);
    const { listeners, process: { threads, drain_timeout: drain } } = shown.config;
    assert.deepEqual([listeners.edge.address, threads, drain], [`127.0.0.1:${door.ports.edge}`, null, '6s'], 'what is in force is shown');
    assert.equal((await fetch(`${door.url}/moved/x`)).status, 200, 'the rest is in force, at the old address');
    assert.equal(await listening(elsewhere), false);
    assert.equal(await metric(door, 'stagedoor_config_needs_restart'), 2);
    const told = await outcome(door);
    assert.deepEqual([told.successful, told.metric, told.messages], [true, 1, messages]);
    assert.match(told.logged.text, /restart to apply it/);

    edit(door, 'process: {threads: 3, ', 'process: {');
    edit(door, '  edge: {', `  more: {kind: reverse, address: 127.0.0.1:${elsewhere}}\n  edge: {`);
    edit(door, `127.0.0.1:${elsewhere}}\nidentity`, `127.0.0.1:${door.ports.edge}}\nidentity`);
    assert.deepEqual((await door.reload()).messages, ['listener `more` is new: restart to open it']);
    assert.equal((await fetch(`${door.url}/moved/x`)).status, 200);
    edit(door, '  edge: {', '  other: {');
    edit(door, `  more: {kind: reverse, address: 127.0.0.1:${elsewhere}}\n`, '');
    assert.deepEqual((await door.reload()).messages, ['listener `other` is new: restart to open it', 'listener `edge` was removed: restart to close it']);
    assert.equal((await fetch(`${door.url}/moved/x`)).status, 200);
  });
});

test('what needs a restart is said by each reload until there was one', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    edit(door, '127.0.0.1:' + door.ports.edge, '127.0.0.1:' + await freePort());
    edit(door, 'audit: {', 'audit: {segments_max: 7, ');
    edit(door, 'process: {', 'process: {metric_workspaces_max: 7, ');
    const first = (await door.reload()).messages;
    assert.equal(first.length, 3, first.join('\n'));
    edit(door, 'path: /open/**', 'path: /moved/**');
    assert.deepEqual((await door.reload()).messages, first);
  });
});

test('a file that appears among those that `include` matches is seen', async () => {
  await withDoor((ports, own) => {
    fs.mkdirSync(path.join(own, 'more'));
    fs.writeFileSync(path.join(own, 'more', 'a.yaml'), 'routes:\n- {name: a, methods: [GET], path: /a, upstream: up, class: read, options: {public: true}}\n');
    return `listeners:\n  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}\nupstreams: {up: {url: ${up.url}}}\ninclude: [more/*.yaml]`;
  }, {}, async (door) => {
    const status = async (where) => (await fetch(`${door.url}${where}`)).status;
    assert.equal(await status('/a'), 200);
    fs.writeFileSync(path.join(door.folder, 'more', 'b.yaml'), 'routes:\n- {name: b, methods: [GET], path: /b, upstream: up, class: read, options: {public: true}}\n');
    await until('the new file', async () => await status('/b') === 200, 6000);
    fs.rmSync(path.join(door.folder, 'more', 'b.yaml'));
    await until('it to be gone', async () => await status('/b') === 403, 6000);
  });
});

test('a reload that failed for another file is done when that file is put right', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    fs.writeFileSync(path.join(door.folder, 'more.yaml'), 'routes: [{nam: b}]\n');
    edit(door, 'version: stagedoor/v1', 'version: stagedoor/v1\ninclude: [more.yaml]');
    await until('the mistake to be told', async () => !(await outcome(door)).successful, 10000);
    fs.writeFileSync(path.join(door.folder, 'more.yaml'), 'routes:\n- {name: b, methods: [GET], path: /b, upstream: up, class: read, options: {public: true}}\n');
    await until('the correction', async () => (await fetch(`${door.url}/b`)).status === 200, 6000);
  });
});

test('a secret that changes is in force without a call: the next one is believed, the last one is not', async () => {
  await withDoor(ROUTES('- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}'), {}, async (door) => {
    const token = orbit('ada', ['payments']);
    const [head, claims] = token.split('.');
    const next = SECRET.split('').reverse().join('');
    const renewed = `${head}.${claims}.${crypto.createHmac('sha256', next).update(`${head}.${claims}`).digest('base64url')}`;
    const ask = async (text) => (await fetch(`${door.url}/read/x`, { headers: { authorization: `Bearer ${text}` } })).status;
    assert.deepEqual([await ask(token), await ask(renewed)], [200, 401]);
    fs.writeFileSync(path.join(door.folder, 'secret'), next);
    await until('the next secret', async () => await ask(renewed) === 200, 10000);
    assert.equal(await ask(token), 401);
  });
});

test('a secret that cannot be used any more is told by the reload, and the last one stays', async () => {
  await withDoor(ROUTES('- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}'), {}, async (door) => {
    const ask = async () => said(await fetch(`${door.url}/read/x`, { headers: bearer('ada', ['payments']) }));
    assert.equal((await ask())[0], 200);
    fs.writeFileSync(path.join(door.folder, 'secret'), 'short');
    const { messages } = await door.reload();
    assert.equal((await ask())[0], 200);
    assert.ok(messages.some((message) => message.includes(path.join(door.folder, 'secret'))), JSON.stringify(messages));
  });
});

test('a reload that names other keys of an issuer believes the old ones no longer', async () => {
  const pair = () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const keys = { a: pair(), b: pair() };
  const jwks = http.createServer((request, response) => {
    const name = request.url.slice(1);
    response.end(JSON.stringify({ keys: [{ ...keys[name].publicKey.export({ format: 'jwk' }), kid: name, alg: 'ES256', use: 'sig' }] }));
  });
  await new Promise((resolve) => jwks.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${jwks.address().port}`;
  const token = (kid) => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const message = `${part({ alg: 'ES256', kid })}.${part({ iss: 'idp', aud: 'stagedoor', sub: 'ada', workspaces: ['payments'], exp: Math.floor(Date.now() / 1000) + 600 })}`;
    return `${message}.${crypto.sign('sha256', Buffer.from(message), { key: keys[kid].privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  try {
    await withDoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity: {issuers: {idp: {issuer: idp, audiences: [stagedoor], algorithms: [ES256], keys: {url: "${url}/a"}}}}
workspaces: {named: {payments: {}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}`, {}, async (door) => {
      const ask = async (kid) => (await fetch(`${door.url}/read/x`, { headers: { authorization: `Bearer ${token(kid)}` } })).status;
      assert.equal(await ask('a'), 200);
      edit(door, `${url}/a`, `${url}/b`);
      assert.equal((await door.reload()).successful, true);
      assert.equal(await ask('a'), 401, 'signed with a key that no config names any more');
      await until('the new key to be believed', async () => await ask('b') === 200, 15000);
    });
  } finally {
    jwks.closeAllConnections();
    jwks.close();
  }
});

// ---- the admin listener

test('probes, state and keys answer; other methods, paths and browsers are refused', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    assert.deepEqual([(await door.admin('/livez')).status, (await door.admin('/readyz')).status], [200, 200]);
    const looked = await state(door);
    for (const part of ['breakers', 'limiters', 'keys', 'certificates', 'last_reload', 'audit']) assert.ok(part in looked, part);
    assert.match(looked.config, /^[0-9a-f]{32}$/);
    const { keys } = await (await door.admin('/jwks')).json();
    assert.deepEqual([keys[0].kty, keys[0].crv, keys[0].d], ['EC', 'P-256', undefined]);

    for (const where of ['/livez', '/readyz', '/metrics', '/config', '/state', '/jwks']) {
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) assert.equal((await door.admin(where, { method })).status, 405, `${method} ${where}`);
      const head = await raw(door.ports.admin, `HEAD ${where} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
      assert.match(head, /^HTTP\/1\.1 200 OK\r\n/);
      assert.equal(head.split('\r\n\r\n').slice(1).join(), '', `HEAD ${where} has no body`);
    }
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS']) assert.equal((await door.admin('/reload', { method })).status, 405, `${method} /reload`);
    for (const where of ['/', '/metrics/', '/..%2fmetrics', '/open/x']) assert.equal((await door.admin(where)).status, 404, where);

    const reloads = () => door.output().split('policy in force').length;
    const before = reloads();
    for (const origin of ['https://evil.example', `http://127.0.0.1:${door.ports.admin}`, 'null']) {
      assert.equal((await door.admin('/reload', { method: 'POST', headers: { origin } })).status, 403, origin);
    }
    assert.equal(reloads(), before, 'nothing was reloaded');
    assert.equal((await door.admin('/reload', { method: 'POST', body: 'ignored' })).status, 200);
    await until('the log to say so', async () => reloads() === before + 1);
    // A body that was sent along is not the next request.
    const two = await raw(door.ports.admin, `POST /reload HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\nGET /x HTTP/1.1\r\nA: b\r\nGET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`, { ms: 3000 });
    assert.doesNotMatch(two, / 404 /);
  });
});

test('an answer of 405 names the methods that there are', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    assert.match((await door.admin('/state', { method: 'POST' })).headers.get('allow') ?? '', /GET/);
    assert.match((await door.admin('/reload')).headers.get('allow') ?? '', /POST/);
  });
});

test('no page of the admin listener holds a secret', async () => {
  const planted = { STAGEDOOR_TEST_PASSWORD: 'planted-in-the-environment', STAGEDOOR_TEST_FOLDER: folder };
  const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}, tls: {certificates: [{cert: "\${STAGEDOOR_TEST_FOLDER}/ca/edge.crt", key: "\${STAGEDOOR_TEST_FOLDER}/ca/edge.key"}]}}
${identity(own)}
workspaces: {named: {payments: {}}}
upstreams: {up: {url: "https://127.0.0.1:1", tls: {ca: ${folder}/ca/ca.crt, client_cert: ${folder}/ca/other.crt, client_key: ${folder}/ca/other.key}, credential: up}}
credentials: {up: {kind: basic, username: portal, password_file: ${file('planted-in-a-file', 'password')}}}
headers: {assertion_key: ${folder}/ca/other.key}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}`;
  await withDoor(config, { env: planted }, async (door) => {
    const token = orbit('ada', ['payments']);
    const status = await new Promise((resolve, reject) => {
      https.get({ host: '127.0.0.1', port: door.ports.edge, path: '/read/x?password=planted-in-a-query', agent: false, rejectUnauthorized: false, headers: { authorization: `Bearer ${token}`, cookie: 'a=planted-in-a-cookie' } }, (answer) => { answer.resume(); resolve(answer.statusCode); }).on('error', reject);
    });
    assert.equal(status, 502, 'it came as far as the upstream that is not there');
    const pages = {};
    for (const where of ['/livez', '/readyz', '/metrics', '/config', '/state', '/jwks']) pages[where] = await (await door.admin(where)).text();
    pages.log = door.output();
    pages.audit = JSON.stringify([await door.record((r) => r.status === 502)]);
    const secrets = [SECRET, token, token.split('.')[2], 'planted-in-', btoa('portal:planted-in-a-file'), ...['edge', 'other'].flatMap((name) => fs.readFileSync(ca.file(`${name}.key`), 'utf8').split('\n').filter((line) => line && !line.startsWith('-')))];
    for (const [where, text] of Object.entries(pages)) for (const secret of secrets) assert.ok(!text.includes(secret), `${where} holds ${secret}`);
    assert.ok(pages['/config'].includes(`${door.folder}/secret`) && pages['/config'].includes(`${folder}/ca/edge.key`), 'it says where they are');
    assert.equal(JSON.parse(pages['/config']).config.listeners.edge.tls.certificates[0].key, `${folder}/ca/edge.key`);
  });
});

// ---- metrics

/** The names in the tables of docs/metrics.md. */
const documented = () => [...doc('docs/metrics.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);

test('every documented metric is there after traffic, and moves with what it counts', async () => {
  const outPort = await freePort();
  const source = await control();
  const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${own}/tls.crt, key: ${own}/tls.key}]}}
  out: {kind: forward, address: 127.0.0.1:${outPort}, plugin: catalog}
${identity(own)}
workspaces: {named: {payments: {}, web: {rate_limit: {rate: 1/h, burst: 1}}}}
egress: {rules: [{name: up, to: ["${new URL(up.url).host}"]}], private: [{host: "${new URL(up.url).host}", addresses: [127.0.0.1/32]}]}
upstreams:
  up: {url: ${up.url}}
  sick: {url: ${up.url}, retries: {attempts_max: 1}, breaker: {requests_min: 2, open_duration: 1h}}
  again: {url: ${up.url}, retries: {budget_percent: 100}, breaker: {requests_min: 1000}}
  paced: {url: ${up.url}, pace: {rate: 3/s, burst: 1}}
  shown: {url: ${up.url}, credential: away}
  pair: {url: "http://localhost:${up.port}", outlier_detection: {consecutive_failures: 1, base_ejection_time: 5m}}
  checked: {url: ${up.url}, health_check: {path: "/?do=status&n=500", interval: 100ms, timeout: 100ms}}
credentials: {away: {kind: oauth2_client_credentials, token_url: "http://127.0.0.1:1", client_id: a, client_secret_file: ${file('a', 'away')}}}
control: {url: "${source.url}", interval: 200ms, stale_after: 1s}
rate_limit: {per_client: {rate: 100000/s, burst: 100000}}
routes:
${OPEN}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, plugin: shown}
- {name: sick, methods: [GET], path: /sick, upstream: sick, class: read, options: {public: true}}
- {name: again, methods: [GET], path: /again, upstream: again, class: read, options: {public: true}}
- {name: paced, methods: [GET], path: /paced, upstream: paced, class: read, options: {public: true}}
- {name: pair, methods: [GET], path: /pair, upstream: pair, class: read, options: {public: true}}
- {name: kept, methods: [GET], path: /kept, upstream: up, class: read, options: {public: true, coalesce: {ttl: 30s}}}
- {name: shown, methods: [GET], path: /shown, upstream: shown, class: read, options: {public: true}}`;
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-operator-'));
  const serve = (name) => { for (const kind of ['crt', 'key']) fs.copyFileSync(ca.file(`${name}.${kind}`), path.join(own, `tls.${kind}`)); };
  serve('other');
  await withDoor(config, { folder: own }, async (door) => {
    const all = async () => {
      const found = await samples(door);
      const of = (name) => found.filter((s) => [name, `${name}_count`, `${name}_sum`, `${name}_bucket`].includes(s.name));
      return Object.fromEntries(documented().map((name) => [name, JSON.stringify(of(name))]));
    };
    // The source may have been slow to begin with.
    await until('the control source to be heard', async () => await metric(door, 'stagedoor_control_stale') === 0);
    const before = await all();
    const loaded = await metric(door, 'stagedoor_config_last_reload_success_timestamp_seconds');

    const status = async (where, headers) => (await fetch(`${door.url}${where}`, { headers })).status;
    assert.equal(await status('/open/x'), 200);
    assert.equal(await status('/read/x', bearer('ada', ['payments'])), 200);
    assert.equal(await status('/read/x', bearer('bo', ['web'])), 200);
    assert.equal(await status('/read/x', bearer('bo', ['web'])), 429);
    assert.equal(await status('/nothing'), 403);
    for (const where of ['/paced', '/paced', '/kept', '/kept', '/kept']) assert.equal(await status(where), 200);
    assert.equal(await status('/shown'), 503);
    assert.deepEqual([await status('/sick?do=status&n=500'), await status('/sick?do=status&n=500'), await status('/sick')], [500, 500, 503]);
    await until('another attempt', async () => await status('/again?do=close') === 502 && await metric(door, 'stagedoor_retries_total', { upstream: 'again' }) > 0);
    // Nobody listens at the other address of `localhost`.
    await until('an ejection', async () => await status('/pair') === 200 && await metric(door, 'stagedoor_ejections_total', { upstream: 'pair' }) > 0);
    const checked = await metric(door, 'stagedoor_health_check_failures_total', { upstream: 'checked' });
    await until('a check', async () => await metric(door, 'stagedoor_health_check_failures_total', { upstream: 'checked' }) > checked);
    // A certificate that ends at another time, a secret that is read again, a config that is taken over later.
    ca.issue('other', { names: ['other.example'], days: 9 });
    serve('other');
    await until('a reload in another second', async () => (await door.reload()).time > loaded);
    await source.away();
    await until('the control source to be missed', async () => await metric(door, 'stagedoor_control_stale') === 1);
    // No record can be kept for a while.
    fs.rmSync(path.join(own, 'audit'), { recursive: true });
    await until('a record to be lost', async () => await status('/open/x') === 200 && await metric(door, 'stagedoor_audit_records_lost_total') > 0, 10000);
    fs.mkdirSync(path.join(own, 'audit'));
    await until('records to be kept again', async () => (await state(door)).audit.works, 10000);
    // A secret that cannot be used is not taken over.
    fs.writeFileSync(path.join(own, 'secret'), 'short');
    edit(door, 'audit: {', 'audit: {segments_max: 17, ');
    assert.equal((await door.reload()).successful, true);
    edit(door, 'class: read', 'clas: read');
    assert.equal((await door.reload()).successful, false);
    // A call that is over, and a tunnel that is open.
    const tunnel = () => new Promise((resolve) => {
      const socket = net.connect(outPort, '127.0.0.1');
      socket.once('data', () => resolve(socket));
      socket.on('error', () => {});
      socket.write(`CONNECT ${new URL(up.url).host} HTTP/1.1\r\nHost: ${new URL(up.url).host}\r\n\r\n`);
    });
    (await tunnel()).end('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    await until('the call to be counted', async () => await metric(door, 'stagedoor_calls_total', { rule: 'up', decision: 'allow' }) === 1);
    const opened = await tunnel();
    await until('a tunnel', async () => await metric(door, 'stagedoor_calls_in_flight') === 1);
    const hanging = new AbortController();
    fetch(`${door.url}/open/x?do=hang`, { signal: hanging.signal }).catch(() => {});
    await until('an exchange to be under way', async () => await metric(door, 'stagedoor_requests_in_flight') === 2);

    const switched = { method: 'POST', body: '{"caller": "nobody", "position": "open", "for": "1h", "reason": "x", "by": "ada"}' };
    assert.equal((await door.admin('/switches', switched)).status, 201);

    const now = await all();
    opened.destroy();
    hanging.abort();
    assert.ok(documented().length >= 20);
    const ofSinks = (name) => name.startsWith('stagedoor_audit_ship');
    for (const name of documented().filter(ofSinks)) assert.ok(doc('tests/real/test/shipping.test.js').includes(name), `${name} moves in no test`);
    const writable = 'stagedoor_audit_writable';
    assert.ok(doc('tests/real/test/life.test.js').includes(writable), `${writable} moves in no test`);
    const ofStore = (name) => name.startsWith('stagedoor_store');
    const shared = doc('tests/real/test/shared.test.js') + doc('tests/real/test/shared-away.test.js');
    for (const name of documented().filter(ofStore)) assert.ok(shared.includes(name), `${name} moves in no test`);
    for (const name of documented().filter((name) => !ofSinks(name) && !ofStore(name) && name !== writable)) {
      assert.notEqual(now[name], '[]', `${name} is documented and not there`);
      if (name !== 'stagedoor_build_info') assert.notEqual(now[name], before[name], `${name} did not move`);
    }
    // What is there is documented, and is what it is called.
    const names = (await (await door.admin('/metrics')).text()).match(/^# TYPE \w+/gm).map((line) => line.split(' ')[2]);
    assert.deepEqual(names.filter((name) => !documented().includes(name)), []);
    const exact = async (name, labels, value) => assert.equal(await metric(door, name, labels), value, `${name} ${JSON.stringify(labels)}`);
    await exact('stagedoor_build_info', {}, 1);
    await exact('stagedoor_shared_responses_total', { route: 'kept', shared: 'hit' }, 2);
    assert.ok(await metric(door, 'stagedoor_pacing_delay_seconds_total', { upstream: 'paced' }) > 0.01);
    await exact('stagedoor_credential_fetches_total', { credential: 'away', result: 'error' }, 1);
    await exact('stagedoor_requests_total', { route: 'read', class: 'read', status: '200' }, 2);
    await exact('stagedoor_requests_total', { route: 'read', class: 'read', status: '429' }, 1);
    await exact('stagedoor_requests_total', { route: 'none', status: '403' }, 1);
    await exact('stagedoor_request_duration_seconds_count', { route: 'sick' }, 3);
    await exact('stagedoor_upstream_duration_seconds_count', { route: 'read' }, 2);
    await exact('stagedoor_denials_total', { code: 'rate_limited' }, 1);
    await exact('stagedoor_denials_total', { code: 'route_unknown' }, 1);
    await exact('stagedoor_denials_total', { code: 'breaker_open' }, 1);
    await exact('stagedoor_workspace_requests_total', { workspace: 'payments', decision: 'allow' }, 1);
    await exact('stagedoor_workspace_requests_total', { workspace: 'web', decision: 'deny' }, 1);
    await exact('stagedoor_breaker_state', { upstream: 'sick' }, 1);
    await exact('backstage_circuit_breaker_state', { service: 'sick' }, 1);
    await exact('stagedoor_breaker_state', { upstream: 'up' }, 0);
    await exact('stagedoor_switches', { scope: 'caller', position: 'open' }, 1);
    assert.ok(await metric(door, 'backstage_request_failures_total') >= 3);
    await exact('plugins_requests_total', { method: 'GET', status: '200', workspace_id: 'payments' }, 1);
    await exact('plugins_errors_total', { type: 'rate_limited', plugin_id: 'shown' }, 1);
    await exact('plugins_rate_limit_exceeded_total', {}, 1);
    await exact('stagedoor_config_last_reload_successful', {}, 0);
    await exact('stagedoor_config_last_reload_failures', {}, 1);
    await exact('stagedoor_config_needs_restart', {}, 1);
    assert.ok(await metric(door, 'stagedoor_keys_fetches_total', { issuer: 'orbit' }) >= 2);
    const end = Date.parse(new crypto.X509Certificate(fs.readFileSync(ca.file('other.crt'))).validTo) / 1000;
    await exact('stagedoor_certificate_not_after_seconds', { listener: 'tls', name: 'other.example' }, end);
  });
});

test('without aliases none is served, and workspaces beyond the cap are one', async () => {
  const config = plain(`
workspaces: {named: {w1: {}, w2: {}, w3: {}, w4: {}}}
upstreams: {up: {url: ${up.url}}}
process: {drain_delay: 0s, drain_timeout: 5s, metric_aliases: false, metric_workspaces_max: 2}
routes:
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, plugin: shown}`);
  await withDoor(config, {}, async (door) => {
    for (const name of ['w1', 'w2', 'w2', 'w3', 'w4', 'w4']) assert.equal((await fetch(`${door.url}/read/x`, { headers: bearer('ada', [name]) })).status, 200);
    await counted(door);
    const found = (await samples(door)).filter((s) => s.name === 'stagedoor_workspace_requests_total').map((s) => [s.labels.workspace, s.value]);
    assert.deepEqual(found.sort(), [['other', 3], ['w1', 1], ['w2', 2]]);
    assert.deepEqual((await samples(door)).filter((s) => !s.name.startsWith('stagedoor_')), []);
  });
});

test('an alias shows the open circuit of one plugin among several on an upstream', async () => {
  const config = plain(`
upstreams: {up: {url: ${up.url}, retries: {attempts_max: 1}, breaker: {requests_min: 2, open_duration: 1h}}}
routes:
- {name: a, methods: [GET], path: /a, upstream: up, class: read, plugin: a, options: {public: true}}
- {name: b, methods: [GET], path: /b, upstream: up, class: read, plugin: b, options: {public: true}}`);
  await withDoor(config, {}, async (door) => {
    assert.equal((await fetch(`${door.url}/b`)).status, 200);
    for (const status of [502, 502, 503]) assert.equal((await fetch(`${door.url}/a?do=close`)).status, status);
    await counted(door);
    assert.deepEqual([await metric(door, 'stagedoor_breaker_state', { plugin: 'a' }), await metric(door, 'stagedoor_breaker_state', { plugin: 'b' })], [1, 0]);
    assert.equal(await metric(door, 'backstage_circuit_breaker_state', { service: 'up' }), 1);
  });
});

test('a workspace that is put before others is not counted as one of them', async () => {
  await withDoor(ROUTES('- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}'), {}, async (door) => {
    const ask = async (name) => assert.equal((await fetch(`${door.url}/read/x`, { headers: bearer('ada', [name]) })).status, 200);
    const both = async () => {
      await counted(door);
      return [await metric(door, 'stagedoor_workspace_requests_total', { workspace: 'payments' }), await metric(door, 'stagedoor_workspace_requests_total', { workspace: 'web' })];
    };
    await ask('payments');
    await ask('web');
    assert.deepEqual(await both(), [1, 1]);
    edit(door, 'named: {payments: {}', 'named: {alpha: {}, payments: {}');
    assert.equal((await door.reload()).successful, true);
    await ask('alpha');
    assert.deepEqual(await both(), [1, 1], 'alpha is neither');
    await ask('payments');
    assert.deepEqual(await both(), [2, 1]);
  });
});

test('an exchange that ends after a reload does not spoil the counts of another route', async () => {
  const route = (name) => `- {name: ${name}, methods: [GET], path: /${name}, upstream: up, class: read, options: {public: true}}`;
  await withDoor(ROUTES(`${route('first')}\n${route('second')}`), {}, async (door) => {
    const slow = fetch(`${door.url}/first?do=slow&ms=1000`);
    await until('it to be under way', async () => (await state(door)).requests_in_flight === 1);
    edit(door, `${route('first')}\n${route('second')}`, `${route('second')}\n${route('first')}`);
    assert.equal((await door.reload()).successful, true);
    assert.equal((await state(door)).requests_in_flight, 1, 'it ended before the reload did');
    assert.equal((await slow).status, 200);
    await until('it to be counted', async () => await metric(door, 'stagedoor_requests_total', { route: 'first' }) === 1);
    assert.equal((await fetch(`${door.url}/second`)).status, 200);
    await until('both to be on record', async () => door.records().length === 2);
    assert.deepEqual([await metric(door, 'stagedoor_requests_total', { route: 'first' }), await metric(door, 'stagedoor_requests_total', { route: 'second' })], [1, 1]);
  });
});

test('what a reload took away is no longer in the metrics: a circuit, a certificate', async () => {
  const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${ca.file('edge.crt')}, key: ${ca.file('edge.key')}}]}}
upstreams: {up: {url: ${up.url}}, gone: {url: ${up.url}, breaker: {requests_min: 1, open_duration: 1h}}}
routes:
${OPEN}
- {name: gone, methods: [GET], path: /gone, upstream: gone, class: read, options: {public: true}}`;
  await withDoor(config, {}, async (door) => {
    assert.equal((await fetch(`${door.url}/gone?do=close`)).status, 502);
    await until('the circuit to open', async () => await metric(door, 'stagedoor_breaker_state', { upstream: 'gone' }) === 1);
    edit(door, ca.file('edge.crt'), ca.file('other.crt'));
    edit(door, ca.file('edge.key'), ca.file('other.key'));
    edit(door, '- {name: gone, methods: [GET], path: /gone, upstream: gone, class: read, options: {public: true}}', '');
    assert.equal((await door.reload()).successful, true);
    const names = (await samples(door)).filter((s) => s.name === 'stagedoor_certificate_not_after_seconds').map((s) => s.labels.name);
    const circuits = (await samples(door)).filter((s) => s.name === 'stagedoor_breaker_state').map((s) => s.labels.upstream);
    assert.deepEqual([names, circuits], [['other.example'], ['up']]);
  });
});

// ---- audit

/** A program that begins with these words of a shell and then becomes the proxy. */
const wrapped = (name, words) => {
  const at = file(`#!/bin/sh\n${words.replaceAll('PROXY', `"${rig.binary}" "$@"`)}\n`, name);
  fs.chmodSync(at, 0o755);
  return at;
};
/** Does something with another program in the place of the proxy's. */
const instead = async (program, body) => {
  const own = rig.binary;
  rig.binary = program;
  try { return await body(); } finally { rig.binary = own; }
};
const AUDITED = () => ROUTES('- {name: read, methods: [GET], path: /read/**, upstream: up, class: read}\n- {name: act, methods: [POST], path: /act/**, upstream: up, class: action}');
const ada = () => bearer('ada', ['payments']);
const read = (door) => fetch(`${door.url}/read/x`, { headers: ada() });
const act = (door) => fetch(`${door.url}/act/x`, { method: 'POST', headers: ada() });

test('while the audit disk is full reads pass, actions do not, and each exchange is on record or counted as lost', async (t) => {
  const own = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-operator-'));
  const mount = `mount -t tmpfs -o size=4m tmpfs "${own}/audit"`;
  fs.mkdirSync(path.join(own, 'audit'));
  const possible = await new Promise((resolve) => { execFile('unshare', ['-rm', 'sh', '-c', mount], (error) => resolve(!error)); });
  if (!possible) { fs.rmSync(own, { recursive: true }); return t.skip('no file system may be mounted here, not even in a namespace of its own'); }
  // The mount is in the proxy's own namespace and ends with it; we look into it through /proc.
  const program = wrapped('on-a-small-disk', `exec unshare -rm sh -c '${mount} && exec "$0" "$@"' PROXY`);
  return instead(program, () => withDoor(AUDITED(), { folder: own }, async (door) => {
    const audit = `/proc/${door.pid}/root${own}/audit`;
    const lost = () => metric(door, 'stagedoor_audit_records_lost_total');
    let exchanges = 0;
    const count = async (answer) => { const got = await said(answer); exchanges += 1; return got; };
    assert.deepEqual([(await count(await read(door)))[0], (await count(await act(door)))[0]], [200, 200]);

    const filler = fs.openSync(path.join(audit, 'filler'), 'w');
    assert.throws(() => { for (;;) fs.writeSync(filler, Buffer.alloc(4096)); }, { code: 'ENOSPC' });
    fs.closeSync(filler);
    await until('a record to be lost', async () => {
      const statuses = await Promise.all(Array.from({ length: 64 }, async () => (await count(await read(door)))[0]));
      assert.deepEqual(statuses.filter((status) => status !== 200), []);
      return await lost() > 0;
    });
    const reached = up.seen.length;
    for (let n = 0; n < 5; n += 1) assert.deepEqual(await count(await act(door)), [503, 'audit_unavailable']);
    assert.equal(up.seen.length, reached, 'an action reached the upstream');
    assert.equal((await state(door)).audit.works, false);
    exchanges += 1;
    assert.match(door.output(), /audit records cannot be written: actions are refused/);
    // Beyond the room that was reserved, too.
    const kept = () => fs.readdirSync(audit).filter((name) => name.endsWith('.jsonl'))
      .flatMap((name) => fs.readFileSync(path.join(audit, name), 'utf8').split('\n').filter(Boolean)).map((line) => JSON.parse(line)).filter((line) => !line.kind || line.kind === 'admin');
    await until('records that are nowhere', async () => {
      const statuses = await Promise.all(Array.from({ length: 64 }, async () => (await count(await read(door)))[0]));
      assert.deepEqual(statuses.filter((status) => status !== 200), []);
      return kept().length + 100 < exchanges;
    });
    assert.deepEqual(await count(await act(door)), [503, 'audit_unavailable']);

    fs.rmSync(path.join(audit, 'filler'));
    await until('actions to pass again', async () => (await count(await act(door)))[0] === 200, 10000);
    assert.ok(up.seen.length > reached);
    assert.equal((await count(await read(door)))[0], 200);
    assert.match(door.output(), /audit records can be written again/);
    await until('the records', async () => kept().length + await lost() >= exchanges, 5000);
    assert.equal(kept().length + await lost(), exchanges, `${kept().length} are on record and ${await lost()} counted as lost`);
  }));
});

test('an audit folder that is removed stops actions until it is back, whatever the traffic', async () => {
  await withDoor(AUDITED(), {}, async (door) => {
    assert.equal((await act(door)).status, 200);
    fs.rmSync(path.join(door.folder, 'audit'), { recursive: true });
    await until('actions to be refused', async () => (await said(await act(door)))[1] === 'audit_unavailable', 10000);
    assert.equal((await read(door)).status, 200);
    let running = true; let failed = 0;
    const readers = Promise.all(Array.from({ length: 4 }, async () => { while (running) if ((await read(door)).status !== 200) failed += 1; }));
    try {
      fs.mkdirSync(path.join(door.folder, 'audit'));
      await until('actions to pass while others read', async () => (await said(await act(door)))[0] === 200, 6000);
    } finally {
      running = false;
      await readers;
    }
    assert.equal(failed, 0);
    await door.record((r) => r.class === 'action' && r.decision === 'allow');
  });
});

test('without a folder each exchange is one line on standard output, and nothing else is', async () => {
  const log = path.join(folder, 'log');
  await instead(wrapped('logging-elsewhere', `exec PROXY 2>"${log}"`), async () => {
    const door = await rig.stagedoor(AUDITED(), { audit: false });
    const ids = Array.from({ length: 30 }, (_, n) => `out-${n}`);
    try {
      await Promise.all(ids.map((id, n) => fetch(`${door.url}${['/read/x', '/nothing'][n % 2]}`, { headers: { ...ada(), 'x-request-id': id } })));
      assert.match(await raw(door.ports.edge, 'GET / HTTP/1.1\r\nHost : a\r\n\r\n'), /head_malformed/);
      door.signal('SIGTERM');
      assert.equal(await door.ended, 0);
      const records = door.output().trim().split('\n').map((line) => JSON.parse(line)).filter((line) => !line.kind);
      assert.deepEqual(records.map((r) => r.id).filter((id) => ids.includes(id)).sort(), [...ids].sort());
      assert.equal(records.length, ids.length + 1);
      assert.deepEqual([...new Set(records.map((r) => r.code))].sort(), ['head_malformed', 'ok', 'route_unknown']);
      assert.match(fs.readFileSync(log, 'utf8'), /"stopping"/);
    } finally {
      await door.stop();
    }
  });
});

test('standard output that takes nothing more stops actions for as long as it does not, and no read', async () => {
  await instead(wrapped('on-a-full-device', 'exec PROXY >/dev/full'), () => withDoor(AUDITED(), { audit: false }, async (door) => {
    assert.equal((await read(door)).status, 200);
    await until('its record to be lost', async () => await metric(door, 'stagedoor_audit_records_lost_total') >= 1);
    // Nothing has got better since.
    await assert.rejects(until('records to be kept', async () => (await state(door)).audit.works, 1000), 'it takes records for kept again');
    const reached = up.seen.length;
    assert.deepEqual(await said(await act(door)), [503, 'audit_unavailable']);
    assert.equal(up.seen.length, reached);
    assert.equal((await read(door)).status, 200);
  }));
});

// ---- what only sockets show

test('each code that only the machinery can give is in some test', () => {
  const codes = [...doc('tests/scenarios/machinery.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, code]) => code);
  const tests = fs.readdirSync(__dirname).map((name) => fs.readFileSync(path.join(__dirname, name), 'utf8')).join('\n');
  assert.ok(codes.length > 10);
  // Nobody knows how to provoke an error that is never expected.
  assert.deepEqual(codes.filter((code) => code !== 'internal' && !new RegExp(`\\b${code}\\b`).test(tests)), []);
});

test('an upstream that takes no connection is given up in time, over TCP and over TLS', async () => {
  // One that has stopped, with its queue of connections full.
  const stopped = spawn(process.execPath, ['-e', 'const s = require("net").createServer(); s.listen({port: 0, host: "127.0.0.1", backlog: 1}, () => console.log(s.address().port));'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const mute = net.createServer(() => {});
  const waiting = [];
  try {
    const port = Number(await new Promise((resolve) => stopped.stdout.once('data', resolve)));
    stopped.kill('SIGSTOP');
    await until('it to stop', async () => / T /.test(fs.readFileSync(`/proc/${stopped.pid}/stat`, 'utf8')));
    const hex = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    await until('its queue to be full', async () => {
      const socket = net.connect(port, '127.0.0.1');
      socket.on('error', () => {});
      waiting.push(socket);
      const listens = fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').map((line) => line.trim().split(/\s+/)).find(([, local, , kind]) => local === hex && kind === '0A');
      return parseInt(listens[4].split(':')[1], 16) > 1;
    });
    // One that takes connections and never says anything.
    await new Promise((resolve) => mute.listen(0, '127.0.0.1', resolve));
    await withDoor(plain(`
upstreams:
  full: {url: "http://127.0.0.1:${port}", timeouts: {connect: 300ms}}
  mute: {url: "https://127.0.0.1:${mute.address().port}", timeouts: {connect: 300ms}}
  text: {url: "https://127.0.0.1:${up.port}"}
routes:
- {name: full, methods: [ANY], path: /full, upstream: full, class: action, options: {public: true}}
- {name: mute, methods: [ANY], path: /mute, upstream: mute, class: read, options: {public: true}}
- {name: text, methods: [ANY], path: /text, upstream: text, class: read, options: {public: true}}`), {}, async (door) => {
      for (const [where, status, code] of [['/full', 504, 'connect_timeout'], ['/mute', 504, 'connect_timeout'], ['/text', 502, 'upstream_tls']]) {
        const begun = Date.now();
        assert.deepEqual(await said(await fetch(`${door.url}${where}`, { method: 'POST', body: 'x' })), [status, code], where);
        const took = Date.now() - begun;
        assert.ok(took < 2500 && (code !== 'connect_timeout' || took >= 290), `${where} took ${took} ms`);
        const record = await door.record((r) => r.route === where.slice(1));
        assert.deepEqual([record.code, record.status], [code, status]);
        assert.equal(await metric(door, 'stagedoor_requests_total', { route: where.slice(1), status: String(status) }), 1);
      }
    });
  } finally {
    stopped.kill('SIGKILL');
    mute.close();
    waiting.forEach((socket) => socket.destroy());
  }
});

/** Bodies that nobody can read in one way. */
const BROKEN = ['zz\r\nab\r\n0\r\n\r\n', '-1\r\na\r\n0\r\n\r\n', '2\r\nabc\r\n0\r\n\r\n', '1;a\nb\r\n0\r\n\r\n', '1\r\na\r\n 1\r\nb\r\n0\r\n\r\n', '0x1\r\na\r\n0\r\n\r\n', '10000000000000000\r\na'];
const CHUNKED = 'POST /open/broken HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n';

test('a body whose framing is broken is refused, and the upstream takes no part of it for whole', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    for (const body of BROKEN) {
      const reached = up.seen.length;
      const socket = net.connect(door.ports.edge, '127.0.0.1');
      let answer = '';
      socket.on('data', (data) => { answer += data; });
      socket.on('error', () => {});
      const closed = new Promise((resolve) => socket.once('close', resolve));
      socket.write(CHUNKED);
      await until('the head to be taken', async () => (await state(door)).requests_in_flight === 1);
      socket.write(body);
      await closed;
      assert.match(answer, /^HTTP\/1\.1 400 /, JSON.stringify(body));
      const { code, request_id: id } = JSON.parse(answer.split('\r\n\r\n')[1]);
      assert.equal(code, 'body_malformed', JSON.stringify(body));
      assert.equal((await door.record((r) => r.id === id)).code, 'body_malformed');
      assert.equal(up.seen.length, reached, 'the upstream saw a whole request');
    }
    assert.equal(await metric(door, 'stagedoor_denials_total', { code: 'body_malformed' }), BROKEN.length);
    assert.equal(await metric(door, 'stagedoor_breaker_state', { upstream: 'up' }), 0, 'it is not the upstream that is sick');
  });
});

test('a broken body has the same code when it comes together with its head', async () => {
  await withDoor(ROUTES(OPEN), {}, async (door) => {
    const reached = up.seen.length;
    for (const body of BROKEN) {
      const answer = await raw(door.ports.edge, `${CHUNKED}${body}`, { ms: 3000 });
      assert.match(answer, /^HTTP\/1\.1 400 /, JSON.stringify(body));
      assert.equal(JSON.parse(answer.split('\r\n\r\n')[1]).code, 'body_malformed', JSON.stringify(body));
    }
    assert.equal(up.seen.length, reached);
  });
});

test('more connections than a listener or a client may have are refused, until one ends', async () => {
  const limited = (limits) => (ports, own) => plain(`upstreams: {up: {url: ${up.url}}}\nroutes:\n${OPEN}`)(ports, own).replace(/(kind: reverse, address: [\d.:]+)/, `$1, limits: {${limits}}`);
  for (const limits of ['connections_max: 2', 'connections_per_client_max: 2']) {
    await withDoor(limited(limits), {}, async (door) => {
      const agents = [0, 1].map(() => new http.Agent({ keepAlive: true, maxSockets: 1 }));
      const held = (agent) => new Promise((resolve, reject) => { http.get({ port: door.ports.edge, host: '127.0.0.1', path: '/open/x', agent }, (answer) => { answer.resume(); answer.on('end', () => resolve(answer.statusCode)); }).on('error', reject); });
      for (const agent of agents) assert.equal(await held(agent), 200);
      const third = () => raw(door.ports.edge, 'GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
      const answer = await third();
      assert.match(answer, /^HTTP\/1\.1 503 .*\r\nRetry-After: 1\r\n/s, limits);
      const { code, request_id: id } = JSON.parse(answer.split('\r\n\r\n')[1]);
      assert.equal(code, 'connections_exhausted');
      assert.equal((await door.record((r) => r.id === id)).code, code);
      assert.equal(await metric(door, 'stagedoor_denials_total', { code }), 1);
      assert.equal(await held(agents[0]), 200, 'those that are there live on');
      agents[1].destroy();
      await until('its place', async () => /^HTTP\/1\.1 200 /.test(await third()), 5000);
      agents[0].destroy();
    });
  }
});

// ---- rollout

test('a plugin reaches a stable share of the workspaces, and a workspace\'s own word comes first', async () => {
  const names = Array.from({ length: 40 }, (_, n) => `team-${n}`);
  const config = (percent) => plain(`
workspaces: {named: {${names.map((name) => `${name}: {}`).join(', ')}, early: {plugins: {argo: true}}, late: {plugins: {argo: false}}}}
plugins: {argo: {enabled_percent: ${percent}}}
upstreams: {up: {url: ${up.url}}}
routes:
- {name: argo, methods: [GET], path: /argo, upstream: up, class: read, plugin: argo}
- {name: free, methods: [GET], path: /free, upstream: up, class: read, plugin: free}`);
  const ask = async (door, name, where = '/argo') => said(await fetch(`${door.url}${where}`, { headers: { ...bearer('ada', [...names, 'early', 'late']), 'x-orbit-workspace-id': name } }));
  const reached = async (door) => {
    const on = [];
    for (const name of names) {
      const got = await ask(door, name);
      if (got[0] === 200) on.push(name); else assert.deepEqual(got, [403, 'plugin_disabled'], name);
    }
    assert.deepEqual([(await ask(door, 'early'))[0], (await ask(door, 'late'))[0]], [200, 403], 'their own word comes first');
    assert.equal((await ask(door, names[0], '/free'))[0], 200, 'a plugin that is not mentioned is on');
    return on;
  };
  let half;
  await withDoor(config(50), {}, async (door) => {
    half = await reached(door);
    assert.ok(half.length > 8 && half.length < 32, `${half.length} of 40`);
    const at = {};
    let last = 50;
    for (const percent of [0, 10, 100]) {
      edit(door, `enabled_percent: ${last}`, `enabled_percent: ${percent}`);
      last = percent;
      assert.equal((await door.reload()).successful, true);
      at[percent] = await reached(door);
    }
    assert.deepEqual([at[0], at[100]], [[], names]);
    assert.deepEqual(at[10].filter((name) => !half.includes(name)), [], 'whoever had it at 10 still has it at 50');
  });
  await withDoor(config(50), {}, async (door) => assert.deepEqual(await reached(door), half, 'the same after a restart'));
});

// ---- identity headers over HTTP/2

test('over HTTP/2 no spelling of an identity header arrives, and a workspace is asked for as over HTTP/1.1', async () => {
  const config = (ports, own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${ports.tls}, tls: {certificates: [{cert: ${ca.file('edge.crt')}, key: ${ca.file('edge.key')}}]}}
${identity(own)}
${WIDE}
workspaces: {named: {payments: {}, web: {}}}
upstreams: {up: {url: ${up.url}}}
routes:
${OPEN}
- {name: read, methods: [GET], path: /read/**, upstream: up, class: read, plugin: shown}`;
  await withDoor(config, {}, async (door) => {
    const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca), servername: 'edge.example' });
    const ask = (headers, where = '/read/x') => new Promise((resolve, reject) => {
      const stream = session.request({ ':path': where, ':authority': 'edge.example', ...headers });
      let body = '';
      stream.on('response', (head) => { stream.status = head[':status']; });
      stream.on('data', (data) => { body += data; });
      stream.on('end', () => resolve([stream.status, JSON.parse(body).code]));
      stream.on('error', reject);
    });
    try {
      for (const name of ['x-orbit-user-id', 'X-Orbit-User-Id', 'X_ORBIT_USER_ID', 'x_orbit-user_id', 'x.orbit.user.id', 'x-orbit.user_id', 'x_orbit_workspace_id', 'x.orbit.workspace.id',
        'x-orbit-plugin-id', 'x_orbit_plugin_id', 'x-stagedoor-assertion', 'x_stagedoor_assertion', 'forwarded', 'x-real-ip', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x_forwarded_for']) {
        for (const where of ['/read/x', '/open/x']) {
          const reached = up.seen.length;
          assert.deepEqual(await ask({ ...ada(), [name]: ['evil', 'evil'] }, where), [200, undefined], `${name} ${where}`);
          assert.equal(up.seen.length, reached + 1);
          assert.doesNotMatch(up.last().raw.join('\n'), /evil/, `${name} reached the upstream`);
          const { headers } = up.last();
          const ours = where === '/read/x' ? ['ada', 'payments', 'shown'] : [undefined, undefined, undefined];
          assert.deepEqual([headers['x-orbit-user-id'], headers['x-orbit-workspace-id'], headers['x-orbit-plugin-id']], ours, `${name} ${where}`);
          assert.equal(headers['x-forwarded-proto'], 'https');
        }
      }
      const both = bearer('bo', ['payments', 'web', 'ghost']);
      const reached = up.seen.length;
      assert.deepEqual(await ask({}), [401, 'caller_missing']);
      assert.deepEqual(await ask(both), [400, 'workspace_missing']);
      assert.deepEqual(await ask({ ...both, 'x-orbit-workspace-id': ['payments', 'web'] }), [400, 'workspace_ambiguous']);
      assert.deepEqual(await ask({ ...both, 'x-orbit-workspace-id': 'ghost' }), [403, 'workspace_unknown']);
      assert.deepEqual(await ask({ ...ada(), 'x-orbit-workspace-id': 'web' }), [403, 'workspace_not_granted']);
      assert.equal(up.seen.length, reached, 'none of them reached the upstream');
      assert.deepEqual(await ask({ ...both, 'x-orbit-workspace-id': 'web' }), [200, undefined]);
      assert.equal(up.last().headers['x-orbit-workspace-id'], 'web');
    } finally {
      session.close();
    }
  });
});
