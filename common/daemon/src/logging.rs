//! Logging: to a person when stderr is a terminal, as JSON lines otherwise. stdout is left to data.

use std::env;
use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The environment variable that replaces the filter, for example `starling_net=trace,quinn=debug`.
pub const FILTER_VARIABLE: &str = "STARLING_LOG";

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter in the environment cannot be read.
    #[error("{FILTER_VARIABLE}={value}: expected directives such as info or starling_net=debug,quinn=warn")]
    Filter {
        /// What it was set to.
        value: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// It is set up once a process.
    #[error("logging is already set up in this process")]
    Twice,
}

/// Sets logging up for this process. `verbosity` is the number of `-v`: 0 logs our own messages from `info`, 1 from `debug`, 2
/// and more from `trace`; other crates' from `warn`. The environment variable [`FILTER_VARIABLE`] has the last word.
pub fn init(verbosity: u8) -> Result<(), LoggingError> {
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(value) if !value.is_empty() => parse_filter(value)?,
        _ => EnvFilter::new(default_filter(verbosity)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let done = if io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    };
    done.map_err(|_| LoggingError::Twice)
}

fn parse_filter(value: String) -> Result<EnvFilter, LoggingError> {
    EnvFilter::try_new(&value).map_err(|source| LoggingError::Filter { value, source })
}

/// A directive matches every target that begins with it, so one covers all of our crates.
fn default_filter(verbosity: u8) -> &'static str {
    match verbosity {
        0 => "warn,starling=info",
        1 => "warn,starling=debug",
        _ => "warn,starling=trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_parse_and_a_wrong_one_is_named() {
        for verbosity in 0..4 {
            parse_filter(default_filter(verbosity).to_owned()).expect("a valid filter");
        }
        let error = parse_filter("starling=loud".to_owned()).expect_err("no such level");
        assert!(error.to_string().contains("STARLING_LOG=starling=loud"), "{error}");
    }

    #[test]
    fn it_is_set_up_once() {
        init(0).expect("the first time");
        assert!(matches!(init(0), Err(LoggingError::Twice)));
    }
}
