//! The agent's settings: one TOML file, every key documented in `agent.toml` beside this file, every key defaulted.
//!
//! In: a path, or text. Out: a [`Config`] whose values are within their bounds and go together, or an error that
//! names file, line, key and what would be right.
//! Must never touch what the settings name (certificates, directories, runners): each owner opens its own.

mod check;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use buildtrail_settings::SettingsError;
use serde::{Deserialize, Serialize};

use crate::{job::platform::PlatformRule, link::CaPin};

/// All settings of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What belongs to this machine.
    pub host: Host,
    /// Where events go.
    pub collector: Collector,
    /// How the host gets its certificate by itself.
    pub enrol: Enrol,
    /// Events that wait for the collector.
    pub spool: Spool,
    /// Which files are secrets.
    pub catalog: Catalog,
    /// What is asked of the kernel.
    pub sensor: Sensor,
    /// Further runner programs.
    pub runners: Runners,
    /// CI platforms beyond those that the agent knows, or in their place.
    pub platform: Vec<PlatformRule>,
    /// What runners' hook scripts say.
    pub hooks: Hooks,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Directory for state that survives restarts; absolute.
    pub state_directory: PathBuf,
}

/// `[collector]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collector {
    /// `https://HOST:PORT`, tried in this order.
    pub addresses: Vec<String>,
    /// PEM file of the authority that signed the collector's certificate. This and the next two are given together, or
    /// none of them: then what enrolment brought is used.
    pub ca: Option<PathBuf>,
    /// PEM file of this host's certificate (and intermediates).
    pub certificate: Option<PathBuf>,
    /// PEM file (PKCS#8) of this host's Ed25519 key.
    pub private_key: Option<PathBuf>,
    /// Name expected in the collector's certificate; the host of the address where absent.
    pub server_name: Option<String>,
    /// HTTP proxy, `http://HOST:PORT`.
    pub proxy: Option<String>,
    /// File with `USER:PASSWORD` for the proxy.
    pub proxy_credentials: Option<PathBuf>,
    /// Bandwidth; 0: no bound, otherwise at least 8192.
    pub max_bytes_per_second: u64,
}

/// `[enrol]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrol {
    /// File with a join token, used when the host has no identity (any more).
    pub token_file: Option<PathBuf>,
    /// By what the collector is known then.
    pub ca_pin: Option<CaPin>,
    /// The host's name; the kernel's host name where absent.
    pub name: Option<String>,
}

/// `[spool]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Most bytes on disk; 1 MiB to 1 TiB.
    pub max_bytes: u64,
    /// Least bytes of the file system that are left to others; at most 1 TiB.
    pub min_free_bytes: u64,
    /// Longest time an event waits for the collector, in hours; 1 to 87600.
    pub max_age_hours: u64,
    /// Bytes after which a file is closed; 64 KiB to a quarter of `max_bytes`.
    pub segment_bytes: u64,
    /// Most events in a batch; 1 to 1000.
    pub batch_events: usize,
    /// Longest time an event waits for its batch to fill, in milliseconds; 1 to 60000.
    pub batch_interval_ms: u64,
}

/// `[catalog]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// Home directories; absolute, wildcards in the last component.
    pub homes: Vec<String>,
    /// Secrets beyond the built-in ones.
    pub files: Vec<CatalogFile>,
}

/// One `[[catalog.files]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogFile {
    /// What people call it; 1 to 100 characters.
    pub name: String,
    /// Kind of credential; 1 to 100 characters.
    pub family: String,
    /// Absolute or `~/…`, wildcards in the last component.
    pub path: String,
}

/// `[sensor]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sensor {
    /// Size of the ring buffer that is never rate-limited; a power of two from 64 KiB to 256 MiB.
    pub critical_ring_bytes: u32,
    /// Size of the ring buffer for connections and lookups; a power of two from 64 KiB to 256 MiB.
    pub bulk_ring_bytes: u32,
    /// Directory on a BPF file system where programs stay attached while the agent is restarted or upgraded; absolute.
    /// Absent: they are detached when the agent stops.
    pub pin_directory: Option<PathBuf>,
    /// No hook of a better tier is tried.
    pub highest_tier: HighestTier,
    /// Which files jobs write is watched.
    pub watch_writes: bool,
}

/// `sensor.highest_tier`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum HighestTier {
    /// Everything is tried.
    #[default]
    A,
    /// No program is put in front of a kernel function.
    B,
}

/// `[hooks]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Where runners' hooks reach the agent; absolute.
    pub socket: PathBuf,
    /// A hook that is not heard fails its job.
    pub required: bool,
}

/// `[runners]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runners {
    /// Runner executables beyond those found by themselves.
    pub programs: Vec<RunnerProgram>,
    /// After how many seconds a job is over of which nothing runs, where its runner goes on; 1 to 3600.
    pub job_idle_seconds: u64,
    /// Which of the processes that look like runners are believed.
    pub trust: TrustMode,
    /// Runners that the operator declares.
    pub trusted: Vec<TrustedRunner>,
}

/// `runners.trust`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustMode {
    /// All that come from no job.
    #[default]
    Found,
    /// Those in `runners.trusted`.
    Declared,
}

/// One `[[runners.trusted]]`; at least one of `unit`, `executable` and `user` is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustedRunner {
    /// The systemd unit that it runs in, with wildcards.
    pub unit: Option<String>,
    /// The file that it runs; absolute.
    pub executable: Option<PathBuf>,
    /// To whom that file belongs.
    pub owner: u32,
    /// The user that it runs as.
    pub user: Option<u32>,
}

/// One entry of `runners.programs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunnerProgram {
    /// Which runner it is: the name of a platform.
    pub platform: String,
    /// Absolute path of the executable.
    pub executable: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { state_directory: "/var/lib/buildtrail-agent".into() }
    }
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            addresses: vec!["https://127.0.0.1:7443".into()],
            ca: None,
            certificate: None,
            private_key: None,
            server_name: None,
            proxy: None,
            proxy_credentials: None,
            max_bytes_per_second: 0,
        }
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self { socket: "/run/buildtrail/control.sock".into(), required: false }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            max_bytes: 256 * 1024 * 1024,
            min_free_bytes: 128 * 1024 * 1024,
            max_age_hours: 30 * 24,
            segment_bytes: 8 * 1024 * 1024,
            batch_events: 256,
            batch_interval_ms: 200,
        }
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self { homes: vec!["/root".into(), "/home/*".into()], files: Vec::new() }
    }
}

impl Default for Sensor {
    fn default() -> Self {
        Self {
            critical_ring_bytes: 4 * 1024 * 1024,
            bulk_ring_bytes: 2 * 1024 * 1024,
            pin_directory: None,
            highest_tier: HighestTier::A,
            watch_writes: true,
        }
    }
}

impl Default for Runners {
    fn default() -> Self {
        Self { programs: Vec::new(), job_idle_seconds: 30, trust: TrustMode::default(), trusted: Vec::new() }
    }
}

impl Runners {
    /// [`Self::job_idle_seconds`] as a duration.
    #[must_use]
    pub fn job_idle(&self) -> Duration {
        Duration::from_secs(self.job_idle_seconds)
    }
}

impl Spool {
    /// [`Self::batch_interval_ms`] as a duration.
    #[must_use]
    pub fn batch_interval(&self) -> Duration {
        Duration::from_millis(self.batch_interval_ms)
    }

    /// [`Self::max_age_hours`] as a duration.
    #[must_use]
    pub fn max_age(&self) -> Duration {
        Duration::from_hours(self.max_age_hours)
    }
}

impl Config {
    /// Where the settings are looked for when nobody says otherwise.
    pub const DEFAULT_PATH: &str = "/etc/buildtrail-agent/agent.toml";

    /// Reads and checks the settings in `path`.
    ///
    /// # Errors
    /// The file cannot be read, or a key or value in it is wrong; the message says which, where and what is right.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        buildtrail_settings::load_checked(path, check::check)
    }

    /// Like [`Self::load`] for text; `path` only appears in messages.
    ///
    /// # Errors
    /// A key or value is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, SettingsError> {
        buildtrail_settings::parse_checked(text, path, check::check)
    }

    /// The text of a settings file that holds every key with its default and says what it means.
    #[must_use]
    pub fn documented_default() -> &'static str {
        include_str!("agent.toml")
    }
}

#[cfg(test)]
mod tests;
