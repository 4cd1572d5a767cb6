//! [`Assembler`]: kernel programs written down instruction by instruction, with names for the places to jump to.

use sluice_ffi::bpf::Instruction;

/// A register. Packet loads keep `R6` to `R9` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R5 = 5,
    R6,
    R7,
    R8,
    R9,
    Stack,
}

/// A place in the program, behind all jumps to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label(usize);

/// How much of the packet to load; numbers are in network order there.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Width {
    Byte = 0x50,
    Half = 0x48,
    Word = 0x40,
}

/// What to do with a register and a constant; the same code plus 8 takes another register.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Operation {
    Add = 0x07,
    Or = 0x47,
    And = 0x57,
    ShiftLeft = 0x67,
    ShiftRight = 0x77,
    Xor = 0xa7,
    Set = 0xb7,
}

/// When to jump.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Condition {
    Equal = 0x15,
    AtLeast = 0x35,
    AnyBitOf = 0x45,
    NotEqual = 0x55,
    Below = 0xa5,
}

/// Instructions so far.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    places: Vec<usize>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A place that is to come.
    pub(super) fn label(&mut self) -> Label {
        self.places.push(usize::MAX);
        Label(self.places.len() - 1)
    }

    /// The place is here.
    pub(super) fn here(&mut self, label: Label) {
        self.places[label.0] = self.code.len();
    }

    /// `register` and a constant.
    pub(super) fn with(&mut self, operation: Operation, register: Register, constant: i32) {
        self.push(operation as u8, register as u8, 0, constant);
    }

    /// `register` and another.
    pub(super) fn with_register(&mut self, operation: Operation, register: Register, other: Register) {
        self.push(operation as u8 + 8, (other as u8) << 4 | register as u8, 0, 0);
    }

    /// All 64 bits of a constant.
    pub(super) fn set_wide(&mut self, register: Register, constant: u64) {
        self.push(0x18, register as u8, 0, constant as i32);
        self.push(0, 0, 0, (constant >> 32) as i32);
    }

    /// Loads from the packet, `at` bytes behind where `R7` says, into `R0`. Without such bytes the program ends, and
    /// says 0.
    pub(super) fn load(&mut self, width: Width, at: i32) {
        self.push(width as u8, (Register::R7 as u8) << 4, 0, at);
    }

    /// Loads a number of what the kernel knows of the packet, which `R6` leads to.
    pub(super) fn load_context(&mut self, register: Register, offset: i16) {
        self.push(0x61, (Register::R6 as u8) << 4 | register as u8, offset, 0);
    }

    /// Makes a 16-bit number in network order one in the machine's.
    pub(super) fn in_host_order(&mut self, register: Register) {
        self.push(0xdc, register as u8, 0, 16);
    }

    /// Puts a register on the stack, at a negative offset.
    pub(super) fn store(&mut self, offset: i16, register: Register) {
        self.push(0x7b, (register as u8) << 4 | Register::Stack as u8, offset, 0);
    }

    /// Takes it from there.
    pub(super) fn restore(&mut self, register: Register, offset: i16) {
        self.push(0x79, (Register::Stack as u8) << 4 | register as u8, offset, 0);
    }

    /// Jumps when it is so.
    pub(super) fn jump_if(&mut self, register: Register, condition: Condition, constant: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(condition as u8, register as u8, 0, constant);
    }

    /// Jumps.
    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(0x05, 0, 0, 0);
    }

    /// Ends; `R0` is what the program says.
    pub(super) fn exit(&mut self) {
        self.push(0x95, 0, 0, 0);
    }

    /// The program.
    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            self.code[at].offset = (self.places[label.0] - at - 1) as i16;
        }
        self.code
    }

    fn push(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers, offset, immediate });
    }
}
