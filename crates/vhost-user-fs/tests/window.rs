//! The DAX window, with a front-end of the `vhost` crate.

mod common;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};

use common::stateful::*;
use common::*;
use fuse_fs::{DaxWindow as _, Mapping};
use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostUserMMap, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler,
};
use vhost_user_fs::{Backend, DaxWindow};

const SIZE: u64 = 1 << 20;
const PAGE: u64 = 64 << 10;

/// What it was asked to map: offset, offset in the file, length, whether to be written to.
#[derive(Default)]
struct Maps(Mutex<Vec<(u64, u64, u64, bool)>>);

impl VhostUserFrontendReqHandler for Maps {
    fn shmem_map(&self, request: &VhostUserMMap, _: &dyn AsRawFd) -> HandlerResult<u64> {
        assert_eq!(request.shmid, 0);
        let mapped = (
            request.shm_offset,
            request.fd_offset,
            request.len,
            request.flags == 1,
        );
        self.0.lock().unwrap().push(mapped);
        Ok(0)
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let (offset, len) = (request.shm_offset, request.len);
        let mut maps = self.0.lock().unwrap();
        let found = maps.iter().position(|map| (map.0, map.2) == (offset, len));
        maps.remove(found.ok_or(io::ErrorKind::NotFound)?);
        Ok(0)
    }
}

fn window() -> (Arc<DaxWindow>, Running, Arc<Stateful>) {
    let window = Arc::new(DaxWindow::new(SIZE).unwrap());
    let filesystem = Stateful::with(b"state");
    let backend = Backend::new(config(filesystem.clone())).unwrap();
    let running = Running::serve(backend.with_window(window.clone()));
    (window, running, filesystem)
}

/// Serves the back-end channel of `frontend` until the daemon closes it.
fn serve(frontend: &mut Frontend) -> (Arc<Maps>, std::thread::JoinHandle<()>) {
    let maps = Arc::new(Maps::default());
    let mut handler = FrontendReqHandler::new(Arc::clone(&maps)).unwrap();
    handler.set_reply_ack_flag(true);
    frontend
        .set_backend_request_fd(&handler.get_tx_raw_fd())
        .unwrap();
    let serving = std::thread::spawn(move || while handler.handle_request().is_ok() {});
    (maps, serving)
}

fn mapping(offset: u64, file_offset: u64, writable: bool) -> Mapping {
    Mapping {
        offset,
        len: 4 * PAGE,
        file_offset,
        writable,
    }
}

#[test]
fn another_front_end_understands_what_it_is_asked() {
    let (window, running, _) = window();
    assert_eq!(window.size(), 0);
    let mut frontend = running.negotiate();
    let config = frontend.get_shmem_config().unwrap();
    assert_eq!((config.nregions, config.memory_sizes[0]), (1, SIZE));
    // It does not say where to ask yet.
    assert_eq!(window.size(), 0);
    let (maps, _serving) = serve(&mut frontend);
    assert_eq!(window.size(), SIZE);
    let file = tempfile::tempfile().unwrap();
    window.map(file.as_fd(), mapping(0, PAGE, true)).unwrap();
    window.unmap(PAGE, PAGE).unwrap();
    let expected = [(0, PAGE, PAGE, true), (2 * PAGE, 3 * PAGE, 2 * PAGE, true)];
    assert_eq!(*maps.0.lock().unwrap(), expected);
    assert_eq!(window.mappings(), 2);
    // The next front-end finds nothing of it.
    drop(frontend);
    let mut frontend = running.negotiate();
    eventually(|| window.mappings() == 0);
    let (maps, _serving) = serve(&mut frontend);
    window.map(file.as_fd(), mapping(0, 0, false)).unwrap();
    assert_eq!(*maps.0.lock().unwrap(), [(0, 0, 4 * PAGE, false)]);
}

#[test]
fn a_state_is_not_saved_with_what_is_mapped() {
    let (window, running, filesystem) = window();
    let mut frontend = running.negotiate();
    let _served = serve(&mut frontend);
    let file = tempfile::tempfile().unwrap();
    window.map(file.as_fd(), mapping(0, 0, false)).unwrap();
    let (_from, to) = io::pipe().unwrap();
    begin(&frontend, Direction::SAVE, to).unwrap_err();
    window.unmap(0, SIZE).unwrap();
    assert_eq!(save(&frontend).0, b"state");
    assert_eq!(filesystem.bytes(), b"state");
}

#[test]
fn a_device_without_a_window_offers_none() {
    let (_running, mut frontend) = start(&Stateful::with(b""));
    let offered = frontend.get_protocol_features().unwrap();
    assert!(!offered.contains(VhostUserProtocolFeatures::SHMEM));
    assert!(frontend.get_shmem_config().is_err());
}
