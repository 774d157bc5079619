//! The IDX format of MNIST and Fashion-MNIST: a big-endian header (two zero bytes, the element
//! type, the number of dimensions, each dimension in 4 bytes), then the elements.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

use super::{Dataset, Images};
use crate::{
    classifier::Image,
    error::{Result, invalid, io},
};

/// Element type of unsigned bytes.
const BYTES: u8 = 8;

/// Training images and labels, test images and labels.
pub(super) type Files = [PathBuf; 4];

/// The files of a set in `folder`, `None` if its first is not there.
///
/// Errors: INVALID_ARGUMENT naming a file that is missing beside the first.
pub(super) fn find(folder: &Path) -> Result<Option<Files>> {
    let names = [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ];
    let found = names.map(|name| {
        [
            name.to_owned(),
            format!("{name}.gz"),
            name.replace("-idx", ".idx"),
        ]
        .map(|name| folder.join(name))
        .into_iter()
        .find(|path| path.exists())
    });
    if found[0].is_none() {
        return Ok(None);
    }
    for (name, found) in names.iter().zip(&found) {
        if found.is_none() {
            return Err(invalid(format!(
                "'{}' has training images, but no {name} or {name}.gz beside them",
                folder.display()
            )));
        }
    }
    Ok(Some(found.map(|path| path.expect("checked above"))))
}

pub(super) fn read(files: &Files) -> Result<Images> {
    let (image, training) = part(&files[0], &files[1])?;
    let (other, test) = part(&files[2], &files[3])?;
    if image != other {
        return Err(invalid(format!(
            "'{}' and '{}' hold images of different sizes",
            files[0].display(),
            files[2].display()
        )));
    }
    Ok(Images::new(image, training, test))
}

fn part(images: &Path, labels: &Path) -> Result<(Image, Dataset)> {
    let (sizes, pixels) = elements::<3>(images)?;
    let ([count], classes) = elements::<1>(labels)?;
    if sizes[0] != count {
        return Err(invalid(format!(
            "'{}' has {} images and '{}' {count} labels",
            images.display(),
            sizes[0],
            labels.display()
        )));
    }
    let image = Image {
        channels: 1,
        height: sizes[1],
        width: sizes[2],
    };
    let classes = classes.into_iter().map(usize::from).collect();
    Ok((image, Dataset::from_pixels(image, &pixels, classes)))
}

/// The sizes and bytes of a file of `D` dimensions.
fn elements<const D: usize>(path: &Path) -> Result<([usize; D], Vec<u8>)> {
    let file = fs::read(path).map_err(io("read", path))?;
    let bytes = match path.extension() {
        Some(extension) if extension == "gz" => {
            let mut bytes = Vec::new();
            GzDecoder::new(&file[..])
                .read_to_end(&mut bytes)
                .map_err(io("decompress", path))?;
            bytes
        }
        _ => file,
    };
    let fail = |what: String| Err(invalid(format!("'{}': {what}", path.display())));
    let start = 4 + 4 * D;
    if bytes.len() < start || bytes[..4] != [0, 0, BYTES, D as u8] {
        return fail(format!("not an IDX file of bytes in {D} dimensions"));
    }
    let sizes: [usize; D] = std::array::from_fn(|i| {
        let size = &bytes[4 + 4 * i..][..4];
        u32::from_be_bytes(size.try_into().expect("four bytes")) as usize
    });
    let product = sizes
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size));
    if product != Some(bytes.len() - start) || product == Some(0) {
        return fail(format!(
            "its header says {sizes:?} elements, and {} follow; download it again",
            bytes.len() - start
        ));
    }
    Ok((sizes, bytes[start..].to_vec()))
}
