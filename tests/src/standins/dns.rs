//! A name server for `example.test`: every name in it leads to the registry stand-in; no other name exists.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, TcpStream, UdpSocket},
};

use simple_dns::{
    CLASS, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, RData},
};

use super::REGISTRY;

const ZONE: &str = "example.test";
const TIME_TO_LIVE_SECONDS: u32 = 60;

/// Answers queries until the socket fails.
pub(super) fn serve(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Some(reply) = reply(&buffer[..length]) {
            let _ = socket.send_to(&reply, peer);
        }
    }
}

/// Answers one query over TCP, behind its length.
pub(super) fn serve_stream(mut stream: TcpStream) {
    let mut length = [0; 2];
    let mut query = [0; 512];
    let whole = stream.read_exact(&mut length).ok().and_then(|()| {
        let query = query.get_mut(..usize::from(u16::from_be_bytes(length)))?;
        stream.read_exact(query).ok()?;
        reply(query)
    });
    if let Some(reply) = whole
        && let Ok(length) = u16::try_from(reply.len())
    {
        let _ = stream.write_all(&[&length.to_be_bytes()[..], &reply].concat());
    }
}

/// The reply to a query; nothing for what is not one.
fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok()?;
    if query.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_DESIRED | PacketFlag::RECURSION_AVAILABLE);
    for question in query.questions {
        let name = question.qname.to_string();
        if name == ZONE || name.ends_with(&format!(".{ZONE}")) {
            let data = match question.qtype {
                QTYPE::TYPE(TYPE::A) => Some(RData::A(A::from(REGISTRY))),
                QTYPE::TYPE(TYPE::AAAA) => Some(RData::AAAA(AAAA::from(Ipv6Addr::LOCALHOST))),
                _ => None,
            };
            let record = data.map(|data| {
                ResourceRecord::new(question.qname.clone(), CLASS::IN, TIME_TO_LIVE_SECONDS, data)
            });
            reply.answers.extend(record);
        } else {
            *reply.rcode_mut() = RCODE::NameError;
        }
        reply.questions.push(question);
    }
    reply.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use simple_dns::{Name, QCLASS, Question};

    use super::*;

    fn ask(name: &str, kind: TYPE) -> (RCODE, Vec<String>) {
        let mut query = Packet::new_query(7);
        let question =
            Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
        query.questions.push(question);
        let reply = reply(&query.build_bytes_vec().unwrap()).unwrap();
        let reply = Packet::parse(&reply).unwrap();
        assert_eq!((reply.id(), reply.questions.len()), (7, 1));
        let answers = reply.answers.iter().map(|answer| match &answer.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::AAAA(a) => Ipv6Addr::from(a.address).to_string(),
            other => panic!("{other:?}"),
        });
        (reply.rcode(), answers.collect())
    }

    #[test]
    fn names_of_the_zone_have_addresses_and_others_do_not_exist() {
        for (name, kind, code, answers) in [
            ("registry.example.test", TYPE::A, RCODE::NoError, vec!["127.0.0.10"]),
            ("registry.example.test", TYPE::AAAA, RCODE::NoError, vec!["::1"]),
            ("registry.example.test", TYPE::TXT, RCODE::NoError, vec![]),
            ("notexample.test", TYPE::A, RCODE::NameError, vec![]),
        ] {
            assert_eq!(ask(name, kind), (code, answers.into_iter().map(String::from).collect()), "{name}");
        }
    }

    #[test]
    fn what_is_no_query_gets_no_reply() {
        assert_eq!(reply(b"not dns"), None);
        assert_eq!(reply(&Packet::new_reply(1).build_bytes_vec().unwrap()), None);
    }
}
