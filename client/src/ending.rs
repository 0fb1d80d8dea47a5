//! Threads that end with the agent: it goes once they have let go of what they share with it, the store above all, so that whoever opens
//! the state folder next finds it free.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long the agent waits: far longer than a thread takes for the batch, or the write, that it is in.
const WAIT: Duration = Duration::from_secs(2);

/// The thread's half: dropped as the last thing that it does.
pub(crate) struct Alive(#[allow(dead_code, reason = "dropping it is what tells")] Sender<()>);

/// The agent's half: dropping it waits for the other one.
pub(crate) struct Ending(Receiver<()>);

/// The two halves for one thread.
pub(crate) fn halves() -> (Alive, Ending) {
    let (sender, receiver) = channel();
    (Alive(sender), Ending(receiver))
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Nothing is ever sent: it ends when the other half is gone.
        let _ = self.0.recv_timeout(WAIT);
    }
}
