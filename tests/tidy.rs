//! What the compiler cannot check: that pages, docs and code agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs};

fn text(folder: &str, ending: &str) -> String {
    let files = tests::files(&tests::root().join(folder), ending);
    assert!(!files.is_empty(), "{folder} has no {ending}");
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The codes in a file's tables of denials: texts of one word after an arrow, or after a status.
fn codes(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(tests::root().join(file)).unwrap();
    let table = text.split("mod tests").next().unwrap();
    let parts: Vec<&str> = table.split('"').collect();
    let pairs = parts.chunks_exact(2).map(|pair| (pair[0].trim_end(), pair[1]));
    let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let follows = |before: &str| {
        let status = before.strip_suffix(',').and_then(|before| before.rsplit('(').next());
        before.ends_with("=>")
            || status
                .is_some_and(|status| status.starts_with("S::") || status.parse::<u16>().is_ok())
    };
    let codes = pairs.filter(|(before, text)| is_word(text) && follows(before));
    codes.map(|(_, code)| code.to_owned()).collect()
}

/// Whether a text contains it as a word.
fn tells(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_part(c)).any(|part| part == word)
}

#[test]
fn every_denial_has_a_page() {
    let pages = text("tests/scenarios", ".md");
    let tables = [
        "filters/src/denial.rs",
        "filters/src/denial/token_fault.rs",
        "proxy/src/data_plane/listener/request_head.rs",
    ];
    let codes: BTreeSet<String> = tables.into_iter().flat_map(codes).collect();
    // A code, once released, keeps its name and its meaning: what is taken out or renamed here is
    // in the changelog, and taken for one version more.
    let listed = fs::read_to_string(tests::root().join("tests/codes.txt")).unwrap();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let unlisted: Vec<_> = codes.symmetric_difference(&listed).collect();
    assert!(unlisted.is_empty(), "tests/codes.txt and the tables differ in {unlisted:?}");
    let missing: Vec<_> = codes.iter().filter(|code| !tells(&pages, code)).collect();
    assert!(missing.is_empty(), "no page tells of {missing:?}");
}

#[test]
fn the_manual_and_the_schema_are_those_of_the_code() {
    let check = |path: &str, made: String| {
        let path = tests::root().join(path);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == made,
            "{} is not up to date: UPDATE=1 cargo test -p tests",
            path.display()
        );
    };
    check("docs/config.md", config::markdown());
    check("docs/config.schema.json", config::json_schema());
    check("docs/control.schema.json", config::control_schema());
}

#[test]
fn decisions_know_no_network_and_no_file() {
    let manifest = fs::read_to_string(tests::root().join("filters/Cargo.toml")).unwrap();
    for name in ["pingora", "tokio", "reqwest", "hickory-resolver"] {
        assert!(!manifest.contains(name), "filters depends on {name}");
    }
    let code = text("filters/src", ".rs");
    for word in ["std::fs", "std::env", "SystemTime::now", "Instant::now", "TcpStream"] {
        assert!(!code.contains(word), "filters uses {word}");
    }
}

/// The groups of `filters`, from the top down, as its `lib.rs` lists them.
const GROUPS: [&[&str]; 6] = [
    &["audit"],
    &["pipeline"],
    &["checks", "limits", "response", "upstream"],
    &["egress", "identity", "request"],
    &["denial"],
    &["types"],
];

#[test]
fn modules_import_only_from_below() {
    let source = tests::root().join("filters/src");
    let floor = |group: &str| GROUPS.iter().position(|floor| floor.contains(&group));
    let mut imports: BTreeSet<(String, String)> = BTreeSet::new();
    for path in tests::files(&source, ".rs") {
        let within = path.strip_prefix(&source).unwrap().to_str().unwrap();
        let group = within.split(['/', '.']).next().unwrap();
        if group == "lib" || within.contains("tests") {
            continue;
        }
        floor(group).unwrap_or_else(|| panic!("{within} is in no group"));
        let text = fs::read_to_string(&path).unwrap();
        let code: String = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
        for import in code.split("mod tests {").next().unwrap().split("crate::").skip(1) {
            imports.extend(roots(import).into_iter().map(|root| (group.to_owned(), root)));
        }
    }
    // Within a floor there is an order as well: no module imports one that imports it.
    let upward = |(from, to): &&(String, String)| match (floor(from), floor(to)) {
        (Some(own), Some(other)) if from != to => {
            other < own || imports.contains(&(to.clone(), from.clone()))
        }
        _ => false,
    };
    let upward: Vec<_> = imports.iter().filter(upward).collect();
    assert!(upward.is_empty(), "{upward:?}");
    assert!(imports.contains(&("pipeline".into(), "limits".into())), "imports have moved");
}

/// What an import names first, after `crate::`: one name, or several in braces.
fn roots(import: &str) -> Vec<String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let word = |text: &str| text.trim_start().chars().take_while(is_name).collect();
    let Some(list) = import.strip_prefix('{') else { return vec![word(import)] };
    let (mut depth, mut roots) = (1, vec![word(list)]);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => roots.push(word(&list[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    roots
}

#[test]
fn only_explain_supposes_a_caller() {
    let proxy = tests::files(&tests::root().join("proxy"), ".rs");
    for path in proxy.iter().filter(|path| !path.ends_with("cli/src/explain.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let supposes = |word: &&str| text.contains(*word);
        let found = ["supposed", "supposing", "Supposed"].into_iter().find(supposes);
        assert_eq!(found, None, "{} supposes a caller", path.display());
    }
}

#[test]
fn a_room_of_the_proxy_imports_only_from_those_above_it() {
    let source = tests::root().join("proxy/src");
    let rooms = fs::read_to_string(source.join("lib.rs")).unwrap();
    let rooms: Vec<&str> =
        rooms.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(rooms.contains(&"data_plane") && rooms.last() == Some(&"serve"), "{rooms:?}");
    for path in tests::files(&source, ".rs") {
        let file = path.strip_prefix(&source).unwrap().with_extension("");
        let own = file.components().next().unwrap().as_os_str().to_str().unwrap();
        let Some(own_at) = rooms.iter().position(|room| *room == own) else { continue };
        let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
        for room in &rooms[own_at + 1..] {
            // As a path, and as a member of `use crate::{...}`: nested paths begin with a room, too.
            let imports = [format!("crate::{room}::"), format!("crate::{room};")];
            let used = imports.iter().any(|import| text.contains(import))
                || text.split("usecrate::{").skip(1).any(|group| {
                    let group = group.split("};").next().unwrap();
                    group.split(['{', ',']).any(|member| member.starts_with(&format!("{room}::")))
                });
            assert!(!used, "{} imports from {room}, which is below {own}", file.display());
        }
    }
}

#[test]
fn what_leads_out_is_in_places_that_know_the_parent_proxy() {
    let check = |word: &str, expected: &[&str]| {
        let source = tests::root().join("proxy/src");
        let mut found: Vec<String> = tests::files(&source, ".rs")
            .iter()
            .filter(|path| {
                let text = fs::read_to_string(path).unwrap();
                text.split("mod tests {").next().unwrap().contains(word)
            })
            .map(|path| path.strip_prefix(&source).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, expected, "{word}");
    };
    check("TcpStream::connect(", &["net/dial.rs"]);
    check("reqwest::Client::", &["net/fetch.rs"]);
    check("HttpPeer::new(", &["data_plane/forward/plain.rs", "net/parent.rs", "upstream.rs"]);
    check(".peer_to_check(", &["upstream/health.rs"]);
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let root = tests::root();
    let mut code = fs::read_to_string(root.join("proxy/src/observability/metrics.rs")).unwrap();
    code.push_str(&text("proxy/src/observability/metrics", ".rs"));
    let docs = fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let is_name = |text: &&str| {
        let prefixes = ["stagedoor_", "plugins_", "backstage_"];
        prefixes.iter().any(|prefix| text.starts_with(prefix))
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let quoted = |text: &str, quote: char| -> BTreeSet<String> {
        text.split(quote).filter(is_name).map(str::to_owned).collect()
    };
    let (made, told) = (quoted(&code, '"'), quoted(&docs, '`'));
    let differ: Vec<_> = made.symmetric_difference(&told).collect();
    assert!(differ.is_empty(), "docs/metrics.md and the code differ in {differ:?}");
    assert!(made.contains("stagedoor_requests_total"), "metrics have moved: {made:?}");
}

#[test]
fn the_examples_are_valid() {
    let folder = tests::root().join("examples");
    let examples = tests::files(&folder, ".yaml");
    let names: Vec<_> = examples.iter().map(|path| path.file_stem().unwrap()).collect();
    assert_eq!(names, ["edge", "egress", "external", "shared", "sidecar"]);
    for path in examples {
        if let Err(problems) = config::load(&path, &|_| None) {
            panic!("{problems}");
        }
    }
}

/// The cells of a table's lines in a part of a page, without their head.
fn table<'a>(part: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let lines = part.lines().skip_while(|line| *line != head).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The text in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_closed_row_of_a_preset_has_a_line_in_the_manual_that_opens_it_or_says_what_instead() {
    let page = fs::read_to_string(tests::root().join("docs/backstage.md")).unwrap();
    let mut told = Vec::new();
    for row in table(&page, "| you have | preset | write |") {
        let [_, preset, write] = row[..] else { panic!("{row:?}") };
        let [preset] = quoted(preset)[..] else { panic!("{row:?}") };
        for line in quoted(write) {
            let names = line.strip_prefix("open: [").and_then(|names| names.strip_suffix(']'));
            for name in names.unwrap_or_else(|| panic!("{line}")).split(", ") {
                told.push((preset.to_owned(), name.to_owned(), config::PresetState::OptIn));
            }
            // The line does open them.
            let (authority, hosts) = match preset {
                "dxcp" => (", authority: delivery", ", hosts: [dxcp.example]"),
                _ => ("", ""),
            };
            let yaml = format!(
                "version: stagedoor/v1\nlisteners: {{edge: {{kind: reverse, address: '127.0.0.1:1'}}}}\n\
                 identity: {{issuers: {{idp: {{issuer: 'https://idp.example', audiences: [a]}}}}}}\n\
                 workspaces: {{named: {{payments: {{}}}}}}\n\
                 upstreams: {{portal: {{url: 'http://127.0.0.1:2'{authority}}}}}\n\
                 presets: [{{preset: {preset}, upstream: portal{hosts}, {line}}}]\n"
            );
            let loaded = config::parse("a.yaml", &yaml);
            assert!(loaded.is_ok(), "{preset} {line}: {:?}", loaded.err());
        }
    }
    for row in table(&page, "| what | preset | rows | instead |") {
        let [_, presets, rows, _] = row[..] else { panic!("{row:?}") };
        for preset in quoted(presets) {
            for name in quoted(rows) {
                told.push((preset.to_owned(), name.to_owned(), config::PresetState::Closed));
            }
        }
    }
    let stands_for = |told: &str, name: &str| match told.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => told == name,
    };
    let mut rows = Vec::new();
    for (preset, _) in config::SHIPPED {
        for route in config::Preset::named(preset).unwrap().routes {
            if route.state != config::PresetState::Open {
                rows.push(((*preset).to_owned(), route.name.to_string(), route.state));
            }
        }
    }
    assert!(rows.len() > 80, "the presets have moved: {rows:?}");
    let missing: Vec<_> = rows
        .iter()
        .filter(|(preset, name, state)| {
            !told
                .iter()
                .any(|(of, told, as_)| of == preset && stands_for(told, name) && as_ == state)
        })
        .collect();
    assert!(missing.is_empty(), "docs/backstage.md does not tell of {missing:?}");
    let idle: Vec<_> = told
        .iter()
        .filter(|(of, told, as_)| {
            !rows
                .iter()
                .any(|(preset, name, state)| of == preset && stands_for(told, name) && as_ == state)
        })
        .collect();
    assert!(idle.is_empty(), "docs/backstage.md tells of rows that are not so: {idle:?}");
}
