//! A stand-in for a cloud's instance metadata service, version 2: a token first, then a role and its (fake) keys.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

const TOKEN: &str = "FAKE-not-a-token";
const ROLE: &str = "demo-build-role";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// Longest request head that is read.
const MAX_HEAD_BYTES: u64 = 8 * 1024;

/// Answers one request and hangs up.
pub(super) fn serve(mut stream: TcpStream) {
    let head = read_head(&stream);
    let (status, body) = respond(&head);
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

fn read_head(stream: &TcpStream) -> Vec<String> {
    BufReader::new(stream.take(MAX_HEAD_BYTES))
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect()
}

fn respond(head: &[String]) -> (&'static str, String) {
    let has_token = head.iter().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("x-aws-ec2-metadata-token") && value.trim() == TOKEN
        })
    });
    let mut request = head.first().map(String::as_str).unwrap_or_default().split(' ');
    match (request.next(), request.next()) {
        (Some("PUT"), Some("/latest/api/token")) => ("200 OK", TOKEN.to_owned()),
        (Some("GET"), Some(_)) if !has_token => ("401 Unauthorized", String::new()),
        (Some("GET"), Some(path)) => match path.strip_prefix(ROLES) {
            Some("") => ("200 OK", ROLE.to_owned()),
            Some(ROLE) => ("200 OK", credentials()),
            _ => ("404 Not Found", String::new()),
        },
        _ => ("405 Method Not Allowed", String::new()),
    }
}

fn credentials() -> String {
    serde_json::json!({
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "FAKE-not-a-key",
        "SecretAccessKey": "FAKE-not-a-secret",
        "Token": "FAKE-not-a-token",
        "Expiration": "2000-01-01T00:00:00Z",
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &[&str]) -> &'static str {
        respond(&head.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>()).0
    }

    #[test]
    fn a_role_is_told_only_to_who_has_a_token() {
        let roles = format!("GET {ROLES} HTTP/1.1");
        let token = format!("X-aws-ec2-metadata-token: {TOKEN}");
        assert_eq!(status(&["PUT /latest/api/token HTTP/1.1"]), "200 OK");
        assert_eq!(status(&[&roles]), "401 Unauthorized");
        assert_eq!(status(&[&roles, &token]), "200 OK");
        assert_eq!(status(&["GET /else HTTP/1.1", &token]), "404 Not Found");
        assert_eq!(status(&[""]), "405 Method Not Allowed");
    }
}
