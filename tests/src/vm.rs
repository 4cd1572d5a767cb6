//! A small virtual machine under qemu, for what this machine's kernel or NICs cannot: it boots Debian's kernel into
//! an archive of the test's own making, and runs what it is told.
//!
//! ```text
//!   qemu, emulated, no disk      ttyS0  the kernel's messages ─▶ console.log
//!     init.sh                    ttyS1  commands in, what they printed out ─ [`Vm::run`]
//!     NIC i at PCI 0000:00:1i.0  ─ tap ─ a namespace of the test's lab
//! ```
//!
//! Nothing leaves the machine: its only links are taps in the namespace that it is given. It ends when dropped. Where
//! qemu or the kernel is not to be had, the test says `SKIPPED`.
//!
//! ```no_run
//! use sluice_tests::vm::{Vm, VmOptions};
//!
//! # let directory = std::path::Path::new("/tmp");
//! let Some(mut vm) = Vm::start(&VmOptions::new(directory)) else { return };
//! assert!(vm.must("cat /proc/version").starts_with("Linux"));
//! ```

mod archive;
mod kernel;

use self::archive::Archive;
use self::kernel::Kernel;
use crate::{Namespace, skip};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct VmOptions<'a> {
    /// Processors, each a thread of qemu's.
    pub cpus: usize,
    /// Memory, with what the archive takes.
    pub memory_mib: usize,
    /// Hugepages of 2 MiB among it.
    pub hugepages: usize,
    /// Kernel modules to load, in this order; those that they need come first by themselves.
    pub modules: &'a [&'a str],
    /// Programs and libraries of this machine, at the same paths, with the libraries that they need.
    pub programs: Vec<PathBuf>,
    /// Other files: path in the machine, content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Its NICs; [`nic_address`] says where they are.
    pub nics: &'a [Nic<'a>],
    /// Where qemu runs and the taps are; `None` for a machine without NICs.
    pub namespace: Option<&'a Namespace>,
    /// More arguments for qemu, and for the kernel.
    pub arguments: [&'a [String]; 2],
    /// How long booting or a command may take.
    pub patience: Duration,
    /// Where the archive and the logs go.
    pub directory: &'a Path,
}

impl<'a> VmOptions<'a> {
    /// Two processors, 512 MiB, no modules, no NICs, and nothing but busybox on board.
    pub fn new(directory: &'a Path) -> Self {
        Self {
            cpus: 2,
            memory_mib: 512,
            hugepages: 0,
            modules: &[],
            programs: Vec::new(),
            files: Vec::new(),
            nics: &[],
            namespace: None,
            arguments: [&[], &[]],
            patience: PATIENCE,
            directory,
        }
    }
}

/// A virtio NIC, which spreads what it receives over its queues by Toeplitz hash when its driver asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Nic<'a> {
    /// The interface in the namespace that its frames go to and come from; made here, up, with as many queues.
    pub tap: &'a str,
    /// Queue pairs.
    pub queues: usize,
}

/// The PCI address in the machine of the NIC at `place` among [`VmOptions::nics`].
pub fn nic_address(place: usize) -> String {
    format!("0000:00:{:02x}.0", FIRST_SLOT + place)
}

/// A running machine.
#[derive(Debug)]
pub struct Vm {
    qemu: Child,
    line: BufReader<UnixStream>,
    directory: PathBuf,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it printed, errors too.
    pub output: String,
    /// Its exit status.
    pub code: i32,
}

impl Vm {
    /// Boots a machine and waits until it takes commands; `None`, said loudly, where there is no qemu, no busybox or
    /// no kernel.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(options: &VmOptions) -> Option<Self> {
        let kernel = match find_parts() {
            Ok(kernel) => kernel,
            Err(why) => {
                skip(&format!("no virtual machine: {why}"));
                return None;
            }
        };
        let archive = options.directory.join("vm.cpio");
        fs::write(&archive, contents(options, &kernel)).expect("the archive can be written");
        make_taps(options);
        let (ours, its) = UnixStream::pair().expect("a pair of sockets");
        let qemu = spawn(options, &kernel, &archive, its);
        ours.set_read_timeout(Some(options.patience)).expect("a socket");
        let mut vm = Self { qemu, line: BufReader::new(ours), directory: options.directory.to_owned() };
        let first = vm.read_line();
        assert_eq!(first, "ready", "{}", vm.console());
        Some(vm)
    }

    /// Runs `command`, one line for a shell, in the machine, and waits for its end. What it leaves running must not
    /// keep its output: `program >/tmp/log 2>&1 &`.
    ///
    /// # Panics
    /// When the machine is gone, or the command takes longer than [`VmOptions::patience`].
    pub fn run(&mut self, command: &str) -> Ran {
        assert!(!command.contains('\n'), "one line: {command:?}");
        let sent = self.line.get_mut().write_all(format!("{command}\n").as_bytes());
        sent.unwrap_or_else(|error| panic!("{command}: {error}\n{}", self.console()));
        let header = self.read_line();
        let mut numbers = header.split(' ').map(str::parse::<i32>);
        let (Some(Ok(bytes)), Some(Ok(code))) = (numbers.next(), numbers.next()) else {
            panic!("{command}: the machine said {header:?}\n{}", self.console())
        };
        let mut output = vec![0; usize::try_from(bytes).expect("a length")];
        self.line.read_exact(&mut output).unwrap_or_else(|error| panic!("{command}: {error}"));
        Ran { output: String::from_utf8_lossy(&output).into_owned(), code }
    }

    /// [`Vm::run`] of a command that has to succeed; gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn must(&mut self, command: &str) -> String {
        let Ran { output, code } = self.run(command);
        assert_eq!(code, 0, "{command}: {output}");
        output
    }

    /// Gives the NIC at `place` to DPDK. Needs the module `uio_pci_generic`.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn hand_to_dpdk(&mut self, place: usize) {
        let address = nic_address(place);
        let device = format!("/sys/bus/pci/devices/{address}");
        self.must(&format!("echo uio_pci_generic >{device}/driver_override"));
        self.must(&format!("echo {address} >/sys/bus/pci/drivers_probe && ls {device}/uio"));
    }

    /// What its kernel and qemu said.
    pub fn console(&self) -> String {
        let read = |name| fs::read(self.directory.join(name)).unwrap_or_default();
        let [kernel, qemu] = [CONSOLE, QEMU_LOG].map(read);
        format!("{}\n{}", String::from_utf8_lossy(&kernel), String::from_utf8_lossy(&qemu))
    }

    fn read_line(&mut self) -> String {
        let mut text = String::new();
        let read = self.line.read_line(&mut text);
        assert!(
            read.is_ok() && text.ends_with('\n'),
            "the machine is silent ({read:?}, {:?}): {text:?}\n{}",
            self.qemu.try_wait(),
            self.console()
        );
        text.trim_end().to_owned()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// DPDK's drivers `names`, such as `net_virtio`, for [`VmOptions::programs`].
///
/// # Panics
/// When one is not installed.
pub fn dpdk_drivers(names: &[&str]) -> Vec<PathBuf> {
    let output = crate::run(Command::new("pkg-config").args(["--variable=libdir", "libdpdk"]));
    let folder = Path::new(output.trim()).join("dpdk");
    let is_drivers = |path: &PathBuf| path.to_string_lossy().contains("/pmds-");
    let folders = fs::read_dir(&folder).expect("DPDK's drivers");
    let folder = folders.flatten().map(|entry| entry.path()).find(is_drivers).expect("DPDK's drivers");
    names.iter().map(|name| folder.join(format!("librte_{name}.so"))).collect()
}

/// The kernel, when the programs are here too.
fn find_parts() -> Result<Kernel, String> {
    for (program, package) in [(QEMU, "qemu-system-x86"), (BUSYBOX, "busybox-static")] {
        let ran = Command::new(program).arg("--help").stdin(Stdio::null()).output();
        ran.map_err(|error| format!("{program} of Debian's {package}: {error}"))?;
    }
    Kernel::find()
}

fn contents(options: &VmOptions, kernel: &Kernel) -> Vec<u8> {
    let mut archive = Archive::like_here();
    archive.file(Path::new("/init"), include_bytes!("vm/init.sh"));
    let mut list = String::new();
    for (name, bytes) in kernel.modules(options.modules).unwrap_or_else(|error| panic!("{error}")) {
        let path = format!("/etc/modules.d/{name}.ko");
        archive.file(Path::new(&path), &bytes);
        list += &format!("{path}\n");
    }
    archive.file(Path::new("/etc/modules"), list.as_bytes());
    let busybox = PathBuf::from(BUSYBOX);
    for program in options.programs.iter().chain([&busybox]) {
        archive.program(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    }
    for (path, content) in &options.files {
        archive.file(Path::new(path), content);
    }
    archive.finish()
}

fn make_taps(options: &VmOptions) {
    let Some(namespace) = options.namespace else { return assert!(options.nics.is_empty(), "no namespace") };
    let lines: Vec<String> = options
        .nics
        .iter()
        .flat_map(|Nic { tap, queues }| {
            let many = if *queues > 1 { " multi_queue" } else { "" };
            [format!("tuntap add {tap} mode tap vnet_hdr{many}"), format!("link set {tap} up")]
        })
        .collect();
    namespace.ip(&lines).expect("taps");
}

fn spawn(options: &VmOptions, kernel: &Kernel, archive: &Path, line: UnixStream) -> Child {
    // Should the test process be killed, qemu goes with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(namespace) = options.namespace {
        command.args(["ip", "netns", "exec", namespace.name()]);
    }
    command.args([QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    command.args(["-smp", &options.cpus.to_string(), "-m", &format!("{}M", options.memory_mib)]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(archive);
    let [own, kernels] = options.arguments;
    let append = format!("{KERNEL_ARGUMENTS} hugepages={} {}", options.hugepages, kernels.join(" "));
    command.args(["-append", &append]);
    command.args(["-serial", &format!("file:{}", options.directory.join(CONSOLE).display())]);
    command.args(["-chardev", "stdio,id=line,signal=off", "-serial", "chardev:line"]);
    for (place, nic) in options.nics.iter().enumerate() {
        command.args(nic_arguments(place, nic));
    }
    command.args(own);
    let log = fs::File::create(options.directory.join(QEMU_LOG)).expect("the log can be written");
    let line = OwnedFd::from(line);
    command.stdin(line.try_clone().expect("a second handle")).stdout(line).stderr(log);
    command.spawn().expect("setpriv (util-linux) runs")
}

fn nic_arguments(place: usize, Nic { tap, queues }: &Nic) -> [String; 4] {
    // A vector for each queue, one for control and one for changes of the configuration.
    let (many, vectors) = (if *queues > 1 { "mq=on,rss=on," } else { "" }, 2 * queues + 2);
    [
        "-netdev".into(),
        format!("tap,id=net{place},ifname={tap},queues={queues},vhost=off,script=no,downscript=no"),
        "-device".into(),
        format!(
            "virtio-net-pci,netdev=net{place},{many}vectors={vectors},addr={:#x},romfile=",
            FIRST_SLOT + place
        ),
    ]
}

const QEMU: &str = "qemu-system-x86_64";
const BUSYBOX: &str = "/bin/busybox";
/// Told apart by what the kernel says itself.
const CONSOLE: &str = "vm-console.log";
const QEMU_LOG: &str = "vm-qemu.log";
/// A kernel that panics ends qemu. What it leaves out would only cost time.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on";
/// The first PCI slot for NICs, behind what the machine has of its own.
const FIRST_SLOT: usize = 0x10;
/// How long booting or a command may take, emulated and on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
