use std::io;

use virtio_fs_device::Tag;

/// Why there is no function, or why it cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that a function's memory cannot have.
    #[error("{what} cannot be at {address:#x}, which is no multiple of its size")]
    Address {
        /// What was to be there.
        what: &'static str,
        /// Where.
        address: u64,
    },
    /// The process has no descriptor left, or the VMM refused something.
    #[error("the device {tag}: cannot {doing}: {source}")]
    Io {
        /// Of the device.
        tag: Tag,
        /// What it was for.
        doing: &'static str,
        /// What the system, or the VMM, says.
        source: io::Error,
    },
    /// The state was saved by a version of this crate that is not known here.
    #[error("the device {tag} was saved as version {version}, which is not known here")]
    Version {
        /// Of the device.
        tag: Tag,
        /// Of the state.
        version: u32,
    },
    /// The state is of another device, or damaged.
    #[error(
        "the device {0} was saved as another one: by a daemon, or with options of the VMM, that \
         differ"
    )]
    Other(Tag),
    /// The device cannot be saved, or restored.
    #[error("the device {tag}: {source}")]
    Device {
        /// Of the device.
        tag: Tag,
        /// What the device says.
        source: virtio_fs_device::Error,
    },
    /// More functions than there is room for.
    #[error("a bus has room for {most} devices, not {wanted}")]
    Full {
        /// As many as there is room for.
        most: usize,
        /// As many as there were to be.
        wanted: usize,
    },
    /// The bus that was saved has another number of functions.
    #[error("there were {saved} devices when the bus was saved, and there are {there}")]
    Functions {
        /// Then.
        saved: usize,
        /// Now.
        there: usize,
    },
}
