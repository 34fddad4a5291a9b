//! ISMRMRD, the community's format of raw k-space: HDF5 with an XML header and one record per readout
//! (Inati et al., Magn. Reson. Med. 77:411, 2017; the fields are those of `ismrmrd.h`).

mod layout;
mod write;

use candle_core::Tensor;
use hdf5_pure::Datatype;
use nalgebra::Vector3;

use crate::error::Result;
use crate::io::hdf5::{Heap, Reader};
use crate::io::scalar::{Endian, Scalar};
use crate::io::scan::acquisition::{Encoding, NoiseScan, Readout, assemble};
use crate::io::scan::paths::assemble_paths;
use crate::io::{Grid, MriScan, Provenance};

pub(crate) use write::write;

const NOISE: u64 = 1 << 18;
const CALIBRATION: u64 = 1 << 19;
const CALIBRATION_AND_IMAGE: u64 = 1 << 20;
const REVERSED: u64 = 1 << 21;
/// Navigators, phase correction, feedback, dummies and other readouts that are no image.
const OTHER: u64 = (1 << 22) | (1 << 23) | (0x3f << 25);

/// The user parameter that holds the standard deviation of the noise, where there is no noise scan.
const DEVIATION: &str = "NoiseStandardDeviation";

/// The user parameter that is 1 where the readout ran along y before it was called x, as the format wants it.
const ALONG_Y: &str = "ReadoutAlongY";

/// Whether an HDF5 file is one of ISMRMRD.
pub(crate) fn is_ismrmrd(reader: &Reader) -> bool {
    reader.has("dataset/xml") && reader.has("dataset/data")
}

/// Reads k-space: readouts sorted by their counters, noise scans turned into the covariance of the noise. Of Cartesian
/// readouts averages are averaged and oversampling is removed; others keep their trajectories, in three dimensions where the
/// header encodes a volume. Of several contrasts, phases, repetitions or sets the first is read.
pub(crate) fn read(reader: &Reader) -> Result<MriScan> {
    let xml = reader.text("dataset/xml")?;
    let raw = reader.raw("dataset/data")?;
    let record = Record::of(&raw.datatype).ok_or_else(|| {
        reader.error(format!("dataset/data: expected ISMRMRD acquisitions, found {}", raw.datatype))
    })?;
    let heap = reader.heap()?;
    let cartesian = is_cartesian(&xml);
    let mut encoding = header(reader, &xml, cartesian)?;
    let mut readouts = Vec::new();
    let mut noise = NoiseScan::default();
    for bytes in raw.bytes.chunks_exact(record.size) {
        let flags = record.number(bytes, "flags") as u64;
        if flags & OTHER != 0 || (flags & CALIBRATION != 0 && flags & CALIBRATION_AND_IMAGE == 0) {
            continue;
        }
        let counter = |name: &str| record.number(bytes, &format!("idx.{name}")) as usize;
        if ["contrast", "phase", "repetition", "set"].iter().any(|name| counter(name) > 0) {
            continue;
        }
        let samples = heap.floats(&bytes[record.data..record.data + 16]).map_err(|e| reader.error(e))?;
        let (coils, count) = (
            record.number(bytes, "active_channels") as usize,
            record.number(bytes, "number_of_samples") as usize,
        );
        if coils == 0 || count == 0 || coils.checked_mul(2 * count) != Some(samples.len()) {
            let found = samples.len();
            return Err(
                reader.error(format!("a readout of {coils} coils × {count} samples has {found} numbers"))
            );
        }
        if flags & NOISE != 0 {
            let each = samples.chunks_exact(2 * count).enumerate();
            each.for_each(|(coil, values)| noise.push(coil, values.iter().copied()));
            continue;
        }
        let path = if cartesian {
            Vec::new()
        } else {
            record.path(bytes, count, encoding.depth > 1, &heap).map_err(|e| reader.error(e))?
        };
        if counter("kspace_encode_step_2") > 0 && path.len() <= 2 * count {
            let reason = "3-D k-space (kspace_encode_step_2 > 0) is supported along trajectories in three dimensions only";
            return Err(reader.error(reason));
        }
        readouts.push(Readout {
            line: (counter("kspace_encode_step_2") << 16) + counter("kspace_encode_step_1"),
            slice: counter("slice"),
            centre: record.number(bytes, "center_sample") as usize,
            reversed: flags & REVERSED != 0,
            coils,
            samples,
            path,
            frame: record.frame(bytes),
        });
    }
    encoding.noise = noise;
    // Some write the number of slices where planes of a volume belong.
    if readouts.iter().all(|r| r.path.len() * r.coils <= r.samples.len()) {
        encoding.field[0] /= encoding.depth as f64;
        encoding.depth = 1;
    }
    let provenance = Provenance::new(None).with("source", reader.path().display().to_string());
    if readouts.iter().any(|r| !r.path.is_empty()) {
        return assemble_paths(reader.path(), readouts, &encoding, provenance);
    }
    let scan = assemble(reader.path(), &readouts, &encoding, provenance)?;
    if user_parameter(&xml, ALONG_Y) == Some(1.0) { transposed(&scan) } else { Ok(scan) }
}

/// The same Cartesian scan with x and y exchanged, in the same place.
fn transposed(scan: &MriScan) -> Result<MriScan> {
    let exchanged = |x: &Tensor, rows: usize| x.transpose(rows, rows + 1)?.contiguous();
    let [slices, height, width] = scan.target.shape();
    let mut affine = *scan.target.affine();
    affine.swap_columns(0, 1);
    Ok(MriScan {
        kspace: exchanged(&scan.kspace, 2)?,
        mask: exchanged(&scan.mask, scan.mask.rank() - 2)?,
        crop: scan.crop.map(|[rows, columns]| [columns, rows]),
        target: Grid::new([slices, width, height], affine)?,
        ..scan.clone()
    })
}

/// Whether readouts are lines of a grid, whatever trajectory is recorded with them.
fn is_cartesian(xml: &str) -> bool {
    tag(xml, "encoding").and_then(|e| tag(e, "trajectory")).is_none_or(|t| t.trim() == "cartesian")
}

/// The encoding of the XML header. Without lines of a grid there is oversampling along y as along x.
fn header(reader: &Reader, xml: &str, cartesian: bool) -> Result<Encoding> {
    let missing = |what: &str| reader.error(format!("the XML header has no {what}"));
    let size = |space: &str, what: &str| -> Result<[f64; 3]> {
        let block =
            tag(xml, space).and_then(|s| tag(s, what)).ok_or_else(|| missing(&format!("{space}/{what}")))?;
        let axis = |name| tag(block, name).and_then(|t| t.trim().parse::<f64>().ok()).filter(|v| *v > 0.0);
        match (axis("x"), axis("y"), axis("z")) {
            (Some(x), Some(y), Some(z)) if x.max(y).max(z) < 1e6 => Ok([x, y, z]),
            _ => Err(reader.error(format!("{space}/{what}: expected positive x, y and z"))),
        }
    };
    let encoded = size("encodedSpace", "matrixSize")?.map(|n| n as usize);
    let recon = size("reconSpace", "matrixSize")?.map(|n| n as usize);
    let (wide, field) = (size("encodedSpace", "fieldOfView_mm")?, size("reconSpace", "fieldOfView_mm")?);
    // Oversampling is the part of the encoded field of view that the picture doesn't show.
    let kept = |axis: usize| {
        let kept = (encoded[axis] as f64 * field[axis] / wide[axis]).round() as usize;
        kept.clamp(1, encoded[axis].max(1))
    };
    let (width, lines) = (kept(0), if cartesian { encoded[1] } else { kept(1) });
    // Planes count where samples lie along paths: Cartesian volumes are refused by their counters.
    let depth = if cartesian { 1 } else { kept(2) };
    let limits = tag(xml, "encodingLimits").and_then(|l| tag(l, "kspace_encoding_step_1"));
    let centre = limits.and_then(|l| tag(l, "center")).and_then(|c| c.trim().parse().ok());
    Ok(Encoding {
        samples: encoded[0],
        width,
        lines,
        centre_line: centre.unwrap_or(encoded[1] / 2),
        depth,
        field: [
            if depth > 1 { wide[2] * depth as f64 / encoded[2] as f64 } else { wide[2] },
            wide[1] * lines as f64 / encoded[1].max(1) as f64,
            wide[0] * width as f64 / encoded[0].max(1) as f64,
        ],
        encoded: [2, 1, 0].map(|axis| encoded[axis].max(1)),
        picture: Some([recon[1], recon[0]]),
        noise: NoiseScan::default(),
        deviation: user_parameter(xml, DEVIATION).filter(|v| v.is_finite() && *v > 0.0),
    })
}

/// The value of a user parameter that is a number.
fn user_parameter(xml: &str, name: &str) -> Option<f64> {
    let mut parameters = xml.split("<userParameterDouble>").skip(1);
    let named = parameters.find(|p| tag(p, "name").is_some_and(|n| n.trim() == name))?;
    tag(named, "value")?.trim().parse().ok()
}

/// The contents of the first element of this name.
pub(crate) fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let open = format!("<{name}");
    let start = xml.match_indices(&open).find_map(|(at, _)| {
        let rest = &xml[at + open.len()..];
        rest.starts_with(['>', ' ', '\n', '\t'])
            .then(|| rest.find('>').map(|end| at + open.len() + end + 1))
            .flatten()
    })?;
    let end = xml[start..].find(&format!("</{name}>"))?;
    Some(&xml[start..start + end])
}

/// Where the fields of a record lie.
struct Record {
    size: usize,
    data: usize,
    path: Option<usize>,
    /// Name (`idx.` in front for the counters), place, type.
    fields: Vec<(String, usize, Scalar)>,
}

impl Record {
    fn of(datatype: &Datatype) -> Option<Self> {
        let Datatype::Compound { size, members } = datatype else { return None };
        let size = *size as usize;
        let member = |name: &str| members.iter().find(|m| m.name == name);
        let data = member("data").filter(|m| matches!(m.datatype, Datatype::VariableLength { .. }))?;
        let head = member("head")?;
        let mut fields = Vec::new();
        collect(&head.datatype, "", usize::try_from(head.byte_offset).ok()?, size, &mut fields)?;
        let path = member("traj").filter(|m| matches!(m.datatype, Datatype::VariableLength { .. }));
        let path = path.and_then(|m| usize::try_from(m.byte_offset).ok());
        let data = usize::try_from(data.byte_offset).ok()?;
        let fits = |at: usize| at.checked_add(16).is_some_and(|end| end <= size);
        (fits(data) && path.is_none_or(fits) && size > 0).then_some(Self { size, data, path, fields })
    }

    /// The points of a readout of `count` samples, (ky, kx) or in a `volume` (kz, ky, kx) where the file gives kz, in the
    /// file's units; nothing where there is no trajectory.
    fn path(
        &self,
        record: &[u8],
        count: usize,
        volume: bool,
        heap: &Heap,
    ) -> std::result::Result<Vec<f32>, String> {
        let dimensions = self.number(record, "trajectory_dimensions") as usize;
        let Some(at) = self.path.filter(|_| dimensions > 0) else { return Ok(Vec::new()) };
        let numbers = heap.floats(&record[at..at + 16])?;
        // Of slices a third number may be kz, or the density.
        if dimensions < 2 || dimensions.checked_mul(count) != Some(numbers.len()) {
            let found = numbers.len();
            return Err(format!(
                "a trajectory of {count} samples in {dimensions} dimensions has {found} numbers"
            ));
        }
        let axes = if volume && dimensions >= 3 { 3 } else { 2 };
        Ok(numbers.chunks_exact(dimensions).flat_map(|k| k[..axes].iter().rev().copied()).collect())
    }

    fn number(&self, record: &[u8], name: &str) -> f64 {
        self.numbers::<1>(record, name).map_or(0.0, |[v]| v)
    }

    /// The first values of a field.
    fn numbers<const N: usize>(&self, record: &[u8], name: &str) -> Option<[f64; N]> {
        let (_, at, scalar) = self.fields.iter().find(|(n, ..)| n == name)?;
        let values: Vec<f64> = scalar.decode(record.get(*at..*at + N * scalar.size())?, Endian::Little);
        values.try_into().ok()
    }

    /// Position and directions, where they are set.
    fn frame(&self, record: &[u8]) -> Option<[Vector3<f64>; 4]> {
        let vector = |name| self.numbers::<3>(record, name).map(Vector3::from);
        let frame = [vector("position")?, vector("read_dir")?, vector("phase_dir")?, vector("slice_dir")?];
        let unit = |v: &Vector3<f64>| (v.norm() - 1.0).abs() < 1e-2;
        frame[1..].iter().all(unit).then_some(frame)
    }
}

/// Lists the numeric fields of a compound type, those of inner compounds with their name in front.
fn collect(
    datatype: &Datatype,
    prefix: &str,
    base: usize,
    size: usize,
    fields: &mut Vec<(String, usize, Scalar)>,
) -> Option<()> {
    let Datatype::Compound { members, .. } = datatype else { return None };
    for m in members {
        let at = base.checked_add(usize::try_from(m.byte_offset).ok()?)?;
        let name = format!("{prefix}{}", m.name);
        let element =
            if let Datatype::Array { base_type, .. } = &m.datatype { base_type } else { &m.datatype };
        match element {
            Datatype::Compound { .. } => collect(&m.datatype, &format!("{name}."), at, size, fields)?,
            other => {
                if let Some(scalar) = crate::io::hdf5::number_type(other).filter(|s| at + s.size() <= size) {
                    fields.push((name, at, scalar));
                }
            }
        }
    }
    Some(())
}
