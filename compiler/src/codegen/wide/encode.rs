//! Encoder of the few instructions that wide loops are made of: EVEX at 512 bit, mask registers, and loop control.
//!
//! Source: Intel, "64 and IA-32 Architectures Software Developer's Manual", volume 2, sections 2.3 and 2.7. The listing
//! that is kept beside the bytes is checked against a disassembler in the tests.

use std::fmt::Write as _;

use super::instructions::{Evex, Form};

/// A general register by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gpr(pub(super) u8);

impl Gpr {
    pub(super) const RAX: Gpr = Gpr(0);
    pub(super) const RCX: Gpr = Gpr(1);
    pub(super) const RDX: Gpr = Gpr(2);
    pub(super) const RDI: Gpr = Gpr(7);

    fn name(self) -> &'static str {
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        NAMES[usize::from(self.0 & 15)]
    }
}

/// Memory: `base + index * 2^scale + displacement`, or a word of the pool behind the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    At { base: Gpr, index: Option<(Gpr, u8)>, displacement: i32 },
    Pool(usize),
}

/// The operand that may be a register or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rm {
    /// A vector or mask register.
    Register(u8),
    /// Memory of the instruction's own size.
    Memory(Memory),
    /// One word in all lanes.
    Word(Memory),
}

/// Lanes that an instruction writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    All,
    /// Those of a mask; the others keep their value, or memory its content.
    Where(u8),
    /// Those of a mask; the others become zero.
    OrZero(u8),
}

/// An operation of two mask registers, by its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) enum MaskOp {
    And,
    Or,
    Xor,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Conditions after a comparison of signed numbers, or a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Less,
    LessOrEqual,
    Greater,
    Zero,
    NotZero,
}

/// Bytes in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    bytes: Vec<u8>,
    /// Words behind the code.
    pool: Vec<u32>,
    /// Place of a displacement, end of its instruction, word.
    pool_uses: Vec<(usize, usize, usize)>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
    /// One line per instruction, if wanted.
    listing: Option<String>,
}

impl Assembler {
    pub(super) fn new(listing: bool) -> Assembler {
        Assembler { listing: listing.then(String::new), ..Assembler::default() }
    }

    /// A word behind the code.
    pub(super) fn word(&mut self, bits: u32) -> Memory {
        let known = self.pool.iter().position(|word| *word == bits);
        Memory::Pool(known.unwrap_or_else(|| {
            self.pool.push(bits);
            self.pool.len() - 1
        }))
    }

    /// Sixteen words in a row behind the code.
    pub(super) fn words(&mut self, words: [u32; 16]) -> Memory {
        let known = self.pool.windows(16).position(|window| window == words);
        Memory::Pool(known.unwrap_or_else(|| {
            self.pool.extend(words);
            self.pool.len() - 16
        }))
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.bytes.len());
        self.note(|| format!(".{}:", label.0));
    }

    /// `a` is ignored by forms without it.
    pub(super) fn evex(&mut self, op: Evex, to: u8, a: u8, rm: Rm, lanes: Lanes, immediate: Option<u8>) {
        self.note(|| listed(op, to, a, rm, lanes, immediate));
        let (reg, second) = match op.form {
            Form::Shift(extension) => (extension, to),
            Form::Two | Form::FromGeneral | Form::FromMask | Form::Store | Form::TwoImmediate => (to, 0),
            _ => (to, a),
        };
        let (x, b) = match rm {
            Rm::Register(number) => (number >> 4 & 1, number >> 3 & 1),
            Rm::Memory(memory) | Rm::Word(memory) => high_bits(memory),
        };
        let (r, r_high) = (reg >> 3 & 1, reg >> 4 & 1);
        let (mask, zero) = match lanes {
            Lanes::All => (0, 0),
            Lanes::Where(mask) => (mask, 0),
            Lanes::OrZero(mask) => (mask, 1),
        };
        let broadcast = u8::from(matches!(rm, Rm::Word(_)));
        let not = |bit: u8| bit ^ 1;
        self.bytes.push(0x62);
        self.bytes.push(not(r) << 7 | not(x) << 6 | not(b) << 5 | not(r_high) << 4 | op.map);
        self.bytes.push(u8::from(op.wide) << 7 | (!second & 15) << 3 | 4 | op.prefix);
        self.bytes.push(zero << 7 | 2 << 5 | broadcast << 4 | not(second >> 4 & 1) << 3 | mask);
        self.bytes.push(op.code);
        let unit = if broadcast == 1 { 4 } else { op.unit };
        self.operand(reg & 7, rm, unit, usize::from(immediate.is_some()));
        self.bytes.extend(immediate);
    }

    /// ModRM, SIB and displacement; `rest` bytes follow in the instruction.
    fn operand(&mut self, reg: u8, rm: Rm, unit: i32, rest: usize) {
        let memory = match rm {
            Rm::Register(number) => return self.bytes.push(0xc0 | reg << 3 | number & 7),
            Rm::Memory(memory) | Rm::Word(memory) => memory,
        };
        let Memory::At { base, index, displacement } = memory else {
            let Memory::Pool(word) = memory else { return };
            self.bytes.push(reg << 3 | 5);
            let at = self.bytes.len();
            self.bytes.extend([0; 4]);
            self.pool_uses.push((at, at + 4 + rest, word));
            return;
        };
        let short = i8::try_from(displacement / unit).ok().filter(|_| displacement % unit == 0);
        let mode = match short {
            Some(0) if base.0 & 7 != 5 => 0,
            Some(_) => 1,
            None => 2,
        };
        if index.is_some() || base.0 & 7 == 4 {
            let (index, scale) = index.map_or((4, 0), |(index, scale)| (index.0, scale));
            self.bytes.push(mode << 6 | reg << 3 | 4);
            self.bytes.push(scale << 6 | (index & 7) << 3 | base.0 & 7);
        } else {
            self.bytes.push(mode << 6 | reg << 3 | base.0 & 7);
        }
        match (mode, short) {
            (1, Some(short)) => self.bytes.push(short as u8),
            (2, _) => self.bytes.extend(displacement.to_le_bytes()),
            _ => {}
        }
    }

    /// `to = a op b` of masks.
    pub(super) fn mask(&mut self, op: MaskOp, to: u8, a: u8, b: u8) {
        let (name, code) = match op {
            MaskOp::And => ("kandw", 0x41),
            MaskOp::Or => ("korw", 0x45),
            MaskOp::Xor => ("kxorw", 0x47),
        };
        self.note(|| format!("{name} k{to}, k{a}, k{b}"));
        self.bytes.extend([0xc5, 0x80 | (!a & 15) << 3 | 4, code, 0xc0 | to << 3 | b]);
    }

    pub(super) fn mask_not(&mut self, to: u8, a: u8) {
        self.note(|| format!("knotw k{to}, k{a}"));
        self.bytes.extend([0xc5, 0xf8, 0x44, 0xc0 | to << 3 | a]);
    }

    /// Whether a mask has any of its lowest 16 bits, for [`Condition::Zero`].
    pub(super) fn mask_test(&mut self, mask: u8) {
        self.note(|| format!("kortestw k{mask}, k{mask}"));
        self.bytes.extend([0xc5, 0xf8, 0x98, 0xc0 | mask << 3 | mask]);
    }

    /// The lowest `count` bits of a mask, of which there are at most 16; `count` is below 256.
    pub(super) fn mask_below(&mut self, to: u8, count: Gpr) {
        self.note(|| format!("mov ecx, -1\nbzhi ecx, ecx, e{}\nkmovw k{to}, ecx", &count.name()[1..]));
        self.bytes.extend([0xb9, 0xff, 0xff, 0xff, 0xff]);
        self.bytes.extend([0xc4, 0xe2, (!count.0 & 15) << 3, 0xf5, 0xc9]);
        self.bytes.extend([0xc5, 0xf8, 0x92, 0xc0 | to << 3 | 1]);
    }

    /// A mask of constant bits.
    pub(super) fn mask_bits(&mut self, to: u8, bits: u16) {
        self.note(|| format!("mov ecx, {}\nkmovw k{to}, ecx", hex(i64::from(bits))));
        self.bytes.push(0xb9);
        self.bytes.extend(u32::from(bits).to_le_bytes());
        self.bytes.extend([0xc5, 0xf8, 0x92, 0xc0 | to << 3 | 1]);
    }

    /// Of the elements that every second of `count` ones stretches over, 16 from the element `skip` on; with `even`, only
    /// every second. Changes `rcx` and `temporary`.
    pub(super) fn mask_spread(&mut self, to: u8, count: Gpr, skip: u8, even: bool, temporary: Gpr) {
        self.address(temporary, Memory::At { base: count, index: Some((count, 0)), displacement: -1 });
        self.set(Gpr(1), -1);
        self.note(|| format!("bzhi rcx, rcx, {}", temporary.name()));
        self.bytes.extend([0xc4, 0xe2, 0x80 | (!temporary.0 & 15) << 3, 0xf5, 0xc9]);
        if skip > 0 {
            self.note(|| format!("shr rcx, {}", hex(i64::from(skip))));
            self.bytes.extend([0x48, 0xc1, 0xe9, skip]);
        }
        if even {
            self.note(|| "and rcx, 0x5555".to_owned());
            self.integer(0x81, 4, IntRm::Register(Gpr(1)));
            self.bytes.extend(0x5555u32.to_le_bytes());
        }
        self.note(|| format!("kmovw k{to}, ecx"));
        self.bytes.extend([0xc5, 0xf8, 0x92, 0xc0 | to << 3 | 1]);
    }

    /// One-byte-opcode instruction of 64 bit with a memory or register operand.
    fn integer(&mut self, code: u8, reg: u8, rm: IntRm) {
        let (x, b) = match rm {
            IntRm::Register(register) => (0, register.0 >> 3),
            IntRm::Memory(memory) => high_bits(memory),
        };
        self.bytes.push(0x48 | reg >> 3 << 2 | x << 1 | b);
        self.bytes.push(code);
        match rm {
            IntRm::Register(register) => self.bytes.push(0xc0 | (reg & 7) << 3 | register.0 & 7),
            IntRm::Memory(memory) => self.operand(reg & 7, Rm::Memory(memory), 1, 0),
        }
    }

    pub(super) fn load(&mut self, to: Gpr, from: Memory) {
        self.note(|| format!("mov {}, {}", to.name(), memory_text(from)));
        self.integer(0x8b, to.0, IntRm::Memory(from));
    }

    pub(super) fn address(&mut self, to: Gpr, from: Memory) {
        self.note(|| format!("lea {}, {}", to.name(), memory_text(from)));
        self.integer(0x8d, to.0, IntRm::Memory(from));
    }

    pub(super) fn copy(&mut self, to: Gpr, from: Gpr) {
        self.note(|| format!("mov {}, {}", to.name(), from.name()));
        self.integer(0x8b, to.0, IntRm::Register(from));
    }

    pub(super) fn set(&mut self, to: Gpr, value: i32) {
        self.note(|| format!("mov {}, {}", to.name(), hex(i64::from(value))));
        self.integer(0xc7, 0, IntRm::Register(to));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn add(&mut self, to: Gpr, value: i32) {
        self.note(|| format!("add {}, {}", to.name(), hex(i64::from(value))));
        self.integer(0x81, 0, IntRm::Register(to));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn add_to_memory(&mut self, to: Memory, value: i32) {
        self.note(|| format!("add {}, {}", memory_text(to), hex(i64::from(value))));
        self.integer(0x81, 0, IntRm::Memory(to));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn subtract(&mut self, to: Gpr, value: i32) {
        self.note(|| format!("sub {}, {}", to.name(), hex(i64::from(value))));
        self.integer(0x81, 5, IntRm::Register(to));
        self.bytes.extend(value.to_le_bytes());
    }

    pub(super) fn subtract_register(&mut self, to: Gpr, other: Gpr) {
        self.note(|| format!("sub {}, {}", to.name(), other.name()));
        self.integer(0x2b, to.0, IntRm::Register(other));
    }

    pub(super) fn compare(&mut self, a: Gpr, b: Gpr) {
        self.note(|| format!("cmp {}, {}", a.name(), b.name()));
        self.integer(0x3b, a.0, IntRm::Register(b));
    }

    pub(super) fn push(&mut self, register: Gpr) {
        self.note(|| format!("push {}", register.name()));
        if register.0 >= 8 {
            self.bytes.push(0x41);
        }
        self.bytes.push(0x50 | register.0 & 7);
    }

    pub(super) fn pop(&mut self, register: Gpr) {
        self.note(|| format!("pop {}", register.name()));
        if register.0 >= 8 {
            self.bytes.push(0x41);
        }
        self.bytes.push(0x58 | register.0 & 7);
    }

    pub(super) fn jump_if(&mut self, condition: Condition, label: Label) {
        let (name, code) = match condition {
            Condition::Less => ("jl", 0x8c),
            Condition::LessOrEqual => ("jle", 0x8e),
            Condition::Greater => ("jg", 0x8f),
            Condition::Zero => ("je", 0x84),
            Condition::NotZero => ("jne", 0x85),
        };
        self.note(|| format!("{name} .{}", label.0));
        self.bytes.extend([0x0f, code, 0, 0, 0, 0]);
        self.jumps.push((self.bytes.len() - 4, label));
    }

    /// Clean upper halves, as Cranelift's moves need, and back.
    pub(super) fn leave(&mut self) {
        self.note(|| "vzeroupper\nret".to_owned());
        self.bytes.extend([0xc5, 0xf8, 0x77, 0xc3]);
    }

    /// Instructions that do nothing, up to a multiple of `alignment` bytes.
    pub(super) fn align(&mut self, alignment: usize) {
        const NOPS: [&[u8]; 9] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
            &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        ];
        let mut missing = self.bytes.len().next_multiple_of(alignment) - self.bytes.len();
        while missing > 0 {
            let length = missing.min(NOPS.len());
            self.bytes.extend(NOPS[length - 1]);
            missing -= length;
        }
    }

    /// The bytes, with the pool behind them, and the listing.
    pub(super) fn finish(mut self) -> (Vec<u8>, Option<String>) {
        for (at, label) in &self.jumps {
            let target = self.labels[label.0].unwrap_or(0);
            let distance = target as i64 - (*at as i64 + 4);
            self.bytes[*at..*at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
        }
        let start = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(start, 0xcc);
        for word in &self.pool {
            self.bytes.extend(word.to_le_bytes());
        }
        for (at, end, word) in &self.pool_uses {
            let distance = (start + 4 * word) as i64 - *end as i64;
            self.bytes[*at..*at + 4].copy_from_slice(&(distance as i32).to_le_bytes());
        }
        (self.bytes, self.listing)
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(listing) = &mut self.listing {
            // Writing to a String cannot fail.
            let _ = writeln!(listing, "{}", line());
        }
    }
}

#[derive(Clone, Copy)]
enum IntRm {
    Register(Gpr),
    Memory(Memory),
}

/// Bit 3 of index and base.
fn high_bits(memory: Memory) -> (u8, u8) {
    match memory {
        Memory::At { base, index, .. } => (index.map_or(0, |(index, _)| index.0 >> 3), base.0 >> 3),
        Memory::Pool(_) => (0, 0),
    }
}

fn hex(value: i64) -> String {
    match value {
        0..=9 => value.to_string(),
        _ if value < 0 => format!("{value}"),
        _ => format!("{value:#x}"),
    }
}

fn memory_text(memory: Memory) -> String {
    match memory {
        Memory::Pool(word) => format!("[word {word}]"),
        Memory::At { base, index, displacement } => {
            let mut text = format!("[{}", base.name());
            if let Some((index, scale)) = index {
                let _ = write!(text, "+{}*{}", index.name(), 1 << scale);
            }
            if displacement != 0 {
                let _ = write!(text, "{displacement:+}");
            }
            text + "]"
        }
    }
}

fn listed(op: Evex, to: u8, a: u8, rm: Rm, lanes: Lanes, immediate: Option<u8>) -> String {
    let rm = match rm {
        Rm::Register(number) if op.form == Form::FromMask => format!("k{number}"),
        Rm::Register(number) if op.form == Form::FromGeneral => Gpr(number).name().replace('r', "e"),
        Rm::Register(number) => format!("zmm{number}"),
        Rm::Memory(memory) => memory_text(memory),
        Rm::Word(memory) => memory_text(memory) + "{1to16}",
    };
    let lanes = match lanes {
        Lanes::All => String::new(),
        Lanes::Where(mask) => format!("{{k{mask}}}"),
        Lanes::OrZero(mask) => format!("{{k{mask}}}{{z}}"),
    };
    let operands = match op.form {
        Form::Three | Form::ThreeImmediate => format!("zmm{to}{lanes}, zmm{a}, {rm}"),
        Form::Two | Form::FromGeneral | Form::FromMask | Form::TwoImmediate | Form::Shift(_) => {
            format!("zmm{to}{lanes}, {rm}")
        }
        Form::Store => format!("{rm}{lanes}, zmm{to}"),
        Form::Compare | Form::Test => format!("k{to}{lanes}, zmm{a}, {rm}"),
    };
    let immediate = immediate.map_or(String::new(), |value| format!(", {value}"));
    format!("{} {operands}{immediate}", op.name)
}
