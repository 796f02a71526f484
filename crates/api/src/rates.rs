//! Rate limits: a bucket of requests for each key or service account, refilled in steps.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
    /// Whole seconds since the process began.
    filled: u64,
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

    /// `now` is since the process began.
    pub fn take(&self, of: CredentialId, now: Duration) -> Allowance {
        let (now, period) = (now.as_secs(), PERIOD_S);
        // A panic while it was held cannot leave it half-changed.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&of) {
            buckets.retain(|_, bucket| bucket.left < self.rate.capacity && now.saturating_sub(bucket.filled) < period);
            if buckets.len() >= BUCKETS {
                buckets.clear();
            }
        }
        let full = Bucket { left: self.rate.capacity, filled: now };
        let bucket = buckets.entry(of).or_insert(full);
        let periods = now.saturating_sub(bucket.filled) / period;
        if periods > 0 {
            let refill = u64::from(self.rate.refill).saturating_mul(periods);
            bucket.left = u64::from(bucket.left).saturating_add(refill).min(self.rate.capacity.into()) as u32;
            bucket.filled += periods * period;
        }
        let wait = (bucket.left == 0).then(|| (bucket.filled + period).saturating_sub(now).max(1));
        bucket.left = bucket.left.saturating_sub(1);
        Allowance { limit: self.rate.capacity, remaining: bucket.left, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(1_000 + second)
    }

    fn who(n: u64) -> CredentialId {
        CredentialId::new(jiff::Timestamp::UNIX_EPOCH, n)
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
    fn the_table_is_bounded() {
        let rates = Rates::new(ATLAS_V2);
        for n in 0..BUCKETS as u64 + 10 {
            rates.take(who(n), at(0));
        }
        assert!(rates.buckets.lock().unwrap().len() <= BUCKETS);
    }
}
