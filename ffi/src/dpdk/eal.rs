//! Starting DPDK's environment, once a process, and letting worker threads into it.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::marker::PhantomData;
use std::sync::Mutex;

use super::{DpdkError, lock, log, sys};
use crate::memory::hugepages_free_bytes;

/// Proof that DPDK runs. It runs until the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eal {
    _started: (),
}

/// Where DPDK's log goes. Errors are kept for [`DpdkError`] either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogTo {
    /// Nowhere.
    #[default]
    Quiet,
    /// Standard error, at DPDK's own levels.
    Stderr,
}

impl Eal {
    /// Starts DPDK with `args` (without a program name), on a thread of its own, because it pins its caller.
    ///
    /// Installed drivers are loaded from DPDK's plugin folder, and devices named in `args` are probed.
    ///
    /// # Errors
    /// [`DpdkError::Refused`] with what DPDK logged; [`DpdkError::AlreadyStarted`] on a second call with
    /// different arguments. With the same ones it gives the first outcome again.
    pub fn init(args: &[String], log_to: LogTo) -> Result<Self, DpdkError> {
        let mut started = lock(&STARTED);
        match &*started {
            Some(first) if first.args == args => return first.outcome.clone(),
            Some(_) => return Err(DpdkError::AlreadyStarted),
            None => {}
        }
        log::install(log_to == LogTo::Stderr);
        let owned = args.to_vec();
        let outcome = std::thread::spawn(move || start(&owned))
            .join()
            .unwrap_or_else(|_| Err(String::from("the starting thread panicked")))
            .map(|()| Self { _started: () })
            .map_err(|reason| DpdkError::Refused {
                what: format!("start DPDK with {}", args.join(" ")),
                reason,
            });
        *started = Some(FirstStart { args: args.to_vec(), outcome: outcome.clone() });
        outcome
    }

    /// The token, when DPDK runs.
    pub fn running() -> Option<Self> {
        lock(&STARTED).as_ref()?.outcome.clone().ok()
    }

    /// DPDK's release at build time, such as `22.11.11`.
    pub fn version() -> String {
        format!("{}.{:02}.{}", sys::RTE_VER_YEAR, sys::RTE_VER_MONTH, sys::RTE_VER_MINOR)
    }
}

/// EAL arguments for an operator who gave none, or the operator's own with what sluice cannot do without.
///
/// `pci` are the addresses of the devices to open; without any, the PCI bus is left alone. One lcore that floats
/// over the process's processors, so that DPDK starts no threads of its own for packets: workers pin themselves.
pub fn default_args(operator: &[String], pci: &[&str]) -> Vec<String> {
    let mut args = operator.to_vec();
    if !has_option(&args, &["-l", "-c", "--lcores", "-s", "-S"]) {
        args.push(format!("--lcores=0@({})", processors()));
    }
    if !operator.is_empty() {
        return args;
    }
    // One prefix for all: neither mode below keeps files, and EAL leaves an empty folder for each prefix it sees.
    args.extend(["--no-telemetry".into(), "--file-prefix=sluice".into()]);
    if hugepages_free_bytes() >= MEMORY_MB << 20 {
        args.push("--in-memory".into());
    } else {
        // EAL refuses --in-memory together with --no-huge; this leaves no files behind either.
        args.extend(["--no-shconf".into(), "--no-huge".into(), "-m".into(), MEMORY_MB.to_string()]);
    }
    match pci {
        [] => args.push("--no-pci".into()),
        some => args.extend(some.iter().flat_map(|address| ["-a".into(), (*address).into()])),
    }
    args
}

fn has_option(args: &[String], options: &[&str]) -> bool {
    let is = |arg: &String, option: &str| match option.strip_prefix("--") {
        Some(_) => arg == option || arg.strip_prefix(option).is_some_and(|rest| rest.starts_with('=')),
        None => arg.starts_with(option) && !arg.starts_with("--"),
    };
    args.iter().any(|arg| options.iter().any(|option| is(arg, option)))
}

/// The processors this thread may run on, such as `0,1`.
fn processors() -> String {
    // SAFETY: a cpu_set_t is a bit mask; all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is as long as the size says.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    let limit = libc::CPU_SETSIZE as usize;
    // SAFETY: the index is below CPU_SETSIZE.
    let allowed = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    let list: Vec<String> = (0..limit).filter(allowed).map(|cpu| cpu.to_string()).collect();
    if list.is_empty() { "0".into() } else { list.join(",") }
}

/// Runs on the throw-away thread.
fn start(args: &[String]) -> Result<(), String> {
    let text = std::iter::once("sluice").chain(args.iter().map(String::as_str));
    let owned: Result<Vec<CString>, _> = text.map(CString::new).collect();
    let owned = owned.map_err(|_| String::from("an argument holds a zero byte"))?;
    // EAL keeps pointers into its arguments and may reorder the list: both live as long as the process.
    let mut pointers: Vec<*mut c_char> = owned.into_iter().map(CString::into_raw).collect();
    let count = pointers.len() as c_int;
    pointers.push(std::ptr::null_mut());
    let pointers = Box::leak(pointers.into_boxed_slice());
    // SAFETY: `count` strings and a null pointer behind them, leaked above; the caller holds STARTED.
    let result = unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    if result < 0 { Err(log::reason(log::last_errno())) } else { Ok(()) }
}

/// While it lives, this thread has an lcore id, and so its own cache in every mempool.
#[derive(Debug)]
pub struct ThreadGuard {
    /// The registration belongs to the thread that made it.
    _not_send: PhantomData<*const ()>,
}

/// Lets this thread into DPDK. Without it packets still flow, but each allocation goes to the shared ring.
///
/// # Errors
/// [`DpdkError::NotStarted`]; [`DpdkError::Refused`] when all lcore ids are taken or this thread has one.
pub fn register_thread() -> Result<ThreadGuard, DpdkError> {
    Eal::running().ok_or(DpdkError::NotStarted)?;
    if REGISTERED.get() {
        let (what, reason) = ("register a worker thread".into(), "it is registered already".into());
        return Err(DpdkError::Refused { what, reason });
    }
    // SAFETY: EAL runs, checked above, and never stops.
    if unsafe { sys::rte_thread_register() } < 0 {
        return Err(DpdkError::refused("register a worker thread", log::last_errno()));
    }
    REGISTERED.set(true);
    Ok(ThreadGuard { _not_send: PhantomData })
}

impl Drop for ThreadGuard {
    fn drop(&mut self) {
        // SAFETY: this thread was registered when the guard was made, and the guard cannot leave it.
        unsafe { sys::rte_thread_unregister() };
        REGISTERED.set(false);
    }
}

thread_local! {
    /// DPDK itself would hand a second lcore id to the same thread, and lose the first.
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// EAL keeps what it has parsed: a failed start cannot be tried again, in this process.
struct FirstStart {
    args: Vec<String>,
    outcome: Result<Eal, DpdkError>,
}

static STARTED: Mutex<Option<FirstStart>> = Mutex::new(None);

/// What EAL may take without hugepages, and what must be free to use them.
const MEMORY_MB: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.into()).collect()
    }

    #[test]
    fn without_devices_the_pci_bus_is_left_alone() {
        let args = default_args(&[], &[]);
        assert!(args.contains(&"--no-pci".into()));
        assert_ne!(
            args.contains(&"--in-memory".into()),
            args.contains(&"--no-huge".into()),
            "EAL refuses both"
        );
        assert!(args.iter().any(|arg| arg.starts_with("--lcores=0@(")));
    }

    #[test]
    fn named_devices_are_the_only_ones_allowed() {
        let args = default_args(&[], &["0000:00:05.0"]).join(" ");
        assert!(args.contains("-a 0000:00:05.0") && !args.contains("--no-pci"), "{args}");
    }

    #[test]
    fn the_operators_arguments_stay_as_they_are() {
        let own = strings(&["-l", "0-1", "--no-huge"]);
        assert_eq!(default_args(&own, &["0000:00:05.0"]), own);
        let own = strings(&["--no-huge", "--log-level=7"]);
        assert_eq!(default_args(&own, &[])[..2], own[..]);
        assert!(default_args(&own, &[])[2].starts_with("--lcores="));
    }
}
