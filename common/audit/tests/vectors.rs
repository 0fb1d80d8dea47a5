//! Against what others have published and computed: the reference leaves of certificate transparency, and the notes of Go's checksum
//! database. `vectors.py` made `vectors.json`.

use starling_audit::{
    Algorithm, Checkpoint, CheckpointError, Frontier, KeyError, Note, NoteError, SigningKey, VerifierKey,
    consistency_proof, inclusion_proof, leaf_hash, range_root, verify,
};
use starling_wire::Digest;

/// The roots as certificate-transparency's own tests have them, for 0 to 8 leaves.
const PUBLISHED: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("vectors.json")).expect("the generator writes JSON")
}

fn leaves() -> Vec<Vec<u8>> {
    let vectors = vectors();
    vectors["leaves"].as_array().expect("a list").iter().map(|leaf| bytes(leaf.as_str().expect("hex"))).collect()
}

fn digests(list: &serde_json::Value) -> Vec<Digest> {
    list.as_array().expect("a list").iter().map(|hex| hex.as_str().expect("hex").parse().expect("a digest")).collect()
}

fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn the_roots_are_those_of_certificate_transparency() {
    let leaves = leaves();
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    assert_eq!(digests(&vectors()["roots"]).iter().map(Digest::to_string).collect::<Vec<_>>(), PUBLISHED);
    let mut frontier = Frontier::new();
    for (size, root) in PUBLISHED.iter().enumerate() {
        assert_eq!(frontier.root().to_string(), *root, "{size} leaves, grown");
        assert_eq!(
            range_root(hashes.as_slice(), 0, size as u64).expect("in memory").to_string(),
            *root,
            "{size} leaves, cut"
        );
        if let Some(hash) = hashes.get(size) {
            frontier.push(*hash);
        }
    }
}

#[test]
fn proofs_are_those_of_the_definitions_and_verify() {
    let (vectors, leaves) = (vectors(), leaves());
    let hashes: Vec<Digest> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let roots = digests(&vectors["roots"]);
    let root = |size: u64| &roots[usize::try_from(size).expect("small")];
    for vector in vectors["inclusion"].as_array().expect("a list") {
        let (index, size, proof) = (number(&vector["index"]), number(&vector["size"]), digests(&vector["proof"]));
        assert_eq!(inclusion_proof(hashes.as_slice(), index, size).expect("in memory"), proof, "{index} in {size}");
        let leaf = &leaves[usize::try_from(index).expect("small")];
        verify::inclusion(leaf, index, size, root(size), &proof).expect("the definition's proof holds");
    }
    for vector in vectors["consistency"].as_array().expect("a list") {
        let (old, new, proof) = (number(&vector["old"]), number(&vector["new"]), digests(&vector["proof"]));
        assert_eq!(consistency_proof(hashes.as_slice(), old, new).expect("in memory"), proof, "{old} to {new}");
        verify::consistency(old, root(old), new, root(new), &proof).expect("the definition's proof holds");
    }
}

/// From the documentation of golang.org/x/mod/sumdb/note.
const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn the_note_of_gos_checksum_database_is_read_and_signed_alike() {
    let public: VerifierKey = GO_PUBLIC.parse().expect("a published key");
    let private = SigningKey::from_text(GO_PRIVATE).expect("a published key");
    assert_eq!((private.verifier(), public.to_string().as_str()), (&public, GO_PUBLIC));
    assert_eq!(private.to_text().as_str(), GO_PRIVATE);
    let note = Note::parse(GO_NOTE).expect("a published note");
    assert_eq!(note.verify(&public), Ok(None));
    assert_eq!(private.sign(note.text()).to_string(), GO_NOTE, "Ed25519 signs the same text alike");
    let changed = Note::parse(&GO_NOTE.replace("answer", "Answer")).expect("still a note");
    assert_eq!(changed.verify(&public), Err(NoteError::Signature("PeterNeumann".into())));
}

fn key(name: &str, algorithm: Algorithm, seed: u8) -> SigningKey {
    SigningKey::from_seed(name, algorithm, [seed; 32].into()).expect("a good name")
}

#[test]
fn a_checkpoint_is_cosigned_and_keeps_all_signatures() {
    let (log, witness) = (key("log.example", Algorithm::Log, 1), key("witness.example", Algorithm::Witness, 2));
    let checkpoint =
        Checkpoint { origin: "log.example".into(), size: 7, root: PUBLISHED[7].parse().expect("a digest") };
    let text = "log.example\n7\n3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=\n";
    assert_eq!(checkpoint.to_string(), text);
    let mut note = log.sign(&checkpoint.to_string());
    witness.cosign(&mut note, 1_700_000_000).expect("there is room");
    witness.cosign(&mut note, 1_700_000_001).expect("the older one is replaced");
    let note = Note::parse(&note.to_string()).expect("it reads what it writes");
    assert_eq!(note.signers().collect::<Vec<_>>(), ["log.example", "witness.example"]);
    assert_eq!(note.verify(witness.verifier()), Ok(Some(1_700_000_001)));
    assert_eq!(Checkpoint::verified(&note, log.verifier()), Ok(checkpoint));
    let other = key("log.example", Algorithm::Log, 3);
    let found = Checkpoint::verified(&note, other.verifier());
    assert_eq!(
        found,
        Err(CheckpointError::Note(NoteError::Unsigned("log.example".into()))),
        "another key of the same name"
    );
    let foreign = key("other.example", Algorithm::Log, 1).sign(text);
    let found = Checkpoint::verified(&foreign, key("other.example", Algorithm::Log, 1).verifier());
    assert!(matches!(found, Err(CheckpointError::Origin { .. })), "a log speaks for itself alone");
}

#[test]
fn what_is_no_key_note_or_checkpoint_is_refused() {
    assert_eq!(GO_PUBLIC.replace("c74f20a3", "c74f20a4").parse::<VerifierKey>(), Err(KeyError::Id));
    assert_eq!("a+b".parse::<VerifierKey>(), Err(KeyError::Text));
    assert!(matches!(SigningKey::from_seed("two words", Algorithm::Log, [0; 32].into()), Err(KeyError::Name(_))));
    for wrong in ["", "text\n", "text\n\n", "text\n\n— a Zm9v\n", "text\n\n- a Zm9vZm9v\n", "text\n\n— a Zm9vZm9v"]
    {
        assert_eq!(Note::parse(wrong), Err(NoteError::Form), "{wrong:?}");
    }
    assert!(matches!(Note::parse(&"x".repeat(20_000)), Err(NoteError::Long { bytes: 20_000, .. })), "inv 8");
    let root = "3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=";
    for wrong in
        [format!("o\n07\n{root}\n"), format!("o\n7\n{root}"), format!("o\n7\n{root}\nx\n"), "o\n7\nAAAA\n".into()]
    {
        assert_eq!(wrong.parse::<Checkpoint>(), Err(CheckpointError::Text), "{wrong:?}");
    }
}
