//! What a filesystem of fuse-backend-rs is asked, and what becomes of answers that it should not
//! give: a filesystem that does as it is told, without a device.

use std::ffi::CStr;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{OpenOptions, SetattrIn as TheirSetattrIn, stat64};
use fuse_backend_rs::api::filesystem::{
    Context as TheirContext, DirEntry, Entry, FileLock as TheirLock, FileSystem as Theirs,
    GetxattrReply, IoctlData, ListxattrReply, ZeroCopyReader, ZeroCopyWriter,
};
use fuse_backend_rs_adapter::Adapter;
use fuse_fs::abi::{
    AccessIn, FlushIn, IoctlIn, LkIn, OpenIn, PollIn, ReadIn, ReleaseIn, SetattrIn, WriteIn,
};
use fuse_fs::flags::{OpenOutFlags, ReleaseFlags};
use fuse_fs::{
    Blocking, BufferSink, BufferSource, Context, DirentPlusWriter, DirentWriter, Errno, Error,
    Extensions, FileSystem, Handle, Name, NodeId, PayloadSink, PayloadSource, XattrName,
};

/// Remembers what it was asked, and answers as its fields say.
#[derive(Default)]
struct Probe {
    calls: Mutex<Vec<String>>,
    /// Value of every extended attribute.
    value: Vec<u8>,
    /// Answer to a question for a value by a count, and to one for a count by the value.
    mixes_up: bool,
    /// Output of every ioctl.
    output: Vec<u8>,
    /// Names of every directory.
    names: Vec<&'static [u8]>,
}

impl Probe {
    fn called(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn xattr(&self, size: u32) -> (Option<Vec<u8>>, u32) {
        self.called(format!("xattr {size}"));
        let value = ((size > 0) != self.mixes_up).then(|| self.value.clone());
        (value, self.value.len() as u32)
    }
}

fn enosys<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(Errno::ENOSYS.raw()))
}

impl Theirs for Probe {
    type Inode = u64;
    type Handle = u64;

    fn id_remap(&self, cx: &mut TheirContext) -> io::Result<()> {
        if cx.uid == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        cx.uid += 1000;
        Ok(())
    }

    fn lookup(&self, cx: &TheirContext, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.called(format!(
            "lookup {parent} {name:?} by {}:{}:{}",
            cx.uid, cx.gid, cx.pid
        ));
        Ok(Entry {
            entry_timeout: Duration::from_secs(3),
            ..Default::default()
        })
    }

    fn forget(&self, _: &TheirContext, inode: u64, count: u64) {
        self.called(format!("forget {inode} {count}"));
    }

    fn getattr(
        &self,
        _: &TheirContext,
        inode: u64,
        handle: Option<u64>,
    ) -> io::Result<(stat64, Duration)> {
        self.called(format!("getattr {inode} {handle:?}"));
        Ok((TheirSetattrIn::default().into(), Duration::ZERO))
    }

    fn opendir(&self, _: &TheirContext, _: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        Ok((None, OpenOptions::CACHE_DIR))
    }

    fn release(
        &self,
        _: &TheirContext,
        _: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        unlock: bool,
        owner: Option<u64>,
    ) -> io::Result<()> {
        self.called(format!(
            "release {flags} {handle} {flush} {unlock} {owner:?}"
        ));
        Ok(())
    }

    fn access(&self, _: &TheirContext, _: u64, _: u32) -> io::Result<()> {
        enosys()
    }

    fn readlink(&self, _: &TheirContext, _: u64) -> io::Result<Vec<u8>> {
        Ok(b"the target".to_vec())
    }

    fn read(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        w: &mut dyn ZeroCopyWriter,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        assert_eq!(w.available_bytes(), size as usize);
        // More than there is room for.
        let written = w.write(&vec![b'x'; size as usize + 1])?;
        assert_eq!(w.available_bytes(), 0);
        Ok(written)
    }

    fn write(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        r: &mut dyn ZeroCopyReader,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        let mut data = Vec::new();
        r.read_to_end(&mut data)?;
        assert_eq!(data.len(), size as usize);
        self.called(format!("write {}", String::from_utf8_lossy(&data)));
        Ok(data.len())
    }

    fn getxattr(&self, _: &TheirContext, _: u64, _: &CStr, size: u32) -> io::Result<GetxattrReply> {
        Ok(match self.xattr(size) {
            (Some(value), _) => GetxattrReply::Value(value),
            (None, count) => GetxattrReply::Count(count),
        })
    }

    fn listxattr(&self, _: &TheirContext, _: u64, size: u32) -> io::Result<ListxattrReply> {
        Ok(match self.xattr(size) {
            (Some(names), _) => ListxattrReply::Names(names),
            (None, count) => ListxattrReply::Count(count),
        })
    }

    fn readdirplus(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        _: u32,
        offset: u64,
        add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        for (index, name) in self.names.iter().enumerate().skip(offset as usize) {
            let inode = index as u64 + 10;
            self.called(format!("found {inode}"));
            let found = DirEntry {
                ino: inode,
                offset: index as u64 + 1,
                type_: 0,
                name,
            };
            let entry = Entry {
                inode,
                ..Default::default()
            };
            // One that goes on whatever it is told.
            let _ = add_entry(found, entry);
        }
        Err(io::Error::other("the end"))
    }

    fn setlk(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        owner: u64,
        lock: TheirLock,
        flags: u32,
    ) -> io::Result<()> {
        let TheirLock { start, end, .. } = lock;
        self.called(format!("setlk {owner} {start}..={end} {flags}"));
        Ok(())
    }

    fn setlkw(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        owner: u64,
        _: TheirLock,
        _: u32,
    ) -> io::Result<()> {
        self.called(format!("setlkw {owner}"));
        Ok(())
    }

    fn ioctl(
        &self,
        _: &TheirContext,
        _: u64,
        _: u64,
        _: u32,
        cmd: u32,
        data: IoctlData<'_>,
        out_size: u32,
    ) -> io::Result<IoctlData<'_>> {
        self.called(format!("ioctl {cmd} {:?} {out_size}", data.data));
        Ok(IoctlData {
            result: 7,
            data: Some(&self.output),
        })
    }
}

const NODE: NodeId = NodeId(5);

fn cx(blocking: Blocking) -> Context<'static> {
    Context {
        unique: 1,
        uid: 1,
        gid: 2,
        pid: 3,
        extensions: Extensions::default(),
        blocking,
    }
}

fn allowed() -> Context<'static> {
    cx(Blocking::Allowed)
}

fn calls(adapter: &Adapter<Probe>) -> Vec<String> {
    std::mem::take(&mut *adapter.get_ref().calls.lock().unwrap())
}

fn name(name: &CStr) -> Name<'_> {
    Name::new(name).unwrap()
}

#[test]
fn the_caller_is_told_as_the_filesystem_maps_it() {
    let adapter = Adapter::new(Probe::default());
    let found = adapter.lookup(&allowed(), NODE, name(c"file")).unwrap();
    assert_eq!(found, fuse_fs::Entry::negative(Duration::from_secs(3)));
    adapter.lookup_self(&allowed(), NODE).unwrap();
    adapter.lookup_parent(&allowed(), NODE).unwrap();
    let by = "by 1001:2:3";
    let expected = [r#"lookup 5 "file""#, r#"lookup 5 ".""#, r#"lookup 5 "..""#];
    assert_eq!(calls(&adapter), expected.map(|call| format!("{call} {by}")));

    let unmapped = Context {
        uid: 0,
        ..allowed()
    };
    let refused = adapter.lookup(&unmapped, NODE, name(c"file"));
    assert_eq!(refused, Err(Errno::EACCES.into()));
    assert!(calls(&adapter).is_empty());
}

#[test]
fn what_may_not_wait_is_not_begun() {
    let adapter = Adapter::new(Probe::default());
    let cx = cx(Blocking::Forbidden);
    let later = Err(Error::WouldBlock);
    let mut room = [0; 64];

    let mut source = BufferSource::new(b"data");
    let write = WriteIn {
        size: 4,
        ..Default::default()
    };
    let written = adapter.write(&cx, NODE, &write, &mut source);
    assert_eq!(written, Err(Error::WouldBlock));
    assert_eq!(source.remaining(), 4);
    let mut sink = BufferSink::new(&mut room);
    let read = adapter.read(&cx, NODE, &ReadIn::default(), &mut sink);
    assert_eq!(read, Err(Error::WouldBlock));
    assert_eq!(sink.remaining(), 64);
    let open = OpenIn::default();
    assert_eq!(adapter.open(&cx, NODE, &open), Err(Error::WouldBlock));
    let set = SetattrIn::default();
    assert_eq!(adapter.setattr(&cx, NODE, &set), Err(Error::WouldBlock));
    assert_eq!(adapter.flush(&cx, NODE, &FlushIn::default()), later);
    assert_eq!(adapter.unlink(&cx, NODE, name(c"file")), later);
    assert_eq!(adapter.setlk(&cx, NODE, &LkIn::default(), true), later);
    let list = ReadIn::default();
    let mut entries = DirentWriter::new(&mut room);
    assert_eq!(adapter.readdir(&cx, NODE, &list, &mut entries), later);
    assert!(calls(&adapter).is_empty());

    adapter.lookup(&cx, NODE, name(c"file")).unwrap();
    adapter.getattr(&cx, NODE, Some(Handle(9))).unwrap();
    adapter.forget(NODE, 2);
    assert_eq!(calls(&adapter)[1..], ["getattr 5 Some(9)", "forget 5 2"]);
    assert_eq!(adapter.readlink(&cx, NODE, &mut room), Ok(10));
    let enosys = Err(Errno::ENOSYS.into());
    assert_eq!(adapter.access(&cx, NODE, &AccessIn::default()), enosys);
    let enosys = Err(Errno::ENOSYS.into());
    assert_eq!(adapter.poll(&cx, NODE, &PollIn::default()), enosys);
}

#[test]
fn a_target_that_is_too_long_is_cut() {
    let adapter = Adapter::new(Probe::default());
    let mut buffer = [0; 3];
    assert_eq!(adapter.readlink(&allowed(), NODE, &mut buffer), Ok(3));
    assert_eq!(&buffer, b"the");
}

#[test]
fn data_that_is_not_in_a_file_moves_too() {
    let adapter = Adapter::new(Probe::default());
    let mut room = [0; 64];
    let mut sink = BufferSink::new(&mut room);
    let read = ReadIn {
        size: 10,
        ..Default::default()
    };
    // No more than was asked for, though there were room.
    assert_eq!(adapter.read(&allowed(), NODE, &read, &mut sink), Ok(10));
    assert_eq!(sink.remaining(), 54);

    let mut source = BufferSource::new(b"some data");
    let write = WriteIn {
        size: 9,
        ..Default::default()
    };
    assert_eq!(adapter.write(&allowed(), NODE, &write, &mut source), Ok(9));
    assert_eq!(calls(&adapter), ["write some data"]);
}

#[test]
fn an_extended_attribute_is_its_value_or_its_size() {
    let xattr = XattrName::new(c"user.test").unwrap();
    for mixes_up in [false, true] {
        let adapter = Adapter::new(Probe {
            value: b"value".to_vec(),
            mixes_up,
            ..Default::default()
        });
        let get = |buffer: &mut [u8]| adapter.getxattr(&allowed(), NODE, xattr, buffer);
        let list = |buffer: &mut [u8]| adapter.listxattr(&allowed(), NODE, buffer);
        for ask in [&get as &dyn Fn(&mut [u8]) -> _, &list] {
            assert_eq!(ask(&mut []), Ok(5));
            let mut buffer = [0; 8];
            let answer = ask(&mut buffer);
            if mixes_up {
                // A length instead of the value is nothing that a guest could be told.
                assert_eq!(answer, Err(Errno::EIO.into()));
                continue;
            }
            assert_eq!((answer, &buffer[..5]), (Ok(5), &b"value"[..]));
            assert_eq!(ask(&mut [0; 4]), Err(Errno::ERANGE.into()));
            assert_eq!(calls(&adapter), ["xattr 0", "xattr 8", "xattr 4"]);
        }
    }
}

#[test]
fn an_ioctl_has_the_room_that_it_asked_for() {
    let adapter = Adapter::new(Probe {
        output: b"output".to_vec(),
        ..Default::default()
    });
    let args = IoctlIn {
        cmd: 42,
        out_size: u32::MAX,
        ..Default::default()
    };
    let mut buffer = [0; 8];
    let (out, len) = adapter
        .ioctl(&allowed(), NODE, &args, b"in", &mut buffer)
        .unwrap();
    assert_eq!((out.result, &buffer[..len]), (7, &b"output"[..]));
    let mut short = [0; 3];
    let answer = adapter.ioctl(&allowed(), NODE, &args, b"", &mut short);
    assert_eq!(answer, Err(Errno::EIO.into()));
    assert_eq!(
        calls(&adapter),
        ["ioctl 42 Some([105, 110]) 8", "ioctl 42 None 3"]
    );
}

#[test]
fn locks_and_releases_say_whose_they_are() {
    let adapter = Adapter::new(Probe::default());
    let mut args = LkIn {
        owner: 9,
        ..Default::default()
    };
    (args.lk.start, args.lk.end) = (1, 2);
    args.lk_flags = fuse_fs::flags::LkFlags::FLOCK;
    adapter.setlk(&allowed(), NODE, &args, false).unwrap();
    adapter.setlk(&allowed(), NODE, &args, true).unwrap();
    let mut release = ReleaseIn {
        fh: Handle(4),
        flags: 2,
        lock_owner: 9,
        ..Default::default()
    };
    adapter.release(&allowed(), NODE, &release).unwrap();
    release.release_flags = ReleaseFlags::FLOCK_UNLOCK;
    adapter.release(&allowed(), NODE, &release).unwrap();
    assert_eq!(
        calls(&adapter),
        [
            "setlk 9 1..=2 1",
            "setlkw 9",
            "release 2 4 false false None",
            "release 2 4 false true Some(9)",
        ]
    );
    let opened = adapter.opendir(&allowed(), NODE, &OpenIn::default());
    let opened = opened.unwrap();
    assert_eq!(
        (opened.handle, opened.flags),
        (Handle(0), OpenOutFlags::CACHE_DIR)
    );
}

#[test]
fn lookups_that_the_guest_does_not_learn_of_are_given_back() {
    let adapter = Adapter::new(Probe {
        names: vec![b".", b"..", b"one", b"two", b"three", b"x"],
        ..Default::default()
    });
    // Room for three entries of 152 bytes and a name, and for a bit more.
    let mut room = [0; 3 * 160 + 100];
    let mut entries = DirentPlusWriter::new(&mut room);
    let list = ReadIn::default();
    adapter
        .readdirplus(&allowed(), NODE, &list, &mut entries)
        .unwrap();
    assert_eq!(entries.len(), 3 * 160);
    assert_eq!(
        calls(&adapter)[6..],
        [
            "forget 10 1",
            "forget 11 1",
            "forget 13 1",
            "forget 14 1",
            "forget 15 1"
        ]
    );
    let written: Vec<_> = fuse_wire::DirentsPlus::new(&room[..480])
        .map(|found| found.unwrap())
        .map(|found| (found.entry.name, found.entry_out.nodeid.0))
        .collect();
    assert_eq!(written, [(&b"."[..], 0), (b"..", 0), (b"one", 12)]);

    // Nothing fits: not even that counts.
    let mut entries = DirentPlusWriter::new(&mut room[..100]);
    let listed = adapter.readdirplus(&allowed(), NODE, &list, &mut entries);
    assert_eq!(listed, Err(Errno::EINVAL.into()));
    assert_eq!(calls(&adapter)[6..].len(), 6);

    // Its own error, where nothing was listed before it.
    let list = ReadIn {
        offset: 6,
        ..Default::default()
    };
    let listed = adapter.readdirplus(&allowed(), NODE, &list, &mut entries);
    assert_eq!(listed, Err(Errno::EIO.into()));
}
