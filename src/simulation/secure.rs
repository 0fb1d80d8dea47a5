//! Secure sums in a simulation: the same machines as in earnest, with identities and entropy drawn from the seed. The result is a
//! simulation's: whoever knows the seed knows every mask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use starling_model::Evaluated;
use starling_privacy::noise::Simulated;
use starling_protocol::run::Stage;
use starling_secagg::{Entropy, Fleet, Guard, IdentityKey, Signature, Verdict};
use starling_spec::TaskPlan;
use starling_spec::random::{Purpose, Random, device_key};
use starling_update::{Local, LocalFigures, RoundNumbers, SecurePart, SecureRound, SecureSums, Summed};
use starling_wire::{Address, DeviceId, Digest, Refusal, RunId, UpdateReport};
use zeroize::Zeroizing;

use super::Simulation;
use super::owed::Owed;
use crate::world::{Done, Job};

/// What a simulation has beside the plain one.
pub(super) struct Secure {
    seed: u64,
    identities: Identities,
    guards: BTreeMap<DeviceId, Guard>,
    parts: BTreeMap<DeviceId, Part>,
    round: Option<(Arc<SecureSums>, SecureRound)>,
}

struct Part {
    machine: SecurePart,
    address: Address,
    delta: Vec<f32>,
    report: UpdateReport,
    figures: Option<LocalFigures>,
}

/// The keys of all devices.
struct Identities(BTreeMap<DeviceId, Ed25519KeyPair>);

struct Own<'a>(&'a Ed25519KeyPair);

impl IdentityKey for Own<'_> {
    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl Fleet for Identities {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        match self.0.get(device) {
            None => Verdict::Uncertified,
            Some(pair) => {
                let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
                key.verify(message, signature).map_or(Verdict::Forged, |()| Verdict::Valid)
            }
        }
    }
}

impl Secure {
    /// For rounds by `plan`.
    pub(super) fn new(plan: &TaskPlan, devices: &[DeviceId]) -> Result<Self> {
        let pair = |device: &DeviceId| {
            let seed = drawn(plan.seed, &[device_key(device.0)]);
            Ok((*device, Ed25519KeyPair::from_seed_unchecked(&seed[..]).context("a seed of 32 bytes")?))
        };
        let identities = Identities(devices.iter().map(pair).collect::<Result<_>>()?);
        let (guards, parts) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { seed: plan.seed, identities, guards, parts, round: None })
    }

    /// What the round's sum says.
    pub(super) fn take_sum(&mut self) -> Result<Summed> {
        self.parts.clear();
        let (sums, round) = self.round.take().context("no secure sum is under way")?;
        Ok(round.summed(&sums).context("the secure sum is not complete")??)
    }

    /// Forgets an attempt that was given up.
    pub(super) fn abandon(&mut self) {
        (self.round, self.parts) = (None, BTreeMap::new());
    }

    fn enter(
        &mut self,
        device: DeviceId,
        address: Address,
        model: Digest,
        trained: (Vec<f32>, UpdateReport),
        figures: Option<LocalFigures>,
    ) -> Result<Vec<u8>> {
        let (sums, _) = self.round.as_ref().context("no secure sum is under way")?;
        let (setup, policy) = (sums.setup(address, model), sums.policy(0));
        let entropy = drawn(self.seed, &[device_key(device.0), address.round.into(), address.attempt.into()]);
        let guard = self.guards.entry(device).or_insert_with(|| Guard::new(RunId(1)));
        let key = Own(&self.identities.0[&device]);
        let (machine, said) =
            SecurePart::enter(sums, (&setup, &policy, self.seed), device, guard, &Entropy::new(entropy), &key)?;
        let (delta, report) = trained;
        self.parts.insert(device, Part { machine, address, delta, report, figures });
        Ok(said.persisted())
    }

    /// What `device` answers to what the open stage asks of it.
    fn answer(&mut self, device: DeviceId, owed: &mut Owed) -> Result<Vec<u8>> {
        let (_, round) = self.round.as_ref().context("no secure sum is under way")?;
        let asked = round.message(&device).context("the stage asks nothing of this device")?;
        let part = self.parts.get_mut(&device).context("the device has no part in the sum")?;
        let key = Own(&self.identities.0[&device]);
        let said = match part.machine.answer(asked, &self.identities, &key)? {
            Some(said) => said,
            None => {
                let path = [device_key(device.0), part.address.round.into(), part.address.attempt.into()];
                let mut words = Simulated::new(self.seed, &path);
                let delta = std::mem::take(&mut part.delta);
                let local = Local { delta: &delta, report: &part.report, figures: part.figures.as_ref() };
                let before = part.machine.keeps_residual().then(|| owed.before(device, delta.len()).as_ref().clone());
                let (masked, then) = part.machine.mask(local, before, &mut words)?;
                if let Some(then) = then {
                    owed.pend(device, then);
                }
                masked
            }
        };
        Ok(said.persisted())
    }
}

/// 32 bytes that follow from the seed.
fn drawn(seed: u64, path: &[u64]) -> Zeroizing<[u8; 32]> {
    let mut random = Random::new(seed, Purpose::Secure, path);
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()));
    bytes
}

impl Simulation<'_> {
    /// The first stage of a secure round, and the training beside it.
    pub(super) fn begin_sum(&mut self, address: Address, asked: &BTreeSet<usize>) -> Result<()> {
        let (cohort, idle) = self.taking_part(address, asked)?;
        self.decline(address, &idle);
        cohort.iter().for_each(|device| self.send_model(*device));
        let figures = self.figures(&cohort)?;
        let RoundNumbers { plan, secure: sums, .. } = &self.numbers;
        let job = |device: &usize| {
            let (plan, base) = (Arc::clone(plan), self.base.clone());
            Job::Train { device: *device, address, plan, base, residual: None }
        };
        let done = self.pool.run(cohort.iter().map(job).collect(), || ())?;
        let model = self.version.digest();
        let secure = self.secure.as_mut().context("the plan has no secure sums")?;
        let sums = Arc::clone(sums.as_ref().context("the plan has no secure sums")?);
        let round = SecureRound::of(&sums, address, model)?;
        secure.round = Some((sums, round));
        for (device, done) in cohort.into_iter().zip(done) {
            if let Done::Trained(delta, report) = done {
                let id = self.world.devices[device].id;
                let secure = self.secure.as_mut().context("the plan has no secure sums")?;
                let message = secure.enter(id, address, model, (delta, report), figures.get(&device).copied())?;
                self.take_mail(id, address, Stage::Advertise, &message)?;
            }
        }
        Ok(())
    }

    /// How the version does on the hold-outs of a cohort, where the plan asks for that.
    fn figures(&mut self, cohort: &[usize]) -> Result<BTreeMap<usize, LocalFigures>> {
        let privacy = self.world.plan.privacy.as_ref();
        if !privacy.is_some_and(|privacy| privacy.evaluates(self.version.number())) {
            return Ok(BTreeMap::new());
        }
        let devices: Vec<usize> =
            cohort.iter().copied().filter(|device| self.world.devices[*device].holds_out()).collect();
        let job = |device: &usize| Job::HeldOut { device: *device, base: self.base.clone() };
        let done = self.pool.run(devices.iter().map(job).collect(), || ())?;
        let told = devices.into_iter().zip(done).filter_map(|(device, done)| match done {
            Done::Evaluated(Evaluated { examples, correct, loss_sum }) => {
                Some((device, LocalFigures { examples, correct, loss_sum }))
            }
            _ => None,
        });
        Ok(told.collect())
    }

    /// Ends a stage, and has the devices answer what the next one asks.
    pub(super) fn close_stage(&mut self, address: Address, stage: Stage) -> Result<()> {
        let secure = self.secure.as_mut().context("the plan has no secure sums")?;
        let (_, round) = secure.round.as_mut().context("no secure sum is under way")?;
        let members = round.close();
        let asked = members.as_ref().cloned().unwrap_or_default();
        self.now_ms += 1;
        self.machine.handle_closed(self.now_ms, &address, members.map_err(|_| Refusal::StaleAttempt));
        let next = match stage {
            Stage::Advertise => Stage::Share,
            Stage::Share => Stage::Mask,
            Stage::Mask => Stage::Confirm,
            Stage::Confirm => Stage::Reveal,
            Stage::Reveal => return Ok(()),
        };
        for device in asked {
            let secure = self.secure.as_mut().context("the plan has no secure sums")?;
            let message = secure.answer(device, &mut self.owed)?;
            self.take_mail(device, address, next, &message)?;
        }
        Ok(())
    }

    fn take_mail(&mut self, device: DeviceId, address: Address, stage: Stage, message: &[u8]) -> Result<()> {
        self.now_ms += 1;
        let secure = self.secure.as_mut().context("the plan has no secure sums")?;
        let (_, round) = secure.round.as_mut().context("no secure sum is under way")?;
        if self.machine.admit_mail(device, &address, stage).is_ok() {
            round.take(device, message, &secure.identities)?;
            self.machine.handle_mail(self.now_ms, device, &address, stage);
            self.staged.bytes_up += message.len() as u64;
        }
        Ok(())
    }
}
