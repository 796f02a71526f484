//! Rate limits: a bucket of requests for each key or service account, refilled in steps.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use stillpoint_core::CredentialId;

/// A bucket holds `capacity` requests and gets `refill` back every [`PERIOD_S`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub capacity: u32,
    pub refill: u32,
}

/// Seconds from one refill to the next.
pub const PERIOD_S: u64 = 60;

/// As the published v2 has it.
pub const ATLAS_V2: Rate = Rate { capacity: 1_200, refill: 500 };

/// Buckets at once. Each is a credential's that logged in; with more, those that are full are
/// forgotten, and if that is not enough, all are.
const BUCKETS: usize = 65_536;

/// What a request found in its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub limit: u32,
    pub remaining: u32,
    /// Seconds until there is room again, if there is none.
    pub wait: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    /// Whole seconds since the Unix epoch.
    filled: i64,
}

/// The buckets of one surface.
#[derive(Debug)]
pub struct Rates {
    rate: Rate,
    buckets: Mutex<HashMap<CredentialId, Bucket>>,
}

impl Rates {
    pub fn new(rate: Rate) -> Rates {
        Rates { rate, buckets: Mutex::default() }
    }

    pub fn take(&self, of: CredentialId, now: Timestamp) -> Allowance {
        let (now, period) = (now.as_second(), PERIOD_S as i64);
        // A panic while it was held cannot leave it half-changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&of) {
            buckets.retain(|_, bucket| bucket.left < self.rate.capacity && now - bucket.filled < period);
            if buckets.len() >= BUCKETS {
                buckets.clear();
            }
        }
        let full = Bucket { left: self.rate.capacity, filled: now };
        let bucket = buckets.entry(of).or_insert(full);
        let periods = (now - bucket.filled) / period;
        match periods {
            // The clock was set back: the bucket counts from now on.
            ..0 => bucket.filled = now,
            0 => {}
            _ => {
                let refill = u64::from(self.rate.refill).saturating_mul(periods as u64);
                bucket.left = u64::from(bucket.left).saturating_add(refill).min(self.rate.capacity.into()) as u32;
                bucket.filled += periods * period;
            }
        }
        let wait = (bucket.left == 0).then(|| (bucket.filled + period - now) as u64);
        bucket.left = bucket.left.saturating_sub(1);
        Allowance { limit: self.rate.capacity, remaining: bucket.left, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn who(n: u64) -> CredentialId {
        CredentialId::new(at(0), n)
    }

    #[test]
    fn a_bucket_is_emptied_and_refilled_in_steps_and_each_has_its_own() {
        let rates = Rates::new(ATLAS_V2);
        for n in 0..1_200 {
            assert_eq!(rates.take(who(1), at(0)), Allowance { limit: 1_200, remaining: 1_199 - n, wait: None });
        }
        assert_eq!(rates.take(who(1), at(1)), Allowance { limit: 1_200, remaining: 0, wait: Some(59) });
        assert_eq!(rates.take(who(1), at(59)).wait, Some(1));
        assert_eq!(rates.take(who(2), at(59)).remaining, 1_199);
        assert_eq!(rates.take(who(1), at(60)), Allowance { limit: 1_200, remaining: 499, wait: None });
        assert_eq!(rates.take(who(1), at(120)).remaining, 998);
        assert_eq!(rates.take(who(1), at(9_999)).remaining, 1_199, "never more than it holds");
    }

    #[test]
    fn a_clock_that_was_set_back_neither_refills_nor_locks_out() {
        let rates = Rates::new(Rate { capacity: 2, refill: 1 });
        rates.take(who(1), at(1_000));
        rates.take(who(1), at(0));
        assert_eq!(rates.take(who(1), at(1)).wait, Some(59));
        assert_eq!(rates.take(who(1), at(60)).wait, None);
    }

    #[test]
    fn the_table_is_bounded() {
        let rates = Rates::new(ATLAS_V2);
        for n in 0..BUCKETS as u64 + 10 {
            rates.take(who(n), at(0));
        }
        assert!(rates.buckets.lock().unwrap().len() <= BUCKETS);
    }
}
