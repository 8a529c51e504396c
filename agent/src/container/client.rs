//! What the engines' own command line programs (docker, podman, nerdctl) are told to do.
//!
//! Only words of a program that the job cannot have written count as what it asks for: see [`Client::trusted`].

use std::{fs, os::unix::ffi::OsStrExt as _, os::unix::fs::MetadataExt as _, path::Path};

use super::facts::Facts;
use crate::{catalog::base_name, sensor::records::Exec};

/// The programs.
const PROGRAMS: [&[u8]; 3] = [b"docker", b"podman", b"nerdctl"];
/// Fewest digits of a container's id that stand for it.
const MIN_ID: usize = 12;
/// Write permission for group or others.
const OTHERS_WRITE: u32 = 0o022;

/// Options before the verb that are followed by a value.
const GLOBAL: [&[u8]; 12] = [
    b"--config",
    b"-c",
    b"--context",
    b"-H",
    b"--host",
    b"-l",
    b"--log-level",
    b"--tlscacert",
    b"--tlscert",
    b"--tlskey",
    b"--url",
    b"-n",
];
/// Options of run, create, exec and start that stand alone; all others have a value.
const ALONE: [&[u8]; 16] = [
    b"--detach",
    b"--interactive",
    b"--tty",
    b"--rm",
    b"--privileged",
    b"--init",
    b"--read-only",
    b"--publish-all",
    b"--no-healthcheck",
    b"--oom-kill-disable",
    b"--sig-proxy",
    b"--disable-content-trust",
    b"--quiet",
    b"--help",
    b"--replace",
    b"--no-hosts",
];
/// The same as single letters.
const ALONE_LETTERS: &[u8] = b"ditPq";
/// Options of start that stand alone.
const ATTACH: [&[u8]; 4] = [b"-a", b"--attach", b"-ai", b"-ia"];

/// What a client was told to do, as far as it leads to processes in containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Make a container and start it.
    Run {
        /// Given with `--name`.
        name: Option<Vec<u8>>,
        /// The image.
        image: Vec<u8>,
        /// What is to run in it; empty for the image's own.
        command: Vec<Vec<u8>>,
    },
    /// Start containers that are there.
    Start(Vec<Vec<u8>>),
    /// Start a further process.
    Exec {
        /// Where.
        container: Vec<u8>,
        /// What.
        command: Vec<Vec<u8>>,
    },
    /// It can start any number of containers and processes: builds, projects, words that are not known.
    Many,
    /// It starts none: lists, logs, pulls, …
    Nothing,
}

/// How well an order fits to what an engine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It asked for something else.
    No,
    /// It may have asked for this.
    Perhaps,
    /// It names this container, and asks for this.
    Names,
}

/// A client's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// What it was told.
    pub order: Order,
    /// The program is root's, where the command line names it on the host, and nobody else can change it.
    pub trusted: bool,
}

impl Client {
    /// The client that an execution starts, if it is one.
    #[must_use]
    pub(super) fn of(executable: &[u8], exec: &Exec) -> Option<Self> {
        if !PROGRAMS.contains(&base_name(executable)) {
            return None;
        }
        let order = order(&exec.arguments)?;
        Some(Self { order, trusted: !exec.truncated && belongs_to_root(executable, exec.inode) })
    }

    /// Whether this client asked for a container that begins.
    #[must_use]
    pub(super) fn fits_start(&self, id: &str, facts: Option<&Facts>) -> Fit {
        match &self.order {
            Order::Run { name: Some(name), .. } => match facts {
                Some(facts) if facts.name.as_bytes() == name => Fit::Names,
                Some(_) => Fit::No,
                None => Fit::Perhaps,
            },
            Order::Run { name: None, image, command } => match facts {
                Some(facts) if facts.is_of(image, command) => Fit::Perhaps,
                Some(_) => Fit::No,
                None => Fit::Perhaps,
            },
            Order::Start(containers) if containers.iter().any(|word| means(word, id, facts)) => Fit::Names,
            Order::Start(_) if facts.is_none() => Fit::Perhaps,
            Order::Many => Fit::Perhaps,
            Order::Start(_) | Order::Exec { .. } | Order::Nothing => Fit::No,
        }
    }

    /// Whether this client asked for a further process in a container.
    #[must_use]
    pub(super) fn fits_exec(&self, id: &str, facts: Option<&Facts>, arguments: &[Vec<u8>]) -> Fit {
        match &self.order {
            Order::Exec { container, command } if executes(command, arguments) => {
                if means(container, id, facts) {
                    Fit::Names
                } else if facts.is_none() {
                    Fit::Perhaps
                } else {
                    Fit::No
                }
            }
            Order::Many => Fit::Perhaps,
            _ => Fit::No,
        }
    }

    /// Whether it asks for one process only.
    #[must_use]
    pub(super) fn asks_once(&self) -> bool {
        match &self.order {
            Order::Run { .. } | Order::Exec { .. } => true,
            Order::Start(containers) => containers.len() == 1,
            Order::Many | Order::Nothing => false,
        }
    }
}

/// Whether a command line that was given is the one that runs; of a script the kernel puts the interpreter in front.
fn executes(given: &[Vec<u8>], runs: &[Vec<u8>]) -> bool {
    let Some((script, arguments)) = given.split_first() else { return false };
    let as_script = || {
        let at = runs.len().checked_sub(given.len()).filter(|at| *at > 0);
        at.is_some_and(|at| base_name(&runs[at]) == base_name(script) && runs[at + 1..] == *arguments)
    };
    given == runs || as_script()
}

/// Whether a word of the command line stands for the container.
fn means(word: &[u8], id: &str, facts: Option<&Facts>) -> bool {
    let by_id = word.len() >= MIN_ID && id.as_bytes().starts_with(word);
    by_id || facts.is_some_and(|facts| !word.is_empty() && facts.name.as_bytes() == word)
}

/// The file that runs is the one at this path of the host, and only root can write it.
fn belongs_to_root(executable: &[u8], inode: u64) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(executable));
    fs::metadata(path).is_ok_and(|file| {
        file.ino() == inode && file.is_file() && file.uid() == 0 && file.mode() & OTHERS_WRITE == 0
    })
}

fn order(arguments: &[Vec<u8>]) -> Option<Order> {
    let mut words = Words(arguments.get(1..)?);
    let verb = words.skip_options(|option| GLOBAL.contains(&option))?;
    // `docker container run` is `docker run`.
    let verb = if verb == b"container" { words.skip_options(|_| false)? } else { verb };
    Some(match verb {
        b"run" => run(words),
        b"exec" => exec(words).unwrap_or(Order::Many),
        b"start" | b"restart" => Order::Start(start(words)),
        b"create" | b"ps" | b"ls" | b"logs" | b"pull" | b"push" | b"inspect" | b"stop" | b"rm" | b"kill"
        | b"wait" | b"cp" | b"network" | b"volume" | b"info" | b"version" | b"login" | b"logout"
        | b"images" | b"image" | b"import" | b"load" | b"save" | b"export" | b"tag" | b"rmi" | b"port"
        | b"top" | b"stats" | b"events" | b"prune" | b"system" | b"history" | b"attach" => Order::Nothing,
        _ => Order::Many,
    })
}

fn run(mut words: Words<'_>) -> Order {
    let mut name = None;
    while let Some((option, value)) = words.option() {
        if option == b"--name" {
            name = value.map(<[u8]>::to_vec);
        }
    }
    match words.0.split_first() {
        Some((image, command)) => Order::Run { name, image: image.clone(), command: command.to_vec() },
        None => Order::Nothing,
    }
}

fn exec(mut words: Words<'_>) -> Option<Order> {
    while words.option().is_some() {}
    let (container, command) = words.0.split_first()?;
    Some(Order::Exec { container: container.clone(), command: command.to_vec() })
}

fn start(mut words: Words<'_>) -> Vec<Vec<u8>> {
    loop {
        // Of run they have a value, of start not.
        if words.0.first().is_some_and(|word| ATTACH.contains(&word.as_slice())) {
            words.0 = &words.0[1..];
        } else if words.option().is_none() {
            return words.0.to_vec();
        }
    }
}

/// What is left of a command line.
#[derive(Clone, Copy)]
struct Words<'a>(&'a [Vec<u8>]);

impl<'a> Words<'a> {
    /// The first word that is no option.
    fn skip_options(&mut self, has_value: impl Fn(&[u8]) -> bool) -> Option<&'a [u8]> {
        loop {
            let (word, rest) = self.0.split_first()?;
            self.0 = rest;
            if !word.starts_with(b"-") {
                return Some(word);
            }
            if has_value(word) {
                self.0 = rest.get(1..)?;
            }
        }
    }

    /// The next option of run or exec with its value; `None` when the next word is none.
    fn option(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let (word, rest) = self.0.split_first()?;
        let word = word.as_slice();
        if !word.starts_with(b"-") || word == b"-" {
            return None;
        }
        self.0 = rest;
        if word == b"--" {
            return None;
        }
        if let Some(at) = word.iter().position(|&byte| byte == b'=').filter(|_| word.starts_with(b"--")) {
            return Some((&word[..at], Some(&word[at + 1..])));
        }
        let alone = if word.starts_with(b"--") {
            ALONE.contains(&word)
        } else {
            // The last letter has the value, unless letters follow: they are it.
            let letter = word[1..].iter().position(|letter| !ALONE_LETTERS.contains(letter));
            letter.is_none_or(|at| at + 2 < word.len())
        };
        if alone {
            return Some((word, None));
        }
        let value = rest.first().map(Vec::as_slice);
        self.0 = rest.get(1..).unwrap_or_default();
        Some((word, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn run_order(name: Option<&str>, image: &str, command: &str) -> Order {
        Order::Run {
            name: name.map(|name| name.as_bytes().to_vec()),
            image: image.as_bytes().to_vec(),
            command: if command.is_empty() { Vec::new() } else { words(command) },
        }
    }

    #[test]
    fn command_lines_say_what_they_ask_for() {
        let table = [
            ("docker run busybox", run_order(None, "busybox", "")),
            (
                "docker run --rm -it -v /a:/b -eX=1 --name n img sh -c x",
                run_order(Some("n"), "img", "sh -c x"),
            ),
            (
                "docker -H unix:///s run -dit --name=n --network none img cat --name m",
                run_order(Some("n"), "img", "cat --name m"),
            ),
            ("docker container run -itw /x img", run_order(None, "img", "")),
            ("docker run -- img run", run_order(None, "img", "run")),
            ("docker start abc", Order::Start(words("abc"))),
            ("docker start -a --detach-keys x abc def", Order::Start(words("abc def"))),
            (
                "docker exec -i --workdir /w -e A -e B abc sh -e /x",
                Order::Exec { container: b"abc".to_vec(), command: words("sh -e /x") },
            ),
            ("docker create --name n img", Order::Nothing),
            ("docker ps -a", Order::Nothing),
            ("docker compose up", Order::Many),
            ("docker build .", Order::Many),
            ("docker unheard-of", Order::Many),
        ];
        for (line, expected) in table {
            assert_eq!(order(&words(line)), Some(expected), "{line}");
        }
        assert_eq!(order(&words("docker")), None);
        assert_eq!(order(&words("docker -H")), None);
    }

    #[test]
    fn a_name_or_enough_of_an_id_names_a_container() {
        let id = "0123456789abcdef";
        let facts = Facts { name: "mine".to_owned(), ..Facts::default() };
        let client = |line: &str| Client { order: order(&words(line)).unwrap(), trusted: true };
        let started = |line: &str| client(line).fits_start(id, Some(&facts));
        assert_eq!(started("docker start 0123456789ab"), Fit::Names);
        assert_eq!(started("docker start 0123"), Fit::No);
        assert_eq!(started("docker start mine"), Fit::Names);
        assert_eq!(started("docker run --name mine img"), Fit::Names);
        assert_eq!(started("docker run --name other img"), Fit::No);
        assert_eq!(started("docker exec mine sh"), Fit::No);
        let executed = |line: &str| client(line).fits_exec(id, Some(&facts), &words("sh -e"));
        assert_eq!(executed("docker exec mine sh -e"), Fit::Names);
        assert_eq!(executed("docker exec mine sh"), Fit::No);
        assert_eq!(executed("docker exec other sh -e"), Fit::No);
        let script = words("/bin/sh -e /opt/work x");
        let script = |line: &str| client(line).fits_exec(id, Some(&facts), &script);
        assert_eq!(script("docker exec mine work x"), Fit::Names);
        assert_eq!(script("docker exec mine work"), Fit::No);
    }

    #[test]
    fn a_run_without_a_name_fits_its_image_and_command() {
        let facts = Facts {
            image: "img".to_owned(),
            command: vec!["sleep".to_owned(), "9".to_owned()],
            ..Facts::default()
        };
        let fits = |line: &str| {
            Client { order: order(&words(line)).unwrap(), trusted: true }.fits_start("x", Some(&facts))
        };
        assert_eq!(fits("docker run img sleep 9"), Fit::Perhaps);
        assert_eq!(fits("docker run img"), Fit::Perhaps);
        assert_eq!(fits("docker run img sleep 8"), Fit::No);
        assert_eq!(fits("docker run other sleep 9"), Fit::No);
    }
}
