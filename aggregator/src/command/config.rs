//! `config …`: what a daemon is told, before it runs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use starling_daemon::Exit;

use crate::config::AggregatorConfig;

/// `config …`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Read it and the certificates it names, and say what is wrong
    Check {
        /// The file
        #[arg(long)]
        config: PathBuf,
    },
    /// Print a complete configuration with every key explained
    Sample {
        /// The address that devices dial, IP:PORT
        #[arg(long)]
        address: SocketAddr,
    },
}

/// What `config sample` begins from.
const SAMPLE: &str = include_str!("../../starling-aggregator.sample.toml");

pub(super) fn execute(verb: &ConfigVerb) -> anyhow::Result<Exit> {
    match verb {
        ConfigVerb::Check { config } => {
            let read = AggregatorConfig::load(config)?;
            let credentials = starling_net::Credentials::load(&read.tls)?;
            println!("{}: good; {} {:?}", config.display(), credentials.identity().role, credentials.identity().name);
        }
        ConfigVerb::Sample { address } => print!("{}", sample(*address)),
    }
    Ok(Exit::Ok)
}

/// The sample for an aggregator that devices dial at `address`. It listens on every interface: the address may be a router's.
fn sample(address: SocketAddr) -> String {
    let every = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
    let listen = format!("listen = \"{every}:{}\"", address.port());
    SAMPLE.replace("listen = \"0.0.0.0:4433\"", &listen).replace("192.0.2.10:4433", &address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_configuration_for_the_address_that_was_given() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("starling-aggregator.toml");
        for (address, listen) in [("198.51.100.7:7000", "0.0.0.0:7000"), ("[2001:db8::1]:7000", "[::]:7000")] {
            let address: SocketAddr = address.parse().expect("an address");
            std::fs::write(&file, sample(address)).expect("written");
            let config = AggregatorConfig::load(&file).expect("it is good");
            assert_eq!(config.listen, listen.parse().expect("an address"));
            assert_eq!(config.enrolment.expect("it lets devices in").address, Some(address));
        }
    }
}
