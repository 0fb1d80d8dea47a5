//! `starling-aggregator release …`: sent to the running daemon.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use starling_daemon::Exit;

use crate::command::device::given;
use crate::command::trust::read_bundle;
use crate::command::{Ask, print, send};

/// Verbs about releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseVerb {
    /// Check a release file, give it the task's next version, and offer it to every device of the task
    Publish {
        /// The file, as `starling model compress` writes it
        release: PathBuf,
        /// The task whose devices shall serve it
        #[arg(long)]
        task: String,
        /// Its version; one more than the task's last when not given
        #[arg(long)]
        version: Option<u64>,
        /// Only devices that have all of these tags are offered it; those of the task's newest run when not given. `--tags ""` is everybody
        #[arg(long, value_delimiter = ',')]
        tags: Option<Vec<String>>,
        /// What publishers signed of it, as `starling publish release` writes it: then the version is the one that they signed, and the same
        /// file with a newer bundle is vouched for anew
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Show the release of each task, how many connected devices hold and serve it, and who refused it and why
    List(Ask),
}

pub(crate) fn execute(verb: ReleaseVerb) -> anyhow::Result<Exit> {
    match verb {
        ReleaseVerb::Publish { release, task, version, tags, bundle, ask } => {
            let tags = tags.map(given);
            let request = json!({ "verb": "release-publish", "task": task, "version": version, "tags": tags, "bundle": bundle.as_deref().map(read_bundle).transpose()? });
            let answer = send(&ask.daemon()?, request, "release_bytes", &release)
                .with_context(|| format!("{} was not published", release.display()))?;
            ask.show(&answer, |answer| {
                println!(
                    "version {} of {}, {}, is offered to {} connected devices",
                    answer["version"],
                    answer["task"].as_str().unwrap_or("?"),
                    signed(answer),
                    answer["devices"]
                );
            })
        }
        ReleaseVerb::List(ask) => print(&ask, &json!({ "verb": "release-list" }), list),
    }
}

fn signed(release: &Value) -> &'static str {
    if release["signed"] == true { "signed" } else { "unsigned" }
}

fn list(answer: &Value) {
    println!(
        "{:<24} {:>7}  {:<16} {:>10} {:>8} {:>6} {:>6}  signed",
        "task", "version", "digest", "bytes", "devices", "hold", "serve"
    );
    for release in answer.as_array().into_iter().flatten() {
        // A JSON value takes no notice of a width.
        let count = |key: &str| release[key].as_u64().unwrap_or(0);
        let word = |key: &str| release[key].as_str().unwrap_or("?").to_owned();
        println!(
            "{:<24} {:>7}  {:<16} {:>10} {:>8} {:>6} {:>6}  {}",
            word("task"),
            count("version"),
            word("digest").get(..16).unwrap_or("?"),
            count("bytes"),
            count("devices"),
            count("hold"),
            count("serve"),
            signed(release)
        );
        if release["serve_another"].as_u64().is_some_and(|devices| devices > 0) {
            println!("    {} devices serve another version", release["serve_another"]);
        }
        for refused in release["refused"].as_array().into_iter().flatten() {
            println!("    refused by {}: {}", refused["devices"], refused["reason"].as_str().unwrap_or("?"));
        }
    }
}
