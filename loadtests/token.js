'use strict';
// An RS256 key and a token of it, for the load test. `node token.js FOLDER`

const crypto = require('node:crypto');
const fs = require('node:fs');

const folder = process.argv[2];
const { publicKey, privateKey } = crypto.generateKeyPairSync('rsa', { modulusLength: 2048 });
fs.writeFileSync(`${folder}/jwks.json`, JSON.stringify({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'one', alg: 'RS256', use: 'sig' }] }));
const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const now = Math.floor(Date.now() / 1000);
const message = `${part({ alg: 'RS256', typ: 'JWT', kid: 'one' })}.${part({
  iss: 'https://idp.example', aud: 'stagedoor', sub: 'user:default/ada', workspaces: ['payments'], iat: now, exp: now + 36000,
})}`;
fs.writeFileSync(`${folder}/token`, `${message}.${crypto.sign('sha256', Buffer.from(message), privateKey).toString('base64url')}`);
