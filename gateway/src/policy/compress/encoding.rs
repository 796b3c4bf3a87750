//! The encodings: their levels, the memory that an encoder takes, and encoders behind one interface.

use std::{
    cell::Cell,
    io::{self, Write},
    rc::Rc,
};

use serde::Deserialize;

use crate::violations::Violations;

/// All encodings, in the order of the type.
pub(crate) const ENCODINGS: [Encoding; 3] = [Encoding::Gzip, Encoding::Br, Encoding::Zstd];

/// The window of brotli and zstd, as a power of two: how far back an encoder, and the client, remembers. Larger ones gain little on
/// pages and answers, and take memory in proportion.
const WINDOW_BITS: u32 = 18;
const KIB: usize = 1024;

/// How a body is encoded (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    Gzip,
    Br,
    Zstd,
}

/// How hard each encoding tries.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Levels {
    gzip: u8,
    br: u8,
    zstd: u8,
}

impl Default for Levels {
    fn default() -> Self {
        Self { gzip: 5, br: 4, zstd: 3 }
    }
}

impl Levels {
    /// Above these an encoder takes more memory and time than an answer in flight is worth.
    pub(super) fn check(&self, path: &str, violations: &mut Violations) {
        for (encoding, level, max) in
            [(Encoding::Gzip, self.gzip, 9), (Encoding::Br, self.br, 6), (Encoding::Zstd, self.zstd, 9)]
        {
            if !(1..=max).contains(&level) {
                violations.add(format!("{path}.{}", encoding.word()), format!("must be 1 to {max}"));
            }
        }
    }
}

impl Encoding {
    /// Its name in headers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The one of this name, `x-gzip` included.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let named = |encoding: &Self| encoding.word().as_bytes().eq_ignore_ascii_case(name);
        let alias = name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip);
        ENCODINGS.into_iter().find(named).or(alias)
    }

    /// What an encoder takes at the most, as measured with an allocator that counts (zlib-rs 0.6, brotli 8, zstd 1.5.7).
    pub(super) fn memory_bytes(self, levels: &Levels) -> usize {
        let kib = match (self, levels) {
            (Self::Gzip, _) => 410,
            (Self::Br, Levels { br: ..=1, .. }) => 200,
            (Self::Br, Levels { br: 2 | 3, .. }) => 1_400,
            (Self::Br, Levels { br: 4, .. }) => 3_500,
            (Self::Br, Levels { br: 5, .. }) => 4_100,
            (Self::Br, _) => 5_100,
            (Self::Zstd, Levels { zstd: ..=2, .. }) => 1_200,
            (Self::Zstd, Levels { zstd: 3 | 4, .. }) => 1_900,
            (Self::Zstd, Levels { zstd: 5 | 6, .. }) => 3_700,
            (Self::Zstd, Levels { zstd: 7 | 8, .. }) => 6_300,
            (Self::Zstd, _) => 11_400,
        };
        kib * KIB
    }

    /// An encoder for a body of this length, if that is known.
    pub(super) fn encoder(self, levels: &Levels, length: Option<u64>) -> io::Result<Encoder> {
        Ok(match self {
            Self::Gzip => {
                let level = flate2::Compression::new(levels.gzip.into());
                Encoder::Gzip(Box::new(flate2::write::GzEncoder::new(Vec::new(), level)))
            }
            Self::Br => {
                let quality = levels.br.into();
                Encoder::Br(Box::new(brotli::CompressorWriter::new(
                    Vec::new(),
                    4 * KIB,
                    quality,
                    WINDOW_BITS,
                )))
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), levels.zstd.into())?;
                encoder.window_log(WINDOW_BITS)?;
                // So that for a small body it makes small tables.
                encoder.set_pledged_src_size(length)?;
                Encoder::Zstd(Box::new(encoder))
            }
        })
    }
}

/// Turns a body's bytes into others.
pub(super) enum Encoder {
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl Encoder {
    /// Takes these bytes in.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Br(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Puts out all that it was given, so that a client can read that far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Br(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    /// What it has put out and nobody has taken.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The last of its output.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Br(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// How much memory a worker's encoders may take together. Of a response for which there is none left, the body goes as it is.
#[derive(Debug)]
pub(crate) struct Memory {
    left_bytes: Cell<usize>,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self { left_bytes: Cell::new(bytes) })
    }

    /// Takes so many bytes, if there are as many left.
    pub(super) fn take(self: &Rc<Self>, bytes: usize) -> Option<Share> {
        self.left_bytes.set(self.left_bytes.get().checked_sub(bytes)?);
        Some(Share { memory: self.clone(), bytes })
    }
}

/// One encoder's part of the memory, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Rc<Memory>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.left_bytes.set(self.memory.left_bytes.get() + self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_stand_where_their_numbers_say() {
        for (at, encoding) in ENCODINGS.into_iter().enumerate() {
            assert_eq!(encoding as usize, at);
            assert_eq!(Encoding::of(encoding.word().to_ascii_uppercase().as_bytes()), Some(encoding));
        }
    }

    #[test]
    fn memory_comes_back() {
        let memory = Memory::new(10);
        let share = memory.take(6).unwrap();
        assert!(memory.take(6).is_none());
        let other = memory.take(4).unwrap();
        drop((share, other));
        assert!(memory.take(10).is_some());
    }
}
