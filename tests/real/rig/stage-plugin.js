'use strict';
// A Backstage plugin, `stage`, that shows what arrives at a plugin and what Backstage's own services make.

const { coreServices, createBackendPlugin } = require('@backstage/backend-plugin-api');
const { WebSocketServer } = require('ws');

const answer = (response, value) => response.setHeader('content-type', 'application/json').end(JSON.stringify(value));

module.exports = createBackendPlugin({
  pluginId: 'stage',
  register(env) {
    env.registerInit({
      deps: { auth: coreServices.auth, httpAuth: coreServices.httpAuth, router: coreServices.httpRouter },
      async init({ auth, httpAuth, router }) {
        router.addAuthPolicy({ path: '/asset', allow: 'user-cookie' });
        // From 1.57 on: tells whoever opens it whom Backstage takes them for.
        const sockets = new WebSocketServer({ noServer: true, handleProtocols: (protocols) => [...protocols][0] });
        router.addWebSocketHandler?.({
          path: '/socket',
          handler: ({ request, socket, head, credentials }) => sockets.handleUpgrade(request, socket, head, (open) => open.send(JSON.stringify(credentials.principal))),
        });
        router.use(async (request, response, next) => {
          try {
            const { pathname, searchParams } = new URL(request.url, 'http://stage');
            const caller = () => httpAuth.credentials(request, { allow: ['user', 'service'], allowLimitedAccess: true });
            switch (pathname) {
              // What came, as it came.
              case '/echo': return answer(response, { method: request.method, url: request.originalUrl, headers: request.rawHeaders });
              // Whom Backstage takes the caller for.
              case '/whoami': case '/asset': return answer(response, (await caller()).principal);
              // A token as one plugin shows to another, on behalf of the caller; or in its own name.
              case '/token': return answer(response, await auth.getPluginRequestToken({
                onBehalfOf: searchParams.has('own') ? await auth.getOwnServiceCredentials() : await caller(),
                targetPluginId: searchParams.get('target') ?? 'catalog',
              }));
              // A cookie with a limited token, for a browser that fetches assets.
              case '/cookie': return answer(response, await httpAuth.issueUserCookie(response, { credentials: await caller() }));
              default: return next();
            }
          } catch (error) { return next(error); }
        });
      },
    });
  },
});
