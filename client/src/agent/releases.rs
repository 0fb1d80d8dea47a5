//! Releases, as far as the agent has a hand in them: it carries messages, starts installations and opens the local socket.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use starling_wire::{ReleaseRefusal, RunPlan};

use super::Agent;
use crate::serving::intake::{Candidate, Installation};
use crate::serving::releases::Releases;
use crate::serving::socket::Socket;
use crate::status::ReleaseStatus;
use crate::worker::Report;

impl Agent {
    /// Opens the local socket, once there is a release to serve.
    pub(super) fn open_socket(&mut self) {
        if self.socket.is_some() || self.releases.all().is_empty() {
            return;
        }
        let path = self.config.serving_socket();
        match Socket::listen(&path, &self.releases) {
            Ok(socket) => {
                tracing::info!(path = %path.display(), "serving");
                self.socket = Some(socket);
                self.intake.set_serving(true);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the serving socket cannot be bound (a path of at most 107 bytes)");
            }
        }
    }

    /// Starts what waits to be installed. It takes a thread of its own: training may keep the worker for hours.
    pub(super) fn install_releases(&mut self) {
        while let Some(installation) = self.intake.poll_installation() {
            let (releases, reports) = (Arc::clone(&self.releases), self.worker.reports());
            let spawned = std::thread::Builder::new().name("starling-release".to_owned()).spawn(move || {
                // A file that makes the engine panic must not end the daemon.
                let result = catch_unwind(AssertUnwindSafe(|| install(&releases, &installation)))
                    .unwrap_or(Err(ReleaseRefusal::NotRunnable));
                // A store must not stay locked because of this thread when the agent has gone.
                drop(releases);
                // Fails when the agent has gone: the release is on the disk, or it is not.
                let _ = reports.blocking_send(Report::Installed { result });
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread to install a release");
                self.intake.handle_installed(Err(ReleaseRefusal::NotRunnable));
            }
        }
    }

    pub(super) fn handle_installed(&mut self, result: Result<(), ReleaseRefusal>) {
        self.open_socket();
        self.intake.handle_installed(result);
        self.install_releases();
        self.write_status();
    }

    /// Says so when what says what is newest has run out, and when that is over.
    pub(super) fn note_expiry(&mut self) {
        let Some(trust) = &self.trust else { return };
        if trust.has_expired() == self.expired {
            return;
        }
        self.expired = !self.expired;
        if self.expired {
            tracing::warn!(stops = trust.stops(), "the freshness statement has run out: nothing says what is newest");
            self.intake.handle_expired();
        }
        self.write_status();
    }

    /// A plan is announced. What publishers signed of it is judged before any round of it.
    pub(super) fn judge_plan(&mut self, announced: &RunPlan) {
        self.owner.take_plan(announced);
        if let Some(trust) = &self.trust
            && self.tasks.contains(&announced.name)
        {
            trust.take_plan(announced);
            self.note_expiry();
            self.write_status();
        }
    }

    /// What the status file says of releases and of trust.
    pub(super) fn note_releases(&mut self) {
        self.status.trust = self.trust.as_ref().map(|trust| trust.status());
        let mut notes = std::collections::BTreeMap::new();
        for task in &self.tasks {
            let held = self.releases.held(task);
            let problem = self.intake.problem(task).map(str::to_owned);
            if held.is_some() || problem.is_some() {
                // With a root of trust, only what was signed counts as held.
                let held_signed = held.is_some() && self.trust.is_some();
                let note = ReleaseStatus {
                    version: held.as_ref().map(|held| held.version),
                    digest: held.as_ref().map(|held| held.digest.to_string()),
                    bytes: held.map(|held| held.length),
                    serving: self.socket.is_some() && self.releases.serves(task).is_some(),
                    signed: held_signed,
                    problem,
                };
                notes.insert(task.clone(), note);
            }
        }
        self.status.releases = notes;
    }
}

fn install(releases: &Releases, installation: &Installation) -> Result<(), ReleaseRefusal> {
    let Candidate { offer, permit } = &installation.candidate;
    match &installation.bytes {
        Some(bytes) => releases.install(offer, bytes, permit.as_ref()),
        None => releases.install(offer, &releases.file(&offer.digest)?, permit.as_ref()),
    }
}
