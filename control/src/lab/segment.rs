//! One Ethernet segment of the lab: the links that join namespaces.

use super::{LabError, Namespace};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// How namespaces are joined to a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LinkKind {
    /// macvlan children, mode bridge, of one parent: what a pod gets from the macvlan plugin
    Macvlan,
    /// veth pairs into a bridge: what a pod gets from the bridge plugin
    Veth,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macvlan => "macvlan",
            Self::Veth => "veth",
        })
    }
}

/// A segment whose middle lives in a hub namespace.
#[derive(Debug)]
pub struct Segment {
    hub: String,
    name: String,
    kind: LinkKind,
    attached: AtomicU32,
}

impl Segment {
    /// Makes the segment's middle in `hub`. `name` has at most 10 letters, to leave room in interface names.
    ///
    /// # Errors
    /// [`LabError::Command`] when the name is taken.
    pub fn add(hub: &Namespace, name: &str, kind: LinkKind) -> Result<Self, LabError> {
        match kind {
            // A macvlan parent has to have a carrier, and a veth end has one while its other end is up.
            LinkKind::Macvlan => hub.ip(&[
                format!("link add {name} type veth peer name {name}-end"),
                format!("link set {name} up"),
                format!("link set {name}-end up"),
            ])?,
            LinkKind::Veth => hub.ip(&[
                format!("link add {name} type bridge mcast_snooping 0"),
                format!("link set {name} up"),
            ])?,
        }
        Ok(Self { hub: hub.name().to_owned(), name: name.to_owned(), kind, attached: AtomicU32::new(0) })
    }

    /// Gives `namespace` an interface on this segment, called `interface` there. It is down and has no address.
    ///
    /// # Errors
    /// [`LabError::Command`] when the namespace has an interface of that name.
    pub fn attach(&self, namespace: &Namespace, interface: &str) -> Result<(), LabError> {
        let hub = Namespace::find(&self.hub).ok_or_else(|| LabError::Command {
            command: format!("ip netns list | grep {}", self.hub),
            message: "the hub namespace is gone".to_owned(),
        })?;
        let Self { name, kind, .. } = self;
        let peer = namespace.name();
        match kind {
            LinkKind::Macvlan => hub.ip(&[format!(
                "link add link {name} name {interface} netns {peer} type macvlan mode bridge"
            )]),
            LinkKind::Veth => {
                let number = self.attached.fetch_add(1, Ordering::Relaxed);
                hub.ip(&[
                    format!("link add {name}-{number} type veth peer name {interface} netns {peer}"),
                    format!("link set {name}-{number} master {name} up"),
                ])
            }
        }
    }
}
