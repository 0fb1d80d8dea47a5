//! A newer freshness statement and newer roots, for all that is signed at once.

use bytes::Bytes;
use starling_audit::{About, Action, Entry, Who};
use starling_store::Batch;
use starling_trust::{Bundle, Subject};
use starling_wire::RunId;

use super::{State, chain};
use crate::access;
use crate::bundles::{self, BundleError};
use crate::records;

/// What was vouched for anew.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// The tasks whose releases were, with their bundles.
    pub(crate) releases: Vec<(String, Bytes)>,
    /// The runs whose plans were.
    pub(crate) runs: Vec<(RunId, Bytes)>,
    /// What was not, and why.
    pub(crate) problems: Vec<String>,
}

impl State {
    /// Each bundle keeps its own statement and gets the newer roots and freshness statement, if devices would believe the whole.
    pub(super) fn renew(&mut self, newer: &[u8], who: Who) -> Result<Renewal, Box<dyn std::error::Error>> {
        let newer = Bundle::parse(newer).map_err(BundleError::from)?;
        let (mut renewal, mut batch, mut old) = (Renewal::default(), Batch::new(), Vec::new());
        let releases = records::releases(&self.store)?.into_iter().map(|release| release.task);
        for task in releases {
            let key = bundles::of_release(&task);
            let before = bundles::load(&self.store, &key)?;
            if before.is_empty() {
                continue;
            }
            match bundles::renew(&before, &newer, Subject::Release) {
                Ok(bundle) => {
                    bundles::put(&self.store, &mut batch, &key, &bundle)?;
                    old.push(before);
                    renewal.releases.push((task, Bytes::from(bundle)));
                }
                Err(error) => renewal.problems.push(format!("the release of {task:?}: {}", chain(&error))),
            }
        }
        for (run, model) in &mut self.models {
            let before = model.loaded.bundle.clone();
            if before.is_empty() {
                continue;
            }
            match bundles::renew(&before, &newer, Subject::Plan) {
                Ok(bundle) => {
                    bundles::put(&self.store, &mut batch, &bundles::of_run(*run), &bundle)?;
                    old.push(before);
                    model.loaded.bundle = Bytes::from(bundle);
                    renewal.runs.push((*run, model.loaded.bundle.clone()));
                }
                Err(error) => renewal.problems.push(format!("run {}: {}", run.0, chain(&error))),
            }
        }
        let about = About { word: Some(access::Verb::TrustRenew.word().into()), ..About::default() };
        self.audit.record(Entry::done(who, Action::AdminRequest, about), None);
        self.audit.write_into(&mut batch, false)?;
        self.store.commit(batch)?;
        self.audit.settle()?;
        old.iter().try_for_each(|bundle| bundles::remove_unnamed(&self.store, bundle))?;
        Ok(renewal)
    }
}
