use super::*;
use crate::testing::{boot, heartbeat, key, seal, sealer, secret};

/// Signs a header and body that a well-behaved sealer would never make.
fn forge(change: impl FnOnce(&mut BatchHeader, &mut BatchBody)) -> SignedBatch {
    let made = seal(&mut sealer()).batch;
    let mut header = BatchHeader::decode(&made.header[..]).unwrap();
    let mut body = BatchBody::decode(&made.body[..]).unwrap();
    change(&mut header, &mut body);
    let body = body.encode_to_vec();
    header.body_digest = Digest::of(&body).as_bytes().to_vec();
    let header = header.encode_to_vec();
    let signature = key().sign(&signed_bytes(&header)).to_vec();
    SignedBatch { header, signature, body }
}

#[test]
fn sealed_events_come_back_with_host_boot_and_sequence() {
    let mut sealer = sealer();
    let made = seal(&mut sealer);
    let opened = open(&made.batch, &key().public()).unwrap();
    assert_eq!(opened.digest, made.head.digest);
    assert_eq!(opened.events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(opened.header.counts, HashMap::from([("secret.access".into(), 1), ("heartbeat".into(), 1)]));
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
fn any_flipped_bit_is_noticed() {
    let made = seal(&mut sealer()).batch;
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
    let of = |change: fn(&mut BatchHeader, &mut BatchBody)| open(&forge(change), &public).unwrap_err();
    assert_eq!(
        of(|_, body| body.events[1].host_id = "other".into()),
        BatchError::Event { position: 1, what: "it names another host" }
    );
    assert_eq!(
        of(|_, body| body.events[0].boot_id = "other".into()),
        BatchError::Event { position: 0, what: "it names another boot" }
    );
    assert_eq!(
        of(|_, body| body.events[1].sequence = 1),
        BatchError::Event { position: 1, what: "its sequence number is out of order" }
    );
    assert_eq!(
        of(|_, body| body.events[0].time = Some(Timestamp { seconds: i64::MAX, nanos: 0 })),
        BatchError::Event { position: 0, what: "its time is not within 1970 to 2200" }
    );
    assert!(matches!(
        of(|_, body| body.events[0].boot_id = "b".repeat(MAX_EVENT_BYTES)),
        BatchError::Body(_)
    ));
    assert_eq!(of(|header, _| header.counts.clear()), BatchError::Counts);
    assert!(matches!(of(|_, body| body.events.truncate(1)), BatchError::Body(_)));
    assert!(matches!(of(|header, _| header.number = 0), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.host_id = "a\nb".into()), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.last_sequence = u64::MAX), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.previous.truncate(5)), BatchError::Header(_)));
    assert!(matches!(of(|header, _| header.agent_version = "v".repeat(129)), BatchError::Header(_)));
}

#[test]
fn a_body_of_countless_empty_events_is_refused_before_it_is_decoded() {
    let body = [0x0a, 0x00].repeat(2_000_000);
    assert_eq!(count_encoded_events(&body), Some(2_000_000));
    let mut batch = forge(|_, _| {});
    let mut header = BatchHeader::decode(&batch.header[..]).unwrap();
    header.body_digest = Digest::of(&body).as_bytes().to_vec();
    batch.header = header.encode_to_vec();
    batch.signature = key().sign(&signed_bytes(&batch.header)).to_vec();
    batch.body = body;
    assert!(matches!(open(&batch, &key().public()), Err(BatchError::Body(_))));
}

#[test]
fn a_body_with_anything_but_events_does_not_count() {
    let event = BatchBody { events: vec![secret(0)] }.encode_to_vec();
    assert_eq!(count_encoded_events(&event), Some(1));
    assert_eq!(count_encoded_events(&event[..event.len() - 1]), None);
    assert_eq!(count_encoded_events(&[0x12, 0x00]), None);
    assert_eq!(
        count_encoded_events(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        None
    );
}

/// The value behind `name: ` in the specification, white space within it removed.
fn documented(name: &str) -> Vec<u8> {
    let text = include_str!("../../docs/formats/batch.md");
    let (_, rest) = text.split_once(&format!("\n{name}:\n")).unwrap();
    let block: String =
        rest.lines().take_while(|line| !line.is_empty() && !line.starts_with("```")).collect();
    hex::decode(block).unwrap()
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
    };
    let opened = open(&batch, &key.public()).unwrap();
    assert_eq!(opened.digest.as_bytes()[..], documented("digest of the header"));

    let host = HostId::parse(&opened.header.host_id).unwrap();
    let mut sealer = Sealer::new(host, opened.header.agent_version, key, ChainHead::default());
    let made = sealer.seal(&boot(&opened.header.boot_id), opened.events, LossTotals::default());
    assert_eq!(made.batch, batch);
}
