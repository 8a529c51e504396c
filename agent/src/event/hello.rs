//! What connections say in the clear about where they go: the server's name in a TLS `ClientHello` (RFC 8446, 4.1.2; RFC
//! 6066, 3), the authority in HTTP's CONNECT (RFC 9110, 9.3.6). Anything that is not as it should be is no name.

/// Longest name that is reported: that of the DNS.
const LONGEST_NAME: usize = 255;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The server's name in the start of a TLS stream; `None` while it has not come, or when there is none.
#[must_use]
pub fn server_name(stream: &[u8]) -> Option<String> {
    let mut record = Reader(stream);
    if record.byte()? != HANDSHAKE {
        return None;
    }
    // Version and length of the record, whose rest may not have been captured.
    record.take(4)?;
    if record.byte()? != CLIENT_HELLO {
        return None;
    }
    // Length, version, random.
    record.take(3 + 2 + 32)?;
    let session = usize::from(record.byte()?);
    record.take(session)?;
    let suites = record.length()?;
    record.take(suites)?;
    let compressions = usize::from(record.byte()?);
    record.take(compressions)?;
    // Length of all extensions.
    record.take(2)?;
    loop {
        let kind = record.number()?;
        let length = record.length()?;
        let content = record.take(length)?;
        if kind == SERVER_NAME {
            return name_in(content);
        }
    }
}

fn name_in(extension: &[u8]) -> Option<String> {
    let mut list = Reader(extension);
    list.take(2)?;
    if list.byte()? != HOST_NAME {
        return None;
    }
    let length = list.length()?;
    name(list.take(length)?)
}

/// Host and port of a request line `CONNECT host:port HTTP/1.1`.
#[must_use]
pub fn connect_target(line: &[u8]) -> Option<String> {
    let target = line.strip_prefix(b"CONNECT ")?.split(|&byte| byte <= b' ').next()?;
    // No user name or password belongs here; if there is one, it does not leave the host.
    let host = target.rsplit(|&byte| byte == b'@').next()?;
    name(host)
}

fn name(bytes: &[u8]) -> Option<String> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    if bytes.is_empty() || bytes.len() > LONGEST_NAME || !bytes.iter().all(is_name) {
        return None;
    }
    String::from_utf8(bytes.to_vec()).ok()
}

/// Bytes that may end anywhere.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.number().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `ClientHello` with one extension in front of the server's name.
    fn hello(name: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        let entry = [&[HOST_NAME][..], &length(name), name].concat();
        let list = [length(&entry), entry].concat();
        let extension = [vec![0, 0], length(&list), list].concat();
        let extensions = [vec![0, 43, 0, 3, 2, 3, 4], extension].concat();
        let body = [
            vec![3, 3],
            vec![7; 32],
            vec![2, 8, 8],
            vec![0, 2, 0x13, 1],
            vec![1, 0],
            length(&extensions),
            extensions,
        ]
        .concat();
        let message = [vec![CLIENT_HELLO, 0], length(&body), body].concat();
        [vec![HANDSHAKE, 3, 1], length(&message), message].concat()
    }

    #[test]
    fn the_servers_name_is_found_behind_other_extensions() {
        assert_eq!(server_name(&hello(b"api.example.test")).as_deref(), Some("api.example.test"));
    }

    #[test]
    fn a_hello_cut_anywhere_before_its_name_has_none() {
        let whole = hello(b"api.example.test");
        for end in 0..whole.len() {
            assert_eq!(server_name(&whole[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_passed_on() {
        for bad in [&b"a b"[..], b"", b"\xff", b"a\n", &[b'a'; 256]] {
            assert_eq!(server_name(&hello(bad)), None, "{bad:?}");
        }
        let mut no_hello = hello(b"a.test");
        no_hello[5] = 2;
        assert_eq!(server_name(&no_hello), None);
    }

    #[test]
    fn a_proxy_is_asked_for_host_and_port_and_never_for_a_password() {
        let target = |line: &[u8]| connect_target(line);
        assert_eq!(target(b"CONNECT api.example.test:443 HTTP/1.1").as_deref(), Some("api.example.test:443"));
        assert_eq!(target(b"CONNECT [::1]:443 HTTP/1.1\0\0").as_deref(), Some("[::1]:443"));
        assert_eq!(target(b"CONNECT a.test:1").as_deref(), Some("a.test:1"));
        assert_eq!(target(b"CONNECT u:FAKE-not-a-secret@a.test:1 HTTP/1.1").as_deref(), Some("a.test:1"));
        assert_eq!(target(b"GET http://a.test/ HTTP/1.1"), None);
        assert_eq!(target(b"CONNECT "), None);
    }
}
