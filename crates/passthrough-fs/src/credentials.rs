use std::cell::Cell;
use std::sync::Once;

use fuse_fs::{Context, Errno, Result};
use rustix::fs::Mode;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::sys;

/// Most supplementary groups of a caller that count: Linux sends at most one.
const MAX_GROUPS: usize = 16;

/// What a user other than root keeps while creating something. The guest's kernel has checked the
/// permissions already, with groups and capabilities that are not known here; the host shall not
/// check them again. It shall still clear SGID where the caller is not in the group, so CAP_FSETID
/// is not among these.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::MKNOD);

thread_local! {
    /// The thread has a umask, which is 0, and a working directory of its own.
    static HAS_OWN_FS: Cell<bool> = const { Cell::new(false) };
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

    /// Makes the calling thread create files as the caller of the guest would, with exactly the
    /// mode asked for, until the guard is dropped.
    pub(crate) fn assume(&self, cx: &Context<'_>) -> Result<AsCaller> {
        own_umask_and_cwd()?;
        let mut guard = AsCaller::default();
        let Self::Caller { uid, gid } = *self else {
            return Ok(guard);
        };
        if cx.uid == u32::MAX || cx.gid == u32::MAX {
            return Err(Errno::EINVAL.into());
        }
        let (new_uid, new_gid) = (Uid::from_raw(cx.uid), Gid::from_raw(cx.gid));
        if (new_uid, new_gid) == (uid, gid) {
            return Ok(guard);
        }
        drop_groups()?;
        let before = own_capabilities()?;
        guard.join_groups(cx)?;
        if new_gid != gid {
            set_thread_res_gid(None, new_gid, None)?;
            guard.gid = Some(gid);
        }
        if new_uid != uid {
            set_thread_res_uid(None, new_uid, None)?;
            guard.user = Some((uid, before));
            set_capabilities(
                None,
                CapabilitySets {
                    effective: before.effective & KEPT,
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
    fn join_groups(&mut self, cx: &Context<'_>) -> Result<()> {
        let mut groups = [Gid::ROOT; MAX_GROUPS];
        let mut len = 0_usize;
        let mut free = groups.iter_mut();
        for raw in cx.extensions.supplementary_groups() {
            let group = free.next().ok_or(Errno::EINVAL)?;
            *group = Gid::from_raw_unchecked(raw);
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
        }
        if let Some(gid) = self.gid {
            restored(set_thread_res_gid(None, gid, None));
        }
        if self.groups {
            restored(set_thread_groups(&[]));
        }
    }
}

/// While this lives, the host clears SUID and SGID of a file that the calling thread changes, as
/// it does for any user without CAP_FSETID.
#[derive(Debug)]
#[must_use]
pub(crate) struct KillPrivileges(Option<CapabilitySets>);

impl KillPrivileges {
    /// Begins, if `wanted`.
    pub(crate) fn begin(wanted: bool) -> Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let before = own_capabilities()?;
        if !before.effective.contains(CapabilitySet::FSETID) {
            return Ok(Self(None));
        }
        set_capabilities(
            None,
            CapabilitySets {
                effective: before.effective.difference(CapabilitySet::FSETID),
                ..before
            },
        )?;
        Ok(Self(Some(before)))
    }
}

impl Drop for KillPrivileges {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            restored(set_capabilities(None, before));
        }
    }
}

/// Gives the calling thread a umask of 0 and a working directory of its own, once.
pub(crate) fn own_umask_and_cwd() -> Result<()> {
    if !HAS_OWN_FS.get() {
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
        HAS_OWN_FS.set(true);
    }
    Ok(())
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

fn own_capabilities() -> Result<CapabilitySets> {
    if let Some(known) = CAPABILITIES.get() {
        return Ok(known);
    }
    let sets = capabilities(None)?;
    CAPABILITIES.set(Some(sets));
    Ok(sets)
}

fn restored(result: rustix::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "cannot restore the credentials of a thread");
        std::process::abort();
    }
}
