//! An independent check of a copy, which does not know how it was made: whether it still contains a location
//! of the operator's. A key that is added to the config later is found by its name.

use std::path::Path;

use config::Config;
use serde_json::Value;

/// Keys that name a file or a folder, beside those that end with `_file`.
const FILES: &[&str] = &[
    "assertion_key",
    "ca",
    "cert",
    "client_ca",
    "client_cert",
    "client_key",
    "file",
    "folder",
    "key",
    "upgrade_socket",
];
/// Keys that name where to connect to or listen, beside those that end with `_url`.
const PLACES: &[&str] = &["address", "api", "name_servers", "url"];

/// `addresses` are also those that a host may have.
const STORE: &str = "store.addresses";

/// Maps whose keys are the operator's own words.
const WORDS: &[&str] = &["allow", "permissions", "query_allow", "resources"];

/// The first key with a location outside `folder` and loopback. `hosts` are the names that resolve to
/// stand-ins.
pub(super) fn left(config: &Config, folder: &Path, hosts: &[String]) -> Option<String> {
    let tree = serde_json::to_value(config).expect("a config is data");
    let look = Look { folder, hosts };
    look.within(&tree, "", &mut String::new())
}

struct Look<'a> {
    folder: &'a Path,
    hosts: &'a [String],
}

impl Look<'_> {
    fn within(&self, tree: &Value, key: &str, path: &mut String) -> Option<String> {
        let length = path.len();
        match tree {
            Value::Object(_) if WORDS.contains(&key) => None,
            Value::Object(map) => map.iter().find_map(|(key, value)| {
                path.truncate(length);
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                self.within(value, key, path)
            }),
            // An item of a list has the list's key.
            Value::Array(items) => items.iter().find_map(|item| {
                path.truncate(length);
                self.within(item, key, path)
            }),
            Value::String(text) => self.is_outward(key, path, text).then(|| path.clone()),
            _ => None,
        }
    }

    fn is_outward(&self, key: &str, path: &str, text: &str) -> bool {
        if key.ends_with("_file") || FILES.contains(&key) {
            return !Path::new(text).starts_with(self.folder);
        }
        let names = key.ends_with("_url") || PLACES.contains(&key) || path == STORE;
        names && !self.is_at_home(text)
    }

    fn is_at_home(&self, text: &str) -> bool {
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return address.ip().is_loopback();
        }
        let Ok(url) = text.parse::<config::Url>() else { return false };
        let named = || self.hosts.contains(&url.host);
        url.ip().map_or_else(named, |ip| ip.is_loopback())
    }
}
