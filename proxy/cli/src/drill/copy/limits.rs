//! The limits of a copy, and where it counts them.

use std::{net::SocketAddr, sync::Arc};

use config::{Config, HostPort, Limit, Located, StoreKind};

/// More than a drill ever uses, even if something is charged slightly late.
const NO_LIMIT: (&str, u32) = ("1000/s", 1_000_000);

/// A store for a copy, and the limit that it counts for each of what the operator limits.
pub(in crate::drill) struct Shared {
    pub(in crate::drill) address: SocketAddr,
    pub(in crate::drill) limit: Limit,
}

/// What counts in a copy.
pub(in crate::drill) enum Counting<S> {
    /// Nothing: limits are lifted.
    Nothing,
    /// What is shared, with this limit.
    Shared(S),
    /// All, as the operator wrote it.
    AsWritten,
}

/// A drill is about what breaks; a limit that is reached would hide it. So limits are lifted, but
/// where they are what breaks: then those that are shared allow the load, and are counted. And where they
/// are what is tried: then they are as written.
pub(super) fn replace(config: &mut Config, counting: &Counting<Shared>, notes: &mut Vec<String>) {
    let shared = match counting {
        Counting::Nothing => None,
        Counting::Shared(shared) => Some(shared),
        Counting::AsWritten => return store(config, None, notes),
    };
    let rate = NO_LIMIT.0.parse().expect("it is a rate");
    let none = Limit { rate, burst: std::num::NonZeroU32::new(NO_LIMIT.1) };
    let own = shared.map(|shared| shared.limit);
    let all = own.unwrap_or(none);
    config.rate_limit.per_workspace = all;
    config.egress.per_workspace = all;
    let each = |limit: &mut Option<Limit>| *limit = limit.and(own);
    each(&mut config.rate_limit.per_caller);
    Arc::make_mut(&mut config.workspaces.named)
        .values_mut()
        .for_each(|workspace| each(&mut workspace.value.rate_limit));
    // Those that are not written are no narrower than what is lifted here.
    config.rate_limit.buckets.values_mut().for_each(|bucket| bucket.value = all);
    config.plugins.values_mut().for_each(|plugin| each(&mut plugin.rate_limit));
    config.routes.iter_mut().for_each(|route| each(&mut route.value.options.rate_limit));
    let changes = config.presets.iter_mut().flat_map(|used| used.value.routes.values_mut());
    changes.for_each(|changes| each(&mut changes.value.rate_limit));
    // These are each replica's own.
    config.rate_limit.per_client = none;
    config.upstreams.values_mut().for_each(|upstream| upstream.value.pace = None);
    notes.push(match shared {
        None => "rate limits and paces are lifted so that the load passes; results about limits were tried with the limits as written".to_owned(),
        Some(Shared { limit, .. }) => format!(
            "for `redis-down` shared limits are {}, so that the load passes and is counted",
            limit.rate
        ),
    });
    store(config, shared, notes);
}

/// The replicas that serve count in the operator's store, and have their switches there.
fn store(config: &mut Config, shared: Option<&Shared>, notes: &mut Vec<String>) {
    let Some(Shared { address, .. }) = shared else {
        if config.store.take().is_some() {
            notes.push("no store is used: the copy counts on its own".to_owned());
        }
        return;
    };
    let Some(store) = &mut config.store else { return };
    let store = &mut store.value;
    store.kind = StoreKind::Standalone;
    let at = HostPort { host: address.ip().to_string(), port: address.port() };
    store.addresses = vec![Located::nowhere(at)];
    (store.master, store.tls) = (None, None);
    (store.username, store.password_file) = (None, None);
    (store.sentinel_username, store.sentinel_password_file) = (None, None);
    notes.push(
        "for `redis-down` the store is the drill's own Redis: one server, without TLS and users"
            .to_owned(),
    );
}
