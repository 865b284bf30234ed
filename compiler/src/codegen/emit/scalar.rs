//! Functions of single elements; `kiln_ir::scalar` says what they mean.

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use super::expr::Literals;
use super::function::{Emitted, Emitter, scalar_type};
use crate::codegen::math::{MathFn, Polynomials};

impl<'a, 'f> Emitter<'a, 'f> {
    /// A constant.
    pub(super) fn scalar_literal(&mut self, value: Number, dtype: DType) -> Value {
        match dtype {
            DType::F32 => self.b.ins().f32const(Ieee32::with_float(value.to_f64() as f32)),
            DType::F64 => self.b.ins().f64const(Ieee64::with_float(value.to_f64())),
            DType::Bool => self.b.ins().iconst(types::I8, i64::from(value.to_i64() != 0)),
            DType::I8 | DType::U8 => self.b.ins().iconst(types::I8, value.to_i64() & 0xff),
            DType::I32 | DType::U32 => self.b.ins().iconst(types::I32, value.to_i64() & 0xffff_ffff),
            _ => self.b.ins().iconst(types::I64, value.to_i64()),
        }
    }

    /// `condition ? a : b`.
    pub(in crate::codegen) fn pick(&mut self, condition: Value, a: Value, b: Value) -> Value {
        self.b.ins().select(condition, a, b)
    }

    /// `a * b + c`, rounded once where the machine can.
    pub(in crate::codegen) fn multiply_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.target.fma {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    /// Polynomials in the type of `x`, single or in lanes.
    pub(super) fn polynomials(&mut self) -> Polynomials<'_, 'a, 'f> {
        Polynomials::new(self)
    }

    /// `f(x)`.
    pub(super) fn scalar_unary(&mut self, function: UnaryFn, dtype: DType, x: Value) -> Emitted<Value> {
        if dtype.is_float() { self.float_unary(function, dtype, x) } else { self.int_unary(function, dtype, x) }
    }

    fn float_unary(&mut self, function: UnaryFn, dtype: DType, x: Value) -> Emitted<Value> {
        Ok(match function {
            UnaryFn::Neg => self.b.ins().fneg(x),
            UnaryFn::Abs => self.b.ins().fabs(x),
            UnaryFn::Sqrt => self.b.ins().sqrt(x),
            UnaryFn::Floor => self.b.ins().floor(x),
            UnaryFn::Ceil => self.b.ins().ceil(x),
            UnaryFn::Round => self.b.ins().nearest(x),
            UnaryFn::Rsqrt => {
                let one = self.scalar_literal(Number::Float(1.0), dtype);
                let root = self.b.ins().sqrt(x);
                self.b.ins().fdiv(one, root)
            }
            UnaryFn::Sign => {
                let zero = self.scalar_literal(Number::Float(0.0), dtype);
                let (plus, minus) = (Number::Float(1.0), Number::Float(-1.0));
                let (plus, minus) = (self.scalar_literal(plus, dtype), self.scalar_literal(minus, dtype));
                let positive = self.b.ins().fcmp(FloatCC::GreaterThan, x, zero);
                let negative = self.b.ins().fcmp(FloatCC::LessThan, x, zero);
                let rest = self.pick(negative, minus, x);
                self.pick(positive, plus, rest)
            }
            UnaryFn::Exp | UnaryFn::Log | UnaryFn::Tanh | UnaryFn::Erf if dtype == DType::F32 => {
                self.polynomials().apply(function, x)?
            }
            UnaryFn::Exp => self.math_call(MathFn::Exp, dtype, &[x])?,
            UnaryFn::Log => self.math_call(MathFn::Log, dtype, &[x])?,
            UnaryFn::Tanh => self.math_call(MathFn::Tanh, dtype, &[x])?,
            UnaryFn::Erf => self.math_call(MathFn::Erf, dtype, &[x])?,
            UnaryFn::Sin => self.math_call(MathFn::Sin, dtype, &[x])?,
            UnaryFn::Cos => self.math_call(MathFn::Cos, dtype, &[x])?,
            UnaryFn::Not => return Err(format!("not of {dtype}")),
        })
    }

    /// A function of binary64, also for binary32: exact to half an ULP there, whatever the argument.
    fn math_call(&mut self, function: MathFn, dtype: DType, args: &[Value]) -> Emitted<Value> {
        let narrow = dtype == DType::F32;
        let args: Vec<Value> =
            args.iter().map(|arg| if narrow { self.b.ins().fpromote(types::F64, *arg) } else { *arg }).collect();
        let slot = self.math_slot(function);
        let result = self.call_slot(slot, &args, Some(types::F64)).ok_or("a function without result")?;
        Ok(if narrow { self.b.ins().fdemote(types::F32, result) } else { result })
    }

    fn int_unary(&mut self, function: UnaryFn, dtype: DType, x: Value) -> Emitted<Value> {
        let ty = scalar_type(dtype);
        Ok(match function {
            UnaryFn::Not if dtype == DType::Bool => self.b.ins().bxor_imm_s(x, 1),
            UnaryFn::Not => self.b.ins().bnot(x),
            UnaryFn::Neg if dtype != DType::Bool => self.b.ins().ineg(x),
            UnaryFn::Abs if dtype.is_signed() => self.b.ins().iabs(x),
            UnaryFn::Abs | UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => x,
            UnaryFn::Sign => {
                let zero = self.b.ins().iconst(ty, 0);
                let greater = if dtype.is_signed() { IntCC::SignedGreaterThan } else { IntCC::UnsignedGreaterThan };
                let positive = self.b.ins().icmp(greater, x, zero);
                let sign = if dtype.is_signed() {
                    let negative = self.b.ins().icmp(IntCC::SignedLessThan, x, zero);
                    self.b.ins().isub(positive, negative)
                } else {
                    positive
                };
                if ty == types::I8 { sign } else { self.b.ins().sextend(ty, sign) }
            }
            _ => return Err(format!("{function:?} of {dtype}")),
        })
    }

    /// `f(a, b)`.
    pub(super) fn scalar_binary(
        &mut self,
        function: BinaryFn,
        dtype: DType,
        a: Value,
        b: Value,
        literals: Literals,
    ) -> Emitted<Value> {
        match dtype {
            DType::F32 | DType::F64 => self.float_binary(function, dtype, a, b, literals),
            DType::Bool => self.bool_binary(function, a, b),
            _ => self.int_binary(function, dtype, a, b),
        }
    }

    fn float_binary(
        &mut self,
        function: BinaryFn,
        dtype: DType,
        a: Value,
        b: Value,
        literals: Literals,
    ) -> Emitted<Value> {
        Ok(match function {
            BinaryFn::Add => self.b.ins().fadd(a, b),
            BinaryFn::Sub => self.b.ins().fsub(a, b),
            BinaryFn::Mul => self.b.ins().fmul(a, b),
            BinaryFn::Div => self.b.ins().fdiv(a, b),
            BinaryFn::Max => self.extreme(FloatCC::GreaterThan, a, b),
            BinaryFn::Min => self.extreme(FloatCC::LessThan, a, b),
            // Both squares round once: the function call gives the same.
            BinaryFn::Pow if literals.1 == Some(Number::Float(2.0)) => self.b.ins().fmul(a, a),
            BinaryFn::Pow => self.math_call(MathFn::Pow, dtype, &[a, b])?,
            BinaryFn::Rem => self.math_call(MathFn::Rem, dtype, &[a, b])?,
            _ => return Err(format!("{function:?} of {dtype}")),
        })
    }

    /// `a` if it wins or is NaN, else `b`, which is NaN if it is.
    fn extreme(&mut self, wins: FloatCC, a: Value, b: Value) -> Value {
        let won = self.b.ins().fcmp(wins, a, b);
        let nan = self.b.ins().fcmp(FloatCC::NotEqual, a, a);
        let take = self.b.ins().bor(won, nan);
        self.pick(take, a, b)
    }

    fn bool_binary(&mut self, function: BinaryFn, a: Value, b: Value) -> Emitted<Value> {
        Ok(match function {
            BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => self.b.ins().band(a, b),
            BinaryFn::Or | BinaryFn::Max => self.b.ins().bor(a, b),
            BinaryFn::Xor => self.b.ins().bxor(a, b),
            // Modulo a width of one bit every distance is 0.
            BinaryFn::Shl | BinaryFn::Shr => a,
            _ => return Err(format!("{function:?} of bool")),
        })
    }

    fn int_binary(&mut self, function: BinaryFn, dtype: DType, a: Value, b: Value) -> Emitted<Value> {
        let signed = dtype.is_signed();
        Ok(match function {
            BinaryFn::Add => self.b.ins().iadd(a, b),
            BinaryFn::Sub => self.b.ins().isub(a, b),
            BinaryFn::Mul => self.b.ins().imul(a, b),
            BinaryFn::Max if signed => self.b.ins().smax(a, b),
            BinaryFn::Max => self.b.ins().umax(a, b),
            BinaryFn::Min if signed => self.b.ins().smin(a, b),
            BinaryFn::Min => self.b.ins().umin(a, b),
            BinaryFn::And => self.b.ins().band(a, b),
            BinaryFn::Or => self.b.ins().bor(a, b),
            BinaryFn::Xor => self.b.ins().bxor(a, b),
            // Cranelift takes shift distances modulo the width.
            BinaryFn::Shl => self.b.ins().ishl(a, b),
            BinaryFn::Shr if signed => self.b.ins().sshr(a, b),
            BinaryFn::Shr => self.b.ins().ushr(a, b),
            BinaryFn::Div | BinaryFn::Rem => self.int_divide(function, dtype, a, b),
            BinaryFn::Pow => return Err(format!("pow of {dtype}")),
        })
    }

    /// The divisors 0 and -1 (which overflows with the least value) are replaced by 1 and mended afterwards.
    fn int_divide(&mut self, function: BinaryFn, dtype: DType, a: Value, b: Value) -> Value {
        let (signed, narrow) = (dtype.is_signed(), dtype.bytes() == 1);
        let ty = if narrow { types::I32 } else { scalar_type(dtype) };
        let widen = |e: &mut Self, x: Value| match (narrow, signed) {
            (false, _) => x,
            (true, true) => e.b.ins().sextend(ty, x),
            (true, false) => e.b.ins().uextend(ty, x),
        };
        let (a, b) = (widen(self, a), widen(self, b));
        let one = self.b.ins().iconst(ty, 1);
        let all = self.b.ins().iconst(ty, if ty == types::I32 { 0xffff_ffff } else { -1 });
        let zero = self.b.ins().icmp_imm_s(IntCC::Equal, b, 0);
        let mut safe = self.pick(zero, one, b);
        let minus = signed.then(|| self.b.ins().icmp(IntCC::Equal, b, all));
        if let Some(minus) = minus {
            safe = self.pick(minus, one, safe);
        }
        let result = if function == BinaryFn::Div {
            let quotient = if signed { self.b.ins().sdiv(a, safe) } else { self.b.ins().udiv(a, safe) };
            let negated = minus.map(|minus| {
                let negative = self.b.ins().ineg(a);
                self.pick(minus, negative, quotient)
            });
            self.pick(zero, all, negated.unwrap_or(quotient))
        } else {
            let rest = if signed { self.b.ins().srem(a, safe) } else { self.b.ins().urem(a, safe) };
            self.pick(zero, a, rest)
        };
        if narrow { self.b.ins().ireduce(types::I8, result) } else { result }
    }

    /// `a ? b` as 0 or 1.
    pub(super) fn scalar_compare(&mut self, function: CompareFn, dtype: DType, a: Value, b: Value) -> Value {
        if dtype.is_float() {
            return self.b.ins().fcmp(float_condition(function), a, b);
        }
        self.b.ins().icmp(int_condition(function, dtype.is_signed()), a, b)
    }

    /// The value in another type.
    pub(super) fn scalar_cast(&mut self, from: DType, to: DType, x: Value) -> Emitted<Value> {
        if from.is_half() || to.is_half() {
            return Err(format!("{from} as {to} should have been expanded"));
        }
        Ok(match (from.is_float(), to.is_float()) {
            _ if from == to => x,
            (true, true) if to == DType::F64 => self.b.ins().fpromote(types::F64, x),
            (true, true) => self.b.ins().fdemote(types::F32, x),
            (true, false) => self.float_to_int(from, to, x),
            (false, true) => self.int_to_float(from, to, x),
            (false, false) => self.int_to_int(from, to, x),
        })
    }

    fn float_to_int(&mut self, from: DType, to: DType, x: Value) -> Value {
        match to {
            DType::Bool => {
                let zero = self.scalar_literal(Number::Float(0.0), from);
                self.b.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            DType::I64 => self.b.ins().fcvt_to_sint_sat(types::I64, x),
            DType::I32 => self.b.ins().fcvt_to_sint_sat(types::I32, x),
            DType::U32 => self.b.ins().fcvt_to_uint_sat(types::I32, x),
            _ => {
                let (least, greatest) = byte_range(to);
                let wide = self.b.ins().fcvt_to_sint_sat(types::I32, x);
                let least = self.b.ins().iconst(types::I32, least & 0xffff_ffff);
                let greatest = self.b.ins().iconst(types::I32, greatest);
                let wide = self.b.ins().smax(wide, least);
                let wide = self.b.ins().smin(wide, greatest);
                self.b.ins().ireduce(types::I8, wide)
            }
        }
    }

    fn int_to_float(&mut self, from: DType, to: DType, x: Value) -> Value {
        let ty = scalar_type(to);
        match from {
            DType::I64 | DType::I32 => self.b.ins().fcvt_from_sint(ty, x),
            DType::U32 => self.b.ins().fcvt_from_uint(ty, x),
            DType::I8 => {
                let wide = self.b.ins().sextend(types::I32, x);
                self.b.ins().fcvt_from_sint(ty, wide)
            }
            _ => {
                let wide = self.b.ins().uextend(types::I32, x);
                self.b.ins().fcvt_from_sint(ty, wide)
            }
        }
    }

    fn int_to_int(&mut self, from: DType, to: DType, x: Value) -> Value {
        if to == DType::Bool {
            return self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0);
        }
        let ty = scalar_type(to);
        match from.bytes().cmp(&to.bytes()) {
            std::cmp::Ordering::Equal => x,
            std::cmp::Ordering::Greater => self.b.ins().ireduce(ty, x),
            std::cmp::Ordering::Less if from.is_signed() => self.b.ins().sextend(ty, x),
            std::cmp::Ordering::Less => self.b.ins().uextend(ty, x),
        }
    }

    /// Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    pub(super) fn philox(&mut self, key: u64, counter: Value, position: Value) -> Value {
        let low = |e: &mut Self, x: Value| {
            let word = e.b.ins().ireduce(types::I32, x);
            e.b.ins().uextend(types::I64, word)
        };
        let high = |e: &mut Self, x: Value| e.shift_right(x, 32);
        let mut words = [low(self, position), high(self, position), low(self, counter), high(self, counter)];
        for (key0, key1) in philox_keys(key) {
            let [first, second] = PHILOX_MULTIPLIERS.map(i64::from);
            let product0 = self.b.ins().imul_imm_s(words[0], first);
            let product1 = self.b.ins().imul_imm_s(words[2], second);
            let (high0, high1) = (high(self, product0), high(self, product1));
            let (low0, low1) = (low(self, product0), low(self, product1));
            let a = self.b.ins().bxor(high1, words[1]);
            let b = self.b.ins().bxor(high0, words[3]);
            let (key0, key1) = (self.int(i64::from(key0)), self.int(i64::from(key1)));
            words = [self.b.ins().bxor(a, key0), low1, self.b.ins().bxor(b, key1), low0];
        }
        self.b.ins().ireduce(types::I32, words[0])
    }

    fn shift_right(&mut self, x: Value, bits: i64) -> Value {
        let bits = self.b.ins().iconst(types::I8, bits);
        self.b.ins().ushr(x, bits)
    }
}

/// Multipliers of Philox4x32.
pub(super) const PHILOX_MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];

/// The key of each of the ten rounds: Weyl sequences of the golden ratio and of `sqrt(3) - 1`.
pub(super) fn philox_keys(key: u64) -> impl Iterator<Item = (u32, u32)> {
    let (low, high) = (key as u32, (key >> 32) as u32);
    (0..10u32).map(move |round| {
        (low.wrapping_add(round.wrapping_mul(0x9e37_79b9)), high.wrapping_add(round.wrapping_mul(0xbb67_ae85)))
    })
}

/// Least and greatest value of a type of 8 bit.
pub(super) fn byte_range(dtype: DType) -> (i64, i64) {
    if dtype == DType::I8 { (-128, 127) } else { (0, 255) }
}

/// With a NaN all are false but `Ne`.
pub(super) fn float_condition(function: CompareFn) -> FloatCC {
    match function {
        CompareFn::Eq => FloatCC::Equal,
        CompareFn::Ne => FloatCC::NotEqual,
        CompareFn::Lt => FloatCC::LessThan,
        CompareFn::Le => FloatCC::LessThanOrEqual,
        CompareFn::Gt => FloatCC::GreaterThan,
        CompareFn::Ge => FloatCC::GreaterThanOrEqual,
    }
}

/// Comparison of integers.
pub(super) fn int_condition(function: CompareFn, signed: bool) -> IntCC {
    match (function, signed) {
        (CompareFn::Eq, _) => IntCC::Equal,
        (CompareFn::Ne, _) => IntCC::NotEqual,
        (CompareFn::Lt, true) => IntCC::SignedLessThan,
        (CompareFn::Lt, false) => IntCC::UnsignedLessThan,
        (CompareFn::Le, true) => IntCC::SignedLessThanOrEqual,
        (CompareFn::Le, false) => IntCC::UnsignedLessThanOrEqual,
        (CompareFn::Gt, true) => IntCC::SignedGreaterThan,
        (CompareFn::Gt, false) => IntCC::UnsignedGreaterThan,
        (CompareFn::Ge, true) => IntCC::SignedGreaterThanOrEqual,
        (CompareFn::Ge, false) => IntCC::UnsignedGreaterThanOrEqual,
    }
}
