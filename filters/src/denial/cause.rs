//! Why an upstream is left alone.

/// Why a breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing answers: no connection, a connection that breaks, silence.
    Silence,
    /// It answers badly.
    Answers,
}

impl Cause {
    /// The names of all of them.
    pub const NAMES: [&str; 2] = ["silence", "answers"];

    /// Its name in records, metrics and on the admin listener.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Answers => "answers",
        }
    }
}
