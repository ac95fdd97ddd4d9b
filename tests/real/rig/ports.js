'use strict';
// Free ports on loopback, each given out once.

const net = require('node:net');

/** A port that nobody listens on. */
exports.freePort = () => new Promise((resolve, reject) => {
  const server = net.createServer();
  server.once('error', reject);
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

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
