use core::ffi::CStr;

use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Reads a message from front to back and can never read past its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    /// A structure, wherever it is aligned.
    #[inline]
    pub(crate) fn read<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }

    /// A string up to its NUL, which is consumed with it.
    #[inline]
    pub(crate) fn c_str(&mut self) -> Option<&'a CStr> {
        let string = CStr::from_bytes_until_nul(self.rest).ok()?;
        self.take(string.to_bytes_with_nul().len())?;
        Some(string)
    }

    /// All that is left, which leaves nothing.
    #[inline]
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[inline]
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Cuts the last `len` bytes off, to be read on their own.
    #[inline]
    pub(crate) fn split_tail(&mut self, len: usize) -> Option<Self> {
        let at = self.rest.len().checked_sub(len)?;
        let (head, tail) = self.rest.split_at_checked(at)?;
        self.rest = head;
        Some(Self::new(tail))
    }
}
