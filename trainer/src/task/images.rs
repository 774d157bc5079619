//! Images that the user has: MNIST, Fashion-MNIST, CIFAR.

use super::classification::SPLIT_STREAM;
use crate::{
    dataset::{Images, Splits},
    random::Random,
};

/// Part of the training images that is kept for validation.
const VALIDATION: f64 = 0.1;

/// The published test images as the test part; the training images less a validation part.
pub fn splits(images: Images, seed: u64) -> Splits {
    let mut random = Random::new(seed, SPLIT_STREAM);
    let split = images.training.split([VALIDATION, 0.0], &mut random);
    Splits {
        test: images.test,
        ..split
    }
}
