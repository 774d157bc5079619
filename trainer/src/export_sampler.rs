//! An artifact as one ONNX graph from noise to weights, for inference servers.

use std::path::Path;

use dwf::{
    Model,
    ode::Solver,
    trajectory::{Precision, compose},
};
use prost::Message;

use crate::{
    error::{Result, invalid},
    export::{self, WHOLE},
    files::{self, Staging},
};

/// Writes `output` (NAME.onnx), the trajectory of `solver` and the basis as one graph, with a copy
/// of the artifact's sidecar beside it as NAME.safetensors.
///
/// Errors: those of opening the artifact and of composing the graph; IO; INVALID_ARGUMENT if
/// `output` is not called NAME.onnx or would replace the artifact or a file of another kind.
pub fn export_sampler(artifact: &Path, output: &Path, solver: &Solver) -> Result<()> {
    let sidecar = export::sidecar_path(output)?;
    let sidecar_name = sidecar.file_name().unwrap_or_default().to_string_lossy();
    let model = Model::open(artifact, &WHOLE)?;
    let source = artifact.with_file_name(model.sidecar_name());
    if files::same_place(artifact, output) || files::same_place(&source, &sidecar) {
        return Err(invalid(format!(
            "'{}' would replace the artifact; choose another name",
            output.display()
        )));
    }
    export::check_output(output)?;
    let graph = compose(&model, solver, Precision::Single, &sidecar_name)?;
    let staging = Staging::beside(output)?;
    staging.copy(&*sidecar_name, &source)?;
    staging.write(
        output.file_name().unwrap_or_default(),
        &graph.encode_to_vec(),
    )?;
    staging.publish(&[&sidecar, output])
}
