// A portal's frontend: what `create-app` of this release makes, and on an entity's page the published plugins.
import React from 'react';
import ReactDOM from 'react-dom/client';
import { createApp } from '@backstage/frontend-defaults';
import { ApiBlueprint, createApiRef, createFrontendModule, createFrontendPlugin } from '@backstage/frontend-plugin-api';
import { SignInPageBlueprint } from '@backstage/plugin-app-react';
import { SignInPage } from '@backstage/core-components';
import { OAuth2 } from '@backstage/core-app-api';
import { configApiRef, discoveryApiRef, fetchApiRef, oauthRequestApiRef, useApi } from '@backstage/core-plugin-api';
import { convertLegacyPlugin } from '@backstage/core-compat-api';
import { EntityCardBlueprint, convertLegacyEntityCardExtension, convertLegacyEntityContentExtension } from '@backstage/plugin-catalog-react/alpha';
import userSettingsModule from '@backstage/plugin-app-module-user-settings';
import authPlugin from '@backstage/plugin-auth';
import catalogPlugin from '@backstage/plugin-catalog/alpha';
import catalogGraphPlugin from '@backstage/plugin-catalog-graph/alpha';
import kubernetesPlugin from '@backstage/plugin-kubernetes/alpha';
import notificationsPlugin from '@backstage/plugin-notifications/alpha';
import orgPlugin from '@backstage/plugin-org/alpha';
import searchPlugin from '@backstage/plugin-search/alpha';
import signalsPlugin from '@backstage/plugin-signals/alpha';
import userSettingsPlugin from '@backstage/plugin-user-settings/alpha';
import { EntityArgoCDHistoryCard, EntityArgoCDOverviewCard, argocdPlugin } from '@roadiehq/backstage-plugin-argo-cd';
import { EntityJenkinsContent, EntityLatestJenkinsRunCard, jenkinsPlugin } from '@backstage-community/plugin-jenkins';
import { EntitySonarQubeCard, sonarQubePlugin } from '@backstage-community/plugin-sonarqube';
import { EntityAzurePipelinesContent, EntityAzurePullRequestsContent, azureDevOpsPlugin } from '@backstage-community/plugin-azure-devops';
import '@backstage/ui/css/styles.css';

const oidcApiRef = createApiRef({ id: 'auth.oidc' });
const signIn = createFrontendModule({
  pluginId: 'app',
  extensions: [
    ApiBlueprint.make({
      name: 'oidc',
      params: (define) => define({
        api: oidcApiRef,
        deps: { discoveryApi: discoveryApiRef, oauthRequestApi: oauthRequestApiRef, configApi: configApiRef },
        factory: (deps) => OAuth2.create({ ...deps, provider: { id: 'oidc', title: 'OIDC', icon: () => null }, environment: 'development', defaultScopes: ['openid', 'profile', 'email'] }),
      }),
    }),
    SignInPageBlueprint.make({
      params: {
        loader: async () => (props) => (
          <SignInPage {...props} providers={['guest', { id: 'oidc', title: 'OIDC', message: 'Sign in at the provider', apiRef: oidcApiRef }]} />
        ),
      },
    }),
  ],
});

// Spacelift's frontend is not published: what its page asks for, as it asks.
const Stacks = () => {
  const { fetch } = useApi(fetchApiRef);
  const discovery = useApi(discoveryApiRef);
  const [text, setText] = React.useState('');
  React.useEffect(() => {
    discovery.getBaseUrl('spacelift-io').then((url) => fetch(`${url}/stacks`)).then(async (answer) => {
      setText(answer.ok ? (await answer.json()).map(({ name }) => name).join(', ') : `${answer.status}`);
    });
  }, [discovery, fetch]);
  return <div data-testid="spacelift">{`Stacks: ${text}`}</div>;
};
const spacelift = createFrontendPlugin({
  pluginId: 'spacelift-io',
  extensions: [EntityCardBlueprint.make({ name: 'stacks', params: { filter: 'kind:component', loader: async () => <Stacks /> } })],
});

const onComponents = { filter: 'kind:component' };
const app = createApp({
  features: [
    signIn, authPlugin, catalogPlugin, catalogGraphPlugin, kubernetesPlugin, notificationsPlugin, orgPlugin, searchPlugin, signalsPlugin,
    userSettingsModule, userSettingsPlugin, spacelift,
    convertLegacyPlugin(argocdPlugin, {
      extensions: [convertLegacyEntityCardExtension(EntityArgoCDOverviewCard, onComponents), convertLegacyEntityCardExtension(EntityArgoCDHistoryCard, onComponents)],
    }),
    convertLegacyPlugin(jenkinsPlugin, {
      extensions: [convertLegacyEntityCardExtension(EntityLatestJenkinsRunCard, { ...onComponents, name: 'latest' }), convertLegacyEntityContentExtension(EntityJenkinsContent, { ...onComponents, path: '/ci-cd', title: 'CI/CD' })],
    }),
    convertLegacyPlugin(sonarQubePlugin, { extensions: [convertLegacyEntityCardExtension(EntitySonarQubeCard, onComponents)] }),
    convertLegacyPlugin(azureDevOpsPlugin, {
      extensions: [
        convertLegacyEntityContentExtension(EntityAzurePipelinesContent, { ...onComponents, path: '/pipelines', title: 'Pipelines' }),
        convertLegacyEntityContentExtension(EntityAzurePullRequestsContent, { ...onComponents, path: '/pull-requests', title: 'Pull requests' }),
      ],
    }),
  ],
});

ReactDOM.createRoot(document.getElementById('root')).render(app.createRoot());
