//! lab
use starling_compress::WeightMap;
use starling_compress::method::prune::{self, Criterion, Mask, Shares};
use starling_model::{Network, Teacher, TrainPath, Tuning};
use starling_search::{VALIDATION_SHARE, validation_split};
use starling_spec::{Optimizer, Schedule, TaskFile, TaskPlan, TrainSettings};
use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

fn env<T: std::str::FromStr>(key: &str, default: T) -> T {
    std::env::var(key).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

struct Surgery<'a> {
    network: &'a starling_spec::shape::Network,
    share: f64,
    every: usize,
    freeze: usize,
    decay: f32,
    state: RefCell<(usize, Option<Mask>)>,
}
impl WeightMap for Surgery<'_> {
    fn forward(&self, free: &[f32], computed: &mut [f32]) {
        let mut s = self.state.borrow_mut();
        if s.1.is_none() || (s.0 % self.every == 0 && s.0 < self.freeze) {
            s.1 = Some(prune::mask(self.network, free, Criterion::Lamp, &Shares::Global(self.share)));
        }
        s.0 += 1;
        computed.copy_from_slice(free);
        s.1.as_ref().unwrap().apply(computed);
    }
    fn backward(&self, free: &[f32], gradient: &mut [f32]) {
        let s = self.state.borrow();
        let frozen = s.0 >= self.freeze;
        for ((g, k), w) in gradient.iter_mut().zip(s.1.as_ref().unwrap().kept()).zip(free) {
            if !k {
                if frozen { *g = 0.0 } else { *g += self.decay * w }
            }
        }
    }
}

fn main() {
    let task =
        std::fs::read_to_string(std::env::var("TASK").unwrap_or("examples/fashion-300-100.toml".into())).unwrap();
    let task = TaskFile::parse(&task, &[]).unwrap();
    let seed: u64 = env("SEED", 1);
    let plan = TaskPlan::new(&task, seed).unwrap();
    let loaded = starling_data::load(&task.data, task.kind, &plan.shape, "/work/shared/data".as_ref(), seed).unwrap();
    let (data, test) = (loaded.train, loaded.test.unwrap());
    let (fit, validation) = validation_split(data.len(), VALIDATION_SHARE, seed).unwrap();
    let test_rows: Vec<u32> = (0..test.len() as u32).collect();
    let shape = starling_spec::shape::infer(plan.kind, &plan.shape, &plan.layers).unwrap();
    let mut network = Network::new(&plan).unwrap();
    let mut judge = Network::new(&plan).unwrap();
    let mut judge = |name: &str, p: &[f32]| {
        let v = judge.evaluate(p, &data, &validation).unwrap();
        let t = judge.evaluate(p, &test, &test_rows).unwrap();
        let f = judge.evaluate(p, &data, &fit[..5000]).unwrap();
        println!(
            "{name}: val {:.2} loss {:.4} | test {:.2} loss {:.4} | fit {:.2}",
            100.0 * v.accuracy(),
            v.loss(),
            100.0 * t.accuracy(),
            t.loss(),
            100.0 * f.accuracy()
        );
        v.accuracy()
    };
    let base_epochs: usize = env("BASE_EPOCHS", 20);
    let cache = format!("/tmp/se/lab-{}-{seed}-{base_epochs}.f32", plan.name);
    let teacher: Vec<f32> = match std::fs::read(&cache) {
        Ok(b) => b.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect(),
        Err(_) => {
            let mut p = starling_spec::init::initial_parameters(&shape.manifest, seed);
            network
                .train_pooled(&mut p, &data, &fit, base_epochs, TrainPath { device: 0, round: 0 }, &mut |_, _| {})
                .unwrap();
            std::fs::write(&cache, p.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            p
        }
    };
    judge("base", &teacher);
    let full = Network::new(&plan).unwrap();
    let predict = full.predictor(&teacher).unwrap();
    let distil: f32 = env("DISTIL", 0.5);
    let temperature: f32 = env("T", 2.0);
    let lr: f64 = env("LR", 1e-3);
    let batch: usize = env("BATCH", 64);
    let surgery: usize = env("SURGERY", 0);
    let freeze: f64 = env("FREEZE", 0.6);
    let decay: f32 = env("DECAY", 0.0);
    let opt = match std::env::var("OPT").as_deref() {
        Ok("momentum") => Optimizer::Momentum,
        _ => Optimizer::Adam,
    };
    let steps = std::env::var("STEPS").unwrap_or("0.4:2,0.2:2,0.12:2,0.08:2,0.06:3,0.045:6".into());
    let crit = std::env::var("CRIT").unwrap_or("lamp".into());
    let mut model = if env("SCRATCH", 0) == 1 {
        starling_spec::init::initial_parameters(&shape.manifest, seed)
    } else {
        teacher.clone()
    };
    for (i, step) in steps.split(',').enumerate() {
        let parts: Vec<&str> = step.split(':').collect();
        let (share, epochs): (f64, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
        let lr = parts.get(2).map_or(lr, |v| v.parse().unwrap());
        let schedule = if parts.get(3) == Some(&"c") { Schedule::Constant } else { Schedule::Cosine };
        let started = std::time::Instant::now();
        let grad;
        let criterion = match crit.as_str() {
            "mag" => Criterion::Magnitude,
            "sal" => {
                grad = network.loss_gradient(&model, &data, &fit[..4000]).unwrap().1;
                Criterion::Saliency(&grad)
            }
            _ => Criterion::Lamp,
        };
        let mask = prune::mask(&shape, &model, criterion, &Shares::Global(share));
        let sm = Surgery {
            network: &shape,
            share,
            every: surgery.max(1),
            freeze: ((epochs * fit.len().div_ceil(batch)) as f64 * freeze) as usize,
            decay,
            state: RefCell::new((0, None)),
        };
        let map: &dyn WeightMap = if surgery > 0 {
            &sm
        } else {
            mask.apply(&mut model);
            &mask
        };
        let mut outputs = |f: &[f32]| predict(f);
        let teacher = (distil > 0.0).then_some(Teacher { outputs: &mut outputs, temperature, share: distil });
        let settings = TrainSettings { optimizer: opt, lr, batch, epochs, schedule, ..TrainSettings::default() };
        let tuning = Tuning {
            settings,
            path: TrainPath { device: 5, round: i as u64 },
            map: Some(map),
            teacher,
            stop: &AtomicBool::new(false),
            on_epoch: &mut |_, _| {},
        };
        network.tune(&mut model, &data, &fit, tuning).unwrap();
        let free = model.clone();
        map.forward(&free, &mut model);
        let kept: Vec<String> = prune::prunable(&shape)
            .iter()
            .map(|i| {
                let r = shape.manifest.tensors[*i].range();
                let n = r.len();
                format!("{:.1}%", 100.0 * model[r].iter().filter(|v| **v != 0.0).count() as f64 / n as f64)
            })
            .collect();
        judge(&format!("{share} x{epochs} ({:.0}s) [{}]", started.elapsed().as_secs_f64(), kept.join(" ")), &model);
        if env("PACK", 1) == 1 && i + 1 == steps.split(',').count() {
            for k in std::env::var("K").unwrap_or("8,16".into()).split(',').map(|k| k.parse::<usize>().unwrap()) {
                let mut tensors: Vec<starling_compress::Compressed> = Vec::new();
                let prunable = prune::prunable(&shape);
                for (i, t) in shape.manifest.tensors.iter().enumerate() {
                    let v = &model[t.range()];
                    tensors.push(if prunable.contains(&i) {
                        let kept: Vec<u32> = v.iter().zip(0u32..).filter(|(v, _)| **v != 0.0).map(|(_, i)| i).collect();
                        let vals: Vec<f32> = v.iter().copied().filter(|v| *v != 0.0).collect();
                        starling_compress::Compressed {
                            kept: Some(kept),
                            values: starling_compress::method::codebook::cluster(&vals, k),
                        }
                    } else {
                        starling_compress::Compressed {
                            kept: None,
                            values: starling_compress::method::quantise::fixed_point(v, 8),
                        }
                    });
                }
                let pairs: Vec<(usize, &starling_compress::Compressed)> =
                    prunable.iter().map(|i| (*i, &tensors[*i])).collect();
                let map = starling_compress::method::codebook::SharedWeights::new(&shape, &pairs);
                let mut tuned = model.clone();
                for i in &prunable {
                    let t = &shape.manifest.tensors[*i];
                    tensors[*i].decompress_into(&t.shape, &mut tuned[t.range()]);
                }
                let before = tuned.clone();
                let mut outputs = |f: &[f32]| predict(f);
                let teacher = (distil > 0.0).then_some(Teacher { outputs: &mut outputs, temperature, share: distil });
                let settings = TrainSettings {
                    optimizer: Optimizer::Adam,
                    lr: env("CLR", 3e-4),
                    batch,
                    epochs: env("CEPOCHS", 2),
                    schedule: Schedule::Cosine,
                    ..TrainSettings::default()
                };
                let tuning = Tuning {
                    settings,
                    path: TrainPath { device: 6, round: k as u64 },
                    map: Some(&map),
                    teacher,
                    stop: &AtomicBool::new(false),
                    on_epoch: &mut |_, _| {},
                };
                network.tune(&mut tuned, &data, &fit, tuning).unwrap();
                let mut list: Vec<(usize, starling_compress::Compressed)> =
                    prunable.iter().map(|i| (*i, tensors[*i].clone())).collect();
                map.codes_into(&tuned, &mut list);
                for (i, t) in shape.manifest.tensors.iter().enumerate() {
                    if !prunable.contains(&i) {
                        tensors[i].values = starling_compress::method::quantise::fixed_point(&tuned[t.range()], 8);
                    }
                }
                for (i, c) in list {
                    tensors[i] = c;
                }
                let release = starling_compress::Release {
                    name: plan.name.clone(),
                    kind: plan.kind,
                    shape: plan.shape.clone(),
                    scale: plan.scale,
                    layers: plan.layers.clone(),
                    inputs: vec![None; tensors.len()],
                    tensors,
                };
                let bytes = release.to_bytes().len();
                let bits: Vec<String> = release
                    .inspect()
                    .iter()
                    .filter(|r| r.weights > 500)
                    .map(|r| format!("{:.1}b", r.bits_per_weight))
                    .collect();
                judge("   clustered", &before);
                judge(
                    &format!("   k{k} {bytes} B {:.1}x [{}]", 4.0 * model.len() as f64 / bytes as f64, bits.join(" ")),
                    &release.parameters(&shape),
                );
            }
        }
    }
}
