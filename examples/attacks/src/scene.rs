//! The scene: pictures, a plan, and devices that train on theirs with the product's own trainer.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, ensure};
use starling_data::Dataset;
use starling_model::{Network, TrainPath};
use starling_spec::random::{Purpose, Random, device_key};
use starling_spec::{TaskFile, TaskPlan};
use starling_update::Version;
use starling_wire::{DeviceId, UpdateReport};

use crate::picture::Picture;

/// Where the pictures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// UCI's handwritten digits, 8 × 8, which every build carries.
    Digits,
    /// A folder with the four files of MNIST or Fashion-MNIST, 28 × 28.
    Folder(PathBuf),
}

/// Pictures, and the seed that everything else follows from.
pub struct Scene {
    source: Source,
    seed: u64,
    side: usize,
    train: Dataset,
    /// Pictures of the same kind that anybody has.
    public: Dataset,
}

/// What a task says beside its data.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Neurons of the hidden layer.
    pub hidden: usize,
    /// The codec of updates.
    pub codec: &'a str,
    /// The body of `[privacy]`, or nothing.
    pub privacy: &'a str,
    /// `[federation]` beside the number of devices.
    pub federation: &'a str,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self { hidden: 300, codec: "f32", privacy: "", federation: "" }
    }
}

/// What a device's training gave.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Who trained.
    pub device: DeviceId,
    /// The parameters after training less those before.
    pub delta: Vec<f32>,
    /// Examples, loss, steps.
    pub report: UpdateReport,
}

impl Scene {
    /// Reads the pictures.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn open(source: Source, seed: u64) -> Result<Self> {
        let task = TaskFile::parse(&task_text(&source, 10, Terms::default()), &[])?;
        let side = side(&source);
        let folder = match &source {
            Source::Digits => Path::new("."),
            Source::Folder(folder) => folder,
        };
        let loaded = starling_data::load(&task.data, task.kind, &task.data.shape, folder, seed).context(
            "the pictures cannot be read; --data names a folder with the four files of MNIST or Fashion-MNIST",
        )?;
        let public = loaded.test.context("there are pictures that anybody has")?;
        Ok(Self { source, seed, side, train: loaded.train, public })
    }

    /// Pixels along a side.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Pixels of a picture.
    pub fn pixels(&self) -> usize {
        self.side * self.side
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What the pictures are, in words.
    pub fn pictures(&self) -> String {
        match &self.source {
            Source::Digits => "UCI's handwritten digits, 8 × 8, which every build carries".into(),
            Source::Folder(folder) => {
                let name = folder.file_name().map_or_else(|| "images".into(), |name| name.to_string_lossy());
                format!("{name}, 28 × 28")
            }
        }
    }

    /// The plan of a task over these pictures for `devices` devices.
    ///
    /// # Errors
    /// What a task file would be refused for.
    pub fn plan(&self, devices: usize, terms: Terms<'_>) -> Result<TaskPlan> {
        let task = TaskFile::parse(&task_text(&self.source, devices, terms), &[])?;
        Ok(TaskPlan::new(&task, self.seed)?)
    }

    /// Rows for `devices` devices of `each` pictures, drawn by the seed; no picture twice.
    pub fn rows(&self, devices: usize, each: usize) -> Vec<Vec<u32>> {
        let mut rows: Vec<u32> = (0..u32::try_from(self.train.len()).unwrap_or(u32::MAX)).collect();
        Random::new(self.seed, Purpose::Partition, &[0]).shuffle(&mut rows);
        rows.chunks(each).take(devices).map(<[u32]>::to_vec).collect()
    }

    /// The pictures of these rows.
    pub fn truth(&self, rows: &[u32]) -> Vec<Picture> {
        of_dataset(&self.train, rows, self.side)
    }

    /// The first `count` pictures that anybody has.
    pub fn public(&self, count: usize) -> Vec<Picture> {
        let count = u32::try_from(count.min(self.public.len())).unwrap_or(u32::MAX);
        of_dataset(&self.public, &(0..count).collect::<Vec<_>>(), self.side)
    }

    /// Each device's training on its own rows from the version that it was sent, in round `round`.
    ///
    /// # Errors
    /// What the trainer refuses.
    pub fn train(&self, plan: &TaskPlan, version: &Version, rows: &[Vec<u32>], round: u32) -> Result<Vec<Trained>> {
        let mut network = Network::new(plan)?;
        let base = version.decoded();
        let numbered = rows.iter().zip(0u32..);
        let trained = numbered.map(|(rows, number)| {
            ensure!(!rows.is_empty(), "device {number} has no pictures");
            let device = DeviceId::seeded(self.seed, number);
            let path = TrainPath { device: device_key(device.0), round: round.into() };
            let mut delta = base.to_vec();
            let outcome = network.train(&mut delta, &self.train, rows, path, &AtomicBool::new(false))?;
            delta.iter_mut().zip(base.iter()).for_each(|(value, base)| *value -= base);
            let weight = outcome.examples.min(plan.update.weight_max);
            let report =
                UpdateReport { weight, train_loss: outcome.loss_mean, steps: outcome.steps, within_clip: false };
            Ok(Trained { device, delta, report })
        });
        trained.collect()
    }
}

/// The first layer of a delta, neuron by neuron: its weights' changes, then its bias's.
pub fn first_layer(plan: &TaskPlan, delta: &[f32]) -> Result<Vec<Vec<f64>>> {
    let manifest = plan.manifest()?;
    let [weight, bias, ..] = &manifest.tensors[..] else { anyhow::bail!("the network has no layer with a bias") };
    let (&[inputs, outputs], &[_]) = (&weight.shape[..], &bias.shape[..]) else {
        anyhow::bail!("the network does not begin with a linear layer and its bias")
    };
    let value = |index: usize| f64::from(delta[index]);
    let row = |neuron: usize| {
        let weights = (0..inputs).map(|input| value(weight.offset + input * outputs + neuron));
        weights.chain([value(bias.offset + neuron)]).collect()
    };
    Ok((0..outputs).map(row).collect())
}

fn side(source: &Source) -> usize {
    match source {
        Source::Digits => 8,
        Source::Folder(_) => 28,
    }
}

fn of_dataset(data: &Dataset, rows: &[u32], side: usize) -> Vec<Picture> {
    let mut features = Vec::new();
    data.features_into(rows, &mut features);
    features
        .chunks(side * side)
        .map(|values| Picture::new(side, values.iter().map(|value| f64::from(*value))))
        .collect()
}

fn task_text(source: &Source, devices: usize, terms: Terms<'_>) -> String {
    let data = match source {
        Source::Digits => {
            "format = \"csv\"\ntrain = \"embedded:optdigits\"\ntest = \"embedded:optdigits\"\nlabel = -1\n".to_owned()
        }
        Source::Folder(_) => "format = \"idx\"\n\
             train = \"train-images-idx3-ubyte.gz\"\ntrain_labels = \"train-labels-idx1-ubyte.gz\"\n\
             test = \"t10k-images-idx3-ubyte.gz\"\ntest_labels = \"t10k-labels-idx1-ubyte.gz\"\n"
            .to_owned(),
    };
    let Terms { hidden, codec, privacy, federation } = terms;
    let pixels = side(source) * side(source);
    let privacy = if privacy.is_empty() { String::new() } else { format!("[privacy]\n{privacy}\n") };
    format!(
        "name = \"pictures\"\nkind = \"classification\"\n\
         [data]\n{data}shape = [{pixels}]\nscale = \"unit\"\n\
         [model]\nlayers = [{{ linear = {{ out = {hidden} }} }}, \"relu\", {{ linear = {{ out = 10 }} }}]\n\
         [train]\noptimizer = \"sgd\"\nlr = 0.1\nbatch = 10\nepochs = 1\n\
         [federation]\ndevices = {devices}\n{federation}\n\
         [update]\ncodec = \"{codec}\"\ndown = \"f32\"\n{privacy}"
    )
}
