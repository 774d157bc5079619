//! The tasks that zoos are made for here: their data or plants, and how their networks are trained.

pub mod cartpole;
pub mod classification;
pub mod digits;
pub mod evolution;
pub mod images;
pub mod iris;
pub mod pendulum;

use std::path::Path;

use dwf::layout::Layout;
use serde::{Deserialize, Serialize};

use crate::{error::Result, files, progress::Progress, zoo::Writer};

/// The networks of a zoo and what lies beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Tensors of a network.
    pub layout: Layout,
    /// One flat vector a network: [networks, `layout.len()`] row-major.
    pub weights: Vec<f32>,
    /// Other files: name and content.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// The file in a zoo's folder that says how it was made: an [`About`].
pub const ABOUT: &str = "zoo.json";

/// How a zoo was made here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The task: `iris`, `digits`, `images`, `cartpole`, `pendulum`.
    pub task: String,
    /// Which classifier, by its [name](crate::classifier::Architecture::named).
    pub network: Option<String>,
    /// What decides the networks.
    #[serde(flatten)]
    pub origin: Origin,
}

/// What decides the networks of a zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// How many networks.
    pub count: usize,
    /// Everything random follows from it. Networks have random streams of their own.
    pub seed: u64,
    /// Whether all networks begin at one initialisation, and differ by the order of their data
    /// alone. They lie much closer together than independent ones.
    pub shared_start: bool,
}

impl Made {
    /// The flat vectors.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.weights.chunks_exact(self.layout.len())
    }

    /// Writes the zoo as `folder`, which is new or empty.
    ///
    /// Errors: IO; INVALID_ARGUMENT if the folder holds anything.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let networks = self.networks();
        let mut writer = Writer::new(folder, &self.layout, 0..networks.len())?;
        for network in networks {
            writer.add(network)?;
        }
        for (name, content) in &self.files {
            writer.add_file(name, content)?;
        }
        writer.finish()
    }
}

/// Makes the zoo that `about` describes and writes it as `folder`, with progress.
///
/// Errors: those of [`Made::write`], before any work where they can be foreseen.
pub fn make(
    folder: &Path,
    about: &About,
    train: impl FnOnce(Origin, &(dyn Fn() + Sync)) -> Made,
) -> Result<Made> {
    files::check_empty(folder)?;
    let progress = Progress::new("zoo", about.origin.count);
    let mut made = train(about.origin, &|| progress.step(String::new));
    progress.finish();
    let about = serde_json::to_vec(about).expect("plain data");
    made.files.push((ABOUT, about));
    made.write(folder)?;
    Ok(made)
}
