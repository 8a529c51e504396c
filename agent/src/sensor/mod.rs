//! From kernel hooks to typed records.
//!
//! In: nothing but the running kernel. Out: [`records::Record`]s and [`files::FileEvent`]s in the order in which they
//! happened, and a coverage report. Must never decide which job something belongs to, never block a job, and never hide
//! a loss: what the kernel side could not deliver is counted there and read here.

pub mod btf;
pub mod cgroup;
pub mod coverage;
pub mod loader;
pub mod offsets;
pub mod tracefs;

/// Why the sensor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Not root, or the kernel refuses eBPF.
    #[error("not permitted to load eBPF programs: run the agent as root, with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN ({0})")]
    NotPermitted(String),
    /// The kernel exposes no type information.
    #[error("this kernel exposes no type information at {path}: a kernel built with CONFIG_DEBUG_INFO_BTF is needed ({source})")]
    NoBtf {
        /// Where it should be.
        path: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The type information is unreadable.
    #[error("the kernel's type information is unreadable: {0}")]
    Btf(#[from] btf::BtfError),
    /// The eBPF object was refused as a whole.
    #[error("the eBPF object cannot be loaded: {0}")]
    Load(String),
    /// Without process hooks nothing can be tied to a job.
    #[error("no way to see processes on this kernel, so nothing can be tied to a job: {0}")]
    NoProcessHooks(String),
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SensorError {
    fn from_load(error: aya::EbpfError) -> Self {
        let mut text = error.to_string();
        let mut permission = false;
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            permission |= cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied);
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        if permission { Self::NotPermitted(text) } else { Self::Load(text) }
    }
}
