'use strict';
// Argo CD's API, as far as its Backstage plugins use it: sessions, applications, projects, syncs.

const crypto = require('node:crypto');
const { api } = require('./api');

const denied = (status, code, message) => ({ status, body: { error: message, code, message } });

/** Starts it. `username` and `password` open a session; `synced` are the applications that were synced. */
exports.argocd = async (certificate, { username = 'portal', password }) => {
  const synced = [];
  const sessions = new Set();
  const application = (name, labels) => ({
    metadata: { name, namespace: 'argocd', labels, resourceVersion: '17' },
    spec: { project: 'shop', source: { repoURL: 'https://git.example/shop', path: name, targetRevision: 'HEAD' }, destination: { namespace: 'shop', server: 'https://kubernetes.default.svc' } },
    status: { sync: { status: 'Synced', revision: 'c0ffee' }, health: { status: 'Healthy' } },
  });
  const applications = [application('pay', { 'example.com/app': 'pay' }), application('pay-jobs', { 'example.com/app': 'pay' }), application('search', { 'example.com/app': 'search' })];
  const server = await api(certificate, ({ method, path, query, headers, body }) => {
    if (method === 'POST' && path === '/api/v1/session') {
      const given = JSON.parse(body);
      if (given.username !== username || given.password !== password) return denied(401, 16, 'Invalid username or password');
      const token = `argo-${crypto.randomUUID()}`;
      sessions.add(token);
      return { body: { token } };
    }
    if (!sessions.has(headers.authorization?.replace(/^Bearer /, ''))) return denied(401, 16, 'no session information');
    const [kind, name, ...rest] = path.replace('/api/v1/', '').split('/').map(decodeURIComponent);
    if (kind === 'projects') return name === 'shop' ? { body: { metadata: { name, resourceVersion: '3' }, spec: {} } } : denied(403, 7, 'permission denied');
    if (kind !== 'applications') return denied(404, 5, 'Not Found');
    if (!name) {
      const [label, value] = (query.get('selector') ?? '').split('=');
      const items = applications.filter(({ metadata }) => !label || metadata.labels[label] === value);
      // Go's empty list.
      return { body: { metadata: { resourceVersion: '42' }, items: items.length ? items : null } };
    }
    // It does not tell those that are missing from those that one may not see.
    const found = applications.find(({ metadata }) => metadata.name === name);
    if (!found) return denied(403, 7, 'permission denied');
    switch (`${method} ${rest.join('/')}`) {
      case 'GET ': return { body: found };
      case 'POST sync': synced.push(name); return { body: found };
      case 'DELETE operation': return { body: {} };
      default: return rest[0] === 'revisions' ? { body: { author: 'ada', message: 'first', date: '2026-01-01T00:00:00Z' } } : denied(404, 5, 'Not Found');
    }
  });
  return { ...server, synced };
};
