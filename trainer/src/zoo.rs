//! A zoo: a folder of checkpoints, one trained network each.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use dwf::layout::{DType, Layout};
use safetensors::{Dtype, tensor::TensorView};
use serde::Serialize;

use crate::{
    checkpoint::{Checkpoint, EXTENSIONS, Integers, Signature, encode, is_finite},
    error::{Error, Result, Status, invalid, io},
    files::{self, Staging},
    network::{self, Network},
    progress::Progress,
    rows::Rows,
    store::Store,
};

/// Fewest networks that a distribution can be learned from at all.
pub const MIN_NETWORKS: usize = 8;

/// Networks of one architecture.
#[derive(Debug)]
pub struct Zoo {
    /// The architecture.
    pub network: Network,
    /// One flat vector a network.
    pub weights: Store,
    /// The files that they were read from, by their names in the folder.
    pub files: Vec<String>,
}

impl Zoo {
    /// The checkpoints of a folder, in the order of their names; those that are changed go into
    /// memory. Their architecture is that of `network.onnx` in the folder, if there is one, or else
    /// a plain MLP.
    ///
    /// Errors: as [`Source::open`] and [`Source::read`].
    pub fn read(folder: &Path) -> Result<Self> {
        Source::open(folder, None, MIN_NETWORKS)?.read(None)
    }

    /// Networks made here, [count, weights] row-major in memory.
    pub fn made(network: Network, weights: Vec<f32>) -> Self {
        let weights = Store::memory(&weights, network.layout().len());
        Self {
            network,
            weights,
            files: Vec::new(),
        }
    }

    /// The tensors in the flat vector.
    pub fn layout(&self) -> &Layout {
        self.network.layout()
    }

    /// Number of networks.
    pub fn count(&self) -> usize {
        self.weights.count()
    }

    /// The flat vectors, one after the other.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = Vec<f32>> {
        self.weights.rows()
    }
}

/// What tells a zoo from others and from itself after a change.
#[derive(Serialize)]
pub struct Fingerprint {
    /// See [`Network::fingerprint`].
    network: String,
    files: Vec<Stamp>,
}

/// What tells a file from itself after a change: its name, size and time.
#[derive(Serialize)]
pub struct Stamp(String, u64, Option<SystemTime>);

impl Stamp {
    /// Of a file in a folder, which need not exist.
    pub fn of(folder: &Path, file: &str) -> Self {
        let about = fs::metadata(folder.join(file)).ok();
        let size = about.as_ref().map_or(0, |about| about.len());
        let time = about.and_then(|about| about.modified().ok());
        Self(file.into(), size, time)
    }
}

/// A folder of checkpoints that are alike, of which no weight has been read.
pub struct Source {
    /// The architecture.
    pub network: Network,
    folder: PathBuf,
    pub(crate) files: Vec<String>,
}

impl Source {
    /// Looks through the checkpoints of a folder. Their architecture is that of the ONNX file
    /// `network`, or of `network.onnx` in the folder, or else a plain MLP.
    ///
    /// Errors: IO; INVALID_ARGUMENT naming file and tensor unless there are at least `least`
    /// files, all with the same tensors (name, shape, type), which are those of
    /// the architecture.
    pub fn open(folder: &Path, network: Option<&Path>, least: usize) -> Result<Self> {
        let files = checkpoints(folder)?;
        if files.len() < least {
            return Err(invalid(format!(
                "'{}' has {} checkpoints (*.safetensors, *.pt, *.pth), one network each, and this \
                 needs at least {least}",
                folder.display(),
                files.len()
            )));
        }
        let first = Checkpoint::open(&folder.join(&files[0]))?;
        let default = folder.join(network::FILE);
        let network = match network {
            Some(path) => Network::read(path, first.signatures()),
            None if default.exists() => Network::read(&default, first.signatures()),
            None => Network::mlp(first.signatures())
                .map_err(|e| e.at(format!("'{}'", folder.join(&files[0]).display()))),
        }?;
        let source = Self {
            network,
            folder: folder.to_owned(),
            files,
        };
        for file in &source.files[1..] {
            source.checkpoint(file)?;
        }
        Ok(source)
    }

    /// Number of networks.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Where the files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What tells these files and their architecture from others.
    pub fn fingerprint(&self) -> Fingerprint {
        let stamp = |file: &String| Stamp::of(&self.folder, file);
        Fingerprint {
            network: self.network.fingerprint(),
            files: self.files.iter().map(stamp).collect(),
        }
    }

    /// Looks at every weight. Networks that are changed afterwards go to a file without a name in
    /// `folder`, or into memory.
    ///
    /// Errors: as [`Store::open`].
    pub fn read(self, folder: Option<&Path>) -> Result<Zoo> {
        let count = self.count();
        let progress = Progress::new("read", count);
        let open = |i: usize| self.checkpoint(&self.files[i]);
        let done = || progress.step(String::new);
        let weights = Store::open(self.network.layout(), count, open, folder, done)?;
        progress.finish();
        Ok(Zoo {
            network: self.network,
            weights,
            files: self.files,
        })
    }

    /// One of the files, which must have exactly the tensors of the first.
    fn checkpoint(&self, file: &str) -> Result<Checkpoint> {
        let path = self.folder.join(file);
        let checkpoint = Checkpoint::open(&path)?;
        check(
            checkpoint.signatures(),
            self.network.layout(),
            &self.files[0],
        )
        .map_err(|e| e.at(format!("'{}'", path.display())))?;
        Ok(checkpoint)
    }
}

fn checkpoints(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("read the zoo", folder))? {
        let path = entry.map_err(io("read the zoo", folder))?.path();
        let extension = path.extension().unwrap_or_default();
        if EXTENSIONS.iter().any(|known| extension == *known) {
            let name = path.file_name().unwrap_or_default();
            files.push(name.to_string_lossy().into_owned());
        }
    }
    files.sort();
    Ok(files)
}

/// Every network must have exactly the tensors of the first.
fn check(signatures: &[Signature], layout: &Layout, first: &str) -> Result<()> {
    for Signature { name, shape, dtype } in signatures {
        let Some(spec) = layout.get(name) else {
            return Err(invalid(format!(
                "tensor '{name}' is not in '{first}'; all networks of a zoo must be alike"
            )));
        };
        if (&spec.shape, spec.dtype) != (shape, *dtype) {
            return Err(invalid(format!(
                "tensor '{name}' is {dtype:?} {shape:?}, but {:?} {:?} in '{first}'; all networks \
                 of a zoo must be alike",
                spec.dtype, spec.shape
            )));
        }
    }
    let missing = layout
        .tensors()
        .iter()
        .find(|spec| !signatures.iter().any(|s| s.name == spec.name));
    match missing {
        Some(spec) => Err(invalid(format!(
            "tensor '{}' of '{first}' is missing; all networks of a zoo must be alike",
            spec.name
        ))),
        None => Ok(()),
    }
}

/// A zoo being written: `net-000000.safetensors` and on, in a folder that appears when it is done. A
/// network's number alone says its name, so that parts written by several processes are one zoo.
pub struct Writer<'a> {
    staging: Staging,
    layout: &'a Layout,
    next: usize,
}

impl<'a> Writer<'a> {
    /// For networks numbered from `first` on, in `folder`, which must be empty if it exists.
    ///
    /// Errors: IO; INVALID_ARGUMENT if the folder holds anything.
    pub fn new(folder: &Path, layout: &'a Layout, first: usize) -> Result<Self> {
        files::check_empty(folder)?;
        Ok(Self {
            staging: Staging::beside(folder)?,
            layout,
            next: first,
        })
    }

    /// Adds one network, a flat vector, in the layout's types.
    ///
    /// Errors: IO; DIVERGED naming the tensor if a weight is out of its type's range.
    pub fn add(&mut self, network: &[f32]) -> Result<()> {
        let name = name(self.next);
        self.next += 1;
        self.add_as(&name, network, Vec::new())
    }

    /// The file of the network of this number.
    pub fn file(&self, number: usize) -> String {
        format!("{}.safetensors", name(number))
    }

    /// The same under a name of its own, without the extension, and with tensors of `integers`.
    ///
    /// Errors: as [`Writer::add`].
    pub fn add_as(&mut self, name: &str, network: &[f32], integers: Vec<Integers>) -> Result<()> {
        let name = format!("{name}.safetensors");
        let bytes = serialize(self.layout, network, integers).map_err(|e| e.at(&name))?;
        self.staging.write(name, &bytes)
    }

    /// Adds a file that is no network.
    ///
    /// Errors: IO.
    pub fn add_file(&self, name: &str, content: &[u8]) -> Result<()> {
        self.staging.write(name, content)
    }

    /// Makes the folder appear.
    ///
    /// Errors: IO.
    pub fn finish(self) -> Result<()> {
        self.staging.publish_folder()
    }
}

/// The name of a network's file, without the extension.
fn name(number: usize) -> String {
    format!("net-{number:06}")
}

fn serialize(layout: &Layout, network: &[f32], integers: Vec<Integers>) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for spec in layout.tensors() {
        let values = &network[spec.range()];
        let bytes = encode(values, spec.dtype);
        if !is_finite(&bytes, spec.dtype) {
            let what = format!(
                "tensor '{}' is out of the range of {:?}",
                spec.name, spec.dtype
            );
            return Err(Error::new(Status::Diverged, what));
        }
        let dtype = match spec.dtype {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
        };
        tensors.push((spec.name.clone(), dtype, spec.shape.clone(), bytes));
    }
    let integers = integers.into_iter();
    tensors.extend(integers.map(|tensor| (tensor.name, tensor.dtype, tensor.shape, tensor.bytes)));
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            (name.as_str(), view.expect("the shape gives its size"))
        })
        .collect();
    safetensors::serialize(views, None)
        .map_err(|e| Error::new(Status::Internal, format!("cannot serialise: {e}")))
}
