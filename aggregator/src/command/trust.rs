//! `starling-aggregator trust …`: sent to the running daemon.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use starling_daemon::{Exit, read_at_most};
use starling_trust::limits::BUNDLE_BYTES_MAX;

use super::{Ask, print};

/// Verbs about what publishers signed.
#[derive(Debug, Subcommand)]
pub enum TrustVerb {
    /// Give devices a newer freshness statement and newer roots, for every signed release and run at once
    Renew {
        /// The bundle that `starling publish freshness` wrote
        bundle: PathBuf,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
}

pub(super) fn execute(verb: TrustVerb) -> anyhow::Result<Exit> {
    match verb {
        TrustVerb::Renew { bundle, ask } => {
            let request = json!({ "verb": "trust-renew", "bundle": read_bundle(&bundle)? });
            print(&ask, &request, |answer| {
                println!("{} releases and {} runs are vouched for anew", answer["releases"], answer["runs"]);
                for problem in answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    println!("  not renewed: {problem}");
                }
            })
        }
    }
}

/// A bundle's file, as it is.
pub(crate) fn read_bundle(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(read_at_most(path, "a bundle", BUNDLE_BYTES_MAX as u64)?)
}
