//! Names of instances, and what they decide: which states a layer has, and which random stream.
//!
//! An instance is one use of a layer or a block: `conv1`, `residual2.conv1`. [`GraphBuilder::share`] goes through an
//! instance once more, so that the same weights are applied to other values.

use std::collections::{BTreeMap, BTreeSet};

use super::{GraphBuilder, Inner, Tensor};
use crate::diagnostic::Diagnostic;
use crate::graph::Value;
use crate::module::State;
use crate::types::Name;

#[derive(Debug, Default)]
pub(super) struct Naming {
    /// Prefix of state names.
    scope: Vec<Name>,
    /// How many instances of a kind each scope has.
    counters: BTreeMap<String, usize>,
    /// Instances that exist, by path.
    instances: BTreeSet<String>,
    /// Whether states are those of an instance that exists.
    sharing: bool,
    /// Reads of the states that were declared here.
    reads: BTreeMap<Name, Value>,
    /// Random streams in use.
    streams: BTreeSet<Name>,
}

impl GraphBuilder {
    /// States created by `build` are named `name.*`.
    pub fn scope<R>(&self, name: &str, build: impl FnOnce() -> R) -> R {
        {
            let mut inner = self.0.borrow_mut();
            let path = inner.scoped(name);
            inner.naming.instances.insert(path);
            inner.naming.scope.push(name.into());
        }
        let result = build();
        self.0.borrow_mut().naming.scope.pop();
        result
    }

    /// Within `build`, instances are counted as they were when `instance` was built, and states are read where they
    /// would be declared: what it applies has the weights of `instance`. `None` if there is no such instance.
    ///
    /// Random streams are new ones: two applications of one dropout drop different elements.
    pub fn share<R>(&self, instance: &str, build: impl FnOnce() -> R) -> Option<R> {
        let (counters, sharing) = {
            let mut inner = self.0.borrow_mut();
            let path = inner.scoped(instance);
            if !inner.naming.instances.contains(&path) {
                return None;
            }
            let within = format!("{path}.");
            let all = std::mem::take(&mut inner.naming.counters);
            let (own, others) = all.into_iter().partition(|(kind, _)| kind.starts_with(&within));
            inner.naming.counters = others;
            (own, std::mem::replace(&mut inner.naming.sharing, true))
        };
        let result = build();
        let naming = &mut self.0.borrow_mut().naming;
        let own: BTreeMap<String, usize> = counters;
        naming.counters.extend(own);
        naming.sharing = sharing;
        Some(result)
    }

    /// Whether a layer or block with states of that name exists in the current scope.
    pub fn has_instance(&self, name: &str) -> bool {
        let inner = self.0.borrow();
        inner.naming.instances.contains(&inner.scoped(name))
    }

    /// Whether what is built goes through an instance once more: names that are given there are those of its parts.
    pub fn is_sharing(&self) -> bool {
        self.0.borrow().naming.sharing
    }

    /// Names that [`GraphBuilder::share`] takes in the current scope.
    pub fn instances(&self) -> Vec<Name> {
        let inner = self.0.borrow();
        let prefix = inner.scoped("");
        let own = inner.naming.instances.iter().filter_map(|path| path.strip_prefix(&prefix));
        own.filter(|name| !name.contains('.')).map(Name::from).collect()
    }

    /// Next name of an instance of `kind` in the current scope: `conv1`, `conv2`.
    pub fn next_instance(&self, kind: &str) -> Name {
        let mut inner = self.0.borrow_mut();
        let path = inner.scoped(kind);
        let counter = inner.naming.counters.entry(path).or_insert(0);
        *counter += 1;
        format!("{kind}{counter}").into()
    }

    /// `name` with the current scope before it: `residual1.conv1`.
    pub fn scoped(&self, name: &str) -> Name {
        self.0.borrow().scoped(name).into()
    }

    /// A random stream that no other op has: called `path`, with a counter behind it from its second use on.
    pub(crate) fn next_stream(&self, path: &Name) -> Name {
        let streams = &mut self.0.borrow_mut().naming.streams;
        let numbered = (2..).map(|counter: usize| Name::from(format!("{path}.{counter}")));
        let free = std::iter::once(path.clone()).chain(numbered).find(|name| !streams.contains(name));
        let stream = free.unwrap_or_else(|| path.clone());
        streams.insert(stream.clone());
        stream
    }

    /// Declares a state under the current scope and reads it; the name is made unique. Under
    /// [`GraphBuilder::share`], the read of the state that is there.
    #[track_caller]
    pub fn new_state(&self, name: &str, mut state: State) -> Tensor {
        if self.0.borrow().naming.sharing {
            return self.shared_read(name, &state);
        }
        let name = self.0.borrow().unique_state(name);
        if state.source.is_none() {
            state.source = self.0.borrow().provenance.as_ref().and_then(|p| p.source.clone());
        }
        let ty = state.ty.clone();
        self.0.borrow_mut().states.insert(name.clone(), state);
        let read = self.read_state(&name, ty);
        self.0.borrow_mut().naming.reads.insert(name, read.value);
        read
    }

    /// The read of a state that another use declared.
    #[track_caller]
    fn shared_read(&self, name: &str, wanted: &State) -> Tensor {
        let name = self.scoped(name);
        let found = self.0.borrow().states.get(&name).map(|state| state.ty.clone());
        let message = match found {
            Some(ty) if ty == wanted.ty => match self.0.borrow().naming.reads.get(&name) {
                Some(&read) => return self.tensor(read),
                None => format!("the state `{name}` is declared, but no layer's"),
            },
            Some(ty) => format!("the state `{name}` is {ty}, and {} is asked for here", wanted.ty),
            None => format!("the use that is shared has no state `{name}`"),
        };
        let help = "only what has the same states can share them: the same layers over the same number of channels";
        self.report(Diagnostic::error("layer.L2", message).help(help));
        self.tensor(Value::INVALID)
    }
}

impl Inner {
    fn scoped(&self, name: &str) -> String {
        let path: Vec<&str> = self.naming.scope.iter().map(|s| &**s).chain([name]).collect();
        path.join(".")
    }

    fn unique_state(&self, name: &str) -> Name {
        let full = self.scoped(name);
        let mut unique = Name::from(full.as_str());
        let mut counter = 1;
        while self.states.contains_key(&unique) {
            unique = format!("{full}_{counter}").into();
            counter += 1;
        }
        unique
    }
}
