//! Loads and stores: of one element, of neighbours in one register, or lane by lane.

use cranelift_codegen::ir::{InstBuilder, Value, types};
use kiln_ir::DType;

use super::function::{Emitted, Emitter, LANES, Val, lane_type, scalar_type, trusted};
use super::index::Along;
use super::stmt::flatten;
use crate::loops::nest::{Expr, Index, Place};

impl Emitter<'_, '_> {
    /// An element, or one per lane.
    pub(super) fn load(&mut self, place: Place, index: &Index) -> Emitted<Val> {
        let dtype = self.element(place)?;
        match self.along(index) {
            Along::Uniform => self.load_one(place, index, dtype).map(Val::One),
            Along::Step(1) => {
                let (pointer, offset) = self.address(place, index)?;
                Ok(self.load_lanes(dtype, pointer, offset))
            }
            _ => self.each_lane(dtype, |e| e.load_one(place, index, dtype)),
        }
    }

    fn element(&self, place: Place) -> Emitted<DType> {
        self.nest.place(place).map(|(dtype, _)| dtype).ok_or_else(|| format!("{place:?} is not declared"))
    }

    fn load_one(&mut self, place: Place, index: &Index, dtype: DType) -> Emitted<Value> {
        let (pointer, offset) = self.address(place, index)?;
        Ok(self.load_element(dtype, pointer, offset))
    }

    fn load_element(&mut self, dtype: DType, pointer: Value, offset: i32) -> Value {
        if dtype.is_half() {
            return self.b.ins().uload16(scalar_type(dtype), trusted(), pointer, offset);
        }
        self.b.ins().load(scalar_type(dtype), trusted(), pointer, offset)
    }

    fn store_element(&mut self, dtype: DType, value: Value, pointer: Value, offset: i32) {
        if dtype.is_half() {
            self.b.ins().istore16(trusted(), value, pointer, offset);
        } else {
            self.b.ins().store(trusted(), value, pointer, offset);
        }
    }

    fn load_lanes(&mut self, dtype: DType, pointer: Value, offset: i32) -> Val {
        let (ty, two) = lane_type(dtype);
        if dtype.is_half() {
            return Val::Lanes(self.b.ins().uload16x4(trusted(), pointer, offset), None);
        }
        if dtype.bytes() == 1 {
            let bytes = self.b.ins().load(types::I32, trusted(), pointer, offset);
            let register = self.b.ins().scalar_to_vector(types::I32X4, bytes);
            let register = self.bits(register, types::I8X16);
            return Val::Lanes(self.widen_bytes(dtype, register), None);
        }
        let low = self.b.ins().load(ty, trusted(), pointer, offset);
        let high = two.then(|| self.b.ins().load(ty, trusted(), pointer, offset + 16));
        Val::Lanes(low, high)
    }

    fn widen_bytes(&mut self, dtype: DType, register: Value) -> Value {
        match dtype {
            DType::I8 => {
                let half = self.b.ins().swiden_low(register);
                self.b.ins().swiden_low(half)
            }
            _ => {
                let half = self.b.ins().uwiden_low(register);
                let wide = self.b.ins().uwiden_low(half);
                if dtype == DType::Bool { self.b.ins().ineg(wide) } else { wide }
            }
        }
    }

    /// An element if the condition holds; nothing outside is touched.
    pub(super) fn guarded_load(
        &mut self,
        place: Place,
        index: &Index,
        condition: Expr,
        otherwise: Expr,
    ) -> Emitted<Val> {
        let dtype = self.element(place)?;
        let along = self.along(index);
        let condition_value = self.eval(condition)?;
        match (condition_value, along) {
            (Val::One(condition), Along::Uniform) => match self.eval(otherwise)? {
                Val::One(otherwise) => self.load_or(place, index, dtype, condition, otherwise).map(Val::One),
                otherwise => self.load_if(place, index, dtype, condition, otherwise),
            },
            (Val::One(condition), _) => {
                let otherwise = self.operand(otherwise)?;
                self.load_if(place, index, dtype, condition, otherwise)
            }
            (mask, _) => {
                let otherwise = self.operand(otherwise)?;
                self.load_where(place, index, dtype, mask, otherwise)
            }
        }
    }

    /// Branch-free: the address of the first element stands in for one outside.
    fn load_or(
        &mut self,
        place: Place,
        index: &Index,
        dtype: DType,
        condition: Value,
        otherwise: Value,
    ) -> Emitted<Value> {
        if self.nest.place(place).is_none_or(|(_, elements)| elements == 0) {
            return Ok(otherwise);
        }
        let (pointer, offset) = self.address(place, index)?;
        let pointer = self.add_imm(pointer, i64::from(offset));
        let (base, first) = self.base(place)?;
        let base = self.add_imm(base, first);
        let pointer = self.b.ins().select(condition, pointer, base);
        let loaded = self.load_element(dtype, pointer, 0);
        Ok(self.pick(condition, loaded, otherwise))
    }

    /// All lanes or none.
    fn load_if(&mut self, place: Place, index: &Index, dtype: DType, condition: Value, otherwise: Val) -> Emitted<Val> {
        let registers = flatten(std::iter::once(otherwise));
        let inside = self.b.create_block();
        let done = self.block_like(&registers);
        self.branch(condition, (inside, &[]), (done, &registers));
        self.b.switch_to_block(inside);
        self.load_into(place, index, dtype, done)?;
        self.joined(done, otherwise)
    }

    fn load_into(
        &mut self,
        place: Place,
        index: &Index,
        dtype: DType,
        done: cranelift_codegen::ir::Block,
    ) -> Emitted<()> {
        let scope = self.open_scope();
        let loaded = self.load(place, index)?;
        let loaded = self.spread(loaded, dtype);
        self.close_scope(scope);
        let registers = flatten(std::iter::once(loaded));
        self.jump(done, &registers);
        Ok(())
    }

    fn joined(&mut self, done: cranelift_codegen::ir::Block, like: Val) -> Emitted<Val> {
        self.b.switch_to_block(done);
        let mut params = self.b.block_params(done).to_vec().into_iter();
        like.rebuilt(&mut params).ok_or_else(|| "too few parameters".to_string())
    }

    /// Some lanes: one load if all hold, which is the rule inside a padded image, else lane by lane.
    fn load_where(&mut self, place: Place, index: &Index, dtype: DType, mask: Val, otherwise: Val) -> Emitted<Val> {
        let Val::Lanes(mask_register, _) = mask else { return Err("a mask is in lanes".to_string()) };
        let registers = flatten(std::iter::once(otherwise));
        let done = self.block_like(&registers);
        if self.along(index) != Along::Any {
            let (all, some) = (self.b.create_block(), self.b.create_block());
            let every = self.b.ins().vall_true(mask_register);
            self.branch(every, (all, &[]), (some, &[]));
            self.b.switch_to_block(all);
            self.load_into(place, index, dtype, done)?;
            self.b.switch_to_block(some);
        }
        let scope = self.open_scope();
        let conditions = self.elements(mask, DType::Bool);
        let others = self.elements(otherwise, dtype);
        let mut lane = 0;
        let loaded = self.each_lane(dtype, |e| {
            let (condition, other) = (conditions[lane], others[lane]);
            lane += 1;
            e.load_or(place, index, dtype, condition, other)
        })?;
        self.close_scope(scope);
        let registers = flatten(std::iter::once(loaded));
        self.jump(done, &registers);
        self.joined(done, otherwise)
    }

    /// Writes an element, or one per lane.
    pub(super) fn store(&mut self, place: Place, index: &Index, value: Expr) -> Emitted<()> {
        let dtype = self.element(place)?;
        let along = self.along(index);
        if along == Along::Uniform && self.lane.is_none() {
            let Val::One(value) = self.eval(value)? else { return Err("lanes in one element".to_string()) };
            let (pointer, offset) = self.address(place, index)?;
            self.store_element(dtype, value, pointer, offset);
            return Ok(());
        }
        let value = self.operand(value)?;
        if along == Along::Step(1) {
            let (pointer, offset) = self.address(place, index)?;
            self.store_lanes(dtype, value, pointer, offset);
            return Ok(());
        }
        let elements = self.elements(value, dtype);
        for lane in 0..LANES as u8 {
            self.single = Some(lane);
            let address = self.address(place, index);
            self.single = None;
            let (pointer, offset) = address?;
            self.store_element(dtype, elements[lane as usize], pointer, offset);
        }
        Ok(())
    }

    fn store_lanes(&mut self, dtype: DType, value: Val, pointer: Value, offset: i32) {
        let Val::Lanes(low, high) = value else { return };
        if dtype.is_half() {
            let words = self.b.ins().unarrow(low, low);
            let words = self.bits(words, types::I64X2);
            let words = self.b.ins().extractlane(words, 0);
            self.b.ins().store(trusted(), words, pointer, offset);
            return;
        }
        if dtype.bytes() > 1 {
            self.b.ins().store(trusted(), low, pointer, offset);
            if let Some(high) = high {
                self.b.ins().store(trusted(), high, pointer, offset + 16);
            }
            return;
        }
        let low = if dtype == DType::Bool { self.b.ins().ineg(low) } else { low };
        let half = self.b.ins().snarrow(low, low);
        let bytes = match dtype {
            DType::I8 => self.b.ins().snarrow(half, half),
            _ => self.b.ins().unarrow(half, half),
        };
        let words = self.bits(bytes, types::I32X4);
        let word = self.b.ins().extractlane(words, 0);
        self.b.ins().store(trusted(), word, pointer, offset);
    }
}
