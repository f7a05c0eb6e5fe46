use std::cell::Cell;
use std::io;

use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Most bytes of a transfer that go through the buffer at once: as many as a WRITE carries, so that
/// each is one system call, as it is to its caller.
const MAX: usize = fuse_fs::Negotiation::MAX_WRITE as usize;

const PAGE: usize = 4096;

/// Aligned as files that are open with O_DIRECT need it.
#[derive(FromBytes, IntoBytes)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);

const _: () = assert!(MAX.is_multiple_of(PAGE));

thread_local! {
    /// What the transfer before has left. It only ever grows, up to [`MAX`].
    static SPARE: Cell<Vec<Page>> = const { Cell::new(Vec::new()) };
}

/// A buffer between a file and a payload, taken from this thread and given back when dropped.
pub(crate) struct Bounce {
    pages: Vec<Page>,
}

impl Bounce {
    pub(crate) fn take() -> Self {
        // A thread that ends, or a transfer within a transfer, starts with none.
        let pages = SPARE.try_with(Cell::take).unwrap_or_default();
        Self { pages }
    }

    /// The first `len` bytes of the buffer, or as many as it can have. What they hold is left over
    /// from before.
    pub(crate) fn front(&mut self, len: usize) -> io::Result<&mut [u8]> {
        let len = len.min(MAX);
        let pages = len.div_ceil(PAGE);
        if self.pages.len() < pages {
            self.pages = Page::new_vec_zeroed(pages.next_power_of_two())
                .map_err(|_| io::ErrorKind::OutOfMemory)?;
        }
        let bytes = self.pages.as_mut_slice().as_mut_bytes();
        bytes
            .get_mut(..len)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        // Where the thread ends there is no next transfer to keep it for.
        let _ = SPARE.try_with(|spare| spare.set(pages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_aligned_bounded_and_used_again() {
        let mut bounce = Bounce::take();
        let address = {
            let front = bounce.front(usize::MAX).unwrap();
            assert_eq!(front.len(), MAX);
            front.as_ptr()
        };
        assert!(address.addr().is_multiple_of(PAGE));
        drop(bounce);
        let mut bounce = Bounce::take();
        assert_eq!(bounce.front(1).unwrap().as_ptr(), address);
        assert_eq!(Bounce::take().front(0).unwrap().len(), 0);
    }
}
