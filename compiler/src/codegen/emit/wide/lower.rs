//! From the body of a loop in lanes to a tape.
//!
//! What is the same in all lanes is evaluated before, by the code around the loop, and becomes an argument word. Every
//! access must run along the lanes in steps of one element, or be the same in all lanes.

use std::collections::HashMap;

use kiln_ir::DType;
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use super::super::analysis::Facts;
use super::super::lanes::literal_bytes;
use super::super::loops::neutral;
use crate::codegen::wide::MaskOp;
use crate::codegen::wide::tape::{
    At, Binary, Combine, Compare, Element, Mask, Op, Source, StreamData, Tape, Unary, Vector, Word,
};
use crate::loops::nest::{Accumulator, Atom, Expr, ExprNode, Index, Local, Loop, LoopNest, Place, Stmt, Var};

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
    /// Expressions of the body, a measure of its length.
    pub(super) size: usize,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Vector(Vector),
    Word(Word),
    Mask(Mask),
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
        varying: Facts::changed_by_loop(node),
        rows_vary,
        row_values: HashMap::new(),
        wide: WideLoop {
            tape: Tape::default(),
            streams: Vec::new(),
            inner: Vec::new(),
            arguments: Vec::new(),
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
    if lowering.wide.tape.has_masks_in_head() {
        return Err("a comparison per row");
    }
    Ok(lowering.wide)
}

struct Lowering<'a> {
    nest: &'a LoopNest,
    facts: &'a [Facts],
    lane: Var,
    /// Variables of the loops around the lanes, with their steps.
    rows: Vec<(Var, i64)>,
    /// What the loop changes.
    varying: Facts,
    /// What the loops around it change beside.
    rows_vary: Facts,
    /// Values per row.
    row_values: HashMap<Expr, Value>,
    wide: WideLoop,
    /// Variables of the inner loops around this place, with their numbers.
    open: Vec<(Var, usize)>,
    /// Steps of inner loops, by number.
    steps: Vec<i64>,
    values: HashMap<Expr, Value>,
    words: HashMap<Expr, Word>,
    locals: HashMap<Local, Value>,
}

impl Lowering<'_> {
    fn total(&mut self, accumulator: &Accumulator) -> Lowered<()> {
        let dtype = self.nest.dtype(accumulator.init);
        let combine = accumulator.combine.ok_or("an accumulator does not combine")?;
        let f = combination(combine, dtype)?;
        let neutral = self.wide.tape.literal(bits(neutral(combine, dtype), dtype));
        let vector = self.wide.tape.total(f, neutral);
        self.locals.insert(accumulator.local, Value::Vector(vector));
        Ok(())
    }

    fn block(&mut self, stmts: &[Stmt]) -> Lowered<()> {
        stmts.iter().try_for_each(|stmt| self.stmt(stmt))
    }

    fn stmt(&mut self, stmt: &Stmt) -> Lowered<()> {
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
    fn own(&mut self, value: Value) -> Value {
        match value {
            Value::Vector(vector) if self.wide.tape.is_changed(vector) => {
                let to = self.wide.tape.vector();
                self.wide.tape.push(Op::Copy { to, from: Source::Vector(vector) });
                Value::Vector(to)
            }
            other => other,
        }
    }

    fn set(&mut self, local: Local, value: Expr) -> Lowered<()> {
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

    fn store(&mut self, place: Place, index: &Index, value: Expr) -> Lowered<()> {
        let dtype = self.nest.place(place).ok_or("an undeclared place")?.0;
        let element = element(dtype)?;
        let value = match self.eval(value)? {
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

    fn inner(&mut self, node: &Loop) -> Lowered<()> {
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
    fn before(&mut self, stmts: &[Stmt], changed: &Facts) -> Lowered<()> {
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

    fn before_expr(&mut self, expr: Expr, changed: &Facts) -> Lowered<()> {
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

    fn kill(&mut self, changed: &Facts) {
        self.values.retain(|expr, _| !self.facts[expr.0 as usize].meets(changed));
    }

    fn source(&mut self, expr: Expr) -> Lowered<Source> {
        match self.eval(expr)? {
            Value::Vector(vector) => Ok(Source::Vector(vector)),
            Value::Word(word) => Ok(Source::Word(word)),
            Value::Mask(_) => Err("a truth value as a number"),
        }
    }

    fn mask(&mut self, expr: Expr) -> Lowered<Mask> {
        match self.eval(expr)? {
            Value::Mask(mask) => Ok(mask),
            Value::Vector(_) => Err("a number as a truth value"),
            Value::Word(word) => {
                let to = self.wide.tape.mask();
                self.wide.tape.push(Op::Test { to, x: Source::Word(word) });
                Ok(to)
            }
        }
    }

    fn eval(&mut self, expr: Expr) -> Lowered<Value> {
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
    fn per_row(&mut self, expr: Expr, dtype: DType) -> Lowered<Value> {
        if let Some(value) = self.row_values.get(&expr) {
            return Ok(*value);
        }
        let around = self.wide.tape.set_head(true);
        let value = self.fresh(expr, dtype);
        self.wide.tape.set_head(around);
        self.row_values.insert(expr, value?);
        value
    }

    /// The argument of an expression that is the same in all lanes.
    fn word(&mut self, expr: Expr, dtype: DType) -> Lowered<Word> {
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

    fn fresh(&mut self, expr: Expr, dtype: DType) -> Lowered<Value> {
        let nest = self.nest;
        match nest.node(expr) {
            ExprNode::Local(_) | ExprNode::Literal(_) => Err("a local without a value"),
            ExprNode::Index(_) | ExprNode::InRange(..) => Err("arithmetic with positions"),
            ExprNode::GuardedLoad { .. } => Err("a load that may be outside"),
            ExprNode::Philox { .. } => Err("random numbers"),
            ExprNode::Load(place, index) => self.load(*place, index, dtype),
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
                // The mask last, as there are few.
                let (a, b) = (self.source(*a)?, self.source(*b)?);
                let mask = self.mask(*condition)?;
                Ok(vector(self.wide.tape.select(mask, a, b)))
            }
            ExprNode::Cast(x) => self.cast(*x, dtype),
        }
    }

    fn load(&mut self, place: Place, index: &Index, dtype: DType) -> Lowered<Value> {
        let element = element(dtype)?;
        let at = self.at(place, index, dtype)?;
        let lanes = self.wide.tape.runs_along_lanes(at.stream);
        if !lanes && (element != Element::Word || Facts::place(place).meets(&self.varying)) {
            return Err("a byte, or what the loop writes, that is the same in all lanes");
        }
        let to = self.wide.tape.vector();
        if !lanes {
            self.wide.tape.mark_uniform(to);
        }
        self.wide.tape.push(Op::Load { to, at, element });
        if dtype == DType::Bool {
            let mask = self.wide.tape.mask();
            self.wide.tape.push(Op::Test { to: mask, x: Source::Vector(to) });
            return Ok(Value::Mask(mask));
        }
        Ok(Value::Vector(to))
    }

    /// The stream of an access, and how far from its beginning.
    fn at(&mut self, place: Place, index: &Index, dtype: DType) -> Lowered<At> {
        let size = dtype.bytes() as i64;
        let step = index.coefficient(self.lane);
        if !matches!(step, 0 | 1) {
            return Err("neighbouring lanes are not neighbours in memory");
        }
        let mut strides = Vec::new();
        let mut rows = vec![0; self.rows.len()];
        for (atom, coefficient) in &index.terms {
            match atom {
                Atom::Var(var) if *var == self.lane => {}
                Atom::Var(var) => {
                    if let Some(level) = self.rows.iter().position(|(own, _)| own == var) {
                        let stride = coefficient * size * self.rows[level].1;
                        rows[level] = i32::try_from(stride).map_err(|_| "a stride of gigabytes")?;
                        continue;
                    }
                    if let Some((_, number)) = self.open.iter().find(|(own, _)| own == var) {
                        let stride = coefficient * size * self.steps[*number];
                        strides.push((*number, i32::try_from(stride).map_err(|_| "a stride of gigabytes")?));
                    } else if Facts::var(*var).meets(&self.varying) {
                        return Err("a variable of a loop that is over");
                    }
                }
                _ if Facts::atom(atom).meets(&self.varying) || Facts::atom(atom).meets(&self.rows_vary) => {
                    return Err("an index that is not linear");
                }
                _ => {}
            }
        }
        strides.sort_unstable_by_key(|(number, _)| *number);
        let displacement = i32::try_from(index.constant * size).map_err(|_| "a displacement of gigabytes")?;
        let start = Index { terms: index.terms.clone(), constant: 0 };
        let key = (place, start);
        let data = StreamData { size: size as u8, lanes: step == 1, strides, rows };
        let same = |(own, (stream, own_data)): (&(Place, Index), (_, &StreamData))| {
            (*own == key && *own_data == data).then_some(stream)
        };
        let known = self.wide.streams.iter().zip(self.wide.tape.streams()).find_map(same);
        let stream = match known {
            Some(stream) => stream,
            None => {
                self.wide.streams.push(key);
                self.wide.tape.add_stream(data)
            }
        };
        Ok(At { stream, displacement })
    }

    fn unary(&mut self, f: UnaryFn, x: Expr, dtype: DType) -> Lowered<Value> {
        if dtype == DType::Bool {
            if f != UnaryFn::Not {
                return Err("arithmetic of truth values");
            }
            let a = self.mask(x)?;
            let to = self.wide.tape.mask();
            self.wide.tape.push(Op::Not { to, a });
            return Ok(Value::Mask(to));
        }
        if dtype != DType::F32 {
            return Err("a function of integers");
        }
        let x = self.source(x)?;
        let tape = &mut self.wide.tape;
        Ok(vector(match f {
            UnaryFn::Neg => {
                let sign = Source::Word(tape.literal(0x8000_0000));
                tape.binary(Binary::Xor, x, sign)
            }
            UnaryFn::Abs => {
                let size = Source::Word(tape.literal(0x7fff_ffff));
                tape.binary(Binary::And, x, size)
            }
            UnaryFn::Sqrt => tape.unary(Unary::Sqrt, x),
            UnaryFn::Floor => tape.unary(Unary::Floor, x),
            UnaryFn::Ceil => tape.unary(Unary::Ceil, x),
            UnaryFn::Round => tape.unary(Unary::Nearest, x),
            UnaryFn::Rsqrt => {
                let (root, one) = (tape.unary(Unary::Sqrt, x), tape.number(1.0));
                tape.binary(Binary::Div, one, root)
            }
            UnaryFn::Sign => {
                let (zero, one, minus) = (tape.number(0.0), tape.number(1.0), tape.number(-1.0));
                let negative = tape.compare(Compare::LESS, x, zero);
                let rest = tape.select(negative, minus, x);
                let positive = tape.compare(Compare::GREATER, x, zero);
                tape.select(positive, one, rest)
            }
            UnaryFn::Exp => tape.exp(x),
            UnaryFn::Log => tape.log(x),
            UnaryFn::Tanh => tape.tanh(x),
            UnaryFn::Erf => tape.erf(x),
            UnaryFn::Sin | UnaryFn::Cos => return Err("a function that is computed in binary64"),
            UnaryFn::Not => return Err("not of a float"),
        }))
    }

    fn binary(&mut self, f: BinaryFn, a: Expr, b: Expr, dtype: DType) -> Lowered<Value> {
        if dtype == DType::Bool {
            return self.logic(f, a, b);
        }
        let literal = |expr: Expr| match self.nest.node(expr) {
            ExprNode::Literal(value) => Some(*value),
            _ => None,
        };
        let (left, right) = (literal(a), literal(b));
        let square = f == BinaryFn::Pow && right == Some(Number::Float(2.0));
        let (a, b) = (self.source(a)?, if square { self.source(a)? } else { self.source(b)? });
        let tape = &mut self.wide.tape;
        if let Some(distance) = shift(f, right, dtype)? {
            return Ok(vector(tape.unary(distance, a)));
        }
        Ok(vector(match (f, dtype) {
            (BinaryFn::Pow, DType::F32) if square => tape.binary(Binary::Mul, a, b),
            (BinaryFn::Max | BinaryFn::Min, DType::F32) => {
                let max = f == BinaryFn::Max;
                let plain = if max { Binary::Greatest } else { Binary::Least };
                // A literal is no NaN: it goes first, and the instruction passes on a NaN of the other.
                match (left.is_some(), right.is_some()) {
                    (_, true) => tape.binary(plain, b, a),
                    (true, _) => tape.binary(plain, a, b),
                    _ => {
                        let to = tape.vector();
                        tape.push(Op::Extreme { to, max, a, b });
                        Source::Vector(to)
                    }
                }
            }
            _ => match combination(f, dtype) {
                Ok(Combine::Plain(f)) => tape.binary(f, a, b),
                Ok(_) => return Err("a maximum of floats"),
                Err(_) => tape.binary(difference(f, dtype)?, a, b),
            },
        }))
    }

    fn logic(&mut self, f: BinaryFn, a: Expr, b: Expr) -> Lowered<Value> {
        let f = match f {
            BinaryFn::And | BinaryFn::Min | BinaryFn::Mul => MaskOp::And,
            BinaryFn::Or | BinaryFn::Max => MaskOp::Or,
            BinaryFn::Xor => MaskOp::Xor,
            _ => return Err("arithmetic of truth values"),
        };
        let (a, b) = (self.mask(a)?, self.mask(b)?);
        let to = self.wide.tape.mask();
        self.wide.tape.push(Op::Logic { to, f, a, b });
        Ok(Value::Mask(to))
    }

    fn cast(&mut self, x: Expr, to: DType) -> Lowered<Value> {
        let from = self.nest.dtype(x);
        if from == DType::Bool {
            let mask = self.mask(x)?;
            let one = match to {
                DType::F32 => 1.0f32.to_bits(),
                DType::I32 | DType::U32 | DType::I8 | DType::U8 => 1,
                _ => return Err("a conversion"),
            };
            let tape = &mut self.wide.tape;
            let (one, zero) = (tape.literal(one), tape.literal(0));
            return Ok(vector(tape.select(mask, Source::Word(one), Source::Word(zero))));
        }
        if to == DType::Bool && from == DType::F32 {
            let x = self.source(x)?;
            let zero = self.wide.tape.number(0.0);
            return Ok(Value::Mask(self.wide.tape.compare(Compare::Float(4), x, zero)));
        }
        let x = self.source(x)?;
        match (from, to) {
            (DType::F32, DType::I32) => Ok(vector(self.truncated(x))),
            (DType::I32 | DType::I8 | DType::U8, DType::F32) => Ok(vector(self.wide.tape.unary(Unary::FromInt, x))),
            (DType::U32, DType::F32) => Ok(vector(self.wide.tape.unary(Unary::FromUint, x))),
            (DType::I32, DType::U32) | (DType::U32, DType::I32) => Ok(vector(x)),
            (DType::I8 | DType::U8, DType::I32 | DType::U32) => Ok(vector(x)),
            _ => Err("a conversion"),
        }
    }
}

impl Lowering<'_> {
    /// To the nearest number in range towards zero; NaN gives 0. The instruction gives the least number for all that is
    /// out of range.
    fn truncated(&mut self, x: Source) -> Source {
        let tape = &mut self.wide.tape;
        let whole = tape.unary(Unary::ToInt, x);
        let (limit, most, zero) = (tape.number(2_147_483_648.0), tape.literal(i32::MAX as u32), tape.literal(0));
        let below = tape.compare(Compare::LESS, x, limit);
        let whole = tape.select(below, whole, Source::Word(most));
        let ordered = tape.compare(Compare::ORDERED, x, x);
        tape.select(ordered, whole, Source::Word(zero))
    }
}

fn vector(source: Source) -> Value {
    match source {
        Source::Vector(vector) => Value::Vector(vector),
        Source::Word(word) => Value::Word(word),
    }
}

fn numeric(dtype: DType) -> Lowered<()> {
    if matches!(dtype, DType::F32 | DType::I32 | DType::U32) { Ok(()) } else { Err("values that have no 32 bit") }
}

fn element(dtype: DType) -> Lowered<Element> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 => Ok(Element::Word),
        DType::I8 => Ok(Element::Signed),
        DType::U8 | DType::Bool => Ok(Element::Unsigned),
        _ => Err("elements of 64 or 16 bit"),
    }
}

fn checked_bits(value: Number, dtype: DType) -> Lowered<u32> {
    match dtype {
        DType::F32 | DType::I32 | DType::U32 | DType::Bool => Ok(bits(value, dtype)),
        _ => Err("a constant that has no 32 bit"),
    }
}

/// First lane of the constant; truth values have all bits or none.
fn bits(value: Number, dtype: DType) -> u32 {
    let (bytes, _) = literal_bytes(value, dtype);
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Functions that combine partial values.
fn combination(f: BinaryFn, dtype: DType) -> Lowered<Combine> {
    let plain = match (f, dtype) {
        (BinaryFn::Add, DType::F32) => Binary::Add,
        (BinaryFn::Mul, DType::F32) => Binary::Mul,
        (BinaryFn::Max, DType::F32) => return Ok(Combine::Max),
        (BinaryFn::Min, DType::F32) => return Ok(Combine::Min),
        (BinaryFn::Add, DType::I32 | DType::U32) => Binary::IntAdd,
        (BinaryFn::Mul, DType::I32 | DType::U32) => Binary::IntMul,
        (BinaryFn::Max, DType::I32) => Binary::IntMax,
        (BinaryFn::Min, DType::I32) => Binary::IntMin,
        (BinaryFn::Max, DType::U32) => Binary::UintMax,
        (BinaryFn::Min, DType::U32) => Binary::UintMin,
        (BinaryFn::And, DType::I32 | DType::U32) => Binary::And,
        (BinaryFn::Or, DType::I32 | DType::U32) => Binary::Or,
        (BinaryFn::Xor, DType::I32 | DType::U32) => Binary::Xor,
        _ => return Err("an accumulator that has no 32 bit"),
    };
    Ok(Combine::Plain(plain))
}

fn difference(f: BinaryFn, dtype: DType) -> Lowered<Binary> {
    match (f, dtype) {
        (BinaryFn::Sub, DType::F32) => Ok(Binary::Sub),
        (BinaryFn::Div, DType::F32) => Ok(Binary::Div),
        (BinaryFn::Sub, DType::I32 | DType::U32) => Ok(Binary::IntSub),
        _ => Err("a function that the vectors do not have"),
    }
}

/// Shifts by a constant, modulo 32.
fn shift(f: BinaryFn, distance: Option<Number>, dtype: DType) -> Lowered<Option<Unary>> {
    if !matches!(f, BinaryFn::Shl | BinaryFn::Shr) {
        return Ok(None);
    }
    let distance = distance.ok_or("a shift that varies")?.to_i64().rem_euclid(32) as u8;
    match (f, dtype) {
        (BinaryFn::Shl, DType::I32 | DType::U32) => Ok(Some(Unary::ShiftLeft(distance))),
        (_, DType::I32) => Ok(Some(Unary::ShiftRightSigned(distance))),
        (_, DType::U32) => Ok(Some(Unary::ShiftRight(distance))),
        _ => Err("a shift of 8 or 64 bit"),
    }
}

fn comparison(f: CompareFn, dtype: DType) -> Lowered<Compare> {
    let float = match f {
        CompareFn::Eq => 0,
        CompareFn::Ne => 4,
        CompareFn::Lt => 0x11,
        CompareFn::Le => 0x12,
        CompareFn::Gt => 0x1e,
        CompareFn::Ge => 0x1d,
    };
    let integer = match f {
        CompareFn::Eq => 0,
        CompareFn::Lt => 1,
        CompareFn::Le => 2,
        CompareFn::Ne => 4,
        CompareFn::Ge => 5,
        CompareFn::Gt => 6,
    };
    match dtype {
        DType::F32 => Ok(Compare::Float(float)),
        DType::I32 | DType::I8 => Ok(Compare::Int(integer)),
        DType::U32 | DType::U8 => Ok(Compare::Uint(integer)),
        _ => Err("a comparison of 64 bit"),
    }
}
