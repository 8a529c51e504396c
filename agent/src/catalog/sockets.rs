//! Unix sockets of agents and daemons that hold credentials or lend the rights of root.

use super::{Entry, base_name};

/// The service behind a socket: by its path, or by the program that listens there.
#[must_use]
pub fn service(path: &[u8], listener: &[u8]) -> Option<Entry> {
    by_path(path).or_else(|| by_listener(base_name(listener)))
}

fn by_path(path: &[u8]) -> Option<Entry> {
    let entry = match base_name(path) {
        b"docker.sock" => Entry::new("Docker engine", "container"),
        b"containerd.sock" => Entry::new("containerd", "container"),
        b"podman.sock" => Entry::new("Podman", "container"),
        b"crio.sock" => Entry::new("CRI-O", "container"),
        b"S.gpg-agent" | b"S.gpg-agent.extra" | b"S.gpg-agent.browser" => Entry::new("gpg-agent", "gpg"),
        b"S.gpg-agent.ssh" => Entry::new("gpg-agent for SSH", "ssh"),
        b"ssh" if path.ends_with(b"/keyring/ssh") => Entry::new("GNOME keyring SSH agent", "ssh"),
        // OpenSSH: $TMPDIR/ssh-XXXXXXXXXX/agent.<pid> (ssh-agent(1)); since 10.1 $HOME/.ssh/agent/s.*.
        name if name.starts_with(b"agent.") && contains(path, b"/ssh-") => Entry::new("ssh-agent", "ssh"),
        name if name.starts_with(b"s.") && contains(path, b"/.ssh/agent/") => Entry::new("ssh-agent", "ssh"),
        _ => return None,
    };
    Some(entry)
}

fn by_listener(program: &[u8]) -> Option<Entry> {
    let entry = match program {
        b"ssh-agent" => Entry::new("ssh-agent", "ssh"),
        b"gpg-agent" => Entry::new("gpg-agent", "gpg"),
        b"dockerd" => Entry::new("Docker engine", "container"),
        b"containerd" => Entry::new("containerd", "container"),
        b"vault" => Entry::new("Vault agent", "vault"),
        _ => return None,
    };
    Some(entry)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_known_by_path_or_by_who_listens() {
        let table: [(&[u8], &[u8], Option<&str>); 7] = [
            (b"/tmp/ssh-AbC/agent.12", b"", Some("ssh-agent")),
            (b"/custom/place", b"/usr/bin/ssh-agent", Some("ssh-agent")),
            (b"/run/docker.sock", b"/usr/lib/systemd/systemd", Some("Docker engine")),
            (b"/run/user/0/gnupg/S.gpg-agent", b"", Some("gpg-agent")),
            (b"/run/agent.sock", b"/usr/bin/other", None),
            (b"\0abstract", b"", None),
            (b"", b"", None),
        ];
        for (path, listener, name) in table {
            assert_eq!(service(path, listener).map(|entry| entry.name).as_deref(), name);
        }
    }
}
