//! The id of an exchange for the client, the upstream and the record.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use data_encoding::HEXLOWER;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::clock;

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of an exchange for the client, the upstream and the record.
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// For an exchange whose head has not been read.
    pub(crate) const UNKNOWN: Self = Self(HeaderValue::from_static("?"));

    /// The client's `X-Request-Id` if it is safe, else a new one.
    pub(crate) fn of(request: &RequestHeader) -> Self {
        let mut given = request.headers.get_all(X_REQUEST_ID).iter();
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        match (given.next(), given.next()) {
            (Some(id), None)
                if (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain) =>
            {
                Self(id.clone())
            }
            _ => Self::new(),
        }
    }

    /// A unique id: from the start time of the process, its number, and a count.
    pub(crate) fn new() -> Self {
        static BEGAN: LazyLock<u64> = LazyLock::new(|| {
            let unix = clock::now().unix.as_micros() as u64;
            unix << 16 ^ u64::from(std::process::id())
        });
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let number = u128::from(*BEGAN) << 48 | u128::from(count & 0xffff_ffff_ffff);
        let mut digits = [0; 28];
        HEXLOWER.encode_mut(&number.to_be_bytes()[2..], &mut digits);
        Self(HeaderValue::from_bytes(&digits).expect("hex digits are plain"))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_bytes()).expect("an id is plain")
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}
