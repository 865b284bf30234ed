//! Memory: streams of accesses, loads that may be outside, positions.

use kiln_ir::DType;

use super::super::analysis::Facts;
use super::functions::element;
use super::lower::{Lowered, Lowering, Value};
use crate::codegen::wide::tape::{At, Binary, Compare, Element, Op, Source, StreamData};
use crate::loops::nest::{Atom, Expr, Index, Place};

impl Lowering<'_> {
    pub(super) fn load(&mut self, place: Place, index: &Index) -> Lowered<Value> {
        let dtype = self.element_of(place)?;
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

    /// Type of the elements in memory.
    pub(super) fn element_of(&self, place: Place) -> Lowered<DType> {
        self.nest.place(place).map(|(dtype, _)| dtype).ok_or("an undeclared place")
    }

    /// Whether a quotient or remainder is a digit of the outermost variable, of which there is one divisor.
    pub(super) fn is_digit(&mut self, of: &Index, divisor: i64) -> bool {
        let Some(&(row, 1)) = self.rows.first() else { return false };
        let Ok(divisor) = i32::try_from(divisor) else { return false };
        *of == Index::var(row) && *self.turn.get_or_insert(divisor) == divisor
    }

    /// Whether a position lies below a limit.
    pub(super) fn in_range(&mut self, index: &Index, limit: i64) -> Lowered<Value> {
        let limit = u32::try_from(limit).ok().filter(|limit| *limit < 1 << 30).ok_or("a position of gigabytes")?;
        let mut sum = None;
        let mut constant = index.constant;
        for (atom, coefficient) in &index.terms {
            let Atom::Var(var) = atom else { return Err("a position that is not linear") };
            let level = self.loops.iter().position(|node| node.var == *var);
            let level = level.ok_or("a position of an inner or outer loop")?;
            let node = &self.loops[level];
            let (Some(begin), Some(end)) = (node.begin.as_constant(), node.end.as_constant()) else {
                return Err("a position in a loop of unknown bounds");
            };
            let factor = coefficient * node.step;
            if (end - begin).saturating_mul(factor).abs() > 1 << 24 {
                return Err("a position of gigabytes");
            }
            constant += begin * coefficient;
            let to = self.wide.tape.vector();
            let lanes = level + 1 == self.loops.len();
            self.wide.tape.push(if lanes { Op::Position { to } } else { Op::Row { to, level } });
            let mut term = Source::Vector(to);
            if factor != 1 {
                let factor = Source::Word(self.wide.tape.literal(factor as u32));
                term = self.wide.tape.binary(Binary::IntMul, term, factor);
            }
            sum = Some(match sum {
                Some(sum) => self.wide.tape.binary(Binary::IntAdd, sum, term),
                None => term,
            });
        }
        let mut sum = sum.ok_or("a position that is known")?;
        if constant != 0 {
            let constant = i32::try_from(constant).map_err(|_| "a position of gigabytes")?;
            let constant = Source::Word(self.wide.tape.literal(constant as u32));
            sum = self.wide.tape.binary(Binary::IntAdd, sum, constant);
        }
        // Without sign, what is negative is large.
        let limit = Source::Word(self.wide.tape.literal(limit));
        Ok(Value::Mask(self.wide.tape.compare(Compare::Uint(1), sum, limit)))
    }

    /// A load of the lanes for which a condition holds; the others are not touched.
    pub(super) fn guarded_load(
        &mut self,
        place: Place,
        index: &Index,
        condition: Expr,
        otherwise: Expr,
    ) -> Lowered<Value> {
        let dtype = self.element_of(place)?;
        let element = element(dtype)?;
        let otherwise = self.source(otherwise)?;
        let at = self.at(place, index, dtype)?;
        if self.wide.tape.step(at.stream) != 1 {
            return Err("a guarded load that is not of neighbours");
        }
        let condition = self.eval(condition)?;
        let whole = matches!(condition, Value::Truth(_) | Value::Word(_));
        let mask = self.as_mask(condition)?;
        let to = self.wide.tape.vector();
        self.wide.tape.push(Op::LoadWhere { to, at, element, mask, otherwise, whole });
        Ok(Value::Vector(to))
    }

    /// The stream of an access, and how far from its beginning.
    pub(super) fn at(&mut self, place: Place, index: &Index, dtype: DType) -> Lowered<At> {
        let size = dtype.bytes() as i64;
        let step = index.coefficient(self.lane);
        if !(matches!(step, 0 | 1) || step == 2 && size == 4) {
            return Err("neighbouring lanes are not neighbours in memory");
        }
        let mut turn = 0;
        let mut strides = Vec::new();
        let mut rows = vec![0; self.rows.len()];
        for (atom, coefficient) in &index.terms {
            match atom {
                Atom::Var(var) if *var == self.lane => {}
                Atom::Var(var) => {
                    if let Some(level) = self.rows.iter().position(|(own, _)| own == var) {
                        let stride = coefficient * size * self.rows[level].1;
                        rows[level] += i32::try_from(stride).map_err(|_| "a stride of gigabytes")?;
                        continue;
                    }
                    if let Some((_, number)) = self.open.iter().find(|(own, _)| own == var) {
                        let stride = coefficient * size * self.steps[*number];
                        strides.push((*number, i32::try_from(stride).map_err(|_| "a stride of gigabytes")?));
                    } else if Facts::var(*var).meets(&self.varying) {
                        return Err("a variable of a loop that is over");
                    }
                }
                Atom::Floor(of, divisor) if self.is_digit(of, *divisor) => turn += coefficient * size,
                Atom::Modulo(of, divisor) if self.is_digit(of, *divisor) => {
                    let stride = i32::try_from(coefficient * size).map_err(|_| "a stride of gigabytes")?;
                    rows[0] += stride;
                    turn -= coefficient * size * divisor;
                }
                _ if Facts::atom(atom).meets(&self.varying) || Facts::atom(atom).meets(&self.rows_vary) => {
                    return Err("an index that is not linear");
                }
                _ => {}
            }
        }
        strides.sort_unstable_by_key(|(number, _)| *number);
        let displacement = i32::try_from(index.constant * size).map_err(|_| "a displacement of gigabytes")?;
        let turn = i32::try_from(turn).map_err(|_| "a stride of gigabytes")?;
        let start = Index { terms: index.terms.clone(), constant: 0 };
        let key = (place, start);
        let data = StreamData { size: size as u8, step: step as u8, strides, rows, turn };
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
}
