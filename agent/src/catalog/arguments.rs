//! Takes credentials out of command lines before they leave the host.

/// What replaces them.
pub const REDACTED: &[u8] = b"[redacted]";

/// Options whose value, after `=` or as the next argument, is a credential.
const OPTIONS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "api-key",
    "apikey",
    "access-key",
    "secret-key",
    "private-key",
    "client-secret",
    "auth-token",
    "_authtoken",
    "storepass",
    "keypass",
    "deststorepass",
    "srcstorepass",
];

/// Beginnings of well-known tokens (their issuers' documentation), and how many characters follow at least.
const PREFIXES: &[(&str, usize)] = &[
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 15),
    ("npm_", 20),
    ("pypi-", 20),
    ("AKIA", 16),
    ("ASIA", 16),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("hvs.", 20),
    ("sk_live_", 10),
    ("dckr_pat_", 10),
    ("eyJhbGciOi", 10),
];

/// Endings of the name of an HTTP header whose value is a credential.
const HEADER_ENDINGS: &[&str] =
    &["authorization", "token", "api-key", "apikey", "secret", "cookie", "password", "x-auth"];

/// Command-line arguments without the credentials in them, and how many arguments had one.
#[must_use]
pub fn redact(arguments: &[Vec<u8>]) -> (Vec<Vec<u8>>, u32) {
    let mut count = 0;
    let mut value_follows = false;
    let redacted = arguments
        .iter()
        .map(|argument| {
            let expected = std::mem::take(&mut value_follows);
            value_follows = is_option(argument);
            let safe = if expected && !argument.starts_with(b"-") {
                Some(REDACTED.to_vec())
            } else {
                safe_form(argument)
            };
            safe.map_or_else(
                || argument.clone(),
                |safe| {
                    count += 1;
                    safe
                },
            )
        })
        .collect();
    (redacted, count)
}

/// The argument without its credential; `None` when it has none.
fn safe_form(argument: &[u8]) -> Option<Vec<u8>> {
    option_value(argument)
        .or_else(|| header(argument))
        .or_else(|| url_password(argument))
        .or_else(|| known_token(argument))
}

fn is_option(argument: &[u8]) -> bool {
    let name = argument.strip_prefix(b"--").or_else(|| argument.strip_prefix(b"-"));
    name.is_some_and(is_option_name)
}

fn is_option_name(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    OPTIONS.iter().any(|option| {
        name == *option || name.ends_with(&format!("-{option}")) || name.ends_with(&format!(":{option}"))
    })
}

/// `--token=VALUE`, `NPM_TOKEN=VALUE`
fn option_value(argument: &[u8]) -> Option<Vec<u8>> {
    let at = argument.iter().position(|&byte| byte == b'=')?;
    let (name, value) = argument.split_at(at + 1);
    let bare = name[..at].strip_prefix(b"--").or_else(|| name[..at].strip_prefix(b"-"));
    let secret = match bare {
        Some(option) => is_option_name(option),
        None => super::variables::carries_credential(&name[..at]) || is_option_name(&name[..at]),
    };
    (secret && value.len() > 1).then(|| [name, REDACTED].concat())
}

/// `Authorization: Bearer VALUE` and the like: an HTTP header whose name speaks of a credential, also glued to the option
/// that announces it (`-HAuthorization: …`).
fn header(argument: &[u8]) -> Option<Vec<u8>> {
    let colon = argument.iter().position(|&byte| byte == b':')?;
    let (name, value) = argument.split_at(colon + 1);
    let spoken = String::from_utf8_lossy(&name[..colon]).to_ascii_lowercase();
    let is_name = spoken.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let secret = is_name && HEADER_ENDINGS.iter().any(|ending| spoken.ends_with(ending));
    // "token://…" is an address, "token:" alone announces nothing.
    (secret && !value.is_empty() && !value.starts_with(b"//")).then(|| [name, b" ", REDACTED].concat())
}

/// `scheme://user:VALUE@host`
fn url_password(argument: &[u8]) -> Option<Vec<u8>> {
    let start = find(argument, b"://")? + 3;
    let authority = argument[start..].split(|byte| b"/?#".contains(byte)).next()?;
    let at = start + authority.iter().rposition(|&byte| byte == b'@')?;
    let user =
        argument[start..at].iter().position(|&byte| byte == b':').map_or(start, |colon| start + colon + 1);
    Some([&argument[..user], REDACTED, &argument[at..]].concat())
}

/// A token of a known form anywhere in the argument.
fn known_token(argument: &[u8]) -> Option<Vec<u8>> {
    for (prefix, least) in PREFIXES {
        let Some(start) = find(argument, prefix.as_bytes()) else { continue };
        let body = &argument[start + prefix.len()..];
        let length =
            body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(byte)).count();
        if length >= *least {
            return Some([&argument[..start], REDACTED, &body[length..]].concat());
        }
    }
    None
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_arguments_are_replaced_and_the_rest_stays() {
        let fake = format!("ghp_{}", "FAKE".repeat(9));
        let table = [
            ("curl|-H|Authorization: Bearer FAKE", "curl|-H|Authorization: [redacted]", 1),
            ("curl|-H|X-aws-ec2-metadata-token: FAKE", "curl|-H|X-aws-ec2-metadata-token: [redacted]", 1),
            ("curl|-HCookie:FAKE", "curl|-HCookie: [redacted]", 1),
            (
                "curl|-H|X-aws-ec2-metadata-token-ttl-seconds: 60",
                "curl|-H|X-aws-ec2-metadata-token-ttl-seconds: 60",
                0,
            ),
            ("echo|tokens are: here", "echo|tokens are: here", 0),
            ("curl|https://me:FAKE@example.test/x", "curl|https://me:[redacted]@example.test/x", 1),
            ("git|clone|https://FAKETOKEN@example.test/x", "git|clone|https://[redacted]@example.test/x", 1),
            ("tool|--password|FAKE|x", "tool|--password|[redacted]|x", 1),
            ("tool|--registry-token=FAKE", "tool|--registry-token=[redacted]", 1),
            ("tool|--token|--verbose", "tool|--token|--verbose", 0),
            ("env|NPM_TOKEN=FAKE|make", "env|NPM_TOKEN=[redacted]|make", 1),
            ("make|CFLAGS=-O2|all", "make|CFLAGS=-O2|all", 0),
            ("echo|user@example.test", "echo|user@example.test", 0),
            ("wget|https://example.test/a@b", "wget|https://example.test/a@b", 0),
        ];
        for (line, expected, expected_count) in table {
            let arguments: Vec<Vec<u8>> = line.split('|').map(|part| part.as_bytes().to_vec()).collect();
            let (redacted, count) = redact(&arguments);
            let text: Vec<String> =
                redacted.iter().map(|part| String::from_utf8(part.clone()).unwrap()).collect();
            assert_eq!((text.join("|").as_str(), count), (expected, expected_count));
        }
        let (redacted, count) = redact(&[format!("x{fake}y").into_bytes(), b"ghp_short".to_vec()]);
        assert_eq!((redacted[0].as_slice(), count), (&b"x[redacted]"[..], 1));
    }

    #[test]
    fn arguments_that_are_no_text_pass_unharmed() {
        let arguments = vec![vec![0xff, 0xfe], Vec::new(), b"=".to_vec(), b"://".to_vec(), b"://@".to_vec()];
        let (redacted, _) = redact(&arguments);
        assert_eq!(redacted.len(), arguments.len());
        assert_eq!(redacted[0], arguments[0]);
    }
}
