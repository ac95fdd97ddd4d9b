'use strict';
// h2spec against the TLS listener. $H2SPEC is the program; without it h2spec.sh installs one.

const assert = require('node:assert/strict');
const { execFile, execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { authority } = require('../rig/certificates');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

/** Cases that the HTTP/2 library below us is known to answer in another way than h2spec expects. */
const KNOWN = Number(process.env.H2SPEC_KNOWN ?? 0);

const program = () => process.env.H2SPEC
  ?? execFileSync(path.join(__dirname, '../h2spec.sh'), ['--install'], { encoding: 'utf8' }).trim();

test('HTTP/2 is spoken as RFC 9113 says', async () => {
  const folder = fs.mkdtempSync('/tmp/stagedoor-h2-');
  authority(folder).issue('server', { names: ['localhost', '127.0.0.1'] });
  const up = await upstream();
  const door = await stagedoor((ports) => `
listeners:
  edge:
    kind: reverse
    address: 127.0.0.1:${ports.tls}
    tls: {certificates: [{cert: ${folder}/server.crt, key: ${folder}/server.key}]}
upstreams: {up: {url: ${up.url}}}
rate_limit: {per_client: {rate: 100000/s, burst: 10000}}
routes:
- {name: all, methods: [ANY], path: /**, upstream: up, class: read, options: {public: true}}`);
  const output = await new Promise((resolve) => {
    execFile(program(), ['-h', '127.0.0.1', '-p', String(door.ports.tls), '-t', '-k', '-o', '5'], { timeout: 240000, maxBuffer: 1 << 24 }, (_, out) => resolve(out));
  });
  const [, total, passed, skipped, failed] = /(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed/.exec(output) ?? [];
  console.log(`h2spec: ${total} tests, ${passed} passed, ${skipped} skipped, ${failed} failed`);
  await door.stop(); await up.stop();
  fs.rmSync(folder, { recursive: true, force: true });
  assert.ok(Number(total) > 100, output);
  assert.ok(Number(failed) <= KNOWN, output.slice(output.indexOf('Failures:')));
});
