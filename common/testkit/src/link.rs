//! A UDP link that loses, delays, doubles and reorders datagrams, and that can change the address from which the far end
//! sees its user: this kernel has no `netem`.
//!
//! The link stands in front of one server. Every datagram of every user passes through it, in both directions. What
//! happens to a datagram is drawn from the seed and the datagram's number; the order in which datagrams arrive is the
//! network's, so a seed gives the same share of losses, not the same lost datagrams.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Datagrams that may be under way at once; more are lost, as on any full queue. 64 KiB each at most.
const IN_FLIGHT_MAX: usize = 4096;

/// Users of one link.
const USERS_MAX: usize = 256;

/// The largest UDP datagram.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What the link does to a datagram, in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// The share of datagrams that is lost, 0 to 1.
    pub loss: f64,
    /// How long each takes.
    pub delay: Duration,
    /// Up to how much longer some take: with it, datagrams overtake each other.
    pub jitter: Duration,
    /// The share that arrives twice.
    pub duplicated: f64,
}

impl Conditions {
    /// A perfect link.
    pub const CLEAN: Self = Self { loss: 0.0, delay: Duration::ZERO, jitter: Duration::ZERO, duplicated: 0.0 };

    /// A cut cable.
    pub const CUT: Self = Self { loss: 1.0, ..Self::CLEAN };

    /// A bad mobile link: 3 % lost, 20 ms each way, 15 ms of jitter, 1 % doubled.
    pub const MOBILE: Self =
        Self { loss: 0.03, delay: Duration::from_millis(20), jitter: Duration::from_millis(15), duplicated: 0.01 };
}

struct State {
    conditions: Mutex<Conditions>,
    seed: u64,
    drawn: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
    in_flight: Semaphore,
}

/// A running link; it ends when dropped. Needs a tokio runtime.
pub struct Link {
    state: Arc<State>,
    upstreams: Arc<Mutex<HashMap<SocketAddr, Upstream>>>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// One user's socket towards the server, and the task that carries answers back.
struct Upstream {
    socket: Arc<UdpSocket>,
    _answers: JoinSet<()>,
}

impl Link {
    /// Starts a link to `server` under `conditions`.
    ///
    /// # Errors
    /// If no socket can be opened.
    pub async fn start(server: SocketAddr, seed: u64, conditions: Conditions) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let state = Arc::new(State {
            conditions: Mutex::new(conditions),
            seed,
            drawn: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        });
        let upstreams = Arc::new(Mutex::new(HashMap::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(carry_up(front, server, state.clone(), upstreams.clone()));
        Ok(Self { state, upstreams, address, _tasks: tasks })
    }

    /// Where users send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the conditions from the next datagram on.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn set(&self, conditions: Conditions) {
        *self.state.conditions.lock().expect("no holder panics") = conditions;
    }

    /// From the next datagram on, the server sees every user at a new address, as after a NAT's restart or a change of
    /// network. Answers to the old address are lost.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn rebind(&self) {
        self.upstreams.lock().expect("no holder panics").clear();
    }

    /// Datagrams `(passed, lost)` so far, both directions together.
    pub fn counts(&self) -> (u64, u64) {
        (self.state.passed.load(Ordering::Relaxed), self.state.lost.load(Ordering::Relaxed))
    }
}

async fn carry_up(
    front: Arc<UdpSocket>,
    server: SocketAddr,
    state: Arc<State>,
    upstreams: Arc<Mutex<HashMap<SocketAddr, Upstream>>>,
) {
    let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
    loop {
        // An error here is an ICMP answer to something sent before: datagrams get lost, and this is one way.
        let Ok((length, user)) = front.recv_from(&mut buffer).await else { continue };
        let known = upstreams.lock().expect("no holder panics").get(&user).map(|upstream| upstream.socket.clone());
        let socket = match known {
            Some(socket) => socket,
            None => {
                let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { continue };
                let socket = Arc::new(socket);
                let mut answers = JoinSet::new();
                answers.spawn(carry_down(socket.clone(), front.clone(), user, state.clone()));
                let mut upstreams = upstreams.lock().expect("no holder panics");
                if upstreams.len() >= USERS_MAX {
                    continue;
                }
                upstreams.insert(user, Upstream { socket: socket.clone(), _answers: answers });
                socket
            }
        };
        forward(&state, socket, server, &buffer[..length]);
    }
}

async fn carry_down(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, user: SocketAddr, state: Arc<State>) {
    let mut buffer = vec![0u8; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        forward(&state, front.clone(), user, &buffer[..length]);
    }
}

fn forward(state: &Arc<State>, socket: Arc<UdpSocket>, to: SocketAddr, datagram: &[u8]) {
    let conditions = *state.conditions.lock().expect("no holder panics");
    if state.chance() < conditions.loss {
        state.lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let copies = if state.chance() < conditions.duplicated { 2 } else { 1 };
    for _ in 0..copies {
        let wait = conditions.delay + conditions.jitter.mul_f64(state.chance());
        if wait.is_zero() {
            count(state, socket.try_send_to(datagram, to).is_ok());
            continue;
        }
        let Ok(permit) = state.in_flight.try_acquire() else {
            count(state, false);
            continue;
        };
        permit.forget();
        let (state, socket, datagram) = (state.clone(), socket.clone(), datagram.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            count(&state, socket.send_to(&datagram, to).await.is_ok());
            state.in_flight.add_permits(1);
        });
    }
}

fn count(state: &State, sent: bool) {
    let counter = if sent { &state.passed } else { &state.lost };
    counter.fetch_add(1, Ordering::Relaxed);
}

impl State {
    /// The next number of the seed's sequence, uniform in [0, 1): SplitMix64 (Steele, Lea and Flood 2014) in counter mode.
    fn chance(&self) -> f64 {
        let index = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut word = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let top = u32::try_from(word >> 32).expect("32 bits are left");
        f64::from(top) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that answers every datagram with the address that it came from.
    async fn mirror() -> (SocketAddr, JoinSet<()>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let address = socket.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = [0u8; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(from.to_string().as_bytes(), from).await;
            }
        });
        (address, tasks)
    }

    async fn ask(user: &UdpSocket, link: &Link) -> Option<String> {
        user.send_to(b"where am I?", link.address()).await.expect("sent");
        let mut buffer = [0u8; 64];
        let (length, _) = tokio::time::timeout(PATIENCE, user.recv_from(&mut buffer)).await.ok()?.ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[tokio::test]
    async fn a_rebind_changes_the_address_that_the_server_sees() {
        let (server, _tasks) = mirror().await;
        let link = Link::start(server, 1, Conditions { delay: Duration::from_millis(1), ..Conditions::CLEAN })
            .await
            .expect("started");
        let user = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let first = ask(&user, &link).await.expect("answered");
        assert_eq!(ask(&user, &link).await.as_ref(), Some(&first), "stable until told otherwise");
        link.rebind();
        assert_ne!(ask(&user, &link).await.expect("answered"), first);
    }

    #[tokio::test]
    async fn the_share_of_losses_is_the_one_asked_for() {
        let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let server = sink.local_addr().expect("bound");
        let link = Link::start(server, 7, Conditions { loss: 0.25, ..Conditions::CLEAN }).await.expect("started");
        let user = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        for sent in 1..=2000u64 {
            user.send_to(b"x", link.address()).await.expect("sent");
            // One at a time: no buffer of the kernel overflows.
            while link.counts().0 + link.counts().1 < sent {
                tokio::task::yield_now().await;
            }
        }
        let (passed, lost) = link.counts();
        assert_eq!(passed + lost, 2000);
        // Binomial: the standard deviation is 19, and five of them are 97.
        assert!((403..=597).contains(&lost), "{lost} of 2000 were lost");
    }
}
