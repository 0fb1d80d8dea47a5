//! Which candidate to take, and why, in words.

use starling_spec::TaskKind;

use crate::figures::{Figures, Limit, Limits, POINTS_LOST_DEFAULT};

/// The candidate to take.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its position.
    pub index: usize,
    /// Whether it keeps within every limit.
    pub fits: bool,
    /// Why it was taken, as a sentence.
    pub why: String,
}

/// What is asked of a candidate beyond fitting the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Accurate,
    Small,
    Fast,
    Light,
}

/// Chooses among `figures`, the candidates in the order they were made, against the full model's `baseline`.
///
/// - The loss of accuracy is limited, or nothing is (then to 0.2 points by the point estimate): the smallest file that keeps within the limits. Where latency (or
///   multiply-accumulates) is the only other limit, the fastest (or lightest).
/// - Only bytes, latency or multiply-accumulates are limited: the most accurate that keeps within them.
/// - Nothing fits: the candidate that is nearest, and which limit it exceeds.
///
/// `None` when there is no candidate.
pub fn choose(figures: &[Figures], baseline: &Figures, limits: &Limits, kind: TaskKind) -> Option<Choice> {
    // A limit that nobody set need not be kept for certain: on few rows hardly anything could keep it.
    let estimates: Vec<Figures> = figures.iter().map(|figures| Figures { points_error: None, ..*figures }).collect();
    let figures = if limits.is_empty() { &estimates[..] } else { figures };
    let limits =
        if limits.is_empty() { Limits { points_lost_max: Some(POINTS_LOST_DEFAULT), ..*limits } } else { *limits };
    let goal = goal(&limits);
    let fitting = (0..figures.len()).filter(|index| limits.exceeded(&figures[*index], baseline, kind).is_empty());
    if let Some(index) = fitting.clone().min_by(|a, b| order(goal, &figures[*a], &figures[*b], kind)) {
        let best = match goal {
            Goal::Accurate => "the most accurate",
            Goal::Small => "the smallest file",
            Goal::Fast => "the fastest",
            Goal::Light => "the one with the fewest multiply-accumulates",
        };
        let count = fitting.count();
        let among = if count == 1 {
            "the only candidate that keeps".into()
        } else {
            format!("{best} of {count} candidates that keep")
        };
        let why = format!("{among} within {}", describe(&limits, kind));
        return Some(Choice { index, fits: true, why });
    }
    let index = (0..figures.len()).min_by(|a, b| {
        distance(&limits, &figures[*a], baseline, kind).total_cmp(&distance(&limits, &figures[*b], baseline, kind))
    })?;
    let broken = limits.exceeded(&figures[index], baseline, kind);
    let broken: Vec<String> =
        broken.iter().map(|(limit, _)| exceeded_in_words(*limit, &figures[index], baseline, &limits, kind)).collect();
    let why =
        format!("no candidate keeps within {}; the nearest one has {}", describe(&limits, kind), broken.join(" and "));
    Some(Choice { index, fits: false, why })
}

fn goal(limits: &Limits) -> Goal {
    match (limits.points_lost_max, limits.bytes_max, limits.latency_us_max, limits.macs_max) {
        (None, ..) => Goal::Accurate,
        (Some(_), None, Some(_), _) => Goal::Fast,
        (Some(_), None, None, Some(_)) => Goal::Light,
        _ => Goal::Small,
    }
}

/// The better one of two that fit is the lesser; ties go to the more accurate, then the smaller.
fn order(goal: Goal, left: &Figures, right: &Figures, kind: TaskKind) -> std::cmp::Ordering {
    let accurate = || right.quality(kind).total_cmp(&left.quality(kind));
    let small = || left.bytes.cmp(&right.bytes);
    let fast = || unknown_last(left.latency_us).total_cmp(&unknown_last(right.latency_us));
    let first = match goal {
        Goal::Accurate => accurate(),
        Goal::Small => small(),
        Goal::Fast => fast(),
        Goal::Light => left.macs.unwrap_or(u64::MAX).cmp(&right.macs.unwrap_or(u64::MAX)),
    };
    first.then_with(accurate).then_with(small).then_with(fast)
}

fn unknown_last(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::INFINITY)
}

/// How far beyond the limits: shares of the limits exceeded, a point of accuracy counting as much as the whole of another limit.
fn distance(limits: &Limits, figures: &Figures, baseline: &Figures, kind: TaskKind) -> f64 {
    limits.exceeded(figures, baseline, kind).iter().map(|(_, excess)| excess).sum()
}

/// How much shorter a latency counts as faster, against the noise of two measurements.
const FASTER: f64 = 0.9;

/// What speaks for another candidate than the one at `index`, or for the full model, in words: the fastest of those that answer about as
/// well, where it is clearly faster. A small file is not always a fast one: kept weights are multiplied one by one, and integers
/// many at a time.
pub(crate) fn faster(
    names: &[&str],
    figures: &[Figures],
    baseline: &Figures,
    index: usize,
    kind: TaskKind,
) -> Option<String> {
    let chosen = &figures[index];
    let own = chosen.latency_us?;
    let all = names.iter().copied().zip(figures).chain([("the full model", baseline)]);
    let alike = all.filter(|(_, other)| other.points_lost(chosen, kind) <= POINTS_LOST_DEFAULT);
    let timed = alike.filter_map(|(name, other)| Some((name, other, other.latency_us?)));
    let (name, other, latency) = timed.min_by(|a, b| a.2.total_cmp(&b.2))?;
    #[allow(clippy::cast_precision_loss, reason = "sizes stay far below 2^53")]
    let ratio = other.bytes as f64 / chosen.bytes.max(1) as f64;
    (latency < own * FASTER).then(|| {
        format!(
            "{name} answers about as well and faster ({latency:.1} µs against {own:.1}), at {ratio:.1} times the size"
        )
    })
}

/// The limits in words.
pub fn describe(limits: &Limits, kind: TaskKind) -> String {
    let lost = |points: f64| match kind {
        TaskKind::Regression => format!("{points} % more loss"),
        _ => format!("{points} points of accuracy lost"),
    };
    let said = [
        limits.bytes_max.map(|max| format!("{max} bytes")),
        limits.latency_us_max.map(|max| format!("{max} µs")),
        limits.macs_max.map(|max| format!("{max} multiply-accumulates")),
        limits.points_lost_max.map(lost),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    if said.is_empty() { "no limit".into() } else { said.join(", ") }
}

fn exceeded_in_words(limit: Limit, figures: &Figures, baseline: &Figures, limits: &Limits, kind: TaskKind) -> String {
    let flag = limit.flag();
    match limit {
        Limit::Bytes => format!("{} bytes ({flag} {})", figures.bytes, limits.bytes_max.unwrap_or(0)),
        Limit::Latency => match figures.latency_us {
            Some(latency) => format!("{latency:.1} µs ({flag} {})", limits.latency_us_max.unwrap_or(0.0)),
            None => format!("no known latency, since the engine cannot run it ({flag})"),
        },
        Limit::Macs => match figures.macs {
            Some(macs) => format!("{macs} multiply-accumulates ({flag} {})", limits.macs_max.unwrap_or(0)),
            None => format!("no known number of multiply-accumulates, since the engine cannot run it ({flag})"),
        },
        Limit::Accuracy => {
            let lost = figures.points_lost(baseline, kind);
            let what = if kind == TaskKind::Regression { "% more loss" } else { "points of accuracy lost" };
            let at_most = figures.points_lost_at_most(baseline, kind);
            let sure =
                if at_most > lost { format!(", at most {at_most:.2} with 95 % confidence") } else { String::new() };
            format!("{lost:.2} {what}{sure} ({flag} {})", limits.points_lost_max.unwrap_or(0.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: TaskKind = TaskKind::Classification;

    fn figures(accuracy: f64, bytes: u64, latency_us: f64) -> Figures {
        Figures {
            accuracy,
            loss: 1.0 - accuracy,
            points_error: None,
            bytes,
            macs: Some(bytes * 2),
            latency_us: Some(latency_us),
        }
    }

    fn candidates() -> [Figures; 4] {
        [figures(0.901, 500, 20.0), figures(0.900, 250, 8.0), figures(0.899, 100, 9.0), figures(0.850, 20, 3.0)]
    }

    fn chosen(limits: Limits) -> Choice {
        choose(&candidates(), &figures(0.900, 1000, 40.0), &limits, KIND).expect("candidates")
    }

    #[test]
    fn a_faster_one_that_answers_as_well_is_named() {
        let baseline = figures(0.92, 1_000_000, 45.0);
        let all = [figures(0.9, 14_000, 19.8), figures(0.899, 400_000, 17.5), figures(0.8, 3_000, 5.0)];
        let said = |index| faster(&["deep", "int8", "tiny"], &all, &baseline, index, KIND);
        let wanted = "int8 answers about as well and faster (17.5 µs against 19.8), at 28.6 times the size";
        assert_eq!(said(0).as_deref(), Some(wanted), "what answers far worse is no alternative");
        assert_eq!(said(1), None);
        let quick = Figures { latency_us: Some(1.0), ..baseline };
        let said = faster(&["deep"], &all[..1], &quick, 0, KIND);
        assert!(said.is_some_and(|said| said.starts_with("the full model answers about as well and faster")));
        let unknown = [Figures { latency_us: None, ..all[0] }];
        assert_eq!(faster(&["deep"], &unknown, &baseline, 0, KIND), None);
    }

    #[test]
    fn without_limits_it_is_the_smallest_within_the_default_loss() {
        let choice = chosen(Limits::default());
        assert_eq!((choice.index, choice.fits), (2, true));
        assert!(choice.why.contains("smallest") && choice.why.contains("0.2 points"), "{}", choice.why);
    }

    #[test]
    fn a_limit_of_no_loss_is_kept_to_the_example() {
        let choice = chosen(Limits { points_lost_max: Some(0.0), ..Limits::default() });
        assert_eq!(choice.index, 1, "equal accuracy is no loss");
        // 0.1 points as a difference of doubles is a little more than 0.1.
        assert_eq!(chosen(Limits { points_lost_max: Some(0.1), ..Limits::default() }).index, 2);
    }

    #[test]
    fn a_loss_that_is_only_probably_within_the_limit_does_not_keep_it() {
        let base = figures(0.900, 1000, 40.0);
        let unsure = Figures { points_error: Some(0.3), ..figures(0.898, 100, 9.0) };
        let all = [Figures { points_error: Some(0.1), ..figures(0.899, 500, 20.0) }, unsure];
        let limits = Limits { points_lost_max: Some(0.5), ..Limits::default() };
        assert_eq!(choose(&all, &base, &limits, KIND).expect("candidates").index, 0, "0.2 + 1.645 × 0.3 is over 0.5");
        let alone = choose(&all[1..], &base, &limits, KIND).expect("a candidate");
        assert!(!alone.fits && alone.why.contains("at most 0.69 with 95 % confidence"), "{}", alone.why);
        assert!(choose(&all[1..], &base, &Limits::default(), KIND).expect("a candidate").fits, "nobody set a limit");
    }

    #[test]
    fn bytes_alone_ask_for_the_most_accurate_that_fits() {
        let choice = chosen(Limits { bytes_max: Some(300), ..Limits::default() });
        assert_eq!(choice.index, 1);
        assert!(choice.why.contains("most accurate of 3") && choice.why.contains("300 bytes"), "{}", choice.why);
    }

    #[test]
    fn latency_beside_accuracy_asks_for_the_fastest() {
        let limits = Limits { latency_us_max: Some(10.0), points_lost_max: Some(1.0), ..Limits::default() };
        assert_eq!(chosen(limits).index, 1);
        let limits = Limits { macs_max: Some(600), points_lost_max: Some(1.0), ..Limits::default() };
        assert_eq!(chosen(limits).index, 2);
        let limits = Limits {
            bytes_max: Some(600),
            latency_us_max: Some(10.0),
            points_lost_max: Some(1.0),
            ..Limits::default()
        };
        assert_eq!(chosen(limits).index, 2, "with bytes limited too, the smallest");
    }

    #[test]
    fn when_nothing_fits_the_nearest_and_its_limit_are_named() {
        let choice = chosen(Limits { bytes_max: Some(19), ..Limits::default() });
        assert_eq!((choice.index, choice.fits), (3, false));
        assert!(choice.why.contains("--max-bytes 19") && choice.why.contains("20 bytes"), "{}", choice.why);
        let limits = Limits { bytes_max: Some(95), points_lost_max: Some(0.05), ..Limits::default() };
        let choice = chosen(limits);
        assert_eq!((choice.index, choice.fits), (2, false));
        assert!(choice.why.contains("--max-bytes") && choice.why.contains("--max-accuracy-loss"), "{}", choice.why);
    }

    #[test]
    fn what_the_engine_cannot_run_meets_no_latency_limit() {
        let unknown = Figures { latency_us: None, ..figures(0.9, 10, 0.0) };
        let limits = Limits { latency_us_max: Some(10.0), ..Limits::default() };
        let choice = choose(&[unknown], &figures(0.9, 1000, 40.0), &limits, KIND).expect("a candidate");
        assert!(!choice.fits && choice.why.contains("engine"), "{}", choice.why);
        assert_eq!(choose(&[], &unknown, &limits, KIND), None);
    }

    #[test]
    fn a_regression_is_limited_by_growth_of_its_loss() {
        let base = Figures { accuracy: 0.0, loss: 2.0, ..figures(0.0, 1000, 1.0) };
        let all = [Figures { loss: 2.01, bytes: 50, ..base }, Figures { loss: 2.2, bytes: 10, ..base }];
        let limits = Limits { points_lost_max: Some(1.0), ..Limits::default() };
        assert_eq!(choose(&all, &base, &limits, TaskKind::Regression).expect("candidates").index, 0);
    }
}
