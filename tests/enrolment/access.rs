//! Who may do what, asked of a real daemon over real sockets: with certificates over QUIC, and as users of its machine.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_aggregator::{AdminError, Daemon};
use starling_net::{Credentials, Endpoint, TlsFiles, Transport, greet_aggregator};
use starling_testkit::fleet::PATIENCE;
use starling_testkit::until;
use starling_wire::Refusal;

use crate::scene::{Scene, binary, starling, text};

/// A revoked administrator's connection is gone within this.
const CUT: Duration = Duration::from_secs(1);

/// The folder of a new certificate of `role`.
#[track_caller]
fn issue(scene: &Scene, role: &str, more: &[&str]) -> PathBuf {
    let folder = scene.path(role);
    scene.ask(&[&["operator", "issue", role, "--name", role, "--out", text(&folder)], more].concat());
    folder
}

/// A device's certificate, issued by hand as its operator may do.
#[track_caller]
fn device(scene: &Scene) -> PathBuf {
    let (folder, ca) = (scene.path("by-hand"), scene.path("ca"));
    let issue = ["certs", "issue", "device", "--authority", text(&ca), "--name", "pump", "--out", text(&folder)];
    assert_eq!(starling(&issue).0, Some(0));
    folder
}

fn remote(scene: &Scene, identity: &Path) -> Result<Daemon, AdminError> {
    Daemon::remote(&scene.address().to_string(), identity)
}

/// Asks, with bytes where the request announces some.
fn ask(daemon: &Daemon, request: &Value) -> Result<Value, AdminError> {
    match request["release_bytes"].as_u64() {
        Some(length) => daemon.ask_with_file(request, &mut &b"none"[..], length),
        None if request["verb"] == "run-export" => daemon.ask_for_file(request, &mut std::io::sink()),
        None => daemon.ask(request),
    }
}

fn code(answer: &Result<Value, AdminError>) -> Option<u16> {
    match answer {
        Err(AdminError::Denied { code, .. }) => Some(*code),
        Ok(_) | Err(AdminError::Refused(_)) => None,
        Err(error) => panic!("neither an answer nor a no: {error:?}"),
    }
}

#[test]
fn every_role_and_verb_is_decided_over_real_sockets_as_the_printed_table_says() {
    let scene = Scene::new("");
    let (status, printed, _) = starling(&["aggregator", "access", "--json"]);
    assert_eq!(status, Some(0));
    let table: Value = serde_json::from_str(&printed).expect("JSON");
    let requests: Vec<(String, Value)> =
        serde_json::from_str(include_str!("../../aggregator/src/access/requests.json")).expect("requests");
    let rows = |connection: &'static str| {
        table["verbs"].as_array().expect("rows").iter().filter(move |row| row["connection"] == connection)
    };
    let local = Daemon::here(scene.path("aggregator/state/admin.sock"));
    for role in ["operator", "publisher", "auditor", "device"] {
        let identity = if role == "device" { device(&scene) } else { issue(&scene, role, &[]) };
        let daemon = remote(&scene, &identity).expect("its CA is the right one");
        for row in rows("administration") {
            let word = row["verb"].as_str().expect("a word");
            let asked: Vec<_> = requests.iter().filter(|(verb, _)| verb == word).collect();
            assert!(!asked.is_empty(), "{word} is not asked");
            let may = row["roles"].as_array().expect("roles").contains(&json!(role));
            let expected = match (role, may, row["local_only"] == true) {
                ("device", ..) => Some(Refusal::MayNotAdminister.code()),
                (_, false, _) => Some(Refusal::NotPermitted.code()),
                (_, true, true) => Some(Refusal::OnlyHere.code()),
                (_, true, false) => None,
            };
            for (_, request) in asked {
                assert_eq!(code(&ask(&daemon, request)), expected, "{role}: {request}");
                if role == "operator" {
                    assert_eq!(code(&ask(&local, request)), None, "the daemon's own user: {request}");
                }
            }
        }
    }
    // Each no is in the audit log with the verb and with who asked; so is each yes.
    let log = scene.audit_log();
    let found = |role: &str, what: &str, word: &str, code: u16| {
        let fits = |record: &&Value| {
            record["what"] == what
                && record["code"] == code
                && record["about"]["word"] == word
                && record["who"].as_str().is_some_and(|who| who.starts_with(&format!("{role}:")))
        };
        assert!(log.iter().any(|record| fits(&record)), "{role} {what} {word} {code} is not in the log");
    };
    for row in rows("administration") {
        let word = row["verb"].as_str().expect("a word");
        for role in ["publisher", "auditor"] {
            if !row["roles"].as_array().expect("roles").contains(&json!(role)) {
                found(role, "permission-denied", word, Refusal::NotPermitted.code());
            }
        }
    }
    for (role, word) in
        [("operator", "run-list"), ("publisher", "run-status"), ("auditor", "device-list"), ("uid", "devices")]
    {
        found(role, "admin-request", word, 0);
    }
    found("operator", "admin-request", "run-stop", Refusal::Internal.code());
    found("operator", "permission-denied", "backup-create", Refusal::OnlyHere.code());
    let issued: Vec<_> = log.iter().filter(|record| record["what"] == "certificate-issued").collect();
    let words: Vec<_> = issued.iter().map(|record| record["about"]["word"].as_str().expect("a role")).collect();
    assert_eq!(words, ["operator", "publisher", "auditor"]);
}

#[test]
fn a_device_does_not_administer_and_an_operator_is_no_device_and_both_are_in_the_log() {
    let scene = Scene::new("");
    let (operator, device) = (issue(&scene, "operator", &[]), device(&scene));
    let refused = remote(&scene, &device).expect("dialed").ask(&json!({ "verb": "run-list" }));
    let refused = refused.expect_err("a device");
    assert!(refused.is_denied() && refused.to_string().contains(Refusal::MayNotAdminister.text()), "{refused}");
    scene.wait_operator_sees(Refusal::MayNotAdminister, "device pump");

    let file = |name| operator.join(name);
    let files = TlsFiles { ca: file("ca.pem"), certificate: file("certificate.pem"), key: file("key.pem") };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let refused = runtime.block_on(async {
        let credentials = Credentials::load(&files).expect("it was just issued");
        let endpoint = Endpoint::dialer(scene.address(), &credentials, &Transport::default()).expect("a socket");
        let link = endpoint.dial(scene.address()).await.expect("the CA is the right one");
        greet_aggregator(&link, "test").await.expect_err("the role is wrong")
    });
    assert_eq!(refused.refusal(), Some(Refusal::WrongRole), "{refused}");
    scene.wait_operator_sees(Refusal::WrongRole, "operator operator");

    let log = scene.audit_log();
    let has = |what: &str, code: u16, who: &str| {
        log.iter().any(|record| {
            record["what"] == what
                && record["code"] == code
                && record["who"].as_str().is_some_and(|text| text.starts_with(who))
        })
    };
    assert!(has("permission-denied", Refusal::MayNotAdminister.code(), "device:"));
    assert!(has("peer-turned-away", Refusal::WrongRole.code(), "stranger"));
}

#[test]
fn an_aggregator_is_run_from_elsewhere_with_an_operators_certificate() {
    let scene = Scene::new("");
    let (operator, auditor) = (issue(&scene, "operator", &[]), issue(&scene, "auditor", &[]));
    let address = scene.address().to_string();
    let by = |identity: &Path, arguments: &[&str]| {
        starling(&[&["aggregator"], arguments, &["--remote", &address, "--identity", text(identity)]].concat())
    };
    let ok = |identity: &Path, arguments: &[&str]| {
        let (code, out, err) = by(identity, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        out
    };
    let string = ok(&operator, &["device", "invite", "--name", "pump"]);
    assert_eq!(scene.join(string.trim(), "pump").0, Some(0));
    scene.bind("pump", 0, 1);
    let _client = scene.run("pump");
    let task = scene.task(1, 2, "");
    assert_eq!(ok(&operator, &["run", "start", text(&task)]).trim(), "run 1 has begun");
    scene.wait_rounds(2);
    assert!(ok(&auditor, &["run", "status"]).starts_with("run 1 of digits: finished"));
    assert!(ok(&auditor, &["device", "list"]).contains("pump"));

    // Weights out and in again: the same bodies and bounds as over the local socket.
    let (there, here) = (scene.path("there.safetensors"), scene.path("here.safetensors"));
    ok(&operator, &["run", "export", "1", "--out", text(&there)]);
    scene.ask(&["run", "export", "1", "--out", text(&here)]);
    assert_eq!(std::fs::read(&there).expect("exported"), std::fs::read(&here).expect("exported"));
    let begun = ok(&operator, &["run", "start", text(&task), "--weights", text(&there), "--json"]);
    assert_eq!(begun.trim(), r#"{"run":2}"#);
    let large = scene.path("large.safetensors");
    std::fs::File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    let (code, _, err) = by(&operator, &["run", "start", text(&task), "--weights", text(&large)]);
    assert!(code == Some(1) && err.contains("have at most"), "{err}");

    // An auditor reads and checks the log from elsewhere, and changes nothing.
    let key = scene.path("aggregator/state/audit.pub");
    assert!(ok(&auditor, &["audit", "verify", "--key", text(&key)]).contains("the log is whole"));
    let (code, _, err) = by(&auditor, &["run", "stop", "2"]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("auditor:") && err.contains("run-stop") && err.contains("code 71"), "{err}");
}

#[test]
fn a_revoked_administrator_is_cut_at_once_and_an_expired_one_at_its_end() {
    let mut scene = Scene::new("");
    let (auditor, short) = (issue(&scene, "auditor", &[]), issue(&scene, "publisher", &["--expires", "4s"]));
    let list = json!({ "verb": "run-list" });
    let expires = remote(&scene, &short).expect("dialed");
    expires.ask(&list).expect("still good");
    let live = remote(&scene, &auditor).expect("dialed");
    live.ask(&list).expect("an auditor may");
    let listed = scene.ask(&["operator", "list"]);
    let fits = |line: &&Value| line["role"] == "auditor" && line["connected"] == true && line["name"] == "auditor";
    let who = listed.as_array().expect("lines").iter().find(fits).expect("it is here")["device"].clone();

    let spoken = Instant::now();
    scene.ask(&["operator", "revoke", who.as_str().expect("an id")]);
    let reason = live.ended(PATIENCE).expect("it was cut");
    assert_eq!(reason.refusal, Some(Refusal::Revoked));
    assert!(spoken.elapsed() < CUT + Duration::from_secs(1), "the command and the cut took {:?}", spoken.elapsed());
    let refused =
        |folder: &Path| until("a no", PATIENCE, || remote(&scene, folder).and_then(|daemon| daemon.ask(&list)).err());
    let again = refused(&auditor);
    assert!(again.is_denied() && again.to_string().contains(Refusal::Revoked.text()), "{again}");
    scene.wait_operator_sees(Refusal::Revoked, "auditor auditor");

    assert_eq!(expires.ended(PATIENCE).expect("it was cut").refusal, Some(Refusal::CertificateExpired));
    let again = refused(&short);
    assert!(again.is_denied() && again.to_string().contains("expired"), "{again}");

    // Neither comes back with a restart.
    scene.aggregator.as_mut().expect("it runs").terminate();
    scene.aggregator.as_mut().expect("it ran").wait_exit(PATIENCE);
    scene.start();
    let again = remote(&scene, &auditor).and_then(|daemon| daemon.ask(&list)).expect_err("revoked");
    assert!(again.to_string().contains(Refusal::Revoked.text()), "{again}");
}

#[test]
fn a_key_that_its_holder_made_gets_a_certificate_and_never_travels() {
    let scene = Scene::new("");
    let (alice, desk) = (scene.path("alice"), scene.path("desk"));
    let (code, public, err) = starling(&["aggregator", "operator", "key", "--out", text(&alice)]);
    assert_eq!(code, Some(0), "{err}");
    let key = public.trim();
    scene.ask(&["operator", "issue", "auditor", "--name", "alice", "--public-key", key, "--out", text(&desk)]);
    assert!(!desk.join("key.pem").exists(), "the operator has the public half alone");
    for name in ["certificate.pem", "ca.pem"] {
        std::fs::copy(desk.join(name), alice.join(name)).expect("it is public");
    }
    let daemon = remote(&scene, &alice).expect("dialed");
    assert_eq!(daemon.ask(&json!({ "verb": "run-list" })).expect("an auditor may"), json!([]));
    // One key, one identity; and no certificate of a device by this way.
    let config = scene.config();
    let issue = |role: &str, key: &str| {
        let request = json!({ "verb": "operator-issue", "role": role, "name": "bob", "public_key": key });
        starling_aggregator::ask(&scene.path("aggregator/state/admin.sock"), &request).expect_err("no").to_string()
    };
    assert!(issue("operator", key).contains("has a certificate already"));
    assert!(issue("device", &"11".repeat(32)).contains("device invite"));
    assert!(issue("auditor", "xyz").contains("public_key"));
    assert!(config.exists());
}

#[test]
fn another_user_of_the_machine_is_denied_by_name() {
    let scene = Scene::new("");
    // The socket is closed to others by its mode; whoever gets past that still meets the kernel's word on who they are.
    let socket = scene.path("aggregator/state/admin.sock");
    let open = |path: &Path, mode: u32| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    let folders = [scene.path(""), scene.path("aggregator"), scene.path("aggregator/state")];
    let opened = folders.iter().try_for_each(|folder| open(folder, 0o755)).and_then(|()| open(&socket, 0o666));
    opened.expect("they are ours");
    open(&scene.config(), 0o644).expect("it is ours");
    let config = scene.config();
    let nobody = Command::new(binary())
        .args(["aggregator", "run", "list", "--config", text(&config)])
        .uid(65_534)
        .current_dir("/")
        .output();
    let output = match nobody {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: no process of another user can be started here ({error})");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("user 65534 may not administer this daemon"), "{said}");
    let log = scene.audit_log();
    let denied = log.iter().find(|record| record["what"] == "permission-denied").expect("it is in the log");
    assert_eq!((&denied["who"], &denied["code"]), (&json!("uid:65534"), &json!(Refusal::MayNotAdminister.code())));
}
