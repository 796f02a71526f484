//! An S3 server in a process of its own, for tests, that fails when it is told to.
//!
//! The server's process is the program that starts it, once more: so there is no other binary to build or
//! to find. A test binary has, at its root,
//!
//! ```no_run
//! #[test]
//! fn s3_server_process() {
//!     stillpoint_lab_s3::serve_if_asked();
//! }
//! ```
//!
//! and starts it with [`Server::start`]`(`[`TEST`]`)`; another program calls [`serve_if_asked`] first in
//! `main`. It ends with the [`Server`], and with the process that started it, however that ends.
//!
//! # Layout
//! - [`Server`]: start, kill, restart, switch faults on and off
//! - [`Fault`]: what goes wrong, for which requests and how often
//! - `process`, `fail`: within the server's process

mod fail;
mod fault;
mod process;
mod server;

pub use fault::{Fault, What};
pub use process::serve_if_asked;
pub use server::{Server, TEST};

/// The bucket that is there from the beginning.
pub const BUCKET: &str = "bucket";
/// The one key id that is known, and its secret.
pub const ACCESS_KEY_ID: &str = "LAB";
pub const SECRET_ACCESS_KEY: &str = "the-secret-of-the-lab";
