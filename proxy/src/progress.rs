//! Ends stalled exchanges, and names the side at fault: see [`filters::progress`].
//!
//! Pingora has a timeout for each read and write, and does not know which side it waits for. So its timeouts
//! are set long. What an exchange waits for is tracked here, where the client's connection and its body are;
//! an exchange whose time is up gets an error from the client's side.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use filters::{
    Denial, Label,
    progress::Timeouts,
    progress::{ClientRules, Kind, Progress, Verdict},
};
use http::Method;
use pingora::{Error, ErrorType};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;

tokio::task_local! {
    /// The state of the task's exchange.
    static PROGRESS: RefCell<State>;
}

#[derive(Default)]
struct State {
    progress: Option<Progress>,
    /// Why it has to end, until that is reported.
    verdict: Option<Verdict>,
    /// When it is dropped if that has not been reported by then.
    lost: Option<Instant>,
    /// Whether the upstream has not accepted yet what was read of the body.
    behind: bool,
    /// Whether the response is complete.
    answered: bool,
}

/// Runs one exchange. `None` if it was dropped: its time was up, and it did not poll its client.
pub(crate) async fn exchange<T>(exchange: impl Future<Output = T>) -> Option<T> {
    PROGRESS
        .scope(RefCell::default(), async {
            let mut exchange = pin!(exchange);
            let mut timer = pin!(sleep_until(Instant::now() + FAR));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(done) = exchange.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
                match wait(timer.as_mut(), cx) {
                    Wait::Running => Poll::Pending,
                    // It polls the client's side, which returns the error.
                    Wait::Over => match exchange.as_mut().poll(cx) {
                        Poll::Ready(done) => Poll::Ready(Some(done)),
                        Poll::Pending => {
                            // To check again whether it has seen the error in time.
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                    },
                    // Dropping its context writes the record.
                    Wait::Lost => Poll::Ready(None),
                }
            })
            .await
        })
        .await
}

/// Beyond any deadline.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// How long after its time is up an exchange has to see the error. If it does not, Pingora only waits for
/// the upstream, which does not accept the body, and does not poll the client.
const ERROR_TIMEOUT: Duration = Duration::from_secs(1);

enum Wait {
    Running,
    /// Its time is up.
    Over,
    /// Its time was up some time ago.
    Lost,
}

/// Waits for the exchange's deadline.
fn wait(mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Wait {
    PROGRESS.with(|state| {
        let mut state = state.borrow_mut();
        if state.verdict.is_some() {
            let now = Instant::now();
            let lost = *state.lost.get_or_insert(now + ERROR_TIMEOUT);
            if timer.deadline() != lost {
                timer.as_mut().reset(lost);
            }
            return if timer.as_mut().poll(cx).is_ready() { Wait::Lost } else { Wait::Running };
        }
        // A later deadline is checked when the timer fires: usually the exchange ends before.
        let mut deadline = state.progress.as_ref().and_then(Progress::deadline);
        while let Some((at, verdict)) = deadline {
            let now = clock::elapsed();
            if at <= now {
                state.verdict = Some(verdict);
                return Wait::Over;
            }
            let wanted = Instant::now() + (at - now);
            if timer.deadline() > wanted {
                timer.as_mut().reset(wanted);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Wait::Running;
            }
            timer.as_mut().reset(Instant::now() + FAR);
            deadline = state.progress.as_ref().and_then(Progress::deadline);
        }
        Wait::Running
    })
}

fn with<T>(what: impl FnOnce(&mut Progress) -> T) -> Option<T> {
    let with = |state: &RefCell<State>| state.borrow_mut().progress.as_mut().map(what);
    PROGRESS.try_with(with).ok().flatten()
}

/// Records progress. Returns whether the exchange may continue.
fn judge(judged: impl FnOnce(&mut Progress) -> Result<(), Verdict>) -> bool {
    let judge = |state: &RefCell<State>| {
        let mut state = state.borrow_mut();
        let verdict = state.progress.as_mut().and_then(|progress| judged(progress).err());
        state.verdict = state.verdict.or(verdict);
        verdict.is_none()
    };
    PROGRESS.try_with(judge).unwrap_or(true)
}

/// The exchange's head has been read.
pub(crate) fn begin(client: ClientRules) {
    let begin = |state: &RefCell<State>| state.borrow_mut().progress = Some(Progress::new(client));
    let _ = PROGRESS.try_with(begin);
}

/// Whether the exchange is supervised here.
pub(crate) fn is_watched() -> bool {
    with(|_| ()).is_some()
}

/// It was allowed.
pub(crate) fn admitted(timeouts: Timeouts, kind: Kind) {
    with(|progress| progress.admitted(timeouts, kind));
}

/// The request is complete.
pub(crate) fn request_ended() {
    with(|progress| progress.request_ended(clock::elapsed()));
}

/// When the request was complete.
pub(crate) fn request_ended_at() -> Option<Duration> {
    with(|progress| progress.request_ended_at()).flatten()
}

/// How long we waited for the client within its body.
pub(crate) fn waited_for_client() -> Duration {
    with(|progress| progress.waited_for_client(clock::elapsed())).unwrap_or_default()
}

/// The request is sent upstream, or the upstream sent an interim response.
pub(crate) fn request_sent() {
    with(|progress| progress.request_sent(clock::elapsed()));
}

/// Another attempt begins.
pub(crate) fn retries() {
    with(Progress::retries);
    let _ = PROGRESS.try_with(|state| {
        let mut state = state.borrow_mut();
        (state.behind, state.answered) = (false, false);
    });
}

/// Whether this is an exchange's task.
pub(crate) fn is_exchange() -> bool {
    PROGRESS.try_with(|_| ()).is_ok()
}

/// Sets whether the upstream has not accepted yet what was read of the body: until it has, no more is read.
pub(crate) fn upstream_behind(is: bool) {
    if is {
        with(|progress| progress.upstream_blocked(clock::elapsed()));
    }
    let _ = PROGRESS.try_with(|state| state.borrow_mut().behind = is);
}

/// The upstream accepted some of it.
pub(crate) fn upstream_accepted() {
    with(|progress| progress.upstream_accepted(clock::elapsed()));
}

/// Whether reading from the client is paused. The reader is woken when that is over: it is the same task.
fn holds_back() -> bool {
    let holds = |state: &RefCell<State>| {
        let state = state.borrow();
        state.behind && !state.answered
    };
    PROGRESS.try_with(holds).unwrap_or(false)
}

/// The response is complete.
pub(crate) fn response_ended() {
    with(Progress::response_ended);
    let _ = PROGRESS.try_with(|state| state.borrow_mut().answered = true);
}

/// The same if the response has no body.
pub(crate) fn ends_with_head(asked: &Method, status: u16, length: Option<u64>) {
    if asked == Method::HEAD || matches!(status, 204 | 304) || length == Some(0) {
        response_ended();
    }
}

/// Whether the response is complete.
pub(crate) fn has_response() -> bool {
    PROGRESS.try_with(|state| state.borrow().answered).unwrap_or(false)
}

/// The response head has been received.
pub(crate) fn response_began(length: Option<u64>, kind: Kind) {
    with(|progress| progress.response_began(length, kind, clock::elapsed()));
}

/// A part of the response was received. Returns whether the exchange may continue.
pub(crate) fn response_part(bytes: usize) -> bool {
    judge(|progress| progress.response_part(bytes, clock::elapsed()))
}

/// A part of the request's body was received. Returns whether the exchange may continue.
pub(crate) fn request_part(bytes: usize) -> bool {
    judge(|progress| progress.request_part(bytes, clock::elapsed()))
}

/// Reads from the client unless that is paused, and records the result.
pub(crate) fn poll_reading<T>(read: impl FnOnce() -> Poll<T>) -> Poll<T> {
    if holds_back() {
        return Poll::Pending;
    }
    let polled = read();
    note_read(polled.is_pending());
    polled
}

fn note_read(pending: bool) {
    with(|progress| {
        if !pending {
            progress.read(clock::elapsed());
        } else if !progress.waits_for_body() {
            progress.client_idle(clock::elapsed());
        }
    });
}

/// Reads from the client, within its timeout.
pub(crate) async fn reading<T>(
    from: impl Future<Output = pingora::Result<T>>,
) -> pingora::Result<T> {
    let mut reading = pin!(from);
    std::future::poll_fn(|cx| {
        if let Some(over) = timeout_error() {
            let error = Error::because(ErrorType::ReadTimedout, "client", over);
            return Poll::Ready(Err(error.into_down()));
        }
        poll_reading(|| reading.as_mut().poll(cx))
    })
    .await
}

/// Records a write to the client: `None` if it accepted nothing.
pub(crate) fn written(bytes: Option<usize>) {
    judge(|progress| match bytes {
        None if progress.waits_for_client() => Ok(()),
        None => {
            progress.client_blocked(clock::elapsed());
            Ok(())
        }
        Some(bytes) if progress.waits_for_client() => {
            progress.written_part(bytes, clock::elapsed())
        }
        Some(bytes) => {
            progress.written_immediately(bytes);
            Ok(())
        }
    });
}

/// On the client's side: the error if the exchange's time is up.
pub(crate) fn timeout_error() -> Option<io::Error> {
    let verdict = PROGRESS.try_with(|state| state.borrow().verdict).ok().flatten();
    verdict.map(|_| io::ErrorKind::TimedOut.into())
}

/// Why the exchange has to end, if it has to.
pub(crate) fn verdict() -> Option<Verdict> {
    PROGRESS.try_with(|state| state.borrow().verdict).ok().flatten()
}

/// Whether the exchange has to end because of its upstream, and nobody has taken that reason yet.
pub(crate) fn is_upstream_late() -> bool {
    verdict().is_some_and(Verdict::is_of_upstream)
}

/// Takes the reason why the exchange has to end. After that the response can be written to the client.
pub(crate) fn denial(upstream: Label) -> Option<Denial> {
    let denial = |state: &RefCell<State>| {
        let mut state = state.borrow_mut();
        let verdict = state.verdict.take()?;
        state.lost = None;
        let progress = state.progress.as_mut()?;
        let denial = progress.denial(verdict, upstream);
        progress.finish();
        Some(denial)
    };
    PROGRESS.try_with(denial).ok().flatten()
}
