//! How long to wait for a response, and when an exchange counts as long-lived.

use std::time::Duration;

/// The `total` timeout of an exchange. It bounds waiting, and not a body that moves: it runs until the
/// response's head, from the end of the request, or from its head while that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When the request's head had been read.
    pub began: Duration,
    /// When the whole request had been received, if it has.
    pub request_ended: Option<Duration>,
    /// How long the client may wait.
    pub total: Duration,
}

impl Deadline {
    /// Since when the client has been waiting.
    pub fn since(&self) -> Duration {
        self.request_ended.unwrap_or(self.began)
    }

    /// The time left.
    pub fn left(&self, now: Duration) -> Duration {
        self.since().saturating_add(self.total).saturating_sub(now)
    }

    /// Whether no time is left.
    pub fn is_over(&self, now: Duration) -> bool {
        self.left(now).is_zero()
    }
}

/// Whether a response with its head at `head_at` has taken so long that its exchange is long-lived: an
/// operator's switch can sever it.
pub fn is_long_lived(head_at: Duration, total: Duration, now: Duration) -> bool {
    now > head_at.saturating_add(total)
}

/// How long a stream may last if it ends with its caller's token. `expires` and `unix` are since 1970; a
/// token without an expiry has `u64::MAX`.
pub fn left_of_token(
    stream_max: Option<config::StreamMax>,
    expires: u64,
    unix: Duration,
) -> Option<Duration> {
    let ends = stream_max == Some(config::StreamMax::Token) && expires < u64::MAX;
    ends.then(|| Duration::from_secs(expires).saturating_sub(unix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_runs_from_the_end_of_the_request() {
        let mut deadline = Deadline { began: 10 * SECOND, request_ended: None, total: 15 * SECOND };
        assert_eq!(deadline.left(12 * SECOND), 13 * SECOND);
        assert!(!deadline.is_over(24 * SECOND) && deadline.is_over(25 * SECOND));
        deadline.request_ended = Some(20 * SECOND);
        assert_eq!(deadline.left(25 * SECOND), 10 * SECOND);
        assert!(!deadline.is_over(34 * SECOND) && deadline.is_over(35 * SECOND));
    }

    #[test]
    fn an_exchange_is_long_lived_once_its_response_takes_longer_than_the_deadline() {
        assert!(!is_long_lived(10 * SECOND, 15 * SECOND, 25 * SECOND));
        assert!(is_long_lived(10 * SECOND, 15 * SECOND, 25 * SECOND + Duration::from_millis(1)));
    }

    #[test]
    fn a_stream_ends_with_its_token_where_its_route_says_so() {
        let token = Some(config::StreamMax::Token);
        assert_eq!(left_of_token(token, 100, 40 * SECOND), Some(60 * SECOND));
        assert_eq!(left_of_token(token, 100, 140 * SECOND), Some(Duration::ZERO));
        assert_eq!(left_of_token(token, u64::MAX, 40 * SECOND), None);
        assert_eq!(left_of_token(None, 100, 40 * SECOND), None);
    }
}
