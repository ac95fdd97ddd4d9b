//! Logs refusals by client address, because many clients may share one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use filters::{
    policy::Listener,
    rate_limit::{Of, Over},
};

/// Refusals of one listener's clients. So that a flood does not flood the log, one line a minute reports
/// them.
#[derive(Default)]
pub struct SharedAddresses {
    /// When the last line was logged, in whole seconds; zero before the first.
    told: AtomicU64,
    refused: AtomicU64,
}

const PAUSE: u64 = 60;

impl SharedAddresses {
    /// Counts a client over a limit. `forwarded`: whether it claims to forward for others.
    pub(crate) fn note(&self, listener: &Listener, over: &Over, forwarded: bool, now: Duration) {
        if over.status.scope != "client" {
            return;
        }
        let Some(refused) = self.due(now) else { return };
        let limit = match &over.status.of {
            Of::Bucket(name) => format!("rate_limit.buckets.{name}"),
            Of::Route(name) => format!("rate_limit of route {name}"),
            _ => "rate_limit.per_client".to_owned(),
        };
        let (client, numbers) = (&over.name, over.status.limit);
        let (rate, burst) = (numbers.rate, numbers.burst());
        let listener_name = &listener.name;
        tracing::warn!(
            listener = %listener_name, %client, limit, %rate, %burst, refused, forwarded,
            "a client address is over its limit; {}",
            hint(listener, forwarded)
        );
    }

    /// How many there were since the last line, if another is due.
    fn due(&self, now: Duration) -> Option<u64> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let (now, told) = (now.as_secs() + 1, self.told.load(Ordering::Relaxed));
        if told != 0 && now < told + PAUSE {
            return None;
        }
        let mine = self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed);
        mine.is_ok().then(|| self.refused.swap(0, Ordering::Relaxed))
    }
}

/// What may be the matter.
fn hint(listener: &Listener, forwarded: bool) -> &'static str {
    match (forwarded, listener.trusted_proxies.is_empty()) {
        (true, true) => {
            "it sends X-Forwarded-For, but the listener has no `trusted_proxies`: if it is your load balancer, all its clients count as one until you add it there (docs/operating.md, \"All my clients have one address\")"
        }
        (true, false) => {
            "it sends X-Forwarded-For: if it is one of your load balancers, it is missing in the listener's `trusted_proxies`, and all its clients count as one (docs/operating.md, \"All my clients have one address\")"
        }
        (false, _) => {
            "it may be many clients behind one address (docs/operating.md, \"All my clients have one address\")"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_reports_all_refusals() {
        let shared_addresses = SharedAddresses::default();
        let due = |seconds| shared_addresses.due(Duration::from_secs(seconds));
        assert_eq!(due(0), Some(1));
        assert_eq!([due(1), due(30), due(59)], [None; 3]);
        assert_eq!(due(60), Some(4));
        assert_eq!(due(61), None);
        assert_eq!(due(500), Some(2));
    }
}
