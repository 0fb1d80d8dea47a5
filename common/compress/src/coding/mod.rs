//! Entropy coding of a release: where the kept weights are, and what they are.
//!
//! Two coders compete for each stream, and the smaller result is kept. One is that of Deep Compression (Han, Mao, Dally 2016, §3.1
//! and §4): relative indices with fillers, Huffman-coded ([`relative`], [`huffman`]). The other is an adaptive binary arithmetic
//! coder whose probabilities come from the weight's surroundings ([`positions`], [`levels`], [`floats`]), in the line of CABAC and
//! DeepCABAC (Wiedemann et al. 2019); it wins on all but toy tensors. For a pruned lenet-300-100 positions take 20 to 25 % fewer
//! bits than independent ones would, because pruning leaves patterns: pixels that no unit looks at, units that look at
//! little, and neighbouring pixels that are looked at together.
//!
//! Nothing here allocates by a number from outside: callers pass slices whose lengths the network's manifest fixed.

pub(crate) mod adaptive;
pub(crate) mod bits;
pub(crate) mod floats;
pub(crate) mod grid;
pub(crate) mod huffman;
pub(crate) mod levels;
pub(crate) mod positions;
pub(crate) mod range;
pub(crate) mod relative;

/// Bytes that no encoder writes. Whoever knows the tensor's name adds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

#[cfg(test)]
mod tests;
