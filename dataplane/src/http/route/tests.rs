//! The precedence, part by part, and against a plain search through all rules.

use super::*;
use crate::http::{Event, Fields, HttpLimits, RequestReader};

fn request(method: &str, host: &str, target: &str, fields: &[&str]) -> Request {
    let limits = HttpLimits::default();
    let (mut request, mut trailers) = (Request::new(&limits), Fields::for_trailers(&limits));
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    let (mut reader, mut input) = (RequestReader::default(), text.as_bytes());
    loop {
        let progress = reader.advance(input, &mut request, &mut trailers).expect("a request");
        input = &input[progress.taken..];
        if progress.event == Event::Head {
            return request;
        }
    }
}

fn get(host: &str, target: &str) -> Request {
    request("GET", host, target, &[])
}

fn exact(path: &str) -> Rule {
    Rule { path: Some(PathMatch::Exact(path.to_owned())), ..Rule::default() }
}

fn prefix(path: &str) -> Rule {
    Rule { path: Some(PathMatch::Prefix(path.to_owned())), ..Rule::default() }
}

fn regex(pattern: &str) -> Rule {
    Rule { path: Some(PathMatch::Regex(Pattern::new(pattern).expect("a pattern"))), ..Rule::default() }
}

fn host(name: &str) -> HostMatch {
    match name.strip_prefix("*.") {
        Some(rest) => HostMatch::Wildcard(rest.to_owned()),
        None => HostMatch::Exact(name.to_owned()),
    }
}

fn on(name: &str, rule: Rule) -> Rule {
    Rule { hosts: vec![host(name)], ..rule }
}

fn field(name: &str, value: &str) -> FieldMatch {
    FieldMatch { name: name.to_owned(), value: ValueMatch::Exact(value.to_owned()) }
}

#[test]
fn a_more_specific_host_wins() {
    let hosts = ["*.b.c", "*.a.b.c", "x.a.b.c"].map(|name| on(name, Rule::default()));
    let routes = Routes::compile(&[&[Rule::default()], &hosts[..]].concat());
    for (name, expected) in [
        ("x.a.b.c", 3),
        ("X.A.B.C.:8080", 3),
        ("y.a.b.c", 2),
        ("z.y.a.b.c", 2),
        ("a.b.c", 1),
        ("b.c", 0),
        ("xb.c", 0),
        ("[::1]", 0),
    ] {
        assert_eq!(routes.find(&get(name, "/")), Some(expected), "{name}");
    }
}

#[test]
fn a_host_without_a_matching_path_leaves_it_to_others() {
    let routes = Routes::compile(&[on("h", exact("/a")), on("*.h", exact("/a")), prefix("/")]);
    assert_eq!(routes.find(&get("h", "/a")), Some(0));
    assert_eq!(routes.find(&get("h", "/b")), Some(2));
    assert_eq!(Routes::compile(&[on("h", exact("/a"))]).find(&get("h", "/b")), None);
}

#[test]
fn exact_then_longest_prefix_then_expression_then_any() {
    let routes = Routes::compile(&[prefix("/"), regex("/.*x"), prefix("/a"), prefix("/a/b/"), exact("/a/b")]);
    for (path, expected) in [
        ("/a/b", 4),
        ("/a/b/", 3),
        ("/a/b/c", 3),
        ("/a", 2),
        ("/a/", 2),
        ("/a/x", 2),
        ("/ax", 1),
        ("/ab", 0),
        ("/", 0),
    ] {
        assert_eq!(routes.find(&get("h", path)), Some(expected), "{path}");
    }
}

#[test]
fn the_path_that_is_matched_is_the_one_that_is_forwarded() {
    let routes = Routes::compile(&[prefix("/"), prefix("/admin")]);
    for path in ["/admin", "/%61dmin/x", "//admin", "/x/../admin", "/x/%2e%2e/admin"] {
        assert_eq!(routes.find(&get("h", path)), Some(1), "{path}");
    }
}

#[test]
fn method_then_fields_then_queries_then_order() {
    let base = prefix("/a");
    let with = |method: Option<&str>, fields: usize, queries: usize| Rule {
        method: method.map(str::to_owned),
        fields: [field("x", "1"), field("Y", "2")][..fields].to_vec(),
        queries: vec![QueryMatch { name: "q".to_owned(), value: ValueMatch::Present }; queries],
        ..base.clone()
    };
    let rules = [
        with(None, 0, 0),
        with(None, 0, 1),
        with(None, 1, 0),
        with(None, 2, 0),
        with(Some("PUT"), 0, 0),
        with(None, 0, 0),
    ];
    let routes = Routes::compile(&rules);
    let find = |method, target, fields: &[&str]| routes.find(&request(method, "h", target, fields));
    assert_eq!(find("PUT", "/a?q", &["X: 1", "y: 2"]), Some(4));
    assert_eq!(find("GET", "/a?q", &["X: 1", "y: 2"]), Some(3));
    assert_eq!(find("GET", "/a?q", &["X: 0", "X: 1"]), Some(2));
    assert_eq!(find("GET", "/a?q", &["X: 0"]), Some(1));
    assert_eq!(find("GET", "/a", &[]), Some(0));
}

#[test]
fn what_has_no_path_follows_rules_for_any() {
    let routes = Routes::compile(&[prefix("/a"), Rule::default()]);
    assert_eq!(routes.find(&request("OPTIONS", "h", "*", &[])), Some(1));
    assert_eq!(routes.find(&request("CONNECT", "h", "h:443", &[])), Some(1));
}

/// All rules one by one: the best rank among those that match, by the words of the specification.
fn searched(rules: &[Rule], request: &Request) -> Option<usize> {
    let host_of = |rule: &Rule| {
        let name = str::from_utf8(request.host()).expect("ASCII");
        let rank = |host: &HostMatch| match host {
            HostMatch::Exact(exact) => (exact == name).then_some((2, exact.len())),
            HostMatch::Wildcard(end) => name.ends_with(&format!(".{end}")).then_some((1, end.len())),
        };
        if rule.hosts.is_empty() { Some((0, 0)) } else { rule.hosts.iter().filter_map(rank).max() }
    };
    let path_of = |rule: &Rule| {
        let path = str::from_utf8(request.path()?).expect("ASCII");
        match &rule.path {
            Some(PathMatch::Exact(exact)) => (exact == path).then_some((3, 0)),
            Some(PathMatch::Prefix(prefix)) if prefix != "/" => {
                let below = path.starts_with(&format!("{prefix}/")) || path == prefix;
                below.then_some((2, prefix.len()))
            }
            Some(PathMatch::Regex(pattern)) => pattern.matches(path.as_bytes()).then_some((1, 0)),
            _ => Some((0, 0)),
        }
    };
    let rank = |(index, rule): (usize, &Rule)| {
        let method = rule.method.is_some();
        let fields = rule.fields.iter().all(|one| one.matches(&request.fields));
        let named = rule.method.as_ref().is_none_or(|name| name.as_bytes() == request.method_name());
        let rank = (host_of(rule)?, path_of(rule)?, method, rule.fields.len(), std::cmp::Reverse(index));
        (fields && named).then_some((rank, index))
    };
    rules.iter().enumerate().filter_map(rank).max().map(|(_, index)| index)
}

#[test]
fn compiled_rules_give_what_a_plain_search_gives() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let hosts = ["a.b", "*.b", "*.a.b", "c.a.b", "b"];
    let paths = ["/", "/x", "/x/y", "/x/y/z", "/xy"];
    for round in 0..300 {
        let rules: Vec<Rule> = (0..1 + pick(12))
            .map(|_| {
                let path = paths[pick(paths.len())];
                let rule = [exact(path), prefix(path), regex("/x.*"), Rule::default()][pick(4)].clone();
                let names = (0..pick(3)).map(|_| host(hosts[pick(hosts.len())])).collect();
                let method = [None, Some("PUT".to_owned())][pick(2)].clone();
                let fields = [field("f", "1"), field("g", "1")][..pick(3)].to_vec();
                Rule { hosts: names, method, fields, ..rule }
            })
            .collect();
        let routes = Routes::compile(&rules);
        for name in ["a.b", "c.a.b", "d.c.a.b", "b", "z"] {
            for path in paths {
                let asked = request(["GET", "PUT"][pick(2)], name, path, &["f: 1", "g: 1"][..pick(3)]);
                assert_eq!(
                    routes.find(&asked),
                    searched(&rules, &asked),
                    "round {round}: {name}{path} {rules:?}"
                );
            }
        }
    }
}
