//! Checkpoints on an interval, from the end of one to the next.

use std::time::Duration;

use stillpoint_core::checkpoint::State;
use stillpoint_lab::wait::until;

use crate::support::{LIMITS, SOON, Server, assert_tokens, lab};

#[tokio::test]
async fn the_next_checkpoint_begins_an_interval_after_the_end_of_the_last() {
    let lab = lab().await;
    let server = Server::with(&lab, &format!("interval = \"2s\"\n{LIMITS}")).await;
    let three = until(SOON, || async {
        let mut records = server.records().await;
        records.retain(|record| record.state.ended());
        (records.len() >= 3).then_some(records)
    });
    let mut records = three.await.expect("no three checkpoints were taken");
    records.reverse();
    for record in &records {
        assert_eq!(record.state, State::Completed, "{record:?}");
        assert_tokens(&lab, record).await;
    }
    for pair in records.windows(2) {
        let pause = pair[1].started.duration_since(pair[0].ended.unwrap()).unsigned_abs();
        assert!(pair[1].started > pair[0].ended.unwrap());
        assert!(pause >= Duration::from_secs(2) && pause < Duration::from_secs(10), "{pause:?} between two");
    }
}
