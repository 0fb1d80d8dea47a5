//! What a whole attempt costs each side on one core, in CPU time, and what a device sends.
//!
//! `cargo bench -p starling-secagg --bench round [-- n=100 m=200000 b=16 d=10]`: n devices, m coordinates of b bits, d % of the devices
//! gone when vectors are due. Without arguments: the settings of docs/BUDGETS.md.

#[path = "../tests/rounds/world.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod world;

use std::time::Duration;

use starling_secagg::{Aggregator, Device, Guard, Topology};
use starling_wire::DeviceId;
use world::{Certificates, Identity, RUN, entropy, input, policy, setup};

/// CPU time of this thread.
#[allow(unsafe_code, reason = "the standard library has no clock of CPU time")]
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(code, 0, "the thread's clock is there");
    let (seconds, nanoseconds) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds)
}

fn timed<T>(into: &mut Duration, work: impl FnOnce() -> T) -> T {
    let before = cpu();
    let result = work();
    *into += cpu() - before;
    result
}

#[derive(Default)]
struct Times {
    advertise: Duration,
    share: Duration,
    mask: Duration,
    confirm: Duration,
    unmask: Duration,
}

impl Times {
    fn total(&self) -> Duration {
        self.advertise + self.share + self.mask + self.confirm + self.unmask
    }
}

fn attempt(devices: usize, values: usize, bits: u32, drop_percent: usize) {
    let setup = setup(devices, values, (1 << (bits - 1)) - 1);
    let topology = Topology::of(devices, setup.assumptions).expect("feasible");
    let ids: Vec<DeviceId> = (0..devices).map(world::device_id).collect();
    let fleet = Certificates::of(&ids);
    let mut server = Times::default();
    let mut aggregator = Aggregator::new(&setup).expect("a setup");
    let mut machines = Vec::new();
    for id in &ids {
        let mut times = Times::default();
        let (key, entropy) = (Identity::of(id), entropy(id, 1));
        let (device, unsent) = timed(&mut times.advertise, || {
            Device::begin(&setup, &policy(&setup), *id, &mut Guard::new(RUN), &entropy, &key).expect("honest")
        });
        let message = unsent.persisted();
        timed(&mut server.advertise, || aggregator.handle_advertisement(*id, &message, &fleet).expect("honest"));
        machines.push((*id, device, times, message.len()));
    }
    let roster = timed(&mut server.share, || aggregator.close_advertising().expect("enough"));
    let mut envelopes_up = 0;
    for (id, device, times, bytes) in &mut machines {
        let message = timed(&mut times.share, || device.handle_roster(&roster, &fleet).expect("honest").persisted());
        timed(&mut server.share, || aggregator.handle_shares(*id, &message).expect("honest"));
        envelopes_up += message.len();
        *bytes += message.len();
    }
    let delivered = timed(&mut server.share, || aggregator.close_sharing().expect("enough"));
    machines.sort_by_key(|(id, ..)| *id);
    let gone = |place: usize| (place + 1) * drop_percent / 100 > place * drop_percent / 100;
    for (place, ((id, device, times, bytes), (_, envelopes))) in machines.iter_mut().zip(&delivered).enumerate() {
        timed(&mut times.mask, || device.handle_envelopes(envelopes).expect("honest"));
        if gone(place) {
            continue;
        }
        let vector = input(&setup, id, 1);
        let message = timed(&mut times.mask, || device.mask(&vector).expect("in range").persisted());
        timed(&mut server.mask, || aggregator.handle_masked(*id, &message).expect("honest"));
        *bytes += message.len();
    }
    let list = timed(&mut server.confirm, || aggregator.close_masking().expect("enough"));
    for (place, (id, device, times, bytes)) in machines.iter_mut().enumerate().filter(|(place, _)| !gone(*place)) {
        let _ = place;
        let key = Identity::of(id);
        let message = timed(&mut times.confirm, || device.handle_survivors(&list, &key).expect("honest").persisted());
        timed(&mut server.confirm, || aggregator.handle_confirmation(*id, &message, &fleet).expect("honest"));
        *bytes += message.len();
    }
    let requests = timed(&mut server.confirm, || aggregator.close_confirming().expect("enough"));
    for (id, request) in &requests {
        let (_, device, times, bytes) = machines.iter_mut().find(|(other, ..)| other == id).expect("a survivor");
        let message = timed(&mut times.unmask, || device.handle_unmask(request, &fleet).expect("honest").persisted());
        timed(&mut server.unmask, || aggregator.handle_reveal(*id, &message).expect("honest"));
        *bytes += message.len();
    }
    let mut finish = Duration::ZERO;
    let sum = timed(&mut finish, || aggregator.finish().expect("enough"));
    assert_eq!(sum.survivors().len(), requests.len());

    let survivors = machines.iter().enumerate().filter(|(place, _)| !gone(*place)).map(|(_, machine)| machine);
    let mut survivors: Vec<_> = survivors.collect();
    survivors.sort_by_key(|(_, _, times, _)| times.total());
    let (_, _, times, bytes) = survivors[survivors.len() / 2];
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let packed = setup.ring().expect("a ring").packed_len(values);
    let budget = packed + 215 * topology.degree();
    println!(
        "n {devices}, m {values}, {bits} bits (w {}), {drop_percent} % gone: degree {}, threshold {}",
        setup.ring().expect("a ring").width(),
        topology.degree(),
        topology.threshold()
    );
    println!(
        "  device, median, ms:  advertise {:.2}  share {:.2}  mask {:.2}  confirm {:.2}  unmask {:.2}  all {:.1}",
        ms(times.advertise),
        ms(times.share),
        ms(times.mask),
        ms(times.confirm),
        ms(times.unmask),
        ms(times.total())
    );
    println!(
        "  aggregator, ms:      advertise {:.1}  share {:.1}  mask {:.1}  confirm {:.1}  shares in {:.1}  unmasking {:.1}",
        ms(server.advertise),
        ms(server.share),
        ms(server.mask),
        ms(server.confirm),
        ms(server.unmask),
        ms(finish)
    );
    let ratio = *bytes as f64 / budget as f64;
    println!(
        "  a device sends {bytes} bytes (envelopes {}), {ratio:.3} × (m·w/8 + 215·k), {:.3} × f32; its roster has {}",
        envelopes_up / devices,
        *bytes as f64 / (4 * values) as f64,
        roster.len()
    );
}

fn main() {
    let given: Vec<(String, usize)> = std::env::args()
        .filter_map(|argument| {
            let (name, value) = argument.split_once('=')?;
            Some((name.to_owned(), value.parse().expect("a number")))
        })
        .collect();
    if given.is_empty() {
        attempt(100, 200_000, 16, 10);
        attempt(100, 199_210, 8, 10);
        attempt(100, 199_210, 4, 10);
        attempt(500, 100_000, 16, 30);
        return;
    }
    let value =
        |name: &str, default: usize| given.iter().find(|(given, _)| given == name).map_or(default, |(_, value)| *value);
    let bits = u32::try_from(value("b", 16)).expect("a width");
    attempt(value("n", 100), value("m", 200_000), bits, value("d", 10));
}
