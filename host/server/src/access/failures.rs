//! How often an address may show keys that are none.
//!
//! Nobody guesses a key: this bounds what failures cost, in log lines first of all. A key that is one is always let in, so
//! that nobody who shares an address, or a proxy, with whoever fails is kept out. Pure but for the lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many at once,
const BURST: u32 = 20;
/// and one more after each of these.
const EVERY: Duration = Duration::from_secs(3);
/// So many addresses are remembered; one more makes room by forgetting whoever is nearest to being forgiven.
const ADDRESSES_MAX: usize = 4_096;

/// The addresses that have failed lately: when all of each will be forgiven.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<Option<IpAddr>, Instant>>);

impl Failures {
    /// Counts a failure. Err: it is one too many, and after how many seconds another may be counted.
    pub(super) fn count(&self, from: Option<IpAddr>, now: Instant) -> Result<(), u32> {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = from.map(network);
        if !failed.contains_key(&from) && failed.len() >= ADDRESSES_MAX {
            failed.retain(|_, forgiven| *forgiven > now);
            if failed.len() >= ADDRESSES_MAX {
                let nearest = failed.iter().min_by_key(|(_, forgiven)| **forgiven);
                if let Some(nearest) = nearest.map(|(address, _)| *address) {
                    failed.remove(&nearest);
                }
            }
        }
        let forgiven = failed.entry(from).or_insert(now);
        let next = (*forgiven).max(now) + EVERY;
        let too_late = next.saturating_duration_since(now + EVERY * BURST);
        if too_late > Duration::ZERO {
            return Err(u32::try_from(too_late.as_millis().div_ceil(1000)).unwrap_or(u32::MAX));
        }
        *forgiven = next;
        Ok(())
    }
}

/// Who has one address of version 6 has a network of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let mut segments = v6.segments();
                segments[4..].fill(0);
                IpAddr::from(segments)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_fails_so_often_and_then_as_it_is_forgiven() {
        let (failures, now) = (Failures::default(), Instant::now());
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..BURST {
            assert_eq!(failures.count(one, now), Ok(()));
        }
        let seconds = u32::try_from(EVERY.as_secs()).expect("few");
        assert_eq!(failures.count(one, now), Err(seconds));
        assert_eq!(failures.count(other, now), Ok(()), "others are not meant");
        assert_eq!(failures.count(one, now + EVERY), Ok(()));
        assert!(failures.count(one, now + EVERY).is_err());
        let later = now + 10 * EVERY * BURST;
        for _ in 0..BURST {
            assert_eq!(failures.count(one, later), Ok(()));
        }
        assert!(failures.count(one, later).is_err());
    }

    #[test]
    fn a_network_is_one_address_and_memory_is_bounded() {
        let (failures, now) = (Failures::default(), Instant::now());
        for host in 0..BURST {
            let from = address(&format!("2001:db8::{host:x}"));
            assert_eq!(failures.count(from, now), Ok(()));
        }
        assert!(failures.count(address("2001:db8::ffff"), now).is_err());
        assert!(failures.count(address("2001:db8:0:1::1"), now).is_ok());
        for number in 0..ADDRESSES_MAX as u32 + 100 {
            let from = Some(IpAddr::from(number.to_be_bytes()));
            assert_eq!(failures.count(from, now), Ok(()));
        }
        let held = failures.0.lock().expect("no panic");
        assert!(held.len() <= ADDRESSES_MAX);
        assert!(
            held.contains_key(&address("2001:db8::").map(network)),
            "who has failed most is not forgotten first"
        );
    }
}
