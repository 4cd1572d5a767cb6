//! PROXY headers over both families: written by sluice and read by nginx, written by python and read by sluice.

use sluice_tests::origin::Program;
use sluice_tests::stage::{self, Stage};
use sluice_tests::{Server, run, show};

/// The client's address and the virtual server's, as they are and as they stand in a URL.
const FAMILIES: [(&str, &str, &str); 2] =
    [("192.0.2.1", "192.0.2.100", "192.0.2.100"), ("2001:db8:1::1", "2001:db8:1::100", "[2001:db8:1::100]")];

/// Virtual servers with HTTP on port 80 and without on 81, of both families, before nginx on port 8090.
fn before_nginx(proxy_protocol: &str) -> String {
    let mut text = "  pp: {members: [{address: 10.1.0.11, port: 8090}]}
  pp6: {members: [{address: \"2001:db8:2::11\", port: 8090}]}
virtual_servers:
"
    .to_owned();
    for (family, (_, _, host), pool) in [("four", FAMILIES[0], "pp"), ("six", FAMILIES[1], "pp6")] {
        for (port, http) in [(80, "http: {}, "), (81, "")] {
            text += &format!(
                "  {family}-{port}: {{destination: \"{host}:{port}\", type: standard, pool: {pool}, snat: automap, {http}proxy_protocol: {{{proxy_protocol}}}}}\n"
            );
        }
    }
    stage::with_pools(&text)
}

/// Nginx as a member that wants PROXY headers and tells what it read.
fn nginx_behind(stage: &Stage, server: &Server) -> Program {
    let directory = stage.world.lab.directory();
    let config = format!(
        "daemon off; master_process off; user root; pid {0}/pp.pid; error_log {0}/pp.log; events {{}}
http {{
    access_log off; client_body_temp_path {0}/pp1; proxy_temp_path {0}/pp2; fastcgi_temp_path {0}/pp3;
    uwsgi_temp_path {0}/pp4; scgi_temp_path {0}/pp5;
    server {{
        listen [::]:8090 ipv6only=off proxy_protocol;
        location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port $remote_addr\\n\"; }}
    }}
}}
",
        directory.display()
    );
    let path = stage.world.sluice.write("pp.conf", &config);
    let log = format!("{}/pp.log", directory.display());
    Program::spawn(&server.namespace, &["nginx", "-e", &log, "-c", &path]).listening(&server.namespace, 8090)
}

/// Nginx reads what sluice writes, in both versions and families, with HTTP and without.
#[test]
fn members_are_told_who_the_client_is() {
    let Some(stage) = Stage::start(&before_nginx("send: v1")) else { return };
    let _nginx = nginx_behind(&stage, &stage.world.lab.servers()[0]);
    for send in ["send: v1", "send: v2", "send: v2, crc: true"] {
        stage.world.sluice.apply(&before_nginx(send));
        for (client, server, host) in FAMILIES {
            for (port, local) in [(80, 20_080), (81, 20_981)] {
                let url = format!("http://{host}:{port}/");
                let told =
                    run(stage.curl().args(["--local-port", &format!("{local}-{}", local + 900), &url]));
                let words: Vec<&str> = told.split_whitespace().collect();
                let remote = if host.starts_with('[') { "2001:db8:2::10" } else { "::ffff:10.1.0.10" };
                assert_eq!(words, [client, words[1], server, &port.to_string(), remote], "{send}");
                let from: u32 = words[1].parse().expect("a port");
                assert!((local..=local + 900).contains(&from), "{told}");
            }
        }
    }
}

/// Who another proxy says the client is, in either family over either family, reaches the member.
#[test]
fn what_a_header_says_is_passed_on() {
    let Some(stage) = Stage::start(&before_nginx("accept: true, send: v1")) else { return };
    let _nginx = nginx_behind(&stage, &stage.world.lab.servers()[0]);
    let script = "
for server in ('192.0.2.100', '2001:db8:1::100'):
    for port in (80, 81):
        for header, words in (
            (b'PROXY TCP4 198.51.100.7 203.0.113.9 5555 443\\r\\n', b'198.51.100.7 5555 203.0.113.9 443 '),
            (b'PROXY TCP6 2001:db8:9::7 2001:db8:9::9 5555 443\\r\\n', b'2001:db8:9::7 5555 2001:db8:9::9 443 '),
            (v2(1, 0x11, ip('198.51.100.8', '203.0.113.9', (1, 2))), b'198.51.100.8 1 203.0.113.9 2 '),
            (v2(1, 0x21, ip('2001:db8:9::8', '2001:db8:9::9', (1, 2)) + TLV), b'2001:db8:9::8 1 2001:db8:9::9 2 '),
        ):
            answer = exchange(server, [header + REQUEST], port)
            assert answer and words in answer, (server, port, header, answer)
print('told')
";
    for send in ["send: v1", "send: v2", "send: v2, crc: true"] {
        stage.world.sluice.apply(&before_nginx(&format!("accept: true, {send}")));
        assert_eq!(stage.python(&[SPEAKER, script].concat(), &[]).trim(), "told", "{send}");
    }
}

#[test]
fn clients_are_who_a_proxy_header_says() {
    let options = "http: {}, filters: [forwarded: {}], proxy_protocol: {accept: true, from: [192.0.2.1/32, \"2001:db8:1::1/128\"]}";
    let Some(stage) = Stage::start(&stage::http(options)) else { return };
    let script = "
def good(own):
    return [
        (b'PROXY TCP4 198.51.100.7 203.0.113.9 5555 443\\r\\n', '198.51.100.7'),
        (b'PROXY TCP6 2001:db8:9::7 2001:db8:9::9 5555 443\\r\\n', '2001:db8:9::7'),
        (b'PROXY UNKNOWN\\r\\n', own),
        (v2(1, 0x11, ip('198.51.100.8', '203.0.113.9', (1, 2))), '198.51.100.8'),
        (v2(1, 0x21, ip('2001:db8:9::8', '2001:db8:9::9', (1, 2)) + TLV), '2001:db8:9::8'),
        (v2(0, 0, b''), own),
    ]
BAD = [b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n', b'PROXY TCP4 1.2.3 4.5.6.7 1 2\\r\\n', b'PROXY ' + b'x' * 200,
       b'PROXY TCP6 1.2.3.4 4.5.6.7 1 2\\r\\n', b'PROXY TCP4 2001:db8::1 2001:db8::2 1 2\\r\\n',
       SIGNATURE + b'\\x31\\x11\\x00\\x0c' + b'\\0' * 12, v2(1, 0x21, ip('198.51.100.8', '203.0.113.9', (1, 2)))]
for server, own in (('192.0.2.100', '192.0.2.1'), ('2001:db8:1::100', '2001:db8:1::1')):
    for header, client in good(own):
        for parts in ([header + REQUEST], [header, REQUEST], [bytes([byte]) for byte in header] + [REQUEST]):
            answer = exchange(server, parts)
            assert answer and b' 200 OK' in answer, (header, answer)
            echo = json.loads(answer[answer.index(b'{'):answer.rindex(b'}') + 1])
            seen = [value for name, value in echo['headers'] if name.lower() == 'x-forwarded-for']
            assert seen == [client], (header, seen)
    for header in BAD:
        assert exchange(server, [header]) is None, header
print('told')
";
    assert_eq!(stage.python(&[SPEAKER, script].concat(), &[]).trim(), "told");
    for name in ["web", "web6"] {
        let counted = show::number(&stage.world.sluice.object("virtual-servers", name), "/connections/total");
        assert_eq!(counted, 3 * 6 + 7, "{name}");
    }

    // From others no header is read.
    let client = stage.world.lab.client();
    let interface = run(client.command("ip").args(["-o", "addr", "show", "to", "192.0.2.1"]));
    let interface = interface.split_whitespace().nth(1).expect("the client's interface");
    run(client.command("ip").args(["addr", "add", "192.0.2.77/24", "dev", interface]));
    run(client.command("ip").args(["addr", "add", "2001:db8:1::77/64", "dev", interface, "nodad"]));
    for (from, host) in [("192.0.2.77", FAMILIES[0].2), ("2001:db8:1::77", FAMILIES[1].2)] {
        let url = format!("http://{host}/echo");
        let echo = run(stage.curl().args(["--interface", from, &url]));
        let echo = serde_json::from_str(&echo).expect("JSON");
        assert_eq!(stage::received(&echo, "x-forwarded-for"), [from]);
    }
}

/// What the scripts here have in common: headers, and a connection that sends parts and gives what came, or nothing
/// after a reset.
const SPEAKER: &str = "
import json, socket, struct
SIGNATURE = b'\\r\\n\\r\\n\\x00\\r\\nQUIT\\n'
TLV = b'\\x04' + struct.pack('>H', 3) + b'abc'
REQUEST = b'GET /echo HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'
def v2(command, family, body):
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack('>H', len(body)) + body
def ip(client, server, ports):
    family = socket.AF_INET6 if ':' in client else socket.AF_INET
    return b''.join(socket.inet_pton(family, end) for end in (client, server)) + struct.pack('>HH', *ports)
def exchange(server, parts, port=80):
    connection = socket.create_connection((server, port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = b''
    try:
        for part in parts:
            connection.sendall(part)
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionError:
        return None
    return answer
";
