//! A million damaged control frames, and as many blob headers: whatever a peer sends, decoding ends with a message or an error, and
//! takes no more memory than a frame may have (invariant 8).

use starling_wire::{
    Address, Available, BLOB_HEADER_BYTES, BlobHeader, BlobKind, CodecId, Credential, Decline, DeviceId, Digest,
    Distrust, Evaluation, Fetch, Hello, ModelRef, OfferedRelease, PolicyRule, PublicKey, Receipt, Refusal,
    ReleaseOffer, RenewRequest, RoundKind, RoundStart, RunId, RunPlan, Statistics, TaskId, ToAggregator, ToClient,
    ValueRange, Verdict, WantReceipt, Welcome, decode, encode,
};

const ROUNDS: usize = 500_000;

/// Peak resident memory of this process after all of it: the test's own is a few megabytes.
const PEAK_KIB_MAX: u64 = 64 << 10;

/// Marsaglia's xorshift: any sequence will do, and this crate has no generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

fn address() -> Address {
    Address { task: TaskId([7; 16]), run: RunId(3), round: 12, attempt: 1 }
}

fn model() -> ModelRef {
    ModelRef { version: 9, digest: Digest([4; 32]), length: 6_640, codec: CodecId { family: 3, parameter: 8 } }
}

fn to_aggregator() -> Vec<ToAggregator> {
    let hello = Hello { version_min: 1, version_max: 2, name: "pump-4".into(), software: "starling 0.1".into() };
    let fetch = Fetch { run: RunId(3), digest: Digest([1; 32]), held: Some(Digest([2; 32])), offset: 1024 };
    vec![
        ToAggregator::Hello(hello),
        ToAggregator::Available(Available { tasks: vec!["digits".into(), "steps".into()] }),
        ToAggregator::Accept(address()),
        ToAggregator::Decline(address(), Decline::Policy(PolicyRule::Hours)),
        ToAggregator::Decline(address(), Decline::Untrusted(Distrust::Rollback)),
        ToAggregator::Fetch(fetch),
        ToAggregator::Evaluation(Evaluation { address: address(), examples: 90, correct: 80, loss_sum: 31.5 }),
        ToAggregator::WantReceipt(WantReceipt { run: RunId(3), round: 12, held: 77 }),
        ToAggregator::Bye,
        ToAggregator::Statistics(Statistics {
            address: address(),
            examples: 450,
            ranges: vec![Some(ValueRange { low: -0.5, high: 6.25 }), None],
        }),
        ToAggregator::Renew(RenewRequest {
            old_key: PublicKey([1; 32]),
            new_key: PublicKey([2; 32]),
            old_proof: vec![3; 64],
            new_proof: vec![4; 64],
        }),
    ]
}

fn to_client() -> Vec<ToClient> {
    let plan = RunPlan {
        run: RunId(3),
        owner_epoch: 2,
        task: TaskId([7; 16]),
        name: "digits".into(),
        plan: br#"{"name":"digits"}"#.to_vec(),
        bundle: b"StTr and so on".to_vec(),
    };
    let start = RoundStart {
        address: address(),
        kind: RoundKind::Train,
        base: model(),
        deadline_ms: 30_000,
        weight_max: 1 << 20,
        clip: None,
    };
    let receipt = Receipt {
        run: RunId(3),
        round: 12,
        key: "log+1234+key".into(),
        record: vec![9; 120],
        inclusion: vec![Digest([5; 32]); 11],
        checkpoint: "log\n77\nroot\n".into(),
        consistency: vec![Digest([6; 32]); 7],
    };
    let offer = ReleaseOffer { task: "digits".into(), version: 4, digest: Digest([8; 32]), length: 11_167 };
    vec![
        ToClient::Welcome(Welcome { version: 1, device: DeviceId([3; 16]), epoch: 5 }),
        ToClient::Refused(Refusal::WrongRole),
        ToClient::Plan(plan),
        ToClient::RoundStart(start),
        ToClient::RoundEnd(address(), Refusal::RoundClosed),
        ToClient::Verdict(Verdict::Committed { address: address(), version: 10 }),
        ToClient::RunEnd(RunId(3)),
        ToClient::FetchRefused(Digest([1; 32]), Refusal::UnknownBlob),
        ToClient::Release(OfferedRelease { offer, bundle: b"StTr and so on".to_vec() }),
        ToClient::Receipt(receipt),
        ToClient::Renewed(Credential {
            certificate_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            now_unix_s: 1_764_157_529,
        }),
        ToClient::RenewRefused(Refusal::ClonedKey),
    ]
}

/// Flips, overwrites, cuts, lengthens and repeats a few bytes.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(random.byte()),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.byte(),
            2 => bytes.truncate(at),
            3 => bytes.push(random.byte()),
            // Lengths are eight bytes: make one enormous.
            4 => bytes[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
            _ => bytes.extend_from_within(at..),
        }
    }
}

/// Damages each of `bodies` in turn; what still decodes is encoded to the same bytes again. How many did.
fn survive<T: serde::Serialize + serde::de::DeserializeOwned>(bodies: &[Vec<u8>], seed: u64) -> usize {
    let mut random = Random(seed);
    let mut decoded = 0;
    for round in 0..ROUNDS {
        let mut body = bodies[round % bodies.len()].clone();
        damage(&mut random, &mut body);
        if let Ok(message) = decode::<T>(&body) {
            decoded += 1;
            let again = encode(&message).expect("it came in a frame");
            assert_eq!(again[4..], body, "one message has one encoding");
        }
    }
    decoded
}

fn bodies<T: serde::Serialize>(messages: &[T]) -> Vec<Vec<u8>> {
    messages.iter().map(|message| encode(message).expect("it fits")[4..].to_vec()).collect()
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

#[test]
fn inv8_a_million_damaged_frames_cost_little() {
    let (up, down) = (bodies(&to_aggregator()), bodies(&to_client()));
    assert!(survive::<ToAggregator>(&up, 0x9e37_79b9_7f4a_7c15) > 1000, "some damage only changes a number");
    assert!(survive::<ToClient>(&down, 0x2545_f491_4f6c_dd1d) > 1000);
    // Peers do not speak the other side's messages.
    survive::<ToClient>(&up, 3);
    survive::<ToAggregator>(&down, 4);
    assert!(peak_kib() < PEAK_KIB_MAX, "{} KiB", peak_kib());
}

#[test]
fn a_million_damaged_headers_are_read_back_or_refused() {
    let header = BlobHeader {
        kind: BlobKind::Update,
        codec: CodecId { family: 3, parameter: 8 },
        run: RunId(3),
        round: 12,
        attempt: 1,
        offset: 2048,
        length: 1_663_370,
        digest: Digest([0xab; 32]),
    };
    let mut random = Random(77);
    for _ in 0..2 * ROUNDS {
        let mut bytes = header.to_bytes();
        for _ in 0..1 + random.below(4) {
            bytes[random.below(BLOB_HEADER_BYTES)] = random.byte();
        }
        if let Ok(read) = BlobHeader::from_bytes(&bytes) {
            assert_eq!(read.to_bytes(), bytes);
        }
    }
}
