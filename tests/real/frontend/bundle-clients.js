'use strict';
// Bundles `clients.js` for Node, into the file named on the command line.

const path = require('node:path');
const esbuild = require('esbuild');

const asFile = Object.fromEntries(['.svg', '.png', '.css'].map((ending) => [ending, 'empty']));
esbuild.buildSync({
  absWorkingDir: __dirname, entryPoints: ['clients.js'], outfile: path.resolve(process.argv[2]), bundle: true, platform: 'node', format: 'cjs',
  mainFields: ['module', 'main'], loader: asFile, alias: { 'cross-fetch': path.join(__dirname, 'browser-fetch.js') }, logLevel: 'error',
});
