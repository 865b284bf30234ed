//! Conversions between element types in lanes.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use kiln_ir::DType;
use kiln_ir::scalar::{CompareFn, Number};

use super::function::{Emitted, Emitter, LANES, Val, lane_type};
use super::scalar::byte_range;

impl Emitter<'_, '_> {
    /// The value in another type.
    pub(super) fn lanes_cast(&mut self, from: DType, to: DType, x: Val) -> Emitted<Val> {
        if from == to {
            return Ok(x);
        }
        if to == DType::Bool {
            let zero = self.literal_lanes(Number::Int(0).to_dtype(from), from);
            return self.lanes_compare(CompareFn::Ne, from, x, zero);
        }
        let Val::Lanes(low, high) = x else { return Err("lanes expected".to_string()) };
        if from == DType::Bool {
            return self.mask_to(to, low);
        }
        let narrow = from.bytes() <= 4 && !from.is_float();
        match (from, to) {
            (DType::F32, DType::I32) => Ok(Val::Lanes(self.b.ins().fcvt_to_sint_sat(types::I32X4, low), None)),
            (DType::F32, DType::U32) => Ok(Val::Lanes(self.b.ins().fcvt_to_uint_sat(types::I32X4, low), None)),
            (DType::F32, DType::I8 | DType::U8) => Ok(self.float_to_byte(to, low)),
            (DType::U32, DType::F32) => Ok(Val::Lanes(self.b.ins().fcvt_from_uint(types::F32X4, low), None)),
            (DType::I64, DType::I32 | DType::U32 | DType::I8 | DType::U8) => {
                let words = self.even_words(low, high.ok_or("lanes of 64 bit expected")?, 0);
                Ok(self.wrapped(to, Val::Lanes(words, None)))
            }
            (_, DType::F32) if narrow => Ok(Val::Lanes(self.b.ins().fcvt_from_sint(types::F32X4, low), None)),
            (_, DType::I64) if narrow => Ok(self.widened(from.is_signed(), low)),
            (_, DType::I32 | DType::U32 | DType::I8 | DType::U8) if narrow => {
                Ok(self.wrapped(to, Val::Lanes(low, None)))
            }
            _ => self.cast_elements(from, to, x),
        }
    }

    fn cast_elements(&mut self, from: DType, to: DType, x: Val) -> Emitted<Val> {
        let elements = self.elements(x, from);
        let mut results = Vec::with_capacity(LANES as usize);
        for element in elements {
            results.push(self.scalar_cast(from, to, element)?);
        }
        Ok(self.gathered(&results, to))
    }

    /// 0 or 1 of a mask.
    fn mask_to(&mut self, to: DType, mask: Value) -> Emitted<Val> {
        let (ty, two) = lane_type(to);
        let one = Number::Int(1).to_dtype(to);
        let Val::Lanes(one, _) = self.literal_lanes(one, to) else { return Err("lanes expected".to_string()) };
        let registers = if two {
            let (low, high) = (self.b.ins().swiden_low(mask), self.b.ins().swiden_high(mask));
            (low, Some(high))
        } else {
            (mask, None)
        };
        let mut cut = |register: Value| {
            let register = self.bits(register, ty);
            self.b.ins().band(register, one)
        };
        let low = cut(registers.0);
        Ok(Val::Lanes(low, registers.1.map(cut)))
    }

    fn float_to_byte(&mut self, to: DType, x: Value) -> Val {
        let (least, greatest) = byte_range(to);
        let wide = self.b.ins().fcvt_to_sint_sat(types::I32X4, x);
        match (
            self.literal_lanes(Number::Int(least), DType::I32),
            self.literal_lanes(Number::Int(greatest), DType::I32),
        ) {
            (Val::Lanes(least, _), Val::Lanes(greatest, _)) => {
                let wide = self.b.ins().smax(wide, least);
                Val::Lanes(self.b.ins().smin(wide, greatest), None)
            }
            _ => Val::Lanes(wide, None),
        }
    }

    fn widened(&mut self, signed: bool, x: Value) -> Val {
        if signed {
            let low = self.b.ins().swiden_low(x);
            Val::Lanes(low, Some(self.b.ins().swiden_high(x)))
        } else {
            let low = self.b.ins().uwiden_low(x);
            Val::Lanes(low, Some(self.b.ins().uwiden_high(x)))
        }
    }

    /// Masks of 64 bit as masks of 32 bit.
    pub(super) fn packed_mask(&mut self, mask: Val) -> Val {
        match mask {
            Val::Lanes(low, Some(high)) => Val::Lanes(self.even_words(low, high, 0), None),
            mask => mask,
        }
    }

    /// The 32-bit words at byte `at` (0 or 4) of each 64-bit lane.
    pub(super) fn even_words(&mut self, low: Value, high: Value, at: u8) -> Value {
        let (low, high) = (self.bits(low, types::I8X16), self.bits(high, types::I8X16));
        let mut mask = [0u8; 16];
        for (word, bytes) in mask.chunks_exact_mut(4).enumerate() {
            for (byte, place) in bytes.iter_mut().enumerate() {
                *place = word as u8 * 8 + at + byte as u8;
            }
        }
        let mask = self.b.func.dfg.immediates.push(mask.as_slice().into());
        let words = self.b.ins().shuffle(low, high, mask);
        self.bits(words, types::I32X4)
    }
}
