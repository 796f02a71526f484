//! How long each step of a checkpoint may take.

use std::time::Duration;

/// The limits of one checkpoint. Each wait of the protocol is bounded by one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Finding the parts, and reading the balancer's settings, each.
    pub survey: Duration,
    /// Attempts to find the parts and read the balancer, before anything is touched.
    pub early_attempts: u32,
    /// Stopping the balancer, the end of its round included.
    pub balancer_stop: Duration,
    /// Waiting for migrations, resharding and DDL under way, once the balancer is stopped.
    pub quiet: Duration,
    /// One attempt to write one token with majority write concern; also reading the clock.
    pub token: Duration,
    /// Attempts for each token, and for the clock.
    pub token_attempts: u32,
    /// The first attempt to put the balancer back; each further one may take twice as long as the last,
    /// up to 64 times. Attempts go on until one succeeds.
    pub put_back: Duration,
    /// Finding all tokens in the stored oplog; long enough for a vault that fails for minutes.
    pub discover: Duration,
    /// One write of the record to the catalog. Attempts go on until one succeeds.
    pub save: Duration,
    /// The pause before a first retry; it doubles up to `longest_pause`.
    pub pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            survey: Duration::from_secs(30),
            early_attempts: 3,
            balancer_stop: Duration::from_secs(120),
            quiet: Duration::from_secs(300),
            token: Duration::from_secs(10),
            token_attempts: 3,
            put_back: Duration::from_secs(20),
            discover: Duration::from_secs(600),
            save: Duration::from_secs(30),
            pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The longest that the balancer can be off when nothing fails while it is put back.
    pub fn longest_hold(&self) -> Duration {
        let tokens = (self.token + self.longest_pause) * self.token_attempts;
        self.save + self.balancer_stop + self.quiet + self.token + tokens * 2 + self.put_back * 2
    }

    /// The pause before retry number `n`, counted from 0.
    pub fn backoff(&self, n: u32) -> Duration {
        backoff(self.pause, self.longest_pause, n)
    }
}

/// The pause before retry number `n`, counted from 0: `pause` at first, doubling up to `longest`.
pub fn backoff(pause: Duration, longest: Duration, n: u32) -> Duration {
    pause.saturating_mul(1 << n.min(16)).min(longest)
}
