'use strict';
// A control source says which workspaces and plugins there are: what is good takes effect while the proxy
// runs, what is bad changes nothing, and while it is away the last good answer holds.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { control, orbits, said } = require('../rig/control');
const { identity, orbit } = require('../rig/jwt');
const { until } = require('../rig/ports');
const { binary, stagedoor } = require('../rig/stagedoor');

let up;
before(async () => {
  up = http.createServer((_, response) => response.end('{}'));
  await new Promise((resolve) => up.listen(0, '127.0.0.1', resolve));
  up.url = `http://127.0.0.1:${up.address().port}`;
});
after(() => { up.closeAllConnections(); up.close(); });

const config = (source, more = '', files = 'workspaces: {named: {pay: {}, shop: {}}}') => (ports, folder) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
${identity(folder)}
${files}
${files.includes('rate_limit') ? '' : 'rate_limit: {per_workspace: {rate: 1000/s, burst: 100000}}'}
upstreams: {up: {url: "${up.url}"}}
routes:
- {name: argo, methods: [GET], path: /argo, upstream: up, class: read, plugin: argocd}
- {name: jira, methods: [GET], path: /jira, upstream: up, class: read, plugin: jira}
${source ? `control: {url: "${source.url}"${/timeout/.test(more) ? '' : ', timeout: 30s'}${more && `, ${more}`}}` : ''}`;
const door = (...args) => stagedoor(config(...args));
const ask = async (proxy, where, workspace = 'pay', claims = {}, caller = 'ada') => {
  const workspaces = claims.workspaces ?? [workspace];
  const response = await fetch(`${proxy.url}${where}`, {
    headers: { authorization: `Bearer ${orbit(caller, workspaces, claims)}`, 'x-orbit-workspace-id': workspace },
  });
  return response.status === 200 ? 200 : `${response.status} ${(await response.json()).code}`;
};
const OFF = '403 plugin_disabled';
const state = async (proxy) => (await proxy.admin('/state')).json();
const metric = async (proxy, name) => {
  const text = await (await proxy.admin('/metrics')).text();
  const line = text.split('\n').find((one) => one.startsWith(`${name} `));
  return line && Number(line.split(' ').pop());
};
const fetches = (proxy, result) => metric(proxy, `stagedoor_control_fetches_total{result="${result}"}`);
const events = (proxy) => proxy.written().filter((line) => line.kind === 'config' && line.source === 'control');
const temporary = (name) => path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-control-')), name);
/** A source that is only asked when somebody says so, and a proxy in front of it. */
const quiet = async (t, body, more = '', files) => {
  const source = await control(body);
  const proxy = await door(source, `interval: 10m, stale_after: 20m, response_max: 4KiB${more}`, files);
  t.after(async () => { await proxy.stop(); await source.stop(); });
  return { source, proxy };
};

test('what it says is in force before the first request, and takes effect later without a restart', async (t) => {
  const source = await control(said({ plugins: { argocd: { enabled_percent: 0 } } }));
  const proxy = await door(source, 'interval: 200ms, stale_after: 1m');
  t.after(async () => { await proxy.stop(); await source.stop(); });
  assert.equal(await ask(proxy, '/argo'), OFF, 'it was asked before anybody could be served');
  assert.equal(await ask(proxy, '/jira'), 200);
  const first = (await state(proxy)).config;

  source.answers(said({ workspaces: { shop: { plugins: { jira: false } } } }));
  await until('argocd to be on', async () => await ask(proxy, '/argo') === 200);
  assert.equal(await ask(proxy, '/jira', 'shop'), OFF);
  assert.equal(await ask(proxy, '/jira', 'pay'), 200);
  assert.equal(await ask(proxy, '/jira', 'new'), '403 workspace_unknown');
  source.answers(said({ workspaces: { new: { groups: ['devs'], callers: ['bob'], rate_limit: { rate: '1/h', burst: 2 } } } }));
  await until('the workspace', async () => await ask(proxy, '/jira', 'new', { workspaces: [] }, 'bob') === 200);
  assert.equal(await ask(proxy, '/jira', 'new', { workspaces: [] }, 'ada'), '403 workspace_not_granted');
  await until('its limit', async () => await ask(proxy, '/jira', 'new', { workspaces: [] }, 'bob') === '429 rate_limited');

  const changes = await until('three events', async () => { const all = events(proxy); return all.length >= 2 && all; });
  assert.ok(changes.every((event) => event.successful));
  assert.equal(changes[0].previous_config, first);
  assert.ok(changes[0].changes.includes('plugins.argocd: {"enabled_percent":0,"rate_limit":null} → none'), changes[0].changes.join('\n'));
  const now = await state(proxy);
  assert.equal(changes.at(-1).config, now.config);
  const record = await proxy.record((line) => line.code === 'rate_limited');
  assert.equal(record.config, now.config, 'a record leads to the answer that decided');
  assert.ok((await (await proxy.admin('/config')).json()).files.includes(source.url));
  assert.deepEqual([now.control.url, now.control.answered, now.control.stale, now.control.failing], [source.url, true, false, null]);
});

test('a rollout goes up and down with the answers', async (t) => {
  const names = Array.from({ length: 40 }, (_, n) => `team-${n}`);
  const at = (percent) => said({ plugins: { argocd: { enabled_percent: percent } } });
  const { source, proxy } = await quiet(t, at(10), '', `workspaces: {named: {${names.map((name) => `${name}: {}`).join(', ')}}}`);
  const having = async () => {
    const all = await Promise.all(names.map(async (name) => await ask(proxy, '/argo', name) === 200 && name));
    return all.filter(Boolean);
  };
  const ten = await having();
  source.answers(at(50));
  await proxy.reload();
  const fifty = await having();
  assert.ok(ten.length < 15 && fifty.length > ten.length && fifty.length < 35, `${ten.length} ${fifty.length}`);
  assert.ok(ten.every((name) => fifty.includes(name)));
  source.answers(at(100));
  await proxy.reload();
  assert.equal((await having()).length, 40);
  source.answers(at(10));
  await proxy.reload();
  assert.deepEqual(await having(), ten);
});

test('an answer that is the same is not fetched again, and changes nothing', async (t) => {
  const source = await control(said({ plugins: { argocd: { enabled_percent: 0 } } }));
  const proxy = await door(source, 'interval: 150ms, stale_after: 1m');
  t.after(async () => { await proxy.stop(); await source.stop(); });
  const first = await state(proxy);
  await until('some polls', async () => await fetches(proxy, 'unchanged') >= 3);
  assert.equal(source.asked[0].headers['if-none-match'], undefined);
  assert.equal(source.asked[1].headers['if-none-match'], first.control.etag);
  assert.equal(source.asked[1].headers.accept, 'application/json');
  const now = await state(proxy);
  assert.equal(now.config, first.config);
  assert.equal(await fetches(proxy, 'ok'), 1);
  await proxy.settled();
  assert.deepEqual(events(proxy), []);
  assert.ok(Date.now() / 1000 - await metric(proxy, 'stagedoor_control_last_success_timestamp_seconds') < 60);
});

test('one without ETags is compared by what it says, whatever the order', async (t) => {
  const source = await control('{"version":"stagedoor/control-v1","plugins":{"jira":{"enabled_percent":0},"argocd":{"enabled_percent":0}}}', { etags: false });
  const proxy = await door(source, 'interval: 150ms, stale_after: 1m');
  t.after(async () => { await proxy.stop(); await source.stop(); });
  const first = await state(proxy);
  source.answers('{ "plugins": {"argocd":{"enabled_percent":0}, "jira":{"enabled_percent":0}},\n\t"version":"stagedoor/control-v1"}');
  await until('some polls', async () => await fetches(proxy, 'ok') >= 4);
  assert.equal((await state(proxy)).config, first.config);
  await proxy.settled();
  assert.deepEqual(events(proxy), []);
  assert.ok(source.asked.every((request) => !request.headers['if-none-match']));
});

test('a bad answer changes nothing, and is told everywhere', async (t) => {
  const { source, proxy } = await quiet(t, said({ plugins: { argocd: { enabled_percent: 0 } } }));
  const good = await state(proxy);
  const wrong = {
    'not JSON': '<html>login</html>',
    YAML: 'version: stagedoor/control-v1\n',
    'cut off': said({ plugins: { jira: { enabled_percent: 0 } } }).slice(0, -3),
    empty: '',
    'another version': JSON.stringify({ version: 'stagedoor/control-v9' }),
    'no version': '{}',
    'a list': '[]',
    percent: said({ plugins: { jira: { enabled_percent: 101 } } }),
    negative: said({ plugins: { jira: { enabled_percent: -1 } } }),
    fraction: said({ plugins: { jira: { enabled_percent: 12.5 } } }),
    text: said({ plugins: { jira: { enabled_percent: '50' } } }),
    switch: said({ workspaces: { pay: { plugins: { jira: 'off' } } } }),
    name: said({ workspaces: { 'a b': {} } }),
    rate: said({ workspaces: { pay: { rate_limit: { rate: 'lots' } } } }),
    twice: '{"version":"stagedoor/control-v1","plugins":{"jira":{"enabled_percent":0},"jira":{"enabled_percent":100}}}',
    deep: '['.repeat(2000),
    resources: said({ workspaces: { pay: { resources: { stack: ['*'] } } } }),
    undeclared: said({ workspaces: { undeclared: true } }),
    ...Object.fromEntries(['upstreams', 'routes', 'listeners', 'identity', 'credentials', 'egress', 'audit', 'headers', 'process', 'control', 'presets', 'include', 'rate_limit']
      .map((section) => [section, said({ [section]: section === 'routes' ? [] : {} })])),
  };
  let refused = 0;
  for (const [what, body] of Object.entries(wrong)) {
    source.answers(body);
    const result = await proxy.reload();
    assert.equal(result.successful, true, 'the files are fine');
    assert.ok(result.messages.some((message) => message.startsWith(`control: ${source.url}`)), `${what}: ${result.messages}`);
    const now = await state(proxy);
    assert.deepEqual([now.config, now.control.etag], [good.config, good.control.etag], what);
    assert.ok(now.control.failing, what);
    refused += 1;
    assert.ok(await fetches(proxy, 'refused') >= refused, what);
    assert.equal(await ask(proxy, '/argo'), OFF, what);
    assert.equal(await ask(proxy, '/jira'), 200, what);
  }
  await proxy.settled();
  const told = events(proxy);
  assert.ok(told.length > 20 && told.every((event) => !event.successful && event.config === good.config && event.messages.length));
  assert.match(proxy.output(), /"level":"ERROR".*the control source's response changes nothing/);

  source.answers(said({ plugins: { jira: { enabled_percent: 0 } } }));
  await proxy.reload();
  assert.equal((await state(proxy)).control.failing, null);
  assert.deepEqual([await ask(proxy, '/argo'), await ask(proxy, '/jira')], [200, OFF]);
});

test('a redirect, an error, a huge and a broken answer change nothing', async (t) => {
  const { source, proxy } = await quiet(t, said({ plugins: { argocd: { enabled_percent: 0 } } }));
  const good = await state(proxy);
  const elsewhere = await control(said());
  t.after(() => elsewhere.stop());
  const big = said({ workspaces: Object.fromEntries(Array.from({ length: 500 }, (_, n) => [`team-${n}`, {}])) });
  const ways = {
    'redirects are not followed': (_, response) => response.writeHead(302, { location: elsewhere.url }).end(),
    'responded with 500': (_, response) => response.writeHead(500).end(said()),
    'responded with 401': (_, response) => response.writeHead(401).end(said()),
    'responded with 204': (_, response) => response.writeHead(204).end(),
    'is larger than 4096 bytes': (_, response) => response.writeHead(200).end(big),
    'was cut off': (request, response) => { response.writeHead(200, { 'content-length': 100 }); response.write('{"vers'); setImmediate(() => request.socket.destroy()); },
  };
  for (const [told, act] of Object.entries(ways)) {
    source.misbehaves(act);
    const result = await proxy.reload();
    assert.ok(result.successful && result.messages.some((message) => message.includes(told) && message.includes('last good response stays')), `${told}: ${result.messages}`);
    assert.equal((await state(proxy)).config, good.config, told);
  }
  assert.ok(await fetches(proxy, 'error') >= Object.keys(ways).length);
  assert.deepEqual(elsewhere.asked, []);
});

test('a slow answer holds a reload up for so long and no longer', async (t) => {
  const { source, proxy } = await quiet(t, said({ plugins: { argocd: { enabled_percent: 0 } } }), ', timeout: 2s');
  await until('its first answer', async () => (await state(proxy)).control.answered);
  const good = await state(proxy);
  const slow = [() => {}, (_, response) => { response.writeHead(200); response.write('{'); }, (_, response) => { response.write('{'); t.after(() => clearInterval(drip)); const drip = setInterval(() => response.write(' '), 100); }];
  for (const act of slow) {
    source.misbehaves(act);
    const begun = Date.now();
    const result = await proxy.reload();
    // One that was under way when it was asked for, and its own.
    assert.ok(Date.now() - begun < 20000);
    assert.ok(result.successful && /did not respond within 2s|was cut off/.test(result.messages.join()), result.messages.join('\n'));
    assert.equal((await state(proxy)).config, good.config);
    assert.equal(await ask(proxy, '/argo'), OFF);
  }
});

test('POST /reload and SIGHUP ask at once, and a file is taken over while the source is away', async (t) => {
  const { source, proxy } = await quiet(t, said());
  assert.equal(source.asked.length, 1);
  source.answers(said({ plugins: { argocd: { enabled_percent: 0 } } }));
  assert.equal((await proxy.reload()).successful, true);
  assert.equal(await ask(proxy, '/argo'), OFF);
  source.answers(said({ plugins: { jira: { enabled_percent: 0 } } }));
  proxy.signal('SIGHUP');
  await until('SIGHUP', async () => await ask(proxy, '/jira') === OFF && await ask(proxy, '/argo') === 200);

  await source.away();
  const more = (ports, folder) => `${config(source, 'interval: 10m, stale_after: 20m', 'workspaces: {named: {pay: {}, late: {}}}')(ports, folder)}`;
  proxy.write(more(proxy.ports, proxy.folder));
  const result = await proxy.reload();
  assert.equal(result.successful, true);
  assert.ok(result.messages.some((message) => message.includes('last good response stays')), result.messages.join('\n'));
  assert.equal(await ask(proxy, '/argo', 'late'), 200, 'the file is in force');
  assert.equal(await ask(proxy, '/jira', 'late'), OFF, 'and the last good answer');
  // A file that nobody reloads by hand, too.
  proxy.write(more(proxy.ports, proxy.folder).replace('late: {}', 'later: {}'));
  await until('the watch', async () => await ask(proxy, '/argo', 'later') === 200);
  assert.equal(await ask(proxy, '/jira', 'later'), OFF);
});

test('no request is lost while answers change', async (t) => {
  const { source, proxy } = await quiet(t, said());
  let changing = true;
  const asking = Array.from({ length: 4 }, async () => {
    const seen = new Set();
    while (changing) seen.add(await ask(proxy, '/jira'));
    return [...seen];
  });
  for (let percent = 0; percent < 20; percent += 1) {
    source.answers(said({ plugins: { argocd: { enabled_percent: percent } }, workspaces: { [`team-${percent}`]: {} } }));
    const [one, other] = await Promise.all([proxy.reload(), proxy.reload()]);
    assert.ok(one.successful && other.successful && one.digest === other.digest);
  }
  changing = false;
  assert.deepEqual(await Promise.all(asking), [[200], [200], [200], [200]]);
});

test('nothing that the files write gets wider', async (t) => {
  const files = 'workspaces: {named: {pay: {groups: [payers], plugins: {jira: false}}, shop: {}}}\nplugins: {argocd: {enabled_percent: 0}}\nrate_limit: {per_workspace: {rate: 1/h, burst: 3}}';
  const { proxy } = await quiet(t, said({
    workspaces: { pay: { callers: ['bob'], plugins: { jira: true } }, shop: { plugins: { argocd: true }, rate_limit: { rate: '1000/s' } } },
    plugins: { argocd: { enabled_percent: 100 } },
  }), '', files);
  assert.equal(await ask(proxy, '/jira', 'pay', { workspaces: [] }, 'bob'), '403 workspace_not_granted');
  assert.equal(await ask(proxy, '/jira', 'pay'), OFF);
  assert.equal(await ask(proxy, '/argo', 'shop'), OFF);
  await until('the files\' limit', async () => await ask(proxy, '/jira', 'shop') === '429 rate_limited');
  const { warnings } = await (await proxy.admin('/config')).json();
  for (const told of ['list its members', 'stays off', 'cannot be raised', 'above the files\' limit']) {
    assert.ok(warnings.some((warning) => warning.includes(told)), `${told}: ${warnings.join('\n')}`);
  }
});

test('Orbit\'s answers switch on what they list, and its secrets stay nowhere', async (t) => {
  const kept = temporary('kept.json');
  const { source, proxy } = await quiet(t, orbits({ jira: ['pay'], github: ['x'] }), `, format: orbit, plugins: [jira, argocd], cache_file: ${kept}`);
  assert.equal(await ask(proxy, '/jira', 'pay'), 200);
  assert.equal(await ask(proxy, '/jira', 'shop'), OFF);
  assert.equal(await ask(proxy, '/argo', 'pay'), OFF, 'what is not listed is off');
  assert.equal(await ask(proxy, '/jira', 'x'), '403 workspace_unknown', 'github is not its to decide');
  source.answers(orbits({ jira: ['shop', 'new'], argocd: ['pay'], upstreams: ['evil'], routes: ['evil'] }));
  await proxy.reload();
  const answers = await Promise.all([['/jira', 'pay'], ['/jira', 'shop'], ['/jira', 'new'], ['/argo', 'pay'], ['/jira', 'evil']].map((one) => ask(proxy, ...one)));
  assert.deepEqual(answers, [OFF, 200, 200, 200, '403 workspace_unknown']);
  const before = (await state(proxy)).config;
  for (const body of ['{}', '{"error":"unauthorized"}', '{"integrations":{},"jira":{}}', '{"integrations":{},"jira":[{}]}', '{"integrations":[],"jira":[]}']) {
    source.answers(body);
    await proxy.reload();
    assert.equal((await state(proxy)).config, before, body);
    assert.equal(await fetches(proxy, 'refused') > 0, true);
  }
  const pages = await Promise.all(['/state', '/config', '/metrics'].map(async (page) => (await proxy.admin(page)).text()));
  for (const text of [...pages, proxy.output(), JSON.stringify(proxy.written()), fs.readFileSync(kept, 'utf8')]) {
    assert.ok(!text.includes('orbit-s3cret'));
  }
});

test('a token is sent, read anew each time, and never shown', async (t) => {
  const file = temporary('token');
  fs.writeFileSync(file, 'first-t0ken\n');
  const { source, proxy } = await quiet(t, said(), `, token_file: ${file}`);
  assert.equal(source.asked.at(-1).headers.authorization, 'Bearer first-t0ken');
  fs.writeFileSync(file, 'second-t0ken\n');
  await proxy.reload();
  assert.equal(source.asked.at(-1).headers.authorization, 'Bearer second-t0ken');
  const count = source.asked.length;
  fs.writeFileSync(file, 'two lines\nof t0ken');
  assert.ok((await proxy.reload()).messages.some((message) => message.includes('one line of visible ASCII')));
  fs.rmSync(file);
  assert.ok((await proxy.reload()).messages.some((message) => message.includes('no such file')));
  assert.equal(source.asked.length, count, 'without its token it is not asked');
  fs.writeFileSync(file, 'third-t0ken');
  await proxy.reload();
  assert.equal(source.asked.at(-1).headers.authorization, 'Bearer third-t0ken');
  const pages = await Promise.all(['/state', '/config', '/metrics'].map(async (page) => (await proxy.admin(page)).text()));
  assert.ok(![...pages, proxy.output(), JSON.stringify(proxy.written())].some((text) => text.includes('t0ken')));
});

test('a start without the source has what was kept, and without that no plugin, unless the files are to hold', async (t) => {
  const kept = temporary('kept.json');
  const source = await control(said({ plugins: { argocd: { enabled_percent: 0 } } }));
  t.after(() => source.stop());
  const more = `interval: 10m, stale_after: 20m, cache_file: ${kept}`;
  const first = await door(source, more);
  const { config: digest } = await state(first);
  await first.stop();
  assert.equal(fs.statSync(kept).mode & 0o777, 0o600);
  await source.away();

  const second = await door(source, more);
  assert.equal(await ask(second, '/argo'), OFF);
  const now = await state(second);
  assert.equal(now.control.answered, true);
  assert.match(now.control.failing, /last good response stays/);
  assert.ok(now.control.confirmed <= Date.now() / 1000);
  assert.ok(digest.length === now.config.length);
  await second.stop();

  const damaged = async (text, told) => {
    fs.writeFileSync(kept, text);
    const proxy = await door(source, more);
    try {
      assert.equal(await ask(proxy, '/argo'), OFF, told);
      const { last_reload: begun, control: facts } = await state(proxy);
      assert.ok(begun.messages.some((message) => message.includes(told)), begun.messages.join('\n'));
      assert.deepEqual([facts.answered, facts.confirmed], [false, null]);
      await proxy.settled();
      const [start] = proxy.written().filter((line) => line.kind === 'config');
      assert.ok(start.messages.some((message) => message.includes(told)));
    } finally { await proxy.stop(); }
  };
  const whole = fs.readFileSync(kept, 'utf8');
  await damaged(whole.slice(0, 40), 'it is damaged');
  await damaged(whole.replace('"enabled_percent":0', '"enabled_percent":9'), 'it is damaged');
  await damaged(whole.replaceAll('/api/plugins/config', '/elsewhere'), 'another source');
  fs.rmSync(kept);
  const open = await door(source, `${more}, before_first_response: files`);
  assert.equal(await ask(open, '/argo'), 200);
  await open.stop();
  const alone = await door(source, more.replace('interval: 10m', 'interval: 1s'));
  assert.equal(await ask(alone, '/jira'), OFF);
  await source.back();
  await until('the source to be heard', async () => await ask(alone, '/jira') === 200);
  assert.equal(await ask(alone, '/argo'), OFF);
  await until('it to be kept', async () => fs.existsSync(kept));
  await alone.stop();
});

test('a source that is away for long is told by a metric, and the last good answer holds', async (t) => {
  const source = await control(said({ plugins: { argocd: { enabled_percent: 0 } } }));
  const proxy = await door(source, 'interval: 200ms, stale_after: 900ms');
  t.after(async () => { await proxy.stop(); await source.stop(); });
  assert.equal(await metric(proxy, 'stagedoor_control_stale'), 0);
  await source.away();
  await until('it to be stale', async () => await metric(proxy, 'stagedoor_control_stale') === 1);
  await until('the log', async () => proxy.output().includes('has not confirmed the state in force for a long time'));
  assert.equal(proxy.output().split('has not confirmed the state in force for a long time').length, 2, 'once');
  assert.equal((await state(proxy)).control.stale, true);
  assert.equal(await ask(proxy, '/argo'), OFF);
  await source.back();
  await until('it to be fresh', async () => await metric(proxy, 'stagedoor_control_stale') === 0);
  // A bad answer confirms nothing.
  source.answers('{}');
  await until('it to be stale again', async () => await metric(proxy, 'stagedoor_control_stale') === 1);
  assert.equal(await ask(proxy, '/argo'), OFF);
});

test('a source can come, move and go with the files', async (t) => {
  const [one, other] = [await control(said({ plugins: { argocd: { enabled_percent: 0 } } })), await control(said({ plugins: { jira: { enabled_percent: 0 } } }))];
  const proxy = await door(null);
  t.after(async () => { await proxy.stop(); await one.stop(); await other.stop(); });
  const both = async () => [await ask(proxy, '/argo'), await ask(proxy, '/jira')];
  assert.deepEqual(await both(), [200, 200]);
  assert.equal((await state(proxy)).control, null);
  assert.equal(await metric(proxy, 'stagedoor_control_stale'), undefined);
  const write = async (source) => {
    proxy.write(config(source, 'interval: 10m, stale_after: 20m')(proxy.ports, proxy.folder));
    return proxy.reload();
  };
  await write(one);
  assert.deepEqual(await both(), [OFF, 200]);
  await write(other);
  assert.deepEqual(await both(), [200, OFF]);
  await one.away();
  await write(one);
  assert.deepEqual(await both(), [OFF, OFF], 'what another source said is not in force, and nobody knows what this one will');
  await one.back();
  await write(one);
  assert.deepEqual(await both(), [OFF, 200]);
  await write(null);
  assert.deepEqual(await both(), [200, 200]);
  assert.equal(await metric(proxy, 'stagedoor_control_last_success_timestamp_seconds'), undefined);
});

test('what is to be read or kept otherwise is fetched anew, whatever its ETag', async (t) => {
  const kept = temporary('kept.json');
  const source = await control(orbits({ jira: ['pay'], argocd: ['shop'] }));
  const more = (plugins, file) => `interval: 10m, stale_after: 20m, format: orbit, plugins: [${plugins}], cache_file: ${file}`;
  const proxy = await door(source, more('jira', kept));
  t.after(() => source.stop());
  const rewrite = async (plugins, file) => {
    proxy.write(config(source, more(plugins, file))(proxy.ports, proxy.folder));
    await proxy.reload();
  };
  const both = async (one) => [await ask(one, '/argo', 'pay'), await ask(one, '/argo', 'shop'), await ask(one, '/jira', 'shop')];
  assert.deepEqual(await both(proxy), [200, 200, OFF]);
  await rewrite('jira, argocd', kept);
  assert.deepEqual(await both(proxy), [OFF, 200, OFF]);
  await rewrite('jira, argocd', `${kept}.new`);
  assert.equal(JSON.parse(fs.readFileSync(`${kept}.new`)).url, source.url);
  await rewrite('jira', kept);
  await proxy.stop();
  const next = await door(source, more('jira, argocd', kept));
  assert.deepEqual(await both(next), [OFF, 200, OFF]);
  // A folder that is not there is told, and holds nothing up.
  source.answers(orbits({ jira: ['shop'] }));
  next.write(config(source, more('jira, argocd', '/nowhere/kept.json'))(next.ports, next.folder));
  const result = await next.reload();
  assert.ok(result.successful && result.messages.some((message) => message.includes('cannot write `/nowhere/kept.json`')), result.messages.join('\n'));
  assert.deepEqual(await both(next), [OFF, OFF, 200]);
  await next.stop();
});

test('over TLS the source is whom the CA vouches for', async (t) => {
  const folder = path.dirname(temporary('x'));
  const [own, other] = ['own', 'other'].map((name) => { fs.mkdirSync(`${folder}/${name}`); return authority(`${folder}/${name}`); });
  own.issue('source', { names: ['localhost'] });
  other.issue('source', { names: ['localhost'] });
  const server = https.createServer({ cert: fs.readFileSync(`${folder}/own/source.crt`), key: fs.readFileSync(`${folder}/own/source.key`) }, (_, response) => response.end(said({ plugins: { argocd: { enabled_percent: 0 } } })));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const source = { url: `https://localhost:${server.address().port}/c` };
  const proxy = await door(source, `interval: 10m, stale_after: 20m, ca: ${folder}/other/ca.crt`);
  t.after(async () => { await proxy.stop(); server.closeAllConnections(); server.close(); });
  assert.equal(await ask(proxy, '/jira'), OFF, 'it was believed');
  assert.match((await state(proxy)).control.failing, /certificate/);
  proxy.write(config(source, `interval: 10m, stale_after: 20m, ca: ${folder}/own/ca.crt`)(proxy.ports, proxy.folder));
  await proxy.reload();
  assert.deepEqual([await ask(proxy, '/argo'), await ask(proxy, '/jira')], [OFF, 200]);
});

test('an answer can be tried before it is given', async (t) => {
  const { source, proxy } = await quiet(t, orbits(), ', format: orbit, plugins: [jira]', 'workspaces: {named: {pay: {callers: [ada]}}}');
  const file = temporary('answer.json');
  const run = (command, ...words) => spawnSync(binary, [command, '-c', proxy.file, ...words], { encoding: 'utf8' });
  const explained = (...words) => run('explain', '-p', '/jira', '--as', 'ada', '-H', 'x-orbit-workspace-id: pay', ...words).stdout;
  fs.writeFileSync(file, orbits({ jira: ['shop'] }));
  assert.equal(run('check', '--control', file).status, 0);
  assert.match(explained('--control', file), /plugin_disabled/);
  assert.doesNotMatch(explained(), /plugin_disabled/);
  fs.writeFileSync(file, '{}');
  const wrong = run('check', '--control', file);
  assert.equal(wrong.status, 1);
  assert.match(wrong.stdout, /integrations/);
  assert.equal(run('check', '--control', `${file}.not`).status, 1);
  assert.equal(source.asked.length, 1, 'neither asks the source');
  assert.match(spawnSync(binary, ['schema', '--control'], { encoding: 'utf8' }).stdout, /stagedoor\/control-v1/);
});
