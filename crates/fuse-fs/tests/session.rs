//! The session by raw messages: when it begins and ends, what it lets through, what it answers.

mod common;
use common::*;
use fuse_fs::abi::*;
use fuse_fs::*;
use fuse_wire::*;
struct Fs;
impl FileSystem for Fs {
    fn lookup(&self, _: &Context<'_>, _: NodeId, _: fuse_fs::Name<'_>) -> Result<Entry> {
        Err(Errno::ENOENT.into())
    }
    fn getattr(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: Option<fuse_fs::Handle>,
    ) -> Result<Attributes> {
        Ok(Attributes {
            attr: Attr::default(),
            valid: std::time::Duration::ZERO,
        })
    }
    fn open(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }
    fn opendir(&self, _: &Context<'_>, _: NodeId, _: &OpenIn) -> Result<Opened> {
        Ok(Opened::default())
    }
    fn read(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        sink: &mut dyn PayloadSink,
    ) -> Result<usize> {
        Ok(sink.write(b"hello"))
    }
    fn readdir(
        &self,
        _: &Context<'_>,
        _: NodeId,
        _: &ReadIn,
        _: &mut fuse_fs::DirentWriter<'_>,
    ) -> Result<()> {
        Ok(())
    }
    fn statfs(&self, _: &Context<'_>, _: NodeId) -> Result<Kstatfs> {
        Ok(Kstatfs::default())
    }
}
#[test]
fn smoke() {
    let session = Session::new(Fs);
    let mut guest = Guest::new(&session);
    assert_eq!(
        guest.ask(NodeId::ROOT, Operation::StatFs).error(),
        Errno::ENOTCONN
    );
    let out = guest.init(&offer(fuse_fs::flags::InitFlags::all()));
    assert_eq!(out.max_pages, 256);
    let body = guest
        .ask(
            NodeId::ROOT,
            Operation::Read(ReadIn {
                size: 100,
                ..Default::default()
            }),
        )
        .body();
    assert_eq!(body, b"hello");
    let _: Kstatfs = guest.ask(NodeId::ROOT, Operation::StatFs).structure();
    assert_eq!(
        guest
            .ask(
                NodeId::ROOT,
                Operation::Lookup {
                    name: LookupName::new(c"x").unwrap()
                }
            )
            .error(),
        Errno::ENOENT
    );
}
