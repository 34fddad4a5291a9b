//! GRAPPA: missing lines as combinations of their measured neighbours in all coils.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ndarray::{Array2, s};
use num_complex::{Complex, Complex64};
use rayon::prelude::*;

use super::region::calibration_region;
use crate::error::{Error, Result};
use crate::linalg::dense::{Cholesky, matmul};
use crate::tensor::{Buffer, Kernel, Real, as_complex, as_complex_mut, launch, vector};

/// Missing lines of Cartesian k-space from measured ones, by weights fitted in the fully sampled centre (Griswold et al.
/// 2002).
///
/// Each missing line takes its nearest measured lines, whatever the pattern; lines with the same neighbourhood share
/// their weights, so that evenly spaced lines need R − 1 sets.
#[derive(Clone, Copy, Debug)]
pub struct Grappa {
    /// Measured lines that a missing one is made of, half of them on either side where there are as many.
    pub lines: usize,
    /// Samples along each of these lines, odd.
    pub samples: usize,
    /// Ridge of the fit, relative to the mean eigenvalue of its normal equations.
    pub ridge: f64,
}

impl Default for Grappa {
    fn default() -> Self {
        Self { lines: 4, samples: 5, ridge: 1e-4 }
    }
}

impl Grappa {
    /// `kspace` [batch…, coil, ky, kx, 2] with its missing lines filled in; `mask` [ky, kx] says which were measured.
    /// Measured samples are kept.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the mask doesn't consist of whole lines along one axis, its centre is too small to fit
    /// weights in, or a setting is out of range; [`Error::Shape`]; [`Error::NotFinite`] for NaN.
    pub fn complete(&self, kspace: &Tensor, mask: &Tensor) -> Result<Tensor> {
        if self.lines < 2 || self.samples.is_multiple_of(2) || !(self.ridge >= 0.0 && self.ridge.is_finite())
        {
            let value = format!("{} lines × {} samples, ridge {}", self.lines, self.samples, self.ridge);
            return Err(Error::parameter(
                "GRAPPA",
                value,
                "at least 2 lines, an odd number of samples, a ridge ≥ 0",
            ));
        }
        let [.., coils, height, width, 2] = *kspace.dims() else {
            return Err(Error::shape("k-space", "[batch…, coil, ky, kx, 2]", kspace.dims()));
        };
        if mask.dims() != [height, width] {
            return Err(Error::shape("sampling mask", format!("[{height}, {width}]"), mask.dims()));
        }
        vector::require_finite("k-space", kspace)?;
        let measured = f64::to_vec(mask)?;
        let at = |line: usize, i: usize, across: bool| {
            measured[if across { line * width + i } else { i * width + line }]
        };
        // Lines are columns (all ky at one kx), as elsewhere; or rows.
        let whole = |across: bool| {
            let (lines, length) = if across { (height, width) } else { (width, height) };
            (0..lines).all(|l| (1..length).all(|i| (at(l, i, across) != 0.0) == (at(l, 0, across) != 0.0)))
        };
        let across = match (whole(false), whole(true)) {
            (true, _) => false,
            (_, true) => true,
            _ => {
                return Err(Error::parameter("sampling mask", "points", "GRAPPA needs whole measured lines"));
            }
        };
        let lines = if across { height } else { width };
        let known: Vec<bool> = (0..lines).map(|l| at(l, 0, across) != 0.0).collect();
        let region = calibration_region(mask, height.max(width))?;
        let centre = Region::new([height, width], region, across);
        // Lines along the last axis.
        let ordered = if across {
            kspace.clone()
        } else {
            kspace.transpose(kspace.rank() - 3, kspace.rank() - 2)?.contiguous()?
        };
        let mut out = Buffer::copy_of(&ordered)?;
        let plan = Plan {
            settings: *self,
            coils,
            lines,
            length: if across { width } else { height },
            known,
            centre,
        };
        launch(plan, &[&ordered], &mut [&mut out])?;
        let out = out.freeze();
        Ok(if across { out } else { out.transpose(kspace.rank() - 3, kspace.rank() - 2)?.contiguous()? })
    }
}

/// The fully sampled centre, lines and positions along them.
#[derive(Debug)]
struct Region {
    lines: std::ops::Range<usize>,
    along: std::ops::Range<usize>,
}

impl Region {
    fn new(shape: [usize; 2], region: [usize; 2], across: bool) -> Self {
        let range = |axis: usize| {
            let first = shape[axis] / 2 - region[axis] / 2;
            first..first + region[axis]
        };
        let (lines, along) = if across { (range(0), range(1)) } else { (range(1), range(0)) };
        Self { lines, along }
    }
}

struct Plan {
    settings: Grappa,
    coils: usize,
    lines: usize,
    length: usize,
    known: Vec<bool>,
    centre: Region,
}

impl Plan {
    /// Distances from a missing line to the measured ones that it is made of.
    fn neighbours(&self, line: usize) -> Vec<isize> {
        let half = self.settings.lines / 2;
        let before: Vec<usize> = (0..line).rev().filter(|l| self.known[*l]).collect();
        let after: Vec<usize> = (line + 1..self.lines).filter(|l| self.known[*l]).collect();
        let low = half.max(self.settings.lines.saturating_sub(after.len())).min(before.len());
        let high = (self.settings.lines - low.min(self.settings.lines)).min(after.len());
        let mut all: Vec<isize> =
            before[..low].iter().chain(&after[..high]).map(|l| *l as isize - line as isize).collect();
        all.sort_unstable();
        all
    }

    /// What lies around position `i` of `line`: [coil, neighbour, sample], zero beyond the ends of lines.
    fn source<T: Real>(
        &self,
        set: &[Complex<T>],
        line: usize,
        i: usize,
        neighbours: &[isize],
        row: &mut [Complex64],
    ) {
        let reach = self.settings.samples / 2;
        let mut at = 0;
        for coil in set.chunks_exact(self.lines * self.length) {
            for offset in neighbours {
                let other = &coil[(line as isize + offset) as usize * self.length..][..self.length];
                for j in 0..self.settings.samples {
                    let value = (i + j).checked_sub(reach).and_then(|k| other.get(k));
                    row[at] = value.map_or(Complex64::ZERO, |v| Complex64::new(v.re.as_f64(), v.im.as_f64()));
                    at += 1;
                }
            }
        }
    }

    /// Weights [source, coil] for one neighbourhood, fitted over the centres of all images.
    fn weights<T: Real>(&self, data: &[Complex<T>], neighbours: &[isize]) -> Result<Array2<Complex64>> {
        let (reach, item) = (self.settings.samples / 2, self.coils * self.lines * self.length);
        let inside = |l: usize| {
            neighbours.iter().all(|o| self.centre.lines.contains(&((l as isize + o).max(-1) as usize)))
        };
        let targets: Vec<usize> = self.centre.lines.clone().filter(|l| inside(*l)).collect();
        let along = self.centre.along.start + reach..self.centre.along.end.saturating_sub(reach);
        let unknowns = self.coils * neighbours.len() * self.settings.samples;
        let images = data.len() / item;
        let rows = images * targets.len() * along.len();
        if rows < unknowns.div_ceil(2) || rows == 0 {
            let (lines, samples) = (self.centre.lines.len(), self.centre.along.len());
            let reason = format!(
                "a centre of {lines} lines × {samples} samples gives {rows} equations for {unknowns} weights of lines at \
                 the distances {neighbours:?}: measure more of the centre, or use fewer lines or coils"
            );
            return Err(Error::parameter("calibration region", format!("{lines} lines"), reason));
        }
        let mut a = Array2::zeros((rows, unknowns));
        let mut b = Array2::zeros((rows, self.coils));
        let places = (0..images).flat_map(|n| {
            targets.iter().flat_map({
                let along = along.clone();
                move |l| along.clone().map(move |i| (n, *l, i))
            })
        });
        for (row, (n, line, i)) in places.enumerate() {
            let set = &data[n * item..][..item];
            let mut source = a.row_mut(row);
            self.source(set, line, i, neighbours, source.as_slice_mut().expect("rows are contiguous"));
            for (coil, values) in set.chunks_exact(self.lines * self.length).enumerate() {
                let v = values[line * self.length + i];
                b[[row, coil]] = Complex64::new(v.re.as_f64(), v.im.as_f64());
            }
        }
        let conjugate = a.t().mapv(|v: Complex64| v.conj());
        let mut normal = matmul(conjugate.view(), a.view())?;
        let mean = normal.diag().iter().map(|v| v.re).sum::<f64>() / unknowns as f64;
        // Data without signal have no weights; any ridge makes them zero.
        let ridge = if mean > 0.0 { mean * self.settings.ridge.max(1e-14) } else { 1.0 };
        normal.diag_mut().mapv_inplace(|v| v + ridge);
        Cholesky::new("GRAPPA calibration", normal.view())?.solve(matmul(conjugate.view(), b.view())?.view())
    }
}

impl Kernel for Plan {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let data = as_complex(inputs[0]);
        let item = self.coils * self.lines * self.length;
        let mut missing: BTreeMap<Vec<isize>, Vec<usize>> = BTreeMap::new();
        for line in (0..self.lines).filter(|l| !self.known[*l]) {
            missing.entry(self.neighbours(line)).or_default().push(line);
        }
        let out = as_complex_mut(outputs[0]);
        for (neighbours, lines) in missing {
            let weights = self.weights(data, &neighbours)?;
            for (set, out) in data.chunks_exact(item).zip(out.chunks_exact_mut(item)) {
                let made = lines
                    .par_iter()
                    .map(|line| {
                        let mut sources = Array2::zeros((self.length, weights.nrows()));
                        for (i, mut row) in sources.rows_mut().into_iter().enumerate() {
                            self.source(
                                set,
                                *line,
                                i,
                                &neighbours,
                                row.as_slice_mut().expect("rows are contiguous"),
                            );
                        }
                        matmul(sources.view(), weights.view())
                    })
                    .collect::<Result<Vec<_>>>()?;
                for (line, made) in lines.iter().zip(made) {
                    for (coil, column) in made.slice(s![.., ..]).columns().into_iter().enumerate() {
                        let to = &mut out[(coil * self.lines + line) * self.length..][..self.length];
                        to.iter_mut()
                            .zip(column)
                            .for_each(|(o, v)| *o = Complex::new(T::of(v.re), T::of(v.im)));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::linalg::LinearOperator;
    use crate::operator::mri::{Pattern, Sampling, Sense, birdcage};
    use crate::testing::relative_difference;

    /// Fully sampled k-space of a disc with a hole.
    fn full(n: usize, coils: usize) -> Tensor {
        let mut values = Vec::with_capacity(2 * n * n);
        for i in 0..n * n {
            let (y, x) = ((i / n) as f64 / n as f64 - 0.5, (i % n) as f64 / n as f64 - 0.5);
            let size =
                f64::from(u8::from(y.hypot(x) < 0.4)) - 0.5 * f64::from(u8::from((y - 0.1).hypot(x) < 0.15));
            values.extend([size, 0.2 * x]);
        }
        let image = f64::tensor(values, &[n, n, 2]).unwrap();
        let maps = birdcage(coils, [n, n], 2, DType::F64, &Device::Cpu).unwrap();
        let all = Tensor::ones((n, n), DType::F64, &Device::Cpu).unwrap();
        Sense::new(&maps, &all).unwrap().apply(&image).unwrap()
    }

    fn undersampled(full: &Tensor, mask: &Tensor) -> Tensor {
        let mask = mask.to_dtype(DType::F64).unwrap();
        full.broadcast_mul(&mask.unsqueeze(0).unwrap().unsqueeze(3).unwrap()).unwrap()
    }

    #[test]
    fn fills_every_second_line() {
        let full = full(64, 8);
        let pattern = Pattern::EquispacedLines { centre: 0.3, offset: Some(1) };
        let mask = Sampling { pattern, acceleration: 1.6, seed: 0 }.draw([64, 64]).unwrap();
        for turned in [false, true] {
            let (full, mask) = if turned {
                (full.transpose(1, 2).unwrap().contiguous().unwrap(), mask.t().unwrap().contiguous().unwrap())
            } else {
                (full.clone(), mask.clone())
            };
            let some = undersampled(&full, &mask);
            let found = Grappa { ridge: 1e-8, ..Grappa::default() }.complete(&some, &mask).unwrap();
            let (before, after) =
                (relative_difference(&some, &full).unwrap(), relative_difference(&found, &full).unwrap());
            assert!(after < 0.02 && after < 0.2 * before, "{before} {after}");
            assert!(relative_difference(&undersampled(&found, &mask), &some).unwrap() == 0.0);
        }
    }

    #[test]
    fn refuses_points_and_small_centres() {
        let full = full(32, 4);
        let pattern = Pattern::PoissonDisc { calibration: 10, growth: 1.0, corners: true };
        let points = Sampling { pattern, acceleration: 3.0, seed: 0 }.draw([32, 32]).unwrap();
        assert!(matches!(Grappa::default().complete(&full, &points), Err(Error::Parameter { .. })));
        let lines = Sampling {
            pattern: Pattern::EquispacedLines { centre: 0.0, offset: None },
            acceleration: 4.0,
            seed: 0,
        };
        let lines = lines.draw([32, 32]).unwrap();
        let refused =
            Grappa::default().complete(&undersampled(&full, &lines), &lines).unwrap_err().to_string();
        assert!(refused.contains("calibration region"), "{refused}");
    }
}
