//! Calibration: the ranges that integer layers spread their levels over.

/// What a tensor was multiplied with, so far.
#[derive(Debug)]
pub(crate) struct Seen;
