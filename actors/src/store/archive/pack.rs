//! Writing a backup: file by file, hashed on the way, the manifest last.

use std::io::{self, Read, Write};

use schema::UnixMillis;
use tar::{Builder, EntryType, Header};
use zstd::stream::write::Encoder;

use super::end::Ending;
use super::{FileEntry, Hashed, MAC, MANIFEST, Manifest};

/// The writing end.
pub(in crate::store) struct Packer<W: Write> {
    tar: Builder<Encoder<'static, Ending<W>>>,
    files: Vec<FileEntry>,
    made: UnixMillis,
}

impl<W: Write> Packer<W> {
    pub(in crate::store) fn new(sink: W, made: UnixMillis) -> io::Result<Self> {
        let mut encoder = Encoder::new(Ending::of(sink), LEVEL)?;
        encoder.include_checksum(true)?;
        Ok(Self {
            tar: Builder::new(encoder),
            files: Vec::new(),
            made,
        })
    }

    /// Puts a file in.
    pub(in crate::store) fn add(
        &mut self,
        name: &str,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let mut content = Hashed::new(content.take(size));
        self.append(name, size, &mut content)?;
        let (read, sha256) = content.end();
        if read != size {
            return Err(io::Error::other(format!("{name} became shorter")));
        }
        let name = name.to_owned();
        self.files.push(FileEntry { name, size, sha256 });
        Ok(())
    }

    /// Puts the manifest and what `seal` makes of it in, and ends.
    pub(in crate::store) fn finish(
        mut self,
        mut manifest: Manifest,
        seal: impl FnOnce(&[u8]) -> [u8; 32],
    ) -> io::Result<(W, Manifest)> {
        manifest.files = std::mem::take(&mut self.files);
        let bytes = serde_json::to_vec_pretty(&manifest)?;
        self.append(MANIFEST, bytes.len() as u64, &*bytes)?;
        let mac = seal(&bytes);
        self.append(MAC, mac.len() as u64, &mac[..])?;
        let sink = self.tar.into_inner()?.finish()?.end()?;
        Ok((sink, manifest))
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.made.seconds());
        self.tar.append_data(&mut header, name, content)
    }
}

/// Fast rather than small: most of it is sealed and cannot be compressed.
const LEVEL: i32 = 1;
