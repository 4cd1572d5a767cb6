//! Sluice as a full proxy before two origins, and answers as a client sees them.

use crate::origin::Origin;
use crate::{LinkKind, World, config, curl, try_run, world};
use serde_json::Value;
use std::process::Command;

/// A [`World`] whose members are origins.
#[derive(Debug)]
pub struct Stage {
    // In this order: the origins end before their namespaces go.
    /// `one` and `two`.
    pub origins: [Origin; 2],
    /// The world.
    pub world: World,
}

/// Pools of origins: `web` and `web6` speak HTTP, `tcp` plain TCP; `one` and `two` have one member each.
pub const POOLS: &str = r#"
pools:
  web: {members: [{address: 10.1.0.11, port: 8000}, {address: 10.1.0.12, port: 8000}]}
  web6: {members: [{address: "2001:db8:2::11", port: 8000}, {address: "2001:db8:2::12", port: 8000}]}
  one: {members: [{address: 10.1.0.11, port: 8000}]}
  two: {members: [{address: 10.1.0.12, port: 8000}]}
  tcp: {members: [{address: 10.1.0.11, port: 8001}]}
"#;

/// Virtual server `web` on 192.0.2.100:80 and `web6` on `[2001:db8:1::100]:80` with HTTP, and more `options` in YAML's
/// flow style.
pub fn http(options: &str) -> String {
    let text = format!(
        "virtual_servers:
  web: {{destination: \"192.0.2.100:80\", type: standard, pool: web, snat: automap, {options}}}
  web6: {{destination: \"[2001:db8:1::100]:80\", type: standard, pool: web6, snat: automap, {options}}}
"
    );
    with_pools(&text)
}

/// [`POOLS`] and then `rest`.
pub fn with_pools(rest: &str) -> String {
    config::network_and(&[POOLS, rest].concat())
}

impl Stage {
    /// Starts sluice on `config` before two origins; `None`, said loudly, when not root.
    ///
    /// # Panics
    /// When something does not come up.
    pub fn start(config: &str) -> Option<Self> {
        Some(Self::before(World::start(LinkKind::Veth, config)?))
    }

    /// Starts two origins behind a sluice that runs already.
    ///
    /// # Panics
    /// When one does not come up.
    pub fn before(world: World) -> Self {
        let directory = world.lab.directory();
        let origin = |at: usize, name| Origin::start(&world.lab.servers()[at], name, directory);
        Self { origins: [origin(0, "one"), origin(1, "two")], world }
    }

    /// Kills the origin at `place` and starts it again at once.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self, place: usize) {
        self.origins[place].restart(&self.world.lab.servers()[place].namespace);
    }

    /// A request by curl for `path` on 192.0.2.100, with more `arguments`.
    ///
    /// # Panics
    /// When curl fails.
    pub fn get(&self, path: &str, arguments: &[&str]) -> Reply {
        self.try_get(path, arguments)
            .unwrap_or_else(|code| panic!("curl {path} {arguments:?} ends with {code}"))
    }

    /// [`Stage::get`] that may fail.
    ///
    /// # Errors
    /// Curl's exit code.
    ///
    /// # Panics
    /// When curl is not there, or its output is no answer.
    pub fn try_get(&self, path: &str, arguments: &[&str]) -> Result<Reply, i32> {
        let url = format!("http://192.0.2.100{path}");
        let mut curl = self.curl();
        let output = try_run(curl.arg("--include").args(arguments).arg(url));
        match output.status.code() {
            Some(0) => Ok(Reply::parse(&output.stdout)),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// A curl in the client's namespace to which a status of 400 or more is no failure.
    pub fn curl(&self) -> Command {
        let mut curl = curl(self.world.lab.client());
        curl.arg("--no-fail");
        curl
    }

    /// What an origin received when asked for `path`.
    ///
    /// # Panics
    /// When that fails.
    pub fn echo(&self, path: &str, arguments: &[&str]) -> Value {
        self.get(path, arguments).json()
    }

    /// Python with `script` and `arguments` in the client's namespace, which has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut python = self.world.lab.client().command(crate::origin::PYTHON);
        world::run(python.args(["-c", script]).args(arguments))
    }
}

/// An answer of an HTTP server.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Heads of status 1xx that came before it.
    pub interim: Vec<u16>,
    /// The status.
    pub status: u16,
    /// The head.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads what `curl --include` printed.
    ///
    /// # Panics
    /// When it is no answer.
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut interim = Vec::new();
        loop {
            let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
            let end = end.unwrap_or_else(|| panic!("no head: {:?}", String::from_utf8_lossy(bytes)));
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let status =
                head.split(' ').nth(1).and_then(|word| word.get(..3)?.parse().ok()).expect("a status");
            bytes = &bytes[end + 4..];
            if !(102..200).contains(&status) && status != 100 {
                return Self { interim, status, head, body: bytes.to_owned() };
            }
            interim.push(status);
        }
    }

    /// The values of the field `name`.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// The only value of the field `name`.
    ///
    /// # Panics
    /// When there is none, or another.
    pub fn field(&self, name: &str) -> &str {
        let fields = self.fields(name);
        assert_eq!(fields.len(), 1, "{name} in {}", self.head);
        fields[0]
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// The values of the field `name` that an origin received, from what it echoed.
pub fn received<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = echo["headers"].as_array().into_iter().flatten();
    let fields = fields.filter_map(|field| Some((field[0].as_str()?, field[1].as_str()?)));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}
