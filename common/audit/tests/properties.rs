//! What must hold of every log: its proofs verify, no flipped bit passes, and what was changed, dropped, inserted or moved is located.

use proptest::prelude::*;
use starling_audit::export::{Checker, Report, checkpoint_line, header_line, personal_line};
use starling_audit::{
    About, Action, Algorithm, Chain, Checkpoint, Contribution, Damage, Entry, Frontier, Nodes, Outcome, Personal,
    Record, RecordError, SigningKey, Who, consistency_proof, contributors_root, inclusion_proof, leaf_hash, range_root,
    verify,
};
use starling_wire::{DeviceId, Digest, Refusal, Role};

fn data(index: u64) -> Vec<u8> {
    index.to_le_bytes()[..usize::try_from(index % 9).expect("small")].to_vec()
}

fn leaves(size: u64) -> Vec<Digest> {
    (0..size).map(|index| leaf_hash(&data(index))).collect()
}

fn flip(digest: &Digest, bit: usize) -> Digest {
    let mut bytes = digest.0;
    bytes[bit / 8 % 32] ^= 1 << (bit % 8);
    Digest(bytes)
}

proptest! {
    #[test]
    fn every_inclusion_proof_verifies_and_no_flipped_bit_does(size in 1_u64..300, index: prop::sample::Index, bit in 0_usize..256) {
        let index = index.index(usize::try_from(size).expect("small")) as u64;
        let leaves = leaves(size);
        let root = range_root(leaves.as_slice(), 0, size).expect("in memory");
        let proof = inclusion_proof(leaves.as_slice(), index, size).expect("in memory");
        prop_assert_eq!(verify::inclusion(&data(index), index, size, &root, &proof), Ok(()));
        prop_assert!(verify::inclusion(&data(index), index, size, &flip(&root, bit), &proof).is_err());
        prop_assert!(verify::inclusion(b"something else", index, size, &root, &proof).is_err());
        prop_assert!(verify::inclusion(&data(index), index + 1, size, &root, &proof).is_err());
        for place in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[place] = flip(&wrong[place], bit);
            prop_assert!(verify::inclusion(&data(index), index, size, &root, &wrong).is_err());
            wrong.remove(place);
            prop_assert!(verify::inclusion(&data(index), index, size, &root, &wrong).is_err());
        }
        let longer = [proof.as_slice(), &[root]].concat();
        prop_assert!(verify::inclusion(&data(index), index, size, &root, &longer).is_err());
    }

    #[test]
    fn every_consistency_proof_verifies_and_no_flipped_bit_does(new in 1_u64..300, old: prop::sample::Index, bit in 0_usize..256) {
        let old = old.index(usize::try_from(new).expect("small") + 1) as u64;
        let leaves = leaves(new);
        let root = |size| range_root(leaves.as_slice(), 0, size).expect("in memory");
        let proof = consistency_proof(leaves.as_slice(), old, new).expect("in memory");
        prop_assert_eq!(verify::consistency(old, &root(old), new, &root(new), &proof), Ok(()));
        prop_assert!(verify::consistency(old, &flip(&root(old), bit), new, &root(new), &proof).is_err());
        if old > 0 {
            prop_assert!(verify::consistency(old, &root(old), new, &flip(&root(new), bit), &proof).is_err());
            prop_assert!(verify::consistency(new, &root(new), old, &root(old), &proof).is_err() || old == new);
        }
        for place in 0..proof.len() {
            let mut wrong = proof.clone();
            wrong[place] = flip(&wrong[place], bit);
            prop_assert!(verify::consistency(old, &root(old), new, &root(new), &wrong).is_err());
        }
        let longer = [proof.as_slice(), &[root(new)]].concat();
        prop_assert!(verify::consistency(old, &root(old), new, &root(new), &longer).is_err());
    }

    #[test]
    fn a_tree_grown_by_full_subtrees_is_the_same_tree(subtrees in 0_u64..6, rest in 0_u64..8) {
        let leaves = leaves(subtrees * 8 + rest);
        let mut frontier = Frontier::new();
        for subtree in 0..subtrees {
            frontier.push_subtree(range_root(leaves.as_slice(), subtree * 8, subtree * 8 + 8).expect("in memory"), 3);
        }
        (subtrees * 8..subtrees * 8 + rest).for_each(|index| frontier.push(leaves.as_slice().leaf(index).expect("in memory")));
        prop_assert_eq!(frontier.root(), range_root(leaves.as_slice(), 0, frontier.size()).expect("in memory"));
    }

    #[test]
    fn any_flipped_bit_of_an_export_is_found_in_its_line(line: prop::sample::Index, byte: prop::sample::Index, bit in 0_u8..8) {
        let mut lines = export();
        let line = line.index(lines.len());
        let byte = byte.index(lines[line].len());
        lines[line][byte] ^= 1 << bit;
        // A byte that became a line's end makes two lines of one.
        let text = lines.join(&b'\n');
        let report = check(text.split(|byte| *byte == b'\n'));
        let lines: Vec<_> = report.findings.iter().filter_map(|finding| finding.line).collect();
        prop_assert!(lines.contains(&(line as u64 + 1)), "line {}: {:?}", line + 1, report.findings);
    }

    #[test]
    fn any_dropped_record_is_named(dropped in 0_usize..RECORDS) {
        let mut lines = export();
        lines.remove(dropped + 1);
        let report = check(lines.iter().map(Vec::as_slice));
        let damages: Vec<_> = report.findings.iter().map(|finding| finding.damage.clone()).collect();
        prop_assert!(damages.contains(&Damage::Missing(dropped as u64, dropped as u64)), "{damages:?}");
        prop_assert!(!damages.iter().any(|damage| matches!(damage, Damage::Rewritten(..) | Damage::Changed(_))), "{damages:?}");
    }

    #[test]
    fn any_two_swapped_records_are_located(first in 0_usize..RECORDS, second in 0_usize..RECORDS) {
        prop_assume!(first != second);
        let mut lines = export();
        lines.swap(first + 1, second + 1);
        let report = check(lines.iter().map(Vec::as_slice));
        let mut moved = report.findings.iter().filter_map(|finding| match finding.damage {
            Damage::Moved(record) => Some((record, finding.line)),
            _ => None,
        });
        let found = moved.next().expect("a record out of place");
        let (first, second) = (first as u64, second as u64);
        prop_assert!([(first, Some(second + 2)), (second, Some(first + 2))].contains(&found), "{found:?}");
    }

    #[test]
    fn any_order_of_the_records_but_the_right_one_is_found(order in Just((0..RECORDS).collect::<Vec<_>>()).prop_shuffle()) {
        let lines = export();
        let mut shuffled = lines.clone();
        order.iter().enumerate().for_each(|(to, from)| shuffled[to + 1] = lines[from + 1].clone());
        let report = check(shuffled.iter().map(Vec::as_slice));
        prop_assert_eq!(report.findings.is_empty(), order.is_sorted());
        // Taking the named records out leaves the others in order.
        let out: Vec<u64> = report.findings.iter().filter_map(|finding| match finding.damage {
            Damage::Moved(record) => Some(record),
            _ => None,
        }).collect();
        let rest: Vec<usize> = order.into_iter().filter(|record| !out.contains(&(*record as u64))).collect();
        prop_assert!(rest.is_sorted(), "{rest:?}");
    }

    #[test]
    fn a_record_written_twice_or_made_up_is_located(record in 0_usize..RECORDS, place in 0_usize..RECORDS, made_up: bool) {
        let mut lines = export();
        let mut line = lines[record + 1].clone();
        if made_up {
            line = String::from_utf8(line).expect("text").replace("\"code\":0", "\"code\":7").into_bytes();
        }
        prop_assume!(!made_up || line != lines[record + 1]);
        lines.insert(place + 1, line.clone());
        let report = check(lines.iter().map(Vec::as_slice));
        let found = report.findings.iter().find(|finding| finding.damage == Damage::Inserted(record as u64));
        let found = found.unwrap_or_else(|| panic!("{:?}", report.findings));
        let at = usize::try_from(found.line.expect("a line")).expect("small") - 1;
        prop_assert!(lines[at] == line || record == RECORDS - 1, "the made-up one is named, not the log's");
    }

    #[test]
    fn a_rewritten_end_is_found_between_checkpoints(from in 0_usize..RECORDS) {
        let mut lines = export();
        let mut prev = None;
        for (index, line) in lines[1..=RECORDS].iter_mut().enumerate().skip(from) {
            let mut record = Record::decode(line).expect("a record");
            if index == from { record.time_unix_ms += 1; }
            if let Some(prev) = prev { record.prev = prev; }
            *line = record.encode().expect("a record");
            prev = Some(leaf_hash(line));
        }
        let report = check(lines.iter().map(Vec::as_slice));
        let range = report.findings.iter().find_map(|finding| match finding.damage {
            Damage::Rewritten(first, last) => Some((first, last)),
            _ => None,
        });
        let (first, last) = range.expect("the signed root differs");
        prop_assert!((first..=last).contains(&(from as u64)), "{from} in {first}..={last}");
        prop_assert!(last - first < 10, "no further than a checkpoint away");
    }
}

const RECORDS: usize = 24;

fn log_key() -> SigningKey {
    SigningKey::from_seed("log.example", Algorithm::Log, [7; 32].into()).expect("a good name")
}

/// A small log: two rounds of three devices, one of whom has a name, with a checkpoint every ten records and at the end.
fn export() -> Vec<Vec<u8>> {
    let key = log_key();
    let mut chain = Chain::default();
    let mut lines = vec![header_line(std::slice::from_ref(key.verifier()), RECORDS as u64).into_bytes()];
    let mut checkpoints = Vec::new();
    let named = Personal { salt: [3; 16], value: "pump 4, hall \"B\"".into() };
    let device = |index: usize| DeviceId::seeded(1, u32::try_from(index).expect("small"));
    for seq in 0..RECORDS {
        let round = u32::try_from(seq / 12 + 1).expect("small");
        let about = About { run: Some(1), round: Some(round), attempt: Some(1), ..About::default() };
        let sent = |index: usize| Contribution { device: device(index), digest: Digest::of(&index.to_le_bytes()) };
        let entry = match seq % 12 {
            0 => Entry::done(Who::LocalUser(1000), Action::RunStarted, About { run: Some(1), ..About::default() }),
            index @ 1..=3 => {
                let about = About { digest: Some(sent(index).digest), weight: Some(12), ..about };
                Entry::done(Who::Certificate(Role::Device, device(index)), Action::UpdateAdmitted, about)
            }
            4 => {
                let root = contributors_root(&[sent(3), sent(1), sent(2)]);
                let about = About { contributors: Some(3), contributors_root: Some(root), ..about };
                Entry::done(Who::System, Action::VersionCommitted, about)
            }
            5 => Entry::done(Who::Certificate(Role::Device, device(1)), Action::DeviceConnected, About::default())
                .with_personal(named.commitment()),
            _ => Entry::refused(Who::Stranger, Action::PeerTurnedAway, Refusal::ForeignCertificate, About::default()),
        };
        let sealed = chain.append(1_700_000_000_000 + seq as u64, entry).expect("a record");
        lines.push(sealed.line);
        let frontier = chain.frontier();
        if (seq + 1) % 10 == 0 || seq + 1 == RECORDS {
            let checkpoint = Checkpoint { origin: "log.example".into(), size: frontier.size(), root: frontier.root() };
            checkpoints.push(checkpoint_line(&key.sign(&checkpoint.to_string())).into_bytes());
        }
    }
    lines.push(personal_line(&named).into_bytes());
    lines.extend(checkpoints);
    lines
}

fn check<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Report {
    let mut checker = Checker::new(vec![log_key().verifier().clone()], Vec::new());
    lines.into_iter().for_each(|line| checker.line(line));
    checker.finish()
}

#[test]
fn a_whole_export_has_no_findings_and_counts_what_is_in_it() {
    let lines = export();
    let report = check(lines.iter().map(Vec::as_slice));
    assert_eq!(report.findings, []);
    assert_eq!((report.records, report.checkpoints, report.personal), (RECORDS as u64, 3, 1));
    assert_eq!(Checker::keys_of(std::str::from_utf8(&lines[0]).expect("text")), [log_key().verifier().clone()]);
}

#[test]
fn an_erased_name_leaves_the_chain_whole() {
    let mut lines = export();
    let personal = lines.iter().position(|line| line.starts_with(b"{\"personal\"")).expect("a name");
    lines.remove(personal);
    let text = lines.concat();
    assert!(!text.windows(6).any(|window| window == b"pump 4"), "the name stood nowhere else");
    assert_eq!(check(lines.iter().map(Vec::as_slice)).findings, []);
}

#[test]
fn a_cut_log_is_found_by_whoever_kept_a_checkpoint() {
    let lines = export();
    let kept = String::from_utf8(lines.last().expect("a checkpoint").clone()).expect("text");
    // The log of the first ten records, with its own checkpoint: whole in itself.
    let mut cut: Vec<Vec<u8>> = lines[..11].to_vec();
    cut[0] = header_line(&[log_key().verifier().clone()], 10).into_bytes();
    cut.push(lines.iter().find(|line| line.starts_with(b"{\"checkpoint\"")).expect("one").clone());
    assert_eq!(check(cut.iter().map(Vec::as_slice)).findings, []);
    cut.push(kept.into_bytes());
    let report = check(cut.iter().map(Vec::as_slice));
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].damage, Damage::Missing(10, RECORDS as u64 - 1));
}

#[test]
fn a_version_that_names_other_contributors_is_found() {
    let key = log_key();
    let mut chain = Chain::default();
    let about = About { run: Some(1), round: Some(1), attempt: Some(1), contributors: Some(0), ..About::default() };
    let line = chain.append(0, Entry::done(Who::System, Action::VersionCommitted, about)).expect("a record").line;
    let checkpoint = Checkpoint { origin: "log.example".into(), size: 1, root: chain.frontier().root() };
    let note = checkpoint_line(&key.sign(&checkpoint.to_string()));
    let header = header_line(std::slice::from_ref(key.verifier()), 1);
    let report = check([header.as_bytes(), &line, note.as_bytes()]);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    assert_eq!(report.findings[0].damage, Damage::Contributors(0));
}

#[test]
fn a_record_has_one_line_and_a_line_one_record() {
    let about = About {
        run: Some(u32::MAX),
        round: Some(u32::MAX),
        attempt: Some(u16::MAX),
        version: Some(u64::MAX),
        device: Some(DeviceId([255; 16])),
        digest: Some(Digest([255; 32])),
        weight: Some(u64::MAX),
        contributors: Some(u32::MAX),
        contributors_root: Some(Digest([255; 32])),
        count: Some(u64::MAX),
        since_unix_ms: Some(u64::MAX),
        word: Some("w".repeat(64)),
        proof: None,
    };
    let proof = "0a".repeat(160).parse().ok();
    assert!(proof.is_some(), "320 hexadecimal digits");
    let renewal = About { digest: Some(Digest([255; 32])), proof, ..About::default() };
    let device = Who::Certificate(Role::Device, DeviceId([255; 16]));
    let renewal = Entry::done(device, Action::CertificateRenewed, renewal).with_personal(Digest([1; 32]));
    let renewal = Chain::default().append(u64::MAX, renewal).expect("the longest renewal fits");
    assert_eq!(Record::decode(&renewal.line).expect("it reads what it writes"), renewal.record);
    let who = Who::Certificate(Role::Aggregator, DeviceId([255; 16]));
    let entry =
        Entry { outcome: Outcome::Refused, code: u16::MAX, ..Entry::done(who, Action::PermissionDenied, about) };
    let sealed = Chain::default().append(u64::MAX, entry.with_personal(Digest([1; 32]))).expect("the longest fits");
    assert_eq!(Record::decode(&sealed.line).expect("it reads what it writes"), sealed.record);
    let line = String::from_utf8(sealed.line).expect("text");
    for (from, to) in [(":", ": "), ("\"run\"", "\"Run\""), ("wwww", "WWWW"), ("ff", "FF"), ("uid", "uId"), ("}", "} ")]
    {
        let changed = line.replacen(from, to, 1);
        assert!(changed == line || Record::decode(changed.as_bytes()).is_err(), "{changed}");
    }
    let long = "9".repeat(2000);
    assert!(matches!(Record::decode(long.as_bytes()), Err(RecordError::Long(2000))), "inv 8");
    for action in Action::ALL {
        assert_eq!(action.word().parse(), Ok(*action));
    }
}

#[test]
fn a_withdrawn_update_is_no_contribution_and_only_the_one_that_is_named() {
    let key = log_key();
    let device = |index: u32| DeviceId::seeded(1, index);
    let sent = |index: u32| Contribution { device: device(index), digest: Digest::of(&index.to_le_bytes()) };
    let round = || About { run: Some(1), round: Some(1), attempt: Some(1), ..About::default() };
    let findings = |withdrawn: Contribution, left: &[Contribution]| {
        let admitted = |index: u32| {
            let about = About { digest: Some(sent(index).digest), ..round() };
            Entry::done(Who::Certificate(Role::Device, device(index)), Action::UpdateAdmitted, about)
        };
        let about = About { device: Some(withdrawn.device), digest: Some(withdrawn.digest), ..round() };
        let out = Entry::done(Who::System, Action::UpdateWithdrawn, about);
        let contributors = u32::try_from(left.len()).ok();
        let about = About { contributors, contributors_root: Some(contributors_root(left)), ..round() };
        let commit = Entry::done(Who::System, Action::VersionCommitted, about);
        let mut chain = Chain::default();
        let mut lines = vec![header_line(std::slice::from_ref(key.verifier()), 4).into_bytes()];
        for entry in [admitted(1), admitted(2), out, commit] {
            lines.push(chain.append(0, entry).expect("a record").line);
        }
        let checkpoint = Checkpoint { origin: "log.example".into(), size: 4, root: chain.frontier().root() };
        lines.push(checkpoint_line(&key.sign(&checkpoint.to_string())).into_bytes());
        check(lines.iter().map(Vec::as_slice)).findings
    };
    assert_eq!(findings(sent(1), &[sent(2)]), []);
    assert_eq!(findings(sent(1), &[sent(1), sent(2)])[0].damage, Damage::Contributors(3));
    // The digest has to fit as well: another update of the same device is not withdrawn.
    let other = Contribution { digest: sent(2).digest, ..sent(1) };
    assert_eq!(findings(other, &[sent(1), sent(2)]), []);
}
