//! Siemens raw data (twix, `meas_….dat`) of software VB and VD/VE: Cartesian k-space.
//!
//! A measurement is a text header and a run of readouts, each with a header of counters (the "MDH"). VB has
//! one such header of 128 bytes a coil, VD one of 192 bytes a readout and 32 bytes a coil.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::scalar::{Endian, Scalar};
use crate::io::scan::acquisition::{Encoding, NoiseScan, Readout, assemble};
use crate::io::{MriScan, Provenance};

const ACQ_END: u64 = 1;
const SYNC: u64 = 1 << 5;
const REFERENCE: u64 = 1 << 22;
const REFERENCE_AND_IMAGE: u64 = 1 << 23;
const REFLECTED: u64 = 1 << 24;
const NOISE: u64 = 1 << 25;
/// Feedback, phase correction and phase stabilisation.
const OTHER: u64 = (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15) | (1 << 21);

type Parsed<T> = std::result::Result<T, String>;

/// Whether the first bytes of a file are those of a twix file.
pub(crate) fn is_twix(head: &[u8], path: &Path) -> bool {
    let word = |at: usize| head.get(at..at + 4).map_or(0, |w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("dat"));
    named && ((word(0) == 0 && (1..=64).contains(&word(4))) || (64..1 << 28).contains(&word(0)))
}

/// Reads the last measurement of a file (those before it are adjustments).
pub(crate) fn read(path: &Path) -> Result<MriScan> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let bad = |e: String| Error::format(path, format!("Siemens raw data: {e}"));
    let file = Bytes(&bytes);
    let modern = file.long(0).map_err(bad)? == 0;
    let start = if modern { last_measurement(&file).map_err(bad)? } else { 0 };
    let header = file.long(start).map_err(bad)? as usize;
    let text = file.slice(start, header.min(1 << 26)).map_err(bad)?;
    let protocol = Protocol(String::from_utf8_lossy(text));
    let mut lines =
        Lines { file, at: start.saturating_add(header), modern, noise: NoiseScan::default(), centre_line: 0 };
    let mut readouts = Vec::new();
    while let Some(line) = lines.next().map_err(bad)? {
        readouts.extend(line);
    }
    let readouts = if modern { readouts } else { join_coils(readouts) };
    let mut encoding = protocol.encoding(&readouts, lines.centre_line);
    encoding.noise = lines.noise;
    let provenance = Provenance::new(None).with("source", path.display().to_string());
    assemble(path, &readouts, &encoding, provenance)
}

/// Where the last measurement of a VD file starts.
fn last_measurement(file: &Bytes<'_>) -> Parsed<usize> {
    let count = file.long(4)? as usize;
    let entry = 8 + 152 * (count - 1);
    let offset = u64::from(file.long(entry + 8)?) | (u64::from(file.long(entry + 12)?) << 32);
    usize::try_from(offset).map_err(|_| format!("a measurement at byte {offset}"))
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn slice(&self, at: usize, length: usize) -> Parsed<&'a [u8]> {
        let end = at.checked_add(length);
        let found = end.and_then(|end| self.0.get(at..end));
        found.ok_or_else(|| format!("truncated: {length} bytes wanted at byte {at} of {}", self.0.len()))
    }

    fn long(&self, at: usize) -> Parsed<u32> {
        self.slice(at, 4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
    }

    fn short(&self, at: usize) -> Parsed<usize> {
        self.slice(at, 2).map(|w| usize::from(u16::from_le_bytes([w[0], w[1]])))
    }
}

/// The readouts of a measurement.
struct Lines<'a> {
    file: Bytes<'a>,
    at: usize,
    modern: bool,
    noise: NoiseScan,
    centre_line: usize,
}

impl Lines<'_> {
    /// The next readout; `Some(None)` for one that is no image, `None` at the end.
    fn next(&mut self) -> Parsed<Option<Option<Readout>>> {
        // Where the fields lie: evaluation mask, samples, counters, centre column, centre line.
        let (mask, samples, counters, column, line) =
            if self.modern { (40, 48, 52, 84, 96) } else { (20, 28, 32, 64, 76) };
        let (file, at) = (self.file, self.at);
        if at.saturating_add(128) > file.0.len() {
            return Err("truncated: the file ends before the mark of the last readout".into());
        }
        let flags = u64::from(file.long(at + mask)?) | (u64::from(file.long(at + mask + 4)?) << 32);
        let length = (file.long(at)? & 0x01ff_ffff) as usize;
        if flags & ACQ_END != 0 || length == 0 {
            return Ok(None);
        }
        let count = file.short(at + samples)?;
        let coils = if self.modern { file.short(at + samples + 2)? } else { 1 };
        let record =
            |coil: usize| if self.modern { at + 192 + coil * (32 + 8 * count) + 32 } else { at + 128 };
        if flags & SYNC != 0 {
            self.at += length.max(if self.modern { 192 } else { 128 });
            return Ok(Some(None));
        }
        let mut values = Vec::with_capacity((2 * coils * count).min(file.0.len() / 4));
        for coil in 0..coils {
            values.extend(Scalar::F32.decode::<f32>(file.slice(record(coil), 8 * count)?, Endian::Little));
        }
        self.at = if self.modern { record(coils) - 32 } else { at + 128 + 8 * count };
        let counter = |index: usize| file.short(at + counters + 2 * index);
        if flags & NOISE != 0 {
            for (coil, values) in values.chunks(2 * count.max(1)).enumerate() {
                let channel = if self.modern { coil } else { file.short(at + 124)? };
                self.noise.push(channel, values.iter().copied());
            }
            return Ok(Some(None));
        }
        let reference = flags & REFERENCE != 0 && flags & REFERENCE_AND_IMAGE == 0;
        // Line, average, slice, partition, echo, phase, repetition, set.
        if reference || flags & OTHER != 0 || [4, 5, 6, 7].iter().any(|i| counter(*i).is_ok_and(|c| c > 0)) {
            return Ok(Some(None));
        }
        if counter(3)? > 0 {
            return Err("3-D k-space (several partitions) is not supported".into());
        }
        self.centre_line = file.short(at + line)?;
        Ok(Some(Some(Readout {
            line: counter(0)?,
            slice: counter(2)?,
            centre: file.short(at + column)?,
            reversed: flags & REFLECTED != 0,
            coils,
            samples: values,
            path: Vec::new(),
            frame: None,
        })))
    }
}

/// VB writes the coils of a readout one after the other, each as a readout of its own.
fn join_coils(single: Vec<Readout>) -> Vec<Readout> {
    let mut joined: Vec<Readout> = Vec::new();
    for readout in single {
        let same = |last: &Readout| {
            (last.line, last.slice) == (readout.line, readout.slice)
                && last.samples.len() == last.coils * readout.samples.len()
        };
        match joined.last_mut().filter(|last| same(last)) {
            Some(last) => {
                last.coils += 1;
                last.samples.extend(readout.samples);
            }
            None => joined.push(readout),
        }
    }
    joined
}

/// The text header.
struct Protocol<'a>(std::borrow::Cow<'a, str>);

impl Protocol<'_> {
    /// A value of the part that is written as `name = value`, line by line.
    fn number(&self, name: &str) -> Option<f64> {
        self.0.match_indices(name).find_map(|(at, _)| {
            let rest = self.0[at + name.len()..].trim_start().strip_prefix('=')?;
            rest.split_whitespace().next()?.parse().ok()
        })
    }

    fn encoding(&self, readouts: &[Readout], centre_line: usize) -> Encoding {
        let samples = readouts.iter().map(|r| r.samples.len() / 2 / r.coils.max(1)).max().unwrap_or(0);
        // A readout that starts late is short before its centre; the full one is as long on both sides.
        let after =
            readouts.iter().map(|r| (r.samples.len() / 2 / r.coils.max(1)).saturating_sub(r.centre)).max();
        let samples = samples.max(2 * after.unwrap_or(0));
        let last = readouts.iter().map(|r| r.line).max().unwrap_or(0);
        let count = |name| self.number(name).filter(|n| *n >= 1.0 && *n < 1e5).map(|n| n as usize);
        let lines = count("sKSpace.lPhaseEncodingLines").unwrap_or(0).max(last + 1).max(2 * centre_line);
        let width = count("sKSpace.lBaseResolution").filter(|w| *w <= samples).unwrap_or(samples);
        let millimetres = |name: &str, default: f64| {
            self.number(&format!("sSliceArray.asSlice[0].{name}"))
                .filter(|v| *v > 0.0 && *v < 1e4)
                .unwrap_or(default)
        };
        let field = [
            millimetres("dThickness", 1.0),
            millimetres("dPhaseFOV", lines as f64),
            millimetres("dReadoutFOV", width as f64),
        ];
        let (encoded, noise) = ([1, lines, samples], NoiseScan::default());
        Encoding {
            samples,
            width,
            lines,
            centre_line,
            depth: 1,
            field,
            encoded,
            picture: None,
            noise,
            deviation: None,
        }
    }
}
