//! The methods of `wellposed mri reconstruct`: their names, settings and defaults.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::MriScan;
use wellposed::linalg::Admm;
use wellposed::observe::{Observer, Solution, Termination};
use wellposed::operator::mri::Sense;
use wellposed::reconstruct::mri::{
    ConjugateGradientSense, Espirit, TotalVariationSense, WaveletSense, calibration_region,
    low_resolution_maps, zero_filled,
};

use crate::cli::diffusion;
use crate::cli::failure::{Failure, Outcome};

/// A reconstruction method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Coil-combined image with zeros for what was not sampled.
    ZeroFilled,
    /// Least squares by conjugate gradients.
    Sense,
    /// Least squares with sparse wavelet coefficients, by FISTA.
    Wavelet,
    /// Least squares with total variation, by ADMM.
    Tv,
    /// A diffusion prior as denoiser in turns with the data: one image, the highest PSNR.
    Pnp,
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
}

/// Settings of the methods; each has its own defaults.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct Settings {
    /// Iterations at most [default: sense 30, wavelet 60, tv 50].
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
}

/// Below this many samples a side the centre has too few kernels for ESPIRiT to tell signal from noise.
const LEAST_FOR_ESPIRIT: usize = 14;

impl Settings {
    /// The settings with the method's defaults filled in.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is out of range.
    pub fn validated(self, method: Method) -> Outcome<Self> {
        if !(self.strength >= 0.0 && self.strength.is_finite()) {
            return Err(Failure::usage("--strength", self.strength, "expected a factor, at least 0"));
        }
        let default = match method {
            Method::ZeroFilled => None,
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

    /// Settings for the classical method that a sampler starts at.
    pub fn for_start(self) -> Self {
        Self { iterations: None, strength: 1.0, ..self }
    }

    /// Strength of the regularisation or of the prior, relative to the default.
    pub fn strength(&self) -> f64 {
        self.strength
    }

    /// The encoding of the scan.
    pub fn encoding(&self, scan: &MriScan) -> Outcome<Sense> {
        if scan.mask.rank() != 2 {
            let reason = "a scan whose slices are sampled differently; reconstruct slice by slice";
            return Err(Error::Unsupported(reason.into()).into());
        }
        if scan.kspace.dims()[1] == 1 && scan.coil_maps.is_none() {
            return Ok(Sense::single_coil(&scan.mask, DType::F32, &Device::Cpu)?);
        }
        Ok(Sense::new(&self.maps(scan)?, &scan.mask)?)
    }

    fn maps(&self, scan: &MriScan) -> Outcome<Tensor> {
        if let (Some(maps), Maps::Auto) = (&scan.coil_maps, self.maps) {
            return Ok(maps.clone());
        }
        let region = calibration_region(&scan.mask, self.calibration as usize)?;
        let espirit = match self.maps {
            Maps::Auto => region.iter().all(|side| *side >= LEAST_FOR_ESPIRIT),
            Maps::Espirit => true,
            Maps::LowResolution => false,
        };
        Ok(if espirit {
            Espirit::default().maps(&scan.kspace, region)?.maps
        } else {
            low_resolution_maps(&scan.kspace, region)?
        })
    }
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ZeroFilled => "zero-filled",
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
        let (encoding, y) = (settings.encoding(scan)?, &scan.kspace);
        let max_iterations = settings.iterations.unwrap_or(1) as usize;
        Ok(match self {
            Self::ZeroFilled => {
                let start = Instant::now();
                let value = zero_filled(&encoding, y)?;
                let (termination, elapsed) = (Termination::Completed, start.elapsed());
                Solution { value, termination, steps: 1, measure: 0.0, elapsed }
            }
            Self::Sense => {
                let default = ConjugateGradientSense::default();
                let lambda = settings.strength * default.lambda;
                ConjugateGradientSense { lambda, max_iterations, ..default }
                    .reconstruct(&encoding, y, observer)?
            }
            Self::Wavelet => {
                let default = WaveletSense::default();
                let lambda = settings.strength * default.lambda;
                WaveletSense { lambda, max_iterations, ..default }.reconstruct(&encoding, y, observer)?
            }
            Self::Tv => {
                let TotalVariationSense { lambda, solver } = TotalVariationSense::default();
                let solver = Admm { max_iterations, ..solver };
                let method = TotalVariationSense { lambda: settings.strength * lambda, solver };
                method.reconstruct(&encoding, y, observer)?
            }
            _ => return Err(Error::Unsupported(format!("{} needs a prior", self.name())).into()),
        })
    }
}
