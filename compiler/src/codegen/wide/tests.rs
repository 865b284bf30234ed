//! The encoder against a disassembler, and registers of tapes that are too long.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};

use super::encode::{Assembler, Condition, Gpr, Lanes, MaskOp, Memory, Rm};
use super::instructions::ALL;
use super::tape::{Binary, Op, Source, Tape};
use super::{LANES, assemble};

/// What a disassembler reads, in the words of our listing.
fn disassembled(bytes: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_space_after_operand_separator(true);
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_memory_size_options(iced_x86::MemorySizeOptions::Never);
    options.set_signed_immediate_operands(true);
    options.set_scale_before_index(false);
    options.set_always_show_scale(true);
    options.set_displacement_leading_zeros(false);
    options.set_use_pseudo_ops(false);
    options.set_small_hex_numbers_in_decimal(true);
    let mut lines = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        lines.push(line);
    }
    lines
}

/// Numbers as decimals, so that the two ways to write them do not matter.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.trim();
    while let Some(at) = rest.find("0x") {
        let digits: String = rest[at + 2..].chars().take_while(char::is_ascii_hexdigit).collect();
        text.push_str(&rest[..at]);
        text.push_str(&u64::from_str_radix(&digits, 16).unwrap().to_string());
        rest = &rest[at + 2 + digits.len()..];
    }
    text.push_str(rest);
    // Ours has one name for a register, whatever part of it is used.
    text.replace("xmm", "zmm").replace("ymm", "zmm")
}

fn same(write: impl FnOnce(&mut Assembler)) {
    let mut assembler = Assembler::new(true);
    write(&mut assembler);
    let (bytes, listing) = assembler.finish();
    let listing = listing.unwrap();
    let wanted: Vec<String> = listing.lines().map(plain).collect();
    let end = bytes.iter().rposition(|byte| *byte != 0xcc).map_or(0, |last| last + 1);
    let found: Vec<String> = disassembled(&bytes[..end]).iter().map(|line| plain(line)).collect();
    for (wanted, found) in wanted.iter().zip(&found) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len(), "{found:?}");
}

fn at(base: u8, index: Option<(u8, u8)>, displacement: i32) -> Memory {
    Memory::At { base: Gpr(base), index: index.map(|(index, scale)| (Gpr(index), scale)), displacement }
}

#[test]
fn vector_instructions_are_what_the_listing_says() {
    let memories = [
        at(7, None, 0),
        at(5, None, 0),
        at(13, None, 64),
        at(12, None, -64),
        at(4, None, 4),
        at(9, Some((0, 2)), 128 * 64),
        at(6, Some((12, 0)), -128 * 64),
        at(8, Some((13, 2)), 3),
        at(15, Some((9, 2)), i32::MIN),
    ];
    let registers = [(0u8, 0u8, 0u8), (31, 0, 0), (0, 31, 0), (0, 0, 31), (7, 8, 15), (16, 17, 18), (23, 24, 9)];
    for op in ALL {
        let immediate = op.immediate_for_test();
        for (to, a, b) in registers {
            let to = if op.writes_mask_for_test() { to & 7 } else { to };
            let b = if op.reads_no_vector_for_test() { b & 7 } else { b };
            if !op.stores_for_test() {
                for lanes in op.lanes_for_test() {
                    same(|w| w.evex(*op, to, a, Rm::Register(b), lanes, immediate));
                }
            }
        }
        for memory in memories.into_iter().filter(|_| !op.reads_no_vector_for_test()) {
            for lanes in op.lanes_for_test() {
                if lanes_fit_memory(op.stores_for_test(), lanes) {
                    same(|w| w.evex(*op, 5, 22, Rm::Memory(memory), lanes, immediate));
                }
            }
            if op.takes_words_for_test() {
                same(|w| w.evex(*op, 5, 22, Rm::Word(memory), Lanes::All, immediate));
            }
        }
    }
}

/// Memory is not set to zero where a mask is off.
fn lanes_fit_memory(stores: bool, lanes: Lanes) -> bool {
    !(stores && matches!(lanes, Lanes::OrZero(_)))
}

#[test]
fn other_instructions_are_what_the_listing_says() {
    same(|w| {
        for (to, a, b) in [(1, 2, 3), (7, 7, 7), (2, 0, 5)] {
            for op in [MaskOp::And, MaskOp::Or, MaskOp::Xor] {
                w.mask(op, to, a, b);
            }
            w.mask_not(to, a);
            w.mask_test(to);
        }
        w.mask_below(1, Gpr(2));
        w.mask_bits(7, 0x5555);
        w.mask_spread(7, Gpr(2), 0, false, Gpr(11));
        w.mask_spread(3, Gpr(2), 15, true, Gpr(11));
        for register in 0..16 {
            let register = Gpr(register);
            w.push(register);
            w.pop(register);
            w.set(register, 1000);
            w.add(register, -4096);
            w.subtract(register, 16);
            w.subtract_register(register, Gpr(2));
            w.compare(Gpr(0), register);
            w.copy(Gpr(11), register);
            w.load(register, at(7, None, 8));
            w.add_to_memory(at(register.0, None, 1000), -4096);
            w.address(register, at(10, Some((0, 2)), 0));
        }
        w.leave();
    });
}

#[test]
fn jumps_go_to_their_labels() {
    let mut assembler = Assembler::new(false);
    let (head, done) = (assembler.label(), assembler.label());
    assembler.jump_if(Condition::Less, done);
    assembler.align(32);
    assembler.bind(head);
    assembler.add(Gpr(0), 1);
    assembler.jump_if(Condition::NotZero, head);
    assembler.bind(done);
    assembler.leave();
    let (bytes, _) = assembler.finish();
    let lines = disassembled(&bytes);
    let jumps: Vec<&String> = lines.iter().filter(|line| line.starts_with('j')).collect();
    // The addition is 7 bytes long, the jump 6.
    assert!(jumps[0].contains("2D") && jumps[1].contains("20"), "{jumps:?}");
}

#[test]
fn words_of_the_pool_are_found() {
    let mut assembler = Assembler::new(false);
    for bits in [1.5f32.to_bits(), 0x3f, 1.5f32.to_bits()] {
        let memory = assembler.word(bits);
        assembler.evex(super::instructions::VRNDSCALEPS, 3, 0, Rm::Word(memory), Lanes::All, Some(8));
    }
    let (bytes, _) = assembler.finish();
    let mut decoder = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE);
    for bits in [1.5f32.to_bits(), 0x3f, 1.5f32.to_bits()] {
        let place = decoder.decode().ip_rel_memory_address() as usize;
        assert_eq!(bytes[place..place + 4], bits.to_le_bytes());
    }
    assert_eq!(bytes.len() % 64, 8, "equal words are one");
}

/// A sum of `count` loads that are all alive at once.
fn wide_sum(count: usize) -> Tape {
    let mut tape = Tape::default();
    let data = super::tape::StreamData { size: 4, step: 1, strides: Vec::new(), rows: Vec::new(), turn: 0 };
    let stream = tape.add_stream(data);
    let loads: Vec<Source> = (0..count)
        .map(|number| {
            let to = tape.vector();
            let at = super::tape::At { stream, displacement: 4 * number as i32 };
            tape.push(Op::Load { to, at, element: super::tape::Element::Word });
            Source::Vector(to)
        })
        .collect();
    let sum = loads[1..].iter().rev().fold(loads[0], |sum, load| tape.binary(Binary::Sub, sum, *load));
    tape.push(Op::Store {
        at: super::tape::At { stream, displacement: 0 },
        element: super::tape::Element::Word,
        value: sum,
    });
    tape
}

#[test]
fn fewer_vectors_a_round_where_registers_are_few() {
    assert_eq!(LANES, 16);
    assert_eq!(assemble(&wide_sum(3), 8, false).unwrap().copies, 8);
    assert_eq!(assemble(&wide_sum(9), 8, false).unwrap().copies, 2);
    assert_eq!(assemble(&wide_sum(31), 8, false).unwrap().copies, 1);
    assert!(assemble(&wide_sum(32), 8, false).unwrap_err().contains("vector registers"));
}

/// Such as the part of a concatenation that a row does not come from.
#[test]
fn a_load_without_lanes_is_jumped_over_where_a_row_decides() {
    let code = |whole: bool| {
        let mut tape = Tape::default();
        let data = super::tape::StreamData { size: 4, step: 1, strides: Vec::new(), rows: Vec::new(), turn: 0 };
        let at = super::tape::At { stream: tape.add_stream(data), displacement: 0 };
        let element = super::tape::Element::Word;
        let (truth, mask, to) = (tape.argument(), tape.mask(), tape.vector());
        let otherwise = tape.number(0.0);
        tape.push(Op::Test { to: mask, x: Source::Word(truth) });
        tape.push(Op::LoadWhere { to, at, element, mask, otherwise, whole });
        tape.push(Op::Store { at, element, value: Source::Vector(to) });
        assemble(&tape, 2, true).unwrap().listing.unwrap()
    };
    let lines = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let listing = lines(&code(true));
    let tests: Vec<usize> = (0..listing.len()).filter(|&i| listing[i].starts_with("kortestw")).collect();
    // Two vectors in a round, one in the rest.
    assert_eq!(tests.len(), 3, "{listing:?}");
    for at in tests {
        let target = listing[at + 1].strip_prefix("je ").unwrap();
        let label = listing.iter().position(|line| *line == format!("{target}:")).unwrap();
        let loads = listing[at + 2..label].iter().filter(|line| line.starts_with("vmovups")).count();
        assert_eq!(loads, 1, "{listing:?}");
    }
    assert!(!code(false).contains("kortestw"));
}
