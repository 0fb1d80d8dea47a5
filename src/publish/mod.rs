//! `starling publish`: what devices need to believe a release or a plan, from keys to the bundle that an aggregator forwards.
//!
//! ```text
//!  key ─▶ A.key, A.pub
//!  root ─▶ root.bundle ─────────────▶ pinned by devices: [trust] root
//!  release, plan ─▶ X.bundle          roots, and the statement that publishers signed
//!  sign, merge ─▶ X.bundle            further signatures, each made where its key lies
//!  freshness ─▶ fresh.bundle          roots, and what is newest; put into each X.bundle that it names
//! ```
//!
//! Keys never come together: a bundle goes from one holder to the next, or copies of it are merged. Nothing here talks to an
//! aggregator; `starling aggregator release publish --bundle`, `run start --bundle` and `trust renew` do.

mod artefact;
mod files;
mod freshness;
mod inspect;
mod key;
mod root;
mod sign;

use anyhow::Result;
use clap::Subcommand;
use starling_daemon::Exit;

/// The verbs of `starling publish`.
#[derive(Debug, Subcommand)]
pub(crate) enum Publish {
    /// Make a publisher's key
    Key(key::Args),
    /// Make a fleet's root of trust, or the next one that replaces it
    Root(root::Args),
    /// State that a release is one that devices may run, and sign that
    Release(artefact::ReleaseArgs),
    /// State that a task's plan is one that devices may train by, and sign that
    Plan(artefact::PlanArgs),
    /// Add the signature of another key holder
    Sign(sign::SignArgs),
    /// Bring the signatures of copies together
    Merge(sign::MergeArgs),
    /// State, for a short while, what is newest; put that into the bundles that are named
    Freshness(freshness::Args),
    /// Show what a bundle states and who has signed it
    Inspect(inspect::InspectArgs),
    /// Check a bundle and its release or plan as a new device would; exit code 5 when it would refuse them
    Verify(inspect::VerifyArgs),
}

/// Runs the verb.
pub(crate) fn command(verb: &Publish) -> Result<Exit> {
    match verb {
        Publish::Key(args) => key::command(args)?,
        Publish::Root(args) => root::command(args)?,
        Publish::Release(args) => artefact::release(args)?,
        Publish::Plan(args) => artefact::plan(args)?,
        Publish::Sign(args) => sign::sign(args)?,
        Publish::Merge(args) => sign::merge(args)?,
        Publish::Freshness(args) => freshness::command(args)?,
        Publish::Inspect(args) => inspect::inspect(args)?,
        Publish::Verify(args) => return inspect::verify(args),
    }
    Ok(Exit::Ok)
}
