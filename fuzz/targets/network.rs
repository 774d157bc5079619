//! The bytes of a `network.onnx`, read alone.

#![no_main]

use dwf_trainer_readers::{checkpoint::Signature, network::Network};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = dwf_fuzz::file("network.onnx", bytes);
    let Ok(network) = Network::read_alone(&path) else {
        return;
    };
    network.batch_norms();
    // Its own tensors describe it again.
    let tensors = network.layout().tensors().iter().map(|tensor| Signature {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        dtype: tensor.dtype,
    });
    let again = Network::read(&path, &tensors.collect::<Vec<_>>()).unwrap();
    assert_eq!(again.layout(), network.layout());
});
