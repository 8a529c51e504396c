//! The commands of the program: each calls the library and says what it did.

mod admin;

use std::{
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use buildtrail_collector::{
    ca,
    config::{Config, DOCUMENTED},
    server::{self, OnLoss, ServeError, TreeError},
    witness,
};
use buildtrail_evidence::tlog::note::NoteKey;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// The central collector of Buildtrail: keeps the signed audit trail of build machines and answers questions about it.
///
/// Diagnostics go to standard error; the variable `BUILDTRAIL_LOG` sets their level (error, warn, info, debug). Exit status: 0 stopped
/// as asked or done, 1 an error that the last line names, 2 wrong arguments, 3 the log is not the one that was signed:
/// shorter, or another one.
#[derive(Debug, Parser)]
#[command(name = "buildtrail-collector", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive batches and answer questions until SIGTERM or SIGINT.
    ///
    /// Without any certificate, the first start makes an authority in the folder tls of the data directory and says so.
    #[command(visible_alias = "run")]
    Serve {
        /// Settings file; without it the defaults that `config` prints.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Write the address that is listened on to FILE once it is ready.
        #[arg(long, value_name = "FILE")]
        address_file: Option<PathBuf>,
        /// Go on although signed records at the end of the log are lost, and note it in the log.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Make the index anew from the log, while the collector is stopped.
    ///
    /// Not needed in normal life: a missing, damaged or outdated index is made anew at start. Says how far it is on
    /// standard error.
    Reindex {
        /// Settings file; without it the defaults that `config` prints.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Be a witness: cosign the checkpoints of other collectors' logs, and never two that contradict each other.
    ///
    /// Prints its public key, for the policy of those who ask for its signature. Its key and what it remembers of each log
    /// are in --dir; keep that directory, and keep it on another machine than the collector.
    Witness(Witness),
    /// Print the settings file with every key, its meaning and its default.
    Config,
    /// Local administrators, who sign in when the identity provider cannot be reached (docs/access.md).
    #[command(subcommand)]
    Admin(admin::Admin),
    /// Make certificates: an authority, and what it issues to hosts and readers.
    #[command(subcommand)]
    Ca(Ca),
}

#[derive(Debug, Subcommand)]
enum Ca {
    /// Make a private authority and the collector's own certificate in DIR.
    ///
    /// Writes ca.pem, ca-key.pem (keep it offline, unless hosts shall enrol by themselves), cert.pem and key.pem; [tls] in the settings names ca.pem, cert.pem
    /// and key.pem. Never overwrites anything.
    Init {
        /// Directory to write to.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// DNS names or IP addresses by which hosts and readers reach the collector.
        #[arg(long, value_name = "DNS_OR_IP", value_delimiter = ',', required = true)]
        name: Vec<String>,
    },
    /// Issue a build host's certificate; its key also signs the host's batches. Prints the host id.
    Host(Issue),
    /// Issue the certificate of a person or program that may ask the collector.
    Reader(Issue),
    /// Issue the certificate of someone who may also make join tokens and revoke hosts.
    Admin(Issue),
    /// Print the authority's pin, which a new host is given to know the collector by (`--ca-pin`).
    Pin {
        /// Directory of the authority (see `ca init`).
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Witness {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7444")]
    listen: SocketAddr,
    /// Directory of its key and its memory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Its name, best a host name of yours.
    #[arg(long)]
    name: String,
    /// Public key of a log to watch, as in that collector's tlog/log.vkey; may be given several times.
    #[arg(long = "log", value_name = "VKEY", required = true)]
    logs: Vec<NoteKey>,
    /// Certificate (PEM). Without it only plain HTTP on a loopback address.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key (PEM, PKCS#8).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Write the address that is listened on to FILE once it is ready.
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Issue {
    /// Directory of the authority (see `ca init`).
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Name of the host or reader.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Directory for ca.pem, cert.pem and key.pem. Nothing is overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs a command to its end.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Serve { config, address_file, accept_loss } => {
            let on_loss = if accept_loss { OnLoss::Accept } else { OnLoss::Refuse };
            serve(config.as_deref(), address_file.as_deref(), on_loss)
        }
        Command::Reindex { config } => {
            let records = server::reindex(&Config::load(config.as_deref())?)?;
            say(&format!("indexed {records} records"))
        }
        Command::Witness(arguments) => witness(arguments),
        Command::Config => say(DOCUMENTED.trim_end()),
        Command::Admin(command) => admin::run(command),
        Command::Ca(Ca::Init { dir, name }) => {
            ca::init(&dir, &name)?;
            say(&format!("made an authority and the collector's certificate in {}", dir.display()))
        }
        Command::Ca(Ca::Host(Issue { dir, name, out })) => {
            let id = ca::issue_host(&dir, &name, &out)?;
            say(&format!("issued to {}: host {name}, id {id}", out.display()))
        }
        Command::Ca(Ca::Reader(Issue { dir, name, out })) => {
            ca::issue_reader(&dir, &name, &out)?;
            say(&format!("issued to {}: reader {name}", out.display()))
        }
        Command::Ca(Ca::Admin(Issue { dir, name, out })) => {
            ca::issue_admin(&dir, &name, &out)?;
            say(&format!("issued to {}: administrator {name}", out.display()))
        }
        Command::Ca(Ca::Pin { dir }) => say(&ca::pin(&dir)?),
    }
}

/// The exit status for an error.
pub(crate) fn exit_status(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(ServeError::Tree(TreeError::RolledBack { .. } | TreeError::Replaced(_))) => 3,
        _ => 1,
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")
}

fn serve(config: Option<&Path>, address_file: Option<&Path>, on_loss: OnLoss) -> Result<()> {
    let config = Config::load(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let mut running = server::start_with(config, on_loss).await?;
        if let Some(file) = address_file {
            write_address(file, running.address())?;
        }
        say(&format!("listening on {}", running.address()))?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            failed = running.failed() => return Ok(failed?),
        }
        Ok(running.stop().await?)
    })
}

fn witness(arguments: Witness) -> Result<()> {
    let Witness { listen, dir, name, logs, tls_certificate, tls_key, address_file } = arguments;
    let tls = tls_certificate.zip(tls_key);
    let settings = witness::server::Settings { listen, directory: dir, name, logs, tls };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let running = witness::server::start(settings).await?;
        if let Some(file) = &address_file {
            write_address(file, running.address())?;
        }
        say(&format!("witness {} on {}", running.public_key(), running.address()))?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        Ok(())
    })
}

/// Whoever waits for the file never sees half of it.
fn write_address(file: &Path, address: SocketAddr) -> Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".new");
    let write = || {
        fs::write(&unfinished, format!("{address}\n"))?;
        fs::rename(&unfinished, file)
    };
    write().with_context(|| format!("cannot write the address file {}", file.display()))
}
