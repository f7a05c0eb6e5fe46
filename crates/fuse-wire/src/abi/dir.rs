use super::EntryOut;

wire_struct! {
    /// One entry of READDIR's reply (`fuse_dirent`, 24 bytes); the name follows without NUL, then
    /// zeros up to a multiple of 8.
    Dirent {
        /// Inode number.
        ino: u64,
        /// Cookie: where to go on after this entry.
        off: u64,
        /// Length of the name in bytes.
        namelen: u32,
        /// `DT_*` of readdir(3).
        dirent_type: u32,
    }
}

wire_struct! {
    /// One entry of READDIRPLUS's reply (`fuse_direntplus`, 152 bytes); the name follows as in
    /// [`Dirent`].
    DirentPlus {
        /// As LOOKUP would have answered; a node id of 0 leaves the entry unlooked.
        entry_out: EntryOut,
        /// The entry.
        dirent: Dirent,
    }
}
