//! Where the allocator of a process is.

use std::ffi::CString;
use std::fs;
use std::io;

use object::{Object, ObjectSegment, ObjectSymbol};

use super::CounterError;

/// What allocates. A `free` has had one of them before.
const FUNCTIONS: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
];

/// The file of a C library.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) path: CString,
    content: Vec<u8>,
}

/// The type of events that are probes of user space.
pub(super) fn uprobe_kind() -> io::Result<u32> {
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    kind.trim().parse().map_err(io::Error::other)
}

/// The C library that the process `id` has mapped.
pub(super) fn find(id: u32) -> Result<Library, CounterError> {
    let read = |path: &str| {
        fs::read(path).map_err(|source| CounterError::Io {
            doing: "read the daemon's memory map or its C library",
            source,
        })
    };
    let maps = read(&format!("/proc/{id}/maps"))?;
    let maps = String::from_utf8_lossy(&maps);
    let path = maps
        .lines()
        .filter_map(path_of_mapping)
        .find(|path| is_c_library(path))
        .ok_or(CounterError::NoAllocator)?;
    Ok(Library {
        content: read(path)?,
        path: CString::new(path).map_err(|_| CounterError::NoAllocator)?,
    })
}

impl Library {
    /// Where in the file the functions begin that allocate, each place once.
    pub(super) fn entry_points(&self) -> Result<Vec<u64>, CounterError> {
        let file = object::File::parse(&*self.content).map_err(CounterError::Library)?;
        let mut offsets: Vec<u64> = file
            .dynamic_symbols()
            .filter(|symbol| symbol.name().is_ok_and(|name| FUNCTIONS.contains(&name)))
            .filter_map(|symbol| offset_in_file(&file, symbol.address()))
            .collect();
        offsets.sort_unstable();
        // Some are other names of the same.
        offsets.dedup();
        if offsets.is_empty() {
            return Err(CounterError::NoAllocator);
        }
        Ok(offsets)
    }
}

fn offset_in_file(file: &object::File<'_>, address: u64) -> Option<u64> {
    file.segments().find_map(|segment| {
        let within = address.checked_sub(segment.address())?;
        let (start, len) = segment.file_range();
        (within < len).then(|| start + within)
    })
}

/// The file behind a line of `/proc/PID/maps` (proc_pid_maps(5)):
/// `7f00-7f01 r-xp 0000 08:01 42   /lib/libc.so.6`.
fn path_of_mapping(line: &str) -> Option<&str> {
    line.find('/').map(|start| &line[start..])
}

fn is_c_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with("libc.so") || (name.starts_with("libc-") && name.ends_with(".so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_known_by_its_name() {
        let line = "7f5c-7f5d r-xp 00028000 fe:00 123    /lib/x86_64-linux-gnu/libc.so.6";
        assert!(path_of_mapping(line).is_some_and(is_c_library));
        for other in ["/usr/lib/libcap-ng.so.0", "/lib/libcrypt.so", "/bin/libc"] {
            assert!(!is_c_library(other), "{other}");
        }
        assert!(is_c_library("/lib/libc-2.31.so"));
        assert_eq!(path_of_mapping("7ffc-7ffd rw-p 0 00:00 0   [stack]"), None);
    }
}
