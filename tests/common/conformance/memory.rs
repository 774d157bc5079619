//! A case's output memory, every byte of it known before the call.

use super::Case;

/// What every byte is before the call.
const UNTOUCHED: u32 = 0x5555_5555;

/// One block, or one a tensor of each network.
#[derive(Debug)]
pub struct Memory {
    pub blocks: Vec<Block>,
}

/// Bytes at an address that suits every element type.
#[derive(Debug)]
pub struct Block {
    words: Vec<u32>,
    pub size: usize,
}

impl Memory {
    /// The memory that `case` asks for; `tensors` are the lengths of a network's tensors.
    pub fn new(case: &Case, tensors: &[usize]) -> Self {
        let element = case.buffer.dtype.size();
        let count = case.options.count();
        let sizes = if case.buffer.scatter {
            let network = tensors.iter().map(|len| len * element);
            network.collect::<Vec<_>>().repeat(count)
        } else {
            let weights = tensors.iter().sum();
            let stride = case.buffer.row_stride.unwrap_or(weights);
            let needed = ((count - 1) * stride + weights) * element;
            vec![case.buffer.size_bytes.unwrap_or(needed)]
        };
        Self {
            blocks: sizes.into_iter().map(Block::new).collect(),
        }
    }

    pub fn pointers(&mut self) -> Vec<*mut u8> {
        self.blocks.iter_mut().map(Block::pointer).collect()
    }

    /// All blocks' bytes, one after the other.
    pub fn bytes(&self) -> Vec<u8> {
        self.blocks.iter().flat_map(Block::bytes).collect()
    }

    pub fn is_untouched(&self) -> bool {
        let mut words = self.blocks.iter().flat_map(|block| &block.words);
        words.all(|word| *word == UNTOUCHED)
    }
}

impl Block {
    fn new(size: usize) -> Self {
        let words = vec![UNTOUCHED; size.div_ceil(size_of::<u32>())];
        Self { words, size }
    }

    pub fn pointer(&mut self) -> *mut u8 {
        self.words.as_mut_ptr().cast()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.take(self.size)
    }
}
