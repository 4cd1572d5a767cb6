//! A little network of nameless namespaces for one test: gone with its handles, whatever happens to the test.

pub(crate) mod craft;

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_dataplane::frame::{Frame, FramePool};
use sluice_dataplane::port::{DriverSpec, OpenPort, PortError, PortQueue, PortSpec, af_packet, open};
use sluice_ffi::kernel_bypass::Hook;
use sluice_ffi::netns::Namespace;
use sluice_ffi::wait::wait_readable;

/// Long enough for any machine; nothing waits this long unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One namespace, and a way to do things inside.
pub(crate) struct Place {
    namespace: Namespace,
}

impl Place {
    /// A new, empty namespace with `lo` up; `None`, said loudly, when the process may not make one.
    pub(crate) fn new(test: &str) -> Option<Self> {
        match Namespace::new() {
            Ok(namespace) => {
                let place = Self { namespace };
                place.ip("link set lo up");
                Some(place)
            }
            Err(error) => {
                eprintln!("SKIPPED: {test}: network namespaces need root: {error}");
                None
            }
        }
    }

    /// Does `work` on a thread inside.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.namespace.enter().expect("enters its own namespace");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs one `ip` command inside; returns what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.run("ip", arguments)
    }

    /// Runs a program of iproute2 inside; returns what it printed.
    pub(crate) fn run(&self, program: &str, arguments: &str) -> String {
        self.run_words(program, &arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// [`Place::run`], with arguments that may hold spaces.
    pub(crate) fn run_words(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.within(|| Command::new(program).args(arguments).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a file under /proc/sys/net as the namespace sees it.
    pub(crate) fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/net/{name}");
        self.within(|| std::fs::write(&path, value)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Sets `interface` up without IPv6 autoconfiguration.
    pub(crate) fn set_up(&self, interface: &str) {
        self.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1");
        self.ip(&format!("link set {interface} up"));
    }

    /// Waits until `interface` is operational: until then the kernel says that it sends, and does not.
    pub(crate) fn until_operational(&self, interface: &str) {
        let show = format!("-o link show dev {interface}");
        until("an interface is operational", || self.ip(&show).contains("state UP"));
    }

    /// A macvlan `name` on `parent`, operational.
    pub(crate) fn macvlan(&self, name: &str, parent: &str) {
        self.ip(&format!("link add {name} link {parent} type macvlan mode bridge"));
        self.set_up(name);
        self.until_operational(name);
    }

    /// A cable: `here` in this namespace, `there` in another; both operational.
    pub(crate) fn cable(&self, here: &str, other: &Place, there: &str) {
        let path = other.namespace.path();
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", path.display()));
        let ends = [(self, here), (other, there)];
        ends.iter().for_each(|(place, name)| place.set_up(name));
        ends.iter().for_each(|(place, name)| place.until_operational(name));
    }

    /// The Ethernet address of `interface`.
    pub(crate) fn mac(&self, interface: &str) -> [u8; 6] {
        let shown = self.ip(&format!("-o link show dev {interface}"));
        let text = shown.split("link/ether ").nth(1).and_then(|rest| rest.get(..17)).expect("an address");
        let mut mac = [0; 6];
        for (byte, hex) in mac.iter_mut().zip(text.split(':')) {
            *byte = u8::from_str_radix(hex, 16).expect("hexadecimal");
        }
        mac
    }

    /// Opens `interface` with a queue for each of `pools`.
    pub(crate) fn try_open(&self, interface: &str, pools: &[FramePool]) -> Result<OpenPort, PortError> {
        self.within(|| open(&plain(interface), pools))
    }

    /// Opens `interface` with one queue, the kernel kept off at `hook`.
    pub(crate) fn open_at(&self, interface: &str, hook: Hook) -> OpenPort {
        let pools = [FramePool::new(512)];
        let port = self.within(|| af_packet::open_at("test", interface, &pools, &[hook]));
        port.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens a port as `spec` says, with one queue.
    pub(crate) fn open_spec(&self, spec: &PortSpec) -> Box<dyn PortQueue> {
        let port = self.within(|| open(spec, &[FramePool::new(512)]));
        port.unwrap_or_else(|error| panic!("{error}")).queues.remove(0)
    }

    /// Opens `interface` with a queue for each of `pools`, which must work.
    pub(crate) fn open_with(&self, interface: &str, pools: &[FramePool]) -> OpenPort {
        self.try_open(interface, pools).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens `interface` with `workers` queues, each with a store of its own.
    pub(crate) fn open(&self, interface: &str, workers: usize) -> OpenPort {
        let pools = (0..workers).map(|_| FramePool::new(512)).collect::<Vec<_>>();
        self.open_with(interface, &pools)
    }

    /// Opens `interface` with one queue.
    pub(crate) fn queue(&self, interface: &str) -> Box<dyn PortQueue> {
        self.open(interface, 1).queues.remove(0)
    }
}

/// An interface as a port without wrappers.
pub(crate) fn plain(interface: &str) -> PortSpec {
    let driver = DriverSpec::AfPacket { interface: interface.into() };
    PortSpec { name: "test".into(), driver, fault: None, pcap: None }
}

/// Receives until `wanted` frames came that `filter` likes; panics when they do not come.
pub(crate) fn receive(
    queue: &mut dyn PortQueue,
    wanted: usize,
    filter: impl Fn(&Frame) -> bool,
) -> Vec<Frame> {
    let deadline = Instant::now() + PATIENCE;
    let (mut frames, mut liked) = (Vec::new(), Vec::new());
    while liked.len() < wanted {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{} of {wanted} frames came", liked.len());
        if queue.rx(&mut frames) == 0 {
            wait_readable(&[queue.wait_fd().expect("a socket")], left);
        }
        liked.extend(frames.drain(..).filter(&filter));
    }
    liked
}

/// Sends all of `frames`, however often it takes.
pub(crate) fn send(queue: &mut dyn PortQueue, mut frames: Vec<Frame>) {
    let deadline = Instant::now() + PATIENCE;
    while !frames.is_empty() {
        queue.tx(&mut frames);
        assert!(Instant::now() < deadline, "{} frames were not taken", frames.len());
    }
}

/// Asks again and again until it is so; panics when it does not come to be. For state without an event.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A frame of our own ethertype: addresses, 0x88b5, then `len` bytes that depend on `seed`.
pub(crate) fn experiment(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    let mut state = seed;
    bytes.extend(std::iter::repeat_with(|| next(&mut state) as u8).take(len));
    bytes
}

/// True for frames that [`experiment`] made.
pub(crate) fn is_experiment(frame: &Frame) -> bool {
    frame.bytes().get(12..14) == Some(&[0x88, 0xb5])
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
