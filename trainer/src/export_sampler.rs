//! An artifact as one ONNX graph from noise to weights, for inference servers.

use std::{fs, path::Path};

use dwf::{
    Model,
    ode::Solver,
    trajectory::{Precision, compose},
};
use prost::Message;

use crate::{
    error::{Result, invalid, io},
    files::{self, Staging},
};

/// Writes `output` (NAME.onnx), the trajectory of `solver` and the basis as one graph, with a copy of the artifact's sidecar beside it as NAME.safetensors.
///
/// Errors: those of opening the artifact and of composing the graph; IO; INVALID_ARGUMENT if
/// `output` is no .onnx file or would replace the artifact.
pub fn export_sampler(artifact: &Path, output: &Path, solver: &Solver) -> Result<()> {
    let sidecar = output.with_extension("safetensors");
    let Some(sidecar_name) = sidecar.file_name().and_then(|name| name.to_str()) else {
        return Err(invalid(format!("'{}' is no file name", output.display())));
    };
    if output
        .extension()
        .is_none_or(|extension| extension != "onnx")
    {
        return Err(invalid(format!(
            "'{}' does not end in .onnx",
            output.display()
        )));
    }
    let model = Model::open(artifact, &Default::default())?;
    let source = artifact.with_file_name(model.sidecar_name());
    if same_file(artifact, output) || same_file(&source, &sidecar) {
        return Err(invalid(format!(
            "'{}' would replace the artifact; choose another name",
            output.display()
        )));
    }
    files::check_file(output)?;
    let graph = compose(&model, solver, Precision::Single, sidecar_name)?;
    let staging = Staging::beside(output)?;
    fs::copy(&source, staging.path(sidecar_name)).map_err(io("copy", &source))?;
    staging.write(
        output.file_name().unwrap_or_default(),
        &graph.encode_to_vec(),
    )?;
    staging.publish(&sidecar)?;
    staging.publish(output)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
