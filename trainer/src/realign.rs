//! A zoo's folder, aligned into another.

use std::{collections::HashMap, path::Path};

use dwf::runtime::Runtime;

use crate::{
    align::{Reference, Report, align},
    barrier::{self, Barrier},
    canonical::Canonical,
    checkpoint::Checkpoint,
    dataset::{Batches, Dataset},
    error::{Result, Status, invalid},
    files, gauge,
    groups::Groups,
    interrupt, progress,
    work::Work,
    zoo::{Source, Writer, Zoo},
};

/// One is matched to the other.
const LEAST: usize = 2;

/// Aligns the zoo in folder `zoo`, whose architecture is that of the ONNX file `network` or what
/// [`Source::open`] finds, and writes it to the folder `output`: the same tensors under the same
/// names, permuted, and with `canonical` in their [canonical form](crate::canonical); integers as
/// they are. With a file of `data`, the barriers before and after are measured on it.
///
/// Errors: as [`Source::open`], [`Source::read`] and [`align`]; INVALID_ARGUMENT if the output
/// holds anything; CANCELLED when [interrupted](interrupt), or IO: then what was done is kept
/// beside the output.
pub fn realign(
    zoo: &Path,
    network: Option<&Path>,
    output: &Path,
    reference: Reference,
    canonical: bool,
    data: Option<&Path>,
) -> Result<(Report, Option<[Barrier; 2]>)> {
    files::check_empty(output)?;
    Runtime::load(None)?;
    let source = Source::open(zoo, network, LEAST)?;
    if files::lies_in(output, zoo) {
        return Err(invalid(format!(
            "'{}' lies in the zoo's folder, among the networks; choose another place",
            output.display()
        )));
    }
    let groups = Groups::find(&source.network)?;
    groups.warnings().iter().for_each(|w| progress::warn(w));
    check_stems(&source.files)?;
    let network = source.network.clone();
    if canonical && !gauge::is_known(&network, zoo)? {
        return Err(invalid(
            "--canonical depends on what is between the layers, which checkpoints do not say; export \
             the network as ONNX and name it with --network",
        ));
    }
    let canonical = canonical
        .then(|| Canonical::find(&network, &groups, true))
        .transpose()?;
    let data = data.map(Dataset::read).transpose()?;
    let rows = data
        .map(|data| barrier::batches(&network, data))
        .transpose()?;
    let work = Work::open(output)?;
    let how = How {
        groups: &groups,
        canonical: canonical.as_ref(),
        reference,
    };
    let result = with(source, &how, output, rows.as_ref(), &work);
    match &result {
        Err(e) if matches!(e.status(), Status::Cancelled | Status::Io) => (),
        _ => work.finish()?,
    }
    result
}

/// Networks are written under their own names, whatever kind of file they came in.
fn check_stems(files: &[String]) -> Result<()> {
    let stem = |file: &String| Path::new(file).file_stem().map(|stem| stem.to_owned());
    let mut seen = HashMap::new();
    for file in files {
        if let Some(other) = seen.insert(stem(file), file) {
            return Err(invalid(format!(
                "'{other}' and '{file}' would be written to one file; rename one of them"
            )));
        }
    }
    Ok(())
}

/// How to align.
struct How<'a> {
    groups: &'a Groups,
    canonical: Option<&'a Canonical<'a>>,
    reference: Reference,
}

fn with(
    source: Source,
    how: &How<'_>,
    output: &Path,
    rows: Option<&Batches>,
    work: &Work,
) -> Result<(Report, Option<[Barrier; 2]>)> {
    let version = env!("CARGO_PKG_VERSION");
    let key = (
        source.fingerprint(),
        how.reference,
        how.canonical.is_some(),
        version,
    );
    let part = work.part("align", &key)?;
    let folder = source.folder().to_owned();
    let mut zoo = source.read(Some(work.folder()))?;
    let barrier = |zoo: &Zoo| rows.map(|rows| barrier::measure(zoo, rows)).transpose();
    let before = barrier(&zoo)?;
    let resumable = interrupt::resumable();
    let report = align(
        &mut zoo,
        how.groups,
        how.canonical,
        how.reference,
        Some(&part),
    )?;
    drop(resumable);
    let after = barrier(&zoo)?;
    write(&zoo, &folder, output)?;
    Ok((
        report,
        before.zip(after).map(|(before, after)| [before, after]),
    ))
}

/// Writes the networks of the checkpoints in `folder`, with the integers that these have beside
/// their weights.
fn write(zoo: &Zoo, folder: &Path, output: &Path) -> Result<()> {
    let mut writer = Writer::new(output, zoo.layout(), 0)?;
    for (file, network) in zoo.files.iter().zip(zoo.networks()) {
        let stem = Path::new(file).file_stem().unwrap_or_default();
        let integers = Checkpoint::open(&folder.join(file))?.integers()?;
        writer.add_as(&stem.to_string_lossy(), &network, integers)?;
    }
    writer.finish()
}
