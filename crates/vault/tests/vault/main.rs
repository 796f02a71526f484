//! The vault in a folder and on a real S3 server, plain and encrypted; the server's process is this
//! program once more, see `stillpoint_lab_s3`.

mod access;
mod conformance;
mod crashes;
mod faults;
mod keys;
mod owners;
mod support;

/// Not a test: what the S3 server's process runs.
#[test]
fn s3_server_process() {
    stillpoint_lab_s3::serve_if_asked();
}
