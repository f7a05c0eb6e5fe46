//! Every message as bytes, written down field by field from `linux/fuse.h`, and as the value that
//! it is.
//!
//! Numbers differ from field to field, so that two that were swapped are noticed.

#![cfg(target_endian = "little")]
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod notifications;
pub(crate) mod replies;
pub(crate) mod requests;

/// A message of integers (`u8` to `i64`, little endian), `s "strings"` (as they are, NUL to be
/// written out) and `z count` (zeros).
macro_rules! bytes {
    (@ $out:ident s $value:expr) => { $out.extend_from_slice(AsRef::<[u8]>::as_ref($value)) };
    (@ $out:ident z $value:expr) => { $out.resize($out.len() + $value, 0) };
    (@ $out:ident $int:ident $value:expr) => {
        $out.extend_from_slice(&{ let value: $int = $value; value }.to_le_bytes())
    };
    ($($kind:ident $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut out = Vec::<u8>::new();
        $(bytes!(@ out $kind $value);)*
        out
    }};
}
pub(crate) use bytes;

/// Puts `len` over the `len` field that every header starts with, as far as there is one.
pub(crate) fn set_len(message: &mut [u8], len: usize) {
    let field = u32::try_from(len).unwrap().to_le_bytes();
    let present = message.len().min(field.len());
    message[..present].copy_from_slice(&field[..present]);
}
