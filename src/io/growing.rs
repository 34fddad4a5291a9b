//! Files of numbers that grow.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::error::{Error, Result};
use crate::io::atomic::Pending;
use crate::io::scalar::f32_bytes;

/// A header, and numbers after it, packed where the name of the file ends in `.gz`. The file appears when it is whole.
pub(crate) struct Growing {
    out: Packing,
    pending: Pending,
}

enum Packing {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl Growing {
    pub(crate) fn create(path: &Path, header: &[u8]) -> Result<Self> {
        let pending = Pending::new(path)?;
        let buffer = BufWriter::with_capacity(1 << 20, pending.file()?);
        let out = match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
            true => Packing::Gzip(Box::new(GzEncoder::new(buffer, Compression::new(3)))),
            false => Packing::Plain(buffer),
        };
        let mut file = Self { out, pending };
        file.put(header)?;
        Ok(file)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.out {
            Packing::Plain(out) => out.write_all(bytes),
            Packing::Gzip(out) => out.write_all(bytes),
        };
        written.map_err(|e| Error::io(self.pending.path(), e))
    }

    pub(crate) fn append(&mut self, values: &[f32]) -> Result<()> {
        values.chunks(1 << 16).try_for_each(|part| self.put(&f32_bytes(part)))
    }

    pub(crate) fn finish(self) -> Result<()> {
        let out = match self.out {
            Packing::Plain(out) => Ok(out),
            Packing::Gzip(out) => out.finish(),
        };
        out.and_then(|mut out| out.flush()).map_err(|e| Error::io(self.pending.path(), e))?;
        self.pending.publish()
    }
}
