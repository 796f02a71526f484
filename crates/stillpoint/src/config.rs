//! `stillpoint.toml`, and the environment over it: `STILLPOINT_SERVER__LISTEN` and so on.
//!
//! Everything has a default. Relative paths are relative to the file's folder. A key that is not
//! known is an error that names it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use jiff::SignedDuration;
use secrecy::SecretString;
use serde::Deserialize;
use stillpoint_api::Settings;
use stillpoint_api::audit::Keep;
use stillpoint_api::rates::Rate;
use stillpoint_core::checkpoint::Limits;
use stillpoint_core::schedule::INTERVALS_MIN;
use stillpoint_engine::snapshots::state::Room;
use stillpoint_engine::{Pace, Restores, Retention};
use stillpoint_vault::{MasterKey, Options};

use crate::cli;
use crate::error::CliError;

/// The variable that may hold the master key.
const MASTER_KEY: &str = "STILLPOINT_MASTER_KEY";

const DEFAULT_FILE: &str = "stillpoint.toml";

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub server: Server,
    pub catalog: Catalog,
    pub vault: Vault,
    pub secrets: Secrets,
    pub capture: Capture,
    pub checkpoint: Checkpoint,
    pub snapshots: Snapshots,
    pub restore: Restore,
    pub metrics: Metrics,
    pub audit: Audit,
    pub log: Log,
    /// Relative paths start here.
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The base of the links in replies; from the request's Host if it is not given.
    pub public_url: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Allows plain HTTP on an address that others can reach, as behind a proxy that does TLS.
    pub allow_plain_http: bool,
    /// Proxies, as 192.0.2.7 or 192.0.2.0/24, whose X-Forwarded-For says where a request comes from.
    pub trusted_proxies: Vec<Network>,
    /// Requests a minute that a key may make on v1.0 and on the Ops Manager surface; 0 sets no limit.
    /// v2 has the one that its clients know.
    pub v1_rate_limit: u32,
    /// Connections at once.
    pub connections: usize,
    /// How long a shutdown may take: requests under way, and balancers to be put back.
    pub shutdown: SignedDuration,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: None,
            tls_cert: None,
            tls_key: None,
            allow_plain_http: false,
            trusted_proxies: Vec::new(),
            v1_rate_limit: 0,
            connections: stillpoint_api::Limits::default().connections,
            shutdown: SignedDuration::from_secs(60),
        }
    }
}

/// A network, or one address as the network of just that.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        cli::network(&text).map(Network)
    }
}

/// The audit trail in the catalog.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// How long an entry is kept.
    pub keep_days: u32,
    /// How many are kept at most.
    pub entries: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Audit { keep_days: 90, entries: Keep::default().entries }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// `sqlite:FILE`.
    pub url: String,
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog { url: "sqlite:stillpoint.db".into() }
    }
}

/// Where the stored oplogs are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vault {
    /// `file:FOLDER` or `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Holds the master key of an encrypted vault; `$STILLPOINT_MASTER_KEY` is used if it is not given.
    pub master_key_file: Option<PathBuf>,
    /// From when nothing needs a blob any more until it is deleted.
    pub grace: SignedDuration,
    pub s3: S3,
}

/// What the usual `AWS_…` variables do not say.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// For other services than Amazon's: `https://HOST:PORT`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    /// Holds the secret access key.
    pub secret_access_key_file: Option<PathBuf>,
    pub allow_http: bool,
    /// Whether the bucket is in the path instead of the host's name.
    pub path_style: bool,
}

impl Default for Vault {
    fn default() -> Self {
        Vault { url: "file:vault".into(), master_key_file: None, grace: Retention::default().grace, s3: S3::default() }
    }
}

/// The capture of the oplogs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// How long entries may wait until they are stored: what a loss of the cluster may cost.
    pub seal_after: SignedDuration,
}

impl Default for Capture {
    fn default() -> Self {
        Capture { seal_after: signed(Pace::default().seal_after) }
    }
}

/// The snapshots of the clusters' data.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshots {
    /// Whether they are taken as each cluster's schedule says; else only when somebody asks for one.
    pub scheduled: bool,
    /// Whether each checkpoint is compared with the cluster as soon as it can be restored: all of the cluster's
    /// data is read for it.
    pub verify: bool,
    /// Parts that are read or folded at once; of a part that is read, one cursor is open.
    pub parts_at_once: usize,
    /// So much of a part's documents is read until it is noted: what a crash may cost.
    pub note_mib: u64,
    /// Of memory for sorting what the oplogs say, for each of those; the rest goes to temporary files.
    pub memory_mib: usize,
    /// How much the data is compressed: zstd's level.
    pub compression_level: i32,
    /// For temporary files; the system's own folder if it is not given.
    pub temp_folder: Option<PathBuf>,
}

impl Default for Snapshots {
    fn default() -> Self {
        let engine = stillpoint_engine::Snapshots::default();
        Snapshots {
            scheduled: engine.scheduled,
            verify: engine.verify,
            parts_at_once: engine.parts_at_once,
            note_mib: engine.haul >> 20,
            memory_mib: engine.room.memory >> 20,
            compression_level: engine.level,
            temp_folder: None,
        }
    }
}

/// Restores into other clusters, and into files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Restore {
    /// How long a target that does not answer is waited for, before the restore is given up.
    pub patience: SignedDuration,
    /// The folder for files that are downloaded; one beside the catalog if it is not given.
    pub downloads: Option<PathBuf>,
}

impl Default for Restore {
    fn default() -> Self {
        Restore { patience: signed(Restores::default().patience), downloads: None }
    }
}

/// Figures for Prometheus.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// An address of their own for `/metrics`; without it they are where the API is.
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// Holds the key that seals connection strings and API keys; made at first use.
    pub key_file: PathBuf,
}

impl Default for Secrets {
    fn default() -> Self {
        Secrets { key_file: "stillpoint.key".into() }
    }
}

/// The schedule, and the limits of a checkpoint's steps.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// `15m`, `30m` or `60m` from the end of one to the next; shorter for trying it out; `off`.
    pub interval: String,
    pub survey: SignedDuration,
    pub balancer_stop: SignedDuration,
    pub quiet: SignedDuration,
    pub token: SignedDuration,
    pub token_attempts: u32,
    pub put_back: SignedDuration,
    pub discover: SignedDuration,
    pub save: SignedDuration,
    /// Checkpoints are kept for the cluster's point-in-time window, or for so long if that is longer.
    pub keep: SignedDuration,
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

impl Default for Checkpoint {
    fn default() -> Self {
        let limits = Limits::default();
        Checkpoint {
            interval: "60m".into(),
            survey: signed(limits.survey),
            balancer_stop: signed(limits.balancer_stop),
            quiet: signed(limits.quiet),
            token: signed(limits.token),
            token_attempts: limits.token_attempts,
            put_back: signed(limits.put_back),
            discover: signed(limits.discover),
            save: signed(limits.save),
            keep: Retention::default().checkpoints,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As RUST_LOG has it: `info`, `stillpoint_engine=debug,info`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Self {
        Log { filter: "info".into(), format: LogFormat::Text }
    }
}

/// Reads the file (the one given, or `stillpoint.toml` here if there is one) and the environment.
pub fn load(file: Option<&Path>) -> Result<Config, CliError> {
    load_from(file, std::env::vars().collect())
}

fn load_from(file: Option<&Path>, environment: HashMap<String, String>) -> Result<Config, CliError> {
    let path = file.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
    let wrong = |e: config::ConfigError| {
        // What is read of both at once is not told apart.
        let from = path.as_ref().map(|path| format!("{}, or a variable STILLPOINT_…: ", path.display()));
        CliError::Config(format!("{}{e}", from.unwrap_or("a variable STILLPOINT_…: ".into())))
    };
    let mut builder = config::Config::builder();
    if let Some(path) = &path {
        let text = std::fs::read_to_string(path).map_err(|why| CliError::File { path: path.clone(), why })?;
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
    }
    // Other variables of ours, such as STILLPOINT_CONFIG, have no double underscore.
    let ours = environment.into_iter().filter(|(name, _)| name.starts_with("STILLPOINT_") && name.contains("__"));
    let environment = config::Environment::with_prefix("STILLPOINT")
        .prefix_separator("_")
        .separator("__")
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("server.trusted_proxies")
        .source(Some(ours.collect()));
    let mut config: Config =
        builder.add_source(environment).build().map_err(wrong)?.try_deserialize().map_err(wrong)?;
    config.folder = path.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    config.check()?;
    Ok(config)
}

impl Config {
    /// What no type says.
    fn check(&self) -> Result<(), CliError> {
        self.interval()?;
        self.catalog_file()?;
        if self.server.tls_cert.is_some() != self.server.tls_key.is_some() {
            return Err(CliError::Config("server.tls_cert and server.tls_key go together: set both or none".into()));
        }
        let times = [
            ("server.shutdown", self.server.shutdown),
            ("checkpoint.survey", self.checkpoint.survey),
            ("checkpoint.balancer_stop", self.checkpoint.balancer_stop),
            ("checkpoint.quiet", self.checkpoint.quiet),
            ("checkpoint.token", self.checkpoint.token),
            ("checkpoint.put_back", self.checkpoint.put_back),
            ("checkpoint.discover", self.checkpoint.discover),
            ("checkpoint.save", self.checkpoint.save),
            ("capture.seal_after", self.capture.seal_after),
            ("restore.patience", self.restore.patience),
        ];
        for (name, time) in times {
            if time < SignedDuration::from_secs(1) || time > SignedDuration::from_hours(24) {
                return Err(CliError::Config(format!("{name} must be from 1s to 24h")));
            }
        }
        if self.vault.grace < SignedDuration::from_hours(1) || self.vault.grace > SignedDuration::from_hours(24 * 365) {
            return Err(CliError::Config("vault.grace must be from 1h to 8760h".into()));
        }
        if self.checkpoint.keep.is_negative() || self.checkpoint.keep > SignedDuration::from_hours(24 * 3660) {
            return Err(CliError::Config("checkpoint.keep must be from 0s to 87840h".into()));
        }
        if !(1..=10).contains(&self.checkpoint.token_attempts) {
            return Err(CliError::Config("checkpoint.token_attempts must be from 1 to 10".into()));
        }
        if !(1..=100_000).contains(&self.server.connections) {
            return Err(CliError::Config("server.connections must be from 1 to 100000".into()));
        }
        if !(1..=36_500).contains(&self.audit.keep_days) || !(1..=100_000_000).contains(&self.audit.entries) {
            return Err(CliError::Config(
                "audit.keep_days must be from 1 to 36500, and audit.entries from 1 to 100000000".into(),
            ));
        }
        Ok(())
    }

    /// What of the API the operator decides.
    pub fn api(&self) -> Result<Settings, CliError> {
        let server = &self.server;
        let public_url = server.public_url.as_deref().map(str::parse).transpose();
        let limit = server.v1_rate_limit;
        Ok(Settings {
            public_url: public_url.map_err(|e| CliError::Config(format!("server.public_url: {e}")))?,
            trusted_proxies: server.trusted_proxies.iter().map(|Network(net)| *net).collect(),
            rate: (limit > 0).then_some(Rate { capacity: limit, refill: limit }),
            interval: self.interval()?,
            audit: Keep {
                time: SignedDuration::from_hours(24 * i64::from(self.audit.keep_days)),
                entries: self.audit.entries,
            },
            downloads: self.downloads()?,
        })
    }

    /// From where there may be any number of connections.
    pub fn many_from(&self) -> Vec<IpNet> {
        let proxies = self.server.trusted_proxies.iter().map(|Network(net)| *net);
        let here = [IpNet::from(IpAddr::V4(Ipv4Addr::LOCALHOST)), IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST))];
        proxies.chain(here).collect()
    }

    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    pub fn catalog_file(&self) -> Result<PathBuf, CliError> {
        match self.catalog.url.strip_prefix("sqlite:") {
            Some(file) if !file.is_empty() => Ok(self.path(Path::new(file))),
            // The URL may hold a password: it is not repeated.
            _ => Err(CliError::Config("catalog.url must be sqlite:FILE, as in sqlite:stillpoint.db".into())),
        }
    }

    /// Where the vault is, and what opens it.
    pub fn vault(&self) -> Result<Options, CliError> {
        let Vault { url, s3, .. } = &self.vault;
        // A relative folder starts where the configuration is, too.
        let url = match url.strip_prefix("file:").filter(|path| !path.is_empty() && !path.starts_with('/')) {
            Some(path) => {
                let path = self.path(Path::new(path));
                format!("file:{}", std::path::absolute(&path).unwrap_or(path).display())
            }
            None => url.clone(),
        };
        let secret = |path: &PathBuf| -> Result<SecretString, CliError> {
            let path = self.path(path);
            let text = std::fs::read_to_string(&path).map_err(|why| CliError::File { path, why })?;
            Ok(SecretString::from(text.trim()))
        };
        let mut options = Options::new(url);
        options.s3 = stillpoint_vault::S3 {
            endpoint: s3.endpoint.clone(),
            region: s3.region.clone(),
            access_key_id: s3.access_key_id.clone(),
            secret_access_key: s3.secret_access_key_file.as_ref().map(secret).transpose()?,
            session_token: None,
            allow_http: s3.allow_http,
            path_style: s3.path_style,
        };
        options.master_key = self.master_key()?;
        Ok(options)
    }

    fn master_key(&self) -> Result<Option<MasterKey>, CliError> {
        let wrong = |e: stillpoint_vault::MasterKeyError| CliError::Config(e.to_string());
        if let Some(file) = &self.vault.master_key_file {
            return MasterKey::from_file(&self.path(file)).map(Some).map_err(wrong);
        }
        match std::env::var(MASTER_KEY) {
            Ok(text) => {
                MasterKey::from_text(&format!("${MASTER_KEY}"), &SecretString::from(text)).map(Some).map_err(wrong)
            }
            Err(_) => Ok(None),
        }
    }

    /// How capture goes about it.
    pub fn pace(&self) -> Pace {
        // Checked when the configuration was read: it is not negative.
        let seal_after = Duration::try_from(self.capture.seal_after).unwrap_or_default();
        Pace { seal_after, ..Pace::default() }
    }

    /// How restores are done.
    pub fn restores(&self) -> Result<Restores, CliError> {
        let patience = Duration::try_from(self.restore.patience).unwrap_or_default();
        Ok(Restores { patience, downloads: self.downloads()? })
    }

    /// The folder of the files that are downloaded.
    fn downloads(&self) -> Result<PathBuf, CliError> {
        match &self.restore.downloads {
            Some(folder) => Ok(self.path(folder)),
            // Named after the catalog: each cleans its own.
            None => Ok(self.catalog_file()?.with_extension("downloads")),
        }
    }

    /// How long things are kept.
    pub fn snapshots(&self) -> Result<stillpoint_engine::Snapshots, CliError> {
        let Snapshots { scheduled, verify, parts_at_once, note_mib, memory_mib, compression_level, temp_folder } =
            &self.snapshots;
        let fits = |mib: u64, least: u64| (least..=1 << 20).contains(&mib);
        if *parts_at_once == 0 || !fits(*note_mib, 1) || !fits(*memory_mib as u64, 4) {
            let why = "snapshots.parts_at_once must be at least 1, snapshots.note_mib from 1 and snapshots.memory_mib from 4 \
                       to 1048576";
            return Err(CliError::Config(why.into()));
        }
        // Each further one takes much more memory to write and to read.
        if !(1..=19).contains(compression_level) {
            return Err(CliError::Config("snapshots.compression_level must be from 1 to 19".into()));
        }
        let folder = temp_folder.as_ref().map_or_else(std::env::temp_dir, |folder| self.path(folder));
        let room = Room::new(memory_mib << 20, folder);
        Ok(stillpoint_engine::Snapshots {
            scheduled: *scheduled,
            verify: *verify,
            parts_at_once: *parts_at_once,
            haul: note_mib << 20,
            level: *compression_level,
            room,
        })
    }

    pub fn retention(&self) -> Retention {
        Retention { checkpoints: self.checkpoint.keep, grace: self.vault.grace, ..Retention::default() }
    }

    pub fn key_file(&self) -> PathBuf {
        self.path(&self.secrets.key_file)
    }

    /// Where links in replies begin.
    pub fn base_url(&self) -> String {
        let scheme = if self.server.tls_cert.is_some() { "https" } else { "http" };
        let given = self.server.public_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        given.unwrap_or_else(|| format!("{scheme}://{}", self.server.listen))
    }

    /// From the end of one checkpoint to the next.
    pub fn interval(&self) -> Result<Option<Duration>, CliError> {
        if self.checkpoint.interval == "off" {
            return Ok(None);
        }
        let wrong = || {
            CliError::Config(
                "checkpoint.interval must be 15m, 30m, 60m, a shorter time for trying it out, or off".into(),
            )
        };
        let interval: SignedDuration = self.checkpoint.interval.parse().map_err(|_| wrong())?;
        let known = INTERVALS_MIN.iter().any(|minutes| interval == SignedDuration::from_mins(i64::from(*minutes)));
        let short = interval >= SignedDuration::from_secs(1) && interval < SignedDuration::from_mins(15);
        match Duration::try_from(interval) {
            Ok(interval) if known || short => Ok(Some(interval)),
            _ => Err(wrong()),
        }
    }

    pub fn limits(&self) -> Limits {
        // Checked when the configuration was read: none is negative.
        let time = |time: SignedDuration| Duration::try_from(time).unwrap_or_default();
        Limits {
            survey: time(self.checkpoint.survey),
            balancer_stop: time(self.checkpoint.balancer_stop),
            quiet: time(self.checkpoint.quiet),
            token: time(self.checkpoint.token),
            token_attempts: self.checkpoint.token_attempts,
            put_back: time(self.checkpoint.put_back),
            discover: time(self.checkpoint.discover),
            save: time(self.checkpoint.save),
            ..Limits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stillpoint.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        load_from(Some(&path), environment).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let config = load_text("", &[]).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.interval().unwrap(), Some(Duration::from_secs(3600)));
        assert_eq!(config.limits(), Limits::default());
        assert_eq!(config.base_url(), "http://127.0.0.1:8080");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n[checkpoint]\ninterval = \"15m\"\ntoken_attempts = 2\n";
        let environment = [
            ("STILLPOINT_SERVER__LISTEN", "127.0.0.1:2"),
            ("STILLPOINT_CHECKPOINT__TOKEN_ATTEMPTS", "5"),
            ("STILLPOINT_CONFIG", "elsewhere"),
        ];
        let config = load_text(text, &environment).unwrap();
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:2");
        assert_eq!(config.interval().unwrap(), Some(Duration::from_secs(900)));
        assert_eq!(config.limits().token_attempts, 5);
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(load_text("[server]\nlitsen = 1\n", &[]).unwrap_err().contains("litsen"));
        assert!(load_text("", &[("STILLPOINT_SERVER__LITSEN", "1")]).unwrap_err().contains("litsen"));
        assert!(load_text("[servre]\n", &[]).unwrap_err().contains("servre"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        for (text, what) in [
            ("[checkpoint]\ninterval = \"20m\"\n", "15m, 30m, 60m"),
            ("[checkpoint]\ninterval = \"often\"\n", "15m, 30m, 60m"),
            ("[checkpoint]\ntoken = \"0s\"\n", "checkpoint.token must be from 1s to 24h"),
            ("[server]\nshutdown = \"0s\"\n", "server.shutdown must be from 1s to 24h"),
            ("[checkpoint]\ntoken_attempts = 0\n", "from 1 to 10"),
            ("[catalog]\nurl = \"mysql://user:secret@host\"\n", "sqlite:FILE"),
            ("[server]\ntls_cert = \"a.pem\"\n", "set both or none"),
            ("[server]\nlisten = \"localhost\"\n", "listen"),
        ] {
            let error = load_text(text, &[]).unwrap_err();
            assert!(error.contains(what) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn how_much_is_compressed_is_a_setting_within_limits() {
        let level = |text: &str| load_text(text, &[]).unwrap().snapshots().map(|snapshots| snapshots.level);
        assert_eq!(level("").unwrap(), 3);
        assert_eq!(level("[snapshots]\ncompression_level = 7\n").unwrap(), 7);
        for not in ["0", "20", "-1"] {
            let refused = level(&format!("[snapshots]\ncompression_level = {not}\n"));
            assert!(refused.unwrap_err().to_string().contains("from 1 to 19"), "{not}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        let config = load_text("[catalog]\nurl = \"sqlite:data/it.db\"\n", &[]).unwrap();
        assert!(config.catalog_file().unwrap().ends_with("data/it.db"));
        assert!(config.restores().unwrap().downloads.ends_with("data/it.downloads"));
        let given = load_text("[restore]\ndownloads = \"large/files\"\n", &[]).unwrap();
        assert!(given.restores().unwrap().downloads.ends_with("large/files"));
        assert_eq!(given.api().unwrap().downloads, given.restores().unwrap().downloads);
        assert_eq!(config.catalog_file().unwrap().parent().unwrap().parent(), config.key_file().parent());
    }
}
