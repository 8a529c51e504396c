//! The `buildtrail-agent` program: arguments, exit codes, logging. Everything else is in the library.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use buildtrail_agent::{
    check,
    config::{self, Config},
    control::{Moment, client},
    enrol::{Enrolment, IdentityStore},
    link::CaPin,
    run::{self, Destination, RunError},
    sensor::{SensorError, privilege, tracefs},
};
use clap::{Parser, Subcommand, ValueEnum};
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

/// The audit trail of build machines: watches what CI jobs on this host do with secrets.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 stopped cleanly; 1 other failure; 2 usage, settings or certificates; 3 not permitted (not \
                  root, or the kernel refuses eBPF); 4 this kernel cannot serve the agent."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch until stopped by SIGTERM or SIGINT
    Run {
        /// Settings file [default: /etc/buildtrail-agent/agent.toml, if it exists]
        #[arg(long)]
        config: Option<PathBuf>,
        /// Write events to standard output instead of sending them to a collector
        #[arg(long, value_enum)]
        output: Option<OutputFormat>,
        /// Create this file once every sensor is attached
        #[arg(long)]
        ready_file: Option<PathBuf>,
    },
    /// Get this host's certificate from the collector, with a join token
    ///
    /// Makes the host's key, which never leaves this machine, and keeps key and certificate in identity.pem in the state
    /// directory. A host that has a key keeps it, and its host id.
    Enrol {
        /// Settings file [default: /etc/buildtrail-agent/agent.toml, if it exists]
        #[arg(long)]
        config: Option<PathBuf>,
        /// The collector, https://HOST:PORT [default: those of the settings]
        #[arg(long, value_name = "URL")]
        collector: Option<String>,
        /// File that holds the token of `buildtrail enrol create`
        #[arg(long, value_name = "FILE")]
        token_file: PathBuf,
        /// SHA-256 of the authority's public key, as `buildtrail-collector ca pin` prints it
        #[arg(long, value_name = "SHA256")]
        ca_pin: CaPin,
        /// What people call this host [default: its host name]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Make a new key and become another host, as after cloning or revocation
        #[arg(long)]
        new_identity: bool,
    },
    /// Show which hooks load on this host, at which tier, and what is not covered
    Check {
        /// Settings file [default: /etc/buildtrail-agent/agent.toml, if it exists]
        #[arg(long)]
        config: Option<PathBuf>,
        /// Only compare the prototypes of functions and tracepoints with this kernel's; loads nothing
        #[arg(long)]
        prototypes: bool,
    },
    /// Detach what an agent with `sensor.pin_directory` left attached for its successor
    Detach {
        /// Settings file [default: /etc/buildtrail-agent/agent.toml, if it exists]
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Tell the agent on this host that a job begins or ends; for the hook scripts of runners
    ///
    /// Prints the job's id where the agent knows it. Fails only where the settings say `hooks.required = true`.
    Hook {
        /// What happens
        #[arg(value_enum)]
        moment: HookMoment,
        /// Settings file [default: /etc/buildtrail-agent/agent.toml, if it exists]
        #[arg(long)]
        config: Option<PathBuf>,
        /// Read the job's identity token from standard input
        #[arg(long)]
        token_stdin: bool,
    },
    /// Print a settings file with every key, its default and its meaning
    Config,
}

#[derive(Clone, Copy, ValueEnum)]
enum HookMoment {
    Started,
    Completed,
}

impl From<HookMoment> for Moment {
    fn from(moment: HookMoment) -> Self {
        match moment {
            HookMoment::Started => Self::Started,
            HookMoment::Completed => Self::Completed,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// One `buildtrail.v1.AuditEvent` a line
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("BUILDTRAIL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .init();
    match arguments.command {
        Command::Run { config, output, ready_file } => with_config(config.as_deref(), |config| {
            let destination = if output.is_some() { Destination::Json } else { Destination::Collector };
            start(config, destination, ready_file)
        }),
        Command::Enrol { config, collector, token_file, ca_pin, name, new_identity } => {
            with_config(config.as_deref(), |mut config| {
                config.collector.addresses = collector.map_or(config.collector.addresses, |url| vec![url]);
                config.enrol.name = name.or(config.enrol.name);
                enrol(&config, &Enrolment { token_file, ca_pin, new_identity })
            })
        }
        Command::Check { prototypes: true, .. } => match check::print_prototypes(&mut io::stdout()) {
            Ok(same) => ExitCode::from(u8::from(!same)),
            Err(error) => {
                error!("{error}");
                ExitCode::FAILURE
            }
        },
        Command::Check { config, prototypes: false } => with_config(config.as_deref(), |config| {
            let sensor = permitted().and_then(|()| check::sensor(&config))?;
            let printed = check::print(&sensor.coverage, &mut io::stdout().lock());
            printed.map_err(|source| RunError::System { what: "cannot write the report", source })
        }),
        Command::Detach { config } => with_config(config.as_deref(), |config| {
            permitted()?;
            check::detach(&config, &mut io::stdout().lock())
        }),
        Command::Hook { moment, config, token_stdin } => hook(moment.into(), config.as_deref(), token_stdin),
        Command::Config => {
            let written = io::Write::write_all(&mut io::stdout(), Config::documented_default().as_bytes());
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// Whatever goes wrong is said; it fails the job only where the settings want that.
fn hook(moment: Moment, path: Option<&Path>, token_stdin: bool) -> ExitCode {
    let path = path.unwrap_or(Path::new(Config::DEFAULT_PATH));
    // Settings that this user may not read are no reason to fail a job.
    let hooks = Config::load(path).map_or_else(|_| config::Hooks::default(), |config| config.hooks);
    let token = token_stdin.then(|| client::read_token(io::stdin().lock())).transpose();
    let token = token.unwrap_or_else(|error| {
        warn!("{error}");
        None
    });
    match client::tell(&hooks.socket, moment, token) {
        Ok(job) if job.is_empty() => ExitCode::SUCCESS,
        Ok(job) => {
            // Nobody has to listen.
            let _ = writeln!(io::stdout(), "{job}");
            ExitCode::SUCCESS
        }
        Err(error) if hooks.required => {
            error!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            warn!("{error}");
            ExitCode::SUCCESS
        }
    }
}

fn with_config(path: Option<&Path>, then: impl FnOnce(Config) -> Result<(), RunError>) -> ExitCode {
    let default = Path::new(Config::DEFAULT_PATH);
    let config = match path {
        Some(path) => Config::load(path),
        None if default.exists() => Config::load(default),
        None => Ok(Config::default()),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            error!("{error}");
            return ExitCode::from(2);
        }
    };
    match then(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn enrol(config: &Config, enrolment: &Enrolment) -> Result<(), RunError> {
    let refused = |what| move |source| RunError::System { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(refused("cannot start the runtime"))?;
    let id = runtime.block_on(enrolment.run(config))?;
    let kept = IdentityStore::new(&config.host.state_directory).path();
    writeln!(io::stdout(), "enrolled as host {id}; its identity is in {}", kept.display())
        .map_err(refused("cannot write to standard output"))
}

fn start(config: Config, destination: Destination, ready_file: Option<PathBuf>) -> Result<(), RunError> {
    permitted()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|source| RunError::System { what: "cannot start the runtime", source })?;
    runtime.block_on(run::run(config, destination, ready_file))
}

/// The rights that are needed, and tracefs where the process can see it. Before the first thread is started.
fn permitted() -> Result<(), SensorError> {
    privilege::check()?;
    if let Err(error) = tracefs::ensure() {
        warn!(%error, "tracefs cannot be mounted; hooks that need it are not covered");
    }
    Ok(())
}
