//! `starling-client`: the device's daemon.

use clap::Parser;
use starling_client::command::{ClientCommand, run};
use starling_daemon::exit::Exit;

/// Takes part in federated learning with this device's own data, which never leave it.
#[derive(Debug, Parser)]
#[command(name = "starling-client", version)]
struct Arguments {
    #[command(flatten)]
    command: ClientCommand,
}

fn main() -> Exit {
    run(Arguments::parse().command)
}
