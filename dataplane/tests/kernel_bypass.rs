//! The kernel's own stack is kept off the interface of an `af_packet` port, at either hook. Needs root, and `tc`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "shared with other tests")]
mod lab;

use std::mem;
use std::net::UdpSocket;

use lab::craft::arp_request;
use lab::{Place, experiment, is_experiment, receive, send, until};
use sluice_dataplane::frame::{Frame, FramePool};
use sluice_dataplane::port::PortQueue;
use sluice_ffi::interface::Interface;
use sluice_ffi::kernel_bypass::{Hook, KernelBypass};

/// An interface whose kernel has an address, and what stands at the other end of its cable.
struct Scene {
    here: Place,
    _there: Place,
    theirs: Box<dyn PortQueue>,
    pool: FramePool,
}

impl Scene {
    /// `None`, said loudly, where this cannot be tested.
    fn new(test: &str, hook: Hook) -> Option<Self> {
        let here = Place::new(test)?;
        let there = Place::new("peer").unwrap();
        here.cable("port0", &there, "peer0");
        here.ip("addr add 192.0.2.9/24 dev port0");
        let try_hook = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            KernelBypass::attach(Interface::by_name(&socket, "port0")?.index, &[hook]).map(|_| ())
        };
        match here.within(try_hook) {
            // Before Linux 6.6 there is no tcx, and a clsact may not be built; the rest is a failure.
            Err(error) if hook == Hook::Tcx || error.raw_os_error() == Some(ENOENT) => {
                eprintln!("SKIPPED: {test}: {hook:?}: {error}");
                return None;
            }
            tried => tried.unwrap(),
        }
        let theirs = there.queue("peer0");
        Some(Self { here, _there: there, theirs, pool: FramePool::new(64) })
    }

    /// Asks for the address's owner, twenty times.
    fn ask(&mut self) {
        let requests = (0..20).map(|_| self.pool.copy_of(&arp_request(PEER)).unwrap());
        send(self.theirs.as_mut(), requests.collect());
    }

    /// The kernel answers each question.
    fn is_answered(&mut self) {
        self.ask();
        receive(self.theirs.as_mut(), 20, |frame| frame.bytes().starts_with(&PEER) && is_arp(frame));
    }

    /// The kernel says nothing, neither when asked nor by itself; `ours` sees each question and can send.
    fn is_silent(&mut self, ours: &mut dyn PortQueue) {
        self.ask();
        receive(ours, 20, is_arp);
        autoconfigure(&self.here);
        send(ours, vec![self.pool.copy_of(&experiment(1, 60)).unwrap()]);
        let heard = receive_up_to(self.theirs.as_mut(), is_experiment);
        assert_eq!(heard.len(), 1, "only what we sent: {heard:?}");
    }

    /// What `tc` shows of the interface's filters and of its clsact discipline.
    fn filters(&self) -> String {
        let filters = ["ingress", "egress"].map(|side| self.tc(&format!("filter show dev port0 {side}")));
        filters.concat() + &self.tc("qdisc show dev port0 clsact")
    }

    fn tc(&self, arguments: &str) -> String {
        self.here.run("tc", arguments)
    }

    /// Adds somebody else's filter, which lets everything through.
    fn add_filter(&self, at: &str) {
        let code = ["bytecode", "1,6 0 0 0,", "direct-action"];
        let words = format!("filter add dev port0 {at} bpf");
        let words: Vec<&str> = words.split_whitespace().chain(code).collect();
        self.here.run_words("tc", &words);
    }
}

#[test]
fn the_kernel_is_silent_while_the_port_is_open() {
    for (hook, name) in [(Hook::Tcx, "kernel-bypassed-by-tcx"), (Hook::Clsact, "kernel-bypassed-by-clsact")] {
        let Some(mut scene) = Scene::new("the_kernel_is_silent_while_the_port_is_open", hook) else {
            continue;
        };
        scene.is_answered();
        let mut port = scene.here.open_at("port0", hook);
        assert!(port.info.offloads.contains(&name), "{:?}", port.info.offloads);
        scene.is_silent(port.queues[0].as_mut());
        drop(port);
        scene.is_answered();
        assert_eq!(scene.filters(), "", "{hook:?} leaves nothing behind");
    }
}

#[test]
fn filters_of_a_process_that_was_killed_are_replaced_and_go_with_their_discipline() {
    let test = "filters_of_a_process_that_was_killed_are_replaced_and_go_with_their_discipline";
    let Some(mut scene) = Scene::new(test, Hook::Clsact) else { return };
    // What is never dropped is what a killed process leaves.
    mem::forget(scene.here.open_at("port0", Hook::Clsact));
    let left = scene.filters();
    assert_eq!(left.matches("handle 0x736c7569 sluice, made clsact direct-action").count(), 2, "{left}");
    let mut port = scene.here.open_at("port0", Hook::Clsact);
    assert_eq!(scene.filters().matches("handle").count(), 2, "{}", scene.filters());
    scene.is_silent(port.queues[0].as_mut());
    drop(port);
    scene.is_answered();
    assert_eq!(scene.filters(), "", "the discipline was made by the first");
}

#[test]
fn whoever_comes_later_has_the_filters() {
    let Some(mut scene) = Scene::new("whoever_comes_later_has_the_filters", Hook::Clsact) else { return };
    let earlier = scene.here.open_at("port0", Hook::Clsact);
    let mut later = scene.here.open_at("port0", Hook::Clsact);
    drop(earlier);
    scene.is_silent(later.queues[0].as_mut());
    drop(later);
    scene.is_answered();
    assert_eq!(scene.filters(), "");
}

#[test]
fn what_others_have_there_is_left_alone() {
    let Some(mut scene) = Scene::new("what_others_have_there_is_left_alone", Hook::Clsact) else { return };
    scene.tc("qdisc add dev port0 clsact");
    scene.add_filter("ingress pref 1 handle 9");
    let before = scene.filters();
    let mut port = scene.here.open_at("port0", Hook::Clsact);
    scene.is_silent(port.queues[0].as_mut());
    drop(port);
    assert_eq!(scene.filters(), before);
    scene.is_answered();

    // A discipline of ours in which others have put a filter meanwhile stays, with that.
    scene.tc("qdisc del dev port0 clsact");
    let port = scene.here.open_at("port0", Hook::Clsact);
    scene.add_filter("ingress pref 1 handle 9");
    drop(port);
    assert_eq!(scene.filters(), before);
}

#[test]
fn a_place_that_others_have_is_not_taken() {
    let Some(mut scene) = Scene::new("a_place_that_others_have_is_not_taken", Hook::Clsact) else { return };
    let setups = [
        ("clsact", Some("egress pref 1 handle 0x736c7569")),
        ("clsact", Some("ingress pref 1 handle 0x736c7569")),
        ("ingress", None),
    ];
    for (discipline, filter) in setups {
        scene.tc(&format!("qdisc add dev port0 {discipline}"));
        filter.iter().for_each(|at| scene.add_filter(at));
        let before = scene.filters();
        let port = scene.here.open_at("port0", Hook::Clsact);
        assert!(!port.info.offloads.iter().any(|offload| offload.starts_with("kernel")), "the port says so");
        assert_eq!(scene.filters(), before, "and what it had attached is gone again");
        scene.is_answered();
        drop(port);
        assert_eq!(scene.filters(), before);
        scene.tc(&format!("qdisc del dev port0 {discipline}"));
    }
}

#[test]
fn an_interface_that_is_gone_needs_no_undoing() {
    let Some(scene) = Scene::new("an_interface_that_is_gone_needs_no_undoing", Hook::Clsact) else { return };
    let port = scene.here.open_at("port0", Hook::Clsact);
    scene.here.ip("link del port0");
    drop(port);
}

fn is_arp(frame: &Frame) -> bool {
    frame.bytes()[12..14] == [8, 6]
}

/// Lets the kernel give port0 an IPv6 address; returns when it has asked for duplicates and got no answer.
fn autoconfigure(here: &Place) {
    here.sysctl("ipv6/conf/port0/disable_ipv6", "0");
    until("an IPv6 address is there and its duplicate detection done", || {
        let addresses = here.ip("-6 addr show dev port0 scope link");
        addresses.contains("fe80::") && !addresses.contains("tentative")
    });
}

/// All frames that come, up to the first that `is_last` likes.
fn receive_up_to(queue: &mut dyn PortQueue, is_last: impl Fn(&Frame) -> bool) -> Vec<Frame> {
    let mut heard = Vec::new();
    loop {
        heard.extend(receive(queue, 1, |_| true));
        if heard.last().is_some_and(&is_last) {
            return heard;
        }
    }
}

/// What the kernel says of a discipline that it does not have.
const ENOENT: i32 = 2;
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 1];
