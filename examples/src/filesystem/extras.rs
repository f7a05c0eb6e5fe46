use clap::Args;
use passthrough_fs::Extras;

/// What is done besides, where it is asked for.
#[derive(Debug, Args)]
pub(super) struct ExtraOptions {
    /// Let the guest collect writes in its page cache. For a share that nobody else changes
    #[arg(long)]
    writeback: bool,

    /// Let the guest map files shared with --cache=never and --cache=metadata, too; changes that
    /// others make do not show in a mapping
    #[arg(long)]
    allow_mmap: bool,

    /// Bypass the page cache of this host, too, where a program in the guest uses O_DIRECT
    #[arg(long)]
    allow_direct_io: bool,

    /// Honour O_NOATIME. The host allows that for files of this process's user, or with CAP_FOWNER
    #[arg(long)]
    preserve_noatime: bool,

    /// List directories without the attributes of their entries
    #[arg(long)]
    no_readdirplus: bool,

    /// Take POSIX locks (fcntl) on this host, so that they exclude its processes and other guests
    #[arg(long)]
    posix_lock: bool,

    /// Take flock(2) locks on this host, so that they exclude its processes and other guests
    #[arg(long)]
    flock: bool,
}

impl ExtraOptions {
    pub(super) fn chosen(&self) -> Extras {
        let chosen = [
            (self.writeback, Extras::WRITEBACK),
            (self.allow_mmap, Extras::ALLOW_MMAP),
            (self.allow_direct_io, Extras::ALLOW_DIRECT_IO),
            (self.preserve_noatime, Extras::PRESERVE_NOATIME),
            (self.no_readdirplus, Extras::NO_READDIRPLUS),
            (self.posix_lock, Extras::POSIX_LOCK),
            (self.flock, Extras::FLOCK),
        ];
        chosen
            .into_iter()
            .filter_map(|(is_chosen, extra)| is_chosen.then_some(extra))
            .collect()
    }
}
