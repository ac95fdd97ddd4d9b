'use strict';
// A network of a test's own, so that nobody else's connections are in its tables: a network namespace
// with loopback and two more addresses. Where that is not allowed, the machine's own network.

const { execFile, execFileSync, spawn } = require('node:child_process');
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

const ip = (words) => execFileSync('ip', words.split(' '));
const bridge = (name, net) => { ip(`link add ${name} type bridge`); ip(`addr add ${net}.1/24 dev ${name}`); ip(`link set ${name} up`); };

/**
 * Hosts beside a test that is in a network of its own: each is reached at its `address`, and reaches what listens on `other`, the
 * other network, until `cut()`. `under` starts a program there.
 */
exports.hosts = async (count) => {
  const front = '10.77.0'; const back = '10.78.0';
  bridge('front', front);
  bridge('back', back);
  const all = await Promise.all(Array.from({ length: count }, async (_, n) => {
    const holder = spawn('unshare', ['-n', 'sh', '-c', 'echo there; exec sleep 600'], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => { holder.stdout.once('data', resolve); });
    const under = ['nsenter', `--net=/proc/${holder.pid}/ns/net`, '--'];
    const there = (words) => execFileSync(under[0], [...under.slice(1), 'ip', ...words.split(' ')]);
    there('link set lo up');
    for (const [name, net] of [['front', front], ['back', back]]) {
      ip(`link add ${name}${n} type veth peer name ${name} netns ${holder.pid}`);
      ip(`link set ${name}${n} master ${name} up`);
      there(`addr add ${net}.${n + 10}/24 dev ${name}`);
      there(`link set ${name} up`);
    }
    return {
      address: `${front}.${n + 10}`,
      under,
      cut: () => ip(`link set back${n} down`),
      mend: () => ip(`link set back${n} up`),
      stop: () => { holder.kill('SIGKILL'); },
    };
  }));
  return { all, here: `${front}.1`, other: `${back}.1`, stop: () => all.forEach((one) => one.stop()) };
};
