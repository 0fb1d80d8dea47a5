//! Secure sums between real processes: an aggregator that sees masked vectors only, and devices that come and go.

use serde_json::Value;
use starling_exchange::{Layout, read_safetensors};
use starling_spec::random::{Purpose, Random, device_key, word};
use starling_spec::{ParamManifest, TaskFile, TaskPlan};
use starling_testkit::Fleet;
use starling_testkit::fleet::{number, rounds};
use starling_update::{Local, SecureSums};
use starling_wire::{DeviceId, Digest, PolicyRule, UpdateReport};

use crate::policy::privacy;
use crate::world;

/// What makes a task of the digits one of secure sums.
const SECURE: &str = r#"
        [update]
        codec = "q8"
        weight_max = 1000
        [privacy]
        secure_aggregation = true
        clip = 2.0
        dropout = 0.3
"#;

/// What the sums of a finished round were bound to.
pub(crate) fn sessions(round: &Value) -> Vec<Digest> {
    let sessions = round["sessions"].as_array().expect("sessions").iter();
    sessions.map(|session| session.as_str().expect("text").parse().expect("a digest")).collect()
}

fn session(round: &Value) -> Digest {
    let [session] = &sessions(round)[..] else { panic!("one sum: {round:#}") };
    *session
}

/// The update of the hidden bench client: a little noise, from seed, device and round (`src/bench_runtime.rs`).
pub(crate) fn echo(seed: u64, device: DeviceId, round: u32, parameters: usize) -> Vec<f32> {
    let path = [device_key(device.0), u64::from(round)];
    let key = Random::new(seed, Purpose::Noise, &path).key();
    let words = (0..parameters.div_ceil(2) as u64).map(|counter| word(key, counter));
    let halves = words.flat_map(|word| [word, word >> 32]).take(parameters);
    halves.map(|word| ((word & 0xff_ffff) as f32 * (2.0 / (1u32 << 24) as f32) - 1.0) * 1e-3).collect()
}

/// The parameters of the latest version.
pub(crate) fn exported(fleet: &Fleet, run: u64, manifest: &ParamManifest) -> Vec<f32> {
    let out = fleet.folder().join("w.safetensors");
    let exported = std::process::Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(["aggregator", "run", "export", &run.to_string(), "--config"])
        .arg(fleet.aggregator_config())
        .arg("--out")
        .arg(&out)
        .output()
        .expect("the program starts");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let bytes = std::fs::read(&out).expect("weights");
    read_safetensors(&bytes, manifest, Layout::Starling).expect("the network's weights")
}

#[test]
fn inv5_devices_add_the_noise_that_they_and_the_run_are_charged_for_until_the_budget_is_gone() {
    const DEVICES: u32 = 5;
    let seed = 35;
    // z = 4 and δ = 1e-3: ρ is 1/32 a round. The least ε over Rényi orders is 1.03 for two rounds and 1.31 for three.
    let more = r#"
        quorum = 1.0
        [update]
        codec = "q8"
        [privacy]
        secure_aggregation = true
        weights = "uniform"
        cohort_min = 4
        corrupt = 0.0
        dp = { mode = "distributed", clip = 0.01, noise_multiplier = 4.0, delta = 1e-3, epsilon_max = 1.2 }
    "#;
    let text = world::task(DEVICES, 9, 1, more).replace("\"digits\"", "\"bench\"");
    let task = TaskFile::parse(&text, &[]).expect("a task");
    let (fleet, run, status) = world::bench_run(seed, DEVICES, &text);
    assert_eq!(status["state"], "exhausted", "{status:#}");
    assert_eq!((rounds(&status).len(), number(&status["privacy"], "rounds_charged")), (2, 2), "{status:#}");
    assert!(rounds(&status)[0]["train_loss"].is_null(), "devices say nothing of it: {status:#}");
    for index in 0..DEVICES {
        let ledger = privacy("ledger", &fleet, index);
        assert_eq!(number(&ledger["runs"][0], "rounds"), 2, "{ledger:#}");
        assert_eq!(ledger["runs"][0]["noise"], "distributed, 4 clipping norms", "{ledger:#}");
    }
    // Updates are of one clipping norm together with all their parameters, and the noise of four on each: on the mean of five devices,
    // whose shares make 4 · √(5/4), 0.00894 a parameter and round.
    let manifest = TaskPlan::new(&task, seed).expect("a plan").manifest().expect("a manifest");
    let start = starling_spec::init::initial_parameters(&manifest, seed);
    let moved = exported(&fleet, run, &manifest).into_iter().zip(&start).map(|(now, start)| f64::from(now - start));
    let added = (moved.map(|step| step * step).sum::<f64>() / start.len() as f64).sqrt();
    let expected = 0.01 * 4.0 * 1.25f64.sqrt() / 5.0 * 2f64.sqrt();
    // The noise is nobody's to repeat. Over 2,410 parameters its deviation is known to 1.4 %: a tenth is seven of these.
    assert!((added / expected - 1.0).abs() < 0.1, "{added}, expected {expected}");
}

#[test]
fn the_model_of_ten_processes_holds_their_sum_bit_for_bit() {
    const DEVICES: u32 = 10;
    let seed = 31;
    let text = world::task(DEVICES, 1, 1, &format!("server_lr = 0.5\n{SECURE}")).replace("\"digits\"", "\"bench\"");
    let task = TaskFile::parse(&text, &[]).expect("a task");
    let (fleet, run, status) = world::bench_run(seed, DEVICES, &text);
    let round = &rounds(&status)[0];
    assert_eq!((number(round, "contributors"), number(round, "weight")), (10, 10), "{round:#}");

    let plan = TaskPlan::new(&task, seed).expect("a plan");
    let manifest = plan.manifest().expect("a manifest");
    let sums = SecureSums::of(&plan, manifest.len()).expect("numbers").expect("secure sums");
    let session = session(round);
    let mut sum = vec![0i64; sums.numerics().coordinates()];
    for index in 0..DEVICES {
        let device = DeviceId::seeded(seed, index);
        let report = UpdateReport { weight: 1, train_loss: 0.0, steps: 1, within_clip: false };
        let delta = echo(seed, device, 1, manifest.len());
        let key = starling_update::rounding_key(seed, device, 1);
        let mut words = || -> u64 { unreachable!("the task asks for no noise") };
        let vector = sums
            .encode(Local { delta: &delta, report: &report, figures: None }, &session, key, &mut words)
            .expect("a vector");
        sum.iter_mut().zip(&vector).for_each(|(sum, value)| *sum += value);
    }
    let mut expected = starling_spec::init::initial_parameters(&manifest, seed);
    let start = expected.clone();
    sums.decode(&sum, &session, DEVICES as usize).expect("a mean").apply_step(0.5, &mut expected);
    assert_ne!(expected, start);

    let published = exported(&fleet, run, &manifest);
    assert!(published == expected, "the published model is the one that the survivors' vectors give");
}

#[test]
fn a_device_that_dies_between_its_keys_and_its_update_is_a_drop_out() {
    const DEVICES: u32 = 5;
    let mut fleet = world::fleet(33, DEVICES);
    fleet.start_aggregator();
    (0..DEVICES).for_each(|index| fleet.start_device(index));
    let task =
        world::task(DEVICES, 10_000, 3, &format!("deadline_ms = 8000\nholdout = 0.2\nevaluate_every = 1\n{SECURE}"));
    let run = fleet.start_run(&task.replace("devices_min = 5", "devices_min = 4"), 33);
    fleet.wait_rounds(run, 1);
    fleet.device(4).kill();
    let after = fleet.wait_status(run, "two rounds of four", |status| {
        let four = rounds(status).iter().filter(|round| number(round, "contributors") == 4).count();
        (four >= 2).then(|| rounds(status).len())
    });
    fleet.start_device(4);
    let status = fleet.wait_status(run, "a later round with all five", |status| {
        let later = rounds(status).iter().skip(after).any(|round| number(round, "contributors") == 5);
        later.then(|| status.clone())
    });
    world::assert_rounds_sound(&status);
    let sessions: std::collections::BTreeSet<_> = rounds(&status).iter().map(|round| session(round).0).collect();
    assert_eq!(sessions.len(), rounds(&status).len(), "every round has keys of its own");
    let accuracy = rounds(&status).last().and_then(|round| round["train_loss"].as_f64());
    assert!(accuracy.is_some_and(|loss| loss > 0.0), "the loss leaves in the sum: {status:#}");
    let judged = |round: &Value| round["heldout_accuracy"].as_f64().is_some_and(|accuracy| accuracy > 0.05);
    let (last, others) = rounds(&status).split_last().expect("rounds");
    assert!(others.iter().all(judged), "each version is judged by the devices of the next round: {status:#}");
    assert!(last["heldout_accuracy"].is_null(), "and the last one not yet: {status:#}");
}

#[test]
fn the_clipping_norm_adapts_outlives_a_restart_and_stops_where_an_owner_says() {
    const DEVICES: u32 = 4;
    let seed = 36;
    let data = "[[task]]\nname = \"bench\"\n[task.data]\nformat = \"csv\"\ntrain = \"none\"\n";
    let mut fleet = Fleet::new(env!("CARGO_BIN_EXE_starling"), seed, data);
    // Updates of the bench client are far longer than 1e-6, so nobody is within the norm and it grows by e^0.1 a round.
    let more = r#"
        quorum = 0.5
        deadline_ms = 10000
        [update]
        codec = "q8"
        weight_max = 1000
        [privacy]
        secure_aggregation = true
        clip = 1e-6
        adaptive_clip = { quantile = 0.5, rate = 0.2, clip_max = 1e-5 }
    "#;
    let text = world::task(DEVICES, 10_000, 1, more).replace("\"digits\"", "\"bench\"");
    fleet.start_aggregator();
    // Beyond the norm of the sixth round, and not of the seventh.
    crate::policy::configure(&fleet, 3, "[policy]\nclip_max = 1.75e-6\n");
    (0..DEVICES).for_each(|index| fleet.start_device_as(index, "bench-client"));
    let run = fleet.start_run(&text, seed);
    fleet.wait_rounds(run, 3);
    fleet.aggregator().kill();
    fleet.start_aggregator();
    let status = fleet.wait_rounds(run, 9);
    for round in rounds(&status).iter().take(9) {
        let number_of = number(round, "round");
        let expected = 1e-6 * (0.1 * (number_of - 1) as f64).exp();
        let clip = round["clip"].as_f64().expect("a norm");
        assert!((clip / expected - 1.0).abs() < 1e-9, "round {number_of}: {clip}, expected {expected}");
        if number_of > 6 {
            assert_eq!(number(round, "contributors"), 3, "one owner allows no more: {status:#}");
        }
    }
    let declined = status["declined"].as_array().expect("a list");
    assert!(declined.iter().any(|entry| entry["reason"] == PolicyRule::ClipMax.text()), "{status:#}");
}
