//! Files that are secrets, and where to look for them on this host.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use globset::{Glob, GlobMatcher};

use super::Entry;
use crate::config;

/// Name, family, path; `~` stands for every home directory, wildcards only in the last component.
const BUILT_IN: &[(&str, &str, &str)] = &[
    ("AWS shared credentials", "aws", "~/.aws/credentials"),
    ("AWS configuration", "aws", "~/.aws/config"),
    ("AWS cached SSO token", "aws", "~/.aws/sso/cache/*.json"),
    ("Azure token cache", "azure", "~/.azure/msal_token_cache.*"),
    ("Azure service principals", "azure", "~/.azure/service_principal_entries.*"),
    (
        "Google Cloud application default credentials",
        "gcp",
        "~/.config/gcloud/application_default_credentials.json",
    ),
    ("Google Cloud credentials", "gcp", "~/.config/gcloud/credentials.db"),
    ("Google Cloud access tokens", "gcp", "~/.config/gcloud/access_tokens.db"),
    ("Kubernetes configuration", "kubernetes", "~/.kube/config"),
    ("Kubernetes administrator configuration", "kubernetes", "/etc/kubernetes/admin.conf"),
    ("Kubernetes service account token", "kubernetes", "/var/run/secrets/kubernetes.io/serviceaccount/token"),
    ("Docker registry credentials", "docker", "~/.docker/config.json"),
    ("Container registry credentials", "docker", "~/.config/containers/auth.json"),
    ("npm configuration", "npm", "~/.npmrc"),
    ("Yarn configuration", "npm", "~/.yarnrc.yml"),
    ("PyPI credentials", "pypi", "~/.pypirc"),
    ("pip configuration", "pypi", "~/.config/pip/pip.conf"),
    ("Cargo registry credentials", "cargo", "~/.cargo/credentials*"),
    ("RubyGems credentials", "rubygems", "~/.gem/credentials"),
    ("Maven settings", "maven", "~/.m2/settings*.xml"),
    ("Gradle properties", "gradle", "~/.gradle/gradle.properties"),
    ("NuGet configuration", "nuget", "~/.nuget/NuGet/NuGet.Config"),
    ("Composer credentials", "composer", "~/.composer/auth.json"),
    ("git credentials", "git", "~/.git-credentials"),
    ("git credentials", "git", "~/.config/git/credentials"),
    ("netrc", "netrc", "~/.netrc"),
    ("GitHub CLI credentials", "github", "~/.config/gh/hosts.yml"),
    ("GitLab CLI credentials", "gitlab", "~/.config/glab-cli/config.yml"),
    ("SSH private key", "ssh", "~/.ssh/id_*"),
    ("SSH host key", "ssh", "/etc/ssh/ssh_host_*_key"),
    ("GnuPG private key", "gpg", "~/.gnupg/private-keys-v1.d/*.key"),
    ("Vault token", "vault", "~/.vault-token"),
    ("Terraform credentials", "terraform", "~/.terraform.d/credentials.tfrc.json"),
    ("rclone configuration", "rclone", "~/.config/rclone/rclone.conf"),
    ("s3cmd configuration", "aws", "~/.s3cfg"),
    ("PostgreSQL passwords", "postgresql", "~/.pgpass"),
    ("MySQL options", "mysql", "~/.my.cnf"),
    ("Fly.io configuration", "fly", "~/.fly/config.yml"),
    ("Heroku credentials", "heroku", "~/.config/heroku/credentials.json"),
    ("AWS cached role credentials", "aws", "~/.aws/cli/cache/*.json"),
    ("Azure access tokens", "azure", "~/.azure/accessTokens.json"),
    ("Azure DevOps token", "azure", "~/.azure/azuredevops/personalAccessTokens"),
    ("Google Cloud legacy credentials", "gcp", "~/.boto"),
    ("Google service account of a container", "gcp", "/var/run/secrets/google/*"),
    ("EKS service account token", "aws", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
    ("Azure workload identity token", "azure", "/var/run/secrets/azure/tokens/azure-identity-token"),
    ("kubelet configuration", "kubernetes", "/etc/kubernetes/kubelet.conf"),
    ("k3s administrator configuration", "kubernetes", "/etc/rancher/k3s/k3s.yaml"),
    ("Helm repository credentials", "kubernetes", "~/.config/helm/repositories.yaml"),
    ("Helm registry credentials", "kubernetes", "~/.config/helm/registry/config.json"),
    ("Docker legacy registry credentials", "docker", "~/.dockercfg"),
    ("npm global configuration", "npm", "/etc/npmrc"),
    ("Yarn classic configuration", "npm", "~/.yarnrc"),
    ("pnpm configuration", "npm", "~/.config/pnpm/rc"),
    ("Bun configuration", "npm", "~/.bunfig.toml"),
    ("pip legacy configuration", "pypi", "~/.pip/pip.conf"),
    ("Poetry credentials", "pypi", "~/.config/pypoetry/auth.toml"),
    ("uv credentials", "pypi", "~/.local/share/uv/credentials/*"),
    ("Bundler configuration", "rubygems", "~/.bundle/config"),
    ("sbt credentials", "maven", "~/.sbt/.credentials"),
    ("Ivy credentials", "maven", "~/.ivy2/.credentials"),
    ("NuGet configuration (XDG)", "nuget", "~/.config/NuGet/NuGet.Config"),
    ("Composer credentials (XDG)", "composer", "~/.config/composer/auth.json"),
    ("Hex credentials", "hex", "~/.hex/hex.config"),
    ("Conan credentials", "conan", "~/.conan2/credentials.json"),
    ("Hugging Face token", "huggingface", "~/.cache/huggingface/token"),
    ("Hugging Face stored tokens", "huggingface", "~/.cache/huggingface/stored_tokens"),
    ("Kaggle credentials", "kaggle", "~/.kaggle/kaggle.json"),
    ("Databricks configuration", "databricks", "~/.databrickscfg"),
    ("Snowflake configuration", "snowflake", "~/.snowsql/config"),
    ("Snowflake connections", "snowflake", "~/.snowflake/connections.toml"),
    ("hub credentials", "github", "~/.config/hub"),
    ("Copilot credentials", "github", "~/.config/github-copilot/*.json"),
    ("age identity", "age", "~/.config/age/keys.txt"),
    ("SOPS age identity", "age", "~/.config/sops/age/keys.txt"),
    ("cosign key", "sigstore", "~/.cosign/cosign.key"),
    ("minisign key", "minisign", "~/.minisign/minisign.key"),
    ("GnuPG legacy secret keyring", "gpg", "~/.gnupg/secring.gpg"),
    ("Terraform Cloud credentials", "terraform", "~/.terraformrc"),
    ("Pulumi credentials", "pulumi", "~/.pulumi/credentials.json"),
    ("Ansible vault password", "ansible", "~/.vault_pass*"),
    ("Cloudflare credentials", "cloudflare", "~/.cloudflared/*.json"),
    ("Wrangler credentials", "cloudflare", "~/.config/.wrangler/config/default.toml"),
    ("DigitalOcean configuration", "digitalocean", "~/.config/doctl/config.yaml"),
    ("Hetzner Cloud configuration", "hetzner", "~/.config/hcloud/cli.toml"),
    ("Scaleway configuration", "scaleway", "~/.config/scw/config.yaml"),
    ("IBM Cloud configuration", "ibm", "~/.bluemix/config.json"),
    ("Oracle Cloud configuration", "oracle", "~/.oci/config"),
    ("OpenStack clouds", "openstack", "~/.config/openstack/clouds.yaml"),
    ("Vercel credentials", "vercel", "~/.local/share/com.vercel.cli/auth.json"),
    ("Netlify configuration", "netlify", "~/.config/netlify/config.json"),
    ("Firebase tokens", "gcp", "~/.config/configstore/firebase-tools.json"),
    ("Sentry configuration", "sentry", "~/.sentryclirc"),
    ("Snyk configuration", "snyk", "~/.config/configstore/snyk.json"),
    ("MinIO client configuration", "s3", "~/.mc/config.json"),
    ("Bitwarden CLI data", "bitwarden", "~/.config/Bitwarden CLI/data.json"),
    ("MySQL login path", "mysql", "~/.mylogin.cnf"),
    ("1Password CLI configuration", "1password", "~/.config/op/config"),
];

/// Name, family, end of the path: secrets that lie beside the code.
const IN_WORKSPACES: &[(&str, &str, &str)] = &[
    ("dotenv file", "environment", ".env"),
    ("local dotenv file", "environment", ".env.local"),
    ("production dotenv file", "environment", ".env.production"),
    ("git configuration of a checkout", "git", ".git/config"),
    ("Terraform state", "terraform", "terraform.tfstate"),
    ("Cargo registry credentials", "cargo", ".cargo/credentials.toml"),
];

/// Directories that hold no person's or service's secrets although /etc/passwd calls them a home.
const NO_HOMES: &[&str] = &["/bin", "/dev", "/proc", "/sbin", "/sys", "/usr", "/nonexistent"];

/// Files to watch in one directory.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub directory: PathBuf,
    /// Which.
    pub name: FileName,
    /// As what.
    pub entry: Rc<Entry>,
}

/// The last component of a catalogue path.
#[derive(Clone, Debug)]
pub enum FileName {
    /// One file.
    Exact(OsString),
    /// Every file that matches.
    Pattern(GlobMatcher),
}

impl FileName {
    fn new(name: &OsStr) -> Option<Self> {
        let text = name.to_str()?;
        if !text.contains(['*', '?', '[', '{']) {
            return Some(Self::Exact(name.to_owned()));
        }
        Some(Self::Pattern(Glob::new(text).ok()?.compile_matcher()))
    }

    /// Whether a file of this name is meant. Public halves of key pairs never are.
    #[must_use]
    pub fn matches(&self, name: &OsStr) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Pattern(pattern) => {
                pattern.is_match(name) && Path::new(name).extension() != Some(OsStr::new("pub"))
            }
        }
    }
}

/// The catalogue's own entries, one a line: what goes into the policy's digest.
pub(crate) fn listing() -> impl Iterator<Item = String> {
    BUILT_IN.iter().map(|(name, family, path)| format!("file\t{name}\t{family}\t{path}"))
}

/// Entries below this directory of homes: the rest of each one's path.
pub(super) fn below(prefix: &str) -> impl Iterator<Item = (&'static str, Entry)> {
    BUILT_IN.iter().filter_map(move |(name, family, path)| {
        let rest = path.strip_prefix(prefix).filter(|rest| !rest.contains(['*', '?', '[', '{']))?;
        Some((rest, Entry::new(name, family)))
    })
}

/// All targets on this host: the built-in catalogue and the operator's, for every home directory.
#[must_use]
pub fn targets(settings: &config::Catalog) -> Vec<Target> {
    let homes = home_directories(&settings.homes);
    let built_in = BUILT_IN.iter().map(|(name, family, path)| (Entry::new(name, family), *path));
    let declared =
        settings.files.iter().map(|file| (Entry::new(&file.name, &file.family), file.path.as_str()));
    declared.chain(built_in).flat_map(|(entry, path)| expand(&Rc::new(entry), path, &homes)).collect()
}

/// A secret that is one wherever it lies: in a workspace, in a copy of a home directory, in a container.
#[derive(Clone, Debug)]
pub struct Anywhere {
    /// End of the path: whole components.
    suffix: Vec<u8>,
    /// As what.
    pub entry: Rc<Entry>,
}

impl Anywhere {
    /// The last component.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        super::base_name(&self.suffix)
    }

    /// Whether a path, or a last component alone, is meant.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        path.strip_suffix(&self.suffix[..]).is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
    }
}

/// Ends of paths that tell a secret: what the built-in catalogue has in home directories under a fixed name, and files that
/// lie in workspaces.
#[must_use]
pub fn anywhere() -> Vec<Anywhere> {
    let in_homes = BUILT_IN.iter().filter_map(|(name, family, path)| {
        let suffix = path.strip_prefix("~/")?;
        (!suffix.contains(['*', '?', '[', '{'])).then_some((*name, *family, suffix))
    });
    in_homes
        .chain(IN_WORKSPACES.iter().copied())
        .map(|(name, family, suffix)| Anywhere {
            suffix: suffix.as_bytes().to_vec(),
            entry: Rc::new(Entry::new(name, family)),
        })
        .collect()
}

fn expand(entry: &Rc<Entry>, path: &str, homes: &BTreeSet<PathBuf>) -> Vec<Target> {
    let target = |path: &Path| {
        Some(Target {
            directory: path.parent()?.to_owned(),
            name: FileName::new(path.file_name()?)?,
            entry: Rc::clone(entry),
        })
    };
    match path.strip_prefix("~/") {
        Some(relative) => homes.iter().filter_map(|home| target(&home.join(relative))).collect(),
        None => target(Path::new(path)).into_iter().collect(),
    }
}

/// Home directories that exist: those that the settings name and those of /etc/passwd.
fn home_directories(patterns: &[String]) -> BTreeSet<PathBuf> {
    let mut homes: BTreeSet<PathBuf> =
        patterns.iter().flat_map(|pattern| matching_directories(pattern)).collect();
    let passwd = fs::read(Path::new("/etc/passwd")).unwrap_or_default();
    for line in String::from_utf8_lossy(&passwd).lines() {
        if let Some(home) = line.split(':').nth(5) {
            let no_home = home == "/"
                || !home.starts_with('/')
                || NO_HOMES.iter().any(|no| Path::new(home).starts_with(no));
            if !no_home && Path::new(home).is_dir() {
                homes.insert(PathBuf::from(home));
            }
        }
    }
    homes
}

/// Directories that a path with wildcards in its last component names.
fn matching_directories(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(FileName::new)) else {
        return Vec::new();
    };
    match name {
        FileName::Exact(_) => vec![path.to_owned()],
        FileName::Pattern(_) => fs::read_dir(parent)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| name.matches(&entry.file_name()) && entry.path().is_dir())
            .map(|entry| entry.path())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_expanded_for_every_home() {
        let directory = tempfile::tempdir().unwrap();
        for home in ["ann", "bob"] {
            fs::create_dir(directory.path().join(home)).unwrap();
        }
        let settings = config::Catalog {
            homes: vec![format!("{}/*", directory.path().display())],
            files: vec![config::CatalogFile {
                name: "prod deploy key".into(),
                family: "deploy".into(),
                path: "/srv/keys/deploy_*".into(),
            }],
        };
        let targets = targets(&settings);
        let of = |name: &str| targets.iter().filter(|target| target.entry.name == name).collect::<Vec<_>>();
        let aws = of("AWS shared credentials");
        for home in ["ann", "bob"] {
            let expected = directory.path().join(home).join(".aws");
            assert!(aws.iter().any(|target| target.directory == expected), "{home}");
        }
        let [deploy] = of("prod deploy key")[..] else { panic!("one target for an absolute path") };
        assert!(deploy.name.matches(OsStr::new("deploy_eu")) && !deploy.name.matches(OsStr::new("other")));
    }

    #[test]
    fn every_built_in_entry_can_be_watched_and_stands_once() {
        let homes = BTreeSet::from([PathBuf::from("/home/ann")]);
        let mut paths = BTreeSet::new();
        for (name, family, path) in BUILT_IN {
            let targets = expand(&Rc::new(Entry::new(name, family)), path, &homes);
            assert_eq!(targets.len(), 1, "{path}");
            assert!(paths.insert(path), "{path} stands twice");
        }
        assert!(paths.len() >= 80, "{} well-known places", paths.len());
    }

    #[test]
    fn the_end_of_a_path_tells_a_secret_by_whole_components() {
        let of = |path: &[u8]| {
            let found = anywhere().into_iter().find(|anywhere| anywhere.matches(path));
            found.map(|anywhere| anywhere.entry.name.clone())
        };
        assert_eq!(of(b"/tmp/root/.aws/credentials").as_deref(), Some("AWS shared credentials"));
        assert_eq!(of(b"/work/app/.env").as_deref(), Some("dotenv file"));
        assert_eq!(of(b".npmrc").as_deref(), Some("npm configuration"));
        assert_eq!(of(b"/work/app/not.env"), None);
        assert_eq!(of(b"/work/credentials"), None);
    }

    #[test]
    fn public_keys_are_no_secrets() {
        let name = FileName::new(OsStr::new("id_*")).unwrap();
        assert!(name.matches(OsStr::new("id_ed25519")));
        assert!(!name.matches(OsStr::new("id_ed25519.pub")));
    }
}
