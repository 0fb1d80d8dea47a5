use std::sync::Arc;

use starling_audit::{Damage, Locator, Record};

use super::*;

const LOG: DeviceId = DeviceId([7; 16]);

fn open(store: &Arc<Store>, epoch: u64) -> AuditLog {
    AuditLog::open(Arc::clone(store), LOG, epoch).expect("the log opens")
}

fn store(folder: &tempfile::TempDir) -> Arc<Store> {
    Arc::new(
        Store::open(&folder.path().join("state"), &starling_store::KeySource::beside(&folder.path().join("state")))
            .expect("the folder opens"),
    )
}

/// What the store holds, record by record.
fn all(log: &AuditLog) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut from = 0;
    while from < log.size() {
        found.extend(storage::lines(&log.store, from, log.size()).expect("readable"));
        from = (from / SEGMENT_RECORDS + 1) * SEGMENT_RECORDS;
    }
    found
}

fn checkpoints(log: &AuditLog) -> Vec<Checkpoint> {
    let notes = log.store.scan::<String>(storage::CHECKPOINTS).expect("readable");
    let verified = |note: &String| Checkpoint::verified_by_any(&Note::parse(note).expect("a note"), &log.keys);
    notes.iter().map(|(_, note)| verified(note).expect("signed")).collect()
}

fn damages(log: &AuditLog) -> Vec<Damage> {
    let mut locator = Locator::new();
    all(log).iter().for_each(|(line, text)| drop(locator.push(*line, text.as_bytes())));
    locator.finish(&checkpoints(log)).into_iter().map(|finding| finding.damage).collect()
}

fn grow(log: &mut AuditLog, records: u64) {
    for count in 0..records {
        let about = About { count: Some(count), ..About::default() };
        log.record(Entry::done(Who::System, Action::AdminRequest, about), None);
        if log.pending.len() >= PENDING_MAX {
            log.flush(false).expect("written");
        }
    }
    log.flush(true).expect("written");
}

#[test]
fn a_log_of_several_segments_goes_on_after_a_restart_and_stays_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (size, root) = {
        let mut log = open(&store(&folder), 1);
        grow(&mut log, 2 * SEGMENT_RECORDS + 100);
        (log.size(), log.chain.frontier().root())
    };
    let mut log = open(&store(&folder), 2);
    assert_eq!((log.size(), log.segments.len()), (size + 1, 2), "one record says that the daemon has started");
    assert_eq!(log.root_at(size).expect("readable"), root);
    grow(&mut log, SEGMENT_RECORDS);
    assert_eq!(damages(&log), []);
    let small = log.store.scan::<String>(storage::RECORDS).expect("readable").len() as u64;
    assert!(small < SEGMENT_RECORDS, "the small store does not grow with the log: {small}");
    assert!(checkpoints(&log).len() < 12, "nor do checkpoints");
}

#[test]
fn a_record_that_was_changed_or_taken_out_of_the_store_is_said_at_the_start_and_located() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    grow(&mut open(&store(&folder), 1), 20);
    {
        let store = store(&folder);
        let mut batch = Batch::new();
        let line = store.get::<String>(storage::RECORDS, &storage::record_key(5)).expect("readable").expect("there");
        batch.put(storage::RECORDS, &storage::record_key(5), &line.replace("\"count\":", "\"count\":9")).expect("fits");
        batch.remove(storage::RECORDS, &storage::record_key(9));
        store.commit(batch).expect("written");
    }
    let log = open(&store(&folder), 2);
    assert_eq!(damages(&log), [Damage::Changed(5), Damage::Missing(9, 9)]);
    let (_, said) = &all(&log)[21];
    let said = Record::decode(said.as_bytes()).expect("a record");
    assert_eq!((said.what, said.about.count), (Action::DamageFound, Some(5)));
}

#[test]
fn records_cut_from_the_end_are_missed_and_their_numbers_never_given_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    grow(&mut open(&store(&folder), 1), 20);
    let end = {
        let store = store(&folder);
        let mut batch = Batch::new();
        (18..22).for_each(|seq| batch.remove(storage::RECORDS, &storage::record_key(seq)));
        store.commit(batch).expect("written");
        22
    };
    let log = open(&store(&folder), 2);
    let found = damages(&log);
    assert_eq!(found.first(), Some(&Damage::Missing(18, end - 1)), "{found:?}");
    assert!(all(&log).iter().all(|(seq, _)| *seq < 18 || *seq >= end));
}

#[test]
fn a_devices_name_is_erased_where_it_was_a_stranger_too_and_the_chain_stays_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut log = open(&store(&folder), 1);
    let device = DeviceId([3; 16]);
    let entry = Entry::done(Who::Certificate(Role::Device, device), Action::DeviceConnected, About::default());
    log.record(entry.clone(), Some(Field { device: Some(device), value: "the pump of J. Doe".into() }));
    for who in ["the pump of J. Doe at 10.0.0.1:7", "somebody at 10.0.0.2:7"] {
        let entry =
            Entry::refused(Who::Stranger, Action::PeerTurnedAway, starling_wire::Refusal::Busy, About::default());
        log.record(entry, Some(Field { device: None, value: who.into() }));
    }
    log.flush(true).expect("written");
    let values = |log: &AuditLog| {
        let all = log.all_personal().expect("readable");
        all.into_iter().map(|personal| personal.value).collect::<Vec<_>>()
    };
    assert_eq!(values(&log).len(), 3);
    assert_eq!(log.forget(device, Some("the pump of J. Doe")).expect("erased"), 1);
    log.store.forget(&device.to_string()).expect("its key is destroyed");
    log.record(entry, Some(Field { device: Some(device), value: "the pump of J. Doe".into() }));
    log.flush(true).expect("what comes late is dropped");
    assert_eq!(values(&log), ["somebody at 10.0.0.2:7"]);
    assert_eq!(log.store.compartment_ids().expect("listed"), ["strangers/1"], "the old key is gone");
    assert_eq!(damages(&log), []);
    assert!(all(&log).iter().all(|(_, line)| !line.contains("Doe")));
    drop(log);
    assert_eq!(values(&open(&store(&folder), 2)), ["somebody at 10.0.0.2:7"]);
}

#[test]
fn a_round_has_receipts_that_verify_from_memory_and_from_the_disk() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = Address { task: starling_wire::TaskId([1; 16]), run: RunId(4), round: 2, attempt: 1 };
    let sent = |index: u8| Contribution { device: DeviceId([index; 16]), digest: Digest([index; 32]) };
    let mut log = open(&store(&folder), 1);
    (0..3).for_each(|index| log.admitted(address, sent(index), Some(10)).expect("recorded"));
    log.committed(&address, 7, Digest([9; 32]), 30);
    log.flush(true).expect("written");
    let held = log.newest.clone().expect("signed").0;
    grow(&mut log, SEGMENT_RECORDS);
    let check = |log: &AuditLog| {
        let want = starling_wire::WantReceipt { run: address.run, round: 2, held: held.size };
        let receipt = log.receipt(sent(1).device, &want).expect("it is in the round");
        let wanted =
            starling_audit::receipt::Wanted { device: sent(1).device, run: 4, round: 2, digest: Some(sent(1).digest) };
        starling_audit::receipt::check(&receipt, &wanted, &log.keys[0], Some(&held)).expect("it holds");
        let nobody = log.receipt(DeviceId([99; 16]), &want);
        assert_eq!(nobody, Err(starling_wire::Refusal::NotInCohort));
        let other = starling_wire::WantReceipt { round: 3, ..want };
        assert_eq!(log.receipt(sent(1).device, &other), Err(starling_wire::Refusal::UnknownRun));
    };
    check(&log);
    drop(log);
    check(&open(&store(&folder), 2));
    assert_eq!(damages(&open_again(&folder)), []);
}

fn open_again(folder: &tempfile::TempDir) -> AuditLog {
    open(&store(folder), 3)
}

#[test]
fn inv10_the_key_is_its_owners_alone_and_a_lost_one_is_replaced_openly() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    drop(open(&store(&folder), 1));
    let key = folder.path().join("state/audit.key");
    let mode = std::fs::metadata(&key).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    std::fs::remove_file(&key).expect("removed");
    let log = open(&store(&folder), 2);
    assert_eq!(log.keys.len(), 2);
    assert_eq!(damages(&log), [], "checkpoints of both keys count");
    let opened = all(&log).iter().filter(|(_, line)| line.contains("log-opened")).count();
    assert_eq!(opened, 2, "the log says that its key was made anew");
    drop(log);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let error = AuditLog::open(store(&folder), LOG, 3).err().expect("others can read it");
    assert!(error.to_string().contains("mode 644"), "{error}");
}
