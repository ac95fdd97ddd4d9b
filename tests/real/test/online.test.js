'use strict';
// `check --online`: what those whom a config names answer, against a certified OpenID provider; and what the
// running program says of an issuer that calls itself otherwise.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { dns } = require('../rig/dns');
const { oidc } = require('../rig/oidc');
const { freePort, until } = require('../rig/ports');
const { squid } = require('../rig/squid');
const { binary, stagedoor, unproxied } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-online-'));
let up; let idp;
before(async () => { up = await upstream(); idp = await oidc({ algorithms: ['RS256', 'ES256'] }); });
after(async () => { await up?.stop(); await idp?.stop(); fs.rmSync(folder, { recursive: true, force: true }); });

/** A config with these issuers, and more of it. */
const config = (issuers, { upstreams = `up: {url: "${up.url}"}`, more = '' } = {}) => {
  const file = path.join(folder, 'stagedoor.yaml');
  fs.writeFileSync(file, `version: stagedoor/v1
listeners: {edge: {kind: reverse, address: 127.0.0.1:18080}}
identity:
  issuers:
${Object.entries(issuers).map(([name, written]) => `    ${name}: ${written}\n`).join('')}
upstreams:
  ${upstreams}
routes: [{name: a, methods: [GET], path: /a, upstream: up, class: read}]
${more}`);
  return file;
};
const check = (file, ...args) => new Promise((resolve) => {
  const begun = Date.now();
  execFile(binary, ['check', '--online', '-c', file, ...args], { env: unproxied() }, (error, out, err) => resolve({ code: error ? error.code : 0, out, err, ms: Date.now() - begun }));
});
const issuer = (url, more = '') => `{issuer: "${url}", audiences: [a]${more}}`;

test('all is well: it says whom it asked, and what it cannot know', async () => {
  const file = config({ corp: issuer(idp.issuer) });
  const { code, out, err } = await check(file, '--strict');
  assert.equal(code, 0, out + err);
  assert.match(out, /:5:11: issuer `corp`: reachable, 2 keys \(RS256, ES256\)\n/);
  assert.match(out, /:\d+:7: upstream `up`: accepts connections at 127\.0\.0\.1:\d+\n/);
  assert.match(out, /^not checked: `audiences`, which needs a token/m);
  assert.match(out, /: valid\n$/);
  const { problems, warnings, online } = JSON.parse((await check(file, '--format', 'json')).out);
  assert.deepEqual([problems, warnings], [[], []]);
  assert.deepEqual(online.map(({ kind, name, reachable, not_checked: not }) => [kind, name, reachable, not]), [['issuer', 'corp', true, ['audiences']], ['upstream', 'up', true, undefined]]);
  const asked = idp.fetches();
  assert.equal((await new Promise((resolve) => execFile(binary, ['check', '-c', file], (error, text) => resolve(text)))), `${file}: valid\n`);
  assert.equal(idp.fetches(), asked, 'without --online nobody is asked');
});

test('an issuer that discovery contradicts is a problem: both names, and the line to write', async () => {
  const slash = await oidc({ slash: true });
  // Auth0's end in a slash, most others do not.
  for (const [its, written] of [[idp.issuer, `${idp.issuer}/`], [slash.issuer, slash.url]]) {
    const { code, out } = await check(config({ corp: issuer(written) }));
    assert.equal(code, 1, out);
    assert.ok(out.includes(`:5:11: issuer \`corp\`: \`${its.replace(/\/$/, '')}/.well-known/openid-configuration\` says that its \`issuer\` is \`${its}\`, but the config says \`${written}\``), out);
    assert.ok(out.includes(`write \`issuer: ${its}\``), out);
    assert.doesNotMatch(out, /: valid\n/);
    assert.equal((await check(config({ corp: issuer(its) }))).code, 0);
  }
  // Keys that are found without discovery hide it from the running program, until no token passes.
  const named = `http://localhost:${new URL(idp.url).port}`;
  const { code, out } = await check(config({ corp: issuer(named, `, keys: {url: "${idp.jwks}"}`) }));
  assert.equal(code, 1, out);
  assert.ok(out.includes(`says that its \`issuer\` is \`${idp.issuer}\`, but the config says \`${named}\``), out);
  await slash.stop();
});

test('a realm that the issuer does not have is a problem', async () => {
  const { code, out } = await check(config({ corp: issuer(`${idp.issuer}/realms/other`) }));
  assert.equal(code, 1, out);
  assert.match(out, /:5:11: issuer `corp`: `\S+\/realms\/other\/\.well-known\/openid-configuration` responded with 404; it is reachable, but has no such issuer/);
});

test('keys for other algorithms than the config allows are a problem', async () => {
  const { code, out } = await check(config({ corp: issuer(idp.issuer, ', algorithms: [EdDSA, PS256]') }));
  assert.equal(code, 1, out);
  assert.match(out, /issuer `corp`: its keys are for RS256, ES256, but `algorithms` allows EdDSA, PS256; write `algorithms: \[RS256, ES256\]`/);
  assert.equal((await check(config({ corp: issuer(idp.issuer, ', algorithms: [EdDSA, ES256]') }))).code, 0);
});

test('who cannot be reached is a warning with the reason, all are asked at once, and nobody keeps it waiting', async () => {
  const silent = net.createServer((socket) => socket.on('error', () => {}));
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const { port } = silent.address();
  const gone = await freePort();
  const issuers = { gone: issuer(`http://127.0.0.1:${gone}`) };
  for (let n = 0; n < 20; n += 1) issuers[`mute${n}`] = issuer(`http://127.0.0.1:${port}/${n}`);
  const file = config(issuers, { upstreams: `up: {url: "http://127.0.0.1:${gone}"}` });
  const { code, out, ms } = await check(file);
  assert.equal(code, 0, out);
  assert.match(out, /:5:11: warning: issuer `gone`: cannot get `\S+`: .*refused.*; until its keys can be fetched, its tokens get 503 `keys_unavailable`/i);
  for (let n = 0; n < 20; n += 1) assert.match(out, new RegExp(`warning: issuer \`mute${n}\`: cannot get`));
  assert.match(out, /warning: upstream `up` accepts no connections: 127\.0\.0\.1:\d+: .*refused/i);
  assert.match(out, /: valid\n$/);
  assert.ok(ms < 10000, `${ms} ms`);
  assert.equal((await check(file, '--strict')).code, 1);
  silent.close();
});

test('it asks as the running program would: its name servers, its address rules, its parent proxy', async () => {
  const { port } = new URL(idp.url);
  const names = await dns({ 'idp.test': { A: ['127.0.0.1'] } });
  const more = `process: {name_servers: ["${names.address}"]}\n`;
  const written = { corp: issuer(`http://idp.test:${port}`, ', keys: {insecure_http: true}') };
  const refused = await check(config(written, { more }));
  assert.equal(refused.code, 0, refused.out);
  assert.ok(refused.out.includes(`write \`egress.private: [{host: "idp.test:${port}", addresses: ["127.0.0.1"]}]\``), refused.out);
  const meant = await check(config(written, { more: `${more}egress: {private: [{host: "idp.test:${port}", addresses: [127.0.0.1/32]}]}` }));
  assert.equal(meant.code, 1, meant.out);
  assert.ok(meant.out.includes(`says that its \`issuer\` is \`${idp.issuer}\`, but the config says \`http://idp.test:${port}\``), meant.out);
  await names.stop();
  // Only Squid knows this name.
  const parent = await squid({ hosts: { 'idp.parent.test': '127.0.0.1' } });
  const through = await check(config(
    { corp: issuer(`http://idp.parent.test:${port}`, ', keys: {insecure_http: true}') },
    { more: `egress: {parent: {url: "http://127.0.0.1:${parent.port}"}}` },
  ));
  assert.equal(through.code, 1, through.out);
  assert.ok(through.out.includes(`says that its \`issuer\` is \`${idp.issuer}\``), through.out);
  assert.ok(parent.log().some((line) => line.includes(`idp.parent.test:${port}`)), parent.log().join('\n'));
  await parent.stop();
});

test('the running program warns once of an issuer that calls itself otherwise, and again when it changes', async () => {
  const port = await freePort();
  let own = await oidc({ port });
  const written = `${own.url}/`;
  const door = await stagedoor((ports) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${ports.edge}}
identity: {issuers: {corp: {issuer: "${written}", audiences: [a], keys: {refresh: 1s}}}}
upstreams: {up: {url: "${up.url}"}}
routes: [{name: a, methods: [GET], path: /a, upstream: up, class: read}]`);
  const warnings = () => door.output().split('\n').filter((line) => line.includes('discovery contradicts')).map((line) => JSON.parse(line));
  const fetches = async (result) => {
    const [, count = 0] = new RegExp(`^stagedoor_keys_fetches_total{issuer="corp",result="${result}"} (\\d+)$`, 'm').exec(await (await door.admin('/metrics')).text()) ?? [];
    return Number(count);
  };
  /** Waits until it has asked once more, with this result. */
  const asked = async (result) => {
    const before = await fetches(result);
    await until(`another fetch, ${result}`, async () => (await fetches(result)) > before);
  };
  const instead = async (options) => { await own.stop(); own = await oidc({ port, ...options }); };
  await until('the warning', async () => warnings().length === 1);
  const [first] = warnings();
  assert.deepEqual([first.level, first.issuer, first.configured, first.discovered], ['WARN', 'corp', written, `\`${own.url}\``]);
  assert.ok(first.correction.includes(`write \`issuer: ${own.url}\``), first.correction);
  await asked('error');
  // An outage in between tells nothing new of it.
  own.mode('error');
  await until('the outage to be told', async () => /keys could not be fetched.*responded with 500/.test(door.output()));
  own.mode('well');
  await asked('error'); await asked('error');
  assert.equal(warnings().length, 1);
  await instead({ host: 'localhost' });
  await until('another warning', async () => warnings().length === 2);
  assert.equal(warnings()[1].discovered, `\`http://localhost:${port}\``);
  // It is right, and then it is not again.
  await instead({ slash: true });
  await asked('ok');
  await instead({});
  await until('a third', async () => warnings().length === 3, 30000);
  await asked('error');
  assert.equal(warnings().length, 3);
  await door.stop(); await own.stop();
});
