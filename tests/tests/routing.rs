//! Clients behind a router: replies go back to the router their packets came from, and routes are obeyed.

use sluice_tests::{LinkKind, Namespace, Segment, World, config, curl, run};

/// `far` -- `router` -- the external network. The router has no route that sluice would know of.
struct Behind {
    world: World,
    far: Namespace,
    // Dropped after `far`, in whose namespace the other end of its link is.
    _router: Namespace,
    _hub: Namespace,
}

impl Behind {
    fn start(config: &str) -> Option<Self> {
        let world = World::start(LinkKind::Veth, config)?;
        let name = |part: &str| format!("{}-{part}", world.lab.client().name());
        let namespace = |part: &str| Namespace::add(&name(part)).expect("a namespace");
        let (far, router, hub) = (namespace("far"), namespace("router"), namespace("farhub"));
        let segment = Segment::add(&hub, "far", LinkKind::Veth).expect("a segment");
        segment.attach(&far, "eth0").expect("a link");
        segment.attach(&router, "eth1").expect("a link");
        world.lab.external().attach(&router, "eth0").expect("a link");
        far.address("eth0", &["198.51.100.2/24", "2001:db8:f::2/64"]).expect("addresses");
        far.ip(&["route add default via 198.51.100.1", "route add default via 2001:db8:f::1"])
            .expect("routes");
        router.address("eth0", &["192.0.2.7/24", "2001:db8:1::7/64"]).expect("addresses");
        router.address("eth1", &["198.51.100.1/24", "2001:db8:f::1/64"]).expect("addresses");
        router.sysctl("net/ipv4/ip_forward", "1").expect("a setting");
        router.sysctl("net/ipv6/conf/all/forwarding", "1").expect("a setting");
        Some(Self { world, far, _router: router, _hub: hub })
    }

    fn curl(&self, url: &str) -> String {
        run(curl(&self.far).arg(url))
    }
}

#[test]
fn replies_go_back_to_the_router_that_a_client_came_through() {
    let Some(behind) = Behind::start(&config::web()) else { return };
    for url in ["http://192.0.2.100/", "http://[2001:db8:1::100]/"] {
        for _ in 0..4 {
            assert!(behind.curl(url).starts_with("server"), "{url}");
        }
    }
    // A ping's answer goes the same way.
    run(behind.far.command("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "2", "192.0.2.100"]));
    run(behind.far.command("ping").args(["-n", "-c", "2", "-i", "0.1", "-W", "2", "2001:db8:1::100"]));
    // The lab's own client, on the network itself, is served as before.
    assert!(behind.world.curl("http://192.0.2.100/").starts_with("server"));
}

#[test]
fn members_behind_a_router_are_reached_by_a_route() {
    let routed = "routes: [{destination: 10.2.0.0/16, gateway: 10.1.0.11}, {destination: 10.2.0.0/30, gateway: 10.1.0.99}]\n";
    let text = config::pool_of("", &["address: 10.2.0.80, port: 8080"]) + routed;
    let Some(world) = World::start(LinkKind::Macvlan, &text) else { return };
    // The first server owns an address of the routed network.
    let server = &world.lab.servers()[0].namespace;
    server.ip(&["addr add 10.2.0.80/32 dev lo"]).expect("an address");
    assert_eq!(world.curl("http://192.0.2.100/"), "server1\n");
}
