'use strict';
// Chromium without a window: what a page really asks for, and what it shows. Debian's, driven by playwright-core.

const { chromium } = require('playwright-core');

const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/**
 * Starts it. Each of `names` is led to its address (`{'portal.test': '127.0.0.1:12000'}`); no other name is looked up.
 * `args` are more flags.
 */
exports.chromium = async ({ names = {}, args = [] } = {}) => {
  const rules = [...Object.entries(names).map(([name, address]) => `MAP ${name} ${address}`), 'MAP * ~NOTFOUND', 'EXCLUDE 127.0.0.1', 'EXCLUDE localhost'];
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: [...FLAGS, `--host-resolver-rules=${rules.join(', ')}`, ...args],
  });
  /**
   * Somebody with cookies of their own; `options` are playwright's for a context. `page` is their first page, `answers` are
   * all that any of their pages was answered, in order, and `failures` what was not, and errors that no script caught.
   */
  const person = async (options = {}) => {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
    context.setDefaultTimeout(60000);
    const answers = [];
    const failures = [];
    context.on('response', (answer) => {
      const request = answer.request();
      answers.push({ status: answer.status(), method: request.method(), url: answer.url(), kind: request.resourceType(), answer });
    });
    context.on('requestfailed', (request) => failures.push({ method: request.method(), url: request.url(), error: request.failure()?.errorText }));
    context.on('weberror', (error) => failures.push({ error: String(error.error()) }));
    return {
      context, answers, failures, page: await context.newPage(),
      /** Answers of a status from 400 on, one a line. */
      refused: () => answers.filter(({ status }) => status >= 400).map(({ status, method, url }) => `${status} ${method} ${url}`),
      leave: () => context.close(),
    };
  };
  return { browser, person, stop: () => browser.close() };
};
