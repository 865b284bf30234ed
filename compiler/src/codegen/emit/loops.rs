//! Loops: rolled, unrolled, in lanes, with accumulators.
//!
//! A loop tests at its end; what runs once is written out. In lanes, a loop of `n` iterations becomes rounds of `unroll`
//! vectors, then single vectors, then single elements. Every copy of a round has accumulators of its own, which hides the
//! latency of additions; they are combined pairwise, then lane by lane, then with the initial value.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, Number};

use super::analysis::{Facts, LaneCheck};
use super::function::{Emitted, Emitter, LANES, Val, VarState};
use super::stmt::flatten;
use crate::loops::nest::{ExprNode, Index, Local, Loop, Stmt, Var};

/// Vectors per round of a reduction in lanes that does not say: hides 4 cycles of latency at one addition per cycle.
const REDUCTION_UNROLL: u32 = 4;
/// A body with fewer expressions is unrolled, as the counter would cost as much as the work.
const SMALL_BODY: usize = 8;
/// Constants that are kept in registers across a loop in lanes.
const CONSTANT_REGISTERS: usize = 6;

/// Bounds of a run of iterations: known, or in registers.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Known(i64),
    Value(Value),
}

/// Part of a loop's iterations, and how they are run.
#[derive(Clone, Copy)]
struct Run {
    begin: Bound,
    end: Bound,
    step: i64,
    copies: usize,
    lanes: bool,
}

impl Emitter<'_, '_> {
    /// The loop over tiles; a single tile is number 0, which makes its bounds known.
    pub(super) fn tiles(&mut self, begin: Value, end: Value) -> Emitted<()> {
        let nest = self.nest;
        let last = i64::try_from(nest.tiles).unwrap_or(i64::MAX).saturating_sub(1).max(0);
        self.vars[0] = VarState { least: Some(0), greatest: Some(last), ..VarState::default() };
        let (run, done) = (self.b.create_block(), self.b.create_block());
        let any = self.b.ins().icmp(IntCC::UnsignedLessThan, begin, end);
        self.branch(any, (run, &[]), (done, &[]));
        self.b.switch_to_block(run);
        let scope = self.open_scope();
        if nest.tiles <= 1 {
            self.block(&nest.body)?;
        } else {
            let mut changed = Facts::changed_by(&nest.body);
            changed.add(Facts::var(Var::TILE));
            self.hoist(&nest.body, changed, false)?;
            let (begin, end) = (Bound::Value(begin), Bound::Value(end));
            let run = Run { begin, end, step: 1, copies: 1, lanes: false };
            self.rolled(Var::TILE, &nest.body, run, &mut [], &[], changed, true)?;
        }
        self.close_scope(scope);
        self.jump(done, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }

    /// One loop.
    pub(super) fn loop_(&mut self, node: &Loop) -> Emitted<()> {
        let nest = self.nest;
        let changed = Facts::changed_by_loop(node);
        for accumulator in &node.accumulators {
            let value = self.eval(accumulator.init)?;
            let dtype = self.dtype(accumulator.init);
            let value = if self.lane.is_some() { self.spread(value, dtype) } else { value };
            self.define(accumulator.local, value);
        }
        self.kill(&changed);
        let (begin, end) = (self.bound(&node.begin)?, self.bound(&node.end)?);
        if matches!((begin, end), (Bound::Known(a), Bound::Known(b)) if a >= b) {
            return Ok(());
        }
        self.bind(node);
        let lanes = self.lane.is_none() && LaneCheck::allows(nest, &self.facts, node) && self.has_vector(begin, end);
        if let (Bound::Known(_), Bound::Known(_)) = (begin, end) {
            return self.entered(node, begin, end, lanes, changed);
        }
        // Whether there is an iteration is known only when it runs.
        let inits: Vec<Val> = self.accumulator_values(node)?;
        let registers = flatten(inits.iter().copied());
        let (run, done) = (self.b.create_block(), self.block_like(&registers));
        let (first, limit) = (self.value(begin), self.value(end));
        let any = self.b.ins().icmp(IntCC::SignedLessThan, first, limit);
        self.branch(any, (run, &[]), (done, &registers));
        self.b.switch_to_block(run);
        let scope = self.open_scope();
        self.entered(node, begin, end, lanes, changed)?;
        self.close_scope(scope);
        let results = flatten(self.accumulator_values(node)?.into_iter());
        self.jump(done, &results);
        self.b.switch_to_block(done);
        let params = self.b.block_params(done).to_vec();
        self.define_accumulators(node, &inits, &params)
    }

    /// A loop that has an iteration.
    fn entered(&mut self, node: &Loop, begin: Bound, end: Bound, lanes: bool, changed: Facts) -> Emitted<()> {
        self.depth += 1;
        self.open.extend(node.accumulators.iter().map(|accumulator| accumulator.local));
        let scope = self.open_scope();
        let constants = self.constant_registers;
        let wide = self.plan_wide(node, begin, end, lanes);
        if wide.is_none() {
            if lanes {
                self.constant_registers = CONSTANT_REGISTERS;
            }
            self.hoist(&node.body, changed, lanes || self.lane.is_some())?;
        }
        if let Some(wide) = wide {
            self.call_wide(node, begin, end, wide)?;
        } else if lanes {
            self.in_lanes(node, begin, end, changed)?;
        } else {
            let copies = self.sequential_copies(node, begin, end);
            let run = Run { begin, end, step: node.step, copies, lanes: false };
            let mut carried = vec![self.accumulator_values(node)?];
            self.rolled(node.var, &node.body, run, &mut carried, &locals_of(node), changed, true)?;
            for (accumulator, value) in node.accumulators.iter().zip(carried.swap_remove(0)) {
                self.define(accumulator.local, value);
            }
        }
        self.constant_registers = constants;
        self.close_scope(scope);
        self.open.truncate(self.open.len() - node.accumulators.len());
        self.depth -= 1;
        for accumulator in &node.accumulators {
            self.local_depth[accumulator.local.0 as usize] = self.depth;
        }
        Ok(())
    }

    /// Copies of the body of a loop that is not in lanes: all of them if the hint covers the loop, else as hinted if the
    /// number of iterations is a known multiple.
    fn sequential_copies(&self, node: &Loop, begin: Bound, end: Bound) -> usize {
        let (Bound::Known(begin), Bound::Known(end)) = (begin, end) else { return 1 };
        let count = (end - begin + node.step - 1) / node.step;
        let hint = i64::from(node.unroll.max(1));
        match () {
            () if count <= hint => count as usize,
            () if count % hint == 0 => hint as usize,
            () => 1,
        }
    }

    fn in_lanes(&mut self, node: &Loop, begin: Bound, end: Bound, changed: Facts) -> Emitted<()> {
        let inits = self.accumulator_values(node)?;
        let unroll = self.lane_copies(node, begin, end);
        let (rounds_end, vectors_end) = (self.cut(begin, end, LANES * unroll as i64), self.cut(begin, end, LANES));
        let mut carried = Vec::with_capacity(unroll);
        for _ in 0..unroll {
            carried.push(self.neutral_values(node)?);
        }
        self.lane = Some(node.var);
        let locals = locals_of(node);
        let rounds = Run { begin, end: rounds_end, step: LANES, copies: unroll, lanes: true };
        self.rolled(node.var, &node.body, rounds, &mut carried, &locals, changed, false)?;
        if unroll > 1 {
            let vectors = Run { begin: rounds_end, end: vectors_end, copies: 1, ..rounds };
            self.rolled(node.var, &node.body, vectors, &mut carried, &locals, changed, false)?;
        }
        self.lane = None;
        let mut results = vec![Vec::with_capacity(inits.len())];
        for (number, accumulator) in node.accumulators.iter().enumerate() {
            let combine = accumulator.combine.ok_or("an accumulator in lanes does not combine")?;
            let dtype = self.dtype(accumulator.init);
            let partials: Vec<Val> = carried.iter().map(|set| set[number]).collect();
            let sum = self.combine_partials(combine, dtype, partials)?;
            let Val::One(init) = inits[number] else { return Err("lanes within lanes".to_string()) };
            let sum = self.scalar_binary(combine, dtype, init, sum, (None, None))?;
            results[0].push(Val::One(sum));
        }
        // What was spread for the lanes is of no use to single elements, but does no harm.
        let rest = Run { begin: vectors_end, end, step: 1, copies: 1, lanes: false };
        self.rolled(node.var, &node.body, rest, &mut results, &locals, changed, false)?;
        for (accumulator, value) in node.accumulators.iter().zip(results.swap_remove(0)) {
            self.define(accumulator.local, value);
        }
        Ok(())
    }

    /// Vectors per round.
    fn lane_copies(&self, node: &Loop, begin: Bound, end: Bound) -> usize {
        let wanted = match (node.unroll, node.accumulators.is_empty()) {
            (0, false) => REDUCTION_UNROLL,
            (0, true) if size(&node.body) <= 2 && self.nest.exprs.len() < SMALL_BODY && !self.calls_functions() => 4,
            (0, true) => 1,
            (hint, _) => hint,
        };
        let most = match (begin, end) {
            (Bound::Known(begin), Bound::Known(end)) => (end - begin) / LANES,
            _ => i64::MAX,
        };
        i64::from(wanted).min(most).max(1) as usize
    }

    /// Whether anything takes more than a few instructions.
    fn calls_functions(&self) -> bool {
        let mut nodes = self.nest.exprs.iter().map(|(node, _)| node);
        nodes.any(|node| matches!(node, ExprNode::Unary(..) | ExprNode::Philox { .. }))
    }

    fn has_vector(&self, begin: Bound, end: Bound) -> bool {
        !matches!((begin, end), (Bound::Known(begin), Bound::Known(end)) if end - begin < LANES)
    }

    /// End of the whole multiples of `size` iterations.
    fn cut(&mut self, begin: Bound, end: Bound, size: i64) -> Bound {
        if let (Bound::Known(begin), Bound::Known(end)) = (begin, end) {
            return Bound::Known(begin + (end - begin) / size * size);
        }
        // There is an iteration, so the difference is positive.
        let (begin, end) = (self.value(begin), self.value(end));
        let count = self.b.ins().isub(end, begin);
        let whole = if size.count_ones() == 1 {
            self.b.ins().band_imm_s(count, -size)
        } else {
            let size = self.int(size);
            let rest = self.b.ins().urem(count, size);
            self.b.ins().isub(count, rest)
        };
        Bound::Value(self.b.ins().iadd(begin, whole))
    }

    /// A run of iterations; `carried` has one set of accumulators, or one per copy in lanes.
    #[expect(clippy::too_many_arguments, reason = "the parts of a loop")]
    fn rolled(
        &mut self,
        var: Var,
        body: &[Stmt],
        run: Run,
        carried: &mut [Vec<Val>],
        locals: &[Local],
        changed: Facts,
        entered: bool,
    ) -> Emitted<()> {
        let round = run.step * run.copies as i64;
        if let (Bound::Known(begin), Bound::Known(end)) = (run.begin, run.end) {
            if begin >= end {
                return Ok(());
            }
            if begin + round >= end {
                self.set_var(var, None, begin);
                return self.copies(var, body, run, carried, locals, changed);
            }
        }
        let known = matches!((run.begin, run.end), (Bound::Known(_), Bound::Known(_))) || entered;
        let before = flatten(carried.iter().flatten().copied());
        let begin = self.value(run.begin);
        let mut params = vec![begin];
        params.extend(&before);
        let head = self.block_like(&params);
        let done = self.block_like(&before);
        if known {
            self.jump(head, &params);
        } else {
            let end = self.value(run.end);
            let any = self.b.ins().icmp(IntCC::SignedLessThan, begin, end);
            self.branch(any, (head, &params), (done, &before));
        }
        self.b.switch_to_block(head);
        let params = self.b.block_params(head).to_vec();
        rebuild(carried, &params[1..])?;
        let scope = self.open_scope();
        self.set_var(var, Some(params[0]), 0);
        self.copies(var, body, run, carried, locals, changed)?;
        self.close_scope(scope);
        let next = self.b.ins().iadd_imm_s(params[0], round);
        let more = match run.end {
            Bound::Known(end) => self.b.ins().icmp_imm_s(IntCC::SignedLessThan, next, end),
            Bound::Value(end) => self.b.ins().icmp(IntCC::SignedLessThan, next, end),
        };
        let after = flatten(carried.iter().flatten().copied());
        let mut again = vec![next];
        again.extend(&after);
        self.branch(more, (head, &again), (done, &after));
        self.b.switch_to_block(done);
        let params = self.b.block_params(done).to_vec();
        rebuild(carried, &params)
    }

    /// The copies of the body that one round takes.
    fn copies(
        &mut self,
        var: Var,
        body: &[Stmt],
        run: Run,
        carried: &mut [Vec<Val>],
        locals: &[Local],
        changed: Facts,
    ) -> Emitted<()> {
        let first = self.vars[var.0 as usize].known;
        for copy in 0..run.copies {
            self.kill(&changed);
            self.vars[var.0 as usize].known = first + copy as i64 * run.step;
            let set = if run.lanes { copy % carried.len().max(1) } else { 0 };
            for (number, local) in locals.iter().enumerate() {
                self.define(*local, carried[set][number]);
            }
            self.block(body)?;
            for (number, local) in locals.iter().enumerate() {
                carried[set][number] = self.locals[local.0 as usize].ok_or("an accumulator has no value")?;
            }
        }
        // Outside, the accumulators are those of the first set until the loop defines them.
        self.kill(&changed);
        for (number, local) in locals.iter().enumerate() {
            self.define(*local, carried[0][number]);
        }
        Ok(())
    }

    fn bind(&mut self, node: &Loop) {
        let least = self.range(&node.begin).map(|(least, _)| least);
        let greatest = self.range(&node.end).map(|(_, greatest)| greatest - 1);
        self.vars[node.var.0 as usize] = VarState { least, greatest, depth: self.depth + 1, ..VarState::default() };
    }

    pub(super) fn set_var(&mut self, var: Var, value: Option<Value>, known: i64) {
        let state = &mut self.vars[var.0 as usize];
        (state.value, state.known) = (value, known);
    }

    fn bound(&mut self, index: &Index) -> Emitted<Bound> {
        // Variables of loops that are written out are known too.
        Ok(match self.index_parts(index)? {
            (None, known) => Bound::Known(known),
            (Some(value), known) => Bound::Value(self.add_imm(value, known)),
        })
    }

    pub(super) fn value(&mut self, bound: Bound) -> Value {
        match bound {
            Bound::Known(value) => self.int(value),
            Bound::Value(value) => value,
        }
    }

    fn accumulator_values(&self, node: &Loop) -> Emitted<Vec<Val>> {
        let values = node.accumulators.iter().map(|accumulator| self.locals[accumulator.local.0 as usize]);
        values.collect::<Option<_>>().ok_or_else(|| "an accumulator has no value".to_string())
    }

    fn define_accumulators(&mut self, node: &Loop, like: &[Val], registers: &[Value]) -> Emitted<()> {
        let mut registers = registers.iter().copied();
        for (accumulator, value) in node.accumulators.iter().zip(like) {
            let value = value.rebuilt(&mut registers).ok_or("too few parameters")?;
            self.define(accumulator.local, value);
        }
        Ok(())
    }

    fn neutral_values(&mut self, node: &Loop) -> Emitted<Vec<Val>> {
        let values = node.accumulators.iter().map(|accumulator| {
            let combine = accumulator.combine.ok_or("an accumulator in lanes does not combine")?;
            let dtype = self.dtype(accumulator.init);
            Ok(self.literal_lanes(neutral(combine, dtype), dtype))
        });
        values.collect()
    }

    /// One value of all partial ones: pairs of copies, then lanes in order.
    fn combine_partials(&mut self, combine: BinaryFn, dtype: DType, mut partials: Vec<Val>) -> Emitted<Value> {
        while partials.len() > 1 {
            let mut pairs = Vec::with_capacity(partials.len().div_ceil(2));
            for pair in partials.chunks(2) {
                pairs.push(match pair {
                    [a, b] => self.lanes_binary(combine, dtype, *a, *b, (None, None))?,
                    _ => pair[0],
                });
            }
            partials = pairs;
        }
        let vector = partials.pop().ok_or("no partial values")?;
        let lanes = self.elements(vector, dtype);
        let mut result = lanes[0];
        for lane in &lanes[1..] {
            result = self.scalar_binary(combine, dtype, result, *lane, (None, None))?;
        }
        Ok(result)
    }
}

fn locals_of(node: &Loop) -> Vec<Local> {
    node.accumulators.iter().map(|accumulator| accumulator.local).collect()
}

fn rebuild(carried: &mut [Vec<Val>], registers: &[Value]) -> Emitted<()> {
    let mut registers = registers.iter().copied();
    for value in carried.iter_mut().flatten() {
        *value = value.rebuilt(&mut registers).ok_or("too few parameters")?;
    }
    Ok(())
}

/// Number of statements.
fn size(stmts: &[Stmt]) -> usize {
    stmts
        .iter()
        .map(|stmt| match stmt {
            Stmt::Loop(node) => 2 + size(&node.body),
            Stmt::If { then, otherwise, .. } => 1 + size(then) + size(otherwise),
            Stmt::Check { body, .. } => 1 + size(body),
            _ => 1,
        })
        .sum()
}

/// The value that a combination leaves alone.
pub(super) fn neutral(combine: BinaryFn, dtype: DType) -> Number {
    match combine {
        BinaryFn::Mul => Number::Int(1).to_dtype(dtype),
        BinaryFn::Max => range(dtype).0,
        BinaryFn::Min => range(dtype).1,
        BinaryFn::And if dtype == DType::Bool => Number::Int(1),
        BinaryFn::And => Number::Int(-1),
        _ => Number::Int(0).to_dtype(dtype),
    }
}

/// Least and greatest value of a type.
fn range(dtype: DType) -> (Number, Number) {
    let int = |least: i64, greatest: i64| (Number::Int(least), Number::Int(greatest));
    match dtype {
        DType::I8 => int(i8::MIN.into(), i8::MAX.into()),
        DType::U8 => int(0, u8::MAX.into()),
        DType::I32 => int(i32::MIN.into(), i32::MAX.into()),
        DType::U32 => int(0, u32::MAX.into()),
        DType::I64 => int(i64::MIN, i64::MAX),
        DType::Bool => int(0, 1),
        _ => (Number::Float(f64::NEG_INFINITY), Number::Float(f64::INFINITY)),
    }
}
