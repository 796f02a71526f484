//! `mongod` processes of our own on this machine, for drills and for the lab.
//!
//! Each listens on the loopback only, has its data in a temporary folder, and ends with the process that started it,
//! whatever becomes of that one. Nothing is ended here that was not started here. How MongoDB is talked to is not
//! known here.
//!
//! # Layout
//! - [`process`]: a process that cannot outlive the one that started it
//! - [`server`]: a `mongod` with its folder and its port
//! - [`binary`]: which `mongod` there is, and of which version
//! - [`ports`]: ports of the loopback
//! - [`folder`]: a temporary folder, and what a killed process left of one
//! - [`error`]: what can go wrong

pub mod binary;
pub mod error;
pub mod folder;
pub mod ports;
pub mod process;
pub mod server;

pub use error::ServerError;
pub use folder::Folder;
pub use ports::Port;
pub use server::Server;
