//! The target network in ONNX Runtime, for any weights.
//!
//! Weights are inputs of the graph, so that one session serves every network of a zoo without a
//! copy; what is lost against weights as initialisers, ONNX Runtime's own layout of them, would
//! have to be made anew for every network.

use std::{
    borrow::Cow,
    sync::{Mutex, OnceLock, PoisonError},
};

use dwf::{
    onnx::{GraphProto, ValueInfoProto, data_type},
    runtime::Runtime,
};
use ort::{
    environment::Environment,
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynValue, TensorElementType, TensorRef},
};
use prost::Message;

pub use crate::tensor::{Data, Tensor};
use crate::{
    error::{Error, Result, Status, invalid},
    network::Network,
};

/// A session of one network; runs on the thread that asks.
pub struct Evaluator {
    session: Session,
    /// Name, shape and place of every weight.
    weights: Vec<(String, Vec<i64>, std::ops::Range<usize>)>,
    inputs: Vec<(String, i32)>,
    outputs: Vec<String>,
    model: Vec<u8>,
    size: usize,
}

impl Evaluator {
    /// Loads the network.
    ///
    /// Errors: RUNTIME_MISSING; INVALID_ARGUMENT naming the network's file, in ONNX Runtime's own
    /// words, if it cannot run the graph.
    pub fn new(network: &Network) -> Result<Self> {
        Self::watching::<&str>(network, &[])
    }

    /// The same, with the intermediate values of these names among the results, after the
    /// graph's outputs.
    ///
    /// Errors: as [`Evaluator::new`].
    pub fn watching<S: AsRef<str>>(network: &Network, values: &[S]) -> Result<Self> {
        let mut model = network.model().clone();
        let graph = model.graph.get_or_insert_default();
        weights_as_inputs(graph, network);
        let mut outputs: Vec<String> = network.outputs().iter().map(|v| v.name.clone()).collect();
        for value in values {
            let name = value.as_ref().to_owned();
            if !outputs.contains(&name) {
                // ONNX Runtime infers its type.
                graph.output.push(ValueInfoProto {
                    name: Some(name.clone()),
                    r#type: None,
                });
            }
            outputs.push(name);
        }
        let tensors = network.layout().tensors().iter();
        let weights = tensors
            .map(|t| {
                let shape = t.shape.iter().map(|dim| *dim as i64).collect();
                (t.name.clone(), shape, t.range())
            })
            .collect();
        let inputs = network.inputs().iter();
        let model = model.encode_to_vec();
        Ok(Self {
            session: session(&model).map_err(|e| network.blame(e))?,
            weights,
            inputs: inputs.map(|v| (v.name.clone(), v.elem_type)).collect(),
            outputs,
            model,
            size: network.layout().len(),
        })
    }

    /// Another session of the same network, for another thread.
    ///
    /// Errors: as [`Evaluator::new`].
    pub fn another(&self) -> Result<Self> {
        Ok(Self {
            session: session(&self.model)?,
            weights: self.weights.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            model: self.model.clone(),
            size: self.size,
        })
    }

    /// The values of the network `weights` on `inputs`, one tensor an input of the graph: its
    /// outputs in the graph's order, then those watched.
    ///
    /// Errors: INVALID_ARGUMENT if the inputs do not fit; RUNTIME_FAILED.
    pub fn run(&mut self, weights: &[f32], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        assert_eq!(weights.len(), self.size, "not a network of this layout");
        if inputs.len() != self.inputs.len() {
            return Err(invalid(format!(
                "the network has {} inputs and {} were given",
                self.inputs.len(),
                inputs.len()
            )));
        }
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        for (name, shape, range) in &self.weights {
            let tensor = TensorRef::from_array_view((shape.clone(), &weights[range.clone()]));
            values.push((name.into(), tensor.map_err(failed)?.into()));
        }
        for ((name, elem_type), tensor) in self.inputs.iter().zip(inputs) {
            values.push((name.into(), input(tensor, *elem_type, name)?));
        }
        let results = self.session.run(values).map_err(failed)?;
        let find = |name: &String| extract(name, results.get(name).ok_or_else(|| lost(name))?);
        self.outputs.iter().map(find).collect()
    }
}

/// Turns the initialisers without data, which are the weights, into inputs.
fn weights_as_inputs(graph: &mut GraphProto, network: &Network) {
    let layout = network.layout();
    graph
        .initializer
        .retain(|tensor| layout.get(tensor.name()).is_none());
    for tensor in layout.tensors() {
        let shape: Vec<_> = tensor.shape.iter().map(|dim| Ok(*dim)).collect();
        let info = ValueInfoProto::tensor(&tensor.name, data_type::FLOAT, &shape);
        graph.input.push(info);
    }
}

fn session(model: &[u8]) -> Result<Session> {
    let build = || -> ort::Result<Session> {
        let mut builder = Session::builder(environment()?)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_optimization_level(GraphOptimizationLevel::Level2)?;
        builder.commit_from_memory(model)
    };
    Runtime::load(None)?;
    build().map_err(|e| {
        invalid(format!(
            "ONNX Runtime cannot load the network: {e}; export it in evaluation mode, in an \
             opset that this ONNX Runtime knows"
        ))
    })
}

/// The process's environment, as libdwf made it.
fn environment() -> ort::Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    // Two threads that both find none would both make one, which ort refuses.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let environment = ort::init().build()?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

fn input<'a>(tensor: &'a Tensor, elem_type: i32, name: &str) -> Result<SessionInputValue<'a>> {
    let shape: Vec<i64> = tensor.shape.iter().map(|dim| *dim as i64).collect();
    let value = match (&tensor.data, elem_type) {
        (Data::F32(data), data_type::FLOAT) => {
            TensorRef::from_array_view((shape, &data[..])).map(Into::into)
        }
        (Data::I64(data), data_type::INT64) => {
            TensorRef::from_array_view((shape, &data[..])).map(Into::into)
        }
        (Data::I64(data), data_type::INT32) => {
            let data: Vec<i32> = data.iter().map(|x| *x as i32).collect();
            ort::value::Tensor::from_array((shape, data)).map(Into::into)
        }
        (Data::Bool(data), data_type::BOOL) => {
            TensorRef::from_array_view((shape, &data[..])).map(Into::into)
        }
        _ => {
            return Err(invalid(format!(
                "input '{name}' of the network is of ONNX type {elem_type}, not what was given"
            )));
        }
    };
    value.map_err(failed)
}

fn extract(name: &str, value: &DynValue) -> Result<Tensor> {
    let unsupported = || {
        let what = format!("value '{name}' of the network is neither floats, integers nor truths");
        Error::new(Status::Unsupported, what)
    };
    let ort::value::ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(unsupported());
    };
    macro_rules! elements {
        ($t:ty, $convert:expr) => {{
            let (shape, data) = value.try_extract_tensor::<$t>().map_err(failed)?;
            (shape, data.iter().copied().map($convert).collect())
        }};
    }
    let (shape, data) = match ty {
        TensorElementType::Float32 => {
            let (shape, data) = elements!(f32, |x| x);
            (shape, Data::F32(data))
        }
        TensorElementType::Float64 => {
            let (shape, data) = elements!(f64, |x| x as f32);
            (shape, Data::F32(data))
        }
        TensorElementType::Int64 => {
            let (shape, data) = elements!(i64, |x| x);
            (shape, Data::I64(data))
        }
        TensorElementType::Int32 => {
            let (shape, data) = elements!(i32, i64::from);
            (shape, Data::I64(data))
        }
        TensorElementType::Uint8 => {
            let (shape, data) = elements!(u8, i64::from);
            (shape, Data::I64(data))
        }
        TensorElementType::Bool => {
            let (shape, data) = elements!(bool, |x| x);
            (shape, Data::Bool(data))
        }
        _ => return Err(unsupported()),
    };
    let shape = shape.iter().map(|dim| *dim as usize).collect();
    Ok(Tensor { shape, data })
}

fn lost(name: &str) -> Error {
    let what = format!("ONNX Runtime returned no value '{name}'");
    Error::new(Status::RuntimeFailed, what)
}

fn failed(error: ort::Error) -> Error {
    Error::new(Status::RuntimeFailed, format!("ONNX Runtime: {error}"))
}
