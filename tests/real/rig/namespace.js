'use strict';
// A network of a test's own, so that nobody else's connections are in its tables: a network namespace
// with loopback and two more addresses. Where that is not allowed, the machine's own network.

const { execFile, execFileSync } = require('node:child_process');
const os = require('node:os');

const V4 = '198.51.100.7';
const V6 = 'fd77::7';
const UP = `ip link set lo up && ip addr add ${V4}/32 dev lo && { ip addr add ${V6}/128 dev lo || true; }`;

const own = () => {
  const addresses = Object.values(os.networkInterfaces()).flat().filter((at) => !at.internal && !at.scopeid);
  return { v4: addresses.find((at) => at.family === 'IPv4')?.address, v6: undefined, alone: false };
};
const all = Object.values(os.networkInterfaces()).flat().map((at) => at.address);

/** Addresses of this machine that are not loopback, and whether nobody else is in its network. */
exports.network = process.env.STAGEDOOR_NAMESPACE
  ? { v4: V4, v6: all.includes(V6) ? V6 : undefined, alone: true }
  : own();

const allowed = () => {
  try { execFileSync('unshare', ['-rn', 'sh', '-c', UP], { stdio: 'ignore' }); return true; } catch { return false; }
};

/** Whether a test file has still to be run again, by `again`, in a network of its own. */
exports.isOutside = !process.env.STAGEDOOR_NAMESPACE && allowed();

/** Runs a test file in a network of its own; rejects with its output if it fails. */
exports.again = (file) => new Promise((resolve, reject) => {
  const env = { ...process.env, STAGEDOOR_NAMESPACE: '1' };
  // It would report to the runner of this one.
  delete env.NODE_TEST_CONTEXT;
  execFile('unshare', ['-rn', 'sh', '-c', `${UP} && exec "$0" "$1"`, process.execPath, file], { env, maxBuffer: 16 << 20 }, (error, out, err) => (error ? reject(new Error(`${out}\n${err}`)) : resolve(out)));
});
