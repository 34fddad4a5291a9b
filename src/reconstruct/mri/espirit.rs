//! ESPIRiT coil maps.

use candle_core::Tensor;
use ndarray::{Array2, Axis, s};
use num_complex::Complex;
use rayon::prelude::*;

use super::eigenmaps::{MatrixField, dominant};
use super::region::first;
use crate::error::{Error, Result};
use crate::linalg::dense::{HermitianEigen, matmul};
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// ESPIRiT (Uecker et al. 2014): coil maps as eigenvectors to the eigenvalue 1 of the operator that projects
/// k-space on what the calibration data predict.
///
/// Short pieces of k-space (kernel × kernel × coils) span a small subspace, whose projection W Wᴴ comes from an
/// eigendecomposition of the calibration region. Averaged over all pieces that hold a sample it is a convolution
/// of k-space, so a matrix G(x) [coil, coil] at every point of the image, with G S = S inside the object
/// (equations 14 to 22).
#[derive(Clone, Copy, Debug)]
pub struct Espirit {
    /// Side of the pieces in samples.
    pub kernel: usize,
    /// Singular values below this part of the largest are noise.
    pub threshold: f64,
    /// Standard deviation of the noise of the real and of the imaginary part of each sample, in units of the data, where it
    /// is known: then singular values that noise alone reaches (Marchenko and Pastur 1967) are noise too. Without it, much
    /// noise would pass for signal, and maps mean nothing.
    pub noise: Option<f64>,
    /// Maps are zero around the object, where the eigenvalue is below this. Holes inside the object, such as
    /// those that a small calibration region leaves, keep their maps.
    pub crop: f64,
}

impl Default for Espirit {
    fn default() -> Self {
        Self { kernel: 6, threshold: 0.02, noise: None, crop: 0.8 }
    }
}

/// Coil maps and how well each point follows them.
#[derive(Clone, Debug)]
pub struct CoilMaps {
    /// Maps [batch…, coil, y, x, 2], Σ|S|² = 1 inside the object and 0 outside.
    pub maps: Tensor,
    /// The largest eigenvalue [batch…, y, x]: near 1 inside the object.
    pub eigenvalues: Tensor,
}

impl Espirit {
    /// The default with a kernel that suits a `region`: a third of its side, from 3 to 6 samples. Fewer and larger pieces
    /// span too little of what k-space can be, so that parts of the object would be cropped.
    pub fn suited_to(region: [usize; 2]) -> Self {
        Self { kernel: (region[0].min(region[1]) / 3).clamp(3, 6), ..Self::default() }
    }

    /// Maps from the central `region` [height, width] of `kspace` [batch…, coil, ky, kx, 2], which must be fully
    /// sampled there (see [`super::calibration_region`]); 24 × 24 is usual.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_core::Tensor;
    /// use wellposed::{operator::mri::*, reconstruct::mri::Espirit, tensor::random::Noise};
    /// let maps = birdcage(4, [32, 32], 1, DType::F32, &Device::Cpu)?;
    /// let encoding = Sense::new(&maps, &Tensor::ones((32, 32), DType::F32, &Device::Cpu)?)?;
    /// let image = Tensor::ones((32, 32, 2), DType::F32, &Device::Cpu)?;
    /// let kspace = measure(&encoding, &image, 0.0, Noise::default())?;
    /// let found = Espirit::default().maps(&kspace, [24, 24])?;
    /// assert!(found.eigenvalues.get(16)?.get(16)?.to_scalar::<f32>()? > 0.95);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the k-space has no coil axis; [`Error::Parameter`] where the region is smaller than
    /// the kernel or larger than k-space, or a setting is out of range; [`Error::NotFinite`] for NaN.
    pub fn maps(&self, kspace: &Tensor, region: [usize; 2]) -> Result<CoilMaps> {
        let [ref batch @ .., coils, height, width, 2] = *kspace.dims() else {
            return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
        };
        self.check([height, width], region)?;
        vector::require_finite("k-space", kspace)?;
        let mut maps = Buffer::zeros(kspace.dims(), kspace.dtype(), kspace.device())?;
        let shape = [batch, &[height, width]].concat();
        let mut eigenvalues = Buffer::zeros(&shape, kspace.dtype(), kspace.device())?;
        let kernel = Calibrate { settings: *self, coils, shape: [height, width], region };
        launch(kernel, &[kspace], &mut [&mut maps, &mut eigenvalues])?;
        Ok(CoilMaps { maps: maps.freeze(), eigenvalues: eigenvalues.freeze() })
    }

    fn check(&self, shape: [usize; 2], region: [usize; 2]) -> Result<()> {
        if self.kernel == 0 || (0..2).any(|i| region[i] < self.kernel || region[i] > shape[i]) {
            let k = self.kernel;
            let reason = format!("must be from {k}×{k} (the kernel) to {shape:?}; is the centre sampled?");
            return Err(Error::parameter("calibration region", format!("{region:?}"), reason));
        }
        for (name, value) in [("threshold", self.threshold), ("crop", self.crop)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::parameter(name, value, "must be at least 0 and below 1"));
            }
        }
        match self.noise {
            Some(noise) if !(noise >= 0.0 && noise.is_finite()) => {
                Err(Error::parameter("noise", noise, "must be at least 0"))
            }
            _ => Ok(()),
        }
    }
}

struct Calibrate {
    settings: Espirit,
    coils: usize,
    shape: [usize; 2],
    region: [usize; 2],
}

impl Kernel for Calibrate {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [maps, values] = outputs else { unreachable!("two outputs") };
        let (item, slice) = (self.shape[0] * self.shape[1], self.coils * self.shape[0] * self.shape[1]);
        let slices = as_complex(inputs[0]).chunks_exact(slice);
        let outputs = as_complex_mut(maps).chunks_exact_mut(slice).zip(values.chunks_exact_mut(item));
        for (kspace, (maps, values)) in slices.zip(outputs) {
            let Some((data, unit)) = self.calibration(kspace) else { continue };
            let reference: Vec<Complex<T>> = self.reference(&data)?;
            let field = Convolution::new(&self, &self.projection(&data, unit)?)?;
            dominant(&field, &reference, self.shape[1], maps, values);
            let crop = T::of(self.settings.crop);
            let low: Vec<bool> = values.iter().map(|value| *value < crop).collect();
            let outside = connected_to_border(&low, self.shape[1]);
            for map in maps.chunks_exact_mut(item) {
                let cropped = map.iter_mut().zip(&outside).filter(|(_, outside)| **outside);
                cropped.for_each(|(v, _)| *v = Complex::new(T::zero(), T::zero()));
            }
        }
        Ok(())
    }
}

impl Calibrate {
    /// The calibration region [coil, ky, kx] with maximum 1, and what it was divided by; nothing if it is zero.
    fn calibration<T: Real>(&self, kspace: &[Complex<T>]) -> Option<(Vec<Complex<f32>>, f64)> {
        let [height, width] = self.shape;
        let (top, left) = (first(height, self.region[0]), first(width, self.region[1]));
        let mut data: Vec<Complex<f64>> = Vec::with_capacity(self.coils * self.region[0] * self.region[1]);
        for coil in kspace.chunks_exact(height * width) {
            for row in coil[top * width..].chunks(width).take(self.region[0]) {
                let part = &row[left..left + self.region[1]];
                data.extend(part.iter().map(|v| Complex::new(v.re.as_f64(), v.im.as_f64())));
            }
        }
        let largest = data.iter().map(|v| v.norm()).fold(0.0, f64::max);
        let unit = |v: Complex<f64>| Complex::new((v.re / largest) as f32, (v.im / largest) as f32);
        (largest > 0.0).then(|| (data.into_iter().map(unit).collect(), largest))
    }

    /// The dominant combination of coils, which fixes the phase of the maps.
    fn reference<T: Real>(&self, data: &[Complex<f32>]) -> Result<Vec<Complex<T>>> {
        let count = self.region[0] * self.region[1];
        let rows = Array2::from_shape_fn((self.coils, count), |(c, i)| data[c * count + i]);
        let covariance = matmul(rows.view(), rows.t().mapv(|v| v.conj()).view())?;
        let eigen = HermitianEigen::new("coil covariance", covariance.view())?;
        let last = eigen.vectors.column(self.coils - 1);
        Ok(last.iter().map(|v| Complex::new(T::of(v.re.into()), T::of(v.im.into()))).collect())
    }

    /// W Wᴴ, the projection on what pieces of k-space can be; [coil · kernel², coil · kernel²].
    fn projection(&self, data: &[Complex<f32>], unit: f64) -> Result<Array2<Complex<f32>>> {
        let (k, [rows, columns]) = (self.settings.kernel, self.region);
        let across = columns - k + 1;
        let shape = (self.coils * k * k, (rows - k + 1) * across);
        let pieces = Array2::from_shape_fn(shape, |(i, j)| {
            let (coil, dy, dx) = (i / (k * k), i / k % k, i % k);
            data[(coil * rows + j / across + dy) * columns + j % across + dx]
        });
        let adjoint = |a: &Array2<Complex<f32>>| a.t().mapv(|v| v.conj());
        let wide = shape.1 > shape.0;
        let gram = if wide {
            matmul(pieces.view(), adjoint(&pieces).view())?
        } else {
            matmul(adjoint(&pieces).view(), pieces.view())?
        };
        let eigen = HermitianEigen::new("calibration matrix", gram.view())?;
        let largest = eigen.values.last().copied().unwrap_or(0.0);
        let floor = largest * (self.settings.threshold * self.settings.threshold) as f32;
        let floor = floor.max(self.noise_floor(shape, unit) as f32);
        let below = eigen.values.iter().take_while(|value| **value <= floor).count();
        // Noise alone has one component, so that the eigenvalues of the field are small.
        let from = below.min(eigen.values.len() - 1);
        let kept = eigen.vectors.slice(s![.., from..]).to_owned();
        let span = if wide {
            kept
        } else {
            let mut span = matmul(pieces.view(), kept.view())?;
            for (mut column, value) in span.axis_iter_mut(Axis(1)).zip(eigen.values.iter().skip(from)) {
                column.mapv_inplace(|v| v / value.sqrt());
            }
            span
        };
        matmul(span.view(), adjoint(&span).view())
    }

    /// The largest eigenvalue that pieces of noise have, σ²(√m + √n)² for m × n of them, and a tenth more.
    fn noise_floor(&self, shape: (usize, usize), unit: f64) -> f64 {
        let deviation = std::f64::consts::SQRT_2 * self.settings.noise.unwrap_or(0.0) / unit;
        (1.1 * deviation * ((shape.0 as f64).sqrt() + (shape.1 as f64).sqrt())).powi(2)
    }
}

/// The set pixels that a path over set neighbours joins to the border of the image.
fn connected_to_border(set: &[bool], width: usize) -> Vec<bool> {
    let height = set.len() / width;
    let mut joined = vec![false; set.len()];
    let border = |i: &usize| [0, height - 1].contains(&(i / width)) || [0, width - 1].contains(&(i % width));
    let mut open: Vec<usize> = (0..set.len()).filter(border).collect();
    while let Some(i) = open.pop() {
        if joined[i] || !set[i] {
            continue;
        }
        joined[i] = true;
        let (y, x) = (i / width, i % width);
        let steps = [(y > 0, width), (x > 0, 1)].map(|(inside, step)| inside.then(|| i - step));
        let further =
            [(y + 1 < height, width), (x + 1 < width, 1)].map(|(inside, step)| inside.then(|| i + step));
        open.extend(steps.into_iter().chain(further).flatten());
    }
    joined
}

/// G(x) = Σ_d K(d) e^{2πi d·x/N}, the convolution kernel's transform, evaluated row by row.
struct Convolution<T: Real> {
    coils: usize,
    height: usize,
    /// Offsets along an axis run from −reach to reach.
    reach: usize,
    /// K [pair, dy, dx].
    taps: Vec<Complex<f64>>,
    plan: Plan<T>,
}

impl<T: Real> Convolution<T> {
    /// K_cd(a − b) = kernel⁻² Σ (W Wᴴ)_{(c, a), (d, b)}.
    fn new(calibrate: &Calibrate, projection: &Array2<Complex<f32>>) -> Result<Self> {
        let (coils, k) = (calibrate.coils, calibrate.settings.kernel);
        let side = 2 * k - 1;
        let scale = 1.0 / (k * k) as f64;
        let pairs: Vec<(usize, usize)> = (0..coils).flat_map(|c| (0..=c).map(move |d| (c, d))).collect();
        let taps = pairs
            .par_iter()
            .flat_map_iter(|&(c, d)| {
                let mut taps = vec![Complex::new(0.0, 0.0); side * side];
                for a in 0..k * k {
                    let row = projection.slice(s![c * k * k + a, d * k * k..(d + 1) * k * k]);
                    for (b, v) in row.iter().enumerate() {
                        let (dy, dx) = (a / k + k - 1 - b / k, a % k + k - 1 - b % k);
                        taps[dy * side + dx] += Complex::new(f64::from(v.re), f64::from(v.im)) * scale;
                    }
                }
                taps
            })
            .collect();
        let plan = Plan::new(&calibrate.shape[1..], Origin::Centre)?;
        Ok(Self { coils, height: calibrate.shape[0], reach: k - 1, taps, plan })
    }
}

impl<T: Real> MatrixField<T> for Convolution<T> {
    fn row(&self, y: usize, pitch: usize, re: &mut [T], im: &mut [T]) {
        let side = 2 * self.reach + 1;
        let place = (y as f64 - (self.height / 2) as f64) / self.height as f64;
        let turns: Vec<Complex<f64>> = (0..side)
            .map(|dy| (dy as f64 - self.reach as f64) * place)
            .map(|turn| Complex::from_polar(1.0, std::f64::consts::TAU * turn))
            .collect();
        let axis = self.plan.last();
        let width = axis.length() as isize;
        let middle = width / 2 - self.reach as isize;
        let pairs = self.taps.chunks_exact(side * side).zip(re.chunks_mut(pitch).zip(im.chunks_mut(pitch)));
        axis.with_scratch(|scratch| {
            for (taps, (re, im)) in pairs.take(self.coils * (self.coils + 1) / 2) {
                let mut across = vec![Complex::new(0.0, 0.0); side];
                for (row, turn) in taps.chunks_exact(side).zip(&turns) {
                    across.iter_mut().zip(row).for_each(|(sum, tap)| *sum += tap * turn);
                }
                axis.row(
                    scratch,
                    |at, line| {
                        line.fill(Complex::new(T::zero(), T::zero()));
                        for (dx, v) in across.iter().enumerate() {
                            // Narrow images wrap around.
                            let to = (middle + dx as isize).rem_euclid(width) as usize;
                            if let Some(o) = to.checked_sub(at).and_then(|to| line.get_mut(to)) {
                                *o += Complex::new(T::of(v.re), T::of(v.im));
                            }
                        }
                    },
                    |line, scratch| axis.line(Direction::Inverse, line, scratch),
                    |at, line| {
                        for ((re, im), v) in re[at..].iter_mut().zip(&mut im[at..]).zip(line) {
                            (*re, *im) = (v.re, v.im);
                        }
                    },
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::{Sense, birdcage, measure};
    use crate::tensor::random::Noise;

    #[test]
    fn finds_simulated_maps_up_to_a_phase() {
        for (n, coils, noise) in [(64, 8, 1e-3), (49, 16, 1e-3)] {
            let truth = birdcage(coils, [n, n], 3, DType::F64, &Device::Cpu).unwrap();
            let mask = Tensor::ones((n, n), DType::F64, &Device::Cpu).unwrap();
            let inside = |i: usize| {
                let (y, x) = (i / n, i % n);
                (y as f64 - 0.5 * n as f64).hypot(x as f64 - 0.45 * n as f64) < 0.35 * n as f64
            };
            let image: Vec<f64> = (0..n * n)
                .flat_map(|i| [f64::from(u8::from(inside(i))) * (1.0 + 0.3 * (i as f64 * 0.05).sin()), 0.0])
                .collect();
            let image = f64::tensor(image, &[n, n, 2]).unwrap();
            let encoding = Sense::new(&truth, &mask).unwrap();
            let kspace = measure(&encoding, &image, noise, Noise::new(1, 0)).unwrap();
            let found = Espirit::default().maps(&kspace, [24, 24]).unwrap();
            let (truth, maps) = (f64::to_vec(&truth).unwrap(), f64::to_vec(&found.maps).unwrap());
            let (truth, maps) = (as_complex(&truth), as_complex(&maps));
            let values = f64::to_vec(&found.eigenvalues).unwrap();
            let mut worst = 0f64;
            for i in (0..n * n).filter(|i| inside(*i)) {
                assert!(values[i] > 0.9 && values[i] < 1.01, "eigenvalue {}", values[i]);
                let overlap: Complex<f64> =
                    (0..coils).map(|c| truth[c * n * n + i].conj() * maps[c * n * n + i]).sum();
                worst = worst.max(1.0 - overlap.norm());
            }
            assert!(worst < 5e-3, "{worst}");
            let outside = values[n + 1];
            assert!(outside < 0.95, "eigenvalue {outside} far outside");
        }
    }

    #[test]
    fn only_what_is_joined_to_the_border_lies_outside() {
        #[rustfmt::skip]
        let low = [
            1, 1, 1, 1, 1,
            1, 0, 0, 0, 0,
            1, 0, 1, 0, 1,
            0, 0, 0, 0, 1,
        ];
        let outside = connected_to_border(&low.map(|v| v == 1), 5);
        let mut expected = low.map(|v| v == 1);
        expected[12] = false;
        assert_eq!(outside, expected);
    }

    #[test]
    fn refuses_what_is_too_small() {
        let kspace = Tensor::ones((2, 16, 16, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(Espirit::default().maps(&kspace, [5, 16]), Err(Error::Parameter { .. })));
        assert!(matches!(Espirit::default().maps(&kspace, [8, 17]), Err(Error::Parameter { .. })));
        let odd = Espirit { crop: 1.5, ..Espirit::default() };
        assert!(matches!(odd.maps(&kspace, [8, 8]), Err(Error::Parameter { .. })));
        let silent = kspace.zeros_like().unwrap();
        let found = Espirit::default().maps(&silent, [8, 8]).unwrap();
        assert_eq!(found.maps.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(), 0.0);
    }

    #[test]
    fn much_noise_needs_to_be_known() {
        let (n, coils, noise) = (48, 4, 0.1);
        let truth = birdcage(coils, [n, n], 3, DType::F64, &Device::Cpu).unwrap();
        let inside = |i: usize| ((i / n) as f64 - 24.0).hypot((i % n) as f64 - 22.0) < 17.0;
        let image: Vec<f64> = (0..n * n).flat_map(|i| [f64::from(u8::from(inside(i))), 0.0]).collect();
        let mask = Tensor::ones((n, n), DType::F64, &Device::Cpu).unwrap();
        let encoding = Sense::new(&truth, &mask).unwrap();
        let image = f64::tensor(image, &[n, n, 2]).unwrap();
        let kspace = measure(&encoding, &image, noise, Noise::new(4, 0)).unwrap();
        let truth = f64::to_vec(&truth).unwrap();
        // The mean overlap with the true maps inside the object.
        let overlap = |noise: Option<f64>| {
            let found = Espirit { noise, ..Espirit::default() }.maps(&kspace, [20, 20]).unwrap();
            let maps = f64::to_vec(&found.maps).unwrap();
            let at = |i: usize| {
                let coil =
                    |c: usize| as_complex(&truth)[c * n * n + i].conj() * as_complex(&maps)[c * n * n + i];
                (0..coils).map(coil).sum::<Complex<f64>>().norm()
            };
            let points: Vec<f64> = (0..n * n).filter(|i| inside(*i)).map(at).collect();
            points.iter().sum::<f64>() / points.len() as f64
        };
        let (unknown, known) = (overlap(None), overlap(Some(noise)));
        assert!(known > 0.998 && 1.0 - known < 0.4 * (1.0 - unknown), "{unknown} {known}");
        let negative = Espirit { noise: Some(-1.0), ..Espirit::default() };
        assert!(matches!(negative.maps(&kspace, [20, 20]), Err(Error::Parameter { .. })));
    }
}
