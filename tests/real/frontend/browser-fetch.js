// In the place of `cross-fetch`, which in a browser is the browser's.
module.exports = (...request) => globalThis.fetch(...request);
