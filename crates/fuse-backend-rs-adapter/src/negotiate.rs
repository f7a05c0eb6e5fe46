use std::io;

use fuse_backend_rs::abi::fuse_abi::FsOptions;
use fuse_backend_rs::api::filesystem::FileSystem;
use fuse_fs::Negotiation;
use fuse_fs::flags::InitFlags;

/// Forms of messages that the session sees to, whether the filesystem asks for them or not.
const OF_THE_SESSION: InitFlags = InitFlags::BIG_WRITES
    .union(InitFlags::MAX_PAGES)
    .union(InitFlags::INIT_EXT);

/// What it is never offered: with ATOMIC_O_TRUNC, a Linux guest asks to truncate before it has checked
/// that it may, and programs that are running lose their text (ETXTBSY); and nothing is mapped into a
/// DAX window.
const WITHHELD: FsOptions = FsOptions::ATOMIC_O_TRUNC.union(FsOptions::MAP_ALIGNMENT);

/// Lets `fs` choose among what is offered. The bits have the same places on both sides, those of
/// the protocol.
///
/// What it does not ask for is off, also where the session would have it on: the filesystem may
/// rely on that. SETXATTR_EXT, SECURITY_CTX and CREATE_SUPP_GROUP are off always: fuse-backend-rs
/// has no names for them, nor parameters for what they bring.
///
/// # Errors
/// Those of the filesystem.
pub(crate) fn init<F: FileSystem>(fs: &F, negotiation: &mut Negotiation) -> io::Result<()> {
    let offered = FsOptions::from_bits_truncate(negotiation.offered.bits());
    let capable = offered.difference(WITHHELD);
    let wanted = fs.init(capable)? & capable;
    let wanted = InitFlags::from_bits_retain(wanted.bits());
    negotiation.enabled = (negotiation.enabled & OF_THE_SESSION) | wanted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuse_fs::abi::InitIn;

    /// Asks for what it says, and remembers nothing.
    struct Asks(FsOptions);

    impl FileSystem for Asks {
        type Inode = u64;
        type Handle = u64;

        fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
            assert!(!capable.contains(FsOptions::WRITEBACK_CACHE));
            assert!(!capable.contains(FsOptions::ATOMIC_O_TRUNC));
            assert!(capable.contains(FsOptions::SUBMOUNTS));
            Ok(self.0)
        }
    }

    #[test]
    fn both_sides_call_the_same_bits_by_the_same_names() {
        for (theirs, ours) in [
            (FsOptions::ATOMIC_O_TRUNC, InitFlags::ATOMIC_O_TRUNC),
            (FsOptions::DO_READDIRPLUS, InitFlags::DO_READDIRPLUS),
            (FsOptions::ZERO_MESSAGE_OPEN, InitFlags::NO_OPEN_SUPPORT),
            (
                FsOptions::ZERO_MESSAGE_OPENDIR,
                InitFlags::NO_OPENDIR_SUPPORT,
            ),
            (
                FsOptions::EXPLICIT_INVAL_DATA,
                InitFlags::EXPLICIT_INVAL_DATA,
            ),
            (FsOptions::SUBMOUNTS, InitFlags::SUBMOUNTS),
            (FsOptions::HANDLE_KILLPRIV_V2, InitFlags::HANDLE_KILLPRIV_V2),
            (FsOptions::INIT_EXT, InitFlags::INIT_EXT),
            (FsOptions::PERFILE_DAX, InitFlags::HAS_INODE_DAX),
            (FsOptions::HAS_RESEND, InitFlags::HAS_RESEND),
        ] {
            assert_eq!(theirs.bits(), ours.bits(), "{ours:?}");
        }
    }

    #[test]
    fn what_was_not_asked_for_and_what_was_not_offered_is_off() {
        let mut offer = InitFlags::all();
        offer.remove(InitFlags::WRITEBACK_CACHE);
        let (flags, flags2) = offer.halves();
        let init_in = InitIn {
            flags,
            flags2,
            ..Default::default()
        };
        let by_itself = InitFlags::AUTO_INVAL_DATA
            | InitFlags::MAX_PAGES
            | InitFlags::SETXATTR_EXT
            | InitFlags::INIT_EXT;
        let mut negotiation = Negotiation::new(&init_in, by_itself);
        let asks = Asks(
            FsOptions::WRITEBACK_CACHE | FsOptions::ATOMIC_O_TRUNC | FsOptions::DO_READDIRPLUS,
        );
        init(&asks, &mut negotiation).unwrap();
        assert_eq!(
            negotiation.enabled,
            InitFlags::MAX_PAGES | InitFlags::INIT_EXT | InitFlags::DO_READDIRPLUS
        );
    }
}
