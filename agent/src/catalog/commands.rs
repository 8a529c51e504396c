//! Commands whose purpose is to print or hand over a credential.

use super::{Entry, base_name};

/// (program, words that must follow in this order, name, family). A program that ends in `*` matches what begins so.
const COMMANDS: &[(&str, &[&str], &str, &str)] = &[
    ("git", &["credential", "fill"], "git credential helper", "git"),
    ("git", &["credential-*", "get"], "git credential helper", "git"),
    ("git-credential-*", &["get"], "git credential helper", "git"),
    ("docker-credential-*", &["get"], "Docker credential helper", "docker"),
    ("aws", &["sts", "assume-role*"], "AWS temporary credentials", "aws"),
    ("aws", &["sts", "get-session-token"], "AWS temporary credentials", "aws"),
    ("aws", &["configure", "export-credentials"], "AWS credentials export", "aws"),
    ("aws", &["ecr", "get-login-password"], "AWS container registry password", "aws"),
    ("aws", &["eks", "get-token"], "AWS EKS token", "aws"),
    ("aws", &["secretsmanager", "get-secret-value"], "AWS Secrets Manager", "aws"),
    ("aws", &["ssm", "get-parameter*"], "AWS parameter store", "aws"),
    ("aws-iam-authenticator", &["token"], "AWS EKS token", "aws"),
    ("gcloud", &["auth", "print-access-token"], "Google Cloud access token", "gcp"),
    ("gcloud", &["auth", "print-identity-token"], "Google Cloud identity token", "gcp"),
    ("gcloud", &["secrets", "versions", "access"], "Google Cloud Secret Manager", "gcp"),
    ("gke-gcloud-auth-plugin", &[], "Google Cloud GKE token", "gcp"),
    ("az", &["account", "get-access-token"], "Azure access token", "azure"),
    ("az", &["keyvault", "secret", "show"], "Azure Key Vault", "azure"),
    ("kubelogin", &["get-token"], "Kubernetes OIDC token", "kubernetes"),
    ("kubectl", &["create", "token"], "Kubernetes service account token", "kubernetes"),
    ("kubectl", &["config", "view", "--raw"], "Kubernetes configuration", "kubernetes"),
    ("gh", &["auth", "token"], "GitHub CLI token", "github"),
    ("glab", &["auth", "token"], "GitLab CLI token", "gitlab"),
    ("vault", &["kv", "get"], "Vault secret", "vault"),
    ("vault", &["read"], "Vault secret", "vault"),
    ("op", &["read"], "1Password secret", "1password"),
    ("pass", &["show"], "pass secret", "pass"),
    ("sops", &["--decrypt"], "SOPS secret", "sops"),
    ("sops", &["-d"], "SOPS secret", "sops"),
    ("sops", &["decrypt"], "SOPS secret", "sops"),
];

/// As [`super::files::listing`].
pub(crate) fn listing() -> impl Iterator<Item = String> {
    let line = |(program, words, name, family): &(&str, &[&str], &str, &str)| {
        format!("command\t{program} {}\t{name}\t{family}", words.join(" "))
    };
    COMMANDS.iter().map(line)
}

/// The entry that a command line matches.
#[must_use]
pub fn credential_command(arguments: &[Vec<u8>]) -> Option<Entry> {
    COMMANDS
        .iter()
        .find(|(program, words, _, _)| fits(arguments, program, words))
        .map(|(_, _, name, family)| Entry::new(name, family))
}

/// Whether a command line is of this program, with these words in this order.
pub(super) fn fits(arguments: &[Vec<u8>], program: &str, words: &[&str]) -> bool {
    let Some((given, rest)) = arguments.split_first() else { return false };
    matches(base_name(given), program) && in_order(rest, words)
}

fn matches(text: &[u8], pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start.as_bytes()),
        None => text == pattern.as_bytes(),
    }
}

/// Whether `words` appear among `arguments` in their order, whatever stands between (options and their values).
fn in_order(arguments: &[Vec<u8>], words: &[&str]) -> bool {
    let mut arguments = arguments.iter();
    words.iter().all(|word| arguments.any(|argument| matches(argument, word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_known_by_program_and_words() {
        let table: [(&str, Option<&str>); 9] = [
            ("git credential fill", Some("git")),
            ("/usr/bin/git -c a=b credential fill", Some("git")),
            ("git credential-store get", Some("git")),
            ("/usr/lib/git-core/git-credential-store --file x get", Some("git")),
            ("git credential approve", None),
            ("git commit -m fill", None),
            ("docker-credential-pass get", Some("docker")),
            ("aws --region x ecr get-login-password", Some("aws")),
            ("kubectl get pods", None),
        ];
        for (line, family) in table {
            let arguments: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(credential_command(&arguments).map(|entry| entry.family).as_deref(), family, "{line}");
        }
    }
}
