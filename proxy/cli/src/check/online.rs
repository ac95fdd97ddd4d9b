//! Contacts the issuers and upstreams of a config, as the running proxy would.

use std::{future::Future, sync::Arc, time::Duration};

use config::{Config, IssuerKind, Name, Place, Problems};
use filters::{
    Label, State, assertion::Assertions, guard::Guard, health::Health, identity::KeySet,
};
use pingora::connectors::http::Connector;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use proxy::{
    identity::jwks::{Fault, Fetcher, Inspection},
    net::{dial::Dial, parent::Parents},
    observability::metrics::Metrics,
    upstream::{Lookup, Upstream, health},
};

/// The results.
#[derive(Default)]
pub(super) struct Online {
    /// What contradicts the config.
    pub(super) problems: Problems,
    /// What may be so only here, or only now.
    pub(super) warnings: Problems,
    /// One result for each system.
    pub(super) answers: Vec<Answer>,
}

/// A contacted system, and the result.
#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(skip)]
    place: Place,
    /// Whether nothing is wrong with it, so that no problem reports it.
    #[serde(skip)]
    pub(super) well: bool,
    kind: &'static str,
    name: String,
    /// Whether it responded at all; `None` if there was nothing to contact.
    reachable: Option<bool>,
    /// The finding, in words.
    found: String,
    /// What cannot be seen from here.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) not_checked: &'static [&'static str],
}

enum Finding {
    Problem(String),
    Warning(String),
}

type Contacted = (Answer, Vec<Finding>);

/// All systems are contacted concurrently, and one without a response by then counts as unreachable.
/// Discovery and keys have 3 s each.
const DEADLINE: Duration = Duration::from_secs(10);
/// The maximum of concurrent contacts.
const CONTACTS_MAX: usize = 32;
const CONNECT: Duration = Duration::from_secs(3);
/// More addresses of an upstream are not tried.
const ADDRESSES_MAX: usize = 3;

impl Online {
    /// Contacts every system of a config.
    pub(super) fn ask(config: &Arc<Config>) -> Self {
        certs::provider();
        filters::identity::install_crypto();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut this = Self::default();
        match (runtime, Parents::of(config)) {
            (Ok(runtime), Ok(parents)) => {
                let dial = Dial::asking(&config.process.name_servers).through(Arc::new(parents));
                runtime.block_on(this.ask_all(config, &dial));
            }
            (Err(error), _) => this.problems.add(&Place::default(), error.to_string()),
            (_, Err(error)) => this.problems.add(&Place::default(), error),
        }
        this
    }

    async fn ask_all(&mut self, config: &Arc<Config>, dial: &Dial) {
        let state = Arc::new(State::new(Assertions::with_new_key()));
        let metrics = Arc::new(Metrics::new(config));
        let fetcher = Arc::new(Fetcher::new(dial.clone(), state, metrics, None));
        let connector = Arc::new(Connector::new(None));
        let (turns, mut asked) = (Arc::new(Semaphore::new(CONTACTS_MAX)), JoinSet::new());
        for (index, (name, issuer)) in config.identity.issuers.iter().enumerate() {
            let (config, fetcher) = (Arc::clone(config), Arc::clone(&fetcher));
            let (name, place) = (name.clone(), issuer.place.clone());
            let silent = silent("issuer", &name, &place);
            let answer = async move { self::issuer(&config, &fetcher, name, place).await };
            asked.spawn(in_time(Arc::clone(&turns), (0, index), answer, silent));
        }
        for (index, (name, upstream)) in config.upstreams.iter().enumerate() {
            let (config, dial) = (Arc::clone(config), dial.clone());
            let (name, place) = (name.clone(), upstream.place.clone());
            let connector = Arc::clone(&connector);
            let silent = silent("upstream", &name, &place);
            let answer =
                async move { upstream_answer(&config, &dial, &connector, name, place).await };
            asked.spawn(in_time(Arc::clone(&turns), (1, index), answer, silent));
        }
        let mut all = asked.join_all().await;
        all.sort_by_key(|(order, _)| *order);
        for (_, (mut answer, findings)) in all {
            answer.well = findings.is_empty();
            for finding in findings {
                match finding {
                    Finding::Problem(message) => self.problems.add(&answer.place, message),
                    Finding::Warning(message) => self.warnings.add(&answer.place, message),
                }
            }
            self.answers.push(answer);
        }
    }
}

async fn in_time(
    turns: Arc<Semaphore>,
    order: (u8, usize),
    answer: impl Future<Output = Contacted>,
    silent: Contacted,
) -> ((u8, usize), Contacted) {
    let answer = async move {
        let _turn = turns.acquire().await;
        answer.await
    };
    (order, timeout(DEADLINE, answer).await.unwrap_or(silent))
}

fn silent(kind: &'static str, name: &Name, place: &Place) -> Contacted {
    let found = format!("no response within {} s", DEADLINE.as_secs());
    let warning = Finding::Warning(format!("{kind} `{name}`: {found}"));
    let answer = Answer {
        place: place.clone(),
        well: false,
        kind,
        name: name.to_string(),
        reachable: Some(false),
        found,
        not_checked: &[],
    };
    (answer, vec![warning])
}

async fn issuer(config: &Config, fetcher: &Fetcher, name: Name, place: Place) -> Contacted {
    let written = &config.identity.issuers[&name];
    let Inspection { keys, discovery } = fetcher.inspect(config, &name, written).await;
    let mut findings = Vec::new();
    let about = |what: String| format!("issuer `{name}`: {what}");
    // If keys are found without discovery, it need not exist.
    if let Some(Err(fault @ Fault::Contradicted(_))) = &discovery {
        findings.push(Finding::Problem(about(fault.to_string())));
    }
    let (reachable, found) = match &keys {
        None => (None, "its keys are in a file: nothing to fetch".to_owned()),
        Some(Ok(set)) => {
            findings.extend(unusable(set, written).map(|wrong| Finding::Problem(about(wrong))));
            (Some(true), counted(set, discovery.as_ref()))
        }
        Some(Err(fault)) => {
            let (reached, finding) = failed(fault, written);
            findings.push(match finding {
                Finding::Problem(message) => Finding::Problem(about(message)),
                Finding::Warning(message) => Finding::Warning(about(message)),
            });
            (Some(reached), fault.to_string())
        }
    };
    let not_checked: &[_] = if written.audiences.is_empty() { &[] } else { &["audiences"] };
    let name = name.to_string();
    let answer = Answer { place, well: true, kind: "issuer", name, reachable, found, not_checked };
    (answer, findings)
}

/// Whether a system was reached nevertheless, and what that means for the config.
fn failed(fault: &Fault, written: &config::Issuer) -> (bool, Finding) {
    const THEN: &str = "until its keys can be fetched, its tokens get 503 `keys_unavailable`";
    match fault {
        Fault::Contradicted(_) => (true, Finding::Problem(fault.to_string())),
        Fault::NotFound { .. } => {
            let hint =
                "it is reachable, but has no such issuer: check the path (a realm, a tenant)";
            (true, Finding::Problem(format!("{fault}; {hint}")))
        }
        // It creates its first key at the first sign-in.
        Fault::Keyless { .. } if written.kind == IssuerKind::Backstage => {
            let hint = "it makes its first key at the first sign-in";
            (true, Finding::Warning(format!("{fault}; {hint}")))
        }
        Fault::Keyless { .. } => (true, Finding::Problem(fault.to_string())),
        Fault::Other(cause) => (false, Finding::Warning(format!("{cause}; {THEN}"))),
    }
}

/// What to write where no key is for what the config allows.
fn unusable(set: &KeySet, written: &config::Issuer) -> Option<String> {
    let allowed = names(&written.algorithms);
    let has = names(&set.algorithms());
    (!set.serves(&written.algorithms)).then(|| {
        format!(
            "its keys are for {has}, but `algorithms` allows {allowed}; write `algorithms: [{has}]`"
        )
    })
}

fn counted(set: &KeySet, discovery: Option<&Result<(), Fault>>) -> String {
    let keys = if set.len() == 1 { "1 key".to_owned() } else { format!("{} keys", set.len()) };
    let compared = match discovery {
        None | Some(Ok(())) => "",
        Some(Err(Fault::Contradicted(_))) => "; discovery contradicts its `issuer`",
        Some(Err(_)) => "; its `issuer` cannot be compared, because discovery does not respond",
    };
    format!("reachable, {keys} ({}){compared}", names(&set.algorithms()))
}

fn names(algorithms: &[config::Algorithm]) -> String {
    let names: Vec<String> = algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
    names.join(", ")
}

async fn upstream_answer(
    config: &Config,
    dial: &Dial,
    connector: &Arc<Connector>,
    name: Name,
    place: Place,
) -> Contacted {
    let written = &config.upstreams[&name];
    let answered = async {
        let upstream = Upstream::new(Label::from(&name), written, dial);
        let upstream = Arc::new(upstream.map_err(|error| error.to_string())?);
        let (guard, health) = (Guard::new(&config.egress), Health::default());
        let resolved = upstream.resolve(&Lookup { dial, guard: &guard, health: &health }).await;
        resolved.map_err(|unreachable| unreachable.to_string())?;
        let mut looks = JoinSet::new();
        for at in upstream.pool.facts().iter().map(|facts| facts.at).take(ADDRESSES_MAX) {
            let (upstream, connector) = (Arc::clone(&upstream), Arc::clone(connector));
            looks.spawn(
                async move { (at, health::connects(&connector, &upstream, at, CONNECT).await) },
            );
        }
        let mut refused = "it has no address".to_owned();
        while let Some(looked) = looks.join_next().await {
            match looked {
                Ok((at, Ok(()))) => return Ok(at),
                Ok((at, Err(cause))) => refused = format!("{at}: {cause}"),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused)
    };
    let (reachable, found, findings) = match answered.await {
        Ok(at) => (true, format!("accepts connections at {at}"), Vec::new()),
        Err(cause) => {
            let warning = format!("upstream `{name}` accepts no connections: {cause}");
            (false, cause, vec![Finding::Warning(warning)])
        }
    };
    let name = name.to_string();
    let reachable = Some(reachable);
    let answer =
        Answer { place, well: true, kind: "upstream", name, reachable, found, not_checked: &[] };
    (answer, findings)
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} `{}`: {}", self.place, self.kind, self.name, self.found)
    }
}
