//! Serves the stand-ins in namespaces of its own until it is killed.

use std::{env, path::Path};

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let directory = env::args_os().nth(1).context("usage: standins DIRECTORY")?;
    buildtrail_tests::standins::serve(Path::new(&directory))
}
