//! An opened artifact: its description, and its sidecar mapped into memory.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use half::f16;
use memmap2::Mmap;
use sha2::{Digest, Sha256};

use crate::{
    artifact::{Basis, Description, Float, View},
    error::{Error, Result, Status},
    layout::{DType, Layout, TensorKind},
    limits::{DEFAULT_MEMORY, MAX_ONNX_BYTES},
    memory::{out_of_memory, zeros},
    metadata::{BasisKind, Metadata, hex},
};

/// How to open an artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelOptions {
    /// Read the sidecar into memory instead of mapping it. A mapped file that another process
    /// truncates kills this process at the next access; a copy does not care.
    pub copy: bool,
    /// Compare the sidecar with the SHA-256 that the `.onnx` carries; reads the whole file.
    pub verify: bool,
    /// Most bytes that a copy may take; 0: [`crate::limits::DEFAULT_MEMORY`].
    pub memory_limit: u64,
}

/// An immutable opened artifact. Cloning shares it; any thread may use it at any time.
#[derive(Clone, Debug)]
pub struct Model(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    description: Description,
    basis: Basis,
    sidecar: Arc<Bytes>,
    /// What error messages call the artifact.
    place: String,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// In u64 units, so that every element type is aligned.
    Owned(Box<[u64]>, usize),
    Borrowed(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(words, len) => &bytemuck::cast_slice(words)[..*len],
            Self::Borrowed(bytes) => bytes,
        }
    }
}

/// A basis tensor's elements, in the mapping.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Model {
    /// Opens `path` (`name.onnx`) and the sidecar beside it, which is mapped, not read.
    ///
    /// Errors: IO for a file that is missing or cannot be mapped, BAD_ARTIFACT naming file and
    /// field, UNSUPPORTED for a newer format.
    pub fn open(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        let path = path.as_ref();
        let description = Description::parse(&read(path)?).map_err(|e| e.at(path.display()))?;
        let sidecar_path = path.with_file_name(&description.sidecar_name);
        let sidecar = if options.copy {
            copy(&sidecar_path, options)?
        } else {
            map(&sidecar_path)?
        };
        let place = path.display().to_string();
        Self::assemble(description, sidecar, place, options)
            .map_err(|e| e.at(sidecar_path.display()))
    }

    /// An artifact in memory: the bytes of `name.onnx`, which are not kept, and those of its
    /// sidecar, which are used in place.
    ///
    /// Errors: as [`Model::open`]; INVALID_ARGUMENT unless `sidecar` begins at a multiple of 8
    /// bytes.
    pub fn from_static(
        onnx: &[u8],
        sidecar: &'static [u8],
        options: &ModelOptions,
    ) -> Result<Self> {
        let description = Description::parse(onnx).map_err(|e| e.at("artifact in memory"))?;
        let sidecar = if options.copy {
            owned(sidecar.len(), options, |bytes| {
                bytes.copy_from_slice(sidecar);
                Ok(())
            })?
        } else if sidecar.as_ptr().align_offset(align_of::<u64>()) != 0 {
            return Err(Error::argument(
                "the sidecar's memory does not begin at a multiple of 8 bytes; align it or set copy",
            ));
        } else {
            Bytes::Borrowed(sidecar)
        };
        Self::assemble(description, sidecar, "artifact in memory".into(), options)
            .map_err(|e| e.at("sidecar in memory"))
    }

    fn assemble(
        description: Description,
        sidecar: Bytes,
        place: String,
        options: &ModelOptions,
    ) -> Result<Self> {
        let basis = description.basis(sidecar.as_slice())?;
        if options.verify {
            verify(sidecar.as_slice(), &description.metadata.sidecar_sha256)?;
        }
        Ok(Self(Arc::new(Inner {
            description,
            basis,
            sidecar: Arc::new(sidecar),
            place,
        })))
    }

    /// The velocity network without the basis: the networks of this model are the latents, each one
    /// tensor, that the others decode from.
    ///
    /// Errors: none that an opened model could have.
    pub fn latents(&self) -> Result<Self> {
        let mut description = self.0.description.clone();
        let tensor = (
            "latent".to_owned(),
            vec![description.latent],
            DType::F32,
            TensorKind::Parameter,
        );
        description.metadata.layout = Layout::pack([tensor])?;
        description.metadata.basis = BasisKind::Identity;
        Ok(Self(Arc::new(Inner {
            description,
            basis: Basis::Identity,
            sidecar: self.0.sidecar.clone(),
            place: self.0.place.clone(),
        })))
    }

    /// What the artifact says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.0.description.metadata
    }

    /// Length of a latent vector.
    pub fn latent(&self) -> usize {
        self.0.description.latent
    }

    /// Length of a condition vector; 0 if the artifact takes none.
    pub(crate) fn condition_size(&self) -> usize {
        self.metadata().condition.as_ref().map_or(0, |c| c.size())
    }

    /// The sidecar's bare file name.
    pub fn sidecar_name(&self) -> &str {
        &self.0.description.sidecar_name
    }

    pub(crate) fn description(&self) -> &Description {
        &self.0.description
    }

    pub(crate) fn basis(&self) -> &Basis {
        &self.0.basis
    }

    pub(crate) fn sidecar(&self) -> &[u8] {
        self.0.sidecar.as_slice()
    }

    pub(crate) fn place(&self) -> &str {
        &self.0.place
    }

    pub(crate) fn floats(&self, view: &View) -> Floats<'_> {
        let bytes = &self.sidecar()[view.bytes.clone()];
        match view.float {
            Float::F32 => Floats::F32(bytemuck::cast_slice(bytes)),
            Float::F16 => Floats::F16(bytemuck::cast_slice(bytes)),
        }
    }
}

fn io_error(path: &Path, action: &str, e: &std::io::Error) -> Error {
    let hint = match e.kind() {
        std::io::ErrorKind::NotFound => "; an artifact is two files that stay together",
        _ => "",
    };
    Error::new(
        Status::Io,
        format!("{}: cannot {action}: {e}{hint}", path.display()),
    )
}

fn open_file(path: &Path) -> Result<(File, u64)> {
    // Asked before opening, which would wait for the other end of a pipe.
    let metadata = path.metadata().map_err(|e| io_error(path, "open", &e))?;
    if metadata.is_file() {
        let file = File::open(path).map_err(|e| io_error(path, "open", &e))?;
        return Ok((file, metadata.len()));
    }
    Err(Error::new(
        Status::Io,
        format!("{}: not a regular file", path.display()),
    ))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = open_file(path)?;
    let mut bytes = Vec::new();
    // A byte more than may be, which parsing then refuses.
    file.take(MAX_ONNX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| io_error(path, "read", &e))?;
    Ok(bytes)
}

fn map(path: &Path) -> Result<Bytes> {
    let (file, _) = open_file(path)?;
    // SAFETY: the mapping is private and read-only. A file that is truncated while mapped is the
    // one hazard left; it is documented, and `copy` avoids it.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| io_error(path, "map", &e))?;
    Ok(Bytes::Mapped(map))
}

fn copy(path: &Path, options: &ModelOptions) -> Result<Bytes> {
    let (mut file, len) = open_file(path)?;
    let len = usize::try_from(len).map_err(|_| out_of_memory(usize::MAX))?;
    owned(len, options, |bytes| {
        file.read_exact(bytes)
            .map_err(|e| io_error(path, "read", &e))
    })
}

fn owned(
    len: usize,
    options: &ModelOptions,
    fill: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<Bytes> {
    let limit = match options.memory_limit {
        0 => DEFAULT_MEMORY,
        limit => limit,
    };
    if len as u64 > limit {
        return Err(Error::new(
            Status::OutOfMemory,
            format!(
                "a copy of the sidecar takes {len} bytes, more than the {limit} of memory_limit; \
                 raise it, or map the file"
            ),
        ));
    }
    let mut buffer = zeros::<u64>(len.div_ceil(size_of::<u64>()), 1)?;
    fill(&mut bytemuck::cast_slice_mut(&mut buffer)[..len])?;
    Ok(Bytes::Owned(buffer, len))
}

fn verify(sidecar: &[u8], expected: &str) -> Result<()> {
    let found = hex(&Sha256::digest(sidecar));
    if found == expected {
        return Ok(());
    }
    Err(Error::artifact(format!(
        "its SHA-256 is {found}, but the .onnx expects {expected}; the file is damaged, copy it \
         again"
    )))
}
