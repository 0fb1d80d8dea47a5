//! Whole attempts of real machines: sums, drop-outs, and an aggregator that cheats.

mod attacks;
mod bytes;
mod restart;
mod sums;
mod vectors;
mod world;
