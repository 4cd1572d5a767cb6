//! The lab itself: which namespaces, which links, which addresses; made as one, removed as one.

use super::backend::{Daemon, start_echo};
use super::{At, LabError, LinkKind, Namespace, Nginx, Segment};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The addresses of the lab, which `docs/example.yaml` fits.
pub mod addresses {
    /// The client, which is the gateway of the external network too.
    pub const CLIENT_V4: &str = "192.0.2.1";
    /// See [`CLIENT_V4`].
    pub const CLIENT_V6: &str = "2001:db8:1::1";
    /// The first server; the second's is one higher.
    pub const SERVER1_V4: &str = "10.1.0.11";
    /// See [`SERVER1_V4`].
    pub const SERVER1_V6: &str = "2001:db8:2::11";
    /// The second server.
    pub const SERVER2_V4: &str = "10.1.0.12";
    /// See [`SERVER2_V4`].
    pub const SERVER2_V6: &str = "2001:db8:2::12";
    /// Sluice's own address on the internal network, the servers' default route.
    pub const SLUICE_V4: &str = "10.1.0.10";
    /// See [`SLUICE_V4`].
    pub const SLUICE_V6: &str = "2001:db8:2::10";
    /// Where each nginx listens.
    pub const HTTP_PORT: u16 = 8080;
}

/// What lab to make.
#[derive(Clone, Debug)]
pub struct LabOptions {
    name: String,
    link: LinkKind,
    /// The `sluice` binary that serves UDP echo in the server namespaces; none, no echo.
    pub echo_program: Option<PathBuf>,
}

impl LabOptions {
    /// A lab called `name` with links of the kind `link`.
    ///
    /// # Errors
    /// [`LabError::Name`] when `name` cannot be part of a namespace's name.
    pub fn new(name: &str, link: LinkKind) -> Result<Self, LabError> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), link, echo_program: None })
    }
}

/// A lab that this process made; dropping it removes everything, unless [`Lab::keep`] was said.
#[derive(Debug)]
pub struct Lab {
    // In this order: backends end before their namespaces go, and the folder with the pid files goes last.
    servers: Vec<Server>,
    client: Namespace,
    sluice: Namespace,
    hub: Namespace,
    external: Segment,
    internal: Segment,
    directory: Directory,
}

/// A namespace with an nginx in it.
#[derive(Debug)]
pub struct Server {
    /// The nginx; it ends before its namespace goes.
    pub nginx: Nginx,
    echo: Option<Daemon>,
    /// The namespace.
    pub namespace: Namespace,
}

impl Lab {
    /// Makes the lab; what was made before a failure is removed again.
    ///
    /// # Errors
    /// [`LabError`] of the first step that failed.
    pub fn up(options: &LabOptions) -> Result<Self, LabError> {
        super::require_root()?;
        let directory = Directory::create(&options.name)?;
        fs::write(directory.path.join("link"), options.link.to_string()).at(&directory.path)?;
        let add = |part: &str| Namespace::add(&namespace_name(&options.name, part));
        let hub = add("hub")?;
        hub.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        let external = Segment::add(&hub, "external", options.link)?;
        let internal = Segment::add(&hub, "internal", options.link)?;
        let sluice = add("sluice")?;
        join_sluice(&sluice, &external, &internal)?;
        let client = add("client")?;
        join_client(&client, &external)?;
        let servers = SERVERS
            .iter()
            .map(|server| start_server(server, add(server.member)?, &internal, options, &directory))
            .collect::<Result<_, LabError>>()?;
        Ok(Self { servers, client, sluice, hub, external, internal, directory })
    }

    /// Leaves everything in place when this value is dropped.
    pub fn keep(mut self) {
        for server in &mut self.servers {
            server.nginx.keep();
            server.echo.iter_mut().for_each(Daemon::keep);
            server.namespace.keep();
        }
        for namespace in [&mut self.client, &mut self.sluice, &mut self.hub] {
            namespace.keep();
        }
        self.directory.owned = false;
    }

    /// The lab called `name`, or what is left of it.
    ///
    /// # Errors
    /// [`LabError::Name`].
    pub fn find(name: &str) -> Result<Option<Found>, LabError> {
        check_name(name)?;
        let directory = Directory::path_of(name);
        let namespaces: Vec<_> =
            PARTS.iter().filter_map(|part| Namespace::find(&namespace_name(name, part))).collect();
        if namespaces.is_empty() && !directory.exists() {
            return Ok(None);
        }
        Ok(Some(Found { name: name.to_owned(), directory, namespaces }))
    }

    /// Ends the backends of the lab called `name` and removes its namespaces, whoever made it and however much of
    /// it is there. Gives the processes that still run in those namespaces and that the lab did not start.
    ///
    /// # Errors
    /// [`LabError`] when a backend will not end or `ip` refuses.
    pub fn remove(name: &str) -> Result<Vec<u32>, LabError> {
        let Some(found) = Self::find(name)? else { return Ok(Vec::new()) };
        for pid_file in found.pid_files() {
            Daemon::find(&pid_file).end()?;
        }
        let mut strangers = Vec::new();
        for namespace in found.namespaces {
            strangers.extend(namespace.pids()?);
            namespace.remove()?;
        }
        if found.directory.exists() {
            fs::remove_dir_all(&found.directory).at(&found.directory)?;
        }
        Ok(strangers)
    }

    /// The client's namespace: `eth0` on the external network.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Sluice's namespace: `net1` on the external network and `net2` on the internal one, without addresses.
    pub fn sluice(&self) -> &Namespace {
        &self.sluice
    }

    /// The servers `server1` and `server2`.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The client side's segment.
    pub fn external(&self) -> &Segment {
        &self.external
    }

    /// The server side's segment.
    pub fn internal(&self) -> &Segment {
        &self.internal
    }

    /// A folder for this lab's files; it goes with the lab.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }
}

/// What there is of a lab on this machine.
#[derive(Debug)]
pub struct Found {
    name: String,
    directory: PathBuf,
    namespaces: Vec<Namespace>,
}

impl Found {
    /// Whether every part of a lab with links of the kind `link` is there and its backends run.
    pub fn is_whole(&self, link: LinkKind) -> bool {
        self.namespaces.len() == PARTS.len()
            && self.link().as_deref() == Some(&link.to_string())
            && self.pid_files().iter().all(|file| Daemon::find(file).pid().is_some())
    }

    fn link(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("link")).ok()
    }

    fn pid_files(&self) -> Vec<PathBuf> {
        let backends = SERVERS.iter().flat_map(|server| {
            ["nginx.pid", "echo.pid"].map(|file| self.directory.join(server.member).join(file))
        });
        backends.collect()
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.link().unwrap_or_else(|| "unknown".to_owned());
        writeln!(f, "{} ({link} links, files in {})", self.name, self.directory.display())?;
        for part in PARTS {
            let name = namespace_name(&self.name, part);
            let there = self.namespaces.iter().any(|namespace| namespace.name() == name);
            writeln!(f, "  {name:<24} {}", if there { about(part) } else { "missing" })?;
        }
        for file in self.pid_files() {
            let label =
                format!("{}/{}", file_part(file.parent()), file_part(file.file_stem().map(Path::new)));
            match Daemon::find(&file).pid() {
                Some(pid) => writeln!(f, "  {label:<24} pid {pid}")?,
                None => writeln!(f, "  {label:<24} not running")?,
            }
        }
        Ok(())
    }
}

/// `/run/sluice-lab/NAME`: pid files, nginx's configurations and documents.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    owned: bool,
}

impl Directory {
    fn create(name: &str) -> Result<Self, LabError> {
        let path = Self::path_of(name);
        fs::create_dir_all(path.parent().unwrap_or(&path)).at(&path)?;
        fs::create_dir(&path).at(&path)?;
        Ok(Self { path, owned: true })
    }

    fn path_of(name: &str) -> PathBuf {
        Path::new("/run/sluice-lab").join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}

struct ServerPlan {
    member: &'static str,
    addresses: [&'static str; 2],
}

fn join_sluice(sluice: &Namespace, external: &Segment, internal: &Segment) -> Result<(), LabError> {
    // The interfaces are sluice's alone: the kernel must not speak on them, not even a link-local address.
    sluice.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
    sluice.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    external.attach(sluice, "net1")?;
    internal.attach(sluice, "net2")?;
    sluice.ip(&["link set net1 up", "link set net2 up"])
}

fn join_client(client: &Namespace, external: &Segment) -> Result<(), LabError> {
    external.attach(client, "eth0")?;
    client
        .address("eth0", &[&format!("{}/24", addresses::CLIENT_V4), &format!("{}/64", addresses::CLIENT_V6)])
}

fn start_server(
    plan: &ServerPlan,
    namespace: Namespace,
    internal: &Segment,
    options: &LabOptions,
    directory: &Directory,
) -> Result<Server, LabError> {
    internal.attach(&namespace, "eth0")?;
    let [v4, v6] = plan.addresses;
    namespace.address("eth0", &[&format!("{v4}/24"), &format!("{v6}/64")])?;
    namespace.ip(&[
        format!("route add default via {}", addresses::SLUICE_V4),
        format!("route add default via {}", addresses::SLUICE_V6),
    ])?;
    let folder = directory.path.join(plan.member);
    let nginx = Nginx::start(&namespace, plan.member, addresses::HTTP_PORT, &folder)?;
    let start_echo = |program: &PathBuf| start_echo(&namespace, program, plan.member, &folder);
    let echo = options.echo_program.as_ref().map(start_echo).transpose()?;
    Ok(Server { nginx, echo, namespace })
}

fn check_name(name: &str) -> Result<(), LabError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fine = (1..=40).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('-');
    if fine { Ok(()) } else { Err(LabError::Name(name.to_owned())) }
}

fn namespace_name(lab: &str, part: &str) -> String {
    format!("{lab}-{part}")
}

fn about(part: &str) -> &'static str {
    match part {
        "client" => "eth0 192.0.2.1/24, 2001:db8:1::1/64",
        "sluice" => "net1 (external), net2 (internal), no kernel addresses",
        "server1" => "eth0 10.1.0.11/24, 2001:db8:2::11/64",
        "server2" => "eth0 10.1.0.12/24, 2001:db8:2::12/64",
        _ => "the middles of the links",
    }
}

fn file_part(path: Option<&Path>) -> std::borrow::Cow<'_, str> {
    path.and_then(Path::file_name).unwrap_or_default().to_string_lossy()
}

const PARTS: [&str; 5] = ["client", "sluice", "server1", "server2", "hub"];
const SERVERS: [ServerPlan; 2] = [
    ServerPlan { member: "server1", addresses: [addresses::SERVER1_V4, addresses::SERVER1_V6] },
    ServerPlan { member: "server2", addresses: [addresses::SERVER2_V4, addresses::SERVER2_V6] },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_part_of_a_file_name_is_refused() {
        for name in ["", "../x", "a b", "-x", "Lab", &"x".repeat(41)] {
            assert!(matches!(Lab::find(name), Err(LabError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn a_lab_that_never_was_is_not_found_and_removed_without_complaint() {
        assert!(Lab::find("never-was").unwrap().is_none());
        assert!(Lab::remove("never-was").unwrap().is_empty());
    }
}
