//! Text of a loop nest, for dumps and snapshots; it is not parsed.
//!
//! What a statement uses several times stands in lines of its own before it: `%0 = exp(x[i])`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write};

use kiln_ir::scalar::Number;

use super::nest::{Access, Arg, Atom, Expr, ExprNode, Index, Loop, LoopNest, Place, Stmt};

impl Display for LoopNest {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "nest {} tiles {} {{", self.name, self.tiles)?;
        for buffer in &self.buffers {
            let access = match buffer.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "update",
            };
            writeln!(f, "  {access} {}: {}[{}]", buffer.name, buffer.dtype, buffer.elements)?;
        }
        for scratch in &self.scratch {
            writeln!(f, "  scratch {}: {}[{}]", scratch.name, scratch.dtype, scratch.elements)?;
        }
        for helper in &self.helpers {
            writeln!(f, "  helper {}", helper.name)?;
        }
        self.block(f, &self.body, 1)?;
        writeln!(f, "}}")
    }
}

/// Numbers of the expressions that have a line of their own.
type Names = BTreeMap<Expr, usize>;

impl LoopNest {
    fn block(&self, f: &mut Formatter<'_>, stmts: &[Stmt], depth: usize) -> fmt::Result {
        stmts.iter().try_for_each(|stmt| self.stmt(f, stmt, depth))
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let names = self.shared_lines(f, stmt, &indent)?;
        f.write_str(&indent)?;
        match stmt {
            Stmt::Loop(node) => {
                self.loop_head(f, node)?;
                writeln!(f, " {{")?;
                self.block(f, &node.body, depth + 1)?;
                writeln!(f, "{indent}}}")
            }
            Stmt::Let { local, value } => {
                let decl = &self.locals[local.0 as usize];
                writeln!(f, "let {}: {} = {}", decl.name, decl.dtype, self.text_with(*value, &names))
            }
            Stmt::Set { local, value } => {
                writeln!(f, "set {} = {}", self.locals[local.0 as usize].name, self.text_with(*value, &names))
            }
            Stmt::Store { place, index, value } => {
                writeln!(f, "{} = {}", self.element(*place, index), self.text_with(*value, &names))
            }
            Stmt::If { condition, then, otherwise } => {
                writeln!(f, "if {} {{", self.text_with(*condition, &names))?;
                self.block(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{indent}}} else {{")?;
                    self.block(f, otherwise, depth + 1)?;
                }
                writeln!(f, "{indent}}}")
            }
            Stmt::Check { value, limit, site, position, body } => {
                let (value, position) = (self.text_with(*value, &names), self.index_text(position));
                writeln!(f, "check {value} below {limit} or status {site} at {position} {{")?;
                self.block(f, body, depth + 1)?;
                writeln!(f, "{indent}}}")
            }
            Stmt::Call { helper, args } => {
                let args: Vec<String> = args.iter().map(|arg| self.arg(arg)).collect();
                writeln!(f, "call {}({})", self.helpers[helper.0 as usize].name, args.join(", "))
            }
        }
    }

    fn loop_head(&self, f: &mut Formatter<'_>, node: &Loop) -> fmt::Result {
        let vector = if node.vector { "vector " } else { "" };
        let var = &self.vars[node.var.0 as usize];
        write!(f, "{vector}for {var} in {}..{}", self.index_text(&node.begin), self.index_text(&node.end))?;
        if node.step != 1 {
            write!(f, " step {}", node.step)?;
        }
        if node.unroll != 0 {
            write!(f, " unroll {}", node.unroll)?;
        }
        for (number, accumulator) in node.accumulators.iter().enumerate() {
            let decl = &self.locals[accumulator.local.0 as usize];
            let word = if number == 0 { " with" } else { "," };
            write!(f, "{word} {}: {} = {}", decl.name, decl.dtype, self.text(accumulator.init))?;
            if let Some(combine) = accumulator.combine {
                write!(f, " by {}", lower(combine))?;
            }
        }
        Ok(())
    }

    fn arg(&self, arg: &Arg) -> String {
        match arg {
            Arg::Address { place, index } => format!("&{}", self.element(*place, index)),
            Arg::Int(index) => self.index_text(index),
        }
    }

    fn element(&self, place: Place, index: &Index) -> String {
        let name = match place {
            Place::Buffer(number) => &self.buffers[number as usize].name,
            Place::Scratch(number) => &self.scratch[number as usize].name,
        };
        format!("{name}[{}]", self.index_text(index))
    }

    /// Writes the lines of what a statement uses several times.
    fn shared_lines(&self, f: &mut Formatter<'_>, stmt: &Stmt, indent: &str) -> Result<Names, fmt::Error> {
        let mut names = Names::new();
        let root = match stmt {
            Stmt::Let { value, .. } | Stmt::Set { value, .. } => *value,
            Stmt::Store { value, .. } | Stmt::Check { value, .. } => *value,
            Stmt::If { condition, .. } => *condition,
            Stmt::Loop(_) | Stmt::Call { .. } => return Ok(names),
        };
        let mut uses = BTreeMap::from([(root, 0usize)]);
        let mut todo = vec![root];
        while let Some(expr) = todo.pop() {
            for child in self.node(expr).children() {
                let count = uses.entry(child).or_insert(0);
                *count += 1;
                if *count == 1 {
                    todo.push(child);
                }
            }
        }
        // Operands have smaller numbers, so lines come in the order of need.
        for (expr, count) in uses {
            if count > 1 && self.node(expr).children().next().is_some() {
                writeln!(f, "{indent}%{} = {}", names.len(), self.node_text(expr, &names))?;
                names.insert(expr, names.len());
            }
        }
        Ok(names)
    }

    /// Text of an expression, fully written out: as long as the tree, not the pool.
    pub fn text(&self, expr: Expr) -> String {
        self.text_with(expr, &Names::new())
    }

    fn text_with(&self, expr: Expr, names: &Names) -> String {
        match names.get(&expr) {
            Some(number) => format!("%{number}"),
            None => self.node_text(expr, names),
        }
    }

    fn node_text(&self, expr: Expr, names: &Names) -> String {
        let list = |name: &str, exprs: &[Expr]| {
            let texts: Vec<String> = exprs.iter().map(|expr| self.text_with(*expr, names)).collect();
            format!("{name}({})", texts.join(", "))
        };
        match self.node(expr) {
            ExprNode::Literal(Number::Float(value)) => format!("{value:?}"),
            ExprNode::Literal(Number::Int(value)) => format!("{value}"),
            ExprNode::Local(local) => self.locals[local.0 as usize].name.clone(),
            ExprNode::Index(index) => format!("index({})", self.index_text(index)),
            ExprNode::InRange(index, limit) => format!("in_range({}, {limit})", self.index_text(index)),
            ExprNode::Load(place, index) => self.element(*place, index),
            ExprNode::GuardedLoad { place, index, condition, otherwise } => {
                let element = self.element(*place, index);
                format!(
                    "guarded({}, {element}, {})",
                    self.text_with(*condition, names),
                    self.text_with(*otherwise, names)
                )
            }
            ExprNode::Unary(function, x) => list(&lower(function), &[*x]),
            ExprNode::Binary(function, a, b) => list(&lower(function), &[*a, *b]),
            ExprNode::MulAdd(a, b, c) => list("mul_add", &[*a, *b, *c]),
            ExprNode::Compare(function, a, b) => list(&lower(function), &[*a, *b]),
            ExprNode::Select(condition, a, b) => list("select", &[*condition, *a, *b]),
            ExprNode::Cast(x) => list(self.dtype(expr).name(), &[*x]),
            ExprNode::Bits(x) => list("bits", &[*x]),
            ExprNode::Philox { key, counter, position } => {
                format!("philox({key:#x}, {}, {})", self.text_with(*counter, names), self.text_with(*position, names))
            }
        }
    }

    /// Text of an index: `c*32 + h`.
    pub fn index_text(&self, index: &Index) -> String {
        let mut text = String::new();
        for (atom, coefficient) in &index.terms {
            let atom = self.atom(atom);
            let sign = match (text.is_empty(), *coefficient < 0) {
                (true, true) => "-",
                (true, false) => "",
                (false, true) => " - ",
                (false, false) => " + ",
            };
            let _ = match coefficient.unsigned_abs() {
                1 => write!(text, "{sign}{atom}"),
                factor => write!(text, "{sign}{atom}*{factor}"),
            };
        }
        let _ = match (text.is_empty(), index.constant) {
            (true, constant) => write!(text, "{constant}"),
            (false, 0) => Ok(()),
            (false, constant) if constant < 0 => write!(text, " - {}", constant.unsigned_abs()),
            (false, constant) => write!(text, " + {constant}"),
        };
        text
    }

    fn atom(&self, atom: &Atom) -> String {
        match atom {
            Atom::Var(var) => self.vars[var.0 as usize].clone(),
            Atom::Local(local) => self.locals[local.0 as usize].name.clone(),
            Atom::Floor(index, divisor) => format!("({} / {divisor})", self.index_text(index)),
            Atom::Modulo(index, divisor) => format!("({} % {divisor})", self.index_text(index)),
            Atom::Min(index, limit) => format!("min({}, {limit})", self.index_text(index)),
        }
    }
}

/// A function's name as it is written in the spec.
fn lower(function: impl fmt::Debug) -> String {
    format!("{function:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use kiln_ir::DType::F32;
    use kiln_ir::scalar::BinaryFn::{Add, Mul};

    use crate::loops::nest::{Access, Index, Loop, NestBuilder};

    #[test]
    fn shared_expressions_have_lines_of_their_own() {
        let n = NestBuilder::new("powers");
        let x = n.buffer("x", F32, 8, Access::ReadWrite);
        let i = n.var("i");
        let value = n.load(x, Index::var(i));
        let square = n.binary(Mul, value, value);
        let fourth = n.binary(Mul, square, square);
        let store = n.store(x, Index::var(i), n.binary(Add, fourth, fourth));
        let nest = n.finish(1, vec![Loop::over(i, 8usize).body(vec![store])]);
        let body = "    %0 = mul(x[i], x[i])\n    %1 = mul(%0, %0)\n    x[i] = add(%1, %1)\n";
        assert!(nest.to_string().contains(body), "{nest}");
    }
}
