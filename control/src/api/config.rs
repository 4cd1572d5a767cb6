//! `/v1/config`: reading, replacing and patching the whole configuration.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::problem::Problem;
use crate::apply::{Document, Request};
use crate::model::Model;
use crate::parse::{Format, Source};
use crate::process::Process;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Full,
    Partial,
}

pub(super) async fn read(State(process): State<Arc<Process>>) -> Response {
    let view = process.view();
    ([(header::ETAG, view.etag.to_string())], Json(view.model.to_json())).into_response()
}

pub(super) async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "application/schema+json")], Model::schema().to_string()).into_response()
}

pub(super) async fn replace(
    State(process): State<Arc<Process>>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let text = Arc::new(text_of(body)?);
    let kept = Arc::clone(&process.view().kept);
    let source = Source::read(&text, format_of(&headers, &text)?, &kept).map_err(Problem::refused)?;
    apply(&process, query, &headers, Document::Whole(source)).await
}

pub(super) async fn merge(
    State(process): State<Arc<Process>>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let text = text_of(body)?;
    let patch = serde_json::from_str(&text).map_err(|why| {
        Problem::new(StatusCode::BAD_REQUEST, format!("expected a merge patch in JSON: {why}"))
    })?;
    apply(&process, query, &headers, Document::Patch(patch)).await
}

async fn apply(
    process: &Arc<Process>,
    query: Result<Query<ApplyQuery>, QueryRejection>,
    headers: &HeaderMap,
    document: Document<'_>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|why| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("expected dry_run=true|false and mode=full|partial: {why}"),
        )
    })?;
    let if_match = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok()).map(String::from);
    let (dry_run, partial) = (query.dry_run, query.mode == Mode::Partial);
    let applied = process.apply(Request { document, dry_run, partial, if_match }).await?;
    Ok(([(header::ETAG, applied.etag.to_string())], Json(applied)).into_response())
}

fn text_of(body: Result<Bytes, BytesRejection>) -> Result<String, Problem> {
    let body = body.map_err(|why| {
        let limit = super::BODY_MAX_BYTES >> 20;
        Problem::new(why.status(), format!("expected a body of at most {limit} MiB: {why}"))
    })?;
    String::from_utf8(body.into())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "expected text in UTF-8"))
}

/// By its media type where that says something, else by what it looks like.
fn format_of(headers: &HeaderMap, text: &str) -> Result<Format, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" => Ok(Format::Json),
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Format::Yaml),
        // What curl says of --data-binary by itself.
        "" | "application/x-www-form-urlencoded" | "text/plain" | "application/octet-stream" => {
            Ok(Format::sniff(text))
        }
        _ => {
            let detail = format!("expected application/yaml or application/json; found {kind}");
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}
