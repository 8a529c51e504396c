//! Environment variables that say where credentials are.
//!
//! Their values are paths, and so may leave the kernel like those of the identity variables.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{Entry, files};

/// What a variable names.
#[derive(Clone, Copy, Debug)]
enum Names {
    /// A file, or several with colons between them.
    Files,
    /// The directory with this file in it.
    DirectoryOf(&'static str),
    /// The directory that stands for this one of a home directory.
    InsteadOf(&'static str),
}

use Names::{DirectoryOf, Files, InsteadOf};

/// Variable, name and family of the secret, what the variable names.
const RELOCATIONS: &[(&str, &str, &str, Names)] = &[
    ("ANSIBLE_VAULT_PASSWORD_FILE", "Ansible vault password", "ansible", Files),
    ("AWS_CONFIG_FILE", "AWS configuration", "aws", Files),
    ("AWS_SHARED_CREDENTIALS_FILE", "AWS shared credentials", "aws", Files),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS web identity token", "aws", Files),
    ("AZURE_CONFIG_DIR", "Azure token cache", "azure", DirectoryOf("msal_token_cache.json")),
    ("AZURE_FEDERATED_TOKEN_FILE", "Azure workload identity token", "azure", Files),
    ("BOTO_CONFIG", "Google Cloud legacy credentials", "gcp", Files),
    ("CARGO_HOME", "Cargo registry credentials", "cargo", DirectoryOf("credentials.toml")),
    ("CARGO_HOME", "Cargo registry credentials", "cargo", DirectoryOf("credentials")),
    ("CLOUDSDK_CONFIG", "Google Cloud credentials", "gcp", DirectoryOf("credentials.db")),
    ("CLOUDSDK_CONFIG", "Google Cloud access tokens", "gcp", DirectoryOf("access_tokens.db")),
    (
        "CLOUDSDK_CONFIG",
        "Google Cloud application default credentials",
        "gcp",
        DirectoryOf("application_default_credentials.json"),
    ),
    ("COMPOSER_HOME", "Composer credentials", "composer", DirectoryOf("auth.json")),
    ("DOCKER_CONFIG", "Docker registry credentials", "docker", DirectoryOf("config.json")),
    ("GH_CONFIG_DIR", "GitHub CLI credentials", "github", DirectoryOf("hosts.yml")),
    ("GLAB_CONFIG_DIR", "GitLab CLI credentials", "gitlab", DirectoryOf("config.yml")),
    ("GNUPGHOME", "GnuPG legacy secret keyring", "gpg", DirectoryOf("secring.gpg")),
    ("GOOGLE_APPLICATION_CREDENTIALS", "Google Cloud application default credentials", "gcp", Files),
    ("GRADLE_USER_HOME", "Gradle properties", "gradle", DirectoryOf("gradle.properties")),
    ("HELM_REGISTRY_CONFIG", "Helm registry credentials", "kubernetes", Files),
    ("HELM_REPOSITORY_CONFIG", "Helm repository credentials", "kubernetes", Files),
    ("HF_HOME", "Hugging Face token", "huggingface", DirectoryOf("token")),
    ("HF_TOKEN_PATH", "Hugging Face token", "huggingface", Files),
    ("KAGGLE_CONFIG_DIR", "Kaggle credentials", "kaggle", DirectoryOf("kaggle.json")),
    ("KUBECONFIG", "Kubernetes configuration", "kubernetes", Files),
    ("NETRC", "netrc", "netrc", Files),
    ("NPM_CONFIG_GLOBALCONFIG", "npm global configuration", "npm", Files),
    ("NPM_CONFIG_USERCONFIG", "npm configuration", "npm", Files),
    ("OCI_CLI_CONFIG_FILE", "Oracle Cloud configuration", "oracle", Files),
    ("PGPASSFILE", "PostgreSQL passwords", "postgresql", Files),
    ("PIP_CONFIG_FILE", "pip configuration", "pypi", Files),
    ("RCLONE_CONFIG", "rclone configuration", "rclone", Files),
    ("REGISTRY_AUTH_FILE", "Container registry credentials", "docker", Files),
    ("SOPS_AGE_KEY_FILE", "SOPS age identity", "age", Files),
    ("TF_CLI_CONFIG_FILE", "Terraform Cloud credentials", "terraform", Files),
    ("XDG_CACHE_HOME", "", "", InsteadOf("~/.cache/")),
    ("XDG_CONFIG_HOME", "", "", InsteadOf("~/.config/")),
    ("XDG_DATA_HOME", "", "", InsteadOf("~/.local/share/")),
    ("npm_config_userconfig", "npm configuration", "npm", Files),
];

/// Names of all these variables, some more than once.
pub fn variables() -> impl Iterator<Item = &'static str> {
    RELOCATIONS.iter().map(|(variable, ..)| *variable)
}

/// As [`files::listing`].
pub(crate) fn listing() -> impl Iterator<Item = String> {
    RELOCATIONS
        .iter()
        .map(|(variable, name, family, names)| format!("relocation\t{variable}\t{name}\t{family}\t{names:?}"))
}

/// The files that a variable of this name and value means; relative paths are looked up in `working_directory`.
#[must_use]
pub fn files_of(variable: &[u8], value: &[u8], working_directory: &[u8]) -> Vec<(PathBuf, Entry)> {
    let base = Path::new(OsStr::from_bytes(working_directory));
    let path = |bytes: &[u8]| base.join(OsStr::from_bytes(bytes));
    let mut found = Vec::new();
    for (_, name, family, names) in RELOCATIONS.iter().filter(|(known, ..)| known.as_bytes() == variable) {
        match names {
            Files => {
                let parts = value.split(|byte| *byte == b':').filter(|part| !part.is_empty());
                found.extend(parts.map(|part| (path(part), Entry::new(name, family))));
            }
            DirectoryOf(file) if !value.is_empty() => {
                found.push((path(value).join(file), Entry::new(name, family)));
            }
            InsteadOf(prefix) if !value.is_empty() => {
                let inside = files::below(prefix);
                found.extend(inside.map(|(rest, entry)| (path(value).join(rest), entry)));
            }
            DirectoryOf(_) | InsteadOf(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variable: &str, value: &str) -> Vec<String> {
        let found = files_of(variable.as_bytes(), value.as_bytes(), b"/work");
        found.into_iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn variables_name_files_lists_and_directories() {
        assert_eq!(paths("AWS_CONFIG_FILE", "/x/aws"), ["/x/aws"]);
        assert_eq!(paths("KUBECONFIG", "/x/one::two"), ["/x/one", "/work/two"]);
        assert_eq!(paths("DOCKER_CONFIG", "/x/docker"), ["/x/docker/config.json"]);
        assert!(paths("XDG_CONFIG_HOME", "/x").contains(&"/x/gh/hosts.yml".to_owned()));
        assert!(paths("DOCKER_CONFIG", "").is_empty() && paths("HOME", "/x").is_empty());
    }

    #[test]
    fn every_variable_fits_the_kernels_table() {
        for variable in variables() {
            assert!(buildtrail_agent_abi::variable_name(variable).is_some(), "{variable}");
        }
    }
}
