//! Full proxies: defaults, and every word.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use sluice_control::diff::diff;
use sluice_dataplane::address::Prefix;
use sluice_dataplane::config::proxy::{
    CookieMethod, CookiePersistence, HttpProfile, HttpTimeouts, ProxyProfile, ProxyVersion, Reuse, Route,
    RouteTable, TcpProfile, WeightedPool,
};
use sluice_dataplane::config::snapshot::{PersistenceKind, Virtual, VirtualKind};
use sluice_dataplane::filter::{
    Cors, Filter, FixedResponse, Forwarded, HeaderEdits, Mirror, PathChange, RateKey, RateLimit, Redirect,
    UrlRewrite,
};
use sluice_dataplane::http::route::{
    FieldMatch, HostMatch, PathMatch, Pattern, QueryMatch, Rule, ValueMatch,
};
use sluice_dataplane::http::{HttpLimits, PathRules, Scheme};
use sluice_dataplane::limits::Limits;

use crate::{checked, everything, ip, server, with};

/// A standard virtual server with every word of a full proxy.
pub(crate) const EVERY_WORD: &str = r#"
    destination: 192.0.2.102:80
    type: standard
    pool: web
    snat: automap
    tcp:
      nagle: true
      keep_alive_interval: 60s
      ack_delay: 20ms
      fin_wait_timeout: 5s
      connect_timeout: 1s
      client: {nagle: false, keep_alive_interval: 0s}
      server: {connect_timeout: 3s, ack_delay: 0ms}
    verified_accept: true
    access_log: true
    http:
      max_request_line: 4KiB
      max_header_size: 16KiB
      max_headers: 50
      max_trailer_size: 1KiB
      max_trailers: 8
      max_body_size: 10MiB
      merge_slashes: false
      encoded_slashes: false
      first_byte_timeout: 1s
      header_timeout: 2s
      body_timeout: 3s
      min_body_rate: 100
      response_timeout: 4s
      keep_alive_timeout: 5s
      max_connection_age: 6s
      tunnel_timeout: 7s
      max_requests: 8
      allow_connect: true
      server_name: sluice
    filters:
      - forwarded: {rfc7239: true}
      - request_headers: {set: {X-A: a, X-B: b}, add: {X-C: ""}, remove: [X-D]}
      - response_headers: {remove: [Server]}
      - mirror: {pool: shadow, percent: 0.5}
      - rate_limit: {requests: 100}
      - cors:
          allow_origins: [https://shop.example, "https://*.shop.example:8443"]
          allow_methods: [PUT, DELETE]
          allow_headers: ["*"]
          expose_headers: [X-A]
          allow_credentials: true
          max_age: 1m
    routes:
      - name: api
        match:
          - host: [api.example.com, "*.api.example.com"]
            path: /v1
            method: GET
            headers: [{name: x-a, value: b}, {name: x-b, regex: "[0-9]+"}, {name: x-c, present: true}]
            query: {debug: "1"}
          - path: {prefix: /v2}
        pools: [{pool: web, weight: 9}, {pool: shadow}]
        filters:
          - rewrite: {host: inner.example.com, path: {prefix: /}}
          - rate_limit: {by: {header: x-api-key}, requests: 5, period: 1m, burst: 20}
          - rate_limit: {by: client-address, mask: {ipv4: 24}, requests: 7}
        request_timeout: 10s
        response_timeout: 5s
      - match: {path: {regex: "/old/.*"}}
        filters: [redirect: {scheme: https, host: new.example.com, port: 8443, path: {full: /}, status: 308}]
      - {name: health, match: {path: {exact: /health}}, filters: [fixed_response: {status: 503, body: no}]}
    proxy_protocol: {accept: true, from: [10.0.0.0/8, "2001:db8::/32"], send: v2, crc: true}
    connection_reuse: {source_mask: {ipv4: 16, ipv6: 48}, max_size: 1, max_reuse: 2, max_age: 3s, idle_timeout: 4s}
    persistence: {type: cookie, method: passive, name: lb, expiration: 1h, path: /a, http_only: false, secure: true, always_send: true}
"#;

fn profile(fields: &str) -> ProxyProfile {
    let proxy = server(&format!("type: standard, {fields}")).proxy;
    Arc::unwrap_or_clone(proxy.unwrap())
}

fn http(fields: &str) -> HttpProfile {
    profile(&format!("http: {{}}, {fields}")).http.unwrap()
}

fn every_word() -> (Virtual, ProxyProfile) {
    let parts = checked(&everything()).parts;
    let server = parts.virtuals.into_iter().find(|server| &*server.name == "site").unwrap();
    let profile = ProxyProfile::clone(server.proxy.as_ref().unwrap());
    (server, profile)
}

#[test]
fn a_full_proxy_needs_a_word_and_a_pool() {
    let plain = server("type: standard");
    assert_eq!((plain.kind, plain.persistence), (VirtualKind::Standard, None));
    assert_eq!(plain.proxy.as_deref(), Some(&ProxyProfile::default()));
    assert!(plain.pool.is_some() && server("").proxy.is_none());
    let tracked = server("type: standard, persistence: source-address").persistence.unwrap();
    assert_eq!(tracked.kind, PersistenceKind::SourceAddress);
}

#[test]
fn http_needs_a_word_more() {
    assert_eq!(http(""), HttpProfile { requests_max: 10_000, ..HttpProfile::default() });
}

#[test]
fn requests_that_are_all_answered_need_no_pool() {
    let text = "virtual_servers: {moved: {destination: \"192.0.2.1:80\", type: standard, http: {}, filters: [redirect: {scheme: https}]}}\n";
    assert_eq!(with(text).parts.virtuals[0].pool, None);
    let by_route = text
        .replace("filters", "routes: [{filters: [fixed_response: ]}], filters")
        .replace("redirect: {scheme: https}", "forwarded: ");
    let server = with(&by_route).parts.virtuals.remove(0);
    let http = server.proxy.unwrap().http.clone().unwrap();
    let empty = FixedResponse { status: 200, content_type: "text/plain".into(), body: [].into() };
    assert_eq!(http.routes.rules[0].filters, [Filter::FixedResponse(empty)]);
    let told = Forwarded { x_forwarded: true, rfc7239: false, trust_client: false };
    assert_eq!(http.filters, [Filter::Forwarded(told)]);
}

#[test]
fn short_forms_mean_what_long_ones_do() {
    let reuse = |text: &str| http(&format!("connection_reuse: {text}")).reuse;
    assert_eq!(reuse("true"), Reuse::default());
    assert_eq!(reuse("false"), Reuse { enabled: false, ..Reuse::default() });
    let masked = |v4, v6| Reuse { source_mask_v4: v4, source_mask_v6: v6, ..Reuse::default() };
    assert_eq!(reuse("{source_mask: 24}"), masked(24, 96));
    assert_eq!(reuse("{source_mask: 255.255.0.0}"), masked(16, 64));
    assert_eq!(reuse("{source_mask: {ipv6: 64}}"), masked(0, 64));
    let everywhere = [
        Prefix::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        Prefix::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    ];
    assert_eq!(profile("proxy_protocol: {accept: true}").accept_proxy_from, everywhere);
    let sent = profile("proxy_protocol: {send: v1}");
    assert_eq!((sent.send_proxy, sent.accept_proxy_from), (Some(ProxyVersion::V1), vec![]));
    let cookie = http("persistence: cookie").cookie;
    let plain = CookiePersistence {
        method: CookieMethod::Insert,
        name: "".into(),
        max_age_s: 0,
        path: "/".into(),
        http_only: true,
        secure: false,
        always_send: false,
    };
    assert_eq!(cookie, Some(plain));
    let rule = |text: &str| http(&format!("routes: [{{match: {text}}}]")).routes.rules[0].rule.clone();
    assert_eq!(rule("{path: /a}"), rule("{path: {prefix: /a}}"));
    assert_eq!(rule("{host: a}"), rule("[{host: [a]}]"));
    assert_eq!(rule("{headers: {a: b}}"), rule("{headers: [{name: a, value: b}]}"));
    assert_eq!(http("routes: [{pool: web}]").routes.rules[0].rule, Rule::default());
}

#[test]
fn every_word_of_the_connections_is_taken() {
    let (server, profile) = every_word();
    assert!(server.persistence.is_none() && profile.verified_accept && profile.access_log);
    let both = TcpProfile {
        nagle: true,
        keep_alive_ms: 60_000,
        ack_delay_ms: 20,
        fin_wait_ms: 5_000,
        connect_ms: 1_000,
    };
    assert_eq!(profile.client_tcp, TcpProfile { nagle: false, keep_alive_ms: 0, ..both });
    assert_eq!(profile.server_tcp, TcpProfile { connect_ms: 3_000, ack_delay_ms: 0, ..both });
    assert_eq!(
        profile.accept_proxy_from,
        [Prefix::new(ip("10.0.0.0"), 8), Prefix::new(ip("2001:db8::"), 32)]
    );
    assert_eq!(profile.send_proxy, Some(ProxyVersion::V2 { crc: true }));
    let http = profile.http.unwrap();
    let reuse = Reuse {
        enabled: true,
        source_mask_v4: 16,
        source_mask_v6: 48,
        max_size: 1,
        max_reuse: 2,
        max_age_ms: 3_000,
        idle_ms: 4_000,
    };
    assert_eq!(http.reuse, reuse);
    let cookie = CookiePersistence {
        method: CookieMethod::Passive,
        name: "lb".into(),
        max_age_s: 3_600,
        path: "/a".into(),
        http_only: false,
        secure: true,
        always_send: true,
    };
    assert_eq!(http.cookie, Some(cookie));
}

#[test]
fn every_word_of_http_is_taken() {
    let http = every_word().1.http.unwrap();
    let limits = HttpLimits {
        line: 4 << 10,
        head: 16 << 10,
        fields: 50,
        trailer: 1 << 10,
        trailer_fields: 8,
        body: 10 << 20,
        path: PathRules { merge_slashes: false, encoded_slashes: false },
    };
    assert_eq!(http.limits, limits);
    let timeouts = HttpTimeouts {
        first_byte_ms: 1_000,
        head_ms: 2_000,
        body_ms: 3_000,
        response_ms: 4_000,
        keep_alive_ms: 5_000,
        max_age_ms: 6_000,
        tunnel_ms: 7_000,
        body_rate_min: 100,
    };
    assert_eq!(http.timeouts, timeouts);
    assert_eq!((http.requests_max, http.allow_connect, &*http.server_name), (8, true, "sluice"));
}

#[test]
fn every_filter_is_taken() {
    let candidate = checked(&everything());
    let pool = |name| candidate.book.pool_id(name);
    let id = candidate.book.virtual_id("site").0 << 12;
    let http = every_word().1.http.unwrap();
    let pair = |name: &str, value: &str| (name.into(), value.into());
    let expected = [
        Filter::Forwarded(Forwarded { x_forwarded: true, rfc7239: true, trust_client: false }),
        Filter::RequestHeaders(HeaderEdits {
            set: vec![pair("X-A", "a"), pair("X-B", "b")],
            add: vec![pair("X-C", "")],
            remove: vec!["X-D".into()],
        }),
        Filter::ResponseHeaders(HeaderEdits { remove: vec!["Server".into()], ..HeaderEdits::default() }),
        Filter::Mirror(Mirror { pool: pool("shadow"), per_mille: 5 }),
        Filter::RateLimit(RateLimit {
            id,
            by: RateKey::Address { mask_v4: 32, mask_v6: 128 },
            requests: 100,
            period_ms: 1_000,
            burst: 100,
        }),
        Filter::Cors(Cors {
            allow_origins: vec!["https://shop.example".into(), "https://*.shop.example:8443".into()],
            allow_methods: vec!["PUT".into(), "DELETE".into()],
            allow_headers: vec!["*".into()],
            expose_headers: vec!["X-A".into()],
            allow_credentials: true,
            max_age_s: 60,
        }),
    ];
    assert_eq!(http.filters, expected);
    let by_header = RateLimit {
        id: id + 1,
        by: RateKey::Header("x-api-key".into()),
        requests: 5,
        period_ms: 60_000,
        burst: 20,
    };
    let by_network = RateLimit {
        id: id + 2,
        by: RateKey::Address { mask_v4: 24, mask_v6: 128 },
        requests: 7,
        period_ms: 1_000,
        burst: 7,
    };
    let expected = [
        Filter::UrlRewrite(UrlRewrite {
            host: Some("inner.example.com".into()),
            path: Some(PathChange::Prefix("/".into())),
        }),
        Filter::RateLimit(by_header),
        Filter::RateLimit(by_network),
    ];
    assert_eq!(http.routes.rules[0].filters, expected);
    assert_eq!(http.routes.rules[1].filters, expected);
}

#[test]
fn rows_of_a_route_become_rules() {
    let candidate = checked(&everything());
    let pool = |name, weight| WeightedPool { pool: candidate.book.pool_id(name), weight };
    let http = every_word().1.http.unwrap();
    let field = |name: &str, value| FieldMatch { name: name.into(), value };
    let first = Rule {
        hosts: vec![
            HostMatch::Exact("api.example.com".into()),
            HostMatch::Wildcard("api.example.com".into()),
        ],
        path: Some(PathMatch::Prefix("/v1".into())),
        method: Some("GET".into()),
        fields: vec![
            field("x-a", ValueMatch::Exact("b".into())),
            field("x-b", ValueMatch::Regex(Pattern::new("[0-9]+").unwrap())),
            field("x-c", ValueMatch::Present),
        ],
        queries: vec![QueryMatch { name: "debug".into(), value: ValueMatch::Exact("1".into()) }],
    };
    let api = Route {
        name: "api".into(),
        rule: first,
        pools: vec![pool("web", 9), pool("shadow", 1)],
        filters: http.routes.rules[0].filters.clone(),
        request_timeout_ms: 10_000,
        response_timeout_ms: 5_000,
    };
    let second = Rule { path: Some(PathMatch::Prefix("/v2".into())), ..Rule::default() };
    let old = Rule { path: Some(PathMatch::Regex(Pattern::new("/old/.*").unwrap())), ..Rule::default() };
    let redirect = Redirect {
        scheme: Some(Scheme::Https),
        host: Some("new.example.com".into()),
        port: Some(8443),
        path: Some(PathChange::Full("/".into())),
        status: 308,
    };
    let refusal = FixedResponse { status: 503, content_type: "text/plain".into(), body: (*b"no").into() };
    let health = Rule { path: Some(PathMatch::Exact("/health".into())), ..Rule::default() };
    let plain = |name: &str, rule, filter| Route {
        name: name.into(),
        rule,
        filters: vec![filter],
        ..Route::default()
    };
    let expected = RouteTable::new(vec![
        api.clone(),
        Route { rule: second, ..api },
        plain("1", old, Filter::Redirect(redirect)),
        plain("health", health, Filter::FixedResponse(refusal)),
    ]);
    assert_eq!(http.routes, expected);
}

#[test]
fn a_rate_limit_keeps_its_number_when_other_servers_come() {
    let frame = |more: &str| {
        format!(
            "virtual_servers:\n{more}  b: {{destination: 192.0.2.1:80, type: standard, http: {{}}, filters: [rate_limit: {{requests: 1}}, fixed_response: ]}}\n"
        )
    };
    let other = "  a: {destination: 192.0.2.2:80, type: standard, http: {}, filters: [rate_limit: {requests: 1}, fixed_response: ]}\n";
    let ids = |candidate: &sluice_control::check::Candidate| -> Vec<(String, u32)> {
        let of = |server: &Virtual| match &server.proxy.as_ref()?.http.as_ref()?.filters[0] {
            Filter::RateLimit(limit) => Some((server.name.to_string(), limit.id)),
            _ => None,
        };
        candidate.parts.virtuals.iter().filter_map(of).collect()
    };
    let first = with(&frame(""));
    let against = sluice_control::check::Against {
        running: Some(&first.model),
        book: Some(&first.book),
        generation: 2,
        ..sluice_control::check::Against::NOTHING
    };
    let second = crate::check_against(&format!("{}{}", crate::FRAME, frame(other)), &against);
    let (before, after) = (ids(&first), ids(&second));
    assert_eq!((before.len(), after.len()), (1, 2));
    assert_eq!(before[0], after[1]);
    assert_ne!(after[0].1, after[1].1);
}

#[test]
fn a_changed_profile_is_a_changed_virtual_server() {
    let all = checked(&everything()).model;
    for (old, new, field) in [
        ("max_headers: 50", "max_headers: 51", "http"),
        ("weight: 9", "weight: 8", "routes"),
        ("percent: 0.5", "percent: 1", "filters"),
        ("connect_timeout: 3s", "connect_timeout: 4s", "tcp"),
        ("max_size: 1", "max_size: 2", "connection_reuse"),
        ("crc: true", "crc: false", "proxy_protocol"),
        ("always_send: true", "always_send: false", "persistence"),
        ("access_log: true", "access_log: false", "access_log"),
    ] {
        let text = everything();
        assert!(text.contains(old), "{old}");
        let changes = diff(&all, &checked(&text.replace(old, new)).model);
        assert!(
            changes.added.is_empty() && changes.removed.is_empty() && changes.changed.len() == 1,
            "{old}"
        );
        let change = &changes.changed[0];
        assert_eq!(change.path.as_str(), "/virtual_servers/site", "{old}");
        assert_eq!(change.fields.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), [field], "{old}");
    }
}

#[test]
fn what_cookies_do_not_have_is_a_warning() {
    let warned = |fields: &str| {
        crate::warnings(&crate::server_text(&format!("type: standard, http: {{}}, persistence: {fields}")))
    };
    assert_eq!(warned("cookie"), [""; 0]);
    assert_eq!(warned("{type: cookie, timeout: 5s}"), ["/virtual_servers/web/persistence"]);
    assert_eq!(
        warned("{type: cookie, override_connection_limit: true}"),
        ["/virtual_servers/web/persistence"]
    );
}

#[test]
fn limits_of_proxies_reach_the_data_plane() {
    let limits = |text: &str| with(text).model.system.limits.limits();
    assert_eq!(limits(""), Limits::default());
    let said = limits("system: {limits: {proxies: 1001, proxy_buffer: 128KiB}}\n");
    assert_eq!((said.proxies, said.proxy_buffer), (1_001, 128 << 10));
    let share = said.per_worker(2);
    assert_eq!((share.proxies, share.proxy_buffer), (500, 128 << 10));
}
