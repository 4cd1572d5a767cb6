//! [`Model`] to [`Parts`]: pure, and every error of meaning at once.
//!
//! One file for each kind of object; all push into one [`Compile`].

mod access_log;
mod conflicts;
mod filters;
mod former;
mod http;
mod ingress;
mod legal;
mod methods;
mod monitors;
mod nats;
mod network;
mod nodes;
mod own_hosts;
mod persistence;
mod pools;
mod proxy;
mod routes;
mod snat;
mod virtuals;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use hashbrown::HashMap;
use sluice_dataplane::config::ids::{PORTS_MAX, PortId};
use sluice_dataplane::config::snapshot::{Parts, Settings};
use sluice_dataplane::port::fault::{FaultRates, FaultSpec};
use sluice_dataplane::port::{DriverSpec, PortSpec};

pub use former::{Context, Former};

use crate::ids::IdBook;
use crate::model::{self, Driver, Fault, Model, Name, Port, Size, VirtualType, Workers};
use crate::parse::{self, Pointer};

/// What became of a model.
#[derive(Debug)]
pub struct Compiled {
    /// For the data plane; complete only when there are no errors.
    pub parts: Parts,
    /// What is wrong.
    pub errors: Vec<parse::Fault>,
    /// What is odd, but can be run.
    pub warnings: Vec<parse::Fault>,
    /// For the next one, which takes over what does not differ.
    pub context: Context,
}

/// Compiles `model`, whose objects have their numbers in `ids`. Places in `removed` were refused already: what
/// follows from their absence is not reported.
pub fn compile(model: &Model, ids: &IdBook, generation: u64, removed: &BTreeSet<Pointer>) -> Compiled {
    Compile::new(model, ids, removed).run(generation)
}

/// Compiles `model` as [`compile`] does, and to the same, taking over what is the same object in `former`. `ids` came
/// from the numbers that `former` was compiled with.
pub fn compile_after(model: &Model, ids: &IdBook, generation: u64, former: Former<'_>) -> Compiled {
    let removed = BTreeSet::new();
    let mut compile = Compile::new(model, ids, &removed);
    compile.former = Some(former).filter(|former| former.model.has_frame_of(model));
    compile.run(generation)
}

/// The ports that `model` asks for, in the order of their ids.
pub fn port_specs(model: &Model) -> Vec<PortSpec> {
    model.ports.iter().filter_map(|(name, port)| port_spec(name, port)).collect()
}

/// `None` when the port lacks its device, which [`compile`] refuses.
fn port_spec(name: &Name, port: &Port) -> Option<PortSpec> {
    let driver = match port.driver {
        Driver::AfPacket => DriverSpec::AfPacket { interface: port.interface.clone()? },
        Driver::Dpdk => DriverSpec::Dpdk { device: port.device.clone()? },
    };
    let (fault, pcap) = (port.fault.as_ref().map(fault_spec), port.pcap.as_ref().map(PathBuf::from));
    Some(PortSpec { name: name.to_string(), driver, fault, pcap })
}

/// The same rates in both directions.
fn fault_spec(fault: &Fault) -> FaultSpec {
    let rates = FaultRates {
        loss: fault.loss.0,
        duplication: fault.duplicate.0,
        reordering: fault.reorder.0,
        corruption: fault.corrupt.0,
    };
    FaultSpec { seed: fault.seed, rx: rates, tx: rates, panic_after: fault.panic_after }
}

/// The work at hand.
struct Compile<'a> {
    model: &'a Model,
    ids: &'a IdBook,
    removed: &'a BTreeSet<Pointer>,
    ports: HashMap<&'a str, PortId>,
    /// Nodes with an object of their own.
    nodes: HashMap<IpAddr, &'a model::Node>,
    /// By the node's number: whether the parts have it.
    has_node: Vec<bool>,
    /// What there is to take over from; never while something is `removed`.
    former: Option<Former<'a>>,
    context: Context,
    /// A virtual server takes other packets than it did.
    takes_otherwise: bool,
    parts: Parts,
    errors: Vec<parse::Fault>,
    warnings: Vec<parse::Fault>,
    /// A self IP has an address that none can have.
    self_ip_refused: bool,
}

impl<'a> Compile<'a> {
    fn new(model: &'a Model, ids: &'a IdBook, removed: &'a BTreeSet<Pointer>) -> Self {
        let ports = model.ports.keys().take(PORTS_MAX).enumerate();
        let ports = ports.map(|(number, name)| (name.as_str(), PortId(number as u8))).collect();
        let parts = Parts::default();
        Self {
            model,
            ids,
            removed,
            ports,
            nodes: HashMap::new(),
            has_node: Vec::new(),
            former: None,
            context: Context::default(),
            takes_otherwise: false,
            parts,
            errors: Vec::new(),
            warnings: Vec::new(),
            self_ip_refused: false,
        }
    }

    fn run(mut self, generation: u64) -> Compiled {
        self.parts.generation = generation;
        self.system();
        self.ports();
        self.self_ips();
        self.routes();
        self.monitors();
        self.nodes();
        self.pools();
        self.snat_pools();
        self.snat_lists();
        self.configured_links();
        self.virtual_servers();
        self.nats();
        self.other_hosts();
        self.access_log();
        self.conflicts();
        let Self { parts, mut errors, warnings, context, removed, .. } = self;
        errors.retain(|error| !removed.iter().any(|gone| error.path.is_within(gone)));
        Compiled { parts, errors, warnings, context }
    }

    fn error(&mut self, path: impl Into<Pointer>, message: impl Into<String>) {
        self.errors.push(parse::Fault::new(path, message));
    }

    fn warn(&mut self, path: impl Into<Pointer>, message: impl Into<String>) {
        self.warnings.push(parse::Fault::new(path, message));
    }

    /// True when something in `section` was refused, so that its absence here says nothing.
    fn lost_in(&self, section: &str) -> bool {
        let section = Pointer::from(section);
        self.removed.iter().any(|gone| gone.is_within(&section))
    }

    /// True when a self IP's address was refused, so that one may be missing that was meant to be there.
    fn lost_self_ips(&self) -> bool {
        let section = Pointer::from("/self_ips");
        let address = |gone: &Pointer| gone.len() < 3 || gone.as_str().ends_with("/address");
        self.self_ip_refused || self.removed.iter().any(|gone| gone.is_within(&section) && address(gone))
    }

    /// Reports a name that stands for nothing, and lists what there is.
    fn unknown<'n>(
        &mut self,
        path: impl Into<Pointer>,
        kind: &str,
        section: &str,
        name: &Name,
        known: impl Iterator<Item = &'n Name>,
    ) {
        let object = pointer(section, name);
        if self.removed.contains(&object) || self.removed.contains(&Pointer::root().child(section)) {
            return;
        }
        let known = listed(known.map(|name| name.as_str().into()));
        let known = if known.is_empty() { "there are none".into() } else { known };
        let message = format!("expected the name of a {kind} ({known}); there is no \"{name}\"");
        self.errors.push(parse::Fault::new(path, message).about(object));
    }

    fn system(&mut self) {
        let system = &self.model.system;
        self.parts.settings = Settings {
            continue_matching: system.continue_matching,
            reject_unmatched: system.reject_unmatched,
            max_reject_rate: system.max_reject_rate.as_u32(),
            max_icmp_rate: system.max_icmp_rate.as_u32(),
        };
        if system.limits.half_open.get() > system.limits.flows.get() {
            let flows = system.limits.flows.get();
            self.error(
                "/system/limits/half_open",
                format!("expected at most the {flows} of system.limits.flows"),
            );
        }
        let place = Pointer::from("/system/limits/proxy_buffer");
        self.size(place, system.limits.proxy_buffer, Size(16 << 10), Size(4 << 20));
        self.proxies();
        if let Workers::Cores(cores) = &system.workers {
            self.cores(cores.iter().map(|core| core.get()).collect());
        }
    }

    /// A full proxy without room for a connection would refuse them all.
    fn proxies(&mut self) {
        let mut servers = self.model.virtual_servers.iter();
        let needed = servers.find(|(_, server)| server.kind == VirtualType::Standard);
        if let (Some((name, _)), 0) = (needed, self.model.system.limits.proxies.get()) {
            let why = format!("expected more than 0: virtual server {name} is of type standard");
            self.error("/system/limits/proxies", why);
        }
    }

    fn cores(&mut self, cores: Vec<u64>) {
        if cores.is_empty() {
            self.error("/system/workers", "expected at least one core");
        }
        let mut seen = BTreeSet::new();
        for (index, core) in cores.into_iter().enumerate() {
            if !seen.insert(core) {
                self.error(
                    format!("/system/workers/{index}"),
                    format!("expected each core once; {core} stands twice"),
                );
            }
        }
    }
}

/// The pointer of a named object.
pub(crate) fn pointer(section: &str, name: &Name) -> Pointer {
    Pointer::root().child(section).child(name.as_str())
}

/// The first few of `names`, as an error lists them.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut listed: Vec<String> = names.take(LISTED_MAX + 1).collect();
    if listed.len() > LISTED_MAX {
        listed[LISTED_MAX] = "…".into();
    }
    listed.join(", ")
}

/// Names that an error lists at most.
const LISTED_MAX: usize = 8;
