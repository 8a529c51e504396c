use buildtrail_proto::v1::{
    ConnectionClosed, ConnectionOpened, Job, Process, ProcessExec, SecretAccess, Step, audit_event::Body,
};

use super::*;
use crate::parse;

fn event(body: Body) -> AuditEvent {
    AuditEvent {
        host_id: "h1".into(),
        time: Some(Timestamp { seconds: 100, nanos: 0 }),
        job: Some(Job {
            job_id: "0123456789abcdef0123456789abcdef".into(),
            name: "build".into(),
            repository: "acme/widgets".into(),
            ..Job::default()
        }),
        step: Some(Step { id: "__run_2".into(), name: "Publish".into(), index: 2, ..Step::default() }),
        process: Some(Process { executable: "/usr/bin/curl".into(), uid: 1000, ..Process::default() }),
        body: Some(body),
        ..AuditEvent::default()
    }
}

fn closed() -> AuditEvent {
    event(Body::ConnectionClosed(ConnectionClosed {
        protocol: 1,
        remote_address: "192.0.2.7".into(),
        remote_port: 443,
        dns_names: vec!["API.example.com".into()],
        proxied_to: "deep.example.org:8443".into(),
        bytes_out: 1500,
        bytes_in: 500,
        result: 2,
        ..ConnectionClosed::default()
    }))
}

fn secret() -> AuditEvent {
    event(Body::SecretAccess(SecretAccess {
        secret: "AWS shared credentials".into(),
        family: "aws".into(),
        path: "/home/ci/.aws/credentials".into(),
        ..SecretAccess::default()
    }))
}

fn check(event: &AuditEvent, matching: &[&str], others: &[&str]) {
    for text in matching {
        assert!(Compiled::new(&parse(text).unwrap()).unwrap().matches(event), "{text}");
    }
    for text in others {
        assert!(!Compiled::new(&parse(text).unwrap()).unwrap().matches(event), "{text}");
    }
}

#[test]
fn a_connection_is_found_by_what_is_known_of_it() {
    check(
        &closed(),
        &[
            "",
            "dest=api.example.com",
            "dest=*.EXAMPLE.com",
            "dest=deep.example.org",
            "dest=192.0.2.7",
            "dest=192.0.2.0/24",
            "dest=192.0.*",
            "dest~Example",
            "address=192.0.2.0/24",
            "name=api.example.com",
            "port=443 protocol=tcp",
            "port>=443 port<=443",
            "bytes>=2k bytes<=2000",
            "outcome=refused",
            "kind=connection.*",
            "exe=/usr/bin/* uid=1000",
            "host=h1 host!=h2",
            "secret=\"\"",
            "job=0123 step=Publish",
            "job=build",
            "job!=\"\"",
            "\"widg\" \"PUBLISH\"",
            "kind=loss,connection.closed",
        ],
        &[
            "dest=example.com",
            "dest=192.0.3.0/24",
            "address=api.example.com",
            "port>=444",
            "bytes>=3k",
            "job=012",
            "job=123456",
            "job=\"\"",
            "dest!=*.example.com",
            "secret~a",
            "kind=connection.opened",
            "text~nothing",
            "port=443 port=80",
        ],
    );
}

#[test]
fn a_secret_is_found_by_what_is_known_of_it() {
    check(
        &secret(),
        &["secret~aws family=aws", "path=*/.aws/*", "\"shared cred\"", "dest=\"\"", "dest!=x.example.com"],
        &["family=AWS", "path=/.aws/*", "\"secret.access\"", "dest!=\"\"", "argument=x"],
    );
}

#[test]
fn time_is_from_and_before() {
    check(
        &secret(),
        &["since=1970-01-01T00:01:40Z", "until=1970-01-01T00:01:40.000000001Z"],
        &["since=1970-01-01T00:01:40.000000001Z", "until=1970-01-01T00:01:40Z"],
    );
}

#[test]
fn arguments_are_values_one_by_one() {
    let exec = event(Body::ProcessExec(ProcessExec {
        argv: vec!["curl".into(), "--data".into(), "@/etc/x".into()],
        ..ProcessExec::default()
    }));
    check(
        &exec,
        &["argument=--data argument=@*", "argument~ETC"],
        &["argument=\"curl --data\"", "argument!=curl"],
    );
}

#[test]
fn a_destination_without_a_name_is_its_address() {
    let opened = event(Body::ConnectionOpened(ConnectionOpened {
        remote_address: "2001:db8::1".into(),
        ..ConnectionOpened::default()
    }));
    check(&opened, &["dest=2001:db8::/32", "dest=2001:DB8::1", "name=\"\""], &["dest=\"\"", "port=0"]);
    let facts = crate::facts(&opened);
    assert!(facts.iter().any(|fact| fact.field == Field::Dest && fact.value == "2001:db8::1"));
}

#[test]
fn bounds_are_kept() {
    let condition =
        |values: usize| Asked { field: "repo".into(), values: vec!["a".into(); values], ..Asked::default() };
    let search = |conditions: usize, values| Search {
        r#where: vec![condition(values); conditions],
        ..Search::default()
    };
    assert!(Compiled::new(&search(MAX_CONDITIONS, MAX_VALUES)).is_ok());
    assert_eq!(Compiled::new(&search(MAX_CONDITIONS + 1, 1)).unwrap_err(), SearchError::TooLong);
    assert_eq!(Compiled::new(&search(1, MAX_VALUES + 1)).unwrap_err(), SearchError::TooLong);
    assert_eq!(Compiled::new(&search(1, 0)).unwrap_err(), SearchError::NoValue(Field::Repo));
    let unknown = Asked { operator: 99, ..condition(1) };
    let search = Search { r#where: vec![unknown], ..Search::default() };
    assert_eq!(Compiled::new(&search).unwrap_err(), SearchError::UnknownOperator(99));
}

#[test]
fn fields_stand_in_the_order_of_their_list() {
    for (place, field) in Field::ALL.into_iter().enumerate() {
        assert_eq!(field as usize, place);
        assert_eq!(Field::parse(field.name()), Some(field));
    }
}
