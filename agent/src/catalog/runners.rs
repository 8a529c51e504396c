//! What registers a runner with its CI, and the files in which that is kept.

use super::{base_name, commands::fits};

/// Program, words that follow in this order, platform. From the runners' public manuals.
const COMMANDS: &[(&str, &[&str], &str)] = &[
    ("Runner.Listener", &["configure"], "github-actions"),
    ("Runner.Listener", &["remove"], "github-actions"),
    ("config.sh", &["--url"], "github-actions"),
    ("config.sh", &["remove"], "github-actions"),
    ("gitlab-runner", &["register"], "gitlab"),
    ("gitlab-runner", &["unregister"], "gitlab"),
    ("gitlab-ci-multi-runner", &["register"], "gitlab"),
    ("act_runner", &["register"], "gitea"),
    ("forgejo-runner", &["register"], "forgejo"),
    ("forgejo-runner", &["create-runner-file"], "forgejo"),
    ("buildkite-agent", &["start"], "buildkite"),
    ("Agent.Listener", &["configure"], "azure-pipelines"),
    ("circleci-runner", &["machine"], "circleci"),
    ("drone-runner-exec", &["daemon"], "drone"),
    ("woodpecker-agent", &[], "woodpecker"),
    ("buildbot-worker", &["create-worker"], "buildbot"),
];

/// End of the path, platform. A name that others use as well stands with its directory.
const FILES: &[(&str, &str)] = &[
    (".runner", "github-actions"),
    (".credentials_rsaparams", "github-actions"),
    (".agent", "azure-pipelines"),
    (".gitlab-runner/config.toml", "gitlab"),
    ("gitlab-runner/config.toml", "gitlab"),
    ("buildkite-agent.cfg", "buildkite"),
    ("conf/buildAgent.properties", "teamcity"),
    ("buildbot.tac", "buildbot"),
    ("launch-agent-config.yaml", "circleci"),
    ("circleci-runner-config.yaml", "circleci"),
];

/// The platform whose runner this command line registers or removes. A script stands behind its interpreter.
#[must_use]
pub fn registering_command(arguments: &[Vec<u8>]) -> Option<&'static str> {
    let is_shell = |name: &[u8]| [&b"sh"[..], b"bash", b"dash"].contains(&name);
    let script = arguments.first().is_some_and(|program| is_shell(base_name(program)));
    let arguments = if script { arguments.get(1..)? } else { arguments };
    COMMANDS
        .iter()
        .find(|(program, words, _)| fits(arguments, program, words))
        .map(|(.., platform)| *platform)
}

/// The platform whose runner keeps its registration under this path.
#[must_use]
pub fn registration(path: &[u8]) -> Option<&'static str> {
    let fits = |end: &str| path.strip_suffix(end.as_bytes()).is_some_and(|before| before.ends_with(b"/"));
    FILES.iter().find(|(end, _)| fits(end)).map(|(_, platform)| *platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registering_is_known_by_program_and_words() {
        for (line, platform) in [
            ("./config.sh --url https://github.com/a/b --token x", Some("github-actions")),
            ("/bin/bash ./config.sh --unattended --url u", Some("github-actions")),
            ("/usr/bin/gitlab-runner --debug register", Some("gitlab")),
            ("gitlab-runner list", None),
            ("bash config.sh", None),
            ("bash", None),
        ] {
            let arguments: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(registering_command(&arguments), platform, "{line}");
        }
        assert_eq!(registering_command(&[]), None);
    }

    #[test]
    fn registrations_are_known_by_the_end_of_their_path() {
        for (path, platform) in [
            ("/home/ci/second/.runner", Some("github-actions")),
            ("/etc/gitlab-runner/config.toml", Some("gitlab")),
            ("/src/app/config.toml", None),
            ("/src/x.runner", None),
            (".runner", None),
        ] {
            assert_eq!(registration(path.as_bytes()), platform, "{path}");
        }
    }
}
