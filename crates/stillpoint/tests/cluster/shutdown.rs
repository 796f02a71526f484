//! SIGTERM while the balancer is held, and two servers on one catalog.

use std::time::{Duration, Instant};

use stillpoint_core::checkpoint::Reason;
use stillpoint_lab::ports::Port;

use crate::support::{Server, assert_balancer, assert_failed, hold_migration, lab, with_window};

#[tokio::test]
async fn a_server_that_is_stopped_puts_the_balancer_back_first() {
    let lab = lab().await;
    let mut server = Server::of(&lab).await;
    lab.set_balancer_documents(&with_window()).await.unwrap();
    let migration = hold_migration(&lab).await;
    let id = server.held_up(&lab).await;
    let begin = Instant::now();
    server.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    assert_failed(&server.record(id).await, Reason::Interrupted);
    assert_balancer(&lab, &with_window(), "after SIGTERM").await;
    migration.release().await.unwrap();
    server.serve(None).await;
    server.complete().await;
}

#[tokio::test]
async fn a_second_server_on_a_catalog_is_refused() {
    let lab = lab().await;
    let server = Server::of(&lab).await;
    let other = Port::free().unwrap();
    let elsewhere = format!("127.0.0.1:{}", other.number());
    let ran = server.run(&["serve"], &[("STILLPOINT_SERVER__LISTEN", &elsewhere)]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    assert!(ran.err.contains("another `stillpoint serve` has this catalog open"), "{}", ran.err);
    let ran = server.run(&["serve"], &[]).await;
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    assert!(ran.err.contains(&format!("127.0.0.1:{} is in use", server.port())), "{}", ran.err);
    server.complete().await;
}
