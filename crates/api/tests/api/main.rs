//! The interface as its clients see it.

mod clients;
mod connections;
mod documents;
mod errors;
mod lists;
mod roles;
mod speed;
mod support;
