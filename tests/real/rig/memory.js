'use strict';
// What a program holds in its memory. Linux, and for programs that we started or as root.

const fs = require('node:fs');

const CHUNK = 16 << 20;

/** Those of `needles` that stand in what `pid` can write to, in either of the ways that V8 keeps text. */
exports.inMemory = (pid, needles) => {
  const searched = needles.flatMap((needle) => ['latin1', 'utf16le'].map((encoding) => [needle, Buffer.from(needle, encoding)]));
  const overlap = Math.max(...searched.map(([, bytes]) => bytes.length));
  const found = new Set();
  const memory = fs.openSync(`/proc/${pid}/mem`, 'r');
  const buffer = Buffer.allocUnsafe(CHUNK + overlap);
  let bytesRead = 0;
  for (const line of fs.readFileSync(`/proc/${pid}/maps`, 'utf8').trim().split('\n')) {
    const [range, rights] = line.split(' ');
    if (!rights.startsWith('rw')) continue;
    const [start, end] = range.split('-').map((text) => parseInt(text, 16));
    for (let at = start; at < end; at += CHUNK) {
      let got = 0;
      // What it has given back meanwhile is not there to read.
      try { got = fs.readSync(memory, buffer, 0, Math.min(CHUNK + overlap, end - at), at); } catch { break; }
      bytesRead += Math.min(got, CHUNK);
      const part = buffer.subarray(0, got);
      for (const [needle, bytes] of searched) if (!found.has(needle) && part.includes(bytes)) found.add(needle);
    }
  }
  fs.closeSync(memory);
  buffer.fill(0);
  return { found: [...found], bytesRead };
};
