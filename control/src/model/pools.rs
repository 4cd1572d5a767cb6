//! Where connections go: pools, their members, and the nodes that members run on.

use serde::{Deserialize, Serialize};
use sluice_dataplane::pool::MemberState;

use super::network::{Ip, L4Port};
use super::units::{Limit, Name, Number, Span};

/// A pool.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pool {
    /// How a member is chosen.
    pub load_balancing: LoadBalancing,
    /// Health monitors, by name.
    pub monitors: Vec<Name>,
    /// With fewer available members than this in the priority groups at work, the next group joins; 0 puts all
    /// members to work whatever their group.
    pub min_active_members: Number<0, 65_535>,
    /// A member that has come up reaches its full share after this long; 0s for at once.
    pub slow_ramp_time: Span,
    /// What becomes of open connections when their member goes down.
    pub service_down_action: ServiceDownAction,
    /// Other members to try when one does not take a connection.
    pub reselect_tries: Number<0, 255>,
    /// New connections wait while all members are at their connection limits.
    pub queue_on_connection_limit: bool,
    /// Connections that wait at most, 0 for as many as the process allows.
    pub queue_depth_limit: Limit,
    /// How long a connection waits at most, 0ms for as long as its client asks.
    pub queue_time_limit: Span,
    /// Where connections go.
    pub members: Vec<Member>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            load_balancing: LoadBalancing::default(),
            monitors: Vec::new(),
            min_active_members: Number::new(0),
            slow_ramp_time: Span::from_ms(10_000),
            service_down_action: ServiceDownAction::default(),
            reselect_tries: Number::new(0),
            queue_on_connection_limit: false,
            queue_depth_limit: Number::new(0),
            queue_time_limit: Span::from_ms(0),
            members: Vec::new(),
        }
    }
}

/// How a member is chosen. Words that end in `-node` look at all members at one address, over all pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(transform = other_words)]
pub enum LoadBalancing {
    /// The next one in turn.
    #[default]
    RoundRobin,
    /// In turn, in proportion to the member's `ratio`.
    #[serde(alias = "ratio")]
    RatioMember,
    /// In turn, in proportion to the node's `ratio`.
    RatioNode,
    /// As `ratio-member`, counting clients that persist instead of connections.
    RatioSession,
    /// The one with the fewest connections.
    #[serde(alias = "least-connections")]
    LeastConnectionsMember,
    /// The one whose node has the fewest connections.
    LeastConnectionsNode,
    /// The fewest connections in proportion to the member's `connection_limit`.
    WeightedLeastConnectionsMember,
    /// The fewest connections in proportion to the node's `connection_limit`.
    WeightedLeastConnectionsNode,
    /// The fewest connections in proportion to the member's `ratio`.
    RatioLeastConnectionsMember,
    /// The fewest connections in proportion to the node's `ratio`.
    RatioLeastConnectionsNode,
    /// The one whose node answers new connections soonest.
    FastestNode,
    /// The one that answers new connections soonest.
    #[serde(alias = "fastest")]
    FastestAppResponse,
    /// Three shares with fewer connections than the average, else two; looked at each second.
    ObservedMember,
    /// As `observed-member`, by node.
    ObservedNode,
    /// As `observed-member`, with the trend of the last second: four shares or one.
    PredictiveMember,
    /// As `predictive-member`, by node.
    PredictiveNode,
    /// The one with the fewest persistence records.
    LeastSessions,
    /// By weighted Maglev hash of the client's address and port: the same member on any replica.
    #[serde(alias = "maglev")]
    ConsistentHash,
    /// Of two taken at random, the one with fewer connections.
    #[serde(alias = "random")]
    RandomTwo,
}

/// Adds the words that mean the same to the schema.
fn other_words(schema: &mut schemars::Schema) {
    let words = serde_json::json!({
        "description": "The same as ratio-member, least-connections-member, fastest-app-response, consistent-hash, random-two.",
        "enum": ["ratio", "least-connections", "fastest", "maglev", "random"],
    });
    if let Some(serde_json::Value::Array(known)) = schema.get_mut("oneOf") {
        known.push(words);
    }
}

/// What becomes of open connections when their member goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceDownAction {
    /// They go on.
    #[default]
    None,
    /// They are forgotten; nobody is told.
    Drop,
    /// TCP gets a RST to both sides, UDP an ICMP unreachable to the client.
    Reset,
    /// Another member gets them.
    Reselect,
}

/// A pool member.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its address.
    pub address: Ip,
    /// Its port; 0 or `*` keeps the port that the client asked for.
    pub port: L4Port,
    /// Its weight.
    #[serde(default = "one")]
    pub ratio: Number<1, 65_535>,
    /// Members with the highest number take connections first.
    #[serde(default = "zero")]
    pub priority_group: Number<0, 65_535>,
    /// Connections at once, 0 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: Limit,
    /// New connections a second, 0 for no limit.
    #[serde(default = "unlimited")]
    pub rate_limit: Limit,
    /// Whether it takes connections. Left out: what `sluice member` said last, and `enabled` at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StatedMember>,
}

/// A host that members run on. Without one, a member's address has the defaults.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its address.
    pub address: Ip,
    /// Its weight.
    #[serde(default = "one")]
    pub ratio: Number<1, 65_535>,
    /// Connections at once over all its members, 0 for no limit.
    #[serde(default = "unlimited")]
    pub connection_limit: Limit,
    /// New connections a second over all its members, 0 for no limit.
    #[serde(default = "unlimited")]
    pub rate_limit: Limit,
    /// Whether its members take connections; of this and a member's own state the stricter one holds.
    #[serde(default)]
    pub state: StatedMember,
}

/// Whether a member takes connections. Ordered: greater is stricter.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum StatedMember {
    /// Takes new connections.
    #[default]
    Enabled,
    /// Takes only connections that persist to it; open ones go on.
    Disabled,
    /// Takes none; open ones go on.
    Offline,
}

impl StatedMember {
    /// As the data plane holds it.
    pub fn state(self) -> MemberState {
        match self {
            StatedMember::Enabled => MemberState::Enabled,
            StatedMember::Disabled => MemberState::Disabled,
            StatedMember::Offline => MemberState::Offline,
        }
    }

    /// The word for what the data plane holds.
    pub fn of(state: MemberState) -> Self {
        match state {
            MemberState::Enabled => StatedMember::Enabled,
            MemberState::Disabled => StatedMember::Disabled,
            MemberState::Offline => StatedMember::Offline,
        }
    }
}

fn one() -> Number<1, 65_535> {
    Number::new(1)
}

fn zero() -> Number<0, 65_535> {
    Number::new(0)
}

fn unlimited() -> Limit {
    Number::new(0)
}
