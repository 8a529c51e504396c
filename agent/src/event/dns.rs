//! DNS questions and answers, put together.

use std::{collections::HashMap, net::IpAddr};

use buildtrail_proto::v1;
use simple_dns::{Packet, QTYPE, RCODE, TYPE, rdata::RData};

use crate::{clock::BootTime, process::ProcessId, sensor::records::Dns};

/// How long a question waits for its answer, in nanoseconds: glibc's default time-out (resolv.conf(5)).
const PATIENCE: u64 = 5_000_000_000;
/// Open questions of all jobs; beyond it the oldest are reported as unanswered.
const MAX_PENDING: usize = 4096;
/// Answers kept of one message.
const MAX_ANSWERS: usize = 64;

/// A lookup, answered or given up.
#[derive(Clone, Debug, PartialEq)]
pub struct Lookup {
    /// When it was asked.
    pub time: BootTime,
    /// By whom.
    pub process: ProcessId,
    /// What.
    pub body: v1::DnsLookup,
    /// Addresses that the answer led to.
    pub addresses: Vec<IpAddr>,
    /// A message was longer than what the sensor captures, or had more answers than are kept.
    pub truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    process: ProcessId,
    id: u16,
    type_code: u16,
}

/// Questions that wait.
#[derive(Debug, Default)]
pub struct DnsTracker {
    pending: HashMap<Key, Lookup>,
}

impl DnsTracker {
    /// Takes a message of `process`; returns the lookups that are complete. A message that is no DNS is ignored: port 53
    /// carries whatever a job sends there, and the connection itself is reported elsewhere.
    pub fn add(&mut self, time: BootTime, process: ProcessId, message: &Dns) -> Vec<Lookup> {
        let Ok(packet) = Packet::parse(&message.payload) else { return Vec::new() };
        let Some(question) = packet.questions.first() else { return Vec::new() };
        let key = Key { process, id: packet.id(), type_code: u16::from(question.qtype) };
        if !message.incoming {
            return self.ask(key, time, process, message, &packet);
        }
        let asked = self.pending.remove(&key);
        let mut lookup = asked.unwrap_or_else(|| Lookup {
            time,
            process,
            body: question_body(&packet, message.resolver),
            addresses: Vec::new(),
            truncated: false,
        });
        lookup.truncated |= message.truncated || packet.answers.len() > MAX_ANSWERS;
        response_code(packet.rcode()).clone_into(&mut lookup.body.response_code);
        for answer in packet.answers.iter().take(MAX_ANSWERS) {
            let (text, address) = describe(&answer.rdata);
            lookup.body.answers.extend(text);
            lookup.addresses.extend(address);
        }
        vec![lookup]
    }

    /// Questions that stayed unanswered, oldest first.
    pub fn expired(&mut self, now: BootTime) -> Vec<Lookup> {
        self.take(|lookup| now.since(lookup.time) >= PATIENCE)
    }

    /// Questions of the processes that `chosen` names, oldest first, answered or not.
    pub fn flush(&mut self, chosen: impl Fn(ProcessId) -> bool) -> Vec<Lookup> {
        self.take(|lookup| chosen(lookup.process))
    }

    /// Whether a question waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn ask(
        &mut self,
        key: Key,
        time: BootTime,
        process: ProcessId,
        message: &Dns,
        packet: &Packet<'_>,
    ) -> Vec<Lookup> {
        let given_up = if self.pending.len() >= MAX_PENDING { self.flush(|_| true) } else { Vec::new() };
        // A repetition of the same question keeps the first one's time.
        self.pending.entry(key).or_insert_with(|| Lookup {
            time,
            process,
            body: question_body(packet, message.resolver),
            addresses: Vec::new(),
            truncated: message.truncated,
        });
        given_up
    }

    fn take(&mut self, ready: impl Fn(&Lookup) -> bool) -> Vec<Lookup> {
        let mut taken: Vec<Lookup> =
            self.pending.extract_if(|_, lookup| ready(lookup)).map(|(_, lookup)| lookup).collect();
        taken.sort_by_key(|lookup| lookup.time);
        taken
    }
}

fn question_body(packet: &Packet<'_>, resolver: IpAddr) -> v1::DnsLookup {
    let question = packet.questions.first();
    v1::DnsLookup {
        name: question.map(|question| question.qname.to_string()).unwrap_or_default(),
        r#type: question.map(|question| type_name(question.qtype)).unwrap_or_default(),
        answers: Vec::new(),
        resolver: resolver.to_string(),
        response_code: String::new(),
    }
}

fn type_name(qtype: QTYPE) -> String {
    match qtype {
        QTYPE::TYPE(TYPE::Unknown(code)) => format!("TYPE{code}"),
        QTYPE::TYPE(known) => format!("{known:?}"),
        other => format!("{other:?}"),
    }
}

fn describe(data: &RData<'_>) -> (Option<String>, Option<IpAddr>) {
    match data {
        RData::A(record) => {
            let address = IpAddr::V4(record.address.into());
            (Some(address.to_string()), Some(address))
        }
        RData::AAAA(record) => {
            let address = IpAddr::V6(record.address.into());
            (Some(address.to_string()), Some(address))
        }
        RData::CNAME(record) => (Some(record.0.to_string()), None),
        RData::PTR(record) => (Some(record.0.to_string()), None),
        RData::MX(record) => (Some(record.exchange.to_string()), None),
        RData::SRV(record) => (Some(record.target.to_string()), None),
        // TXT and others can carry anything; that they came is seen from the response code.
        _ => (None, None),
    }
}

fn response_code(code: RCODE) -> &'static str {
    match code {
        RCODE::NoError => "NOERROR",
        RCODE::FormatError => "FORMERR",
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "NXDOMAIN",
        RCODE::NotImplemented => "NOTIMP",
        RCODE::Refused => "REFUSED",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::{CLASS, Name, PacketFlag, QCLASS, Question, ResourceRecord, rdata::A};

    use super::*;

    const PROCESS: ProcessId = ProcessId { pid: 5, start: BootTime(1) };

    fn message(incoming: bool, id: u16, answer: Option<[u8; 4]>) -> Dns {
        let name = Name::new_unchecked("registry.example.test");
        let mut packet = if incoming { Packet::new_reply(id) } else { Packet::new_query(id) };
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(name.clone(), TYPE::A.into(), QCLASS::CLASS(CLASS::IN), false));
        if let Some(address) = answer {
            let data = RData::A(A { address: u32::from_be_bytes(address) });
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, data));
        }
        Dns {
            resolver: IpAddr::from([127, 0, 0, 53]),
            incoming,
            stream: None,
            payload: packet.build_bytes_vec().unwrap(),
            truncated: false,
        }
    }

    #[test]
    fn an_answer_completes_its_question() {
        let mut tracker = DnsTracker::default();
        assert!(tracker.add(BootTime(10), PROCESS, &message(false, 7, None)).is_empty());
        let lookups = tracker.add(BootTime(20), PROCESS, &message(true, 7, Some([127, 0, 0, 10])));
        let [lookup] = &lookups[..] else { panic!("one lookup") };
        assert_eq!(lookup.time, BootTime(10));
        assert_eq!(lookup.body.name, "registry.example.test");
        assert_eq!(lookup.body.r#type, "A");
        assert_eq!(lookup.body.answers, ["127.0.0.10"]);
        assert_eq!(lookup.body.response_code, "NOERROR");
        assert_eq!(lookup.addresses, [IpAddr::from([127, 0, 0, 10])]);
        assert!(tracker.is_empty());
    }

    #[test]
    fn an_unanswered_question_is_reported_in_the_end() {
        let mut tracker = DnsTracker::default();
        tracker.add(BootTime(10), PROCESS, &message(false, 7, None));
        assert!(tracker.expired(BootTime(20)).is_empty());
        let lookups = tracker.expired(BootTime(10 + PATIENCE));
        assert_eq!(lookups[0].body.response_code, "");
    }

    #[test]
    fn bytes_that_are_no_dns_are_ignored() {
        let mut tracker = DnsTracker::default();
        let whole = message(true, 7, Some([1, 2, 3, 4])).payload;
        for end in 0..whole.len() {
            let cut = Dns { payload: whole[..end].to_vec(), ..message(true, 7, None) };
            tracker.add(BootTime(1), PROCESS, &cut);
        }
        tracker.add(BootTime(1), PROCESS, &Dns { payload: vec![0xff; 512], ..message(true, 7, None) });
    }
}
