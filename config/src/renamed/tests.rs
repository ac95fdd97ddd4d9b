use std::path::Path;

use super::*;
use crate::{Config, Files, Loaded, Pattern, Place, Problems, load_from, tree};

/// Has every new name, each with a value that is not its default, in braces, so that a name can be put
/// before another.
const NEW: &str = r#"version: stagedoor/v1
listeners: {edge: {kind: reverse, address: "127.0.0.1:1"}}
upstreams: {up: {url: "http://127.0.0.1:2",
  timeouts: {total: 11s},
  breaker: {open_duration: 7s, half_open_requests: 2},
  outlier_detection: {consecutive_failures: 4, base_ejection_time: 3s, ejection_time_max: 99s, ejection_percent_max: 10},
  health_check: {path: /, healthy_threshold: 5, unhealthy_threshold: 6}}}
routes: [{name: a, methods: [GET], path: /a, upstream: up, class: read, options: {
  timeouts: {total: 12s}, coalesce: {scope: workspace, ttl: 5s}}}]
presets: [{preset: argocd, upstream: up, routes: {
  app-by-name: {timeouts: {total: 13s}, coalesce: {scope: all, ttl: 6s}}}}]
rate_limit: {per_workspace: {rate: 7/m}, per_caller: {rate: 8/m}, per_client: {rate: 9/m}}
egress: {per_workspace: {rate: 6/m}, encrypted_client_hello: report, client_hello_timeout: 4s, lifetime_max: 1h}
control: {url: "https://orbit.example/c", format: stagedoor, interval: 50s, response_max: 2MiB,
  cache_file: /c, before_first_response: files}
audit: {directory: /audit, retention: 5d, segments_max: 8, reads: before_response,
  checkpoints: {key_file: /key, interval: 30s}, ship: {out: {kind: stdout, interval: 20ms}}}
"#;

fn parse(text: &str) -> Result<Loaded, Problems> {
    crate::parse("t", text)
}

/// The warnings that only old names lead to.
fn of_old_names(loaded: &Loaded) -> Vec<String> {
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    warnings.filter(|warning| warning.contains("is now called")).collect()
}

/// Where a name stands in [`NEW`]: at each of its paths.
fn places(renamed: &Renamed) -> Vec<Place> {
    let mut root = tree::parse("t", NEW, &mut Problems::default()).unwrap();
    let mut places = Vec::new();
    for path in renamed.at {
        let before = places.len();
        each(&mut root, path, &mut |entries| {
            places.extend(entries.iter().filter_map(|(key, node)| match renamed.value_of {
                None => (key.name == renamed.new).then(|| key.place.clone()),
                Some(of) => (key.name == of).then(|| node.place.clone()),
            }));
        });
        assert_eq!(places.len(), before + 1, "`{}` is not once at `{path}`", renamed.new);
    }
    places
}

/// [`NEW`] with another text at a place, which has this name now.
fn with(place: &Place, now: &str, then: &str) -> String {
    let mut lines: Vec<String> = NEW.lines().map(ToOwned::to_owned).collect();
    let line = &mut lines[place.line as usize - 1];
    let at = place.column as usize - 1;
    assert!(line[at..].starts_with(now), "{place}: {line}");
    line.replace_range(at..at + now.len(), then);
    lines.join("\n") + "\n"
}

#[test]
fn each_old_name_means_what_its_new_one_does_and_is_warned_of_where_it_stands() {
    let expected = parse(NEW).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(of_old_names(&expected), [] as [&str; 0]);
    for renamed in RENAMED {
        let Renamed { value_of, old, new, .. } = renamed;
        for place in places(renamed) {
            let text = with(&place, new, old);
            let loaded = parse(&text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
            assert_eq!(loaded.config, expected.config, "{text}");
            let write = match value_of {
                None => format!("{new}: ..."),
                Some(key) => format!("{key}: {new}"),
            };
            assert_eq!(
                of_old_names(&loaded),
                [format!(
                    "{place}: `{old}` is now called `{new}`; write `{write}`. The old name goes with the next version"
                )]
            );
        }
    }
}

#[test]
fn an_old_name_beside_its_new_one_is_a_problem() {
    for renamed in RENAMED.iter().filter(|renamed| renamed.value_of.is_none()) {
        let Renamed { old, new, .. } = renamed;
        for place in places(renamed) {
            let text = with(&place, new, &format!("{old}: 1, {new}"));
            let problems = parse(&text).expect_err(&text);
            let other = Place { column: place.column + old.len() as u32 + 5, ..place.clone() };
            assert_eq!(
                problems.to_string(),
                format!(
                    "{place}: `{old}` is the old name of `{new}`, which is also set, at {other}; remove `{old}`\n"
                )
            );
        }
    }
}

#[test]
fn whatever_an_old_name_may_be_set_to_is_judged_as_under_its_new_one() {
    let told = |text: &str| parse(text).expect_err(text).to_string();
    let place = &places(&RENAMED[0])[0];
    let wrong = told(&with(place, "outlier_detection: {", "ejection: {longer: 1s, "));
    assert!(
        wrong.starts_with("t:6:14: unknown key `longer` in `upstreams.up.outlier_detection`"),
        "{wrong}"
    );
}

/// Every place of the schema where a type is written.
fn paths_to(of: &str) -> Vec<String> {
    fn walk(
        root: &Json,
        schema: &Json,
        of: &str,
        path: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) {
        if !schema.is_object() {
            return;
        }
        assert!(depth < 16, "the schema has a circle at {path}");
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            if name == of {
                found.push(path.trim_start_matches('.').to_owned());
            }
            walk(root, &root["$defs"][name], of, path, depth + 1, found);
        }
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["deprecated"] != true {
                walk(root, property, of, &format!("{path}.{key}"), depth + 1, found);
            }
        }
        for choice in schema["anyOf"].as_array().into_iter().flatten() {
            walk(root, choice, of, path, depth + 1, found);
        }
        for (member, step) in [("items", "[]"), ("additionalProperties", "*")] {
            walk(root, &schema[member], of, &format!("{path}.{step}"), depth + 1, found);
        }
        for (_, value) in schema["patternProperties"].as_object().into_iter().flatten() {
            walk(root, value, of, &format!("{path}.*"), depth + 1, found);
        }
    }
    let root: Json = serde_json::from_str(&crate::json_schema()).unwrap();
    let mut found = Vec::new();
    walk(&root, &root, of, "", 0, &mut found);
    found.sort();
    found
}

#[test]
fn a_type_has_its_old_names_wherever_it_is_written() {
    for Renamed { of, at, new, .. } in RENAMED {
        let mut at: Vec<String> = at.iter().map(ToString::to_string).collect();
        at.sort();
        assert_eq!(at, paths_to(of), "{new}");
    }
}

#[test]
fn the_schema_has_old_names_as_deprecated_and_the_manual_only_in_their_table() {
    let schema: Json = serde_json::from_str(&crate::json_schema()).unwrap();
    let manual = crate::markdown();
    let (keys, table) = manual.split_once("## Renamed keys").unwrap();
    for Renamed { of, value_of, old, new, .. } in RENAMED {
        let properties = &schema["$defs"][of]["properties"];
        if value_of.is_some() {
            let old_one = &schema["$defs"]["Reads"]["oneOf"].as_array().unwrap().last().unwrap();
            assert_eq!((&old_one["const"], &old_one["deprecated"]), (&json!(old), &json!(true)));
            assert!(table.contains(&format!(": {old}` | `")), "{old}");
            continue;
        }
        let kind = |name: &str| {
            let mut kind = properties[name].clone();
            kind.as_object_mut().unwrap_or_else(|| panic!("{of}: {name}")).remove("description");
            kind.as_object_mut().unwrap().remove("deprecated");
            kind
        };
        assert_eq!(properties[old]["deprecated"], true, "{of}: {old}");
        assert_eq!(kind(old), kind(new));
        assert!(table.contains(&format!("| `{old}` | `{new}` |")), "{old}");
        let section = keys.split("\n## ").find(|section| section.starts_with(&format!("{of}\n")));
        let section = section.unwrap_or_else(|| panic!("no {of}"));
        assert!(!section.contains(&format!("| `{old}` |")), "{of}: {old}");
        assert!(section.contains(&format!("| `{new}` |")), "{of}: {new}");
    }
}

#[test]
fn an_included_file_may_have_old_names_and_the_main_one_new_ones() {
    struct Two;
    impl Files for Two {
        fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            Ok(match path.to_str() {
                Some("main") => {
                    "version: stagedoor/v1\ninclude: [more]\n\
                    listeners: {edge: {kind: reverse, address: '127.0.0.1:1'}}\n\
                    rate_limit: {per_workspace: {rate: 7/m}}\n"
                }
                _ => "rate_limit:\n  each_caller: {rate: 8/m}\n",
            }
            .as_bytes()
            .to_vec())
        }
        fn list(&self, _: &Pattern) -> std::io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }
    let loaded = load_from(Path::new("main"), &Two, &|_| None).unwrap();
    let warnings: Vec<String> = of_old_names(&loaded);
    assert!(
        warnings[0].starts_with("more:2:3: `each_caller` is now called `per_caller`"),
        "{warnings:?}"
    );
    let Config { rate_limit, .. } = loaded.config;
    assert_eq!(rate_limit.per_workspace.rate.to_string(), "7/m");
    assert_eq!(rate_limit.per_caller.map(|limit| limit.rate.to_string()).as_deref(), Some("8/m"));
}

#[test]
fn many_old_names_are_not_all_listed() {
    let routes: String = (0..300)
        .map(|n| format!("- {{name: r{n}, methods: [GET], path: /r{n}, upstream: up, class: read, options: {{timeouts: {{whole: 1s}}}}}}\n"))
        .collect();
    let text = format!(
        "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
         upstreams: {{up: {{url: 'http://127.0.0.1:2'}}}}\nroutes:\n{routes}"
    );
    let loaded = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(of_old_names(&loaded).len(), LISTED_MAX);
    let more = loaded.warnings.iter().filter(|warning| warning.message.contains("more old names"));
    assert_eq!(more.count(), 1);
}
