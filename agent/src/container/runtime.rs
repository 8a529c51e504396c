//! What a container engine asks of its runtime (runc, crun): the command line of the Open Container Initiative's runtimes
//! (opencontainers/runtime-tools, `docs/command-line-interface.md`) as containerd, conmon and buildkit use it.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use crate::catalog::base_name;

/// Longest name of a container that is believed: engines use 64 hexadecimal digits.
const MAX_ID: usize = 128;
/// The runtimes.
const PROGRAMS: [&[u8]; 4] = [b"runc", b"crun", b"youki", b"docker-runc"];
/// Options before the verb that are followed by a value.
const WITH_VALUE: [&[u8]; 7] =
    [b"--root", b"--log", b"--log-format", b"--log-level", b"--criu", b"--rootless", b"--cgroup-manager"];

/// One request to a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The container, as the engine and its runtime call it.
    pub id: String,
    /// The container begins; else a further process is started in it.
    pub begins: bool,
    /// Directory that describes the container.
    pub bundle: Option<PathBuf>,
    /// The process that called the runtime.
    pub caller: u32,
    /// The runtime executes itself before it executes the container's program (runc); others fork and execute that.
    pub staged: bool,
}

/// The request that an execution is, if it is one.
#[must_use]
pub(super) fn call(executable: &[u8], arguments: &[Vec<u8>], caller: u32) -> Option<Call> {
    if !PROGRAMS.contains(&base_name(executable)) {
        return None;
    }
    let (verb, options) = verb(arguments)?;
    let begins = match verb {
        b"create" | b"run" | b"restore" => true,
        // With a description of the process, as engines give it; only then the container is the last word.
        b"exec" if value_of(options, &[b"--process", b"-p"]).is_some() => false,
        _ => return None,
    };
    let id = options.last().filter(|id| is_id(id))?;
    Some(Call {
        id: String::from_utf8(id.clone()).ok()?,
        begins,
        bundle: value_of(options, &[b"--bundle", b"-b"])
            .map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))),
        caller,
        staged: base_name(executable).ends_with(b"runc"),
    })
}

/// Whether a runtime executes itself to become the container's first process (`runc init`).
#[must_use]
pub(super) fn is_second_stage(arguments: &[Vec<u8>]) -> bool {
    matches!(arguments, [_, verb] if verb == b"init")
}

fn verb(arguments: &[Vec<u8>]) -> Option<(&[u8], &[Vec<u8>])> {
    let mut rest = arguments.get(1..)?;
    loop {
        let (first, after) = rest.split_first()?;
        rest = match first.as_slice() {
            option if WITH_VALUE.contains(&option) => after.get(1..)?,
            option if option.starts_with(b"-") => after,
            verb => return Some((verb, after)),
        };
    }
}

fn value_of<'a>(options: &'a [Vec<u8>], names: &[&[u8]]) -> Option<&'a [u8]> {
    let follows = options.windows(2).find(|pair| names.contains(&pair[0].as_slice()));
    let joined = || {
        options.iter().find_map(|option| {
            let at = option.iter().position(|&byte| byte == b'=')?;
            names.contains(&&option[..at]).then(|| &option[at + 1..])
        })
    };
    follows.map(|pair| pair[1].as_slice()).or_else(joined)
}

fn is_id(id: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(byte);
    (1..=MAX_ID).contains(&id.len()) && !id.starts_with(b"-") && id.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn requests_of_engines_are_understood() {
        let table = [
            (
                "runc --root /run/r --log /run/l/log.json --log-format json create --bundle /run/b/c1 --pid-file /p c1",
                Some(("c1", true, Some("/run/b/c1"))),
            ),
            (
                "runc --systemd-cgroup --root run exec --process /tmp/p --detach --pid-file /x c1",
                Some(("c1", false, None)),
            ),
            ("runc --log /l run --bundle=/b/k --keep k0z", Some(("k0z", true, Some("/b/k")))),
            ("runc --root create kill c1 9", None),
            ("runc exec c1 sh", None),
            ("runc init", None),
            ("runc create", None),
            ("runc create ../c1", None),
        ];
        for (line, expected) in table {
            let found = call(b"/usr/sbin/runc", &words(line), 7);
            let expected = expected.map(|(id, begins, bundle): (&str, bool, Option<&str>)| Call {
                id: id.to_owned(),
                begins,
                bundle: bundle.map(PathBuf::from),
                caller: 7,
                staged: true,
            });
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(call(b"/usr/bin/bash", &words("runc create c1"), 7), None, "another program");
    }

    #[test]
    fn only_the_bare_word_is_the_second_stage() {
        assert!(is_second_stage(&words("runc init")));
        assert!(!is_second_stage(&words("runc init now")));
        assert!(!is_second_stage(&words("init")));
    }
}
