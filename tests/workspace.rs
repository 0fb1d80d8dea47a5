//! The repository checks itself: which crate may depend on which, and that one build of burn serves all commands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Which crates of ours a crate may depend on; dev-dependencies are exempt. `docs/ARCHITECTURE.md` draws it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("spec", &[]),
    ("wire", &[]),
    ("trust", &["wire"]),
    ("compress", &["spec", "wire"]),
    ("privacy", &["spec", "wire"]),
    ("data", &["spec", "wire"]),
    ("audit", &["wire"]),
    ("secagg", &["wire"]),
    ("engine", &["compress", "spec", "wire"]),
    ("exchange", &["compress", "spec", "wire"]),
    ("model", &["data", "engine", "compress", "privacy", "spec", "wire"]),
    ("search", &["exchange", "model", "engine", "compress", "data", "spec", "wire"]),
    ("update", &["compress", "privacy", "secagg", "spec", "wire"]),
    ("protocol", &["update", "compress", "privacy", "secagg", "spec", "wire"]),
    ("net", &["secagg", "spec", "wire"]),
    ("store", &["spec", "wire"]),
    ("daemon", &["store", "spec", "wire"]),
    ("certs", &["spec", "wire"]),
    (
        "aggregator",
        &[
            "certs", "net", "store", "daemon", "audit", "trust", "protocol", "update", "secagg", "exchange",
            "compress", "privacy", "spec", "wire",
        ],
    ),
    (
        "client",
        &[
            "certs", "net", "store", "daemon", "audit", "trust", "protocol", "update", "secagg", "engine", "compress",
            "privacy", "search", "model", "data", "spec", "wire",
        ],
    ),
    // An example: it plays the attacker against the product's own parts, and nothing uses it.
    ("attacks", &["trust", "update", "secagg", "privacy", "model", "data", "spec", "wire"]),
    // For tests only: nothing of the product may link it, so where it stands does not matter.
    ("testkit", &["certs", "net", "store", "daemon", "protocol", "update", "spec", "wire"]),
];

/// Third-party crates that one place knows, so that they can be replaced there. The root package is a command: it is under
/// the same rule.
const KNOWN_BY: &[(&str, &[&str])] = &[
    ("burn", &["model"]),
    ("quinn", &["net"]),
    ("rustls", &["net"]),
    ("sled", &["store"]),
    ("bincode", &["wire", "store"]),
];

/// The root package, which may use everything but the testkit.
const ROOT: &str = "starling";

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(cargo).args(arguments).arg("--offline").current_dir(root).output().expect("cargo runs");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {} failed:\n{talk}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The short name of one of our packages.
fn ours(package: &str) -> Option<&str> {
    package.strip_prefix("starling-").or((package == ROOT).then_some(ROOT))
}

/// The direct dependencies of each of our packages, without dev-dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    // Without dependencies: manifests alone say what is declared, and nothing has to be downloaded for it.
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let of = |package: &Value| {
        let declared = package["dependencies"].as_array().expect("dependencies");
        let product = declared.iter().filter(|dependency| dependency["kind"] != "dev");
        let names = product.map(|dependency| dependency["name"].as_str().expect("a name").to_owned());
        let name = ours(package["name"].as_str().expect("a name")).expect("our packages are called starling-…");
        (name.to_owned(), names.collect())
    };
    packages.iter().map(of).collect()
}

#[test]
fn dependencies_point_down_only() {
    let mut problems = Vec::new();
    for (package, uses) in dependencies() {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == package).map(|(_, allowed)| *allowed);
        for used in uses.iter().filter_map(|used| ours(used)) {
            let fine = match allowed {
                Some(allowed) => allowed.contains(&used),
                None => package == ROOT && used != "testkit",
            };
            if !fine {
                problems.push(format!("{package} uses {used}, which does not lie below it"));
            }
        }
        if allowed.is_none() && package != ROOT {
            problems.push(format!("{package} has no place yet: give it one in MAY_USE"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_diagram_has_no_cycle() {
    let place = |name: &str| MAY_USE.iter().find(|(package, _)| *package == name).map(|(_, uses)| *uses);
    let mut settled = BTreeSet::new();
    while settled.len() < MAY_USE.len() {
        let before = settled.len();
        for (name, uses) in MAY_USE {
            if uses.iter().all(|used| settled.contains(used)) {
                settled.insert(*name);
            }
            assert!(uses.iter().all(|used| place(used).is_some()), "{name} may use something that has no place");
        }
        assert!(settled.len() > before, "a cycle among {MAY_USE:?} outside {settled:?}");
    }
}

#[test]
fn each_large_dependency_is_known_by_one_place() {
    let mut problems = Vec::new();
    for (package, uses) in dependencies() {
        for (third_party, known_by) in KNOWN_BY {
            let family = format!("{third_party}-");
            let mut known = uses.iter().filter(|used| *used == third_party || used.starts_with(&family));
            // The testkit plays the attacker, who does not go through our endpoints.
            let exempt = known_by.contains(&package.as_str()) || package == "testkit";
            if let Some(used) = known.next().filter(|_| !exempt) {
                problems.push(format!("{package} uses {used}, which only {known_by:?} may"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Each third-party package that `selection` builds for this machine, with the features that it is built with. A package has
/// several sets where build scripts and macros want others than the product.
fn features(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let arguments = [&["tree", "--prefix", "none", "--format", "{p}|{f}"], selection].concat();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in cargo(&arguments).lines().filter(|line| !line.is_empty()) {
        let line = line.trim_end_matches(" (*)");
        let (package, features) = line.split_once('|').expect("the format has a bar");
        let package = package.trim_end_matches(" (proc-macro)");
        if ours(package.split(' ').next().expect("a name")).is_none() {
            found.entry(package.to_owned()).or_default().insert(features.to_owned());
        }
    }
    found
}

#[test]
fn the_aggregator_does_not_link_burn() {
    let linked = features(&["-p", "starling-aggregator", "--edges", "normal"]);
    let burn: Vec<_> =
        linked.keys().filter(|package| package.starts_with("burn") || package.starts_with("cubecl")).collect();
    assert!(burn.is_empty(), "{burn:?}");
    assert!(linked.keys().any(|package| package.starts_with("quinn ")), "the list is read correctly");
}

#[test]
fn burn_is_built_once_for_run_build_and_test() {
    // What `cargo run -- demo` builds, and what the newcomer's other commands would build anew.
    let run = features(&["-p", ROOT, "--edges", "normal,build"]);
    for name in ["burn ", "tokio ", "serde "] {
        assert!(run.keys().any(|package| package.starts_with(name)), "{name}is in the tree");
    }
    for (command, selection) in [
        ("cargo build --workspace", &["--workspace", "--edges", "normal,build"][..]),
        ("cargo test", &["-p", ROOT, "--edges", "normal,build,dev"]),
        ("cargo test --workspace", &["--workspace", "--edges", "normal,build,dev"]),
    ] {
        let other = features(selection);
        let mut differing = Vec::new();
        for (package, sets) in &run {
            match other.get(package) {
                Some(others) if others == sets => {}
                others => differing.push(format!("{package}: {sets:?} in `cargo run`, {others:?} in `{command}`")),
            }
        }
        assert!(
            differing.is_empty(),
            "`{command}` builds these with other features than `cargo run`, and all that depends on them (burn) again; name \
             the features in [workspace.dependencies] and let a normal dependency ask for them:\n{differing:#?}"
        );
    }
}
