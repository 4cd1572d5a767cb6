//! Following a TCP connection from outside, for its timeouts and for the sequence numbers of a RST.
//!
//! ```text
//!   SynSent ─SYN,ACK─▶ SynReceived ─ACK─▶ Established ─FIN─▶ FinClient│FinMember ─FIN─▶ Closing
//!      └────────────────── RST with a plausible sequence number, from any state ─────────▲
//! ```
//!
//! Nothing is refused here: a packet of a known flow is forwarded whatever the state (RFC 5382 asks a NAT to
//! follow, not to judge).

use super::{Direction, Flow};
use crate::packet::parse::tcp_flag;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TcpState {
    /// The client's SYN has gone to the member.
    SynSent = 0,
    /// The member's SYN,ACK has gone to the client.
    SynReceived = 1,
    /// The client has acknowledged it.
    Established = 2,
    /// The client has sent FIN; the member may go on.
    FinClient = 3,
    /// The member has sent FIN; the client may go on.
    FinMember = 4,
    /// Both have sent FIN, or one has reset.
    Closing = 5,
}

impl TcpState {
    #[inline(always)]
    pub(super) fn from_code(code: u8) -> Self {
        match code {
            0 => TcpState::SynSent,
            1 => TcpState::SynReceived,
            2 => TcpState::Established,
            3 => TcpState::FinClient,
            4 => TcpState::FinMember,
            _ => TcpState::Closing,
        }
    }

    /// True until the handshake is complete.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(self, TcpState::SynSent | TcpState::SynReceived)
    }

    /// The state's name in `show flows`.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::SynSent => "syn-sent",
            TcpState::SynReceived => "syn-received",
            TcpState::Established => "established",
            TcpState::FinClient => "fin-client",
            TcpState::FinMember => "fin-member",
            TcpState::Closing => "closing",
        }
    }
}

/// What a segment says, as far as tracking needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Payload bytes; of all segments, in a super-frame.
    pub payload: u32,
}

impl Segment {
    /// The sequence number after this segment: SYN and FIN count one each (RFC 9293 section 3.4).
    #[inline(always)]
    pub const fn end(self) -> u32 {
        let controls = (self.flags & tcp_flag::SYN != 0) as u32 + (self.flags & tcp_flag::FIN != 0) as u32;
        self.seq.wrapping_add(self.payload).wrapping_add(controls)
    }
}

/// Follows one segment. Returns the new state when it has changed.
#[inline]
pub fn follow(flow: &mut Flow, direction: Direction, segment: Segment) -> Option<TcpState> {
    let before = flow.tcp_state();
    let next = &mut flow.next_seq[direction.index()];
    let plausible = is_near(segment.seq, *next);
    let end = segment.end();
    if end.wrapping_sub(*next) < SEQUENCE_JUMP_MAX || segment.flags & tcp_flag::SYN != 0 {
        *next = end;
    }
    if before == TcpState::Established && segment.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::SYN) == 0
    {
        return None;
    }
    let after = step(before, direction, segment.flags, plausible);
    flow.set_tcp_state(after);
    (after != before).then_some(after)
}

fn step(state: TcpState, from: Direction, flags: u8, plausible: bool) -> TcpState {
    use TcpState::{Closing, Established, FinClient, FinMember, SynReceived, SynSent};
    if flags & tcp_flag::RST != 0 {
        // A reset of a half-open connection carries an acknowledgement instead of a known sequence number.
        return if plausible || state.is_half_open() { Closing } else { state };
    }
    let (syn, fin) = (flags & tcp_flag::SYN != 0, flags & tcp_flag::FIN != 0);
    match (state, from) {
        (SynSent, Direction::FromMember) if syn => SynReceived,
        (SynReceived, Direction::FromClient) if fin => FinClient,
        (SynReceived, Direction::FromClient) if !syn => Established,
        (Established | SynReceived, Direction::FromClient) if fin => FinClient,
        (Established | SynReceived, Direction::FromMember) if fin => FinMember,
        (FinClient, Direction::FromMember) | (FinMember, Direction::FromClient) if fin => Closing,
        _ => state,
    }
}

/// True when a reset's `seq` is the one expected, or not far behind it as when it answers an older segment.
fn is_near(seq: u32, next: u32) -> bool {
    next.wrapping_sub(seq) <= RESET_BEHIND_MAX || seq == next.wrapping_add(1)
}

/// A reset that was sent before the last bytes arrived is at most this far behind.
const RESET_BEHIND_MAX: u32 = 1 << 20;

/// The largest window with scaling (RFC 7323 section 2.3).
const SEQUENCE_JUMP_MAX: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{FromClient, FromMember};
    use bytemuck::Zeroable;
    use tcp_flag::{ACK, FIN, RST, SYN};

    fn new_flow() -> Flow {
        let mut flow = Flow::zeroed();
        follow(&mut flow, FromClient, Segment { flags: SYN, seq: 100, payload: 0 });
        flow
    }

    fn established() -> Flow {
        let mut flow = new_flow();
        follow(&mut flow, FromMember, Segment { flags: SYN | ACK, seq: 500, payload: 0 });
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, payload: 0 });
        assert_eq!(flow.tcp_state(), TcpState::Established);
        flow
    }

    #[test]
    fn handshake_data_and_orderly_close() {
        let mut flow = established();
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, payload: 40 });
        assert_eq!(flow.next_seq, [141, 501]);
        let fin = Segment { flags: FIN | ACK, seq: 141, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, fin), Some(TcpState::FinClient));
        follow(&mut flow, FromMember, Segment { flags: ACK, seq: 501, payload: 1000 });
        assert_eq!(flow.tcp_state(), TcpState::FinClient, "half-closed: the member goes on");
        let fin = Segment { flags: FIN | ACK, seq: 1501, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, fin), Some(TcpState::Closing));
        assert_eq!(flow.next_seq, [142, 1502]);
    }

    #[test]
    fn retransmission_does_not_turn_the_sequence_back() {
        let mut flow = established();
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, payload: 400 });
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, payload: 100 });
        assert_eq!(flow.next_seq[0], 501);
    }

    #[test]
    fn a_refused_connection_closes() {
        let mut flow = new_flow();
        let reset = Segment { flags: RST | ACK, seq: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, reset), Some(TcpState::Closing));
    }

    #[test]
    fn a_reset_far_off_changes_nothing() {
        let mut flow = established();
        let blind = Segment { flags: RST, seq: 0x7000_0000, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, blind), None);
        let honest = Segment { flags: RST, seq: 501, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, honest), Some(TcpState::Closing));
    }

    #[test]
    fn member_closes_first() {
        let mut flow = established();
        assert_eq!(
            follow(&mut flow, FromMember, Segment { flags: FIN | ACK, seq: 501, payload: 0 }),
            Some(TcpState::FinMember)
        );
        assert_eq!(
            follow(&mut flow, FromClient, Segment { flags: FIN | ACK, seq: 101, payload: 0 }),
            Some(TcpState::Closing)
        );
    }
}
