//! Stopping when asked to.

use std::future::{self, Future};
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT **after the call** (not after the first poll): call it before the daemon says that it
/// is ready, and no signal is missed. Must be called inside a tokio runtime.
///
/// Once called, the signals no longer end the process by themselves. Should the system refuse the handlers, they keep their
/// default effect, which is to end it; a warning says so.
pub fn shutdown() -> impl Future<Output = ()> + Send + 'static {
    let handlers = register();
    async move {
        match handlers {
            Ok((mut terminate, mut interrupt)) => {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "stopping");
            }
            Err(error) => {
                tracing::warn!(%error, "no signal handlers: SIGTERM and SIGINT end the process at once");
                future::pending().await
            }
        }
    }
}

fn register() -> io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn both_signals_resolve_it_even_when_sent_before_the_first_poll() {
        for name in ["-TERM", "-INT"] {
            let stopped = shutdown();
            let sent = Command::new("kill").args([name, &std::process::id().to_string()]).status().expect("kill runs");
            assert!(sent.success());
            tokio::time::timeout(Duration::from_secs(10), stopped).await.expect("the signal arrives");
        }
    }

    #[tokio::test]
    async fn it_waits_while_nobody_asks() {
        // Another test of this process may send a signal; then this says nothing, and in every other order it does.
        let waited = tokio::time::timeout(Duration::from_millis(1), future::pending::<()>()).await;
        assert!(waited.is_err());
    }
}
