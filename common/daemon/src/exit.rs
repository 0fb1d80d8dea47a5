//! Exit codes: the same for every command, and stable, because scripts and service managers act on them.

use std::process::{ExitCode, Termination};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// 0: it did what was asked, or was asked to stop and did.
    Ok = 0,
    /// 1: something in the world failed: a file, a socket, a peer. Trying again may help.
    Failure = 1,
    /// 2: the arguments, the configuration or a task file are wrong. Trying again does not help; the message says what to change.
    Usage = 2,
    /// 3: the peer refused for good: certificate, role, name or protocol version. Trying again does not help until the operator acts.
    Refused = 3,
    /// 4: the state folder is in use by another process.
    InUse = 4,
    /// 5: a check or budget that was asked for did not hold (`chaos`, a bench with a limit, a demo that misses its accuracy).
    Missed = 5,
    /// 101: our own invariant broke and the process panicked. It is what Rust itself exits with; it is named here for the documentation.
    Broken = 101,
}

impl Exit {
    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable() {
        let codes = [Exit::Ok, Exit::Failure, Exit::Usage, Exit::Refused, Exit::InUse, Exit::Missed, Exit::Broken]
            .map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 101]);
    }
}
