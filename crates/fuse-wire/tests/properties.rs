//! What holds for all messages, not only for those that were thought of.

use std::ffi::CString;

use fuse_wire::abi::*;
use fuse_wire::flags::InitFlags;
use fuse_wire::{
    Answer, Dirents, DirentsPlus, Errno, Extensions, LookupName, Name, Notification, NotifyCode,
    Opcode, Operation, Reply, ReplyForm, Request, SecurityContext, SecurityContexts, SymlinkTarget,
    XattrName,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use zerocopy::FromBytes;

/// What a message is made of; the operation takes what it needs.
#[derive(Debug, Clone)]
struct Parts {
    header: [u8; 40],
    /// Bytes for the fixed part, as many as any has.
    fixed: Vec<u8>,
    name: CString,
    new_name: CString,
    target: CString,
    data: Vec<u8>,
    records: Vec<[u64; 2]>,
    contexts: Vec<(CString, Vec<u8>)>,
    groups: Vec<u32>,
    agreed: InitFlags,
}

fn parts() -> impl Strategy<Value = Parts> {
    let name = || {
        c_string(255, b"/").prop_filter("a dot", |name| !matches!(name.to_bytes(), b"." | b".."))
    };
    let agreed = [
        InitFlags::SETXATTR_EXT,
        InitFlags::SECURITY_CTX,
        InitFlags::CREATE_SUPP_GROUP,
    ];
    let agreed = proptest::sample::subsequence(agreed.to_vec(), 0..=agreed.len());
    (
        any::<[u8; 40]>(),
        vec(any::<u8>(), 320),
        (name(), name(), c_string(4095, b"")),
        vec(any::<u8>(), 0..300),
        vec(any::<[u64; 2]>(), 0..20),
        vec((c_string(255, b""), vec(any::<u8>(), 0..100)), 0..4),
        vec(any::<u32>(), 0..4),
        agreed,
    )
        .prop_map(
            |(header, fixed, names, data, records, contexts, groups, agreed)| Parts {
                header,
                fixed,
                name: names.0,
                new_name: names.1,
                target: names.2,
                data,
                records,
                contexts,
                groups,
                agreed: agreed.into_iter().collect(),
            },
        )
}

/// One to `max` bytes, mostly few, none of them NUL or among `not`.
fn c_string(max: usize, not: &'static [u8]) -> impl Strategy<Value = CString> {
    let byte =
        any::<u8>().prop_filter("not allowed", move |byte| *byte != 0 && !not.contains(byte));
    prop_oneof![9 => vec(byte.clone(), 1..20), 1 => vec(byte, 1..=max)]
        .prop_map(|bytes| CString::new(bytes).unwrap())
}

impl Parts {
    fn fixed<T: FromBytes>(&self) -> T {
        T::read_from_bytes(&self.fixed[..size_of::<T>()]).unwrap()
    }

    fn name(&self) -> Name<'_> {
        Name::new(&self.name).unwrap()
    }

    fn new_name(&self) -> Name<'_> {
        Name::new(&self.new_name).unwrap()
    }

    fn xattr_name(&self) -> XattrName<'_> {
        XattrName::new(&self.name).unwrap()
    }

    fn data_len(&self) -> u32 {
        u32::try_from(self.data.len()).unwrap()
    }

    fn payload_len(&self, opcode: Opcode) -> usize {
        match opcode {
            Opcode::Write | Opcode::NotifyReply => self.data.len(),
            _ => 0,
        }
    }

    /// The records as `T`s, all of which have two words.
    fn records<T: FromBytes>(&self) -> Vec<T> {
        let read = |words| T::read_from_bytes(zerocopy::IntoBytes::as_bytes(words)).unwrap();
        self.records.iter().map(read).collect()
    }

    fn operation<'a>(
        &'a self,
        opcode: Opcode,
        forgets: &'a [ForgetOne],
        mappings: &'a [RemovemappingOne],
    ) -> Operation<'a> {
        match opcode {
            Opcode::Lookup => Operation::Lookup {
                name: LookupName::Child(self.name()),
            },
            Opcode::Forget => Operation::Forget(self.fixed()),
            Opcode::GetAttr => Operation::GetAttr(self.fixed()),
            Opcode::SetAttr => Operation::SetAttr(self.fixed()),
            Opcode::ReadLink => Operation::ReadLink,
            Opcode::Symlink => Operation::Symlink {
                name: self.name(),
                target: SymlinkTarget::new(&self.target).unwrap(),
            },
            Opcode::MkNod => Operation::MkNod {
                args: self.fixed(),
                name: self.name(),
            },
            Opcode::MkDir => Operation::MkDir {
                args: self.fixed(),
                name: self.name(),
            },
            Opcode::Unlink => Operation::Unlink { name: self.name() },
            Opcode::RmDir => Operation::RmDir { name: self.name() },
            Opcode::Rename => Operation::Rename {
                args: self.fixed(),
                name: self.name(),
                new_name: self.new_name(),
            },
            Opcode::Link => Operation::Link {
                args: self.fixed(),
                name: self.name(),
            },
            Opcode::Open => Operation::Open(self.fixed()),
            Opcode::Read => Operation::Read(self.fixed()),
            Opcode::Write => Operation::Write(WriteIn {
                size: self.data_len(),
                ..self.fixed()
            }),
            Opcode::StatFs => Operation::StatFs,
            Opcode::Release => Operation::Release(self.fixed()),
            Opcode::FSync => Operation::FSync(self.fixed()),
            Opcode::SetXattr => {
                let mut args = SetxattrIn {
                    size: self.data_len(),
                    ..self.fixed()
                };
                if !self.agreed.contains(InitFlags::SETXATTR_EXT) {
                    args = SetxattrIn {
                        size: args.size,
                        flags: args.flags,
                        ..Default::default()
                    };
                }
                Operation::SetXattr {
                    args,
                    name: self.xattr_name(),
                    value: &self.data,
                }
            }
            Opcode::GetXattr => Operation::GetXattr {
                args: self.fixed(),
                name: self.xattr_name(),
            },
            Opcode::ListXattr => Operation::ListXattr(self.fixed()),
            Opcode::RemoveXattr => Operation::RemoveXattr {
                name: self.xattr_name(),
            },
            Opcode::Flush => Operation::Flush(self.fixed()),
            Opcode::Init => Operation::Init(self.fixed()),
            Opcode::OpenDir => Operation::OpenDir(self.fixed()),
            Opcode::ReadDir => Operation::ReadDir(self.fixed()),
            Opcode::ReleaseDir => Operation::ReleaseDir(self.fixed()),
            Opcode::FSyncDir => Operation::FSyncDir(self.fixed()),
            Opcode::GetLk => Operation::GetLk(self.fixed()),
            Opcode::SetLk => Operation::SetLk(self.fixed()),
            Opcode::SetLkW => Operation::SetLkW(self.fixed()),
            Opcode::Access => Operation::Access(self.fixed()),
            Opcode::Create => Operation::Create {
                args: self.fixed(),
                name: self.name(),
            },
            Opcode::Interrupt => Operation::Interrupt(self.fixed()),
            Opcode::BMap => Operation::BMap(self.fixed()),
            Opcode::Destroy => Operation::Destroy,
            Opcode::Ioctl => Operation::Ioctl {
                args: IoctlIn {
                    in_size: self.data_len(),
                    ..self.fixed()
                },
                data: &self.data,
            },
            Opcode::Poll => Operation::Poll(self.fixed()),
            Opcode::NotifyReply => Operation::NotifyReply(NotifyRetrieveIn {
                size: self.data_len(),
                ..self.fixed()
            }),
            Opcode::BatchForget => Operation::BatchForget(forgets.into()),
            Opcode::FAllocate => Operation::FAllocate(self.fixed()),
            Opcode::ReadDirPlus => Operation::ReadDirPlus(self.fixed()),
            Opcode::Rename2 => Operation::Rename2 {
                args: self.fixed(),
                name: self.name(),
                new_name: self.new_name(),
            },
            Opcode::LSeek => Operation::LSeek(self.fixed()),
            Opcode::CopyFileRange => Operation::CopyFileRange(self.fixed()),
            Opcode::SetupMapping => Operation::SetupMapping(self.fixed()),
            Opcode::RemoveMapping => Operation::RemoveMapping(mappings.into()),
            Opcode::SyncFs => Operation::SyncFs(self.fixed()),
            Opcode::TmpFile => Operation::TmpFile(self.fixed()),
            Opcode::Statx => Operation::Statx(self.fixed()),
            Opcode::CopyFileRange64 => Operation::CopyFileRange64(self.fixed()),
        }
    }

    /// Extensions as far as they were agreed on and the operation can have them.
    fn extensions<'a>(&'a self, opcode: Opcode, buffer: &'a mut [u8]) -> Extensions<'a> {
        let creates = matches!(
            opcode,
            Opcode::Create | Opcode::TmpFile | Opcode::MkNod | Opcode::MkDir | Opcode::Symlink
        );
        let mut contexts = Vec::new();
        if creates && self.agreed.contains(InitFlags::SECURITY_CTX) {
            contexts.extend(self.contexts.iter().map(|(name, value)| SecurityContext {
                name: XattrName::new(name).unwrap(),
                value,
            }));
        }
        let groups = creates && self.agreed.contains(InitFlags::CREATE_SUPP_GROUP);
        Extensions::new(
            SecurityContexts::write(&contexts, buffer).unwrap(),
            if groups { &self.groups } else { &[] },
        )
    }

    fn reply(&self, form: ReplyForm) -> Reply<'_> {
        match form {
            ReplyForm::Empty => Reply::Empty,
            ReplyForm::Entry => Reply::Entry(self.fixed()),
            ReplyForm::Attr => Reply::Attr(self.fixed()),
            ReplyForm::Data { .. } => Reply::Data(&self.data),
            ReplyForm::XattrSize => Reply::XattrSize(self.fixed()),
            ReplyForm::Open => Reply::Open(self.fixed()),
            ReplyForm::Create => Reply::Create(self.fixed(), self.fixed()),
            ReplyForm::Write => Reply::Write(self.fixed()),
            ReplyForm::StatFs => Reply::StatFs(self.fixed()),
            ReplyForm::Init => Reply::Init(self.fixed()),
            ReplyForm::Lk => Reply::Lk(self.fixed()),
            ReplyForm::BMap => Reply::BMap(self.fixed()),
            ReplyForm::Ioctl { .. } => Reply::Ioctl(self.fixed(), &self.data),
            ReplyForm::Poll => Reply::Poll(self.fixed()),
            ReplyForm::LSeek => Reply::LSeek(self.fixed()),
            ReplyForm::Statx => Reply::Statx(self.fixed()),
            ReplyForm::CopyFileRange64 => Reply::CopyFileRange64(self.fixed()),
        }
    }

    fn notification<'a>(
        &'a self,
        code: NotifyCode,
        nodes: &'a [fuse_wire::NodeId],
    ) -> Notification<'a> {
        let head: NotifyDeleteOut = self.fixed();
        match code {
            NotifyCode::Poll => Notification::Poll(self.fixed()),
            NotifyCode::InvalInode => Notification::InvalInode(self.fixed()),
            NotifyCode::InvalEntry => Notification::InvalEntry {
                parent: head.parent,
                flags: self.fixed(),
                name: self.name(),
            },
            NotifyCode::Store => Notification::Store {
                nodeid: head.parent,
                offset: head.child.0,
                data: &self.data,
            },
            NotifyCode::Retrieve => Notification::Retrieve(self.fixed()),
            NotifyCode::Delete => Notification::Delete {
                parent: head.parent,
                child: head.child,
                name: self.name(),
            },
            NotifyCode::Resend => Notification::Resend,
            NotifyCode::IncEpoch => Notification::IncEpoch,
            NotifyCode::Prune => Notification::Prune(nodes.into()),
        }
    }
}

const FORMS: &[ReplyForm] = &[
    ReplyForm::Empty,
    ReplyForm::Entry,
    ReplyForm::Attr,
    ReplyForm::Data { max: u32::MAX },
    ReplyForm::XattrSize,
    ReplyForm::Open,
    ReplyForm::Create,
    ReplyForm::Write,
    ReplyForm::StatFs,
    ReplyForm::Init,
    ReplyForm::Lk,
    ReplyForm::BMap,
    ReplyForm::Ioctl { max: u32::MAX },
    ReplyForm::Poll,
    ReplyForm::LSeek,
    ReplyForm::Statx,
    ReplyForm::CopyFileRange64,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_request_survives_the_wire(parts in parts(), opcode in select(Opcode::ALL)) {
        let (forgets, mappings) = (parts.records(), parts.records());
        let mut context_buffer = [0; 4096];
        let request = Request {
            header: InHeader::read_from_bytes(&parts.header).unwrap(),
            operation: parts.operation(opcode, &forgets, &mappings),
            extensions: parts.extensions(opcode, &mut context_buffer),
        };
        let payload_len = parts.payload_len(opcode);

        let mut buffer = [0xa5; 16 * 1024];
        let len = request.encode(payload_len, parts.agreed, &mut buffer).unwrap();
        let decoded = Request::decode(&buffer[..len], payload_len, parts.agreed).unwrap();

        prop_assert_eq!(decoded.operation, request.operation);
        prop_assert_eq!(decoded.extensions, request.extensions);
        let filled_in = InHeader {
            len: decoded.header.len,
            opcode: opcode.raw(),
            total_extlen: decoded.header.total_extlen,
            ..request.header
        };
        prop_assert_eq!(decoded.header, filled_in);
    }

    #[test]
    fn a_reply_survives_the_wire(parts in parts(), form in select(FORMS), unique: u64) {
        let reply = parts.reply(form);
        let mut buffer = [0xa5; 1024];
        let len = reply.encode(unique, &mut buffer).unwrap();
        let answer = Reply::decode(form, &buffer[..len]);
        prop_assert_eq!(answer, Ok(Answer { unique, result: Ok(reply) }));
    }

    #[test]
    fn an_error_survives_the_wire(raw in 1..=511, form in select(FORMS), unique: u64) {
        let errno = Errno::from_raw(raw);
        let header = OutHeader::failure(unique, errno);
        let answer = Reply::decode(form, zerocopy::IntoBytes::as_bytes(&header));
        prop_assert_eq!(answer, Ok(Answer { unique, result: Err(errno) }));
    }

    #[test]
    fn a_notification_survives_the_wire(parts in parts(), code in select(NotifyCode::ALL)) {
        let nodes: Vec<_> = parts.records.iter().map(|[node, _]| fuse_wire::NodeId(*node)).collect();
        let notification = parts.notification(code, &nodes);
        let mut buffer = [0xa5; 1024];
        let len = notification.encode(&mut buffer).unwrap();
        prop_assert_eq!(Notification::decode(&buffer[..len]), Ok(notification));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(
        mut bytes in vec(any::<u8>(), 0..400),
        opcode in select(Opcode::ALL),
        form in select(FORMS),
        payload_len in 0usize..4,
        agreed: u64,
    ) {
        let agreed = InitFlags::from_bits_retain(agreed);
        // As it is, hardly any is more than a bad length. So make the header right, too.
        for plausible in [false, true] {
            if plausible && bytes.len() >= 40 {
                let len = u32::try_from(bytes.len() + payload_len).unwrap();
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[4..8].copy_from_slice(&opcode.raw().to_ne_bytes());
                let units = u16::from(bytes[37] & 7);
                bytes[36..38].copy_from_slice(&units.to_ne_bytes());
            }
            if let Ok(request) = Request::decode(&bytes, payload_len, agreed) {
                let _ = format!("{request:?}");
            }
            if plausible && bytes.len() >= 16 {
                let len = u32::try_from(bytes.len()).unwrap();
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[4..8].fill(0);
            }
            let _ = Reply::decode(form, &bytes);
            let _ = Notification::decode(&bytes);
            let _ = Dirents::new(&bytes).count();
            let _ = DirentsPlus::new(&bytes).count();
        }
    }
}
