'use strict';
// A portal's frontend with plugins' pages, bundled from npm's packages once for each lock file and source.

const { execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const SOURCE = path.join(__dirname, '../frontend');
const FILES = ['app.jsx', 'build.js', 'node-stub.js', 'package-lock.json'];

/** The folder of its packages, installed as its lock file has them. */
const installed = () => {
  const lock = `${SOURCE}/package-lock.json`;
  const there = `${SOURCE}/node_modules/.package-lock.json`;
  if (!fs.existsSync(there) || fs.statSync(there).mtimeMs < fs.statSync(lock).mtimeMs) execFileSync('npm', ['ci'], { cwd: SOURCE, stdio: 'pipe' });
  return SOURCE;
};

/** The classes by which published frontends call their backends, by name: `frontend/clients.js`. `folder` is where their bundle goes. */
exports.clients = (folder) => {
  const file = path.join(folder, 'clients.cjs');
  execFileSync(process.execPath, ['bundle-clients.js', file], { cwd: installed(), stdio: 'pipe' });
  return require(file);
};

/** The folder in which the package `app` is, made at the first call. */
exports.frontend = () => {
  const cache = process.env.STAGEDOOR_CACHE ?? path.join(os.homedir(), '.cache/stagedoor');
  const digest = crypto.createHash('sha256');
  for (const file of FILES) digest.update(fs.readFileSync(`${SOURCE}/${file}`));
  const folder = `${cache}/frontend-${digest.digest('hex').slice(0, 16)}`;
  if (!fs.existsSync(folder)) {
    const part = `${folder}.part-${process.pid}`;
    fs.rmSync(part, { recursive: true, force: true });
    execFileSync(process.execPath, ['build.js', `${part}/app`], { cwd: installed(), stdio: 'pipe' });
    try { fs.renameSync(part, folder); } catch { fs.rmSync(part, { recursive: true, force: true }); }
  }
  return folder;
};
