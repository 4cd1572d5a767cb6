//! The program by which the kernel spreads an interface's frames over our sockets: `snat/frame.rs` once more, in the
//! kernel's words.
//!
//! ```text
//!   R6 what the kernel knows   R7 where the header at hand begins   R0 what was loaded, and the bucket
//!   IPv4: R8 addresses, R9 ports      IPv6: four words on the stack, R9 ports
//! ```
//!
//! The kernel shows it a packet from the network header on, its tag aside, and takes what it says modulo the number of
//! sockets. Some 230 instructions run for TCP over IPv4.

use std::io;

use sluice_ffi::bpf::{Instruction, SocketProgram};

use super::assembler::{Assembler, Condition, Label, Operation, Register, Width};
use crate::address::Mac;
use crate::packet::build::{self, Tcp, Udp};
use crate::packet::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, protocol};
use crate::packet::rewrite::LinkHeader;
use crate::snat::frame::bucket_of_frame;
use crate::snat::toeplitz::{MASKS_V4, MASKS_V6};
use Condition::{AnyBitOf, AtLeast, Below, Equal, NotEqual};
use Operation::{Add, And, Or, Set, ShiftLeft, ShiftRight, Xor};
use Register::{R0, R1, R2, R5, R6, R7, R8, R9};
use Width::{Byte, Half, Word};

/// Loads the program and tries it on a few frames.
///
/// # Errors
/// Why not, to be shown to the operator.
pub(super) fn load() -> Result<SocketProgram, String> {
    let explain = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => "loading programs into the kernel needs CAP_BPF".into(),
        _ => format!("the kernel refused the program: {error}"),
    };
    let program = SocketProgram::load(&instructions()).map_err(explain)?;
    for frame in samples() {
        let said = program.run_on(&frame).map_err(explain)?;
        if said as usize != bucket_of_frame(&frame) {
            return Err("the kernel's program and ours disagree about a frame".into());
        }
    }
    Ok(program)
}

/// One frame of each kind.
fn samples() -> Vec<Vec<u8>> {
    let (src, dst) = ("2001:db8::1", "2001:db8::2");
    let plain = [build::tcp(&Tcp::default()), build::tcp(&Tcp { src, dst, ..Tcp::default() })];
    let tagged = build::udp(&Udp { src, dst, vlan: 5, ..Udp::default() });
    let link = LinkHeader { destination: Mac([2; 6]), source: Mac([4; 6]), vlan: 0 };
    let error = |kind: u8, from, to, proto, quoted: &[u8]| {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted[14..]].concat();
        build::packet(link, from, to, 64, proto, &message, 2)
    };
    let errors = [
        error(3, "203.0.113.1", Tcp::default().src, protocol::ICMP, &plain[0]),
        error(2, "2001:db8::9", src, protocol::ICMPV6, &plain[1]),
    ];
    let mut fragment = build::udp(&Udp::default());
    build::patch_ipv4(&mut fragment, |header| header[4..8].copy_from_slice(&[7, 9, 0x20, 0]));
    plain.into_iter().chain(errors).chain([tagged, fragment]).collect()
}

/// The whole program.
fn instructions() -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let [v4, v6, nothing] = [asm.label(), asm.label(), asm.label()];
    find_network_header(&mut asm, v4, v6, nothing);
    asm.here(v4);
    of_ipv4(&mut asm, nothing);
    asm.here(v6);
    of_ipv6(&mut asm, nothing);
    asm.here(nothing);
    asm.with(Set, R0, 0);
    asm.exit();
    asm.finish()
}

/// Sets up registers, steps over a tag that is still in the packet, and branches by ethertype.
fn find_network_header(asm: &mut Assembler, v4: Label, v6: Label, nothing: Label) {
    let [tag, network] = [asm.label(), asm.label()];
    asm.with_register(Set, R6, R1);
    asm.with(Set, R7, 0);
    asm.load_context(R0, CONTEXT_PROTOCOL);
    asm.in_host_order(R0);
    asm.jump_if(R0, Equal, ETHERTYPE_VLAN.into(), tag);
    asm.jump_if(R0, NotEqual, ETHERTYPE_QINQ.into(), network);
    asm.here(tag);
    // The kernel has taken one tag out already: this is the second.
    asm.load_context(R1, CONTEXT_TAG_PRESENT);
    asm.jump_if(R1, NotEqual, 0, nothing);
    asm.load(Half, 2);
    asm.with(Add, R7, 4);
    asm.here(network);
    asm.jump_if(R0, Equal, ETHERTYPE_IPV4.into(), v4);
    asm.jump_if(R0, Equal, ETHERTYPE_IPV6.into(), v6);
    asm.jump(nothing);
}

fn of_ipv4(asm: &mut Assembler, nothing: Label) {
    let [fragment, ports, hash] = [asm.label(), asm.label(), asm.label()];
    asm.load(Byte, 0);
    asm.jump_if(R0, NotEqual, 0x45, nothing);
    load_wide(asm, R8, 12, 16);
    asm.load(Half, 6);
    asm.jump_if(R0, AnyBitOf, 0x3fff, fragment);
    asm.load(Byte, 9);
    asm.jump_if(R0, Equal, protocol::TCP.into(), ports);
    asm.jump_if(R0, Equal, protocol::UDP.into(), ports);
    asm.jump_if(R0, NotEqual, protocol::ICMP.into(), nothing);
    of_ipv4_error(asm, nothing);
    asm.jump(hash);
    asm.here(fragment);
    asm.load(Half, 4);
    asm.jump(hash);
    asm.here(ports);
    asm.load(Word, 20);
    asm.here(hash);
    asm.with(ShiftLeft, R0, 32);
    asm.with_register(Set, R9, R0);
    say_bucket(asm, &[R8, R9], &MASKS_V4);
}

/// What the answer to the quoted packet would have: R8 and, in R0, the ports.
fn of_ipv4_error(asm: &mut Assembler, nothing: Label) {
    let [is_error, is_flow] = [asm.label(), asm.label()];
    asm.load(Byte, 20);
    asm.jump_if(R0, Equal, 3, is_error);
    asm.jump_if(R0, Equal, 11, is_error);
    asm.jump_if(R0, NotEqual, 12, nothing);
    asm.here(is_error);
    asm.with(Add, R7, 28);
    asm.load(Half, 6);
    asm.jump_if(R0, AnyBitOf, 0x1fff, nothing);
    asm.load(Byte, 9);
    asm.jump_if(R0, Equal, protocol::TCP.into(), is_flow);
    asm.jump_if(R0, NotEqual, protocol::UDP.into(), nothing);
    asm.here(is_flow);
    load_wide(asm, R8, 16, 12);
    // Behind the addresses come its options, if any, then the ports.
    asm.load(Byte, 0);
    asm.jump_if(R0, Below, 0x45, nothing);
    asm.jump_if(R0, AtLeast, 0x50, nothing);
    asm.with(And, R0, 0xf);
    asm.with(ShiftLeft, R0, 2);
    asm.with_register(Add, R7, R0);
    load_swapped_ports(asm, 0);
}

fn of_ipv6(asm: &mut Assembler, nothing: Label) {
    let [fragment, ports, hash] = [asm.label(), asm.label(), asm.label()];
    load_version_6(asm, nothing);
    load_addresses(asm, [8, 24]);
    asm.load(Byte, 6);
    asm.jump_if(R0, Equal, protocol::TCP.into(), ports);
    asm.jump_if(R0, Equal, protocol::UDP.into(), ports);
    asm.jump_if(R0, Equal, protocol::FRAGMENT.into(), fragment);
    asm.jump_if(R0, NotEqual, protocol::ICMPV6.into(), nothing);
    of_ipv6_error(asm, nothing);
    asm.jump(hash);
    asm.here(fragment);
    asm.load(Word, 44);
    asm.jump(hash);
    asm.here(ports);
    asm.load(Word, 40);
    asm.here(hash);
    asm.with(ShiftLeft, R0, 32);
    asm.with_register(Set, R9, R0);
    for (register, slot) in [R5, R6, R7, R8].into_iter().zip(SLOTS) {
        asm.restore(register, slot);
    }
    say_bucket(asm, &[R5, R6, R7, R8, R9], &MASKS_V6);
}

/// What the answer to the quoted packet would have: the stack and, in R0, the ports.
fn of_ipv6_error(asm: &mut Assembler, nothing: Label) {
    let is_flow = asm.label();
    asm.load(Byte, 40);
    asm.jump_if(R0, AtLeast, 128, nothing);
    asm.with(Add, R7, 48);
    load_version_6(asm, nothing);
    asm.load(Byte, 6);
    asm.jump_if(R0, Equal, protocol::TCP.into(), is_flow);
    asm.jump_if(R0, NotEqual, protocol::UDP.into(), nothing);
    asm.here(is_flow);
    load_addresses(asm, [24, 8]);
    load_swapped_ports(asm, 40);
}

fn load_version_6(asm: &mut Assembler, nothing: Label) {
    asm.load(Byte, 0);
    asm.with(ShiftRight, R0, 4);
    asm.jump_if(R0, NotEqual, 6, nothing);
}

/// Two words of the packet as one; uses R0.
fn load_wide(asm: &mut Assembler, register: Register, upper: i32, lower: i32) {
    asm.load(Word, upper);
    asm.with_register(Set, register, R0);
    asm.with(ShiftLeft, register, 32);
    asm.load(Word, lower);
    asm.with_register(Or, register, R0);
}

/// Two IPv6 addresses to the stack; uses R0 and R8.
fn load_addresses(asm: &mut Assembler, at: [i32; 2]) {
    for (slot, at) in SLOTS.into_iter().zip([at[0], at[0] + 8, at[1], at[1] + 8]) {
        load_wide(asm, R8, at, at + 4);
        asm.store(slot, R8);
    }
}

/// Ports in the other order, in R0.
fn load_swapped_ports(asm: &mut Assembler, at: i32) {
    asm.load(Word, at);
    asm.with_register(Set, R1, R0);
    asm.with(ShiftRight, R1, 16);
    asm.with(And, R0, 0xffff);
    asm.with(ShiftLeft, R0, 16);
    asm.with_register(Or, R0, R1);
}

/// The parities of `words` under each mask, as a number; then the end.
fn say_bucket<const WORDS: usize>(asm: &mut Assembler, words: &[Register; WORDS], masks: &[[u64; WORDS]]) {
    asm.with(Set, R0, 0);
    for (bit, masks) in (0..).zip(masks) {
        asm.with(Set, R1, 0);
        for (word, mask) in words.iter().zip(masks) {
            asm.set_wide(R2, *mask);
            asm.with_register(And, R2, *word);
            asm.with_register(Xor, R1, R2);
        }
        for half in [32, 16, 8, 4] {
            asm.with_register(Set, R2, R1);
            asm.with(ShiftRight, R2, half);
            asm.with_register(Xor, R1, R2);
        }
        // The parities of the numbers below 16.
        asm.with(And, R1, 0xf);
        asm.with(Set, R2, 0x6996);
        asm.with_register(ShiftRight, R2, R1);
        asm.with(And, R2, 1);
        asm.with(ShiftLeft, R2, bit);
        asm.with_register(Or, R0, R2);
    }
    asm.exit();
}

/// Where the four words of two IPv6 addresses are on the stack.
const SLOTS: [i16; 4] = [-8, -16, -24, -32];

/// Offsets of `protocol` and `vlan_present` in `struct __sk_buff`.
const CONTEXT_PROTOCOL: i16 = 16;
const CONTEXT_TAG_PRESENT: i16 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_we_agree_about_every_change_of_every_sample() {
        let program = match SocketProgram::load(&instructions()) {
            Ok(program) => program,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("SKIPPED: the_kernel_and_we_agree: loading programs needs CAP_BPF");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let (mut seen, mut runs) = (std::collections::HashSet::new(), 0);
        for sample in samples() {
            let mut agree = |frame: &[u8]| {
                let ours = bucket_of_frame(frame);
                let said = program
                    .run_on(frame)
                    .unwrap_or_else(|error| panic!("{error}: {} {frame:02x?}", frame.len()));
                assert_eq!(said as usize, ours, "{frame:02x?}");
                seen.insert(ours);
                runs += 1;
            };
            for at in 12..sample.len() {
                for value in [0, 1, 3, 6, 11, 12, 17, 44, 0x45, 0x46, 0x60, 0x80, 0xff, sample[at] ^ 0x20] {
                    let mut frame = sample.clone();
                    frame[at] = value;
                    agree(&frame);
                }
            }
            // The kernel tries programs only on whole IP headers.
            let shortest = if sample[12..14] == [8, 0] { 34 } else { 54 };
            (shortest..sample.len()).for_each(|len| agree(&sample[..len]));
        }
        assert!(seen.len() > 100 && runs > 5_000, "{} buckets in {runs} runs", seen.len());
    }
}
