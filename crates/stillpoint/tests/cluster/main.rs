//! The server as it is shipped, against real clusters: what a checkpoint holds, and that the balancer
//! is left as it was found whatever happens meanwhile.

mod archive;
mod balancer_as_found;
mod broken;
mod capture;
mod captured;
mod clocks;
mod crashes;
mod diff;
mod downloads;
mod drill;
mod elections;
mod first_snapshot;
mod generated;
mod late_stop;
mod loads;
mod lost_catalog;
mod measured;
mod movement;
mod operator_acts;
mod orphans;
mod removal;
mod removed_shards;
mod restore;
mod schedule;
mod shutdown;
mod snapshots;
mod support;
mod tokens;
mod transactions;
mod two_installations;
mod unreachable;
mod waiting_stop;
