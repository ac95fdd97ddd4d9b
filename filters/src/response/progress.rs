//! Whose turn it is in an exchange, and for how long: waiting is bounded, progress is not.
//!
//! The client's time and the upstream's are counted separately. While the client still has to send its body,
//! or has not read what is ready for it, the upstream's time does not run.

use std::time::Duration;

use crate::{Denial, Label};

/// How long each part of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `config::Timeouts`")]
pub struct Timeouts {
    pub connect: std::time::Duration,
    pub upstream: std::time::Duration,
    pub total: std::time::Duration,
    pub stream_idle: std::time::Duration,
    pub upgrade: std::time::Duration,
    /// Bytes a second.
    pub rate_min: u64,
}

impl From<config::Timeouts> for Timeouts {
    fn from(written: config::Timeouts) -> Self {
        let or = |given: Option<config::Duration>, seconds| {
            given.map_or(std::time::Duration::from_secs(seconds), Into::into)
        };
        Self {
            connect: or(written.connect, 2),
            upstream: or(written.upstream, 10),
            total: or(written.total, 15),
            stream_idle: or(written.stream_idle, 600),
            upgrade: or(written.upgrade, 10),
            rate_min: written.rate_min.map_or(config::RATE_MIN.bytes(), config::Size::bytes),
        }
    }
}

/// The requirements on a client.
#[derive(Clone, Copy, Debug)]
pub struct ClientRules {
    /// Its longest silence within a body.
    pub body_timeout: Duration,
    /// How long it may read nothing.
    pub write_timeout: Duration,
    /// Minimum bytes a second of a body, in both directions. 0 means no minimum.
    pub rate_min: u64,
}

/// Which bodies of an exchange are streams, which may be silent for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Neither body.
    Plain,
    /// The response.
    Answer,
    /// Both, or they are no longer bodies: after an upgrade, the tunnel has its own timeouts.
    Both,
}

/// Why an exchange was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client stopped sending its body.
    BodySilent,
    /// The client sends its body too slowly.
    BodySlow,
    /// The client reads the response too slowly, or stopped reading.
    ClientSlow,
    /// No response within the whole deadline.
    Whole,
    /// The upstream sent nothing for too long.
    Silent,
    /// The upstream sends its response too slowly.
    UpstreamSlow,
}

impl Verdict {
    /// Whether the upstream is to blame.
    pub fn is_of_upstream(self) -> bool {
        matches!(self, Self::Whole | Self::Silent | Self::UpstreamSlow)
    }
}

/// The progress of an exchange. Time is an argument.
#[derive(Debug)]
pub struct Progress {
    client: ClientRules,
    timeouts: Option<Timeouts>,
    kind: Kind,
    request: Sending,
    answer: Answer,
    taking: Taking,
}

/// The request's body.
#[derive(Debug)]
struct Sending {
    ended: Option<Duration>,
    /// Since when there has been nothing to read.
    idle: Option<Duration>,
    /// Since when the upstream has not accepted a part: nothing more is read until it has.
    handed: Option<Duration>,
    /// How long there was nothing to read since the last part.
    waited: Duration,
    /// How long there was nothing to read, in total.
    waited_all: Duration,
    credit: Credit,
}

/// The upstream's part.
#[derive(Debug)]
enum Answer {
    Unasked,
    /// Awaited, since the request was sent or an interim response.
    Awaited(Duration),
    /// In progress, since its last part.
    Comes(Duration, Option<Credit>),
    /// Complete.
    Ended,
}

/// The client's reading of the response.
#[derive(Debug)]
struct Taking {
    /// Since when it has read nothing although something is ready.
    idle: Option<Duration>,
    /// Bytes that it read without waiting.
    at_once: u64,
    credit: Credit,
}

/// How long a body may be slow or pause before it has earned any time.
const GRACE: Duration = Duration::from_secs(10);

/// The time that a body may still take: every transferred byte earns some.
#[derive(Clone, Copy, Debug)]
struct Credit {
    left: Duration,
    most: Duration,
}

impl Credit {
    /// The credit of a body that may be silent for `silence`.
    fn new(silence: Duration) -> Self {
        Self { left: GRACE, most: GRACE.max(silence) }
    }

    /// Counts `bytes` after a wait; returns whether that is fast enough.
    fn moved(&mut self, waited: Duration, bytes: u64, rate_min: u64) -> bool {
        if rate_min == 0 {
            return true;
        }
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / rate_min);
        let Some(left) = self.left.saturating_add(earned).checked_sub(waited) else { return false };
        self.left = left.min(self.most);
        true
    }
}

impl Progress {
    /// The progress of an exchange whose head has been read.
    pub fn new(client: ClientRules) -> Self {
        Self {
            client,
            timeouts: None,
            kind: Kind::Plain,
            request: Sending {
                ended: None,
                idle: None,
                handed: None,
                waited: Duration::ZERO,
                waited_all: Duration::ZERO,
                credit: Credit::new(client.body_timeout),
            },
            answer: Answer::Unasked,
            taking: Taking { idle: None, at_once: 0, credit: Credit::new(client.write_timeout) },
        }
    }

    /// The request was allowed, to an upstream with these timeouts.
    pub fn admitted(&mut self, timeouts: Timeouts, kind: Kind) {
        (self.timeouts, self.kind) = (Some(timeouts), kind);
    }

    /// The request has no body, or all of it was received.
    pub fn request_ended(&mut self, now: Duration) {
        self.request.ended.get_or_insert(now);
    }

    /// When the request ended, if it has.
    pub fn request_ended_at(&self) -> Option<Duration> {
        self.request.ended
    }

    /// How long we waited for the client within its body.
    pub fn waited_for_client(&self, now: Duration) -> Duration {
        let idle = self.request.idle.filter(|_| self.request.ended.is_none());
        self.request.waited_all + idle.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// The request was sent upstream, or the upstream sent an interim response (1xx).
    pub fn request_sent(&mut self, now: Duration) {
        self.answer = Answer::Awaited(now);
    }

    /// The attempt failed: the next one has its own timeouts until the request is sent again.
    pub fn retries(&mut self) {
        self.answer = Answer::Unasked;
    }

    /// The response head was received, with the body's length if it is known.
    pub fn response_began(&mut self, length: Option<u64>, kind: Kind, now: Duration) {
        if self.kind == Kind::Plain {
            self.kind = kind;
        }
        let silence = self.timeouts.map_or(Duration::ZERO, |timeouts| timeouts.upstream);
        let measured = length.is_some() && self.kind == Kind::Plain;
        self.answer = Answer::Comes(now, measured.then(|| Credit::new(silence)));
    }

    /// A part of the response was received.
    ///
    /// # Errors
    /// If they arrive too slowly.
    pub fn response_part(&mut self, bytes: usize, now: Duration) -> Result<(), Verdict> {
        let Answer::Comes(since, credit) = &mut self.answer else { return Ok(()) };
        let waited = now.saturating_sub(*since);
        *since = now;
        // If the request is not complete, the upstream may be waiting for the client.
        let (Some(credit), Some(_)) = (credit, self.request.ended) else { return Ok(()) };
        let rate_min = self.timeouts.map_or(0, |timeouts| timeouts.rate_min);
        let fast = credit.moved(waited, bytes as u64, rate_min);
        if fast { Ok(()) } else { Err(Verdict::UpstreamSlow) }
    }

    /// The response is complete: the upstream's time no longer runs.
    pub fn response_ended(&mut self) {
        self.answer = Answer::Ended;
    }

    /// The upstream has not accepted a part: no more is read from the client until it has.
    pub fn upstream_blocked(&mut self, now: Duration) {
        self.read(now);
        self.request.handed = Some(now);
    }

    /// The upstream accepted some of a part, but not all of it.
    pub fn upstream_accepted(&mut self, now: Duration) {
        if let Some(since) = &mut self.request.handed {
            *since = now;
        }
    }

    /// There was nothing to read from the client.
    pub fn client_idle(&mut self, now: Duration) {
        self.request.handed = None;
        if self.request.ended.is_none() {
            self.request.idle.get_or_insert(now);
        }
    }

    /// Whether we are waiting for the client's body.
    pub fn waits_for_body(&self) -> bool {
        self.request.idle.is_some() && self.request.handed.is_none()
    }

    /// There was something to read.
    pub fn read(&mut self, now: Duration) {
        self.request.handed = None;
        if let Some(since) = self.request.idle.take() {
            let waited = now.saturating_sub(since);
            self.request.waited += waited;
            self.request.waited_all += waited;
        }
    }

    /// A part of the request's body was received.
    ///
    /// # Errors
    /// If they arrive too slowly.
    pub fn request_part(&mut self, bytes: usize, now: Duration) -> Result<(), Verdict> {
        self.request.handed = Some(now);
        let waited = std::mem::take(&mut self.request.waited);
        if self.kind == Kind::Both || waited.is_zero() && bytes == 0 {
            return Ok(());
        }
        let fast = self.request.credit.moved(waited, bytes as u64, self.client.rate_min);
        if fast { Ok(()) } else { Err(Verdict::BodySlow) }
    }

    /// The client did not read what is ready for it.
    pub fn client_blocked(&mut self, now: Duration) {
        self.taking.idle.get_or_insert(now);
    }

    /// Whether we are waiting for the client to read.
    pub fn waits_for_client(&self) -> bool {
        self.taking.idle.is_some()
    }

    /// The client read some of it without waiting.
    pub fn written_immediately(&mut self, bytes: usize) {
        self.taking.at_once = self.taking.at_once.saturating_add(bytes as u64);
    }

    /// The client read some of it after a wait.
    ///
    /// # Errors
    /// If it does so too slowly.
    pub fn written_part(&mut self, bytes: usize, now: Duration) -> Result<(), Verdict> {
        let Some(since) = self.taking.idle.take() else { return Ok(()) };
        match &mut self.answer {
            // While the client could not read, nothing was read from the upstream.
            Answer::Comes(last, _) | Answer::Awaited(last) => *last = now,
            Answer::Unasked | Answer::Ended => {}
        }
        let bytes = std::mem::take(&mut self.taking.at_once).saturating_add(bytes as u64);
        if self.kind != Kind::Plain {
            return Ok(());
        }
        let waited = now.saturating_sub(since);
        let fast = self.taking.credit.moved(waited, bytes, self.client.rate_min);
        if fast { Ok(()) } else { Err(Verdict::ClientSlow) }
    }

    /// Only the end of the response is left to send.
    pub fn finish(&mut self) {
        (self.kind, self.taking.idle) = (Kind::Both, None);
    }

    /// When the next progress is due, and the verdict if there is none.
    pub fn deadline(&self) -> Option<(Duration, Verdict)> {
        if let Some(since) = self.taking.idle {
            return Some((since + self.client.write_timeout, Verdict::ClientSlow));
        }
        if self.kind == Kind::Both {
            return None;
        }
        let Some(ended) = self.request.ended else {
            if let (Some(since), Some(timeouts)) = (self.request.handed, self.timeouts) {
                // The upstream has responded completely: the rest of the request body does not matter.
                let awaited = !matches!(self.answer, Answer::Ended);
                return awaited.then_some((since + timeouts.upstream, Verdict::Silent));
            }
            let since = self.request.idle?;
            return Some((since + self.client.body_timeout, Verdict::BodySilent));
        };
        let timeouts = self.timeouts?;
        match (&self.answer, self.kind) {
            (Answer::Awaited(since), Kind::Plain) => {
                let whole = (ended + timeouts.total, Verdict::Whole);
                let silent = (ended.max(*since) + timeouts.upstream, Verdict::Silent);
                Some(if silent.0 <= whole.0 { silent } else { whole })
            }
            (Answer::Comes(since, _), Kind::Plain) => {
                Some((ended.max(*since) + timeouts.upstream, Verdict::Silent))
            }
            (Answer::Awaited(since) | Answer::Comes(since, _), _) => {
                Some((ended.max(*since) + timeouts.stream_idle, Verdict::Silent))
            }
            (Answer::Unasked | Answer::Ended, _) => None,
        }
    }

    /// The denial for a verdict.
    pub fn denial(&self, verdict: Verdict, upstream: Label) -> Denial {
        let rate_min = self.client.rate_min;
        match verdict {
            Verdict::BodySilent => Denial::BodyTimeout,
            Verdict::BodySlow => Denial::BodySlow { rate_min },
            Verdict::ClientSlow => Denial::ClientSlow { rate_min },
            Verdict::Whole => Denial::WholeTimeout { upstream },
            Verdict::Silent => Denial::UpstreamTimeout { upstream },
            Verdict::UpstreamSlow => {
                let rate_min = self.timeouts.map_or(0, |timeouts| timeouts.rate_min);
                Denial::UpstreamSlow { upstream, rate_min }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Verdict::*, *};

    #[test]
    fn who_is_to_blame_is_what_the_denial_says() {
        let progress = Progress::new(CLIENT);
        for verdict in [BodySilent, BodySlow, ClientSlow, Whole, Silent, UpstreamSlow] {
            let denial = progress.denial(verdict, Label::lossy("up"));
            assert_eq!(verdict.is_of_upstream(), denial.is_upstream_failure(), "{verdict:?}");
        }
    }

    const CLIENT: ClientRules = ClientRules {
        body_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(30),
        rate_min: 256,
    };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn admitted(kind: Kind) -> Progress {
        let mut progress = Progress::new(CLIENT);
        progress.admitted(config::Timeouts::default().into(), kind);
        progress
    }

    fn deadline(progress: &Progress) -> Option<(f64, Verdict)> {
        progress.deadline().map(|(at, verdict)| (at.as_secs_f64(), verdict))
    }

    /// Sends a body of `parts`, each `bytes` after a pause; when it was too slow, if so.
    fn sends(progress: &mut Progress, parts: u32, bytes: usize, pause: f64) -> Option<f64> {
        let mut now = 0.0;
        for _ in 0..parts {
            progress.client_idle(at(now));
            now += pause;
            progress.read(at(now));
            if progress.request_part(bytes, at(now)) == Err(BodySlow) {
                return Some(now);
            }
        }
        progress.request_ended(at(now));
        None
    }

    #[test]
    fn a_client_that_is_held_back_is_not_waited_for() {
        let mut progress = admitted(Kind::Plain);
        progress.request_sent(at(0.0));
        assert!(progress.request_part(1000, at(1.0)).is_ok());
        progress.client_idle(at(1.0));
        assert_eq!(progress.deadline(), Some((at(31.0), BodySilent)));
        progress.upstream_blocked(at(3.0));
        let timeouts: Timeouts = config::Timeouts::default().into();
        let upstream = timeouts.upstream.as_secs_f64();
        assert_eq!(progress.deadline(), Some((at(3.0 + upstream), Silent)));
        progress.upstream_accepted(at(5.0));
        assert_eq!(progress.deadline(), Some((at(5.0 + upstream), Silent)));
        assert_eq!(progress.waited_for_client(at(9.0)), at(2.0));
        // An upstream that has responded need not read the rest.
        progress.response_began(Some(4), Kind::Plain, at(6.0));
        assert_eq!(progress.deadline(), Some((at(5.0 + upstream), Silent)));
        progress.response_ended();
        assert_eq!(progress.deadline(), None);
        progress.client_idle(at(7.0));
        assert_eq!(progress.deadline(), Some((at(37.0), BodySilent)));
    }

    #[test]
    fn a_body_that_moves_may_take_its_time_and_one_that_trickles_may_not() {
        assert_eq!(sends(&mut admitted(Kind::Plain), 3000, 30_000, 0.1), None, "300 kB/s");
        assert_eq!(sends(&mut admitted(Kind::Plain), 3600, 256, 1.0), None, "the least rate");
        assert_eq!(sends(&mut admitted(Kind::Plain), 1000, 1, 1.0), Some(11.0));
        assert_eq!(sends(&mut admitted(Kind::Plain), 1000, 1, 29.0), Some(29.0));
        assert_eq!(sends(&mut admitted(Kind::Plain), 2, 8192, 29.0), None, "a pause");
        assert_eq!(sends(&mut admitted(Kind::Both), 1000, 1, 1.0), None, "a stream");
    }

    #[test]
    fn a_client_that_sent_much_may_pause_but_not_trickle_forever() {
        let mut progress = admitted(Kind::Plain);
        progress.request_part(50 << 20, at(0.0)).unwrap();
        let ended = sends(&mut progress, 1000, 1, 1.0).unwrap();
        assert!((29.0..33.0).contains(&ended), "{ended}");
    }

    #[test]
    fn the_upstream_is_waited_for_from_the_end_of_the_request() {
        let mut progress = admitted(Kind::Plain);
        progress.request_sent(at(0.0));
        assert_eq!(deadline(&progress), None, "nobody waits for anybody");
        sends(&mut progress, 100, 300, 1.0);
        assert_eq!(deadline(&progress), Some((110.0, Silent)));
        progress.request_sent(at(108.0));
        assert_eq!(deadline(&progress), Some((115.0, Whole)), "attempts together");
        progress.response_began(None, Kind::Plain, at(109.0));
        assert_eq!(deadline(&progress), Some((119.0, Silent)));
        progress.response_part(1, at(118.0)).unwrap();
        assert_eq!(deadline(&progress), Some((128.0, Silent)), "for as long as it moves");
    }

    #[test]
    fn a_client_that_stops_sending_its_body_is_refused_and_the_upstream_not_blamed() {
        let mut progress = admitted(Kind::Plain);
        progress.request_sent(at(0.0));
        progress.client_idle(at(1.0));
        assert_eq!(deadline(&progress), Some((31.0, BodySilent)));
        progress.response_began(None, Kind::Plain, at(2.0));
        assert_eq!(deadline(&progress), Some((31.0, BodySilent)), "it may wait for the body");
        assert_eq!(progress.waited_for_client(at(5.0)), Duration::from_secs(4));
    }

    #[test]
    fn an_upstream_that_does_not_read_a_body_times_out_like_one_that_does_not_respond() {
        let mut progress = admitted(Kind::Plain);
        progress.request_sent(at(0.0));
        progress.client_idle(at(0.0));
        progress.read(at(5.0));
        progress.request_part(1000, at(5.0)).unwrap();
        assert_eq!(deadline(&progress), Some((15.0, Silent)));
        progress.client_idle(at(6.0));
        assert_eq!(deadline(&progress), Some((36.0, BodySilent)), "it was taken");
    }

    #[test]
    fn what_the_client_does_not_take_is_not_waited_for() {
        let mut progress = admitted(Kind::Plain);
        progress.request_ended(at(0.0));
        progress.request_sent(at(0.0));
        progress.response_began(Some(80 << 20), Kind::Plain, at(1.0));
        progress.client_blocked(at(2.0));
        assert_eq!(deadline(&progress), Some((32.0, ClientSlow)));
        progress.written_part(65_536, at(31.0)).unwrap();
        assert_eq!(deadline(&progress), Some((41.0, Silent)));
        progress.response_part(1, at(32.0)).unwrap();
        for second in 33..80 {
            progress.client_blocked(at(f64::from(second)));
            if progress.written_part(1, at(f64::from(second + 1))).is_err() {
                assert!(second > 60, "{second}");
                return;
            }
        }
        panic!("a byte a second is not enough");
    }

    #[test]
    fn an_upstream_that_trickles_what_it_announced_fails_and_a_stream_does_not() {
        let trickle = |length, kind| {
            let mut progress = admitted(Kind::Plain);
            progress.request_ended(at(0.0));
            progress.request_sent(at(0.0));
            progress.response_began(length, kind, at(0.0));
            (1..60).find(|n| progress.response_part(8, at(f64::from(*n))).is_err())
        };
        assert_eq!(trickle(Some(1000), Kind::Plain), Some(11));
        assert_eq!(trickle(None, Kind::Plain), None);
        assert_eq!(trickle(Some(1000), Kind::Answer), None);
    }

    #[test]
    fn a_stream_may_be_silent_before_its_head_too() {
        let mut progress = admitted(Kind::Answer);
        progress.request_ended(at(0.0));
        progress.request_sent(at(0.0));
        assert_eq!(deadline(&progress), Some((600.0, Silent)));
        let mut progress = admitted(Kind::Plain);
        progress.request_ended(at(0.0));
        progress.request_sent(at(0.0));
        progress.response_began(None, Kind::Answer, at(1.0));
        assert_eq!(deadline(&progress), Some((601.0, Silent)));
        assert_eq!(deadline(&admitted(Kind::Both)), None);
    }

    proptest! {
        /// In any pieces: a body at the minimum rate passes, and one at a tenth of it is ended after its
        /// grace.
        #[test]
        fn the_minimum_rate_is_exact(
            parts in prop::collection::vec(1usize..5000, 100..400), rate_min in 1u64..5000,
        ) {
            let client = ClientRules { rate_min, ..CLIENT };
            let ended = |parts: &[usize], factor: u64| {
                let (mut progress, mut now) = (Progress::new(client), Duration::ZERO);
                progress.admitted(config::Timeouts::default().into(), Kind::Plain);
                parts.iter().find_map(|bytes| {
                    progress.client_idle(now);
                    now += Duration::from_millis(*bytes as u64 * 1000 * factor / rate_min);
                    progress.read(now);
                    progress.request_part(*bytes, now).is_err().then_some(now)
                })
            };
            prop_assert_eq!(ended(&parts, 1), None);
            let bytes = usize::try_from(rate_min / 20).unwrap().max(1);
            let pause = Duration::from_millis(bytes as u64 * 10_000 / rate_min);
            let trickled = ended(&[bytes; 1000], 10).unwrap();
            prop_assert!(trickled <= Duration::from_secs(12) + pause, "{:?}", trickled);
        }
    }
}
