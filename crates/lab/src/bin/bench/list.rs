//! A list of 100 checkpoints out of 10,000, against a bare route with the same bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::bare::Bare;
use crate::load::{self, Comparison};
use crate::report::{Limit, Report};
use crate::requests::fetch;
use crate::seed::{CHECKPOINTS, Scribe};
use crate::served::Served;

const FLOOR: Limit = Limit::AtLeast(0.5);
const PER_PAGE: i64 = 100;
/// Between changes of the catalog.
const PAUSE: Duration = Duration::from_millis(50);

pub fn measure(report: &mut Report, served: &Served, round: Duration) -> Result<()> {
    let page = |n: i64| format!("{}?itemsPerPage={PER_PAGE}&pageNum={n}", served.seeds.list);
    let pages = CHECKPOINTS / PER_PAGE;
    let first = vec![format!("{}?itemsPerPage={PER_PAGE}", served.seeds.list)];
    let bytes = fetch(served, &first)?;
    let bare = Bare::start(&bytes)?;
    let compare =
        |targets: &[String]| load::compare(served.listening, bare.listening, &served.seeds.user, targets, round);

    let found = compare(&first)?;
    report.ratio(&format!("list of 100 / bare route ({} bytes)", bytes.len()), found.ratio, FLOOR, &found);
    let found = compare(&[page(pages / 2)])?;
    report.ratio(&format!("list, page {}", pages / 2), found.ratio, Limit::None, &found);
    let found = compare(&(1..=pages).map(page).collect::<Vec<_>>())?;
    report.ratio(&format!("list, pages 1 to {pages} in turn"), found.ratio, Limit::None, &found);
    let found = while_it_changes(served, || compare(&first))?;
    report.ratio("list, catalog changed 20 times a second", found.ratio, Limit::None, &found);
    Ok(())
}

/// Changes the catalog all the time that something is measured.
fn while_it_changes(served: &Served, measure: impl FnOnce() -> Result<Comparison>) -> Result<Comparison> {
    let mut scribe = Scribe::open(served.dir.path())?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                scribe.change()?;
                std::thread::sleep(PAUSE);
            }
            anyhow::Ok(())
        });
        let found = measure();
        done.store(true, Ordering::Relaxed);
        changes.join().map_err(|_| anyhow!("the changes panicked"))??;
        found
    })
}
