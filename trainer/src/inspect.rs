//! What an artifact is, for people.

use std::{fmt::Write, path::Path};

use dwf::{Model, layout::Transform, metadata::Metadata, ode::Solver};

use crate::{
    canonical::Canonical, condition, error::Result, export::WHOLE, groups::Groups,
    network::Network, zoo::Source,
};

/// Describes the artifact.
///
/// Errors: those of opening it.
pub fn inspect(artifact: &Path) -> Result<String> {
    let model = Model::open(artifact, &WHOLE)?;
    Ok(describe(model.metadata(), model.latent()))
}

/// Describes the permutation groups of an ONNX file's network, and what else its units may be
/// multiplied or turned by. Checkpoints beside the file say which of its tensors are weights;
/// without any, their names do.
///
/// Errors: those of [`Network::read_alone`], and of running it.
pub fn groups(network: &Path) -> Result<String> {
    let folder = network.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let network = match Source::open(folder, Some(network), 1) {
        Ok(source) => source.network,
        Err(_no_zoo) => Network::read_alone(network)?,
    };
    let groups = Groups::find(&network)?;
    let canonical = Canonical::find(&network, &groups, true)?;
    Ok(groups.table(network.layout()) + &canonical.table())
}

fn describe(metadata: &Metadata, latent: usize) -> String {
    let Metadata {
        layout,
        basis,
        source,
        solver,
        ..
    } = metadata;
    let mut text = format!("target network: {} weights\n", layout.len());
    for tensor in layout.tensors() {
        let shape = format!("{:?}", tensor.shape);
        let dtype = format!("{:?}", tensor.dtype);
        let transform = match tensor.transform {
            Transform::None => "",
            Transform::Log => ", as its logarithm",
        };
        line(
            &mut text,
            &tensor.name,
            format!("{dtype:<5} {shape:<16} at {}{transform}", tensor.offset),
        );
    }
    text.push_str("\nflow\n");
    line(
        &mut text,
        "basis",
        format!("{basis:?} from {latent} latents"),
    );
    line(
        &mut text,
        "source",
        format!("{:?}, std {}", source.distribution, source.std),
    );
    if let Some(condition) = &metadata.condition {
        let none = match condition.unconditional {
            Some(_) => "; or none, and guidance",
            None => "",
        };
        let choices = condition::choices(&condition.schema);
        line(&mut text, "condition", format!("{choices}{none}"));
    }
    let error = match solver.relative_error {
        Some(error) => format!("relative error {error:.1e}"),
        None => "error not measured".into(),
    };
    line(
        &mut text,
        "solver",
        format!("{}, {error}", steps(&solver.solver())),
    );
    text.push_str("\nquality\n");
    for (key, value) in &metadata.quality {
        line(&mut text, key, format!("{value:.4}"));
    }
    text.push_str("\nprovenance\n");
    for (key, value) in &metadata.provenance {
        line(&mut text, key, value);
    }
    text
}

fn steps(solver: &Solver) -> String {
    let Solver {
        method,
        steps,
        grid,
        tolerance,
    } = solver;
    match solver.evaluations() {
        Some(evaluations) => {
            format!("{method:?} {steps} steps, {grid:?} grid: {evaluations} evaluations")
        }
        None => format!("{method:?}, tolerance {tolerance}"),
    }
}

fn line(text: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(text, "  {key:<36}{value}").expect("strings grow");
}
