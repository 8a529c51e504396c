//! Whether this process may do what the sensors need, asked before anything is attached.

use procfs::process::Process;

use super::SensorError;

/// Capability numbers (include/uapi/linux/capability.h).
const NEEDED: &[(u32, &str)] =
    &[(21, "CAP_SYS_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF"), (12, "CAP_NET_ADMIN")];

/// Checks the effective user and capabilities.
///
/// # Errors
///
/// [`SensorError::NotPermitted`], naming what is missing.
pub fn check() -> Result<(), SensorError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(SensorError::NotPermitted("this is not root".to_owned()));
    }
    let status = Process::myself().and_then(|process| process.status());
    let effective =
        status.map_err(|error| SensorError::NotPermitted(format!("/proc/self/status: {error}")))?.capeff;
    let missing = missing_from(effective);
    if missing.is_empty() { Ok(()) } else { Err(SensorError::NotPermitted(format!("{missing} missing"))) }
}

fn missing_from(effective: u64) -> String {
    let missing = NEEDED.iter().filter(|(number, _)| effective & (1 << number) == 0).map(|(_, name)| *name);
    missing.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing_from(u64::MAX), "");
        assert_eq!(missing_from(!(1 << 39 | 1 << 21)), "CAP_SYS_ADMIN, CAP_BPF");
    }
}
