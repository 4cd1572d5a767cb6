//! The `sluice` command itself: what it prints, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::{CONFIG, Sluice};

fn sluice(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn check_says_file_line_and_path() {
    let folder = tempfile::tempdir().unwrap();
    let good = written(folder.path(), "good.yaml", CONFIG);
    let (code, out, err) = sluice(&["check", &good]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("ok: 2 ports, 1 virtual servers, 1 pools"), "{out}");
    let bad = written(folder.path(), "bad.yaml", &CONFIG.replace("8080}", "80800}"));
    let (code, out, err) = sluice(&["check", &bad]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with(&format!("{bad}:12: /pools/web/members/0/port: expected a port number")),
        "{err}"
    );
}

#[test]
fn without_a_sluice_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path(), "c.yaml", CONFIG);
    let socket = folder.path().join("none.sock").display().to_string();
    for arguments in [
        vec!["show", "workers", "--socket", &socket],
        vec!["top", "--socket", &socket],
        vec!["apply", &file, "--socket", &socket],
        vec!["diff", &file, "--socket", &socket],
        vec!["member", "disable", "web", "10.1.0.11:8080", "--socket", &socket],
    ] {
        let (code, out, err) = sluice(&arguments);
        assert_eq!((code, out.as_str(), err.lines().count()), (3, "", 1), "{arguments:?}: {err}");
        assert!(err.contains("no such socket"), "{err}");
    }
}

#[test]
fn commands_talk_to_a_running_sluice() {
    let running = Sluice::start(CONFIG, 1);
    let socket = running.socket.display().to_string();
    let ask = |arguments: &[&str]| sluice(&[arguments, &["--socket", &socket]].concat());
    let folder = tempfile::tempdir().unwrap();
    let file = written(
        folder.path(),
        "c.yaml",
        &(CONFIG.to_string() + "  dns: {destination: 192.0.2.53:53, protocol: udp, pool: web}\n"),
    );
    let (code, out, _) = ask(&["diff", &file]);
    assert_eq!((code, out.lines().next().unwrap()), (0, "+ /virtual_servers/dns"));
    let (code, out, _) = ask(&["apply", &file, "--dry-run"]);
    assert!(code == 0 && out.contains("dry run"), "{out}");
    let (code, out, _) = ask(&["apply", &file]);
    assert!(code == 0 && out.contains("generation 2 on 1 workers after"), "{out}");
    let (_, out, _) = ask(&["apply", &file]);
    assert!(out.contains("no changes"), "{out}");
    let (code, out, _) = ask(&["member", "offline", "web", "10.1.0.11:8080"]);
    assert_eq!((code, out.as_str()), (0, "web 10.1.0.11:8080: offline\n"));
    let (code, _, err) = ask(&["member", "offline", "web", "10.1.0.99:8080"]);
    assert!(code == 1 && err.contains("there is no member 10.1.0.99:8080"), "{err}");
    for thing in [
        "virtual-servers",
        "pools",
        "members",
        "nodes",
        "flows",
        "persistence",
        "snat",
        "neighbors",
        "routes",
        "ports",
        "workers",
        "drops",
        "monitors",
        "certificates",
        "config",
        "version",
    ] {
        for form in ["table", "json", "yaml"] {
            let (code, out, err) = ask(&["show", thing, "-o", form]);
            assert!(code == 0 && !out.is_empty() && err.is_empty(), "{thing} {form}: {out}{err}");
        }
    }
    let (_, table, _) = ask(&["show", "members"]);
    assert!(
        table.contains("web") && table.contains("10.1.0.11:8080") && table.contains("offline"),
        "{table}"
    );
    // What is shown as YAML can be applied.
    let (_, yaml, _) = ask(&["show", "config", "-o", "yaml"]);
    let shown = written(folder.path(), "shown.yaml", &yaml);
    let (code, out, err) = ask(&["apply", &shown]);
    assert!(code == 0 && out.contains("no changes"), "{out}{err}");
    let bad = written(folder.path(), "bad.yaml", &CONFIG.replace("8080}", "80800}"));
    let (code, _, err) = ask(&["apply", &bad]);
    assert!(code == 1 && err.contains(&format!("{bad}:12: /pools/web/members/0/port: ")), "{err}");
    let (code, _, err) = ask(&["apply", &bad, "--partial"]);
    assert!(code == 0 && err.contains("refused: /pools/web/members/0/port"), "{err}");
    running.end();
}

#[test]
fn run_refuses_what_check_refuses_and_a_port_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s.sock").display().to_string();
    let bad = written(folder.path(), "bad.yaml", &CONFIG.replace("8080}", "80800}"));
    let (code, _, err) = sluice(&["run", "-c", &bad, "--socket", &socket]);
    assert!(code == 1 && err.contains(":12: /pools/web/members/0/port: "), "{err}");
    let gone = written(folder.path(), "gone.yaml", &CONFIG.replace("net1", "no-such-if0"));
    let (code, _, err) = sluice(&["run", "-c", &gone, "--socket", &socket]);
    assert!(code == 1 && err.contains("port ext"), "{err}");
    assert!(!Path::new(&socket).exists());
}
