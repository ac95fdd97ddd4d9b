//! `stagedoor demo`: everything together on this machine, with tokens and commands to try.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use async_trait::async_trait;
use clap::{Args, value_parser};
use http::{Method, Response, StatusCode};
use pingora::{
    apps::http_app::ServeHttp,
    protocols::http::ServerSession,
    server::ShutdownWatch,
    services::{
        background::{BackgroundService, background_service},
        listening::Service,
    },
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::issuer::Signer;
use proxy::{clock, serve};

/// Run the proxy with a development issuer and stand-ins for DXCP and Backstage.
#[derive(Args)]
pub(super) struct Demo {
    /// The first of five ports to use.
    #[arg(long, default_value_t = 18_440, value_parser = value_parser!(u16).range(1..=FIRST_MAX))]
    port: u16,
    /// Where config, certificates and audit records go. Default: a new folder.
    #[arg(long)]
    folder: Option<PathBuf>,
}

const CONFIG: &str = include_str!("demo.yaml");
/// The edge, its admin listener, the issuer, DXCP and the portal.
const PORTS: u16 = 5;
const FIRST_MAX: i64 = (u16::MAX - PORTS + 1) as i64;

impl Demo {
    pub(super) fn run(self) -> ExitCode {
        super::log_to_stderr();
        match self.show() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                crate::say::err(format_args!("{error:#}"));
                ExitCode::from(1)
            }
        }
    }

    fn show(self) -> Result<()> {
        // Pingora would retry a port in use for half a minute and then continue without it.
        for address in self.addresses() {
            std::net::TcpListener::bind(address).with_context(|| {
                format!("cannot listen on {address}; choose other ports with `--port`")
            })?;
        }
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => std::env::temp_dir().join(format!("stagedoor-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(folder.join("audit"))
            .with_context(|| format!("cannot make `{}`", folder.display()))?;
        let authority = certs::dev::Authority::new("stagedoor demo")?;
        std::fs::write(folder.join("ca.crt"), authority.pem())?;
        let names = ["portal.localhost", "dxcp.localhost", "localhost", "127.0.0.1"];
        authority.server(&names)?.write(&folder.join("tls.crt"), &folder.join("tls.key"))?;
        let (private, public) = certs::dev::signing_key()?;
        std::fs::write(folder.join("audit.key"), private)?;
        std::fs::write(folder.join("audit.pub"), public)?;
        let port = |n: u16| (self.port + n).to_string();
        let text = CONFIG
            .replace("{folder}", &folder.display().to_string())
            .replace("{edge}", &port(0))
            .replace("{admin}", &port(1))
            .replace("{issuer}", &port(2))
            .replace("{dxcp}", &port(3))
            .replace("{portal}", &port(4));
        let path = folder.join("stagedoor.yaml");
        std::fs::write(&path, text)?;

        let issuer = Issuer::new(format!("http://127.0.0.1:{}", port(2)));
        let hint = Hint { text: commands(&self, &folder, &issuer), listening: self.addresses() };
        let process = serve::prepare(&path, false)?;
        let mut server = serve::server(&process, false)?;
        let mut add = |name: &str, n: u16, app: App| {
            let mut service = Service::new(name.to_owned(), app);
            service.threads = Some(1);
            service.add_tcp(&format!("127.0.0.1:{}", port(n)));
            server.add_service(service);
        };
        add("issuer", 2, App::Issuer(Box::new(issuer)));
        add("dxcp", 3, App::Dxcp);
        add("portal", 4, App::Portal);
        server.add_service(background_service("hint", hint));
        serve::run_until_drained(server, &process);
        Ok(())
    }

    fn addresses(&self) -> [SocketAddr; PORTS as usize] {
        std::array::from_fn(|n| SocketAddr::from(([127, 0, 0, 1], self.port + n as u16)))
    }
}

/// Prints commands to try, once they work.
struct Hint {
    text: String,
    listening: [SocketAddr; PORTS as usize],
}

#[async_trait]
impl BackgroundService for Hint {
    async fn start(&self, _: ShutdownWatch) {
        for address in self.listening {
            #[expect(clippy::disallowed_methods, reason = "it is our own address")]
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        crate::say::out(format_args!("{}", self.text));
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);

fn commands(demo: &Demo, folder: &Path, issuer: &Issuer) -> String {
    let ada = issuer.token("user:default/ada", &["payments"], &["deployer"]);
    let bo = issuer.token("user:default/bo", &["web"], &[]);
    let folder = folder.display();
    let (edge, admin) = (demo.port, demo.port + 1);
    let ca = format!("{folder}/ca.crt");
    let mut text = format!(
        "\nA token for ada, who deploys for workspace payments:\n\nADA={ada}\n\n\
         A token for bo, of workspace web:\n\nBO={bo}\n\n"
    );
    let mut show = |title: &str, expected: &str, arguments: &str| {
        text += &format!(
            "# {title}\n# -> {expected}\ncurl -s -w ' [%{{http_code}}]\\n' --cacert {ca} {arguments}\n\n"
        );
    };
    let dxcp = format!("https://dxcp.localhost:{edge}/v1");
    let portal = format!("https://portal.localhost:{edge}/api");
    let deploy = r#"-X POST -H 'Content-Type: application/json' -d '{"service":"pay","environment":"prod","version":"1.2.3","changeSummary":"demo"}'"#;
    show(
        "An allowed read. The engine's address is not in the response",
        "200",
        &format!(
            r#"-H "Authorization: Bearer $ADA" "{dxcp}/services/pay/delivery-status?environment=prod""#
        ),
    );
    show(
        "A deploy: DXCP alone decides",
        "201",
        &format!(
            r#"-H "Authorization: Bearer $ADA" -H "Idempotency-Key: demo-$RANDOM" {deploy} {dxcp}/deployments"#
        ),
    );
    show("No token", "401 caller_missing", &format!("{dxcp}/services"));
    show(
        "A spoofed identity: the upstream sees who is really calling",
        "200",
        &format!(
            r#"-H "Authorization: Bearer $ADA" -H "X-Orbit-User-Id: admin" -H "x_orbit_user_id: admin" {portal}/argocd/find/name/echo"#
        ),
    );
    show(
        "Somebody else's workspace",
        "403 workspace_not_granted",
        &format!(
            r#"-H "Authorization: Bearer $BO" -H "X-Orbit-Workspace-Id: payments" {dxcp}/services"#
        ),
    );
    show(
        "An action without the role",
        "403 access_denied",
        &format!(
            r#"-H "Authorization: Bearer $BO" -X POST {portal}/spacelift-io/stacks/pay-prod/trigger"#
        ),
    );
    show(
        "An admin path, disguised",
        "403 route_closed",
        &format!(r#"-H "Authorization: Bearer $ADA" {dxcp}/%61dmin/system/rate-limits"#),
    );
    show(
        "A rate limit: the last of five in a row",
        "429 rate_limited",
        &format!(r#"-H "Authorization: Bearer $BO" "{portal}/argocd/find/name/x?n=[1-5]""#),
    );
    show(
        "A circuit breaker: after five failures it opens",
        "503 breaker_open",
        &format!(r#"-H "Authorization: Bearer $ADA" "{portal}/spacelift-io/stacks?fail=[1-6]""#),
    );
    text += &format!(
        "# What was decided, and why\ncat {folder}/audit/*.jsonl\n\n\
         # The proxy's own state\ncurl -s http://127.0.0.1:{admin}/state\n\n\
         # Why would this be denied?\nstagedoor explain -c {folder}/stagedoor.yaml -X POST -p /v1/deployments -H 'host: dxcp.localhost' --as user:default/bo --workspace web\n\n\
         The config is {folder}/stagedoor.yaml. Changes to it take effect within seconds. Ctrl-C stops the demo."
    );
    text
}

enum App {
    Issuer(Box<Issuer>),
    Dxcp,
    Portal,
}

/// An OpenID provider for development.
struct Issuer {
    url: String,
    signer: Signer,
}

impl Issuer {
    fn new(url: String) -> Self {
        Self { url, signer: Signer::new("demo") }
    }

    fn token(&self, subject: &str, workspaces: &[&str], roles: &[&str]) -> String {
        let now = clock::now().unix_seconds();
        let claims = json!({
            "iss": self.url, "aud": "stagedoor-demo", "sub": subject, "iat": now, "exp": now + 3600,
            "workspaces": workspaces, "roles": roles,
        });
        self.signer.token("at+jwt", &claims)
    }

    fn answer(&self, path: &str) -> (StatusCode, Value) {
        match path {
            "/.well-known/openid-configuration" => {
                let jwks = format!("{}/jwks", self.url);
                (StatusCode::OK, json!({"issuer": self.url, "jwks_uri": jwks}))
            }
            "/jwks" => (StatusCode::OK, json!({"keys": [self.signer.public()]})),
            _ => (StatusCode::NOT_FOUND, json!({"error": "not_found"})),
        }
    }
}

/// A little of DXCP: enough to see what passes and what is cut out.
fn dxcp(method: &Method, path: &str) -> (StatusCode, Value) {
    match (method, path) {
        (_, "/v1/health") => (StatusCode::OK, json!({"status": "ok"})),
        (&Method::POST, "/v1/deployments") => (
            StatusCode::CREATED,
            json!({"id": "dep-1", "service": "pay", "state": "PENDING", "engineExecutionId": "01ENGINE"}),
        ),
        (_, "/v1/services") => (StatusCode::OK, json!([{"service_name": "pay"}])),
        _ => (
            StatusCode::OK,
            json!({
                "service": "pay", "environment": "prod", "hasDeployments": true,
                "latest": {"id": "dep-1", "state": "SUCCEEDED", "engineExecutionUrl": "http://engine"},
            }),
        ),
    }
}

#[async_trait]
impl ServeHttp for App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        while let Ok(Some(_)) = session.read_request_body().await {}
        let head = session.req_header();
        let path = head.uri.path();
        let (status, body) = match self {
            Self::Issuer(issuer) => issuer.answer(path),
            Self::Dxcp => dxcp(&head.method, path),
            Self::Portal => {
                let fails = head.uri.query().is_some_and(|query| query.contains("fail"));
                let seen = |name: &str| {
                    head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
                };
                if fails {
                    (StatusCode::INTERNAL_SERVER_ERROR, json!({"error": "the backend is sick"}))
                } else {
                    (
                        StatusCode::OK,
                        json!({
                            "path": path,
                            "x-orbit-user-id": seen("x-orbit-user-id"),
                            "x-orbit-workspace-id": seen("x-orbit-workspace-id"),
                            "x-orbit-plugin-id": seen("x-orbit-plugin-id"),
                            "x_orbit_user_id": seen("x_orbit_user_id"),
                        }),
                    )
                }
            }
        };
        let body = body.to_string().into_bytes();
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .body(body)
            .expect("the headers are valid")
    }
}
