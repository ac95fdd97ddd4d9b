//! Switches that an operator has opened or closed for some time, which override the config.
//!
//! As in a circuit: an open switch lets nothing pass. A closed one lets everything pass that the rules
//! allow, whatever the breaker has seen.

pub mod shared;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{Denial, Label, Now, identity::Caller};

/// The maximum number of switches.
pub const SWITCHES_MAX: usize = 1000;
/// The maximum time; anything longer belongs in the config.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 86_400);

/// The switches that are set. They outlive a reload. Usually there are none, and a request only reads a
/// flag.
#[derive(Default)]
pub struct Switches {
    any: AtomicBool,
    all: ArcSwap<Vec<Arc<Switch>>>,
    /// How many there ever were; locked for every change.
    count: Mutex<u64>,
}

/// One of them.
#[derive(Debug)]
pub struct Switch {
    /// Its number: counted from the start of the process, or random if replicas share switches.
    pub id: u64,
    /// What it applies to.
    pub scope: Scope,
    /// Its position.
    pub position: Position,
    /// Why.
    pub reason: Arc<str>,
    /// Who set it.
    pub by: Arc<str>,
    /// Whether setting it cut exchanges in progress.
    pub cuts: bool,
    /// When it was set.
    pub set: Now,
    /// When it ends.
    pub until: Now,
}

/// The position of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing passes.
    Open,
    /// Everything that the rules allow passes, whatever the breaker has seen.
    Closed,
}

/// What a switch applies to: all named members must match. One that names nothing applies to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Requests to this upstream. A call has none.
    pub upstream: Option<Label>,
    /// Requests on routes of this plugin, and its calls.
    pub plugin: Option<Label>,
    /// Requests and calls for this workspace.
    pub workspace: Option<Label>,
    /// Requests and calls of this caller, and of plugins that act for it.
    pub caller: Option<Label>,
    /// Requests of this class. A call has none.
    pub class: Option<config::Class>,
}

/// The facts of a request or a call that a switch can match.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The upstream that it goes to.
    pub upstream: Option<&'a Label>,
    /// The plugin that it belongs to, or that calls.
    pub plugin: Option<&'a Label>,
    /// The workspace that it is for.
    pub workspace: Option<&'a Label>,
    /// Who is calling.
    pub caller: Option<&'a Caller>,
    /// What it does.
    pub class: Option<config::Class>,
}

impl Switches {
    /// Sets a switch for a time, at most [`DURATION_MAX`]. `None` if there are [`SWITCHES_MAX`] already.
    pub fn set(
        &self,
        scope: Scope,
        position: Position,
        lasts: Duration,
        (by, reason): (&str, &str),
        now: Now,
    ) -> Option<Arc<Switch>> {
        let id = {
            let mut count = self.count.lock();
            *count += 1;
            *count
        };
        self.put(Switch {
            id,
            scope,
            position,
            reason: reason.into(),
            by: by.into(),
            cuts: false,
            set: now,
            until: now.plus(lasts.min(DURATION_MAX)),
        })
    }

    /// Sets a switch that already has a number. `None` if there are [`SWITCHES_MAX`] already.
    pub fn put(&self, switch: Switch) -> Option<Arc<Switch>> {
        let _only = self.count.lock();
        let mut all = Vec::clone(&self.all.load());
        if all.len() >= SWITCHES_MAX {
            return None;
        }
        let switch = Arc::new(switch);
        all.push(Arc::clone(&switch));
        self.replace(all);
        Some(switch)
    }

    /// Removes a switch. `None` if there is none with this number.
    pub fn remove(&self, id: u64) -> Option<Arc<Switch>> {
        let _only = self.count.lock();
        let mut all = Vec::clone(&self.all.load());
        let at = all.iter().position(|switch| switch.id == id)?;
        let removed = all.remove(at);
        self.replace(all);
        Some(removed)
    }

    /// Removes and returns those that have ended.
    pub fn expire(&self, now: Now) -> Vec<Arc<Switch>> {
        if self.is_empty() {
            return Vec::new();
        }
        let _only = self.count.lock();
        let all = Vec::clone(&self.all.load());
        let (lasting, ended): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|switch| switch.lasts(now));
        if !ended.is_empty() {
            self.replace(lasting);
        }
        ended
    }

    /// Those that are set, the oldest first.
    pub fn all(&self) -> Arc<Vec<Arc<Switch>>> {
        self.all.load_full()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// Permits what no switch refuses.
    ///
    /// # Errors
    /// [`Denial::SwitchedOff`].
    pub fn pass(&self, about: &About<'_>, now: Now) -> Result<(), Denial> {
        match self.find(Position::Open, about, now) {
            None => Ok(()),
            Some(switch) => Err(switch.denial(now)),
        }
    }

    /// Whether a closed switch bypasses the breaker.
    pub fn are_closed(&self, about: &About<'_>, now: Now) -> bool {
        self.find(Position::Closed, about, now).is_some()
    }

    /// The matching switch in this position that ends last.
    fn find(&self, position: Position, about: &About<'_>, now: Now) -> Option<Arc<Switch>> {
        if self.is_empty() {
            return None;
        }
        let all = self.all.load();
        let fits = |switch: &&Arc<Switch>| {
            switch.position == position && switch.lasts(now) && switch.scope.fits(about)
        };
        all.iter().filter(fits).max_by_key(|switch| switch.until.elapsed).cloned()
    }

    fn replace(&self, all: Vec<Arc<Switch>>) {
        let any = !all.is_empty();
        self.all.store(Arc::new(all));
        self.any.store(any, Ordering::Relaxed);
    }
}

impl Switch {
    /// Whether it is still in effect.
    pub fn lasts(&self, now: Now) -> bool {
        now.elapsed < self.until.elapsed
    }

    /// The denial of what it refuses.
    pub fn denial(&self, now: Now) -> Denial {
        Denial::SwitchedOff {
            scope: self.scope.to_string().into(),
            reason: Arc::clone(&self.reason),
            retry_after: self.until.elapsed.saturating_sub(now.elapsed),
        }
    }
}

impl Scope {
    /// Whether it applies.
    pub fn fits(&self, about: &About<'_>) -> bool {
        let Self { upstream, plugin, workspace, caller, class } = self;
        let same = |wanted: &Option<Label>, own: Option<&Label>| {
            wanted.is_none() || wanted.as_ref() == own
        };
        let by = |wanted: &Label| {
            let own = about.caller;
            own.is_some_and(|own| {
                own.subject == *wanted || own.on_behalf_of.as_ref() == Some(wanted)
            })
        };
        !self.is_empty()
            && same(upstream, about.upstream)
            && same(plugin, about.plugin)
            && same(workspace, about.workspace)
            && caller.as_ref().is_none_or(by)
            && (class.is_none() || *class == about.class)
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What it names, and how.
    pub fn members(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let Self { upstream, plugin, workspace, caller, class } = self;
        let labels = [
            ("upstream", upstream),
            ("plugin", plugin),
            ("workspace", workspace),
            ("caller", caller),
        ];
        let labels =
            labels.into_iter().filter_map(|(name, label)| Some((name, &**label.as_ref()?)));
        labels.chain(class.map(|class| ("class", class.name())))
    }
}

/// For a sentence.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.members().enumerate() {
            let before = if index > 0 { ", " } else { "" };
            write!(f, "{before}{name} `{value}`")?;
        }
        Ok(())
    }
}

impl Position {
    /// Its name in records and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Now {
        Now::default().plus(Duration::from_secs(seconds))
    }

    fn scope(plugin: &str) -> Scope {
        Scope { plugin: Some(Label::lossy(plugin)), ..Scope::default() }
    }

    fn set(switches: &Switches, scope: Scope, position: Position, lasts: Duration) -> u64 {
        switches.set(scope, position, lasts, ("ada", "it burns"), at(0)).unwrap().id
    }

    fn asks(switches: &Switches, scope: &Scope, now: Now) -> (bool, bool) {
        let caller = scope.caller.clone().map(Caller::supposed);
        let about = About {
            upstream: scope.upstream.as_ref(),
            plugin: scope.plugin.as_ref(),
            workspace: scope.workspace.as_ref(),
            caller: caller.as_ref(),
            class: scope.class,
        };
        (switches.pass(&about, now).is_ok(), switches.are_closed(&about, now))
    }

    #[test]
    fn it_ends_on_time_and_is_removed() {
        let switches = Switches::default();
        let id = set(&switches, scope("argocd"), Position::Open, HOUR);
        assert_eq!(asks(&switches, &scope("argocd"), at(3599)), (false, false));
        assert_eq!(asks(&switches, &scope("vault"), at(0)), (true, false));
        assert!(switches.expire(at(3599)).is_empty());
        assert_eq!(asks(&switches, &scope("argocd"), at(3600)), (true, false));
        assert_eq!(switches.expire(at(3600)).iter().map(|s| s.id).collect::<Vec<_>>(), [id]);
        assert!(switches.is_empty() && switches.remove(id).is_none());
    }

    #[test]
    fn a_retry_is_possible_once_the_last_has_ended() {
        let switches = Switches::default();
        set(&switches, scope("argocd"), Position::Open, HOUR);
        set(&switches, scope("argocd"), Position::Open, HOUR * 2);
        set(&switches, scope("argocd"), Position::Open, HOUR / 2);
        let argocd = Label::lossy("argocd");
        let about = About {
            upstream: None,
            plugin: Some(&argocd),
            workspace: None,
            caller: None,
            class: None,
        };
        let denied = switches.pass(&about, at(60)).unwrap_err();
        assert_eq!(denied.retry_after(), Some(HOUR * 2 - Duration::from_secs(60)));
        assert_eq!(denied.to_string(), "an operator has switched off plugin `argocd`: it burns");
    }

    #[test]
    fn their_number_is_bounded_and_none_exceeds_a_week() {
        let switches = Switches::default();
        let ids: Vec<u64> = (0..SWITCHES_MAX)
            .map(|_| set(&switches, scope("argocd"), Position::Closed, HOUR * 1000))
            .collect();
        let more = || switches.set(scope("argocd"), Position::Open, HOUR, ("ada", "x"), at(0));
        assert!(more().is_none());
        assert_eq!(switches.all()[0].until, Now::default().plus(DURATION_MAX));
        assert!(switches.remove(ids[7]).is_some());
        assert!(more().is_some_and(|switch| !ids.contains(&switch.id)));
    }

    #[test]
    fn a_plugin_that_acts_for_a_caller_is_switched_off_with_it() {
        let switches = Switches::default();
        let ada = Scope { caller: Some(Label::lossy("ada")), ..Scope::default() };
        set(&switches, ada, Position::Open, HOUR);
        let mut plugin = Caller::supposed(Label::lossy("plugin:catalog"));
        let mut passes = |user: &str| {
            plugin.on_behalf_of = Label::new(user);
            let caller = Some(&plugin);
            let about =
                About { upstream: None, plugin: None, workspace: None, caller, class: None };
            switches.pass(&about, at(0)).is_ok()
        };
        assert!(passes("") && passes("bo") && !passes("ada"));
    }

    fn scopes() -> impl Strategy<Value = Scope> {
        let label = || option::of("[ab]".prop_map(|text| Label::lossy(&text)));
        let class = option::of(prop_oneof![Just(config::Class::Read), Just(config::Class::Action)]);
        (label(), label(), label(), label(), class).prop_map(
            |(upstream, plugin, workspace, caller, class)| Scope {
                upstream,
                plugin,
                workspace,
                caller,
                class,
            },
        )
    }

    proptest! {
        #[test]
        fn what_has_ended_or_names_nothing_changes_nothing(
            all in prop::collection::vec((scopes(), any::<bool>(), 0..100u64), 0..20),
            asked in scopes(),
        ) {
            let switches = Switches::default();
            for (scope, open, seconds) in all {
                let position = if open { Position::Open } else { Position::Closed };
                set(&switches, scope, position, Duration::from_secs(seconds));
            }
            prop_assert_eq!(asks(&switches, &asked, at(100)), (true, false));
            switches.expire(at(100));
            prop_assert!(switches.is_empty());
            set(&switches, Scope::default(), Position::Open, HOUR);
            prop_assert_eq!(asks(&switches, &asked, at(100)), (true, false));
        }

        #[test]
        fn all_that_a_switch_names_must_fit(named in scopes(), asked in scopes()) {
            let switches = Switches::default();
            set(&switches, named.clone(), Position::Open, HOUR);
            let of = |scope: &Scope| scope.members().map(|(n, v)| format!("{n} {v}")).collect::<Vec<_>>();
            let (named, own) = (of(&named), of(&asked));
            let fits = !named.is_empty() && named.iter().all(|member| own.contains(member));
            prop_assert_eq!(asks(&switches, &asked, at(0)).0, !fits);
        }
    }
}
