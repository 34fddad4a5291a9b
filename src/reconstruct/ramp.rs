//! The ramp filter of filtered back projection.

use std::f64::consts::{FRAC_PI_2, PI};

use rayon::prelude::*;
use realfft::RealFftPlanner;

use crate::error::{Error, Result};
use crate::reconstruct::Fbp;
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Kernel, Real};

pub(super) static PROGRAM: Program = Program { name: "ramp", source: include_str!("ramp.cu") };

/// The window that tempers the ramp |f|, over x = f/cut-off in 0…1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// 1: the band-limited ramp of Ramachandran and Lakshminarayanan (1971), sharpest and noisiest.
    #[default]
    RamLak,
    /// sin(πx/2)/(πx/2), of Shepp and Logan (1974).
    SheppLogan,
    /// cos(πx/2).
    Cosine,
    /// .54 + .46 cos(πx).
    Hamming,
    /// .5 + .5 cos(πx).
    Hann,
}

impl Window {
    fn at(self, x: f64) -> f64 {
        match self {
            Self::RamLak => 1.0,
            Self::SheppLogan if x == 0.0 => 1.0,
            Self::SheppLogan => (FRAC_PI_2 * x).sin() / (FRAC_PI_2 * x),
            Self::Cosine => (FRAC_PI_2 * x).cos(),
            Self::Hamming => 0.54 + 0.46 * (PI * x).cos(),
            Self::Hann => 0.5 + 0.5 * (PI * x).cos(),
        }
    }
}

/// Convolves rows of `bins` elements in place with the filter of this frequency response.
pub(super) struct Ramp {
    bins: usize,
    /// At f = 0 … Nyquist, over the length of the padded row as the inverse transform wants it.
    response: Vec<f64>,
}

impl Ramp {
    /// The ramp sampled in space, whose tap n is multiplied by `factor(n)`, for rows padded with zeros to a power of two
    /// of at least twice their length.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the cut-off is out of range.
    pub fn new(fbp: &Fbp, bins: usize, pitch: f64, factor: impl Fn(usize) -> f64) -> Result<Self> {
        if !(fbp.cutoff > 0.0 && fbp.cutoff <= 1.0) {
            let reason = "must be in (0, 1] of the Nyquist frequency";
            return Err(Error::parameter("cut-off", fbp.cutoff, reason));
        }
        let length = (2 * bins).next_power_of_two().max(4);
        let kernel = |n: usize| match n.min(length - n) {
            0 => 0.25,
            n if n % 2 == 1 && n < bins => -factor(n) / (PI * n as f64).powi(2),
            n if n % 2 == 1 => -1.0 / (PI * n as f64).powi(2),
            _ => 0.0,
        };
        let mut samples: Vec<f64> = (0..length).map(kernel).collect();
        let transform = RealFftPlanner::new().plan_fft_forward(length);
        let mut spectrum = transform.make_output_vec();
        if transform.process(&mut samples, &mut spectrum).is_err() {
            unreachable!("the vectors were made by the plan");
        }
        let nyquist = (length / 2) as f64;
        let window = |k: usize| {
            let x = k as f64 / nyquist / fbp.cutoff;
            if x > 1.0 { 0.0 } else { fbp.window.at(x) }
        };
        let scale = 1.0 / (pitch * length as f64);
        let response = spectrum.iter().enumerate().map(|(k, h)| h.re * window(k) * scale).collect();
        Ok(Self { bins, response })
    }
}

impl Kernel for Ramp {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let length = 2 * (self.response.len() - 1);
        let mut planner = RealFftPlanner::<T>::new();
        let (forward, inverse) = (planner.plan_fft_forward(length), planner.plan_fft_inverse(length));
        let response: Vec<T> = self.response.iter().map(|h| T::of(*h)).collect();
        let buffers = || {
            let scratch = forward.get_scratch_len().max(inverse.get_scratch_len());
            (forward.make_input_vec(), forward.make_output_vec(), vec![T::zero().into(); scratch])
        };
        outputs[0]
            .par_chunks_mut(self.bins)
            .try_for_each_init(buffers, |(line, spectrum, scratch), row| {
                line[..row.len()].copy_from_slice(row);
                line[row.len()..].fill(T::zero());
                forward.process_with_scratch(line, spectrum, scratch)?;
                spectrum.iter_mut().zip(&response).for_each(|(s, h)| *s = s.scale(*h));
                inverse.process_with_scratch(spectrum, line, scratch)?;
                row.copy_from_slice(&line[..row.len()]);
                Ok(())
            })
            .map_err(|e: realfft::FftError| Error::Unsupported(format!("filtering of projections: {e}")))
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(self.device(gpu))
    }
}

impl Ramp {
    fn device(&self, gpu: &Gpu) -> Result<()> {
        let (length, bins, elements) = (2 * (self.response.len() - 1), self.bins, gpu.output_len(0));
        let (rows, data) = (elements / bins, gpu.output(0));
        let pairs = rows.div_ceil(2);
        let points = pairs * length;
        let (grid, response) = (gpu.scratch(2 * points)?, gpu.upload(&self.response)?);
        gpu.run(&PROGRAM, "pack", 2 * points, arguments![data, grid, 2 * points, bins, length, rows])?;
        gpu.fourier(&[length], pairs, false, grid)?;
        gpu.run(&PROGRAM, "filter", points, arguments![grid, response, points, length])?;
        gpu.fourier(&[length], pairs, true, grid)?;
        gpu.run(&PROGRAM, "unpack", elements, arguments![grid, data, elements, bins, length])
    }
}
