//! Files by which one job can reach the next on the same host: settings, start-up scripts, libraries.

use super::base_name;

/// How such a file is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heirloom {
    /// Tells programs what to do.
    Settings,
    /// Run by shells, interpreters or git by themselves.
    StartUp,
    /// Loaded into other programs.
    Library,
    /// Run when something asks for it.
    Script,
}

/// Ends of paths, whole components. From the programs' manuals.
const SETTINGS: &[&str] = &[
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    "pip/pip.conf",
    ".pip/pip.conf",
    ".condarc",
    ".gitconfig",
    "git/config",
    ".git/config",
    ".docker/config.json",
    "containers/registries.conf",
    "containers/auth.json",
    ".curlrc",
    ".wgetrc",
    ".netrc",
    ".bundle/config",
    ".gemrc",
    ".cargo/config",
    ".cargo/config.toml",
    ".m2/settings.xml",
    ".m2/toolchains.xml",
    ".mavenrc",
    ".gradle/gradle.properties",
    ".gradle/init.gradle",
    ".gradle/init.gradle.kts",
    ".sbtopts",
    ".nuget/NuGet/NuGet.Config",
    ".ssh/config",
    ".ssh/known_hosts",
    ".ssh/authorized_keys",
    ".aws/config",
    ".kube/config",
    ".terraformrc",
    "pypoetry/config.toml",
    "go/env",
    ".ansible.cfg",
];

const START_UP: &[&str] = &[
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".kshrc",
    "fish/config.fish",
    ".pythonrc",
    ".vimrc",
    "sitecustomize.py",
    "usercustomize.py",
    "conftest.py",
];

/// In these directories every file is run by itself.
const START_UP_DIRECTORIES: &[&str] =
    &["/.git/hooks/", ".git/hooks/", "/profile.d/", "/init.d/", "/fish/conf.d/"];

const LIBRARIES: &[&str] = &["so", "node", "jar", "dylib", "pth", "pyc", "rlib"];
const SCRIPTS: &[&str] =
    &["sh", "bash", "py", "js", "mjs", "cjs", "pl", "pm", "rb", "php", "lua", "ps1", "gradle"];

/// Where the sources of jobs lie: those are another matter than what a job leaves elsewhere.
const WORKSPACES: &[&str] = &["/_work/", "/builds/", "/workspace/"];
/// In workspaces all the same: tools that jobs share.
const SHARED: &[&str] = &["/_work/_tool/", "/hostedtoolcache/"];

impl Heirloom {
    /// By the path; `None` for files that nothing uses by itself.
    #[must_use]
    pub fn of(path: &[u8]) -> Option<Self> {
        let ends = |ends: &[&str]| ends.iter().any(|end| ends_with_components(path, end));
        if ends(SETTINGS) {
            return Some(Self::Settings);
        }
        if ends(START_UP) || has(path, START_UP_DIRECTORIES) {
            return Some(Self::StartUp);
        }
        if has(path, WORKSPACES) && !has(path, SHARED) {
            return None;
        }
        let name = base_name(path);
        let extension = name.iter().rposition(|byte| *byte == b'.').map(|at| &name[at + 1..]);
        let is = |known: &[&str]| {
            extension.is_some_and(|found| known.iter().any(|known| known.as_bytes() == found))
        };
        if is(LIBRARIES) || name.windows(4).any(|part| part == b".so.") {
            return Some(Self::Library);
        }
        is(SCRIPTS).then_some(Self::Script)
    }

    /// Whether it is used without anybody asking for it: then no moment may be missed.
    #[must_use]
    pub fn acts_by_itself(self) -> bool {
        matches!(self, Self::Settings | Self::StartUp)
    }
}

fn ends_with_components(path: &[u8], end: &str) -> bool {
    path.strip_suffix(end.as_bytes()).is_some_and(|before| before.ends_with(b"/"))
}

fn has(path: &[u8], parts: &[&str]) -> bool {
    parts.iter().any(|part| path.windows(part.len()).any(|window| window == part.as_bytes()))
}

/// Programs that run the file which they are given.
#[must_use]
pub fn is_interpreter(executable: &[u8]) -> bool {
    const EXACT: [&[u8]; 11] =
        [b"sh", b"bash", b"dash", b"zsh", b"ksh", b"node", b"perl", b"ruby", b"php", b"lua", b"busybox"];
    let name = base_name(executable);
    EXACT.contains(&name) || name.starts_with(b"python")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_place_and_name() {
        for (path, expected) in [
            ("/home/ci/.npmrc", Some(Heirloom::Settings)),
            ("/home/ci/.docker/config.json", Some(Heirloom::Settings)),
            ("/home/ci/app/config.json", None),
            ("/home/ci/.bashrc", Some(Heirloom::StartUp)),
            ("/home/ci/_work/a/a/.git/hooks/post-checkout", Some(Heirloom::StartUp)),
            ("/home/ci/_work/a/a/src/build.py", None),
            ("/home/ci/_work/_tool/Python/3.12/lib/x.py", Some(Heirloom::Script)),
            ("/usr/local/lib/libx.so.1.2", Some(Heirloom::Library)),
            ("/opt/tool/data.bin", None),
            ("", None),
        ] {
            assert_eq!(Heirloom::of(path.as_bytes()), expected, "{path}");
        }
        assert!(is_interpreter(b"/usr/bin/python3.12") && !is_interpreter(b"/usr/bin/cat"));
    }
}
