//! K-space put together from single readouts, as scanners store them.

use std::path::Path;

use candle_core::Tensor;
use nalgebra::{Matrix4, Vector3};

use crate::error::{Error, Result};
use crate::io::{Grid, MriScan, Provenance};
use crate::tensor::{Buffer, Real, fft};

/// One readout of all coils.
pub(crate) struct Readout {
    /// Phase-encoding line and slice.
    pub(crate) line: usize,
    pub(crate) slice: usize,
    /// Index of the sample at kx = 0.
    pub(crate) centre: usize,
    /// Measured from the other end, as every second line of an EPI.
    pub(crate) reversed: bool,
    pub(crate) coils: usize,
    /// [coil, sample, 2]
    pub(crate) samples: Vec<f32>,
    /// Where the samples lie that are not on a grid, (ky, kx) in the file's units: [sample, 2]; (kz, ky, kx) in a volume.
    pub(crate) path: Vec<f32>,
    /// Centre of the slice and directions of readout, phase and slice in LPS mm, where known.
    pub(crate) frame: Option<[Vector3<f64>; 4]>,
}

/// Readouts without signal: real and imaginary parts in turn, for each coil.
#[derive(Default)]
pub(crate) struct NoiseScan(Vec<Vec<f32>>);

impl NoiseScan {
    /// Adds what `coil` received.
    pub(crate) fn push(&mut self, coil: usize, values: impl IntoIterator<Item = f32>) {
        // Channel numbers have 16 bits at most.
        if self.0.len() <= coil {
            self.0.resize_with(coil + 1, Vec::new);
        }
        self.0[coil].extend(values);
    }

    /// The covariance [coil, coil, 2] of one part, Σ n nᴴ / 2 over the number of samples; nothing where the coils are not
    /// those of the image or received differently much.
    fn covariance(&self, coils: usize) -> Result<Option<Tensor>> {
        let length = self.0.first().map_or(0, Vec::len);
        if self.0.len() != coils || length < 2 || self.0.iter().any(|c| c.len() != length) {
            return Ok(None);
        }
        let element = |i: usize, j: usize| -> [f64; 2] {
            let mut sum = [0.0; 2];
            for (a, b) in self.0[i].chunks_exact(2).zip(self.0[j].chunks_exact(2)) {
                let [ar, ai, br, bi] = [a[0], a[1], b[0], b[1]].map(f64::from);
                sum = [sum[0] + ar * br + ai * bi, sum[1] + ai * br - ar * bi];
            }
            sum.map(|v| v / length as f64)
        };
        let values: Vec<f64> = (0..coils * coils).flat_map(|at| element(at / coils, at % coils)).collect();
        Ok(Some(f64::tensor(values, &[coils, coils, 2])?))
    }
}

/// What all readouts have in common.
pub(crate) struct Encoding {
    /// Samples of a full readout, and pixels along x once oversampling is removed.
    pub(crate) samples: usize,
    pub(crate) width: usize,
    /// Lines of the full k-space, and the line at ky = 0.
    pub(crate) lines: usize,
    pub(crate) centre_line: usize,
    /// Planes of a volume that is encoded in three dimensions; 1 for slices.
    pub(crate) depth: usize,
    /// Field of view without oversampling [z (one slice, or the volume), y, x] in mm.
    pub(crate) field: [f64; 3],
    /// Planes, rows and columns with oversampling.
    pub(crate) encoded: [usize; 3],
    /// Central [height, width] that is the picture.
    pub(crate) picture: Option<[usize; 2]>,
    /// The noise scan, if any.
    pub(crate) noise: NoiseScan,
    /// The noise's standard deviation as the file states it, for want of a noise scan.
    pub(crate) deviation: Option<f64>,
}

/// Sorts readouts into k-space, averages what was measured several times, and removes readout oversampling.
pub(crate) fn assemble(
    path: &Path,
    readouts: &[Readout],
    encoding: &Encoding,
    provenance: Provenance,
) -> Result<MriScan> {
    let bad = |reason: String| Error::format(path, reason);
    let first = readouts.first().ok_or_else(|| bad("holds no imaging data".into()))?;
    let (coils, lines, samples) = (first.coils, encoding.lines, encoding.samples);
    let slices = readouts.iter().map(|r| r.slice).max().unwrap_or(0) + 1;
    if coils == 0 || lines == 0 || samples == 0 || encoding.width == 0 || encoding.width > samples {
        return Err(bad(format!(
            "encodes {lines} lines of {samples} samples, {} pixels wide",
            encoding.width
        )));
    }
    // A counter that is corrupt must not ask for gigabytes: no method samples less than a 64th.
    let measured: usize = readouts.iter().map(|r| r.samples.len()).sum();
    let wanted = [slices, coils, lines, samples, 2].iter().try_fold(1usize, |n, &s| n.checked_mul(s));
    if wanted.is_none_or(|n| n > 64 * measured + 4096) {
        let n = readouts.len();
        return Err(bad(format!(
            "{slices} slices of {lines} × {samples} samples and {coils} coils, but only {n} readouts"
        )));
    }
    let mut kspace = vec![0f32; slices * coils * lines * samples * 2];
    let mut counts = vec![0u32; slices * lines * samples];
    for readout in readouts {
        if readout.coils != coils {
            return Err(bad(format!("readouts of {coils} and of {} coils", readout.coils)));
        }
        let line = (readout.line + lines / 2).checked_sub(encoding.centre_line).filter(|l| *l < lines);
        let line = line.ok_or_else(|| {
            bad(format!(
                "line {} lies outside of the {lines} lines about line {}",
                readout.line, encoding.centre_line
            ))
        })?;
        let n = readout.samples.len() / 2 / coils;
        let centre = if readout.reversed { n.saturating_sub(1 + readout.centre) } else { readout.centre };
        for at in 0..n {
            let Some(x) = (at + samples / 2).checked_sub(centre).filter(|x| *x < samples) else { continue };
            let from = if readout.reversed { n - 1 - at } else { at };
            counts[(readout.slice * lines + line) * samples + x] += 1;
            for coil in 0..coils {
                let to = ((readout.slice * coils + coil) * lines + line) * samples + x;
                kspace[2 * to] += readout.samples[2 * (coil * n + from)];
                kspace[2 * to + 1] += readout.samples[2 * (coil * n + from) + 1];
            }
        }
    }
    for (at, pair) in kspace.chunks_exact_mut(2).enumerate() {
        let (row, slice) = (at % (lines * samples), at / (coils * lines * samples));
        let count = counts[slice * lines * samples + row].max(1) as f32;
        pair.iter_mut().for_each(|v| *v /= count);
    }
    let kspace = f32::tensor(kspace, &[slices, coils, lines, samples, 2])?;
    let kspace = remove_oversampling(kspace, encoding.width)?;
    let mask = mask(&counts, slices, lines, samples, encoding.width)?;
    finish(path, readouts, encoding, Sampled { kspace, mask, trajectory: None }, provenance)
}

/// K-space in the file's units, and where it was sampled.
pub(super) struct Sampled {
    pub(super) kspace: Tensor,
    pub(super) mask: Tensor,
    pub(super) trajectory: Option<Tensor>,
}

/// The scan of sampled k-space: normalised, with its place and its noise.
pub(super) fn finish(
    path: &Path,
    readouts: &[Readout],
    encoding: &Encoding,
    sampled: Sampled,
    provenance: Provenance,
) -> Result<MriScan> {
    let [slices, coils] = [0, 1].map(|axis| sampled.kspace.dims()[axis]);
    let planes = if encoding.depth > 1 { encoding.depth } else { slices };
    let shape = [planes, encoding.lines, encoding.width];
    let crop =
        encoding.picture.filter(|p| p[0] <= shape[1] && p[1] <= shape[2] && *p != [shape[1], shape[2]]);
    let (kspace, scale) = normalised(path, &sampled.kspace)?;
    // The orthonormal transform keeps the noise's deviation; only what it is divided by changes it.
    let covariance = match encoding.noise.covariance(coils)? {
        Some(covariance) => Some((covariance / (scale * scale))?),
        None => None,
    };
    let measured = covariance.as_ref().map(deviation).transpose()?;
    let scan = MriScan {
        kspace,
        mask: sampled.mask,
        trajectory: sampled.trajectory,
        coil_maps: None,
        noise: measured.or(encoding.deviation.map(|deviation| deviation / scale)),
        noise_covariance: covariance,
        scale,
        crop,
        target: grid(shape, encoding, readouts).map_err(|e| crate::io::in_file(path, e))?,
        provenance,
    };
    scan.validate(&format!("{}: ", path.display()))?;
    Ok(scan)
}

/// The root mean square over coils of the noise's standard deviation.
fn deviation(covariance: &Tensor) -> Result<f64> {
    let values = f64::to_vec(covariance)?;
    let coils = covariance.dims()[0];
    Ok(((0..coils).map(|c| values[2 * c * (coils + 1)]).sum::<f64>() / coils as f64).sqrt())
}

/// Cuts the outer parts of the field of view along x: transformed, cropped, transformed back.
fn remove_oversampling(kspace: Tensor, width: usize) -> Result<Tensor> {
    let samples = kspace.dims()[3];
    if width == samples {
        return Ok(kspace);
    }
    let mut image = Buffer::copy_of(&kspace)?;
    fft::inverse(&kspace, 1, &mut image)?;
    let image = image.freeze().narrow(3, samples / 2 - width / 2, width)?.contiguous()?;
    let mut cropped = Buffer::copy_of(&image)?;
    fft::forward(&image, 1, &mut cropped)?;
    Ok(cropped.freeze())
}

/// 1 where measured, on the grid without oversampling; one mask for all slices where they agree.
fn mask(counts: &[u32], slices: usize, lines: usize, samples: usize, width: usize) -> Result<Tensor> {
    let nearest = |x: usize| {
        // Sample (x − ⌊width/2⌋) · samples/width about the centre.
        let offset = (x as f64 - (width / 2) as f64) * samples as f64 / width as f64;
        ((samples / 2) as f64 + offset).round().clamp(0.0, samples as f64 - 1.0) as usize
    };
    let values: Vec<f32> = (0..slices * lines)
        .flat_map(|row| (0..width).map(move |x| (row, x)))
        .map(|(row, x)| if counts[row * samples + nearest(x)] > 0 { 1.0 } else { 0.0 })
        .collect();
    let one = lines * width;
    if values.chunks_exact(one).all(|m| *m == values[..one]) {
        return f32::tensor(values[..one].to_vec(), &[lines, width]);
    }
    f32::tensor(values, &[slices, lines, width])
}

/// The data divided by its largest component, and that component: receivers have arbitrary units, beyond
/// single precision's comfort at times.
pub(crate) fn normalised(path: &Path, kspace: &Tensor) -> Result<(Tensor, f64)> {
    crate::tensor::vector::require_finite(&path.display().to_string(), kspace)?;
    let scale = f64::from(kspace.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?);
    if scale == 0.0 {
        return Err(Error::format(path, "the k-space is zero everywhere"));
    }
    let values: Vec<f32> = f32::to_vec(kspace)?.into_iter().map(|v| (f64::from(v) / scale) as f32).collect();
    Ok((f32::tensor(values, kspace.dims())?, scale))
}

fn grid(shape: [usize; 3], encoding: &Encoding, readouts: &[Readout]) -> Result<Grid> {
    let [slices, height, width] = shape;
    let [z, y, x] = encoding.field;
    let spacing = [z / encoding.depth as f64, y / height as f64, x / width as f64];
    let of = |slice| readouts.iter().find(|r| r.slice == slice).and_then(|r| r.frame);
    let volume = encoding.depth > 1;
    let last = if volume { 0 } else { slices - 1 };
    let (Some([origin, read, phase, normal]), Some([last, ..])) = (of(0), of(last)) else {
        return Grid::centred(shape, spacing);
    };
    let step =
        if slices > 1 && !volume { (last - origin) / (slices - 1) as f64 } else { normal * spacing[0] };
    let (along, down) = (read * spacing[2], phase * spacing[1]);
    // The centre of the slice, or of the volume, is the pixel of frequency zero.
    let planes = if volume { slices / 2 } else { 0 };
    let corner = origin - along * (width / 2) as f64 - down * (height / 2) as f64 - step * planes as f64;
    let mut affine = Matrix4::identity();
    for (axis, column) in [along, down, step, corner].iter().enumerate() {
        (0..3).for_each(|row| affine[(row, axis)] = if row < 2 { -column[row] } else { column[row] });
    }
    Grid::new(shape, affine).or_else(|_| Grid::centred(shape, spacing))
}
