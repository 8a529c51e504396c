//! Embeds the eBPF objects that `cargo xtask build` makes.

use std::{env, error::Error, path::PathBuf};

/// What the agent's code calls each object, and its file.
const OBJECTS: [(&str, &str); 2] = [
    ("BUILDTRAIL_BPF_OBJECT", "buildtrail.bpf.o"),
    ("BUILDTRAIL_BPF_OBJECT_BEFORE_5_12", "buildtrail-before-5.12.bpf.o"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=BUILDTRAIL_BPF_DIRECTORY");
    let directory = match env::var_os("BUILDTRAIL_BPF_DIRECTORY") {
        Some(path) => PathBuf::from(path),
        None => default_directory()?,
    };
    for (name, file) in OBJECTS {
        let object = directory.join(file);
        println!("cargo:rerun-if-changed={}", object.display());
        if !object.is_file() {
            return Err(format!(
                "the eBPF object {} does not exist: run `cargo xtask build` once, or point BUILDTRAIL_BPF_DIRECTORY at its directory",
                object.display()
            )
            .into());
        }
        println!("cargo:rustc-env={name}={}", object.display());
    }
    Ok(())
}

/// `target/bpf` under the workspace.
fn default_directory() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the agent's manifest has no parent directory")?;
    Ok(workspace.join("target/bpf"))
}
