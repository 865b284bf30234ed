//! GraphBuilder and Tensor: the define-then-run front end.
//!
//! Every method appends nodes and returns a handle. Scripts carry no `?`: the first fault is kept with the caller's
//! line, later calls on its results do nothing, and [`GraphBuilder::finish`] reports it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location as CallSite;
use std::rc::Rc;

use indexmap::IndexMap;
use smallvec::SmallVec;

use crate::attribute::{Ints, Literal};
use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Location, Provenance, Update, Value};
use crate::module::State;
use crate::op::{self, Elementwise, Op};
use crate::scalar::{BinaryFn, CompareFn, Number, ScalarExpr, ScalarNode, UnaryFn};
use crate::types::{DType, Name, Shape, TensorType};

mod naming;

use naming::Naming;

/// Builds one graph.
#[derive(Clone, Debug)]
pub struct GraphBuilder(Rc<RefCell<Inner>>);

/// A value of the graph under construction. Cloning shares.
#[derive(Clone, Debug)]
pub struct Tensor {
    builder: GraphBuilder,
    value: Value,
}

#[derive(Debug, Default)]
struct Inner {
    graph: Graph,
    states: IndexMap<Name, State>,
    faults: Vec<Diagnostic>,
    /// Overrides the caller's line: the node that a rewrite or a script line works for.
    provenance: Option<Provenance>,
    /// What names of nodes begin with, for nodes that no author names.
    prefix: Option<Name>,
    /// What states and instances are called.
    naming: Naming,
    /// States that every layer shares, and their reads.
    shared: BTreeMap<Name, Value>,
    /// Next values of states, which a step graph writes and an evaluation drops.
    pending: Vec<Update>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> GraphBuilder {
        GraphBuilder::over(Graph::new(name))
    }

    /// Continues `graph`.
    pub fn over(graph: Graph) -> GraphBuilder {
        GraphBuilder(Rc::new(RefCell::new(Inner { graph, ..Inner::default() })))
    }

    /// A parameter.
    pub fn input(&self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        self.param(name, TensorType::new(dtype, shape), None)
    }

    /// A parameter whose elements are all below `below`.
    pub fn param(&self, name: &str, ty: TensorType, below: Option<u64>) -> Tensor {
        let value = self.0.borrow_mut().graph.add_param(name, ty, below);
        self.tensor(value)
    }

    /// The handle of a value of this graph.
    pub fn tensor(&self, value: Value) -> Tensor {
        Tensor { builder: self.clone(), value }
    }

    /// Nodes appended from now on belong to `provenance` instead of the caller's line.
    pub fn set_provenance(&self, provenance: Option<Provenance>) {
        self.0.borrow_mut().provenance = provenance;
    }

    /// Results of nodes appended from now on are called `prefix.mnemonic`.
    pub fn set_prefix(&self, prefix: Option<Name>) {
        self.0.borrow_mut().prefix = prefix;
    }

    /// Nodes that `build` appends belong to `caller`, unless a provenance is set.
    pub(crate) fn located<R>(&self, caller: &CallSite<'_>, build: impl FnOnce() -> R) -> R {
        if self.0.borrow().provenance.is_some() {
            return build();
        }
        self.set_provenance(Some(Provenance { source: Some(call_location(caller)), derived: None }));
        let result = build();
        self.set_provenance(None);
        result
    }

    /// Declares a state outside of all scopes without reading it.
    pub(crate) fn declare_state(&self, name: &Name, state: State) {
        self.0.borrow_mut().states.insert(name.clone(), state);
    }

    /// Faults so far, which are forgotten: who takes them reports them.
    pub(crate) fn take_faults(&self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.0.borrow_mut().faults)
    }

    /// Renames a value that no pass has seen yet; the name is made unique.
    pub fn rename(&self, tensor: &Tensor, name: &str) {
        if !tensor.is_invalid() {
            self.0.borrow_mut().graph.rename_value(tensor.value, name.into());
        }
    }

    /// A state outside of all scopes, declared at its first use and read once: `@rng`.
    #[track_caller]
    pub fn shared_state(&self, name: &str, state: State) -> Tensor {
        if let Some(&value) = self.0.borrow().shared.get(name) {
            return self.tensor(value);
        }
        let ty = state.ty.clone();
        self.0.borrow_mut().states.insert(name.into(), state);
        let read = self.read_state(name, ty);
        self.0.borrow_mut().shared.insert(name.into(), read.value);
        read
    }

    /// Notes the next value of a state that `read` reads: a step graph writes it, an evaluation does not.
    pub fn pend_update(&self, read: &Tensor, next: &Tensor) {
        let mut inner = self.0.borrow_mut();
        if read.is_invalid() || next.is_invalid() {
            return;
        }
        if let Some(state) = inner.graph.read_state_name(read.value).cloned() {
            inner.pending.push(Update { state, value: next.value });
        }
    }

    /// What [`GraphBuilder::pend_update`] noted, in order.
    pub fn pending_updates(&self) -> Vec<Update> {
        self.0.borrow().pending.clone()
    }

    /// Reads a state that is declared elsewhere.
    #[track_caller]
    pub fn read_state(&self, name: &str, ty: TensorType) -> Tensor {
        self.apply_named(op::State { ty, name: name.into() }, &[], name)
    }

    /// The states that were declared, in order.
    pub fn states(&self) -> IndexMap<Name, State> {
        self.0.borrow().states.clone()
    }

    /// A constant of one number.
    #[track_caller]
    pub fn full(&self, value: impl Into<Number>, ty: &TensorType) -> Tensor {
        let value = value.into().to_dtype(ty.dtype);
        self.apply(op::Const { ty: ty.with_shape(ty.shape.clone()), value: Literal::Splat(value) }, &[])
    }

    /// Appends an op with one result.
    #[track_caller]
    pub fn apply(&self, op: impl Into<Op>, operands: &[&Tensor]) -> Tensor {
        let op = op.into();
        let hint = op.mnemonic();
        self.apply_named(op, operands, hint)
    }

    /// Appends an op with one result under a name.
    #[track_caller]
    pub fn apply_named(&self, op: impl Into<Op>, operands: &[&Tensor], name: &str) -> Tensor {
        let results = self.apply_all(op, operands, &[name]);
        results.into_iter().next().unwrap_or_else(|| self.tensor(Value::INVALID))
    }

    /// Appends an op; `names` are hints for its results.
    #[track_caller]
    pub fn apply_all(&self, op: impl Into<Op>, operands: &[&Tensor], names: &[&str]) -> SmallVec<[Tensor; 3]> {
        let caller = CallSite::caller();
        let op = op.into();
        let values: SmallVec<[Value; 3]> = operands.iter().map(|t| t.value).collect();
        let results = self.0.borrow_mut().push(op, &values, names, caller);
        results.into_iter().map(|value| self.tensor(value)).collect()
    }

    /// Records a fault at the caller's line.
    #[track_caller]
    pub fn fault(&self, label: &str, message: impl Into<String>) {
        let at = call_location(CallSite::caller());
        let at = self.0.borrow().provenance.as_ref().and_then(|p| p.source.clone()).or(Some(at));
        self.0.borrow_mut().faults.push(Diagnostic::error(label, message).at(at));
    }

    /// Records a finding; it is at the current provenance unless it says where.
    #[track_caller]
    pub fn report(&self, mut diagnostic: Diagnostic) {
        if diagnostic.at.is_none() {
            let at = call_location(CallSite::caller());
            diagnostic.at = self.0.borrow().provenance.as_ref().and_then(|p| p.source.clone()).or(Some(at));
        }
        self.0.borrow_mut().faults.push(diagnostic);
    }

    /// Sets the results of the graph.
    pub fn returns(&self, results: &[&Tensor]) {
        self.0.borrow_mut().graph.set_returns(results.iter().map(|t| t.value));
    }

    /// `update @state = value`.
    pub fn update(&self, state: &str, value: &Tensor) {
        self.0.borrow_mut().graph.add_update(state, value.value);
    }

    /// The graph, or all faults.
    ///
    /// # Errors
    /// Every fault recorded while building, in order.
    pub fn finish(self) -> Result<Graph, Vec<Diagnostic>> {
        let mut inner = self.0.borrow_mut();
        if inner.faults.is_empty() {
            Ok(std::mem::take(&mut inner.graph))
        } else {
            Err(std::mem::take(&mut inner.faults))
        }
    }

    /// Reads the graph under construction.
    pub fn with_graph<R>(&self, read: impl FnOnce(&Graph) -> R) -> R {
        read(&self.0.borrow().graph)
    }

    /// Changes the graph under construction; for passes, which copy nodes between applying ops.
    pub fn with_graph_mut<R>(&self, change: impl FnOnce(&mut Graph) -> R) -> R {
        change(&mut self.0.borrow_mut().graph)
    }
}

impl Inner {
    fn push(&mut self, op: Op, operands: &[Value], names: &[&str], caller: &CallSite<'_>) -> Vec<Value> {
        let entry = op.entry();
        let count = match op {
            // As many results as operands after the loss.
            Op::GradientOf(_) => operands.len().saturating_sub(1),
            _ => entry.results.len(),
        };
        let invalid = vec![Value::INVALID; count];
        if operands.contains(&Value::INVALID) {
            return invalid;
        }
        let provenance = self
            .provenance
            .clone()
            .unwrap_or_else(|| Provenance { source: Some(call_location(caller)), derived: None });
        let types = self.graph.types(operands);
        let inferred = if entry.takes(operands.len()) {
            op.spec().infer(&types)
        } else {
            let wanted = entry.operands.join(", ");
            let message = format!("`{}` takes ({wanted}), {} operands were given", entry.mnemonic, operands.len());
            Err(vec![op::Fault::new("V3", message)])
        };
        match inferred {
            Ok(results) => {
                let names = results.into_iter().enumerate().map(|(i, ty)| {
                    let hint = names.get(i).copied().or(entry.results.get(i).copied()).unwrap_or(entry.mnemonic);
                    let name = match &self.prefix {
                        Some(prefix) => Name::from(format!("{prefix}.{hint}")),
                        None => Name::from(hint),
                    };
                    (name, ty)
                });
                let node = self.graph.push(op, operands.iter().copied(), names, Vec::new(), provenance);
                self.graph.node(node).results.to_vec()
            }
            Err(faults) => {
                let found = faults.into_iter().map(|f| diagnose(&self.graph, f, operands, &provenance));
                self.faults.extend(found);
                invalid
            }
        }
    }
}

/// A fault of `infer` with its place and the operands' types.
pub fn diagnose(graph: &Graph, fault: op::Fault, operands: &[Value], provenance: &Provenance) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(fault.label, fault.message).at(provenance.source.clone());
    diagnostic.help = fault.help;
    for &operand in operands {
        let data = graph.value(operand);
        let labels: Vec<String> =
            data.ty.shape.dims().iter().filter_map(|d| Some(format!("{} = {d}", d.label()?))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        diagnostic.notes.push(format!("%{}: {}{labels}", data.name, data.ty));
    }
    diagnostic
}

pub(crate) fn call_location(caller: &CallSite<'_>) -> Location {
    Location { file: caller.file().into(), line: caller.line(), column: caller.column() }
}

impl Tensor {
    /// The builder that made it.
    pub fn builder(&self) -> &GraphBuilder {
        &self.builder
    }

    /// The value in the graph.
    pub fn value(&self) -> Value {
        self.value
    }

    /// Whether an earlier fault left no value here.
    pub fn is_invalid(&self) -> bool {
        self.value == Value::INVALID
    }

    /// Its type; a scalar f32 after a fault.
    pub fn ty(&self) -> TensorType {
        if self.is_invalid() {
            return TensorType::scalar(DType::F32);
        }
        self.builder.with_graph(|g| g.ty(self.value).clone())
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.ty().dtype
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        self.ty().shape
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.ty().rank()
    }

    /// A constant of this tensor's type.
    #[track_caller]
    pub fn full_like(&self, value: impl Into<Number>) -> Tensor {
        self.builder.full(value, &self.ty())
    }

    /// An elementwise op on operands of one type.
    #[track_caller]
    pub fn elementwise(&self, op: Elementwise, others: &[&Tensor]) -> Tensor {
        let operands: SmallVec<[&Tensor; 3]> = std::iter::once(self).chain(others.iter().copied()).collect();
        self.builder.apply(Op::Elementwise(op), &operands)
    }

    /// The same elements under another shape.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        self.builder.apply(op::Reshape { ty: self.ty().with_shape(shape) }, &[self])
    }

    /// Dimension `i` becomes dimension `dims[i]` of `shape`, the rest repeats.
    #[track_caller]
    pub fn broadcast(&self, shape: impl Into<Shape>, dims: &[usize]) -> Tensor {
        let dims: Ints = dims.iter().map(|&d| d as i64).collect();
        self.builder.apply(op::Broadcast { ty: self.ty().with_shape(shape), dims }, &[self])
    }

    /// A scalar or a suffix of `like`'s shape repeated to `like`'s shape; itself if the shapes agree.
    #[track_caller]
    pub fn broadcast_like(&self, like: &Tensor) -> Tensor {
        let (own, target) = (self.shape(), like.shape());
        if own == target {
            return self.clone();
        }
        let skip = target.rank().saturating_sub(own.rank());
        let dims: Vec<usize> = (skip..skip + own.rank()).collect();
        self.broadcast(target, &dims)
    }

    /// The value in another element type; itself if it has it.
    #[track_caller]
    pub fn cast(&self, dtype: DType) -> Tensor {
        let ty = self.ty();
        if ty.dtype == dtype {
            return self.clone();
        }
        self.builder.apply(op::Cast { ty: ty.with_dtype(dtype) }, &[self])
    }

    /// Sum over `dims`.
    #[track_caller]
    pub fn sum(&self, dims: &[usize]) -> Tensor {
        self.builder.apply(op::ReduceSum { dims: to_ints(dims) }, &[self])
    }

    /// Mean over `dims`.
    #[track_caller]
    pub fn mean(&self, dims: &[usize]) -> Tensor {
        self.builder.apply(op::ReduceMean { dims: to_ints(dims) }, &[self])
    }

    /// Largest over `dims`.
    #[track_caller]
    pub fn max_over(&self, dims: &[usize]) -> Tensor {
        self.builder.apply(op::ReduceMax { dims: to_ints(dims) }, &[self])
    }

    /// Permutes dimensions.
    #[track_caller]
    pub fn transpose(&self, permutation: &[usize]) -> Tensor {
        self.builder.apply(op::Transpose { permutation: to_ints(permutation) }, &[self])
    }

    /// Turns a scalar expression into nodes; read `i` is `leaves[i]`. All leaves have this tensor's shape.
    #[track_caller]
    pub fn formula(&self, expr: &ScalarExpr, leaves: &[Tensor]) -> Tensor {
        let recur = |e: &ScalarExpr| self.formula(e, leaves);
        match expr.node() {
            ScalarNode::Read(read) => leaves[*read].clone(),
            ScalarNode::Literal(number) => self.builder.full(*number, &self.ty().with_dtype(expr.dtype())),
            ScalarNode::Unary(function, x) => recur(x).elementwise(unary_op(*function), &[]),
            ScalarNode::Binary(function, a, b) => recur(a).elementwise(binary_op(*function), &[&recur(b)]),
            ScalarNode::Compare(function, a, b) => recur(a).elementwise(compare_op(*function), &[&recur(b)]),
            ScalarNode::Select(c, a, b) => recur(c).elementwise(Elementwise::Select, &[&recur(a), &recur(b)]),
            ScalarNode::Cast(x) => recur(x).cast(expr.dtype()),
            ScalarNode::Index(dim) => {
                let ty = self.ty().with_dtype(DType::I64);
                self.builder.apply(op::Iota { ty, dim: *dim as i64 }, &[])
            }
            ScalarNode::Philox { .. } => {
                self.builder.fault("defect", "random bits have no op of their own");
                self.clone()
            }
        }
    }
}

/// Dimension numbers as an attribute.
pub fn to_ints(dims: &[usize]) -> Ints {
    dims.iter().map(|&d| d as i64).collect()
}

fn unary_op(function: UnaryFn) -> Elementwise {
    match function {
        UnaryFn::Neg => Elementwise::Neg,
        UnaryFn::Abs => Elementwise::Abs,
        UnaryFn::Sign => Elementwise::Sign,
        UnaryFn::Exp => Elementwise::Exp,
        UnaryFn::Log => Elementwise::Log,
        UnaryFn::Sqrt => Elementwise::Sqrt,
        UnaryFn::Rsqrt => Elementwise::Rsqrt,
        UnaryFn::Sin => Elementwise::Sin,
        UnaryFn::Cos => Elementwise::Cos,
        UnaryFn::Tanh => Elementwise::Tanh,
        UnaryFn::Erf => Elementwise::Erf,
        UnaryFn::Floor => Elementwise::Floor,
        UnaryFn::Ceil => Elementwise::Ceil,
        UnaryFn::Round => Elementwise::Round,
        UnaryFn::Not => Elementwise::Not,
    }
}

fn binary_op(function: BinaryFn) -> Elementwise {
    match function {
        BinaryFn::Add => Elementwise::Add,
        BinaryFn::Sub => Elementwise::Sub,
        BinaryFn::Mul => Elementwise::Mul,
        BinaryFn::Div => Elementwise::Div,
        BinaryFn::Rem => Elementwise::Rem,
        BinaryFn::Pow => Elementwise::Pow,
        BinaryFn::Max => Elementwise::Max,
        BinaryFn::Min => Elementwise::Min,
        BinaryFn::And => Elementwise::And,
        BinaryFn::Or => Elementwise::Or,
        BinaryFn::Xor => Elementwise::Xor,
        BinaryFn::Shl => Elementwise::Shl,
        BinaryFn::Shr => Elementwise::Shr,
    }
}

fn compare_op(function: CompareFn) -> Elementwise {
    match function {
        CompareFn::Eq => Elementwise::Eq,
        CompareFn::Ne => Elementwise::Ne,
        CompareFn::Lt => Elementwise::Lt,
        CompareFn::Le => Elementwise::Le,
        CompareFn::Gt => Elementwise::Gt,
        CompareFn::Ge => Elementwise::Ge,
    }
}

macro_rules! unary_methods {
    ($($method:ident: $op:ident),*) => {
        /// Elementwise ops.
        impl Tensor {
            $(#[doc = concat!("See [`Elementwise::", stringify!($op), "`].")]
            #[track_caller]
            pub fn $method(&self) -> Tensor {
                self.elementwise(Elementwise::$op, &[])
            })*
        }
    };
}

unary_methods! {
    neg: Neg, abs: Abs, sign: Sign, exp: Exp, log: Log, sqrt: Sqrt, rsqrt: Rsqrt, square: Square, sin: Sin, cos: Cos,
    tanh: Tanh, erf: Erf, floor: Floor, relu: Relu, sigmoid: Sigmoid, gelu: Gelu, gelu_tanh: GeluTanh, silu: Silu,
    hard_sigmoid: HardSigmoid, hard_swish: HardSwish, softplus: Softplus, reciprocal: Reciprocal, detach: Detach
}

/// `a + b` and friends broadcast a scalar or a suffix shape on either side, and take numbers.
macro_rules! operators {
    ($($trait:ident $method:ident $op:ident),*) => {
        $(
            impl std::ops::$trait<&Tensor> for &Tensor {
                type Output = Tensor;
                #[track_caller]
                fn $method(self, other: &Tensor) -> Tensor {
                    let (a, b) = if self.rank() < other.rank() {
                        (self.broadcast_like(other), other.clone())
                    } else {
                        (self.clone(), other.broadcast_like(self))
                    };
                    a.elementwise(Elementwise::$op, &[&b])
                }
            }
            impl std::ops::$trait<f64> for &Tensor {
                type Output = Tensor;
                #[track_caller]
                fn $method(self, other: f64) -> Tensor {
                    self.elementwise(Elementwise::$op, &[&self.full_like(other)])
                }
            }
            impl std::ops::$trait<&Tensor> for f64 {
                type Output = Tensor;
                #[track_caller]
                fn $method(self, other: &Tensor) -> Tensor {
                    other.full_like(self).elementwise(Elementwise::$op, &[other])
                }
            }
        )*
    };
}

operators! { Add add Add, Sub sub Sub, Mul mul Mul, Div div Div }
