//! State and statistics, and the one thing that is said about a member.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::model::StatedMember;
use crate::process::Process;
use crate::stats::FlowFilter;
use sluice_dataplane::runtime::WorkerHandle;

type Shared = State<Arc<Process>>;

pub(super) async fn virtual_servers(State(process): Shared) -> Response {
    Json(process.virtual_servers()).into_response()
}

pub(super) async fn pools(State(process): Shared) -> Response {
    Json(process.pools()).into_response()
}

pub(super) async fn members(State(process): Shared) -> Response {
    Json(process.members()).into_response()
}

pub(super) async fn nodes(State(process): Shared) -> Response {
    Json(process.nodes()).into_response()
}

pub(super) async fn snat(State(process): Shared) -> Response {
    Json(process.snat().await).into_response()
}

pub(super) async fn neighbors(State(process): Shared) -> Response {
    Json(process.neighbors().await).into_response()
}

pub(super) async fn routes(State(process): Shared) -> Response {
    Json(process.routes()).into_response()
}

pub(super) async fn ports(State(process): Shared) -> Response {
    Json(process.port_stats()).into_response()
}

pub(super) async fn workers(State(process): Shared) -> Response {
    Json(process.worker_stats()).into_response()
}

pub(super) async fn drops(State(process): Shared) -> Response {
    Json(process.drops()).into_response()
}

pub(super) async fn monitors(State(process): Shared) -> Json<Value> {
    let view = process.view();
    let monitor = |(name, monitor): (&crate::model::Name, &crate::model::Monitor)| {
        let uses = |(_, pool): &(_, &Arc<crate::model::Pool>)| pool.monitors.contains(name);
        let pools: Vec<_> = view.model.pools.iter().filter(uses).map(|(name, _)| name.to_string()).collect();
        json!({
            "name": name, "type": monitor.kind, "interval": monitor.interval, "timeout": monitor.timeout,
            "pools": pools, "state": "not-run",
        })
    };
    Json(view.model.monitors.iter().map(monitor).collect())
}

pub(super) async fn certificates() -> Json<Value> {
    Json(json!([]))
}

pub(super) async fn version(State(process): Shared) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "dpdk": cfg!(feature = "dpdk"),
        "config_version": 1,
        "generation": process.view().snapshot.generation(),
        "uptime_s": process.uptime().as_secs(),
    }))
}

pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

pub(super) async fn ready(State(process): Shared) -> Response {
    let ready = process.is_ready();
    let taken: Vec<u64> = process.workers().iter().map(WorkerHandle::taken).collect();
    let generation = process.view().snapshot.generation();
    let answer = json!({
        "ready": ready, "draining": process.is_draining(), "generation": generation, "workers": taken,
    });
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowQuery {
    #[serde(default = "default_limit")]
    limit: usize,
    virtual_server: Option<String>,
    client: Option<String>,
    member: Option<String>,
}

fn default_limit() -> usize {
    1_000
}

pub(super) async fn flows(
    State(process): Shared,
    query: Result<Query<FlowQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|why| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("expected limit, virtual_server, client and member: {why}"),
        )
    })?;
    let FlowQuery { limit, virtual_server, client, member } = query;
    let client = client.as_deref().map(super::persistence::place).transpose()?;
    let member = member.as_deref().map(super::persistence::place).transpose()?;
    let (flows, truncated) =
        process.flow_stats(&FlowFilter { limit: limit.min(FLOWS_MAX), virtual_server, client, member }).await;
    let truncated = (TRUNCATED, if truncated { "true" } else { "false" });
    Ok(([truncated], Json(flows)).into_response())
}

/// Says whether there were more rows than were asked for.
pub(super) const TRUNCATED: HeaderName = HeaderName::from_static("sluice-truncated");

const FLOWS_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberPatch {
    state: StatedMember,
}

pub(super) async fn say_member_state(
    State(process): Shared,
    Path((pool, member)): Path<(String, String)>,
    body: Result<axum::body::Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|why| Problem::new(why.status(), why.to_string()))?;
    let patch: MemberPatch = serde_json::from_slice(&body).map_err(|why| {
        let expected = r#"expected {"state": "enabled"|"disabled"|"offline"}"#;
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{expected}: {why}"))
    })?;
    let place = member_place(&member).ok_or_else(|| {
        let detail = format!("expected a member as ADDRESS:PORT or [ADDRESS]:PORT; found {member}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    process.say_member_state(&pool, place, patch.state).await?;
    let member = crate::stats::endpoint(place.0, place.1);
    Ok(Json(json!({ "pool": pool, "member": member, "state": patch.state })).into_response())
}

/// `1.2.3.4:80`, `[a::b]:80`; port `*` as 0.
pub(super) fn member_place(text: &str) -> Option<(IpAddr, u16)> {
    if let Some(host) = text.strip_suffix(":*") {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        return Some((host.parse().ok()?, 0));
    }
    let place: SocketAddr = text.parse().ok()?;
    Some((place.ip(), place.port()))
}
