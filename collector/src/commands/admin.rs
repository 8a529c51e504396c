//! `buildtrail-collector admin`: local administrators, made on the collector's own machine.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use buildtrail_collector::{
    access::local::{self, NewAdmin},
    config::Config,
};
use clap::Subcommand;
use nix::{
    sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr},
    unistd::getuid,
};

use super::say;

/// Longest line that is read as a password, in bytes.
const MAX_LINE: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// Make one. The password comes from the terminal, or is the first line of standard input; shows the key for an
    /// authenticator program and the recovery codes, this once.
    Create(Named),
    /// Give one a new password, key and recovery codes, and end their sessions.
    Reset(Named),
    /// List them.
    List {
        /// Settings file; without it the defaults that `config` prints.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Name of the administrator.
    name: String,
    /// Settings file; without it the defaults that `config` prints.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs a command to its end.
pub(crate) fn run(command: Admin) -> Result<()> {
    match command {
        Admin::Create(named) => put(&named, false),
        Admin::Reset(named) => put(&named, true),
        Admin::List { config } => {
            let config = Config::load(config.as_deref())?;
            for (name, created) in local::list(&config.control_file())? {
                let created = jiff::Timestamp::from_second(created).unwrap_or_default();
                say(&format!("{name}  since {created}"))?;
            }
            Ok(())
        }
    }
}

fn put(Named { name, config }: &Named, reset: bool) -> Result<()> {
    let config = Config::load(config.as_deref())?;
    let directory = &config.data_directory;
    std::fs::metadata(directory).with_context(|| {
        format!("there is no {} yet; start the collector once before", directory.display())
    })?;
    let password = password()?;
    let by = format!("user {} on the collector's machine", getuid());
    let made = local::put(&config.control_file(), name, &password, reset, &by)?;
    show(&made)
}

fn show(made: &NewAdmin) -> Result<()> {
    say("Shown this once. Put the key into an authenticator program:")?;
    say(&format!("  {}\n  {}", made.device, made.uri))?;
    say("Keep these recovery codes elsewhere; each stands in for the device once:")?;
    made.recovery_codes.iter().try_for_each(|code| say(&format!("  {code}")))
}

/// Twice from a terminal that shows nothing, or a line of standard input. Never from the arguments, which others see.
fn password() -> Result<String> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let hidden = Hidden::begin()?;
    let first = asked("Password (12 characters or more): ")?;
    let second = asked("Once more: ")?;
    drop(hidden);
    if first != second {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(first)
}

fn asked(question: &str) -> Result<String> {
    let mut out = io::stderr();
    write!(out, "{question}")?;
    out.flush()?;
    let line = line();
    writeln!(out)?;
    line
}

fn line() -> Result<String> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), MAX_LINE).read_line(&mut line).context("cannot read the password")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives, the terminal does not show what is typed.
struct Hidden(nix::sys::termios::Termios);

impl Hidden {
    fn begin() -> Result<Self> {
        let shown = tcgetattr(io::stdin()).context("cannot hide what is typed")?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &hidden).context("cannot hide what is typed")?;
        Ok(Self(shown))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
