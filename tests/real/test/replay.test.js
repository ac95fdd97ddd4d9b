'use strict';
// What another config would have decided about what a running proxy put on record.

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { identity, orbit } = require('../rig/jwt');
const { freePort, until } = require('../rig/ports');
const { binary, stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const PASSWORD = 'the-password-of-the-catalog';
let up; let door; let forward; let config;

const stagedoorDoes = (...args) => {
  const { status, stdout, stderr } = spawnSync(binary, args, { encoding: 'utf8' });
  return { status, out: stdout, err: stderr };
};
const audit = () => path.join(door.folder, 'audit');
/** Replays with the config, changed. */
const replay = (change, ...args) => {
  const text = change(fs.readFileSync(door.file, 'utf8'));
  const file = path.join(door.folder, 'candidate.yaml');
  fs.writeFileSync(file, text);
  return stagedoorDoes('replay', '--audit', audit(), '--candidate', file, ...args);
};
const told = (change, ...args) => {
  const { status, out, err } = replay(change, '--output', 'json', ...args);
  assert.equal(err, '');
  return { status, ...JSON.parse(out) };
};
/** A change that must find what it changes. */
const edit = (from, to) => (text) => { assert.ok(text.includes(from), from); return text.replace(from, to); };
/** Groups in short: `count was -> is what workspace caller`. */
const flips = (groups) => groups.groups.map(({ count, of }) => `${count} ${of.was} -> ${of.is} ${of.what} ${of.workspace ?? '-'} ${of.caller ?? '-'}${of.unjudged ? ` without ${of.unjudged}` : ''}`).sort();
const why = (left) => Object.fromEntries(left.not_replayed.groups.map(({ count, why: text }) => [text.split(' (')[0], count]));

const call = (head) => new Promise((resolve) => {
  const socket = net.connect(forward, '127.0.0.1');
  let got = '';
  socket.setTimeout(4000, () => socket.destroy());
  socket.on('data', (data) => { got += data; if (got.includes('\r\n\r\n')) socket.end(); });
  socket.on('error', () => {});
  socket.on('close', () => resolve(Number(got.split(' ')[1])));
  socket.write(`${head}\r\n\r\n`);
});

before(async () => {
  up = await upstream();
  forward = await freePort();
  config = (ports, folder) => {
    fs.writeFileSync(`${folder}/password`, PASSWORD);
    return `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
  out: {kind: forward, address: 127.0.0.1:${forward}}
${identity(folder).replace('algorithms: [HS256]', 'algorithms: [HS256], claims: {roles: roles, groups: groups}')}
workspaces:
  named:
    payments: {groups: [payers], plugins: {argocd: true}, resources: {stack: [pay-prod]}}
    web: {plugins: {argocd: false}}
rate_limit: {per_workspace: {rate: 100000/s, burst: 100000}, per_caller: {rate: 1000/s, burst: 1000}}
upstreams:
  up: {url: "${up.url}"}
  spare: {url: "${up.url}"}
  dead: {url: "http://127.0.0.1:1"}
routes:
- {name: open, methods: [GET], path: "/open/**", upstream: up, class: read}
- {name: shut, methods: [GET], path: /shut, upstream: up, class: read, options: {closed: true}}
- {name: deploy, methods: [POST], path: /deploy, upstream: up, class: action, options: {access: {roles: [deployer]}}}
- {name: argo, methods: [GET], path: "/argo/**", upstream: up, plugin: argocd, class: read}
- {name: query, methods: [GET], path: /query, upstream: up, class: read, options: {query: {allow: {org: [acme]}}}}
- {name: health, methods: [GET], path: /health, upstream: up, class: read, options: {public: true}}
- {name: dead, methods: [GET], path: /dead, upstream: dead, class: read}
- {name: tight, methods: [GET], path: /tight, upstream: up, class: read, options: {rate_limit: {rate: 1/h, burst: 1}}}
- {name: graphql, methods: [POST], path: /graphql, upstream: up, class: read, options: {graphql: [{query: [stacks]}, {mutation: [run], resources: {stack: stack}}]}}
egress:
  rules: [{name: catalog, to: ["127.0.0.1:${up.port}"], plugins: [catalog]}]
  private: [{host: "127.0.0.1:${up.port}", addresses: [127.0.0.1/32]}]
  callers: {catalog: {password_file: ${folder}/password, workspace: payments, plugin: catalog}}`;
  };
  door = await stagedoor(config);
  const who = {
    ada: { authorization: `Bearer ${orbit('ada', ['payments'], { roles: ['deployer'] })}` },
    vic: { authorization: `Bearer ${orbit('vic', ['payments', 'web'], { roles: ['viewer'] })}` },
    kim: { authorization: `Bearer ${orbit('kim', [], { groups: ['payers'] })}` },
    eve: { authorization: 'Bearer no.real.token' },
    nobody: {},
  };
  const expect = async (status, name, where, { method = 'GET', headers = {}, body } = {}) => {
    const answer = await fetch(`${door.url}${where}`, { method, body, headers: { ...who[name], ...headers } });
    await answer.arrayBuffer();
    assert.equal(answer.status, status, `${name} ${where}`);
  };
  const web = { headers: { 'x-orbit-workspace-id': 'web' } };
  const payments = { headers: { 'x-orbit-workspace-id': 'payments' } };
  const graphql = (query) => ({ method: 'POST', body: JSON.stringify({ query }), headers: { 'content-type': 'application/json' } });
  for (let n = 0; n < 3; n += 1) await expect(200, 'ada', `/open/${n}`);
  await expect(200, 'kim', '/open/x');
  await expect(200, 'vic', '/open/x', web);
  await expect(400, 'vic', '/open/x');
  await expect(403, 'ada', '/shut');
  await expect(403, 'ada', '/nowhere');
  await expect(200, 'ada', '/deploy', { method: 'POST' });
  await expect(403, 'vic', '/deploy', { method: 'POST', ...payments });
  await expect(200, 'ada', '/argo/apps');
  await expect(403, 'vic', '/argo/apps', web);
  await expect(200, 'ada', '/query?org=acme&more=1');
  await expect(403, 'ada', '/query?org=evil');
  await expect(200, 'nobody', '/health');
  await expect(401, 'eve', '/open/x');
  await expect(401, 'nobody', '/open/x');
  await expect(502, 'ada', '/dead');
  await expect(200, 'ada', '/tight');
  await expect(429, 'ada', '/tight');
  await expect(200, 'ada', '/graphql', graphql('{ stacks { id } }'));
  await expect(200, 'ada', '/graphql', graphql('mutation { run(stack: "pay-prod") { id } }'));
  await expect(403, 'ada', '/graphql', graphql('mutation { run(stack: "web-prod") { id } }'));
  const known = `proxy-authorization: Basic ${Buffer.from(`catalog:${PASSWORD}`).toString('base64')}`;
  const to = (target, more = '') => call(`CONNECT ${target} HTTP/1.1\r\nhost: ${target}${more && `\r\n${more}`}`);
  assert.equal(await to(`127.0.0.1:${up.port}`, known), 200);
  assert.equal(await to('api.example.com:443', known), 403);
  assert.equal(await to('10.0.0.7:443', known), 403);
  assert.equal(await to(`127.0.0.1:${up.port}`), 407);
  await until('the records', async () => door.records().length === 27, 5000);
});
after(async () => { await door.stop(); await up.stop(); });

test('the config that decided decides the same again', () => {
  const same = told((text) => text, '--fail-on', 'new-allows,new-denies');
  assert.deepEqual([same.status, same.new_denies.total, same.new_allows.total, same.moved.total], [0, 0, 0, 0]);
  const left = why(same);
  delete left['not an exchange'];
  assert.deepEqual(left, { 'decided by state': 1, 'a caller is required, but none was recorded': 1 });
  assert.equal(same.same, 25);
  assert.deepEqual(same.made_by.groups.map(({ config: digest }) => digest), [door.records()[0].config]);
});

test('what would pass no more is told with whom it concerns', () => {
  const closed = told(edit('path: "/open/**", upstream: up, class: read', 'path: "/open/**", upstream: up, class: read, options: {closed: true}'), '--fail-on', 'new-denies');
  assert.equal(closed.status, 3);
  assert.deepEqual(flips(closed.new_denies), ['1 ok -> route_closed open payments kim', '1 ok -> route_closed open web vic', '3 ok -> route_closed open payments ada']);
  assert.match(closed.new_denies.groups[0].of.rule, /^open \(.*stagedoor.yaml:\d+:\d+\)$/);
  assert.equal(closed.new_denies.groups[0].of.status, 403);
  // A token that was refused would not even be looked at, and vic's missing workspace does not matter.
  assert.deepEqual(closed.moved.groups.map(({ count, of }) => [count, of.what, of.from, of.to]).sort(), [[1, 'code', 'caller_missing', 'route_closed'], [1, 'code', 'token_malformed', 'route_closed'], [1, 'code', 'workspace_missing', 'route_closed']]);
  assert.equal(told(edit('path: "/open/**", upstream: up, class: read', 'path: "/open/**", upstream: up, class: read, options: {closed: true}'), '--fail-on', 'new-allows').status, 0);
  assert.deepEqual(flips(told(edit('groups: [payers], ', '')).new_denies), ['1 ok -> workspace_missing open payments kim']);
  assert.deepEqual(flips(told(edit('argocd: true', 'argocd: false')).new_denies), ['1 ok -> plugin_disabled argo payments ada']);
  assert.deepEqual(flips(told(edit('{org: [acme]}', '{org: [other]}')).new_denies), ['1 ok -> query_refused query payments ada']);
  assert.deepEqual(flips(told(edit('stack: [pay-prod]', 'stack: [none]')).new_denies), ['1 ok -> resource_refused graphql payments ada']);
  assert.deepEqual(flips(told(edit('plugins: [catalog]}]\n', 'plugins: [others]}]\n')).new_denies), [`1 ok -> host_refused 127.0.0.1:${up.port} payments catalog`]);
  assert.deepEqual(flips(told(edit('addresses: [127.0.0.1/32]', 'addresses: [127.0.0.2/32]')).new_denies), [`1 ok -> address_refused 127.0.0.1:${up.port} payments catalog`]);
  // What the upstream did not answer had been let through.
  assert.deepEqual(flips(told(edit('path: /dead, upstream: dead, class: read', 'path: /dead, upstream: dead, class: admin')).new_denies), ['1 ok -> class_admin dead payments ada']);
});

test('what would pass now is told, and what is not on record is not guessed', () => {
  const deploy = told(edit('roles: [deployer]', 'roles: [deployer, viewer]'), '--fail-on', 'new-allows');
  assert.deepEqual([deploy.status, flips(deploy.new_allows)], [3, ['1 access_denied -> ok deploy payments vic']]);
  assert.equal(deploy.new_denies.total, 0);
  assert.deepEqual(flips(told(edit('web: {plugins: {argocd: false}}', 'web: {}')).new_allows), ['1 plugin_disabled -> ok argo web vic']);
  assert.deepEqual(flips(told(edit('stack: [pay-prod]', 'stack: [pay-prod, "web-*"]')).new_allows), ['1 resource_refused -> ok graphql payments ada']);
  // By name; nobody had looked it up.
  assert.deepEqual(flips(told(edit('to: ["127.0.0.1:', 'to: ["api.example.com", "127.0.0.1:')).new_allows), ['1 host_refused -> ok api.example.com:443 payments catalog without its addresses']);
  // Whoever showed a token that counts is on record, also where nobody passes.
  const opened = told(edit('path: /shut, upstream: up, class: read, options: {closed: true}', 'path: /shut, upstream: up, class: read'));
  assert.deepEqual([flips(opened.new_allows), why(opened)['a caller is required, but none was recorded']], [['1 route_closed -> ok shut payments ada'], 1]);
  const free = told(edit('path: /shut, upstream: up, class: read, options: {closed: true}', 'path: /shut, upstream: up, class: read, options: {public: true}'));
  assert.deepEqual(flips(free.new_allows), ['1 route_closed -> ok shut - ada']);
  const asks = told(edit('options: {public: true}', 'options: {public: false}'));
  assert.deepEqual([asks.new_denies.total, why(asks)['a caller is required, but none was recorded']], [0, 2]);
  // A query is judged before anybody is asked who they are.
  assert.equal(why(told(edit('{org: [acme]}', '{org: [acme, evil]}')))['a caller is required, but none was recorded'], 1);
  assert.deepEqual(flips(told(edit('options: {query: {allow: {org: [acme]}}}', 'options: {public: true, query: {allow: {org: [acme, evil]}}}')).new_allows), ['1 query_refused -> ok query - ada']);
  assert.deepEqual(flips(told(edit('options: {query: {allow: {org: [acme]}}}', 'options: {public: true, query: {allow: {org: [acme, more]}}}')).new_allows), []);
  // Rules about what was not kept.
  const more = told(edit('{org: [acme]}', '{org: [acme], more: ["1"]}'));
  assert.deepEqual([more.new_denies.total, why(more)['a query parameter has a rule that it did not have then']], [0, 1]);
  const bodies = told(edit('path: /deploy, upstream: up, class: action, options: {', 'path: /deploy, upstream: up, class: action, options: {graphql: [{query: [a]}], '));
  assert.deepEqual([bodies.new_denies.total, why(bodies)['the route reads bodies, but this one was not read then']], [0, 1]);
  assert.equal(why(told((text) => text.replaceAll('  orbit:', '    other:').replace('    other: {issuer: orbit', '  other: {issuer: orbit')))["the caller's issuer is not in this config"], 19);
});

test('what goes elsewhere is told', () => {
  const spare = told(edit('path: "/open/**", upstream: up', 'path: "/open/**", upstream: spare'));
  assert.deepEqual([spare.new_denies.total, spare.new_allows.total], [0, 0]);
  assert.deepEqual(spare.moved.groups.map(({ count, of }) => [count, of]), [[5, { what: 'upstream', from: 'up', to: 'spare' }]]);
  const named = told(edit('name: argo,', 'name: argocd,'));
  assert.deepEqual(named.moved.groups.map(({ count, of }) => [count, of]), [[1, { what: 'route', from: 'argo', to: 'argocd' }]]);
});

/** Explains the record that fits, with the config, changed; answers what it says now, and what turns it. */
const explain = (fits, change) => {
  const record = door.records().find(fits);
  assert.ok(record, String(fits));
  const file = path.join(door.folder, 'explained.yaml');
  const args = change ? ['-c', file] : [];
  if (change) fs.writeFileSync(file, change(fs.readFileSync(door.file, 'utf8')));
  const { status, out, err } = stagedoorDoes('explain', '--audit-id', record.id, '--audit', audit(), ...args);
  assert.deepEqual([status, err], [0, '']);
  const at = out.indexOf('\nto turn');
  const turns = at < 0 ? [] : out.slice(at + 1).trim().split('\n').map((line) => line.slice(13).replace(/^\S*explained.yaml:\d+:\d+ {2}/, ''));
  return { out, turns: turns.filter((line) => !/^each of these/.test(line)), record };
};
const as = (text) => text;

test('one record is explained from first byte to verdict', () => {
  const { out, record } = explain((r) => r.route === 'deploy' && r.caller === 'ada');
  for (const line of [
    `record       ${record.id} at ${record.time}`,
    'client       127.0.0.1 on listener `edge`, without TLS',
    `request      POST /deploy of 127.0.0.1:${door.ports.edge}`,
    `route        deploy, at ${record.rule}`,
    'caller       ada by orbit (token), roles [deployer], workspaces [payments]',
    'workspace    payments',
    'checks       all passed, up to response',
    'verdict      allow ok',
    `config       ${record.config}`,
  ]) assert.ok(out.includes(`${line}\n`), `${line}\n---\n${out}`);
  assert.match(out, /^intent +on disk since 20/m);
  assert.match(out, /^upstream +up at 127.0.0.1:\d+, 1 attempt\(s\), responded after \d+ us$/m);
  const refused = explain((r) => r.code === 'token_malformed').out;
  assert.match(refused, /^checks +host, path, route, open, query passed; caller refused$/m);
  assert.match(refused, /^verdict +deny token_malformed: it is not a token: not three parts, or not JSON$/m);
  assert.match(refused, /^upstream +not sent$/m);
  const called = explain((r) => r.target === `127.0.0.1:${up.port}` && r.caller).out;
  assert.match(called, /^egress rule +catalog, at .*stagedoor.yaml:\d+:\d+$/m);
  assert.match(called, /^resolved +\[127.0.0.1\], of this machine \[127.0.0.1\]$/m);
  assert.equal(stagedoorDoes('explain', '--audit-id', 'nothing', '--audit', audit()).status, 2);
  assert.equal(stagedoorDoes('explain', '--audit-id', 'nothing').status, 2);
});

test('the smallest changes that turn a denial are told, and each was tried', () => {
  const turned = (fits) => explain(fits, as).turns;
  const denied = explain((r) => r.code === 'access_denied', as);
  assert.deepEqual(denied.turns, ['options.access.callers: add `vic`', 'options.access.roles: add `viewer`']);
  assert.match(denied.out, new RegExp(`^now +config ${denied.record.config}, a different one from then$|^now +config [0-9a-f]{32}, `, 'm'));
  assert.match(denied.out, /^verdict +deny 403 access_denied: the caller has none of the roles, groups or names that route/m);
  assert.match(denied.out, /explained.yaml:\d+:\d+ {2}options.access.callers: add `vic`/);
  assert.deepEqual(turned((r) => r.code === 'plugin_disabled'), ['workspaces.named.web.plugins.argocd: true']);
  assert.deepEqual(turned((r) => r.code === 'resource_refused'), ['workspaces.named.payments.resources.stack: add `web-prod`']);
  assert.deepEqual(turned((r) => r.code === 'route_unknown').slice(0, 2), ['up', 'spare'].map((upstream) => `routes: add {name: opened, methods: [GET], path: '/nowhere', upstream: ${upstream}, class: read}`));
  assert.deepEqual(turned((r) => r.code === 'route_closed'), ['options.closed: false']);
  assert.match(turned((r) => r.code === 'query_refused').join('\n'), /query.allow: remove the rule for `org`[^]*only as a fingerprint/);
  assert.deepEqual(turned((r) => r.code === 'workspace_missing'), ['options.workspace: optional', 'the client can name a workspace that its caller is a member of, in the header']);
  assert.deepEqual(turned((r) => r.code === 'host_refused' && r.target === 'api.example.com:443'), ["egress.rules: add {name: opened, to: ['api.example.com:443'], plugins: [catalog], workspaces: [payments]}", '  not recorded, and so undecided: its addresses']);
  // By rules for others.
  const others = edit('plugins: [catalog]}]\n', 'plugins: [others]}]\n');
  assert.deepEqual(explain((r) => r.target === `127.0.0.1:${up.port}` && r.decision === 'allow', others).turns.slice(0, 1), ['egress.rules `catalog`: plugins: add catalog']);
  const address = explain((r) => r.target === `127.0.0.1:${up.port}` && r.decision === 'allow', edit('addresses: [127.0.0.1/32]', 'addresses: [127.0.0.2/32]'));
  assert.deepEqual(address.turns, [`egress.private: add {host: '127.0.0.1:${up.port}', addresses: [127.0.0.1/32]}`]);
  assert.match(address.out, /a different one from then/);
  const admin = explain((r) => r.route === 'dead', edit('path: /dead, upstream: dead, class: read', 'path: /dead, upstream: dead, class: admin'));
  assert.deepEqual(admin.turns, ['requests of class admin never pass, for any caller: no setting opens them']);
  // A limit is no rule.
  assert.match(explain((r) => r.code === 'rate_limited', as).out, /not decided again: decided by state[^]*no rule refused it/);
  assert.match(explain((r) => r.code === 'rate_limited', as).out, /a limit was used up: `rate_limit`, the workspace's, the plugin's or the route's own/);
});

test('what would deny what passed is told, too', () => {
  assert.deepEqual(explain((r) => r.route === 'argo' && r.decision === 'allow', as).turns, ['workspaces.named.payments.plugins.argocd: false', 'options.closed: true']);
  assert.deepEqual(explain((r) => r.route === 'deploy' && r.decision === 'allow', as).turns, ['options.access: without `deployer`', 'options.closed: true']);
  assert.deepEqual(explain((r) => r.caller === 'kim', as).turns, ['workspaces.named.payments: without `payers` as members', 'options.closed: true']);
});

test('a table for people, and an exit code for pipelines', () => {
  const table = replay(edit('roles: [deployer]', 'roles: [releaser]'), '--fail-on', 'new-denies');
  assert.equal(table.status, 3);
  assert.match(table.out, /^allow -> deny +1$/m);
  assert.match(table.out, /^ +1 +ok -> 403 access_denied +deploy +deploy \(.*stagedoor.yaml:\d+:\d+\) +payments +ada$/m);
  assert.match(table.out, /Rate limits, breakers, paces and idempotency keys were left out/);
  assert.equal(replay((text) => `${text}\nnonsense: 1\n`).status, 2);
  assert.equal(stagedoorDoes('replay', '--audit', '/nowhere', '--candidate', door.file).status, 2);
  assert.equal(stagedoorDoes('replay', '--audit', audit()).status, 2);
  assert.equal(replay((text) => text, '--fail-on', 'anything').status, 2);
  assert.equal(replay((text) => text, '--since', 'yesterday').status, 2);
  assert.equal(told((text) => text, '--until', '2000-01-01').records, 0);
  assert.equal(told((text) => text, '--since', '2000-01-01').same, 25);
  // What is torn or no record is counted.
  const torn = path.join(door.folder, 'torn.jsonl');
  const [first] = door.records();
  fs.writeFileSync(torn, `${JSON.stringify(first)}\nnot JSON\n${JSON.stringify({ ...first, facts: undefined })}\n${JSON.stringify({ ...first, facts: 99 })}\n${JSON.stringify(first)}`);
  const { out } = stagedoorDoes('replay', '--audit', torn, '--candidate', door.file, '--output', 'json');
  const odd = JSON.parse(out);
  assert.deepEqual([odd.records, odd.same, odd.unreadable_lines, odd.not_replayed.total], [3, 1, 2, 2]);
});
