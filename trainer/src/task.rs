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
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    condition::CONDITIONS,
    error::{Result, Status},
    files, interrupt,
    progress::Progress,
    random::Random,
    work::{Part, Work},
    zoo::Writer,
};

/// The networks of a zoo and what lies beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Tensors of a network.
    pub layout: Layout,
    /// One flat vector a network: [networks, `layout.len()`] row-major.
    pub weights: Vec<f32>,
    /// What is known of every network, if they differ by more than chance.
    pub condition: Option<Condition>,
    /// Other files: name and content.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

/// Something that the networks of a zoo differ by on purpose: a column of [`CONDITIONS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The column's heading; `class` if the values are names.
    pub name: &'static str,
    /// The value of every network.
    pub values: Vec<String>,
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
    /// What its networks differ by on purpose, by the name of the option that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
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
        let mut writer = Writer::new(folder, &self.layout, 0)?;
        for network in networks {
            writer.add(network)?;
        }
        if let Some(Condition { name, values }) = &self.condition {
            let mut text = format!("file,{name}\n");
            for (number, value) in values.iter().enumerate() {
                text += &format!("{},{value}\n", writer.file(number));
            }
            writer.add_file(CONDITIONS, text.as_bytes())?;
        }
        for (name, content) in &self.files {
            writer.add_file(name, content)?;
        }
        writer.finish()
    }
}

/// Random stream of a shared initialisation, beyond those of the networks.
const START_STREAM: u64 = u64::MAX - 1;

/// Random stream of what networks differ by.
const CONDITION_STREAM: u64 = u64::MAX - 2;

/// Takes a network, by its number, from what an interrupted run has kept, or else trains it.
pub type Keep<'a> = dyn Fn(u64, &dyn Fn() -> Vec<f32>) -> Result<Vec<f32>> + Sync + 'a;

/// Keeps nothing: every network is trained.
///
/// Errors: none.
pub fn train_anew(_: u64, train: &dyn Fn() -> Vec<f32>) -> Result<Vec<f32>> {
    Ok(train())
}

impl Origin {
    /// All networks, [count, weights] row-major, several at a time.
    fn networks(
        &self,
        keep: &Keep<'_>,
        train: impl Fn(u64) -> Vec<f32> + Sync,
    ) -> Result<Vec<f32>> {
        let networks = (0..self.count as u64).into_par_iter();
        let networks: Result<Vec<Vec<f32>>> = networks.map(|i| keep(i, &|| train(i))).collect();
        Ok(networks?.concat())
    }

    /// A number for every network, evenly from `least` to `most`, in random order.
    fn spread(&self, [least, most]: [f64; 2]) -> Vec<f64> {
        let step = (most - least) / (self.count.max(2) - 1) as f64;
        let mut values: Vec<f64> = (0..self.count).map(|i| least + step * i as f64).collect();
        Random::new(self.seed, CONDITION_STREAM).shuffle(&mut values);
        values
    }

    /// Where a network begins. Its own random numbers are drawn even if the start is shared.
    fn start(&self, random: &mut Random, initialise: impl Fn(&mut Random) -> Vec<f32>) -> Vec<f32> {
        let own = initialise(random);
        match self.shared_start {
            true => initialise(&mut Random::new(self.seed, START_STREAM)),
            false => own,
        }
    }
}

/// Makes the zoo that `about` describes and writes it as `folder`, with progress. Finished networks
/// lie in the [work folder](Work) meanwhile, so that the same call goes on where another was
/// interrupted; `lesson` says what else they follow from, their data for instance.
///
/// Errors: those of [`Made::write`], before any work where they can be foreseen; CANCELLED when
/// [interrupted](interrupt).
pub fn make(
    folder: &Path,
    about: &About,
    lesson: &impl Serialize,
    train: impl FnOnce(Origin, &Keep<'_>) -> Result<Made>,
) -> Result<Made> {
    files::check_empty(folder)?;
    let work = Work::open(folder)?;
    let result = make_in(&work, folder, about, lesson, train);
    match &result {
        // What has been done will be of use when the same is tried again.
        Err(e) if matches!(e.status(), Status::Cancelled | Status::Io) => {}
        _ => work.finish()?,
    }
    result
}

fn make_in(
    work: &Work,
    folder: &Path,
    about: &About,
    lesson: &impl Serialize,
    train: impl FnOnce(Origin, &Keep<'_>) -> Result<Made>,
) -> Result<Made> {
    let resumable = interrupt::resumable();
    let part = work.part("networks", &(env!("CARGO_PKG_VERSION"), about, lesson))?;
    let file = |network: u64| format!("net-{network}");
    let count = about.origin.count;
    let before = (0..count as u64).filter(|i| part.path(&file(*i)).exists());
    let progress = Progress::resumed("zoo", count, before.count());
    let mut made = train(about.origin, &|network, train| {
        if let Some(kept) = kept(&part, &file(network))? {
            return Ok(kept);
        }
        if interrupt::requested() {
            return Err(interrupt::error("every network trained so far"));
        }
        let weights = train();
        part.write(&file(network), bytemuck::cast_slice(&weights))?;
        progress.step(String::new);
        Ok(weights)
    })?;
    progress.finish();
    drop(resumable);
    let about = serde_json::to_vec(about).expect("plain data");
    made.files.push((ABOUT, about));
    made.write(folder)?;
    Ok(made)
}

/// A network's weights, if they were kept.
fn kept(part: &Part, file: &str) -> Result<Option<Vec<f32>>> {
    let bytes = part.read(file)?;
    Ok(bytes.map(|bytes| bytemuck::pod_collect_to_vec(&bytes)))
}
