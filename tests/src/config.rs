//! Configuration texts that fit the lab.

/// Ports and self IPs on both networks; virtual servers and pools come after.
pub const NETWORK: &str = r#"
version: 1
system: {workers: 1}
ports:
  external: {driver: af_packet, interface: net1}
  internal: {driver: af_packet, interface: net2}
self_ips:
  ext4: {address: 192.0.2.10/24, port: external}
  ext6: {address: "2001:db8:1::10/64", port: external}
  int4: {address: 10.1.0.10/24, port: internal}
  int6: {address: "2001:db8:2::10/64", port: internal}
"#;

/// The web servers' pools, `web` and `web6`.
pub const WEB_POOLS: &str = r#"
pools:
  web:
    members:
      - {address: 10.1.0.11, port: 8080}
      - {address: 10.1.0.12, port: 8080}
  web6:
    members:
      - {address: "2001:db8:2::11", port: 8080}
      - {address: "2001:db8:2::12", port: 8080}
"#;

/// Virtual servers `web` on 192.0.2.100:80 and `web6` on `[2001:db8:1::100]:80`.
pub const WEB_VIRTUALS: &str = r#"
virtual_servers:
  web: {destination: "192.0.2.100:80", protocol: tcp, type: performance-l4, pool: web, snat: automap}
  web6: {destination: "[2001:db8:1::100]:80", protocol: tcp, type: performance-l4, pool: web6, snat: automap}
"#;

/// The web servers behind both virtual addresses.
pub fn web() -> String {
    [NETWORK, WEB_POOLS, WEB_VIRTUALS].concat()
}

/// [`NETWORK`] and then `rest`.
pub fn network_and(rest: &str) -> String {
    [NETWORK, rest].concat()
}

/// One TCP virtual server `web` on 192.0.2.100:80 for the IPv4 pool `web`, with more `options` in YAML's flow style:
/// `"idle_timeout: 2s, snat: none"`.
pub fn web_with(options: &str) -> String {
    let virtuals = format!(
        "virtual_servers:\n  web: {{destination: \"192.0.2.100:80\", protocol: tcp, type: performance-l4, pool: web, {options}}}\n"
    );
    [NETWORK, WEB_POOLS, &virtuals].concat()
}

/// A pool with these `members` (YAML) in place of the two of [`web_with`].
pub fn pool_of(options: &str, members: &[&str]) -> String {
    let members = members.iter().map(|member| format!("      - {{{member}}}\n")).collect::<String>();
    format!(
        "{NETWORK}pools:\n  web:\n{options}    members:\n{members}virtual_servers:\n  web: {{destination: \"192.0.2.100:80\", protocol: tcp, type: performance-l4, pool: web, snat: automap}}\n"
    )
}
