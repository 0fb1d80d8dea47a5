//! By what, where and how fast weights are pruned.

use std::fmt;

use starling_compress::method::prune::{Criterion, Mask, Shares, mask};
use starling_spec::shape::Network;

use crate::error::SearchError;

/// How the pruned candidates of a search (and the pruned and shared ones) lose their weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruning {
    /// What a weight's worth goes by.
    pub by: PruneBy,
    /// Among which weights the worthiest are kept.
    pub scope: PruneScope,
    /// How the smaller shares are reached.
    pub pace: PrunePace,
}

/// What a weight's worth goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PruneBy {
    /// Its magnitude; across layers as LAMP has it, against the larger weights of its own layer (Lee et al. 2021, eq. 3).
    #[default]
    Magnitude,
    /// The first-order estimate of what the loss changes by without it, `|w · ∂L/∂w|` (Molchanov et al. 2017 and 2019).
    Saliency,
    /// Its magnitude, each layer keeping the share that its measured output differences `1/N Σ‖y − ŷ‖²` give it (see
    /// [`starling_compress::method::sensitivity`]).
    Output,
}

/// Among which weights the worthiest are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PruneScope {
    /// All together: layers keep different shares.
    #[default]
    Global,
    /// Those of each layer: all keep the same share.
    Layer,
}

/// How the smaller shares are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrunePace {
    /// Each share from the tuned network of the share before; masks move while they are tuned, where the side with the data can.
    #[default]
    Gradual,
    /// Each share from the full model, with a mask that is drawn once.
    OneShot,
}

impl Pruning {
    /// Whether its parts go together.
    ///
    /// # Errors
    /// [`SearchError::Pruning`] where they do not.
    pub fn check(self) -> Result<Self, SearchError> {
        if (self.by, self.scope) == (PruneBy::Output, PruneScope::Layer) {
            return Err(SearchError::Pruning(
                "measured output differences decide how much each layer keeps, and in scope \"layer\" all keep the same share; \
                 prune by output in scope \"global\", or by magnitude or saliency in scope \"layer\""
                    .into(),
            ));
        }
        Ok(self)
    }
}

impl fmt::Display for Pruning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.by, self.scope) {
            (PruneBy::Magnitude, PruneScope::Global) => "by magnitude over all layers (LAMP)",
            (PruneBy::Magnitude, PruneScope::Layer) => "by magnitude, the same share of each layer",
            (PruneBy::Saliency, PruneScope::Global) => "by first-order effect on the loss, |w·∂L/∂w|, over all layers",
            (PruneBy::Saliency, PruneScope::Layer) => {
                "by first-order effect on the loss, |w·∂L/∂w|, the same share of each layer"
            }
            (PruneBy::Output, _) => {
                "by magnitude, each layer's share set by its measured output difference 1/N Σ‖y−ŷ‖²"
            }
        })?;
        f.write_str(match self.pace {
            PrunePace::Gradual => "; gradually, tuned at each step",
            PrunePace::OneShot => "; in one step from the full model, then tuned",
        })
    }
}

impl PruneBy {
    /// Its word on the command line and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Saliency => "saliency",
            Self::Output => "output",
        }
    }
}

impl PruneScope {
    /// Its word on the command line and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Layer => "layer",
        }
    }
}

impl PrunePace {
    /// Its word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gradual => "gradual",
            Self::OneShot => "one-shot",
        }
    }
}

/// How the weights that [`Constraint::Share`](crate::Constraint::Share) keeps are told from the others.
#[derive(Debug, Clone, Copy, Default)]
pub enum Worth<'a> {
    /// The largest of all layers together, by LAMP.
    #[default]
    Lamp,
    /// The largest of each layer, the same share of all.
    Magnitude,
    /// Those with the largest first-order effect on the loss.
    Saliency(PruneScope),
    /// The largest of each prunable tensor, by its own share.
    Measured(&'a [f64]),
}

impl Worth<'_> {
    /// Whether it takes a gradient.
    pub fn needs_gradient(self) -> bool {
        matches!(self, Self::Saliency(_))
    }

    /// The mask of the worthiest `share` of `network`'s prunable weights; measured shares have the last word. `gradient` is looked
    /// at where it [is needed](Worth::needs_gradient).
    ///
    /// # Panics
    /// If `parameters`, a gradient that is needed, or measured shares are not the network's.
    pub fn mask(self, network: &Network, parameters: &[f32], share: f64, gradient: &[f32]) -> Mask {
        let (criterion, shares) = match self {
            Self::Lamp => (Criterion::Lamp, Shares::Global(share)),
            Self::Magnitude => (Criterion::Magnitude, Shares::Uniform(share)),
            Self::Saliency(PruneScope::Global) => (Criterion::Saliency(gradient), Shares::Global(share)),
            Self::Saliency(PruneScope::Layer) => (Criterion::Saliency(gradient), Shares::Uniform(share)),
            Self::Measured(shares) => (Criterion::Magnitude, Shares::PerLayer(shares.to_vec())),
        };
        mask(network, parameters, criterion, &shares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_shares_and_equal_shares_exclude_each_other() {
        let both = Pruning { by: PruneBy::Output, scope: PruneScope::Layer, ..Pruning::default() };
        assert!(both.check().expect_err("they exclude each other").to_string().contains("scope \"global\""));
        assert!(Pruning { scope: PruneScope::Global, ..both }.check().is_ok());
    }
}
