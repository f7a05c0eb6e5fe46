use std::collections::BTreeMap;
use std::ops::Range;

use fuse_wire::Errno;

use super::budget::{Budget, bytes};

/// Bytes in a block: the unit in which a file's data takes up memory.
pub(super) const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;
static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// The data of a file: the blocks that were written or allocated, and holes between them.
///
/// What a block holds beyond the end of the file is zero.
#[derive(Debug, Default)]
pub(super) struct FileData {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK_LEN]>>,
}

impl FileData {
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of memory that the blocks take up.
    pub(super) fn allocated(&self) -> u64 {
        bytes(self.blocks.len()).saturating_mul(BLOCK)
    }

    /// Hands up to `len` bytes from `offset` on to `out`, piece by piece, until `out` takes less
    /// than it is given, and returns how many it took.
    pub(super) fn read(
        &self,
        offset: u64,
        len: usize,
        mut out: impl FnMut(&[u8]) -> usize,
    ) -> usize {
        let end = offset.saturating_add(bytes(len)).min(self.size);
        let mut done = 0_usize;
        for (block, part) in parts(offset..end) {
            let data = self.blocks.get(&block).map_or(&ZEROS, |data| &**data);
            let piece = data.get(part).unwrap_or_default();
            let taken = out(piece);
            done = done.saturating_add(taken);
            if taken < piece.len() {
                break;
            }
        }
        done
    }

    /// Fills `range`, piece by piece, with what `fill` puts there. The file grows where it was
    /// shorter.
    ///
    /// # Errors
    /// ENOSPC; nothing has changed then.
    pub(super) fn write(
        &mut self,
        range: Range<u64>,
        budget: &mut Budget,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<(), Errno> {
        self.allocate(range.clone(), budget)?;
        for (block, part) in parts(range.clone()) {
            if let Some(data) = self.blocks.get_mut(&block) {
                fill(data.get_mut(part).unwrap_or_default());
            }
        }
        self.grow(range.end);
        Ok(())
    }

    /// Makes sure that `range` has blocks. The size stays.
    ///
    /// # Errors
    /// ENOSPC; nothing has changed then.
    pub(super) fn allocate(&mut self, range: Range<u64>, budget: &mut Budget) -> Result<(), Errno> {
        let blocks = covering(&range);
        let wanted = blocks.end.saturating_sub(blocks.start);
        // Before the blocks are counted, so that an absurd range costs nothing.
        let most = budget.limit().checked_div(BLOCK).unwrap_or(0);
        if wanted > most {
            return Err(Errno::ENOSPC);
        }
        let there = bytes(self.blocks.range(blocks.clone()).count());
        budget.take(wanted.saturating_sub(there).saturating_mul(BLOCK))?;
        for block in blocks {
            self.blocks
                .entry(block)
                .or_insert_with(|| Box::new([0; BLOCK_LEN]));
        }
        Ok(())
    }

    /// Zeroes `range` and gives the blocks that lie in it wholly back. The size stays.
    pub(super) fn punch(&mut self, range: Range<u64>, budget: &mut Budget) {
        let inside = range.start.div_ceil(BLOCK)..block_of(range.end);
        if !inside.is_empty() {
            self.drop_blocks(inside.clone(), budget);
        }
        let (head, tail) = if inside.is_empty() {
            (range.clone(), range.end..range.end)
        } else {
            let start = inside.start.saturating_mul(BLOCK);
            let end = inside.end.saturating_mul(BLOCK);
            (range.start..start, end..range.end)
        };
        self.zero(head);
        self.zero(tail);
    }

    /// Cuts the file off or lets it grow by a hole.
    pub(super) fn set_size(&mut self, size: u64, budget: &mut Budget) {
        if size < self.size {
            let first_unused = size.div_ceil(BLOCK);
            self.drop_blocks(first_unused..u64::MAX, budget);
            self.zero(size..first_unused.saturating_mul(BLOCK));
        }
        self.size = size;
    }

    /// Lets the file grow to at least `size`.
    pub(super) fn grow(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// Where data is found from `offset` on (`SEEK_DATA`).
    ///
    /// # Errors
    /// ENXIO where there is none.
    pub(super) fn seek_data(&self, offset: u64) -> Result<u64, Errno> {
        let (block, _) = self
            .blocks
            .range(block_of(offset)..)
            .next()
            .ok_or(Errno::ENXIO)?;
        let found = block.saturating_mul(BLOCK).max(offset);
        if found < self.size {
            Ok(found)
        } else {
            Err(Errno::ENXIO)
        }
    }

    /// Where a hole is found from `offset` on (`SEEK_HOLE`): at the end of the file, if nowhere
    /// before.
    ///
    /// # Errors
    /// ENXIO beyond the end of the file.
    pub(super) fn seek_hole(&self, offset: u64) -> Result<u64, Errno> {
        if offset >= self.size {
            return Err(Errno::ENXIO);
        }
        let mut hole = block_of(offset);
        for (&block, _) in self.blocks.range(hole..) {
            if block != hole {
                break;
            }
            hole = hole.saturating_add(1);
        }
        Ok(hole.saturating_mul(BLOCK).clamp(offset, self.size))
    }

    fn drop_blocks(&mut self, blocks: Range<u64>, budget: &mut Budget) {
        let dropped = self.blocks.extract_if(blocks, |_, _| true).count();
        budget.give_back(bytes(dropped).saturating_mul(BLOCK));
    }

    /// Zeroes what `range` has of blocks. The caller bounds it.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        for (block, part) in parts(range) {
            if let Some(data) = self.blocks.get_mut(&block) {
                data.get_mut(part).unwrap_or_default().fill(0);
            }
        }
    }
}

/// The block that holds the byte at `offset`.
const fn block_of(offset: u64) -> u64 {
    match offset.checked_div(BLOCK) {
        Some(block) => block,
        None => 0,
    }
}

/// The blocks of which `range` covers at least a byte.
fn covering(range: &Range<u64>) -> Range<u64> {
    if range.is_empty() {
        return 0..0;
    }
    block_of(range.start)..range.end.div_ceil(BLOCK)
}

/// What `range` covers, block by block: the block and the bytes of it.
fn parts(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let start_of = |block: u64| block.saturating_mul(BLOCK);
    covering(&range).map(move |block| {
        let within = |offset: u64| {
            let len = offset.saturating_sub(start_of(block)).min(BLOCK);
            usize::try_from(len).unwrap_or(BLOCK_LEN)
        };
        (block, within(range.start)..within(range.end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(data: &FileData) -> Vec<u8> {
        let mut out = Vec::new();
        let len = usize::try_from(data.size()).unwrap();
        data.read(0, len, |piece| {
            out.extend_from_slice(piece);
            piece.len()
        });
        out
    }

    fn write(data: &mut FileData, offset: u64, text: &[u8], budget: &mut Budget) {
        let mut rest = text;
        data.write(offset..offset + bytes(text.len()), budget, |piece| {
            let (now, later) = rest.split_at(piece.len());
            piece.copy_from_slice(now);
            rest = later;
        })
        .unwrap();
    }

    #[test]
    fn a_range_is_cut_at_blocks() {
        let all: Vec<_> = parts(4090..8200).collect();
        assert_eq!(all, [(0, 4090..4096), (1, 0..4096), (2, 0..8)]);
        assert_eq!(parts(5..5).count(), 0);
        assert_eq!(parts(0..4096).collect::<Vec<_>>(), [(0, 0..4096)]);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut budget = Budget::new(1 << 20);
        let mut data = FileData::default();
        write(&mut data, 4000, &[7; 200], &mut budget);
        data.set_size(4050, &mut budget);
        data.set_size(4200, &mut budget);
        let mut expected = vec![0; 4200];
        expected[4000..4050].fill(7);
        assert_eq!(contents(&data), expected);
    }

    #[test]
    fn holes_cost_nothing_and_are_found() {
        let mut budget = Budget::new(4 * BLOCK);
        let mut data = FileData::default();
        let far = 1 << 60;
        write(&mut data, far, b"x", &mut budget);
        assert_eq!(data.allocated(), BLOCK);
        assert_eq!(data.seek_data(0), Ok(far));
        assert_eq!(data.seek_hole(0), Ok(0));
        assert_eq!(data.seek_hole(far), Ok(far + 1));
        assert_eq!(data.seek_data(far + 1), Err(Errno::ENXIO));
        data.punch(0..far + 1, &mut budget);
        assert_eq!(data.seek_data(0), Ok(far), "a part of a block stays");
        data.set_size(0, &mut budget);
        assert_eq!(budget.left(), 4 * BLOCK);
    }

    #[test]
    fn a_range_that_is_too_large_changes_nothing() {
        let mut budget = Budget::new(4 * BLOCK);
        let mut data = FileData::default();
        for range in [0..5 * BLOCK, 1..4 * BLOCK + 1, 0..u64::MAX] {
            assert_eq!(data.allocate(range, &mut budget), Err(Errno::ENOSPC));
        }
        assert_eq!(budget.left(), 4 * BLOCK);
        data.allocate(1..3 * BLOCK, &mut budget).unwrap();
        data.allocate(0..4 * BLOCK, &mut budget).unwrap();
        assert_eq!(budget.left(), 0);
    }
}
