//! The binary versions of CIFAR-10 and CIFAR-100: a record is the label (in CIFAR-100 the coarse,
//! then the fine one) and 3072 bytes, 32x32 pixels of red, then of green, then of blue.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Dataset, Images};
use crate::{
    classifier::Image,
    error::{Result, invalid, io},
};

const IMAGE: Image = Image {
    channels: 3,
    height: 32,
    width: 32,
};
/// Classes by how many labels a record has.
const CLASSES: [usize; 2] = [10, 100];

/// The files of a set.
pub(super) struct Files {
    training: Vec<PathBuf>,
    test: PathBuf,
    /// Bytes before the pixels, the last of which is the class.
    labels: usize,
}

pub(super) fn find(folder: &Path) -> Option<Files> {
    let training: Vec<PathBuf> = (1..=5)
        .map(|i| folder.join(format!("data_batch_{i}.bin")))
        .filter(|path| path.exists())
        .collect();
    if !training.is_empty() {
        let test = folder.join("test_batch.bin");
        return Some(Files {
            training,
            test,
            labels: 1,
        });
    }
    let training = folder.join("train.bin");
    training.exists().then(|| Files {
        training: vec![training],
        test: folder.join("test.bin"),
        labels: 2,
    })
}

pub(super) fn read(files: &Files) -> Result<Images> {
    let training = part(&files.training, files.labels)?;
    let test = part(std::slice::from_ref(&files.test), files.labels)?;
    Ok(Images::new(IMAGE, training, test))
}

fn part(files: &[PathBuf], labels: usize) -> Result<Dataset> {
    let record = labels + IMAGE.len();
    let (mut pixels, mut classes) = (Vec::new(), Vec::new());
    for path in files {
        let bytes = fs::read(path).map_err(io("read", path))?;
        if bytes.is_empty() || bytes.len() % record != 0 {
            return Err(invalid(format!(
                "'{}' has {} bytes, and a record of the binary version has {record}; download it \
                 again",
                path.display(),
                bytes.len()
            )));
        }
        for record in bytes.chunks_exact(record) {
            let class = usize::from(record[labels - 1]);
            if class >= CLASSES[labels - 1] {
                return Err(invalid(format!(
                    "'{}' has a label {class}, and there are {} classes; download it again",
                    path.display(),
                    CLASSES[labels - 1]
                )));
            }
            classes.push(class);
            pixels.extend_from_slice(&record[labels..]);
        }
    }
    Ok(Dataset::from_pixels(IMAGE, &pixels, classes))
}
