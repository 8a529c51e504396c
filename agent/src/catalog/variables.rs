//! Names of environment variables that carry credentials.

/// Whole names that no ending gives away.
const NAMES: &[&str] =
    &["AWS_ACCESS_KEY_ID", "DOCKER_AUTH_CONFIG", "KUBECONFIG_DATA", "NETRC", "PGPASSWORD", "SSH_KEY"];

/// Endings that mean a credential.
const ENDINGS: &[&str] = &[
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "SECRET_KEY",
    "DEPLOY_KEY",
    "SIGNING_KEY",
    "ENCRYPTION_KEY",
    "CREDENTIALS",
    "CLIENT_SECRET",
    "_PAT",
    "_PSK",
    "WEBHOOK_URL",
    "CONNECTION_STRING",
    "_DSN",
];

/// Variables that make programs load code, or settings that name code, from elsewhere (ld.so(8), bash(1), each
/// interpreter's manual).
const LOADERS: &[&str] = &[
    "BASH_ENV",
    "BUN_OPTIONS",
    "CLASSPATH",
    "DOTNET_STARTUP_HOOKS",
    "ENV",
    "GCONV_PATH",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_GLOBAL",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LD_AUDIT",
    "LD_DEBUG_OUTPUT",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LUA_INIT",
    "NODE_OPTIONS",
    "OPENSSL_CONF",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PHPRC",
    "PROMPT_COMMAND",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "_JAVA_OPTIONS",
];

/// As [`super::files::listing`].
pub(crate) fn listing() -> impl Iterator<Item = String> {
    let names = NAMES.iter().map(|name| format!("variable\t{name}"));
    let loaders = LOADERS.iter().map(|name| format!("loader\t{name}"));
    names.chain(ENDINGS.iter().map(|ending| format!("variable\t*{ending}"))).chain(loaders)
}

/// Whether a variable of this name makes programs load code from elsewhere.
#[must_use]
pub fn steers_loading(name: &[u8]) -> bool {
    LOADERS.iter().any(|loader| loader.as_bytes() == name)
}

/// Whether a variable of this name carries a credential.
#[must_use]
pub fn carries_credential(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let upper = name.to_ascii_uppercase();
    NAMES.contains(&upper.as_str()) || ENDINGS.iter().any(|ending| upper.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_credentials_from_the_rest() {
        for name in
            ["AWS_SECRET_ACCESS_KEY", "NPM_TOKEN", "npm_config__authToken", "PGPASSWORD", "SLACK_WEBHOOK_URL"]
        {
            assert!(carries_credential(name.as_bytes()), "{name}");
        }
        for name in ["PATH", "HOME", "SSH_AUTH_SOCK", "TOKENIZERS_PARALLELISM", "KEYBOARD", "GITHUB_SHA", ""]
        {
            assert!(!carries_credential(name.as_bytes()), "{name}");
        }
        assert!(
            !carries_credential(&[0xff, b'T', b'O', b'K', b'E', b'N']),
            "not a name that a shell can set"
        );
    }
}
