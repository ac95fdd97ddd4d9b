'use strict';
// Certificates, made by openssl.

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] });

/** An authority in `folder`; `issue(name, { names, client })` makes NAME.crt and NAME.key. */
exports.authority = (folder, ca = 'ca') => {
  fs.mkdirSync(folder, { recursive: true });
  const file = (name) => `${folder}/${name}`;
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', `/CN=${ca}`, '-keyout', file(`${ca}.key`), '-out', file(`${ca}.crt`));
  const issue = (name, { names = [], uri, days = 2 } = {}) => {
    openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', `/CN=${name}`,
      '-keyout', file(`${name}.key`), '-out', file(`${name}.csr`));
    const san = [...names.map((n) => (/^[\d.]+$/.test(n) ? `IP:${n}` : `DNS:${n}`)), ...(uri ? [`URI:${uri}`] : [])];
    fs.writeFileSync(file(`${name}.ext`), ['basicConstraints=CA:FALSE', san.length ? `subjectAltName=${san.join(',')}` : '', ''].join('\n'));
    openssl('x509', '-req', '-in', file(`${name}.csr`), '-CA', file(`${ca}.crt`), '-CAkey', file(`${ca}.key`),
      '-CAcreateserial', '-days', String(days), '-extfile', file(`${name}.ext`), '-out', file(`${name}.crt`));
    return { cert: file(`${name}.crt`), key: file(`${name}.key`) };
  };
  return { issue, ca: file(`${ca}.crt`), file };
};
