use super::Notification;
use crate::Name;
use crate::abi::{NotifyDeleteOut, NotifyInvalEntryOut, NotifyPruneOut, NotifyStoreOut, OutHeader};
use crate::writer::{MessageTooLong, Writer, announced};

impl Notification<'_> {
    /// Writes the notification, header and body, to the start of `buffer` and returns its length
    /// in bytes. The rest of the buffer is left as it was.
    ///
    /// # Errors
    /// The buffer is too short, or the notification has 4 GiB or more.
    pub fn encode(&self, buffer: &mut [u8]) -> Result<usize, MessageTooLong> {
        let mut out = Writer::new(buffer);
        out.structure(&OutHeader::default());
        self.write_body(&mut out)?;
        out.overwrite_start(&OutHeader {
            len: announced(out.len(), u32::MAX)?,
            error: self.code().raw(),
            unique: 0,
        });
        Ok(out.finish()?.len())
    }

    fn write_body(&self, out: &mut Writer<'_>) -> Result<(), MessageTooLong> {
        match *self {
            Self::Poll(body) => out.structure(&body),
            Self::InvalInode(body) => out.structure(&body),
            Self::InvalEntry {
                parent,
                flags,
                name,
            } => {
                out.structure(&NotifyInvalEntryOut {
                    parent,
                    namelen: namelen(name)?,
                    flags,
                });
                out.bytes(name.as_c_str().to_bytes_with_nul());
            }
            Self::Store {
                nodeid,
                offset,
                data,
            } => {
                out.structure(&NotifyStoreOut {
                    nodeid,
                    offset,
                    size: announced(data.len(), u32::MAX)?,
                    padding: 0,
                });
                out.bytes(data);
            }
            Self::Retrieve(body) => out.structure(&body),
            Self::Delete {
                parent,
                child,
                name,
            } => {
                out.structure(&NotifyDeleteOut {
                    parent,
                    child,
                    namelen: namelen(name)?,
                    padding: 0,
                });
                out.bytes(name.as_c_str().to_bytes_with_nul());
            }
            Self::Resend | Self::IncEpoch => {}
            Self::Prune(nodes) => {
                out.structure(&NotifyPruneOut {
                    count: announced(nodes.len(), u32::MAX)?,
                    ..Default::default()
                });
                out.bytes(nodes.as_bytes());
            }
        }
        Ok(())
    }
}

fn namelen(name: Name<'_>) -> Result<u32, MessageTooLong> {
    announced(name.as_bytes().len(), u32::MAX)
}
