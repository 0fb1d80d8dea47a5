//! The Pareto front: the candidates that no other one beats.

use starling_spec::TaskKind;

use crate::figures::Figures;

/// Which of `figures` are on the front of quality, bytes, multiply-accumulates and latency: no other candidate is at least as
/// good in all four and better in one. Of candidates that are equal in all four the first one stands. What is unknown counts as
/// worst.
pub fn front(figures: &[Figures], kind: TaskKind) -> Vec<bool> {
    let costs: Vec<[f64; 4]> = figures.iter().map(|figures| costs(figures, kind)).collect();
    let beaten = |index: usize| {
        costs.iter().enumerate().any(|(other, cost)| match dominates(cost, &costs[index]) {
            Dominance::Strict => true,
            Dominance::Equal => other < index,
            Dominance::None => false,
        })
    };
    (0..costs.len()).map(|index| !beaten(index)).collect()
}

enum Dominance {
    Strict,
    Equal,
    None,
}

fn dominates(left: &[f64; 4], right: &[f64; 4]) -> Dominance {
    let none_worse = left.iter().zip(right).all(|(left, right)| left <= right);
    let one_better = left.iter().zip(right).any(|(left, right)| left < right);
    match (none_worse, one_better) {
        (true, true) => Dominance::Strict,
        (true, false) => Dominance::Equal,
        _ => Dominance::None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "sizes and counts stay far below 2^53")]
fn costs(figures: &Figures, kind: TaskKind) -> [f64; 4] {
    // A loss that is not a number would compare with nothing and so stand on every front.
    let quality = figures.quality(kind);
    [
        if quality.is_nan() { f64::INFINITY } else { -quality },
        figures.bytes as f64,
        figures.macs.map_or(f64::INFINITY, |macs| macs as f64),
        figures.latency_us.unwrap_or(f64::INFINITY),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(accuracy: f64, bytes: u64, macs: u64, latency_us: f64) -> Figures {
        Figures {
            accuracy,
            loss: 1.0 - accuracy,
            points_error: None,
            bytes,
            macs: Some(macs),
            latency_us: Some(latency_us),
        }
    }

    #[test]
    fn who_is_beaten_in_nothing_stands() {
        let all = [
            figures(0.90, 100, 10, 5.0), // the most accurate
            figures(0.89, 50, 10, 5.0),  // the smallest
            figures(0.89, 60, 10, 5.0),  // beaten by the one before
            figures(0.88, 90, 9, 5.0),   // the fewest operations
            figures(0.80, 90, 10, 1.0),  // the fastest
            figures(0.80, 90, 10, 1.0),  // the same again
        ];
        assert_eq!(front(&all, TaskKind::Classification), [true, true, false, true, true, false]);
    }

    #[test]
    fn the_order_of_candidates_changes_only_ties() {
        let all = [figures(0.9, 3, 1, 1.0), figures(0.8, 2, 1, 1.0), figures(0.7, 2, 1, 1.0), figures(0.6, 1, 1, 1.0)];
        let mut reversed = all;
        reversed.reverse();
        let mut found = front(&reversed, TaskKind::Classification);
        found.reverse();
        assert_eq!(found, front(&all, TaskKind::Classification));
    }

    #[test]
    fn an_unknown_latency_is_beaten_by_a_known_one() {
        let unknown = Figures { latency_us: None, ..figures(0.9, 10, 10, 0.0) };
        assert_eq!(front(&[unknown, figures(0.9, 10, 10, 9.0)], TaskKind::Classification), [false, true]);
        assert_eq!(front(&[unknown], TaskKind::Classification), [true]);
    }

    #[test]
    fn a_regression_goes_by_its_loss() {
        let better = Figures { accuracy: 0.0, loss: 0.5, ..figures(0.0, 10, 1, 1.0) };
        let worse = Figures { loss: 0.7, ..better };
        let diverged = Figures { loss: f64::NAN, ..better };
        assert_eq!(front(&[worse, better, diverged], TaskKind::Regression), [false, true, false]);
    }

    #[test]
    fn none_have_no_front() {
        assert!(front(&[], TaskKind::Classification).is_empty());
    }
}
