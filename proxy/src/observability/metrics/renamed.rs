//! Metrics that have a new name, under their old one too: for one version, so that alerts can be changed
//! one by one.

use prometheus::proto::MetricFamily;

/// Old names, with the new ones.
pub(crate) const RENAMED: [(&str, &str); 3] = [
    ("stagedoor_audit_ship_behind_seconds", "stagedoor_audit_ship_lag_seconds"),
    ("stagedoor_shared_answers_total", "stagedoor_shared_responses_total"),
    ("stagedoor_turn_wait_seconds_total", "stagedoor_pacing_delay_seconds_total"),
];

/// Adds what has an old name, with the same values.
pub(crate) fn add_old_names(families: &mut Vec<MetricFamily>) {
    for (old, new) in RENAMED {
        let Some(at) = families.iter().position(|family| family.name() == new) else { continue };
        let mut family = families[at].clone();
        family.set_name(old.to_owned());
        family.set_help(format!("Renamed to {new}"));
        families.push(family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_new_name_is_also_there_under_the_old_one_with_the_same_values() {
        let registry = prometheus::Registry::new();
        for (_, new) in RENAMED {
            let gauge = prometheus::IntGauge::new(new, "what it is").unwrap();
            gauge.set(7);
            registry.register(Box::new(gauge)).unwrap();
        }
        let mut families = registry.gather();
        add_old_names(&mut families);
        assert_eq!(families.len(), 2 * RENAMED.len());
        for (old, new) in RENAMED {
            let of = |name| families.iter().find(|family| family.name() == name).unwrap();
            assert_eq!(of(old).get_metric(), of(new).get_metric());
            assert_eq!(of(old).get_field_type(), of(new).get_field_type());
            assert_eq!(of(old).help(), format!("Renamed to {new}"));
        }
    }
}
