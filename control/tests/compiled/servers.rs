//! Virtual servers, source translation and NATs.

use sluice_dataplane::address::Prefix;
use sluice_dataplane::config::ids::{LinkId, PortId};
use sluice_dataplane::config::snapshot::{
    Ingress, Nat, Persistence, PersistenceKind, Snat, SourcePort, VirtualKind,
};

use crate::{EXT, INT, address, ip, server, with};

#[test]
fn a_virtual_server_takes_every_option() {
    let plain = server("");
    assert_eq!((plain.rate_limit, plain.mss_clamp, plain.persistence), (0, None, None));
    let said = server("rate_limit: 500, mss_clamp: 1360, source_port: preserve-strict");
    assert_eq!((said.rate_limit, said.mss_clamp), (500, Some(1360)));
    assert_eq!(said.source_port, SourcePort::PreserveStrict);
    assert_eq!(server("source_port: change").source_port, SourcePort::Change);
    let stateless = server("type: stateless, protocol: udp, persistence: hash");
    assert_eq!(stateless.kind, VirtualKind::Stateless);
    assert!(stateless.pool.is_some());
    assert_eq!(server("snat: {list: egress}").snat, Snat::List(0));
    let forwarding = server("type: forwarding-ip, snat: {list: egress}, mss_clamp: 1400");
    assert_eq!((forwarding.snat, forwarding.mss_clamp), (Snat::List(0), Some(1400)));
}

#[test]
fn persistence_is_a_word_or_a_map() {
    let persistence = |text: &str| server(&format!("persistence: {text}")).persistence;
    for (word, kind) in [
        ("source-address", PersistenceKind::SourceAddress),
        ("destination-address", PersistenceKind::DestinationAddress),
        ("hash", PersistenceKind::Hash),
    ] {
        assert_eq!(persistence(word), Some(Persistence::new(kind)), "{word}");
        assert_eq!(persistence(&format!("{{type: {word}}}")), Some(Persistence::new(kind)), "{word}");
        assert_eq!(
            persistence(&format!("{{type: {word}, timeout: }}")),
            Some(Persistence::new(kind)),
            "{word}"
        );
    }
    let masked =
        persistence("{type: source-address, mask: 255.255.255.0, mask_v6: \"ffff:ffff::\", timeout: 5m}");
    let plain = Persistence::new(PersistenceKind::SourceAddress);
    assert_eq!(masked, Some(Persistence { mask_v4: 24, mask_v6: 32, timeout_ms: 300_000, ..plain }));
    let counted = persistence("{type: source-address, mask: 0, mask_v6: 64}");
    assert_eq!(counted, Some(Persistence { mask_v4: 0, mask_v6: 64, ..plain }));
    let matched = |field: &str| persistence(&format!("{{type: source-address, {field}: true}}"));
    assert_eq!(matched("match_across_services"), Some(Persistence { match_across_services: true, ..plain }));
    assert_eq!(matched("match_across_virtuals"), Some(Persistence { match_across_virtuals: true, ..plain }));
    assert_eq!(matched("match_across_pools"), Some(Persistence { match_across_pools: true, ..plain }));
    assert_eq!(
        matched("override_connection_limit"),
        Some(Persistence { override_connection_limit: true, ..plain })
    );
}

#[test]
fn a_snat_lists_longest_prefix_stands_first() {
    let parts = with(
        "snat_pools: {few: {addresses: [192.0.2.50]}, many: {addresses: [192.0.2.60, 192.0.2.61]}}\n\
         snat_lists:\n  a: [{source: 172.16.0.0/12, snat: automap}]\n  b:\n    \
         - {source: 0.0.0.0/0, snat: automap}\n    \
         - {source: [10.1.0.0/16, 10.2.3.4], snat: {pool: many}}\n    \
         - {source: 10.0.0.0/8, snat: none}\n    \
         - {source: \"2001:db8::/32\", snat: none}\n",
    )
    .parts;
    assert_eq!(parts.snat_lists.iter().map(|list| list.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let v4 = |text: &str, length| Prefix::new(ip(text), length);
    assert_eq!(
        parts.snat_lists[1].rows,
        [
            (v4("10.2.3.4", 32), Snat::Pool(1)),
            (v4("10.1.0.0", 16), Snat::Pool(1)),
            (v4("10.0.0.0", 8), Snat::None),
            (v4("0.0.0.0", 0), Snat::Automap),
            (Prefix::new(ip("2001:db8::"), 32), Snat::None),
        ]
    );
}

#[test]
fn nats_translate_one_address_to_one() {
    let parts = with(
        "nats:\n  mail: {origin: 10.1.0.25, translation: 192.0.2.25}\n  \
         six: {origin: \"2001:db8::5\", translation: \"2001:db8:1::5\", ports: [ext], vlan: [0, 7]}\n",
    )
    .parts;
    let nat = |name: &str, origin, translation, ingress| Nat {
        name: name.into(),
        origin: address(origin),
        translation: address(translation),
        ingress,
    };
    let links = Ingress::Links(vec![LinkId::new(EXT, 0), LinkId::new(EXT, 7)]);
    let expected = [
        nat("mail", "10.1.0.25", "192.0.2.25", Ingress::Any),
        nat("six", "2001:db8::5", "2001:db8:1::5", links),
    ];
    assert_eq!(parts.nats, expected);
}

#[test]
fn rejected_vlans_leave_every_other_that_is_configured() {
    let ingress = |fields: &str| {
        let other = "b: {destination: 192.0.2.101:80, type: reject, vlan: [7, 8], ports: [ext]}";
        let text = format!(
            "virtual_servers:\n  a: {{destination: 192.0.2.100:80, type: reject, {fields}}}\n  {other}\n"
        );
        with(&text).parts.virtuals[0].ingress.clone()
    };
    let links = |links: &[(PortId, u16)]| {
        Ingress::Links(links.iter().map(|(port, vlan)| LinkId::new(*port, *vlan)).collect())
    };
    assert_eq!(ingress("reject_vlan: [0, 7]"), links(&[(EXT, 8), (INT, 100)]));
    assert_eq!(ingress("reject_vlan: 0, ports: [int]"), links(&[(INT, 100)]));
    assert_eq!(ingress("reject_vlan: 4000"), links(&[(EXT, 0), (EXT, 7), (EXT, 8), (INT, 0), (INT, 100)]));
}

#[test]
fn disabled_virtual_servers_capture_unless_the_system_says_otherwise() {
    assert!(!with("").parts.settings.continue_matching);
    assert!(with("system: {continue_matching: true}\n").parts.settings.continue_matching);
}
