//! Routes, filters and cookies of a full proxy, from curl to the origin and back.

use serde_json::json;
use sluice_tests::stage::{self, Stage, received};
use std::collections::BTreeMap;

/// A virtual server for pool `one` with `rest`, in YAML's block style, below `http`.
fn site(rest: &str) -> String {
    stage::with_pools(&format!(
        "virtual_servers:
  web:
    destination: \"192.0.2.100:80\"
    type: standard
    pool: one
    snat: automap
    http: {{}}
{rest}"
    ))
}

#[test]
fn requests_go_where_their_host_path_fields_query_and_method_say() {
    let text = site(
        "    routes:
      - {match: {host: two.example.com}, pool: two}
      - {match: {host: \"*.two.example\"}, pool: two}
      - {match: {path: /api}, pool: two}
      - {match: {path: {exact: /echo/exact}}, pool: two}
      - {match: {path: {regex: \"/echo/[0-9]+\"}}, pool: two}
      - {match: {headers: {x-canary: \"yes\"}}, pool: two}
      - {match: {query: [{name: v, regex: \"2.*\"}]}, pool: two}
      - {match: {method: DELETE}, pool: two}
      - {match: [{host: a.example, path: /echo/a}, {host: b.example, path: /echo/b}], pool: two}
",
    );
    let Some(stage) = Stage::start(&text) else { return };
    let rows: [(&str, &[&str], &str); 19] = [
        ("/echo", &[], "one"),
        ("/echo", &["-H", "Host: two.example.com"], "two"),
        ("/echo", &["-H", "Host: TWO.example.com:80"], "two"),
        ("/echo", &["-H", "Host: www.two.example"], "two"),
        ("/echo", &["-H", "Host: two.example"], "one"),
        ("/api", &[], "two"),
        ("/api/x?y", &[], "two"),
        ("/apis", &[], "one"),
        ("/echo/exact", &[], "two"),
        ("/echo/exact/x", &[], "one"),
        ("/echo/42", &[], "two"),
        ("/echo/42x", &[], "one"),
        ("/echo", &["-H", "X-Canary: yes"], "two"),
        ("/echo", &["-H", "X-Canary: no"], "one"),
        ("/echo?v=22", &[], "two"),
        ("/echo?v=12", &[], "one"),
        ("/echo", &["-X", "DELETE"], "two"),
        ("/echo/a", &["-H", "Host: a.example"], "two"),
        ("/echo/a", &["-H", "Host: b.example"], "one"),
    ];
    for (path, arguments, name) in rows {
        assert_eq!(stage.echo(path, arguments)["name"], name, "{path} {arguments:?}");
    }
    // Requests of one connection go each its own way.
    let text = sluice_tests::run(stage.curl().args(["http://192.0.2.100/{echo,api,apis,api/x}"]));
    let names: Vec<&str> =
        text.split("\"name\": \"").skip(1).filter_map(|part| part.split('"').next()).collect();
    assert_eq!(names, ["one", "two", "one", "two"]);
}

#[test]
fn pools_of_a_route_share_by_weight_and_nothing_else_is_found() {
    let text = site(
        "    routes:
      - {match: {path: /echo}, pools: [{pool: one, weight: 3}, {pool: two, weight: 1}]}
      - {match: {path: /never}, pools: [{pool: one, weight: 0}, {pool: two, weight: 5}]}
",
    )
    .replace("    pool: one\n", "");
    let Some(stage) = Stage::start(&text) else { return };
    let text = sluice_tests::run(stage.curl().arg("http://192.0.2.100/echo?[1-400]"));
    let mut names = BTreeMap::new();
    for part in text.split("\"name\": \"").skip(1) {
        *names.entry(part.split('"').next().unwrap_or_default()).or_insert(0) += 1;
    }
    // Four standard deviations of 400 draws.
    assert!(names["one"] + names["two"] == 400 && (265..=335).contains(&names["one"]), "{names:?}");
    assert_eq!(stage.echo("/never", &[])["name"], "two");
    let lost = stage.get("/elsewhere", &[]);
    assert_eq!((lost.status, lost.field("sluice-reason")), (404, "no-route"));
}

#[test]
fn fields_and_urls_change_on_their_way() {
    let text = site(
        "    filters:
      - request_headers: {set: {X-Set: new}, add: {X-Add: more}, remove: [X-Gone]}
      - response_headers: {set: {X-Own: ours}, add: {X-Added: \"yes\"}, remove: [Server]}
      - forwarded: {x_forwarded: true, rfc7239: true}
    routes:
      - {match: {path: /old}, filters: [rewrite: {host: in.example, path: {prefix: /echo/new}}]}
      - {match: {path: /all}, filters: [rewrite: {path: {full: /echo/full}}]}
",
    );
    let Some(stage) = Stage::start(&text) else { return };
    let sent = ["-H", "X-Set: old", "-H", "X-Add: one", "-H", "X-Gone: x", "-H", "X-Forwarded-For: 6.6.6.6"];
    let echo = stage.echo("/echo", &sent);
    assert_eq!(received(&echo, "x-set"), ["new"]);
    assert_eq!(received(&echo, "x-add"), ["one", "more"]);
    assert!(received(&echo, "x-gone").is_empty(), "{echo}");
    assert_eq!(received(&echo, "x-forwarded-for"), ["192.0.2.1"], "what the client says is not believed");
    assert_eq!(received(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(received(&echo, "x-forwarded-host"), ["192.0.2.100"]);
    assert!(received(&echo, "forwarded")[0].contains("for=192.0.2.1"), "{echo}");

    let reply = stage.get("/status/200", &[]);
    assert_eq!((reply.field("x-own"), reply.field("x-added")), ("ours", "yes"));
    assert!(reply.fields("server").is_empty(), "{}", reply.head);

    let rewritten = stage.echo("/old/a/b?c=d", &[]);
    assert_eq!(rewritten["target"], "/echo/new/a/b?c=d");
    assert_eq!(received(&rewritten, "host"), ["in.example"]);
    assert_eq!(stage.echo("/all/of/it?c=d", &[])["target"], "/echo/full?c=d");
}

#[test]
fn answers_of_filters_need_no_member() {
    let text = site(
        "    routes:
      - {match: {path: /moved}, filters: [redirect: {scheme: https, host: new.example, path: {prefix: /here}, status: 301}]}
      - {match: {path: /back}, filters: [redirect: {port: 8080}]}
      - {match: {path: /fixed}, filters: [fixed_response: {status: 418, body: \"short and stout\\n\"}]}
      - match: {path: /cors}
        pool: two
        filters: [cors: {allow_origins: [\"http://a.example\"], allow_methods: [GET, PUT], allow_headers: [x-a], max_age: 600s}]
",
    );
    let Some(mut stage) = Stage::start(&text) else { return };
    stage.origins[0].kill();
    let moved = stage.get("/moved/a?b", &[]);
    assert_eq!((moved.status, moved.field("location")), (301, "https://new.example/here/a?b"));
    let back = stage.get("/back", &[]);
    assert_eq!((back.status, back.field("location")), (302, "http://192.0.2.100:8080/back"));
    let fixed = stage.get("/fixed", &[]);
    assert_eq!((fixed.status, fixed.text().as_str()), (418, "short and stout\n"));
    let head = stage.get("/fixed", &["--head"]);
    assert_eq!((head.status, head.field("content-length"), head.body.len()), (418, "16", 0));

    let preflight = |from: &str| {
        let from = format!("Origin: {from}");
        let ask = "Access-Control-Request-Method: PUT";
        stage.get(
            "/cors",
            &["-X", "OPTIONS", "-H", &from, "-H", ask, "-H", "Access-Control-Request-Headers: x-a"],
        )
    };
    let allowed = preflight("http://a.example");
    assert_eq!(allowed.field("access-control-allow-origin"), "http://a.example");
    assert_eq!(allowed.field("access-control-max-age"), "600");
    assert!(allowed.field("access-control-allow-methods").contains("PUT"), "{}", allowed.head);
    assert!(preflight("http://b.example").fields("access-control-allow-origin").is_empty());
    let simple = stage.get("/cors", &["-H", "Origin: http://a.example"]);
    assert_eq!(simple.field("access-control-allow-origin"), "http://a.example");
    assert_eq!(simple.json()["name"], "two");
}

#[test]
fn who_asks_too_often_is_told_so_over_all_workers() {
    let text = site("    filters: [rate_limit: {requests: 1, period: 1h, burst: 7}]\n")
        .replace("workers: 1", "workers: 3");
    let Some(stage) = Stage::start(&text) else { return };
    let mut statuses = BTreeMap::new();
    for _ in 0..20 {
        let reply = stage.get("/status/200", &[]);
        *statuses.entry(reply.status).or_insert(0) += 1;
        assert!(reply.status == 200 || reply.field("retry-after").parse::<u32>().is_ok(), "{}", reply.head);
    }
    assert_eq!(statuses, BTreeMap::from([(200, 7), (429, 13)]));
}

#[test]
fn a_cookie_leads_back_to_its_member() {
    let text =
        stage::http("http: {}, persistence: {type: cookie, method: insert, name: stay, http_only: true}");
    let Some(mut stage) = Stage::start(&text.replace("workers: 1", "workers: 2")) else { return };
    let mut members = Vec::new();
    for _ in 0..2 {
        let first = stage.get("/echo", &[]);
        let cookie = first.field("set-cookie").to_owned();
        assert!(cookie.starts_with("stay=") && cookie.contains("HttpOnly"), "{cookie}");
        let cookie = format!("Cookie: a=b; {}; c=d", cookie.split(';').next().unwrap_or_default());
        let name = first.json()["name"].clone();
        for _ in 0..6 {
            let again = stage.get("/echo", &["-H", &cookie]);
            assert_eq!(again.json()["name"], name);
            assert!(again.fields("set-cookie").is_empty(), "it has the right one: {}", again.head);
        }
        members.push((name, cookie));
    }
    let other = stage.get("/echo", &["-H", "Cookie: stay=1.2.3"]);
    assert!(other.field("set-cookie").starts_with("stay="), "one that names nobody is replaced");

    let (name, cookie) = members.swap_remove(0);
    let place = usize::from(name == "two");
    let address = ["10.1.0.11:8000", "10.1.0.12:8000"][place];
    stage.world.sluice.must(&["member", "disable", "web", address]);
    assert_eq!(stage.echo("/echo", &["-H", &cookie])["name"], name, "a disabled member keeps its clients");
    stage.world.sluice.must(&["member", "offline", "web", address]);
    let moved = stage.get("/echo", &["-H", &cookie]);
    assert_eq!(moved.json()["name"], ["two", "one"][place]);
    assert!(moved.field("set-cookie").starts_with("stay="), "the new member's");
    stage.origins[place].kill();
    assert_eq!(stage.echo("/echo", &["-H", &cookie])["name"], json!(["two", "one"][place]));
}
