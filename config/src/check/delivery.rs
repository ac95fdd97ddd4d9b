//! An upstream that decides about delivery keeps its authority: its admin surface stays closed.

use super::Findings;
use crate::{Authority, Config, Method, PathTemplate, Preset, PresetState, Segment};

pub(super) fn check(config: &Config, found: &mut Findings) {
    for (used, preset) in config.presets_used() {
        let authority = config.upstreams.get(&used.upstream.value).map(|u| u.authority);
        if preset.authority == Authority::Delivery && authority == Some(Authority::None) {
            found.problem(
                &used.upstream.place,
                format!(
                    "upstream `{}` has preset `{}`; write `authority: delivery` there",
                    used.upstream.value, *used.preset
                ),
            );
        }
    }
    let delivers =
        |name: &str| config.upstreams.get(name).is_some_and(|u| u.authority == Authority::Delivery);
    // What is closed for good is known by its path here, which must be its path there.
    for upstream in config.upstreams.values() {
        if upstream.authority == Authority::Delivery && !upstream.url.path.is_empty() {
            found.problem(
                &upstream.url.place,
                format!(
                    "requests to the control plane go to its root; remove `{}`",
                    upstream.url.path
                ),
            );
        }
    }
    for route in config.all_routes().iter().filter(|route| delivers(&route.upstream.value)) {
        if route.options.strip_prefix.is_some() {
            found.problem(
                &route.place,
                format!("route `{}` goes to the control plane, where requests go to the root; remove `strip_prefix` and give the route its own host or listener", route.name),
            );
        }
    }
    let dxcp = Preset::named("dxcp").expect("the preset `dxcp` is shipped");
    for route in config.routes.iter().filter(|route| delivers(&route.upstream.value)) {
        if route.options.closed {
            continue;
        }
        let opened =
            dxcp.routes.iter().filter(|row| row.state == PresetState::Closed).find(|row| {
                methods_meet(&row.methods, &route.methods) && overlap(&row.path, &route.path)
            });
        if let Some(row) = opened {
            found.problem(
                &route.place,
                format!(
                    "route `{}` would open `{}` of the control plane, which is closed for good; narrow its path or methods",
                    route.name, row.path
                ),
            );
        }
    }
}

fn methods_meet(a: &[Method], b: &[Method]) -> bool {
    a.contains(&Method::Any) || b.contains(&Method::Any) || a.iter().any(|m| b.contains(m))
}

/// Whether some path fits both templates.
fn overlap(a: &PathTemplate, b: &PathTemplate) -> bool {
    let fits = |a: &Segment, b: &Segment| match (a, b) {
        (Segment::Text(a), Segment::Text(b)) => a == b,
        _ => true,
    };
    let common = a.segments.iter().zip(&b.segments).all(|(a, b)| fits(a, b));
    let reaches = |long: &PathTemplate, short: &PathTemplate| {
        long.segments.len() == short.segments.len() || short.open_ended
    };
    common && if a.segments.len() >= b.segments.len() { reaches(a, b) } else { reaches(b, a) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_overlap_when_some_path_fits_both() {
        let check = |a: &str, b: &str, expected: bool| {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!((overlap(&a, &b), overlap(&b, &a)), (expected, expected), "{a} {b}");
        };
        check("/v1/**", "/v1/admin/x", true);
        check("/v1/{a}", "/v1/recipes", true);
        check("/v1/{a}", "/v1/recipes/{id}", false);
        check("/v1/services", "/v1/recipes", false);
        check("/**", "/v1/recipes", true);
        check("/{a}/**", "/v1", true);
    }
}
