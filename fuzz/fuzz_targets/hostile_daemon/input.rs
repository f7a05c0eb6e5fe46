/// The fuzzer's bytes, taken from the front. There are zeros behind their end.
#[derive(Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// Whether a byte is odd.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// Any number of which no more than two bytes matter: which two says a byte.
    pub(crate) fn long(&mut self) -> u64 {
        let shift = self.byte();
        u64::from(u16::from_le_bytes(self.array())).rotate_left(shift.into())
    }

    /// As many bytes as a byte says.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let count = N.min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        array[..count].copy_from_slice(bytes);
        self.0 = rest;
        array
    }
}
