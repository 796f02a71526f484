//! Which `mongod` there is on this machine, and of which version.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::ServerError;

/// How long it may take to say its version.
const SAYS_WITHIN: Duration = Duration::from_secs(20);

/// The first on a PATH.
pub fn on_path(path: &OsStr) -> Result<PathBuf, ServerError> {
    let found = std::env::split_paths(path).map(|dir| dir.join("mongod")).find(|path| is_executable(path));
    found.ok_or(ServerError::NoBinary)
}

pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Its major version, as a `featureCompatibilityVersion` has it: `6.0`.
pub async fn version(binary: &Path) -> Result<String, ServerError> {
    let mut command = Command::new(binary);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let unclear = |why: &str| ServerError::NoVersion { path: binary.to_owned(), why: why.to_owned() };
    let output = match timeout(SAYS_WITHIN, command.output()).await {
        Err(_) => return Err(unclear("it does not answer")),
        Ok(Err(why)) => return Err(ServerError::NotRun { path: binary.to_owned(), why }),
        Ok(Ok(output)) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    major(&text).ok_or_else(|| unclear(text.lines().next().unwrap_or("it says nothing")))
}

/// Of what `mongod --version` says: `db version v6.0.5`, and more lines.
fn major(text: &str) -> Option<String> {
    let full = text.lines().find_map(|line| line.strip_prefix("db version v"))?;
    let mut numbers = full.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_that_of_the_feature_compatibility() {
        let text = "db version v6.0.5\nBuild Info: {\n    \"version\": \"6.0.5\",\n";
        assert_eq!(major(text).as_deref(), Some("6.0"));
        assert_eq!(major("db version v7.0.12-rc0").as_deref(), Some("7.0"));
        for text in ["", "db version v6", "db version vsix.0.5", "mongos version v6.0.5"] {
            assert_eq!(major(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_executable_on_the_path_is_taken() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let path = std::env::join_paths(folders.iter().map(tempfile::TempDir::path)).unwrap();
        assert!(matches!(on_path(&path), Err(ServerError::NoBinary)));
        for (folder, mode) in folders.iter().zip([0o644, 0o755, 0o755]) {
            let file = folder.path().join("mongod");
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        }
        assert_eq!(on_path(&path).unwrap(), folders[1].path().join("mongod"));
    }

    #[tokio::test]
    async fn a_program_that_is_none_is_told_apart() {
        let version = version(Path::new("/bin/true")).await;
        assert!(matches!(version, Err(ServerError::NoVersion { .. })), "{version:?}");
        let missing = super::version(Path::new("/nowhere/mongod")).await;
        assert!(matches!(missing, Err(ServerError::NotRun { .. })), "{missing:?}");
    }
}
