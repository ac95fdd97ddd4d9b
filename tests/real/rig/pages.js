'use strict';
// What the pages of a portal ask for, as Chromium asks with a stock frontend and plugins' cards: method, path, body.
// `{host}` stands for nothing here: paths are Backstage's own.

const refs = { entityRefs: ['component:default/pay', 'group:default/payments-dev', 'user:default/ada'] };
const may = (...names) => ({
  items: names.map((name, n) => ({ id: String(n), permission: { type: 'basic', name, attributes: {} } })),
});
const facet = (name) => ['GET', `/api/catalog/entity-facets?facet=${encodeURIComponent(name)}&filter=kind=component`];
const query = (text) => ['GET', `/api/catalog/entities/by-query?${text}`];

/** Every page asks for these when the app begins. */
const app = [
  ['GET', '/'], ['GET', '/static/main.js'], ['GET', '/static/vendor.js'], ['GET', '/static/runtime.js'], ['GET', '/static/module-backstage.js'], ['GET', '/favicon.ico'], ['GET', '/manifest.json'],
  ['GET', '/api/auth/guest/refresh'],
  ['GET', '/api/user-settings/buckets/starredEntities/keys/entityRefs'], ['GET', '/api/user-settings/buckets/userSettings/keys/theme'],
  ['GET', '/api/notifications/status'], ['GET', '/api/catalog/entities/by-name/user/default/ada'],
  ['POST', '/api/permission/authorize', may('catalog.entity.create')], ['POST', '/api/permission/authorize', may('catalog.entity.read', 'catalog.location.create')],
];

exports.PAGES = {
  catalog: [
    ...app,
    facet('kind'), facet('spec.type'), facet('spec.lifecycle'), facet('metadata.tags'), facet('metadata.namespace'), facet('relations.ownedBy'),
    query('limit=0&filter=kind=component'), query('limit=0&filter=kind=component,relations.ownedBy=group:default/payments-dev'),
    query('limit=0&filter=kind=component,metadata.name=pay'), query('limit=20&orderField=metadata.name,asc&filter=kind=component'),
    ['POST', '/api/catalog/entities/by-refs', refs], ['POST', '/api/catalog/entities/by-refs', refs],
  ],
  entity: [
    ...app,
    ['GET', '/api/catalog/entities/by-name/component/default/pay'], ['GET', '/api/catalog/entities/by-name/component/default/pay'],
    ['GET', '/api/catalog/entities/by-name/component/default/pay/ancestry'],
    ['POST', '/api/catalog/entities/by-refs', refs], ['POST', '/api/catalog/entities/by-refs', refs], ['POST', '/api/catalog/entities/by-refs', refs],
    ['GET', '/api/catalog/entities?filter=relations.dependsOn=component:default/pay'], ['GET', '/api/catalog/entities?filter=relations.partOf=component:default/pay'],
    query('limit=50&filter=kind=component'), query('limit=50&filter=kind=api'),
    ['POST', '/api/permission/authorize', may('catalog.entity.refresh')], ['POST', '/api/permission/authorize', may('catalog.entity.delete')],
    ['GET', '/api/techdocs/metadata/entity/default/component/pay'], ['GET', '/api/search/query?term=pay'],
  ],
  settings: [
    ...app,
    ['GET', '/api/user-settings/buckets/userSettings/keys/language'], ['POST', '/api/user-settings/multiget', { items: [] }],
    ['GET', '/api/notifications/settings'], ['GET', '/api/auth/oidc/refresh'], ['GET', '/api/auth/guest/refresh'],
    ['GET', '/api/catalog/entities/by-name/user/default/ada'],
  ],
};
