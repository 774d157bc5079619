//! Symmetries beyond order: a unit behind a ReLU may be larger if what reads it is smaller, and one
//! behind an odd function such as tanh may change its sign.
//!
//! ReLU(s x) = s ReLU(x) for s > 0 and tanh(-x) = -tanh(x). So the weights that write a unit may be
//! multiplied by s and those that read it divided, and the network computes the same. Which of all
//! these networks was trained is chance. Here every one is brought to its canonical form: scales
//! where writing and reading weights have the same norm, which is where the whole network's is
//! least; signs where the sum of the writing weights is positive, and after matching, where a unit
//! is not opposite to the reference's.
//!
//! A family of units has a gauge if on every way from the weights that write it to those that read
//! it there are only functions that commute with it. The graph is walked once a family to find
//! these weights, and what was found is [tried](crate::trial): a family that fails is left out.

use std::{collections::HashMap, path::Path};

use dwf::{layout::Layout, onnx::NodeProto};

use crate::{
    error::Result,
    groups::Groups,
    network::{Network, attribute},
    random::Random,
    report::metric,
    trial::Trial,
};

/// What the units of a family may be multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any positive number.
    Scale,
    /// 1 and -1.
    Sign,
}

/// A family of units with such a freedom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// Its number among [`Groups::families`].
    pub family: usize,
    /// Its freedom.
    pub kind: Kind,
    /// Tensors and dimensions along which lie the weights that write its units.
    writers: Vec<Site>,
    /// The same of those that read them.
    readers: Vec<Site>,
}

/// A tensor's number in the layout, and a dimension of it.
type Site = (usize, usize);

/// The gauges of a network.
pub struct Gauges<'a> {
    layout: &'a Layout,
    groups: &'a Groups,
    gauges: Vec<Gauge>,
}

/// Rounds of bringing scales to where norms agree, at most; families that follow each other change
/// each other's norms, less in every round.
const MOST_ROUNDS: usize = 200;
/// Factors nearer to 1 than this are rounding.
const SETTLED: f64 = 1e-5;
/// Seed of the factors that a gauge is tried with.
const SEED: u64 = 0;

/// Whether it is known what is between the layers of a zoo's networks: an ONNX file described them,
/// or the zoo in `folder` is one of ours, whose MLPs have ReLU there. Of any other chain of layers
/// that is an assumption, which order does not depend on but scale does.
///
/// Errors: those of [`metric::about`].
pub fn is_known(network: &Network, folder: &Path) -> Result<bool> {
    Ok(network.as_mlp().is_none() || metric::about(folder)?.is_some())
}

impl<'a> Gauges<'a> {
    /// The gauges of all families that nothing owns and that own nothing.
    ///
    /// Errors: those of running the network.
    pub fn find(network: &'a Network, groups: &'a Groups) -> Result<Self> {
        let mut found = Self {
            layout: network.layout(),
            groups,
            gauges: Vec::new(),
        };
        let alone =
            |f: &usize| groups.families()[*f].owner.is_none() && groups.inside(*f).next().is_none();
        let candidates: Vec<Gauge> = (0..groups.families().len())
            .filter(alone)
            .flat_map(|family| [(family, Kind::Scale), (family, Kind::Sign)])
            .filter_map(|(family, kind)| Walk::new(network, groups, family, kind).gauge())
            .collect();
        if candidates.is_empty() {
            return Ok(found);
        }
        let mut trial = Trial::new(network)?;
        for gauge in candidates {
            let multiplied = found.multiplied(&gauge, trial.weights());
            if trial.holds(&multiplied)? {
                found.gauges.push(gauge);
            }
        }
        Ok(found)
    }

    /// These weights with the units of a gauge multiplied at random.
    fn multiplied(&self, gauge: &Gauge, weights: &[f32]) -> Vec<f32> {
        let mut random = Random::new(SEED, 1);
        let factor = |_| match gauge.kind {
            Kind::Scale => f64::from(random.uniform()) + 0.5,
            Kind::Sign => f64::from(random.symmetric(1.0).signum()),
        };
        let factors: Vec<f64> = (0..self.units(gauge)).map(factor).collect();
        let mut multiplied = weights.to_vec();
        self.multiply(gauge, &factors, &mut multiplied);
        multiplied
    }

    /// What was found.
    pub fn gauges(&self) -> &[Gauge] {
        &self.gauges
    }

    /// Brings a network to its canonical form.
    pub fn canonicalise(&self, weights: &mut [f32]) {
        self.settle_signs(weights);
        self.settle_scales(weights);
    }

    /// Gives every unit that may change its sign the one that brings it nearer to the reference's.
    pub fn face(&self, weights: &mut [f32], reference: &[f32]) {
        for gauge in self.of(Kind::Sign) {
            let sites = gauge.writers.iter().chain(&gauge.readers);
            let products = self.sums(gauge, sites, |i| {
                f64::from(weights[i]) * f64::from(reference[i])
            });
            let signs: Vec<f64> = products.into_iter().map(sign).collect();
            self.multiply(gauge, &signs, weights);
        }
    }

    /// The families with a gauge for people, by the first tensor that each lies in.
    pub fn table(&self) -> String {
        let line = |gauge: &Gauge| {
            let (tensor, dim) = gauge.writers[0];
            let free = match gauge.kind {
                Kind::Scale => "scale",
                Kind::Sign => "sign",
            };
            let name = &self.layout.tensors()[tensor].name;
            format!(
                "free {free:<5} {:>5} units of {name}[{dim}]\n",
                self.units(gauge)
            )
        };
        self.gauges.iter().map(line).collect()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Gauge> {
        self.gauges.iter().filter(move |gauge| gauge.kind == kind)
    }

    fn units(&self, gauge: &Gauge) -> usize {
        self.groups.families()[gauge.family].units.len()
    }

    /// The sum of a unit's writing weights does not depend on anybody's order. A family's writers
    /// may read another's units, so families go in their order along the computation.
    fn settle_signs(&self, weights: &mut [f32]) {
        for gauge in self.of(Kind::Sign) {
            let sums = self.sums(gauge, &gauge.writers, |i| f64::from(weights[i]));
            let signs: Vec<f64> = sums.into_iter().map(sign).collect();
            self.multiply(gauge, &signs, weights);
        }
    }

    /// The sum of all squares is convex in the logarithms of the scales, and taking them in turns
    /// comes to its minimum.
    fn settle_scales(&self, weights: &mut [f32]) {
        for _ in 0..MOST_ROUNDS {
            let mut furthest = 0f64;
            for gauge in self.of(Kind::Scale) {
                let [written, read] = [&gauge.writers, &gauge.readers]
                    .map(|sites| self.sums(gauge, sites, |i| f64::from(weights[i]).powi(2)));
                // A unit that is not written, or not read, has no scale.
                let factor = |(written, read): (&f64, &f64)| match written.min(*read) > 0.0 {
                    true => (read / written).sqrt().sqrt(),
                    false => 1.0,
                };
                let factors: Vec<f64> = written.iter().zip(&read).map(factor).collect();
                let far = |factor: &f64| factor.ln().abs();
                furthest = factors.iter().map(far).fold(furthest, f64::max);
                self.multiply(gauge, &factors, weights);
            }
            if furthest < SETTLED {
                return;
            }
        }
    }

    /// Multiplies the units of a family, in its order, by numbers that its kind allows, and divides
    /// the weights that read them.
    pub fn multiply(&self, gauge: &Gauge, factors: &[f64], weights: &mut [f32]) {
        let mut apply = |sites: &[Site], factor: &dyn Fn(usize) -> f64| {
            for site in sites {
                self.each(gauge, *site, |unit, i| {
                    weights[i] = (f64::from(weights[i]) * factor(unit)) as f32;
                });
            }
        };
        apply(&gauge.writers, &|unit| factors[unit]);
        apply(&gauge.readers, &|unit| 1.0 / factors[unit]);
    }

    /// For every unit of a family the sum of what its weights at these sites give, by their index.
    fn sums<'s>(
        &self,
        gauge: &Gauge,
        sites: impl IntoIterator<Item = &'s Site>,
        value: impl Fn(usize) -> f64,
    ) -> Vec<f64> {
        let mut sums = vec![0.0; self.units(gauge)];
        for site in sites {
            self.each(gauge, *site, |unit, i| sums[unit] += value(i));
        }
        sums
    }

    /// Calls with the place in its family of the unit of every weight along a dimension, and that
    /// weight's index.
    fn each(&self, gauge: &Gauge, (tensor, dim): Site, mut call: impl FnMut(usize, usize)) {
        let spec = &self.layout.tensors()[tensor];
        let along = self.groups.tensors()[tensor].dims[dim].as_ref();
        let inner: usize = spec.shape[dim + 1..].iter().product();
        let place = |unit: &u32| match self.groups.place(*unit) {
            Some((family, place)) if family == gauge.family => Some(place),
            _ => None,
        };
        let places: Vec<Option<usize>> = along.into_iter().flatten().map(place).collect();
        for i in 0..spec.count() {
            if let Some(unit) = places[i / inner % spec.shape[dim]] {
                call(unit, spec.offset + i);
            }
        }
    }
}

/// That of a sum, and 1 of nothing.
fn sign(sum: f64) -> f64 {
    if sum < 0.0 { -1.0 } else { 1.0 }
}

/// One walk along the graph for one family.
struct Walk<'a> {
    network: &'a Network,
    groups: &'a Groups,
    family: usize,
    kind: Kind,
    values: HashMap<&'a str, Value>,
    consumers: HashMap<&'a str, Vec<&'a NodeProto>>,
    writers: Vec<Site>,
    readers: Vec<Site>,
}

/// What is known of a value.
#[derive(Clone, Debug)]
enum Value {
    /// A tensor of weights, its dimensions in this order.
    Weights { tensor: usize, dims: Vec<usize> },
    /// Something that the units are multiplied in, if they lie in it.
    Multiplied,
    /// Something that they are not multiplied in.
    Plain,
}

/// The walk has met something that does not commute.
struct Stop;

impl<'a> Walk<'a> {
    fn new(network: &'a Network, groups: &'a Groups, family: usize, kind: Kind) -> Self {
        let mut consumers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        for node in &network.graph().node {
            for name in &node.input {
                consumers.entry(name).or_default().push(node);
            }
        }
        let tensors = network.layout().tensors().iter().enumerate();
        let weights = tensors.map(|(tensor, spec)| {
            let dims = (0..spec.shape.len()).collect();
            (spec.name.as_str(), Value::Weights { tensor, dims })
        });
        Self {
            network,
            groups,
            family,
            kind,
            values: weights.collect(),
            consumers,
            writers: Vec::new(),
            readers: Vec::new(),
        }
    }

    fn gauge(mut self) -> Option<Gauge> {
        for node in &self.network.graph().node {
            let value = self.node(node).ok()?;
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                self.values.insert(name, value.clone());
            }
        }
        let outputs = self.network.outputs().iter();
        let mut outputs = outputs.map(|output| self.of(&output.name));
        let plain = outputs.all(|value| !matches!(value, Value::Multiplied));
        // A tensor that does both has no single factor.
        let both = self.writers.iter().any(|site| self.readers.contains(site));
        if !plain || both || self.writers.is_empty() || self.readers.is_empty() {
            return None;
        }
        for sites in [&mut self.writers, &mut self.readers] {
            sites.sort_unstable();
            sites.dedup();
        }
        Some(Gauge {
            family: self.family,
            kind: self.kind,
            writers: self.writers,
            readers: self.readers,
        })
    }

    fn of(&self, name: &str) -> Value {
        self.values.get(name).cloned().unwrap_or(Value::Plain)
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<Value, Stop> {
        let inputs: Vec<Value> = node.input.iter().map(|name| self.of(name)).collect();
        match node.op_type() {
            // These look at no value.
            "Shape" | "Size" => Ok(Value::Plain),
            "MatMul" => self.product(node, &inputs, 0, 1),
            "Gemm" => {
                let turned = |name| attribute(node, name).is_some_and(|a| a.i() != 0);
                match (turned("transA"), turned("transB")) {
                    (true, _) => self.other(&inputs),
                    (false, false) => self.product(node, &inputs, 0, 1),
                    (false, true) => self.product(node, &inputs, 1, 0),
                }
            }
            "Conv" if attribute(node, "group").is_none_or(|a| a.i() == 1) => {
                self.product(node, &inputs, 1, 0)
            }
            "Conv" => self.depthwise(&inputs),
            "BatchNormalization" => self.normalisation(&inputs),
            "Add" | "Sub" | "Sum" => self.sum(&inputs),
            "Transpose" => Ok(transposed(node, &inputs[0])),
            op if self.commutes(op) => self.pass(&inputs),
            _ => self.other(&inputs),
        }
    }

    /// Whether a function of one value, or its reshaping, commutes with the family's factors.
    fn commutes(&self, op: &str) -> bool {
        let linear = matches!(
            op,
            "Identity"
                | "Cast"
                | "CastLike"
                | "Dropout"
                | "Reshape"
                | "Flatten"
                | "Squeeze"
                | "Unsqueeze"
                | "Expand"
                | "AveragePool"
                | "GlobalAveragePool"
                | "ReduceMean"
                | "ReduceSum"
                | "Slice"
        );
        linear
            || match self.kind {
                Kind::Scale => matches!(
                    op,
                    "Relu" | "LeakyRelu" | "Abs" | "MaxPool" | "GlobalMaxPool" | "ReduceMax"
                ),
                Kind::Sign => matches!(op, "Tanh" | "Softsign" | "Erf" | "Sin" | "Neg"),
            }
    }

    /// A sum of products of a value with weights.
    fn product(
        &mut self,
        node: &'a NodeProto,
        inputs: &[Value],
        reduced: usize,
        free: usize,
    ) -> Result<Value, Stop> {
        let (Some(Value::Weights { tensor, dims }), false) =
            (inputs.get(1), self.is_weights(&inputs[0]))
        else {
            return self.other(inputs);
        };
        if dims.len() < 2 || (node.op_type() == "MatMul" && dims.len() > 2) {
            return self.other(inputs);
        }
        let (reads, writes) = (
            self.lies_in(*tensor, dims[reduced]),
            self.lies_in(*tensor, dims[free]),
        );
        let multiplied = matches!(inputs[0], Value::Multiplied);
        if multiplied != reads || (reads && writes) {
            return Err(Stop);
        }
        if reads {
            self.readers.push((*tensor, dims[reduced]));
        }
        if !writes || self.is_normalised(&node.output[0]) {
            // What follows takes all factors out again, so that there are none to choose.
            return Ok(Value::Plain);
        }
        self.writers.push((*tensor, dims[free]));
        self.add_bias(inputs.get(2))?;
        Ok(Value::Multiplied)
    }

    /// A constant bias is one of zeros, which PyTorch exports for none; any other fails the trial.
    fn add_bias(&mut self, bias: Option<&Value>) -> Result<(), Stop> {
        match bias {
            Some(bias @ Value::Weights { .. }) => self.write(bias),
            Some(Value::Multiplied) => Err(Stop),
            Some(Value::Plain) | None => Ok(()),
        }
    }

    /// A convolution of every channel for itself.
    fn depthwise(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        let Some(Value::Weights { tensor, .. }) = inputs.get(1) else {
            return self.other(inputs);
        };
        let each = self.network.layout().tensors()[*tensor].shape[1] == 1;
        match inputs[0] {
            Value::Multiplied if each => {
                self.add_bias(inputs.get(2))?;
                Ok(Value::Multiplied)
            }
            Value::Plain => Ok(Value::Plain),
            _ => Err(Stop),
        }
    }

    /// What comes out does not depend on the factors that went in.
    fn normalisation(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        if matches!(inputs[0], Value::Multiplied) {
            return Err(Stop);
        }
        match &inputs[1] {
            Value::Weights { tensor, dims } if self.lies_in(*tensor, dims[0]) => {
                self.write(&inputs[1])?;
                self.write(&inputs[2])?;
                Ok(Value::Multiplied)
            }
            _ => Ok(Value::Plain),
        }
    }

    fn sum(&mut self, inputs: &[Value]) -> Result<Value, Stop> {
        if !inputs.iter().any(|v| matches!(v, Value::Multiplied)) {
            return Ok(Value::Plain);
        }
        for input in inputs {
            match input {
                Value::Multiplied => (),
                Value::Weights { .. } => self.write(input)?,
                Value::Plain => return Err(Stop),
            }
        }
        Ok(Value::Multiplied)
    }

    fn pass(&self, inputs: &[Value]) -> Result<Value, Stop> {
        match inputs.first() {
            Some(Value::Multiplied) => Ok(Value::Multiplied),
            Some(Value::Weights { tensor, .. }) if self.lies_somewhere(*tensor) => Err(Stop),
            _ => Ok(Value::Plain),
        }
    }

    /// An operator of which only what has nothing to do with the family is known.
    fn other(&self, inputs: &[Value]) -> Result<Value, Stop> {
        let touches = |value: &Value| match value {
            Value::Multiplied => true,
            Value::Weights { tensor, .. } => self.lies_somewhere(*tensor),
            Value::Plain => false,
        };
        match inputs.iter().any(touches) {
            true => Err(Stop),
            false => Ok(Value::Plain),
        }
    }

    /// A vector that is added to the units, or multiplies them alone.
    fn write(&mut self, weights: &Value) -> Result<(), Stop> {
        let Value::Weights { tensor, dims } = weights else {
            return Err(Stop);
        };
        let mut own = dims.iter().filter(|dim| self.lies_in(*tensor, **dim));
        let (Some(dim), None) = (own.next(), own.next()) else {
            return Err(Stop);
        };
        self.writers.push((*tensor, *dim));
        Ok(())
    }

    fn is_weights(&self, value: &Value) -> bool {
        matches!(value, Value::Weights { .. })
    }

    /// Whether batch normalisation alone sees a value, or the value with a bias.
    fn is_normalised(&self, name: &str) -> bool {
        let Some(consumers) = self.consumers.get(name) else {
            return false;
        };
        consumers.iter().all(|node| match node.op_type() {
            "BatchNormalization" => true,
            "Add" => {
                let weights = |other: &String| {
                    other.as_str() == name || self.is_weights(&self.of(other.as_str()))
                };
                node.input.iter().all(weights) && self.is_normalised(&node.output[0])
            }
            _ => false,
        })
    }

    fn lies_in(&self, tensor: usize, dim: usize) -> bool {
        let along = self.groups.tensors()[tensor].dims[dim].iter().flatten();
        let family = |unit: &u32| self.groups.place(*unit).map(|(family, _)| family);
        along.clone().any(|unit| family(unit) == Some(self.family))
    }

    fn lies_somewhere(&self, tensor: usize) -> bool {
        let mut families = self.groups.families_in(tensor);
        families.any(|family| family == self.family)
    }
}

fn transposed(node: &NodeProto, value: &Value) -> Value {
    let Value::Weights { tensor, dims } = value else {
        return value.clone();
    };
    let dims = match attribute(node, "perm") {
        Some(order) => order.ints.iter().map(|dim| dims[*dim as usize]).collect(),
        None => dims.iter().rev().copied().collect(),
    };
    let tensor = *tensor;
    Value::Weights { tensor, dims }
}
