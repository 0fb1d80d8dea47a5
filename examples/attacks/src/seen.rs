//! What an aggregator gets to see: a plain update as it decodes it, or the sum that comes out of the secure sum's own machines.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use starling_privacy::noise::Simulated;
use starling_secagg::{Entropy, Fleet, Guard, IdentityKey, Signature, Verdict};
use starling_spec::TaskPlan;
use starling_spec::random::device_key;
use starling_update::{
    Fold, Local, Numerics, SecurePart, SecureRound, SecureSums, admit, norm_max, rounding_key, seal_private,
};
use starling_wire::{Address, DeviceId, Digest, RunId, TaskId};
use zeroize::Zeroizing;

use crate::scene::Trained;

/// Where a round's messages belong.
pub fn address(plan: &TaskPlan) -> Address {
    Address { task: TaskId(plan.id()), run: RunId(1), round: 1, attempt: 1 }
}

/// What one device's plain update decodes to: sealed, admitted and folded as in any round, alone.
///
/// # Errors
/// What sealing or admission refuses.
pub fn plain(plan: &TaskPlan, trained: &Trained) -> Result<Vec<f32>> {
    let parameters = trained.delta.len();
    let numerics = Numerics::new(&plan.update, parameters, 1)?.with_norm_max(norm_max(plan));
    let key = rounding_key(plan.seed, trained.device, 1);
    let mut words = Simulated::new(plan.seed, &[1, device_key(trained.device.0)]);
    let sealed = seal_private(plan, &trained.report, &trained.delta, key, &mut words)?;
    let header = sealed.header(&address(plan));
    let update = admit(trained.device, &header, sealed.bytes().clone(), sealed.digest(), &numerics)
        .map_err(|refusal| anyhow::anyhow!("the update is not admitted: {refusal}"))?;
    let mut fold = Fold::new(&numerics);
    fold.add(&update)?;
    let mut mean = vec![0.0; parameters];
    fold.apply_mean(&mut mean);
    Ok(mean)
}

/// The mean that the aggregator decodes from the secure sum of these updates, with the noise that the plan asks devices for. Nobody drops out.
///
/// # Errors
/// What the machines refuse.
pub fn summed(plan: &TaskPlan, model: Digest, trained: &[Trained]) -> Result<Vec<f32>> {
    let parameters = trained.first().context("a sum has devices")?.delta.len();
    let sums = SecureSums::of(plan, parameters)?.context("the plan has no secure sums")?;
    let setup = sums.setup(address(plan), model);
    let policy = sums.policy(0);
    let keys = Identities::of(trained, plan.seed)?;
    let mut round = SecureRound::new(&setup)?;
    let mut parts = Vec::new();
    for one in trained {
        let entropy = Digest::of_parts(&[b"attacks entropy", &plan.seed.to_le_bytes(), &one.device.0]);
        let entropy = Entropy::new(Zeroizing::new(entropy.0));
        let mut guard = Guard::new(setup.address.run);
        let asked = (&setup, &policy, plan.seed);
        let (part, said) = SecurePart::enter(&sums, asked, one.device, &mut guard, &entropy, keys.own(&one.device)?)?;
        round.take(one.device, &said.persisted(), &keys)?;
        parts.push((one, part));
    }
    // Shares, masked updates, confirmations, what takes the masks off.
    for _ in 0..4 {
        round.close()?;
        for (one, part) in &mut parts {
            let asked = round.message(&one.device).context("everybody is asked in each stage")?;
            let said = match part.answer(asked, &keys, keys.own(&one.device)?)? {
                Some(said) => said,
                None => {
                    let mut words = Simulated::new(plan.seed, &[2, device_key(one.device.0)]);
                    let local = Local { delta: &one.delta, report: &one.report, figures: None };
                    part.mask(local, None, &mut words)?.0
                }
            };
            round.take(one.device, &said.persisted(), &keys)?;
        }
    }
    round.close()?;
    Ok(round.summed(&sums).context("all stages are over")??.mean)
}

/// The keys that certificates would vouch for.
struct Identities(BTreeMap<DeviceId, Own>);

struct Own(Ed25519KeyPair);

impl Identities {
    fn of(devices: &[Trained], seed: u64) -> Result<Self> {
        let pair = |trained: &Trained| {
            let seed = Digest::of_parts(&[b"attacks identity", &seed.to_le_bytes(), &trained.device.0]);
            Ok((trained.device, Own(Ed25519KeyPair::from_seed_unchecked(&seed.0).context("a seed of 32 bytes")?)))
        };
        Ok(Self(devices.iter().map(pair).collect::<Result<_>>()?))
    }

    fn own(&self, device: &DeviceId) -> Result<&Own> {
        self.0.get(device).context("a device of the cohort")
    }
}

impl IdentityKey for Own {
    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl Fleet for Identities {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        match self.0.get(device) {
            None => Verdict::Uncertified,
            Some(Own(pair)) => {
                let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
                key.verify(message, signature).map_or(Verdict::Forged, |()| Verdict::Valid)
            }
        }
    }
}
