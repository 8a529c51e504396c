use super::*;
use crate::testing::{boot, heartbeat, key, seal, sealer, secret};

/// Signs a header and events that a well-behaved sealer would never make.
fn forge(change: impl FnOnce(&mut BatchHeader, &mut Vec<AuditEvent>)) -> SignedBatch {
    let made = seal(&mut sealer()).batch;
    let mut header = BatchHeader::decode(&made.header[..]).unwrap();
    let mut events = open(&made, &key().public()).unwrap().events;
    change(&mut header, &mut events);
    let encoded: Vec<_> = events.iter().map(AuditEvent::encode_to_vec).collect();
    let slots: Vec<_> = encoded.iter().map(|event| Slot::Event(event)).collect();
    header.events_root = body::root(&slots).as_bytes().to_vec();
    let header = header.encode_to_vec();
    let signature = key().sign(&signed_bytes(&header)).to_vec();
    SignedBatch { header, signature, body: body::encode(&slots), lost_before: Vec::new() }
}

/// A batch of five events: secret, heartbeat, secret, heartbeat, secret.
fn five() -> SignedBatch {
    let events = (0..5).map(|at| if at % 2 == 0 { secret(at) } else { heartbeat(at) }).collect();
    sealer().seal(&boot("b1"), events, LossTotals::default()).batch
}

#[test]
fn sealed_events_come_back_with_host_boot_and_sequence() {
    let mut sealer = sealer();
    let made = seal(&mut sealer);
    let opened = open(&made.batch, &key().public()).unwrap();
    assert_eq!(opened.digest, made.head.digest);
    assert_eq!(opened.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(opened.header.counts, BTreeMap::from([("secret.access".into(), 1), ("heartbeat".into(), 1)]));
    assert_eq!(&ChainHead::after_own(&made.batch).unwrap(), sealer.head());
}

#[test]
fn sequences_go_on_within_a_boot_and_restart_in_the_next() {
    let mut sealer = sealer();
    seal(&mut sealer);
    assert_eq!(seal(&mut sealer).head.last_sequence, 4);
    let made = sealer.seal(&boot("b2"), vec![heartbeat(9)], LossTotals { in_kernel: 3, in_agent: 1 });
    let header = open(&made.batch, &key().public()).unwrap().header;
    assert_eq!((header.number, header.first_sequence, header.last_sequence), (3, 1, 1));
    assert_eq!((header.lost_in_kernel, header.lost_in_agent), (3, 1));
}

#[test]
fn a_rewound_sealer_reuses_the_number() {
    let mut sealer = sealer();
    let before = sealer.head().clone();
    seal(&mut sealer);
    sealer.rewind(before);
    assert_eq!(seal(&mut sealer).head.number, 1);
}

#[test]
fn any_flipped_bit_is_noticed_in_whole_and_in_thinned_batches() {
    for made in [five(), thin(&five(), |kind| kind == "heartbeat").unwrap()] {
        assert_every_byte_counts(&made);
    }
}

fn assert_every_byte_counts(made: &SignedBatch) {
    let public = key().public();
    let fields: [fn(&mut SignedBatch) -> &mut Vec<u8>; 3] =
        [|batch| &mut batch.header, |batch| &mut batch.signature, |batch| &mut batch.body];
    for field in fields {
        for position in 0..field(&mut made.clone()).len() {
            let mut changed = made.clone();
            field(&mut changed)[position] ^= 1 << (position % 8);
            assert!(open(&changed, &public).is_err(), "byte {position}");
        }
    }
}

#[test]
fn a_batch_of_another_key_is_refused() {
    let other = HostKey::from_seed(&[9; 32]).public();
    assert_eq!(open(&seal(&mut sealer()).batch, &other), Err(BatchError::Signature));
}

#[test]
fn a_signed_lie_about_the_events_is_refused() {
    let public = key().public();
    let of = |change: fn(&mut BatchHeader, &mut Vec<AuditEvent>)| open(&forge(change), &public).unwrap_err();
    assert_eq!(
        of(|_, events| events[1].host_id = "other".into()),
        BatchError::Event { position: 1, what: "it names another host" }
    );
    assert_eq!(
        of(|_, events| events[0].boot_id = "other".into()),
        BatchError::Event { position: 0, what: "it names another boot" }
    );
    assert_eq!(
        of(|_, events| events[1].sequence = 1),
        BatchError::Event { position: 1, what: "its sequence number is out of order" }
    );
    assert_eq!(
        of(|_, events| events[0].time = Some(Timestamp { seconds: i64::MAX, nanos: 0 })),
        BatchError::Event { position: 0, what: "its time is not within 1970 to 2200" }
    );
    assert!(matches!(of(|_, events| events[0].boot_id = "b".repeat(MAX_EVENT_BYTES)), BatchError::Body(_)));
    assert_eq!(of(|header, _| header.counts.clear()), BatchError::Counts);
    assert_eq!(of(|header, _| header.counts.extend([("loss".into(), 0)])), BatchError::Counts);
    assert_eq!(of(|header, _| header.counts.extend([("loss".into(), u64::MAX)])), BatchError::Counts);
    assert!(matches!(of(|_, events| events.truncate(1)), BatchError::Body(_)));
    assert!(matches!(of(|header, _| header.number = 0), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.host_id = "a\nb".into()), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.last_sequence = u64::MAX), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.previous.truncate(5)), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.policy_digest.clear()), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.ebpf_digest.push(1)), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.agent_build = "v".repeat(129)), BatchError::Header(_)));
}

#[test]
fn a_thinned_batch_still_proves_what_it_kept_and_says_what_it_did_not() {
    let public = key().public();
    let whole = open(&five(), &public).unwrap();
    assert_eq!((whole.withheld.len(), whole.withheld_counts().len()), (0, 0));

    let thinned = thin(&five(), |kind| kind == "heartbeat").unwrap();
    assert_eq!((&thinned.header, &thinned.signature), (&five().header, &five().signature));
    let opened = open(&thinned, &public).unwrap();
    assert_eq!(opened.digest, whole.digest);
    assert_eq!(opened.events, [whole.events[1].clone(), whole.events[3].clone()]);
    assert_eq!(opened.withheld, [1, 3, 5]);
    assert_eq!(opened.withheld_counts(), BTreeMap::from([("secret.access".into(), 3)]));

    let again = thin(&thinned, |_| false).unwrap();
    assert_eq!(open(&again, &public).unwrap().withheld, [1, 2, 3, 4, 5]);
    assert_eq!(thin(&five(), |_| true), Ok(five()));
}

#[test]
fn thinning_by_event_keeps_exactly_those() {
    let thinned = thin_events(&five(), |event| event.sequence == 3).unwrap();
    assert_eq!(open(&thinned, &key().public()).unwrap().withheld, [1, 2, 4, 5]);
    assert_eq!(thin(&SignedBatch::default(), |_| true), Err(BatchError::Header("its host id is not valid")));
}

#[test]
fn events_of_another_batch_do_not_fit_into_a_thinned_one() {
    let mut other = thin(&five(), |_| false).unwrap();
    other.body = thin_events(&forge(|_, events| events[0].sequence = 9), |_| false).unwrap().body;
    assert!(open(&other, &key().public()).is_err());
}

/// The value behind `name: ` in the specification, white space within it removed.
fn documented(name: &str) -> Vec<u8> {
    let text = include_str!("../../../docs/formats/batch.md");
    let (_, rest) = text.split_once(&format!("\n{name}:\n")).unwrap();
    let block: String =
        rest.lines().take_while(|line| !line.is_empty() && !line.starts_with("```")).collect();
    hex::decode(block).unwrap()
}

#[test]
fn only_the_host_can_say_that_batches_before_one_are_lost() {
    let (mut batch, other) = (five(), HostKey::from_seed(&[9; 32]));
    assert!(!open(&batch, &key().public()).unwrap().behind_loss);
    say_lost_before(&key(), &mut batch);
    assert!(open(&batch, &key().public()).unwrap().behind_loss);
    // It stays with what is left of a batch …
    assert!(open(&thin(&batch, |_| false).unwrap(), &key().public()).unwrap().behind_loss);
    // … and is worth nothing from another key, cut short, or taken from the batch's own signature.
    for forged in
        [other.sign(&lost_bytes(Digest::of(&batch.header))).to_vec(), vec![7], batch.signature.clone()]
    {
        let forged = SignedBatch { lost_before: forged, ..batch.clone() };
        assert_eq!(open(&forged, &key().public()), Err(BatchError::Signature));
    }
}

#[test]
fn the_test_vector_of_the_specification_holds() {
    let seed: [u8; 32] = documented("seed").try_into().unwrap();
    let key = HostKey::from_seed(&seed);
    assert_eq!(key.public().as_bytes()[..], documented("public key"));
    let batch = SignedBatch {
        header: documented("header"),
        signature: documented("signature"),
        body: documented("body"),
        lost_before: Vec::new(),
    };
    let opened = open(&batch, &key.public()).unwrap();
    assert_eq!(opened.digest.as_bytes()[..], documented("digest of the header"));

    let host = HostId::parse(&opened.header.host_id).unwrap();
    let build = Build {
        agent_build: opened.header.agent_build,
        ebpf_digest: Some(Digest::try_from(&opened.header.ebpf_digest[..]).unwrap()),
        policy_digest: Digest::try_from(&opened.header.policy_digest[..]).unwrap(),
    };
    let mut sealer = Sealer::new(host, build, key, ChainHead::default());
    let made = sealer.seal(&boot(&opened.header.boot_id), opened.events, LossTotals::default());
    assert_eq!(made.batch, batch);

    let thinned = thin(&batch, |kind| kind == "heartbeat").unwrap();
    assert_eq!(thinned.body, documented("body without the secret.access"));
}
