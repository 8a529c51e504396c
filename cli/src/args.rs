//! The command line. Its `--help` is the manual.

use std::path::PathBuf;

use buildtrail_proto::{
    ACT_KINDS, EVENT_KINDS, Timestamp,
    v1::{Condition, Search},
};
use buildtrail_settings::Span;
use clap::{Args, Parser, Subcommand};

use crate::time;

/// Names nearer than this (0 to 1) are suggested.
const ALIKE: f64 = 0.7;

const AFTER_HELP: &str = "\
Profile:
  A directory with ca.pem, cert.pem and key.pem (as `buildtrail-collector ca reader` writes
  them) and a file `collector` that holds the collector's URL. Looked for in --profile,
  BUILDTRAIL_PROFILE, $XDG_CONFIG_HOME/buildtrail or ~/.config/buildtrail. Single flags and
  variables come before the profile's files.

Exit codes:
  0  done; verify: intact and complete, nothing lost
  1  wrong usage, or the collector cannot be asked
  3  verify: tampered: what was checked was altered or is damaged
  4  verify: unreadable: it cannot be read, or is something else
  5  verify: intact but incomplete: events are missing, or hosts report that they lost some

Examples:
  buildtrail jobs --repository acme/widgets --since 1d
  buildtrail show 3f9a0c11d2e4
  buildtrail events --kind secret.access --since 2h --json
  buildtrail verify --log /var/lib/buildtrail-collector
  buildtrail export --job 3f9a0c11d2e4 --bundle job.evidence
  buildtrail verify --bundle job.evidence --log-key log.vkey
  buildtrail enrol create --ttl 1h --uses 20 --name 'runner-*'";

/// Ask a Buildtrail collector what build jobs did, and verify its log.
#[derive(Debug, Parser)]
#[command(name = "buildtrail", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    /// Print JSON: one document per line (`show` and `verify`: one document)
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which collector, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The collector's URL, https://HOST:PORT
    #[arg(long, global = true, env = "BUILDTRAIL_COLLECTOR", value_name = "URL")]
    pub(crate) collector: Option<String>,
    /// Directory with ca.pem, cert.pem, key.pem and `collector`; see `buildtrail --help`
    #[arg(long, global = true, env = "BUILDTRAIL_PROFILE", value_name = "DIR")]
    pub(crate) profile: Option<PathBuf>,
    /// PEM file of the authority that signed the collector's certificate
    #[arg(long, global = true, env = "BUILDTRAIL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of your certificate
    #[arg(long, global = true, env = "BUILDTRAIL_CERTIFICATE", value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// PEM file of the key that belongs to it
    #[arg(long, global = true, env = "BUILDTRAIL_PRIVATE_KEY", value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
    /// Name in the collector's certificate, if it is not the host of the URL
    #[arg(long, global = true, env = "BUILDTRAIL_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List jobs, newest first
    Jobs(Jobs),
    /// List events, oldest first
    Events(Events),
    /// Follow events as they are stored
    Tail(Which),
    /// List what the collector itself did and noticed, oldest first
    Acts(Acts),
    /// Show one job: who it is, its steps, and what it did
    Show {
        /// The job's id, or the beginning of it
        #[arg(value_parser = job_id)]
        job: String,
    },
    /// Check that the log is unaltered and complete
    ///
    /// Without --log, --bundle or --spool it downloads the collector's log and verifies it here, believing nothing but
    /// the log's key. Key and newest checkpoint are remembered in the profile: a log that was rolled back or that shows
    /// somebody else another history is noticed.
    Verify(Verify),
    /// Take a job's evidence away: one file that `buildtrail verify --bundle` checks without the collector
    Export(Export),
    /// Decide which hosts there are: join tokens, the list of hosts, revocation
    ///
    /// Needs an administrator's certificate (`buildtrail-collector ca admin`).
    #[command(subcommand)]
    Enrol(Enrol),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrol {
    /// Make a join token and print it, this once
    Create {
        /// How long it is good for: 1m to 30d
        #[arg(long, value_name = "TIME", default_value = "1h")]
        ttl: Span,
        /// How many hosts may enrol with it, 1 to 10000
        #[arg(long, value_name = "COUNT", default_value_t = 1)]
        uses: u32,
        /// Only for hosts whose names match (* and ? as in file names)
        #[arg(long = "name", value_name = "PATTERN", default_value = "")]
        pattern: String,
    },
    /// List join tokens, newest first
    List,
    /// Make a join token void
    Cancel {
        /// Its id; `buildtrail enrol list` shows it
        token: String,
    },
    /// List hosts, their certificates and whether they are connected
    Hosts,
    /// End a host's identity at once: its streams are cut and its key gets no certificate any more
    Revoke {
        /// Host id, or a name that only one host has
        host: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Check this log directory (or the data directory it is in) instead of the collector's log
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bundle", "spool"])]
    pub(crate) log: Option<PathBuf>,
    /// Check this evidence bundle or in-toto envelope
    #[arg(long, value_name = "FILE", conflicts_with = "spool")]
    pub(crate) bundle: Option<PathBuf>,
    /// Check an agent's spool (its `records` directory), with --host-certificate
    #[arg(long, value_name = "DIR", requires = "host_certificate")]
    pub(crate) spool: Option<PathBuf>,
    /// PEM file of the certificate of the spool's host
    #[arg(long, value_name = "FILE", requires = "spool")]
    pub(crate) host_certificate: Option<PathBuf>,
    /// Number of the spool's last batch, where it is known: its end stands nowhere else
    #[arg(long, value_name = "NUMBER", requires = "spool")]
    pub(crate) last_batch: Option<u64>,
    /// The log's public key (name+id+key), or a file that holds it
    #[arg(long, value_name = "KEY")]
    pub(crate) log_key: Option<String>,
    /// A checkpoint that was seen earlier: the log must continue it
    #[arg(long, value_name = "FILE")]
    pub(crate) from_checkpoint: Option<PathBuf>,
    /// Who must have cosigned the checkpoint (a C2SP tlog-policy file)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Let the collector verify its log itself, and believe it
    #[arg(long, conflicts_with_all = ["log", "bundle", "spool"])]
    pub(crate) trust_collector: bool,
    /// Only report this host (name or id)
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The job's id, or the beginning of it
    #[arg(long, value_name = "ID", value_parser = job_id)]
    pub(crate) job: String,
    /// File to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Bundle)]
    pub(crate) format: Format,
}

/// What an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// An evidence bundle: everything that proves what the job did
    Bundle,
    /// An in-toto statement (runtime trace) in a DSSE envelope: what the collector says the job did
    InToto,
}

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Only jobs of this repository (exact name)
    #[arg(long, value_name = "NAME")]
    pub(crate) repository: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
    /// Most jobs to list, 1 to 1000
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
    /// Most events to list (the newest that match), 1 to 10000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Acts {
    /// Only this kind (host.dark, reader.asked, …); may be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = act_kind)]
    pub(crate) kinds: Vec<String>,
    /// Only about this host (host id)
    #[arg(long, value_name = "ID")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) period: Period,
    /// Most acts to list (the newest that match), 1 to 10000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Period {
    /// Not before: RFC 3339 time, or how long ago (30s, 15m, 2h, 1d, 1w)
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) since: Option<Timestamp>,
    /// Not after: as --since
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) until: Option<Timestamp>,
}

/// Which events.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Only this job's (id or the beginning of it)
    #[arg(long, value_name = "ID", value_parser = job_id, conflicts_with = "outside_jobs")]
    job: Option<String>,
    /// Only this kind; may be given several times
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<String>,
    /// Only this host's (host id)
    #[arg(long, value_name = "ID")]
    host: Option<String>,
    /// Only this repository's (exact name)
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Only events that belong to no job
    #[arg(long)]
    outside_jobs: bool,
}

impl Which {
    pub(crate) fn search(self, period: Option<Period>) -> Search {
        let (since, until) = period.map(|period| (period.since, period.until)).unwrap_or_default();
        let mut search = Search { since, until, ..Search::default() };
        let mut add = |field: &str, values: Vec<String>| {
            if !values.is_empty() {
                search.r#where.push(Condition { field: field.into(), values, ..Condition::default() });
            }
        };
        add("job", self.job.into_iter().collect());
        add("kind", self.kinds);
        add("host", self.host.into_iter().collect());
        add("repo", self.repository.into_iter().collect());
        if self.outside_jobs {
            add("job", vec![String::new()]);
        }
        search
    }
}

fn kind(text: &str) -> Result<String, String> {
    one_of(&EVENT_KINDS, text)
}

fn act_kind(text: &str) -> Result<String, String> {
    one_of(&ACT_KINDS, text)
}

fn one_of(kinds: &[&str], text: &str) -> Result<String, String> {
    if kinds.contains(&text) {
        return Ok(text.to_owned());
    }
    let likeness = |kind: &&str| strsim::jaro_winkler(text, kind);
    let nearest = kinds.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let hint = nearest.filter(|kind| likeness(kind) >= ALIKE);
    let hint = hint.map(|kind| format!("did you mean {kind}? ")).unwrap_or_default();
    Err(format!("{hint}valid kinds: {}", kinds.join(", ")))
}

fn job_id(text: &str) -> Result<String, String> {
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.is_empty() || text.len() > 32 || !is_hexadecimal {
        return Err("a job id is 1 to 32 hexadecimal digits; `buildtrail jobs` lists them".into());
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_misspelt_kind_is_refused_with_the_nearest_one() {
        assert_eq!(kind("secret.access").unwrap(), "secret.access");
        for (text, nearest) in [
            ("secret", "secret.access"),
            ("secrets.access", "secret.access"),
            ("dns", "dns.lookup"),
            ("exec", ""),
        ] {
            let message = kind(text).unwrap_err();
            let suggested = message.strip_prefix("did you mean ").and_then(|rest| rest.split_once('?'));
            assert_eq!(suggested.map(|(kind, _)| kind).unwrap_or_default(), nearest, "{message}");
        }
    }

    #[test]
    fn a_job_is_named_by_hexadecimal_digits() {
        assert_eq!(job_id("3F9a").unwrap(), "3f9a");
        for wrong in ["", "xyz", "../etc", &"0".repeat(33)] {
            assert!(job_id(wrong).is_err());
        }
    }
}
