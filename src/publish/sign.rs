//! `starling publish sign` and `starling publish merge`: signatures of several people, each made where its key lies.

use std::path::PathBuf;

use anyhow::Result;
use starling_trust::{Bundle, Document, Kind, PublicKey, Quorum, Root, SigningKey, Statement};

use super::files::{self, KeyArgs};
use super::inspect;
use crate::report::JsonArgs;

/// Arguments of `starling publish sign`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SignArgs {
    /// The bundle; `starling publish inspect` and `verify` say first what is signed
    bundle: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Arguments of `starling publish merge`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MergeArgs {
    /// Copies of a bundle that were signed in different places, or bundles that belong together
    #[arg(required = true, num_args = 2..)]
    bundles: Vec<PathBuf>,
    /// Where everything goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) fn sign(args: &SignArgs) -> Result<()> {
    let mut bundle = files::read_bundle(&args.bundle)?;
    let keys = args.keys.read()?;
    anyhow::ensure!(!keys.is_empty(), "name the key that signs with --key");
    for key in &keys {
        anyhow::ensure!(
            add_signatures(&mut bundle, key)? > 0,
            "nothing in {} waits for a signature of the key {}: it has signed already, or the root gives it no say",
            args.bundle.display(),
            key.public()
        );
    }
    files::write_bundle(&args.bundle, &bundle)?;
    inspect::show(&bundle, &args.json)
}

/// Signs each document for which the key counts and which lacks its signature. How many those were.
fn add_signatures(bundle: &mut Bundle, key: &SigningKey) -> Result<usize> {
    let roots = roots(bundle);
    let mut signed = 0;
    for document in &mut bundle.documents {
        let has_signed = document.signatures().iter().any(|signature| signature.key == key.public().id());
        let quorums = quorums(document, &roots);
        let complete = quorums.iter().all(|(root, quorum)| document.check(root, *quorum).is_ok());
        let counts = quorums.iter().any(|(root, quorum)| is_member(root, *quorum, &key.public()));
        if counts && !has_signed && !complete {
            document.sign(key)?;
            signed += 1;
        }
    }
    Ok(signed)
}

/// The bundle's roots, oldest first.
pub(super) fn roots(bundle: &Bundle) -> Vec<Root> {
    let of = |document: &Document| match document.statement() {
        Statement::Root(root) => Some(root.clone()),
        _ => None,
    };
    let mut roots: Vec<Root> = bundle.of(Kind::Root).filter_map(of).collect();
    roots.sort_by_key(|root| root.head().version);
    roots
}

/// Whose signatures a document needs: a root those of its own keys and of the one before, everything else those that the newest root
/// names.
pub(super) fn quorums<'a>(document: &Document, roots: &'a [Root]) -> Vec<(&'a Root, Quorum)> {
    let newest = roots.last();
    match document.statement() {
        Statement::Root(root) => {
            let version = root.head().version;
            let counts = |other: &&Root| other.head().version == version || other.head().version + 1 == version;
            roots.iter().filter(counts).map(|root| (root, root.root_quorum())).collect()
        }
        Statement::Artefact(artefact) => {
            newest.and_then(|root| Some((root, root.publisher_quorum(&artefact.task)?))).into_iter().collect()
        }
        Statement::Current(_) => newest.map(|root| (root, root.freshness_quorum())).into_iter().collect(),
    }
}

fn is_member(root: &Root, quorum: Quorum, key: &PublicKey) -> bool {
    root.members(quorum).any(|member| member == key)
}

pub(super) fn merge(args: &MergeArgs) -> Result<()> {
    let mut merged = Bundle::default();
    for path in &args.bundles {
        for document in files::read_bundle(path)?.documents {
            let same = |present: &&mut Document| {
                present.statement().kind() == document.statement().kind() && present.digest() == document.digest()
            };
            match merged.documents.iter_mut().find(same) {
                Some(present) => present.merge(&document)?,
                None => merged.documents.push(document),
            }
        }
    }
    // Of freshness statements only the newest says what is newest.
    let version = |document: &Document| document.statement().head().version;
    let newest = merged.of(Kind::Current).map(version).max();
    merged
        .documents
        .retain(|document| document.statement().kind() != Kind::Current || Some(version(document)) == newest);
    files::write_bundle(&args.out, &merged)?;
    inspect::show(&merged, &args.json)
}
