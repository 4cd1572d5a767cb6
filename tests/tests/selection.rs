//! Which member several workers choose, among real programs.

use sluice_tests::farm::{Farm, connect_at_once, pool};
use sluice_tests::{LinkKind, Members, Sluice, World, peer, run, show, wait};
use std::collections::BTreeSet;
use std::time::Duration;

/// Every member answered its share of `members`, give or take `spread` connections.
fn expect_shares(members: &Members, shares: [usize; 4], spread: usize) {
    for (name, share) in Farm::NAMES.iter().zip(shares) {
        let count = members.get(*name).copied().unwrap_or(0);
        assert!(count.abs_diff(share) <= spread, "{name} is to have {share} ± {spread} in {members:?}");
    }
}

#[test]
fn members_take_turns_on_every_worker() {
    for link in [LinkKind::Veth, LinkKind::Macvlan] {
        let Some(farm) = Farm::start(link, &pool("", [""; 4])) else { return };
        // Each of three workers is even to less than one connection.
        expect_shares(&farm.members_of(120), [30; 4], 2);
    }
}

#[test]
fn ratios_hold_over_all_workers() {
    let ratios = [", ratio: 1", ", ratio: 2", ", ratio: 3", ", ratio: 6"];
    let Some(farm) = Farm::start(LinkKind::Macvlan, &pool("    load_balancing: ratio-member\n", ratios))
    else {
        return;
    };
    expect_shares(&farm.members_of(120), [10, 20, 30, 60], 4);
}

#[test]
fn the_fewest_connections_are_made_up_for_on_every_worker() {
    let options = "    load_balancing: least-connections\n    slow_ramp_time: 0s\n";
    let Some(farm) = Farm::start(LinkKind::Veth, &pool(options, [""; 4])) else { return };
    farm.member("disable", 0);
    let first = connect_at_once(&farm.world, "192.0.2.100:80", 60);
    assert_eq!(first.open.len(), 60, "{:?}", first.refused);
    expect_shares(&current(&farm), [0, 20, 20, 20], 2);

    farm.member("enable", 0);
    let second = connect_at_once(&farm.world, "192.0.2.100:80", 60);
    assert_eq!(second.open.len(), 60, "{:?}", second.refused);
    expect_shares(&current(&farm), [30; 4], 2);
}

/// The connections that each member has now.
fn current(farm: &Farm) -> Members {
    let members = farm.world.sluice.show("members");
    let count = |(member, name): (&&str, &&str)| {
        let row = show::entry(&members, "member", member);
        ((*name).to_owned(), show::number(row, "/connections/current") as usize)
    };
    sluice_tests::farm::MEMBERS.iter().zip(&Farm::NAMES).map(count).collect()
}

#[test]
fn a_clients_port_names_the_same_member_after_a_restart_and_on_fewer_workers() {
    let text = pool("    load_balancing: consistent-hash\n", [""; 4]);
    let Some(mut farm) = Farm::start(LinkKind::Veth, &text) else { return };
    let before = farm.members_by_port(30_001..30_049);
    assert_eq!((before.len(), before.iter().collect::<BTreeSet<_>>().len()), (48, 4), "{before:?}");

    let Farm { world: World { sluice, lab }, .. } = &mut farm;
    wait::until("the client's ports are free", Duration::from_secs(5), || {
        run(lab.client().command("ss").args(["-Htan"])).is_empty().then_some(())
    });
    sluice.signal_and_wait(rustix::process::Signal::INT, Duration::from_secs(10));
    *sluice = Sluice::start(lab.sluice(), lab.directory(), &text.replace("workers: 3", "workers: 2"));
    assert_eq!(farm.members_by_port(30_001..30_049), before);
}

#[test]
fn the_next_priority_group_joins_while_too_few_members_are_up() {
    let options = "    min_active_members: 2\n    slow_ramp_time: 0s\n";
    let [high, low] = [", priority_group: 10", ", priority_group: 5"];
    let Some(farm) = Farm::start(LinkKind::Veth, &pool(options, [high, high, low, low])) else { return };
    let at_work = || farm.members_of(24).into_keys().collect::<Vec<_>>().join(" ");
    assert_eq!(at_work(), "server1 server2");

    farm.member("offline", 0);
    assert_eq!(at_work(), "server2 server3 server4", "one of the high group is too few");
    farm.member("offline", 1);
    assert_eq!(at_work(), "server3 server4");
    farm.member("enable", 0);
    farm.member("enable", 1);
    assert_eq!(at_work(), "server1 server2", "the low group is at rest again");
}

#[test]
fn connections_to_an_offline_member_are_reset_where_asked_and_others_go_on() {
    let Some(farm) = Farm::start(LinkKind::Veth, &pool("    service_down_action: reset\n", [""; 4])) else {
        return;
    };
    let tried = connect_at_once(&farm.world, "192.0.2.100:80", 40);
    assert_eq!(tried.open.len(), 40, "{:?}", tried.refused);
    let doomed = current(&farm)["server1"];

    farm.member("offline", 0);
    let mut streams = tried.open;
    let is_reset = |stream: &std::net::TcpStream| stream.take_error().expect("a socket").is_some();
    wait::until("the resets", Duration::from_secs(5), || {
        streams.retain(|stream| !is_reset(stream));
        (streams.len() == 40 - doomed).then_some(())
    });
    for stream in &mut streams {
        assert_ne!(peer::fetch(stream).expect("an open connection"), "server1");
    }
}

#[test]
fn a_member_where_nobody_listens_is_passed_over() {
    let text =
        pool("    reselect_tries: 3\n", [""; 4]).replace("10.1.0.12, port: 8081", "10.1.0.12, port: 9");
    let Some(farm) = Farm::start(LinkKind::Macvlan, &text) else { return };
    let members = farm.members_of(60);
    assert_eq!(members.values().sum::<usize>(), 60, "{members:?}");
    assert!(!members.contains_key("server4"), "{members:?}");
    let row = farm.world.sluice.show("members");
    let row = show::entry(&row, "member", "10.1.0.12:9");
    assert!(show::number(row, "/connections/total") > 0, "its kernel was asked, and refused: {row}");
}

#[test]
fn silent_and_refusing_members_cost_retries_and_no_connection() {
    let unreachable =
        pool("    reselect_tries: 3\n", [""; 4]).replace("10.1.0.12, port: 8081", "10.1.0.99, port: 1");
    let Some(farm) = Farm::start(LinkKind::Veth, &unreachable) else { return };
    // The second server drops what comes for port 8080, as a firewall would.
    let silent =
        "add table t; add chain t c {type filter hook input priority 0;}; add rule t c tcp dport 8080 drop";
    run(farm.world.lab.servers()[1].namespace.command("nft").arg(silent));
    let tried = connect_at_once(&farm.world, "192.0.2.100:80", 40);
    assert_eq!(tried.open.len(), 40, "{:?}", tried.refused);
    let mut names = tried.open.into_iter().map(|mut stream| peer::fetch(&mut stream).expect("an answer"));
    assert!(names.all(|name| ["server1", "server3"].contains(&name.as_str())));
}

#[test]
fn a_client_is_refused_when_every_member_refuses() {
    let text = pool("    reselect_tries: 5\n", [""; 4]).replace("port: 808", "port: 908");
    let Some(farm) = Farm::start(LinkKind::Veth, &text) else { return };
    let tried = connect_at_once(&farm.world, "192.0.2.100:80", 10);
    assert!(tried.open.is_empty() && tried.all_reset(), "{:?}", tried.refused);
}
