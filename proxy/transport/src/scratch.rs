use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Bytes of each buffer: what one turn moves, 64 KiB, and a whole TLS record before it.
pub const SCRATCH_SIZE: usize = 84 * 1024;

/// Buffers that a thread keeps: one poll of a forwarded connection uses up to three.
const KEPT: usize = 4;

thread_local! {
    static BUFFERS: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of the thread's, lent for the time of one poll, so that a connection that waits
/// holds none. What is in it is left over from whoever had it before.
#[derive(Debug)]
pub struct Scratch(Box<[u8]>);

impl Scratch {
    /// Take one.
    #[must_use]
    pub fn lend() -> Self {
        let kept = BUFFERS.with_borrow_mut(Vec::pop);
        Self(kept.unwrap_or_else(|| vec![0; SCRATCH_SIZE].into()))
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // While the thread ends there is nothing to give it back to.
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < KEPT {
                buffers.push(buffer);
            }
        });
    }
}
