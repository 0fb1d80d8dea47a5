//! Time of one sample, measured.

use std::time::Instant;

use starling_engine::{Inference, InferenceError};

use crate::search::Stopwatch;

/// Percentiles of single runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// 99 of 100 runs took at most this.
    pub p99_us: f64,
    /// The mean.
    pub mean_us: f64,
}

/// Runs before the first one that counts: caches, branch history and the processor's clock settle.
const WARM_UP: usize = 200;

/// Times `runs` runs of `batch` samples each on this thread; every run takes the next samples of `inputs`, a whole number of
/// samples, from the start again when they end.
///
/// # Errors
/// What the inference says.
///
/// # Panics
/// If `inputs` hold less than one sample, or `runs` is 0.
pub fn measure(
    inference: &mut dyn Inference,
    inputs: &[f32],
    batch: usize,
    runs: usize,
) -> Result<Latency, InferenceError> {
    let length = inference.input_len() * batch.max(1);
    // A batch larger than the inputs repeats them.
    let repeated: Vec<f32> = inputs.iter().copied().cycle().take(inputs.len().max(length)).collect();
    let mut batches = repeated.chunks_exact(length).cycle();
    let mut outputs = Vec::with_capacity(inference.output_len() * batch.max(1));
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs + WARM_UP.min(runs) {
        let features = batches.next().expect("at least one batch");
        outputs.clear();
        let started = Instant::now();
        inference.run_into(features, &mut outputs)?;
        std::hint::black_box(&outputs);
        if run >= WARM_UP.min(runs) {
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "a count of runs")]
    let mean_us = times.iter().sum::<f64>() / times.len() as f64;
    Ok(Latency {
        p50_us: times[times.len() / 2],
        p99_us: times[(times.len() * 99 / 100).min(times.len() - 1)],
        mean_us,
    })
}

/// A stopwatch that runs each candidate so many times.
#[derive(Debug, Clone, Copy)]
pub struct Runs(pub usize);

impl Stopwatch for Runs {
    fn median_us(&mut self, inference: &mut dyn Inference, inputs: &[f32]) -> Option<f64> {
        measure(inference, inputs, 1, self.0).ok().map(|latency| latency.p50_us)
    }
}
