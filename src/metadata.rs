//! The `dwf.*` keys of an artifact: one definition for the runtime that reads them and the
//! trainer that writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    condition::Condition,
    error::{Error, Result, Status},
    layout::{Layout, TensorSpec},
    limits::MAX_METADATA_BYTES,
    noise,
    ode::{DEFAULT_TOLERANCE, Grid, Method, Solver},
    onnx::StringStringEntryProto,
};

/// The newest format version that this library reads. It writes the oldest that can say what there
/// is to say, so that earlier versions of it read what they can.
///
/// 1: the first. 2: transforms of tensors, and uniform sources.
pub const FORMAT_VERSION: u32 = 2;

/// The key, in the sidecar's own metadata and in the `.onnx`, by which a pair knows each other.
pub const PAIR_KEY: &str = "dwf.pair";

/// Names of the basis tensors in the sidecar.
pub mod basis_tensor {
    /// [latent, weights], linear basis only.
    pub const COMPONENTS: &str = "basis.components";
    /// [weights], diagonal and linear bases.
    pub const MEAN: &str = "basis.mean";
    /// [weights] for a diagonal basis, [latent] for a linear one.
    pub const SCALE: &str = "basis.scale";
}

/// How a latent becomes weights.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BasisKind {
    /// weights = latent.
    Identity = 1,
    /// weights = mean + scale * latent, coordinate by coordinate.
    Diagonal = 2,
    /// weights = mean + (scale * latent) components.
    Linear = 3,
}

/// The distribution that trajectories start from: centred, independent a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The family.
    pub distribution: Distribution,
    /// Standard deviation of every coordinate.
    pub std: f64,
}

/// Families of source distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Gaussian.
    Normal,
    /// Uniform between plus and minus std sqrt(3): without tails.
    Uniform,
}

impl Source {
    /// Standard normals.
    pub const STANDARD: Self = Self {
        distribution: Distribution::Normal,
        std: 1.0,
    };

    /// Fills `noise` with where network `index` of `seed` starts.
    pub fn fill(&self, seed: u64, index: u64, noise: &mut [f32]) {
        match self.distribution {
            Distribution::Normal => noise::fill(seed, index, self.std, noise),
            Distribution::Uniform => noise::fill_uniform(seed, index, self.std, noise),
        }
    }
}

/// The solver that the trainer chose for this flow, and its measured error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultSolver {
    /// The method.
    pub method: Method,
    /// Number of steps.
    pub steps: usize,
    /// Where the steps lie.
    pub grid: Grid,
    /// Tolerance of an adaptive method.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// Relative error of generated weights against a fine solution; `None`: not measured.
    pub relative_error: Option<f64>,
}

impl DefaultSolver {
    /// The solver without its figure.
    pub fn solver(&self) -> Solver {
        Solver {
            method: self.method,
            steps: self.steps,
            grid: self.grid,
            tolerance: self.tolerance,
        }
    }
}

/// Everything an artifact says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The target network's tensors.
    pub layout: Layout,
    /// How latents become weights.
    pub basis: BasisKind,
    /// Where trajectories start.
    pub source: Source,
    /// The condition vector, if the flow takes one.
    pub condition: Option<Condition>,
    /// The default solver.
    pub solver: DefaultSolver,
    /// SHA-256 of the whole sidecar file, 64 lower-case hex digits.
    pub sidecar_sha256: String,
    /// The identifier that the sidecar must carry too.
    pub pair: String,
    /// Who made the artifact from what: free text by key.
    pub provenance: BTreeMap<String, String>,
    /// The report's figures by name; all finite.
    pub quality: BTreeMap<String, f64>,
}

impl Metadata {
    /// The metadata as ONNX `metadata_props`.
    pub fn to_props(&self) -> Vec<StringStringEntryProto> {
        let mut props = vec![
            ("dwf.format", self.format_version().to_string()),
            ("dwf.layout", json(self.layout.tensors())),
            ("dwf.basis", json(&self.basis)),
            ("dwf.source", json(&self.source)),
        ];
        if let Some(condition) = &self.condition {
            props.push(("dwf.condition", json(condition)));
        }
        props.extend([
            ("dwf.solver", json(&self.solver)),
            ("dwf.sidecar.sha256", self.sidecar_sha256.clone()),
            (PAIR_KEY, self.pair.clone()),
            ("dwf.provenance", json(&self.provenance)),
            ("dwf.quality", json(&self.quality)),
        ]);
        props
            .into_iter()
            .map(|(key, value)| StringStringEntryProto::new(key, value))
            .collect()
    }

    /// Reads the metadata from ONNX `metadata_props`. Keys it does not know are left alone.
    ///
    /// Errors: BAD_ARTIFACT naming the key, UNSUPPORTED for a newer format version.
    pub fn from_props(props: &[StringStringEntryProto]) -> Result<Self> {
        check_size(props)?;
        let props = Props(props);
        let version = check_format(props.text("dwf.format")?)?;
        let tensors: Vec<TensorSpec> = props.json("dwf.layout")?;
        let metadata = Self {
            layout: Layout::from_specs(tensors).map_err(|e| e.at("metadata dwf.layout"))?,
            basis: props.json("dwf.basis")?,
            source: props.json("dwf.source")?,
            condition: props.optional_json("dwf.condition")?,
            solver: props.json("dwf.solver")?,
            sidecar_sha256: props.text("dwf.sidecar.sha256")?.to_owned(),
            pair: props.text(PAIR_KEY)?.to_owned(),
            provenance: props.json("dwf.provenance")?,
            quality: props.json("dwf.quality")?,
        };
        metadata.check()?;
        let needed = metadata.format_version();
        if version < needed {
            return Err(Error::artifact(format!(
                "metadata dwf.format is {version}, but transforms of tensors and uniform sources \
                 take {needed}"
            )));
        }
        Ok(metadata)
    }

    /// The first format version that can say all this.
    fn format_version(&self) -> u32 {
        let first =
            !self.layout.is_transformed() && self.source.distribution == Distribution::Normal;
        if first { 1 } else { 2 }
    }

    fn check(&self) -> Result<()> {
        let fail = |key, what: String| Err(Error::artifact(format!("metadata {key}: {what}")));
        if !(self.source.std > 0.0 && self.source.std.is_finite()) {
            return fail("dwf.source", format!("std is {}", self.source.std));
        }
        if let Err(e) = self.solver.solver().check() {
            return fail("dwf.solver", e.message().to_owned());
        }
        if let Some(condition) = &self.condition {
            condition
                .check()
                .or_else(|what| fail("dwf.condition", what))?;
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if self.sidecar_sha256.len() != 64 || !self.sidecar_sha256.chars().all(hex) {
            return fail("dwf.sidecar.sha256", "not 64 lower-case hex digits".into());
        }
        Ok(())
    }
}

/// JSON takes several times its length once it is read.
fn check_size(props: &[StringStringEntryProto]) -> Result<()> {
    let bytes: usize = props.iter().map(|entry| entry.value().len()).sum();
    if bytes <= MAX_METADATA_BYTES {
        return Ok(());
    }
    Err(Error::artifact(format!(
        "{bytes} bytes of metadata; at most {MAX_METADATA_BYTES}"
    )))
}

fn default_tolerance() -> f64 {
    DEFAULT_TOLERANCE
}

fn check_format(text: &str) -> Result<u32> {
    let version: u32 = text.parse().map_err(|_| {
        Error::artifact(format!(
            "metadata dwf.format is '{}', not a version number",
            excerpt(text)
        ))
    })?;
    match version {
        1..=FORMAT_VERSION => Ok(version),
        0 => Err(Error::artifact(
            "metadata dwf.format is 0; versions start at 1",
        )),
        _ => Err(Error::new(
            Status::Unsupported,
            format!(
                "the artifact has format version {version} and this libdwf reads up to \
                 {FORMAT_VERSION}; update libdwf"
            ),
        )),
    }
}

/// `metadata_props` looked up by key.
struct Props<'a>(&'a [StringStringEntryProto]);

impl<'a> Props<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let entry = self.0.iter().find(|entry| entry.key() == key)?;
        Some(entry.value())
    }

    fn text(&self, key: &str) -> Result<&'a str> {
        self.get(key).ok_or_else(|| {
            Error::artifact(format!(
                "metadata {key} is missing; this is not a dwf artifact (dwf train makes one)"
            ))
        })
    }

    fn json<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        parse(key, self.text(key)?)
    }

    fn optional_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.get(key).map(|text| parse(key, text)).transpose()
    }
}

fn parse<T: DeserializeOwned>(key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| Error::artifact(format!("metadata {key}: {e}")))
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("metadata has string keys only")
}

/// The beginning of a text, for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Lower-case hex digits, as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
