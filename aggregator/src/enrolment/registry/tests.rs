//! The registry in virtual time, on a real store.

use std::path::Path;

use starling_certs::{Key, request};
use starling_wire::Token;

use crate::enrolment::tokens::TokenRecord;

use super::*;

const NOW: u64 = 1_000;
const CHANNEL: [u8; 32] = [3; 32];

/// Seconds since 1970 at `at` seconds of the test: the authority is made now, so its certificates are valid from now on.
fn s(at: u64) -> u64 {
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    start / 100_000 * 100_000 + 100_000 + at
}

fn from() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4711))
}

pub(super) fn open(folder: &Path, approval: bool, grace_s: u64) -> Registry {
    let authority = folder.join("ca");
    if !authority.exists() {
        Authority::create(&authority).expect("made");
    }
    let section = EnrolmentSection { authority, address: None, certificate_s: 600, grace_s, approval };
    let issuer = Issuer::open(&section).expect("opened");
    let state = folder.join("state");
    let store = Arc::new(Store::open(&state, &starling_store::KeySource::beside(&state)).expect("a store"));
    let standings = Arc::new(Standings::new(Arc::clone(&store)));
    Registry::load(store, standings, Some(issuer)).expect("loaded")
}

fn invite(registry: &mut Registry, at: u64) -> Token {
    let invited = registry.invite(s(at), Some("pump".into()), vec!["north".into()], Some(60), from());
    invited.expect("invited").0.token.expect("it holds one")
}

fn join(registry: &mut Registry, at: u64, key: &Key, token: Option<Token>) -> FromAuthority {
    let request = request::join(&CHANNEL, key, token, "wish".into(), "test".into());
    let proven = request::is_proven_join(&CHANNEL, &request);
    registry.join(s(at), from(), &request, proven)
}

fn key() -> Key {
    Key::generate().expect("entropy")
}

/// A device that has joined, and its key.
pub(super) fn joined(registry: &mut Registry) -> (DeviceId, Key) {
    let (key, token) = (key(), invite(registry, NOW));
    let FromAuthority::Issued(credential) = join(registry, NOW, &key, Some(token)) else { panic!("it is let in") };
    let chain = inspect::parse(&credential.certificate_pem).expect("ours");
    (chain[0].identity().expect("a device").id, key)
}

fn renew(
    registry: &mut Registry,
    at: u64,
    device: DeviceId,
    shown: Option<&Key>,
    (old, new): (&Key, &Key),
) -> Result<Credential, Refusal> {
    let request = request::renew(&CHANNEL, device, old, new);
    let proven = request::is_proven_renewal(&CHANNEL, device, &request).then_some(CHANNEL);
    registry.renew(s(at), (device, "pump"), from(), shown.map(Key::public), &request, proven)
}

#[test]
fn a_token_is_good_once_for_one_key_and_for_a_time_and_only_its_digest_is_stored() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 0);
    let (token, one, other) = (invite(&mut registry, NOW), key(), key());
    assert_eq!(join(&mut registry, NOW, &one, None), FromAuthority::Refused(Refusal::TokenUnknown));
    assert_eq!(join(&mut registry, NOW, &one, Some(Token([1; 12]))), FromAuthority::Refused(Refusal::TokenUnknown));
    assert_eq!(join(&mut registry, NOW + 61, &one, Some(token)), FromAuthority::Refused(Refusal::TokenExpired));
    let first = join(&mut registry, NOW + 60, &one, Some(token));
    let FromAuthority::Issued(credential) = &first else { panic!("in time: {first:?}") };
    let leaf = &inspect::parse(&credential.certificate_pem).expect("ours")[0];
    assert_eq!((leaf.name.as_str(), leaf.not_after_unix_s()), ("pump", s(NOW + 60 + 600)));
    assert!(leaf.is_for(&one.public()));
    assert_eq!(join(&mut registry, NOW + 61, &other, Some(token)), FromAuthority::Refused(Refusal::TokenUsed));
    let FromAuthority::Issued(again) = join(&mut registry, NOW + 100, &one, Some(token)) else {
        panic!("a lost answer")
    };
    assert_eq!(again.certificate_pem, credential.certificate_pem);
    assert!(registry.store.get::<TokenRecord>("tokens", &token.digest().to_string()).expect("read").is_some());
    drop(registry);
    let mut registry = open(folder.path(), false, 0);
    assert_eq!(join(&mut registry, NOW + 101, &other, Some(token)), FromAuthority::Refused(Refusal::TokenUsed));
    assert!(matches!(join(&mut registry, NOW + 101, &one, Some(token)), FromAuthority::Issued(_)));
}

#[test]
fn inv9_a_request_that_is_not_signed_by_its_key_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 0);
    let token = invite(&mut registry, NOW);
    let request = request::join(&CHANNEL, &key(), Some(token), "x".into(), "test".into());
    assert_eq!(registry.join(s(NOW), from(), &request, false), FromAuthority::Refused(Refusal::BadProof));
    let (device, old) = joined(&mut registry);
    let stolen = request::renew(&CHANNEL, device, &key(), &key());
    let answer = registry.renew(s(NOW + 1), (device, ""), from(), Some(old.public()), &stolen, Some(CHANNEL));
    assert_eq!(answer.err(), Some(Refusal::ClonedKey), "a key that is not the device's own");
}

#[test]
fn a_key_is_the_devices_own_until_its_successor_was_seen() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 0);
    let (device, zero) = joined(&mut registry);
    let (one, two) = (key(), key());
    let admits = |registry: &Registry, key: &Key| registry.standings.admit(device, Some(&key.public()));
    renew(&mut registry, NOW + 1, device, Some(&zero), (&zero, &one)).expect("renewed");
    assert_eq!((admits(&registry, &zero), admits(&registry, &one)), (Ok(()), Ok(())), "the answer may be lost");
    renew(&mut registry, NOW + 2, device, Some(&zero), (&zero, &one)).expect("it was lost");
    // On the same connection, of key zero, signed by key one: one has arrived.
    renew(&mut registry, NOW + 3, device, Some(&zero), (&one, &two)).expect("renewed");
    assert_eq!(admits(&registry, &zero), Err(Refusal::ClonedKey));
    assert_eq!(admits(&registry, &one), Ok(()));
    let late = renew(&mut registry, NOW + 4, device, Some(&zero), (&zero, &key()));
    assert_eq!(late.err(), Some(Refusal::ClonedKey), "a copy of the first key cannot renew");
    let leaf =
        starling_net::Leaf { key: Some(two.public()), serial: vec![1], not_before_unix_s: 0, not_after_unix_s: 0 };
    let identity = Identity { id: device, role: Role::Device, name: "pump".into() };
    registry.seen(s(NOW + 5), &identity, &leaf);
    assert_eq!((admits(&registry, &one), admits(&registry, &two)), (Err(Refusal::ClonedKey), Ok(())));
    drop(registry);
    let registry = open(folder.path(), false, 0);
    assert_eq!(
        (admits(&registry, &one), admits(&registry, &two)),
        (Err(Refusal::ClonedKey), Ok(())),
        "after a restart"
    );
}

#[test]
fn an_expired_certificate_is_renewed_within_the_grace_and_not_after_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 1000);
    let (device, zero) = joined(&mut registry);
    let one = key();
    let over = NOW + 600 + 1000 + 1;
    assert_eq!(renew(&mut registry, over, device, None, (&zero, &one)).err(), Some(Refusal::GraceOver));
    let stranger = renew(&mut registry, over, DeviceId([9; 16]), None, (&zero, &one));
    assert_eq!(stranger.err(), Some(Refusal::UnknownDevice));
    renew(&mut registry, over - 1, device, None, (&zero, &one)).expect("in time");
    registry.decide(s(over), device, DeviceState::Revoked, false).expect("revoked");
    assert_eq!(renew(&mut registry, over, device, None, (&one, &key())).err(), Some(Refusal::Revoked));
}

#[test]
fn the_operators_word_survives_a_restart_and_a_revoked_device_stays_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 0);
    let (device, key) = joined(&mut registry);
    for (state, refusal) in [
        (DeviceState::Suspended, Some(Refusal::Suspended)),
        (DeviceState::Active, None),
        (DeviceState::Cloned, Some(Refusal::ClonedKey)),
        (DeviceState::Active, None),
        (DeviceState::Revoked, Some(Refusal::Revoked)),
    ] {
        registry.decide(s(NOW), device, state, false).expect("a step that there is");
        drop(registry);
        registry = open(folder.path(), false, 0);
        assert_eq!(registry.standings.admit(device, Some(&key.public())).err(), refusal);
    }
    registry.standings.bar(device, Refusal::Suspended);
    assert!(registry.decide(s(NOW), device, DeviceState::Suspended, false).is_err(), "revoked is for good");
    assert_eq!(registry.standings.admit(device, None), Err(Refusal::Revoked), "and says so still");
    let list = registry.revocation_list(s(NOW)).expect("a list");
    assert!(list.contains("X509 CRL"));
}

#[test]
fn without_tokens_the_operator_decides_and_applicants_are_few() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), true, 0);
    let key = key();
    let FromAuthority::Pending { device, .. } = join(&mut registry, NOW, &key, None) else { panic!("it waits") };
    assert!(
        matches!(join(&mut registry, NOW, &key, None), FromAuthority::Pending { device: same, .. } if same == device)
    );
    assert_eq!(registry.standings.admit(device, Some(&key.public())), Err(Refusal::PendingApproval));
    registry.decide(s(NOW), device, DeviceState::Active, false).expect("approved");
    assert!(matches!(join(&mut registry, NOW, &key, None), FromAuthority::Issued(_)));
    assert!(registry.decide(s(NOW), device, DeviceState::Rejected, false).is_err(), "it is in");
    let last = (0..20).map(|_| join(&mut registry, NOW, &self::key(), None)).last();
    assert_eq!(last, Some(FromAuthority::Refused(Refusal::TooManyAttempts)), "an address makes only so many");
}

#[test]
fn a_token_from_before_a_restore_is_good_no_longer_whether_it_was_used_or_not() {
    use starling_store::{KeySource, backup::Repository};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (state, backups) = (folder.path().join("state"), folder.path().join("backups"));
    let mut registry = open(folder.path(), false, 0);
    let used_later = invite(&mut registry, NOW);
    Repository::open(&backups).expect("opened").create(&registry.store, NOW, 1).expect("made");
    let joining = key();
    assert!(matches!(join(&mut registry, NOW, &joining, Some(used_later)), FromAuthority::Issued(_)));
    let issued_later = invite(&mut registry, NOW);
    drop(registry);
    ["records", "blobs"].iter().for_each(|name| std::fs::remove_dir_all(state.join(name)).expect("lost"));
    let source = KeySource::beside(&state);
    Repository::open(&backups).expect("opened").restore(None, &state, &source).expect("restored");

    let mut registry = open(folder.path(), false, 0);
    let again = join(&mut registry, NOW, &key(), Some(used_later));
    assert_eq!(again, FromAuthority::Refused(Refusal::TokenExpired), "the backup does not know that it was used");
    assert_eq!(join(&mut registry, NOW, &key(), Some(issued_later)), FromAuthority::Refused(Refusal::TokenUnknown));
    let fresh = invite(&mut registry, NOW);
    assert!(matches!(join(&mut registry, NOW, &key(), Some(fresh)), FromAuthority::Issued(_)));
}

#[test]
fn a_forgotten_device_is_out_for_good_also_where_nothing_but_the_mark_of_it_is_left() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 3_600);
    let (device, old) = joined(&mut registry);
    assert!(registry.store.compartment_ids().expect("listed").contains(&device.to_string()));
    registry.retire(s(NOW), device, false).expect("retired");
    registry.store.forget(&device.to_string()).expect("forgotten");
    let refused = |registry: &mut Registry| {
        use DeviceState::Active;
        assert_eq!(registry.standings.admit(device, Some(&old.public())), Err(Refusal::Revoked));
        assert_eq!(renew(registry, NOW + 1, device, Some(&old), (&old, &key())), Err(Refusal::Revoked));
        assert!(registry.find("pump").is_err(), "its name is not known");
        assert!(registry.decide(s(NOW), device, Active, true).is_err(), "no word brings it back");
    };
    refused(&mut registry);
    assert!(registry.revocation_list(s(NOW)).expect("signed").contains("X509 CRL"));
    drop(registry);
    let mut registry = open(folder.path(), false, 3_600);
    refused(&mut registry);
    // The records are those of another time; the keys folder knows.
    registry.gone.clear();
    registry.standings = Arc::new(Standings::new(Arc::clone(&registry.store)));
    refused(&mut registry);
    let (again, _) = joined(&mut registry);
    assert_ne!(again, device, "invited anew, it is another device");
}

#[test]
fn whatever_key_a_device_uses_is_recorded_once_and_a_renewal_with_the_word_of_the_key_before() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut registry = open(folder.path(), false, 0);
    let recorded = |registry: &mut Registry| -> Vec<starling_audit::Entry> {
        std::mem::take(&mut registry.acts).into_iter().map(|act| act.entry).collect()
    };
    let digest = |key: &Key| starling_audit::enrolment::key_digest(&key.public());
    let seen = |registry: &mut Registry, id: DeviceId, role: Role, key: &Key| {
        let leaf =
            starling_net::Leaf { key: Some(key.public()), serial: vec![1], not_before_unix_s: 0, not_after_unix_s: 0 };
        registry.seen(s(NOW), &Identity { id, role, name: "pump".into() }, &leaf);
    };
    let (device, first) = joined(&mut registry);
    assert_eq!(recorded(&mut registry)[0].enrols(), Some((device, digest(&first))));
    let second = key();
    renew(&mut registry, NOW + 1, device, Some(&first), (&first, &second)).expect("renewed");
    let renewed = &recorded(&mut registry)[0];
    assert_eq!(renewed.enrols(), Some((device, digest(&second))));
    let proof = renewed.about.proof.expect("a proof");
    assert_eq!(proof.renews(device), Some((digest(&first), digest(&second))));
    assert_eq!(proof.renews(DeviceId([9; 16])), None, "it is this device's alone");
    seen(&mut registry, device, Role::Device, &second);
    assert!(recorded(&mut registry).is_empty(), "the log knows it");

    // A certificate that was issued by hand.
    let (by_hand, third) = (DeviceId([8; 16]), key());
    seen(&mut registry, by_hand, Role::Device, &third);
    let shown = recorded(&mut registry);
    assert_eq!((shown.len(), shown[0].enrols()), (1, Some((by_hand, digest(&third)))));
    seen(&mut registry, by_hand, Role::Device, &third);
    seen(&mut registry, DeviceId([7; 16]), Role::Operator, &key());
    assert!(recorded(&mut registry).is_empty(), "said once, and of devices alone");
}
