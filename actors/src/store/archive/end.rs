//! The last bytes of an archive: the SHA-256 of all before them, in a frame that other
//! tools skip. Whatever bit is changed, and wherever it is cut, it shows.

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};

/// Writes on, and the end in the end.
pub(in crate::store) struct Ending<W> {
    sink: W,
    context: Context,
}

impl<W: Write> Ending<W> {
    pub(in crate::store) fn of(sink: W) -> Self {
        let context = Context::new(&SHA256);
        Self { sink, context }
    }

    pub(in crate::store) fn end(mut self) -> io::Result<W> {
        self.sink.write_all(&end(self.context))?;
        Ok(self.sink)
    }
}

impl<W: Write> Write for Ending<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.context
            .update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Reads up to the end, which must be right.
pub(super) struct Ended<R> {
    source: R,
    context: Option<Context>,
    /// Read, but perhaps of the end.
    held: Vec<u8>,
    /// Of `held`, given out already.
    given: usize,
}

impl<R: Read> Ended<R> {
    pub(super) fn of(source: R) -> Self {
        Self {
            source,
            context: Some(Context::new(&SHA256)),
            held: Vec::new(),
            given: 0,
        }
    }

    /// Reads more; at the end of the source nothing but the right end may be left.
    fn more(&mut self) -> io::Result<()> {
        self.held.drain(..self.given);
        self.given = 0;
        let before = self.held.len();
        let most = &mut self.source.by_ref().take(super::BUFFER as u64);
        most.read_to_end(&mut self.held)?;
        let Some(context) = self.context.take() else {
            return Ok(());
        };
        if self.held.len() == before {
            if self.held != end(context) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(());
        }
        let mut context = context;
        context.update(self.ready());
        self.context = Some(context);
        Ok(())
    }

    /// What is not of the end for sure.
    fn ready(&self) -> &[u8] {
        let ready = self.held.len().saturating_sub(LENGTH);
        self.held.get(self.given..ready).unwrap_or_default()
    }
}

impl<R: Read> Read for Ended<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.ready().is_empty() && self.context.is_some() {
            self.more()?;
        }
        let read = self.ready().read(out)?;
        self.given += read;
        Ok(read)
    }
}

fn end(context: Context) -> Vec<u8> {
    let mut end = HEAD.to_vec();
    end.extend_from_slice(context.finish().as_ref());
    end
}

/// Of a skippable frame of zstd (RFC 8878, 3.1.2) with 32 bytes in it.
const HEAD: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
const LENGTH: usize = HEAD.len() + 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(archive: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        Ended::of(archive).read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn whatever_is_changed_or_cut_shows_at_the_end() {
        for length in [0, 1, 39, 40, 41, 1000, 600_000] {
            let plain = vec![7; length];
            let mut ending = Ending::of(Vec::new());
            ending.write_all(&plain).unwrap();
            let ended = ending.end().unwrap();
            assert!(read(&ended).unwrap() == plain, "{length}");
            assert!(read(&ended[..ended.len() - 1]).is_err());
            assert!(read(&[&*ended, &[0]].concat()).is_err());
            for at in [0, length / 2, length, length + 4, length + 20] {
                let mut changed = ended.clone();
                changed[at] ^= 16;
                assert!(read(&changed).is_err(), "byte {at} of {length}");
            }
        }
        assert!(read(b"").is_err());
    }
}
