'use strict';
// rsyslog itself, which takes syslog over TLS and writes what it understood to a file.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const { until } = require('./ports');
const { start } = require('./process');
const net = require('node:net');

/** Whether this machine has it. */
exports.missing = () => {
  try {
    execFileSync('rsyslogd', ['-v'], { stdio: 'ignore', env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
    return false;
  } catch { return 'needs rsyslog'; }
};

/** Starts it in `folder`; `messages()` is what it understood of each. */
exports.rsyslog = async ({ folder, port, cert, key, ca }) => {
  fs.mkdirSync(folder, { recursive: true });
  const out = `${folder}/messages`;
  fs.writeFileSync(`${folder}/rsyslog.conf`, `
global(workDirectory="${folder}" maxMessageSize="64k"
  defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="${ca}"
  defaultNetstreamDriverCertFile="${cert}" defaultNetstreamDriverKeyFile="${key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="understood" type="list") {
  property(name="syslogfacility-text") constant(value=" ") property(name="syslogseverity-text") constant(value=" ")
  property(name="timereported" dateFormat="rfc3339") constant(value=" ") property(name="hostname") constant(value=" ")
  property(name="app-name") constant(value=" ") property(name="msgid") constant(value=" ")
  property(name="structured-data") constant(value=" | ") property(name="msg") constant(value="\\n")
}
input(type="imtcp" address="127.0.0.1" port="${port}" ruleset="all")
ruleset(name="all") { action(type="omfile" file="${out}" template="understood") }
`);
  const program = start('rsyslogd', ['-n', '-f', `${folder}/rsyslog.conf`, '-i', `${folder}/pid`], { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  await until('rsyslog', () => new Promise((resolve, reject) => {
    if (!program.isRunning()) reject(Object.assign(new Error(program.output()), { fatal: true }));
    const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
    socket.on('error', () => resolve(false));
  }));
  const messages = () => (fs.existsSync(out) ? fs.readFileSync(out, 'utf8') : '').split('\n').filter(Boolean).map((line) => {
    const [head, ...text] = line.split(' | ');
    return { head, text: text.join(' | ').trim() };
  });
  return { ...program, messages };
};
