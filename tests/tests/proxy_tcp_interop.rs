//! Linux's TCP on both sides of a full proxy, over wires that lose, double and reorder, with kernels set in unusual ways.

use sluice_tests::file::{RandomFile, sha256};
use sluice_tests::stage::{Reply, Stage};
use sluice_tests::wire::{self, BAD, GOOD, HTTP, TCP};
use sluice_tests::{peer, try_run};

const MEBI: usize = 1 << 20;

/// A request by curl, which has to succeed.
fn curl(stage: &Stage, url: &str, arguments: &[&str]) -> Reply {
    let mut curl = stage.curl();
    let output = try_run(curl.args(["--include", "--max-time", "60"]).args(arguments).arg(url));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{url}: {} {error}", output.status);
    Reply::parse(&output.stdout)
}

/// So many bytes down and a file up by HTTP, both by SHA-256.
fn down_and_up(stage: &Stage, end: &str, bytes: usize) {
    let reply = curl(stage, &format!("http://{end}/bytes/{bytes}"), &[]);
    let path = stage.world.lab.directory().join("down");
    std::fs::write(&path, &reply.body).expect("room for a file");
    assert_eq!((reply.body.len(), sha256(&path).as_str()), (bytes, reply.field("x-sha256")));

    let file = RandomFile::write(bytes);
    let name = file.path.to_string_lossy();
    let told = curl(stage, &format!("http://{end}/echo"), &["--upload-file", &name]).json();
    assert_eq!((&told["length"], &told["sha256"]), (&bytes.into(), &sha256(&file.path).into()));
}

/// So many bytes both ways at once over TCP.
fn there_and_back(stage: &Stage, end: &str, bytes: usize) {
    let text = peer::pattern(bytes as u64, bytes);
    let stream = wire::connect_patient(stage.world.lab.client(), end).expect("a connection");
    let back = wire::echo(&stream, &text).unwrap_or_else(|error| panic!("{end}, {bytes} bytes: {error}"));
    assert!(back == text, "{end}: {} of {bytes} bytes came back, or others", back.len());
}

/// Ten mebibytes and more each way, over both families.
fn large_transfers(stage: &Stage) {
    down_and_up(stage, HTTP[0], 10 * MEBI);
    there_and_back(stage, TCP[0], 10 * MEBI);
    down_and_up(stage, HTTP[1], 2 * MEBI);
    there_and_back(stage, TCP[1], 2 * MEBI);
    wire::nothing_is_left(stage, &[]);
}

#[test]
fn bytes_arrive_over_a_bad_wire_to_the_client() {
    let Some(stage) = wire::stage(BAD, GOOD, wire::without_offloads) else { return };
    wire::lose_every(101, stage.world.lab.client());
    large_transfers(&stage);
}

#[test]
fn bytes_arrive_over_a_bad_wire_to_the_member() {
    let Some(stage) = wire::stage(GOOD, BAD, wire::without_offloads) else { return };
    wire::lose_every(101, &stage.world.lab.servers()[0].namespace);
    large_transfers(&stage);
}

/// Super-frames are lost as a whole.
#[test]
fn bytes_arrive_in_super_frames_over_bad_wires() {
    let Some(stage) = wire::stage(BAD, BAD, |_| ()) else { return };
    large_transfers(&stage);
}
