//! `/v1/persistence`: the records of who goes where, and ending them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_dataplane::address::Prefix;
use sluice_dataplane::persist::RecordId;

use super::problem::Problem;
use crate::process::Process;
use crate::stats::persistence::RecordFilter;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<usize>,
    virtual_server: Option<String>,
    pool: Option<String>,
    address: Option<String>,
    member: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndQuery {
    id: Option<String>,
    virtual_server: Option<String>,
    pool: Option<String>,
    address: Option<String>,
    member: Option<String>,
}

pub(super) async fn list(
    State(process): State<Arc<Process>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|why| {
        bad(format!("expected limit, after, virtual_server, pool, address and member: {why}"))
    })?;
    let filter = RecordFilter {
        id: None,
        virtual_server: query.virtual_server,
        pool: query.pool,
        address: query.address.as_deref().map(address).transpose()?,
        member: query.member.as_deref().map(place).transpose()?,
    };
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(LIMIT_MAX);
    let (rows, next) = process.persistence(&filter, query.after.unwrap_or(0), limit);
    let truncated = (super::state::TRUNCATED, if next.is_some() { "true" } else { "false" });
    let mut response = ([truncated], Json(rows)).into_response();
    if let Some(next) = next {
        response.headers_mut().insert(NEXT, next.into());
    }
    Ok(response)
}

pub(super) async fn end(
    State(process): State<Arc<Process>>,
    query: Result<Query<EndQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(query) =
        query.map_err(|why| bad(format!("expected id, virtual_server, pool, address and member: {why}")))?;
    let filter = RecordFilter {
        id: query.id.as_deref().map(id).transpose()?,
        virtual_server: query.virtual_server,
        pool: query.pool,
        address: query.address.as_deref().map(address).transpose()?,
        member: query.member.as_deref().map(place).transpose()?,
    };
    let deleted = process.end_persistence(&filter);
    match query.id {
        Some(id) if deleted == 0 => {
            Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no persistence record {id}")))
        }
        _ => Ok(Json(json!({ "deleted": deleted }))),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn id(text: &str) -> Result<RecordId, Problem> {
    let number = u64::from_str_radix(text, 16).map(RecordId);
    number.map_err(|_| bad(format!("expected the id of a record, as the list has it; found {text}")))
}

/// An address, or a network.
fn address(text: &str) -> Result<Prefix, Problem> {
    let wrong = || bad(format!("expected an address or a network; found {text}"));
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length.parse::<u8>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let host: IpAddr = host.parse().map_err(|_| wrong())?;
    let longest = if host.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(longest);
    if length > longest { Err(wrong()) } else { Ok(Prefix::new(host, length)) }
}

/// An address, or an address and port.
pub(super) fn place(text: &str) -> Result<(IpAddr, Option<u16>), Problem> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok((address, None));
    }
    let (address, port) = super::state::member_place(text)
        .ok_or_else(|| bad(format!("expected ADDRESS or ADDRESS:PORT; found {text}")))?;
    Ok((address, Some(port)))
}

/// Where a list that is not complete goes on: the next request's `after`.
const NEXT: HeaderName = HeaderName::from_static("sluice-next");

const DEFAULT_LIMIT: usize = 1_000;
const LIMIT_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_addresses_networks_and_members() {
        assert_eq!(address("198.51.100.7").unwrap().to_string(), "198.51.100.7/32");
        assert_eq!(address("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        assert!(address("198.51.100.7/33").is_err() && address("web").is_err());
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(place("2001:db8::1").unwrap(), (v6, None));
        assert_eq!(place("[2001:db8::1]:80").unwrap(), (v6, Some(80)));
        assert_eq!(place("[2001:db8::1]:*").unwrap(), (v6, Some(0)));
        assert!(place("web:80").is_err());
        assert!(id("1f").is_ok() && id("xyz").is_err());
    }
}
