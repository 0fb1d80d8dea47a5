//! How QUIC behaves here: datagram sizes, windows, stream limits, time-outs.

use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use starling_wire::limits::{BIDI_STREAMS_MAX, UNI_STREAMS_MAX};

use crate::limits::{
    CONNECTION_WINDOW_BYTES, CRYPTO_BYTES_MAX, INCOMING_BYTES_MAX, INCOMING_BYTES_TOTAL_MAX, INCOMING_WAITING_MAX,
    SEND_WINDOW_BYTES, STREAM_WINDOW_BYTES,
};

/// Where the packets go, which decides how large they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// Any network: datagrams of up to 1,452 bytes (Ethernet's 1,500 without IPv6 and UDP headers), found by probing.
    #[default]
    Internet,
    /// The same machine: datagrams of up to 6,500 bytes. Ten of them, the most that leave in one system call, stay
    /// under the 64 KiB of a UDP datagram; from 6,554 on they would not.
    Loopback,
}

impl Path {
    /// The largest UDP payload, in bytes.
    pub fn mtu_bytes(self) -> u16 {
        match self {
            Path::Internet => 1452,
            Path::Loopback => 6500,
        }
    }

    /// The round trip assumed before one is measured; the first lost packet is sent again after three of them. On the
    /// internet the one of RFC 9002; on one machine less, so that a dialer soon meets an aggregator that just starts.
    fn initial_rtt(self) -> Duration {
        match self {
            Path::Internet => Duration::from_millis(333),
            Path::Loopback => Duration::from_millis(25),
        }
    }
}

/// How long connections may be silent, and how large their packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Where the packets go.
    pub path: Path,
    /// A connection that hears nothing for this long is over. At most 10 minutes.
    pub idle_timeout_ms: u64,
    /// A packet is sent after this much silence; 0 sends none. Less than half the idle time-out.
    pub keep_alive_ms: u64,
}

impl Default for Transport {
    /// [`Transport::on`] the internet.
    fn default() -> Self {
        Self::on(Path::Internet)
    }
}

impl Transport {
    /// Time-outs that suit a path. On the internet 20 s of silence end a connection, and a packet every 6 s keeps it,
    /// and the NAT entries on its way, alive; on one machine 8 s and 1 s, since only a dead or starved process is
    /// silent there.
    pub fn on(path: Path) -> Self {
        match path {
            Path::Internet => Self { path, idle_timeout_ms: 20_000, keep_alive_ms: 6_000 },
            Path::Loopback => Self { path, idle_timeout_ms: 8_000, keep_alive_ms: 1_000 },
        }
    }
}

/// The longest idle time-out: a device that has vanished must not hold a connection for hours.
const IDLE_TIMEOUT_MS_MAX: u64 = 600_000;

/// Bytes of a connection id: a packet of a connection that is gone must not hit another one by chance.
const CONNECTION_ID_BYTES: usize = 8;

/// Connection ids that say nothing. quinn's own ones carry a mark of the process, by which a restarted process drops
/// the packets of its former life in silence instead of answering them with a reset.
#[derive(Debug)]
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        SystemRandom::new().fill(&mut id).expect("the system gives entropy, or TLS could not have started");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Which side of a handshake a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialer,
    Listener,
}

impl Transport {
    /// The part that both sides of an endpoint share. With a `reset_key` that survives a restart, a restarted process
    /// can tell the peers of its former life that their connections are gone.
    pub(crate) fn endpoint_config(&self, reset_key: &hmac::Key) -> EndpointConfig {
        let mut config = EndpointConfig::new(Arc::new(reset_key.clone()));
        config.cid_generator(|| Box::new(RandomIds));
        config.max_udp_payload_size(self.path.mtu_bytes()).expect("both sizes are above QUIC's minimum of 1,200");
        config
    }

    /// A listener's configuration around its cryptography.
    pub(crate) fn server_config(&self, crypto: Arc<dyn quinn::crypto::ServerConfig>) -> ServerConfig {
        let mut config = ServerConfig::with_crypto(crypto);
        config
            .transport_config(Arc::new(self.transport_config(Side::Listener)))
            .max_incoming(INCOMING_WAITING_MAX)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
        config
    }

    /// A dialer's configuration around its cryptography.
    pub(crate) fn client_config(&self, crypto: Arc<dyn quinn::crypto::ClientConfig>) -> ClientConfig {
        let mut config = ClientConfig::new(crypto);
        config.transport_config(Arc::new(self.transport_config(Side::Dialer)));
        config
    }

    fn transport_config(&self, side: Side) -> TransportConfig {
        let idle_ms = self.idle_timeout_ms.clamp(1, IDLE_TIMEOUT_MS_MAX);
        let idle = IdleTimeout::try_from(Duration::from_millis(idle_ms)).expect("ten minutes fit in 62 bits");
        let keep_alive = (self.keep_alive_ms > 0).then(|| Duration::from_millis(self.keep_alive_ms.min(idle_ms / 2)));
        // Only the dialer opens the control stream.
        let bidi = match side {
            Side::Dialer => 0,
            Side::Listener => BIDI_STREAMS_MAX,
        };
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(self.path.mtu_bytes());
        let mut acks = AckFrequencyConfig::default();
        // An acknowledgement for every ten packets instead of two: less work for both, and the delay stays bounded.
        acks.ack_eliciting_threshold(VarInt::from_u32(10));
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(bidi))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
            .max_idle_timeout(Some(idle))
            .initial_rtt(self.path.initial_rtt())
            .keep_alive_interval(keep_alive)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
            .send_window(SEND_WINDOW_BYTES)
            .send_fairness(false)
            .crypto_buffer_size(CRYPTO_BYTES_MAX)
            .datagram_receive_buffer_size(None)
            // `initial_mtu` stays at 1,200: above the initial congestion window a connection would never start.
            .mtu_discovery_config(Some(discovery))
            .ack_frequency_config(Some(acks));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_segments_of_either_path_fit_in_one_udp_datagram() {
        for path in [Path::Internet, Path::Loopback] {
            assert!(10 * u32::from(path.mtu_bytes()) < 65_507);
        }
    }
}
