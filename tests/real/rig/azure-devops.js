'use strict';
// Azure DevOps, as far as Microsoft's client needs it to find out where things are, and then to read
// projects, teams, builds and their logs, tags and pull requests: four requests for each call.

const { api } = require('./api');

const LOCATIONS = {
  location: [{ id: 'e81700f7-3be2-46de-8624-2eb35882fcaa', area: 'Location', resourceName: 'ResourceAreas', routeTemplate: '_apis/{resource}/{areaId}' }],
  core: [
    { id: '603fe2ac-9723-48b9-88ad-09305aa6c6e1', area: 'core', resourceName: 'projects', routeTemplate: '_apis/{resource}/{*projectId}' },
    { id: '7a4d9ee9-3433-4347-b47a-7a80f1cf307e', area: 'core', resourceName: 'teams', routeTemplate: '_apis/{resource}' },
    { id: '294c494c-2600-4d7e-b76c-3dd50c3c95be', area: 'core', resourceName: 'members', routeTemplate: '_apis/projects/{projectId}/teams/{teamId}/{resource}' },
  ],
  git: [
    { id: '225f7195-f9c7-4d14-ab28-a83f7ff77e1f', area: 'git', resourceName: 'repositories', routeTemplate: '{project}/_apis/{area}/{resource}/{repositoryId}' },
    { id: '9946fd70-0d40-406e-b686-b4744cbbcc37', area: 'git', resourceName: 'pullRequests', routeTemplate: '{project}/_apis/{area}/repositories/{repositoryId}/{resource}/{pullRequestId}' },
    { id: 'a5d28130-9cd2-40fa-9f08-902e7daa9efb', area: 'git', resourceName: 'pullRequests', routeTemplate: '{project}/_apis/{area}/{resource}' },
    { id: '2d874a60-a811-4f62-9c9f-963a6ea0a55b', area: 'git', resourceName: 'refs', routeTemplate: '{project}/_apis/{area}/repositories/{repositoryId}/{resource}' },
  ],
  build: [
    { id: '0cd358e1-9217-4d94-8269-1c1ee6f93dcf', area: 'build', resourceName: 'builds', routeTemplate: '{project}/_apis/{area}/{resource}/{buildId}' },
    { id: 'dbeaf647-6167-421a-bda9-c9327b25e2e6', area: 'build', resourceName: 'definitions', routeTemplate: '{project}/_apis/{area}/{resource}/{definitionId}' },
    { id: '35a80daf-7f30-45fc-86e8-6b813d9c90df', area: 'build', resourceName: 'logs', routeTemplate: '{project}/_apis/{area}/builds/{buildId}/{resource}/{logId}' },
  ],
};
const AREAS = { git: '4e080c62-fa21-4fbc-8fef-2a10a2b38049', core: '79134c72-4a58-4b42-976c-04e7115f32bf', build: '965220d5-5bb9-42cf-8d67-9b146df2a5a4' };
const list = (value) => ({ body: { count: value.length, value } });

/** Starts it for `organization`, at the name `host`; `token` is a personal access token that it takes. */
exports.azureDevOps = async (certificate, { host, organization, token }) => {
  const server = await api(certificate, ({ method, path, headers }) => {
    const [, user] = /^Basic (.+)$/.exec(headers.authorization ?? '') ?? [];
    const given = user && Buffer.from(user, 'base64').toString().split(':').at(-1);
    if (given !== token) return { status: 401, headers: { 'www-authenticate': `Basic realm="https://${host}"` } };
    const base = `/${organization}`;
    if (!path.startsWith(`${base}/`)) return { status: 404, body: { message: 'TF400813' } };
    const where = path.slice(base.length).toLowerCase();
    if (method === 'OPTIONS') {
      return list((LOCATIONS[where.replace('/_apis/', '')] ?? []).map((location) => ({ ...location, resourceVersion: 7, minVersion: '1.0', maxVersion: '7.2', releasedVersion: '7.1' })));
    }
    switch (where) {
      case '/_apis/resourceareas': return list(Object.entries(AREAS).map(([name, id]) => ({ id, name, locationUrl: `https://${host}:${server.port}${base}/` })));
      case '/_apis/projects': return list([{ id: 'p-1', name: 'shop', description: 'the shop' }]);
      case '/shop/_apis/git/repositories/r-1': return { body: { id: 'r-1', name: 'r-1', project: { id: 'p-1', name: 'shop' } } };
      case '/shop/_apis/git/pullrequests':
      case '/shop/_apis/git/repositories/r-1/pullrequests': return list([]);
      case '/shop/_apis/git/repositories/r-1/refs': return list([{ name: 'refs/tags/v1', objectId: 'c0ffee', peeledObjectId: 'c0ffee', creator: { displayName: 'ada' } }]);
      case '/shop/_apis/git/repositories/r-1/items': return { body: '# pay' };
      case '/_apis/teams': return list([{ id: 't-1', name: 'tillers', projectId: 'p-1', projectName: 'shop' }]);
      case '/_apis/projects/p-1/teams/t-1/members': return list([{ identity: { id: 'u-1', displayName: 'ada', uniqueName: 'ada@example.com' } }]);
      case '/shop/_apis/build/definitions': return list([{ id: 3, name: 'pay' }]);
      case '/shop/_apis/build/builds/7/logs': return list([{ id: 1, lineCount: 2 }]);
      case '/shop/_apis/build/builds/7/logs/1': return list(['built', 'done']);
      case '/shop/_apis/build/builds': return list([{ id: 7, buildNumber: '7', status: 'completed', result: 'succeeded', queueTime: '2026-01-01T00:00:00Z', definition: { name: 'pay' }, project: { name: 'shop' }, repository: { id: 'r-1' } }]);
      default: return { status: 404, body: { message: 'not found' } };
    }
  });
  return server;
};
