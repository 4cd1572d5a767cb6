//! The configurations of the full proxies and of their origin: HTTP on port 80, bytes as they are on port 81.
//!
//! Each has one worker or thread, and keeps connections to the origin for the next request.

use std::fmt::Write as _;
use std::path::Path;

/// Ports of the origin, each a member: new connections find a free port of ours for a long time.
const MEMBER_PORTS: std::ops::Range<u16> = 8080..8084;

/// An origin: 128 bytes at `/`, files of 16 KiB and 1 MiB at `/16k` and `/1m`. Several share the ports.
pub fn origin(dir: &Path, name: &str) -> String {
    let mut listens = String::new();
    for port in MEMBER_PORTS {
        // A String takes whatever is written.
        let _ = write!(listens, "listen 10.77.0.2:{port} reuseport; ");
    }
    let (head, object) = (nginx_head(dir, name), "x".repeat(128));
    format!(
        "{head}
http {{
{}
  sendfile on;
  server {{ {listens} root {}; location = / {{ return 200 '{object}'; }} }}
}}
",
        nginx_http(dir),
        dir.display()
    )
}

/// nginx as a proxy, with its stream module from `module` if there is one.
pub fn nginx(dir: &Path, module: Option<&Path>) -> String {
    let (load, stream) = match module {
        Some(path) => (
            format!("load_module {};\n", path.display()),
            format!(
                "stream {{ upstream raw {{ {} }} server {{ listen 10.66.0.100:81; proxy_pass raw; }} }}\n",
                servers()
            ),
        ),
        None => (String::new(), String::new()),
    };
    format!(
        "{load}{}
http {{
{}
  upstream web {{ {} keepalive 256; }}
  server {{
    listen 10.66.0.100:80;
    proxy_http_version 1.1; proxy_set_header Connection ''; proxy_max_temp_file_size 0;
    location / {{ proxy_pass http://web; }}
  }}
}}
{stream}",
        nginx_head(dir, "nginx"),
        nginx_http(dir),
        servers()
    )
}

fn nginx_head(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 16384;
pid {dir}/{name}.pid; error_log {dir}/{name}.log;
events {{ worker_connections 8192; }}"
    )
}

fn nginx_http(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir}; uwsgi_temp_path {dir};
  scgi_temp_path {dir};"
    )
}

fn servers() -> String {
    MEMBER_PORTS.map(|port| format!("server 10.77.0.2:{port};")).collect::<Vec<_>>().join(" ")
}

/// HAProxy.
pub fn haproxy() -> String {
    let servers: String = MEMBER_PORTS.map(|port| format!("  server s{port} 10.77.0.2:{port}\n")).collect();
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
listen web
  mode http
  http-reuse always
  bind 10.66.0.100:80
{servers}listen raw
  mode tcp
  bind 10.66.0.100:81
{servers}"
    )
}

/// sluice, which members see as `inner`.
pub fn sluice(inner: &str) -> String {
    let members: Vec<String> =
        MEMBER_PORTS.map(|port| format!("{{address: 10.77.0.2, port: {port}}}")).collect();
    format!(
        "version: 1
system: {{workers: [1], idle: adaptive}}
ports:
  external: {{driver: af_packet, interface: p0}}
  internal: {{driver: af_packet, interface: p1}}
self_ips:
  ext: {{address: 10.66.0.10/24, port: external}}
  int: {{address: {inner}/24, port: internal}}
pools:
  web: {{members: [{}]}}
virtual_servers:
  web: {{destination: '10.66.0.100:80', type: standard, pool: web, snat: automap, http: {{}}}}
  raw: {{destination: '10.66.0.100:81', type: standard, pool: web, snat: automap}}
",
        members.join(", ")
    )
}
