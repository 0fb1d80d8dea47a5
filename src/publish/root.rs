//! `starling publish root`: which keys there are, and how many of which of them speak for what.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use starling_daemon::span::seconds;
use starling_trust::{Bundle, Document, PublicKey, Root, Statement};
use starling_wire::Digest;

use super::files::{self, KeyArgs};
use super::inspect;
use crate::report::JsonArgs;

/// Arguments of `starling publish root`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Who changes the root: how many of whose keys, as 2:A.pub,B.pub,C.pub
    #[arg(long, value_name = "N:FILE,…")]
    root: Signers,
    /// Who says what is newest; one machine is enough
    #[arg(long, value_name = "N:FILE,…")]
    freshness: Signers,
    /// Who publishes for which tasks, as 'pump-*=2:A.pub,B.pub'; can be given again, the first that fits a task decides
    #[arg(long = "publisher", value_name = "TASKS=N:FILE,…", required = true)]
    publishers: Vec<Publisher>,
    /// The roots so far: the new one follows them, and needs a threshold of the last one's keys besides its own
    #[arg(long, value_name = "FILE")]
    replaces: Option<PathBuf>,
    /// From when on the root counts no more, from now: 365d
    #[arg(long, default_value = "365d", value_name = "SPAN", value_parser = seconds)]
    expires: u64,
    /// Where the roots go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// A threshold and the files of public keys.
#[derive(Debug, Clone)]
struct Signers {
    threshold: u8,
    files: Vec<PathBuf>,
}

/// Signers for a pattern of tasks.
#[derive(Debug, Clone)]
struct Publisher {
    tasks: String,
    signers: Signers,
}

impl FromStr for Signers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a number and files, such as 2:a.pub,b.pub, not {text:?}");
        let (threshold, files) = text.split_once(':').ok_or_else(wrong)?;
        let threshold = threshold.parse().map_err(|_| wrong())?;
        let files: Vec<PathBuf> = files.split(',').filter(|file| !file.is_empty()).map(PathBuf::from).collect();
        if threshold == 0 || files.len() < usize::from(threshold) {
            return Err(format!("{text:?}: expected 1 to {} signatures of {} keys", files.len(), files.len()));
        }
        Ok(Self { threshold, files })
    }
}

impl FromStr for Publisher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tasks, signers) = text.split_once('=').ok_or("expected TASKS=N:FILE,…, such as '*=1:a.pub'")?;
        Ok(Self { tasks: tasks.to_owned(), signers: signers.parse()? })
    }
}

impl Signers {
    fn read(&self) -> Result<(Vec<PublicKey>, u8)> {
        let keys = self.files.iter().map(|file| files::read_public(file)).collect::<Result<Vec<_>>>()?;
        Ok((keys, self.threshold))
    }
}

pub(super) fn command(args: &Args) -> Result<()> {
    let (mut roots, version, origin) = match &args.replaces {
        None => {
            anyhow::ensure!(
                !args.out.exists(),
                "{} is there already; name it with --replaces to make the root that follows it",
                args.out.display()
            );
            (Bundle::default(), 1, Digest([0; 32]))
        }
        Some(path) => {
            let (roots, trusted) = files::read_roots(path)?;
            let version = trusted.root().head().version.checked_add(1).context("there is no later version")?;
            (roots, version, trusted.origin())
        }
    };
    let head = files::head(version, args.expires, origin)?;
    let (root, freshness) = (args.root.read()?, args.freshness.read()?);
    let publishers = args.publishers.iter().map(|publisher| Ok((&*publisher.tasks, publisher.signers.read()?)));
    let publishers = publishers.collect::<Result<Vec<_>>>()?;
    let publishers: Vec<_> = publishers.iter().map(|(tasks, (keys, least))| (*tasks, (&keys[..], *least))).collect();
    let root = Root::new(head, (&root.0, root.1), (&freshness.0, freshness.1), &publishers)?;
    let mut document = Document::new(Statement::Root(root))?;
    for key in args.keys.read()? {
        document.sign(&key)?;
    }
    roots.documents.push(document);
    files::write_bundle(&args.out, &roots)?;
    inspect::show(&roots, &args.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signers_and_publishers_are_read_and_a_threshold_without_its_keys_is_not() {
        let publisher: Publisher = "pump-*=2:a.pub,b.pub".parse().expect("good");
        assert_eq!((&*publisher.tasks, publisher.signers.threshold, publisher.signers.files.len()), ("pump-*", 2, 2));
        for wrong in ["", "a.pub", "0:a.pub", "2:a.pub", "x:a.pub", "1:", "300:a.pub"] {
            assert!(wrong.parse::<Signers>().is_err(), "{wrong:?}");
        }
        assert!("1:a.pub".parse::<Publisher>().is_err());
    }
}
