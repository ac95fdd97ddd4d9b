//! Which of an upstream's addresses a request goes to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use config::{Balance, BalanceKind, HashBy};

use crate::{
    Label,
    identity::Caller,
    request::client,
    upstream::rendezvous::{digest, mix},
};

/// An address to choose from.
pub trait Candidate {
    /// Its address.
    fn at(&self) -> SocketAddr;
    /// Its seed, for consistent hashing.
    fn seed(&self) -> u64;
    /// How many exchanges with it are in progress.
    fn in_flight(&self) -> usize;
}

/// The inputs for choosing an address.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// The algorithm.
    pub balance: Balance,
    /// The turn of the exchange.
    pub turn: usize,
    /// A random number, for [`BalanceKind::LeastRequest`].
    pub roll: u64,
    /// The hash key, for [`BalanceKind::ConsistentHash`].
    pub key: Option<u64>,
    /// Addresses that have failed the exchange.
    pub tried: &'a [SocketAddr],
}

/// One of these addresses that has not failed the exchange yet. `None` if there is none.
pub fn choose<'a, A: Candidate>(among: &'a [Arc<A>], pick: &Pick<'_>) -> Option<&'a Arc<A>> {
    match (pick.balance.kind, pick.key) {
        (BalanceKind::LeastRequest, _) => least_request(among, pick),
        (BalanceKind::ConsistentHash, Some(key)) => consistent_hash(among, key, pick),
        (BalanceKind::RoundRobin | BalanceKind::ConsistentHash, _) => {
            from(among, pick.turn).find(|address| pick.may(&***address))
        }
    }
}

/// The hash key of an exchange, if it has one.
pub fn key(
    by: HashBy,
    workspace: Option<&Label>,
    caller: Option<&Caller>,
    client: IpAddr,
) -> Option<u64> {
    match by {
        HashBy::Workspace => Some(digest([workspace?.as_bytes()])),
        HashBy::Caller => caller.map(|c| digest([c.issuer.as_bytes(), c.subject.as_bytes()])),
        // As in limits: the IPv6 addresses of one client count as one.
        HashBy::Client => Some(digest([client::network(client).to_be_bytes()])),
    }
}

impl Pick<'_> {
    fn may(&self, address: &impl Candidate) -> bool {
        !self.tried.contains(&address.at())
    }
}

/// All of them, beginning with the one whose turn it is.
fn from<A>(among: &[Arc<A>], turn: usize) -> impl Iterator<Item = &Arc<A>> {
    let (before, after) = among.split_at(turn.checked_rem(among.len()).unwrap_or(0));
    after.iter().chain(before)
}

/// Of two random ones, the one with fewer exchanges in progress: nearly as even as the best of all, and
/// without a rush to the same address.
fn least_request<'a, A: Candidate>(among: &'a [Arc<A>], pick: &Pick<'_>) -> Option<&'a Arc<A>> {
    let (first, second) = (pick.roll & 0xffff_ffff, pick.roll >> 32);
    let count = among.len();
    let first = usize::try_from(first).unwrap_or(0).checked_rem(count)?;
    // A different one than the first, if there is one.
    let apart = usize::try_from(second).unwrap_or(0).checked_rem(count - 1).map_or(0, |n| n + 1);
    let one = from(among, first).find(|address| pick.may(&***address))?;
    let other = from(among, first + apart).find(|address| pick.may(&***address)).unwrap_or(one);
    Some(if other.in_flight() < one.in_flight() { other } else { one })
}

/// Each address draws a number for each key, and the highest wins (rendezvous hashing): so a key
/// moves only if its address goes, or a new one draws higher.
fn consistent_hash<'a, A: Candidate>(
    among: &'a [Arc<A>],
    key: u64,
    pick: &Pick<'_>,
) -> Option<&'a Arc<A>> {
    let able = among.iter().filter(|address| pick.may(&***address));
    able.max_by_key(|address| mix(key ^ address.seed()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::health::Address;

    fn addresses(count: u8) -> Vec<Arc<Address>> {
        (1..=count).map(|n| Arc::new(Address::new(([10, 0, 0, n], 8080).into()))).collect()
    }

    fn pick(kind: BalanceKind) -> Pick<'static> {
        let balance = Balance { kind, by: None };
        Pick { balance, turn: 0, roll: 0, key: None, tried: &[] }
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..3000).map(|n| digest([format!("workspace-{n}")]))
    }

    #[test]
    fn round_robin_takes_turns_and_skips_what_failed() {
        let all = addresses(3);
        let at = |turn, tried: &[SocketAddr]| {
            let pick = Pick { turn, tried, ..pick(BalanceKind::RoundRobin) };
            choose(&all, &pick).map(|address| address.at)
        };
        let [a, b, c] = [all[0].at, all[1].at, all[2].at];
        assert_eq!([at(0, &[]), at(1, &[]), at(2, &[]), at(3, &[])], [a, b, c, a].map(Some));
        assert_eq!(at(1, &[b]), Some(c));
        assert_eq!(at(2, &[c, a]), Some(b));
        assert_eq!(at(0, &[a, b, c]), None);
        assert!(choose::<Address>(&[], &pick(BalanceKind::RoundRobin)).is_none());
    }

    #[test]
    fn the_one_with_fewer_exchanges_in_progress_is_chosen() {
        let all = addresses(2);
        let _busy = all[0].begin();
        for roll in 0..64 {
            let pick = Pick { roll: mix(roll), ..pick(BalanceKind::LeastRequest) };
            assert_eq!(choose(&all, &pick).map(|address| address.at), Some(all[1].at));
            let tried = [all[1].at];
            let again = Pick { tried: &tried, ..pick };
            assert_eq!(choose(&all, &again).map(|address| address.at), Some(all[0].at));
        }
        assert!(choose::<Address>(&[], &pick(BalanceKind::LeastRequest)).is_none());
        assert!(choose(&all[..1], &pick(BalanceKind::LeastRequest)).is_some());
    }

    #[test]
    fn a_hash_without_a_key_goes_round_robin() {
        let all = addresses(2);
        let pick = Pick { turn: 1, ..pick(BalanceKind::ConsistentHash) };
        assert_eq!(choose(&all, &pick).map(|address| address.at), Some(all[1].at));
    }

    #[test]
    fn a_key_is_the_same_in_every_process_and_its_parts_are_separate() {
        assert_eq!(digest(["payments"]), 0x8c04_359f_30d7_b6aa);
        assert_ne!(digest(["a", "bc"]), digest(["ab", "c"]));
    }

    #[test]
    fn each_address_gets_about_its_share_of_the_keys() {
        let all = addresses(5);
        for address in &all {
            let share = keys().filter(|key| {
                let pick = Pick { key: Some(*key), ..pick(BalanceKind::ConsistentHash) };
                choose(&all, &pick).is_some_and(|chosen| chosen.at == address.at)
            });
            let share = share.count();
            assert!((450..750).contains(&share), "{share} of 3000 keys");
        }
    }

    proptest! {
        #[test]
        fn only_the_keys_of_an_address_that_goes_move(count in 2u8..12, gone in 0u8..12) {
            let all = addresses(count);
            let gone = all[usize::from(gone % count)].at;
            let left: Vec<_> = all.iter().filter(|address| address.at != gone).cloned().collect();
            for key in keys().take(300) {
                let pick = Pick { key: Some(key), ..pick(BalanceKind::ConsistentHash) };
                let (before, after) = (choose(&all, &pick).unwrap(), choose(&left, &pick).unwrap());
                prop_assert!(before.at == gone || before.at == after.at);
            }
        }

        #[test]
        fn a_chosen_address_has_not_failed(
            count in 0u8..9, turn: usize, roll: u64, key: Option<u64>, tried: u8, kind in 0..3,
        ) {
            let all = addresses(count);
            let tried: Vec<_> =
                all.iter().enumerate().filter(|(n, _)| tried >> n & 1 == 1).map(|(_, a)| a.at).collect();
            let kinds =
                [BalanceKind::RoundRobin, BalanceKind::LeastRequest, BalanceKind::ConsistentHash];
            let pick = Pick { turn, roll, key, tried: &tried, ..pick(kinds[kind as usize]) };
            match choose(&all, &pick) {
                Some(chosen) => prop_assert!(!tried.contains(&chosen.at)),
                None => prop_assert_eq!(tried.len(), all.len()),
            }
        }
    }
}
