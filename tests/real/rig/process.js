'use strict';
// A program of ours that is ended when the test is over.

const { spawn } = require('node:child_process');

/** Longer than any of them drains. */
const PATIENCE_MS = 90000;

/** Starts a program; `output()` is what it printed, `stop(signal)` ends it and answers its code. */
exports.start = (command, args, options = {}) => {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  let output = '';
  child.stdout.on('data', (data) => { output += data; });
  child.stderr.on('data', (data) => { output += data; });
  // The end of a process comes before the last of what it printed. A child of its own (`--upgrade`) may hold its output open: then
  // nothing more is waited for.
  const read = Promise.all([child.stdout, child.stderr].map((stream) => new Promise((resolve) => stream?.once('close', resolve) ?? resolve())));
  const ended = new Promise((resolve) => child.once('exit', async (code, signal) => {
    const held = new Promise((go) => { setTimeout(go, 2000).unref(); });
    await Promise.race([read, held]);
    resolve(code ?? signal);
  }));
  return {
    pid: child.pid,
    output: () => output,
    ended,
    isRunning: () => child.exitCode === null && child.signalCode === null,
    signal: (signal) => child.kill(signal),
    /** Nobody reads what it prints from now on. */
    deafen: () => { child.stdout.destroy(); child.stderr.destroy(); },
    stop: async (signal = 'SIGTERM') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      // A test that waits for ever is told of by its file's name alone.
      let late;
      const patience = new Promise((_, reject) => {
        late = setTimeout(() => { child.kill('SIGKILL'); reject(new Error(`${command} did not end by ${signal}\n${output}`)); }, PATIENCE_MS);
      });
      return Promise.race([ended, patience]).finally(() => clearTimeout(late));
    },
  };
};
