//! Why a circuit breaker is open.

/// Why a breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No response: no connection, a broken connection, or a timeout.
    NoResponse,
    /// Responses that are failures.
    Failures,
}

impl Cause {
    /// The names of all of them.
    pub const NAMES: [&str; 2] = ["no_response", "failures"];

    /// Its name in records, metrics and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoResponse => "no_response",
            Self::Failures => "failures",
        }
    }
}
