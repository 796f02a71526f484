//! What reads bytes of others, a client's or the vault's, and what must hold of it whatever the bytes are.
//!
//! Each module has one `check`, which panics if its properties do not hold; the target of the same
//! name gives it to libFuzzer. `scripts/fuzz` builds and runs them; `cargo fuzz` does, too.

pub mod accept;
pub mod digest_header;
pub mod json_body;
pub mod query;
pub mod segment;
pub mod snapshot;
pub mod update;

#[cfg(not(feature = "libfuzzer"))]
pub mod blind;
#[cfg(feature = "libfuzzer")]
pub use libfuzzer_sys;

/// The program of a target.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    ($check:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $check(data));
    };
}

/// The program of a target.
#[cfg(not(feature = "libfuzzer"))]
#[macro_export]
macro_rules! target {
    ($check:path) => {
        fn main() -> std::io::Result<()> {
            $crate::blind::run($check)
        }
    };
}
