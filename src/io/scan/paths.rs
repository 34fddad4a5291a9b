//! K-space put together from readouts along trajectories.

use std::path::Path;

use super::acquisition::{Encoding, Readout, Sampled, finish};
use crate::error::{Error, Result};
use crate::io::{MriScan, Provenance};
use crate::tensor::Real;

/// Sorts readouts by slice and counter; each slice must be sampled along the same paths.
///
/// Files give points as parts of the encoded band, ±½ at its edge, or in cycles per encoded field of view: a band of
/// less than one cycle resolves nothing, so that numbers up to 1 are parts.
pub(crate) fn assemble_paths(
    path: &Path,
    mut readouts: Vec<Readout>,
    encoding: &Encoding,
    provenance: Provenance,
) -> Result<MriScan> {
    let bad = |reason: String| Error::format(path, reason);
    readouts.sort_by_key(|r| (r.slice, r.line));
    // A volume has (kz, ky, kx), slices have (ky, kx).
    let axes = if encoding.depth > 1 { 3 } else { 2 };
    let (coils, samples) = (readouts[0].coils, readouts[0].path.len() / axes);
    let odd = readouts
        .iter()
        .find(|r| (r.coils, r.path.len(), r.samples.len()) != (coils, axes * samples, 2 * coils * samples));
    if let Some(odd) = odd {
        return Err(bad(format!(
            "readouts of {coils} coils × {samples} samples and of {} coils × {} samples at {} points",
            odd.coils,
            odd.samples.len() / 2 / odd.coils.max(1),
            odd.path.len() / axes
        )));
    }
    let slices: Vec<&[Readout]> = readouts.chunk_by(|a, b| a.slice == b.slice).collect();
    let first = slices[0];
    let differs = |slice: &&[Readout]| {
        slice.len() != first.len() || slice.iter().zip(first).any(|(a, b)| a.path != b.path)
    };
    if slices.iter().enumerate().any(|(at, slice)| slice[0].slice != at) || slices.iter().any(differs) {
        return Err(bad("slices that are missing, or sampled along different trajectories".into()));
    }
    if axes == 3 && slices.len() > 1 {
        return Err(bad(format!(
            "{} volumes that are encoded in three dimensions; expected one",
            slices.len()
        )));
    }
    let lines = first.len();
    let mut kspace = Vec::with_capacity(slices.len() * coils * lines * samples * 2);
    for slice in &slices {
        for coil in 0..coils {
            slice
                .iter()
                .for_each(|r| kspace.extend(&r.samples[2 * coil * samples..2 * (coil + 1) * samples]));
        }
    }
    let kspace = f32::tensor(kspace, &[slices.len(), coils, lines, samples, 2])?;
    let points: Vec<f32> = first.iter().flat_map(|r| r.path.iter().copied()).collect();
    let parts = points.iter().all(|k| k.abs() <= 1.0);
    let image = [encoding.depth, encoding.lines, encoding.width];
    let factor = |axis: usize| match parts {
        true => image[axis] as f64,
        false => image[axis] as f64 / encoding.encoded[axis] as f64,
    };
    let factors = &[factor(0), factor(1), factor(2)][3 - axes..];
    let points =
        points.iter().enumerate().map(|(at, k)| (f64::from(*k) * factors[at % axes]) as f32).collect();
    let trajectory = Some(f32::tensor(points, &[lines, samples, axes])?);
    let mask = f32::tensor(vec![1.0; lines * samples], &[lines, samples])?;
    finish(path, &readouts, encoding, Sampled { kspace, mask, trajectory }, provenance)
}
