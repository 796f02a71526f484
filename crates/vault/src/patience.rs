//! How long blobs that read back wrong are read again.
//!
//! A store that gives wrong bytes for a while is outlasted. One in which much is damaged for good must not cost
//! a wait for each blob: the pauses of all reads together are bounded, too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);
/// So many blobs may take all their time within [`WINDOW`].
const BLOBS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(3600);

pub(crate) struct Patience {
    /// For one blob.
    most: Duration,
    /// Since when it is counted, and the pauses since.
    spent: Mutex<Option<(Instant, Duration)>>,
}

impl Patience {
    pub fn new(most: Duration) -> Patience {
        Patience { most, spent: Mutex::new(None) }
    }

    /// The pauses before further reads of one blob.
    pub fn pauses(&self) -> impl Iterator<Item = Duration> {
        let (mut pause, mut left) = (FIRST, self.most);
        std::iter::from_fn(move || {
            let next = pause.min(left);
            if next.is_zero() || !self.spend(next) {
                return None;
            }
            left -= next;
            pause *= 2;
            Some(next)
        })
    }

    fn spend(&self, pause: Duration) -> bool {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, before) = spent.filter(|(since, _)| now - *since < WINDOW).unwrap_or((now, Duration::ZERO));
        let is_left = before + pause <= self.most * BLOBS;
        *spent = Some((since, if is_left { before + pause } else { before }));
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(patience: &Patience) -> Vec<f64> {
        patience.pauses().map(|pause| pause.as_secs_f64()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_grow_and_take_as_long_as_they_may() {
        let patience = Patience::new(Duration::from_secs(30));
        assert_eq!(seconds(&patience), [0.5, 1.0, 2.0, 4.0, 8.0, 14.5]);
        assert!(seconds(&Patience::new(Duration::ZERO)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn all_blobs_together_may_take_as_long_as_ten() {
        let patience = Patience::new(Duration::from_secs(30));
        let one: f64 = seconds(&patience).iter().sum();
        let rest: f64 = (0..100).flat_map(|_| seconds(&patience)).sum();
        assert_eq!((one, rest), (30.0, 270.0));
        tokio::time::advance(WINDOW).await;
        assert_eq!(seconds(&patience).iter().sum::<f64>(), 30.0);
    }
}
