//! A call on record, decided again.

use std::net::IpAddr;

use super::{
    Decided, Replay, Was, Why, facts,
    record::{Record, Text},
};
use crate::{
    Denial, Exchange, Now,
    egress::{
        client_hello::{ClientHello, Peek},
        target::Target,
    },
    identity::Proof,
    pipeline::forward::{self, Call},
};

impl Replay {
    pub(super) fn call(
        &mut self,
        record: &Record<'_>,
        listener: usize,
        target: &str,
        now: Now,
    ) -> Result<Decided, Why> {
        let target = Target::of_connect(target.as_bytes()).map_err(|_| Why::InPart)?;
        let proof = facts::proof_of(record)?;
        let supposed = self.supposed(record, proof)?;
        let is_nobody = &*record.code == "caller_missing";
        let mut exchange = Exchange::default();
        if supposed.is_none() && proof == Some(Proof::Password) {
            // A caller that was removed from the config has no password any more.
            let denial = Some(Denial::PasswordWrong);
            return Ok(Decided { exchange, denial, unjudged: None });
        }
        let certificate = record.certificate.as_ref().map(facts::certificate);
        let call = Call {
            listener,
            peer: record.client.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])),
            certificate: certificate.as_ref(),
            authorization: &[],
            target: &target,
        };
        let (policy, state, caller) = (&self.policy, &self.state, supposed.as_ref());
        let decided = forward::decide_supposing(caller, policy, state, &call, now, &mut exchange);
        let named = match decided {
            Ok(named) => named,
            Err(_) if exchange.caller.is_none() && !is_nobody && proof.is_none() => {
                return Err(Why::NoCaller);
            }
            Err(denial) => return Ok(Decided { exchange, denial: Some(denial), unjudged: None }),
        };
        if proof.is_none() && !is_nobody {
            // The presented credential was refused; that the listener accepts anyone does not matter.
            return Err(Why::NoCaller);
        }
        if record.resolved.is_empty() && record.parent.is_none() {
            return match record.was() {
                Was::Denied => {
                    Ok(Decided { exchange, denial: None, unjudged: Some("its addresses") })
                }
                _ => Err(Why::Unknown),
            };
        }
        let ips = |all: &[Text<'_>]| -> Result<Vec<IpAddr>, Why> {
            all.iter().map(|ip| ip.parse().map_err(|_| Why::Unknown)).collect()
        };
        let (found, own) = (ips(&record.resolved)?, ips(&record.resolved_own)?);
        let addressed = match &record.parent {
            // The parent proxy resolved its name.
            Some(parent) if found.is_empty() => {
                named.pass_on(policy, &facts::label(parent), &own, now, &mut exchange)
            }
            _ => named.choose(policy, &found, &own, now, &mut exchange),
        };
        let addressed = match addressed {
            Ok(addressed) if addressed.must_be_tls(policy) => addressed,
            other => return Ok(Decided { exchange, denial: other.err(), unjudged: None }),
        };
        let peek = match record.hello.as_deref() {
            _ if &*record.method != "CONNECT" => Peek::NotTls,
            Some("tls") => Peek::Hello(ClientHello {
                server_name: record.server_name.as_deref().map(str::to_owned),
                encrypted: record.encrypted_client_hello,
            }),
            Some("not_tls") => Peek::NotTls,
            Some("malformed") => Peek::Malformed("it could not be parsed"),
            Some(_) => return Err(Why::Unknown),
            None if record.was() == Was::Denied => {
                let unjudged = Some("what the client says first");
                return Ok(Decided { exchange, denial: None, unjudged });
            }
            // It was refused before that.
            None if &*record.code != "ok" => {
                return Ok(Decided { exchange, denial: None, unjudged: None });
            }
            None => return Err(Why::Hello),
        };
        let denial = addressed.hello(policy, &peek, &mut exchange).err();
        Ok(Decided { exchange, denial, unjudged: None })
    }
}
