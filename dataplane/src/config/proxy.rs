//! What a configuration says about virtual servers of type `standard`, in plain values.

use std::sync::Arc;

use super::ids::PoolId;
use crate::address::Prefix;
use crate::filter::Filter;
use crate::http::HttpLimits;
use crate::http::route::{Routes, Rule};

/// How a full proxy treats its connections.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProxyProfile {
    /// Towards clients.
    pub client_tcp: TcpProfile,
    /// Towards members.
    pub server_tcp: TcpProfile,
    /// The member is connected before the client's handshake is answered.
    pub verified_accept: bool,
    /// Connections from these sources begin with a PROXY header, and are refused without; from others none is read.
    pub accept_proxy_from: Vec<Prefix>,
    /// Connections to members begin with a PROXY header of this version.
    pub send_proxy: Option<ProxyVersion>,
    /// HTTP is spoken; otherwise bytes are passed on as they are.
    pub http: Option<HttpProfile>,
    /// Connections and requests are written to the access log.
    pub access_log: bool,
}

/// Version of a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with TLVs; those received are kept. `true` adds a checksum (CRC-32C).
    V2 {
        /// With a checksum.
        crc: bool,
    },
}

/// TCP towards one side. Handshake, idle and close timeouts are the virtual server's
/// ([`Timeouts`](super::parts::Timeouts)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpProfile {
    /// Small segments wait for acknowledgements.
    pub nagle: bool,
    /// Idle peers are asked for a sign of life this often, in milliseconds; 0 for never.
    pub keep_alive_ms: u32,
    /// How long an acknowledgement may wait, in milliseconds.
    pub ack_delay_ms: u32,
    /// After our side has closed, the peer has this long to close its own without sending, in milliseconds.
    pub fin_wait_ms: u32,
    /// To a member: how long the handshake may take, in milliseconds.
    pub connect_ms: u32,
}

impl Default for TcpProfile {
    fn default() -> Self {
        Self {
            nagle: false,
            keep_alive_ms: 1_800_000,
            ack_delay_ms: 10,
            fin_wait_ms: 30_000,
            connect_ms: 2_000,
        }
    }
}

/// HTTP/1.1 on both sides.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpProfile {
    /// Sizes, and how paths are read.
    pub limits: HttpLimits,
    /// When a phase has lasted too long.
    pub timeouts: HttpTimeouts,
    /// Requests on one client connection; the last one's response closes it. 0 for no limit.
    pub requests_max: u32,
    /// CONNECT is passed on; otherwise it is refused with 405.
    pub allow_connect: bool,
    /// Which requests go where. What no rule matches goes to the virtual server's pool, and is 404 without one.
    pub routes: RouteTable,
    /// Run on every request before those of its rule, and on its response.
    pub filters: Vec<Filter>,
    /// Connections to members are kept for the next request.
    pub reuse: Reuse,
    /// Which member a client's requests go to, said by a cookie.
    pub cookie: Option<CookiePersistence>,
    /// The value of Server in answers of our own; empty for none.
    pub server_name: Arc<str>,
}

/// When a phase of HTTP has lasted too long, in milliseconds. None is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// From the handshake to the first byte of the first request: closed.
    pub first_byte_ms: u32,
    /// From the first byte of a head to its last: 408.
    pub head_ms: u32,
    /// Between two pieces of a body, either way: 408 or reset.
    pub body_ms: u32,
    /// From the end of the request to the first byte of the response: 504.
    pub response_ms: u32,
    /// Between two requests: closed.
    pub keep_alive_ms: u32,
    /// The age at which a client connection is closed after its next response.
    pub max_age_ms: u32,
    /// A tunnel without bytes, either way: closed.
    pub tunnel_ms: u32,
    /// A body slower than this many bytes a second, after ten seconds: as `body_ms`. 0 for no such limit.
    pub body_rate_min: u32,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            first_byte_ms: 5_000,
            head_ms: 10_000,
            body_ms: 30_000,
            response_ms: 30_000,
            keep_alive_ms: 60_000,
            max_age_ms: 3_600_000,
            tunnel_ms: 300_000,
            body_rate_min: 240,
        }
    }
}

/// Connections to members that wait for another request (tmsh: OneConnect).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    /// No connection is kept when false.
    pub enabled: bool,
    /// Leading bits of an IPv4 client's address that must be the same; 0 lets all clients share.
    pub source_mask_v4: u8,
    /// The same for IPv6.
    pub source_mask_v6: u8,
    /// Idle connections at most, for each virtual server and worker.
    pub max_size: u32,
    /// Requests on one connection at most.
    pub max_reuse: u32,
    /// The age at which one is not used again, in milliseconds.
    pub max_age_ms: u32,
    /// How long one may wait, in milliseconds: less than the members' own keep-alive time.
    pub idle_ms: u32,
}

impl Default for Reuse {
    fn default() -> Self {
        Self {
            enabled: true,
            source_mask_v4: 0,
            source_mask_v6: 0,
            max_size: 10_000,
            max_reuse: 1_000,
            max_age_ms: 86_400_000,
            idle_ms: 30_000,
        }
    }
}

/// The rules of a virtual server, ready to be looked up.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// In the operator's order.
    pub rules: Arc<[Route]>,
    /// Looks up the index in `rules`.
    pub compiled: Arc<Routes>,
}

impl RouteTable {
    /// Compiles the rules.
    pub fn new(rules: Vec<Route>) -> Self {
        let matches: Vec<Rule> = rules.iter().map(|route| route.rule.clone()).collect();
        Self { compiled: Arc::new(Routes::compile(&matches)), rules: rules.into() }
    }
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

/// One rule and what becomes of its requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Route {
    /// The operator's name for it, or its number.
    pub name: Arc<str>,
    /// Which requests. Several rows of one rule of the operator become several routes.
    pub rule: Rule,
    /// Pools in proportion to their weights. Empty: the virtual server's pool, or 500 if there is none and no filter answers.
    pub pools: Vec<WeightedPool>,
    /// Run after those of the virtual server.
    pub filters: Vec<Filter>,
    /// The whole exchange, in milliseconds; 0 for no limit.
    pub request_timeout_ms: u32,
    /// In place of [`HttpTimeouts::response_ms`] when it is not 0.
    pub response_timeout_ms: u32,
}

/// A pool's share of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightedPool {
    /// The pool.
    pub pool: PoolId,
    /// Its share; 0 for none.
    pub weight: u32,
}

/// Persistence by cookie (tmsh: cookie persistence).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookiePersistence {
    /// What is done.
    pub method: CookieMethod,
    /// The cookie's name; `BIGipServer` and the pool's name when empty.
    pub name: Arc<str>,
    /// Max-Age in seconds; 0 for a session cookie.
    pub max_age_s: u32,
    /// Path attribute; `/` by default.
    pub path: Arc<str>,
    /// HttpOnly attribute.
    pub http_only: bool,
    /// Secure attribute.
    pub secure: bool,
    /// Sent with every response, not only when the request had none that is right.
    pub always_send: bool,
}

/// How a cookie leads to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CookieMethod {
    /// We add it to responses.
    Insert,
    /// The member sends it, in the same format.
    Passive,
    /// A hash of the value of a cookie that the application sets chooses the member.
    Hash,
}
