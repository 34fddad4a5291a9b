//! Taking samples from a grid, and spreading them onto it.

use num_complex::Complex;
use rayon::prelude::*;

use super::window::{MAX_WIDTH, Window};
use crate::tensor::Real;

/// Axes of the grid; fewer are filled up with axes of one point in front.
pub(super) const AXES: usize = 3;

/// Samples taken as one unit of work.
const CHUNK: usize = 512;

/// Rows along the first axis spread onto as one unit of work.
const BAND: usize = 16;

/// Where samples lie on a grid: the first tap of each along each axis. The taps' weights are kept apart, in the element
/// type of the data: [sample, all taps of the first axis, all of the second, …].
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) shape: [usize; AXES],
    widths: [usize; AXES],
    first: Vec<[u32; AXES]>,
    /// The samples whose taps touch each band of rows of the first axis that has more than one point.
    bands: Vec<Vec<u32>>,
    rows: usize,
}

impl Places {
    /// Places and weights of samples at `positions` [sample, axis], in units of the grid.
    pub(super) fn new(shape: &[usize], windows: &[Window], positions: &[f64]) -> (Self, Vec<f64>) {
        let given = shape.len();
        let pad = AXES - given;
        let full: [usize; AXES] = std::array::from_fn(|a| if a < pad { 1 } else { shape[a - pad] });
        let widths: [usize; AXES] = std::array::from_fn(|a| if a < pad { 1 } else { windows[a - pad].width });
        let placed: Vec<([u32; AXES], Vec<f64>)> = positions
            .par_chunks_exact(given)
            .map(|p| {
                let mut first = [0; AXES];
                let mut weights = Vec::with_capacity(widths.iter().sum());
                weights.resize(pad, 1.0);
                for a in 0..given {
                    let start = (p[a] - 0.5 * windows[a].width as f64).ceil();
                    weights.extend((0..windows[a].width).map(|j| windows[a].value(start + j as f64 - p[a])));
                    first[pad + a] = (start as i64).rem_euclid(shape[a] as i64) as u32;
                }
                (first, weights)
            })
            .collect();
        let first: Vec<[u32; AXES]> = placed.iter().map(|p| p.0).collect();
        let weights = placed.into_iter().flat_map(|p| p.1).collect();
        let axis = pad.min(AXES - 2);
        let rows = full[axis];
        let mut bands = vec![Vec::new(); rows.div_ceil(BAND)];
        for (sample, first) in first.iter().enumerate() {
            let mut last = usize::MAX;
            for j in 0..widths[axis] {
                let band = (first[axis] as usize + j) % rows / BAND;
                if band != last {
                    // A window that leaves the grid and comes back may end in the band that it began in.
                    if bands[band].last() != Some(&(sample as u32)) {
                        bands[band].push(sample as u32);
                    }
                    last = band;
                }
            }
        }
        (Self { shape: full, widths, first, bands, rows }, weights)
    }

    /// Points of the grid.
    pub(super) fn points(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn samples(&self) -> usize {
        self.first.len()
    }

    /// Taps along each axis.
    pub(super) fn widths(&self) -> [usize; AXES] {
        self.widths
    }

    /// The first taps of all samples `[sample, axis]`.
    pub(super) fn first_taps(&self) -> Vec<f64> {
        self.first.iter().flatten().map(|f| f64::from(*f)).collect()
    }

    /// Sides of the tiles of a device's grid, of 256 points.
    pub(super) fn tile(&self) -> [usize; AXES] {
        match self.shape {
            [1, 1, _] => [1, 1, 256],
            [1, _, _] => [1, 16, 16],
            _ => [4, 8, 8],
        }
    }

    /// Where the samples that touch each tile begin, and where the last end, then the samples, tile by tile.
    pub(super) fn tiles(&self) -> Vec<f64> {
        let tile = self.tile();
        let counts: [usize; AXES] = std::array::from_fn(|a| self.shape[a].div_ceil(tile[a]));
        let mut members = vec![Vec::new(); counts.iter().product()];
        for (sample, first) in self.first.iter().enumerate() {
            let touched = |a: usize| {
                let taps = (0..self.widths[a]).map(|j| (first[a] as usize + j) % self.shape[a] / tile[a]);
                let mut tiles: Vec<usize> = taps.collect();
                tiles.sort_unstable();
                tiles.dedup();
                tiles
            };
            let [planes, rows, columns] = [touched(0), touched(1), touched(2)];
            for (i, j) in planes.iter().flat_map(|i| rows.iter().map(move |j| (i, j))) {
                columns.iter().for_each(|k| members[(i * counts[1] + j) * counts[2] + k].push(sample as f64));
            }
        }
        let ends = members.iter().scan(0.0, |end, m| {
            *end += m.len() as f64;
            Some(*end)
        });
        let starts = std::iter::once(0.0).chain(ends);
        starts.chain(members.iter().flatten().copied()).collect()
    }

    fn weights<'a, T>(&self, all: &'a [T], sample: usize) -> [&'a [T]; AXES] {
        let [a, b, c] = self.widths;
        let own = &all[sample * (a + b + c)..][..a + b + c];
        [&own[..a], &own[a..a + b], &own[a + b..]]
    }

    /// samples ← Σ over taps of weight · grid.
    pub(super) fn take<T: Real>(&self, weights: &[T], grid: &[Complex<T>], samples: &mut [Complex<T>]) {
        samples.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = self.take_one(weights, grid, chunk * CHUNK + i);
                    }
                },
            );
        });
    }

    #[inline(always)]
    fn take_one<T: Real>(&self, weights: &[T], grid: &[Complex<T>], sample: usize) -> Complex<T> {
        let [_, height, width] = self.shape;
        let [wz, wy, wx] = self.weights(weights, sample);
        let [z, y, x] = self.first[sample].map(|f| f as usize);
        let zero = Complex::new(T::zero(), T::zero());
        let mut sum = [zero; MAX_WIDTH];
        let sum = &mut sum[..wx.len()];
        let before = wx.len().min(width - x);
        for (j, &az) in wz.iter().enumerate() {
            let plane = (z + j) % self.shape[0] * height;
            for (i, &ay) in wy.iter().enumerate() {
                let a = az * ay;
                let row = &grid[(plane + (y + i) % height) * width..][..width];
                let (near, far) = sum.split_at_mut(before);
                add_scaled(a, &row[x..x + before], near);
                if !far.is_empty() {
                    add_scaled(a, &row[..far.len()], far);
                }
            }
        }
        sum.iter().zip(wx).fold(zero, |s, (v, w)| s + v * *w)
    }

    /// grid ← the adjoint of [`Places::take`]. Each band of rows is one unit of work.
    pub(super) fn spread<T: Real>(&self, weights: &[T], samples: &[Complex<T>], grid: &mut [Complex<T>]) {
        let band = BAND * grid.len() / self.rows;
        grid.par_chunks_mut(band).enumerate().for_each(|(index, grid)| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    grid.fill(Complex::new(T::zero(), T::zero()));
                    for &sample in &self.bands[index] {
                        self.spread_one(
                            weights,
                            samples[sample as usize],
                            sample as usize,
                            index * BAND,
                            grid,
                        );
                    }
                },
            );
        });
    }

    /// Adds a sample to the rows from `low` on that `band` holds.
    #[inline(always)]
    fn spread_one<T: Real>(
        &self,
        weights: &[T],
        value: Complex<T>,
        sample: usize,
        low: usize,
        band: &mut [Complex<T>],
    ) {
        let [depth, height, width] = self.shape;
        let [wz, wy, wx] = self.weights(weights, sample);
        let [z, y, x] = self.first[sample].map(|f| f as usize);
        let mut line = [Complex::new(T::zero(), T::zero()); MAX_WIDTH];
        let line = &mut line[..wx.len()];
        line.iter_mut().zip(wx).for_each(|(l, w)| *l = value * *w);
        let before = wx.len().min(width - x);
        // The first line of the band, counted over all planes.
        let start = if depth > 1 { low * height } else { low };
        let lines = band.len() / width;
        for (j, &az) in wz.iter().enumerate() {
            let plane = (z + j) % depth * height;
            for (i, &ay) in wy.iter().enumerate() {
                let Some(row) = (plane + (y + i) % height).checked_sub(start).filter(|r| *r < lines) else {
                    continue;
                };
                let row = &mut band[row * width..][..width];
                add_scaled(az * ay, &line[..before], &mut row[x..x + before]);
                if before < line.len() {
                    add_scaled(az * ay, &line[before..], &mut row[..line.len() - before]);
                }
            }
        }
    }
}

/// to ← to + a · from.
#[inline(always)]
fn add_scaled<T: Real>(a: T, from: &[Complex<T>], to: &mut [Complex<T>]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.re += a * from.re;
        to.im += a * from.im;
    }
}
