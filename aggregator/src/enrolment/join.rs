//! One connection of a machine that has no certificate, or an expired one: one question, one answer.

use std::sync::Arc;

use starling_certs::request;
use starling_net::JoinLink;
use starling_wire::{FromAuthority, Refusal, ToAuthority};
use tokio::sync::{Semaphore, mpsc};

use super::{Registrar, acts};
use crate::event::Event;

/// Connections of joining machines that are open at once. Each lives for seconds.
pub(crate) const JOINING_MAX: usize = 64;

/// Serves `link`, or turns it away when there are too many.
pub(crate) fn serve(link: JoinLink, places: &Arc<Semaphore>, registrar: Registrar, events: mpsc::Sender<Event>) {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return link.refuse(Refusal::Busy);
    };
    tokio::spawn(async move {
        let from = link.remote_addr();
        let channel = link.channel();
        let mut who = format!("a joining machine at {from}");
        let answered = link
            .answer(|question| {
                who = described(&question, &who);
                answer(question, channel, from, registrar)
            })
            .await;
        let refusal = match answered {
            Ok(refusal) => refusal,
            Err(error) => error.refusal(),
        };
        if let Some(reason) = refusal {
            acts::turned_away(&who, reason);
            let _ = events.send(Event::NotEnrolled { who, reason }).await;
        }
        drop(place);
    });
}

async fn answer(
    question: ToAuthority,
    channel: [u8; 32],
    from: std::net::SocketAddr,
    registrar: Registrar,
) -> FromAuthority {
    match question {
        ToAuthority::Join(asked) => {
            let proven = request::is_proven_join(&channel, &asked);
            registrar.join(from, asked, proven).await
        }
        ToAuthority::Renew(late) => {
            let proven = request::is_proven_renewal(&channel, late.device, &late.request).then_some(channel);
            match registrar.renew((late.device, ""), from, None, late.request, proven).await {
                Ok(credential) => FromAuthority::Issued(credential),
                Err(refusal) => FromAuthority::Refused(refusal),
            }
        }
        _ => FromAuthority::Refused(Refusal::UnexpectedFrame),
    }
}

/// Who asks, for the operator. Nothing vouches for the name.
fn described(question: &ToAuthority, otherwise: &str) -> String {
    match question {
        ToAuthority::Join(asked) => {
            let name: String = asked.name.chars().filter(|character| !character.is_control()).take(64).collect();
            format!("{name:?}, {otherwise}")
        }
        ToAuthority::Renew(late) => format!("{} with an expired certificate, {otherwise}", late.device),
        _ => otherwise.to_owned(),
    }
}
