//! The columns of the tables that `sluice show` prints.

/// The columns of a thing's table: title, and the JSON pointer of the value in one item.
pub(super) type Columns = &'static [(&'static str, &'static str)];

pub(super) const VIRTUAL_SERVERS: Columns = &[
    ("NAME", "/name"),
    ("DESTINATION", "/destination"),
    ("PROTOCOL", "/protocol"),
    ("TYPE", "/type"),
    ("ENABLED", "/enabled"),
    ("AVAILABILITY", "/availability"),
    ("POOL", "/pool"),
    ("MEMBERS UP", "/members_available"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("PACKETS IN", "/clientside/packets_in"),
    ("PACKETS OUT", "/clientside/packets_out"),
    ("BYTES IN", "/clientside/bytes_in"),
    ("BYTES OUT", "/clientside/bytes_out"),
];

pub(super) const HTTP: Columns = &[
    ("NAME", "/name"),
    ("REQUESTS", "/http/requests"),
    ("1XX", "/http/responses/1xx"),
    ("2XX", "/http/responses/2xx"),
    ("3XX", "/http/responses/3xx"),
    ("4XX", "/http/responses/4xx"),
    ("5XX", "/http/responses/5xx"),
    ("REFUSED", "/http/refused"),
    ("RETRIES", "/http/retries"),
    ("REUSED", "/http/reused"),
];

pub(super) const POOLS: Columns = &[
    ("NAME", "/name"),
    ("AVAILABILITY", "/availability"),
    ("LOAD BALANCING", "/load_balancing"),
    ("MEMBERS", "/members"),
    ("UP", "/members_available"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("BYTES IN", "/serverside/bytes_in"),
    ("BYTES OUT", "/serverside/bytes_out"),
];

pub(super) const MEMBERS: Columns = &[
    ("POOL", "/pool"),
    ("MEMBER", "/member"),
    ("AVAILABILITY", "/availability"),
    ("STATE", "/state"),
    ("FROM", "/state_from"),
    ("RATIO", "/ratio"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("PACKETS IN", "/serverside/packets_in"),
    ("PACKETS OUT", "/serverside/packets_out"),
    ("BYTES IN", "/serverside/bytes_in"),
    ("BYTES OUT", "/serverside/bytes_out"),
];

pub(super) const NODES: Columns = &[
    ("ADDRESS", "/address"),
    ("NAME", "/name"),
    ("AVAILABILITY", "/availability"),
    ("STATE", "/state"),
    ("RATIO", "/ratio"),
    ("CONNECTION LIMIT", "/connection_limit"),
    ("RATE LIMIT", "/rate_limit"),
    ("CURRENT", "/connections/current"),
    ("TOTAL", "/connections/total"),
    ("MEMBERS", "/members"),
];

pub(super) const FLOWS: Columns = &[
    ("CLIENT", "/client"),
    ("DESTINATION", "/destination"),
    ("SOURCE", "/source"),
    ("MEMBER", "/member"),
    ("PROTOCOL", "/protocol"),
    ("STATE", "/state"),
    ("VIRTUAL SERVER", "/virtual_server"),
    ("IDLE MS", "/idle_ms"),
    ("BYTES IN", "/bytes_in"),
    ("BYTES OUT", "/bytes_out"),
    ("WORKER", "/worker"),
];

pub(super) const PERSISTENCE: Columns = &[
    ("ID", "/id"),
    ("TYPE", "/type"),
    ("ADDRESS", "/address"),
    ("VIRTUAL SERVER", "/virtual_server"),
    ("DESTINATION", "/destination"),
    ("POOL", "/pool"),
    ("MEMBER", "/member"),
    ("AGE MS", "/age_ms"),
    ("TIMEOUT MS", "/timeout_ms"),
];

pub(super) const NEIGHBORS: Columns = &[
    ("ADDRESS", "/address"),
    ("MAC", "/mac"),
    ("PORT", "/port"),
    ("VLAN", "/vlan"),
    ("STATE", "/state"),
    ("AGE MS", "/age_ms"),
    ("WORKER", "/worker"),
];

pub(super) const ROUTES: Columns = &[
    ("DESTINATION", "/destination"),
    ("GATEWAY", "/gateway"),
    ("PORT", "/port"),
    ("VLAN", "/vlan"),
    ("ORIGIN", "/origin"),
    ("SELF IP", "/self_ip"),
];

pub(super) const PORTS: Columns = &[
    ("NAME", "/name"),
    ("DRIVER", "/driver"),
    ("DEVICE", "/device"),
    ("MAC", "/mac"),
    ("MTU", "/mtu"),
    ("LINK", "/link"),
    ("QUEUES", "/queues"),
    ("STEERING", "/steering"),
    ("OFFLOADS", "/offloads"),
    ("PACKETS IN", "/traffic/packets_in"),
    ("PACKETS OUT", "/traffic/packets_out"),
    ("BYTES IN", "/traffic/bytes_in"),
    ("BYTES OUT", "/traffic/bytes_out"),
    ("MISSED", "/rx_missed"),
    ("RX ERRORS", "/rx_errors"),
    ("TX ERRORS", "/tx_errors"),
];

pub(super) const MONITORS: Columns = &[
    ("NAME", "/name"),
    ("TYPE", "/type"),
    ("INTERVAL", "/interval"),
    ("TIMEOUT", "/timeout"),
    ("POOLS", "/pools"),
    ("STATE", "/state"),
];

pub(super) const WORKERS: Columns = &[
    ("WORKER", "/worker"),
    ("CORE", "/core"),
    ("GENERATION", "/generation"),
    ("TURNS", "/turns"),
    ("BUSY %", "/busy_percent"),
    ("SLEEPS", "/sleeps"),
    ("LONGEST TURN US", "/longest_turn_us"),
    ("FLOWS", "/flows"),
    ("HALF OPEN", "/half_open"),
    ("PROXIES", "/proxies"),
    ("SYN COOKIES", "/syn_cookies"),
    ("NEIGHBORS", "/neighbors"),
    ("SNAT PORTS", "/snat_ports"),
    ("MISDIRECTED", "/misdirected"),
    ("HANDED OVER", "/handed_over"),
    ("REJECTS", "/rejects_sent"),
    ("LIMITED", "/rejects_limited"),
    ("LOGGED", "/access_log_records"),
    ("LOG DROPPED", "/access_log_dropped"),
];

pub(super) const TABLES: Columns =
    &[("TABLE", "/name"), ("CAPACITY", "/capacity"), ("BYTES", "/bytes"), ("PAGES", "/pages")];

pub(super) const SNAT_ADDRESSES: Columns = &[
    ("ADDRESS", "/address"),
    ("IN USE", "/in_use"),
    ("RESTING", "/resting"),
    ("TOTAL EACH MEMBER", "/total"),
    ("EXHAUSTED", "/exhausted"),
];
