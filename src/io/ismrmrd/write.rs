//! Scans as ISMRMRD: one record per readout.

use std::io::Write;
use std::path::Path;

use nalgebra::Vector3;

use super::layout::{File, Type};
use super::{ALONG_Y, DEVIATION, transposed};
use crate::error::{Error, Result};
use crate::io::scalar::f32_bytes;
use crate::io::{MriScan, atomic};
use crate::tensor::Real;

const FIRST_IN_SLICE: u64 = 1 << 6;
const LAST_IN_SLICE: u64 = 1 << 7;
const LAST_IN_MEASUREMENT: u64 = 1 << 24;
/// The format's version of the header.
const VERSION: u16 = 1;

/// Writes a scan that was checked, in its own units; k-space that is not on a grid with its trajectory, ±½ at the edge
/// of the band. Readouts run along x there: where only columns were measured whole, x and y change their names. Coil maps
/// have no place there.
///
/// # Errors
/// [`Error::Unsupported`] where the mask doesn't sample whole readouts, or an axis is longer than 65535.
pub(crate) fn write(scan: &MriScan, path: &Path) -> Result<()> {
    let along_y = scan.trajectory.is_none() && !whole(scan)?;
    let exchanged = if along_y { Some(transposed(scan)?) } else { None };
    let scan = exchanged.as_ref().unwrap_or(scan);
    let mut file = File::new();
    let records = records(scan, &mut file)?;
    let header = header(scan, along_y);
    let header = file.store(header.len() as u32, header.as_bytes());
    let xml = file.dataset(&Type::text(), &header);
    let data = file.dataset(&record_type(), &records);
    let dataset = file.group(&[("data", data), ("xml", xml)]);
    let root = file.group(&[("dataset", dataset)]);
    let bytes = file.finish(root);
    atomic::write(path, |out| out.write_all(&bytes))
}

fn records(scan: &MriScan, file: &mut File) -> Result<Vec<u8>> {
    let &[slices, coils, lines, samples, _] = scan.kspace.dims() else {
        return Err(Error::shape("kspace", "[slice, coil, ky, kx, 2]", scan.kspace.dims()));
    };
    if [slices, coils, lines, samples].iter().any(|n| *n > usize::from(u16::MAX)) {
        let found = &[slices, coils, lines, samples];
        return Err(Error::shape("ISMRMRD", "axes of up to 65535", found));
    }
    let kspace: Vec<f32> =
        f32::to_vec(&scan.kspace)?.into_iter().map(|v| (f64::from(v) * scan.scale) as f32).collect();
    let mask = f32::to_vec(&scan.mask)?;
    let points = scan.trajectory.as_ref().map(f64::to_vec).transpose()?;
    let size = scan.target.shape().map(|n| n as f64);
    let axes = if scan.along_volume() { 3 } else { 2 };
    let mut out = Vec::new();
    let mut counter = 0;
    for slice in 0..slices {
        let of_slice = if scan.mask.rank() == 3 { slice * lines * samples } else { 0 };
        let mut readouts = Vec::new();
        for line in 0..lines {
            let at = of_slice + line * samples;
            let run = match points {
                Some(_) => Some(0..samples),
                None => run(&mask[at..at + samples])?,
            };
            readouts.extend(run.map(|run| (line, run)));
        }
        let last = readouts.len().saturating_sub(1);
        for (place, (line, run)) in readouts.into_iter().enumerate() {
            let mut flags = if place == 0 { FIRST_IN_SLICE } else { 0 };
            if place == last {
                flags |= LAST_IN_SLICE | if slice + 1 == slices { LAST_IN_MEASUREMENT } else { 0 };
            }
            let path: Vec<f32> = points.as_ref().map_or(Vec::new(), |k| {
                let of_line = &k[axes * line * samples..axes * (line + 1) * samples];
                let part = |k: &[f64], axis: usize| (k[axes - 1 - axis] / size[2 - axis]) as f32;
                of_line.chunks_exact(axes).flat_map(|k| (0..axes).map(move |axis| part(k, axis))).collect()
            });
            let centre = match points {
                Some(_) => nearest_to_zero(&path, axes),
                None => samples / 2 - run.start,
            };
            let dimensions = path.len() / run.len().max(1);
            let head = Head { flags, counter, samples: run.len(), coils, centre, line, slice, dimensions };
            head.put(scan, &mut out);
            counter += 1;
            out.extend(file.store(path.len() as u32, &f32_bytes(&path)));
            let values: Vec<f32> = (0..coils)
                .flat_map(|coil| {
                    let from = ((slice * coils + coil) * lines + line) * samples;
                    &kspace[2 * (from + run.start)..2 * (from + run.end)]
                })
                .copied()
                .collect();
            out.extend(file.store(values.len() as u32, &f32_bytes(&values)));
        }
    }
    Ok(out)
}

/// Whether each line along x was measured in one piece, or not at all.
fn whole(scan: &MriScan) -> Result<bool> {
    let samples = scan.kspace.dims()[3];
    Ok(f32::to_vec(&scan.mask)?.chunks_exact(samples).all(|line| run(line).is_ok()))
}

/// The samples of a line that were measured, if any.
fn run(mask: &[f32]) -> Result<Option<std::ops::Range<usize>>> {
    let Some(start) = mask.iter().position(|m| *m != 0.0) else { return Ok(None) };
    let end = mask.iter().rposition(|m| *m != 0.0).map_or(start, |last| last + 1);
    if mask[start..end].contains(&0.0) || start > mask.len() / 2 {
        let reason = "ISMRMRD holds whole readouts; a mask of single points needs a .h5 or .cfl file";
        return Err(Error::Unsupported(reason.into()));
    }
    Ok(Some(start..end))
}

/// The sample of a trajectory (kx, ky) or (kx, ky, kz) that is nearest to k = 0.
fn nearest_to_zero(path: &[f32], axes: usize) -> usize {
    let size = |k: &[f32]| k.iter().map(|v| v * v).sum::<f32>();
    let samples = path.chunks_exact(axes).enumerate();
    samples.min_by(|a, b| size(a.1).total_cmp(&size(b.1))).map_or(0, |(at, _)| at)
}

/// What differs from one readout to the next.
struct Head {
    flags: u64,
    counter: u32,
    samples: usize,
    coils: usize,
    centre: usize,
    line: usize,
    slice: usize,
    /// Of the trajectory, 0 without one.
    dimensions: usize,
}

impl Head {
    /// The fields in the order of [`head_type`].
    fn put(&self, scan: &MriScan, out: &mut Vec<u8>) {
        let short = |v: usize| (v as u16).to_le_bytes();
        let start = out.len();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.flags.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(self.counter.to_le_bytes());
        out.extend([0; 16]);
        out.extend([self.samples, self.coils, self.coils].map(short).concat());
        for word in 0..16 {
            let on = self.coils.saturating_sub(64 * word).min(64) as u32;
            out.extend((u64::MAX.checked_shr(64 - on).unwrap_or(0)).to_le_bytes());
        }
        out.extend([0, 0, self.centre, 0, self.dimensions].map(short).concat());
        // The time of a sample is not known.
        out.extend([0; 4]);
        out.extend(frame(scan, self.slice).map(f32::to_le_bytes).concat());
        out.extend([self.line, 0, 0, self.slice, 0, 0, 0, 0, 0].map(short).concat());
        // Numbers of the user's own.
        out.resize(start + 340, 0);
    }
}

/// Centre of a slice, or of the volume, directions of readout, phase and slice in LPS, position of the table.
fn frame(scan: &MriScan, slice: usize) -> [f32; 15] {
    let grid = &scan.target;
    let [planes, height, width] = grid.shape();
    let slice = if scan.along_volume() { planes / 2 } else { slice };
    let lps = |v: Vector3<f64>| [-v[0], -v[1], v[2]];
    let place = nalgebra::Vector4::new((width / 2) as f64, (height / 2) as f64, slice as f64, 1.0);
    let centre = (grid.affine() * place).xyz();
    let [read, phase, through] = [0, 1, 2].map(|axis| lps(grid.direction(axis).normalize()));
    let all = [lps(centre), read, phase, through, [0.0; 3]].concat();
    std::array::from_fn(|i| all[i] as f32)
}

/// A record of the dataset.
fn record_type() -> Type {
    let numbers = Type::float().sequence();
    Type::compound(&[("head", head_type()), ("traj", numbers.clone()), ("data", numbers)])
}

/// `ISMRMRD_AcquisitionHeader` of `ismrmrd.h`, packed: 340 bytes.
fn head_type() -> Type {
    let [short, int, long] = [2, 4, 8].map(|size| Type::integer(size, false));
    let float = Type::float();
    let counters = [
        "kspace_encode_step_1",
        "kspace_encode_step_2",
        "average",
        "slice",
        "contrast",
        "phase",
        "repetition",
        "set",
        "segment",
    ];
    let mut encoding: Vec<(&str, Type)> = counters.iter().map(|name| (*name, short.clone())).collect();
    encoding.push(("user", short.array(8)));
    let vector = float.array(3);
    Type::compound(&[
        ("version", short.clone()),
        ("flags", long.clone()),
        ("measurement_uid", int.clone()),
        ("scan_counter", int.clone()),
        ("acquisition_time_stamp", int.clone()),
        ("physiology_time_stamp", int.array(3)),
        ("number_of_samples", short.clone()),
        ("available_channels", short.clone()),
        ("active_channels", short.clone()),
        ("channel_mask", long.array(16)),
        ("discard_pre", short.clone()),
        ("discard_post", short.clone()),
        ("center_sample", short.clone()),
        ("encoding_space_ref", short.clone()),
        ("trajectory_dimensions", short),
        ("sample_time_us", float.clone()),
        ("position", vector.clone()),
        ("read_dir", vector.clone()),
        ("phase_dir", vector.clone()),
        ("slice_dir", vector.clone()),
        ("patient_table_position", vector),
        ("idx", Type::compound(&encoding)),
        ("user_int", Type::integer(4, true).array(8)),
        ("user_float", float.array(8)),
    ])
}

/// The XML header (`ismrmrd.xsd`). The resonance frequency is not known, but the schema wants a number.
fn header(scan: &MriScan, along_y: bool) -> String {
    let [planes, height, width] = scan.target.shape();
    let [z, y, x] = scan.target.spacing();
    let (slices, depth) = if scan.along_volume() { (1, planes) } else { (planes, 1) };
    let space = |[rows, columns]: [usize; 2]| {
        let (wide, high, deep) = (x * columns as f64, y * rows as f64, z * depth as f64);
        format!(
            "<matrixSize><x>{columns}</x><y>{rows}</y><z>{depth}</z></matrixSize>\
             <fieldOfView_mm><x>{wide}</x><y>{high}</y><z>{deep}</z></fieldOfView_mm>"
        )
    };
    let limit = |name: &str, count: usize, centre: usize| {
        format!(
            "<{name}><minimum>0</minimum><maximum>{}</maximum><center>{centre}</center></{name}>",
            count - 1
        )
    };
    let [lines, trajectory] = match scan.trajectory {
        None => [limit("kspace_encoding_step_1", height, height / 2), "cartesian".into()],
        Some(_) => [limit("kspace_encoding_step_1", scan.kspace.dims()[2], 0), "other".into()],
    };
    let (coils, slice) = (scan.kspace.dims()[1], limit("slice", slices, 0));
    let (encoded, recon) = (space([height, width]), space(scan.crop.unwrap_or([height, width])));
    let deviation = scan.noise.filter(|noise| *noise > 0.0).map(|noise| (DEVIATION, noise * scan.scale));
    let axis = along_y.then_some((ALONG_Y, 1.0));
    let mut parameters: String = deviation
        .into_iter()
        .chain(axis)
        .map(|(name, value)| {
            format!("<userParameterDouble><name>{name}</name><value>{value}</value></userParameterDouble>")
        })
        .collect();
    if !parameters.is_empty() {
        parameters = format!("<userParameters>{parameters}</userParameters>");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <ismrmrdHeader xmlns=\"http://www.ismrm.org/ISMRMRD\">\
         <acquisitionSystemInformation><receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>\
         <experimentalConditions><H1resonanceFrequency_Hz>0</H1resonanceFrequency_Hz></experimentalConditions>\
         <encoding><encodedSpace>{encoded}</encodedSpace><reconSpace>{recon}</reconSpace>\
         <encodingLimits>{lines}{slice}</encodingLimits><trajectory>{trajectory}</trajectory></encoding>\
         {parameters}</ismrmrdHeader>\n"
    )
}
