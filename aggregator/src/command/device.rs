//! `device …`: who belongs to the fleet.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value, json};
use starling_daemon::Exit;
use starling_daemon::now_unix_s;
use starling_daemon::span::seconds;

use super::{Ask, forget, print, revoke};

/// Verbs about devices, sent to the running daemon.
#[derive(Debug, Subcommand)]
pub enum DeviceVerb {
    /// Print a join string: type it into `starling-client join` on the device
    Invite {
        /// The device's name; its own wish when not given
        #[arg(long)]
        name: Option<String>,
        /// Its tags, separated by commas
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
        /// How long the string is good: 90s, 15m, 12h or 7d
        #[arg(long, default_value = "15m", value_parser = seconds)]
        expires: u64,
        /// Without a token: one string for all devices, each of which waits for `device approve`
        #[arg(long)]
        open: bool,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// List the devices: id, state, certificate's end, when last seen, name, tags
    List {
        /// Only those that wait for approval
        #[arg(long)]
        pending: bool,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Let a waiting device in
    Approve(Which),
    /// Turn a waiting device away
    Reject(Which),
    /// Throw a device out for good: its connection ends, and its update leaves every round that has not begun to commit
    Revoke(revoke::Revoke),
    /// Throw a device out, destroy all that is held of it, and write a signed certificate of that
    Forget(forget::Forget),
    /// Throw a device out until `device resume`
    Suspend(Which),
    /// Let a suspended device, or one whose key was seen twice, in again
    Resume {
        /// Which
        #[command(flatten)]
        which: Which,
        /// With whatever key it comes: after a certificate was issued by hand
        #[arg(long)]
        any_key: bool,
    },
    /// Say which tags a device has: tasks and releases that name tags are for devices that have all of them
    Tag {
        /// The device's id, the beginning of it, or its name
        device: String,
        /// All its tags from now on, separated by commas; `--tags ""` is none
        #[arg(long, value_delimiter = ',', required = true)]
        tags: Vec<String>,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
    /// Write the revocation list for other tools
    Crl {
        /// The file
        #[arg(long)]
        out: PathBuf,
        /// Which daemon
        #[command(flatten)]
        ask: Ask,
    },
}

/// One device of one daemon.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// The device's id, the beginning of it, or its name
    device: String,
    /// Which daemon
    #[command(flatten)]
    ask: Ask,
}

/// Tags as they were given: none where they are one empty word.
pub(crate) fn given(tags: Vec<String>) -> Vec<String> {
    if tags == [""] { Vec::new() } else { tags }
}

pub(super) fn execute(verb: DeviceVerb) -> anyhow::Result<Exit> {
    match verb {
        DeviceVerb::Invite { name, tags, expires, open, ask } => {
            let request =
                json!({ "verb": "device-invite", "name": name, "tags": tags, "expires_s": expires, "open": open });
            // The string alone on stdout: it is data, and it is a secret.
            print(&ask, &request, |answer| println!("{}", answer["join"].as_str().unwrap_or("?")))
        }
        DeviceVerb::List { pending, ask } => print(&ask, &json!({ "verb": "device-list", "pending": pending }), list),
        DeviceVerb::Approve(which) => decide("device-approve", &which, false),
        DeviceVerb::Reject(which) => decide("device-reject", &which, false),
        DeviceVerb::Revoke(what) => revoke::execute(&what),
        DeviceVerb::Forget(what) => forget::execute(&what),
        DeviceVerb::Suspend(which) => decide("device-suspend", &which, false),
        DeviceVerb::Resume { which, any_key } => decide("device-resume", &which, any_key),
        DeviceVerb::Tag { device, tags, ask } => {
            let request = json!({ "verb": "device-tag", "device": device, "tags": given(tags) });
            print(&ask, &request, |answer| {
                let word = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
                println!("{} {} has the tags {}", word("device"), word("name"), answer["tags"]);
            })
        }
        DeviceVerb::Crl { out, ask } => {
            let answer = ask.daemon()?.ask(&json!({ "verb": "device-crl" }))?;
            let list = answer["crl_pem"].as_str().context("the aggregator sent no list")?;
            std::fs::write(&out, list).with_context(|| format!("cannot write {}", out.display()))?;
            if ask.json {
                println!("{}", json!({ "out": out }));
            } else {
                eprintln!("written to {}", out.display());
            }
            Ok(Exit::Ok)
        }
    }
}

pub(super) fn decide(verb: &str, which: &Which, any_key: bool) -> anyhow::Result<Exit> {
    decide_on(verb, &which.device, &which.ask, any_key)
}

pub(super) fn decide_on(verb: &str, device: &str, ask: &Ask, any_key: bool) -> anyhow::Result<Exit> {
    let mut request = json!({ "verb": verb, "device": device });
    if any_key {
        request["any_key"] = json!(true);
    }
    print(ask, &request, |answer| {
        let word = |key: &str| answer[key].as_str().unwrap_or("?").to_owned();
        println!("{} {} is {}", word("device"), word("name"), word("state"));
    })
}

pub(super) fn list(answer: &Value) {
    println!("{:<32}  {:<9}  {:<15}  {:<12}  {:<20}  tags", "device", "state", "certificate", "seen", "name");
    let now_s = i64::try_from(now_unix_s()).unwrap_or(i64::MAX);
    for device in answer.as_array().into_iter().flatten() {
        let word = |key: &str| device[key].as_str().unwrap_or("?");
        let at = |key: &str| device[key].as_i64().unwrap_or(0);
        let tags: Vec<&str> = device["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let certificate = match at("certificate_expires_unix_s") {
            0 => "none".to_owned(),
            end if end < now_s => format!("expired {}", span(now_s - end)),
            end => format!("{} left", span(end - now_s)),
        };
        let seen = match (device["connected"] == true, at("last_seen_unix_s")) {
            (true, _) => "now".to_owned(),
            (false, 0) => "never".to_owned(),
            (false, last) => format!("{} ago", span(now_s - last)),
        };
        let (id, state, name) = (word("device"), word("state"), word("name"));
        println!("{id:<32}  {state:<9}  {certificate:<15}  {seen:<12}  {name:<20}  {}", tags.join(","));
        if state == "pending" {
            println!("  its key: {} (compare with what the device shows)", word("key_fingerprint"));
        }
    }
}

/// Seconds in the largest unit that fits.
fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
