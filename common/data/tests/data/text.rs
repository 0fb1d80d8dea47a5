//! Text: windows, next tokens, roles.

use starling_data::partition;
use starling_spec::{Partition, TaskKind::NextToken};

use super::{classes, features, folder, packed, read, said};

fn text(values: &[f32]) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tokens are bytes")]
    values.iter().map(|value| char::from(*value as u8)).collect()
}

#[test]
fn windows_cover_every_transition_once() {
    let folder = folder(&[("t", &packed(b"abcdefgh"))]);
    let loaded = read(folder.path(), "format = \"text\"\ntrain = \"t\"\ncontext = 3", NextToken, &[3]).expect("loads");
    assert_eq!((loaded.train.len(), loaded.train.sample_len()), (2, 3));
    assert_eq!(text(&features(&loaded.train)), "abcdef");
    let next: String = classes(&loaded.train).into_iter().filter_map(char::from_u32).collect();
    assert_eq!(next, "bcdefg");
    assert_eq!(loaded.train.classes(), Some(usize::from(b'g') + 1));
    assert!(loaded.clients.is_none());
}

#[test]
fn windows_never_cross_roles() {
    let play = b"ANN:\naaaa\naa\n\nBOB:\r\nbbbbbbb\r\n\n\nANN:\nAAA\n\nEVE:\ne\n";
    let folder = folder(&[("t", play)]);
    let section = "format = \"text\"\ntrain = \"t\"\ncontext = 4\nclient = \"role\"";
    let loaded = read(folder.path(), section, NextToken, &[4]).expect("loads");
    assert_eq!(text(&features(&loaded.train)), "aaaa\naa\nbbbb");
    let next: String = classes(&loaded.train).into_iter().filter_map(char::from_u32).collect();
    assert_eq!(next, "aaa\naa\nAbbbb");
    let clients = loaded.clients.as_ref().expect("roles");
    assert_eq!((clients.names.join(" "), &clients.of_row), ("ANN BOB".to_owned(), &vec![0, 0, 1]), "EVE is too short");
    let devices = partition(&loaded, Partition::Column, None, 1).expect("parts");
    assert_eq!(devices, [vec![0, 1], vec![2]]);
    // A partition shares the text and keeps its own windows.
    assert_eq!(text(&features(&loaded.keep(&devices[1]).train)), "bbbb");
}

#[test]
fn a_block_without_a_role_names_its_line() {
    let folder = folder(&[("t", b"ANN:\naaaa\n\nno role\n")]);
    let section = "format = \"text\"\ntrain = \"t\"\nclient = \"role\"";
    let error = said(read(folder.path(), section, NextToken, &[2]), folder.path());
    assert!(error.starts_with("t: line 4: \"no role\" starts a block; expected a role and a colon"), "{error}");
}

#[test]
fn what_text_cannot_have_is_refused() {
    let folder = folder(&[("t", b"abc")]);
    for (more, key) in [
        ("scale = \"unit\"", "data.scale: "),
        ("client = \"speaker\"", "data.client: "),
        ("client = 0", "data.client: "),
        ("context = 5", "data.context: 5 tokens, but the plan says 2"),
        ("label = 0", "data.label: "),
    ] {
        let section = format!("format = \"text\"\ntrain = \"t\"\n{more}");
        let error = said(read(folder.path(), &section, NextToken, &[2]), folder.path());
        assert!(error.starts_with(key), "{error} does not start with {key}");
    }
    let error = said(read(folder.path(), "format = \"text\"\ntrain = \"t\"", NextToken, &[3]), folder.path());
    assert_eq!(error, "t: no text has 4 bytes, one window of context and the byte after it");
}
