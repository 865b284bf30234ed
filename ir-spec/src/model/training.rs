//! How a model is trained: optimizer, schedule and the recipe's entries.

use indexmap::IndexMap;

use crate::attribute::AttrValue;
use crate::graph::Location;
use crate::layer::LayerError;
use crate::op::{self, Op};
use crate::types::Name;

/// Optimizers with the learning rate they have unless one is given: Keras's, in both worlds.
pub const OPTIMIZERS: [(&str, f64); 5] =
    [("sgd", 0.01), ("momentum", 0.01), ("adam", 0.001), ("adamw", 0.001), ("rmsprop", 0.001)];

/// An update rule and its learning rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub(crate) op: Op,
    pub(crate) rate: f64,
}

impl Optimizer {
    /// An update op with its attributes: `Optimizer::new(op::Momentum { nesterov: true, .. }, 0.01)`.
    pub fn new(op: impl Into<Op>, rate: f64) -> Optimizer {
        Optimizer { op: op.into(), rate }
    }

    /// Plain gradient descent.
    pub fn sgd(rate: f64) -> Optimizer {
        Optimizer::new(op::Sgd { weight_decay: 0.0 }, rate)
    }

    /// Gradient descent with momentum 0.9.
    pub fn momentum(rate: f64) -> Optimizer {
        Optimizer::new(op::Momentum { momentum: 0.9, nesterov: false, weight_decay: 0.0 }, rate)
    }

    /// Adam with `beta1` 0.9, `beta2` 0.999 and epsilon 1e-8.
    pub fn adam(rate: f64) -> Optimizer {
        Optimizer::new(op::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }, rate)
    }

    /// AdamW with a weight decay of 0.01.
    pub fn adamw(rate: f64) -> Optimizer {
        Optimizer::new(op::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }, rate)
    }

    /// RMSprop with a decay of 0.99.
    pub fn rmsprop(rate: f64) -> Optimizer {
        Optimizer::new(op::RmsProp { decay: 0.99, epsilon: 1e-8, weight_decay: 0.0 }, rate)
    }

    /// The optimizer of a text name: the attributes of its op, and `rate`.
    ///
    /// # Errors
    /// What is unknown, or of the wrong kind.
    pub fn parse(name: &str, attrs: &[(Name, AttrValue)]) -> Result<Optimizer, Vec<LayerError>> {
        let known = OPTIMIZERS.iter().find(|(n, _)| *n == name);
        let (Some((_, rate)), Some(entry)) = (known, op::entry(name)) else { return Err(vec![LayerError::Unknown]) };
        let mut errors = Vec::new();
        let mut chosen = *rate;
        let mut rest = Vec::new();
        for (key, value) in attrs {
            let row = entry.attributes.iter().find(|a| a.name == &**key);
            match (&**key, number(value), row) {
                ("rate", Some(value), _) if value > 0.0 && value.is_finite() => chosen = value,
                ("rate", ..) => errors.push(LayerError::WrongKind("rate")),
                (_, _, Some(row)) => match Op::parse(name, None, &[(key.clone(), value.clone())]) {
                    Ok(_) => rest.push((key.clone(), value.clone())),
                    Err(_) => errors.push(LayerError::WrongKind(row.name)),
                },
                (_, _, None) => errors.push(LayerError::Unexpected(key.clone())),
            }
        }
        match Op::parse(name, None, &rest) {
            Ok(op) if errors.is_empty() => Ok(Optimizer { op, rate: chosen }),
            _ => Err(errors),
        }
    }

    /// Names of the attributes that [`Optimizer::parse`] takes.
    pub fn keys(name: &str) -> Vec<&'static str> {
        let attributes = op::entry(name).map_or(&[][..], |entry| entry.attributes);
        std::iter::once("rate").chain(attributes.iter().map(|a| a.name)).collect()
    }
}

fn number(value: &AttrValue) -> Option<f64> {
    <f64 as crate::attribute::Attribute>::from_value(value)
}

/// One key that stays in the recipe as written.
#[derive(Clone, Copy, Debug)]
pub struct RecipeKey {
    /// Name.
    pub name: &'static str,
    /// What it takes, as messages say it.
    pub kind: &'static str,
    /// Default as the text form writes it; `None` if the start of the training must give it.
    pub default: Option<&'static str>,
    /// Whether a value fits.
    pub accepts: fn(&AttrValue) -> bool,
    /// What it means.
    pub doc: &'static str,
}

/// One key that becomes part of the step graph.
#[derive(Clone, Copy, Debug)]
pub struct StepKey {
    /// Name.
    pub name: &'static str,
    /// What it takes, as the spec says it.
    pub kind: &'static str,
    /// Default as the text form writes it; `None` if it must be given.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

/// Keys of `train` that become part of the step graph. All but the first may stand in a step, for it alone.
pub const STEP_KEYS: [StepKey; 4] = [
    StepKey {
        name: "steps",
        kind: "a list of steps, `name {loss = d_loss, trains = d, ...}`",
        default: Some("one"),
        doc: "what each batch runs, in order; below",
    },
    StepKey {
        name: "optimizer",
        kind: "the name of an update rule, with its attributes",
        default: None,
        doc: "how a gradient changes a parameter",
    },
    StepKey {
        name: "schedule",
        kind: "constant, or cosine {steps, floor = 0.0}",
        default: Some("constant"),
        doc: "the learning rate over the steps: as given, or down to `floor` along half a cosine of `steps` steps",
    },
    StepKey {
        name: "clip",
        kind: "a number above 0",
        default: Some("none"),
        doc: "all gradients are scaled down together where their norm is above it",
    },
];

fn count(value: &AttrValue) -> bool {
    matches!(value, AttrValue::Int(n) if *n >= 1)
}

fn text(value: &AttrValue) -> bool {
    matches!(value, AttrValue::Text(_))
}

/// Keys of `train` that the fit loop reads.
pub const RECIPE_KEYS: [RecipeKey; 6] = [
    RecipeKey {
        name: "data",
        kind: "a path in quotes",
        default: None,
        accepts: text,
        doc: "`.npz` file, relative to the script, with an array per input: of its name; the first also `x`, the second also `y` or `label`",
    },
    RecipeKey {
        name: "batch",
        kind: "an integer of at least 1",
        default: Some("32"),
        accepts: count,
        doc: "examples per step; binds the dimension `batch`",
    },
    RecipeKey {
        name: "epochs",
        kind: "an integer of at least 1",
        default: Some("1"),
        accepts: count,
        doc: "passes over the data",
    },
    RecipeKey {
        name: "seed",
        kind: "an integer of at least 0",
        default: Some("0"),
        accepts: |value| matches!(value, AttrValue::Int(n) if *n >= 0),
        doc: "key of every random number",
    },
    RecipeKey {
        name: "shuffle",
        kind: "true or false",
        default: Some("true"),
        accepts: |value| matches!(value, AttrValue::Bool(_)),
        doc: "whether each epoch has its own order",
    },
    RecipeKey {
        name: "test_every",
        kind: "an integer of at least 0",
        default: Some("5"),
        accepts: |value| matches!(value, AttrValue::Int(n) if *n >= 0),
        doc: "every n-th example is held out for the test; 0 holds out none",
    },
];

/// One step of a training: what an optimizer changes to make which loss small.
#[derive(Clone, Debug)]
pub struct Step {
    /// `None` for the only step of a training that does not list its steps.
    pub(crate) name: Option<Name>,
    /// `None` for the model's only one.
    pub(crate) loss: Option<Name>,
    /// Instances and parameters; every parameter that the loss depends on if empty.
    pub(crate) trains: Vec<Name>,
    pub(crate) optimizer: Optimizer,
    /// Steps and floor of a cosine schedule.
    pub(crate) cosine: Option<(i64, f64)>,
    /// Bound of the norm of all gradients together.
    pub(crate) clip: Option<f64>,
    pub(crate) at: Option<Location>,
}

impl Step {
    /// A step called `name`; its counter and moments are named after it.
    pub fn new(name: &str, optimizer: Optimizer) -> Step {
        Step { name: Some(name.into()), ..Step::only(optimizer) }
    }

    /// The step of a training that has one.
    pub(crate) fn only(optimizer: Optimizer) -> Step {
        Step { name: None, loss: None, trains: Vec::new(), optimizer, cosine: None, clip: None, at: None }
    }

    /// Makes the loss of this name small; the model's only one by default.
    pub fn loss(mut self, name: &str) -> Step {
        self.loss = Some(name.into());
        self
    }

    /// Changes the parameters of the instance, or the parameter, of this name; all by default.
    pub fn trains(mut self, instance: &str) -> Step {
        self.trains.push(instance.into());
        self
    }

    /// As [`Train::cosine`].
    pub fn cosine(mut self, steps: u32, floor: f64) -> Step {
        self.cosine = Some((steps.max(1).into(), floor));
        self
    }

    /// As [`Train::clip`].
    pub fn clip(mut self, norm: f64) -> Step {
        self.clip = Some(norm);
        self
    }

    /// What messages call it.
    pub(crate) fn title(&self) -> String {
        self.name.as_ref().map_or("the training".to_owned(), |name| format!("step `{name}`"))
    }

    /// The name of a state that is this step's own.
    pub(crate) fn state(&self, name: &str) -> Name {
        self.name.as_ref().map_or_else(|| name.into(), |step| format!("{step}.{name}").into())
    }
}

/// How a model is trained.
#[derive(Clone, Debug)]
pub struct Train {
    /// In the order in which each batch runs them.
    pub(crate) steps: Vec<Step>,
    /// What the fit loop reads.
    pub(crate) entries: IndexMap<Name, AttrValue>,
    pub(crate) at: Option<Location>,
}

impl Train {
    /// Trains on a file with an optimizer.
    pub fn new(data: &str, optimizer: Optimizer) -> Train {
        Train::with(optimizer).entry("data", AttrValue::Text(data.into()))
    }

    /// Trains with an optimizer on data that is given at the start.
    pub fn with(optimizer: Optimizer) -> Train {
        Train { steps: vec![Step::only(optimizer)], entries: IndexMap::new(), at: None }
    }

    /// Trains on a file in several steps, which each batch runs in order: each sees what those before it changed.
    pub fn alternating(data: &str, steps: impl IntoIterator<Item = Step>) -> Train {
        let train = Train { steps: steps.into_iter().collect(), entries: IndexMap::new(), at: None };
        train.entry("data", AttrValue::Text(data.into()))
    }

    /// Examples per step.
    pub fn batch(self, examples: u32) -> Train {
        self.entry("batch", AttrValue::Int(examples.max(1).into()))
    }

    /// Passes over the data.
    pub fn epochs(self, epochs: u32) -> Train {
        self.entry("epochs", AttrValue::Int(epochs.max(1).into()))
    }

    /// Key of every random number.
    pub fn seed(self, seed: u32) -> Train {
        self.entry("seed", AttrValue::Int(seed.into()))
    }

    /// Whether each epoch has its own order.
    pub fn shuffle(self, shuffle: bool) -> Train {
        self.entry("shuffle", AttrValue::Bool(shuffle))
    }

    /// Every n-th example is held out for the test; 0 holds out none.
    pub fn test_every(self, n: u32) -> Train {
        self.entry("test_every", AttrValue::Int(n.into()))
    }

    /// The rate falls from the optimizer's to `floor` along half a cosine of `steps` steps; in every step of a batch.
    pub fn cosine(mut self, steps: u32, floor: f64) -> Train {
        self.steps = self.steps.into_iter().map(|step| step.cosine(steps, floor)).collect();
        self
    }

    /// Scales all gradients down together where their norm is above `norm`; in every step of a batch.
    pub fn clip(mut self, norm: f64) -> Train {
        self.steps = self.steps.into_iter().map(|step| step.clip(norm)).collect();
        self
    }

    /// Gives the training, and those of its steps that have none, a place.
    pub(crate) fn at(mut self, at: Location) -> Train {
        for step in &mut self.steps {
            step.at.get_or_insert_with(|| at.clone());
        }
        self.at = Some(at);
        self
    }

    pub(crate) fn entry(mut self, key: &str, value: AttrValue) -> Train {
        self.entries.insert(key.into(), value);
        self
    }
}
