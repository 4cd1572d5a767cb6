//! Persistence by cookie over several workers: what sluice inserts, what members say themselves, and an application's own.

use sluice_tests::stage::{self, Stage};
use sluice_tests::{run, show};
use std::collections::{BTreeMap, BTreeSet};

fn staged(cookie: &str, workers: usize) -> Option<Stage> {
    let text = stage::http(&format!("http: {{}}, persistence: {{type: cookie, {cookie}}}"));
    // A member that comes back has all its clients at once.
    let text = text.replace("web: {members", "web: {slow_ramp_time: 0s, members");
    Stage::start(&text.replace("workers: 1", &format!("workers: {workers}")))
}

const MEMBERS: [(&str, &str); 2] = [("one", "10.1.0.11:8000"), ("two", "10.1.0.12:8000")];

/// The member that is not `name`: its name and its address.
fn other_than(name: &str) -> (&'static str, &'static str) {
    MEMBERS[usize::from(name == "one")]
}

fn address_of(name: &str) -> &'static str {
    MEMBERS[usize::from(name == "two")].1
}

/// Curl keeps cookies as a browser does: every client stays where its first request went, on whatever worker its
/// connections arrive.
#[test]
fn clients_with_a_jar_stay_over_all_workers() {
    let Some(stage) = staged("method: insert, name: stay", 4) else { return };
    let mut shares = BTreeMap::new();
    for client in 0..12 {
        let jar = stage.world.lab.directory().join(format!("jar{client}"));
        let jar = jar.to_string_lossy();
        let ask = |family: &str, count: usize| {
            let url = format!("http://{family}/status/200?[1-{count}]");
            let arguments = ["-b", &jar, "-c", &jar, "-H", "Connection: close", "-i", &url];
            let text = run(stage.curl().args(arguments));
            let names = text.lines().filter_map(|line| line.strip_prefix("X-Origin: ").map(str::to_owned));
            let names: Vec<String> = names.collect();
            assert_eq!(names.len(), count, "{text}");
            (names.into_iter().collect::<BTreeSet<_>>(), text.matches("Set-Cookie: ").count())
        };
        for family in ["192.0.2.100", "[2001:db8:1::100]"] {
            let (first, set) = ask(family, 1);
            assert_eq!(set, 1, "the first answer sets the cookie");
            let (again, set) = ask(family, 8);
            assert_eq!((&again, set), (&first, 0), "client {client} over {family}");
            *shares.entry((family.to_owned(), first)).or_insert(0) += 1;
        }
    }
    assert_eq!(shares.len(), 4, "both members have clients of both families: {shares:?}");
    let workers = stage.world.sluice.show("workers");
    let busy = workers.as_array().into_iter().flatten();
    let busy = busy.filter(|worker| show::number(worker, "/traffic/packets_in") > 0).count();
    assert_eq!(busy, 4, "{workers}");
}

/// The member sets the cookie in BIG-IP's format; sluice only reads it.
#[test]
fn members_may_set_the_cookie_themselves() {
    let Some(mut stage) = staged("method: passive, name: BIGipServerweb", 3) else { return };
    let path = "/own-cookie/BIGipServerweb";
    let mut cookies = BTreeMap::new();
    for _ in 0..8 {
        let first = stage.get(path, &[]);
        let cookie = first.field("set-cookie").split(';').next().unwrap_or_default().to_owned();
        cookies.insert(first.text().trim().to_owned(), format!("Cookie: a=b; {cookie}"));
    }
    assert_eq!(cookies["one"], "Cookie: a=b; BIGipServerweb=184549642.16415.0000", "of 10.1.0.11:8000");
    for (name, cookie) in &cookies {
        for _ in 0..8 {
            let again = stage.get(path, &["-H", cookie]);
            assert_eq!(again.text().trim(), name);
            assert!(again.fields("set-cookie").is_empty(), "sluice adds none: {}", again.head);
        }
    }
    // Of members of the other family, and of nobody: as without a cookie.
    for value in ["vi20010db8000200000000000000000011.16415", "184549642.20480.0000", "1.2.3", ""] {
        let cookie = format!("Cookie: BIGipServerweb={value}");
        let names: BTreeSet<String> = (0..12).map(|_| stage.get(path, &["-H", &cookie]).text()).collect();
        assert_eq!(names.len(), 2, "{value:?} names nobody");
    }
    six_by_their_own_cookie(&stage, path);

    stage.world.sluice.must(&["member", "disable", "web", address_of("one")]);
    assert_eq!(
        stage.get(path, &["-H", &cookies["one"]]).text(),
        "one\n",
        "a disabled member keeps its clients"
    );
    stage.world.sluice.must(&["member", "offline", "web", address_of("one")]);
    assert_eq!(stage.get(path, &["-H", &cookies["one"]]).text(), "two\n");
    stage.origins[0].kill();
    assert_eq!(stage.get(path, &["-H", &cookies["one"]]).text(), "two\n");
}

fn six_by_their_own_cookie(stage: &Stage, path: &str) {
    let url = format!("http://[2001:db8:1::100]{path}");
    for (name, value) in [
        ("one", "vi20010db8000200000000000000000011.16415"),
        ("two", "vi20010db8000200000000000000000012.16415"),
    ] {
        for _ in 0..6 {
            let cookie = format!("Cookie: BIGipServerweb={value}");
            assert_eq!(run(stage.curl().args(["-H", &cookie, &url])).trim(), name);
        }
    }
    let set = run(stage.curl().args(["-i", &url]));
    assert!(set.contains("Set-Cookie: BIGipServerweb=vi20010db800020000000000000000001"), "{set}");
}

/// An application's session goes to one member, on every worker the same, and only those of a member that is gone go
/// elsewhere.
#[test]
fn sessions_have_a_member_by_their_hash() {
    let Some(stage) = staged("method: hash, name: sid", 3) else { return };
    let member_of = |sid: usize| {
        let cookie = format!("Cookie: theme=dark; sid={sid:08x}; last=1");
        let reply = stage.get(&format!("/session/{sid:08x}"), &["-H", &cookie]);
        assert_eq!(reply.fields("set-cookie"), [format!("sid={sid:08x}; Path=/; HttpOnly")], "as it was");
        reply.text().trim().to_owned()
    };
    let all = || (0..60).map(member_of).collect::<Vec<_>>();
    let first = all();
    let of_one = first.iter().filter(|name| *name == "one").count();
    // Five standard deviations of 60 fair draws; these are always the same.
    assert!((11..=49).contains(&of_one), "{of_one} of 60");
    assert_eq!(all(), first, "on whatever worker");

    let (name, address) = other_than("one");
    stage.world.sluice.must(&["member", "offline", "web", address]);
    assert!(all().iter().all(|member| member != name));
    stage.world.sluice.must(&["member", "enable", "web", address]);
    assert_eq!(all(), first, "each is back where it was");

    // Without a session there is nothing to hash.
    let names: BTreeSet<String> = (0..12).map(|_| stage.get("/session/new", &[]).text()).collect();
    assert_eq!(names.len(), 2);
}
