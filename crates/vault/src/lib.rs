//! The vault: where blobs are, in a local folder or in an object store of the S3 kind.
//!
//! A blob is written once, whole or not at all, under a name that ends in its id; the id is a hash of
//! its content, so that every read can tell whether it got what was put. If so wished, blobs are
//! encrypted: with data keys that are in `vault.json`, wrapped by a master key that is not in the
//! vault. It knows nothing of what is in a blob, and deletes nothing by itself but its own probes.
//!
//! Every wait has an end, see [`Limits`]. How everything is stored, byte by byte: `docs/formats/vault.md`.
//!
//! # Layout
//! - [`Options`], [`Limits`]: where the vault is and how long to wait for it
//! - [`MasterKey`]: what wraps the keys of an encrypted vault
//! - [`Vault`]: put, get, list, delete, rotate
//! - `blob`: the bytes of one stored blob; `manifest`: those of `vault.json`; `keys`: wrapping
//! - `patience`: how long a blob that reads back wrong is read again
//! - `store`: one object store with bounded waits; `local`, `s3`: what is special to each kind
//! - `probe`: whether the credentials suffice
//! - `tests/conformance`: the suite that each kind of vault runs

mod blob;
mod error;
mod keys;
mod local;
mod manifest;
mod master_key;
mod options;
mod patience;
mod probe;
mod s3;
mod store;
mod vault;

pub use error::{Result, VaultError};
pub use local::is_leftover;
pub use manifest::{FORMAT, MANIFEST};
pub use master_key::{MasterKey, MasterKeyError};
pub use options::{Limits, Options, S3};
pub use probe::PROBES;
pub use vault::{Listed, Rotation, Stored, Vault};
