'use strict';
// Tokens of an issuer that shares a secret with the proxy (HS256), as Orbit makes them.

const crypto = require('node:crypto');

exports.SECRET = '0123456789abcdef0123456789abcdef';
const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A token for `subject` in `workspaces`. */
exports.orbit = (subject, workspaces, claims = {}) => {
  const now = Math.floor(Date.now() / 1000);
  const message = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({
    iss: 'orbit', aud: 'stagedoor', sub: subject, workspaces, iat: now, exp: now + 3600, ...claims,
  })}`;
  return `${message}.${crypto.createHmac('sha256', exports.SECRET).update(message).digest('base64url')}`;
};

/** The identity section that believes them. */
exports.identity = (folder) => {
  require('node:fs').writeFileSync(`${folder}/secret`, `${exports.SECRET}\n`);
  return `identity:
  issuers:
    orbit: {issuer: orbit, audiences: [stagedoor], algorithms: [HS256], keys: {secret_file: ${folder}/secret}}`;
};
