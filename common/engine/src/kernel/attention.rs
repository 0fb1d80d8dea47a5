//! Scaled dot-product attention (Vaswani et al. 2017, §3.2).

/// Parts that sums are held in, side by side.
const LANES: usize = 8;

compiled_twice!(
    /// `softmax(Q Kᵀ / √d) V` of each head of one sample. `projected` is `[positions, 3 features]` (query, key, value), `joined`
    /// `[positions, features]`, `scores` scratch of one row. When `causal`, a position sees itself and what comes before it.
    heads / heads_body(
        projected: &[f32],
        features: usize,
        heads: usize,
        causal: bool,
        scores: &mut [f32],
        joined: &mut [f32],
    )
);

#[inline(always)]
fn heads_body(projected: &[f32], features: usize, heads: usize, causal: bool, scores: &mut [f32], joined: &mut [f32]) {
    let width = features / heads;
    let scale = 1.0 / (width as f32).sqrt();
    let part = |position: usize, third: usize, head: usize| {
        &projected[(position * 3 + third) * features + head * width..][..width]
    };
    for (position, joined) in joined.chunks_exact_mut(features).enumerate() {
        let seen = if causal { position + 1 } else { scores.len() };
        for (head, joined) in joined.chunks_exact_mut(width).enumerate() {
            let query = part(position, 0, head);
            let scores = &mut scores[..seen];
            for (other, score) in scores.iter_mut().enumerate() {
                *score = dot(query, part(other, 1, head)) * scale;
            }
            softmax(scores);
            joined.fill(0.0);
            for (other, score) in scores.iter().enumerate() {
                joined.iter_mut().zip(part(other, 2, head)).for_each(|(joined, value)| *joined += score * value);
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Shares that sum to 1, by the exponentials; the largest is taken off first, so that none overflows.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().fold(f32::NEG_INFINITY, |largest, score| largest.max(*score));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}
