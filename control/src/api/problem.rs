//! Errors as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::apply::ApplyError;
use crate::parse::Fault;

/// One error answer.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
}

/// An error answer, as the command line reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProblemRead {
    /// What is wrong.
    pub detail: String,
    /// With a refused configuration, every error.
    pub errors: Vec<FaultRead>,
}

/// One error of a refused configuration, as the command line reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FaultRead {
    /// Where.
    pub path: String,
    /// Its line.
    pub line: Option<u32>,
    /// What was expected.
    pub message: String,
}

impl Problem {
    /// An error answer of `status`.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// A configuration was refused.
    pub fn refused(errors: Vec<Fault>) -> Self {
        let count = errors.len();
        let detail = format!(
            "the configuration has {count} error{}; nothing has changed",
            if count == 1 { "" } else { "s" }
        );
        Self { title: "Configuration refused", errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }
}

impl From<ApplyError> for Problem {
    fn from(error: ApplyError) -> Self {
        let status = match &error {
            ApplyError::Changed(_) => StatusCode::PRECONDITION_FAILED,
            ApplyError::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            ApplyError::Unknown(_) => StatusCode::NOT_FOUND,
            ApplyError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        match error {
            ApplyError::Refused(errors) => Self::refused(errors),
            other => Self::new(status, other.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
