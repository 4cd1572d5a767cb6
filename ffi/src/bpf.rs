//! Programs for the kernel: [`Instruction`]s, loading, and running one on a packet to see what it says.
//!
//! The kernel verifies what it loads, so no program can harm it or this process. Needs CAP_BPF.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct bpf_insn`: code, registers (source in the high nibble), offset, immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// Destination register in the low nibble, source in the high one.
    pub registers: u8,
    /// Of a jump, in instructions from the next one on; of a load or store, in bytes.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// A program that is given a packet from its network header on, and says a number. In the kernel until dropped, or
/// as long as something is attached to it.
#[derive(Debug)]
pub struct SocketProgram {
    descriptor: OwnedFd,
}

impl SocketProgram {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel's: without the capability, or when it refuses the program.
    pub fn load(program: &[Instruction]) -> io::Result<Self> {
        load(PROGRAM_TYPE_SOCKET_FILTER, program).map(|descriptor| Self { descriptor })
    }

    /// What it says about `frame`, an Ethernet frame that is not empty. One system call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run_on(&self, frame: &[u8]) -> io::Result<u32> {
        let mut request = TestRequest {
            program: self.descriptor.as_raw_fd() as u32,
            data_in_bytes: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            ..bytemuck::Zeroable::zeroed()
        };
        // SAFETY: the frame is as many readable bytes as said; no room for output is offered.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut request) }?;
        Ok(request.said)
    }
}

impl AsFd for SocketProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct LoadRequest {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN reads and writes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TestRequest {
    program: u32,
    said: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
}

/// Loads a program of a type.
pub(crate) fn load(program_type: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut request = LoadRequest {
        program_type,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
    };
    // SAFETY: the instructions and the licence outlive the call; the kernel copies them.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &mut request) }?;
    // SAFETY: the descriptor was just created and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// The pointers in `request` are good for the length of the call and for what `command` does with them.
pub(crate) unsafe fn bpf<T: bytemuck::Pod>(command: libc::c_int, request: &mut T) -> io::Result<i32> {
    // SAFETY: `request` is as many bytes as we say, ours to be written; the rest is the caller's promise.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(request), size_of::<T>()) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status as i32) }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const PROGRAM_TYPE_SOCKET_FILTER: u32 = 1;
const LICENSE: &CStr = c"Apache-2.0";

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

    #[test]
    fn a_program_says_a_number_and_a_bad_one_is_refused() {
        let set_r0 = |immediate| Instruction { code: 0xb7, registers: 0, offset: 0, immediate };
        let refused = SocketProgram::load(&[EXIT]).expect_err("register 0 was not set");
        match SocketProgram::load(&[set_r0(77), EXIT]) {
            Ok(program) => {
                assert_eq!(program.run_on(&[0; 64]).expect("runs"), 77);
                assert!(program.run_on(&[0; 3]).is_err(), "no Ethernet frame");
            }
            Err(error) => {
                assert_eq!((error.kind(), refused.kind()), (io::ErrorKind::PermissionDenied, error.kind()));
                eprintln!("SKIPPED: a_program_says_a_number: loading programs needs CAP_BPF");
            }
        }
    }
}
