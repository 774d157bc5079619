//! The artifact: `name.onnx` with the velocity network and the metadata, `name.safetensors` with
//! every tensor.

use std::{
    collections::BTreeMap,
    fs,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
};

use dwf::{
    ModelOptions,
    artifact::Description,
    condition::Condition,
    layout::Layout,
    metadata::{DefaultSolver, Metadata, Source, basis_tensor},
    onnx::{LOCATION_EXTERNAL, ModelProto, StringStringEntryProto, TensorProto, data_type},
};
use half::f16;
use memmap2::Mmap;
use prost::Message;
use safetensors::Dtype;

use crate::{
    components::Precision,
    error::{Result, invalid, io},
    files::{self, Staging},
    latent::Basis,
    network::model,
    sidecar::{Sidecar, Written, is_sidecar},
    velocity::{Velocity, VelocityTensor},
};

/// For opening an artifact of which every byte is used: a damaged one is found out.
pub const WHOLE: ModelOptions = ModelOptions {
    copy: false,
    verify: true,
    memory_limit: 0,
};

/// What an artifact says beside its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// The target network's tensors.
    pub layout: Layout,
    /// The noise that trajectories start from.
    pub source: Source,
    /// What its conditions are, if it takes any.
    pub condition: Option<Condition>,
    /// The default solver.
    pub solver: DefaultSolver,
    /// Who made the artifact from what.
    pub provenance: BTreeMap<String, String>,
    /// The report's figures.
    pub quality: BTreeMap<String, f64>,
}

/// Writes an artifact: `path`, which ends in `.onnx`, and the `.safetensors` beside it. The same
/// arguments give the same bytes. Both files are complete before the first gets its name.
///
/// Errors: IO; INVALID_ARGUMENT unless velocity, basis and layout fit together; BAD_ARTIFACT if
/// libdwf would not read it.
pub fn write(path: &Path, velocity: &Velocity, basis: &Basis, about: &About) -> Result<()> {
    let sidecar_path = sidecar_path(path)?;
    let staging = Staging::beside(path)?;
    stage(
        &staging,
        path.file_name().unwrap_or_default(),
        velocity,
        basis,
        about,
    )?;
    // A crash in between leaves a pair that does not match, which libdwf says on opening it.
    staging.publish(&[&sidecar_path, path])
}

/// The same without publishing it: an artifact called `name` in the staging folder.
///
/// Errors: as for [`write`].
pub fn stage(
    staging: &Staging,
    name: impl AsRef<Path>,
    velocity: &Velocity,
    basis: &Basis,
    about: &About,
) -> Result<()> {
    check(velocity, basis, about)?;
    let sidecar_path = sidecar_path(name.as_ref())?;
    let sidecar_name = sidecar_path.to_string_lossy();
    let mut file = staging.create(&*sidecar_name)?;
    let written = sidecar(velocity, basis)
        .write(&mut file)
        .map_err(io("write", staging.target()))?;
    let onnx = encode(&sidecar_name, velocity, basis, about, &written);
    // What is written is what libdwf reads.
    let path = staging.path(&*sidecar_name);
    let file = File::open(&path).map_err(io("read", &path))?;
    // SAFETY: the file was just written, to a folder of this process's own.
    let sidecar = unsafe { Mmap::map(&file) }.map_err(io("map", &path))?;
    Description::parse(&onnx)?.basis(&sidecar)?;
    staging.write(name, &onnx)
}

/// Whether an artifact can be written as `path`: better said before the work than after it.
///
/// Errors: IO; INVALID_ARGUMENT if it is not called NAME.onnx, is a folder, or its sidecar would
/// replace a file that is none.
pub fn check_output(path: &Path) -> Result<()> {
    let sidecar = sidecar_path(path)?;
    files::check_file(path)?;
    files::check_file(&sidecar)?;
    if sidecar.exists() && !is_sidecar(&sidecar)? {
        return Err(invalid(format!(
            "'{}' exists and is not an artifact's sidecar; choose another name",
            sidecar.display()
        )));
    }
    Ok(())
}

/// Adds figures to those that the artifact `path` says of itself.
///
/// Errors: IO; BAD_ARTIFACT if it is none.
pub fn update_quality(path: &Path, figures: &BTreeMap<String, f64>) -> Result<()> {
    let bytes = fs::read(path).map_err(io("read", path))?;
    let mut onnx = ModelProto::decode(&bytes[..])
        .map_err(|e| invalid(format!("'{}' is not an ONNX file ({e})", path.display())))?;
    let mut metadata = Metadata::from_props(&onnx.metadata_props)?;
    metadata
        .quality
        .extend(figures.iter().map(|(key, value)| (key.clone(), *value)));
    let updated = metadata.to_props();
    for prop in &mut onnx.metadata_props {
        // Keys of later versions stay as they are.
        if let Some(new) = updated.iter().find(|new| new.key() == prop.key()) {
            prop.value.clone_from(&new.value);
        }
    }
    files::write(path, &onnx.encode_to_vec())
}

/// The sidecar of the artifact `path`.
///
/// Errors: INVALID_ARGUMENT unless `path` is `NAME.onnx` in UTF-8.
pub fn sidecar_path(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.strip_suffix(".onnx")) {
        Some(stem) if !stem.is_empty() => Ok(path.with_extension("safetensors")),
        _ => Err(invalid(format!(
            "'{}' is not called NAME.onnx",
            path.display()
        ))),
    }
}

fn sidecar<'a>(velocity: &'a Velocity, basis: &'a Basis) -> Sidecar<'a> {
    let mut sidecar = Sidecar::default();
    add_basis(&mut sidecar, basis);
    for tensor in velocity.tensors() {
        let values = &velocity.weights[tensor.range.clone()];
        add_weight(&mut sidecar, &tensor, values);
    }
    sidecar
}

/// The bytes of the ONNX file.
fn encode(
    sidecar_name: &str,
    velocity: &Velocity,
    basis: &Basis,
    about: &About,
    sidecar: &Written,
) -> Vec<u8> {
    let mut graph = velocity.graph();
    graph.initializer = velocity
        .tensors()
        .iter()
        .map(|tensor| external(tensor, sidecar_name, &sidecar.ranges[&tensor.name]))
        .collect();
    let metadata = Metadata {
        layout: about.layout.clone(),
        basis: basis.kind(),
        source: about.source,
        condition: about.condition.clone(),
        solver: about.solver,
        sidecar_sha256: sidecar.sha256.clone(),
        pair: sidecar.pair.clone(),
        provenance: about.provenance.clone(),
        quality: about.quality.clone(),
    };
    ModelProto {
        metadata_props: metadata.to_props(),
        ..model(graph)
    }
    .encode_to_vec()
}

fn check(velocity: &Velocity, basis: &Basis, about: &About) -> Result<()> {
    let conditions = about.condition.as_ref().map_or(0, Condition::size);
    if (velocity.shape.latent, velocity.shape.condition) != (basis.latent(), conditions)
        || basis.weights() != about.layout.len()
    {
        return Err(invalid(format!(
            "a velocity over {} latents and {} conditions, {conditions} conditions, a basis from \
             {} latents to {} weights and a layout of {} weights do not fit together",
            velocity.shape.latent,
            velocity.shape.condition,
            basis.latent(),
            basis.weights(),
            about.layout.len()
        )));
    }
    let largest = velocity
        .weights
        .iter()
        .fold(0f32, |largest, w| largest.max(w.abs()));
    if velocity.weights.iter().any(|w| w.is_nan()) || largest > f16::MAX.to_f32() {
        return Err(invalid(
            "the velocity network has weights that half precision cannot hold: training diverged",
        ));
    }
    Ok(())
}

fn add_basis<'a>(sidecar: &mut Sidecar<'a>, basis: &'a Basis) {
    if let Basis::Linear {
        components,
        mean,
        scale,
    } = basis
    {
        let shape = [scale.len(), mean.len()];
        let dtype = match components.precision() {
            Precision::Half => Dtype::F16,
            Precision::Single => Dtype::F32,
        };
        let bytes = components.bytes().into();
        sidecar.add(basis_tensor::COMPONENTS, dtype, &shape, bytes);
    }
    if let Basis::Diagonal { mean, scale } | Basis::Linear { mean, scale, .. } = basis {
        sidecar.add_f32(basis_tensor::MEAN, &[mean.len()], mean);
        sidecar.add_f32(basis_tensor::SCALE, &[scale.len()], scale);
    }
}

/// Matrices in half precision, vectors in single.
fn add_weight<'a>(sidecar: &mut Sidecar<'a>, tensor: &VelocityTensor, values: &'a [f32]) {
    if tensor.is_matrix() {
        let values = values.iter().map(|value| f16::from_f32(*value));
        sidecar.add_f16(&tensor.name, &tensor.shape, values);
    } else {
        sidecar.add_f32(&tensor.name, &tensor.shape, values);
    }
}

/// An ONNX initialiser that lies in the sidecar.
fn external(tensor: &VelocityTensor, location: &str, bytes: &Range<usize>) -> TensorProto {
    let float = if tensor.is_matrix() {
        data_type::FLOAT16
    } else {
        data_type::FLOAT
    };
    TensorProto {
        name: Some(tensor.name.clone()),
        dims: tensor.shape.iter().map(|dim| *dim as i64).collect(),
        data_type: Some(float),
        data_location: Some(LOCATION_EXTERNAL),
        external_data: vec![
            StringStringEntryProto::new("location", location),
            StringStringEntryProto::new("offset", bytes.start.to_string()),
            StringStringEntryProto::new("length", bytes.len().to_string()),
        ],
        ..Default::default()
    }
}
