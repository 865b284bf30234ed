//! From the body of a loop in lanes to a tape.
//!
//! What is the same in all lanes is evaluated before, by the code around the loop, and becomes an argument word. Every
//! access must run along the lanes in steps of one element, or be the same in all lanes.

use std::collections::HashMap;

use kiln_ir::DType;

use super::super::analysis::Facts;
use super::super::loops::neutral;
use super::functions::{bits, checked_bits, combination, comparison, element, numeric, vector};
use crate::codegen::wide::tape::{Mask, Op, Source, Tape, Vector, Word};
use crate::loops::nest::{Accumulator, Expr, ExprNode, Index, Local, Loop, LoopNest, Place, Stmt, Var};

/// Why a loop stays narrow.
pub(super) type Lowered<T> = Result<T, &'static str>;

/// A wide loop, with what its caller must evaluate.
#[derive(Debug)]
pub(super) struct WideLoop {
    pub(super) tape: Tape,
    /// Where each stream begins: its first element, with inner loops at their first iteration.
    pub(super) streams: Vec<(Place, Index)>,
    /// First values of the variables of inner loops.
    pub(super) inner: Vec<(Var, i64)>,
    /// Words that the caller gives.
    pub(super) arguments: Vec<Expr>,
    /// Rows since the last turn, at the beginning.
    pub(super) turn: Option<Index>,
    /// Expressions of the body, a measure of its length.
    pub(super) size: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Vector(Vector),
    Word(Word),
    Mask(Mask),
    /// All bits or none, the same in all lanes.
    Truth(Vector),
}

/// Lowers a loop that may run in lanes, with the loops around it, outermost first.
pub(super) fn lower(nest: &LoopNest, facts: &[Facts], rows: &[&Loop], node: &Loop) -> Lowered<WideLoop> {
    let mut rows_vary = Facts::default();
    rows.iter().for_each(|row| rows_vary.add(Facts::var(row.var)));
    let mut lowering = Lowering {
        nest,
        facts,
        lane: node.var,
        rows: rows.iter().map(|row| (row.var, row.step)).collect(),
        loops: rows.iter().chain([&node]).map(|node| (*node).clone()).collect(),
        turn: None,
        varying: Facts::changed_by_loop(node),
        rows_vary,
        row_values: HashMap::new(),
        wide: WideLoop {
            tape: Tape::default(),
            streams: Vec::new(),
            inner: Vec::new(),
            arguments: Vec::new(),
            turn: None,
            size: 0,
        },
        open: Vec::new(),
        steps: Vec::new(),
        values: HashMap::new(),
        words: HashMap::new(),
        locals: HashMap::new(),
    };
    for accumulator in &node.accumulators {
        lowering.total(accumulator)?;
    }
    lowering.block(&node.body)?;
    if let Some(turn) = lowering.turn {
        lowering.wide.tape.set_turn(turn);
        lowering.wide.turn = rows.first().map(|row| Index::var(row.var).modulo(i64::from(turn)));
    }
    Ok(lowering.wide)
}

pub(super) struct Lowering<'a> {
    pub(super) nest: &'a LoopNest,
    pub(super) facts: &'a [Facts],
    pub(super) lane: Var,
    /// Variables of the loops around the lanes, with their steps.
    pub(super) rows: Vec<(Var, i64)>,
    /// The same loops and, last, the one in lanes.
    pub(super) loops: Vec<Loop>,
    /// Divisor of the outermost variable.
    pub(super) turn: Option<i32>,
    /// What the loop changes.
    pub(super) varying: Facts,
    /// What the loops around it change beside.
    pub(super) rows_vary: Facts,
    /// Values per row.
    pub(super) row_values: HashMap<Expr, Value>,
    pub(super) wide: WideLoop,
    /// Variables of the inner loops around this place, with their numbers.
    pub(super) open: Vec<(Var, usize)>,
    /// Steps of inner loops, by number.
    pub(super) steps: Vec<i64>,
    pub(super) values: HashMap<Expr, Value>,
    pub(super) words: HashMap<Expr, Word>,
    pub(super) locals: HashMap<Local, Value>,
}

impl Lowering<'_> {
    pub(super) fn total(&mut self, accumulator: &Accumulator) -> Lowered<()> {
        let dtype = self.nest.dtype(accumulator.init);
        let combine = accumulator.combine.ok_or("an accumulator does not combine")?;
        let f = combination(combine, dtype)?;
        let neutral = self.wide.tape.literal(bits(neutral(combine, dtype), dtype));
        let vector = self.wide.tape.total(f, neutral);
        self.locals.insert(accumulator.local, Value::Vector(vector));
        Ok(())
    }

    pub(super) fn block(&mut self, stmts: &[Stmt]) -> Lowered<()> {
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    pub(super) fn stmt(&mut self, stmt: &Stmt) -> Lowered<()> {
        match stmt {
            Stmt::Let { local, value } => {
                let value = self.eval(*value)?;
                let value = self.own(value);
                self.kill(&Facts::local(*local));
                self.locals.insert(*local, value);
                Ok(())
            }
            Stmt::Set { local, value } => self.set(*local, *value),
            Stmt::Store { place, index, value } => self.store(*place, index, *value),
            Stmt::Loop(node) => self.inner(node),
            Stmt::If { .. } => Err("a condition"),
            Stmt::Check { .. } => Err("a bounds check"),
            Stmt::Call { .. } => Err("a call"),
        }
    }

    /// A local that names an accumulator keeps the value that it has now.
    pub(super) fn own(&mut self, value: Value) -> Value {
        match value {
            Value::Vector(vector) if self.wide.tape.is_changed(vector) => {
                let to = self.wide.tape.vector();
                self.wide.tape.push(Op::Copy { to, from: Source::Vector(vector) });
                Value::Vector(to)
            }
            other => other,
        }
    }

    pub(super) fn set(&mut self, local: Local, value: Expr) -> Lowered<()> {
        let Some(Value::Vector(to)) = self.locals.get(&local).copied() else {
            return Err("an accumulator of another kind");
        };
        let dtype = self.nest.dtype(value);
        let is_own = |expr: Expr| *self.nest.node(expr) == ExprNode::Local(local);
        match *self.nest.node(value) {
            ExprNode::Binary(f, a, b) if is_own(a) || is_own(b) => {
                let rest = if is_own(a) { b } else { a };
                if let (Ok(f), false) = (combination(f, dtype), self.facts[rest.0 as usize].meets(&Facts::local(local)))
                {
                    let value = self.source(rest)?;
                    self.wide.tape.push(Op::Accumulate { to, f, value });
                    self.kill(&Facts::local(local));
                    return Ok(());
                }
            }
            ExprNode::MulAdd(a, b, c) if is_own(c) && dtype == DType::F32 => {
                let (a, b) = (self.source(a)?, self.source(b)?);
                self.wide.tape.push(Op::AccumulateProduct { to, a, b });
                self.kill(&Facts::local(local));
                return Ok(());
            }
            _ => {}
        }
        if self.wide.tape.is_total(to) {
            return Err("an accumulator is not combined with one value");
        }
        let from = self.source(value)?;
        self.wide.tape.push(Op::Copy { to, from });
        self.kill(&Facts::local(local));
        Ok(())
    }

    pub(super) fn store(&mut self, place: Place, index: &Index, value: Expr) -> Lowered<()> {
        let dtype = self.element_of(place)?;
        let element = element(dtype)?;
        let value = match self.eval(value)? {
            Value::Truth(_) => return Err("a truth value that is the same in all lanes"),
            Value::Mask(mask) => {
                let (one, zero) = (self.wide.tape.literal(1), self.wide.tape.literal(0));
                self.wide.tape.select(mask, Source::Word(one), Source::Word(zero))
            }
            Value::Vector(vector) => Source::Vector(vector),
            Value::Word(_) if dtype == DType::Bool => return Err("a truth value that is the same in all lanes"),
            Value::Word(word) => Source::Word(word),
        };
        let at = self.at(place, index, dtype)?;
        if !self.wide.tape.runs_along_lanes(at.stream) {
            return Err("a store that is the same in all lanes");
        }
        self.wide.tape.push(Op::Store { at, element, value });
        self.kill(&Facts::place(place));
        Ok(())
    }

    pub(super) fn inner(&mut self, node: &Loop) -> Lowered<()> {
        let (Some(begin), Some(end)) = (node.begin.as_constant(), node.end.as_constant()) else {
            return Err("an inner loop of unknown length");
        };
        let count = (end - begin + node.step - 1) / node.step;
        for accumulator in &node.accumulators {
            if !matches!(self.nest.dtype(accumulator.init), DType::F32 | DType::I32 | DType::U32) {
                return Err("an accumulator that has no 32 bit");
            }
            let from = self.source(accumulator.init)?;
            let to = self.wide.tape.accumulator();
            self.wide.tape.push(Op::Copy { to, from });
            self.kill(&Facts::local(accumulator.local));
            self.locals.insert(accumulator.local, Value::Vector(to));
        }
        if count <= 0 {
            return Ok(());
        }
        let changed = Facts::changed_by_loop(node);
        self.kill(&changed);
        self.before(&node.body, &changed)?;
        let number = self.wide.tape.repeat(i32::try_from(count).map_err(|_| "an inner loop that is too long")?);
        let values = self.values.clone();
        self.wide.inner.push((node.var, begin));
        self.open.push((node.var, number));
        self.steps.push(node.step);
        self.wide.tape.push(Op::Repeat { number });
        self.block(&node.body)?;
        self.wide.tape.push(Op::End { number });
        self.open.pop();
        self.values = values;
        Ok(())
    }

    /// Evaluates before an inner loop what it does not change.
    pub(super) fn before(&mut self, stmts: &[Stmt], changed: &Facts) -> Lowered<()> {
        for stmt in stmts {
            match stmt {
                Stmt::Let { value, .. } | Stmt::Set { value, .. } | Stmt::Store { value, .. } => {
                    self.before_expr(*value, changed)?;
                }
                Stmt::Loop(node) => {
                    for accumulator in &node.accumulators {
                        self.before_expr(accumulator.init, changed)?;
                    }
                    self.before(&node.body, changed)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn before_expr(&mut self, expr: Expr, changed: &Facts) -> Lowered<()> {
        let nest = self.nest;
        let facts = self.facts[expr.0 as usize];
        if !facts.meets(&self.varying) {
            return Ok(());
        }
        if !facts.meets(changed) {
            return match nest.node(expr) {
                ExprNode::Local(_) | ExprNode::Index(_) => Ok(()),
                // A mask would take one of few registers for the whole loop.
                _ if nest.dtype(expr) == DType::Bool => Ok(()),
                _ => self.eval(expr).map(|_| ()),
            };
        }
        nest.node(expr).children().try_for_each(|child| self.before_expr(child, changed))
    }

    pub(super) fn kill(&mut self, changed: &Facts) {
        self.values.retain(|expr, _| !self.facts[expr.0 as usize].meets(changed));
    }

    pub(super) fn source(&mut self, expr: Expr) -> Lowered<Source> {
        match self.eval(expr)? {
            Value::Vector(vector) => Ok(Source::Vector(vector)),
            Value::Word(word) => Ok(Source::Word(word)),
            Value::Mask(_) | Value::Truth(_) => Err("a truth value as a number"),
        }
    }

    pub(super) fn mask(&mut self, expr: Expr) -> Lowered<Mask> {
        let value = self.eval(expr)?;
        self.as_mask(value)
    }

    pub(super) fn as_mask(&mut self, value: Value) -> Lowered<Mask> {
        match value {
            Value::Mask(mask) => Ok(mask),
            Value::Vector(_) => Err("a number as a truth value"),
            Value::Word(word) => Ok(self.test(Source::Word(word))),
            Value::Truth(vector) => Ok(self.test(Source::Vector(vector))),
        }
    }

    pub(super) fn test(&mut self, x: Source) -> Mask {
        let to = self.wide.tape.mask();
        self.wide.tape.push(Op::Test { to, x });
        to
    }

    pub(super) fn eval(&mut self, expr: Expr) -> Lowered<Value> {
        let dtype = self.nest.dtype(expr);
        match self.nest.node(expr) {
            ExprNode::Local(local) => {
                if let Some(value) = self.locals.get(local) {
                    return Ok(*value);
                }
            }
            ExprNode::Literal(value) => {
                return Ok(Value::Word(self.wide.tape.literal(checked_bits(*value, dtype)?)));
            }
            _ => {}
        }
        let facts = self.facts[expr.0 as usize];
        if !facts.meets(&self.varying) {
            if facts.meets(&self.rows_vary) {
                return self.per_row(expr, dtype);
            }
            return self.word(expr, dtype).map(Value::Word);
        }
        if let Some(value) = self.values.get(&expr) {
            return Ok(*value);
        }
        self.wide.size += 1;
        let value = self.fresh(expr, dtype)?;
        self.values.insert(expr, value);
        Ok(value)
    }

    /// A value that is computed once per row.
    pub(super) fn per_row(&mut self, expr: Expr, dtype: DType) -> Lowered<Value> {
        if let Some(value) = self.row_values.get(&expr) {
            return Ok(*value);
        }
        let around = self.wide.tape.set_head(true);
        let value = self.fresh(expr, dtype).map(|value| match value {
            // Masks are few: what is kept for a row is kept in a vector.
            Value::Mask(mask) => {
                let to = self.wide.tape.vector();
                self.wide.tape.push(Op::Spread { to, mask });
                Value::Truth(to)
            }
            other => other,
        });
        self.wide.tape.set_head(around);
        self.row_values.insert(expr, value?);
        value
    }

    /// The argument of an expression that is the same in all lanes.
    pub(super) fn word(&mut self, expr: Expr, dtype: DType) -> Lowered<Word> {
        if !matches!(dtype, DType::F32 | DType::I32 | DType::U32 | DType::Bool) {
            return Err("a value that has no 32 bit");
        }
        if let Some(word) = self.words.get(&expr) {
            return Ok(*word);
        }
        let word = self.wide.tape.argument();
        self.wide.arguments.push(expr);
        self.words.insert(expr, word);
        Ok(word)
    }

    pub(super) fn fresh(&mut self, expr: Expr, dtype: DType) -> Lowered<Value> {
        let nest = self.nest;
        match nest.node(expr) {
            ExprNode::Local(_) | ExprNode::Literal(_) => Err("a local without a value"),
            ExprNode::Index(_) => Err("arithmetic with positions"),
            ExprNode::InRange(index, limit) => self.in_range(index, *limit),
            ExprNode::GuardedLoad { place, index, condition, otherwise } => {
                self.guarded_load(*place, index, *condition, *otherwise)
            }
            ExprNode::Philox { .. } => Err("random numbers"),
            ExprNode::Load(place, index) => self.load(*place, index),
            ExprNode::Unary(f, x) => self.unary(*f, *x, dtype),
            ExprNode::Binary(f, a, b) => self.binary(*f, *a, *b, dtype),
            ExprNode::MulAdd(a, b, c) if dtype == DType::F32 => {
                let (a, b, c) = (self.source(*a)?, self.source(*b)?, self.source(*c)?);
                Ok(vector(self.wide.tape.mul_add(a, b, c)))
            }
            ExprNode::MulAdd(..) => Err("arithmetic of 64 bit"),
            ExprNode::Compare(f, a, b) => {
                let f = comparison(*f, nest.dtype(*a))?;
                let (a, b) = (self.source(*a)?, self.source(*b)?);
                Ok(Value::Mask(self.wide.tape.compare(f, a, b)))
            }
            ExprNode::Select(condition, a, b) => {
                numeric(dtype)?;
                // A chain of choices from its end: of a concatenation one operand is then alive, not all. The mask last, as
                // there are few.
                let (a, b) = match nest.node(*b) {
                    ExprNode::Select(..) => {
                        let b = self.source(*b)?;
                        (self.source(*a)?, b)
                    }
                    _ => (self.source(*a)?, self.source(*b)?),
                };
                let mask = self.mask(*condition)?;
                Ok(vector(self.wide.tape.select(mask, a, b)))
            }
            ExprNode::Cast(x) => self.cast(*x, dtype),
            ExprNode::Bits(x) => self.source(*x).map(vector),
        }
    }
}
