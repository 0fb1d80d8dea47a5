//! Configuration files: TOML, strict, and with errors that say where.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The largest configuration file, in bytes. A real one has a few hundred; the limit is there for a path that leads somewhere else.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: cannot read the configuration", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is far too large to be a configuration.
    #[error("{}: more than {CONFIG_BYTES_MAX} bytes; is this the right file?", .0.display())]
    TooLarge(PathBuf),
    /// It is no TOML, or a key is unknown, missing or has a value of the wrong type.
    #[error("{}:{line}:{column}: {problem}{}", .path.display(), excerpt(.text))]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters.
        column: usize,
        /// What is wrong; it names the key.
        problem: String,
        /// The line as it was written; empty when the problem is not at one place (a missing key at the top).
        text: String,
    },
}

fn excerpt(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\n  {text}") }
}

/// Reads a TOML file as `T`. Whether unknown keys are refused is `T`'s choice: every configuration here says
/// `#[serde(deny_unknown_fields)]`.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config { idle_timeout_ms: u64 }
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("client.toml");
/// std::fs::write(&path, "idle_timeout_ms = 5000")?;
/// assert_eq!(starling_daemon::config::load::<Config>(&path)?.idle_timeout_ms, 5000);
/// # Ok(()) }
/// ```
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    parse(path, &text)
}

/// The same for a text that is already in memory; `path` is only for the message.
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        // A key that is missing at the top has the whole file as its place.
        let place = error.span().filter(|span| *span != (0..text.len()));
        let start = place.as_ref().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |index| index + 1);
        ConfigError::Content {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem: error.message().to_owned(),
            text: if place.is_some() {
                text[line_start..].lines().next().unwrap_or_default().to_owned()
            } else {
                String::new()
            },
        }
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors are looked at")]
    struct Sample {
        listen: std::net::SocketAddr,
        #[serde(default)]
        tls: Option<Tls>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the errors are looked at")]
    struct Tls {
        ca: PathBuf,
    }

    fn refusal(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("aggregator.toml");
        fs::write(&path, text).expect("written");
        load::<Sample>(&path).expect_err("refused").to_string()
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let unknown = refusal("listen = \"127.0.0.1:0\"\n\n[tls]\nca = \"ca.pem\"\ncertificat = \"c.pem\"\n");
        assert!(unknown.contains("aggregator.toml:5:1: ") && unknown.contains("`certificat`"), "{unknown}");
        assert!(unknown.ends_with("\n  certificat = \"c.pem\""), "{unknown}");
        let wrong = refusal("listen = 7\n");
        assert!(wrong.contains("aggregator.toml:1:10: ") && wrong.contains("listen = 7"), "{wrong}");
        let missing = refusal("listen = \"127.0.0.1:0\"\n[tls]\n");
        assert!(missing.contains("aggregator.toml:2:1: ") && missing.contains("`ca`"), "{missing}");
        let broken = refusal("# ä\nlisten = \n");
        assert!(broken.contains("aggregator.toml:2:"), "{broken}");
        let empty = refusal("");
        assert!(empty.contains("`listen`"), "{empty}");
    }

    #[test]
    fn a_missing_and_a_vast_file_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("none.toml");
        assert!(matches!(load::<Sample>(&path), Err(ConfigError::Read { .. })));
        fs::write(&path, " ".repeat((1 << 20) + 1)).expect("written");
        assert!(matches!(load::<Sample>(&path), Err(ConfigError::TooLarge(_))));
    }
}
