//! Attacks by whoever carries the documents, or holds fewer keys than a threshold.

use starling_trust::{Current, Entry, Refused, Statement, Subject, Trusted};
use starling_wire::Distrust;

use crate::world::{DAY, MODEL, NOON, TASK, World, bundle, key, named, reason, reason_at, signed};

#[test]
fn an_honest_delivery_is_verified_and_survives_a_restart() {
    let world = World::new();
    let device = world.device_at(1);
    let again = Trusted::from_bytes(&device.to_bytes()).expect("what was written");
    assert_eq!(again, device);
    let held = again.held(Subject::Release, TASK, MODEL).expect("held");
    assert_eq!((held.version(), held.task(), held.length()), (1, TASK, MODEL.len() as u64));
    assert_eq!(again.held(Subject::Release, TASK, b"other weights").expect_err("changed").reason(), Distrust::NotHeld);
}

#[test]
fn arbitrary_software_is_refused() {
    let world = World::new();
    let permit = world.device.take(&world.delivery(1), Subject::Release, TASK, NOON + DAY).permit.expect("honest");
    let same_length = vec![b'x'; MODEL.len()];
    assert_eq!(permit.verify(&same_length), Err(Refused::DigestMismatch));
    let strange = world.release(1, &[40, 41]);
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &strange), &strange])), Distrust::TooFewSignatures);
}

#[test]
fn a_rollback_is_refused() {
    let world = World::new();
    let device = world.device_at(5);
    assert_eq!(reason(&device, &world.delivery(4)), Distrust::Rollback);
    // The freshness key alone cannot bring an old release back either.
    let old = world.release(4, &[20, 21]);
    assert_eq!(reason(&device, &bundle(&[&world.current(9, &old), &old])), Distrust::Rollback);
}

#[test]
fn two_releases_of_one_version_are_refused() {
    let world = World::new();
    let device = world.device_at(5);
    let other = world.artefact(Subject::Release, TASK, 5, b"other weights");
    let other = signed(Statement::Artefact(other), &[20, 22]);
    assert_eq!(reason(&device, &bundle(&[&world.current(6, &other), &other])), Distrust::Equivocation);
}

#[test]
fn an_indefinite_freeze_is_noticed() {
    let world = World::new();
    let device = world.device_at(1);
    assert_eq!(reason_at(&device, &world.delivery(1), NOON + 8 * DAY), Distrust::Expired);
    // Nor does holding the freshness statement back help: the one that is known runs out.
    let release = world.release(1, &[20, 21]);
    assert_eq!(reason_at(&device, &bundle(&[&release]), NOON + 8 * DAY), Distrust::Expired);
    assert_eq!(reason(&world.device, &bundle(&[&release])), Distrust::NoCurrent);
}

#[test]
fn a_clock_that_is_set_back_does_not_make_an_expired_statement_good() {
    let world = World::new();
    let release = world.release(2, &[20, 21]);
    let mut late = world.current_of(2, &release);
    (late.head.issued_unix_s, late.head.expires_unix_s) = (NOON + 30 * DAY, NOON + 37 * DAY);
    let late = signed(Statement::Current(late), &[10]);
    let outcome = world.device.take(&bundle(&[&late, &release]), Subject::Release, TASK, NOON - 2 * DAY);
    assert!(outcome.permit.is_ok(), "a clock two days slow does no harm");
    assert_eq!(outcome.trusted.now_unix_s(NOON - 2 * DAY), NOON + 30 * DAY);
    let mut old = world.current_of(3, &release);
    old.head.expires_unix_s = NOON + 29 * DAY;
    let old = signed(Statement::Current(old), &[10]);
    assert_eq!(reason_at(&outcome.trusted, &bundle(&[&old, &release]), NOON - 2 * DAY), Distrust::Expired);
}

#[test]
fn endless_data_stop_at_the_stated_length() {
    let world = World::new();
    let permit = world.device.take(&world.delivery(1), Subject::Release, TASK, NOON + DAY).permit.expect("honest");
    let longer = [MODEL, b"!"].concat();
    assert_eq!(permit.length(), MODEL.len() as u64);
    assert_eq!(permit.verify(&longer).expect_err("longer").reason(), Distrust::TooLong);
    assert_eq!(reason(&world.device, &vec![0; starling_trust::limits::BUNDLE_BYTES_MAX + 1]), Distrust::TooLarge);
}

#[test]
fn truncation_is_refused_at_every_byte() {
    let world = World::new();
    let permit = world.device.take(&world.delivery(1), Subject::Release, TASK, NOON + DAY).permit.expect("honest");
    assert!((0..MODEL.len()).all(|end| permit.verify(&MODEL[..end]).is_err()));
    let whole = world.delivery(1);
    for end in 0..whole.len() {
        assert!(world.device.take(&whole[..end], Subject::Release, TASK, NOON + DAY).permit.is_err(), "{end}");
    }
}

#[test]
fn a_bit_flip_in_any_byte_is_refused() {
    let world = World::new();
    let whole = [world.first.to_bytes(), world.delivery(1)].concat();
    for index in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[index] ^= 1 << (index % 8);
        let outcome = world.device.take(&bytes, Subject::Release, TASK, NOON + DAY);
        // The device has the first root already: signatures of its copy are not looked at again.
        let in_known_signatures = index < world.first.to_bytes().len() && outcome.permit.is_ok();
        assert!(outcome.permit.is_err() || in_known_signatures, "byte {index}");
        assert_eq!(outcome.trusted.root(), world.device.root(), "byte {index}");
    }
    let permit = world.device.take(&whole, Subject::Release, TASK, NOON + DAY).permit.expect("unflipped");
    for index in 0..MODEL.len() {
        let mut bytes = MODEL.to_vec();
        bytes[index] ^= 1;
        assert_eq!(permit.verify(&bytes), Err(Refused::DigestMismatch));
    }
}

#[test]
fn a_release_of_another_task_is_refused() {
    let world = World::new();
    let valve = world.artefact(Subject::Release, "valve", 1, MODEL);
    let valve = signed(Statement::Artefact(valve), &[30]);
    let entries = vec![Entry { task: "valve".into(), release: Some(named(&valve)), plan: None }];
    let current = Current { head: world.head(1, 7), root_version: 1, entries };
    let current = signed(Statement::Current(current), &[10]);
    assert_eq!(reason(&world.device, &bundle(&[&current, &valve])), Distrust::WrongTask);
    // A key that publishes for valves says nothing about pumps, and nobody may publish for what no rule names.
    let pump = world.release(1, &[30]);
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &pump), &pump])), Distrust::TooFewSignatures);
    let outcome = world.device.take(&world.delivery(1), Subject::Release, "heater", NOON + DAY);
    assert_eq!(outcome.permit.expect_err("no rule").reason(), Distrust::WrongTask);
}

#[test]
fn mixing_and_matching_is_refused() {
    let world = World::new();
    let (second, third) = (world.release(2, &[20, 21]), world.release(3, &[20, 21]));
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &second), &third])), Distrust::NotCurrent);
    // A plan does not pass for a release, though its body has the same shape.
    let plan = signed(Statement::Artefact(world.artefact(Subject::Plan, TASK, 2, MODEL)), &[20, 21]);
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &second), &plan])), Distrust::Malformed);
    let mut disguised = plan.to_bytes();
    disguised[5] = 2;
    let disguised = [world.current(1, &second).to_bytes(), disguised].concat();
    assert_eq!(reason(&world.device, &disguised), Distrust::WrongSignature);
}

#[test]
fn too_few_signatures_are_refused_and_one_key_counts_once() {
    let world = World::new();
    let mut release = world.release(1, &[20]);
    release.sign(&key(20)).expect("again");
    assert_eq!(release.signatures().len(), 1);
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &release), &release])), Distrust::TooFewSignatures);
    // The same signature written down twice is no document at all.
    let mut bytes = release.to_bytes();
    bytes[6] = 2;
    bytes.extend_from_within(bytes.len() - 96..);
    assert_eq!(reason(&world.device, &[world.current(1, &release).to_bytes(), bytes].concat()), Distrust::Malformed);
}

#[test]
fn signatures_gathered_on_two_machines_are_merged() {
    let world = World::new();
    let (mut left, right) = (world.release(1, &[20]), world.release(1, &[22]));
    left.merge(&right).expect("copies of one statement");
    let delivery = bundle(&[&world.current(1, &left), &left]);
    assert!(world.device.take(&delivery, Subject::Release, TASK, NOON + DAY).permit.is_ok());
    assert!(left.merge(&world.release(2, &[22])).is_err());
}

#[test]
fn a_document_of_another_fleet_is_refused_though_the_keys_are_the_same() {
    let world = World::new();
    let mut artefact = world.artefact(Subject::Release, TASK, 1, MODEL);
    artefact.head.origin = starling_wire::Digest([7; 32]);
    let foreign = signed(Statement::Artefact(artefact), &[20, 21]);
    assert_eq!(reason(&world.device, &bundle(&[&world.current(1, &foreign), &foreign])), Distrust::OtherOrigin);
}
