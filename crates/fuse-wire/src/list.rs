use core::fmt;
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::NodeId;
use crate::abi::{ForgetOne, RemovemappingOne};
use crate::cursor::Cursor;

/// The inodes of a BATCH_FORGET.
pub type ForgetList<'a> = Records<'a, ForgetOne>;
/// The ranges of a REMOVEMAPPING.
pub type MappingList<'a> = Records<'a, RemovemappingOne>;
/// The inodes of a PRUNE notification.
pub type NodeIdList<'a> = Records<'a, NodeId>;

/// A whole number of structures, one after the other, wherever they are aligned.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Records<'a, T> {
    bytes: &'a [u8],
    record: PhantomData<T>,
}

impl<'a, T: FromBytes + Immutable + KnownLayout> Records<'a, T> {
    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        let mut cursor = Cursor::new(self.bytes);
        core::iter::from_fn(move || cursor.read())
    }

    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.bytes.len().checked_div(size_of::<T>()) {
            Some(len) => len,
            None => 0,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The records as they travel.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Exactly `count` records.
    #[inline]
    pub(crate) fn read(cursor: &mut Cursor<'a>, count: u32) -> Option<Self> {
        let len = usize::try_from(count).ok()?.checked_mul(size_of::<T>())?;
        Some(Self {
            bytes: cursor.take(len)?,
            record: PhantomData,
        })
    }
}

impl<'a, T: IntoBytes + Immutable> From<&'a [T]> for Records<'a, T> {
    fn from(records: &'a [T]) -> Self {
        Self {
            bytes: records.as_bytes(),
            record: PhantomData,
        }
    }
}

impl<T: FromBytes + Immutable + KnownLayout + fmt::Debug> fmt::Debug for Records<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
