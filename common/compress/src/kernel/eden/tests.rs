use super::*;

/// φ and Φ of N(0, 1); Φ by the series of Abramowitz and Stegun 26.2.11, which is exact for the arguments here.
fn density(x: f64) -> f64 {
    if x.is_infinite() { 0.0 } else { (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() }
}

fn distribution(x: f64) -> f64 {
    if x.is_infinite() {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum) = (x, x);
    for k in 1..200u32 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 + density(x) * sum
}

#[test]
fn the_centroids_are_those_of_lloyds_iteration() {
    for bits in 1..=4u32 {
        let size = 1usize << bits;
        let mut centroids: Vec<f64> = (0..size).map(|i| 6.0 * (i as f64 + 0.5) / size as f64 - 3.0).collect();
        let mut distortion = 0.0;
        for _ in 0..3000 {
            let inner = centroids.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let edges: Vec<f64> =
                std::iter::once(f64::NEG_INFINITY).chain(inner).chain(std::iter::once(f64::INFINITY)).collect();
            distortion = 1.0;
            for (centroid, edge) in centroids.iter_mut().zip(edges.windows(2)) {
                let mass = distribution(edge[1]) - distribution(edge[0]);
                *centroid = (density(edge[0]) - density(edge[1])) / mass;
                distortion -= *centroid * *centroid * mass;
            }
        }
        let ours = levels(usize::try_from(bits).expect("small"));
        for (derived, ours) in centroids.iter().zip(ours) {
            assert!((derived - f64::from(ours)).abs() < 2e-7, "{bits} bits: {derived} is {ours}");
        }
        let expected = [0.3634, 0.1175, 0.03455, 0.009501][usize::try_from(bits - 1).expect("small")];
        assert!((distortion - expected).abs() < 1e-4, "{bits} bits: distortion {distortion}");
    }
}

#[test]
fn blocks_tile_every_length() {
    for count in (0..300).chain([4095, 4096, 4097, 12_345, 1 << 14]) {
        let (mut end, mut bytes) = (0, SEED_BYTES);
        for block in blocks(count) {
            assert_eq!(block.start, end);
            assert!(block.padded.is_power_of_two() && block.padded >= LANES && block.padded <= BLOCK);
            assert!(block.len == block.padded || block.start + block.len == count, "only the last is padded");
            assert!(block.padded < 2 * block.len.max(LANES));
            end += block.len;
            bytes += block.bytes(3);
        }
        assert_eq!((end, bytes), (count, encoded_len(3, count)));
    }
}
