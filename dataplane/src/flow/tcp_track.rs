//! Following a TCP connection from outside, for its timeouts and for the sequence numbers of a RST.
//!
//! ```text
//!   SynSent ─SYN[,ACK]─▶ SynReceived ─ACK─▶ Established ─FIN─▶ FinClient│FinMember ─FIN─▶ Closing
//!      │                              └─ RST, its number about right ─▶ ResetClient│ResetMember
//!      └─ RST, its number right ─▶ Refused
//!                                   Established ◀── a segment from whoever is said to have reset
//! ```
//!
//! Nothing is refused here (RFC 5382 REQ-2 asks a NAT to let every valid sequence of segments pass), and of a known flow
//! hardly anything elsewhere: see [`crate::pipeline::Pipeline::come_back`]. What a stranger could have sent does not change the state or the
//! numbers: both ends judge by their windows (RFC 5961), we by how far a segment is from what its sender sent last.

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
    /// Both have sent FIN.
    Closing = 5,
    /// The client has reset, or somebody in its name.
    ResetClient = 6,
    /// The member has reset, or somebody in its name.
    ResetMember = 7,
    /// Either has reset before it was open.
    Refused = 8,
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
            6 => TcpState::ResetClient,
            7 => TcpState::ResetMember,
            8 => TcpState::Refused,
            _ => TcpState::Closing,
        }
    }

    /// True until the handshake is complete.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(self, TcpState::SynSent | TcpState::SynReceived)
    }

    /// True when both have closed or one has reset: the flow only waits for stragglers.
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, TcpState::Closing | TcpState::Refused) || self.is_reset()
    }

    /// True when one side has reset an open connection.
    #[inline(always)]
    pub const fn is_reset(self) -> bool {
        matches!(self, TcpState::ResetClient | TcpState::ResetMember)
    }

    /// The state's name in `show flows`.
    pub const fn name(self) -> &'static str {
        match self {
            TcpState::SynSent => "syn-sent",
            TcpState::SynReceived => "syn-received",
            TcpState::Established => "established",
            TcpState::FinClient => "fin-client",
            TcpState::FinMember => "fin-member",
            TcpState::Closing | TcpState::ResetClient | TcpState::ResetMember | TcpState::Refused => {
                "closing"
            }
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
    /// Acknowledgement number; counts with the ACK flag only.
    pub ack: u32,
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

/// Follows one segment. Returns the new state when it has changed, or when the segment confirms that it is over.
#[inline]
pub fn follow(flow: &mut Flow, direction: Direction, segment: Segment) -> Option<TcpState> {
    let before = flow.tcp_state();
    let expected = flow.next_seq[direction.opposite().index()];
    let next = flow.next_seq[direction.index()];
    let end = segment.end();
    if end.wrapping_sub(next) < SEQUENCE_JUMP_MAX && is_answer(segment, expected) {
        flow.next_seq[direction.index()] = end;
    }
    if before == TcpState::Established && segment.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::SYN) == 0
    {
        return None;
    }
    follow_control(flow, direction, segment, before, (next, expected))
}

/// Follows a segment that may change the state. `next` is what its sender was to send, `expected` the other side.
fn follow_control(
    flow: &mut Flow,
    direction: Direction,
    segment: Segment,
    before: TcpState,
    (next, expected): (u32, u32),
) -> Option<TcpState> {
    if segment.flags & tcp_flag::SYN != 0 && before.is_half_open() {
        // A SYN begins the numbers of a connection that is not open; in one that is it may be anybody's guess.
        flow.next_seq[direction.index()] = segment.end();
    }
    let after = if segment.flags & tcp_flag::RST != 0 {
        after_reset(before, direction, segment, (next, expected))
    } else if before == TcpState::SynReceived
        && direction == Direction::FromClient
        && !acknowledges(segment, expected)
    {
        return None;
    } else {
        let in_window = segment.end().wrapping_sub(next) < SEQUENCE_JUMP_MAX && is_answer(segment, expected);
        step(before, direction, segment, in_window, is_near(segment.seq, next))
    };
    flow.set_tcp_state(after);
    let is_confirmed = after != TcpState::Refused && ends_for_sure(flow, direction, segment);
    (after != before || is_confirmed).then_some(after)
}

/// True when a segment makes it certain that the connection is over: a RST with exactly the next number, so that its
/// receiver believes it at once (RFC 5961 section 3.2); where both have closed, the member's word that it has had the
/// client's FIN; whatever ended a connection before it was open.
pub fn ends_for_sure(flow: &Flow, direction: Direction, segment: Segment) -> bool {
    let is_rst = segment.flags & tcp_flag::RST != 0;
    match flow.tcp_state() {
        TcpState::Refused => true,
        TcpState::Closing => {
            let has_all = segment.ack == flow.next_seq[Direction::FromClient.index()];
            is_rst || (direction == Direction::FromMember && segment.flags & tcp_flag::ACK != 0 && has_all)
        }
        TcpState::ResetClient | TcpState::ResetMember => {
            is_rst && segment.seq == flow.next_seq[direction.index()]
        }
        _ => false,
    }
}

fn step(state: TcpState, from: Direction, segment: Segment, in_window: bool, is_near: bool) -> TcpState {
    use TcpState::{Closing, Established, FinClient, FinMember, SynReceived, SynSent};
    let syn = segment.flags & tcp_flag::SYN != 0;
    let fin = segment.flags & tcp_flag::FIN != 0 && (in_window || is_near);
    match (state, from) {
        // With ACK, or without when both open at once (RFC 9293 section 3.5, figure 8).
        (SynSent, Direction::FromMember) if syn => SynReceived,
        (Established | SynReceived, Direction::FromClient) if fin => FinClient,
        (Established | SynReceived, Direction::FromMember) if fin => FinMember,
        // Whatever acknowledges the member's SYN, also the SYN,ACK of a client that opened at the same time.
        (SynReceived, Direction::FromClient) => Established,
        (FinClient, Direction::FromMember) | (FinMember, Direction::FromClient) if fin => Closing,
        // A host that has reset has nothing more to say: the reset was not its own (RFC 5961 section 3).
        (TcpState::ResetClient, Direction::FromClient) | (TcpState::ResetMember, Direction::FromMember)
            if in_window =>
        {
            Established
        }
        _ => state,
    }
}

/// RFC 7857 section 2.2 wants the sequence number looked at before a RST ends anything.
fn after_reset(state: TcpState, from: Direction, segment: Segment, (next, expected): (u32, u32)) -> TcpState {
    if state.is_half_open() {
        // Nobody comes back into a connection that was never open: that would be a way around the handshake. So the
        // number must be right.
        let is_honest = match from {
            Direction::FromClient => segment.seq == next,
            // What refuses a SYN has no number of its own to show, only the one it acknowledges.
            Direction::FromMember => {
                acknowledges(segment, expected) || (state == TcpState::SynReceived && segment.seq == next)
            }
        };
        return if is_honest { TcpState::Refused } else { state };
    }
    match (state, from) {
        _ if !is_near(segment.seq, next) => state,
        (TcpState::Closing | TcpState::Refused, _) => state,
        (TcpState::ResetClient, Direction::FromMember) => TcpState::Closing,
        (TcpState::ResetMember, Direction::FromClient) => TcpState::Closing,
        (_, Direction::FromClient) => TcpState::ResetClient,
        (_, Direction::FromMember) => TcpState::ResetMember,
    }
}

/// True when the segment answers the member's SYN, whose sender will send `expected` next: a client that has not
/// seen it cannot (RFC 9293 section 3.10.7.4), so that spoofed addresses stay half-open.
fn acknowledges(segment: Segment, expected: u32) -> bool {
    segment.flags & tcp_flag::ACK != 0 && expected.wrapping_sub(segment.ack) <= EARLY_DATA_MAX
}

/// True when the segment acknowledges about what the other side has sent (RFC 5961 section 5). A SYN or RST never
/// carries a connection on.
#[inline(always)]
fn is_answer(segment: Segment, expected: u32) -> bool {
    let distance = expected.wrapping_sub(segment.ack).wrapping_add(ACK_DISTANCE_MAX);
    segment.flags & (tcp_flag::ACK | tcp_flag::RST | tcp_flag::SYN) == tcp_flag::ACK
        && distance <= 2 * ACK_DISTANCE_MAX
}

/// True when a segment's number is the one expected, or not far behind it as when it answers an older segment.
fn is_near(seq: u32, next: u32) -> bool {
    next.wrapping_sub(seq) <= RESET_BEHIND_MAX || seq == next.wrapping_add(1)
}

/// A reset that was sent before the last bytes arrived is at most this far behind.
const RESET_BEHIND_MAX: u32 = 1 << 20;

/// What a member sends before the handshake is complete (RFC 7413) is less.
const EARLY_DATA_MAX: u32 = 1 << 16;

/// The largest window with scaling (RFC 7323 section 2.3).
const SEQUENCE_JUMP_MAX: u32 = 1 << 30;

/// An acknowledgement may be as late as what is on its way, and early by what we have not seen of a cut segment.
const ACK_DISTANCE_MAX: u32 = 1 << 26;

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{FromClient, FromMember};
    use bytemuck::Zeroable;
    use tcp_flag::{ACK, FIN, RST, SYN};

    fn new_flow() -> Flow {
        let mut flow = Flow::zeroed();
        follow(&mut flow, FromClient, Segment { flags: SYN, seq: 100, ack: 0, payload: 0 });
        flow
    }

    fn established() -> Flow {
        let mut flow = new_flow();
        follow(&mut flow, FromMember, Segment { flags: SYN | ACK, seq: 500, ack: 0, payload: 0 });
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, ack: 501, payload: 0 });
        assert_eq!(flow.tcp_state(), TcpState::Established);
        flow
    }

    #[test]
    fn handshake_data_and_orderly_close() {
        let mut flow = established();
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, ack: 0, payload: 40 });
        assert_eq!(flow.next_seq, [141, 501]);
        let fin = Segment { flags: FIN | ACK, seq: 141, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, fin), Some(TcpState::FinClient));
        follow(&mut flow, FromMember, Segment { flags: ACK, seq: 501, ack: 0, payload: 1000 });
        assert_eq!(flow.tcp_state(), TcpState::FinClient, "half-closed: the member goes on");
        let fin = Segment { flags: FIN | ACK, seq: 1501, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, fin), Some(TcpState::Closing));
        assert_eq!(flow.next_seq, [142, 1502]);
    }

    #[test]
    fn retransmission_does_not_turn_the_sequence_back() {
        let mut flow = established();
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, ack: 0, payload: 400 });
        follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, ack: 0, payload: 100 });
        assert_eq!(flow.next_seq[0], 501);
    }

    #[test]
    fn a_refused_connection_closes() {
        let mut flow = new_flow();
        let reset = Segment { flags: RST | ACK, seq: 0, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, reset), Some(TcpState::Refused));
    }

    #[test]
    fn a_refusal_must_acknowledge_the_syn() {
        let mut flow = new_flow();
        for reset in [
            Segment { flags: RST | ACK, seq: 0x7000_0000, ack: 0x7000_0000, payload: 0 },
            Segment { flags: RST, seq: 0x7000_0000, ack: 101, payload: 0 },
        ] {
            assert_eq!(follow(&mut flow, FromMember, reset), None);
        }
        let honest = Segment { flags: RST | ACK, seq: 0x7000_0000, ack: 101, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, honest), Some(TcpState::Refused));
    }

    #[test]
    fn a_reset_is_no_way_around_the_handshake() {
        let mut flow = new_flow();
        follow(&mut flow, FromMember, Segment { flags: SYN | ACK, seq: 500, ack: 101, payload: 0 });
        let reset = Segment { flags: RST, seq: 101, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, reset), Some(TcpState::Refused));
        for ack in [501, 40_000_000] {
            assert_eq!(
                follow(&mut flow, FromClient, Segment { flags: ACK, seq: 101, ack, payload: 9 }),
                None
            );
        }
    }

    /// Whoever is asked to believe it looks at the number: nothing is over for a RST that is not exact.
    #[test]
    fn an_old_reset_does_not_end_a_handshake() {
        let mut flow = new_flow();
        for behind in [1, 500_000] {
            let reset = Segment { flags: RST, seq: 101u32.wrapping_sub(behind), ack: 0, payload: 0 };
            assert_eq!(follow(&mut flow, FromClient, reset), None);
        }
        assert_eq!(flow.tcp_state(), TcpState::SynSent);
    }

    #[test]
    fn only_an_exact_reset_ends_a_connection_for_sure() {
        let mut flow = established();
        let reset = |seq| Segment { flags: RST, seq, ack: 0, payload: 0 };
        let old = reset(101u32.wrapping_sub(500_000));
        assert_eq!(follow(&mut flow, FromClient, old), Some(TcpState::ResetClient));
        assert!(!ends_for_sure(&flow, FromClient, old));
        assert_eq!(follow(&mut flow, FromClient, reset(102)), None);
        assert_eq!(follow(&mut flow, FromClient, reset(101)), Some(TcpState::ResetClient));
        assert!(ends_for_sure(&flow, FromClient, reset(101)));
    }

    /// Else a FIN that the member never saw would do.
    #[test]
    fn both_have_closed_for_sure_when_the_member_has_had_the_clients_fin() {
        let mut flow = established();
        follow(&mut flow, FromMember, Segment { flags: FIN | ACK, seq: 501, ack: 101, payload: 0 });
        let far = Segment { flags: FIN | ACK, seq: 101 + (1 << 29), ack: 502, payload: 0 };
        for (fin, acked, is_sure) in [
            (far, 101, false),
            (Segment { seq: 101, ..far }, 101, false),
            (Segment { seq: 101, ..far }, 102, true),
        ] {
            let mut flow = flow;
            assert_eq!(follow(&mut flow, FromClient, fin), Some(TcpState::Closing));
            assert!(!ends_for_sure(&flow, FromClient, fin));
            let answer = Segment { flags: ACK, seq: 502, ack: acked, payload: 0 };
            assert_eq!(follow(&mut flow, FromMember, answer), is_sure.then_some(TcpState::Closing));
        }
    }

    #[test]
    fn a_guessed_refusal_in_the_clients_name_ends_nothing() {
        let mut flow = new_flow();
        let guess = Segment { flags: RST | ACK, seq: 0x7000_0000, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, guess), None);
    }

    #[test]
    fn a_reset_far_off_changes_nothing() {
        let mut flow = established();
        let blind = Segment { flags: RST, seq: 0x7000_0000, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, blind), None);
        let honest = Segment { flags: RST, seq: 501, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, honest), Some(TcpState::ResetMember));
    }

    #[test]
    fn whoever_goes_on_has_not_reset() {
        let mut flow = established();
        let reset = Segment { flags: RST, seq: 400, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, reset), Some(TcpState::ResetMember));
        for straggler in [
            Segment { flags: ACK, seq: 300, ack: 101, payload: 100 },
            Segment { flags: ACK, seq: 501, ack: 0x7000_0000, payload: 100 },
            Segment { flags: SYN | ACK, seq: 501, ack: 101, payload: 0 },
        ] {
            assert_eq!(follow(&mut flow, FromMember, straggler), None);
        }
        let other = Segment { flags: ACK, seq: 101, ack: 501, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, other), None, "its peer does not know yet");
        let alive = Segment { flags: ACK, seq: 501, ack: 101, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, alive), Some(TcpState::Established));
    }

    #[test]
    fn a_stranger_moves_no_numbers_and_ends_nothing() {
        let mut flow = established();
        for stranger in [
            Segment { flags: ACK, seq: 0x5000_0000, ack: 501, payload: 1_000 },
            Segment { flags: ACK, seq: 0xf000_0000, ack: 501, payload: 1_000 },
            Segment { flags: ACK, seq: 2_000, ack: 0x6000_0000, payload: 1_000 },
            Segment { flags: 0, seq: 2_000, ack: 501, payload: 1_000 },
            Segment { flags: FIN | ACK, seq: 0x5000_0000, ack: 501, payload: 0 },
            Segment { flags: FIN | ACK, seq: 3_000, ack: 0x6000_0000, payload: 0 },
            Segment { flags: RST, seq: 3_000, ack: 501, payload: 0 },
            Segment { flags: SYN, seq: 0x5000_0000, ack: 0, payload: 0 },
        ] {
            assert_eq!(follow(&mut flow, FromClient, stranger), None, "{stranger:?}");
            assert_eq!(flow.next_seq, [101, 501], "{stranger:?}");
        }
    }

    #[test]
    fn both_open_at_once() {
        let mut flow = new_flow();
        let crossing = Segment { flags: SYN, seq: 500, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, crossing), Some(TcpState::SynReceived));
        let answer = Segment { flags: SYN | ACK, seq: 500, ack: 101, payload: 0 };
        assert_eq!(follow(&mut flow, FromMember, answer), None);
        let answer = Segment { flags: SYN | ACK, seq: 100, ack: 501, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, answer), Some(TcpState::Established));
        assert_eq!(flow.next_seq, [101, 501]);
    }

    #[test]
    fn member_closes_first() {
        let mut flow = established();
        assert_eq!(
            follow(&mut flow, FromMember, Segment { flags: FIN | ACK, seq: 501, ack: 0, payload: 0 }),
            Some(TcpState::FinMember)
        );
        assert_eq!(
            follow(&mut flow, FromClient, Segment { flags: FIN | ACK, seq: 101, ack: 0, payload: 0 }),
            Some(TcpState::Closing)
        );
    }

    #[test]
    fn only_who_has_seen_the_members_syn_completes_the_handshake() {
        let mut flow = new_flow();
        follow(&mut flow, FromMember, Segment { flags: SYN | ACK, seq: 500, ack: 101, payload: 0 });
        for (flags, ack) in [
            (ACK, 501u32.wrapping_sub(70_000)),
            (ACK, 502),
            (ACK, 0x7000_0000),
            (FIN | ACK, 0x7000_0000),
            (FIN, 501),
        ] {
            assert_eq!(follow(&mut flow, FromClient, Segment { flags, seq: 101, ack, payload: 0 }), None);
            assert!(flow.tcp_state().is_half_open(), "{flags} {ack}");
        }
        // Data that the member sent with its SYN need not be acknowledged yet.
        follow(&mut flow, FromMember, Segment { flags: ACK, seq: 501, ack: 101, payload: 1_000 });
        let honest = Segment { flags: ACK, seq: 101, ack: 501, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, honest), Some(TcpState::Established));
    }

    #[test]
    fn a_syn_into_an_open_connection_does_not_make_a_guessed_reset_plausible() {
        let mut flow = established();
        follow(&mut flow, FromClient, Segment { flags: SYN, seq: 0x9000_0000, ack: 0, payload: 0 });
        assert_eq!(flow.next_seq[0], 101);
        let reset = Segment { flags: RST, seq: 0x9000_0001, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, reset), None);
        // A client that began anew is told so by the member, and resets with the old number.
        let honest = Segment { flags: RST, seq: 101, ack: 0, payload: 0 };
        assert_eq!(follow(&mut flow, FromClient, honest), Some(TcpState::ResetClient));
    }
}
