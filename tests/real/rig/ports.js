'use strict';
// Free ports on loopback, each given out once.

const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');

// Below the ports that the system gives to connections, or one of those could take it meanwhile.
const FIRST = 12000;
const COUNT = 20000;
let next = Math.floor(Math.random() * COUNT);

const listens = (port) => new Promise((resolve) => {
  const server = net.createServer();
  server.once('error', () => resolve(false));
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
});

const lives = (pid) => { try { process.kill(pid, 0); return true; } catch { return false; } };
const claims = [];
process.on('exit', () => claims.forEach((file) => fs.rmSync(file, { force: true })));
/** Test files run beside each other: each port is for one of them, which says so in a file. */
const claim = (port) => {
  const file = path.join(os.tmpdir(), `stagedoor-port-${port}`);
  for (let tries = 0; tries < 2; tries += 1) {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: 'wx' });
      claims.push(file);
      return true;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      // Whoever was killed has left it behind.
      try { if (lives(Number(fs.readFileSync(file, 'utf8')) || process.pid)) return false; } catch { /* it is gone just now */ }
      fs.rmSync(file, { force: true });
    }
  }
  return false;
};

/** A port that nobody listens on. */
exports.freePort = async () => {
  for (let tries = 0; tries < COUNT; tries += 1) {
    const port = FIRST + next;
    next = (next + 1) % COUNT;
    if (claim(port) && await listens(port)) return port;
  }
  throw new Error('no port is free');
};

/** Waits until `check` answers true, looking again at short intervals; fails after `ms`. */
exports.until = async (what, check, ms = 30000) => {
  const deadline = Date.now() + ms;
  for (;;) {
    const found = await check().catch((error) => { if (error.fatal) throw error; return false; });
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => { const t = setTimeout(resolve, 20); t.unref?.(); });
  }
};
