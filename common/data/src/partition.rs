//! Spreading training rows over simulated devices: a function of the rows, the settings and the seed.

use starling_spec::Partition;
use starling_spec::random::{Purpose, Random};

use crate::dataset::{Labels, index};
use crate::error::DataError;
use crate::load::Loaded;

/// Every device has at least this many samples under `dirichlet:A`, or half of an equal share where that is less.
pub const SAMPLES_MIN: usize = 10;

/// The rows of each device, each list in ascending order.
///
/// - `iid`: rows are shuffled and cut into equal parts (sizes differ by at most one).
/// - `shards:K`: rows are sorted by label and cut into K × devices shards; each device gets K of them, drawn without
///   replacement (McMahan et al. 2017, §3).
/// - `dirichlet:A`: of each class, device i gets the share pᵢ with p ~ Dirichlet(A, …, A). Such a draw may leave a device with
///   nothing, which no real device would take part with: devices with fewer than [`SAMPLES_MIN`] samples (or half of an
///   equal share, where that is less) are then topped up, in order of their numbers, each time with a random sample of
///   the device that has most. Drawing again until all have enough, as others do, has no bound on its time.
/// - `column`: one device a client of `data.client`, in the clients' order; clients without a training row have no device.
///
/// # Errors
/// [`DataError::Setting`] when there are more devices than rows or the data lack what the partition goes by.
pub fn partition(loaded: &Loaded, how: Partition, devices: Option<u32>, seed: u64) -> Result<Vec<Vec<u32>>, DataError> {
    let rows = loaded.train.rows();
    if how == Partition::Column {
        return by_column(loaded, devices);
    }
    let devices = devices.filter(|devices| *devices > 0).ok_or_else(|| {
        DataError::setting("federation.devices", format!("missing: partition {:?} needs at least 1", String::from(how)))
    })?;
    if devices > rows {
        let problem = format!("{devices} devices, but only {rows} training samples; expected at least one each");
        return Err(DataError::setting("federation.devices", problem));
    }
    let mut random = Random::new(seed, Purpose::Partition, &[]);
    let mut parts = match how {
        Partition::Iid => {
            let mut order: Vec<u32> = (0..rows).collect();
            random.shuffle(&mut order);
            (0..devices).map(|device| cut(&order, device, devices).to_vec()).collect()
        }
        Partition::Shards(each) => shards(loaded, devices, each, &mut random)?,
        Partition::Dirichlet(alpha) => dirichlet(loaded, index(devices), alpha, &mut random)?,
        Partition::Column => unreachable!("handled above"),
    };
    parts.iter_mut().for_each(|part: &mut Vec<u32>| part.sort_unstable());
    Ok(parts)
}

/// Part `part` of `parts` nearly equal ones.
fn cut(items: &[u32], part: u32, parts: u32) -> &[u32] {
    let at = |part: u64| {
        let place = items.len() as u64 * part / u64::from(parts);
        usize::try_from(place).expect("a place in a slice")
    };
    &items[at(part.into())..at(u64::from(part) + 1)]
}

fn by_column(loaded: &Loaded, devices: Option<u32>) -> Result<Vec<Vec<u32>>, DataError> {
    let clients = loaded.clients.as_ref().ok_or_else(|| {
        DataError::setting("federation.partition", "\"column\" needs data.client, which names the client of a row")
    })?;
    if devices.is_some_and(|devices| index(devices) != clients.names.len()) {
        let problem =
            format!("the data have {} clients; leave it out with partition = \"column\"", clients.names.len());
        return Err(DataError::setting("federation.devices", problem));
    }
    let mut parts = vec![Vec::new(); clients.names.len()];
    for (row, client) in (0..loaded.train.rows()).zip(&clients.of_row) {
        parts[index(*client)].push(row);
    }
    Ok(parts)
}

fn shards(loaded: &Loaded, devices: u32, each: u32, random: &mut Random) -> Result<Vec<Vec<u32>>, DataError> {
    let rows = loaded.train.rows();
    let count = devices.checked_mul(each).filter(|count| *count <= rows).ok_or_else(|| {
        let problem = format!("{each} shards for each of {devices} devices, but only {rows} training samples");
        DataError::setting("federation.partition", problem)
    })?;
    let mut order: Vec<u32> = (0..rows).collect();
    match &loaded.train.labels {
        Labels::Bytes(labels) => order.sort_by_key(|row| labels[index(*row)]),
        Labels::Classes(labels) => order.sort_by_key(|row| labels[index(*row)]),
        Labels::Values(values) => order.sort_by(|a, b| values[index(*a)].total_cmp(&values[index(*b)])),
        Labels::Next => return Err(no_labels("shards")),
    }
    let mut shards: Vec<u32> = (0..count).collect();
    random.shuffle(&mut shards);
    let device = |shards: &[u32]| shards.iter().flat_map(|shard| cut(&order, *shard, count)).copied().collect();
    Ok(shards.chunks_exact(index(each)).map(device).collect())
}

fn no_labels(what: &str) -> DataError {
    let problem = format!("{what:?} goes by classes, which these data have not; use iid or column");
    DataError::setting("federation.partition", problem)
}

fn dirichlet(loaded: &Loaded, devices: usize, alpha: f64, random: &mut Random) -> Result<Vec<Vec<u32>>, DataError> {
    let class_of: Box<dyn Fn(usize) -> usize + '_> = match &loaded.train.labels {
        Labels::Bytes(labels) => Box::new(|row| labels[row].into()),
        Labels::Classes(labels) => Box::new(|row| index(labels[row])),
        Labels::Next | Labels::Values(_) => return Err(no_labels("dirichlet")),
    };
    let mut classes = vec![Vec::new(); loaded.train.classes().unwrap_or(0)];
    for row in 0..loaded.train.rows() {
        classes[class_of(index(row))].push(row);
    }
    let mut parts = vec![Vec::new(); devices];
    for mut class in classes {
        random.shuffle(&mut class);
        let shares = dirichlet_draw(alpha, devices, random);
        let mut from = 0;
        let mut sum = 0.0;
        for (device, (part, share)) in parts.iter_mut().zip(&shares).enumerate() {
            sum += share;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length, above 0")]
            let rounded = (sum * class.len() as f64).round() as usize;
            // The last one takes the rest, whatever the rounding of the shares' sum.
            let to = if device + 1 == devices { class.len() } else { rounded.clamp(from, class.len()) };
            part.extend_from_slice(&class[from..to]);
            from = to;
        }
    }
    top_up(&mut parts, random);
    Ok(parts)
}

/// Shares of `Dirichlet(alpha, …, alpha)`: normalised Gamma(alpha) draws, in logarithms since a small alpha underflows.
fn dirichlet_draw(alpha: f64, count: usize, random: &mut Random) -> Vec<f64> {
    let logs: Vec<f64> = (0..count).map(|_| log_gamma_draw(alpha, random)).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut shares: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let sum: f64 = shares.iter().sum();
    shares.iter_mut().for_each(|share| *share /= sum);
    shares
}

/// The logarithm of a Gamma(alpha, 1) draw: Marsaglia and Tsang 2000, "A simple method for generating gamma variables", §2,
/// for alpha + 1, and §6 (a factor `U^(1/alpha)`) back to alpha.
fn log_gamma_draw(alpha: f64, random: &mut Random) -> f64 {
    let d = alpha + 1.0 - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let cubed = loop {
        let x = random.normal();
        let v = (1.0 + c * x).powi(3);
        // 1 − u lies in (0, 1], so that its logarithm is finite.
        if v > 0.0 && (1.0 - random.unit_f64()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            break v;
        }
    };
    (d * cubed).ln() + (1.0 - random.unit_f64()).ln() / alpha
}

fn top_up(parts: &mut [Vec<u32>], random: &mut Random) {
    let rows: usize = parts.iter().map(Vec::len).sum();
    let least = SAMPLES_MIN.min((rows / parts.len()).div_ceil(2));
    for poor in 0..parts.len() {
        while parts[poor].len() < least {
            let sizes = parts.iter().enumerate().map(|(device, part)| (part.len(), std::cmp::Reverse(device)));
            let (size, std::cmp::Reverse(rich)) = sizes.max().expect("at least one device");
            let place = usize::try_from(random.below(size as u64)).expect("a place in a vector");
            let row = parts[rich].swap_remove(place);
            parts[poor].push(row);
        }
    }
}
