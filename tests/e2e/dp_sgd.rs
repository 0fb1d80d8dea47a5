//! Noise on single examples between real processes: charged on the device before it trains, and the end of its part in the run.

use serde_json::Value;
use starling_testkit::fleet::{number, rounds};
use starling_wire::PolicyRule;

use crate::policy::privacy;
use crate::world;

#[test]
fn inv5_devices_charge_what_training_costs_an_example_and_stop_at_the_plans_budget() {
    const DEVICES: u32 = 2;
    let mut fleet = world::fleet(57, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let dp_sgd = "dp_sgd = { clip = 1.0, noise_multiplier = 1.0, delta = 1e-5, epsilon_max = 2.0 }";
    let task = world::task(DEVICES, 1_000, 1, "deadline_ms = 4000\nquorum = 0.5\n");
    let task = task.replace("[federation]", &format!("batch = 64\n{dp_sgd}\n[federation]"));
    let run = fleet.start_run(&task, 57);
    fleet.wait_rounds(run, 1);
    // What is charged outlives the process.
    fleet.device(0).kill();
    let before = privacy("ledger", &fleet, 0);
    fleet.start_device(0);
    let spent_before = &before["examples"][0];
    assert!(number(spent_before, "rounds") >= 1, "{before:#}");
    let refused = |status: &Value| {
        let declined = status["declined"].as_array()?;
        let by_rule = declined.iter().find(|entry| entry["reason"] == PolicyRule::EpsilonExample.text())?;
        (number(by_rule, "times") >= u64::from(DEVICES)).then(|| status.clone())
    };
    let status = fleet.wait_status(run, "devices without budget", refused);
    assert!(
        rounds(&status).iter().all(|round| round["train_loss"].is_null()),
        "no loss of examples leaves: {status:#}"
    );
    for index in 0..DEVICES {
        let ledger = privacy("ledger", &fleet, index);
        let spent = &ledger["examples"][0];
        // 1,911 or 1,912 examples, 30 steps a round.
        assert_eq!(number(spent, "steps"), 30 * number(spent, "rounds"), "{ledger:#}");
        assert!(number(spent, "rounds") >= rounds(&status).len() as u64, "{ledger:#} {status:#}");
        let steps = u32::try_from(number(spent, "steps")).expect("few");
        let rate = spent["sampling_rate"].as_f64().expect("a rate");
        let epsilon = |steps| {
            let all = starling_privacy::SampledGaussian::new(rate, 1.0, steps).expect("steps");
            starling_privacy::Accountant::Pld.epsilon(&[all], 1e-5).expect("an epsilon")
        };
        assert!(
            epsilon(steps) <= 2.0 && epsilon(steps + 30) > 2.0,
            "it stops where the next round would pass: {ledger:#}"
        );
    }
    let ledger = privacy("ledger", &fleet, 0);
    assert!(
        number(&ledger["examples"][0], "rounds") > number(spent_before, "rounds"),
        "it went on from what was charged"
    );
    let said = privacy("statement", &fleet, 0)["epsilon"].to_string();
    assert!(said.contains("Of one example, digits run") && said.contains("Unit: example of one device"), "{said}");
}
