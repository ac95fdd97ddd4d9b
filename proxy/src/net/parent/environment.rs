//! The variables that most programs know their proxy by.

use std::sync::Arc;

use config::{NoProxy, Url};
use percent_encoding::percent_decode_str;

use super::{Parent, Parents, basic};

/// The parent proxies of the environment, as far as its variables can be used.
pub(super) fn parents(
    config: &config::Config,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Parents {
    let mut aside = Vec::new();
    // Like Go: upper case first, and an empty one counts as unset.
    let mut read = |name: &'static str| {
        let of = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        let (upper, lower) = (of(name), of(&name.to_ascii_lowercase()));
        if let (Some(upper), Some(lower)) = (&upper, &lower)
            && upper != lower
        {
            aside.push(format!(
                "`{}` is not `{name}`, which takes precedence; remove one of them",
                name.to_ascii_lowercase()
            ));
        }
        upper.or(lower)
    };
    let (secure, plain, no_proxy) = (read("HTTPS_PROXY"), read("HTTP_PROXY"), read("NO_PROXY"));
    let mut parent = |name: &'static str, text: Option<String>| match of(config, name, &text?) {
        Ok(parent) => Some(Arc::new(parent)),
        Err(why) => {
            aside.push(format!("`{name}` {why}"));
            None
        }
    };
    let (secure, plain) = (parent("HTTPS_PROXY", secure), parent("HTTP_PROXY", plain));
    let mut entries = Vec::new();
    if secure.is_some() || plain.is_some() {
        let all = no_proxy.unwrap_or_default();
        for entry in all.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()) {
            match entry.parse::<NoProxy>() {
                Ok(entry) => entries.push(entry),
                Err(why) => aside.push(format!("`NO_PROXY`: {why}")),
            }
        }
    }
    Parents { secure, plain, no_proxy: entries, private: Vec::new(), aside }
}

/// `[http[s]://][user:password@]host[:port][/]`. Errors never contain the credentials.
fn of(config: &config::Config, name: &'static str, text: &str) -> Result<Parent, String> {
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if !["http", "https"].contains(&&*scheme) {
        return Err(format!(
            "is of scheme `{}`, which is not supported; write `http://` or `https://`",
            scheme.escape_debug()
        ));
    }
    // A password may contain an unescaped `@`.
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let url: Url = format!("{scheme}://{}", place.trim_end_matches('/')).parse()?;
    if !url.path.is_empty() {
        return Err("has a path, which a proxy cannot have".to_owned());
    }
    if let Some(listener) = config.leads_back(&url) {
        return Err(format!("names our own listener `{listener}`, so every call would come back"));
    }
    let authorization = login.map(|login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        basic(&plain(user), &plain(password))
    });
    // One with a default port is often written without it; Go and curl differ, and we are as Go.
    Ok(Parent::new(url, name, authorization, None))
}
