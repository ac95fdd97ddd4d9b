//! The control source: who may be believed, and how often it is asked.

use std::time::Duration;

use super::Findings;
use crate::{BeforeFirstResponse, Config, ControlFormat};

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: u64 = 16 << 20;

pub(super) fn check(config: &Config, found: &mut Findings) {
    let Some(control) = &config.control else { return };
    let place = &control.place;
    if super::credentials::is_open_to_all(&control.url) {
        found.problem(
            &control.url.place,
            format!(
                "anyone on the network path to `{}` could change who is in which workspace; write `https://`",
                *control.url
            ),
        );
    }
    if *control.interval < INTERVAL_MIN {
        found.problem(place, "`interval` is too short to poll a source; write `60s`");
    }
    if control.timeout.is_zero() || *control.timeout > TIMEOUT_MAX {
        found.problem(place, "`timeout` is how long a reload may wait; write at most `60s`");
    }
    if *control.stale_after <= *control.interval {
        found.problem(
            place,
            format!(
                "`stale_after` ends before the next poll of the source ({}); write a longer time",
                control.interval
            ),
        );
    }
    if control.response_max.bytes() == 0 || control.response_max.bytes() > ANSWER_BYTES_MAX {
        found.problem(place, "`response_max` is at most `16MiB`");
    }
    if control.cache_file.is_none() {
        let then = match control.before_first_response {
            BeforeFirstResponse::PluginsOff => "plugins are off",
            BeforeFirstResponse::Files => "plugins that it would switch off are on",
        };
        found.warning(
            place,
            format!(
                "without `cache_file`, {then} after a start while the source is unreachable; write `cache_file: /var/lib/stagedoor/control.json`"
            ),
        );
    }
    match control.format {
        ControlFormat::Orbit if control.plugins.is_empty() => found.problem(
            place,
            "Orbit lists only plugins that are on; name the plugins that are off where it does not list them: `plugins: [jira]`",
        ),
        ControlFormat::Stagedoor if !control.plugins.is_empty() => {
            found.problem(place, "`plugins` needs `format: orbit`; remove it");
        }
        _ => {}
    }
    let known = config.known_plugins();
    let names: Vec<&str> = known.iter().map(|name| &**name).collect();
    for plugin in control.plugins.iter().filter(|plugin| !names.contains(&&*plugin.value)) {
        let hint = crate::de::suggestion(plugin, &names);
        found.warning(
            &plugin.place,
            format!("nothing here belongs to plugin `{}`; {hint}", plugin.value),
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_source_that_cannot_be_believed_or_asked_is_told() {
        let check = |control: &str, told: &str| {
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 control: {{{control}}}\n"
            );
            let told_of = match crate::parse("t", &text) {
                Ok(loaded) => loaded.warnings.to_string(),
                Err(problems) => problems.to_string(),
            };
            assert!(told_of.contains(told) && told_of.is_empty() == told.is_empty(), "{told_of}");
        };
        check("url: 'https://orbit.example/c', cache_file: /c", "");
        check("url: 'http://127.0.0.1:7/c', cache_file: /c", "");
        check("url: 'http://localhost/c', cache_file: /c", "");
        check("url: 'https://orbit.example/c'", "plugins are off after a start");
        check(
            "url: 'https://orbit.example/c', before_first_response: files",
            "are on after a start",
        );
        check("url: 'http://orbit/c'", "write `https://`");
        check("url: 'https://u:p@orbit/c'", "<hidden>");
        check("", "`url` is missing");
        let url = |more: &str| format!("url: 'https://orbit.example/c', {more}");
        check(&url("interval: 10ms"), "`interval` is too short");
        check(&url("timeout: 2m"), "`timeout`");
        check(&url("stale_after: 1m"), "`stale_after` ends before");
        check(&url("response_max: 1GiB"), "`response_max`");
        check(&url("format: orbit"), "`plugins: [jira]`");
        check(&url("plugins: [jira]"), "needs `format: orbit`");
        check(&url("format: orbit, plugins: [jira]"), "nothing here belongs to plugin `jira`");
        check(&url("upstreams: {}"), "unknown key `upstreams`");
    }
}
