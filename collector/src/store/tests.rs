use std::time::Instant;

use buildtrail_evidence::{
    batch::{self, Build, LossTotals, OpenedBatch, Sealer},
    id::BootId,
    key::HostKey,
    log::HostRecord,
};
use buildtrail_proto::v1::{AuditEvent, Heartbeat, Job, audit_event::Body};
use buildtrail_query::Scope;
use tempfile::TempDir;

use super::*;

const HOST: &str = "h1";

fn key() -> HostKey {
    HostKey::from_seed(&[5; 32])
}

fn sealer() -> Sealer {
    Sealer::new(HostId::parse(HOST).unwrap(), Build::default(), key(), ChainHead::default())
}

fn sealed(sealer: &mut Sealer, boot: &str, job_id: &str) -> OpenedBatch {
    let event = AuditEvent {
        job: Some(Job { job_id: job_id.into(), ..Job::default() }),
        body: Some(Body::Heartbeat(Heartbeat::default())),
        ..AuditEvent::default()
    };
    let made = sealer.seal(&BootId::parse(boot).unwrap(), vec![event], LossTotals::default());
    batch::open(&made.batch, &key().public()).unwrap()
}

fn host_item() -> Item {
    let public_key = key().public().as_bytes().to_vec();
    let entry = ItemEntry::Host(HostRecord { host_id: HOST.into(), public_key, ..HostRecord::default() });
    Item { record: RecordIndex(0), entry }
}

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(&directory.path().join("index.sqlite")).unwrap();
    store.apply(&[host_item()]).unwrap();
    (directory, store)
}

fn item(record: u64, batch: OpenedBatch) -> Item {
    Item { record: RecordIndex(record), entry: ItemEntry::Batch(Box::new(batch)) }
}

fn count(store: &Store, table: &str) -> i64 {
    store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_indexed_and_how_far_survive_together() {
    let (directory, mut store) = store();
    let mut sealer = sealer();
    store.apply(&[item(1, sealed(&mut sealer, "b1", "j1"))]).unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("index.sqlite")).unwrap();
    assert_eq!(store.next_record().unwrap(), RecordIndex(2));
    let known = store.known_hosts().unwrap();
    let host = &known.hosts[&HostId::parse(HOST).unwrap()];
    assert_eq!(host.chain.head(), sealer.head());
    assert!(host.key == key().public() && !known.damaged);
}

#[test]
fn a_record_applied_twice_changes_nothing() {
    let (_directory, mut store) = store();
    let batch = sealed(&mut sealer(), "b1", "j1");
    for _ in 0..2 {
        store.apply(&[host_item(), item(1, batch.clone())]).unwrap();
    }
    let counted: i64 =
        store.connection.query_row("SELECT sum(events) FROM jobs", [], |row| row.get(0)).unwrap();
    assert_eq!((count(&store, "events"), count(&store, "hosts"), counted), (1, 1, 1));
}

#[test]
fn a_host_that_lies_about_its_boots_cannot_break_the_index() {
    let (_directory, mut store) = store();
    let mut sealer = sealer();
    // Back to an old boot id, whose sequence 1 is taken.
    let batches = ["b1", "b2", "b1"].map(|boot| sealed(&mut sealer, boot, "j1"));
    let items: Vec<Item> = (1..).zip(batches).map(|(record, batch)| item(record, batch)).collect();
    store.apply(&items).unwrap();
    assert_eq!(store.next_record().unwrap(), RecordIndex(4));
    assert_eq!(count(&store, "events"), 2);
}

#[test]
fn an_index_of_another_version_is_made_anew() {
    let (directory, store) = store();
    store.connection.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(store);
    let store = Store::open(&directory.path().join("index.sqlite")).unwrap();
    assert_eq!((store.next_record().unwrap(), count(&store, "hosts")), (RecordIndex(0), 0));
}

#[test]
fn making_the_index_anew_goes_on_where_it_broke_off() {
    let (directory, mut store) = store();
    let mut sealer = sealer();
    store.apply(&[item(1, sealed(&mut sealer, "b1", "j1"))]).unwrap();
    store.begin_rebuilding().unwrap();
    assert_eq!((store.next_record().unwrap(), count(&store, "events")), (RecordIndex(0), 0));
    store.apply(&[host_item()]).unwrap();
    drop(store);
    let mut store = Store::open(&directory.path().join("index.sqlite")).unwrap();
    store.begin_rebuilding().unwrap();
    assert_eq!((store.next_record().unwrap(), count(&store, "hosts")), (RecordIndex(1), 1));
    store.end_rebuilding().unwrap();
    store.begin_rebuilding().unwrap();
    assert_eq!(count(&store, "hosts"), 0, "it had come to its end, so it begins again");
}

#[test]
fn damage_lets_every_host_go_on_once() {
    let (_directory, mut store) = store();
    store.mark_damaged(RecordIndex(9)).unwrap();
    assert!(store.known_hosts().unwrap().damaged);
    assert_eq!(store.next_record().unwrap(), RecordIndex(9));
    let mut sealer = sealer();
    sealed(&mut sealer, "b1", "j1");
    let (second, third) = (sealed(&mut sealer, "b1", "j1"), {
        sealed(&mut sealer, "b1", "j1");
        sealed(&mut sealer, "b1", "j1")
    });
    let chain =
        |store: &Store| store.known_hosts().unwrap().hosts[&HostId::parse(HOST).unwrap()].chain.clone();
    chain(&store).check(&second).unwrap();
    store.apply(&[item(9, second)]).unwrap();
    assert!(chain(&store).check(&third).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_takes_too_long_is_stopped_and_the_next_is_answered() {
    let (_directory, store) = store();
    let reader = store.reader();
    let started = Instant::now();
    let endless = reader
        .ask(Duration::from_millis(100), |asked| {
            let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";
            Ok::<i64, StoreError>(asked.raw().query_row(sql, [], |row| row.get(0))?)
        })
        .await;
    assert!(matches!(endless, Err(StoreError::TimedOut)));
    let hosts = reader.ask(Duration::from_secs(5), |asked| asked.hosts(&Scope::Everything)).await.unwrap();
    assert_eq!(hosts.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_job_id_wins_over_longer_ones_that_begin_with_it() {
    let (_directory, mut store) = store();
    let mut sealer = sealer();
    let batches = ["ab", "abc", "abd", "%_"].map(|job| sealed(&mut sealer, "b1", job));
    let items: Vec<Item> = (1..).zip(batches).map(|(record, batch)| item(record, batch)).collect();
    store.apply(&items).unwrap();
    let reader = store.reader();
    let resolve = async |prefix: &'static str| {
        reader
            .ask(Duration::from_secs(5), move |asked| asked.resolve(&Scope::Everything, prefix))
            .await
            .unwrap()
    };
    assert!(matches!(resolve("ab").await, Resolved::One(_)));
    assert!(matches!(resolve("abd").await, Resolved::One(_)));
    assert!(matches!(resolve("a").await, Resolved::Several(ids) if ids == ["ab", "abc", "abd"]));
    assert_eq!(resolve("b").await, Resolved::None);
    assert!(matches!(resolve("%").await, Resolved::One(_)));
}
