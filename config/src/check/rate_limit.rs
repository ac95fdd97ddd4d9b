//! Buckets: those that routes name, and those that are written.

use super::Findings;
use crate::{BUCKETS, Config, Name};

pub(super) fn check(config: &Config, found: &mut Findings) {
    if found.cuts.touch(&["rate_limit"]) {
        return;
    }
    let written = &config.rate_limit.buckets;
    let shipped = |name: &Name| BUCKETS.iter().any(|shipped| *shipped.name == **name);
    let routes = config.all_routes();
    for route in &routes {
        let Some(bucket) = &route.options.bucket else { continue };
        if !written.contains_key(bucket) && !shipped(bucket) {
            let names = written.keys().map(|name| &**name);
            let names: Vec<&str> =
                names.chain(BUCKETS.iter().map(|shipped| shipped.name)).collect();
            let hint = crate::de::suggestion(bucket, &names);
            found.problem(
                &route.place,
                format!(
                    "no bucket `{bucket}`, which route `{}` names; add it to `rate_limit.buckets`, or: {hint}",
                    route.name
                ),
            );
        }
    }
    if found.cuts.touch(&["routes"]) || found.cuts.touch(&["presets"]) {
        return;
    }
    for (name, limit) in written {
        let used = routes.iter().any(|route| route.options.bucket.as_ref() == Some(name));
        if !used && !shipped(name) {
            let names: Vec<&str> = BUCKETS.iter().map(|shipped| shipped.name).collect();
            let hint = crate::de::suggestion(name, &names);
            found.problem(
                &limit.place,
                format!("no route is in bucket `{name}`; give one `bucket: {name}`, or: {hint}"),
            );
        }
    }
}
