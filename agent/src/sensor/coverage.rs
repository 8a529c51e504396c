//! What this host can see, hook by hook, and what it cannot.

use buildtrail_proto::v1;

/// Which kind of kernel hook serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// LSM, or fexit on `security_*`.
    A,
    /// BTF tracepoints, cgroup hooks, fanotify.
    B,
    /// Plain tracepoints: degraded.
    C,
}

impl Tier {
    fn letter(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }
}

/// What one hook got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookReport {
    /// The hook, as in coverage and loss events.
    pub hook: &'static str,
    /// `None`: nothing serves it.
    pub tier: Option<Tier>,
    /// What serves it, or why nothing does.
    pub detail: String,
}

impl HookReport {
    /// A hook that works.
    #[must_use]
    pub fn served(hook: &'static str, tier: Tier, by: &str) -> Self {
        Self { hook, tier: Some(tier), detail: by.to_owned() }
    }

    /// A hook that this host does not have.
    #[must_use]
    pub fn uncovered(hook: &'static str, reason: String) -> Self {
        Self { hook, tier: None, detail: reason }
    }

    /// The tier's letter, or a dash.
    #[must_use]
    pub fn letter(&self) -> &'static str {
        self.tier.map_or("-", Tier::letter)
    }
}

/// The whole account.
#[derive(Clone, Debug, Default)]
pub struct CoverageReport {
    /// Every hook.
    pub hooks: Vec<HookReport>,
    /// Plain sentences: what cannot be seen here.
    pub gaps: Vec<String>,
}

/// What no tier sees.
const GENERAL_GAPS: &[&str] = &[
    "Opens of secret files that the file system's permissions deny are not seen.",
    "Of a program that ends at once the working directory can be missing, and its path is then the one given to execve.",
    "Of packet sockets (AF_PACKET, AF_XDP), AF_VSOCK and other families the opening is seen, not what they send and where.",
    "DNS over TLS or HTTPS is seen as a connection only, and DNS at another port than 53 too.",
    "A TLS server name that is encrypted (ECH), or split so that the first packet is no whole start of a ClientHello, is not seen.",
    "Files that jobs write on network file systems are not known as theirs, nor those that they change by a new name or new rights alone.",
    "What one job leaves and another uses is known of the latest 40,000 files that jobs wrote; whether a file was really used or only read cannot be told.",
    "Connections that were open when the agent started are not seen, nor those that other hosts open to this one.",
];

/// What is not seen where a hook is not served at tier A.
const TIER_B_GAPS: &[(&str, &str)] = &[
    (
        "socket.other",
        "Sockets of families other than IP and unix that were opened by io_uring or a 32-bit system call are seen at their first send only.",
    ),
    (
        "connect.unix",
        "Connections to unix sockets by io_uring or a 32-bit system call are seen at their first send only.",
    ),
    (
        "file.open",
        "The path by which a job reached a secret (a symbolic link, a bind mount) is not seen; the file's own path is.",
    ),
    (
        "file.open",
        "A secret file created during a job is watched some milliseconds after it appears, when its directory is watched.",
    ),
    ("file.open", "Secret files that are touched while the agent is restarted are not seen."),
    (
        "file.open",
        "Secrets in a workspace, a container or a copy of a home directory are not known by their names.",
    ),
    (
        "memory.access",
        "Access to another process's memory by way of /proc/PID (mem, environ, maps, fd) is not seen, except to a runner's.",
    ),
];

/// What is not seen where nothing serves a hook.
const UNSERVED_GAPS: &[(&str, &str)] = &[
    (
        "tcp.state",
        "How TCP connections end, how many bytes they carry, and the names that TLS clients and proxies were asked for are not seen.",
    ),
    (
        "socket.send",
        "Who uses a connection that another process opened and left to it or passed on is not seen.",
    ),
];

/// One sentence for all hooks that are refused for the same reason.
fn uncovered(hooks: &[HookReport]) -> Vec<String> {
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    for report in hooks.iter().filter(|report| report.tier.is_none()) {
        // "fentry/security_file_open: Operation not permitted": the way to serve a hook is its own, the reason is not.
        let reason = report.detail.split_once(": ").map_or(report.detail.as_str(), |(_, reason)| reason);
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, hooks)) => hooks.push(report.hook),
            None => by_reason.push((reason, vec![report.hook])),
        }
    }
    let sentence =
        |(reason, hooks): &(&str, Vec<&str>)| format!("Not covered: {}: {reason}", hooks.join(", "));
    by_reason.iter().map(sentence).collect()
}

impl CoverageReport {
    /// Adds what follows from the hooks' tiers and from missing kernel members.
    #[must_use]
    pub fn new(hooks: Vec<HookReport>, missing_members: &[String]) -> Self {
        let mut gaps = uncovered(&hooks);
        gaps.extend(missing_members.iter().map(|member| format!("{member}; what needs it is off.")));
        let unserved = |hook: &str| hooks.iter().any(|report| report.hook == hook && report.tier.is_none());
        let of_unserved = UNSERVED_GAPS.iter().filter(|(hook, _)| unserved(hook));
        gaps.extend(of_unserved.map(|(_, gap)| (*gap).to_owned()));
        let at_tier_a =
            |hook: &str| hooks.iter().any(|report| report.hook == hook && report.tier == Some(Tier::A));
        let of_tier_b = TIER_B_GAPS.iter().filter(|(hook, _)| !at_tier_a(hook));
        gaps.extend(of_tier_b.map(|(_, gap)| (*gap).to_owned()));
        gaps.extend(GENERAL_GAPS.iter().map(|gap| (*gap).to_owned()));
        Self { hooks, gaps }
    }

    /// Whether a hook is served.
    #[must_use]
    pub fn serves(&self, hook: &str) -> bool {
        self.hooks.iter().any(|report| report.hook == hook && report.tier.is_some())
    }

    /// Whether security functions serve a hook.
    #[must_use]
    pub fn serves_at_tier_a(&self, hook: &str) -> bool {
        self.hooks.iter().any(|report| report.hook == hook && report.tier == Some(Tier::A))
    }

    /// What serves a hook, or why nothing does.
    #[must_use]
    pub fn detail(&self, hook: &str) -> String {
        self.hooks
            .iter()
            .find(|report| report.hook == hook)
            .map(|report| report.detail.clone())
            .unwrap_or_default()
    }

    /// As an event's body.
    #[must_use]
    pub fn to_event(&self, kernel_release: &str) -> v1::Coverage {
        let tier = |report: &HookReport| match report.tier {
            Some(Tier::A) => v1::Tier::A,
            Some(Tier::B) => v1::Tier::B,
            Some(Tier::C) => v1::Tier::C,
            None => v1::Tier::None,
        };
        v1::Coverage {
            kernel_release: kernel_release.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            hooks: self
                .hooks
                .iter()
                .map(|report| v1::HookCoverage {
                    hook: report.hook.to_owned(),
                    tier: tier(report).into(),
                    detail: report.detail.clone(),
                })
                .collect(),
            gaps: self.gaps.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_that_are_refused_for_the_same_reason_are_one_sentence() {
        let refused = |hook, reason: &str| HookReport::uncovered(hook, reason.to_owned());
        let hooks = [
            refused("file.open", "fentry/a: Operation not permitted"),
            refused("file.map", "fentry/b: Operation not permitted"),
            refused("dns", "no cgroup hierarchy"),
            HookReport::served("exec", Tier::B, "tp_btf/c"),
        ];
        assert_eq!(
            uncovered(&hooks),
            [
                "Not covered: file.open, file.map: Operation not permitted",
                "Not covered: dns: no cgroup hierarchy"
            ]
        );
    }
}
