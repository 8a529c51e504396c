//! The command line. Its `--help` is the manual.

use std::path::PathBuf;

use buildtrail_proto::{
    ACT_KINDS, EVENT_KINDS, Timestamp,
    v1::{Condition, Operator, Search},
};
use buildtrail_query::Field;
use buildtrail_settings::Span as Duration;
use clap::{Args, Parser, Subcommand};

use crate::time;

/// Names nearer than this (0 to 1) are suggested.
const ALIKE: f64 = 0.7;

const AFTER_HELP: &str = "\
Searches (--where):
  Words that must all hold: FIELD=VALUE, FIELD!=VALUE, FIELD~PART, FIELD>=NUMBER, FIELD<=NUMBER,
  or free text. * and ? stand for any text and any character; A,B means A or B; what holds
  spaces stands in \"quotes\". Fields: host platform server repo workflow run job step actor
  ref sha trigger runner secret family credential way dest address name port protocol bytes exe
  path argument kind outcome uid text. docs/query.md explains all.

Profile:
  A directory with ca.pem, cert.pem and key.pem (as `buildtrail-collector ca reader` writes
  them) and a file `collector` that holds the collector's URL. A file `token` with an API token
  can stand for cert.pem and key.pem. Looked for in --profile, BUILDTRAIL_PROFILE,
  $XDG_CONFIG_HOME/buildtrail or ~/.config/buildtrail. Single flags and variables come before
  the profile's files; BUILDTRAIL_TOKEN holds a token itself.

Exit codes:
  0  done; verify: intact and complete, nothing lost; hunt: nothing was found
  1  wrong usage, or the collector cannot be asked
  3  verify: tampered: what was checked was altered or is damaged
  4  verify: unreadable: it cannot be read, or is something else
  5  verify: intact but incomplete: events are missing, or hosts report that they lost some
  6  hunt: an indicator was found

Examples:
  buildtrail jobs --where 'repo=acme/widgets' --since 1d
  buildtrail show 3f9a0c11d2e4
  buildtrail events --where 'repo=acme/* kind=secret.access secret~aws' --since 2h --ndjson
  buildtrail secrets --since 30d --csv
  buildtrail destinations --where 'repo=acme/*' --sort first
  buildtrail aggregate --by repo,kind --over hour --since 1d
  buildtrail hunt --indicators iocs.txt
  buildtrail verify --log /var/lib/buildtrail-collector
  buildtrail export --job 3f9a0c11d2e4 --bundle job.evidence
  buildtrail verify --bundle job.evidence --log-key log.vkey
  buildtrail enrol create --ttl 1h --uses 20 --name 'runner-*'";

/// Ask a Buildtrail collector what build jobs did, and verify its log.
#[derive(Debug, Parser)]
#[command(name = "buildtrail", version, after_help = AFTER_HELP, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// In which form answers are printed; none of these: tables for people.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Form of the answer")]
pub(crate) struct Form {
    /// Print one JSON document (`tail`: one per line)
    #[arg(long, global = true, conflicts_with_all = ["csv", "ndjson"])]
    json: bool,
    /// Print CSV with a line of titles; cells that spreadsheets would take for formulas begin with an apostrophe
    #[arg(long, global = true, conflicts_with = "ndjson")]
    csv: bool,
    /// Print one JSON document per line
    #[arg(long, global = true)]
    ndjson: bool,
}

impl Form {
    pub(crate) fn chosen(self) -> Shape {
        match (self.json, self.csv, self.ndjson) {
            (true, ..) => Shape::Json,
            (_, true, _) => Shape::Csv,
            (.., true) => Shape::NdJson,
            _ => Shape::Table,
        }
    }
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Table,
    Json,
    NdJson,
    Csv,
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
    /// File with an API token, which stands for a certificate; or set `BUILDTRAIL_TOKEN` to the token itself
    #[arg(long, global = true, env = "BUILDTRAIL_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name in the collector's certificate, if it is not the host of the URL
    #[arg(long, global = true, env = "BUILDTRAIL_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List jobs, newest first
    Jobs(Jobs),
    /// List events, newest first
    Events(Events),
    /// Follow events as they are stored
    Tail(Which),
    /// List the secrets and credentials that were used: how often, by how many jobs, first and last
    Secrets(Ranking),
    /// List where jobs connected to: how often, by how many jobs, bytes, first and last
    Destinations(Ranking),
    /// Count events and jobs by the values of any fields, and over time
    Aggregate(Aggregate),
    /// List hosts: what they cover, what they lost, when they were there last
    Hosts,
    /// Look for indicators of compromise in all history: affected jobs, and which secrets to rotate first
    Hunt(Hunt),
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
    /// Tokens with which programs ask in your name
    ///
    /// A token never allows more than you may do yourself.
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, this once
    Create {
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        name: String,
        /// viewer, analyst, responder, auditor or admin; yours if it is left out
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        /// Only for repositories that match (* and ? as in file names); may be given several times
        #[arg(long = "repository", value_name = "PATTERN")]
        repositories: Vec<String>,
        /// How long it is good for: from 1m to what the collector allows
        #[arg(long, value_name = "TIME", default_value = "30d")]
        ttl: Duration,
    },
    /// List your tokens, newest first
    List {
        /// Those of all people; for administrators
        #[arg(long)]
        all: bool,
    },
    /// Make a token void
    Revoke {
        /// Its id; `buildtrail token list` shows it
        token: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Enrol {
    /// Make a join token and print it, this once
    Create {
        /// How long it is good for: 1m to 30d
        #[arg(long, value_name = "TIME", default_value = "1h")]
        ttl: Duration,
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
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
    /// What comes first: the newest, the longest, the one with most events, or with most bytes to other hosts
    #[arg(long, value_enum, default_value_t = JobOrder::Started)]
    pub(crate) sort: JobOrder,
    /// The other way round
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Most jobs to list
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum JobOrder {
    Started,
    Duration,
    Events,
    BytesOut,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
    /// What comes first
    #[arg(long, value_enum, default_value_t = EventOrder::Newest)]
    pub(crate) sort: EventOrder,
    /// Most events to list
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventOrder {
    Newest,
    Oldest,
}

/// Where a list begins and ends.
#[derive(Debug, Args)]
pub(crate) struct Paging {
    /// Go on where an earlier answer ended
    #[arg(long, value_name = "CURSOR", default_value = "", hide_default_value = true)]
    pub(crate) cursor: String,
    /// List all, whatever the limit
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ranking {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
    /// What comes first
    #[arg(long, value_enum, default_value_t = RowOrder::Jobs)]
    pub(crate) sort: RowOrder,
    /// Most rows to list, 1 to 10000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Aggregate {
    #[command(flatten)]
    pub(crate) which: Which,
    #[command(flatten)]
    pub(crate) period: Period,
    /// By the values of these fields, at most 3, separated by commas
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = field)]
    pub(crate) by: Vec<String>,
    /// By time (UTC)
    #[arg(long, value_enum, value_name = "SPAN")]
    pub(crate) over: Option<Span>,
    /// What comes first
    #[arg(long, value_enum, default_value_t = RowOrder::Events)]
    pub(crate) sort: RowOrder,
    /// Most rows to list, 1 to 10000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Span {
    Minute,
    Hour,
    Day,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RowOrder {
    /// Most events
    Events,
    /// Most jobs
    Jobs,
    /// Latest last event
    Last,
    /// Latest first event: what is new
    First,
    /// Most bytes to other hosts
    BytesOut,
    /// By time and values, ascending
    Time,
}

#[derive(Debug, Args)]
pub(crate) struct Hunt {
    /// File of indicators (- for standard input): one a line, a STIX 2.1 bundle, or Sigma rules
    #[arg(long, value_name = "FILE")]
    pub(crate) indicators: PathBuf,
    /// What the file is, if its content does not show it
    #[arg(long, value_enum)]
    pub(crate) format: Option<IndicatorFile>,
    #[command(flatten)]
    pub(crate) period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum IndicatorFile {
    List,
    Stix,
    Sigma,
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
    /// Before: as --since
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub(crate) until: Option<Timestamp>,
}

/// Which jobs or events: all of it must hold.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// A search, as 'repo=acme/* kind=secret.access dest=*.example.com'; see below
    #[arg(long = "where", value_name = "SEARCH", value_parser = search)]
    searches: Vec<Search>,
    /// Only this job's: the same as job=ID
    #[arg(long, value_name = "ID", value_parser = job_id, conflicts_with = "outside_jobs")]
    job: Option<String>,
    /// Only this kind; may be given several times: kind=A,B
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<String>,
    /// Only this host's: host=ID
    #[arg(long, value_name = "ID")]
    host: Option<String>,
    /// Only this repository's: repo=NAME
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// Only events that belong to no job: job=""
    #[arg(long)]
    outside_jobs: bool,
}

impl Which {
    /// All of it as one search.
    ///
    /// # Errors
    /// A time is given twice.
    pub(crate) fn search(self, period: Option<Period>) -> anyhow::Result<Search> {
        let mut whole = Search::default();
        for search in self.searches {
            whole.r#where.extend(search.r#where);
            if whole.text.is_empty() {
                whole.text = search.text;
            } else if !search.text.is_empty() {
                whole.r#where.push(condition("text", Operator::Contains, vec![search.text]));
            }
            once(&mut whole.since, search.since, "since")?;
            once(&mut whole.until, search.until, "until")?;
        }
        let (since, until) = period.map(|period| (period.since, period.until)).unwrap_or_default();
        once(&mut whole.since, since, "since")?;
        once(&mut whole.until, until, "until")?;
        let outside = self.outside_jobs.then(String::new);
        for (field, values) in [
            ("job", self.job.or(outside).into_iter().collect()),
            ("kind", self.kinds),
            ("host", self.host.into_iter().collect()),
            ("repo", self.repository.into_iter().collect()),
        ] {
            if !Vec::is_empty(&values) {
                let values = values.iter().map(|value| buildtrail_query::exactly(value)).collect();
                whole.r#where.push(condition(field, Operator::Equals, values));
            }
        }
        Ok(whole)
    }
}

fn once(place: &mut Option<Timestamp>, time: Option<Timestamp>, name: &str) -> anyhow::Result<()> {
    if time.is_some() && place.is_some() {
        anyhow::bail!("{name} is given twice: as {name}=TIME in a search, or as --{name}, not both");
    }
    *place = place.or(time);
    Ok(())
}

fn condition(field: &str, operator: Operator, values: Vec<String>) -> Condition {
    Condition { field: field.to_owned(), operator: operator.into(), values }
}

fn search(text: &str) -> Result<Search, String> {
    buildtrail_query::parse(text).map_err(|error| error.to_string())
}

fn field(text: &str) -> Result<String, String> {
    let fields: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
    one_of(&fields, text).map_err(|error| error.replace("valid kinds", "the fields are"))
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
    fn the_manual_names_every_field() {
        let help: Vec<&str> = AFTER_HELP.split_whitespace().map(|word| word.trim_end_matches('.')).collect();
        for field in Field::ALL {
            assert!(help.contains(&field.name()), "{field}");
        }
    }

    /// Lines of the blocks of docs/query.md that are fenced with this word.
    fn manual(word: &str) -> Vec<&'static str> {
        let manual = include_str!("../../docs/query.md");
        let blocks = manual.split("```").skip(1).step_by(2);
        let lines: Vec<_> =
            blocks.filter_map(|block| block.strip_prefix(word)).flat_map(str::lines).collect();
        lines.into_iter().filter(|line| !line.is_empty()).collect()
    }

    #[test]
    fn the_examples_of_the_manual_are_understood() {
        let searches = manual("search");
        assert!(searches.len() >= 5);
        for line in searches {
            search(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let commands = manual("command");
        assert!(commands.len() >= 7);
        for line in commands {
            // As a shell splits it: apostrophes hold words together.
            let mut words = Vec::new();
            for (number, part) in line.split('\'').enumerate() {
                if number % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
            }
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn flags_and_searches_are_one_search() {
        let asked = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["buildtrail", "events"], words].concat()).unwrap();
            let Command::Events(events) = cli.command else { panic!("another command") };
            events.which.search(Some(events.period)).map(|search| buildtrail_query::to_text(&search))
        };
        for (words, expected) in [
            (&[][..], ""),
            (&["--outside-jobs"], "job=\"\""),
            (&["--kind", "loss", "--kind", "heartbeat"], "kind=loss,heartbeat"),
            (
                &["--where", "repo=acme/* aws", "--where", "x", "--job", "3F9A"],
                "repo=acme/* text~x job=3f9a \"aws\"",
            ),
            (&["--since", "2026-11-22T09:00:00Z", "--host", "h"], "host=h since=2026-11-22T09:00:00Z"),
        ] {
            assert_eq!(asked(words).unwrap(), expected, "{words:?}");
        }
        assert!(asked(&["--where", "since=1h", "--since", "2h"]).is_err());
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
