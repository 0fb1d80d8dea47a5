//! README's commands of enrolment, as they are written there: from two empty folders to a device in a committed round.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::scene::binary;

/// What a newcomer may need, reading and typing included; the machine's part of it is seconds.
const FIRST_MINUTES: Duration = Duration::from_secs(180);

#[test]
fn the_readmes_commands_lead_from_two_empty_folders_to_a_device_in_a_round() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/newcomer/walk.sh");
    let began = Instant::now();
    let walked = match std::process::Command::new("bash").arg(script).env("STARLING", binary()).output() {
        Ok(walked) => walked,
        Err(error) => {
            eprintln!("SKIPPED: bash cannot be run ({error})");
            return;
        }
    };
    let took = began.elapsed();
    let (out, err) = (String::from_utf8_lossy(&walked.stdout), String::from_utf8_lossy(&walked.stderr));
    assert!(walked.status.success(), "{out}\n{err}");
    assert!(took < FIRST_MINUTES, "it took {took:?}");
    eprintln!("{err}{out}");
}
