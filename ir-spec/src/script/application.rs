//! One application of a layer or an op: which of the two, attributes, operands made equal in shape.

use super::{Expander, Scope};
use crate::attribute::{AttrValue, Attribute, Ints};
use crate::builder::Tensor;
use crate::layer::{self, Layer, LayerEntry, LayerError};
use crate::op::{self, Elementwise, Op, OpEntry, OpError};
use crate::text::ast::*;
use crate::text::suggest::{did_you_mean, did_you_mean_op};
use crate::types::{DType, Name, Shape, TensorType};

type Attributes = Vec<(Name, AttrValue)>;

/// Attributes that say which instance a layer or a block is.
pub(super) const INSTANCE_KEYS: [&str; 2] = ["name", "share"];

/// Which instance a layer or a block is.
pub(super) enum InstanceName {
    /// The next of its kind.
    Counted,
    /// One of that name.
    New(Name),
    /// That one, once more.
    Shared(Name),
}

/// An operand: a value, or a number that takes the type of the others.
enum Operator {
    Value(Tensor),
    Number(f64),
}

impl Expander<'_> {
    /// Attributes of a call, evaluated; a faulty one is left out.
    pub(super) fn attributes(&mut self, scope: &Scope, call: &Call) -> Attributes {
        let mut attributes: Attributes = Vec::new();
        for field in call.attributes.iter().flat_map(|record| &record.fields) {
            let key = &field.key.name;
            if attributes.iter().any(|(name, _)| name == key) {
                self.fault(field.key.span, "script.S10", format!("`{key}` is given twice"));
                continue;
            }
            if let Some(value) = self.evaluate(scope, &field.value) {
                attributes.push((key.clone(), value));
            }
        }
        attributes
    }

    /// Which instance a layer or a block is: `name = stem` calls its states, `share = stem` takes those of one above.
    pub(super) fn instance(&mut self, scope: &Scope, call: &Call) -> InstanceName {
        let name = self.instance_word(scope, call, "name");
        let shared = self.instance_word(scope, call, "share");
        match (name, shared) {
            (None, None) => InstanceName::Counted,
            (Some((name, span)), None) if self.builder.has_instance(&name) && !self.builder.is_sharing() => {
                self.fault(span, "script.S10", format!("`{name}` is the name of another use already"))
                    .help(format!("give this one another name, or let it have the same states: `share = {name}`"));
                InstanceName::Counted
            }
            (Some((name, _)), None) => InstanceName::New(name),
            (None, Some((name, span))) if !self.builder.has_instance(&name) => {
                let known = self.builder.instances();
                let help = did_you_mean(&name, known.iter().map(|name| &**name));
                self.fault(span, "script.S15", format!("nothing above is called `{name}` and has states"))
                    .help_if(help.or_else(|| Some("name the first use: `{name = ...}`".to_owned())));
                InstanceName::Counted
            }
            (None, Some((name, _))) => InstanceName::Shared(name),
            (Some(_), Some((_, span))) => {
                self.fault(span, "script.S15", "`share` and `name` exclude each other")
                    .help("what is shared has the name of its first use".to_owned());
                InstanceName::Counted
            }
        }
    }

    fn instance_word(&mut self, scope: &Scope, call: &Call, key: &str) -> Option<(Name, Span)> {
        let field = call.attributes.as_ref()?.get(key)?;
        match self.evaluate(scope, &field.value)? {
            AttrValue::Word(name) | AttrValue::Text(name) => Some((name, field.value.span)),
            _ => {
                self.fault(field.value.span, "script.S5", format!("`{key}` takes a word"));
                None
            }
        }
    }

    /// The value of a block's or a layer's operand.
    pub(super) fn operand_value(&mut self, scope: &Scope, operand: &Operand) -> Tensor {
        match operand {
            Operand::Value(ident) => self.lookup(scope, ident),
            Operand::State(ident) => self.read(ident),
            Operand::Scalar(expr) => {
                self.fault(expr.span, "script.S6", "a number stands here only beside a tensor, as in `mul %x, 0.5`");
                self.poison()
            }
        }
    }

    /// Reads a state that is declared in the file.
    fn read(&mut self, ident: &Ident) -> Tensor {
        let states = self.builder.states();
        match states.get(&ident.name) {
            Some(state) => self.builder.read_state(&ident.name, state.ty.clone()),
            None => {
                let help = did_you_mean(&ident.name, states.keys().map(|name| &**name));
                self.fault(ident.span, "script.S13", format!("there is no state `@{}`", ident.name)).help_if(help);
                self.poison()
            }
        }
    }

    /// Applies what is not a block.
    pub(super) fn apply_op(&mut self, scope: &Scope, call: &Call, declared: &[Option<TensorType>]) -> Vec<Tensor> {
        let mnemonic = &*call.callee.name;
        if let Some(region) = call.regions.first() {
            self.fault(region.span, "script.S11", "regions belong to the graph form, a model has none");
            return vec![self.poison()];
        }
        match (layer::entry(mnemonic), op::entry(mnemonic)) {
            (Some(layer), None) => self.apply_layer(scope, call, layer),
            (Some(layer), Some(op)) if !is_op_form(call, layer, op) => self.apply_layer(scope, call, layer),
            (_, Some(op)) => self.apply_core(scope, call, op, declared),
            (None, None) => {
                let known = self.blocks.keys().map(|name| &**name);
                let known = known.chain(layer::TABLE.iter().map(|l| l.mnemonic)).chain(op::table().map(|o| o.mnemonic));
                let help = did_you_mean_op(mnemonic, known);
                let message = format!("there is no op, layer or block `{mnemonic}`");
                self.fault(call.callee.span, "script.S2", message).help_if(help);
                // What it reads is still looked up, for faults of its own.
                call.operands.iter().for_each(|operand| drop(self.operator(scope, operand)));
                vec![self.poison()]
            }
        }
    }

    fn apply_layer(&mut self, scope: &Scope, call: &Call, entry: &'static LayerEntry) -> Vec<Tensor> {
        let faults = self.faults.len();
        let span = call.callee.span;
        let operands: Vec<Tensor> = call.operands.iter().map(|operand| self.operand_value(scope, operand)).collect();
        if operands.len() != entry.operands.len() {
            let wanted = entry.operands.join(", ");
            let message = format!("`{}` takes ({wanted}), {} operands were given", entry.mnemonic, operands.len());
            self.fault(span, "script.S6", message);
        }
        let instance = self.instance(scope, call);
        let mut attributes = self.attributes(scope, call);
        attributes.retain(|(key, _)| !INSTANCE_KEYS.contains(&&**key));
        let layer = match Layer::parse(entry.mnemonic, &attributes) {
            Ok(layer) => Some(layer),
            Err(errors) => {
                errors.iter().for_each(|error| self.layer_error(call, entry, &attributes, error));
                None
            }
        };
        match layer {
            Some(layer) if self.faults.len() == faults => {
                let operands: Vec<&Tensor> = operands.iter().collect();
                let builder = &self.builder;
                vec![match &instance {
                    InstanceName::Counted => layer.apply(builder, &operands, None),
                    InstanceName::New(name) => layer.apply(builder, &operands, Some(name)),
                    InstanceName::Shared(name) => {
                        layer.apply_shared(builder, &operands, name).unwrap_or_else(|| self.poison())
                    }
                }]
            }
            _ => vec![self.poison()],
        }
    }

    fn layer_error(&mut self, call: &Call, entry: &LayerEntry, attributes: &Attributes, error: &LayerError) {
        let field = |name: &str| call.attributes.as_ref().and_then(|record| record.get(name));
        let span = call.callee.span;
        match error {
            LayerError::Unknown => {}
            // A faulty value was reported and is not missing.
            LayerError::Missing(name) if field(name).is_some() => {}
            LayerError::Missing(name) => {
                let message = format!("`{}` needs the attribute `{name}`", entry.mnemonic);
                self.fault(span, "script.S4", message).help(format!("add it: `{{{name} = ...}}`"));
            }
            LayerError::Unexpected(name) => {
                let help = did_you_mean(name, entry.attributes.iter().map(|a| a.name));
                let message = format!("`{}` has no attribute `{name}`", entry.mnemonic);
                let all: Vec<&str> = entry.attributes.iter().map(|a| a.name).collect();
                let all = if all.is_empty() { "it has none".to_owned() } else { format!("it has {}", all.join(", ")) };
                let at = field(name).map_or(span, |field| field.key.span);
                self.fault(at, "script.S3", message).help_if(help.or(Some(all)));
            }
            LayerError::WrongKind(name) => {
                let Some(attribute) = entry.attributes.iter().find(|a| a.name == *name) else { return };
                let given = attributes.iter().find(|(key, _)| &**key == *name).map(|(_, value)| value);
                let at = field(name).map_or(span, |field| field.value.span);
                self.wrong_kind(at, name, attribute.kind, given, &(attribute.words)());
            }
        }
    }

    /// An attribute's value is of another kind: says which, and which word was meant.
    pub(super) fn wrong_kind(
        &mut self,
        at: Span,
        name: &str,
        kind: &str,
        given: Option<&AttrValue>,
        words: &[&'static str],
    ) {
        let help = match given {
            Some(AttrValue::Dim(dim)) => dim.names().first().map(|name| format!("bind it with --bind {name}=N")),
            Some(AttrValue::Word(word)) if self.dimensions.contains(word) => {
                Some(format!("bind it with --bind {word}=N"))
            }
            Some(AttrValue::Word(word)) => did_you_mean(word, words.iter().copied()),
            _ => None,
        };
        let shown = given.map_or(String::new(), |value| format!(", not `{value}`"));
        self.fault(at, "script.S5", format!("`{name}` takes {kind}{shown}")).help_if(help);
    }

    fn apply_core(
        &mut self,
        scope: &Scope,
        call: &Call,
        entry: &'static OpEntry,
        declared: &[Option<TensorType>],
    ) -> Vec<Tensor> {
        let faults = self.faults.len();
        let mut attributes = self.attributes(scope, call);
        if entry.mnemonic == "state" {
            return vec![self.state_operand(call)];
        }
        let operands: Vec<Operator> = call.operands.iter().map(|operand| self.operator(scope, operand)).collect();
        let mut operands = match Elementwise::parse(entry.mnemonic) {
            Some(op) => self.equal_shapes(call, op, operands),
            None => self.no_numbers(call, operands),
        };
        if operands.iter().any(Tensor::is_invalid) && !entry.takes(operands.len()) {
            return vec![self.poison(); entry.results.len()];
        }
        self.random_defaults(entry, &mut operands, &mut attributes);
        let rank = match (entry.typed, declared.first(), operands.first()) {
            (true, Some(Some(ty)), _) => Some(ty.rank()),
            (false, _, Some(x)) if !x.is_invalid() => Some(x.rank()),
            _ => None,
        };
        complete(entry, rank, &mut attributes);
        let ty = declared.first().and_then(Option::as_ref);
        if !entry.takes(operands.len()) {
            let (wanted, given) = (entry.operands.join(", "), operands.len());
            let message = format!("`{}` takes ({wanted}), {given} operands were given", entry.mnemonic);
            self.fault(call.callee.span, "script.S6", message);
        }
        let op = self.op(call, entry, ty, &attributes);
        match op {
            Some(op) if self.faults.len() == faults => {
                let operands: Vec<&Tensor> = operands.iter().collect();
                self.builder.apply_all(op, &operands, &[]).to_vec()
            }
            _ => vec![self.poison(); entry.results.len()],
        }
    }

    /// The op with its attributes, or every fault they have.
    fn op(&mut self, call: &Call, entry: &OpEntry, ty: Option<&TensorType>, attributes: &Attributes) -> Option<Op> {
        let (mnemonic, span) = (entry.mnemonic, call.callee.span);
        let field = |name: &str| call.attributes.as_ref().and_then(|record| record.get(name));
        let (known, unknown): (Attributes, Attributes) =
            attributes.iter().cloned().partition(|(name, _)| entry.attributes.iter().any(|a| a.name == &**name));
        for (name, _) in &unknown {
            let help = did_you_mean(name, entry.attributes.iter().map(|a| a.name));
            let message = format!("`{mnemonic}` has no attribute `{name}`");
            self.fault(field(name).map_or(span, |field| field.key.span), "script.S3", message).help_if(help);
        }
        match Op::parse(mnemonic, ty, &known) {
            Ok(op) => unknown.is_empty().then_some(op),
            Err(OpError::Missing("type")) => {
                let message = format!("the result type of `{mnemonic}` stands on its line");
                self.fault(span, "script.S12", message).help(format!("write `%y: f32[...] = {mnemonic} ...`"));
                None
            }
            Err(OpError::Missing(name)) => {
                if field(name).is_none() {
                    self.fault(span, "script.S4", format!("`{mnemonic}` needs the attribute `{name}`"));
                }
                None
            }
            Err(OpError::WrongKind(name, kind)) => {
                let given = attributes.iter().find(|(key, _)| &**key == name).map(|(_, value)| value.clone());
                let at = field(name).map_or(span, |field| field.value.span);
                self.wrong_kind(at, name, kind, given.as_ref(), &[]);
                None
            }
            Err(OpError::Unknown | OpError::Unexpected(_)) => None,
        }
    }

    /// `state @w`.
    fn state_operand(&mut self, call: &Call) -> Tensor {
        match call.operands.as_slice() {
            [Operand::State(ident)] => self.read(ident),
            _ => {
                self.fault(call.callee.span, "script.S6", "`state` takes the name of a state, `state @w`");
                self.poison()
            }
        }
    }

    fn operator(&mut self, scope: &Scope, operand: &Operand) -> Operator {
        let expr = match operand {
            Operand::Value(ident) => return Operator::Value(self.lookup(scope, ident)),
            Operand::State(ident) => return Operator::Value(self.read(ident)),
            Operand::Scalar(expr) => expr,
        };
        let Some(value) = self.evaluate(scope, expr) else { return Operator::Value(self.poison()) };
        match f64::from_value(&value) {
            Some(number) => Operator::Number(number),
            None => {
                let message = format!("`{value}` is neither a value nor a number");
                let help = scope.values.contains_key(value.to_string().as_str());
                self.fault(expr.span, "script.S6", message).help_if(help.then(|| format!("write `%{value}`")));
                Operator::Value(self.poison())
            }
        }
    }

    fn no_numbers(&mut self, call: &Call, operands: Vec<Operator>) -> Vec<Tensor> {
        let mut values = Vec::new();
        for (operand, given) in operands.into_iter().zip(&call.operands) {
            values.push(match operand {
                Operator::Value(value) => value,
                Operator::Number(_) => {
                    let message = format!("`{}` takes no numbers as operands", call.callee.name);
                    self.fault(given.span(), "script.S6", message);
                    self.poison()
                }
            });
        }
        values
    }

    /// Operands of an elementwise op, numbers made constants and all repeated to the largest shape among them.
    fn equal_shapes(&mut self, call: &Call, op: Elementwise, operands: Vec<Operator>) -> Vec<Tensor> {
        let values: Vec<&Tensor> = operands
            .iter()
            .filter_map(|operand| match operand {
                Operator::Value(value) => Some(value),
                Operator::Number(_) => None,
            })
            .collect();
        if values.iter().any(|value| value.is_invalid()) {
            return vec![self.poison(); operands.len()];
        }
        // Numbers have the type of the values; the condition of `select` is not one of them.
        let skip = usize::from(op == Elementwise::Select);
        let dtype = match operands.get(skip..).unwrap_or_default().iter().find_map(|operand| match operand {
            Operator::Value(value) => Some(value.dtype()),
            Operator::Number(_) => None,
        }) {
            Some(dtype) => dtype,
            None if op == Elementwise::Select => DType::F32,
            None => {
                let message = format!("`{}` has no tensor among its operands", call.callee.name);
                self.fault(call.callee.span, "script.S6", message);
                return vec![self.poison(); operands.len()];
            }
        };
        let mut target: Shape = Shape::scalar();
        for value in &values {
            let shape = value.shape();
            if repeats_to(&target, &shape) {
                target = shape;
            } else if !repeats_to(&shape, &target) {
                let message = format!("`{}` has operands {target} and {shape}", call.callee.name);
                self.fault(call.callee.span, "script.S14", message).help(
                    "an operand repeats if its extents are the last ones of the other, or 1; else use `broadcast`"
                        .to_owned(),
                );
                return vec![self.poison(); operands.len()];
            }
        }
        let whole = |number: f64| dtype.is_integer() && number.fract() != 0.0;
        let mut equal = Vec::new();
        for (operand, given) in operands.into_iter().zip(&call.operands) {
            equal.push(match operand {
                Operator::Number(number) if whole(number) || dtype == DType::Bool => {
                    self.fault(given.span(), "script.S6", format!("`{number}` is not of type {dtype}"));
                    self.poison()
                }
                Operator::Number(number) if dtype.is_integer() => {
                    self.builder.full(number as i64, &TensorType::new(dtype, target.clone()))
                }
                Operator::Number(number) => self.builder.full(number, &TensorType::new(dtype, target.clone())),
                Operator::Value(value) => repeat(&value, &target),
            });
        }
        equal
    }

    /// A random op without operand reads `@rng`, and its stream is its instance's name.
    fn random_defaults(&mut self, entry: &OpEntry, operands: &mut Vec<Tensor>, attributes: &mut Attributes) {
        let wants = |name: &str| entry.attributes.iter().any(|a| a.name == name);
        if !wants("stream") {
            return;
        }
        if operands.len() + 1 == entry.operands.len() {
            operands.push(layer::draw_counter(&self.builder));
        }
        if !attributes.iter().any(|(name, _)| &**name == "stream") {
            let instance = self.builder.scoped(&self.builder.next_instance(entry.mnemonic));
            let stream = self.builder.next_stream(&instance);
            attributes.push(("stream".into(), AttrValue::Text(stream)));
        }
    }
}

/// A name that is a layer and an op is the op where its operands are all given, and its attributes are the op's.
fn is_op_form(call: &Call, layer: &LayerEntry, op: &OpEntry) -> bool {
    let count = call.operands.len();
    if count == layer.operands.len() && op.takes(count) {
        let keys: Vec<&str> = call.attributes.iter().flat_map(|r| &r.fields).map(|field| &*field.key.name).collect();
        let required = op.attributes.iter().filter(|a| a.default.is_none()).all(|a| keys.contains(&a.name));
        return required && keys.iter().all(|key| op.attributes.iter().any(|a| a.name == *key));
    }
    op.takes(count)
}

/// What script form may leave out: one integer for a list of one, negative dimensions, all dimensions of a reduction.
fn complete(entry: &OpEntry, rank: Option<usize>, attributes: &mut Attributes) {
    for (name, value) in attributes.iter_mut() {
        let Some(attribute) = entry.attributes.iter().find(|a| a.name == &**name) else { continue };
        if let (true, AttrValue::Int(_)) = (attribute.kind == Ints::KIND, &*value) {
            *value = AttrValue::List(vec![value.clone()]);
        }
    }
    let Some(rank) = rank.and_then(|rank| i64::try_from(rank).ok()) else { return };
    let given = |attributes: &Attributes, name: &str| attributes.iter().any(|(key, _)| &**key == name);
    for attribute in entry.attributes {
        if given(attributes, attribute.name) {
            continue;
        }
        if attribute.name == "dim" && attribute.default == Some("-1") {
            attributes.push(("dim".into(), AttrValue::Int(-1)));
        }
        if attribute.name == "dims" && entry.mnemonic.starts_with("reduce_") {
            attributes.push(("dims".into(), AttrValue::List((0..rank).map(AttrValue::Int).collect())));
        }
    }
    let positive = |value: &mut AttrValue| {
        if let AttrValue::Int(dim) = value
            && (-rank..0).contains(dim)
        {
            *dim += rank;
        }
    };
    for (name, value) in attributes.iter_mut() {
        match (&**name, &mut *value) {
            ("dim", value) => positive(value),
            ("dims", AttrValue::List(items)) => items.iter_mut().for_each(positive),
            _ => {}
        }
    }
}

/// Whether each extent of `shape` is 1 or that of `target` with which it is aligned from the end.
fn repeats_to(shape: &Shape, target: &Shape) -> bool {
    let (own, all) = (shape.dims(), target.dims());
    own.len() <= all.len() && own.iter().rev().zip(all.iter().rev()).all(|(a, b)| a == b || a.known() == Some(1))
}

fn repeat(value: &Tensor, target: &Shape) -> Tensor {
    let shape = value.shape();
    if shape == *target {
        return value.clone();
    }
    let skip = target.rank().saturating_sub(shape.rank());
    value.broadcast(target.clone(), &(skip..target.rank()).collect::<Vec<_>>())
}
