//! What a drill breaks, how, and what for.

use std::{fs, net::Ipv4Addr, time::Duration};

use clap::ValueEnum;
use config::Config;
use http::StatusCode;
use serde::Serialize;

use super::{
    aims::{Credential, Nature},
    ask::Call,
    child, copy,
    http::Mood,
    names, redis,
    stand_ins::TRAP,
    test_bed::TestBed,
    tokens::Mint,
};

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// Upstreams and called hosts respond two seconds late.
    UpstreamSlow,
    /// They respond with 500.
    #[serde(rename = "upstream-500")]
    #[value(name = "upstream-500")]
    Upstream500,
    /// They break every connection after a request.
    UpstreamReset,
    /// The certificates of upstreams and called hosts have expired.
    CertExpired,
    /// Our own certificates have expired.
    OwnCertExpired,
    /// Issuers break every connection; callers use new tokens.
    IdpDown,
    /// Issuers respond one and a half seconds late, with new keys.
    IdpSlow,
    /// Issuers sign with new keys.
    JwksRotated,
    /// Every name resolves to a metadata address, a private network and this machine.
    DnsPoison,
    /// Nothing can be written to the audit folder.
    AuditFull,
    /// The Redis that shares limits is down.
    RedisDown,
    /// The config is replaced with a broken one and reloaded.
    ReloadBroken,
}

const LATE: Duration = Duration::from_secs(2);
/// Requests wait up to 3 s for an issuer.
const ISSUER_LATE: Duration = Duration::from_millis(1500);
/// The metadata service of clouds.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Addresses of private networks, of which the first one is used that the config does not allow.
const PRIVATE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 66, 66, 66),
    Ipv4Addr::new(172, 31, 66, 66),
    Ipv4Addr::new(192, 168, 66, 66),
];
/// Names of upstreams are resolved every 5 s.
const LOOKUP_TIME: Duration = Duration::from_secs(8);

impl Fault {
    /// Why it cannot happen with this config, if so.
    pub(super) fn cannot_be(self, config: &Config) -> Option<&'static str> {
        let issuers = config.identity.issuers.values();
        let asked = issuers.filter(|i| i.keys.file.is_none() && i.keys.secret_file.is_none());
        let mut listeners = config.listeners.values();
        let forward = listeners.clone().any(|l| l.kind == config::ListenerKind::Forward);
        let external =
            |upstream: &config::Upstream| upstream.external && upstream.url.ip().is_none();
        let (may_be, why) = match self {
            Self::IdpDown | Self::IdpSlow | Self::JwksRotated => {
                (asked.count() > 0, "no issuer's keys are fetched")
            }
            Self::CertExpired => (
                forward || config.upstreams.values().any(|upstream| upstream.url.tls),
                "nothing is called over TLS",
            ),
            Self::OwnCertExpired => (
                listeners
                    .any(|listener| listener.tls.is_some() && copy::is_for_callers(listener.kind)),
                "no listener has TLS",
            ),
            Self::DnsPoison => (
                forward || config.upstreams.values().any(|upstream| external(upstream)),
                "no external name is resolved",
            ),
            Self::AuditFull => (child::can_be_full(), "this needs `/bin/sh`, which is missing"),
            Self::RedisDown if config.store.is_none() => (false, "limits are not shared"),
            Self::RedisDown => (redis::program().is_some(), "no redis-server on the PATH"),
            _ => (true, ""),
        };
        (!may_be).then_some(why)
    }

    /// Whether it can affect requests of this nature.
    pub(super) fn touches(self, nature: Nature) -> bool {
        match self {
            Self::DnsPoison => nature.resolved,
            Self::CertExpired => nature.their_tls,
            Self::OwnCertExpired => nature.own_tls,
            _ => true,
        }
    }

    /// Whether it can affect requests with this caller.
    pub(super) fn touches_whom(self, call: &Call, mint: &Mint) -> bool {
        let (Call::Request { credential, .. } | Call::Out { credential, .. }) = call;
        match self {
            Self::IdpDown | Self::IdpSlow | Self::JwksRotated => {
                matches!(credential, Credential::Token { issuer, .. } if mint.is_asked(issuer))
            }
            _ => true,
        }
    }

    /// Whether every connection of the load must be a new one, for the fault to be seen.
    pub(super) fn is_of_connections(self) -> bool {
        self == Self::OwnCertExpired
    }

    /// Whether it must not cause refusals.
    pub(super) fn must_not_matter(self) -> bool {
        use Fault::*;
        matches!(self, IdpDown | IdpSlow | JwksRotated | ReloadBroken)
    }

    /// How long it lasts, if `asked` is requested.
    pub(super) fn lasts(self, asked: Duration, config: &Config) -> Duration {
        let external = config.upstreams.values().any(|upstream| upstream.external);
        if self == Self::DnsPoison && external { asked.max(LOOKUP_TIME) } else { asked }
    }

    /// Breaks it.
    pub(super) async fn begin(self, test_bed: &mut TestBed) -> Result<(), String> {
        let stand_ins = &test_bed.stand_ins;
        match self {
            Self::UpstreamSlow => _ = stand_ins.upstreams.send_replace(Mood::Late(LATE)),
            Self::Upstream500 => {
                let failing = Mood::Failing(StatusCode::INTERNAL_SERVER_ERROR);
                stand_ins.upstreams.send_replace(failing);
            }
            Self::UpstreamReset => _ = stand_ins.upstreams.send_replace(Mood::Resetting),
            Self::CertExpired => stand_ins.show_expired(),
            Self::OwnCertExpired => {
                test_bed.write_certificates(Validity::Expired)?;
                test_bed.child.reload().await?;
            }
            Self::IdpDown => _ = stand_ins.issuers.send_replace(Mood::Away),
            Self::IdpSlow => {
                test_bed.rotate().await?;
                test_bed.stand_ins.issuers.send_replace(Mood::Late(ISSUER_LATE));
            }
            Self::JwksRotated => test_bed.rotate().await?,
            Self::DnsPoison => {
                let poison = poison(&test_bed.copy.config);
                test_bed.set_trap()?;
                test_bed.stand_ins.names.send_replace(poison);
            }
            Self::AuditFull => {
                test_bed.child.fill_disk().map_err(|e| format!("cannot limit files: {e}"))?;
            }
            Self::RedisDown => test_bed.end_redis().await?,
            Self::ReloadBroken => {
                let broken = "version: stagedoor/v1\nlisteners: {";
                write(&test_bed.copy.file, broken)?;
                if test_bed.child.reload().await? {
                    test_bed.broken.push("a broken config was applied".to_owned());
                }
            }
        }
        Ok(())
    }

    /// Mends it.
    pub(super) async fn end(self, test_bed: &mut TestBed) -> Result<(), String> {
        let stand_ins = &test_bed.stand_ins;
        match self {
            Self::UpstreamSlow | Self::Upstream500 | Self::UpstreamReset => {
                stand_ins.upstreams.send_replace(Mood::Well);
            }
            Self::CertExpired => stand_ins.show_good(),
            Self::OwnCertExpired => {
                test_bed.write_certificates(Validity::Good)?;
                test_bed.child.reload().await?;
            }
            Self::IdpDown | Self::IdpSlow => _ = stand_ins.issuers.send_replace(Mood::Well),
            Self::DnsPoison => _ = stand_ins.names.send_replace(vec![names::HOME]),
            Self::AuditFull => {
                test_bed.child.empty_disk().map_err(|e| format!("cannot lift a limit: {e}"))?;
            }
            Self::ReloadBroken => {
                test_bed.copy.write_again()?;
                if !test_bed.child.reload().await? {
                    test_bed.broken.push("the good config was not applied again".to_owned());
                }
            }
            Self::RedisDown => test_bed.begin_redis().await?,
            Self::JwksRotated => {}
        }
        Ok(())
    }

    /// A setting in the config that breaks a promise by itself.
    pub(super) fn allowed(self, written: &Config) -> Option<String> {
        let allows = self == Self::DnsPoison && is_private(written, METADATA);
        allows.then(|| format!("`egress.private` lets a host have {METADATA}"))
    }
}

/// Whether a certificate is good.
#[derive(Clone, Copy)]
pub(super) enum Validity {
    Good,
    Expired,
}

/// Addresses that a name must not have. What the config allows on purpose is not among them, for it
/// would really be called.
fn poison(config: &Config) -> Vec<Ipv4Addr> {
    let mut poison = Vec::new();
    if !is_private(config, METADATA) {
        poison.push(METADATA);
    }
    // Where rules are only tried out, private networks are open.
    if !config.listeners.values().any(|listener| listener.report_only) {
        poison.extend(PRIVATE.into_iter().find(|ip| !is_private(config, *ip)));
    }
    poison.push(TRAP);
    poison
}

/// Whether `egress.private` lets a host have an address.
fn is_private(config: &Config, ip: Ipv4Addr) -> bool {
    let nets = config.egress.private.iter().flat_map(|private| &private.value.addresses);
    nets.into_iter().any(|net| net.contains(&std::net::IpAddr::V4(ip)))
}

fn write(file: &std::path::Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("cannot write `{}`: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_poison_is_never_what_the_config_allows() {
        let check = |more: &str, expected: &[&str]| {
            let text = format!(
                "version: stagedoor/v1\nlisteners: {{o: {{kind: forward, address: '127.0.0.1:1', plugin: x{more}\n"
            );
            let loaded = config::parse("s.yaml", &text).unwrap_or_else(|wrong| panic!("{wrong}"));
            let found: Vec<String> =
                poison(&loaded.config).iter().map(Ipv4Addr::to_string).collect();
            assert_eq!(found, expected, "{more}");
        };
        check("}}", &["169.254.169.254", "10.66.66.66", "127.66.66.66"]);
        check(", report_only: true}}", &["169.254.169.254", "127.66.66.66"]);
        let private = |net: &str| {
            format!("}}}}\negress: {{private: [{{host: a.example, addresses: [{net}]}}]}}")
        };
        check(&private("10.0.0.0/8"), &["169.254.169.254", "172.31.66.66", "127.66.66.66"]);
        check(&private("169.254.0.0/16"), &["10.66.66.66", "127.66.66.66"]);
    }
}
