'use strict';
// Bundles `app.jsx` into the folder named on the command line, as the package `app` that Backstage's app-backend serves.

const fs = require('node:fs');
const path = require('node:path');
const esbuild = require('esbuild');

const out = path.resolve(process.argv[2]);
const stub = path.join(__dirname, 'node-stub.js');
const asFile = Object.fromEntries(['.svg', '.png', '.gif', '.woff', '.woff2', '.ttf', '.eot'].map((ending) => [ending, 'file']));
esbuild.buildSync({
  absWorkingDir: __dirname, entryPoints: { main: 'app.jsx' }, outdir: `${out}/dist/static`, publicPath: '/static',
  bundle: true, splitting: true, format: 'esm', minify: true, jsx: 'automatic', loader: asFile, logLevel: 'error',
  define: { 'process.env.NODE_ENV': '"production"', 'process.env': '{}', global: 'window' },
  inject: [stub], alias: { stream: stub, buffer: 'buffer/' }, mainFields: ['browser', 'module', 'main'], conditions: ['browser'],
});
fs.writeFileSync(`${out}/package.json`, '{"name":"app","version":"0.0.0"}');
fs.writeFileSync(`${out}/dist/index.html.tmpl`, `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <link rel="icon" href="data:," />
    <link rel="stylesheet" href="<%= publicPath %>/static/main.css" />
    <title><%= config.getOptionalString('app.title') ?? 'Backstage' %></title>
  </head>
  <body><div id="root"></div><script type="module" src="<%= publicPath %>/static/main.js"></script></body>
</html>
`);
// What of Backstage's config a browser is shown.
const shown = { type: 'object', deepVisibility: 'frontend', additionalProperties: true };
const only = (properties) => ({ type: 'object', properties });
const text = { type: 'string', visibility: 'frontend' };
const value = only({
  app: shown, organization: shown, backend: only({ baseUrl: text }), auth: only({ environment: text }),
  argocd: only({ appLocatorMethods: { type: 'array', items: shown } }), kubernetes: only({ frontend: shown }),
});
fs.writeFileSync(`${out}/dist/.config-schema.json`, JSON.stringify({ backstageConfigSchemaVersion: 1, schemas: [{ path: 'app', value }] }));
