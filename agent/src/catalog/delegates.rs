//! Daemons that do a job's work in a lineage of their own.

use super::{base_name, commands::fits};

/// Program, words that follow in this order, the service that then does the work. From their manuals.
const COMMANDS: &[(&str, &[&str], &str)] = &[
    ("at", &[], "at"),
    ("batch", &[], "at"),
    ("crontab", &[], "cron"),
    ("systemd-run", &[], "systemd"),
    ("systemctl", &["start"], "systemd"),
    ("systemctl", &["restart"], "systemd"),
    ("systemctl", &["enable"], "systemd"),
    ("machinectl", &["shell"], "systemd"),
    ("machinectl", &["start"], "systemd"),
    ("busctl", &["call"], "D-Bus"),
    ("dbus-send", &[], "D-Bus"),
    ("gdbus", &["call"], "D-Bus"),
];

/// End of a socket's path, service.
const SOCKETS: &[(&str, &str)] = &[
    ("/run/systemd/private", "systemd"),
    ("/systemd/private", "systemd"),
    ("/dbus/system_bus_socket", "D-Bus"),
    ("/nix/var/nix/daemon-socket/socket", "Nix daemon"),
    ("/buildkitd.sock", "BuildKit"),
    ("/snapd.socket", "snapd"),
    ("/lxd/unix.socket", "LXD"),
    ("/libvirt-sock", "libvirt"),
];

/// Ports on the host itself. From the programs' manuals: their defaults.
const PORTS: &[(u16, &str)] = &[
    (1234, "BuildKit"),
    (2375, "Docker engine"),
    (2376, "Docker engine"),
    (3632, "distcc"),
    (4226, "sccache"),
];

/// The service that this command hands work to.
#[must_use]
pub fn command(arguments: &[Vec<u8>]) -> Option<&'static str> {
    COMMANDS.iter().find(|(program, words, _)| fits(arguments, program, words)).map(|(.., service)| *service)
}

/// The service behind the socket of this path.
#[must_use]
pub fn socket(path: &[u8]) -> Option<&'static str> {
    if path.starts_with(b"/run/user/") && path.ends_with(b"/bus") {
        return Some("D-Bus");
    }
    if path.windows(6).any(|part| part == b"/tmux-") {
        return Some("tmux");
    }
    SOCKETS.iter().find(|(end, _)| path.ends_with(end.as_bytes())).map(|(_, service)| *service)
}

/// The service that usually listens on this port of the host itself.
#[must_use]
pub fn port(port: u16) -> Option<&'static str> {
    PORTS.iter().find(|(known, _)| *known == port).map(|(_, service)| *service)
}

/// What to call a daemon that is known by its program only.
#[must_use]
pub fn daemon(executable: &[u8]) -> &'static str {
    match base_name(executable) {
        b"java" => "Java daemon",
        b"bazel" | b"bazel-real" => "bazel server",
        b"sccache" => "sccache",
        b"ccache" => "ccache",
        b"buildkitd" => "BuildKit",
        b"node" => "Node.js daemon",
        _ => "daemon",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_overs_are_known_by_command_and_socket() {
        for (line, service) in [
            ("at now", Some("at")),
            ("/usr/bin/systemd-run --user -- sh -c x", Some("systemd")),
            ("systemctl --user start x.service", Some("systemd")),
            ("systemctl status x", None),
            ("cat at", None),
        ] {
            let arguments: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(command(&arguments), service, "{line}");
        }
        for (path, service) in [
            ("/run/dbus/system_bus_socket", Some("D-Bus")),
            ("/run/user/1001/bus", Some("D-Bus")),
            ("/run/user/1001/systemd/private", Some("systemd")),
            ("/tmp/tmux-0/default", Some("tmux")),
            ("/tmp/other", None),
        ] {
            assert_eq!(socket(path.as_bytes()), service, "{path}");
        }
    }
}
