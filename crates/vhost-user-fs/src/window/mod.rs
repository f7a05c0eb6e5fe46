//! The DAX window, which is the front-end's: what is mapped there is known here and asked for there
//! (the vhost-user specification, `VHOST_USER_PROTOCOL_F_SHMEM`).

mod channel;
mod files;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuse_fs::Mapping;
use rustix::io::Errno;

use channel::Channel;
use files::Files;

/// Most mappings at a time: Linux maps files in pieces of 2 MiB, of which so many make a window of
/// 16 GiB. It is half of what the front-end `virtio-fs-device` takes.
const MAX_MAPPINGS: usize = 8192;

/// A DAX window that front-ends which offer `SHMEM` have for the guest.
///
/// Given to a [`Session`](fuse_fs::Session) and to the [`Backend`](crate::Backend) that serves it, it
/// passes on what the guest asks of the one to the front-end of the other. It has a size while there
/// is a front-end that knows of it.
///
/// A guest may map over what is mapped, and remove a part of it; a front-end need not know how to do
/// either. So what is in the way is unmapped, and what is to stay of it is mapped again. In between,
/// nothing is there: a guest that has its memory in use at that moment finds that out from its VMM.
#[derive(Debug)]
pub struct DaxWindow {
    /// Bytes.
    size: u64,
    file_limit: usize,
    table: Mutex<Table>,
    /// That of the channel: it is shut down for whoever holds the table and waits to wait no more.
    socket: Mutex<Option<Arc<UnixStream>>>,
}

/// What is mapped, and who is asked for more.
#[derive(Debug, Default)]
struct Table {
    channel: Option<Channel>,
    /// By offset in the window; none overlaps another.
    mapped: BTreeMap<u64, Mapped>,
    files: Files,
}

/// A mapping, which a part of can be mapped anew.
#[derive(Debug, Clone)]
struct Mapped {
    len: u64,
    file: Arc<OwnedFd>,
    file_offset: u64,
    writable: bool,
}

/// There cannot be a window of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a DAX window has a number of whole pages of this host, not {0} bytes")]
pub struct DaxWindowError(u64);

impl DaxWindow {
    /// A window of `size` bytes, or the first part of it where a front-end has less.
    ///
    /// # Errors
    /// That is no number of whole pages, or none.
    pub fn new(size: u64) -> Result<Self, DaxWindowError> {
        if size == 0 || !size.is_multiple_of(rustix::param::page_size() as u64) {
            return Err(DaxWindowError(size));
        }
        Ok(Self {
            size,
            file_limit: MAX_MAPPINGS,
            table: Mutex::default(),
            socket: Mutex::new(None),
        })
    }

    /// This one with at most `files` open for what is mapped, each of which takes a descriptor of this
    /// process: to map a part of yet another is ENOMEM. One more is needed while one takes the place
    /// of another. Unless set, and at most, 8192, as many as there can be mappings.
    ///
    /// A guest can use them up in a window of any size: so leave enough to what else has files
    /// open. A Linux guest needs no more than the window has pieces of 2 MiB.
    #[must_use]
    pub fn limit_files(mut self, files: usize) -> Self {
        self.file_limit = files.min(MAX_MAPPINGS);
        self
    }

    /// Most files that are open for what is mapped.
    #[must_use]
    pub const fn file_limit(&self) -> usize {
        self.file_limit
    }

    /// How many mappings there are now: one of the guest's can have become several.
    #[must_use]
    pub fn mappings(&self) -> usize {
        self.table().mapped.len()
    }

    /// Bytes, whether there is a front-end or not.
    pub(crate) const fn offered(&self) -> u64 {
        self.size
    }

    /// From now on, the front-end at the other end of `socket` is asked.
    pub(crate) fn attach(&self, socket: UnixStream) {
        self.detach();
        let socket = Arc::new(socket);
        *self.socket() = Some(Arc::clone(&socket));
        self.table().channel = Some(Channel::new(socket));
    }

    /// The front-end is gone, and with it what was mapped.
    pub(crate) fn detach(&self) {
        if let Some(socket) = self.socket().take()
            && let Err(error) = socket.shutdown(std::net::Shutdown::Both)
        {
            tracing::debug!(%error, "the back-end channel is closed already");
        }
        *self.table() = Table::default();
    }

    /// It is held while a front-end is waited for: what is mapped is changed by one at a time.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fuse_fs::DaxWindow for DaxWindow {
    fn size(&self) -> u64 {
        match self.socket().is_some() {
            true => self.size,
            false => 0,
        }
    }

    fn map(&self, file: BorrowedFd<'_>, mapping: Mapping) -> io::Result<()> {
        self.table().map(file, mapping, self.file_limit)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        self.table().vacate(offset, offset.saturating_add(len))
    }

    fn clear(&self) {
        self.table().clear();
    }
}

impl Table {
    fn map(&mut self, file: BorrowedFd<'_>, mapping: Mapping, file_limit: usize) -> io::Result<()> {
        let Mapping {
            offset,
            len,
            file_offset,
            writable,
        } = mapping;
        // One more can come of a mapping in two.
        if self.mapped.len() >= MAX_MAPPINGS - 1 {
            return Err(Errno::NOMEM.into());
        }
        let file = self.files.share(file, writable, file_limit)?;
        self.vacate(offset, offset.saturating_add(len))?;
        let mapped = Mapped {
            len,
            file,
            file_offset,
            writable,
        };
        self.add(offset, mapped)
    }

    /// Has nothing mapped from `start` to `end`.
    fn vacate(&mut self, start: u64, end: u64) -> io::Result<()> {
        while let Some((&offset, mapped)) = self.mapped.range(..end).next_back()
            && offset.saturating_add(mapped.len) > start
        {
            let mapped = mapped.clone();
            self.channel()?.unmap(offset, mapped.len)?;
            self.mapped.remove(&offset);
            self.files.tidy(self.mapped.len());
            for (offset, part) in mapped.around(offset, start, end) {
                if let Err(error) = self.add(offset, part) {
                    tracing::warn!(offset, %error, "a part of a mapping is lost");
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, offset: u64, mapped: Mapped) -> io::Result<()> {
        self.channel()?.map(offset, &mapped)?;
        self.mapped.insert(offset, mapped);
        Ok(())
    }

    /// Says that nothing is to be mapped, and waits for nobody: whoever forgot the mappings by
    /// itself, as at a reset, has nothing to do.
    fn clear(&mut self) {
        let mapped = std::mem::take(&mut self.mapped);
        self.files = Files::default();
        let Some(channel) = &mut self.channel else {
            return;
        };
        for (&offset, mapped) in &mapped {
            if let Err(error) = channel.forget(offset, mapped.len) {
                tracing::warn!(%error, "the front-end is not told what is no longer mapped");
                return;
            }
        }
    }

    fn channel(&mut self) -> io::Result<&mut Channel> {
        self.channel.as_mut().ok_or(Errno::NOTCONN.into())
    }
}

impl Mapped {
    /// What is left of it, at `offset`, without what is from `start` to `end`.
    fn around(&self, offset: u64, start: u64, end: u64) -> impl Iterator<Item = (u64, Self)> {
        let whole_end = offset.saturating_add(self.len);
        let part = |from: u64, to: u64| {
            let mapped = Self {
                len: to.saturating_sub(from),
                file_offset: self.file_offset.saturating_add(from.saturating_sub(offset)),
                ..self.clone()
            };
            (from < to).then_some((from, mapped))
        };
        let before = part(offset, start.min(whole_end));
        let behind = part(end.max(offset), whole_end);
        before.into_iter().chain(behind)
    }

    fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::time::Duration;

    use fuse_fs::DaxWindow as _;

    use super::*;

    /// A window of 64 pages, and the front-end's end of its channel.
    fn attached() -> (Arc<DaxWindow>, UnixStream, u64) {
        let page = rustix::param::page_size() as u64;
        let window = Arc::new(DaxWindow::new(64 * page).unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        window.attach(ours);
        (window, theirs, page)
    }

    /// Answers each message by what `answer` makes of its number and its range, and returns all.
    fn front_end(
        mut socket: UnixStream,
        answer: impl Fn(u32) -> Option<Vec<u8>> + Send + 'static,
    ) -> std::thread::JoinHandle<Vec<(u32, [u64; 5])>> {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut bytes = [0; 52];
            while socket.read_exact(&mut bytes).is_ok() {
                let request = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
                let flags = u32::from_ne_bytes(bytes[4..8].try_into().unwrap());
                let field = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
                all.push((request, [12, 20, 28, 36, 44].map(field)));
                if flags & NEED_REPLY == 0 {
                    continue;
                }
                match answer(request) {
                    Some(answer) => socket.write_all(&answer).unwrap(),
                    None => break,
                }
            }
            all
        })
    }

    const NEED_REPLY: u32 = 1 << 3;

    fn says(request: u32, value: u64) -> Vec<u8> {
        let header = [request, 1 | 1 << 2, 8].map(u32::to_ne_bytes).concat();
        [&header[..], &value.to_ne_bytes()].concat()
    }

    fn file() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    fn mapping(offset: u64, len: u64, file_offset: u64) -> Mapping {
        Mapping {
            offset,
            len,
            file_offset,
            writable: false,
        }
    }

    #[test]
    fn what_is_in_the_way_is_unmapped_and_what_stays_is_mapped_again() {
        let (window, theirs, page) = attached();
        let front_end = front_end(theirs, |request| Some(says(request, 0)));
        let map = |at, pages, from| {
            let mapping = mapping(at * page, pages * page, from * page);
            window.map(file().as_fd(), mapping).unwrap();
        };
        map(0, 8, 10);
        map(2, 2, 50);
        assert_eq!(window.mappings(), 3);
        window.unmap(7 * page, 20 * page).unwrap();
        window.clear();
        assert_eq!(window.mappings(), 0);
        window.detach();
        assert_eq!(fuse_fs::DaxWindow::size(&*window), 0);
        let pages = |(request, range): (u32, [u64; 5])| {
            let [region, from, at, len, flags] = range;
            assert_eq!((region, flags), (0, 0));
            (request, from / page, at / page, len / page)
        };
        let said: Vec<_> = front_end.join().unwrap().into_iter().map(pages).collect();
        let expected = [
            (9, 10, 0, 8),
            (10, 0, 0, 8),
            (9, 10, 0, 2),
            (9, 14, 4, 4),
            (9, 50, 2, 2),
            (10, 0, 4, 4),
            (9, 14, 4, 3),
            (10, 0, 0, 2),
            (10, 0, 2, 2),
            (10, 0, 4, 3),
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_refusal_is_told_and_the_next_is_asked() {
        let (window, theirs, page) = attached();
        let front_end = front_end(theirs, |request| {
            Some(says(request, u64::from(request == 9)))
        });
        for _ in 0..2 {
            let error = window.map(file().as_fd(), mapping(0, page, 0)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
        }
        assert_eq!(window.mappings(), 0);
        window.unmap(0, page).unwrap();
        window.detach();
        assert_eq!(front_end.join().unwrap().len(), 2);
    }

    #[test]
    fn a_front_end_that_answers_otherwise_is_asked_no_more() {
        for answer in [
            says(10, 0),
            [9u32, 1, 8, 0, 0].map(u32::to_ne_bytes).concat(),
            [9u32, 1 | 1 << 2, 4, 0, 0].map(u32::to_ne_bytes).concat(),
            vec![0xff; 20],
        ] {
            let (window, theirs, page) = attached();
            let front_end = front_end(theirs, move |_| Some(answer.clone()));
            for _ in 0..2 {
                assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
            }
            assert_eq!(window.mappings(), 0);
            assert_eq!(front_end.join().unwrap().len(), 1);
        }
    }

    #[test]
    fn who_waits_for_an_answer_waits_no_more_when_the_front_end_is_gone() {
        let (window, theirs, page) = attached();
        let waiting = Arc::clone(&window);
        let waiting = std::thread::spawn(move || waiting.map(file().as_fd(), mapping(0, page, 0)));
        std::thread::sleep(Duration::from_millis(20));
        window.detach();
        assert!(waiting.join().unwrap().is_err());
        assert_eq!(window.mappings(), 0);
        drop(theirs);
    }

    #[test]
    fn a_front_end_that_does_not_answer_is_not_waited_for_long() {
        let (window, _theirs, page) = attached();
        assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
        assert!(window.map(file().as_fd(), mapping(0, page, 0)).is_err());
    }

    #[test]
    fn a_window_is_of_whole_pages() {
        for size in [0, 1, 4095, u64::MAX] {
            assert_eq!(DaxWindow::new(size).unwrap_err(), DaxWindowError(size));
        }
    }

    #[test]
    fn there_are_only_so_many() {
        let page = rustix::param::page_size() as u64;
        let window = Arc::new(DaxWindow::new(10_000 * page).unwrap());
        let (ours, theirs) = UnixStream::pair().unwrap();
        window.attach(ours);
        let front_end = front_end(theirs, |request| Some(says(request, 0)));
        let file = file();
        let most = MAX_MAPPINGS as u64 - 1;
        for number in 0..most {
            window
                .map(file.as_fd(), mapping(number * page, page, 0))
                .unwrap();
        }
        let more = window.map(file.as_fd(), mapping(most * page, page, 0));
        assert_eq!(
            more.unwrap_err().raw_os_error(),
            Some(Errno::NOMEM.raw_os_error())
        );
        window.clear();
        window.map(file.as_fd(), mapping(0, page, 0)).unwrap();
        window.detach();
        front_end.join().unwrap();
    }

    #[test]
    fn only_so_many_files_are_open() {
        let page = rustix::param::page_size() as u64;
        let window = DaxWindow::new(64 * page).unwrap().limit_files(3);
        let (ours, theirs) = UnixStream::pair().unwrap();
        window.attach(ours);
        let front_end = front_end(theirs, |request| Some(says(request, 0)));
        let files: Vec<_> = (0..5).map(|_| tempfile::tempfile().unwrap()).collect();
        let map = |file: usize, at| {
            let mapping = mapping(at * page, page, 0);
            let error = |error: io::Error| error.raw_os_error().unwrap();
            window.map(files[file].as_fd(), mapping).map_err(error)
        };
        let is_full = Err(Errno::NOMEM.raw_os_error());
        for _ in 0..2 {
            // However many parts of them are mapped.
            for at in 0..30 {
                map(at as usize % 3, at).unwrap();
            }
            assert_eq!([map(3, 30), map(4, 0)], [is_full; 2]);
            assert_eq!(window.mappings(), 30, "nothing made room in vain");
            window.unmap(0, page).unwrap();
            assert_eq!(map(3, 30), is_full);
            for at in (3..30).step_by(3) {
                window.unmap(at * page, page).unwrap();
            }
            map(3, 30).unwrap();
            assert_eq!(map(4, 31), is_full);
            window.clear();
        }
        window.detach();
        front_end.join().unwrap();
    }
}
