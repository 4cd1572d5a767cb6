//! Mistakes about full proxies.

use crate::{Case, assert_case};

/// What is written, and the error: where below that, a part of the message.
type Below = (&'static str, &'static str, &'static str);

#[test]
fn each_mistake_about_a_full_proxy_gives_its_one_error() {
    OTHERS.iter().for_each(assert_case);
    let asserted = [
        assert_below("type: standard\n    ", "", "", 35, STANDARD),
        assert_below("type: standard\n    http: {}\n    ", "", "", 36, HTTP),
        assert_below("type: standard\n    http: {}\n    filters: [{", "}]", "/filters/0", 36, FILTERS),
        assert_below("type: standard\n    http: {}\n    routes: [{", "}]", "/routes/0", 36, ROUTES),
    ];
    assert!(asserted.iter().all(|count| *count > 10), "{asserted:?}");
}

#[test]
fn what_is_too_much_gives_its_one_error() {
    let long = format!("fixed_response: {{body: {}}}", "x".repeat((64 << 10) + 1));
    let many = vec!["rate_limit: {requests: 1}"; 4_097].join("}, {");
    for (written, path, part) in [
        (&long, "0/fixed_response/body", "at most 64KiB; this has 65537 bytes"),
        (&many, "4096/rate_limit", "at most 4096 in one virtual server"),
    ] {
        let new = format!("type: standard\n    http: {{}}\n    filters: [{{{written}}}]");
        assert_case(&("idle_timeout: 300s", &new, &format!("/virtual_servers/web/filters/{path}"), 36, part));
    }
}

#[test]
fn full_proxies_need_room() {
    let (limits, without) = ("limits: {flows: 1000", "limits: {proxies: 0, flows: 1000");
    assert_eq!(crate::faults_of(&crate::BASE.replace(limits, without)), []);
    let text = crate::BASE.replace(limits, without).replace("idle_timeout: 300s", "type: standard");
    let faults = crate::faults_of(&text);
    assert_eq!(
        (faults.len(), faults[0].path.as_str(), faults[0].line),
        (1, "/system/limits/proxies", Some(4))
    );
}

#[test]
fn what_follows_from_a_mistake_is_not_told() {
    let whole = "    pool: web\n    snat: automap\n    idle_timeout: 300s";
    let web = "/virtual_servers/web";
    for (written, path, line, part) in [
        ("    pool: web\n    type: standart\n    http: {}", "type", 33, "did you mean"),
        (
            "    pool: web\n    type: standard\n    http: 5\n    routes: [{pool: web}]",
            "http",
            34,
            "a map with",
        ),
        ("    type: standard\n    http: 5", "http", 33, "a map with"),
        (
            "    type: standard\n    http: {}\n    filters: [redirect: 5]",
            "filters/0/redirect",
            34,
            "a map with",
        ),
        ("    type: standard\n    http: {}\n    routes: [5]", "routes/0", 34, "a map with"),
        ("    type: standard\n    http: {}\n    routes: [{pool: .a}]", "routes/0/pool", 34, "a name"),
        ("    pool: web\n    type: standard\n    protocol: tpc", "protocol", 34, "did you mean"),
    ] {
        assert_case(&(whole, written, &format!("{web}/{path}"), line, part));
    }
}

fn assert_below(before: &str, behind: &str, place: &str, line: u32, cases: &[Below]) -> usize {
    for (written, path, part) in cases {
        let new = format!("{before}{written}{behind}");
        let below = if path.is_empty() { String::new() } else { format!("/{path}") };
        let path = format!("/virtual_servers/web{place}{below}");
        assert_case(&("idle_timeout: 300s", &new, &path, line, part));
    }
    cases.len()
}

/// On a virtual server of type standard.
const STANDARD: &[Below] = &[
    ("tcp: {nagel: true}", "tcp/nagel", "did you mean \"nagle\""),
    ("tcp: {client: {ack_delay: 10}}", "tcp/client/ack_delay", "with its unit"),
    ("tcp: fast", "tcp", "expected a map with nagle"),
    ("verified_accept: 1", "verified_accept", "true or false"),
    ("access_log: file", "access_log", "true or false"),
    ("http: true", "http", "expected a map with max_request_line"),
    ("http: {max_headers: 129}", "http/max_headers", "from 1 to 128"),
    ("http: {max_body_size: 1000}", "http/max_body_size", "64KiB"),
    ("http: {header_timeout: 10}", "http/header_timeout", "with its unit"),
    ("http: {keepalive_timeout: 10s}", "http/keepalive_timeout", "did you mean \"keep_alive_timeout\""),
    ("proxy_protocol: {send: v3}", "proxy_protocol/send", "expected one of v1, v2"),
    ("proxy_protocol: {send: {v1: 1}}", "proxy_protocol/send/v1", "takes no value"),
    ("proxy_protocol: {accept: true, from: [10.0.0.1/8]}", "proxy_protocol/from/0", "network is 10.0.0.0/8"),
    ("protocol: udp", "protocol", "expected tcp, all that a standard"),
    ("protocol: any", "protocol", "expected tcp, all that a standard"),
    ("filters: [{forwarded: {}}]", "filters", "expected http, too"),
    ("routes: [{pool: web}]", "routes", "expected http, too"),
    ("connection_reuse: true", "connection_reuse", "expected http, too"),
    ("tcp: {connect_timeout: 0s}", "tcp/connect_timeout", "more than 0s"),
    ("tcp: {client: {fin_wait_timeout: 0s}}", "tcp/client/fin_wait_timeout", "more than 0s"),
    ("tcp: {client: {connect_timeout: 1s}}", "tcp/client/connect_timeout", "write it under server"),
    ("tcp: {server: {ack_delay: 500ms}}", "tcp/server/ack_delay", "less than 500ms"),
    ("proxy_protocol: {from: [10.0.0.0/8]}", "proxy_protocol/from", "accept: true, too"),
    ("proxy_protocol: {accept: true, from: []}", "proxy_protocol/from", "at least one network"),
    ("proxy_protocol: {send: v1, crc: true}", "proxy_protocol/crc", "send: v2, too"),
    ("persistence: cookie", "persistence", "type: standard with http"),
    ("http: {first_byte_timeout: 0s}", "http/first_byte_timeout", "more than 0s"),
    ("http: {header_timeout: 0s}", "http/header_timeout", "more than 0s"),
    ("http: {body_timeout: 0s}", "http/body_timeout", "more than 0s"),
    ("http: {response_timeout: 0s}", "http/response_timeout", "more than 0s"),
    ("http: {keep_alive_timeout: 0s}", "http/keep_alive_timeout", "more than 0s"),
    ("http: {max_connection_age: 0s}", "http/max_connection_age", "more than 0s"),
    ("http: {tunnel_timeout: 0s}", "http/tunnel_timeout", "more than 0s"),
    ("http: {max_request_line: 1MiB}", "http/max_request_line", "from 64B to 64KiB; found 1MiB"),
    ("http: {max_header_size: 1B}", "http/max_header_size", "from 256B to 256KiB"),
    ("http: {max_trailer_size: 65KiB}", "http/max_trailer_size", "from 0B to 64KiB"),
    ("http: {server_name: \"a\\tb \"}", "http/server_name", "the value of a field"),
];

/// On one with HTTP.
const HTTP: &[Below] = &[
    ("connection_reuse: often", "connection_reuse", "true, false, or a map with source_mask"),
    ("connection_reuse: {source_mask: 33}", "connection_reuse/source_mask", "from 0 to 32, or a netmask"),
    ("connection_reuse: {source_mask: 255.0.255.0}", "connection_reuse/source_mask", "such as 255.255.255.0"),
    ("connection_reuse: {source_mask: {ipv6: 129}}", "connection_reuse/source_mask/ipv6", "from 0 to 128"),
    ("connection_reuse: {max_reuse: 0}", "connection_reuse/max_reuse", "from 1 to 4294967295"),
    ("filters: [cors]", "filters/0", "\"cors\" needs a value"),
    ("filters: [{}]", "filters/0", "found none"),
    ("filters: [5]", "filters/0", "found the number 5"),
    ("routes: {api: {pool: web}}", "routes", "expected a list"),
    (
        "persistence: {type: cookie, method: rewrite}",
        "persistence/method",
        "expected one of insert, passive, hash",
    ),
    ("persistence: {type: cookie, expiration: 60}", "persistence/expiration", "with its unit"),
    (
        "persistence: {type: source-address, http_only: true}",
        "persistence/http_only",
        "it is for type: cookie",
    ),
    ("persistence: {type: cookie, name: \"a b\"}", "persistence/name", "expected a cookie's name"),
    ("persistence: {type: cookie, method: hash}", "persistence/name", "which of the application's cookies"),
    ("persistence: {type: cookie, path: a}", "persistence/path", "begins with /"),
    ("persistence: {type: cookie, path: \"/a;b\"}", "persistence/path", "no semicolon"),
    ("persistence: {type: cookie, expiration: 1500ms}", "persistence/expiration", "whole seconds"),
    ("connection_reuse: {max_age: 0s}", "connection_reuse/max_age", "more than 0s"),
    ("connection_reuse: {idle_timeout: 0s}", "connection_reuse/idle_timeout", "more than 0s"),
    ("routes: [{name: a}, {name: a}]", "routes/1/name", "each name once"),
];

/// In a filter.
const FILTERS: &[Below] = &[
    ("redirct: {port: 80}", "redirct", "did you mean \"redirect\""),
    (
        "forwarded: {}, redirect: {port: 80}",
        "",
        "request_headers, response_headers, forwarded, redirect, rewrite, fixed_response, mirror, cors, rate_limit; found several",
    ),
    ("request_headers: {set: {a: 1}}", "request_headers/set/a", "expected text"),
    ("fixed_response: {status: 600}", "fixed_response/status", "from 200 to 599"),
    ("fixed_response: {status: 199}", "fixed_response/status", "from 200 to 599"),
    ("redirect: {scheme: ftp, port: 21}", "redirect/scheme", "expected one of http, https"),
    ("redirect: {path: /a}", "redirect/path", "expected one of full, prefix; found \"/a\""),
    ("mirror: {percent: 10}", "mirror/pool", "no default"),
    ("mirror: {pool: web, percent: 101}", "mirror/percent", "from 0 to 100"),
    ("mirror: {pool: web, percent: 0.05}", "mirror/percent", "one decimal"),
    ("mirror: {pool: web, percent: -1}", "mirror/percent", "from 0 to 100"),
    ("cors: {}", "cors/allow_origins", "no default"),
    ("rate_limit: {period: 1s}", "rate_limit/requests", "no default"),
    ("rate_limit: {requests: 5, by: user}", "rate_limit/by", "expected one of client-address, header"),
    ("rate_limit: {requests: 5, by: {client-address: 1}}", "rate_limit/by/client-address", "takes no value"),
    ("rate_limit: {requests: 5, mask: 40}", "rate_limit/mask", "from 0 to 32"),
    ("rate_limit: {requests: 5, burst: 0}", "rate_limit/burst", "from 1 to"),
    ("request_headers: {}", "request_headers", "at least one of set, add and remove"),
    ("request_headers: {set: {\"a b\": c}}", "request_headers/set/a b", "the name of a field"),
    ("request_headers: {set: {Host: c}}", "request_headers/set/Host", "does not write itself"),
    (
        "response_headers: {add: {Transfer-Encoding: c}}",
        "response_headers/add/Transfer-Encoding",
        "does not write itself",
    ),
    ("response_headers: {add: {x: \"a\\r\\nb\"}}", "response_headers/add/x", "the value of a field"),
    ("response_headers: {remove: [x, Connection]}", "response_headers/remove/1", "does not write itself"),
    ("redirect: {}", "redirect", "a scheme, host, port or path"),
    ("redirect: {scheme: https, status: 304}", "redirect/status", "301, 302, 303, 307 or 308; found 304"),
    ("redirect: {host: \"a:80\"}", "redirect/host", "without a port"),
    ("redirect: {path: {full: a}}", "redirect/path/full", "begins with /"),
    ("redirect: {path: {prefix: /a}}", "redirect/path/prefix", "a route that matches a prefix"),
    ("rewrite: {}", "rewrite", "a host or a path"),
    ("rewrite: {host: \"\"}", "rewrite/host", "without a port"),
    ("fixed_response: {content_type: \" a\"}", "fixed_response/content_type", "the value of a field"),
    ("fixed_response: {status: 204, body: a}", "fixed_response/body", "no body with status 204"),
    ("mirror: {pool: shadow}", "mirror/pool", "there is no \"shadow\""),
    ("mirror: {pool: six}", "mirror/pool", "a pool of IPv4 members"),
    ("cors: {allow_origins: []}", "cors/allow_origins", "at least one origin"),
    ("cors: {allow_origins: [shop.example]}", "cors/allow_origins/0", "an origin such as"),
    (
        "cors: {allow_origins: [\"*\"], allow_methods: [PUT, \"A B\"]}",
        "cors/allow_methods/1",
        "a method such as PUT",
    ),
    (
        "cors: {allow_origins: [\"*\"], allow_headers: [\"a b\"]}",
        "cors/allow_headers/0",
        "the name of a field",
    ),
    ("cors: {allow_origins: [\"*\"], max_age: 1ms}", "cors/max_age", "whole seconds"),
    ("rate_limit: {requests: 5, period: 0s}", "rate_limit/period", "more than 0s"),
    ("rate_limit: {requests: 5, by: {header: \"a b\"}}", "rate_limit/by/header", "the name of a field"),
    ("rate_limit: {requests: 5, by: {header: a}, mask: 24}", "rate_limit/mask", "counted by a field"),
];

/// In a route.
const ROUTES: &[Below] = &[
    ("macth: {host: a}", "macth", "did you mean \"match\""),
    ("match: {path: {exakt: /a}}", "match/path/exakt", "did you mean \"exact\""),
    ("match: {path: {exact: /a, prefix: /b}}", "match/path", "found several"),
    ("match: {path: {}}", "match/path", "\"exact\" or \"prefix\" or \"regex\""),
    ("match: {path: {exact: 5}}", "match/path/exact", "expected text"),
    ("match: [{host: a}, {headers: x}]", "match/1/headers", "a list of rows with a name"),
    ("match: {headers: [{value: a}]}", "match/headers/0/name", "no default"),
    ("pools: [{weight: 1}]", "pools/0/pool", "no default"),
    ("pools: [{pool: web, weight: -1}]", "pools/0/weight", "from 0 to 1000000"),
    (
        "match: [{path: /a}, {path: {exact: /b}}], filters: [{rewrite: {path: {prefix: /c}}}]",
        "filters/0/rewrite/path/prefix",
        "a route that matches a prefix",
    ),
    ("pool: wbe", "pool", "there is no \"wbe\""),
    ("pools: [{pool: web}, {pool: wbe}]", "pools/1/pool", "there is no \"wbe\""),
    ("pool: six", "pool", "a pool of IPv4 members"),
    ("pool: web, pools: [{pool: web}]", "pool", "either pool or pools"),
    ("pools: []", "pools", "a weight of more than 0"),
    ("pools: [{pool: web, weight: 0}]", "pools", "a weight of more than 0"),
    ("response_timeout: 0s", "response_timeout", "more than 0s"),
    ("match: []", "match", "at least one row"),
    ("match: {host: []}", "match/host", "at least one host"),
    ("match: {host: [a, \"b:80\"]}", "match/host/1", "a host without a port"),
    ("match: {host: \"*\"}", "match/host", "a host without a port"),
    ("match: {path: api}", "match/path/prefix", "begins with /"),
    ("match: {path: {exact: \"/a?b\"}}", "match/path/exact", "no query"),
    ("match: {path: /a//b}", "match/path/prefix", "as requests have it then, /a/b"),
    ("match: [{host: a}, {path: {regex: \"(\"}}]", "match/1/path/regex", "a regular expression"),
    ("match: {method: \"GET,PUT\"}", "match/method", "a method such as GET"),
    ("match: {headers: {Host: a}}", "match/headers/Host", "does not write itself"),
    ("match: {headers: [{name: \"a b\", present: true}]}", "match/headers/0/name", "the name of a field"),
    ("match: {headers: [{name: a}]}", "match/headers/0", "one of value, regex and present"),
    ("match: {query: [{name: a, value: b, regex: c}]}", "match/query/0", "one of value, regex and present"),
    ("match: {query: [{name: a, present: false}]}", "match/query/0", "one of value, regex and present"),
    ("match: {query: [{name: a, regex: \"[\"}]}", "match/query/0/regex", "a regular expression"),
];

/// Whatever else.
const OTHERS: &[Case] = &[
    (
        "idle_timeout: 300s",
        "tcp: {}",
        "/virtual_servers/web/tcp",
        34,
        "expected no tcp: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "verified_accept: true",
        "/virtual_servers/web/verified_accept",
        34,
        "expected no verified_accept: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "access_log: true",
        "/virtual_servers/web/access_log",
        34,
        "expected no access_log: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "http: {}",
        "/virtual_servers/web/http",
        34,
        "expected no http: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "filters: [{forwarded: {}}]",
        "/virtual_servers/web/filters",
        34,
        "expected no filters: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "routes: [{pool: web}]",
        "/virtual_servers/web/routes",
        34,
        "expected no routes: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "proxy_protocol: {accept: true}",
        "/virtual_servers/web/proxy_protocol",
        34,
        "expected no proxy_protocol: it is for virtual servers of type standard",
    ),
    (
        "idle_timeout: 300s",
        "connection_reuse: false",
        "/virtual_servers/web/connection_reuse",
        34,
        "expected no connection_reuse: it is for virtual servers of type standard",
    ),
    (
        "type: reject",
        "type: reject, http: {}",
        "/virtual_servers/no/http",
        45,
        "for virtual servers of type standard",
    ),
    (
        "    pool: web\n    snat: automap\n    idle_timeout: 300s",
        "    type: standard",
        "/virtual_servers/web/pool",
        30,
        "sends connections to a pool",
    ),
    (
        "    pool: web\n    snat: automap\n    idle_timeout: 300s",
        "    type: standard\n    http: {}",
        "/virtual_servers/web/pool",
        30,
        "sends connections to a pool",
    ),
    (
        "    pool: web\n    snat: automap\n    idle_timeout: 300s",
        "    type: standard\n    http: {}\n    filters: [{forwarded: {}}]",
        "/virtual_servers/web/pool",
        30,
        "sends connections to a pool",
    ),
    (
        "    pool: web\n    snat: automap\n    idle_timeout: 300s",
        "    type: standard\n    http: {}\n    routes: [{match: {path: /a}, pool: web}, {name: b}]",
        "/virtual_servers/web/routes/1/pool",
        34,
        "the virtual server has none",
    ),
    (
        "    pool: web\n    snat: automap\n    idle_timeout: 300s",
        "    type: standard\n    http: {}\n    verified_accept: true\n    routes: [{pool: web}]",
        "/virtual_servers/web/verified_accept",
        34,
        "expected a pool, too",
    ),
    (
        "idle_timeout: 300s",
        "persistence: cookie",
        "/virtual_servers/web/persistence",
        34,
        "type: standard with http",
    ),
    (
        "type: reject",
        "type: reject, persistence: cookie",
        "/virtual_servers/no/persistence",
        45,
        "type: standard with http",
    ),
    ("flows: 1000", "proxy_buffer: 8KiB", "/system/limits/proxy_buffer", 4, "from 16KiB to 4MiB; found 8KiB"),
    ("flows: 1000", "proxy_buffer: 5MiB", "/system/limits/proxy_buffer", 4, "from 16KiB to 4MiB; found 5MiB"),
];
