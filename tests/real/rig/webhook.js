'use strict';
// A receiver of webhooks: verifies each with Standard Webhooks' own library, and keeps what it took.

const fs = require('node:fs');
const https = require('node:https');
const { Webhook } = require('standardwebhooks');

/**
 * Starts it. `secret` signs; `answer(batch, request)` may answer with another status, with
 * `{ status, headers }`, or with `hang`. Answers with `records` (taken), `batches` (all that came).
 */
exports.webhook = async ({ port = 0, cert, key, secret, answer = () => 200 }) => {
  const records = []; const batches = [];
  const hook = secret && new Webhook(secret, secret.startsWith('whsec_') ? undefined : { format: 'raw' });
  const receiver = { records, batches, answer };
  const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, (request, response) => {
    const chunks = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('error', () => {});
    request.on('end', async () => {
      const body = Buffer.concat(chunks).toString();
      const batch = { at: Date.now(), headers: request.headers, records: [] };
      batches.push(batch);
      if (hook) hook.verify(body, request.headers);
      batch.records = JSON.parse(body).records;
      const answered = await receiver.answer(batch);
      if (answered === 'hang') return;
      const { status, headers = {} } = typeof answered === 'number' ? { status: answered } : answered;
      if (status < 300) records.push(...batch.records);
      response.writeHead(status, headers).end();
    });
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  receiver.port = server.address().port;
  receiver.url = `https://127.0.0.1:${receiver.port}`;
  receiver.stop = () => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve); });
  return receiver;
};
