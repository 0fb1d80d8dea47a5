//! `starling-client predict`: asks the running client. Predictions go to stdout, one a line; talk and latency to stderr.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use starling_daemon::exit::Exit;
use starling_data::{DataError, read_rows};
use starling_spec::TaskKind;
use starling_spec::task::Column;

use crate::command::{complain, print};
use crate::config::ClientConfig;
use crate::serving::ask::{AskError, Asker};
use crate::serving::codec::{REQUEST_BYTES_MAX, Shape};

/// Samples that are asked for together.
const BATCH_ROWS: usize = 64;

/// What is left of a question for its head and name.
const HEAD_BYTES: usize = 1024;

/// Arguments of `predict`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file of the running client.
    #[arg(long)]
    pub config: PathBuf,
    /// A CSV file of raw features, one sample a row; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// The task whose release is asked; not needed where one is served.
    #[arg(long, default_value = "")]
    pub task: String,
    /// A column that is no feature, by name or by position (-1 is the last); can be given again.
    #[arg(long, value_name = "COLUMN", allow_hyphen_values = true, value_parser = column)]
    pub drop: Vec<Column>,
    /// Then ask N more times for one sample, and print the latency of these requests.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub repeat: u32,
    /// Print JSON, to a file when one is named.
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    pub json: Option<Option<PathBuf>>,
}

#[allow(clippy::unnecessary_wraps, reason = "the form that clap asks for")]
fn column(text: &str) -> Result<Column, String> {
    Ok(text.parse().map_or_else(|_| Column::Name(text.to_owned()), Column::Index))
}

#[derive(Debug, thiserror::Error)]
enum PredictError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{input} cannot be read")]
    Input {
        input: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} has no row")]
    Empty(String),
}

/// What `predict --json` prints.
#[derive(Debug, Default, Serialize)]
struct Predicted {
    /// The version of the release that answered last.
    version: u64,
    /// A class or value a sample; for text, the token after each position.
    predictions: Vec<Vec<f64>>,
    latency: Option<Latency>,
}

/// Latency of single requests through the socket, in microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    requests: usize,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// Does what the arguments say.
pub(crate) fn command(config: &ClientConfig, args: &Args) -> Exit {
    match predict(config, args) {
        Ok(predicted) => {
            if let Some(Latency { requests, p50_us, p99_us, max_us }) = &predicted.latency {
                eprintln!(
                    "{requests} requests of one sample: p50 {p50_us:.1} µs, p99 {p99_us:.1} µs, the slowest {max_us:.1} µs"
                );
            }
            print(&predicted, args.json.clone(), || {
                let line = |values: &Vec<f64>| values.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
                predicted.predictions.iter().map(line).collect::<Vec<_>>().join("\n")
            })
        }
        Err(error) => complain(&error, Exit::Failure),
    }
}

fn predict(config: &ClientConfig, args: &Args) -> Result<Predicted, PredictError> {
    let name = args.input.display().to_string();
    let input: Box<dyn Read> = if args.input.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let open = File::open(&args.input);
        Box::new(open.map_err(|source| PredictError::Input { input: name.clone(), source })?)
    };
    let rows = read_rows(&name, input, &args.drop)?;
    if rows.values.is_empty() {
        return Err(PredictError::Empty(name));
    }
    let mut asker = Asker::connect(&config.serving_socket())?;
    let mut predicted = Predicted::default();
    let batch = ((REQUEST_BYTES_MAX - HEAD_BYTES) / 4 / rows.row_len).clamp(1, BATCH_ROWS);
    for features in rows.values.chunks(batch * rows.row_len) {
        let samples = u32::try_from(features.len() / rows.row_len).unwrap_or(u32::MAX);
        let (shape, outputs) = asker.ask(&args.task, samples, features)?;
        predicted.version = shape.version;
        let width = usize::try_from(shape.outputs).unwrap_or(usize::MAX);
        predicted.predictions.extend(outputs.chunks_exact(width.max(1)).map(|outputs| decided(&shape, outputs)));
    }
    if args.repeat > 0 {
        let mut times = Vec::new();
        for features in rows.values.chunks_exact(rows.row_len).cycle().take(args.repeat as usize) {
            let start = Instant::now();
            asker.ask(&args.task, 1, features)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times[(times.len() - 1) * share / 100];
        predicted.latency = Some(Latency { requests: times.len(), p50_us: at(50), p99_us: at(99), max_us: at(100) });
    }
    Ok(predicted)
}

/// The first of the largest outputs of each position, or the value itself.
fn decided(shape: &Shape, outputs: &[f32]) -> Vec<f64> {
    let width = usize::try_from(shape.width).unwrap_or(usize::MAX).max(1);
    if shape.kind == TaskKind::Regression {
        return outputs.iter().map(|value| f64::from(*value)).collect();
    }
    let best =
        |outputs: &[f32]| (1..outputs.len()).fold(0, |best, at| if outputs[at] > outputs[best] { at } else { best });
    outputs.chunks_exact(width).map(|outputs| best(outputs) as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_the_first_of_the_largest_outputs_or_the_value() {
        let shape = |kind, outputs, width| Shape { kind, version: 1, samples: 1, outputs, width };
        assert_eq!(decided(&shape(TaskKind::Classification, 3, 3), &[0.1, 0.9, 0.9]), [1.0]);
        assert_eq!(decided(&shape(TaskKind::Regression, 1, 1), &[0.5]), [0.5]);
        assert_eq!(decided(&shape(TaskKind::NextToken, 4, 2), &[0.0, 1.0, 2.0, 1.0]), [1.0, 0.0]);
    }

    #[test]
    fn columns_are_told_apart_by_being_numbers() {
        assert_eq!(column("-1"), Ok(Column::Index(-1)));
        assert_eq!(column("label"), Ok(Column::Name("label".into())));
    }
}
