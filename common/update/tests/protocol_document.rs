//! `docs/PROTOCOL.md` says what the code does: its hexadecimal examples and its table of refusals are read and compared.

use std::collections::BTreeMap;
use std::path::Path;

use starling_spec::CodecSpec;
use starling_update::{Version, difference, seal};
use starling_wire::{
    Address, BlobHeader, BlobKind, CodecId, Decline, DeviceId, Digest, Distrust, Hello, ModelRef, PolicyRule, Refusal,
    RoundKind, RoundStart, RunId, TaskId, ToAggregator, ToClient, UpdateReport, Verdict, Welcome, encode,
};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROTOCOL.md");
    std::fs::read_to_string(path).expect("the protocol is documented")
}

/// The blocks ```` ```hex NAME ````, comments left out.
fn examples() -> BTreeMap<String, Vec<u8>> {
    let document = document();
    let mut examples = BTreeMap::new();
    for block in document.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a name ends its line");
        let (body, _) = rest.split_once("```").expect("a block ends");
        let bytes = body
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).expect("two digits"))
            .collect();
        examples.insert(name.to_owned(), bytes);
    }
    examples
}

#[test]
fn the_examples_of_the_protocol_document_are_what_is_sent() {
    let address = Address { task: TaskId([0x7a; 16]), run: RunId(3), round: 9, attempt: 2 };
    let codec = CodecId { family: 3, parameter: 8 };
    let digest = Digest([0xab; 32]);
    let hello = Hello { version_min: 1, version_max: 1, name: "pump-4".into(), software: "starling 0.1.0".into() };
    let base = ModelRef { version: 8, digest, length: 1000, codec };
    let start =
        RoundStart { address, kind: RoundKind::Train, base, deadline_ms: 60_000, weight_max: 1 << 20, clip: None };
    let header = BlobHeader {
        kind: BlobKind::Update,
        codec,
        run: RunId(3),
        round: 9,
        attempt: 2,
        offset: 2048,
        length: 1_669_884,
        digest,
    };
    let report = UpdateReport { weight: 600, train_loss: 0.5, steps: 30, within_clip: false };
    let from_device = |message: ToAggregator| encode(&message).expect("a message");
    let to_device = |message: ToClient| encode(&message).expect("a message");
    let values = |codec: &str| {
        let codec: CodecSpec = codec.parse().expect("a codec");
        Version::publish(0, vec![1.5, -2.0], codec).expect("finite").encoded().to_vec()
    };
    let mut examples = examples();

    // A plane may be stored or coded: what counts is where the documented one leads.
    let old: Vec<u8> = (0..32).collect();
    let mut new = old.clone();
    new[5] += 1;
    new[9] -= 1;
    let documented = examples.remove("difference").expect("an example");
    assert_eq!(difference::apply(&old, &documented, 32), Ok(new));

    let expected: BTreeMap<String, Vec<u8>> = [
        ("hello", from_device(ToAggregator::Hello(hello))),
        ("welcome", to_device(ToClient::Welcome(Welcome { version: 1, device: DeviceId([0x0d; 16]), epoch: 5 }))),
        ("refused", to_device(ToClient::Refused(Refusal::NameMismatch))),
        ("accept", from_device(ToAggregator::Accept(address))),
        ("round-start", to_device(ToClient::RoundStart(start))),
        ("verdict", to_device(ToClient::Verdict(Verdict::Committed { address, version: 9 }))),
        ("header", header.to_bytes().to_vec()),
        ("update-f32", seal(&report, &[1.5, -2.0], CodecSpec::F32, 1).expect("finite").bytes().to_vec()),
        ("values-f32", values("f32")),
        ("values-f16", values("f16")),
        ("values-q8", values("q8")),
        ("values-q4", values("q4")),
        ("values-q3", values("q3")),
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .collect();
    assert_eq!(examples, expected);
}

/// The rows of a table of reasons, and what the code says that they are. `decline` is how a reason travels.
fn reasons<R: Copy>(
    section: &str,
    all: &[R],
    decline: impl Fn(R) -> Decline,
    row: impl Fn(R) -> (u16, &'static str, &'static str),
) {
    let document = document();
    let section = document.split(&format!("\n### {section}")).nth(1).expect("a section");
    let section = section.split("\n## ").next().and_then(|section| section.split("\n### ").next());
    let rows: Vec<&str> =
        section.expect("text").lines().filter(|line| line.starts_with("| ") && line.contains("| `")).collect();
    let expected: Vec<String> = (0..)
        .zip(all)
        .map(|(position, reason): (u32, _)| {
            let address = Address { task: TaskId([7; 16]), run: RunId(1), round: 1, attempt: 1 };
            let body = encode(&ToAggregator::Decline(address, decline(*reason))).expect("a message");
            assert_eq!(body[body.len() - 4..], position.to_le_bytes(), "a frame names a reason by its position");
            let (code, name, text) = row(*reason);
            format!("| {code} | {position} | `{name}` | {text} |")
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_protocol_document_lists_every_reason_of_distrust() {
    let row = |reason: Distrust| (reason.code(), reason.name(), reason.text());
    reasons("Signed releases and plans", Distrust::ALL, Decline::Untrusted, row);
}

#[test]
fn the_protocol_document_lists_every_rule_of_a_policy() {
    let row = |rule: PolicyRule| (rule.code(), rule.name(), rule.text());
    reasons("Rules of a policy", PolicyRule::ALL, Decline::Policy, row);
}

#[test]
fn the_protocol_document_lists_every_refusal() {
    let document = document();
    let table = document.split("\n## Refusals").nth(1).expect("the last section");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    let expected: Vec<String> = (0..)
        .zip(Refusal::ALL)
        .map(|(position, refusal): (u32, _)| {
            let body = encode(&ToClient::Refused(*refusal)).expect("a message");
            assert_eq!(body[8..12], position.to_le_bytes(), "a frame names a refusal by its position");
            format!("| {} | {position} | `{}` | {} |", refusal.code(), refusal.name(), refusal.text())
        })
        .collect();
    assert_eq!(rows, expected);
}
