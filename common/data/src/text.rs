//! Text as tokens: a token is a byte. A sample is a window of `context` inputs and, for each, the token that follows.
//!
//! Windows do not overlap but for the one token that ends a window's targets and starts the next one's inputs: every
//! transition inside a text is predicted once, but for a rest shorter than a window at its end.
//!
//! With `client = "role"` a file is a play: blocks parted by empty lines, the first line of a block being the speaker's name
//! and a colon. The speeches of a role, each ended by a newline, are one text; no window crosses into another role's.
//! Roles with less than a window are left out.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use crate::dataset::{Features, Labels};
use crate::error::DataError;
use crate::load::{Clients, Raw};
use crate::source::Source;

/// A line longer than this is no line of a play (and would be held in memory as a whole).
const LINE_BYTES_MAX: u64 = 1 << 20;
/// The longest name of a role.
const ROLE_BYTES_MAX: usize = 256;

pub(crate) fn read(source: Source, by_role: bool, context: usize) -> Result<Raw, DataError> {
    let file = source.name.clone();
    let (texts, names) = if by_role {
        let (texts, names) = roles(source)?;
        (texts, Some(names))
    } else {
        (vec![whole(source)?], None)
    };
    let mut tokens = Vec::with_capacity(texts.iter().map(Vec::len).sum());
    let mut starts = Vec::new();
    let mut clients = Clients { names: Vec::new(), of_row: Vec::new() };
    for (role, text) in texts.into_iter().enumerate() {
        // A window needs its inputs and one token more.
        let windows = text.len().saturating_sub(1) / context;
        if windows == 0 {
            continue;
        }
        let number = u32::try_from(clients.names.len()).expect("a role takes more than one byte of a text below 4 GiB");
        clients.names.push(names.as_ref().map_or_else(String::new, |names| names[role].clone()));
        for window in 0..windows {
            let start = u32::try_from(tokens.len() + window * context).map_err(|_| too_long(&file))?;
            starts.push(start);
            clients.of_row.push(number);
        }
        tokens.extend_from_slice(&text[..=windows * context]);
    }
    if starts.is_empty() {
        let what = if by_role { "role" } else { "text" };
        let problem = format!("no {what} has {} bytes, one window of context and the byte after it", context + 1);
        return Err(DataError::file(&file, problem));
    }
    Ok(Raw {
        features: Features::Windows { tokens: Arc::from(tokens), starts },
        labels: Labels::Next,
        clients: names.map(|_| clients),
        type_max: None,
    })
}

fn too_long(file: &str) -> DataError {
    DataError::file(file, "is longer than 4 GiB; cut it up")
}

fn whole(mut source: Source) -> Result<Vec<u8>, DataError> {
    let mut text = Vec::new();
    let read = source.by_ref().take(u64::from(u32::MAX)).read_to_end(&mut text);
    read.map_err(|error| DataError::io(&source.name, error))?;
    if source.at_end()? { Ok(text) } else { Err(too_long(&source.name)) }
}

/// The text of each role and the roles' names, in order of their first speech.
fn roles(mut source: Source) -> Result<(Vec<Vec<u8>>, Vec<String>), DataError> {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut speaking: Option<usize> = None;
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let read = source.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let length = read.map_err(|error| DataError::io(&source.name, error))?;
        if length == 0 {
            break;
        }
        if length as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            return Err(DataError::line(&source.name, number, format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let content = line.trim_ascii_end();
        match speaking {
            _ if content.is_empty() => speaking = None,
            Some(role) => {
                texts[role].extend_from_slice(content);
                texts[role].push(b'\n');
            }
            None => {
                let name = content.strip_suffix(b":").and_then(|name| std::str::from_utf8(name).ok());
                let name = name.map(str::trim).filter(|name| (1..=ROLE_BYTES_MAX).contains(&name.len()));
                let name = name.ok_or_else(|| {
                    let found = String::from_utf8_lossy(&content[..content.len().min(40)]).into_owned();
                    let problem = format!("{found:?} starts a block; expected a role and a colon, as in \"HAMLET:\"");
                    DataError::line(&source.name, number, problem)
                })?;
                speaking = Some(*numbers.entry(name.to_owned()).or_insert_with(|| {
                    names.push(name.to_owned());
                    texts.push(Vec::new());
                    texts.len() - 1
                }));
            }
        }
    }
    Ok((texts, names))
}
