//! SETUPMAPPING and REMOVEMAPPING: what is asked of a DAX window is checked here.

use fuse_wire::abi::SetupmappingIn;
use fuse_wire::flags::{InitFlags, MappingFlags};
use fuse_wire::{Errno, MappingList, Reply};

use super::{Answer, Call, Failure, Room, check_range};
use crate::{DaxWindow, Error, FileSystem, Mapping};

pub(super) fn setup<F: FileSystem>(
    call: &Call<'_, F>,
    args: &SetupmappingIn,
    room: &mut Room<'_>,
) -> Answer {
    let window = window_of(call)?;
    let &SetupmappingIn {
        foffset: file_offset,
        len,
        flags,
        moffset: offset,
        ..
    } = args;
    check_part(window, offset, len)?;
    check_range(file_offset, len, Errno::EINVAL)?;
    let known = MappingFlags::READ | MappingFlags::WRITE;
    if !is_of_pages(file_offset) || !known.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let mapping = Mapping {
        offset,
        len,
        file_offset,
        writable: flags.contains(MappingFlags::WRITE),
    };
    let &Call {
        fs, ref cx, node, ..
    } = call;
    fs.setup_mapping(cx, node, args, &mut |file| Ok(window.map(file, mapping)?))?;
    room.reply(&Reply::Empty)
}

pub(super) fn remove<F: FileSystem>(
    call: &Call<'_, F>,
    ranges: MappingList<'_>,
    room: &mut Room<'_>,
) -> Answer {
    let window = window_of(call)?;
    // All or, for the guest's fault, none.
    for range in ranges.iter() {
        check_part(window, range.moffset, range.len)?;
    }
    for range in ranges.iter() {
        window
            .unmap(range.moffset, range.len)
            .map_err(Error::from)?;
    }
    room.reply(&Reply::Empty)
}

/// The window, if it was agreed to use one and may be waited for.
fn window_of<'a, F>(call: &Call<'a, F>) -> Result<&'a dyn DaxWindow, Failure> {
    let agreed = call.agreement.flags.contains(InitFlags::MAP_ALIGNMENT);
    let window = call.window.filter(|_| agreed).ok_or(Errno::ENOSYS)?;
    match call.cx.may_block() {
        true => Ok(window),
        false => Err(Error::WouldBlock.into()),
    }
}

/// Checks that there is such a part of the window.
fn check_part(window: &dyn DaxWindow, offset: u64, len: u64) -> Result<(), Failure> {
    let end = offset.checked_add(len);
    let is_inside = len > 0 && end.is_some_and(|end| end <= window.size());
    match is_inside && is_of_pages(offset) && is_of_pages(len) {
        true => Ok(()),
        false => Err(Errno::EINVAL.into()),
    }
}

fn is_of_pages(bytes: u64) -> bool {
    bytes.is_multiple_of(rustix::param::page_size() as u64)
}
