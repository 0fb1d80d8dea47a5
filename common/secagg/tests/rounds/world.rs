//! A cohort of real machines with Ed25519 identities, and the honest way through the phases.

use std::collections::BTreeMap;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use starling_secagg::{
    Aborted, Aggregator, Assumptions, Device, Entropy, Fleet, Guard, IdentityKey, Policy, Refused, Setup, Signature,
    Sum, Verdict,
};
use starling_wire::{Address, DeviceId, Digest, RunId, TaskId};
use zeroize::Zeroizing;

pub(crate) const RUN: RunId = RunId(3);

/// An identity key made from a name.
pub(crate) struct Identity(Ed25519KeyPair);

impl Identity {
    pub(crate) fn of(device: &DeviceId) -> Self {
        let seed = Digest::of_parts(&[b"identity", &device.0]);
        Self(Ed25519KeyPair::from_seed_unchecked(&seed.0).expect("any 32 bytes are a seed"))
    }
}

impl IdentityKey for Identity {
    fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The certificates of `certified` devices, as an enrolment CA would vouch for them.
#[derive(Default)]
pub(crate) struct Certificates(BTreeMap<DeviceId, [u8; 32]>);

impl Certificates {
    pub(crate) fn of(devices: &[DeviceId]) -> Self {
        let key = |device: &DeviceId| Identity::of(device).0.public_key().as_ref().try_into().expect("32 bytes");
        Self(devices.iter().map(|device| (*device, key(device))).collect())
    }
}

impl Fleet for Certificates {
    fn verify(&self, device: &DeviceId, message: &[u8], signature: &Signature) -> Verdict {
        match self.0.get(device) {
            None => Verdict::Uncertified,
            Some(key) if UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok() => Verdict::Valid,
            Some(_) => Verdict::Forged,
        }
    }
}

pub(crate) fn device_id(index: usize) -> DeviceId {
    DeviceId::seeded(5, u32::try_from(index).expect("a small index"))
}

pub(crate) fn setup(devices: usize, values: usize, value_max: u64) -> Setup {
    Setup {
        address: Address { task: TaskId([7; 16]), run: RUN, round: 1, attempt: 1 },
        model: Digest::of(b"model"),
        plan: Digest::of(b"plan"),
        values: u32::try_from(values).expect("a small vector"),
        value_max,
        sum_max: devices as u64 * value_max,
        weight_max: 1,
        cohort_min: 3,
        cohort_max: u16::try_from(devices).expect("a small cohort"),
        // Three devices cannot bear a colluder and a drop-out.
        assumptions: Assumptions { corrupt_per_mille: if devices < 10 { 0 } else { 100 }, dropout_per_mille: 300 },
    }
}

pub(crate) fn policy(setup: &Setup) -> Policy {
    Policy {
        cohort_min: 3,
        corrupt_per_mille_min: setup.assumptions.corrupt_per_mille,
        plan: setup.plan,
        weight_max: setup.weight_max,
    }
}

pub(crate) fn entropy(device: &DeviceId, seed: u64) -> Entropy {
    Entropy::new(Zeroizing::new(Digest::of_parts(&[b"entropy", &seed.to_le_bytes(), &device.0]).0))
}

/// Fresh devices of one attempt, and what each advertises.
pub(crate) fn begin(
    setup: &Setup,
    devices: usize,
    seed: u64,
) -> (BTreeMap<DeviceId, Device>, BTreeMap<DeviceId, Vec<u8>>) {
    let mut machines = BTreeMap::new();
    let mut advertised = BTreeMap::new();
    for id in (0..devices).map(device_id) {
        let (machine, message) = begin_one(setup, id, seed).expect("an honest setup");
        machines.insert(id, machine);
        advertised.insert(id, message);
    }
    (machines, advertised)
}

pub(crate) fn begin_one(setup: &Setup, id: DeviceId, seed: u64) -> Result<(Device, Vec<u8>), Refused> {
    let (entropy, key) = (entropy(&id, seed), Identity::of(&id));
    let (machine, unsent) = Device::begin(setup, &policy(setup), id, &mut Guard::new(RUN), &entropy, &key)?;
    Ok((machine, unsent.persisted()))
}

/// In which phase a device goes away: it does not answer in that one nor in any later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Leaves {
    Advertising,
    Sharing,
    Masking,
    Confirming,
    Revealing,
    Never,
}

/// An attempt under way, and everything that was said in it.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) fleet: Certificates,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) aggregator: Aggregator,
    pub(crate) bytes_up: BTreeMap<DeviceId, usize>,
    pub(crate) roster: Vec<u8>,
    pub(crate) envelopes: BTreeMap<DeviceId, Vec<u8>>,
    pub(crate) survivors: Vec<u8>,
    pub(crate) requests: BTreeMap<DeviceId, Vec<u8>>,
}

impl World {
    /// Everybody but those that leave at once has advertised.
    pub(crate) fn new(setup: &Setup, count: usize, seed: u64, leaves: &dyn Fn(&DeviceId) -> Leaves) -> Self {
        let ids: Vec<DeviceId> = (0..count).map(device_id).collect();
        let fleet = Certificates::of(&ids);
        let (devices, advertised) = begin(setup, count, seed);
        let mut world = Self {
            setup: *setup,
            fleet,
            devices,
            aggregator: Aggregator::new(setup).expect("an honest setup"),
            bytes_up: BTreeMap::new(),
            roster: Vec::new(),
            envelopes: BTreeMap::new(),
            survivors: Vec::new(),
            requests: BTreeMap::new(),
        };
        for (id, message) in advertised.iter().filter(|(id, _)| leaves(id) > Leaves::Advertising) {
            world.count(id, message);
            world.aggregator.handle_advertisement(*id, message, &world.fleet).expect("an honest advertisement");
        }
        world
    }

    fn count(&mut self, id: &DeviceId, message: &[u8]) {
        *self.bytes_up.entry(*id).or_default() += message.len();
    }

    pub(crate) fn device(&mut self, id: &DeviceId) -> &mut Device {
        self.devices.get_mut(id).expect("a device of the world")
    }

    pub(crate) fn share(&mut self, leaves: &dyn Fn(&DeviceId) -> Leaves) -> Result<(), Aborted> {
        self.roster = self.aggregator.close_advertising()?;
        let staying: Vec<DeviceId> = self.devices.keys().copied().filter(|id| leaves(id) > Leaves::Sharing).collect();
        for id in staying {
            let device = self.devices.get_mut(&id).expect("a device of the world");
            let message = device.handle_roster(&self.roster, &self.fleet).expect("an honest roster").persisted();
            self.count(&id, &message);
            self.aggregator.handle_shares(id, &message).expect("honest envelopes");
        }
        self.envelopes = self.aggregator.close_sharing()?.into_iter().collect();
        for (id, message) in self.envelopes.clone() {
            self.device(&id).handle_envelopes(&message).expect("honest envelopes");
        }
        Ok(())
    }

    pub(crate) fn mask(
        &mut self,
        inputs: &dyn Fn(&DeviceId) -> Vec<i64>,
        leaves: &dyn Fn(&DeviceId) -> Leaves,
    ) -> Result<(), Aborted> {
        let staying: Vec<DeviceId> = self.envelopes.keys().copied().filter(|id| leaves(id) > Leaves::Masking).collect();
        for id in staying {
            let message = self.device(&id).mask(&inputs(&id)).expect("an input within the bound").persisted();
            self.count(&id, &message);
            self.aggregator.handle_masked(id, &message).expect("an honest vector");
        }
        self.survivors = self.aggregator.close_masking()?;
        Ok(())
    }

    pub(crate) fn confirm(&mut self, leaves: &dyn Fn(&DeviceId) -> Leaves) -> Result<(), Aborted> {
        for id in self.aggregator.survivors().into_iter().filter(|id| leaves(id) > Leaves::Confirming) {
            let key = Identity::of(&id);
            let survivors = self.survivors.clone();
            let message = self.device(&id).handle_survivors(&survivors, &key).expect("an honest list").persisted();
            self.count(&id, &message);
            self.aggregator.handle_confirmation(id, &message, &self.fleet).expect("an honest signature");
        }
        self.requests = self.aggregator.close_confirming()?.into_iter().collect();
        Ok(())
    }

    pub(crate) fn unmask(&mut self, leaves: &dyn Fn(&DeviceId) -> Leaves) -> Result<Sum, Aborted> {
        for (id, request) in self.requests.clone().into_iter().filter(|(id, _)| leaves(id) > Leaves::Revealing) {
            let device = self.devices.get_mut(&id).expect("a device of the world");
            let message = device.handle_unmask(&request, &self.fleet).expect("an honest request").persisted();
            self.count(&id, &message);
            self.aggregator.handle_reveal(id, &message).expect("honest shares");
        }
        self.aggregator.finish()
    }

    /// All phases, one after the other.
    pub(crate) fn run(
        &mut self,
        inputs: &dyn Fn(&DeviceId) -> Vec<i64>,
        leaves: &dyn Fn(&DeviceId) -> Leaves,
    ) -> Result<Sum, Aborted> {
        self.share(leaves)?;
        self.mask(inputs, leaves)?;
        self.confirm(leaves)?;
        self.unmask(leaves)
    }
}

/// Nobody leaves.
pub(crate) fn nobody(_: &DeviceId) -> Leaves {
    Leaves::Never
}

/// A device's input: a function of its name, over the whole range of the bound.
pub(crate) fn input(setup: &Setup, id: &DeviceId, seed: u64) -> Vec<i64> {
    let first = u64::from_le_bytes(id.0[..8].try_into().expect("eight bytes")) ^ seed;
    let span = u128::from(setup.value_max) * 2 + 1;
    let value = |index: u64| {
        // SplitMix64's finaliser.
        let mut z = first.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let scaled = (u128::from(z ^ (z >> 31)) * span) >> 64;
        i64::try_from(i128::try_from(scaled).expect("64 bits") - i128::from(setup.value_max)).expect("within the bound")
    };
    (0..u64::from(setup.values)).map(value).collect()
}

/// The plain sum of the inputs of `devices`, in 128 bits.
pub(crate) fn plain_sum(setup: &Setup, devices: &[DeviceId], seed: u64) -> Vec<i64> {
    let mut sum = vec![0i128; setup.values as usize];
    for id in devices {
        sum.iter_mut().zip(input(setup, id, seed)).for_each(|(sum, value)| *sum += i128::from(value));
    }
    sum.into_iter().map(|value| i64::try_from(value).expect("a sum of the ring")).collect()
}
