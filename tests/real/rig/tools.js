'use strict';
// Jenkins, SonarQube and a Kubernetes cluster, as far as their Backstage plugins read them.

const { api } = require('./api');

const basic = (headers) => Buffer.from(headers.authorization?.replace(/^Basic /, '') ?? '', 'base64').toString();

/** Jenkins with a job `pay`, whose last build succeeded. `rebuilt` are the builds that were run again. */
exports.jenkins = async (certificate, { username, token }) => {
  const rebuilt = [];
  const url = () => `https://jenkins.example:${server.port}/job/pay`;
  const build = () => ({ number: 7, url: `${url()}/7/`, fullDisplayName: 'pay #7', displayName: '#7', building: false, result: 'SUCCESS', timestamp: 1767225600000, duration: 61000, actions: [] });
  const server = await api(certificate, ({ method, path, headers }) => {
    if (basic(headers) !== `${username}:${token}`) return { status: 401, body: {} };
    switch (`${method} ${path}`) {
      // The card asks for a branch, as a job below it.
      case 'GET /job/pay/job/master/api/json':
      case 'GET /job/shop/job/pay/api/json':
      case 'GET /job/pay/api/json': return { body: { name: 'pay', fullName: 'pay', displayName: 'pay', fullDisplayName: 'pay', url: `${url()}/`, inQueue: false, actions: [], lastBuild: build(), builds: [build()] } };
      case 'GET /job/shop/job/pay/7/api/json':
      case 'GET /job/pay/7/api/json': return { body: build() };
      case 'GET /job/pay/7/consoleText': return { body: 'built' };
      case 'GET /crumbIssuer/api/json': return { body: { crumbRequestField: 'Jenkins-Crumb', crumb: 'c' } };
      case 'POST /job/shop/job/pay/7/replay/rebuild':
      case 'POST /job/pay/7/replay/rebuild': rebuilt.push('pay/7'); return { body: {} };
      default: return { status: 404, body: {} };
    }
  });
  return { ...server, rebuilt };
};

const METRICS = { alert_status: 'OK', bugs: '2', reliability_rating: '3.0', vulnerabilities: '0', security_rating: '1.0', security_review_rating: '1.0', code_smells: '11', sqale_rating: '1.0', coverage: '81.3', duplicated_lines_density: '1.2' };

/** SonarQube with the component `pay`. */
exports.sonarqube = (certificate, { token }) => api(certificate, ({ path, query, headers }) => {
  if (basic(headers) !== `${token}:`) return { status: 401, body: { errors: [] } };
  switch (path) {
    case '/api/components/show': return query.get('component') === 'pay' ? { body: { component: { key: 'pay', name: 'pay', analysisDate: '2026-01-01T00:00:00+0000' } } } : { status: 404, body: { errors: [{ msg: 'not found' }] } };
    case '/api/metrics/search': return { body: { total: Object.keys(METRICS).length, p: 1, ps: 500, metrics: Object.keys(METRICS).map((key) => ({ key })) } };
    case '/api/measures/component': return { body: { component: { key: 'pay', measures: Object.entries(METRICS).map(([metric, value]) => ({ metric, value })) } } };
    default: return { status: 404, body: { errors: [] } };
  }
});

/** A cluster with one pod, `pay-1`. */
exports.kubernetes = (certificate, { token }) => api(certificate, ({ path, headers }) => {
  if (headers.authorization !== `Bearer ${token}`) return { status: 401, body: { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason: 'Unauthorized', code: 401 } };
  const kind = path.split('/').at(-1);
  const pod = {
    metadata: { name: 'pay-1', namespace: 'default', uid: 'u-1', labels: { app: 'pay' }, creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { containers: [{ name: 'pay', image: 'pay:1' }] },
    status: { phase: 'Running', conditions: [], containerStatuses: [{ name: 'pay', ready: true, restartCount: 0, state: { running: {} } }] },
  };
  return { body: { kind: 'List', apiVersion: 'v1', metadata: {}, items: kind === 'pods' && !path.includes('metrics') ? [pod] : [] } };
});
