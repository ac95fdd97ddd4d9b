//! A server by rustls reads no other name in a client's first message than we do, takes none for a hello that
//! we let pass as something else, and what we say of the first bytes stays true whatever comes after them.

use std::io;

use filters::client_hello::{Peek, peek};
use rustls::server::Acceptor;

pub fn check(bytes: &[u8]) {
    let ours = peek(bytes);
    match (rustls(bytes), &ours) {
        (None, _) | (Some(_), Peek::Malformed(_)) => {}
        (Some(theirs), Peek::Hello(hello)) => assert_eq!(hello.server_name, theirs),
        (Some(theirs), _) => panic!("rustls takes it, for {theirs:?}; we say {ours:?}"),
    }
    let mut before = Peek::More;
    for end in 0..=bytes.len().min(600) {
        let now = peek(&bytes[..end]);
        assert!(before == Peek::More || before == now, "{before:?} became {now:?} at {end}");
        before = now;
    }
}

/// The name that rustls reads in a hello that it takes.
fn rustls(mut bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes as &mut dyn io::Read).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_owned));
        }
    }
    None
}
