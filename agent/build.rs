//! Embeds the eBPF object that `cargo xtask build` makes.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=BUILDTRAIL_BPF_OBJECT");
    let object = match env::var_os("BUILDTRAIL_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => default_object()?,
    };
    println!("cargo:rerun-if-changed={}", object.display());
    if !object.is_file() {
        return Err(format!(
            "the eBPF object {} does not exist: run `cargo xtask build` once, or point BUILDTRAIL_BPF_OBJECT at one",
            object.display()
        )
        .into());
    }
    println!("cargo:rustc-env=BUILDTRAIL_BPF_OBJECT={}", object.display());
    Ok(())
}

/// `target/bpf/buildtrail.bpf.o` under the workspace.
fn default_object() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the agent's manifest has no parent directory")?;
    Ok(workspace.join("target/bpf/buildtrail.bpf.o"))
}
