//! What devices do in a round, and what moves between them and the aggregator.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use starling_model::Evaluated;
use starling_spec::random::{Purpose, Random, device_key};
use starling_update::{Residual, Sealed, admit, admit_header, difference};
use starling_wire::{Address, BLOB_HEADER_BYTES, DeviceId, Evaluation, Statistics};

use super::Simulation;
use crate::world::{Done, Job};

/// Attempts at a round before a run ends whose devices have no budget left: the others are too few for its quorum.
const ATTEMPTS_MAX: u16 = 100;

impl Simulation<'_> {
    pub(super) fn train(&mut self, address: Address, asked: &BTreeSet<usize>) -> Result<()> {
        let (mut cohort, idle) = self.taking_part(address, asked)?;
        self.decline(address, &idle);
        cohort.iter().for_each(|device| self.send_model(*device));
        // The order of arrival decides only whose updates an over-selected round does without: it is drawn.
        let arrival = |device: &usize| {
            let key = device_key(self.world.devices[*device].id.0);
            Random::new(self.input.seed, Purpose::Cohort, &[u64::from(address.round), key]).next_u64()
        };
        cohort.sort_by_key(arrival);
        let job = |device: &usize| Job::Train {
            device: *device,
            address,
            plan: Arc::clone(&self.numbers.plan),
            base: Arc::clone(&self.base),
            residual: self.owed(self.world.devices[*device].id),
        };
        let done = self.pool.run(cohort.iter().map(job).collect(), || ())?;
        for (device, done) in cohort.into_iter().zip(done) {
            if let Done::Sealed(sealed, residual) = done {
                if let Some(residual) = residual {
                    self.owed.pend(self.world.devices[device].id, residual);
                }
                self.receive(device, address, &sealed)?;
            }
        }
        Ok(())
    }

    /// Who of `asked` trains, which is charged here, and who has no rows or no budget for its examples.
    pub(super) fn taking_part(
        &mut self,
        address: Address,
        asked: &BTreeSet<usize>,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        let (mut cohort, mut idle) = (Vec::new(), Vec::new());
        for device in asked {
            let ready = self.world.devices[*device].has_training_rows()
                && self.examples.as_mut().map_or(Ok(true), |examples| examples.begin(*device))?;
            if ready { cohort.push(*device) } else { idle.push(*device) }
        }
        self.over = self
            .examples
            .as_ref()
            .is_some_and(|examples| examples.is_over() || examples.exhausted() > 0 && address.attempt >= ATTEMPTS_MAX);
        Ok((cohort, idle))
    }

    /// What `device` owes from earlier rounds, where the codec keeps a residual.
    fn owed(&self, device: DeviceId) -> Option<Arc<Residual>> {
        self.numbers
            .numerics
            .codec()
            .keeps_residual()
            .then(|| self.owed.before(device, self.numbers.numerics.parameters()))
    }

    /// Devices without data for the round say so, as real ones do.
    pub(super) fn decline(&mut self, address: Address, devices: &[usize]) {
        for device in devices {
            self.machine.handle_out(self.now_ms, self.world.devices[*device].id, &address);
        }
    }

    /// What the aggregator does with an update: admit the header, the body, ask the machine, fold.
    fn receive(&mut self, device: usize, address: Address, sealed: &Sealed) -> Result<()> {
        let id = self.world.devices[device].id;
        self.now_ms += 1;
        let header = sealed.header(&address);
        if self.machine.admit_update(id, &address).is_err() {
            return Ok(()); // The round is complete without it.
        }
        admit_header(&header, &self.numbers.numerics)?;
        let admitted = admit(id, &header, sealed.bytes().clone(), sealed.digest(), &self.numbers.numerics)
            .with_context(|| format!("the update of device {id} in {address} was refused"))?;
        self.machine.handle_update(self.now_ms, id, &address)?;
        self.fold.add(&admitted)?;
        let report = admitted.report();
        self.staged.weight += u64::from(report.weight);
        let loss = if report.says_loss() { f64::from(report.train_loss) } else { f64::NAN };
        self.staged.loss_sum += loss * f64::from(report.weight);
        self.staged.bytes_up += BLOB_HEADER_BYTES as u64 + sealed.bytes().len() as u64;
        Ok(())
    }

    /// Counts the bytes that bring the current version to `device`.
    pub(super) fn send_model(&mut self, device: usize) {
        let digest = self.version.digest();
        let whole = self.version.encoded();
        let held = self.held.insert(self.world.devices[device].id, digest);
        let length = match (held, &mut self.previous) {
            (Some(held), _) if held == digest => return,
            (Some(held), Some(previous)) if held == previous.digest => previous
                .difference_bytes
                .get_or_insert_with(|| difference::encode(&previous.encoded, whole).map(|bytes| bytes.len()))
                .unwrap_or(whole.len()),
            _ => whole.len(),
        };
        self.staged.bytes_down += BLOB_HEADER_BYTES as u64 + length as u64;
    }

    pub(super) fn evaluate(&mut self, address: Address, asked: &BTreeSet<usize>) -> Result<()> {
        let (devices, idle): (Vec<usize>, Vec<usize>) =
            asked.iter().partition(|device| self.world.devices[**device].holds_out());
        self.decline(address, &idle);
        devices.iter().for_each(|device| self.send_model(*device));
        if let Some(round) = self.rounds.last_mut() {
            round.bytes_down += std::mem::take(&mut self.staged.bytes_down);
        }
        let job = |device: &usize| Job::HeldOut { device: *device, base: Arc::clone(&self.base) };
        let done = self.pool.run(devices.iter().map(job).collect(), || ())?;
        for (device, done) in devices.into_iter().zip(done) {
            if let Done::Evaluated(Evaluated { examples, correct, loss_sum }) = done {
                self.now_ms += 1;
                let evaluation = Evaluation { address, examples, correct, loss_sum };
                self.machine.handle_evaluation(self.now_ms, self.world.devices[device].id, evaluation);
            }
        }
        Ok(())
    }

    pub(super) fn survey(&mut self, address: Address, asked: &BTreeSet<usize>) -> Result<()> {
        let (devices, idle): (Vec<usize>, Vec<usize>) =
            asked.iter().partition(|device| self.world.devices[**device].has_training_rows());
        self.decline(address, &idle);
        devices.iter().for_each(|device| self.send_model(*device));
        let job = |device: &usize| Job::Ranges { device: *device, base: Arc::clone(&self.base) };
        let done = self.pool.run(devices.iter().map(job).collect(), || ())?;
        for (device, done) in devices.into_iter().zip(done) {
            if let Done::Ranges(examples, ranges) = done {
                self.now_ms += 1;
                let statistics = Statistics { address, examples, ranges };
                self.machine.handle_statistics(self.now_ms, self.world.devices[device].id, &statistics);
            }
        }
        Ok(())
    }
}
