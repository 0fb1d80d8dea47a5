//! What does not fit is refused in words, and parameters stay as they were.

use std::sync::atomic::AtomicBool;

use starling_model::{Memory, ModelError, Network, TrainPath};
use starling_spec::{Backend, TaskKind};

use crate::{plan, uniform};

const PATH: TrainPath = TrainPath { device: 0, round: 0 };

fn dense() -> Network {
    let plan = plan(TaskKind::Classification, &[3], r#"[{"linear":{"out":2}}]"#, Backend::Auto);
    Network::new(&plan).expect("a network")
}

#[test]
fn a_stop_ends_training_and_leaves_the_parameters() {
    let data = Memory::classes(3, uniform(12, 1.0, 0), vec![0, 1, 0, 1]);
    let mut parameters = uniform(8, 1.0, 1);
    let before = parameters.clone();
    let result = dense().train(&mut parameters, &data, &[0, 1, 2, 3], PATH, &AtomicBool::new(true));
    assert!(matches!(result, Err(ModelError::Stopped)));
    assert_eq!(parameters, before);
}

#[test]
fn what_does_not_fit_is_named() {
    let data = Memory::classes(3, uniform(12, 1.0, 0), vec![0, 1, 7, 1]);
    let mut parameters = uniform(8, 1.0, 1);
    let before = parameters.clone();
    let stop = AtomicBool::new(false);
    let mut network = dense();
    let mut error = |parameters: &mut [f32], rows: &[u32]| {
        network.train(parameters, &data, rows, PATH, &stop).expect_err("refused").to_string()
    };
    assert_eq!(error(&mut [0.0; 3], &[0]), "3 parameters; the plan's network has 8");
    assert_eq!(error(&mut parameters, &[0, 4]), "row 4 of a data set of 4");
    assert!(error(&mut parameters, &[0, 2]).starts_with("label 7 where the network tells 2 classes apart"));
    assert_eq!(parameters, before);
    let texts = Memory::texts(3, vec![0.0; 3], vec![0; 3]);
    let refused = network.evaluate(&parameters, &texts, &[0]).expect_err("refused").to_string();
    assert!(refused.contains("NextToken") && refused.contains("Classification"), "{refused}");
}

#[test]
fn a_token_outside_the_table_is_refused() {
    let layers = r#"[{"embedding":{"tokens":5,"out":2}},{"linear":{"out":5}}]"#;
    let mut network = Network::new(&plan(TaskKind::NextToken, &[2], layers, Backend::Auto)).expect("a network");
    let parameters = uniform(network.parameters(), 1.0, 1);
    for token in [5.0, -1.0, f32::NAN] {
        let data = Memory::texts(2, vec![0.0, token], vec![0, 0]);
        let result = network.evaluate(&parameters, &data, &[0]);
        assert!(matches!(result, Err(ModelError::Token { tokens: 5, .. })), "{token}: {result:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_training() {
    let data = Memory::classes(3, vec![f32::INFINITY; 12], vec![0, 1, 0, 1]);
    let mut parameters = uniform(8, 1.0, 1);
    let before = parameters.clone();
    let result = dense().train(&mut parameters, &data, &[0, 1, 2, 3], PATH, &AtomicBool::new(false));
    assert!(matches!(result, Err(ModelError::Diverged { step: 1 })), "{result:?}");
    assert_eq!(parameters, before);
}

#[test]
fn no_rows_change_nothing() {
    let data = Memory::classes(3, uniform(12, 1.0, 0), vec![0, 1, 0, 1]);
    let mut parameters = uniform(8, 1.0, 1);
    let before = parameters.clone();
    let outcome = dense().train(&mut parameters, &data, &[], PATH, &AtomicBool::new(false)).expect("nothing to do");
    assert_eq!((outcome.examples, outcome.steps), (0, 0));
    assert_eq!(parameters, before);
    assert_eq!(dense().evaluate(&parameters, &data, &[]).expect("nothing").accuracy(), 0.0);
}
