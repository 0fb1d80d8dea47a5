//! The little linear algebra that attacks need: bases of column spaces, directions that vanish, small systems.

use starling_spec::random::Random;

/// Rows of numbers.
pub type Matrix = Vec<Vec<f64>>;

/// The inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The L2 norm.
pub fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

/// `rows` × `columns` of the left matrix times the right one.
pub fn product(left: &[Vec<f64>], right: &[Vec<f64>]) -> Matrix {
    let width = right.first().map_or(0, Vec::len);
    let row = |row: &Vec<f64>| {
        let mut out = vec![0.0; width];
        for (factor, right) in row.iter().zip(right) {
            out.iter_mut().zip(right).for_each(|(out, value)| *out += factor * value);
        }
        out
    };
    left.iter().map(row).collect()
}

/// Rows become columns.
pub fn transposed(matrix: &[Vec<f64>]) -> Matrix {
    let width = matrix.first().map_or(0, Vec::len);
    (0..width).map(|column| matrix.iter().map(|row| row[column]).collect()).collect()
}

/// The `rank` strongest directions of the columns of `matrix`, orthonormal, as columns: orthogonal iteration on `A·Aᵀ` (Golub and Van
/// Loan, "Matrix Computations", §8.2.4).
pub fn column_basis(matrix: &[Vec<f64>], rank: usize, random: &mut Random) -> Matrix {
    let mut basis: Matrix = (0..rank).map(|_| matrix.iter().map(|_| random.normal()).collect()).collect();
    let across = transposed(matrix);
    for _ in 0..ITERATIONS {
        // Directions are rows here: basis · A · Aᵀ.
        basis = product(&product(&basis, matrix), &across);
        orthonormalise(&mut basis);
    }
    transposed(&basis)
}

/// Where the weakest direction that counts is a hundredth of the strongest one that does not, far more than enough.
const ITERATIONS: usize = 40;

/// Gram and Schmidt, twice, which is as good as exact.
fn orthonormalise(rows: &mut [Vec<f64>]) {
    for index in 0..rows.len() {
        let (before, rest) = rows.split_at_mut(index);
        let row = &mut rest[0];
        for _ in 0..2 {
            for other in before.iter() {
                let along = dot(row, other);
                row.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        let length = norm(row).max(f64::MIN_POSITIVE);
        row.iter_mut().for_each(|value| *value /= length);
    }
}

/// A vector of length 1 that all of `rows` send to zero; they are one fewer than their columns. None where they leave more than one.
pub fn vanishing(rows: &[&[f64]]) -> Option<Vec<f64>> {
    let columns = rows.len() + 1;
    let mut system: Matrix = rows.iter().map(|row| row.to_vec()).collect();
    let mut order: Vec<usize> = (0..columns).collect();
    for step in 0..rows.len() {
        let places = (step..rows.len()).flat_map(|row| (step..columns).map(move |column| (row, column)));
        let size = |(row, column): (usize, usize)| system[row][column].abs();
        let (row, column) = places.max_by(|a, b| size(*a).total_cmp(&size(*b)))?;
        if size((row, column)) < 1e-12 {
            return None;
        }
        system.swap(step, row);
        order.swap(step, column);
        system.iter_mut().for_each(|row| row.swap(step, column));
        let (above, below) = system.split_at_mut(step + 1);
        let pivot = &above[step];
        for row in below {
            let factor = row[step] / pivot[step];
            row[step..].iter_mut().zip(&pivot[step..]).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut solved = vec![0.0; columns];
    solved[columns - 1] = 1.0;
    for step in (0..rows.len()).rev() {
        let known = dot(&system[step][step + 1..], &solved[step + 1..]);
        solved[step] = -known / system[step][step];
    }
    let mut vector = vec![0.0; columns];
    order.iter().zip(&solved).for_each(|(place, value)| vector[*place] = *value);
    let length = norm(&vector);
    vector.iter_mut().for_each(|value| *value /= length);
    Some(vector)
}

/// The vector of length 1 that `rows` shrink the most: inverse iteration on their Gram matrix.
pub fn weakest(rows: &[&[f64]]) -> Option<Vec<f64>> {
    let size = rows.first()?.len();
    let mut gram: Matrix = vec![vec![0.0; size]; size];
    for row in rows {
        for (line, factor) in gram.iter_mut().zip(*row) {
            line.iter_mut().zip(*row).for_each(|(value, other)| *value += factor * other);
        }
    }
    let trace: f64 = (0..size).map(|index| gram[index][index]).sum();
    // A little more than nothing, so that a direction that vanishes entirely does not divide by zero.
    (0..size).for_each(|index| gram[index][index] += trace * 1e-14);
    let inverse = inverted(&gram)?;
    let mut vector = vec![1.0; size];
    for _ in 0..20 {
        vector = inverse.iter().map(|row| dot(row, &vector)).collect();
        let length = norm(&vector);
        vector.iter_mut().for_each(|value| *value /= length);
    }
    Some(vector)
}

/// The inverse of a small square matrix, by Gauss and Jordan with pivots; none where there is none.
pub fn inverted(matrix: &[Vec<f64>]) -> Option<Matrix> {
    let size = matrix.len();
    let unit = |row: usize| (0..size).map(move |column| if row == column { 1.0 } else { 0.0 });
    let mut system: Matrix =
        matrix.iter().enumerate().map(|(row, values)| values.iter().copied().chain(unit(row)).collect()).collect();
    for step in 0..size {
        let pivot = (step..size).max_by(|a, b| system[*a][step].abs().total_cmp(&system[*b][step].abs()))?;
        system.swap(step, pivot);
        let divisor = system[step][step];
        if divisor == 0.0 || !divisor.is_finite() {
            return None;
        }
        system[step].iter_mut().for_each(|value| *value /= divisor);
        let line = system[step].clone();
        for (other, row) in system.iter_mut().enumerate().filter(|(other, _)| *other != step) {
            let _ = other;
            let factor = row[step];
            row.iter_mut().zip(&line).for_each(|(value, line)| *value -= factor * line);
        }
    }
    Some(system.into_iter().map(|row| row[size..].to_vec()).collect())
}

#[cfg(test)]
mod tests {
    use starling_spec::random::Purpose;

    use super::*;

    #[test]
    fn what_vanishes_vanishes() {
        let rows: [&[f64]; 2] = [&[1.0, 2.0, 3.0], &[0.0, 1.0, -1.0]];
        let vector = vanishing(&rows).expect("one direction");
        assert!(rows.iter().all(|row| dot(row, &vector).abs() < 1e-12));
        assert!((norm(&vector) - 1.0).abs() < 1e-12);
        assert_eq!(vanishing(&[&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]]), None);
        let weak = weakest(&rows).expect("a direction");
        assert!((dot(&weak, &vector).abs() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_inverse_undoes_its_matrix() {
        let matrix = vec![vec![0.0, 2.0, 1.0], vec![1.0, 0.0, 3.0], vec![4.0, 1.0, 0.0]];
        let unit = product(&matrix, &inverted(&matrix).expect("regular"));
        for (row, values) in unit.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                assert!((value - if row == column { 1.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
        assert_eq!(inverted(&[vec![1.0, 1.0], vec![1.0, 1.0]]), None);
    }

    #[test]
    fn the_basis_spans_the_columns() {
        let mut random = Random::new(1, Purpose::Noise, &[]);
        let left: Matrix = (0..12).map(|_| (0..3).map(|_| random.normal()).collect()).collect();
        let right: Matrix = (0..3).map(|_| (0..20).map(|_| random.normal()).collect()).collect();
        let matrix = product(&left, &right);
        let basis = column_basis(&matrix, 3, &mut random);
        // What the basis leaves of the matrix: nothing.
        let along = product(&basis, &product(&transposed(&basis), &matrix));
        let left_over: f64 =
            matrix.iter().zip(&along).map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>()).sum();
        assert!(left_over < 1e-18, "{left_over}");
    }
}
