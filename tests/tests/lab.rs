//! The lab itself, without sluice: it stands as promised, and leaves nothing behind.

use sluice_control::lab::{Lab, LabError, LabOptions};
use sluice_tests::{LinkKind, Namespace, addresses, lab, needs_root, run, world};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn namespaces_are_joined_and_sluice_interfaces_have_no_addresses() {
    for link in [LinkKind::Macvlan, LinkKind::Veth] {
        let Some(lab) = lab(link) else { return };
        let between = format!("http://{}:8080/", addresses::SERVER2_V4);
        assert_eq!(run(world::curl(&lab.servers()[0].namespace).arg(between)), "server2\n", "{link}");
        let addresses = run(lab.sluice().command("ip").args(["-o", "addr", "show", "scope", "link"]));
        assert_eq!(addresses, "", "{link}: link-local addresses");
        let addresses = run(lab.sluice().command("ip").args(["-o", "addr", "show", "scope", "global"]));
        assert_eq!(addresses, "", "{link}: global addresses");
        let links = run(lab.sluice().command("ip").args(["-o", "link", "show", "up"]));
        assert!(links.contains("net1@") && links.contains("net2@"), "{link}: {links}");
    }
}

#[test]
fn nothing_is_left_when_a_step_fails() {
    if !needs_root() {
        return;
    }
    let name = format!("slt-{}-rollback", std::process::id());
    let taken = Namespace::add(&format!("{name}-server2")).expect("a free name");
    let options = LabOptions::new(&name, LinkKind::Veth).expect("a good name");
    let error = Lab::up(&options).expect_err("server2's namespace is taken");
    assert!(matches!(&error, LabError::Command { command, .. } if command.contains("netns add")), "{error}");
    for part in ["client", "sluice", "server1", "hub"] {
        assert!(Namespace::find(&format!("{name}-{part}")).is_none(), "{part} is left");
    }
    assert!(!Path::new("/run/sluice-lab").join(&name).exists(), "the folder is left");
    assert!(nginx_of(&name).is_empty(), "nginx is left: {:?}", nginx_of(&name));
    drop(taken);
}

#[test]
fn remove_takes_all_of_a_kept_lab_and_ends_only_what_the_lab_started() {
    let Some(lab) = lab(LinkKind::Veth) else { return };
    let directory = lab.directory().to_owned();
    let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
    lab.keep();
    // A stranger's pid in a pid file of ours.
    let mut stranger = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep runs");
    std::fs::create_dir_all(directory.join("server1")).expect("the folder is there");
    std::fs::write(directory.join("server1/echo.pid"), stranger.id().to_string()).expect("writable");

    assert!(!nginx_of(&name).is_empty(), "the kept lab's nginx runs");
    Lab::remove(&name).unwrap_or_else(|error| panic!("{error}"));

    assert!(stranger.try_wait().expect("a child of ours").is_none(), "the stranger was ended");
    stranger.kill().and_then(|()| stranger.wait()).expect("a child of ours");
    assert!(Lab::find(&name).expect("a good name").is_none());
    assert!(nginx_of(&name).is_empty(), "nginx is left: {:?}", nginx_of(&name));
}

/// The processes whose command line names the folder of the lab called `name`.
fn nginx_of(name: &str) -> Vec<PathBuf> {
    let folder = format!("/run/sluice-lab/{name}/");
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let of_lab = |process: &PathBuf| {
        let command_line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(&folder)
    };
    processes.map(|process| process.path()).filter(of_lab).collect()
}
