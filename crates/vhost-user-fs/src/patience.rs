//! How long a front-end is waited for that has begun something.

use std::time::Duration;

/// How long a message may take from its first byte to its last: front-ends send each by one call.
pub(crate) const MESSAGE: Duration = match cfg!(test) {
    true => Duration::from_millis(200),
    false => Duration::from_secs(5),
};

/// How long the front-end may still have part in a transfer of the device's state when it asks how
/// that ended.
pub(crate) const TRANSFER: Duration = match cfg!(test) {
    true => Duration::from_millis(200),
    false => Duration::from_secs(10),
};

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::thread;

    use vhost::VhostBackend;
    use vhost::vhost_user::VhostUserFrontend;
    use vhost::vhost_user::message::VhostTransferStateDirection as Direction;
    use vmm_sys_util::sock_ctrl_msg::ScmSocket;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::common::stateful::{LONG, Stateful, begin, load, start};
    use crate::common::{Quiet, Running, config};

    const SET_VRING_CALL: u32 = 13;

    #[test]
    fn who_asks_for_the_end_of_what_does_not_end_is_answered() {
        let (running, frontend) = start(&Stateful::with(b""));
        let (socket, mut other) = UnixStream::pair().unwrap();
        begin(&frontend, Direction::LOAD, socket).unwrap();
        let trickle = thread::spawn(move || while other.write_all(b"x").is_ok() {});
        frontend.check_device_state().unwrap_err();
        trickle.join().unwrap();
        assert!(frontend.get_features().is_ok());
        drop(running);
    }

    #[test]
    fn what_takes_long_to_load_is_loaded() {
        assert!(LONG > TRANSFER);
        let filesystem = Stateful::with(b"");
        let (_running, frontend) = start(&filesystem);
        let state = [b'~'; 100_000];
        load(&frontend, &state).unwrap();
        assert_eq!(filesystem.bytes(), state);
    }

    #[test]
    fn a_message_that_breaks_off_ends_its_connection() {
        let running = Running::start(config(Arc::new(Quiet::default())));
        // A header that says there are more bytes, and half of one; with a descriptor, too.
        let header = [SET_VRING_CALL, 1, 8];
        for (part, descriptor) in [(12, false), (5, true)] {
            let mut stream = running.connect();
            let bytes = &header.as_bytes()[..part];
            match descriptor {
                true => stream
                    .send_with_fd(bytes, stream.as_raw_fd())
                    .map(|_| ())
                    .unwrap(),
                false => stream.write_all(bytes).unwrap(),
            }
            stream
                .set_read_timeout(Some(Duration::from_secs(30)))
                .unwrap();
            let ended = match stream.read(&mut [0; 1]) {
                Ok(count) => count == 0,
                // What was not read is thrown away.
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            };
            assert!(ended, "{part}, {descriptor}");
        }
    }
}
