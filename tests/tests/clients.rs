//! Other people's HTTP clients through a full proxy: each in its own way, every byte compared.

use sluice_tests::file::{RandomFile, sha256};
use sluice_tests::origin::{PYTHON, Program};
use sluice_tests::stage::{self, Stage};
use sluice_tests::{Server, run, show, skip, try_run};
use std::path::PathBuf;
use std::process::Command;

/// Origins that tell what they received, and two nginx that serve the same random file below `/files`.
struct Site {
    // In this order: the servers end before their namespaces go.
    _nginx: Vec<Program>,
    stage: Stage,
    file: PathBuf,
}

/// The virtual server in both families, as it stands in a URL.
const HOSTS: [&str; 2] = ["192.0.2.100", "[2001:db8:1::100]"];

impl Site {
    /// With two workers; `None`, said loudly, when not root.
    fn start() -> Option<Self> {
        let routes = |pool: &str| format!("http: {{}}, routes: [{{match: {{path: /files}}, pool: {pool}}}]");
        let pools = "pools:
  files: {members: [{address: 10.1.0.11, port: 8092}, {address: 10.1.0.12, port: 8092}]}
  files6: {members: [{address: \"2001:db8:2::11\", port: 8092}, {address: \"2001:db8:2::12\", port: 8092}]}";
        let text = stage::http(&routes("files")).replacen("pools:", pools, 1);
        let (four, six) = text.split_once("  web6: {destination").expect("two virtual servers");
        let six = six.replace("pool: files}", "pool: files6}");
        let text = format!("{four}  web6: {{destination{six}").replace("workers: 1", "workers: 2");
        let stage = Stage::start(&text)?;
        let file = stage.world.lab.directory().join("files/random");
        std::fs::create_dir(file.parent().expect("a folder")).expect("a folder can be made");
        std::fs::copy(&RandomFile::write(LENGTH).path, &file).expect("room for a file");
        let nginx = stage.world.lab.servers().iter().map(|server| nginx(&stage, server)).collect();
        Some(Self { _nginx: nginx, stage, file })
    }

    /// A program in the client's namespace and in a folder for its files.
    fn program(&self, name: &str) -> Command {
        let mut command = self.stage.world.lab.client().command(name);
        command.current_dir(self.stage.world.lab.directory());
        command
    }

    /// Runs `work` for a host and gives how many connections the virtual server counted meanwhile.
    fn connections_of(&self, host: &str, work: impl FnOnce()) -> u64 {
        let name = if host.starts_with('[') { "web6" } else { "web" };
        let total =
            || show::number(&self.stage.world.sluice.object("virtual-servers", name), "/connections/total");
        let before = total();
        work();
        total() - before
    }

    /// Runs a script of python's after [`PRELUDE`] over both families; it uses so many connections.
    fn python(&self, script: &str, connections: u64) {
        let script = [PRELUDE, script].concat();
        for host in HOSTS {
            let counted = self.connections_of(host, || {
                let mut python = self.program(PYTHON);
                let said = run(python.args(["-c", &script]).arg(&self.file).arg(format!("http://{host}")));
                assert_eq!(said.trim(), "as it should be");
            });
            assert_eq!(counted, connections, "connections to {host}");
        }
    }
}

fn nginx(stage: &Stage, server: &Server) -> Program {
    let directory = stage.world.lab.directory().display();
    let name = server.namespace.name();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {directory}/{name}-{kind}; "))
        .concat();
    let config = format!(
        "daemon off; master_process off; user root; pid {directory}/{name}.pid; error_log {directory}/{name}.log; events {{}}
http {{ access_log off; {temporary}
    server {{ listen [::]:8092 ipv6only=off; root {directory}; }}
}}
"
    );
    let path = stage.world.sluice.write(&format!("{name}.conf"), &config);
    let log = format!("{directory}/{name}.log");
    Program::spawn(&server.namespace, &["nginx", "-e", &log, "-c", &path]).listening(&server.namespace, 8092)
}

#[test]
fn wget_fetches_goes_on_and_posts() {
    let Some(site) = Site::start() else { return };
    let bytes = std::fs::read(&site.file).expect("the file");
    for host in HOSTS {
        let url = |path: &str| format!("http://{host}{path}");
        let connections = site.connections_of(host, || {
            let urls: Vec<String> = (0..20).map(|_| url("/files/random")).collect();
            let mut wget = site.program("sh");
            wget.args(["-c", "wget -q -O - \"$@\" | sha256sum", "wget"]).args(urls);
            let mut plain = site.program("sh");
            plain.args(["-c", "for i in $(seq 20); do cat \"$0\"; done | sha256sum"]).arg(&site.file);
            assert_eq!(run(&mut wget), run(&mut plain), "20 times the file");
        });
        assert_eq!(connections, 1, "kept alive");

        // What is there is not fetched again.
        let part = site.file.with_file_name("part");
        std::fs::write(&part, &bytes[..1_234_567]).expect("room for a file");
        run(site.program("wget").args(["-q", "-c", "-O"]).arg(&part).arg(url("/files/random")));
        assert_eq!(sha256(&part), sha256(&site.file));

        let mut wget = site.program("wget");
        wget.args(["-q", "-O", "-"]).arg(format!("--post-file={}", site.file.display())).arg(url("/echo"));
        let echo: serde_json::Value = serde_json::from_str(&run(&mut wget)).expect("JSON");
        assert_eq!((&echo["method"], &echo["sha256"]), (&"POST".into(), &sha256(&site.file).into()));
        assert!(!try_run(site.program("wget").arg("-q").arg(url("/status/404"))).status.success());
    }
}

/// Eight connections, each with parts of the file.
#[test]
fn aria2_puts_a_file_together_from_ranges() {
    let Some(site) = Site::start() else { return };
    for (number, host) in HOSTS.into_iter().enumerate() {
        let out = format!("aria{number}");
        let connections = site.connections_of(host, || {
            let mut aria = site.program("aria2c");
            aria.args(["--no-conf", "-q", "-x8", "-s8", "-k1M", "--file-allocation=none", "-o", &out]);
            run(aria.arg(format!("http://{host}/files/random")));
        });
        assert!(connections >= 8, "{connections} connections");
        assert_eq!(sha256(&site.stage.world.lab.directory().join(&out)), sha256(&site.file), "{host}");
    }
}

/// Bursts of pipelined calls on each connection.
#[test]
fn httperf_gets_a_reply_to_every_call() {
    let Some(site) = Site::start() else { return };
    for (burst, path) in [(1, "/bytes/5000"), (5, "/chunked/5000"), (10, "/files/random")] {
        let mut httperf = site.program("httperf");
        httperf.args(["--hog", "--server=192.0.2.100", "--num-conns=20", "--num-calls=20", "--timeout=20"]);
        httperf.arg(format!("--burst-length={burst}")).arg(format!("--uri={path}"));
        if path.starts_with("/files") {
            httperf.arg("--add-header=Range: bytes=1000-5999\\n");
        }
        let said = run(&mut httperf);
        assert!(said.contains("Total: connections 20 requests 400 replies 400 "), "{said}");
        assert!(said.contains("2xx=400 ") && said.contains("Errors: total 0 "), "{said}");
        assert!(said.contains("content 5000.0 "), "{path}: {said}");
    }
}

#[test]
fn requests_of_python_stay_on_one_connection() {
    let Some(site) = Site::start() else { return };
    let script = "
import requests
with requests.Session() as session:
    session.trust_env = False
    for body in BODIES:
        check_echo(session.post(BASE + '/echo', data=body).json(), body, 'content-length')
        check_echo(session.put(BASE + '/echo', data=pieces_of(body)).json(), body, 'transfer-encoding')
    for first, last in RANGES:
        part = session.get(BASE + '/files/random', headers={'Range': f'bytes={first}-{last}'})
        check_range(part.status_code, part.headers['Content-Range'], part.content, first, last)
    whole = session.get(BASE + '/files/random')
    assert whole.content == FILE
    again = session.get(BASE + '/files/random', headers={'If-None-Match': whole.headers['ETag']})
    assert (again.status_code, again.content) == (304, b'')
    for length in LENGTHS:
        check_sum(session.get(f'{BASE}/chunked/{length}'), length)
        with session.get(f'{BASE}/bytes/{length}', stream=True) as answer:
            assert sum(len(piece) for piece in answer.iter_content(1000)) == length
        assert session.head(f'{BASE}/bytes/{length}').headers['Content-Length'] == str(length)
    assert session.get(BASE + '/status/404').text == 'as asked\\n'
print('as it should be')
";
    site.python(script, 1);
}

/// With h11 behind it, a parser that forgives little.
#[test]
fn httpx_stays_on_one_connection() {
    let Some(site) = Site::start() else { return };
    let script = "
import httpx
with httpx.Client(trust_env=False, timeout=20) as client:
    for body in BODIES:
        check_echo(client.post(BASE + '/echo', content=body).json(), body, 'content-length')
        check_echo(client.put(BASE + '/echo', content=pieces_of(body)).json(), body, 'transfer-encoding')
    for first, last in RANGES:
        part = client.get(BASE + '/files/random', headers={'Range': f'bytes={first}-{last}'})
        check_range(part.status_code, part.headers['Content-Range'], part.content, first, last)
    assert client.get(BASE + '/files/random').content == FILE
    for length in LENGTHS:
        check_sum(client.get(f'{BASE}/chunked/{length}?trailer'), length)
        check_sum(client.get(f'{BASE}/bytes/{length}'), length)
        assert client.head(f'{BASE}/bytes/{length}').headers['Content-Length'] == str(length)
    assert client.get(BASE + '/interim').text == 'after hints\\n'
    assert client.get(BASE + '/status/204').status_code == 204
print('as it should be')
";
    site.python(script, 1);
}

/// Ten connections, kept and shared by a hundred tasks.
#[test]
fn aiohttp_shares_its_connections_among_tasks() {
    let Some(site) = Site::start() else { return };
    let script = "
import aiohttp, asyncio
async def stream_of(body):
    for piece in pieces_of(body):
        yield piece
async def task(session, number):
    body = BODIES[number % len(BODIES)]
    async with session.post(BASE + '/echo', data=body) as answer:
        check_echo(await answer.json(), body, 'content-length')
    async with session.put(BASE + '/echo', data=stream_of(body)) as answer:
        check_echo(await answer.json(), body, 'transfer-encoding')
    first, last = RANGES[number % len(RANGES)]
    async with session.get(BASE + '/files/random', headers={'Range': f'bytes={first}-{last}'}) as answer:
        check_range(answer.status, answer.headers['Content-Range'], await answer.read(), first, last)
    length = LENGTHS[number % len(LENGTHS)]
    async with session.get(f'{BASE}/chunked/{length}') as answer:
        content = await answer.read()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (length, answer.headers['X-Sha256'])
async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=10)) as session:
        await asyncio.gather(*[task(session, number) for number in range(100)])
asyncio.run(main())
print('as it should be')
";
    site.python(script, 10);
}

/// Where there is node: an agent that keeps a connection alive, bodies in chunks, 100 Continue, trailers.
#[test]
fn node_stays_on_one_connection() {
    let Some(site) = Site::start() else { return };
    if !site.program("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("no node");
    }
    let script = "
const http = require('http'), crypto = require('crypto'), fs = require('fs'), assert = require('assert');
const file = fs.readFileSync(process.argv[1]), base = process.argv[2];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const sha256 = bytes => crypto.createHash('sha256').update(bytes).digest('hex');
const ask = (path, options, body) => new Promise((resolve, reject) => {
  const request = http.request(base + path, { agent, ...options }, response => {
    const pieces = [];
    response.on('data', piece => pieces.push(piece));
    response.on('error', reject);
    response.on('end', () => resolve({ status: response.statusCode, headers: response.headers,
      trailers: response.trailers, body: Buffer.concat(pieces) }));
  });
  request.on('error', reject);
  const send = () => {
    for (let at = 0; body && at < body.length; at += 10007) request.write(body.subarray(at, at + 10007));
    request.end();
  };
  if (options.headers && options.headers.Expect) { request.on('continue', send); request.flushHeaders(); } else send();
});
(async () => {
  for (const length of [0, 1, 1000, 70000, 1000000]) {
    const body = crypto.randomBytes(length);
    for (const headers of [{}, { 'Content-Length': length }, { Expect: '100-continue', 'Transfer-Encoding': 'chunked' }]) {
      const echo = JSON.parse((await ask('/echo', { method: 'POST', headers }, body)).body);
      assert.deepStrictEqual([echo.length, echo.sha256], [length, sha256(body)]);
    }
    const answer = await ask(`/chunked/${length}?trailer`, { headers: { TE: 'trailers', Connection: 'TE, keep-alive' } });
    assert.deepStrictEqual([answer.body.length, sha256(answer.body)], [length, answer.headers['x-sha256']]);
    assert.strictEqual(answer.trailers['x-trailer'], 'there');
  }
  for (const [first, last] of [[0, 0], [100000, 1099999], [file.length - 7, file.length - 1]]) {
    const part = await ask('/files/random', { headers: { Range: `bytes=${first}-${last}` } });
    assert.strictEqual(part.status, 206);
    assert(part.body.equals(file.subarray(first, last + 1)));
  }
  assert((await ask('/files/random', {})).body.equals(file));
  agent.destroy();
  console.log('as it should be');
})();
";
    for host in HOSTS {
        let connections = site.connections_of(host, || {
            let mut node = site.program("node");
            let said = run(node.args(["-e", script]).arg(&site.file).arg(format!("http://{host}")));
            assert_eq!(said.trim(), "as it should be");
        });
        assert_eq!(connections, 1, "{host}");
    }
}

/// What the scripts of python's have in common.
const PRELUDE: &str = "
import hashlib, os, sys
FILE, BASE = open(sys.argv[1], 'rb').read(), sys.argv[2]
BODIES = [os.urandom(length) for length in (0, 1, 1000, 70000, 1000000)]
RANGES = [(0, 0), (0, 99), (100000, 1099999), (len(FILE) - 7, len(FILE) - 1)]
LENGTHS = (0, 1, 1459, 65537, 1000000)
def pieces_of(body):
    return (body[at:at + 10007] for at in range(0, len(body), 10007))
def check_echo(echo, body, framing):
    assert (echo['length'], echo['sha256']) == (len(body), hashlib.sha256(body).hexdigest()), echo
    assert framing in [name.lower() for name, value in echo['headers']], echo
def check_range(status, said, content, first, last):
    assert (status, said) == (206, f'bytes {first}-{last}/{len(FILE)}'), (status, said)
    assert content == FILE[first:last + 1], (first, last)
def check_sum(answer, length):
    content = answer.content
    assert (len(content), hashlib.sha256(content).hexdigest()) == (length, answer.headers['X-Sha256']), length
";
/// Bytes of the file.
const LENGTH: usize = 16 << 20;
