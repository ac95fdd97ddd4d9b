'use strict';
// Loaded into Backstage by `node -r`: tells what its routers serve. On SIGUSR2 it writes one JSON line for each route and
// WebSocket to the file in $ROUTES: method (`ANY` for what takes all), path, and whether that is a prefix.

const fs = require('node:fs');
const Module = require('node:module');

const routers = new Set();
const sockets = [];

/** Express forgets under which path it mounted something, but for a regular expression. */
const patch = (express) => {
  const { use } = express.Router;
  express.Router.use = function mounted(...args) {
    const before = this.stack.length;
    const made = use.apply(this, args);
    routers.add(this);
    for (const layer of this.stack.slice(before)) layer.mount = typeof args[0] === 'string' ? args[0] : '';
    return made;
  };
};
const seen = new Set();
const load = Module._load;
Module._load = function loaded(name, ...rest) {
  const made = load.call(this, name, ...rest);
  if (name === 'express' && made.Router?.use && !seen.has(made)) { seen.add(made); patch(made); }
  return made;
};

const join = (...parts) => parts.join('/').replace(/\/+/g, '/').replace(/(.)\/$/, '$1');
const walk = (stack, prefix, found) => {
  for (const layer of stack) {
    if (layer.route) {
      const methods = Object.keys(layer.route.methods).map((method) => (method === '_all' ? 'ANY' : method.toUpperCase()));
      for (const path of [layer.route.path].flat()) for (const method of methods) found.push({ method, path: join(prefix, String(path)) });
    } else if (layer.handle.stack) {
      walk(layer.handle.stack, join(prefix, layer.mount ?? ''), found);
    } else if (layer.mount && layer.mount !== '/' && layer.handle.length < 4) {
      found.push({ method: 'ANY', path: join(prefix, layer.mount), prefix: true });
    }
  }
};
process.on('SIGUSR2', () => {
  const inner = new Set();
  for (const { stack } of routers) for (const { handle } of stack) if (handle.stack) inner.add(handle.stack);
  const found = [...sockets];
  for (const { stack } of routers) if (!inner.has(stack)) walk(stack, '/', found);
  const lines = [...new Set(found.map((route) => JSON.stringify(route)))].sort();
  fs.writeFileSync(`${process.env.ROUTES}.part`, `${lines.join('\n')}\n`);
  fs.renameSync(`${process.env.ROUTES}.part`, process.env.ROUTES);
});

// WebSockets go past Express: Backstage keeps them by their whole path.
const { set } = Map.prototype;
Map.prototype.set = function noted(key, value) {
  if (typeof key === 'string' && key.startsWith('/api/') && typeof value === 'function') sockets.push({ method: 'GET', path: key, socket: true });
  return set.call(this, key, value);
};
