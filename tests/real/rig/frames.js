'use strict';
// A client of HTTP/2 that writes every frame by hand, and so can write wrong ones (RFC 9113, RFC 7541).

const tls = require('node:tls');

const DATA = 0; const HEADERS = 1; const RST_STREAM = 3; const SETTINGS = 4; const PING = 6; const GOAWAY = 7; const WINDOW_UPDATE = 8;
const END_STREAM = 1; const END_HEADERS = 4;

const u32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(n >>> 0); return b; };
const frame = (type, flags, stream, payload = Buffer.alloc(0)) => Buffer.concat([Buffer.from([payload.length >> 16, payload.length >> 8 & 255, payload.length & 255, type, flags]), u32(stream), payload]);
const text = (s) => { const b = Buffer.from(s, 'latin1'); if (b.length > 126) throw new Error('too long for one byte'); return Buffer.concat([Buffer.from([b.length]), b]); };
/** A header block of literals; `indexed` puts them into the dynamic table. */
const block = (headers, indexed = false) => Buffer.concat(headers.map(([name, value]) => Buffer.concat([Buffer.from([indexed ? 0x40 : 0]), text(name), text(value)])));

Object.assign(exports, { DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, END_STREAM, END_HEADERS, frame, block, u32 });

/** Connects; `frames` are those that came, `closed` resolves when the connection ends. */
exports.connect = (port, options) => new Promise((resolve, reject) => {
  const socket = tls.connect({ host: '127.0.0.1', port, ALPNProtocols: ['h2'], ...options }, () => {
    socket.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(SETTINGS, 0, 0)]));
    resolve(client);
  });
  const waiting = new Set();
  const client = {
    socket, frames: [],
    write: (...frames) => socket.write(Buffer.concat(frames)),
    /** The first frame of which `which` is true, or `undefined` when the connection has ended without. */
    find: (which) => new Promise((found) => {
      const look = () => {
        const frame = client.frames.find(which);
        if (frame || socket.destroyed) { waiting.delete(look); found(frame); }
      };
      waiting.add(look);
      look();
    }),
    closed: new Promise((end) => socket.once('close', end)),
  };
  const tell = () => [...waiting].forEach((look) => look());
  let got = Buffer.alloc(0);
  socket.on('data', (data) => {
    got = Buffer.concat([got, data]);
    while (got.length >= 9 && got.length >= 9 + got.readUIntBE(0, 3)) {
      const length = got.readUIntBE(0, 3);
      const came = { type: got[3], flags: got[4], stream: got.readUInt32BE(5) & 0x7fffffff, payload: got.subarray(9, 9 + length) };
      got = got.subarray(9 + length);
      if (came.type === SETTINGS && !(came.flags & 1)) socket.write(frame(SETTINGS, 1, 0));
      client.frames.push(came);
    }
    tell();
  });
  socket.on('close', tell);
  socket.on('error', (error) => { reject(error); });
});
