'use strict';
// Loaded into a program by `node -r`: writes each connection that it begins, and each name that it looks up
// for one, as a line to the file that $CONNECTIONS names.

const fs = require('node:fs');
const net = require('node:net');

const write = (line) => fs.appendFileSync(process.env.CONNECTIONS, `${line}\n`);
const { connect } = net.Socket.prototype;
net.Socket.prototype.connect = function connectAndTell(...args) {
  this.once('lookup', (_error, _address, _family, host) => write(`lookup ${host}`));
  this.on('connectionAttempt', (ip, port) => write(`connect ${ip}:${port}`));
  return connect.apply(this, args);
};
