//! Clients that others wrote, unchanged, against the real binary: curl, Python's `requests` and `httpx`,
//! Node's `urllib`, a Rust client, and Schemathesis with the server's own description.
//!
//! Each client goes through the same contract, once on each surface, each time with a server and a
//! catalog of its own. The scripts beside this file can be run by hand against any server that has the
//! same seed; `contract.py` says how. Their packages come into the cache folder, see [`packages`].

mod contract;
mod digest_client;
mod packages;
mod process;
mod schema;
mod scripts;
mod seed;
mod server;
mod surfaces;
