//! What is measured of a candidate, and the limits it is held against.

use starling_spec::TaskKind;

/// What is known of a compressed model. Accuracy and loss are those of the validation rows, never of test data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// The share of validation examples that are classified right; 0 for a regression.
    pub accuracy: f64,
    /// The mean loss over validation examples.
    pub loss: f64,
    /// The standard error of [`Figures::points_lost`], from the same examples under both models; unknown where only sums of
    /// answers are known, or for a regression.
    pub points_error: Option<f64>,
    /// Bytes of the release file.
    pub bytes: u64,
    /// Multiply-accumulates a sample, kept weights only; unknown where the engine cannot run the model.
    pub macs: Option<u64>,
    /// The median time of one sample on one thread of this machine; unknown where the engine cannot run the model.
    pub latency_us: Option<f64>,
}

impl Figures {
    /// A number that is larger the better the model answers: accuracy, or for a regression the loss with its sign turned.
    pub fn quality(&self, kind: TaskKind) -> f64 {
        if kind == TaskKind::Regression { -self.loss } else { self.accuracy }
    }

    /// How much worse than `baseline` it answers: percentage points of accuracy, or for a regression per cent of the
    /// baseline's loss. Negative when it is better.
    pub fn points_lost(&self, baseline: &Self, kind: TaskKind) -> f64 {
        if kind == TaskKind::Regression {
            100.0 * (self.loss / baseline.loss.max(f64::MIN_POSITIVE) - 1.0)
        } else {
            100.0 * (baseline.accuracy - self.accuracy)
        }
    }

    /// What it loses on rows that nobody has seen, with 95 % confidence: by its point estimate alone, the best-looking of many
    /// candidates would often turn out to lose more. Without [`Figures::points_error`] it is the point estimate.
    pub fn points_lost_at_most(&self, baseline: &Self, kind: TaskKind) -> f64 {
        self.points_lost(baseline, kind) + SURE_ERRORS * self.points_error.unwrap_or(0.0)
    }
}

/// Standard errors that are added to a loss before it is held against a limit: true of 95 losses in 100, one-sided.
const SURE_ERRORS: f64 = 1.645;

/// What the device can bear and the user accepts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// The largest file.
    pub bytes_max: Option<u64>,
    /// The longest median latency of one sample, on this machine.
    pub latency_us_max: Option<f64>,
    /// The most multiply-accumulates a sample.
    pub macs_max: Option<u64>,
    /// The most points of accuracy that may be lost against the full model (see [`Figures::points_lost_at_most`]).
    pub points_lost_max: Option<f64>,
}

/// The accuracy loss that is accepted when no limit at all is given.
pub const POINTS_LOST_DEFAULT: f64 = 0.2;

/// One of the four limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::bytes_max`].
    Bytes,
    /// [`Limits::latency_us_max`].
    Latency,
    /// [`Limits::macs_max`].
    Macs,
    /// [`Limits::points_lost_max`].
    Accuracy,
}

impl Limit {
    /// The flag of the command line that sets it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Bytes => "--max-bytes",
            Self::Latency => "--max-latency-us",
            Self::Macs => "--max-macs",
            Self::Accuracy => "--max-accuracy-loss",
        }
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// By how much `figures` exceed each limit that they exceed, as a share of the limit (points for accuracy). What is not
    /// known of a candidate is taken to exceed its limit without bound.
    pub fn exceeded(&self, figures: &Figures, baseline: &Figures, kind: TaskKind) -> Vec<(Limit, f64)> {
        let over = |limit: Limit, value: Option<f64>, max: Option<f64>| {
            let max = max?;
            let excess = value.map_or(f64::INFINITY, |value| value / max.max(f64::MIN_POSITIVE) - 1.0);
            (excess > 0.0).then_some((limit, excess))
        };
        #[allow(clippy::cast_precision_loss, reason = "sizes and counts stay far below 2^53")]
        let float = |value: u64| value as f64;
        let lost = self.points_lost_max.map(|max| figures.points_lost_at_most(baseline, kind) - max);
        [
            over(Limit::Bytes, Some(float(figures.bytes)), self.bytes_max.map(float)),
            over(Limit::Latency, figures.latency_us, self.latency_us_max),
            over(Limit::Macs, figures.macs.map(float), self.macs_max.map(float)),
            // A limit of 0.2 points is meant to the last example, not to the last bit of a subtraction.
            lost.filter(|excess| *excess > 1e-9).map(|excess| (Limit::Accuracy, excess)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
