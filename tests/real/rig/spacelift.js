'use strict';
// Spacelift's API: GraphQL over POST, run by the `graphql` library, with keys that are exchanged for tokens.

const crypto = require('node:crypto');
const { buildSchema, execute, parse, validate } = require('graphql');
const { api } = require('./api');

const SCHEMA = buildSchema(`
  type Query { stacks: [Stack!]! stack(id: ID!): Stack viewer: Viewer }
  type Mutation {
    apiKeyUser(id: ID!, secret: String!): User
    runTrigger(stack: ID!, commitSha: String, runType: RunType): Run!
    runConfirm(stack: ID!, run: ID!): Run!
    runDiscard(stack: ID!, run: ID!): Run!
    stackDelete(id: ID!, destroyResources: Boolean): Stack
    stackLock(id: ID!): Stack
    apiKeyCreate(name: String!, admin: Boolean!): ApiKey!
    taskCreate(stack: ID!, command: String!): Run!
  }
  enum RunType { PROPOSED TRACKED }
  type Viewer { id: ID! name: String! }
  type User { id: ID! jwt: String! validUntil: Int! }
  type ApiKey { id: ID! secret: String! }
  type Run { id: ID! state: String! }
  type Space { id: ID! name: String! }
  type Stack { id: ID! name: String! description: String labels: [String!]! state: String! branch: String! spaceDetails: Space! }
`);

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const same = (a, b) => { const hash = (text) => crypto.createHash('sha256').update(String(text)).digest(); return crypto.timingSafeEqual(hash(a), hash(b)); };

/**
 * Starts it. `keys` are secrets by id. `calls` counts what was run, by root field; `tokens` are the JWTs
 * that it gave out; `lives(seconds)` says how long the next ones last.
 */
exports.spacelift = async (certificate, { keys }) => {
  const signing = crypto.randomBytes(32);
  let lifetime = 3600;
  const calls = {};
  const tokens = [];
  const runs = [];
  const stack = (id, space) => ({ id, name: id, description: null, labels: [`space:${space}`], state: 'FINISHED', branch: 'main', spaceDetails: { id: space, name: space } });
  const stacks = [stack('payments-network', 'payments'), stack('payments-db', 'payments'), stack('search-index', 'search')];

  const sign = (message) => crypto.createHmac('sha256', signing).update(message).digest('base64url');
  const issue = (id) => {
    const now = Math.floor(Date.now() / 1000);
    const message = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'https://acme.spacelift.example', sub: `api::${id}`, aud: ['https://acme.spacelift.example'], iat: now, exp: now + lifetime, admin: true })}`;
    const jwt = `${message}.${sign(message)}`;
    tokens.push(jwt);
    return { id, jwt, validUntil: now + lifetime };
  };
  const verified = (authorization) => {
    const [, message, signature] = /^Bearer ([\w-]+\.[\w-]+)\.([\w-]+)$/i.exec(authorization ?? '') ?? [];
    if (!message || !same(sign(message), signature)) return undefined;
    const claims = JSON.parse(Buffer.from(message.split('.')[1], 'base64url'));
    return claims.exp > Date.now() / 1000 ? claims : undefined;
  };

  const known = (id) => { const found = stacks.find((one) => one.id === id); if (!found) throw new Error('stack not found'); return found; };
  const run = ({ stack: id }) => { const made = { id: `run-${runs.length + 1}`, state: 'QUEUED', stack: known(id).id }; runs.push(made); return made; };
  const counted = (name, resolve, open = false) => (args, caller) => {
    if (!open && !caller) throw new Error('unauthorized');
    calls[name] = (calls[name] ?? 0) + 1;
    return resolve(args);
  };
  const root = Object.fromEntries(Object.entries({
    stacks: () => stacks,
    stack: ({ id }) => stacks.find((one) => one.id === id) ?? null,
    viewer: () => ({ id: 'portal', name: 'portal' }),
    apiKeyUser: ({ id, secret }) => { if (!(id in keys) || !same(keys[id], secret)) throw new Error('unauthorized'); return issue(id); },
    runTrigger: run, runConfirm: run, runDiscard: run, taskCreate: run,
    stackDelete: ({ id }) => stacks.splice(stacks.indexOf(known(id)), 1)[0],
    stackLock: ({ id }) => known(id),
    apiKeyCreate: () => ({ id: 'new', secret: 'new' }),
  }).map(([name, resolve]) => [name, counted(name, resolve, name === 'apiKeyUser')]));

  const one = async ({ query, variables, operationName }, caller) => {
    try {
      // The plugin asks `query GetStacks () {…}`. Empty parentheses are none in GraphQL; Spacelift's
      // server, as Go's parsers do, takes them.
      const document = parse(String(query).replace(/^(\s*(?:query|mutation)\s+\w+\s*)\(\s*\)/, '$1'));
      const errors = validate(SCHEMA, document);
      if (errors.length) return { errors };
      return await execute({ schema: SCHEMA, document, rootValue: root, contextValue: caller, variableValues: variables, operationName });
    } catch (error) { return { errors: [{ message: error.message }] }; }
  };
  const server = await api(certificate, async ({ method, path, headers, body }) => {
    if (path !== '/graphql') return { status: 404, body: { message: 'not found' } };
    if (method !== 'POST') return { status: 405, body: { message: 'method not allowed' } };
    let asked;
    try { asked = JSON.parse(body); } catch { return { status: 400, body: { errors: [{ message: 'json body could not be decoded' }] } }; }
    const caller = verified(headers.authorization);
    // Errors come with 200, too.
    if (!Array.isArray(asked)) return { body: await one(asked ?? {}, caller) };
    const answers = [];
    for (const each of asked) answers.push(await one(each ?? {}, caller));
    return { body: answers };
  });
  return { ...server, calls, tokens, runs, stacks, lives: (seconds) => { lifetime = seconds; } };
};
