//! `veth-instructions`: `peers instructions` in an emulated machine of six cores, which counts what each executes.
//!
//! ```text
//!   this program ── qemu ┬ emulator.c counts blocks of instructions ─ socket ─ ttyS2 ┐
//!                        └ the guest: a proxy (core 1, alone), wrk (0, 3, 4),        │
//!                                     the origin (2, 5), peers instructions ─────────┘
//! ```
//!
//! Load and origin have more cores than they need, so that the proxy never waits for work: what it does for a request is
//! what it does when it is busy.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use sluice_benches::machine::{self, TempDir};
use sluice_benches::peers::ground::Cores;
use sluice_tests::vm::{Vm, VmOptions};

const HELP: &str = "\
veth-instructions [--seconds N] [--only TEXT]
                                    instructions a request of the proxy's core, user and kernel: sluice, nftables,
                                    HAProxy, nginx, for each kind of load or for those with TEXT in their names
needs root, qemu-system-x86, busybox-static, a C compiler, and what peers needs";

fn main() -> ExitCode {
    let options: Vec<String> = std::env::args().skip(1).collect();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("veth-instructions: {reason}\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &[String]) -> Result<bool, String> {
    if options.iter().any(|word| word.contains('\'')) {
        return Err("no quotes, please".into());
    }
    if !machine::is_root() {
        return Err("needs root, for qemu's and the guest's files".into());
    }
    let dir = TempDir::new("sluice-emulated").map_err(|error| error.to_string())?;
    let plugin = build_plugin(dir.path())?;
    let peers = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("peers");
    let beside = || peers.with_file_name("sluice");
    let sluice = std::env::var_os("SLUICE_BINARY").map_or_else(beside, PathBuf::from);
    let socket = dir.path().join("counts.sock");
    let Some(mut vm) = Vm::start(&VmOptions {
        cpus: Cores::EMULATED_COUNT,
        memory_mib: MEMORY_MIB,
        modules: &MODULES,
        programs: programs(&peers, &sluice)?,
        files: files(),
        arguments: [&qemu_arguments(&plugin, &socket), &KERNEL_ARGUMENTS.map(String::from)],
        patience: PATIENCE,
        ..VmOptions::new(dir.path())
    }) else {
        return Err("no virtual machine".into());
    };
    let words: Vec<String> = options.iter().map(|word| format!("'{word}'")).collect();
    let (peers, sluice) = (peers.display(), sluice.display());
    let peers = format!("SLUICE_BINARY='{sluice}' '{peers}' instructions");
    let ran = vm.run(&format!("{peers} {}", words.join(" ")));
    print!("{}", ran.output);
    Ok(ran.code == 0)
}

/// Compiles the plugin into `dir`.
fn build_plugin(dir: &Path) -> Result<PathBuf, String> {
    let (source, plugin) = (dir.join("emulator.c"), dir.join("emulator.so"));
    std::fs::write(&source, include_bytes!("../peers/emulator.c")).map_err(|error| error.to_string())?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", "-o"]).arg(&plugin).arg(&source);
    match cc.status() {
        Ok(status) if status.success() => Ok(plugin),
        Ok(status) => Err(format!("{cc:?}: {status}")),
        Err(error) => Err(format!("{cc:?}: {error}")),
    }
}

/// The plugin, and the guest's third serial port: with an interrupt of its own, it shares none.
fn qemu_arguments(plugin: &Path, socket: &Path) -> Vec<String> {
    let (plugin, socket) = (plugin.display(), socket.display());
    vec![
        "-plugin".into(),
        format!("{plugin},socket={socket}"),
        "-chardev".into(),
        format!("socket,id=counts,path={socket},server=on,wait=off"),
        "-device".into(),
        "isa-serial,chardev=counts,index=2,iobase=0x3e8,irq=5".into(),
    ]
}

/// What runs in the guest, where it is here.
fn programs(peers: &Path, sluice: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![peers.to_owned(), sluice.to_owned()];
    for name in PROGRAMS {
        let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(Path::new).into_iter();
        let path = folders.map(|folder| folder.join(name)).find(|path| path.exists());
        found.push(path.ok_or_else(|| format!("{name} is not here"))?);
    }
    found.extend(sluice_benches::peers::full::stream_module());
    Ok(found)
}

/// The names that nginx and wrk look up.
fn files() -> Vec<(String, Vec<u8>)> {
    let file = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
    vec![
        file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
        file("/etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        file("/etc/services", "http 80/tcp\n"),
    ]
}

const MODULES: [&str; 6] = ["veth", "nft_chain_nat", "nft_nat", "nft_masq", "sch_ingress", "cls_bpf"];
const PROGRAMS: [&str; 11] =
    ["bash", "ip", "nft", "nginx", "haproxy", "wrk", "taskset", "chrt", "timeout", "pgrep", "sysctl"];
/// Interrupts of devices go to core 0; time is read without a system call, as it is elsewhere.
const KERNEL_ARGUMENTS: [&str; 3] = ["irqaffinity=0", "tsc=reliable", "clocksource=tsc"];
const MEMORY_MIB: usize = 2048;
/// For all loads.
const PATIENCE: Duration = Duration::from_secs(900);
