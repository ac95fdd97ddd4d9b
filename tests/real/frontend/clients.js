// The classes by which published frontends call their backends: from the files that hold them alone, so that no page comes along.
export { ArgoCDApiClient as RoadieArgoCD } from './node_modules/@roadiehq/backstage-plugin-argo-cd/dist/api/index.esm.js';
export { ArgoCDApiClient as CommunityArgoCD } from './node_modules/@backstage-community/plugin-argocd/dist/api/ArgoCDApiClient.esm.js';
export { AzureDevOpsClient } from './node_modules/@backstage-community/plugin-azure-devops/dist/api/AzureDevOpsClient.esm.js';
export { GrafanaApiClient } from './node_modules/@backstage-community/plugin-grafana/dist/api.esm.js';
export { JenkinsClient } from './node_modules/@backstage-community/plugin-jenkins/dist/api/JenkinsApi.esm.js';
export { KubernetesBackendClient } from './node_modules/@backstage/plugin-kubernetes-react/dist/api/KubernetesBackendClient.esm.js';
export { KubernetesProxyClient } from './node_modules/@backstage/plugin-kubernetes-react/dist/api/KubernetesProxyClient.esm.js';
export { SonarQubeClient } from './node_modules/@backstage-community/plugin-sonarqube/dist/api/SonarQubeClient.esm.js';
export { VaultClient } from './node_modules/@backstage-community/plugin-vault/dist/api.esm.js';
export { CatalogClient } from './node_modules/@backstage/catalog-client/dist/CatalogClient.esm.js';
export { CatalogImportClient } from './node_modules/@backstage/plugin-catalog-import/dist/api/CatalogImportClient.esm.js';
export { NotificationsClient } from './node_modules/@backstage/plugin-notifications/dist/api/NotificationsClient.esm.js';
export { PermissionClient } from './node_modules/@backstage/plugin-permission-common/dist/PermissionClient.esm.js';
export { ScaffolderClient } from './node_modules/@backstage/plugin-scaffolder-common/dist/ScaffolderClient.esm.js';
export { SearchClient } from './node_modules/@backstage/plugin-search/dist/apis.esm.js';
export { SignalClient } from './node_modules/@backstage/plugin-signals/dist/api/SignalClient.esm.js';
export { TechDocsClient, TechDocsStorageClient } from './node_modules/@backstage/plugin-techdocs/dist/client.esm.js';
export { UserSettingsStorage } from './node_modules/@backstage/plugin-user-settings/dist/apis/StorageApi/UserSettingsStorage.esm.js';
