//! The C ABI: its functions in any order with any arguments that the header's conventions allow:
//! pointers lead to as much memory as they say or are NULL, handles are alive or NULL.

#![no_main]

use std::{
    ffi::{CString, c_char, c_void},
    ptr::{null, null_mut},
    sync::LazyLock,
};

use arbitrary::{Result, Unstructured};
use dwf::{capi::*, metadata::BasisKind};
use dwf_fuzz::artifact::Artifact;
use prost::Message;

/// Bytes at a multiple of 8.
fn aligned(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    words
}

struct Pair {
    path: CString,
    onnx: Vec<u8>,
    sidecar: Vec<u64>,
    sidecar_len: usize,
}

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("dwf-fuzz-abi-{}", std::process::id()));
    let bases = [BasisKind::Linear, BasisKind::Diagonal, BasisKind::Identity];
    let pairs = bases.iter().map(|basis| {
        let artifact: Artifact = dwf_fuzz::small(*basis);
        let folder = folder.join(format!("{basis:?}"));
        std::fs::create_dir_all(&folder).unwrap();
        let path = artifact.write(&folder);
        Pair {
            path: CString::new(path.to_str().unwrap()).unwrap(),
            onnx: artifact.onnx.encode_to_vec(),
            sidecar: aligned(&artifact.sidecar),
            sidecar_len: artifact.sidecar.len(),
        }
    });
    pairs.collect()
});

/// Any bytes as a struct whose first field is its size: shorter, equal, longer, or absurd.
struct Struct {
    words: Vec<u64>,
}

impl Struct {
    fn new(u: &mut Unstructured, known: usize) -> Result<Self> {
        let size = match u.arbitrary::<u8>()? % 8 {
            0 => 8,
            1 => known + 16,
            2 => usize::from(u.arbitrary::<u8>()?).max(8),
            // Refused before anything behind it is read.
            3 => [0, 7, 4097, usize::MAX][usize::from(u.arbitrary::<u8>()? % 4)],
            _ => known,
        };
        let held = if (8..=4096).contains(&size) { size } else { 8 };
        let mut bytes = vec![0u8; held];
        // Mostly zeros, which mean the default: else nothing is ever accepted.
        for _ in 0..u.arbitrary::<u8>()? % 6 {
            let at = usize::from(u.arbitrary::<u8>()?) % held;
            bytes[at] = u.arbitrary()?;
        }
        let mut words = aligned(&bytes);
        words[0] = size as u64;
        Ok(Self { words })
    }

    /// Puts a field where the struct reaches that far.
    fn set<T>(&mut self, offset: usize, value: T) {
        if offset + size_of::<T>() <= self.words.len() * 8 {
            // SAFETY: it fits.
            unsafe {
                let at = self.words.as_mut_ptr().cast::<u8>().add(offset);
                at.cast::<T>().write_unaligned(value);
            }
        }
    }

    fn get<T: Copy>(&self, offset: usize, default: T) -> T {
        if offset + size_of::<T>() > self.size() {
            return default;
        }
        // SAFETY: it lies within.
        unsafe {
            self.words
                .as_ptr()
                .cast::<u8>()
                .add(offset)
                .cast::<T>()
                .read_unaligned()
        }
    }

    fn size(&self) -> usize {
        (self.words[0] as usize).min(self.words.len() * 8)
    }

    fn ptr<T>(&mut self) -> *mut T {
        self.words.as_mut_ptr().cast()
    }
}

/// NULL now and then.
fn or_null<T>(u: &mut Unstructured, pointer: *mut T) -> Result<*mut T> {
    Ok(if u.arbitrary::<u8>()? % 16 == 0 {
        null_mut()
    } else {
        pointer
    })
}

#[derive(Default)]
struct Handles {
    models: Vec<*mut dwf_model>,
    samplers: Vec<*mut dwf_sampler>,
}

fn one<T>(u: &mut Unstructured, handles: &[*mut T]) -> Result<*mut T> {
    if handles.is_empty() || u.arbitrary::<u8>()? % 16 == 0 {
        return Ok(null_mut());
    }
    Ok(handles[u.choose_index(handles.len())?])
}

fn take<T>(u: &mut Unstructured, handles: &mut Vec<*mut T>) -> Result<*mut T> {
    if handles.is_empty() {
        return Ok(null_mut());
    }
    let index = u.choose_index(handles.len())?;
    Ok(handles.swap_remove(index))
}

unsafe extern "C" fn progress(user: *mut c_void, done: u64, _: u64) -> i32 {
    // SAFETY: the calls below hand over a u64.
    i32::from(done >= unsafe { *user.cast::<u64>() })
}

unsafe extern "C" fn log(_: *mut c_void, _: u32, message: *const c_char) {
    assert!(!message.is_null());
}

struct Text {
    bytes: Vec<c_char>,
}

impl Text {
    fn new(u: &mut Unstructured) -> Result<Self> {
        let len = usize::from(u.arbitrary::<u8>()?);
        Ok(Self {
            bytes: vec![0x55; len],
        })
    }

    fn check(&self, status: dwf_status) {
        assert!(
            (0..=12).contains(&status) && status != DWF_INTERNAL,
            "status {status}"
        );
        if !self.bytes.is_empty() {
            assert!(self.bytes.contains(&0), "an unterminated text");
            assert_eq!(
                self.bytes[0] == 0,
                status == DWF_OK || self.bytes.len() == 1
            );
        }
    }
}

macro_rules! call {
    ($u:expr, $function:ident, $($argument:expr),*) => {{
        let mut text = Text::new($u)?;
        let (err, cap) = (text.bytes.as_mut_ptr(), text.bytes.len());
        let err = if cap == 0 { null_mut() } else { err };
        // SAFETY: every argument is as the header asks.
        let status = unsafe { $function($($argument,)* err, cap) };
        text.check(status);
        status
    }};
}

fn model_options(u: &mut Unstructured) -> Result<Struct> {
    Struct::new(u, size_of::<dwf_model_options>())
}

fn open(u: &mut Unstructured, handles: &mut Handles) -> Result<()> {
    let pair = &PAIRS[u.choose_index(PAIRS.len())?];
    let mut options = model_options(u)?;
    let options = or_null(u, options.ptr())?;
    let path = or_null(u, pair.path.as_ptr().cast_mut())?;
    let mut model = null_mut();
    let out = or_null(u, &mut model)?;
    let status = call!(u, dwf_model_open, path, options, out);
    assert_eq!(status == DWF_OK, !model.is_null());
    if status == DWF_OK {
        handles.models.push(model);
    }
    Ok(())
}

fn open_memory(u: &mut Unstructured, handles: &mut Handles) -> Result<()> {
    let pair = &PAIRS[u.choose_index(PAIRS.len())?];
    let mut options = model_options(u)?;
    let options = or_null(u, options.ptr())?;
    let onnx_len = pair.onnx.len().min(u.arbitrary::<u16>()?.into());
    let onnx_len = if u.arbitrary::<u8>()? % 4 == 0 {
        onnx_len
    } else {
        pair.onnx.len()
    };
    let onnx = or_null(u, pair.onnx.as_ptr().cast_mut())?;
    let shift = if u.arbitrary::<u8>()? % 8 == 0 { 4 } else { 0 };
    // SAFETY: the sidecar is longer.
    let sidecar = unsafe { pair.sidecar.as_ptr().cast::<u8>().add(shift) };
    let sidecar = or_null(u, sidecar.cast_mut())?;
    let mut model = null_mut();
    let out = or_null(u, &mut model)?;
    let (onnx, sidecar) = (onnx.cast(), sidecar.cast());
    let len = pair.sidecar_len - shift;
    let status = call!(
        u,
        dwf_model_open_memory,
        onnx,
        onnx_len,
        sidecar,
        len,
        options,
        out
    );
    assert_eq!(status == DWF_OK, !model.is_null());
    if status == DWF_OK {
        handles.models.push(model);
    }
    Ok(())
}

fn new_sampler(u: &mut Unstructured, handles: &mut Handles) -> Result<()> {
    let model = one(u, &handles.models)?;
    let mut options = Struct::new(u, size_of::<dwf_sampler_options>())?;
    options.set(
        std::mem::offset_of!(dwf_sampler_options, onnxruntime),
        null::<c_char>(),
    );
    // Threads cost time, and a sampler has few uses for many.
    options.set(
        std::mem::offset_of!(dwf_sampler_options, threads) + 1,
        [0u8; 3],
    );
    options.set(
        std::mem::offset_of!(dwf_sampler_options, threads),
        u.arbitrary::<u8>()? % 4,
    );
    let options = or_null(u, options.ptr())?;
    let mut sampler = null_mut();
    let out = or_null(u, &mut sampler)?;
    let status = call!(u, dwf_sampler_new, model, options, out);
    assert_eq!(status == DWF_OK, !sampler.is_null());
    if status == DWF_OK {
        handles.samplers.push(sampler);
    }
    Ok(())
}

fn info(u: &mut Unstructured, handles: &Handles) -> Result<()> {
    let (model, sampler) = (one(u, &handles.models)?, one(u, &handles.samplers)?);
    let mut info = Struct::new(u, size_of::<dwf_model_info>())?;
    let to = or_null(u, info.ptr())?;
    call!(u, dwf_model_get_info, model, to);
    let mut info = Struct::new(u, size_of::<dwf_tensor_info>())?;
    let to = or_null(u, info.ptr())?;
    let index = usize::from(u.arbitrary::<u8>()? % 4);
    call!(u, dwf_model_get_tensor, model, index, to);
    let mut info = Struct::new(u, size_of::<dwf_sampler_info>())?;
    let to = or_null(u, info.ptr())?;
    call!(u, dwf_sampler_get_info, sampler, to);
    Ok(())
}

fn sample(u: &mut Unstructured, handles: &Handles) -> Result<()> {
    use std::mem::offset_of;
    let sampler = one(u, &handles.samplers)?;
    let mut options = Struct::new(u, size_of::<dwf_sample_options>())?;
    // Few networks with few steps, or so many that they are refused.
    let few = usize::from(u.arbitrary::<u8>()? % 6);
    let count = if u.arbitrary::<u8>()? % 8 == 0 {
        usize::MAX / 3
    } else {
        few
    };
    options.set(offset_of!(dwf_sample_options, count), count);
    let steps = if u.arbitrary::<u8>()? % 8 == 0 {
        u64::MAX
    } else {
        1 + few as u64
    };
    options.set(offset_of!(dwf_sample_options, steps), steps);
    let conditions: Vec<f32> = (0..u.arbitrary::<u8>()? % 16)
        .map(|i| f32::from(i % 2))
        .collect();
    let condition = or_null(u, conditions.as_ptr().cast_mut())?;
    options.set(
        offset_of!(dwf_sample_options, condition),
        condition.cast_const(),
    );
    let rows = usize::from(u.arbitrary::<u8>()?) % (conditions.len() / 2 + 1);
    options.set(offset_of!(dwf_sample_options, condition_rows), rows);
    let mut stop = u64::from(u.arbitrary::<u8>()?);
    let callback: dwf_progress_callback = match u.arbitrary::<u8>()? % 4 {
        0 => Some(progress),
        _ => None,
    };
    options.set(offset_of!(dwf_sample_options, progress), callback);
    options.set(
        offset_of!(dwf_sample_options, progress_user),
        (&raw mut stop).cast::<c_void>(),
    );
    // What the library will believe, where the struct is cut short.
    let count = options.get(offset_of!(dwf_sample_options, count), 0).max(1);

    let mut buffer = Struct::new(u, size_of::<dwf_buffer>())?;
    let mut data = vec![0x55u8; usize::from(u.arbitrary::<u8>()?)];
    let mut scattered: Vec<Vec<u8>> = Vec::new();
    let mut pointers: Vec<*mut c_void> = Vec::new();
    let sizes = [16usize, 4];
    if u.arbitrary::<u8>()? % 4 != 0 || count > 16 {
        let at = or_null(u, data.as_mut_ptr())?;
        buffer.set(offset_of!(dwf_buffer, data), at);
        buffer.set(offset_of!(dwf_buffer, size_bytes), data.len());
        buffer.set(offset_of!(dwf_buffer, tensors), null_mut::<c_void>());
        buffer.set(offset_of!(dwf_buffer, tensor_sizes), null::<usize>());
    } else {
        scattered.extend((0..count * 2).map(|i| vec![0x55; sizes[i % 2]]));
        pointers.extend(
            scattered
                .iter_mut()
                .map(|tensor| tensor.as_mut_ptr().cast::<c_void>()),
        );
        buffer.set(offset_of!(dwf_buffer, data), null_mut::<c_void>());
        buffer.set(offset_of!(dwf_buffer, tensors), pointers.as_ptr());
        buffer.set(offset_of!(dwf_buffer, tensor_sizes), sizes.as_ptr());
        buffer.set(offset_of!(dwf_buffer, tensor_count), 2usize);
    }
    let buffer = or_null(u, buffer.ptr())?;
    let options = or_null(u, options.ptr())?;
    call!(u, dwf_sample, sampler, options, buffer);
    Ok(())
}

fn step(u: &mut Unstructured, handles: &mut Handles) -> Result<()> {
    match u.arbitrary::<u8>()? % 16 {
        0..=2 => open(u, handles),
        3 | 4 => open_memory(u, handles),
        5..=7 => new_sampler(u, handles),
        8 => info(u, handles),
        9 => {
            // SAFETY: the handle is alive or NULL, and forgotten.
            unsafe { dwf_model_free(take(u, &mut handles.models)?) };
            Ok(())
        }
        10 => {
            // SAFETY: as above.
            unsafe { dwf_sampler_free(take(u, &mut handles.samplers)?) };
            Ok(())
        }
        11 => {
            let callback: dwf_log_callback = match u.arbitrary::<bool>()? {
                true => Some(log),
                false => None,
            };
            // SAFETY: the callback needs no user data.
            unsafe { dwf_set_log(callback, null_mut(), u.arbitrary()?) };
            assert!(!dwf_status_name(u.arbitrary()?).is_null() && !dwf_version().is_null());
            Ok(())
        }
        _ => sample(u, handles),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut u = Unstructured::new(bytes);
    let mut handles = Handles::default();
    for _ in 0..24 {
        if u.is_empty() || step(&mut u, &mut handles).is_err() {
            break;
        }
    }
    // Models first, which samplers outlive.
    for model in handles.models {
        // SAFETY: alive, and forgotten.
        unsafe { dwf_model_free(model) };
    }
    for sampler in handles.samplers {
        // SAFETY: as above.
        unsafe { dwf_sampler_free(sampler) };
    }
});
