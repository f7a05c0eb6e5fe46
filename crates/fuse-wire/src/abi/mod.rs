//! The structures of `linux/fuse.h`, byte for byte.
//!
//! Each is named as there, in camel case and without the prefix. Padding and reserved fields are
//! public so that a value can be built with `..Default::default()`; senders leave them zero and
//! receivers ignore them. Times are seconds (`u64`, to be read as `i64`) and nanoseconds.

/// Declares a structure of the wire: C layout, no padding of the compiler's, any bytes are a value.
macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
        }
    };
}

mod attr;
mod dir;
mod header;
mod init;
mod io;
mod lock;
mod mapping;
mod namespace;
mod notify;
mod open;
mod xattr;

pub use attr::*;
pub use dir::*;
pub use header::*;
pub use init::*;
pub use io::*;
pub use lock::*;
pub use mapping::*;
pub use namespace::*;
pub use notify::*;
pub use open::*;
pub use xattr::*;
