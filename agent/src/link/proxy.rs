//! Through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6). The proxy sees names and amounts, never content.

use std::{fmt, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Uri;

use super::{LinkError, open, read_secret, unreadable};

/// Longest answer of a proxy before the tunnel begins.
const MAX_ANSWER: usize = 8 * 1024;

/// An HTTP proxy. `Debug` does not show its credentials.
#[derive(Clone)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// Value of `Proxy-Authorization`.
    credentials: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

impl Proxy {
    /// `url` is `http://HOST:PORT`; the file holds `USER:PASSWORD`.
    pub(super) fn new(url: &str, credentials: Option<&Path>) -> Result<Self, LinkError> {
        let wrong = |setting, problem: &str| LinkError::Proxy { setting, problem: problem.to_owned() };
        let uri: Option<Uri> = url.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("http"));
        let parts = uri.as_ref().and_then(|uri| Some((uri.host()?.to_owned(), uri.port_u16()?)));
        let (host, port) = parts.ok_or_else(|| wrong("proxy", "expected http://HOST:PORT"))?;
        let credentials = credentials.map(|path| {
            let text = read_secret(path).map_err(unreadable("proxy_credentials", path.to_owned()))?;
            let line = text.trim();
            if line.contains(char::is_control) || !line.contains(':') {
                return Err(wrong("proxy_credentials", "the file must hold one line: USER:PASSWORD"));
            }
            Ok(format!("Basic {}", STANDARD.encode(line)))
        });
        Ok(Self { host, port, credentials: credentials.transpose()? })
    }

    /// A connection to `host` through the proxy.
    pub(super) async fn open(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let failed = |what: String| io::Error::other(format!("the proxy {}:{} {what}", self.host, self.port));
        let mut stream = open(&self.host, self.port)
            .await
            .map_err(|error| failed(format!("cannot be reached: {error}")))?;
        stream.write_all(self.request(host, port).as_bytes()).await?;
        let answer = read_head(&mut stream).await?;
        match status(&answer) {
            Some(200..=299) => Ok(stream),
            Some(407) => {
                Err(failed("wants other credentials (407); see collector.proxy_credentials".to_owned()))
            }
            Some(status) => Err(failed(format!("refuses to connect to {host}:{port} ({status})"))),
            None => Err(failed("does not answer as an HTTP proxy".to_owned())),
        }
    }

    fn request(&self, host: &str, port: u16) -> String {
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let credentials = self.credentials.as_ref();
        let credentials =
            credentials.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n")
    }
}

/// The answer up to its empty line, and not one byte more: what follows is the tunnel's.
async fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_ANSWER {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let (_, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_of_http_1_is_understood() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 Proxy Authentication Required\r\nX: y\r\n\r\n"), Some(407));
        for wrong in
            [&b""[..], b"HTTP/2 200\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 2\r\n", b"HTTP/1.1 \xff\xff\xff\r\n"]
        {
            assert_eq!(status(wrong), None);
        }
    }

    #[test]
    fn credentials_come_from_a_file_and_are_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "ci:FAKE-password\n").unwrap();
        let proxy = Proxy::new("http://proxy.example:3128", Some(file.path())).unwrap();
        let request = proxy.request("2001:db8::1", 7443);
        assert!(request.starts_with("CONNECT [2001:db8::1]:7443 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Proxy-Authorization: Basic Y2k6RkFLRS1wYXNzd29yZA==\r\n"), "{request}");
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example:3128)");
        std::fs::write(file.path(), "one:two\r\nX-Injected: 1").unwrap();
        assert!(Proxy::new("http://proxy.example:3128", Some(file.path())).is_err());
        assert!(Proxy::new("https://proxy.example:3128", None).is_err());
    }
}
