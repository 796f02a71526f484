//! The interface as its clients see it.

mod audit;
mod authorization;
mod clients;
mod connections;
mod coverage;
mod description;
mod documents;
mod downloads;
mod errors;
mod lists;
mod malformed;
mod oauth;
mod rates;
mod restore_jobs;
mod roles;
mod schedule;
mod snapshots;
mod support;
mod surfaces;
mod versions;
