//! The audit trail.

use super::*;
use stillpoint_catalog::{AuditEntry, Page};

pub async fn the_audit_trail_is_newest_first_and_trimmed_by_age_and_number(catalog: &dyn Catalog) {
    let entry = |n: i64| AuditEntry {
        at: at(n),
        actor: (n % 2 == 0).then(|| "abcdefgh".to_owned()),
        from: Some("192.0.2.7".into()),
        action: format!("DELETE /api/{n}"),
        status: Some(204),
        error: (n % 2 == 1).then(|| "ACCESS_FORBIDDEN".to_owned()),
        refused: n % 2 == 1,
        times: (n == 9).then_some(7),
    };
    let all: Vec<_> = (0..10).map(entry).collect();
    catalog.append_audit(&all[..4]).await.unwrap();
    catalog.append_audit(&all[4..]).await.unwrap();
    catalog.append_audit(&[]).await.unwrap();
    let page = async |skip, take| catalog.audit(Page { skip, take }).await.unwrap();
    assert_eq!(page(0, 3).await, [entry(9), entry(8), entry(7)]);
    assert_eq!(page(9, 3).await, [entry(0)]);
    assert_eq!(catalog.trim_audit(at(4), 100).await.unwrap(), 4, "older than");
    assert_eq!(catalog.trim_audit(at(0), 2).await.unwrap(), 2, "the oldest of each kind beyond");
    assert_eq!(page(0, 9).await, [entry(9), entry(8), entry(7), entry(6)]);
    assert_eq!(catalog.trim_audit(at(0), 2).await.unwrap(), 0);
    // However many are refused, the others stay.
    let refused: Vec<_> = (11..40).step_by(2).map(entry).collect();
    catalog.append_audit(&refused).await.unwrap();
    catalog.trim_audit(at(0), 2).await.unwrap();
    assert_eq!(page(0, 9).await, [entry(39), entry(37), entry(8), entry(6)]);
}
