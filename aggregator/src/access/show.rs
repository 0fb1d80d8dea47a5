//! The table as `starling-aggregator access` prints it.

use std::fmt::Write;

use serde_json::{Value, json};
use starling_wire::Role;

use super::{Door, Origin, Row, TABLE};

/// For people: a line a verb, a column a role.
pub(crate) fn text() -> String {
    let mut text = format!("{:<20}", "verb");
    // Nothing can fail to be written into a string.
    Role::ALL.iter().for_each(|role| _ = write!(text, " {:<10}", role.word()));
    text.push_str(" what it does\n");
    for row in TABLE {
        _ = write!(text, "{:<20}", row.word);
        for role in Role::ALL {
            _ = write!(text, " {:<10}", cell(row, *role));
        }
        _ = writeln!(text, " {}", row.does);
    }
    text.push_str(
        "\nyes: over the local socket or with a certificate of that role; here: only at the aggregator's own machine; -: denied.\n\
         The user who runs the daemon, and root, are operators on the local socket; every other user is denied.\n",
    );
    text
}

fn cell(row: &Row, role: Role) -> &'static str {
    match (row.may.contains(&role), row.from) {
        (false, _) => "-",
        (true, Origin::Anywhere) => "yes",
        (true, Origin::Here) => "here",
    }
}

/// For programs.
pub(crate) fn json() -> Value {
    let row = |row: &Row| {
        json!({
            "verb": row.word,
            "connection": match row.door { Door::Administration => "administration", Door::Devices => "devices" },
            "roles": row.may.iter().map(|role| role.word()).collect::<Vec<_>>(),
            "local_only": row.from == Origin::Here,
            "does": row.does,
        })
    };
    json!({
        "roles": Role::ALL.iter().map(|role| role.word()).collect::<Vec<_>>(),
        "verbs": TABLE.iter().map(row).collect::<Vec<_>>(),
    })
}
