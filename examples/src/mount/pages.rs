//! Memory that starts at a page.

/// Bytes in a page, and what O_DIRECT asks memory to be aligned to at most.
pub(super) const PAGE: usize = 4096;

/// A buffer whose first byte is the first of a page.
pub(super) struct Pages {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Pages {
    /// `len` bytes, all zero.
    pub(super) fn new(len: usize) -> Self {
        let memory = vec![0; len + PAGE - 1].into_boxed_slice();
        let start = memory.as_ptr().align_offset(PAGE);
        Self { memory, start, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_at_a_page() {
        for len in [0, 1, PAGE, 3 * PAGE + 1] {
            let mut pages = Pages::new(len);
            let bytes = pages.bytes();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr().addr() % PAGE, 0);
        }
    }
}
