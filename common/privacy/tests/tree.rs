//! Tree aggregation against published figures and against Google's libraries (`vectors/trees.py`).

use serde::Deserialize;
use starling_privacy::{Accountant, Charge, Mechanism, SampledGaussian, Sampling, Tree, spent};
use starling_spec::DpMode;

#[derive(Deserialize)]
struct Vectors {
    once: Vec<Once>,
    often: Vec<Often>,
}

/// A record appears once.
#[derive(Deserialize)]
struct Once {
    noise: f64,
    steps: u32,
    delta: f64,
    rdp: f64,
}

/// A record appears often; `squares` is what its worst pattern adds to the nodes, squared.
#[derive(Deserialize)]
struct Often {
    steps: u32,
    participations_max: u32,
    separation_min: u32,
    squares: f64,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("vectors/trees.json")).expect("the vectors")
}

fn once(steps: u32) -> Tree {
    Tree { steps, participations_max: 1, separation_min: 1 }
}

fn charged(noise_multiplier: f64, steps: u32, delta: f64) -> f64 {
    let mechanism = Mechanism::Tree { participations_max: 1, separation_min: 1 };
    let charge = Charge { noise_multiplier, delta, sampling: Sampling::Any, mechanism, mode: DpMode::Central };
    spent(&charge, steps).expect("in range")
}

/// Kairouz et al. 2021, "Practical and private (deep) learning without sampling or shuffling", StackOverflow: one tree over 1,600
/// rounds without restart, each device once, δ = 1e-6. The paper turns ρ = sensitivity²/2z² into ε = ρ + 2√(ρ·ln 1/δ) (Bun and
/// Steinke 2016, proposition 1.3); the exact ε, which is what we charge, is smaller.
#[test]
fn the_published_figures_for_stack_overflow() {
    for (noise, published) in [(1.13, "19.74"), (8.83, "2.04")] {
        let delta = 1e-6f64;
        let rho = once(1600).sensitivity().powi(2) / (2.0 * noise * noise);
        let epsilon = rho + 2.0 * (rho * -delta.ln()).sqrt();
        assert_eq!(format!("{epsilon:.2}"), published, "z = {noise}");
        let exact = charged(noise, 1600, delta);
        assert!(exact < epsilon && exact > 0.8 * epsilon, "z = {noise}: {exact}");
    }
}

#[test]
fn a_record_that_appears_once_costs_what_google_says() {
    for Once { noise, steps, delta, rdp } in vectors().once {
        let one = SampledGaussian::new(1.0, noise / once(steps).sensitivity(), 1).expect("in range");
        let epsilon = Accountant::Rdp.epsilon(&[one], delta).expect("in range");
        assert!((epsilon / rdp - 1.0).abs() < 0.005, "{noise} {steps} {delta}: {epsilon}, expected {rdp}");
        let exact = charged(noise, steps, delta);
        assert!(exact < rdp && exact > 0.8 * rdp, "{noise} {steps} {delta}: {exact}, expected a little below {rdp}");
    }
}

#[test]
fn a_record_that_appears_often_adds_no_more_than_is_charged() {
    for Often { steps, participations_max, separation_min, squares } in vectors().often {
        let bound = Tree { steps, participations_max, separation_min }.sensitivity();
        let exact = squares.sqrt();
        assert!(
            bound >= exact - 1e-9 && bound <= exact * 1.05,
            "{steps} {participations_max} {separation_min}: {bound}, expected {exact}"
        );
    }
}
