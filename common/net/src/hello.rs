//! The first exchange on a connection: a hello from the dialer, a welcome or a refusal from the listener.
//!
//! ```text
//!  dialer                              listener
//!    │ opens the control stream           │
//!    ├─ Hello { versions, name } ────────►│ version? role in the certificate? name = the certificate's?
//!    │◄─ Welcome { version, device } ─────┤ yes
//!    │◄─ Refused(reason), close(code) ────┤ no
//! ```
//!
//! A dialer that TLS has refused learns of it here, too: its handshake has succeeded, its hello meets a closed connection.

use std::fmt;
use std::time::Duration;

use starling_wire::limits::NAME_BYTES_MAX;
use starling_wire::{Hello, PROTOCOL_VERSION, Refusal, Role, ToAggregator, ToClient, Welcome};
use tokio::time::timeout;

use crate::control::{Control, ControlError};
use crate::limits::WELCOME_TIMEOUT;
use crate::link::Link;
use crate::reason::CloseReason;

/// How long the listener waits for its refusal to be delivered before it closes the connection.
const REFUSAL_DELIVERY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection did not get past its hello. It is closed by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GreetError {
    /// Who ended it, and why.
    pub reason: CloseReason,
}

impl GreetError {
    /// The refusal, if it was one; on the listener's side always one when this side ended the connection.
    pub fn refusal(&self) -> Option<Refusal> {
        self.reason.refusal
    }

    /// Whether trying again, unchanged, can never help.
    pub fn is_final(&self) -> bool {
        self.reason.is_final()
    }

    fn ours(refusal: Refusal, text: String) -> Self {
        Self { reason: CloseReason { refusal: Some(refusal), by_peer: false, text } }
    }
}

impl fmt::Display for GreetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for GreetError {}

/// The hello that an honest device sends: the version that this build speaks, and the name in its certificate.
pub fn own_hello(link: &Link, software: &str) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        name: link.own().name.clone(),
        software: software.chars().take(NAME_BYTES_MAX / 4).collect(),
    }
}

/// The dialer's half: says hello with the name in the own certificate, and waits for the welcome.
///
/// # Errors
/// [`GreetError`] with the refusal of either side's TLS or of the aggregator; the connection is closed.
pub async fn greet_aggregator(
    link: &Link,
    software: &str,
) -> Result<(Control<ToAggregator, ToClient>, Welcome), GreetError> {
    greet_aggregator_with(link, own_hello(link, software)).await
}

/// The same with any hello: another name than the certificate's is refused, and tests say so.
///
/// # Errors
/// See [`greet_aggregator`].
pub async fn greet_aggregator_with(
    link: &Link,
    hello: Hello,
) -> Result<(Control<ToAggregator, ToClient>, Welcome), GreetError> {
    let exchange = async {
        let (send, receive) = link.connection.open_bi().await.map_err(|error| ControlError::Closed(error.into()))?;
        let mut control = Control::new(send, receive);
        control.send(&ToAggregator::Hello(hello)).await?;
        let answer = control.recv().await?;
        Ok::<_, ControlError>((control, answer))
    };
    match timeout(WELCOME_TIMEOUT, exchange).await {
        Ok(Ok((control, Some(ToClient::Welcome(welcome))))) => {
            if welcome.version == PROTOCOL_VERSION {
                Ok((control, welcome))
            } else {
                let text =
                    format!("the welcome says version {}, the hello offered {PROTOCOL_VERSION}", welcome.version);
                Err(refuse(link, Refusal::VersionNotSpoken, text))
            }
        }
        Ok(Ok((_, Some(ToClient::Refused(refusal))))) => {
            // The close code that follows carries the aggregator's own words, such as the two names that differ.
            let reason = match timeout(REFUSAL_DELIVERY_TIMEOUT, link.closed()).await {
                Ok(reason) if reason.refusal == Some(refusal) => reason,
                _ => CloseReason { refusal: Some(refusal), by_peer: true, text: String::new() },
            };
            link.finish();
            Err(GreetError { reason })
        }
        Ok(Ok((_, Some(_)))) => Err(refuse(link, Refusal::UnexpectedFrame, "expected a welcome first".to_owned())),
        Ok(Ok((_, None))) => Err(refuse(link, Refusal::UnexpectedFrame, "the control stream ended".to_owned())),
        Ok(Err(error)) => Err(failed(link, error)),
        Err(_) => Err(refuse(link, Refusal::Stalled, "no welcome came in time".to_owned())),
    }
}

/// The listener's half: waits for the hello, checks it against the certificate, and welcomes or refuses. `epoch` grows
/// with each start of this aggregator; `roles` are the ones that may connect here.
///
/// # Errors
/// [`GreetError`] with what was refused; the connection is closed and the peer knows the same reason.
pub async fn greet_device(
    link: &Link,
    epoch: u64,
    roles: &[Role],
    wait: Duration,
) -> Result<(Hello, Control<ToClient, ToAggregator>), GreetError> {
    greet_device_if(link, epoch, roles, wait, |_| Ok(())).await
}

/// The same for a listener that knows more about its devices than their certificates say: `admit` has the last word before
/// the welcome.
///
/// # Errors
/// See [`greet_device`].
pub async fn greet_device_if(
    link: &Link,
    epoch: u64,
    roles: &[Role],
    wait: Duration,
    admit: impl FnOnce(&Link) -> Result<(), Refusal>,
) -> Result<(Hello, Control<ToClient, ToAggregator>), GreetError> {
    let first = async {
        let (send, receive) = link.connection.accept_bi().await.map_err(|error| ControlError::Closed(error.into()))?;
        let mut control = Control::new(send, receive);
        let first = control.recv().await?;
        Ok::<_, ControlError>((control, first))
    };
    let (mut control, first) = match timeout(wait, first).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(failed(link, error)),
        Err(_) => return Err(refuse(link, Refusal::NoHello, "no hello came in time".to_owned())),
    };
    let checked = match first {
        Some(ToAggregator::Hello(hello)) => check(link, hello, roles)
            .and_then(|hello| admit(link).map(|()| hello).map_err(|refusal| (refusal, refusal.text().to_owned()))),
        _ => Err((Refusal::NoHello, "the first frame was no hello".to_owned())),
    };
    let hello = match checked {
        Ok(hello) => hello,
        Err((refusal, text)) => {
            let delivery = async {
                // A peer that is gone or does not read gets the close code, if anything.
                if control.send(&ToClient::Refused(refusal)).await.is_ok() {
                    control.sender.finish();
                    control.sender.delivered().await;
                }
            };
            let _ = timeout(REFUSAL_DELIVERY_TIMEOUT, delivery).await;
            return Err(refuse(link, refusal, text));
        }
    };
    let welcome = Welcome { version: PROTOCOL_VERSION, device: link.peer().id, epoch };
    match control.send(&ToClient::Welcome(welcome)).await {
        Ok(()) => Ok((hello, control)),
        Err(error) => Err(failed(link, error)),
    }
}

fn check(link: &Link, hello: Hello, roles: &[Role]) -> Result<Hello, (Refusal, String)> {
    let peer = link.peer();
    if hello.version_min > PROTOCOL_VERSION || hello.version_max < PROTOCOL_VERSION {
        let text = format!(
            "versions {} to {} are offered, {PROTOCOL_VERSION} is spoken",
            hello.version_min, hello.version_max
        );
        return Err((Refusal::VersionNotSpoken, text));
    }
    if !roles.contains(&peer.role) {
        let wanted = roles.iter().map(|role| role.word()).collect::<Vec<_>>().join(" or ");
        return Err((Refusal::WrongRole, format!("the certificate's role is {}, expected {wanted}", peer.role)));
    }
    if hello.name != peer.name {
        let said: String = hello.name.chars().take(64).collect();
        return Err((Refusal::NameMismatch, format!("the hello says {said:?}, the certificate {:?}", peer.name)));
    }
    if hello.software.len() > NAME_BYTES_MAX {
        return Err((Refusal::MalformedFrame, format!("the software's name has {} bytes", hello.software.len())));
    }
    Ok(hello)
}

fn refuse(link: &Link, refusal: Refusal, text: String) -> GreetError {
    link.close_with(refusal, &text);
    GreetError::ours(refusal, text)
}

fn failed(link: &Link, error: ControlError) -> GreetError {
    match error {
        ControlError::Closed(reason) => GreetError { reason },
        // The end of a stream and the end of its connection race: the connection's reason says more.
        other => match link.close_reason() {
            Some(reason) => GreetError { reason },
            None => refuse(link, other.refusal().unwrap_or(Refusal::UnexpectedFrame), other.to_string()),
        },
    }
}
