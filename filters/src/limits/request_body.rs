//! The maximum size of a request's body.

use crate::Denial;

/// The most bytes that a request's body may have: its route's limit, or else its listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(pub u64);

impl BodyLimit {
    /// The limit of a route on a listener with this limit.
    pub fn of(route: Option<config::Size>, listener: u64) -> Self {
        Self(route.map_or(listener, config::Size::bytes))
    }

    /// Judges the length that a request declares, if it declares one.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`].
    pub fn declared(self, content_length: Option<u64>) -> Result<(), Denial> {
        self.received(content_length.unwrap_or(0))
    }

    /// Judges what has been received so far.
    ///
    /// # Errors
    /// [`Denial::BodyTooLarge`].
    pub fn received(self, bytes: u64) -> Result<(), Denial> {
        let Self(bytes_max) = self;
        if bytes > bytes_max { Err(Denial::BodyTooLarge { bytes_max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_limit_counts_before_its_listeners() {
        let size = |text: &str| Some(text.parse::<config::Size>().unwrap());
        assert_eq!(BodyLimit::of(None, 7), BodyLimit(7));
        assert_eq!(BodyLimit::of(size("1KiB"), 7), BodyLimit(1024));
        assert_eq!(BodyLimit::of(size("1KiB"), 4096), BodyLimit(1024));
    }

    #[test]
    fn a_body_may_have_as_many_bytes_as_its_limit_and_no_more() {
        let limit = BodyLimit(10);
        let refused = Err(Denial::BodyTooLarge { bytes_max: 10 });
        assert_eq!(limit.declared(None), Ok(()));
        for (bytes, judged) in
            [(0, Ok(())), (10, Ok(())), (11, refused.clone()), (u64::MAX, refused)]
        {
            assert_eq!(limit.declared(Some(bytes)), judged);
            assert_eq!(limit.received(bytes), judged);
        }
    }
}
