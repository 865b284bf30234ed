//! Functions of four lanes: the same bits as the functions of single elements.
//!
//! What the machine cannot do in a register is done element by element, so every function has a form in lanes.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use super::expr::Literals;
use super::function::{Emitted, Emitter, Key, LANES, Val, lane_type};
use super::scalar::{PHILOX_MULTIPLIERS, float_condition, int_condition, philox_keys};

impl Emitter<'_, '_> {
    /// The value in all lanes.
    pub(super) fn spread(&mut self, value: Val, dtype: DType) -> Val {
        let Val::One(value) = value else { return value };
        let (ty, two) = lane_type(dtype);
        let register = self.numbered(Key::Splat(value, ty), |e| {
            let element = e.lane_element(value, dtype);
            e.b.ins().splat(ty, element)
        });
        Val::Lanes(register, two.then_some(register))
    }

    /// An element as it stands in a lane.
    fn lane_element(&mut self, value: Value, dtype: DType) -> Value {
        match dtype {
            DType::I8 => self.b.ins().sextend(types::I32, value),
            DType::U8 => self.b.ins().uextend(types::I32, value),
            DType::Bool => {
                let wide = self.b.ins().uextend(types::I32, value);
                self.b.ins().ineg(wide)
            }
            _ => value,
        }
    }

    /// A constant in all lanes.
    pub(super) fn literal_lanes(&mut self, value: Number, dtype: DType) -> Val {
        let (bytes, ty) = literal_bytes(value, dtype);
        let register = self.constant(bytes, ty);
        Val::Lanes(register, lane_type(dtype).1.then_some(register))
    }

    /// Loads a constant into a register that stays, for the loop that follows.
    pub(super) fn literal_register(&mut self, value: Number, dtype: DType) {
        let (bytes, ty) = literal_bytes(value, dtype);
        self.constant_register(bytes, ty);
    }

    /// As [`Emitter::literal_register`] for any bytes.
    pub(super) fn constant_register(&mut self, bytes: [u8; 16], ty: Type) {
        self.numbered(Key::Constant(bytes, ty), |e| {
            let data = e.b.func.dfg.constants.insert(bytes.as_slice().into());
            e.b.ins().vconst(ty, data)
        });
    }

    /// The lanes as elements.
    pub(super) fn elements(&mut self, value: Val, dtype: DType) -> Vec<Value> {
        let (low, high) = match value {
            Val::One(value) => return vec![value; LANES as usize],
            Val::Lanes(low, high) => (low, high),
        };
        (0..LANES as u8)
            .map(|lane| {
                let element = match high {
                    Some(high) => self.lane_of(if lane < 2 { low } else { high }, lane % 2),
                    None => self.lane_of(low, lane),
                };
                match dtype {
                    DType::I8 | DType::U8 => self.b.ins().ireduce(types::I8, element),
                    DType::Bool => {
                        let byte = self.b.ins().ireduce(types::I8, element);
                        self.b.ins().band_imm_s(byte, 1)
                    }
                    _ => element,
                }
            })
            .collect()
    }

    /// Four elements as lanes.
    pub(super) fn gathered(&mut self, elements: &[Value], dtype: DType) -> Val {
        let (ty, two) = lane_type(dtype);
        let parts: Vec<Value> = elements.iter().map(|element| self.lane_element(*element, dtype)).collect();
        let mut registers = parts.chunks(if two { 2 } else { 4 }).map(|part| {
            let mut register = self.b.ins().scalar_to_vector(ty, part[0]);
            for (lane, element) in part.iter().enumerate().skip(1) {
                register = self.b.ins().insertlane(register, *element, lane as u8);
            }
            register
        });
        let low = registers.next();
        let high = registers.next();
        match low {
            Some(low) => Val::Lanes(low, high),
            None => Val::Lanes(parts[0], None),
        }
    }

    /// `first, first + step, ...` as `i64`.
    pub(super) fn ramp(&mut self, first: Value, step: i64) -> Val {
        let Val::Lanes(all, _) = self.spread(Val::One(first), DType::I64) else { return Val::One(first) };
        let mut part = |from: i64| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(from * step).to_le_bytes());
            bytes[8..].copy_from_slice(&((from + 1) * step).to_le_bytes());
            let steps = self.constant(bytes, types::I64X2);
            self.b.ins().iadd(all, steps)
        };
        let low = part(0);
        Val::Lanes(low, Some(part(2)))
    }

    /// `0 <= first + step * lane < limit` of values that fit 32 bit.
    pub(super) fn ramp_below(&mut self, first: Value, step: i64, limit: i64) -> Val {
        let first = self.b.ins().ireduce(types::I32, first);
        let Val::Lanes(all, _) = self.spread(Val::One(first), DType::I32) else { return Val::One(first) };
        let mut bytes = [0; 16];
        for (lane, word) in bytes.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&((lane as i64 * step) as i32).to_le_bytes());
        }
        let steps = self.constant(bytes, types::I32X4);
        let positions = self.b.ins().iadd(all, steps);
        let Val::Lanes(limit, _) = self.literal_lanes(Number::Int(limit), DType::I32) else {
            return Val::Lanes(positions, None);
        };
        Val::Lanes(self.b.ins().icmp(IntCC::UnsignedLessThan, positions, limit), None)
    }

    /// One or two registers from one or two registers.
    fn each1(&mut self, a: Val, mut f: impl FnMut(&mut Self, Value) -> Value) -> Val {
        match a {
            Val::One(a) => Val::One(f(self, a)),
            Val::Lanes(low, high) => {
                let low = f(self, low);
                Val::Lanes(low, high.map(|high| f(self, high)))
            }
        }
    }

    fn each2(&mut self, a: Val, b: Val, mut f: impl FnMut(&mut Self, Value, Value) -> Value) -> Emitted<Val> {
        match (a, b) {
            (Val::Lanes(a, None), Val::Lanes(b, None)) => Ok(Val::Lanes(f(self, a, b), None)),
            (Val::Lanes(a, Some(a2)), Val::Lanes(b, Some(b2))) => {
                let low = f(self, a, b);
                Ok(Val::Lanes(low, Some(f(self, a2, b2))))
            }
            _ => Err("operands in lanes differ".to_string()),
        }
    }

    /// Element by element.
    fn by_element(
        &mut self,
        operands: &[(Val, DType)],
        to: DType,
        mut f: impl FnMut(&mut Self, &[Value]) -> Emitted<Value>,
    ) -> Emitted<Val> {
        let columns: Vec<Vec<Value>> =
            operands.iter().map(|(operand, dtype)| self.elements(*operand, *dtype)).collect();
        let mut results = Vec::with_capacity(LANES as usize);
        for lane in 0..LANES as usize {
            let row: Vec<Value> = columns.iter().map(|column| column[lane]).collect();
            results.push(f(self, &row)?);
        }
        Ok(self.gathered(&results, to))
    }

    /// `f(x)`.
    pub(super) fn lanes_unary(&mut self, function: UnaryFn, dtype: DType, x: Val) -> Emitted<Val> {
        if dtype.is_float() {
            return self.lanes_float_unary(function, dtype, x);
        }
        let value = match function {
            UnaryFn::Not => self.each1(x, |e, x| e.b.ins().bnot(x)),
            UnaryFn::Neg if dtype != DType::Bool => self.each1(x, |e, x| e.b.ins().ineg(x)),
            UnaryFn::Abs if dtype.is_signed() => self.each1(x, |e, x| e.b.ins().iabs(x)),
            _ => return self.by_element(&[(x, dtype)], dtype, |e, x| e.scalar_unary(function, dtype, x[0])),
        };
        Ok(self.wrapped(dtype, value))
    }

    fn lanes_float_unary(&mut self, function: UnaryFn, dtype: DType, x: Val) -> Emitted<Val> {
        Ok(match function {
            UnaryFn::Neg => self.each1(x, |e, x| e.b.ins().fneg(x)),
            UnaryFn::Abs => self.each1(x, |e, x| e.b.ins().fabs(x)),
            UnaryFn::Sqrt => self.each1(x, |e, x| e.b.ins().sqrt(x)),
            UnaryFn::Floor => self.each1(x, |e, x| e.b.ins().floor(x)),
            UnaryFn::Ceil => self.each1(x, |e, x| e.b.ins().ceil(x)),
            UnaryFn::Round => self.each1(x, |e, x| e.b.ins().nearest(x)),
            UnaryFn::Rsqrt => {
                let one = self.literal_lanes(Number::Float(1.0), dtype);
                let root = self.each1(x, |e, x| e.b.ins().sqrt(x));
                self.each2(one, root, |e, one, root| e.b.ins().fdiv(one, root))?
            }
            UnaryFn::Sign => {
                let constant = |e: &mut Self, value: f64| e.literal_lanes(Number::Float(value), dtype);
                let (zero, plus, minus) = (constant(self, 0.0), constant(self, 1.0), constant(self, -1.0));
                let positive = self.lanes_compare(CompareFn::Gt, dtype, x, zero)?;
                let negative = self.lanes_compare(CompareFn::Lt, dtype, x, zero)?;
                let rest = self.lanes_select(dtype, negative, minus, x)?;
                self.lanes_select(dtype, positive, plus, rest)?
            }
            UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Erf if dtype == DType::F32 => {
                let Val::Lanes(x, _) = x else { return Err("lanes expected".to_string()) };
                Val::Lanes(self.polynomials().apply(function, x)?, None)
            }
            _ => return self.by_element(&[(x, dtype)], dtype, |e, x| e.scalar_unary(function, dtype, x[0])),
        })
    }

    /// `f(a, b)`.
    pub(super) fn lanes_binary(
        &mut self,
        function: BinaryFn,
        dtype: DType,
        a: Val,
        b: Val,
        literals: Literals,
    ) -> Emitted<Val> {
        match dtype {
            DType::F32 | DType::F64 => self.lanes_float_binary(function, dtype, a, b, literals),
            DType::Bool => match function {
                BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => self.each2(a, b, |e, a, b| e.b.ins().band(a, b)),
                BinaryFn::Or | BinaryFn::Max => self.each2(a, b, |e, a, b| e.b.ins().bor(a, b)),
                BinaryFn::Xor => self.each2(a, b, |e, a, b| e.b.ins().bxor(a, b)),
                BinaryFn::Shl | BinaryFn::Shr => Ok(a),
                _ => Err(format!("{function:?} of bool")),
            },
            _ => self.lanes_int_binary(function, dtype, a, b, literals),
        }
    }

    fn lanes_float_binary(
        &mut self,
        function: BinaryFn,
        dtype: DType,
        a: Val,
        b: Val,
        literals: Literals,
    ) -> Emitted<Val> {
        match function {
            BinaryFn::Add => self.each2(a, b, |e, a, b| e.b.ins().fadd(a, b)),
            BinaryFn::Sub => self.each2(a, b, |e, a, b| e.b.ins().fsub(a, b)),
            BinaryFn::Mul => self.each2(a, b, |e, a, b| e.b.ins().fmul(a, b)),
            BinaryFn::Div => self.each2(a, b, |e, a, b| e.b.ins().fdiv(a, b)),
            BinaryFn::Pow if literals.1 == Some(Number::Float(2.0)) => self.each2(a, a, |e, a, b| e.b.ins().fmul(a, b)),
            BinaryFn::Max | BinaryFn::Min => {
                let max = function == BinaryFn::Max;
                // The machine's instruction gives its second operand if either is NaN: with a literal first, that is
                // the rule already.
                let (first, second, plain) = match literals {
                    (_, Some(_)) => (b, a, true),
                    (Some(_), _) => (a, b, true),
                    _ => (a, b, false),
                };
                self.each2(first, second, |e, a, b| e.lanes_extreme(max, plain, a, b))
            }
            _ => self.by_element(&[(a, dtype), (b, dtype)], dtype, |e, x| {
                e.scalar_binary(function, dtype, x[0], x[1], literals)
            }),
        }
    }

    /// One `maxps` or `minps`, and a selection where `a` may be NaN.
    fn lanes_extreme(&mut self, max: bool, plain: bool, a: Value, b: Value) -> Value {
        let ty = self.b.func.dfg.value_type(a);
        let won =
            if max { self.b.ins().fcmp(FloatCC::LessThan, b, a) } else { self.b.ins().fcmp(FloatCC::LessThan, a, b) };
        let won = self.bits(won, ty);
        let winner = self.b.ins().bitselect(won, a, b);
        if plain {
            return winner;
        }
        let nan = self.b.ins().fcmp(FloatCC::NotEqual, a, a);
        let nan = self.bits(nan, ty);
        self.b.ins().bitselect(nan, a, winner)
    }

    fn lanes_int_binary(
        &mut self,
        function: BinaryFn,
        dtype: DType,
        a: Val,
        b: Val,
        literals: Literals,
    ) -> Emitted<Val> {
        let signed = dtype.is_signed();
        let value = match function {
            BinaryFn::Add => self.each2(a, b, |e, a, b| e.b.ins().iadd(a, b))?,
            BinaryFn::Sub => self.each2(a, b, |e, a, b| e.b.ins().isub(a, b))?,
            BinaryFn::Mul => self.each2(a, b, |e, a, b| e.b.ins().imul(a, b))?,
            BinaryFn::And => self.each2(a, b, |e, a, b| e.b.ins().band(a, b))?,
            BinaryFn::Or => self.each2(a, b, |e, a, b| e.b.ins().bor(a, b))?,
            BinaryFn::Xor => self.each2(a, b, |e, a, b| e.b.ins().bxor(a, b))?,
            BinaryFn::Max if dtype != DType::I64 && signed => self.each2(a, b, |e, a, b| e.b.ins().smax(a, b))?,
            BinaryFn::Min if dtype != DType::I64 && signed => self.each2(a, b, |e, a, b| e.b.ins().smin(a, b))?,
            BinaryFn::Max if !signed => self.each2(a, b, |e, a, b| e.b.ins().umax(a, b))?,
            BinaryFn::Min if !signed => self.each2(a, b, |e, a, b| e.b.ins().umin(a, b))?,
            BinaryFn::Shl | BinaryFn::Shr if literals.1.is_some() && dtype != DType::I64 => {
                let distance = literals.1.map_or(0, Number::to_i64).rem_euclid(dtype.bytes() as i64 * 8);
                let distance = self.b.ins().iconst(types::I32, distance);
                self.each1(a, |e, a| match (function, signed) {
                    (BinaryFn::Shl, _) => e.b.ins().ishl(a, distance),
                    (_, true) => e.b.ins().sshr(a, distance),
                    (_, false) => e.b.ins().ushr(a, distance),
                })
            }
            _ => {
                return self.by_element(&[(a, dtype), (b, dtype)], dtype, |e, x| {
                    e.scalar_binary(function, dtype, x[0], x[1], literals)
                });
            }
        };
        Ok(self.wrapped(dtype, value))
    }

    /// Lanes of 32 bit brought back to the range of a type of 8 bit.
    pub(super) fn wrapped(&mut self, dtype: DType, value: Val) -> Val {
        match dtype {
            DType::I8 => self.each1(value, |e, x| {
                let distance = e.b.ins().iconst(types::I32, 24);
                let high = e.b.ins().ishl(x, distance);
                e.b.ins().sshr(high, distance)
            }),
            DType::U8 => {
                let mask = self.literal_lanes(Number::Int(255), DType::I32);
                match (value, mask) {
                    (Val::Lanes(x, _), Val::Lanes(mask, _)) => Val::Lanes(self.b.ins().band(x, mask), None),
                    _ => value,
                }
            }
            _ => value,
        }
    }

    /// `a * b + c`.
    pub(super) fn lanes_multiply_add(&mut self, dtype: DType, a: Val, b: Val, c: Val) -> Emitted<Val> {
        match (a, b, c) {
            (Val::Lanes(a, None), Val::Lanes(b, None), Val::Lanes(c, None)) => {
                Ok(Val::Lanes(self.multiply_add(a, b, c), None))
            }
            (Val::Lanes(a, Some(a2)), Val::Lanes(b, Some(b2)), Val::Lanes(c, Some(c2))) => {
                let low = self.multiply_add(a, b, c);
                Ok(Val::Lanes(low, Some(self.multiply_add(a2, b2, c2))))
            }
            _ => Err(format!("multiply-add of {dtype}: operands in lanes differ")),
        }
    }

    /// `a ? b` as mask.
    pub(super) fn lanes_compare(&mut self, function: CompareFn, dtype: DType, a: Val, b: Val) -> Emitted<Val> {
        let mask = if dtype.is_float() {
            let condition = float_condition(function);
            self.each2(a, b, |e, a, b| e.b.ins().fcmp(condition, a, b))?
        } else {
            // True is -1, the greatest value without sign.
            let condition = int_condition(function, dtype.is_signed());
            self.each2(a, b, |e, a, b| e.b.ins().icmp(condition, a, b))?
        };
        Ok(self.packed_mask(mask))
    }

    /// `condition ? a : b`.
    pub(super) fn lanes_select(&mut self, dtype: DType, condition: Val, a: Val, b: Val) -> Emitted<Val> {
        let Val::Lanes(mask, _) = condition else { return Err("a mask is in lanes".to_string()) };
        let (ty, two) = lane_type(dtype);
        let condition = if two {
            let (low, high) = (self.b.ins().swiden_low(mask), self.b.ins().swiden_high(mask));
            Val::Lanes(self.bits(low, ty), Some(self.bits(high, ty)))
        } else {
            Val::Lanes(self.bits(mask, ty), None)
        };
        match (condition, a, b) {
            (Val::Lanes(c, None), Val::Lanes(a, _), Val::Lanes(b, _)) => {
                Ok(Val::Lanes(self.b.ins().bitselect(c, a, b), None))
            }
            (Val::Lanes(c, Some(c2)), Val::Lanes(a, Some(a2)), Val::Lanes(b, Some(b2))) => {
                let low = self.b.ins().bitselect(c, a, b);
                Ok(Val::Lanes(low, Some(self.b.ins().bitselect(c2, a2, b2))))
            }
            _ => Err("operands in lanes differ".to_string()),
        }
    }

    /// See [`Emitter::philox`]; a product of 32 bit is one instruction for two lanes.
    pub(super) fn lanes_philox(&mut self, key: u64, counter: Val, position: Val) -> Emitted<Val> {
        let mut words = {
            let (position_low, position_high) = self.words(position)?;
            let (counter_low, counter_high) = self.words(counter)?;
            [position_low, position_high, counter_low, counter_high]
        };
        let constant = |e: &mut Self, word: u32| {
            let bytes = literal_bytes(Number::Int(i64::from(word)), DType::U32).0;
            e.constant(bytes, types::I32X4)
        };
        let [first, second] = PHILOX_MULTIPLIERS;
        for (key0, key1) in philox_keys(key) {
            let (low0, high0) = self.product(words[0], first)?;
            let (low1, high1) = self.product(words[2], second)?;
            let a = self.b.ins().bxor(high1, words[1]);
            let b = self.b.ins().bxor(high0, words[3]);
            let (key0, key1) = (constant(self, key0), constant(self, key1));
            words = [self.b.ins().bxor(a, key0), low1, self.b.ins().bxor(b, key1), low0];
        }
        Ok(Val::Lanes(words[0], None))
    }

    /// Low and high halves of products of 32 bit without sign; in this form Cranelift sees that both factors have 32 bit.
    fn product(&mut self, a: Value, factor: u32) -> Emitted<(Value, Value)> {
        let (bytes, ty) = philox_factor(factor);
        let factor = self.constant(bytes, ty);
        let (a_low, factor_low) = (self.b.ins().uwiden_low(a), self.b.ins().uwiden_low(factor));
        let low = self.b.ins().imul(a_low, factor_low);
        let (a_high, factor_high) = (self.b.ins().uwiden_high(a), self.b.ins().uwiden_high(factor));
        let high = self.b.ins().imul(a_high, factor_high);
        self.words(Val::Lanes(low, Some(high)))
    }

    /// Keeps the multipliers in registers for the loop that follows.
    pub(super) fn philox_registers(&mut self) {
        for factor in PHILOX_MULTIPLIERS {
            let (bytes, ty) = philox_factor(factor);
            self.constant_register(bytes, ty);
        }
    }

    /// Low and high words of four lanes of 64 bit.
    fn words(&mut self, value: Val) -> Emitted<(Value, Value)> {
        let Val::Lanes(low, Some(high)) = value else { return Err("lanes of 64 bit expected".to_string()) };
        Ok((self.even_words(low, high, 0), self.even_words(low, high, 4)))
    }
}

fn philox_factor(factor: u32) -> ([u8; 16], Type) {
    literal_bytes(Number::Int(i64::from(factor)), DType::U32)
}

/// The bytes of four (two) equal lanes, and their type.
pub(super) fn literal_bytes(value: Number, dtype: DType) -> ([u8; 16], Type) {
    let (ty, _) = lane_type(dtype);
    let mut bytes = [0; 16];
    match dtype {
        DType::F64 => fill(&mut bytes, &value.to_f64().to_le_bytes()),
        DType::I64 => fill(&mut bytes, &value.to_i64().to_le_bytes()),
        DType::F32 => fill(&mut bytes, &(value.to_f64() as f32).to_le_bytes()),
        DType::Bool => fill(&mut bytes, &(-i32::from(value.to_i64() != 0)).to_le_bytes()),
        DType::I8 => fill(&mut bytes, &i32::from(value.to_i64() as i8).to_le_bytes()),
        DType::U8 => fill(&mut bytes, &i32::from(value.to_i64() as u8).to_le_bytes()),
        _ => fill(&mut bytes, &(value.to_i64() as i32).to_le_bytes()),
    }
    (bytes, ty)
}

fn fill(bytes: &mut [u8; 16], lane: &[u8]) {
    bytes.chunks_exact_mut(lane.len()).for_each(|part| part.copy_from_slice(lane));
}
