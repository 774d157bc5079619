//! A checkpoint's bytes, read as the trainer reads a file of a zoo.

use dwf::layout::{Layout, TensorKind};
use dwf_trainer_readers::{checkpoint::Checkpoint, network::Network};

/// Elements of a tensor that is read.
const MOST: usize = 1 << 16;

/// Reads every tensor, and makes of their names and shapes what a zoo makes.
pub fn read(extension: &str, bytes: &[u8]) {
    let path = crate::file(format!("net.{extension}"), bytes);
    let Ok(checkpoint) = Checkpoint::open(&path) else {
        return;
    };
    let signatures = checkpoint.signatures();
    for tensor in signatures {
        let mut dims = tensor.shape.iter();
        let count = dims.try_fold(1usize, |count, dim| count.checked_mul(*dim));
        let Some(count) = count.filter(|count| *count <= MOST) else {
            continue;
        };
        // What is not in the file would stay as it was.
        let [first, second] = [1f32, 2.0].map(|before| {
            let mut values = vec![before; count];
            checkpoint.read(&tensor.name, &mut values).map(|()| values)
        });
        assert_eq!(first.is_ok(), second.is_ok());
        if let (Ok(first), Ok(second)) = (first, second) {
            assert_eq!(first, second, "{}", tensor.name);
        }
    }
    let _ = Network::mlp(signatures);
    let _ = Layout::pack(signatures.iter().map(|tensor| {
        (
            tensor.name.clone(),
            tensor.shape.clone(),
            tensor.dtype,
            TensorKind::Parameter,
        )
    }));
}
