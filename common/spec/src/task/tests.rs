use super::*;

pub(super) const TASK: &str = r#"
    name = "t"
    kind = "classification"
    [data]
    format = "csv"
    train = "embedded:optdigits"
    shape = [1, 8, 8]
    [model]
    preset = "fedavg-2nn"
"#;

fn with(key: &str, value: &str) -> Result<TaskFile, SpecError> {
    TaskFile::parse(TASK, &[(key.into(), value.into())])
}

#[test]
fn an_override_reaches_any_key() {
    let task = with("federation.partition", "dirichlet:0.3").expect("a task");
    assert_eq!(task.federation.partition, Partition::Dirichlet(0.3));
    let task = with("data.root", "/srv/some data").expect("a task");
    assert_eq!(task.data.root.as_deref(), Some("/srv/some data"));
    let task = with("train.lr", "0.5").expect("a task");
    assert_eq!(task.train.lr, 0.5);
}

#[test]
fn the_servers_step_falls_in_a_line_over_the_last_rounds() {
    let task = |lr: &str, decay: &str| {
        let keys = [("federation.rounds", "100"), ("federation.server_lr", lr), ("federation.server_decay", decay)];
        TaskFile::parse(TASK, &keys.map(|(key, value)| (key.into(), value.into()))).map(|task| task.federation)
    };
    let rates = |lr: &str, decay: &str, rounds: [u32; 4]| {
        let federation = task(lr, decay).expect("a task");
        rounds.map(|round| federation.server_rate(round))
    };
    assert_eq!(rates("3.0", "0.0", [1, 50, 99, 100]), [3.0; 4]);
    assert_eq!(rates("3.0", "0.5", [1, 51, 76, 100]), [3.0, 3.0, 1.5, 3.0 / 50.0]);
    assert_eq!(rates("1.0", "1.0", [1, 26, 51, 100]), [1.0, 0.75, 0.5, 0.01]);
    assert_eq!(TaskFile::parse(TASK, &[]).expect("a task").federation.server_rate(7), 1.0, "FedAvg unless asked");
    for (lr, decay, key) in [("0", "0", "server_lr"), ("inf", "0", "server_lr"), ("1", "1.5", "server_decay")] {
        let error = task(lr, decay).expect_err("out of range").to_string();
        assert!(error.starts_with(&format!("federation.{key} = ")), "{error}");
    }
}

#[test]
fn a_run_that_only_asks_has_one_round_and_something_to_ask_about() {
    let set = |overrides: &[(&str, &str)]| {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        TaskFile::parse(TASK, &overrides).map_err(|error| error.to_string())
    };
    let goal = ("federation.goal", "evaluate");
    assert!(set(&[goal, ("federation.rounds", "1"), ("federation.holdout", "0.1")]).is_ok());
    assert!(set(&[goal, ("federation.rounds", "1")]).is_err_and(|error| error.contains("holdout")));
    assert!(set(&[("federation.goal", "ranges")]).is_err_and(|error| error.starts_with("federation.rounds = 10")));
}

#[test]
fn an_unknown_key_is_named() {
    let error = with("train.learning_rate", "1").expect_err("unknown");
    assert!(error.to_string().contains("learning_rate"), "{error}");
}

#[test]
fn a_mask_is_not_left_to_a_coarse_version() {
    let set = |down: &str| {
        let overrides = [("train.weights", "pruned"), ("update.down", down)];
        TaskFile::parse(TASK, &overrides.map(|(key, value)| (key.into(), value.into())))
    };
    assert!(set("f16").is_ok());
    assert!(set("q8").expect_err("coarse").to_string().starts_with("update.down = q8: "));
}

#[test]
fn masks_and_shared_values_travel_only_in_codecs_that_keep_them() {
    let set = |weights: &str, codec: &str| {
        let overrides = [("train.weights", weights), ("update.down", "f32"), ("update.codec", codec)];
        TaskFile::parse(TASK, &overrides.map(|(key, value)| (key.into(), value.into())))
    };
    for codec in ["f32", "f16", "q8", "q8+ec", "topk:0.04"] {
        assert!(set("pruned", codec).is_ok(), "{codec} keeps zeros");
        assert_eq!(set("shared", codec).is_ok(), ["f32", "f16"].contains(&codec), "{codec}");
    }
    assert!(set("pruned", "eden:1").expect_err("zeros are lost").to_string().starts_with("update.codec = eden:1: "));
}

#[test]
fn versions_travel_only_in_codecs_of_fixed_length() {
    for codec in ["eden:1", "topk:0.04", "q8+ec"] {
        let task = with("update.codec", codec).expect("an update may");
        assert_eq!(task.update.codec.to_string(), codec);
        let error = with("update.down", codec).expect_err("a version may not");
        assert_eq!(error.to_string(), format!("update.down = \"{codec}\": versions travel as f32, f16, or q2 to q16"));
    }
}

#[test]
fn a_value_out_of_range_names_its_key_and_the_range() {
    let error = with("federation.fraction", "1.5").expect_err("too large");
    assert_eq!(error.to_string(), "federation.fraction = 1.5: expected above 0 and at most 1");
}

#[test]
fn inv11_a_plan_that_has_travelled_is_the_plan_that_was_sent() {
    let mut random = crate::random::Random::new(5, crate::random::Purpose::Noise, &[]);
    let mut task = TaskFile::parse(TASK, &[]).expect("a task");
    for _ in 0..20_000 {
        // Sixteen and seventeen digits, where a reader that is fast rather than exact is off by the last bit.
        #[allow(clippy::cast_precision_loss, reason = "any number will do")]
        let share = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        (task.train.lr, task.federation.holdout) = (1e-3 + share, share);
        let plan = crate::TaskPlan::new(&task, 1).expect("a plan");
        let travelled = crate::TaskPlan::from_json(&plan.to_json()).expect("a plan");
        assert_eq!((travelled.id(), &travelled), (plan.id(), &plan));
    }
}

#[test]
fn noise_in_shares_needs_a_sum_with_devices_that_keep_theirs_to_themselves() {
    let set = |cohort_min: &str| {
        let sets = [
            ("privacy.dp", "{ mode = \"distributed\", clip = 0.5, noise_multiplier = 1.0, delta = 1e-5 }"),
            ("privacy.weights", "uniform"),
            ("privacy.secure_aggregation", "true"),
            ("privacy.corrupt", "0.2"),
            ("privacy.cohort_min", cohort_min),
            ("federation.devices", "30"),
            ("update.codec", "q4"),
        ];
        let sets: Vec<_> = sets.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        TaskFile::parse(TASK, &sets)
    };
    let plan = crate::TaskPlan::new(&set("20").expect("a task"), 1).expect("a plan");
    assert_eq!(plan.privacy.expect("a private plan").honest_min(), 14, "six of thirty may collude");
    let evaluated = |noise: &str| {
        let mut task = set("20").expect("a task");
        (task.federation.evaluate_every, task.federation.holdout) = (2, 0.1);
        task.privacy.as_mut().and_then(|privacy| privacy.dp.as_mut()).expect("noise").evaluation_noise =
            noise.parse().ok();
        task.checked().map_err(|error| error.to_string())
    };
    assert!(evaluated("none").expect_err("no noise").starts_with("federation.evaluate_every = 2"));
    assert!(evaluated("0.5").expect_err("all of the budget").starts_with("privacy.dp.evaluation_noise = 0.5"));
    let mut both = evaluated("1.0").expect("a task");
    both.privacy.as_mut().and_then(|privacy| privacy.dp.as_mut()).expect("noise").loss_noise = Some(1.0);
    let privacy = crate::TaskPlan::new(&both, 1).expect("a plan").privacy.expect("a private plan");
    // 1 / √(1 − 2/4).
    assert!((privacy.update_multiplier(1.0) - std::f64::consts::SQRT_2).abs() < 1e-12);
    both.kind = TaskKind::Regression;
    let error = both.checked().expect_err("no accuracy").to_string();
    assert!(error.starts_with("privacy.dp.evaluation_noise = 1"), "{error}");
    let plan = crate::TaskPlan::new(&evaluated("1.0").expect("a task"), 1).expect("a plan");
    let privacy = plan.privacy.expect("a private plan");
    // 1 / √(1 − 1/4).
    assert!((privacy.update_multiplier(1.0) - 1.154_700_538_379_251_7).abs() < 1e-12);
    let error = set("6").expect_err("all of the smallest sum may collude").to_string();
    assert!(error.starts_with("privacy.cohort_min = 6"), "{error}");
}

#[test]
fn a_private_task_says_all_that_its_figure_rests_on() {
    let set = |overrides: &[(&str, &str)]| {
        let dp = "{ mode = \"central\", clip = 0.5, noise_multiplier = 1.0, delta = 1e-5 }";
        let base = [("privacy.dp", dp), ("privacy.weights", "uniform")];
        let all = base.iter().chain(overrides).map(|(key, value)| ((*key).into(), (*value).into()));
        TaskFile::parse(TASK, &all.collect::<Vec<_>>()).map_err(|error| error.to_string())
    };
    let task = set(&[("federation.devices", "40"), ("federation.participation", "poisson")]).expect("a private task");
    let plan = crate::TaskPlan::new(&task, 1).expect("a plan");
    assert_eq!(plan.update.weight_max, 1, "one device weighs what another does");
    let privacy = plan.privacy.expect("a private plan");
    assert_eq!((privacy.devices, privacy.participation), (Some(40), Participation::Poisson));
    let refused = |overrides: &[(&str, &str)], key: &str| {
        let error = set(overrides).expect_err("refused");
        assert!(error.starts_with(key), "{overrides:?}: {error}");
    };
    refused(&[("privacy.weights", "examples")], "privacy.weights = ");
    refused(&[("privacy.dp.noise_multiplier", "0.001")], "privacy.dp.noise_multiplier = 0.001");
    refused(&[("privacy.dp.noise_multiplier", "65")], "privacy.dp.noise_multiplier = 65");
    refused(&[("privacy.dp.clip", "-1.0")], "privacy.dp.clip = -1");
    refused(&[("privacy.dp.delta", "1.0")], "privacy.dp.delta = 1");
    refused(&[("privacy.dp.epsilon_max", "0.0")], "privacy.dp.epsilon_max = 0");
    refused(&[("privacy.dp.mode", "distributed")], "privacy.dp.mode = ");
    refused(&[("privacy.secure_aggregation", "true")], "privacy.dp.mode = ");
    refused(
        &[("privacy.dp.mechanism", "{ tree = { participations_max = 0, separation_min = 1 } }")],
        "privacy.dp.mechanism",
    );
    refused(
        &[("privacy.dp.mechanism", "{ tree = { participations_max = 1, separation_min = 0 } }")],
        "privacy.dp.mechanism",
    );
    refused(&[("update.codec", "topk:0.1")], "update.codec = topk:0.1");
    refused(&[("update.value_max", "0.25")], "update.value_max = 0.25");
    refused(&[("federation.participation", "poisson")], "federation.devices = ");
    refused(
        &[("federation.devices", "9"), ("federation.participation", "poisson"), ("federation.over_selection", "1.3")],
        "federation.over_selection = 1.3",
    );
    refused(&[("federation.holdout", "0.1"), ("federation.evaluate_every", "2")], "federation.evaluate_every = 2");
    refused(&[("privacy.clip", "0.7")], "privacy.clip = 0.7");
    // Local noise takes room of its own.
    refused(&[("privacy.dp.mode", "local"), ("privacy.dp.noise_multiplier", "40")], "update.value_max = 16");
    let mut normed = set(&[]).expect("a private task");
    normed.model.preset = None;
    normed.model.layers =
        Some(serde_json::from_str(r#"["flatten", {"linear":{"out":4}}, "batch_norm"]"#).expect("layers"));
    let error = crate::TaskPlan::new(&normed, 1).expect_err("batch_norm").to_string();
    assert!(error.starts_with("model.layers = \"batch_norm\""), "{error}");
}

#[test]
fn a_clipping_norm_adapts_where_its_count_can_have_noise_and_only_up_to_its_cap() {
    let set = |overrides: &[(&str, &str)]| {
        let dp = "{ mode = \"central\", clip = 0.5, noise_multiplier = 2.0, delta = 1e-5 }";
        let base = [("privacy.dp", dp), ("privacy.weights", "uniform"), ("federation.devices", "100")];
        let base = base.iter().chain(&[("privacy.adaptive_clip.clip_max", "4.0")]);
        let all = base.chain(overrides).map(|(key, value)| ((*key).into(), (*value).into()));
        TaskFile::parse(TASK, &all.collect::<Vec<_>>()).map_err(|error| error.to_string())
    };
    let plan = crate::TaskPlan::new(&set(&[]).expect("a task"), 1).expect("a plan");
    let privacy = plan.privacy.as_ref().expect("a private plan");
    assert_eq!((plan.adaptive_clip(), privacy.count_noise()), (Some(0.5), Some(5.0)), "a twentieth of the cohort");
    // 2 / √(1 − (2/10)²): the count takes a twenty-fifth of the budget.
    let updates = privacy.update_multiplier(2.0);
    assert!((updates - 2.041_241_452_319_315).abs() < 1e-12, "{updates}");
    let clip = |clip| plan.for_round(clip).and_then(|plan| plan.privacy?.asked.clip());
    assert_eq!((clip(Some(3.0)), clip(Some(4.0))), (Some(3.0), Some(4.0)));
    assert_eq!([None, Some(4.1), Some(0.0), Some(f64::NAN), Some(-1.0)].map(clip), [None; 5]);
    let mut fixed = plan.clone();
    fixed.privacy.as_mut().expect("a private plan").asked.adaptive_clip = None;
    assert_eq!((fixed.for_round(None), fixed.for_round(Some(0.5))), (Some(fixed.clone()), None));

    let refused = |overrides: &[(&str, &str)], key: &str| {
        let error = set(overrides).expect_err("refused");
        assert!(error.starts_with(key), "{overrides:?}: {error}");
    };
    refused(&[("privacy.adaptive_clip.clip_max", "0.4")], "privacy.adaptive_clip.clip_max = 0.4");
    refused(&[("privacy.adaptive_clip.quantile", "1.0")], "privacy.adaptive_clip.quantile = 1");
    refused(&[("privacy.adaptive_clip.rate", "0.0")], "privacy.adaptive_clip.rate = 0");
    refused(&[("privacy.adaptive_clip.count_noise", "1.0")], "privacy.adaptive_clip.count_noise = 1");
    refused(&[("privacy.dp.mode", "local")], "privacy.adaptive_clip = ");
    let tree = "{ tree = { participations_max = 1, separation_min = 1 } }";
    refused(&[("privacy.dp.mechanism", tree)], "privacy.adaptive_clip = ");
    refused(&[("update.value_max", "2.0")], "update.value_max = 2");
}

#[test]
fn noise_on_examples_is_refused_where_an_example_could_not_be_told_apart() {
    let dp_sgd = "{ clip = 1.0, noise_multiplier = 1.1, delta = 1e-5, epsilon_max = 8 }";
    let set = |overrides: &[(&str, &str)]| {
        let all = [("train.dp_sgd", dp_sgd)]
            .into_iter()
            .chain(overrides.iter().copied())
            .map(|(key, value)| (key.into(), value.into()));
        let task = TaskFile::parse(TASK, &all.collect::<Vec<_>>())?;
        crate::TaskPlan::new(&task, 1)
    };
    let plan = set(&[]).expect("a plan");
    let asked = plan.train.dp_sgd.expect("it is asked for");
    assert_eq!((asked.clip, asked.noise_multiplier, asked.delta, asked.epsilon_max), (1.0, 1.1, 1e-5, Some(8.0)));
    assert_eq!(crate::TaskPlan::from_json(&plan.to_json()).expect("it travels"), plan);
    // 95 examples, batches of 10: ten steps an epoch, each of which draws 10 of them if all goes as expected.
    assert_eq!((plan.train.steps(95), plan.train.sampling_rate(95)), (10, 10.0 / 95.0));
    assert_eq!((plan.train.steps(7), plan.train.sampling_rate(7)), (1, 1.0));

    let refused = |overrides: &[(&str, &str)], key: &str| {
        let error = set(overrides).expect_err("refused").to_string();
        assert!(error.starts_with(key), "{overrides:?}: {error}");
    };
    refused(&[("train.dp_sgd.clip", "0.0")], "train.dp_sgd.clip = 0");
    refused(&[("train.dp_sgd.noise_multiplier", "0.0")], "train.dp_sgd.noise_multiplier = 0");
    refused(&[("train.dp_sgd.delta", "1.0")], "train.dp_sgd.delta = 1");
    refused(&[("train.dp_sgd.epsilon_max", "-1.0")], "train.dp_sgd.epsilon_max = -1");
    refused(&[("federation.holdout", "0.1"), ("federation.evaluate_every", "2")], "federation.evaluate_every = 2");
    refused(&[("data.scale", "standardise")], "data.scale = \"standardise\"");
    refused(&[("data.scale", "unit"), ("data.train", "own.csv")], "data.scale = \"unit\"");
    set(&[("data.scale", "unit")]).expect("the embedded digits have a largest value of their own");
    let secure = [("privacy.secure_aggregation", "true"), ("privacy.clip", "1.0"), ("update.codec", "q8")];
    let more = [("update.weight_max", "100"), ("federation.devices", "9")];
    let mut peers = set(&[&secure[..], &more].concat()).expect("a secure plan");
    peers.privacy.as_mut().expect("it is secure").evaluate_every = 1;
    let error = crate::TaskPlan::from_json(&peers.to_json()).expect_err("figures").to_string();
    assert!(error.starts_with("federation.evaluate_every = 1"), "{error}");
    let mut peers = plan;
    peers.layers = serde_json::from_str(r#"["flatten", {"linear":{"out":4}}, "batch_norm"]"#).expect("layers");
    let error = crate::TaskPlan::from_json(&peers.to_json()).expect_err("batch_norm").to_string();
    assert!(error.starts_with("model.layers = \"batch_norm\""), "{error}");
}
