//! Waiting for conditions, always with a limit.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `look` again and again until it has an answer; `None` after `limit`.
pub async fn until<T, F, Fut>(limit: Duration, mut look: F) -> Option<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = timeout_at(end, look()).await.ok()? {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(PAUSE).await;
    }
}
