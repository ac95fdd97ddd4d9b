'use strict';
// A DNS server on loopback, that answers what a test says, with a time to live of zero.

const dgram = require('node:dgram');
const packet = require('dns-packet');

/**
 * `zone` maps names to `{ A: [...], AAAA: [...], CNAME: name }` or to a function that is asked each
 * time; `null` leaves a question unanswered. Answers with its address and the names it was asked for.
 */
exports.dns = async (zone) => {
  const asked = [];
  const socket = dgram.createSocket('udp4');
  const records = (name, type, depth = 0) => {
    const found = typeof zone[name] === 'function' ? zone[name](type) : zone[name];
    if (found === null) return null;
    if (!found || depth > 5) return found && [];
    if (found.CNAME) {
      const further = records(found.CNAME, type, depth + 1) ?? [];
      return [{ name, type: 'CNAME', ttl: 0, data: found.CNAME }, ...further];
    }
    return (found[type] ?? []).map((data) => ({ name, type, ttl: 0, data }));
  };
  socket.on('message', (message, from) => {
    const query = packet.decode(message);
    const [question] = query.questions;
    const name = question.name.toLowerCase();
    asked.push(name);
    const answers = records(name, question.type);
    if (answers === null) return;
    const flags = packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE | (answers ? 0 : 3);
    socket.send(packet.encode({ type: 'response', id: query.id, flags, questions: query.questions, answers: answers ?? [] }), from.port, from.address);
  });
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
  return { address: `127.0.0.1:${socket.address().port}`, asked, zone, stop: () => new Promise((resolve) => socket.close(resolve)) };
};
