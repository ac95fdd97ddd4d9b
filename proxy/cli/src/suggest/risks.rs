//! What a reviewer should know before allowing a host.

use std::net::IpAddr;

use filters::addresses::AddressClass;

use super::{
    calls::{Tally, Where},
    context::Context,
};
use crate::counted;

/// Names as short as this are near to too many others.
const NEAR_MIN: usize = 5;

/// The notes on a proposed host.
pub(super) fn of(place: &Where, tally: &Tally, context: &Context<'_>) -> Vec<String> {
    let mut risks = Vec::new();
    let rule = place.rule();
    let host = &*place.host;
    if let Some(above) = config::rentable_above(host) {
        risks.push(format!(
            "anyone can register a name under {above}: make sure that this one is yours"
        ));
    }
    if rule.ip().is_some() {
        risks.push("an address, not a name: its next owner gets the calls".to_owned());
    }
    if host.split('.').any(|label| label.starts_with("xn--")) {
        risks.push("punycode: it is displayed with other letters".to_owned());
    }
    if let Some(known) = look_alike(host, context) {
        risks.push(format!("a look-alike of {known}?"));
    }
    if tally.plain > 0 {
        risks.push("plain HTTP: anyone on the network path can read and change it".to_owned());
    } else if !context.egress.tls_ports.contains(&place.port) {
        risks.push(format!(
            "port {} is not in `egress.tls_ports`: its tunnels are not inspected",
            place.port
        ));
    }
    if tally.by_address > 0 {
        risks.push(format!("refused by its address, {}", counted(tally.by_address, "time")));
    }
    for ip in tally.addresses.some.iter().chain(&rule.ip()) {
        if let Some(class) = context.refuses(place, *ip) {
            risks.push(private(place, *ip, class));
        }
    }
    if tally.calls == 1 {
        risks.push("seen only once".to_owned());
    }
    risks.dedup();
    risks
}

/// What to write for an address that is refused.
pub(super) fn private(place: &Where, ip: IpAddr, class: AddressClass) -> String {
    let net = ipnet::IpNet::from(ip);
    format!(
        "{ip} is {}, so it stays refused; if this is intended, add to `egress.private`: {{host: \"{}\", addresses: [\"{net}\"]}}",
        class.name(),
        place.rule()
    )
}

/// The registered name of a known host that this one's is only one letter away from.
fn look_alike<'a>(host: &str, context: &'a Context<'_>) -> Option<&'a str> {
    let own = config::registered(host)?;
    let shown = idna::domain_to_unicode(own).0;
    let near = |known: &str| {
        known.len() >= NEAR_MIN && known != own && strsim::osa_distance(known, &shown) == 1
    };
    context.known.iter().map(String::as_str).find(|known| near(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_the_notes_that_are_true_of_it() {
        let context = Context::of(None);
        let check = |host: &str, port: u16, tally: &Tally, expected: &[&str]| {
            let place = Where { host: host.to_owned(), port };
            let risks = of(&place, tally, &context);
            assert_eq!(risks.len(), expected.len(), "{host}: {risks:?}");
            for (risk, expected) in risks.iter().zip(expected) {
                assert!(risk.contains(expected), "{host}: {risks:?}");
            }
        };
        let often = Tally { calls: 2, ..Tally::default() };
        let mut inside = often.clone();
        inside
            .addresses
            .some
            .extend(["10.2.3.4", "8.8.8.8"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        check("api.github.com", 443, &often, &[]);
        check("acme.blob.core.windows.net", 443, &often, &["under blob.core.windows.net"]);
        check("8.8.8.8", 443, &often, &["an address"]);
        check("10.1.1.1", 443, &often, &["an address", "10.1.1.1 is private"]);
        check("xn--gthub-n4a.com", 443, &often, &["punycode", "look-alike of github.com"]);
        check("api.githud.com", 443, &often, &["look-alike of github.com"]);
        check("a.example", 22, &often, &["port 22"]);
        check("a.example", 80, &Tally { calls: 9, plain: 1, ..often.clone() }, &["plain HTTP"]);
        check("a.example", 443, &Tally { calls: 1, ..often.clone() }, &["only once"]);
        check(
            "a.example",
            443,
            &Tally { by_address: 3, ..often.clone() },
            &["its address, 3 times"],
        );
        check("a.example", 443, &inside, &["addresses: [\"10.2.3.4/32\"]"]);
    }
}
