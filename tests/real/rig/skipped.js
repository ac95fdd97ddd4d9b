'use strict';
// A reporter of Node's test runner: what was skipped, and why. With CI set, that fails the run: a suite that leaves tests out
// for want of a program would say nothing about them, and nobody would notice.

// Node 20 also calls those skipped that --test-name-pattern leaves out.
const NOT_ASKED_FOR = 'test name does not match pattern';

module.exports = async function* skipped(events) {
  for await (const { type, data } of events) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.skip === undefined || data.skip === NOT_ASKED_FOR) continue;
    yield `skipped: ${data.name}${typeof data.skip === 'string' && data.skip ? ` (${data.skip})` : ''}\n`;
    if (process.env.CI) {
      process.exitCode = 1;
      yield 'A skipped test fails CI: scripts/setup installs what the suites need.\n';
    }
  }
};
