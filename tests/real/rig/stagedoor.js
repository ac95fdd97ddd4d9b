'use strict';
// The proxy, started from a config that a test writes.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { freePort, until } = require('./ports');
const { start } = require('./process');

exports.binary = process.env.STAGEDOOR_BIN
  ?? path.join(__dirname, '../../../target/debug/stagedoor');

/** The environment of a machine that has no proxy on its way out, whatever this one has. */
exports.unproxied = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(https?|no|all)_proxy$/i.test(name)));

/** The segments of an audit folder, the oldest first. */
exports.segments = (folder) => fs.readdirSync(folder).sort()
  .filter((name) => /^audit-.*\.jsonl(\.zst)?$/.test(name)).map((name) => path.join(folder, name));

/** What stands in a segment. */
exports.text = (file) => {
  if (!file.endsWith('.zst')) return fs.readFileSync(file, 'utf8');
  return execFileSync('zstd', ['-dcq', file], { encoding: 'utf8', maxBuffer: 1 << 30 });
};

/**
 * Starts the proxy. `config(ports, folder)` answers the YAML without its admin listener and audit;
 * `audit` is more of the latter, or `false` for none; `under` is a command that starts it; `host` is where it listens.
 * Answers with ports, folder, `records()` and `stop()`.
 */
exports.stagedoor = async (config, { args = [], audit = '', env = {}, folder, host = '127.0.0.1', under = [] } = {}) => {
  folder ??= fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-real-'));
  const ports = { edge: await freePort(), tls: await freePort(), admin: await freePort() };
  const file = path.join(folder, 'stagedoor.yaml');
  fs.mkdirSync(path.join(folder, 'audit'), { recursive: true });
  const write = (yaml) => fs.writeFileSync(file, [
    'version: stagedoor/v1',
    yaml.replace(/^listeners:$/m, `listeners:\n  admin: {kind: admin, address: ${host}:${ports.admin}}`),
    audit === false ? '' : `audit: {directory: ${folder}/audit${audit && `, ${audit}`}}`,
    /^process:/m.test(yaml) ? '' : 'process: {drain_delay: 0s, drain_timeout: 5s}',
  ].join('\n'));
  write(await config(ports, folder));
  const [command, ...words] = [...under, exports.binary, 'run', '-c', file, ...args];
  const program = start(command, words, { env: { ...exports.unproxied(), ...env } });
  const admin = (where, options) => fetch(`http://${host}:${ports.admin}${where}`, options);
  await until('the proxy', async () => {
    if (!program.isRunning()) throw Object.assign(new Error(program.output()), { fatal: true });
    return (await admin('/readyz')).ok;
  }).catch((error) => { throw new Error(`${error.message}\n${program.output()}`); });
  /** All that was written, in order: intents and the beginnings of segments among it. */
  const written = () => exports.segments(path.join(folder, 'audit')).map((file) => exports.text(file))
    .flatMap((text) => text.trim().split('\n')).filter(Boolean).map((line) => JSON.parse(line));
  const records = () => written().filter((line) => !line.kind);
  return {
    ...program,
    ports, folder, file, write, admin, records, written,
    url: `http://${host}:${ports.edge}`,
    /** Waits until all that was answered by now is on disk. A record follows its answer: so first for exchanges, but for those that stay. */
    settled: async () => {
      await until('no exchange to be left', async () => (await (await admin('/state')).json()).requests_in_flight === 0, 1000).catch(() => {});
      await (await admin('/audit/head')).text();
    },
    /** The first record that fits. */
    record: (fits) => until('a record', async () => records().find(fits), 5000),
    reload: async () => (await admin('/reload', { method: 'POST' })).json(),
    stop: async (signal) => {
      const code = await program.stop(signal);
      if (!process.env.KEEP) fs.rmSync(folder, { recursive: true, force: true });
      return code;
    },
  };
};
