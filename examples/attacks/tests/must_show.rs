//! What the attacks have to show, each sentence as a test, on the digits that every build carries.

use starling_attacks::picture::RECOVERED_DB;
use starling_attacks::scene::{Scene, Source};
use starling_attacks::study::honest::{of_sum, of_update};
use starling_attacks::study::malicious::{Against, agreed, crafted, signatures};
use starling_attacks::study::{EPSILON, Line, Verdict, canary_audit};

/// What no attack under noise may reach, and what separates chance from a picture elsewhere.
const NOTHING_DB: f64 = 16.0;

fn scene() -> Scene {
    Scene::open(Source::Digits, 1).expect("embedded")
}

#[track_caller]
fn best_db(line: &Line) -> f64 {
    line.psnr_db.expect("the device took part").0
}

#[test]
fn inversion_succeeds_on_the_plain_update_of_one_picture() {
    for codec in ["f32", "q8"] {
        let line = of_update(&scene(), 1, codec).expect("trained");
        assert!(best_db(&line) > RECOVERED_DB, "{codec}: {line:?}");
    }
}

#[test]
fn inversion_recovers_most_of_a_plain_batch_of_ten() {
    let line = of_update(&scene(), 10, "f32").expect("trained");
    assert!(line.recovered >= 8, "{line:?}");
}

#[test]
fn inversion_fails_on_the_sum_of_ten_devices() {
    let line = of_sum(&scene(), 10, "q16", None).expect("summed");
    assert_eq!((line.recovered, line.verdict), (0, Verdict::Fails), "{line:?}");
    // No better than what anybody would have drawn without it.
    assert!(best_db(&line) < line.guess_db + 2.0, "{line:?}");
}

#[test]
fn a_sum_of_ten_devices_with_one_picture_each_is_inverted_and_noise_stops_it() {
    // Which of them depends on the cohort's rotation; some come back nearly exactly.
    let line = of_sum(&scene(), 1, "q16", None).expect("summed");
    assert!(line.recovered > 0 && best_db(&line) > 40.0, "{line:?}");
    let line = of_sum(&scene(), 1, "q16", Some(EPSILON)).expect("summed");
    assert!(best_db(&line) < NOTHING_DB, "{line:?}");
}

#[test]
fn a_crafted_network_works_against_a_bare_secure_sum() {
    let line = crafted(&scene(), Against::default()).expect("summed");
    assert!(line.recovered >= 30 && line.pictures == 100, "{line:?}");
}

#[test]
fn clipping_alone_does_not_stop_a_crafted_network() {
    let line = crafted(&scene(), Against { clip: 0.01, ..Against::default() }).expect("summed");
    assert!(line.recovered >= 30, "{line:?}");
}

#[test]
fn a_crafted_network_is_stopped_by_noise() {
    let line = crafted(&scene(), Against { epsilon: Some(EPSILON), ..Against::default() }).expect("summed");
    assert_eq!(line.verdict, Verdict::Fails, "{line:?}");
    assert!(best_db(&line) < NOTHING_DB, "{line:?}");
}

#[test]
fn a_crafted_network_is_stopped_by_a_pinned_publishers_signature() {
    let lines = signatures(&scene()).expect("the plan that was signed is trained");
    assert!(lines.iter().all(|line| line.verdict == Verdict::Refused), "{lines:?}");
    let why = ["Unsigned", "DigestMismatch"];
    assert!(lines.iter().zip(why).all(|(line, why)| line.note.contains(why)), "{lines:?}");
}

#[test]
fn a_signature_does_not_stop_crafted_weights_in_the_signed_network() {
    let line = agreed(&scene(), Against::default()).expect("summed");
    assert!(line.recovered >= 30, "{line:?}");
}

#[test]
fn a_canary_shows_less_than_is_accounted() {
    let audit = canary_audit(&scene(), 500, 1.0, None).expect("audited");
    assert!(audit.epsilon_min > 0.0, "the test sees something: {audit:?}");
    assert!(audit.epsilon_min <= audit.epsilon_accounted, "{audit:?}");
}

#[test]
fn a_canary_without_noise_is_seen_in_every_round() {
    let audit = canary_audit(&scene(), 500, 0.0, None).expect("audited");
    assert_eq!((audit.hits, audit.false_alarms), (500, 0));
    // ln of 0.025^(1/500) − δ over 1 − 0.025^(1/500): what 500 rounds can show.
    assert!((audit.epsilon_min - 4.903).abs() < 0.01, "{audit:?}");
}

#[test]
fn a_canary_finds_noise_that_is_a_tenth_of_what_is_claimed() {
    let audit = canary_audit(&scene(), 500, 1.0, Some(0.1)).expect("audited");
    assert!(audit.epsilon_min > audit.epsilon_accounted, "{audit:?}");
}
