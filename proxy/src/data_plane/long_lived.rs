//! Exchanges that may last: upgraded connections, streams and calls. An operator can cut them.
//!
//! Each may be silent for long, so it is told, not asked. Pingora's part of one cannot be told: it is
//! dropped as it stands, and its context writes the record.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use filters::{
    Denial, Exchange, Label, Now,
    identity::Caller,
    switches::{About, Switch},
};
use parking_lot::Mutex;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream},
    protocols::http::{ServerSession, v2::server::H2Options},
    server::ShutdownWatch,
};
use tokio::{sync::SetOnce, task::AbortHandle};

use crate::{data_plane::detached, progress};

/// Those that are under way.
#[derive(Default)]
pub struct LongLived(Mutex<All>);

#[derive(Default)]
struct All {
    count: u64,
    in_flight: HashMap<u64, (Subject, Arc<Cut>)>,
}

/// What one is, as far as switches are about it.
struct Subject {
    upstream: Option<Label>,
    plugin: Option<Label>,
    workspace: Option<Label>,
    caller: Option<Arc<Caller>>,
    class: Option<config::Class>,
}

/// Its place among them, until it is dropped.
pub struct Registration {
    all: Arc<LongLived>,
    id: u64,
    cut: Arc<Cut>,
    end: Option<AbortHandle>,
}

/// Why one was cut, once it was. Who says so first has the last word.
type Cut = SetOnce<Denial>;

tokio::task_local! {
    /// The exchange of a task, once it may last.
    static OWN: RefCell<Option<Arc<Cut>>>;
}

impl LongLived {
    /// From now on it can be cut. In Pingora's part of an exchange, that is dropped then.
    pub fn begin(self: &Arc<Self>, exchange: &Exchange) -> Registration {
        let cut = Arc::<Cut>::default();
        let mut all = self.0.lock();
        all.count += 1;
        let id = all.count;
        all.in_flight.insert(id, (Subject::of(exchange), Arc::clone(&cut)));
        // A tunnel looks for itself.
        let _ = OWN.try_with(|own| own.replace(Some(Arc::clone(&cut))));
        Registration { all: Arc::clone(self), id, cut, end: None }
    }

    /// Cuts those that a switch is about; how many.
    pub fn cut(&self, switch: &Switch, now: Now) -> usize {
        let all = self.0.lock();
        let fits = all.in_flight.values().filter(|(what, _)| switch.scope.fits(&what.about()));
        fits.map(|(_, cut)| _ = cut.set(switch.denial(now))).count()
    }
}

impl Subject {
    fn of(exchange: &Exchange) -> Self {
        let about = exchange.about();
        Self {
            upstream: about.upstream.cloned(),
            plugin: about.plugin.cloned(),
            workspace: about.workspace.cloned(),
            caller: exchange.caller.clone(),
            class: about.class,
        }
    }

    fn about(&self) -> About<'_> {
        About {
            upstream: self.upstream.as_ref(),
            plugin: self.plugin.as_ref(),
            workspace: self.workspace.as_ref(),
            caller: self.caller.as_deref(),
            class: self.class,
        }
    }
}

impl Registration {
    /// Ends it after so long, if it has not ended by then, and says why.
    pub fn end_after(&mut self, left: Duration, why: Denial) {
        let cut = Arc::clone(&self.cut);
        let end = tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let _ = cut.set(why);
        });
        self.end = Some(end.abort_handle());
    }

    /// Ends when it is cut.
    pub fn cut(&self) -> impl Future<Output = Denial> + use<> {
        let cut = Arc::clone(&self.cut);
        async move { cut.wait().await.clone() }
    }

    /// Why it was cut, if it was.
    pub fn denial(&self) -> Option<Denial> {
        self.cut.get().cloned()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end.abort();
        }
        self.all.0.lock().in_flight.remove(&self.id);
    }
}

/// Pingora's part of exchanges, each of which is dropped when it is cut.
pub struct Severable<A>(pub Arc<A>);

async fn is_cut(cut: Arc<Cut>) {
    cut.wait().await;
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Severable<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut exchange = self.0.process_new_http(session, shutdown);
        let mut cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        // It is dropped within what is noted of it, which its context reads then.
        let until_cut = poll_fn(move |cx| {
            if let Poll::Ready(back) = exchange.as_mut().poll(cx) {
                return Poll::Ready(back);
            }
            if cut.is_none() {
                // It is only known after it was looked at whether it may last.
                cut = OWN.with(|own| own.borrow().clone()).map(|own| Box::pin(is_cut(own)) as _);
            }
            match &mut cut {
                Some(cut) => cut.as_mut().poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        });
        let until_cut = OWN.scope(RefCell::default(), until_cut);
        progress::exchange(detached::exchange(until_cut)).await.flatten()
    }

    async fn http_cleanup(&self) {
        self.0.http_cleanup().await;
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.0.server_options()
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.0.h2_options()
    }
}
