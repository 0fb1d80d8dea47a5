//! Secure aggregation: an aggregator learns the sum of a cohort's vectors, and nothing else about any of them.
//!
//! The protocol is Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", with the graph of Bell et al.
//! 2020, "Secure single-server aggregation with (poly)logarithmic overhead", against a semi-malicious aggregator and colluding devices:
//!
//! ```text
//!  phase        device                                            aggregator
//!  advertise    two fresh keys, signed ─────────────────────────▶
//!                                        ◀──────────────────────── roster: everybody's keys
//!  share        shares of seed and key, encrypted to neighbours ▶
//!                                        ◀──────────────────────── envelopes
//!  mask         input + self mask ± pair masks ────────────────▶ added up
//!                                        ◀──────────────────────── survivors, once
//!  confirm      signature of the survivors ────────────────────▶
//!                                        ◀──────────────────────── neighbours' signatures
//!  unmask       a share of each survivor's seed, or drop-out's key ▶ masks come off: the sum
//! ```
//!
//! What the attacker controls: the aggregator, every message of it, and the assumed share of the cohort's devices. What is refused, and
//! why, is [`Refused`]; each attack has a reason of its own and a test with a hostile aggregator (`tests/rounds`).
//! Invariants held here: 5 (a restarted device repeats itself or stays silent, [`Restored`]), 6 ([`limits`]), 7 (randomness is handed in as
//! [`Entropy`]), 8, 9 (everything is bound to [`Setup`] and roster), 10 (secrets are wiped, in memory only), 13 ([`Policy`]).
//!
//! What it is not: it turns no update into integers and adds no noise (the caller's plan does, and its digest is bound in). It cannot see whether
//! a colluding device's input is reasonable: the ring bounds a coordinate, and that is all. It learns of certificates through [`Fleet`].
//!
//! Constant-time: agreement, ciphers, HKDF, sharing. Not constant-time: who takes part, sizes, and what has been revealed to the aggregator.
//!
//! ```
//! use std::collections::BTreeMap;
//! use starling_secagg::{Aggregator, Assumptions, Device, Entropy, Guard, Policy, Setup};
//! # use starling_secagg::{Fleet, IdentityKey, Verdict};
//! # use starling_wire::{Address, DeviceId, Digest, RunId, TaskId};
//! # // Signatures are not the point of the example; real ones come from the device's certificate.
//! # struct Toy(DeviceId);
//! # fn mac(device: &DeviceId, message: &[u8]) -> [u8; 64] {
//! #     let half = Digest::of_parts(&[&device.0, message]).0;
//! #     [half, half].concat().try_into().expect("64 bytes")
//! # }
//! # impl IdentityKey for Toy { fn sign(&self, message: &[u8]) -> [u8; 64] { mac(&self.0, message) } }
//! # struct ToyFleet;
//! # impl Fleet for ToyFleet {
//! #     fn verify(&self, device: &DeviceId, message: &[u8], signature: &[u8; 64]) -> Verdict {
//! #         if mac(device, message) == *signature { Verdict::Valid } else { Verdict::Forged }
//! #     }
//! # }
//! let setup = Setup {
//!     address: Address { task: TaskId([7; 16]), run: RunId(1), round: 1, attempt: 1 },
//!     model: Digest::of(b"model"),
//!     plan: Digest::of(b"plan"),
//!     values: 4,
//!     value_max: 1000,
//!     sum_max: 5000,
//!     weight_max: 1,
//!     cohort_min: 3,
//!     cohort_max: 5,
//!     assumptions: Assumptions { corrupt_per_mille: 100, dropout_per_mille: 200 },
//! };
//! let policy = Policy { cohort_min: 3, corrupt_per_mille_min: 100, plan: setup.plan, weight_max: 1 };
//! let mut aggregator = Aggregator::new(&setup)?;
//! let mut devices = BTreeMap::new();
//! for name in 1..=5u8 {
//!     let id = DeviceId([name; 16]);
//!     let mut guard = Guard::new(RunId(1));
//!     let entropy = Entropy::new(zeroize::Zeroizing::new([name; 32])); // in earnest: from the system's generator
//!     let (device, unsent) = Device::begin(&setup, &policy, id, &mut guard, &entropy, &Toy(id))?;
//!     // … write the guard and `unsent.record()` to the disk …
//!     aggregator.handle_advertisement(id, &unsent.persisted(), &ToyFleet)?;
//!     devices.insert(id, device);
//! }
//! let roster = aggregator.close_advertising()?;
//! for (id, device) in &mut devices {
//!     aggregator.handle_shares(*id, &device.handle_roster(&roster, &ToyFleet)?.persisted())?;
//! }
//! for (id, envelopes) in aggregator.close_sharing()? {
//!     let device = devices.get_mut(&id).expect("a device of the cohort");
//!     device.handle_envelopes(&envelopes)?;
//!     if id != DeviceId([5; 16]) { // one drops out
//!         aggregator.handle_masked(id, &device.mask(&[1, -2, 3, 1000])?.persisted())?;
//!     }
//! }
//! let survivors = aggregator.close_masking()?;
//! for id in aggregator.survivors() {
//!     let device = devices.get_mut(&id).expect("a device of the cohort");
//!     let signature = device.handle_survivors(&survivors, &Toy(id))?.persisted();
//!     aggregator.handle_confirmation(id, &signature, &ToyFleet)?;
//! }
//! for (id, request) in aggregator.close_confirming()? {
//!     let device = devices.get_mut(&id).expect("a device of the cohort");
//!     aggregator.handle_reveal(id, &device.handle_unmask(&request, &ToyFleet)?.persisted())?;
//! }
//! assert_eq!(aggregator.finish()?.values(), [4, -8, 12, 4000]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aggregator;
mod agreement;
mod bitmap;
mod device;
mod graph;
mod identity;
mod keys;
mod keystream;
pub mod limits;
mod message;
mod refused;
mod session;
mod setup;
mod shamir;
mod vector;

pub use aggregator::{Aborted, Addressed, Aggregator, Phase, Sum};
pub use device::{Device, Guard, Restored, Unsent};
pub use graph::{Adversary, Assumptions, Topology, TopologyError, published_parameters};
pub use identity::{Fleet, IdentityKey, Signature, Verdict};
pub use keys::Entropy;
pub use keystream::Keystream;
pub use message::Kind;
pub use refused::Refused;
pub use setup::{Policy, Setup};
pub use vector::{PackedError, Ring, RingVector};
