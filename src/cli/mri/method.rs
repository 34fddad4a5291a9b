//! The methods of `wellposed mri reconstruct`: their names, settings and defaults.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{MriScan, read_volume};
use wellposed::linalg::Admm;
use wellposed::observe::{Observer, Solution, Termination};
use wellposed::operator::mri::Sense;
use wellposed::reconstruct::mri::{
    ConjugateGradientSense, Discrepancy, Grappa, PartialFourier, TotalVariationSense, WaveletSense,
    estimate_noise, zero_filled,
};
use wellposed::tensor::{Buffer, Field, fft};

use super::encoding::{Coils, Encoded, Measured, Weighting, encode};
use crate::cli::console;
use crate::cli::diffusion;
use crate::cli::failure::{Failure, Outcome};

/// A reconstruction method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Coil-combined image with zeros for what was not sampled; gridding, along a trajectory.
    ZeroFilled,
    /// Missing lines from their measured neighbours in all coils.
    Grappa,
    /// Partial Fourier: the missing side of k-space by projections onto the smooth phase.
    Pocs,
    /// Partial Fourier in one step.
    Homodyne,
    /// Least squares by conjugate gradients.
    Sense,
    /// Least squares with sparse wavelet coefficients, by FISTA.
    Wavelet,
    /// Least squares with total variation, by ADMM.
    Tv,
    /// A diffusion prior as denoiser in turns with the data: one image, the highest PSNR.
    Pnp,
    /// The same with fresh noise in every step: the highest PSNR where data are few, more so as the mean of --samples.
    Snore,
    /// Samples by decomposed diffusion sampling.
    Dds,
    /// Samples by DiffusionMBIR.
    Mbir,
    /// Samples by gradients through the network.
    Dps,
    /// One image by stochastic optimisation against a diffusion prior.
    RedDiff,
    /// Samples by DiffPIR.
    Diffpir,
    /// Samples by decoupled annealing.
    Daps,
    /// Samples by moment matching: gradients through the network spread what the data say.
    Mmps,
}

/// Where coil maps come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maps {
    /// The scan's own where it has some; else by ESPIRiT, or at low resolution where the fully sampled centre is
    /// small.
    Auto,
    /// ESPIRiT from the fully sampled centre.
    Espirit,
    /// Ratios of low-resolution images of the fully sampled centre.
    LowResolution,
    /// Dominant combinations of coils around each point of low-resolution images (Walsh).
    Walsh,
}

/// Settings of the methods; each has its own defaults.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Settings {
    /// Iterations at most [default: sense 30, wavelet 60, tv 50, pocs 20].
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    iterations: Option<u32>,
    /// Strength of the regularisation or of the prior, relative to the default.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    strength: f64,
    /// Coil maps.
    #[arg(long, value_enum, default_value_t = Maps::Auto, value_name = "MAPS")]
    maps: Maps,
    /// Largest side of the fully sampled centre that coil maps are estimated from, in samples.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(4..=256), value_name = "N")]
    calibration: u32,
    /// Refine the coil maps with all samples, in turns with an image by wavelets: N times, or twice.
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=100),
        value_name = "N",
        long_help = "Refine the coil maps with all samples, in turns with an image by wavelets: N times, or twice (JSENSE; \
                     Cartesian k-space). Worth its time where the fully sampled centre is small."
    )]
    refine_maps: Option<u32>,
    /// Stop once the data are fitted as well as their noise lets them be.
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1",
        value_name = "FACTOR",
        long_help = "Stop sense, wavelet or tv as soon as the squared residual is at most FACTOR [default: 1] times what the \
                     noise leaves. The noise is the scan's, or else estimated from the outer columns of k-space. With \
                     --strength 0, sense is regularised by that alone."
    )]
    stop_at_noise: Option<f64>,
    #[command(flatten)]
    #[serde(flatten)]
    field: OffResonance,
}

/// Correction of off-resonance.
#[derive(Clone, Debug, Default, Args, Serialize)]
pub struct OffResonance {
    /// Map of the field's offset in Hz, on the grid of the image: corrects for off-resonance.
    #[arg(long, value_name = "FILE", requires = "readout")]
    field_map: Option<PathBuf>,
    /// With --field-map: how long a readout takes, along kx or along an arm of the trajectory.
    #[arg(long, value_name = "MS", requires = "field_map")]
    readout: Option<f64>,
}

impl Settings {
    /// The settings with the method's defaults filled in.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is out of range.
    pub fn validated(self, method: Method) -> Outcome<Self> {
        if let Some(factor) = self.stop_at_noise {
            if !(factor > 0.0 && factor.is_finite()) {
                return Err(Failure::usage("--stop-at-noise", factor, "expected a positive factor"));
            }
            if !matches!(method, Method::Sense | Method::Wavelet | Method::Tv) {
                return Err(Failure::Usage(format!("--stop-at-noise: {} does not iterate", method.name())));
            }
        }
        if let Some(readout) = self.field.readout
            && !(readout > 0.0 && readout.is_finite())
        {
            return Err(Failure::usage("--readout", readout, "expected milliseconds, above 0"));
        }
        if !(self.strength >= 0.0 && self.strength.is_finite()) {
            return Err(Failure::usage("--strength", self.strength, "expected a factor, at least 0"));
        }
        let default = match method {
            Method::ZeroFilled | Method::Grappa | Method::Homodyne => None,
            Method::Pocs => Some(20),
            Method::Sense => Some(30),
            Method::Wavelet => Some(60),
            Method::Tv => Some(50),
            _ if self.iterations.is_some() => {
                return Err(Failure::Usage(format!("--iterations: {} takes --steps", method.name())));
            }
            _ => None,
        };
        Ok(Self { iterations: default.map(|n| self.iterations.unwrap_or(n)), ..self })
    }

    /// Settings for the classical method that a sampler starts at, with the coil maps that the scan has then.
    pub fn for_start(&self) -> Self {
        let own = Self { maps: Maps::Auto, refine_maps: None, ..self.clone() };
        Self { iterations: None, strength: 1.0, stop_at_noise: None, ..own }
    }

    /// Strength of the regularisation or of the prior, relative to the default.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// The encoding of the scan, and its data, on `device`.
    pub fn encode(&self, scan: &MriScan, weighting: Weighting, device: &Device) -> Outcome<Measured> {
        let coils = Coils {
            maps: self.maps,
            calibration: self.calibration as usize,
            refinements: self.refine_maps.unwrap_or(0) as usize,
        };
        let measured = encode(scan, coils, weighting, device)?;
        let (Some(path), Some(milliseconds)) = (&self.field.field_map, self.field.readout) else {
            return Ok(measured);
        };
        let field = read_volume(path)?;
        if field.field() != Field::Real {
            return Err(Error::format(path, "expected a map in Hz, found complex numbers").into());
        }
        Ok(measured.off_resonance(scan, field.data(), 1e-3 * milliseconds)?)
    }

    /// The discrepancy at which to stop, where it is asked for.
    fn stop(&self, scan: &MriScan) -> Outcome<Option<Discrepancy>> {
        let Some(factor) = self.stop_at_noise else { return Ok(None) };
        let noise = match scan.noise {
            Some(noise) if noise > 0.0 => noise,
            _ => {
                let noise = estimate_noise(&scan.kspace)?;
                console::say(&format!(
                    "The outer columns of k-space have noise of {:.3e}, of a maximum of 1.",
                    noise
                ));
                noise
            }
        };
        Ok(Some(Discrepancy { noise, factor }))
    }
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroFilled => "zero-filled",
            Self::Grappa => "grappa",
            Self::Pocs => "pocs",
            Self::Homodyne => "homodyne",
            Self::Sense => "sense",
            Self::Wavelet => "wavelet",
            Self::Tv => "tv",
            other => other.diffusion().map_or("", diffusion::Method::name),
        }
    }

    /// The diffusion method, where it is one.
    pub fn diffusion(self) -> Option<diffusion::Method> {
        diffusion::Method::named(self)
    }

    /// The complex image [slice, y, x, 2] of a scan, in its scaled units, by a classical method.
    pub fn reconstruct(
        self,
        scan: &MriScan,
        settings: &Settings,
        observer: &mut dyn Observer,
    ) -> Outcome<Solution> {
        let Measured { encoding, data, .. } = settings.encode(scan, Weighting::Area, &Device::Cpu)?;
        let y = &data;
        let stop = settings.stop(scan)?;
        let max_iterations = settings.iterations.unwrap_or(1) as usize;
        Ok(match self {
            Self::ZeroFilled => one_step(|| zero_filled(&encoding, y))?,
            Self::Grappa => {
                let full = fully_sampled(self, &encoding)?;
                one_step(|| zero_filled(&full, &Grappa::default().complete(y, &scan.mask)?))?
            }
            Self::Pocs | Self::Homodyne => {
                let full = fully_sampled(self, &encoding)?;
                let method = match self {
                    Self::Pocs => PartialFourier::Pocs { iterations: max_iterations },
                    _ => PartialFourier::Homodyne,
                };
                one_step(|| {
                    let images = method.images(y, &scan.mask)?;
                    let mut completed = Buffer::copy_of(&images)?;
                    fft::forward(&images, 2, &mut completed)?;
                    zero_filled(&full, completed.tensor())
                })?
            }
            Self::Sense => {
                let default = ConjugateGradientSense::default();
                let lambda = settings.strength * default.lambda;
                ConjugateGradientSense { lambda, max_iterations, stop, ..default }
                    .reconstruct(&encoding, y, observer)?
            }
            Self::Wavelet => {
                let default = WaveletSense::default();
                let lambda = settings.strength * default.lambda;
                WaveletSense { lambda, max_iterations, stop, ..default }
                    .reconstruct(&encoding, y, observer)?
            }
            Self::Tv => {
                let TotalVariationSense { lambda, solver, .. } = TotalVariationSense::default();
                let solver = Admm { max_iterations, ..solver };
                let method = TotalVariationSense { lambda: settings.strength * lambda, solver, stop };
                method.reconstruct(&encoding, y, observer)?
            }
            _ => return Err(Error::Unsupported(format!("{} needs a prior", self.name())).into()),
        })
    }
}

/// The result of a method without iterations.
fn one_step(method: impl FnOnce() -> wellposed::error::Result<Tensor>) -> Outcome<Solution> {
    let start = Instant::now();
    let value = method()?;
    let (termination, elapsed) = (Termination::Completed, start.elapsed());
    Ok(Solution { value, termination, steps: 1, measure: 0.0, elapsed })
}

/// The same coils with all of Cartesian k-space.
fn fully_sampled(method: Method, encoding: &Encoded) -> Outcome<Sense> {
    let Encoded::Cartesian(sense) = encoding else {
        let reason =
            format!("{} needs Cartesian k-space without a field map, not a trajectory", method.name());
        return Err(Error::Unsupported(reason).into());
    };
    Ok(Sense::new(sense.maps(), &sense.mask().ones_like()?)?)
}
