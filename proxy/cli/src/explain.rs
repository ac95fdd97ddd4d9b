//! `stagedoor explain`: what would happen to a request, by the same function that decides; and what happened
//! to a recorded one.

mod recorded;
mod running;

use std::{io::Read, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use filters::{
    Denial, Exchange, Label, Policy, State,
    addresses::AddressClass,
    assertion::Assertions,
    explain,
    forward::{self, Call},
    identity::Caller,
    reverse::{Next, Supposed, decide_supposing, dispatch},
    target::{Host, Target},
};

use proxy::{
    clock,
    identity::jwks::Fetcher,
    lifecycle::reload,
    net::{dial::Dial, parent::Parents},
    observability::metrics::Metrics,
};

/// Show what would happen to a request, step by step. Exit code 1 if it would be denied.
///
/// With `--audit-id`: show what happened to a recorded request; with a config, also what that config would
/// decide about it now, and which changes to the config would turn that decision. Each change was tried.
#[derive(Args)]
pub(super) struct Explain {
    /// The config file.
    #[arg(
        short,
        long,
        env = "STAGEDOOR_CONFIG",
        required_unless_present_any = ["preset", "audit_id"]
    )]
    config: Option<PathBuf>,
    /// Suppose that its control source responded with this file. Default: only the config files count.
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// Print the routes of a preset instead.
    #[arg(long)]
    preset: Option<String>,
    /// Instead of a request: the id of a recorded one.
    #[arg(long, value_name = "ID", requires = "audit", conflicts_with_all = ["preset", "path", "method", "header", "body", "suppose", "call"])]
    audit_id: Option<String>,
    /// Where it was recorded: files of audit records, or folders of segments.
    #[arg(long, value_name = "FOLDER", num_args = 1.., requires = "audit_id")]
    audit: Vec<PathBuf>,
    /// The listener that receives it. Default: the first reverse listener.
    #[arg(long)]
    listener: Option<String>,
    /// The method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// Path and query. Without it, a whole request head is read from standard input.
    #[arg(short, long)]
    path: Option<String>,
    /// A header, as `name: value`. May be repeated. A `token_from` header counts if `--client` is one of the
    /// listener's `trusted_proxies`.
    #[arg(short = 'H', long)]
    header: Vec<String>,
    /// The body, for routes that inspect it; JSON, unless a header says otherwise.
    #[arg(short, long)]
    body: Option<String>,
    /// Suppose this caller, instead of verifying a token: `subject`.
    #[arg(long = "as")]
    suppose: Option<String>,
    /// The groups of the supposed caller.
    #[arg(long, requires = "suppose")]
    group: Vec<String>,
    /// The roles of the supposed caller.
    #[arg(long, requires = "suppose")]
    role: Vec<String>,
    /// The workspaces that the supposed caller's token names.
    #[arg(long, requires = "suppose")]
    workspace: Vec<String>,
    /// Instead of a request: an outbound call to `host:port`, on a forward listener.
    #[arg(long, conflicts_with_all = ["path", "method", "header", "body"])]
    call: Option<String>,
    /// The plugin that the supposed caller of an outbound call is.
    #[arg(long, requires = "call", requires = "suppose")]
    plugin: Option<String>,
    /// The client's address.
    #[arg(long, default_value = "127.0.0.1")]
    client: std::net::IpAddr,
    /// Also query the running process, by its admin listener (for example `http://127.0.0.1:9901`), for the
    /// state of this request's breaker and limits right now. This takes nothing from a limit.
    #[arg(long, value_name = "URL", conflicts_with_all = ["preset", "audit_id", "call"])]
    admin: Option<String>,
}

impl Explain {
    pub(super) fn run(self) -> ExitCode {
        match self.explained() {
            Ok(code) => code,
            Err(message) => {
                crate::say::err(format_args!("{message}"));
                ExitCode::from(2)
            }
        }
    }

    fn explained(self) -> Result<ExitCode, String> {
        if let Some(name) = &self.preset {
            let text = config::SHIPPED.iter().find(|(shipped, _)| shipped == name);
            let (_, text) = text.ok_or_else(|| format!("no preset `{name}`"))?;
            crate::say::text(text);
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(id) = &self.audit_id {
            crate::say::text(&recorded::explained(id, &self.audit, self.config.as_deref())?);
            return Ok(ExitCode::SUCCESS);
        }
        let path = self.config.as_ref().expect("clap asks for it");
        let loaded = reload::load_with(path, self.control.as_deref())
            .map_err(|problems| problems.to_string())?;
        let policy = Policy::new(&loaded.config, &reload::digest(&loaded));
        let (wanted, kind) = match self.call {
            Some(_) => (config::ListenerKind::Forward, "forward"),
            None => (config::ListenerKind::Reverse, "reverse"),
        };
        let mut kinds = loaded.config.listeners.values().map(|listener| listener.kind);
        let listener = match &self.listener {
            Some(name) => policy.listener(name).ok_or_else(|| format!("no listener `{name}`"))?,
            None => {
                let first = kinds.position(|kind| kind == wanted);
                first.ok_or_else(|| format!("there is no {kind} listener"))?
            }
        };
        if loaded.config.listeners[listener].kind != wanted {
            return Err(format!("that listener is not of kind `{kind}`"));
        }
        certs::provider();
        filters::identity::install_crypto();
        let state = Arc::new(State::new(Assertions::with_new_key()));
        if let Some(target) = &self.call {
            return self.call_explained(&loaded, &policy, &state, listener, target);
        }
        // A presented token is looked up as the running proxy would.
        let opaque = proxy::identity::opaque_tokens::all(&loaded.config)
            .map_err(|errors| errors.join("\n"))?;
        state.tokens.opaque.replace(opaque.iter().map(|(name, digests)| (name, &**digests)));
        let request = self.request()?;
        let tls = loaded.config.listeners[listener].tls.is_some();
        let head = request.head(listener, self.client, tls);

        let now = clock::now();
        let supposed = Supposed { caller: self.supposed(), operation: None };
        let decide =
            |exchange: &mut _| decide_supposing(&supposed, &policy, &state, &head, now, exchange);
        let mut exchange = Exchange::default();
        let mut decided = decide(&mut exchange);
        if exchange.lack.is_some() {
            // As the running proxy would: fetch what is missing, and decide again.
            let metrics = Arc::new(Metrics::new(&loaded.config));
            let dial = Dial::asking(&loaded.config.process.name_servers);
            dial.use_parents(&Arc::new(Parents::of(&loaded.config)?));
            let fetcher = Fetcher::new(dial, Arc::clone(&state), metrics, None);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            while let Some(lack) = exchange.lack.take() {
                if !runtime.block_on(fetcher.fetch(&loaded.config, &lack)) {
                    break;
                }
                exchange = Exchange::default();
                decided = decide(&mut exchange);
            }
        }
        let dispatched = decided.and_then(|admitted| match admitted.next {
            Next::Dispatched(dispatched) => Ok(Some(dispatched)),
            // There are no other requests to coalesce with.
            Next::Coalesce(_) => dispatch(&state, &admitted.request, now, &mut exchange).map(Some),
            Next::Answer(_) => Ok(None),
        });
        let asks_breaker = matches!(&dispatched, Ok(Some(sent)) if sent.has_permit());
        let denial = dispatched.err();
        crate::say::text(&explain::steps(&exchange, denial.as_ref(), asks_breaker));
        let mut refused = denial.is_some();
        if let Some(admin) = &self.admin {
            // The limits of a request are known once it has reached them.
            let counts = exchange.quota.is_some() || matches!(denial, Some(Denial::RateLimited(_)));
            let about = counts.then(|| self.about(&exchange)).flatten();
            let now = running::asked(admin, &loaded.config, &policy.digest, about.as_deref())?;
            crate::say::text(&now.text);
            refused |= now.refuses;
        }
        Ok(ExitCode::from(u8::from(refused)))
    }

    /// The facts of a request that its breaker and limits depend on, for `/quota-status`.
    fn about(&self, exchange: &Exchange) -> Option<Vec<(&'static str, String)>> {
        let route = exchange.route.as_ref()?;
        let mut about = vec![("route", route.name.to_string())];
        let part = exchange.path.as_ref().and_then(|path| route.breaker_part(path));
        about.extend(part.map(|part| ("part", part.to_owned())));
        about.extend(exchange.client.map(|client| ("client", client.to_string())));
        if let Some(caller) = &exchange.caller {
            about.push(("caller", caller.subject.to_string()));
            if self.suppose.is_none() {
                about.push(("issuer", caller.issuer.to_string()));
            }
        }
        about.extend(exchange.workspace.as_ref().map(|w| ("workspace", w.name.to_string())));
        Some(about)
    }

    fn supposed(&self) -> Option<Arc<Caller>> {
        let subject = self.suppose.as_ref()?;
        let labels = |texts: &[String]| texts.iter().map(|text| Label::lossy(text)).collect();
        let mut caller = Caller::supposed(Label::lossy(subject));
        caller.groups = labels(&self.group);
        caller.roles = labels(&self.role);
        caller.workspaces = labels(&self.workspace);
        caller.plugin = self.plugin.as_deref().map(Label::lossy);
        Some(caller.into())
    }

    /// A call, by name and then by the addresses that its host has right now.
    fn call_explained(
        &self,
        loaded: &config::Loaded,
        policy: &Policy,
        state: &State,
        listener: usize,
        target: &str,
    ) -> Result<ExitCode, String> {
        let (supposed, mut exchange) = (self.supposed(), Exchange::default());
        let mut found = Vec::new();
        let dial = Dial::asking(&loaded.config.process.name_servers);
        let parents = Parents::of(&loaded.config)?;
        let mut through = None;
        let decided = Target::of_connect(target.as_bytes())
            .map_err(Denial::TargetInvalid)
            .and_then(|target| {
                let call = Call {
                    listener,
                    peer: self.client,
                    certificate: None,
                    authorization: &[],
                    target: &target,
                };
                let caller = supposed.as_ref();
                let named = forward::decide_supposing(
                    caller,
                    policy,
                    state,
                    &call,
                    clock::now(),
                    &mut exchange,
                )?;
                let secure = policy.egress.tls_ports.contains(&target.port) || target.port != 80;
                through = parents.on_the_way_to(&target.host.to_string(), target.port, secure);
                if let Some(parent) = through {
                    let own = dial.own_addresses();
                    let now = clock::now();
                    return named.pass_on(policy, &parent.name, &own, now, &mut exchange).map(drop);
                }
                found = match &target.host {
                    Host::Address(ip) => vec![*ip],
                    Host::Name(name) => {
                        let unresolved = || Denial::HostUnresolved { target: Label::lossy(name) };
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build();
                        let runtime = runtime.map_err(|_| unresolved())?;
                        runtime.block_on(dial.lookup(name)).map_err(|_| unresolved())?
                    }
                };
                let own = dial.own_addresses();
                named.choose(policy, &found, &own, clock::now(), &mut exchange).map(drop)
            });
        if let Some(parent) = through {
            crate::say::out(format_args!(
                "{:<12} {}, which resolves the name: its addresses are not checked here",
                "parent", parent.url
            ));
        }
        for ip in &found {
            crate::say::out(format_args!(
                "{:<12} {ip}, {}",
                "address",
                AddressClass::of(*ip).name()
            ));
        }
        let denial = decided.err();
        if let (Some(Denial::HostUnresolved { .. }), Some(call)) = (&denial, &exchange.call) {
            let rule = call.rule.as_ref().map_or("?", |rule| &*rule.name);
            crate::say::out(format_args!(
                "{:<12} allowed, by rule `{rule}`; no address was found here, so none was checked",
                "by name"
            ));
        }
        crate::say::text(&explain::steps(&exchange, denial.as_ref(), false));
        Ok(ExitCode::from(u8::from(denial.is_some())))
    }

    fn request(&self) -> Result<explain::Request, String> {
        let mut request = match &self.path {
            Some(path) => explain::Request::read(&format!("{} {path} HTTP/1.1", self.method))?,
            None => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
                explain::Request::read(&text)?
            }
        };
        for header in &self.header {
            request.header(header)?;
        }
        if let Some(body) = &self.body {
            request.body = Some(body.clone());
            if !request.headers.contains_key("content-type") {
                request.header("content-type: application/json")?;
            }
        }
        if !request.headers.contains_key("host") {
            request.header("host: localhost")?;
        }
        Ok(request)
    }
}
