//! Long-lived exchanges: upgraded connections, streams and calls. An operator's switch can sever them.
//!
//! One may be silent for hours, so it does not poll for switches; it is woken. Pingora cannot be
//! interrupted, so its future is dropped, and the recorder in its context writes the record.

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

/// The long-lived exchanges in flight.
#[derive(Default)]
pub struct LongLived(Mutex<All>);

#[derive(Default)]
struct All {
    count: u64,
    in_flight: HashMap<u64, (Subject, Arc<Cut>)>,
}

/// What a switch can be about.
struct Subject {
    upstream: Option<Label>,
    plugin: Option<Label>,
    workspace: Option<Label>,
    caller: Option<Arc<Caller>>,
    class: Option<config::Class>,
}

/// A place among them, until it is dropped.
pub struct Registration {
    all: Arc<LongLived>,
    id: u64,
    cut: Arc<Cut>,
    end: Option<AbortHandle>,
}

/// Why one was severed, once it was. The first reason stays.
type Cut = SetOnce<Denial>;

tokio::task_local! {
    /// The task's exchange, once it is long-lived.
    static OWN: RefCell<Option<Arc<Cut>>>;
}

impl LongLived {
    /// Registers an exchange. From now on it can be severed; within [`Severable`] its future is dropped then.
    pub fn begin(self: &Arc<Self>, exchange: &Exchange) -> Registration {
        let cut = Arc::<Cut>::default();
        let mut all = self.0.lock();
        all.count += 1;
        let id = all.count;
        all.in_flight.insert(id, (Subject::of(exchange), Arc::clone(&cut)));
        // A tunnel waits for it itself.
        let _ = OWN.try_with(|own| own.replace(Some(Arc::clone(&cut))));
        Registration { all: Arc::clone(self), id, cut, end: None }
    }

    /// Severs those that a switch is about, and returns how many.
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
    /// Severs it after this time, for this reason.
    pub fn end_after(&mut self, left: Duration, why: Denial) {
        let cut = Arc::clone(&self.cut);
        let end = tokio::spawn(async move {
            tokio::time::sleep(left).await;
            let _ = cut.set(why);
        });
        self.end = Some(end.abort_handle());
    }

    /// Waits until it is severed, and returns the reason.
    pub fn cut(&self) -> impl Future<Output = Denial> + use<> {
        let cut = Arc::clone(&self.cut);
        async move { cut.wait().await.clone() }
    }

    /// Why it was severed, if it was.
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

/// Runs Pingora's part of exchanges, and drops one when it is severed.
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
        // Dropped within its task-locals, which the recorder reads then.
        let until_cut = poll_fn(move |cx| {
            if let Poll::Ready(back) = exchange.as_mut().poll(cx) {
                return Poll::Ready(back);
            }
            if cut.is_none() {
                // Only known after the exchange was polled.
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
