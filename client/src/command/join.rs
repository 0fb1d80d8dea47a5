//! `join`: what the command line names, and what a machine that has joined is told.

use std::fs;
use std::path::PathBuf;

use starling_certs::{CertsError, Pair};
use starling_daemon::exit::Exit;
use starling_net::Transport;
use starling_wire::JoinString;

use super::{PathChoice, complain, load};
use crate::join::{Destination, JoinError};

pub(super) fn join(
    string: &str,
    out: Option<PathBuf>,
    config: Option<PathBuf>,
    name: Option<String>,
    path: PathChoice,
) -> Exit {
    let string = match string.parse::<JoinString>() {
        Ok(string) => string,
        Err(error) => return complain(&error, Exit::Usage),
    };
    let mut path = match path {
        PathChoice::Internet => starling_net::Path::Internet,
        PathChoice::Loopback => starling_net::Path::Loopback,
    };
    let (destination, written) = match (out, config) {
        (_, Some(config)) => {
            let config = match load(&config) {
                Ok(config) => config,
                Err(exit) => return exit,
            };
            path = config.path;
            if config.aggregator != string.address {
                eprintln!(
                    "warning: the configuration dials {}, the join string {}: the string's is asked",
                    config.aggregator, string.address
                );
            }
            let pair = Pair { certificate: config.tls.certificate, key: config.tls.key };
            (Destination { ca: config.tls.ca, pair }, None)
        }
        (out, None) => {
            let out = out.expect("clap wants one of the two");
            let pair = Pair { certificate: out.join("certificate.pem"), key: out.join("key.pem") };
            (Destination { ca: out.join("ca.pem"), pair }, Some(out.join("starling-client.toml")))
        }
    };
    let name = name.unwrap_or_else(own_name);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error, Exit::Failure),
    };
    let transport = Transport::on(path);
    let waiting = |key: &str| {
        eprintln!(
            "waiting for the operator to approve this device (`starling-aggregator device approve`); its key: {key}"
        );
    };
    let joined = runtime.block_on(crate::join::join(&string, &destination, name, &transport, waiting));
    let identity = match joined {
        Ok(identity) => identity,
        Err(error) => {
            let exit = match &error {
                JoinError::Joined(_) => Exit::Usage,
                error if error.refusal().is_some_and(|refusal| refusal.is_final()) => Exit::Refused,
                _ => Exit::Failure,
            };
            return complain(&error, exit);
        }
    };
    println!("joined as {} ({})", identity.name, identity.id);
    if let Some(file) = written {
        match starling_certs::write_new(&file, &crate::join::configuration(string.address, path)) {
            Ok(()) => eprintln!("name its tasks in {}, then: starling-client run --config {0}", file.display()),
            // There is one already: it is its owner's.
            Err(CertsError::Exists { .. }) => {}
            Err(error) => return complain(&error, Exit::Failure),
        }
    }
    Exit::Ok
}

/// The machine's name.
fn own_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
