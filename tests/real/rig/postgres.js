'use strict';
// A throw-away PostgreSQL cluster, for Backstage.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const { freePort, until } = require('./ports');
const { start } = require('./process');

const bin = () => {
  const root = '/usr/lib/postgresql';
  const versions = fs.readdirSync(root).sort((a, b) => b - a);
  const version = versions.find((v) => fs.existsSync(`${root}/${v}/bin/initdb`));
  if (!version) throw new Error('PostgreSQL is missing: run `make setup`');
  return `${root}/${version}/bin`;
};

/** Starts a cluster that trusts whoever connects on loopback. */
exports.postgres = async () => {
  const folder = fs.mkdtempSync('/tmp/stagedoor-pg-');
  const root = process.getuid() === 0;
  // It refuses to run as root.
  const as = (command, args) => (root ? ['setpriv', ['--reuid=postgres', '--regid=postgres', '--clear-groups', command, ...args]] : [command, args]);
  if (root) execFileSync('chown', ['postgres', folder]);
  execFileSync(...as(`${bin()}/initdb`, ['-D', `${folder}/data`, '-U', 'postgres', '-A', 'trust', '--no-sync']), { stdio: 'pipe' });
  const port = await freePort();
  const program = start(...as(`${bin()}/postgres`, ['-D', `${folder}/data`, '-p', String(port), '-k', folder, '-c', 'fsync=off', '-c', 'listen_addresses=127.0.0.1']));
  await until('PostgreSQL', async () => {
    execFileSync(`${bin()}/pg_isready`, ['-h', '127.0.0.1', '-p', String(port)], { stdio: 'pipe' });
    return true;
  });
  return {
    port,
    stop: async () => { await program.stop('SIGINT'); fs.rmSync(folder, { recursive: true, force: true }); },
  };
};
