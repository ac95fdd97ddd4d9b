//! Ends exchanges that stand still, each for whose fault it is: see [`filters::motion`].
//!
//! Pingora has a time for each read and write, and cannot tell whom it waits for. So it is given long
//! ones. What an exchange waits for is noted here, where the client's connection and its body are; and an
//! exchange whose time is up finds that out at the client's side, as an error there.

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
    /// Of a task's exchange.
    static MOTION: RefCell<State>;
}

#[derive(Default)]
struct State {
    motion: Option<Progress>,
    /// Why it has to end, until that is told.
    verdict: Option<Verdict>,
    /// When it is dropped if it has not been told by then.
    lost: Option<Instant>,
    /// Whether the upstream has not taken yet what of the body was read.
    behind: bool,
    /// Whether all of the answer is there.
    answered: bool,
}

/// Runs one exchange. `None` if it was dropped: its time was up, and it did not look at its client.
pub(crate) async fn exchange<T>(exchange: impl Future<Output = T>) -> Option<T> {
    MOTION
        .scope(RefCell::default(), async {
            let mut exchange = pin!(exchange);
            let mut timer = pin!(sleep_until(Instant::now() + FAR));
            std::future::poll_fn(|cx| {
                if let Poll::Ready(done) = exchange.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
                match wait(timer.as_mut(), cx) {
                    Wait::Goes => Poll::Pending,
                    // It looks at the client's side, where it learns of it.
                    Wait::Over => match exchange.as_mut().poll(cx) {
                        Poll::Ready(done) => Poll::Ready(Some(done)),
                        Poll::Pending => {
                            // For the time in which it must have learned of it.
                            cx.waker().wake_by_ref();
                            Poll::Pending
                        }
                    },
                    // Its context writes the record.
                    Wait::Lost => Poll::Ready(None),
                }
            })
            .await
        })
        .await
}

/// Beyond any deadline.
const FAR: Duration = Duration::from_secs(365 * 86_400);

/// An exchange that has not learned so long after its time was up that it is does not look at its client:
/// the upstream does not take its body, and Pingora waits for that alone.
const LEARNS: Duration = Duration::from_secs(1);

enum Wait {
    Goes,
    /// Its time is up.
    Over,
    /// That was so some time ago.
    Lost,
}

/// Waits for the exchange's deadline.
fn wait(mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Wait {
    MOTION.with(|state| {
        let mut state = state.borrow_mut();
        if state.verdict.is_some() {
            let now = Instant::now();
            let lost = *state.lost.get_or_insert(now + LEARNS);
            if timer.deadline() != lost {
                timer.as_mut().reset(lost);
            }
            return if timer.as_mut().poll(cx).is_ready() { Wait::Lost } else { Wait::Goes };
        }
        // A later deadline is looked at when the timer is over: nearly always the exchange is sooner.
        let mut deadline = state.motion.as_ref().and_then(Progress::deadline);
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
                return Wait::Goes;
            }
            timer.as_mut().reset(Instant::now() + FAR);
            deadline = state.motion.as_ref().and_then(Progress::deadline);
        }
        Wait::Goes
    })
}

fn with<T>(what: impl FnOnce(&mut Progress) -> T) -> Option<T> {
    let with = |state: &RefCell<State>| state.borrow_mut().motion.as_mut().map(what);
    MOTION.try_with(with).ok().flatten()
}

/// Notes what came of a part that moved. Whether it may go on.
fn judge(judged: impl FnOnce(&mut Progress) -> Result<(), Verdict>) -> bool {
    let judge = |state: &RefCell<State>| {
        let mut state = state.borrow_mut();
        let verdict = state.motion.as_mut().and_then(|motion| judged(motion).err());
        state.verdict = state.verdict.or(verdict);
        verdict.is_none()
    };
    MOTION.try_with(judge).unwrap_or(true)
}

/// The exchange's head is there.
pub(crate) fn begin(client: ClientRules) {
    let begin = |state: &RefCell<State>| state.borrow_mut().motion = Some(Progress::new(client));
    let _ = MOTION.try_with(begin);
}

/// Whether the exchange is looked after here.
pub(crate) fn is_watched() -> bool {
    with(|_| ()).is_some()
}

/// It was let through.
pub(crate) fn let_through(timeouts: Timeouts, kind: Kind) {
    with(|motion| motion.let_through(timeouts, kind));
}

/// All of the request is there.
pub(crate) fn request_ended() {
    with(|motion| motion.request_ended(clock::elapsed()));
}

/// When all of the request was there.
pub(crate) fn ended() -> Option<Duration> {
    with(|motion| motion.ended()).flatten()
}

/// How long the client was waited for within its body.
pub(crate) fn waited_for_client() -> Duration {
    with(|motion| motion.waited_for_client(clock::elapsed())).unwrap_or_default()
}

/// The upstream is asked, or says that it is at work.
pub(crate) fn asked() {
    with(|motion| motion.asked(clock::elapsed()));
}

/// Another attempt is on its way.
pub(crate) fn asks_again() {
    with(Progress::asks_again);
    let _ = MOTION.try_with(|state| {
        let mut state = state.borrow_mut();
        (state.behind, state.answered) = (false, false);
    });
}

/// Whether this is an exchange's task.
pub(crate) fn is_exchange() -> bool {
    MOTION.try_with(|_| ()).is_ok()
}

/// Whether the upstream has not taken yet what of the body was read: until it has, no more is read.
pub(crate) fn behind(is: bool) {
    if is {
        with(|motion| motion.held_back(clock::elapsed()));
    }
    let _ = MOTION.try_with(|state| state.borrow_mut().behind = is);
}

/// The upstream took some of what it is behind by.
pub(crate) fn took_some() {
    with(|motion| motion.took_some(clock::elapsed()));
}

/// Whether the client is not to be read now. Who reads is woken when that is over: it is the same task.
fn holds_back() -> bool {
    let holds = |state: &RefCell<State>| {
        let state = state.borrow();
        state.behind && !state.answered
    };
    MOTION.try_with(holds).unwrap_or(false)
}

/// All of the answer is there.
pub(crate) fn answer_ended() {
    with(Progress::answer_ended);
    let _ = MOTION.try_with(|state| state.borrow_mut().answered = true);
}

/// The same if the answer has no body.
pub(crate) fn ends_with_head(asked: &Method, status: u16, length: Option<u64>) {
    if asked == Method::HEAD || matches!(status, 204 | 304) || length == Some(0) {
        answer_ended();
    }
}

/// Whether all of the answer is there.
pub(crate) fn has_answer() -> bool {
    MOTION.try_with(|state| state.borrow().answered).unwrap_or(false)
}

/// The answer's head is there.
pub(crate) fn answered(length: Option<u64>, kind: Kind) {
    with(|motion| motion.answered(length, kind, clock::elapsed()));
}

/// A part of the answer is there. Whether it may go on.
pub(crate) fn answer_part(bytes: usize) -> bool {
    judge(|motion| motion.answer_part(bytes, clock::elapsed()))
}

/// A part of the request's body is there. Whether it may go on.
pub(crate) fn body_part(bytes: usize) -> bool {
    judge(|motion| motion.body_part(bytes, clock::elapsed()))
}

/// Reads of the client, unless it is not to be read now, and notes how that went.
pub(crate) fn poll_reading<T>(read: impl FnOnce() -> Poll<T>) -> Poll<T> {
    if holds_back() {
        return Poll::Pending;
    }
    let polled = read();
    note_read(polled.is_pending());
    polled
}

fn note_read(pending: bool) {
    with(|motion| {
        if !pending {
            motion.read(clock::elapsed());
        } else if !motion.waits_for_body() {
            motion.nothing_to_read(clock::elapsed());
        }
    });
}

/// Reads of the client, within its time.
pub(crate) async fn reading<T>(
    from: impl Future<Output = pingora::Result<T>>,
) -> pingora::Result<T> {
    let mut reading = pin!(from);
    std::future::poll_fn(|cx| {
        if let Some(over) = over() {
            let error = Error::because(ErrorType::ReadTimedout, "client", over);
            return Poll::Ready(Err(error.into_down()));
        }
        poll_reading(|| reading.as_mut().poll(cx))
    })
    .await
}

/// Notes how a write to the client went: `None` if it did not take anything.
pub(crate) fn written(bytes: Option<usize>) {
    judge(|motion| match bytes {
        None if motion.waits_for_taking() => Ok(()),
        None => {
            motion.not_taken(clock::elapsed());
            Ok(())
        }
        Some(bytes) if motion.waits_for_taking() => motion.taken(bytes, clock::elapsed()),
        Some(bytes) => {
            motion.taken_at_once(bytes);
            Ok(())
        }
    });
}

/// At the client's side: what the exchange is told if its time is up.
pub(crate) fn over() -> Option<io::Error> {
    let verdict = MOTION.try_with(|state| state.borrow().verdict).ok().flatten();
    verdict.map(|_| io::ErrorKind::TimedOut.into())
}

/// Why the exchange has to end, if so.
pub(crate) fn verdict() -> Option<Verdict> {
    MOTION.try_with(|state| state.borrow().verdict).ok().flatten()
}

/// Whether the exchange has to end because of its upstream, and nobody has taken that reason yet.
pub(crate) fn is_upstream_late() -> bool {
    verdict().is_some_and(Verdict::is_of_upstream)
}

/// Takes the reason why the exchange has to end. From then on the client can be told.
pub(crate) fn denial(upstream: Label) -> Option<Denial> {
    let denial = |state: &RefCell<State>| {
        let mut state = state.borrow_mut();
        let verdict = state.verdict.take()?;
        state.lost = None;
        let motion = state.motion.as_mut()?;
        let denial = motion.denial(verdict, upstream);
        motion.finish();
        Some(denial)
    };
    MOTION.try_with(denial).ok().flatten()
}
