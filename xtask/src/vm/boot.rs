//! Boots a kernel in QEMU, by emulation alone, and reads what the guest wrote to its serial console.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::shell::say;

/// Several times what a guest takes.
const DEADLINE: Duration = Duration::from_mins(5);
/// The same where instructions are counted, which is several times slower.
const LONG_DEADLINE: Duration = Duration::from_mins(20);
const POLL: Duration = Duration::from_millis(100);
const BEGIN: &str = "@@begin ";
const END: &str = "@@end ";
const DONE: &str = "@@done";

/// What came out of a guest.
#[derive(Debug, Default)]
pub(super) struct Console {
    sections: HashMap<String, Section>,
    /// Whether the guest got to its end.
    pub complete: bool,
}

/// One file of the guest, or one program's output.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Exit status of the program that wrote it.
    pub status: i32,
    /// What it wrote.
    pub text: String,
}

/// Boots of one guest: the emulation now and then makes a kernel fail before its first program. A kernel that stumbles
/// panics, and so ends at once.
const BOOTS: u32 = 6;

/// How fast a guest's clock goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// Like this machine's.
    Any,
    /// A nanosecond for each instruction; nobody waits for a guest that does nothing.
    InstructionsCounted,
}

/// Runs the guest until it ends, on a processor of the model `cpu`, with `words` on the kernel's command line; its console goes to the file `console`. A guest
/// that never came to its first program is booted again.
pub(super) fn boot(
    image: &Path,
    initrd: &Path,
    cpu: &str,
    words: &str,
    speed: Speed,
    console: &Path,
) -> Result<Console> {
    for _ in 1..BOOTS {
        let output = boot_once(image, initrd, cpu, words, speed, console)?;
        if !output.sections.is_empty() {
            return Ok(output);
        }
        say("  the guest did not come up; once more");
    }
    boot_once(image, initrd, cpu, words, speed, console)
}

fn boot_once(
    image: &Path,
    initrd: &Path,
    cpu: &str,
    words: &str,
    speed: Speed,
    console: &Path,
) -> Result<Console> {
    let output = File::create(console).with_context(|| format!("cannot write {}", console.display()))?;
    let arguments = format!("console=ttyS0 quiet panic=-1 oops=panic {words}");
    let (counted, deadline): (&[&str], _) = match speed {
        Speed::Any => (&[], DEADLINE),
        Speed::InstructionsCounted => (&["-icount", "shift=0,sleep=off"], LONG_DEADLINE),
    };
    let mut guest = Command::new("qemu-system-x86_64")
        .args(counted)
        .args(["-machine", "q35,accel=tcg", "-cpu", cpu, "-m", "1024", "-nographic", "-no-reboot"])
        .args(["-nic", "none", "-append", &arguments, "-kernel"])
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("cannot share the console's file")?)
        .stderr(output)
        .spawn()
        .context("cannot run qemu-system-x86_64")?;
    let start = Instant::now();
    while guest.try_wait().context("cannot wait for QEMU")?.is_none() {
        if start.elapsed() > deadline {
            guest.kill().context("cannot stop QEMU")?;
            guest.wait().context("cannot wait for QEMU")?;
            break;
        }
        thread::sleep(POLL);
    }
    let text = fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    Ok(Console::read(&String::from_utf8_lossy(&text)))
}

impl Console {
    /// What the guest wrote under this name.
    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name)
    }

    /// Whether any section has this text in it.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.sections.values().any(|section| section.text.contains(text))
    }

    fn read(text: &str) -> Self {
        let mut console = Self::default();
        let mut open: Option<(&str, String)> = None;
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(name) = line.strip_prefix(BEGIN) {
                open = Some((name, String::new()));
            } else if let Some((_, status)) = line.strip_prefix(END).and_then(|end| end.split_once(' ')) {
                if let Some((name, text)) = open.take() {
                    let status = status.parse().unwrap_or(-1);
                    console.sections.insert(name.to_owned(), Section { status, text });
                }
            } else if line == DONE {
                console.complete = true;
            } else if let Some((_, text)) = &mut open {
                text.push_str(line);
                text.push('\n');
            }
        }
        console
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_found_between_what_else_is_on_a_console() {
        let text =
            "SeaBIOS\r\n@@begin check\r\none\r\ntwo\r\n@@end check 4\r\n[ 1.0] a message\r\n@@done\r\n";
        let console = Console::read(text);
        let section = console.section("check").unwrap();
        assert_eq!((section.status, section.text.as_str()), (4, "one\ntwo\n"));
        assert!(console.complete);
    }

    #[test]
    fn a_guest_that_breaks_off_is_not_complete() {
        let console = Console::read("@@begin events\r\n{}\r\nKernel panic\r\n");
        assert!(!console.complete && console.section("events").is_none());
    }
}
