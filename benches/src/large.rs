//! A large configuration as an operator writes it: ten members behind every virtual server.

use std::fmt::Write as _;

/// How many of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Virtual servers, each with a pool of its own; 65,536 at most.
    pub virtual_servers: u32,
    /// Members over all pools, spread evenly.
    pub members: u32,
    /// Every member has a connection limit, which each worker takes part in.
    pub limited: bool,
}

impl Size {
    /// What the aim for an apply is stated for.
    pub const AIM: Size = Size { virtual_servers: 10_000, members: 100_000, limited: false };
}

/// The pools and virtual servers of a configuration in YAML, two spaces in, to be put under `pools:` and
/// `virtual_servers:`.
#[derive(Debug, Default)]
pub struct Sections {
    /// Under `pools:`.
    pub pools: String,
    /// Under `virtual_servers:`.
    pub virtual_servers: String,
}

impl Sections {
    /// Of `size`. Two that differ in `edition` alone differ in the port of one member in a thousand.
    pub fn new(size: Size, edition: u16) -> Self {
        let mut sections = Self::default();
        let each = (size.members / size.virtual_servers.max(1)).max(1);
        for server in 0..size.virtual_servers {
            sections.add_pool(server, each, edition, size.limited);
            sections.add_virtual_server(server);
        }
        sections
    }

    fn add_pool(&mut self, server: u32, members: u32, edition: u16, limited: bool) {
        let limit = if limited { ", connection_limit: 100000" } else { "" };
        // A String takes whatever is written.
        let _ = writeln!(self.pools, "  pool{server}:\n    members:");
        for member in server * members..(server + 1) * members {
            let [_, b, c, d] = (0x0002_0000 + member).to_be_bytes();
            let port = if member % CHANGED_EVERY == 0 { 8080 + edition } else { 8080 };
            let _ = writeln!(self.pools, "      - {{address: 10.{b}.{c}.{d}, port: {port}{limit}}}");
        }
    }

    fn add_virtual_server(&mut self, server: u32) {
        let [_, _, c, d] = server.to_be_bytes();
        let _ = writeln!(
            self.virtual_servers,
            "  virtual{server}: {{destination: \"10.64.{c}.{d}:80\", protocol: tcp, type: performance-l4, \
             pool: pool{server}, snat: automap}}"
        );
    }
}

/// The whole, with one port that is never opened.
pub fn configuration(size: Size, edition: u16) -> String {
    let Sections { pools, virtual_servers } = Sections::new(size, edition);
    format!(
        "version: 1
system:
  limits: {{virtual_servers: 65536, members: 131072}}
ports:
  wire: {{driver: af_packet, interface: wire}}
self_ips:
  self: {{address: 10.1.0.10/16, port: wire}}
  members: {{address: 10.3.255.254/15, port: wire}}
pools:
{pools}virtual_servers:
{virtual_servers}"
    )
}

const CHANGED_EVERY: u32 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editions_differ_in_few_members() {
        let size = Size { virtual_servers: 200, members: 2_000, limited: false };
        let (one, other) = (configuration(size, 0), configuration(size, 1));
        let differing = one.lines().zip(other.lines()).filter(|(one, other)| one != other).count();
        assert_eq!((one.lines().count() == other.lines().count(), differing), (true, 2));
        assert_eq!(one.matches("address: 10.2.").count(), 2_000);
    }
}
