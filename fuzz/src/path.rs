//! The normal form of a path is what `url` reads, without a change: no segment less, no query, no fragment. It
//! says the same bytes as the path that came, and is its own normal form.

use filters::normal_form::NormalPath;
use percent_encoding::percent_decode;
use url::Url;

pub fn check(path: &[u8]) {
    let Ok(normal) = NormalPath::of(path) else { return };
    let text = normal.as_str();
    let again = NormalPath::of(text.as_bytes()).expect("a normal form has one");
    assert!(again.as_str() == text && !again.changed());
    assert_eq!(normal.changed(), text.as_bytes() != path);
    // What is escaped twice comes in capitals both times.
    let read = |path: &[u8]| -> Vec<u8> {
        let once: Vec<u8> = percent_decode(path).collect();
        let twice = normal.has_encoded_slash().then(|| percent_decode(&once).collect());
        twice.unwrap_or(once)
    };
    assert_eq!(read(path), read(text.as_bytes()), "it says something else");

    let url = Url::parse(&format!("http://host{text}")).expect("a URL");
    assert_eq!((url.path(), url.query(), url.fragment()), (text, None, None));
    // `url` counts the empty segment after a trailing slash.
    let theirs = url.path_segments().expect("segments").filter(|segment| !segment.is_empty());
    assert!(theirs.eq(normal.segments().filter(|segment| !segment.is_empty())));
}
