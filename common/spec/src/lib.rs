//! What is learnt, as data: task files, layer specs, shape inference, parameter manifests, seeded initialisers.
//!
//! Everything here is pure: no file, clock, entropy or socket (invariant 7), and nothing knows burn. A [`TaskFile`] is what
//! a person writes; a [`TaskPlan`] is the part of it that devices need, and what travels to them.

pub mod codec;
pub mod error;
pub mod init;
pub mod layer;
pub mod manifest;
pub mod moments;
pub mod plan;
pub mod preset;
pub mod random;
pub mod shape;
pub mod task;

pub use codec::CodecSpec;
pub use error::SpecError;
pub use layer::Layer;
pub use manifest::{ParamManifest, ParamRole, ParamTensor};
pub use moments::{FeatureRange, PerFeature, Standardisation};
pub use plan::{TaskPlan, UpdateSettings};
pub use task::{
    Backend, DataFormat, DataSection, DpMechanism, DpMode, DpSection, DpSgd, FederationSection, GroupRule,
    ModelSection, Optimizer, Participation, Partition, PrivacyPlan, PrivacySection, Scale, Schedule, TAG_BYTES_MAX,
    TAGS_MAX, TaskFile, TaskKind, TrainSettings, WeightForm, Weights, check_tags,
};
