//! Every role × verb, and where it comes from, through the decision that the daemon makes.

use serde_json::{Value, json};
use starling_wire::{Available, DeviceId};

use super::*;

/// A request for each verb of the table, which can do no harm: a new row needs a line in that file. `tests/enrolment/access.rs` asks a real daemon
/// the same.
fn requests() -> Vec<(String, Value)> {
    serde_json::from_str(include_str!("requests.json")).expect("pairs of a verb and a request")
}

fn request(value: &Value) -> AdminRequest {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

fn holder(role: Role) -> Caller {
    Caller::certified(&Identity { id: DeviceId([7; 16]), role, name: "somebody".into() })
}

/// The word of what `caller` may ask for, as the daemon decides it.
fn permitted(caller: &Caller) -> Vec<&'static str> {
    let asked = requests();
    let permitted = asked.iter().filter_map(|(_, value)| permit(caller, request(value)).ok());
    let mut words: Vec<_> = permitted.map(|permitted| permitted.into_parts().2.word()).collect();
    words.dedup();
    words
}

#[test]
fn every_role_and_verb_is_decided_as_the_table_says() {
    let asked = requests();
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.verb as usize, index, "the table is in the order of the verbs");
        let mine: Vec<_> = asked.iter().filter(|(word, _)| word == row.word).map(|(_, value)| value).collect();
        assert!(mine.iter().all(|value| of_request(&request(value)) == row.verb), "{}", row.word);
        let administrative = row.door == Door::Administration;
        assert_eq!(!mine.is_empty(), administrative, "{}: give it a request in requests.json", row.word);
        for role in Role::ALL {
            let may = row.may.contains(role);
            let caller = holder(*role);
            let expected = may && row.from == Origin::Anywhere;
            assert_eq!(decide(&caller, row.verb).is_ok(), expected, "{role} {}", row.word);
            for value in &mine {
                let decided = permit(&caller, request(value));
                assert_eq!(decided.is_ok(), expected, "{role} {}: {decided:?}", row.word);
            }
        }
        for (uid, may) in [(0, true), (1000, true), (1001, false), (u32::MAX, false)] {
            let caller = Caller::local_to(1000, uid);
            assert_eq!(decide(&caller, row.verb).is_ok(), may && administrative, "user {uid} {}", row.word);
        }
    }
}

#[test]
fn each_role_is_what_its_name_says() {
    assert_eq!(permitted(&holder(Role::Device)), [""; 0]);
    assert_eq!(permitted(&holder(Role::Aggregator)), [""; 0]);
    let publisher = ["run-list", "run-status", "run-export", "release-publish", "release-list", "trust-renew"];
    assert_eq!(permitted(&holder(Role::Publisher)), publisher, "signs and releases models");
    let reads = [
        "run-list",
        "run-status",
        "release-list",
        "devices",
        "device-list",
        "device-forget-plan",
        "device-crl",
        "operator-list",
        "audit-records",
        "audit-checkpoint",
        "audit-receipt",
        "audit-cosign",
    ];
    assert_eq!(permitted(&holder(Role::Auditor)), reads, "reads, and vouches for what it has read; changes nothing");
    let machine = permitted(&Caller::local_to(1000, 1000));
    let remote = permitted(&holder(Role::Operator));
    let only_here: Vec<_> = machine.iter().filter(|word| !remote.contains(word)).collect();
    assert_eq!(
        only_here,
        [&"release-publish-file", &"backup-create", &"key-escrow"],
        "they name files of that machine"
    );
    let for_devices = TABLE.iter().filter(|row| row.may.contains(&Role::Device));
    assert!(for_devices.clone().all(|row| row.may == [Role::Device] && row.door == Door::Devices));
    assert_eq!(for_devices.count(), 6);
}

#[test]
fn a_devices_messages_are_verbs_too() {
    let message = ToAggregator::Available(Available { tasks: vec![] });
    assert_eq!(of_message(&message), Verb::TakePart);
    assert!(decide(&holder(Role::Device), of_message(&message)).is_ok());
    let denied = decide(&holder(Role::Operator), of_message(&ToAggregator::Bye)).expect_err("no device");
    assert_eq!(denied.reason, Refusal::WrongRole);
}

#[test]
fn a_no_says_who_and_why_and_each_kind_has_a_code_of_its_own() {
    let stop = || request(&json!({ "verb": "run-stop", "run": 1 }));
    let no = |caller: &Caller, request| permit(caller, request).expect_err("denied");
    let stranger = no(&Caller::local(own_uid() + 1), stop());
    assert_eq!(stranger.reason, Refusal::MayNotAdminister);
    assert!(stranger.to_string().starts_with(&format!("user {} may not", own_uid() + 1)), "{stranger}");
    let device = no(&holder(Role::Device), stop());
    assert_eq!((device.reason, device.verb), (Refusal::MayNotAdminister, None));
    let auditor = no(&holder(Role::Auditor), stop());
    assert_eq!((auditor.reason, auditor.verb), (Refusal::NotPermitted, Some(Verb::RunStop)));
    assert!(auditor.to_string().contains("auditor:0707") && auditor.to_string().contains("run-stop"), "{auditor}");
    let backup = json!({ "verb": "keep", "request": { "what": "backup", "to": "/backups", "keep": 7 } });
    let remote = no(&holder(Role::Operator), request(&backup));
    assert_eq!((remote.reason, remote.verb), (Refusal::OnlyHere, Some(Verb::BackupCreate)));
}

#[test]
fn the_printed_table_is_the_one_that_decides() {
    let printed = show::json();
    let words: Vec<_> = printed["verbs"].as_array().expect("rows").iter().map(|row| &row["verb"]).collect();
    assert_eq!(words.len(), TABLE.len());
    let text = show::text();
    for row in TABLE {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(row.word)).expect("a line");
        let cells: Vec<_> = line.split_whitespace().skip(1).take(Role::ALL.len()).collect();
        let may = |(role, cell): (&Role, &&str)| (*cell != "-") == row.may.contains(role);
        assert!(Role::ALL.iter().zip(&cells).all(may), "{line}");
    }
}
