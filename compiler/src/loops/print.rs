//! Text of a loop nest, for dumps and snapshots; it is not parsed.

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

impl LoopNest {
    fn block(&self, f: &mut Formatter<'_>, stmts: &[Stmt], depth: usize) -> fmt::Result {
        stmts.iter().try_for_each(|stmt| self.stmt(f, stmt, depth))
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
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
                writeln!(f, "let {}: {} = {}", decl.name, decl.dtype, self.text(*value))
            }
            Stmt::Set { local, value } => {
                writeln!(f, "set {} = {}", self.locals[local.0 as usize].name, self.text(*value))
            }
            Stmt::Store { place, index, value } => {
                writeln!(f, "{} = {}", self.element(*place, index), self.text(*value))
            }
            Stmt::If { condition, then, otherwise } => {
                writeln!(f, "if {} {{", self.text(*condition))?;
                self.block(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{indent}}} else {{")?;
                    self.block(f, otherwise, depth + 1)?;
                }
                writeln!(f, "{indent}}}")
            }
            Stmt::Check { value, limit, site, position, body } => {
                let (value, position) = (self.text(*value), self.index_text(position));
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

    /// Text of an expression, fully written out.
    pub fn text(&self, expr: Expr) -> String {
        let list = |name: &str, exprs: &[Expr]| {
            let texts: Vec<String> = exprs.iter().map(|expr| self.text(*expr)).collect();
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
                format!("guarded({}, {element}, {})", self.text(*condition), self.text(*otherwise))
            }
            ExprNode::Unary(function, x) => list(&lower(function), &[*x]),
            ExprNode::Binary(function, a, b) => list(&lower(function), &[*a, *b]),
            ExprNode::MulAdd(a, b, c) => list("mul_add", &[*a, *b, *c]),
            ExprNode::Compare(function, a, b) => list(&lower(function), &[*a, *b]),
            ExprNode::Select(condition, a, b) => list("select", &[*condition, *a, *b]),
            ExprNode::Cast(x) => list(self.dtype(expr).name(), &[*x]),
            ExprNode::Philox { key, counter, position } => {
                format!("philox({key:#x}, {}, {})", self.text(*counter), self.text(*position))
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
