//! The log, and the TCP listener for metrics; both follow the configuration while the process runs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::model::{Log, LogFormat, LogLevel, Model};
use crate::parse::Fault;
use crate::process::Process;

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What can be changed about the log and the metrics listener.
#[derive(Default)]
pub struct Telemetry {
    log: Option<LogControl>,
    metrics: Mutex<Option<(SocketAddr, AbortHandle)>>,
}

struct LogControl {
    lines: reload::Handle<BoxedLayer, Registry>,
    in_force: Mutex<Log>,
}

impl Telemetry {
    /// Sets up the process's log, on standard error.
    pub fn with_log(log: Log) -> Self {
        let (lines, handle) = reload::Layer::new(layer(log));
        let set = tracing_subscriber::registry().with(lines).try_init().is_ok();
        let control = LogControl { lines: handle, in_force: Mutex::new(log) };
        Self { log: set.then_some(control), metrics: Mutex::default() }
    }

    /// Takes the address for metrics that `model` wants and that is not taken yet.
    ///
    /// # Errors
    /// The kernel's, as a fault at its place.
    pub async fn listen(&self, model: &Model) -> Result<Option<TcpListener>, Fault> {
        let Some(wanted) = model.telemetry.prometheus.as_ref().map(|prometheus| prometheus.listen.0) else {
            return Ok(None);
        };
        let held =
            self.metrics.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(held, _)| *held);
        if held == Some(wanted) {
            return Ok(None);
        }
        let listener = TcpListener::bind(wanted).await;
        listener.map(Some).map_err(|why| {
            Fault::new(
                "/telemetry/prometheus/listen",
                format!("expected an address that can be listened on: {why}"),
            )
        })
    }

    /// Puts `model`'s wishes in force; `listener` is what [`Telemetry::listen`] gave.
    pub fn follow(&self, model: &Model, listener: Option<TcpListener>, process: &Arc<Process>) {
        self.follow_log(model.telemetry.log);
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = model.telemetry.prometheus.as_ref().map(|prometheus| prometheus.listen.0);
        if metrics.as_ref().map(|(held, _)| *held) == wanted {
            return;
        }
        if let Some((_, task)) = metrics.take() {
            task.abort();
        }
        if let (Some(address), Some(listener)) = (wanted, listener) {
            // The process holds us, so the listener must not hold the process.
            let router = crate::api::metrics_router(Arc::downgrade(process));
            let task = tokio::spawn(async move { axum::serve(listener, router).await });
            *metrics = Some((address, task.abort_handle()));
        }
    }

    fn follow_log(&self, log: Log) {
        let Some(control) = &self.log else { return };
        let mut in_force = control.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if *in_force != log && control.lines.reload(layer(log)).is_ok() {
            *in_force = log;
        }
    }
}

fn layer(log: Log) -> BoxedLayer {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines: BoxedLayer = match log.format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    level.and_then(lines).boxed()
}
