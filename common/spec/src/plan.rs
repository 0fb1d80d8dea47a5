//! The part of a task that devices need: it travels to them as JSON and is what a task's id is the digest of.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::codec::CodecSpec;
use crate::error::SpecError;
use crate::layer::Layer;
use crate::manifest::{ParamManifest, ParamRole};
use crate::moments::{self, FeatureRange, Moments, Standardisation};
use crate::preset;
use crate::shape::infer;
use crate::task::{Backend, Goal, PrivacyPlan, Scale, TaskFile, TaskKind, TrainSettings, Weights, down_checked};

/// What a device has to know to take part: nothing of where its data lie, everything of how to train on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskPlan {
    /// The task's name.
    pub name: String,
    /// What is learnt.
    pub kind: TaskKind,
    /// The shape of one sample.
    pub shape: Vec<usize>,
    /// How features are scaled.
    pub scale: Scale,
    /// What [`Scale::Standardise`] scales by; what each device finds in its own rows where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standardise: Option<Standardisation>,
    /// Where the run is for the moments of features and trains nothing: the interval of each. There are no layers then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moments: Option<FeatureRange>,
    /// The network.
    pub layers: Vec<Layer>,
    /// Which backend computes it.
    pub backend: Backend,
    /// Local training.
    pub train: TrainSettings,
    /// What travels, and its numeric bounds.
    pub update: UpdateSettings,
    /// The share of a device's data that it holds out for evaluation.
    pub holdout: f64,
    /// What the hold-outs are drawn by, where it is not `seed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_seed: Option<u64>,
    /// What initialisers, batch order, dropout masks and stochastic rounding are derived from. It is public.
    pub seed: u64,
    /// What the aggregator may learn; single updates where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyPlan>,
}

/// The numeric contract of a run's updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateSettings {
    /// The codec of updates.
    pub codec: CodecSpec,
    /// The codec of model versions: one that [`CodecSpec::encodes_versions`].
    pub down: CodecSpec,
    /// The largest magnitude of one value is `2^value_max_log2`.
    pub value_max_log2: i8,
    /// The largest weight of one update.
    pub weight_max: u32,
}

impl TaskPlan {
    /// The plan of `task` under `seed`.
    ///
    /// # Errors
    /// [`SpecError`] when a preset is unknown or a layer does not fit the sample's shape.
    pub fn new(task: &TaskFile, seed: u64) -> Result<Self, SpecError> {
        let shape = match (task.kind, task.data.context) {
            (TaskKind::NextToken, Some(context)) if context > 0 => vec![context],
            (TaskKind::NextToken, _) => {
                return Err(SpecError::value(
                    "data.context",
                    "…",
                    "a next-token task needs at least 1 token of context",
                ));
            }
            _ if task.data.shape.is_empty() || task.data.shape.contains(&0) => {
                return Err(SpecError::value("data.shape", format!("{:?}", task.data.shape), "expected sizes above 0"));
            }
            _ => task.data.shape.clone(),
        };
        let layers = match (&task.model.preset, &task.model.layers) {
            (Some(name), _) => preset::layers(name)?,
            (None, layers) => layers.clone().unwrap_or_default(),
        };
        #[allow(clippy::cast_possible_truncation, reason = "value_max lies in 2^-20 to 2^20, checked by the task file")]
        let value_max_log2 = task.update.value_max.log2().ceil() as i8;
        let asks_moments = task.federation.goal == Goal::Moments;
        let moments = task.data.range.clone().filter(|_| asks_moments);
        let uniform = task.privacy.as_ref().is_some_and(|privacy| privacy.weights == Weights::Uniform);
        let plan = Self {
            name: task.name.clone(),
            kind: task.kind,
            shape,
            scale: task.data.scale,
            standardise: task.data.standardise.clone(),
            moments,
            layers: if asks_moments { Vec::new() } else { layers },
            backend: task.model.backend,
            train: task.train.clone(),
            update: UpdateSettings {
                codec: task.update.codec,
                down: task.update.down,
                value_max_log2,
                // A device that counts as one of many says so, and nothing of its rows.
                weight_max: if uniform { 1 } else { task.update.weight_max },
            },
            holdout: task.federation.holdout,
            holdout_seed: task.federation.holdout_seed,
            seed,
            privacy: task.privacy.as_ref().map(|asked| PrivacyPlan::new(asked, &task.federation)),
        };
        let manifest = plan.manifest()?;
        let private = task.privacy.as_ref().is_some_and(|privacy| privacy.dp.is_some());
        if private && manifest.tensors.iter().any(|tensor| tensor.role == ParamRole::Statistic) {
            return Err(SpecError::value(
                "model.layers",
                "\"batch_norm\"",
                "running statistics of a device's rows carry no noise: use group_norm or layer_norm under privacy.dp",
            ));
        }
        plan.train.dp_sgd.map_or(Ok(()), |dp_sgd| dp_sgd.check_plan(&plan))?;
        Ok(plan)
    }

    /// The parameters of the plan's network.
    ///
    /// # Errors
    /// [`SpecError::Layer`] when a layer does not fit.
    pub fn manifest(&self) -> Result<ParamManifest, SpecError> {
        if self.moments.is_some() {
            return Ok(moments::manifest(&self.shape));
        }
        infer(self.kind, &self.shape, &self.layers).map(|network| network.manifest)
    }

    /// The moments of features, where the run is for them.
    pub fn moments(&self) -> Option<Moments<'_>> {
        let range = self.moments.as_ref()?;
        Some(Moments::new(range, &self.shape, self.privacy.as_ref()))
    }

    /// The seed of the devices' hold-outs.
    pub fn holdout_seed(&self) -> u64 {
        self.holdout_seed.unwrap_or(self.seed)
    }

    /// Whether the aggregator sees sums of updates only.
    pub fn is_secure(&self) -> bool {
        self.privacy.as_ref().is_some_and(|privacy| privacy.asked.secure_aggregation)
    }

    /// The plan of a round: what the run's plan says, with the clipping norm that `clip` gives it. None where the run has no such round; see
    /// [`PrivacyPlan::for_round`].
    pub fn for_round(&self, clip: Option<f64>) -> Option<Self> {
        let privacy = match &self.privacy {
            None if clip.is_some() => return None,
            None => None,
            Some(privacy) => Some(privacy.for_round(clip)?),
        };
        Some(Self { privacy, ..self.clone() })
    }

    /// The clipping norm, where it adapts: that of the first round, or in a round's own plan that of the round.
    pub fn adaptive_clip(&self) -> Option<f64> {
        let asked = &self.privacy.as_ref()?.asked;
        asked.adaptive_clip.and(asked.clip())
    }

    /// The plan as it travels.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a plan holds nothing that JSON cannot say: its numbers were checked finite")
    }

    /// The plan in `json`, checked as a peer's.
    ///
    /// # Errors
    /// [`SpecError`] when it is no plan, its layers do not fit, or versions do not travel in its `down`.
    pub fn from_json(json: &[u8]) -> Result<Self, SpecError> {
        let plan: Self = serde_json::from_slice(json).map_err(|error| SpecError::Toml(error.to_string()))?;
        down_checked(plan.update.down)?;
        plan.moments.as_ref().map_or(Ok(()), |range| range.check(plan.kind, &plan.shape))?;
        plan.standardise.as_ref().map_or(Ok(()), |standardise| standardise.check(&plan.shape))?;
        plan.manifest()?;
        plan.train.dp_sgd.map_or(Ok(()), |dp_sgd| dp_sgd.check_plan(&plan))?;
        Ok(plan)
    }

    /// The first half of the SHA-256 of the plan's JSON: what [`starling_wire`'s `TaskId`] holds.
    ///
    /// [`starling_wire`'s `TaskId`]: https://docs.rs/starling-wire
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0u8; 16];
        id.copy_from_slice(&digest(&SHA256, &self.to_json()).as_ref()[..16]);
        id
    }
}
