//! A thread whose system calls are counted, and refused, by another one (seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use libc::{c_long, c_void};

/// Calls that have to do with threads and memory, not with files, and those by which the tests ask
/// who they are: they are let through.
const APART: [c_long; 14] = [
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_futex,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// A system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) args: [u64; 6],
}

/// The calls of a thread so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Vec<c_long>>>);

impl Watch {
    /// Takes the numbers of the calls since the last time.
    pub(crate) fn take(&self) -> Vec<c_long> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Watches the calling thread until that ends. Calls for which `refuse` tells an error number are
/// not made, but fail with that.
///
/// # Errors
/// Where the kernel cannot do this, or a filter that this process has already does so.
pub(crate) fn watch(refuse: fn(&Call) -> Option<i32>) -> io::Result<Watch> {
    let watch = Watch::default();
    let calls = watch.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    // It must not have the filter itself.
    std::thread::spawn(move || {
        if let Ok(listener) = receiver.recv() {
            serve(&listener, &calls, refuse);
        }
    });
    // Nothing but what is apart may be called until it is sent.
    sender.send(listen()?).map_err(io::Error::other)?;
    Ok(watch)
}

/// Has the kernel tell of the calling thread's calls.
fn listen() -> io::Result<OwnedFd> {
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let end = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, k, jt| libc::sock_filter { code, jt, jf: 0, k };
    // The number of the call is what it is told of first.
    let mut filter = vec![instruction(load, 0, 0)];
    for (at, number) in APART.iter().enumerate() {
        // Over the rest of them and what is next.
        let over = APART.len() - at;
        filter.push(instruction(jump, *number as u32, over as u8));
    }
    filter.push(instruction(end, libc::SECCOMP_RET_USER_NOTIF, 0));
    filter.push(instruction(end, libc::SECCOMP_RET_ALLOW, 0));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: this changes what the thread may become, no memory.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel reads `program` and as many instructions as it says, all of which outlive
    // the call. The thread's calls do what they did, unless they fail.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Answers until the thread is gone. Then the kernel has nothing more to tell, on an old one for
/// ever.
fn serve(listener: &OwnedFd, calls: &Watch, refuse: fn(&Call) -> Option<i32>) {
    loop {
        let mut poll = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: there is one, as is said, and it outlives the call.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
        if poll.revents & libc::POLLHUP != 0 {
            return;
        }
        // SAFETY: all zeros is a value of it, and the one that the kernel wants to be given.
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        if control(
            listener,
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            (&raw mut told).cast(),
        )
        .is_err()
        {
            continue;
        }
        let call = Call {
            number: told.data.nr.into(),
            args: told.data.args,
        };
        let error = refuse(&call);
        // In debug builds, who closes a descriptor makes sure that it is open.
        let checks =
            call.number == libc::SYS_fcntl && call.args[1] == libc::F_GETFD.unsigned_abs().into();
        if !checks {
            calls.0.lock().unwrap().push(call.number);
        }
        let mut answer = libc::seccomp_notif_resp {
            id: told.id,
            val: 0,
            error: error.map_or(0, |errno| -errno),
            flags: match error {
                None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                Some(_) => 0,
            },
        };
        // It fails if the thread is gone.
        let _ = control(
            listener,
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            (&raw mut answer).cast(),
        );
    }
}

fn control(listener: &OwnedFd, command: libc::Ioctl, structure: *mut c_void) -> io::Result<()> {
    // SAFETY: both commands read and write the structure that they come with here, which outlives
    // the call.
    match unsafe { libc::ioctl(listener.as_raw_fd(), command, structure) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the kernel knows getxattrat(2) and its kin, which come 11 to 14 calls after fchmodat2(2).
pub(crate) fn knows_xattrat() -> bool {
    // SAFETY: there is no path; if the kernel knows the call, it says so.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2 + 12,
            -1,
            std::ptr::null::<u8>(),
            u32::MAX,
            std::ptr::null::<u8>(),
            std::ptr::null::<u8>(),
            0_usize,
        )
    };
    result < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
