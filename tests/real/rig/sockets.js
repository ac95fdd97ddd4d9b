'use strict';
// Which process holds a connection on loopback. Linux.

const fs = require('node:fs');

const hex = (port) => port.toString(16).toUpperCase().padStart(4, '0');

// The table changes while it is read, and a line may be left out.
const inode = (from, to) => Array.from({ length: 3 }).reduce((found) => found ?? fs.readFileSync('/proc/net/tcp', 'utf8').split('\n')
  .map((line) => line.trim().split(/\s+/))
  .find(([, local, remote]) => local?.endsWith(`:${hex(from)}`) && remote.endsWith(`:${hex(to)}`))?.[9], undefined);
const holds = (pid, socket) => {
  try {
    return fs.readdirSync(`/proc/${pid}/fd`).some((fd) => {
      try { return fs.readlinkSync(`/proc/${pid}/fd/${fd}`) === socket; } catch { return false; }
    });
  } catch { return false; }
};

/** Whether a process has the socket that listens on a port. */
exports.listens = (pid, port) => fs.readFileSync('/proc/net/tcp', 'utf8').split('\n').map((line) => line.trim().split(/\s+/))
  .some((row) => row[1]?.endsWith(`:${hex(port)}`) && row[3] === '0A' && holds(pid, `socket:[${row[9]}]`));

/** The process that connected from port `from` to port `to`; none if it is gone, or another user's. */
exports.owner = (from, to) => {
  const found = inode(from, to);
  return found && fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).find((pid) => holds(pid, `socket:[${found}]`));
};
