'use strict';
// Clients and servers of other languages, as they are: Java's client and Apache's before the gate, Flask on
// gunicorn, Tornado and aiohttp behind it.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { authority } = require('../rig/certificates');
const { freePort, until } = require('../rig/ports');
const { start } = require('../rig/process');
const { python } = require('../rig/python');
const { stagedoor } = require('../rig/stagedoor');
const { upstream } = require('../rig/upstream');

const SERVERS = {
  flask: ['-m', 'gunicorn', '--chdir', 'FOLDER', '-b', '127.0.0.1:PORT', 'served:flask'],
  tornado: ['FOLDER/served.py', 'tornado', 'PORT'],
  aiohttp: ['FOLDER/served.py', 'aiohttp', 'PORT'],
};
const SERVED = `
import sys
from flask import Flask, request
flask = Flask(__name__)
@flask.get('/<path:p>')
def cookies(p): return dict(request.cookies)
if __name__ == '__main__':
    port = int(sys.argv[2])
    if sys.argv[1] == 'tornado':
        import asyncio, json, tornado.web
        class Cookies(tornado.web.RequestHandler):
            def get(self): self.write({name: morsel.value for name, morsel in self.cookies.items()})
        async def serve():
            tornado.web.Application([('/.*', Cookies)]).listen(port, '127.0.0.1')
            await asyncio.Event().wait()
        asyncio.run(serve())
    else:
        from aiohttp import web
        async def cookies(request): return web.json_response(dict(request.cookies))
        app = web.Application()
        app.router.add_get('/{path:.*}', cookies)
        web.run_app(app, host='127.0.0.1', port=port, print=None)
`;

let folder; let ca; let up; let door;
const servers = [];
const ports = {};

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stagedoor-clients-'));
  ca = authority(folder);
  ca.issue('portal', { names: ['localhost'] });
  fs.writeFileSync(`${folder}/served.py`, SERVED);
  const venv = path.join(process.env.STAGEDOOR_CACHE ?? path.join(os.homedir(), '.cache/stagedoor'), 'python-web');
  if (!fs.existsSync(`${venv}/complete`)) {
    execFileSync(python(), ['-m', 'venv', venv], { stdio: 'pipe' });
    execFileSync(`${venv}/bin/pip`, ['install', '-q', '--disable-pip-version-check', 'flask==3.1.2', 'gunicorn==23.0.0', 'tornado==6.5.2', 'aiohttp==3.12.15'], { stdio: 'pipe' });
    fs.writeFileSync(`${venv}/complete`, '');
  }
  for (const [name, args] of Object.entries(SERVERS)) {
    ports[name] = await freePort();
    servers.push(start(`${venv}/bin/python`, args.map((arg) => arg.replace('PORT', ports[name]).replace('FOLDER', folder)), {}));
  }
  const open = (port) => new Promise((resolve) => { const s = net.connect(port, '127.0.0.1', () => { s.destroy(); resolve(true); }).on('error', () => resolve(false)); });
  for (const port of Object.values(ports)) await until('a Python server', () => open(port));
  up = await upstream();
  door = await stagedoor((own) => `
listeners:
  edge: {kind: reverse, address: 127.0.0.1:${own.edge}}
  tls: {kind: reverse, address: 127.0.0.1:${own.tls}, tls: {certificates: [{cert: ${folder}/portal.crt, key: ${folder}/portal.key}]}}
workspaces: {named: {payments: {}}}
upstreams:
  up: {url: ${up.url}}
${Object.entries(ports).map(([name, port]) => `  ${name}: {url: "http://127.0.0.1:${port}"}`).join('\n')}
routes:
- {name: up, methods: [ANY], path: /up, upstream: up, class: read, options: {public: true}}
${Object.keys(ports).map((name) => `- {name: ${name}, methods: [ANY], path: /${name}/**, upstream: ${name}, class: read, options: {public: true}}`).join('\n')}`);
});
after(async () => {
  await door?.stop(); await up?.stop();
  await Promise.all(servers.map((server) => server.stop()));
  fs.rmSync(folder, { recursive: true, force: true });
});

const has = (program) => { try { execFileSync('which', [program]); return true; } catch { return false; } };
const skip = ['java', 'mvn'].every(has) ? false : 'no Java 17 with Maven here';

test('Java’s client and Apache’s are answered, whatever they offer', { skip }, async () => {
  fs.cpSync(path.join(__dirname, '../java'), `${folder}/java`, { recursive: true });
  execFileSync('mvn', ['-q', '-B', 'dependency:copy-dependencies'], { cwd: `${folder}/java`, stdio: 'pipe' });
  // In a process of its own, so that the servers here go on.
  const java = start('java', ['-cp', `${folder}/java/target/dependency/*`, `${folder}/java/Ask.java`, `${door.url}/up`], {});
  await until('all answers', async () => java.output().split('\n').filter((line) => /^(java|apache) /.test(line)).length === 4, 60000);
  const said = java.output().split('\n').filter((line) => /^(java|apache) /.test(line)).map((line) => line.split(' ').slice(0, 3).join(' '));
  assert.deepEqual(said, ['java GET 200', 'java POST 200', 'apache GET 200', 'apache POST 200']);
  for (const { raw } of up.seen) assert.doesNotMatch(raw.join(' '), /upgrade|http2-settings/i);
  assert.deepEqual(up.seen.map(({ body }) => body), ['', 'body', '', 'body']);
});

test('servers in Python see every cookie that came over HTTP/2', async () => {
  const session = http2.connect(`https://localhost:${door.ports.tls}`, { ca: fs.readFileSync(ca.ca) });
  for (const name of Object.keys(ports)) {
    const body = await new Promise((resolve, reject) => {
      const stream = session.request({ ':path': `/${name}/x`, cookie: ['theme=dark', 'session=abc'] });
      let text = '';
      stream.on('data', (data) => { text += data; }).on('end', () => resolve(text)).on('error', reject);
      stream.end();
    });
    assert.deepEqual(JSON.parse(body), { theme: 'dark', session: 'abc' }, name);
  }
  session.close();
});
