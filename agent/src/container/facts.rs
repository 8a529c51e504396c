//! What an engine wrote down about a container, read from its files and not asked of its socket: files answer at once, and
//! whoever asks an engine is one more of its clients.
//!
//! The runtime's description is `config.json` of the bundle (opencontainers/runtime-spec, `config.md`). Docker's own, with
//! name, image and labels, is `config.v2.json` beside the container's `hostname` file, which the description mounts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Longest description that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most paths of the host that are told of one container.
const MAX_PATHS: usize = 32;
/// Most labels that are looked at.
const MAX_LABELS: usize = 256;

/// A container, as its engine describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// As people call it; empty when not known.
    pub name: String,
    /// Empty when not known.
    pub image: String,
    /// What was to run, without the image's entry point; empty when not known.
    pub command: Vec<String>,
    /// Where its first process starts.
    pub working_directory: PathBuf,
    /// It can do nearly all that the host's root can.
    pub privileged: bool,
    /// Directories, files and sockets of the host in it.
    pub host_paths: Vec<String>,
    /// Names of its labels.
    pub labels: Vec<String>,
}

impl Facts {
    /// Whether a client that named this image and command can have asked for the container.
    #[must_use]
    pub fn is_of(&self, image: &[u8], command: &[Vec<u8>]) -> bool {
        let same_image = self.image.is_empty() || self.image.as_bytes() == image;
        let same_command = command.is_empty()
            || (self.command.len() == command.len()
                && self.command.iter().zip(command).all(|(left, right)| left.as_bytes() == right));
        same_image && same_command
    }
}

#[derive(Deserialize)]
struct Specification {
    process: Option<ProcessPart>,
    #[serde(default)]
    mounts: Vec<Mount>,
    linux: Option<LinuxPart>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ProcessPart {
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    cwd: PathBuf,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
struct Capabilities {
    #[serde(default)]
    bounding: Vec<String>,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(default)]
    destination: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    source: String,
}

#[derive(Deserialize)]
struct LinuxPart {
    #[serde(default, rename = "maskedPaths")]
    masked_paths: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct DockerDescription {
    #[serde(default, rename = "Name")]
    name: String,
    #[serde(rename = "Config")]
    config: Option<DockerConfig>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default, rename = "Image")]
    image: String,
    #[serde(default, rename = "Cmd")]
    command: Option<Vec<String>>,
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// Reads what is known of a container. `root` is where the engine's own paths begin: its root directory as the agent sees
/// it. `None` when there is no description, or one that cannot be understood.
#[must_use]
pub(super) fn read(root: &Path, bundle: &Path, id: &str) -> Option<Facts> {
    let specification: Specification = json(&below(root, &bundle.join("config.json")))?;
    let docker = specification
        .mounts
        .iter()
        .find(|mount| mount.destination == "/etc/hostname")
        .map(|mount| Path::new(&mount.source))
        .filter(|path| path.parent().is_some_and(|directory| directory.ends_with(id)))
        .and_then(|path| json::<DockerDescription>(&below(root, &path.with_file_name("config.v2.json"))));
    Some(facts(specification, docker, id))
}

fn facts(specification: Specification, docker: Option<DockerDescription>, id: &str) -> Facts {
    let annotation = |name: &str| specification.annotations.get(name).cloned().unwrap_or_default();
    let own = format!("/{id}/");
    let host_paths =
        specification.mounts.iter().filter(|mount| mount.kind == "bind" && !mount.source.contains(&own));
    let (capabilities, arguments, working_directory) = specification
        .process
        .map(|process| (process.capabilities, process.args, process.cwd))
        .unwrap_or_default();
    let everything = capabilities.is_some_and(|own| own.bounding.iter().any(|name| name == "CAP_SYS_ADMIN"));
    let masked =
        specification.linux.and_then(|linux| linux.masked_paths).is_some_and(|paths| !paths.is_empty());
    let mut facts = Facts {
        // containerd's CRI plugin (`pkg/cri/annotations`).
        name: annotation("io.kubernetes.cri.container-name"),
        image: annotation("io.kubernetes.cri.image-name"),
        command: arguments,
        working_directory,
        privileged: everything && !masked,
        labels: Vec::new(),
        host_paths: host_paths.map(|mount| mount.source.clone()).take(MAX_PATHS).collect(),
    };
    if let Some(docker) = docker {
        docker.name.trim_start_matches('/').clone_into(&mut facts.name);
        if let Some(config) = docker.config {
            facts.image = config.image;
            facts.command = config.command.unwrap_or_default();
            facts.labels = config.labels.unwrap_or_default().into_keys().take(MAX_LABELS).collect();
        }
    }
    facts
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let mut options = fs::OpenOptions::new();
    let file: File =
        options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    const SPECIFICATION: &str = r#"{
        "process": {"args": ["/sbin/tini", "sleep", "9"], "cwd": "/work",
                    "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}},
        "mounts": [{"destination": "/etc/hostname", "type": "bind", "source": "/data/containers/c1/hostname"},
                   {"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/w", "type": "bind", "source": "/srv/w"}],
        "linux": {"maskedPaths": null}}"#;

    #[test]
    fn a_docker_container_is_known_by_name_image_and_command() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("run/c1/config.json"), SPECIFICATION);
        write(
            &root.path().join("data/containers/c1/config.v2.json"),
            r#"{"Name": "/mine", "Config": {"Image": "img:1", "Cmd": ["sleep", "9"], "Labels": {"a": "b"}}}"#,
        );
        let facts = read(root.path(), Path::new("/run/c1"), "c1").unwrap();
        let expected = Facts {
            name: "mine".to_owned(),
            image: "img:1".to_owned(),
            command: vec!["sleep".to_owned(), "9".to_owned()],
            working_directory: "/work".into(),
            privileged: true,
            host_paths: vec!["/srv/w".to_owned()],
            labels: vec!["a".to_owned()],
        };
        assert_eq!(facts, expected);
        assert!(facts.is_of(b"img:1", &[b"sleep".to_vec(), b"9".to_vec()]));
        assert!(!facts.is_of(b"img:2", &[]));
    }

    #[test]
    fn another_engines_container_is_known_by_its_description_alone() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("run/c1/config.json"), SPECIFICATION);
        let facts = read(root.path(), Path::new("/run/c1"), "c1").unwrap();
        assert_eq!((facts.name.as_str(), facts.command.len()), ("", 3));
    }

    #[test]
    fn what_is_no_description_tells_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path(), Path::new("/run/c1"), "c1"), None);
        write(&root.path().join("run/c1/config.json"), "{\"mounts\": 7}");
        assert_eq!(read(root.path(), Path::new("/run/c1"), "c1"), None);
        let link = root.path().join("run/c2/config.json");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(root.path().join("run/c1/config.json"), &link).unwrap();
        assert_eq!(read(root.path(), Path::new("/run/c2"), "c2"), None);
    }
}
