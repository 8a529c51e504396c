//! Credentials in places that an environment variable names.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{
    expect::{Family, Match::Is, Seen, Technique, secret},
    files::{OPENED, READ},
    place::{Place, SECRET},
};

/// A technique's name, the variable, and, where the variable names a directory, the file in it.
type Relocation = (&'static str, &'static str, &'static str);

macro_rules! relocations {
    ($($name:literal $variable:literal $family:literal $file:literal,)+) => {
        const RELOCATIONS: &[Relocation] = &[$(($name, $variable, $file),)+];

        pub(crate) const TECHNIQUES: &[Technique] = &[$(
            Technique {
                name: $name,
                family: Family::Credentials,
                what: concat!("credentials where ", $variable, " says"),
                run: read,
                a: Seen::Told(&[secret(&[OPENED, ("family", Is($family))]), secret(&[READ, ("family", Is($family))])]),
                b: Seen::Told(&[secret(&[OPENED, ("family", Is($family))]), secret(&[READ, ("family", Is($family))])]),
                never: &[],
            },
        )+];
    };
}

relocations! {
    "env-aws-credentials" "AWS_SHARED_CREDENTIALS_FILE" "aws" "",
    "env-aws-config" "AWS_CONFIG_FILE" "aws" "",
    "env-google" "GOOGLE_APPLICATION_CREDENTIALS" "gcp" "",
    "env-kubeconfig" "KUBECONFIG" "kubernetes" "",
    "env-docker" "DOCKER_CONFIG" "docker" "config.json",
    "env-npm" "NPM_CONFIG_USERCONFIG" "npm" "",
    "env-pip" "PIP_CONFIG_FILE" "pypi" "",
    "env-cargo" "CARGO_HOME" "cargo" "credentials.toml",
    "env-gnupg" "GNUPGHOME" "gpg" "secring.gpg",
    "env-xdg-config" "XDG_CONFIG_HOME" "github" "gh/hosts.yml",
    "env-netrc" "NETRC" "netrc" "",
    "env-pgpass" "PGPASSFILE" "postgresql" "",
}

/// Makes the files that the variables will name, under names that say nothing.
pub(crate) fn prepare(directory: &Path) -> Result<()> {
    for (name, _, file) in RELOCATIONS {
        let path = Place::new(directory, name).aside("elsewhere").join(leaf(file));
        let parent = path.parent().context("a file without a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(path, SECRET).context("cannot write a fake secret")?;
    }
    Ok(())
}

fn leaf(file: &'static str) -> &'static str {
    if file.is_empty() { "plain" } else { file }
}

/// A program is run with the variable, and reads what it names, as soon as programs do.
fn read(place: &Place) -> Result<()> {
    let (_, variable, file) = RELOCATIONS
        .iter()
        .find(|(name, _, _)| place.secret().file_stem().is_some_and(|stem| stem == *name))
        .context("no such variable")?;
    let directory = place.aside("elsewhere");
    let value = if file.is_empty() { directory.join(leaf(file)) } else { directory.clone() };
    let status =
        place.reader().arg("file-later").arg(directory.join(leaf(file))).env(variable, value).status()?;
    ensure!(status.success(), "the reader ended with {status}");
    Ok(())
}
