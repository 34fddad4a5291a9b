//! Options of the diffusion methods.

use candle_core::Device;
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::prior::{BM3D, Denoiser, Precision, checkpoint::Prior, set_precision};
use wellposed::tensor::Field;

use super::Method;
use crate::cli::failure::{Failure, Outcome};

/// Where a sampler starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Noise.
    Noise,
    /// The estimate of total variation with moderate noise: fewer steps, but what it got wrong may stay.
    #[default]
    Tv,
}

/// Where everything is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What the network's convolutions multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// Single precision.
    #[default]
    F32,
    /// NVIDIA's TensorFloat-32: 11 bits.
    Tf32,
    /// bfloat16: 8 bits.
    Bf16,
}

impl Rounding {
    /// Rounds all networks so from now on.
    pub fn set(self) {
        set_precision(match self {
            Self::F32 => Precision::F32,
            Self::Tf32 => Precision::Tf32,
            Self::Bf16 => Precision::Bf16,
        });
    }
}

/// Options of the diffusion methods; the classical ones take none of them.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of diffusion methods")]
#[group(id = "diffusion")]
pub struct Options {
    /// Prior, by name or as a file [default: ct for CT; for MRI brain, but bm3d for pnp].
    #[arg(long, value_name = "NAME|FILE")]
    prior: Option<String>,
    /// Steps, one noise level each [default: pnp 40, snore 100, dds 30, diffpir, daps and mmps 50, mbir 150, dps 200, red-diff 300].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    steps: Option<u32>,
    /// Samples to draw; with 2 and more their mean is the result.
    #[arg(
        long,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        value_name = "N",
        long_help = "Samples to draw, with seeds SEED, SEED + 1, … With 2 and more the result is their mean, and their \
                     standard deviation and the 5 % and 95 % quantiles are written beside it (….std, ….q05, ….q95). \
                     Whether that is posterior uncertainty depends on the method; see docs/diffusion.md. [default: 1]"
    )]
    samples: Option<u32>,
    /// Seed of the sampler's noise [default: 0].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the sampler starts [default: tv; snore: noise].
    #[arg(long, value_enum, value_name = "START")]
    start: Option<Start>,
    /// Go on from the checkpoint that an interrupted run left beside the output.
    #[arg(
        long,
        long_help = "Go on from the checkpoint that an interrupted run left beside the output (….checkpoint-N.safetensors). \
                     The result has the same bits as that of a run that was never interrupted. Without a checkpoint the \
                     run starts at the beginning; one of another run is refused."
    )]
    resume: bool,
    /// Where the sampler and its operators are computed: cpu, or (in a build with the feature `cuda`) cuda [default: cpu].
    #[arg(long, value_enum, value_name = "DEVICE")]
    device: Option<Compute>,
    /// What the network's convolutions multiply, with --device cuda: numbers of fewer bits are several times as fast; what
    /// that costs is in docs/performance.md [default: f32].
    #[arg(long, value_enum, value_name = "TYPE")]
    precision: Option<Rounding>,
    /// Bound of the working memory in GiB: how many slices go through the network at once [default: 4]; classical
    /// methods of CT reconstruct slab by slab where the volume needs more.
    #[arg(long, value_name = "GIB")]
    memory: Option<f64>,
}

/// The options with the method's defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    pub prior: String,
    pub steps: usize,
    pub samples: usize,
    pub seed: u64,
    pub start: Start,
    pub device: Compute,
    pub precision: Rounding,
    pub memory_gib: f64,
    #[serde(skip)]
    pub resume: bool,
}

impl Options {
    /// These options with this number of steps.
    pub fn with_steps(self, steps: u32) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// A usage error if any of these options is given to the classical method `name`.
    pub fn refuse(&self, name: &str) -> Outcome {
        match self.bound(name)? {
            Some(_) => Err(Failure::Usage(format!("--memory: {name} is no diffusion method"))),
            None => Ok(()),
        }
    }

    /// The bound of the working memory in GiB for the classical method `name`, which takes no other of these options.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn bound(&self, name: &str) -> Outcome<Option<f64>> {
        let given = [
            ("--prior", self.prior.is_some()),
            ("--steps", self.steps.is_some()),
            ("--samples", self.samples.is_some()),
            ("--seed", self.seed.is_some()),
            ("--start", self.start.is_some()),
            ("--resume", self.resume),
            ("--device", self.device.is_some()),
            ("--precision", self.precision.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Failure::Usage(format!("{flag}: {name} is no diffusion method"))),
            None => self.memory.map(|_| self.gibibytes()).transpose(),
        }
    }

    fn gibibytes(&self) -> Outcome<f64> {
        let memory = self.memory.unwrap_or(4.0);
        if memory > 0.0 && memory.is_finite() {
            return Ok(memory);
        }
        Err(Failure::usage("--memory", memory, "expected GiB, more than 0"))
    }

    /// The options of `method`, where `prior` is the default.
    ///
    /// # Errors
    /// [`Failure::Usage`] for what is out of range, or not to be had.
    pub fn chosen(&self, method: Method, prior: &str) -> Outcome<Chosen> {
        let memory_gib = self.gibibytes()?;
        let device = self.device.unwrap_or(Compute::Cpu);
        if device == Compute::Cuda && !cfg!(feature = "cuda") {
            let reason = "this build runs on the CPU; one with `--features cuda` has it";
            return Err(Failure::usage("--device", "cuda", reason));
        }
        let precision = self.precision.unwrap_or_default();
        if device == Compute::Cpu && precision != Rounding::F32 {
            let reason = "the processor gains nothing by it; `prior eval --precision` shows what it costs";
            return Err(Failure::usage("--precision", format!("{precision:?}").to_lowercase(), reason));
        }
        let samples = self.samples.unwrap_or(1) as usize;
        if samples > 1 && !method.draws() {
            let reason = format!("{} finds one image and draws no samples", method.name());
            return Err(Failure::usage("--samples", samples, &reason));
        }
        let prior = self.prior.as_deref().unwrap_or(prior);
        if method.goes_backwards() && prior == BM3D {
            let reason = format!("{} needs gradients through a network", method.name());
            return Err(Failure::usage("--prior", prior, &reason));
        }
        Ok(Chosen {
            prior: prior.into(),
            steps: self.steps.map_or(method.steps(), |n| n as usize),
            samples,
            seed: self.seed.unwrap_or(0),
            start: self.start.unwrap_or(method.start()),
            device,
            precision,
            memory_gib,
            resume: self.resume,
        })
    }
}

impl Chosen {
    /// These options for a command that has no classical estimate to start at.
    pub fn at_noise(self) -> Self {
        Self { start: Start::Noise, ..self }
    }

    /// Where to compute.
    ///
    /// # Errors
    /// [`Failure::Usage`] where there is no such device.
    pub fn device(&self) -> Outcome<Device> {
        match self.device {
            Compute::Cpu => Ok(Device::Cpu),
            Compute::Cuda => Device::new_cuda(0)
                .map_err(|e| Failure::usage("--device", "cuda", &format!("no such device: {e}"))),
        }
    }

    /// Opens the prior on a device, and rounds as was asked for.
    ///
    /// # Errors
    /// An unknown name, a damaged file, or a prior of another kind of image than `field`.
    pub fn open(&self, field: Field, what: &str, device: &Device) -> Outcome<Prior> {
        self.precision.set();
        let prior = Prior::find_for(&self.prior, field, device).map_err(|error| match error {
            Error::Parameter { .. } => Failure::Usage(format!("--prior: {error}")),
            error => Failure::Run(error),
        })?;
        let kind = |field| if field == Field::Complex { "complex" } else { "real" };
        let found = prior.denoiser.field();
        if found != field {
            let reason =
                format!("a prior of {} images; {what} needs one of {} images", kind(found), kind(field));
            return Err(Failure::usage("--prior", &self.prior, &reason));
        }
        Ok(prior)
    }

    /// How many images of `pixels` fit through the network at once, where the sampler holds `held` bytes.
    ///
    /// # Errors
    /// [`Failure::Usage`] where not even one fits.
    pub fn chunk(&self, held: usize, pixels: usize, backwards: bool) -> Outcome<usize> {
        let budget = self.memory_gib * f64::from(1 << 30);
        // Estimates for the U-net of the CT prior: bytes for each pixel, forwards alone and there and back.
        let image = pixels as f64 * if backwards { 12_000.0 } else { 1_500.0 };
        let left = budget - held as f64;
        if left < image {
            let need = (held as f64 + image) / f64::from(1 << 30);
            return Err(Failure::usage(
                "--memory",
                self.memory_gib,
                &format!("needs {need:.2} GiB at least"),
            ));
        }
        Ok(((left / image) as usize).clamp(1, 8))
    }
}
