use std::cell::Cell;
use std::sync::Once;

use fuse_fs::{Context, Errno, Result};
use rustix::fs::Mode;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::fsetid::{self, SuidSgid};
use crate::ids::Ids;
use crate::{PassthroughFs, sys};

/// Most supplementary groups of a caller that count: Linux sends at most one.
const MAX_GROUPS: usize = 16;

/// What a user other than root keeps while creating something. The guest's kernel has checked the
/// permissions already, with groups and capabilities that are not known here; the host shall not
/// check them again. It shall still clear SGID where the caller is not in the group, so CAP_FSETID
/// is not among these; only the guest's root, where that is another user here, keeps it.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::MKNOD);

thread_local! {
    /// The umask of the thread, once it has one, and a working directory, of its own.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
    /// The thread has no supplementary groups.
    static HAS_NO_GROUPS: Cell<bool> = const { Cell::new(false) };
    /// The capabilities that the thread came with.
    static CAPABILITIES: Cell<Option<CapabilitySets>> = const { Cell::new(None) };
}

/// As whom files are created.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// As the guest's caller; the process is root.
    Caller {
        /// The process's own user.
        uid: Uid,
        /// The process's own group.
        gid: Gid,
    },
    /// As the process itself, which may not be anybody else.
    Process,
}

impl PassthroughFs {
    /// Makes the calling thread create files as the caller of the guest would, until the guard is
    /// dropped. The guest has applied `umask` by itself, unless it was agreed to leave it to the
    /// host.
    pub(crate) fn assume(&self, cx: &Context<'_>, umask: u32) -> Result<AsCaller> {
        let umask = if self.heeds_acls() { umask } else { 0 };
        self.credentials.assume(cx, &self.ids, umask)
    }
}

impl Credentials {
    /// As this process can.
    pub(crate) fn of_this_process() -> Self {
        match geteuid() {
            uid if uid.is_root() => Self::Caller {
                uid,
                gid: getegid(),
            },
            _ => Self::Process,
        }
    }

    /// Makes the calling thread create files as the caller of the guest would, be it as the user of
    /// the host that the caller is, with exactly the mode asked for but for `umask`, until the guard
    /// is dropped.
    fn assume(&self, cx: &Context<'_>, ids: &Ids, umask: u32) -> Result<AsCaller> {
        own_umask_and_cwd()?;
        set_umask(umask);
        let mut guard = AsCaller::default();
        let (new_uid, new_gid) = (ids.users.to_host(cx.uid)?, ids.groups.to_host(cx.gid)?);
        // What the caller is to the guest decides, whoever that is on the host.
        let sgid = SuidSgid::of(cx);
        let Self::Caller { uid, gid } = *self else {
            sgid.apply()?;
            return Ok(guard);
        };
        if new_uid == u32::MAX || new_gid == u32::MAX {
            return Err(Errno::EINVAL.into());
        }
        let (new_uid, new_gid) = (Uid::from_raw(new_uid), Gid::from_raw(new_gid));
        if new_uid == uid {
            sgid.apply()?;
        }
        if (new_uid, new_gid) == (uid, gid) {
            return Ok(guard);
        }
        drop_groups()?;
        let before = own_capabilities()?;
        guard.join_groups(cx, ids)?;
        if new_gid != gid {
            set_thread_res_gid(None, new_gid, None)?;
            guard.gid = Some(gid);
        }
        if new_uid != uid {
            set_thread_res_uid(None, new_uid, None)?;
            guard.user = Some((uid, before));
            let kept = match sgid {
                SuidSgid::Kept => KEPT | CapabilitySet::FSETID,
                SuidSgid::Cleared => KEPT,
            };
            set_capabilities(
                None,
                CapabilitySets {
                    effective: before.effective & kept,
                    ..before
                },
            )?;
        }
        Ok(guard)
    }
}

/// The calling thread acts for a caller of the guest. Dropping this undoes it; a thread that
/// cannot become itself again ends the process, as it would go on with the wrong identity.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct AsCaller {
    user: Option<(Uid, CapabilitySets)>,
    gid: Option<Gid>,
    groups: bool,
}

impl AsCaller {
    /// Gives the thread the supplementary groups that the guest sent.
    fn join_groups(&mut self, cx: &Context<'_>, ids: &Ids) -> Result<()> {
        let mut groups = [Gid::ROOT; MAX_GROUPS];
        let mut len = 0_usize;
        let mut free = groups.iter_mut();
        for raw in cx.extensions.supplementary_groups() {
            let group = free.next().ok_or(Errno::EINVAL)?;
            *group = Gid::from_raw_unchecked(ids.groups.to_host(raw)?);
            len = len.saturating_add(1);
        }
        if let Some(groups @ [_, ..]) = groups.get(..len) {
            set_thread_groups(groups)?;
            self.groups = true;
        }
        Ok(())
    }
}

impl Drop for AsCaller {
    fn drop(&mut self) {
        if let Some((uid, before)) = self.user {
            restored(set_thread_res_uid(None, uid, None));
            // The kernel has made all permitted capabilities effective.
            if before.effective != before.permitted {
                restored(set_capabilities(None, before));
            }
            fsetid::regained();
        }
        if let Some(gid) = self.gid {
            restored(set_thread_res_gid(None, gid, None));
        }
        if self.groups {
            restored(set_thread_groups(&[]));
        }
    }
}

/// Gives the calling thread a umask and a working directory of its own, once.
pub(crate) fn own_umask_and_cwd() -> Result<()> {
    if UMASK.get().is_none() {
        sys::unshare_umask_and_cwd().map_err(|errno| {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::error!(
                    "a thread cannot have a umask and a working directory of its own ({errno}): \
                     the seccomp filter must allow unshare(CLONE_FS)"
                );
            });
            Errno::EIO
        })?;
        rustix::process::umask(Mode::empty());
        UMASK.set(Some(0));
    }
    Ok(())
}

/// Sets the umask of the calling thread, which has one of its own. It stays until another one is
/// needed: most callers have the same one.
fn set_umask(umask: u32) {
    let umask = umask & 0o777;
    if UMASK.get() != Some(umask) {
        rustix::process::umask(Mode::from_raw_mode(umask));
        UMASK.set(Some(umask));
    }
}

/// Drops the supplementary groups of the calling thread, once. They are the process's own, and a
/// directory with SGID would take them for the caller's.
fn drop_groups() -> Result<()> {
    if !HAS_NO_GROUPS.get() {
        // A user namespace may forbid it, which does no harm where there are none.
        if let Err(errno) = set_thread_groups(&[])
            && !rustix::process::getgroups().is_ok_and(|groups| groups.is_empty())
        {
            return Err(errno.into());
        }
        HAS_NO_GROUPS.set(true);
    }
    Ok(())
}

/// The capabilities of the calling thread, as it came with them. One that was started by a thread
/// that did without CAP_FSETID at that moment has that, too.
pub(crate) fn own_capabilities() -> Result<CapabilitySets> {
    if let Some(known) = CAPABILITIES.get() {
        return Ok(known);
    }
    let mut sets = capabilities(None)?;
    sets.effective |= sets.permitted & CapabilitySet::FSETID;
    CAPABILITIES.set(Some(sets));
    Ok(sets)
}

fn restored(result: rustix::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "cannot restore the credentials of a thread");
        std::process::abort();
    }
}
