//! The socket's HTTP interface: what each method and path does.

mod config;
mod persistence;
pub mod problem;
mod state;

use std::sync::{Arc, Weak};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};

use crate::metrics;
use crate::process::Process;
use crate::socket::ControlSocket;
use problem::Problem;

/// The largest body: a configuration with a hundred thousand members fits.
pub const BODY_MAX_BYTES: usize = 32 << 20;

/// Serves `process` on `socket` for good.
///
/// # Errors
/// The listener's.
pub async fn serve(process: Arc<Process>, socket: ControlSocket) -> std::io::Result<()> {
    axum::serve(socket, router(process)).await
}

/// Everything the socket serves.
pub fn router(process: Arc<Process>) -> Router {
    Router::new()
        .route("/v1/config", get(config::read).put(config::replace).patch(config::merge))
        .route("/v1/schema", get(config::schema))
        .route("/v1/virtual-servers", get(state::virtual_servers))
        .route("/v1/pools", get(state::pools))
        .route("/v1/pools/{pool}/members/{member}", patch(state::say_member_state))
        .route("/v1/members", get(state::members))
        .route("/v1/nodes", get(state::nodes))
        .route("/v1/flows", get(state::flows))
        .route("/v1/persistence", get(persistence::list).delete(persistence::end))
        .route("/v1/snat", get(state::snat))
        .route("/v1/neighbors", get(state::neighbors))
        .route("/v1/routes", get(state::routes))
        .route("/v1/ports", get(state::ports))
        .route("/v1/workers", get(state::workers))
        .route("/v1/drops", get(state::drops))
        .route("/v1/monitors", get(state::monitors))
        .route("/v1/certificates", get(state::certificates))
        .route("/v1/version", get(state::version))
        .route("/v1/live", get(state::live))
        .route("/v1/ready", get(state::ready))
        .route("/metrics", get(scrape))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(process)
}

/// What `telemetry.prometheus.listen` serves. Does not keep the process.
pub fn metrics_router(process: Weak<Process>) -> Router {
    Router::new()
        .route("/metrics", get(scrape_weak))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(process)
}

async fn scrape(State(process): State<Arc<Process>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render(&process)).into_response()
}

async fn scrape_weak(State(process): State<Weak<Process>>) -> Response {
    match process.upgrade() {
        Some(process) => scrape(State(process)).await,
        None => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the process is ending").into_response(),
    }
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}
