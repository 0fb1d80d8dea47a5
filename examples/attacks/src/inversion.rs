//! Pictures out of the gradient of an honest network that begins with a linear layer and a ReLU.
//!
//! One step on a batch changes neuron i's weights by `Σ_j d_ij · x_j` and its bias by `Σ_j d_ij`, over the examples x_j that the
//! neuron is active for. So `[ΔW | Δb] = D · [X | 1]`, and what is asked is X.
//!
//! - [`one`]: a single example. Each row is that example times the bias's change (Phong et al. 2017, "Privacy-preserving deep learning
//!   via additively homomorphic encryption", §3; Geiping et al. 2020, "Inverting gradients", Proposition 3.1).
//! - [`batch`]: b examples. The matrix has rank b, so its rows span the examples, mixed. ReLU unmixes them: about half of each column of D is
//!   zero. b − 1 rows of a basis that lie in the zeros of one column determine it, and a column that was found so has far more zeros
//!   than the b − 1 that were put in (Dimitrov et al. 2024, "SPEAR: Exact gradient inversion of batches in federated learning"). The
//!   bias fixes the scale of each picture.

use starling_spec::random::{Purpose, Random};

use crate::algebra::{Matrix, column_basis, dot, inverted, norm, product, transposed, vanishing, weakest};
use crate::picture::Picture;

/// The picture of a single example: all rows together, each counted by its bias's change. With more than one example it is their
/// mean, weighted by nothing that a person would choose.
pub fn one(layer: &[Vec<f64>], side: usize) -> Picture {
    let (pixels, mut total) = (side * side, 0.0);
    let mut sum = vec![0.0; pixels];
    for row in layer {
        let bias = row[pixels];
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += bias * value);
        total += bias * bias;
    }
    Picture::new(side, sum.into_iter().map(|value| value / total))
}

/// What [`batch`] found.
#[derive(Debug, Clone)]
pub struct Unmixed {
    /// The closed form's picture, then one for each example and each of what may count as zero.
    pub pictures: Vec<Picture>,
    /// How many columns of D were found at most.
    pub columns: usize,
}

/// What may count as zero, against the largest entry of a column: it has to be above the error of what was observed, which the attacker
/// does not know. So each is tried.
const ZEROS: [f64; 6] = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2];

/// The pictures of a batch of `examples`, which the attacker knows from the update's report, or assumes. `draws` sets of rows are tried for
/// each bound of what may count as zero, and all that comes of it is laid on the table: which ones are pictures, a person sees.
pub fn batch(layer: &[Vec<f64>], side: usize, examples: usize, draws: u64, seed: u64) -> Unmixed {
    let mut random = Random::new(seed, Purpose::Noise, &[1]);
    let mut unmixed = Unmixed { pictures: vec![one(layer, side)], columns: 0 };
    let largest = layer.iter().map(|row| norm(row)).fold(0.0, f64::max);
    // Neurons that no example reaches say nothing.
    let active: Matrix = layer.iter().filter(|row| norm(row) > largest * 1e-5).cloned().collect();
    if active.len() < examples || examples < 2 {
        return unmixed;
    }
    let basis = column_basis(&active, examples, &mut random);
    let seen = product(&transposed(&basis), &active);
    for zero in ZEROS {
        let mut found: Vec<Column> = Vec::new();
        let drawn = (0..draws).filter_map(|_| draw(&basis, zero, &mut random));
        drawn.take(SEEN_EACH * examples).for_each(|column| keep(&mut found, column, KEPT_EACH * examples));
        let mut mixing = independent(found, examples);
        unmixed.columns = unmixed.columns.max(mixing.len());
        while mixing.len() < examples {
            mixing.push((0..examples).map(|_| random.normal()).collect());
        }
        // [ΔW | Δb] = U·(Uᵀ·[ΔW | Δb]) = (U·Q)·(Q⁻¹·Uᵀ·[ΔW | Δb]): the right factor is [X | 1], each row times some number.
        let Some(unmixing) = inverted(&transposed(&mixing)) else { continue };
        let picture = |row: Vec<f64>| {
            let scale = row[side * side];
            Picture::new(side, row[..side * side].iter().map(|value| value / scale))
        };
        unmixed.pictures.extend(product(&unmixing, &seen).into_iter().map(picture));
    }
    unmixed
}

/// A candidate for a column of D.
struct Column {
    /// In the basis.
    direction: Vec<f64>,
    /// The column.
    values: Vec<f64>,
    zeros: usize,
}

impl Column {
    fn new(basis: &[Vec<f64>], direction: Vec<f64>, zero: f64) -> Self {
        let values: Vec<f64> = basis.iter().map(|row| dot(row, &direction)).collect();
        let bound = zero * values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let zeros = values.iter().filter(|value| value.abs() <= bound).count();
        Self { direction, values, zeros }
    }
}

/// A column that has many more zeros than were put in, if these rows give one.
fn draw(basis: &[Vec<f64>], zero: f64, random: &mut Random) -> Option<Column> {
    let (rank, rows) = (basis[0].len(), basis.len());
    let mut chosen: Vec<usize> = Vec::with_capacity(rank - 1);
    while chosen.len() < rank - 1 {
        let row = usize::try_from(random.below(rows as u64)).expect("a place in a matrix");
        if !chosen.contains(&row) {
            chosen.push(row);
        }
    }
    let lines: Vec<&[f64]> = chosen.iter().map(|row| &basis[*row][..]).collect();
    let mut column = Column::new(basis, vanishing(&lines)?, zero);
    let enough = rank - 1 + MORE_ZEROS.max(rows / 50);
    if column.zeros < enough {
        return None;
    }
    // Again from all of its zeros: errors of single rows average out.
    for _ in 0..3 {
        let bound = zero * column.values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let pairs = basis.iter().zip(&column.values);
        let silent: Vec<&[f64]> = pairs.filter(|(_, value)| value.abs() <= bound).map(|(row, _)| &row[..]).collect();
        let better = Column::new(basis, weakest(&silent)?, zero);
        if better.zeros < column.zeros {
            break;
        }
        column = better;
    }
    Some(column)
}

/// Zeros beyond those put in that are no accident.
const MORE_ZEROS: usize = 4;

/// Candidates that are looked at, and those that are kept, for each example.
const SEEN_EACH: usize = 400;
const KEPT_EACH: usize = 8;

/// Puts a column among those found, unless it is one of them; the one with the fewest zeros goes when there are more than `most`.
fn keep(found: &mut Vec<Column>, column: Column, most: usize) {
    let alike = |other: &Column| dot(&column.direction, &other.direction).abs() > 0.999;
    match found.iter().position(alike) {
        Some(place) if found[place].zeros < column.zeros => found[place] = column,
        Some(_) => {}
        None => found.push(column),
    }
    if found.len() > most {
        let fewest = (0..found.len()).min_by_key(|place| found[*place].zeros).expect("there are some");
        found.swap_remove(fewest);
    }
}

/// The directions with the most zeros, none of which follows from those before. A mixture of two columns of D is zero only where
/// both are, so each column comes before its mixtures.
fn independent(mut found: Vec<Column>, most: usize) -> Matrix {
    found.sort_by_key(|column| std::cmp::Reverse(column.zeros));
    let (mut chosen, mut spanned) = (Matrix::new(), Matrix::new());
    for column in found {
        let mut rest = column.direction.clone();
        for other in &spanned {
            let along = dot(&rest, other);
            rest.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        let length = norm(&rest);
        if length > 0.02 && chosen.len() < most {
            spanned.push(rest.into_iter().map(|value| value / length).collect());
            chosen.push(column.direction);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A layer of `neurons` under a ReLU and what one step on these examples does to it.
    fn layer(examples: &[Vec<f64>], neurons: usize, random: &mut Random) -> Matrix {
        let weights: Matrix = (0..neurons).map(|_| examples[0].iter().map(|_| random.normal()).collect()).collect();
        weights
            .iter()
            .map(|weights| {
                let mut row = vec![0.0; weights.len() + 1];
                for example in examples.iter().filter(|example| dot(weights, example) > 0.0) {
                    let d = random.normal();
                    row.iter_mut().zip(example.iter().chain([&1.0])).for_each(|(row, value)| *row += d * value);
                }
                row
            })
            .collect()
    }

    #[test]
    fn a_batch_is_unmixed_exactly() {
        let mut random = Random::new(3, Purpose::Noise, &[]);
        let examples: Matrix = (0..6).map(|_| (0..16).map(|_| random.unit_f64()).collect()).collect();
        let layer = layer(&examples, 150, &mut random);
        let truth: Vec<Picture> = examples.iter().map(|values| Picture::new(4, values.iter().copied())).collect();
        let found = batch(&layer, 4, 6, 50_000, 1);
        assert_eq!(found.columns, 6);
        let matches = crate::picture::matches(&truth, &found.pictures);
        assert!(matches.iter().all(|found| found.psnr_db > 60.0), "{matches:?}");
    }

    #[test]
    fn one_example_needs_no_search() {
        let mut random = Random::new(4, Purpose::Noise, &[]);
        let example: Vec<f64> = (0..16).map(|_| random.unit_f64()).collect();
        let layer = layer(std::slice::from_ref(&example), 20, &mut random);
        assert!(one(&layer, 4).psnr_db(&Picture::new(4, example)) > 90.0);
    }
}
