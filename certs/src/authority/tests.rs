//! The CA's promises, checked with our own reader and, where it is installed, with OpenSSL.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use starling_wire::Role;

use super::*;

fn identity(role: Role, name: &str) -> Identity {
    Identity { id: DeviceId::seeded(7, 1), role, name: name.to_owned() }
}

/// OpenSSL's output, or `None`, said aloud, where it is not installed.
fn openssl(arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new("openssl").args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            eprintln!("SKIPPED: openssl cannot be run ({error}), so nothing was compared with it");
            None
        }
    }
}

#[test]
fn inv9_a_leaf_carries_the_identity_that_was_asked_for() {
    let authority = Authority::in_memory().expect("made");
    for role in [Role::Device, Role::Aggregator, Role::Operator] {
        let wanted = identity(role, "Pumpe Süd 4");
        let issued = authority.issue(&wanted, Validity::days(30)).expect("issued");
        let chain = inspect::parse(&issued.certificate_pem).expect("our own");
        assert_eq!(chain.len(), 2, "leaf and issuing certificate");
        assert_eq!(chain[0].identity(), Some(wanted));
        assert!(!chain[0].ca);
        assert!(chain[1].ca);
        assert_eq!(chain[0].issuer, chain[1].name);
    }
}

#[test]
fn a_name_that_no_certificate_can_carry_is_refused() {
    let authority = Authority::in_memory().expect("made");
    for (name, problem) in [("", "is empty"), ("a\nb", "control character"), (&"x".repeat(65), "64 characters")] {
        let error =
            authority.issue(&identity(Role::Device, name), Validity::days(1)).err().expect("refused").to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn a_validity_is_refused_that_is_empty_or_outlives_the_issuer() {
    let authority = Authority::in_memory().expect("made");
    let device = identity(Role::Device, "pump");
    let now = SystemTime::now();
    let backwards = Validity { not_before: now, not_after: now - DAY };
    assert!(matches!(authority.issue(&device, backwards), Err(CertsError::Validity)));
    assert!(matches!(
        authority.issue(&device, Validity::days(ISSUING_DAYS + 1)),
        Err(CertsError::OutlivesIssuer { .. })
    ));
}

#[test]
fn an_authority_works_from_disk_without_its_root_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = folder.path().join("ca");
    Authority::create(&ca).expect("made");
    fs::remove_file(ca.join(ROOT_KEY)).expect("moved offline");
    let authority = Authority::open(&ca).expect("opened");
    let issued = authority.issue(&identity(Role::Device, "pump"), Validity::days(30)).expect("issued");
    assert_eq!(issued.ca_pem, fs::read_to_string(ca.join(TRUST_ANCHORS)).expect("there"));
    assert_eq!(inspect::parse(&issued.ca_pem).expect("ours").len(), 1, "the root alone");
}

#[test]
fn inv10_keys_are_their_owners_alone_and_never_overwritten() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = folder.path().join("ca");
    let authority = Authority::create(&ca).expect("made");
    let before = fs::read(ca.join(ISSUING_KEY)).expect("there");
    assert!(matches!(Authority::create(&ca), Err(CertsError::Exists { .. })));
    assert_eq!(fs::read(ca.join(ISSUING_KEY)).expect("there"), before);
    let issued = authority.issue(&identity(Role::Device, "pump"), Validity::days(30)).expect("issued");
    let out = folder.path().join("pump");
    issued.write(&out).expect("written");
    assert!(matches!(issued.write(&out), Err(CertsError::Exists { .. })));
    for path in [ca.join(ROOT_KEY), ca.join(ISSUING_KEY), out.join("key.pem")] {
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
    for path in [ca, out] {
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn a_key_of_another_authority_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    Authority::create(&one).expect("made");
    Authority::create(&other).expect("made");
    fs::copy(other.join(ISSUING_KEY), one.join(ISSUING_KEY)).expect("mixed up");
    assert!(matches!(Authority::open(&one), Err(CertsError::KeyMismatch { .. })));
}

#[test]
fn openssl_verifies_the_chain_for_both_purposes_and_reads_the_identity() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::create(&folder.path().join("ca")).expect("made");
    let wanted = identity(Role::Device, "pump-4");
    authority.issue(&wanted, Validity::days(30)).expect("issued").write(&folder.path().join("pump")).expect("written");
    let path = |name: &str| folder.path().join(name).to_str().expect("a temporary path is text").to_owned();
    let (ca, issuing, leaf, key) =
        (path("pump/ca.pem"), path("ca/issuing.pem"), path("pump/certificate.pem"), path("pump/key.pem"));
    for purpose in ["sslserver", "sslclient"] {
        let Some((valid, text)) =
            openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &ca, "-untrusted", &issuing, &leaf])
        else {
            return;
        };
        assert!(valid, "{text}");
    }
    let (_, text) = openssl(&["x509", "-in", &leaf, "-noout", "-text"]).expect("it ran before");
    for part in
        [wanted.uri(), "CN = pump-4".to_owned(), "DNS:starling".to_owned(), "ED25519".to_owned(), "CA:FALSE".to_owned()]
    {
        assert!(text.contains(&part) || text.contains(&part.replace(" = ", "=")), "{part} is missing in {text}");
    }
    let (_, from_key) = openssl(&["pkey", "-in", &key, "-pubout"]).expect("it ran before");
    let (_, from_leaf) = openssl(&["x509", "-in", &leaf, "-noout", "-pubkey"]).expect("it ran before");
    assert_eq!(from_key, from_leaf, "the key belongs to the certificate");
}

#[test]
fn openssl_refuses_a_leaf_under_another_root() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a temporary path is text").to_owned();
    Authority::create(&folder.path().join("ca")).expect("made");
    let stranger = Authority::create(&folder.path().join("stranger")).expect("made");
    stranger
        .issue(&identity(Role::Device, "pump"), Validity::days(1))
        .expect("issued")
        .write(&folder.path().join("pump"))
        .expect("written");
    let arguments = [
        "verify",
        "-CAfile",
        &path("ca/ca.pem"),
        "-untrusted",
        &path("stranger/issuing.pem"),
        &path("pump/certificate.pem"),
    ];
    if let Some((valid, text)) = openssl(&arguments) {
        assert!(!valid, "{text}");
    }
}

#[test]
fn inspect_says_what_is_wrong_with_a_file() {
    let authority = Authority::in_memory().expect("made");
    let issued = authority.issue(&identity(Role::Device, "pump"), Validity::days(1)).expect("issued");
    let error = inspect::parse(&issued.key_pem).expect_err("a key").to_string();
    assert!(error.contains("private key"), "{error}");
    assert!(inspect::parse("").is_err());
    let cut = &issued.certificate_pem[..issued.certificate_pem.len() / 3];
    assert!(inspect::parse(cut).is_err());
}

#[test]
fn an_issuing_key_is_rolled_and_both_generations_stay_trusted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = folder.path().join("ca");
    let path = |name: &str| folder.path().join(name).to_str().expect("a temporary path is text").to_owned();
    let before = Authority::create(&ca).expect("made");
    before
        .issue(&identity(Role::Device, "old"), Validity::days(30))
        .expect("issued")
        .write(&folder.path().join("old"))
        .expect("written");
    let retired = Authority::roll_issuing(&ca).expect("the root's key is at hand").expect("there was one");
    let after = Authority::open(&ca).expect("opened");
    assert_ne!(after.issuing_pem(), before.issuing_pem());
    assert_eq!(after.ca_pem(), before.ca_pem(), "the fleet trusts what it trusted");
    assert_eq!(fs::read_to_string(ca.join(&retired)).expect("kept"), before.issuing_pem());
    after
        .issue(&identity(Role::Device, "new"), Validity::days(30))
        .expect("issued")
        .write(&folder.path().join("new"))
        .expect("written");
    for name in ["old", "new"] {
        let leaf = path(&format!("{name}/certificate.pem"));
        let Some((valid, text)) =
            openssl(&["verify", "-x509_strict", "-CAfile", &path("ca/ca.pem"), "-untrusted", &leaf, &leaf])
        else {
            return;
        };
        assert!(valid, "{text}");
    }
    fs::remove_file(ca.join(ROOT_KEY)).expect("moved offline");
    assert!(Authority::roll_issuing(&ca).is_err(), "without the root's key nothing is rolled");
    Authority::open(&ca).expect("and nothing is broken");
}

#[test]
fn a_lost_issuing_key_is_replaced_with_the_roots_key_and_certificate_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (lost, ca) = (folder.path().join("lost"), folder.path().join("ca"));
    let before = Authority::create(&lost).expect("made");
    fs::create_dir(&ca).expect("a new folder");
    for name in [ROOT_KEY, ROOT_CERTIFICATE] {
        fs::rename(lost.join(name), ca.join(name)).expect("kept offline");
    }
    assert_eq!(Authority::roll_issuing(&ca).expect("rolled"), None);
    let after = Authority::open(&ca).expect("opened");
    assert_eq!(after.ca_pem(), before.ca_pem(), "the fleet trusts what it trusted");
    let other = Authority::create(&folder.path().join("other")).expect("made");
    fs::write(ca.join(ROOT_CERTIFICATE), other.ca_pem()).expect("written");
    assert!(matches!(Authority::roll_issuing(&ca), Err(CertsError::KeyMismatch { .. })));
}

#[test]
fn openssl_reads_our_revocation_list_and_refuses_by_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a temporary path is text").to_owned();
    let authority = Authority::create(&folder.path().join("ca")).expect("made");
    authority
        .issue(&identity(Role::Device, "pump"), Validity::days(30))
        .expect("issued")
        .write(&folder.path().join("pump"))
        .expect("written");
    let serial = &inspect::read(&folder.path().join("pump/certificate.pem")).expect("ours")[0].serial;
    let serial =
        (0..serial.len() / 2).map(|at| u8::from_str_radix(&serial[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let revoked = [crate::Revoked { serial, since_unix_s: now - 1, reason: crate::Reason::Revoked }];
    for (name, list) in [("some.pem", &revoked[..]), ("none.pem", &[])] {
        let list = authority.revocation_list(list, now - 1, 3600).expect("a list");
        fs::write(folder.path().join(name), list).expect("written");
    }
    let Some((valid, text)) =
        openssl(&["crl", "-in", &path("some.pem"), "-noout", "-text", "-CAfile", &path("ca/issuing.pem")])
    else {
        return;
    };
    assert!(valid && text.contains("verify OK") && text.contains("Cessation Of Operation"), "{text}");
    for (name, passes) in [("none.pem", true), ("some.pem", false)] {
        let arguments = ["verify", "-crl_check", "-CRLfile", &path(name), "-CAfile", &path("ca/ca.pem")];
        let leaf = path("pump/certificate.pem");
        let (valid, text) = openssl(&[&arguments[..], &["-untrusted", &leaf, &leaf]].concat()).expect("it ran before");
        assert_eq!(valid, passes, "{text}");
        assert_eq!(text.contains("revoked"), !passes, "{text}");
    }
}

#[test]
fn openssl_shows_the_extensions_of_a_certificate_made_for_a_devices_own_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::in_memory().expect("made");
    let key = Key::generate().expect("entropy");
    let wanted = identity(Role::Device, "pump-4");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let validity = Validity::seconds(now, 60, authority.issuing_until_unix_s());
    let leaf = authority.certify(&wanted, key.public(), validity).expect("issued");
    let read = &inspect::parse(&leaf).expect("ours")[0];
    assert_eq!((read.not_before_unix_s(), read.not_after_unix_s()), (now - 6, now + 60));
    let path = folder.path().join("leaf.pem");
    fs::write(&path, &leaf).expect("written");
    let Some((_, text)) = openssl(&["x509", "-in", path.to_str().expect("text"), "-noout", "-text"]) else { return };
    for part in [
        "URI:starling://device/",
        "TLS Web Client Authentication",
        "TLS Web Server Authentication",
        "Digital Signature",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}
