//! `sluice run`: from the file to the end of the process.
//!
//! ```text
//!   check ─▶ socket ─▶ cores ─▶ ports ─▶ workers ─▶ serve … ─▶ SIGTERM ─▶ drain ─▶ reset the rest ─▶ stop
//!                                                     │ a worker ended by itself ─▶ stop, exit 4
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::access_log;
use crate::api;
use crate::check::{Candidate, check_file};
use crate::cli::{EXIT_REFUSED, print_errors, print_warnings};
use crate::cores::{self, CorePlan};
use crate::process::{Opened, Process};
use crate::socket::ControlSocket;
use crate::telemetry::Telemetry;

/// A worker ended by itself.
pub const EXIT_WORKER: u8 = 4;

/// Runs the data plane of the configuration in `file` until it is told to end.
pub fn run(file: &Path, socket: &Path) -> ExitCode {
    let candidate = match check_file(file) {
        Ok(candidate) => candidate,
        Err(faults) => {
            print_errors(file, &faults);
            return ExitCode::from(EXIT_REFUSED);
        }
    };
    print_warnings(file, &candidate.warnings);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return failed(&why.to_string()),
    };
    match runtime.block_on(start_and_serve(candidate, socket)) {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("sluice: {why}");
    ExitCode::from(EXIT_REFUSED)
}

async fn start_and_serve(candidate: Candidate, socket_path: &Path) -> Result<ExitCode, String> {
    let telemetry = Telemetry::with_log(candidate.model.telemetry.log);
    let socket = ControlSocket::bind(socket_path)?;
    let mut signals = Signals::new().map_err(|why| why.to_string())?;
    let process = start(candidate, telemetry).await?;
    let server = tokio::spawn(serve(Arc::clone(&process), socket));
    announce(&process, socket_path);
    let ending = match supervise(&process, &mut signals).await {
        Ending::Told => drain(&process, &mut signals).await,
        other => other,
    };
    let code = match ending {
        Ending::Told | Ending::AtOnce => ExitCode::SUCCESS,
        Ending::WorkersEnded(workers) => {
            eprintln!("sluice: workers {workers:?} ended by themselves; this is a bug in sluice");
            ExitCode::from(EXIT_WORKER)
        }
    };
    process.stop().await;
    // Dropping the server drops the socket, which removes its file.
    server.abort();
    let _ = server.await;
    Ok(code)
}

async fn start(candidate: Candidate, telemetry: Telemetry) -> Result<Arc<Process>, String> {
    let model = &candidate.model;
    let allowed = cores::allowed();
    let plan = cores::plan(&model.system.workers, &allowed)?;
    warn_crowded(&plan);
    let listener = telemetry.listen(model).await.map_err(|fault| fault.to_string())?;
    access_log::check(model).map_err(|fault| fault.to_string())?;
    let opened = Opened::open(model, &plan.workers).map_err(|why| why.to_string())?;
    let process = Arc::new(Process::start(candidate, opened, telemetry).map_err(|why| why.to_string())?);
    if let Some(core) = plan.control {
        cores::pin_to(core);
    }
    let view = process.view();
    process.telemetry.follow(&view.model, listener, &process);
    // After the pinning, so that the thread that writes keeps off the workers' cores, too.
    process.access_logs.follow(&view.model, &view.snapshot);
    Ok(process)
}

fn warn_crowded(plan: &CorePlan) {
    if plan.is_crowded() {
        tracing::warn!(cores = ?plan.workers, "there are more workers than cores: some share one");
    }
}

async fn serve(process: Arc<Process>, socket: ControlSocket) {
    if let Err(why) = api::serve(process, socket).await {
        tracing::error!(%why, "the control socket failed");
    }
}

fn announce(process: &Process, socket: &Path) {
    let view = process.view();
    let (workers, servers) = (process.workers().len(), view.model.virtual_servers.len());
    let socket = socket.display();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), workers, virtual_servers = servers, %socket, "ready");
    eprintln!("sluice: ready: {workers} workers, {servers} virtual servers, socket {socket}");
}

/// Why the process ends.
enum Ending {
    /// SIGTERM: connections may finish.
    Told,
    /// SIGINT.
    AtOnce,
    /// Without being told.
    WorkersEnded(Vec<usize>),
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, hangup: signal(SignalKind::hangup())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

async fn supervise(process: &Process, signals: &mut Signals) -> Ending {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ending::Told,
            _ = signals.interrupt.recv() => return Ending::AtOnce,
            _ = signals.hangup.recv() => process.access_logs.reopen(),
            () = tokio::time::sleep(SUPERVISE_INTERVAL) => (),
        }
        let ended = process.ended();
        if !ended.is_empty() {
            return Ending::WorkersEnded(ended);
        }
    }
}

/// No new connections; waits until the open ones are gone, the time is up, or a second signal comes. What is open when the
/// time is up is reset.
async fn drain(process: &Process, signals: &mut Signals) -> Ending {
    let timeout = process.view().model.system.drain_timeout.duration();
    tracing::info!(connections = process.connections(), ?timeout, "draining: no new connections");
    process.drain();
    let start = Instant::now();
    if let Some(ending) = until_quiet(process, signals, timeout).await {
        return ending;
    }
    let left = process.connections();
    if left > 0 {
        tracing::info!(connections = left, "the drain timeout is over: what is open is reset");
        process.end_connections();
        if let Some(ending) = until_quiet(process, signals, RESET_TIMEOUT).await {
            return ending;
        }
        // What was sent last leaves the driver.
        tokio::time::sleep(DRAIN_INTERVAL).await;
    }
    tracing::info!(connections = process.connections(), elapsed = ?start.elapsed(), "drained");
    Ending::Told
}

/// Waits until nothing is open or the time is up; another ending when something else comes first.
async fn until_quiet(process: &Process, signals: &mut Signals, timeout: Duration) -> Option<Ending> {
    let start = Instant::now();
    loop {
        // First the pause: a worker may be in the middle of taking its last connection.
        tokio::select! {
            () = signals.any() => return Some(Ending::AtOnce),
            () = tokio::time::sleep(DRAIN_INTERVAL) => (),
        }
        let ended = process.ended();
        if !ended.is_empty() {
            return Some(Ending::WorkersEnded(ended));
        }
        if process.connections() == 0 || start.elapsed() >= timeout {
            return None;
        }
    }
}

const SUPERVISE_INTERVAL: Duration = Duration::from_millis(100);
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// What resetting the rest may take.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);
