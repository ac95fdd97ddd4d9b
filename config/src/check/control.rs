//! The control source: who may be believed, and how often it is asked.

use std::time::Duration;

use super::Findings;
use crate::{Config, Shape, UntilAnswered};

const EVERY_MIN: Duration = Duration::from_millis(100);
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
    if *control.every < EVERY_MIN {
        found.problem(place, "`every` is too short to poll a source; write `60s`");
    }
    if control.timeout.is_zero() || *control.timeout > TIMEOUT_MAX {
        found.problem(place, "`timeout` is how long a reload may wait; write at most `60s`");
    }
    if *control.stale_after <= *control.every {
        found.problem(
            place,
            format!(
                "`stale_after` ends before the next poll of the source ({}); write a longer time",
                control.every
            ),
        );
    }
    if control.answer_max.bytes() == 0 || control.answer_max.bytes() > ANSWER_BYTES_MAX {
        found.problem(place, "`answer_max` is at most `16MiB`");
    }
    if control.keep_file.is_none() {
        let then = match control.until_answered {
            UntilAnswered::PluginsOff => "plugins are off",
            UntilAnswered::Files => "plugins that it would switch off are on",
        };
        found.warning(
            place,
            format!(
                "without `keep_file`, {then} after a start while the source is unreachable; write `keep_file: /var/lib/stagedoor/control.json`"
            ),
        );
    }
    match control.shape {
        Shape::Orbit if control.plugins.is_empty() => found.problem(
            place,
            "Orbit lists only plugins that are on; name the plugins that are off where it does not list them: `plugins: [jira]`",
        ),
        Shape::Stagedoor if !control.plugins.is_empty() => {
            found.problem(place, "`plugins` needs `shape: orbit`; remove it");
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
        check("url: 'https://orbit.example/c', keep_file: /c", "");
        check("url: 'http://127.0.0.1:7/c', keep_file: /c", "");
        check("url: 'http://localhost/c', keep_file: /c", "");
        check("url: 'https://orbit.example/c'", "plugins are off after a start");
        check("url: 'https://orbit.example/c', until_answered: files", "are on after a start");
        check("url: 'http://orbit/c'", "write `https://`");
        check("url: 'https://u:p@orbit/c'", "<hidden>");
        check("", "`url` is missing");
        let url = |more: &str| format!("url: 'https://orbit.example/c', {more}");
        check(&url("every: 10ms"), "`every` is too short");
        check(&url("timeout: 2m"), "`timeout`");
        check(&url("stale_after: 1m"), "`stale_after` ends before");
        check(&url("answer_max: 1GiB"), "`answer_max`");
        check(&url("shape: orbit"), "`plugins: [jira]`");
        check(&url("plugins: [jira]"), "needs `shape: orbit`");
        check(&url("shape: orbit, plugins: [jira]"), "nothing here belongs to plugin `jira`");
        check(&url("upstreams: {}"), "unknown key `upstreams`");
    }
}
