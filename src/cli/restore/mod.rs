//! `wellposed restore`: degraded images → restored ones, with a diffusion prior.

mod phase;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::io::{Grid, Unit, Volume, read_volume};
use wellposed::linalg::LinearOperator;
use wellposed::metric;
use wellposed::operator::{Blur, Boundary, Diagonal, Downsample, motion_kernel};
use wellposed::prior::{Denoiser, checkpoint::Prior};
use wellposed::sampler::{AdmmTv, Normalized, Problem};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Field, Space, vector};

use self::phase::Phase;
use crate::cli::deliver::{Options, Reconstruction, deliver};
use crate::cli::diffusion::{self, Chosen, Ingredients, Job, Method, Setting, Summary};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::view;

/// What happened to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Task {
    /// Pixels are missing: those where --mask is 0, or a random part.
    Inpaint,
    /// A Gaussian blur.
    Deblur,
    /// Camera shake.
    MotionDeblur,
    /// Four times fewer rows and columns, by bicubic interpolation.
    Sr4,
    /// Only the magnitudes of its Fourier transform are known, half as many again a side as the image has pixels.
    Phase,
}

/// Arguments of `wellposed restore`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Image or volume to restore, slice by slice.
    image: PathBuf,
    /// What happened to it.
    #[arg(short, long, value_enum, value_name = "TASK")]
    task: Task,
    /// Method [default: pnp; phase: daps].
    #[arg(short, long, value_enum, value_name = "METHOD")]
    method: Option<Method>,
    /// Take IMAGE as the truth: degrade it first, add noise, and compare the result with it.
    #[arg(long)]
    simulate: bool,
    /// Image that is 0 where pixels are missing (inpaint).
    #[arg(long, value_name = "IMAGE")]
    mask: Option<PathBuf>,
    /// Part of the pixels that is known, where there is no mask (inpaint with --simulate).
    #[arg(long, default_value_t = 0.25, value_name = "PART")]
    keep: f64,
    /// Standard deviation of the blur, or length of the camera's track, in pixels.
    #[arg(long, default_value_t = 3.0, value_name = "PIXELS")]
    width: f64,
    /// Standard deviation of the noise, as a part of the range of values.
    #[arg(long, default_value_t = 0.01, value_name = "S")]
    noise: f64,
    /// Values that stand for the ends of the prior's range [default: the prior's window for HU, else those of the image].
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH")]
    range: Option<view::Window>,
    /// Strength of the prior, relative to the default.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    strength: f64,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    diffusion: diffusion::Options,
}

/// What runs, and is saved beside the image.
#[derive(Serialize)]
struct Config<'a> {
    image: &'a PathBuf,
    task: Task,
    method: Method,
    simulate: bool,
    mask: &'a Option<PathBuf>,
    keep: f64,
    width: f64,
    noise: f64,
    range: view::Window,
    strength: f64,
    diffusion: &'a Chosen,
}

impl Arguments {
    fn method(&self) -> Method {
        self.method.unwrap_or(if self.task == Task::Phase { Method::Daps } else { Method::Pnp })
    }

    fn validate(&self) -> Outcome {
        if self.task == Task::Phase && !self.method().takes_nonlinear() {
            let reason = "magnitudes are not linear in the image: expected daps or dps";
            return Err(Failure::usage("--method", self.method().name(), reason));
        }
        if !(self.keep > 0.0 && self.keep <= 1.0) {
            return Err(Failure::usage("--keep", self.keep, "expected more than 0 and up to 1"));
        }
        if !(self.width >= 0.3 && self.width <= 200.0) {
            return Err(Failure::usage("--width", self.width, "expected 0.3 to 200 pixels"));
        }
        if !(self.noise > 0.0 && self.noise.is_finite()) {
            return Err(Failure::usage("--noise", self.noise, "expected a number more than 0"));
        }
        if !(self.strength > 0.0 && self.strength.is_finite()) {
            return Err(Failure::usage("--strength", self.strength, "expected a factor, more than 0"));
        }
        if self.task == Task::Inpaint && self.mask.is_none() && !self.simulate {
            return Err(Failure::Usage("--mask: inpainting needs to know where pixels are missing".into()));
        }
        Ok(())
    }

    /// The operator on one restored slice of this shape.
    fn operator(&self, [height, width]: [usize; 2], device: &Device) -> Outcome<Arc<dyn LinearOperator>> {
        let space = Space::real(&[height, width], DType::F32, device);
        Ok(match self.task {
            Task::Inpaint => match &self.mask {
                Some(path) => {
                    let mask = read_volume(path)?.magnitude()?;
                    let known = mask.data().get(0)?.ne(0f32)?.to_dtype(DType::F32)?;
                    Arc::new(Diagonal::real(&space, &known.to_device(device)?)?)
                }
                None => Arc::new(Diagonal::random_mask(&space, self.keep, 0)?),
            },
            Task::Deblur => Arc::new(Blur::gaussian(&space, self.width, Boundary::Reflect)?),
            Task::MotionDeblur => {
                let kernel = motion_kernel((self.width.ceil() as usize) | 1, 0.5, 0)?;
                Arc::new(Blur::new(&space, &kernel, Boundary::Reflect)?)
            }
            Task::Sr4 => Arc::new(Downsample::bicubic(&space, 4)?),
            Task::Phase => unreachable!("not linear: see `phase`"),
        })
    }

    /// The grid of the restored image.
    fn target(&self, image: &Volume) -> Outcome<Grid> {
        if self.simulate {
            return Ok(image.grid().clone());
        }
        match self.task {
            Task::Sr4 => {}
            Task::Phase => return Phase::target(image.grid()),
            _ => return Ok(image.grid().clone()),
        }
        let ([slices, height, width], [z, y, x]) = (image.grid().shape(), image.grid().spacing());
        Ok(Grid::centred([slices, 4 * height, 4 * width], [z, y / 4.0, x / 4.0])?)
    }

    fn window(&self, image: &Volume, prior: &Prior) -> Outcome<view::Window> {
        if let Some(window) = self.range {
            return Ok(window);
        }
        if let (Unit::Hounsfield, Some((low, high))) = (image.unit(), prior.card.window) {
            return Ok(view::Window { low, high });
        }
        if self.task == Task::Phase && !self.simulate {
            let reason = "magnitudes don't tell the values of the image; say which ones to expect";
            return Err(Failure::Usage(format!("--range: {reason}")));
        }
        let (low, high) = metric::extrema(image.data())?;
        if low < high {
            return Ok(view::Window { low, high });
        }
        Err(Failure::usage("--range", low, "all values of the image are equal; say what range to expect"))
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    arguments.validate()?;
    let method = arguments.method();
    let chosen = arguments.diffusion.chosen(method, "ct")?.at_noise();
    let image = read_volume(&arguments.image)?.magnitude()?;
    let target = arguments.target(&image)?;
    let mut options = arguments.options.clone();
    if arguments.simulate && options.reference.is_none() {
        options.reference = Some(arguments.image.clone());
    }
    let reference = options.prepare(target.shape())?;
    let device = chosen.device()?;
    let prior = chosen.open(Field::Real, "an image", &device)?;
    let range = arguments.window(&image, &prior)?;
    let (low, high) = prior.denoiser.range();
    let scale = (range.high - range.low) / (high - low);
    let clock = Instant::now();
    let [slices, height, width] = target.shape();
    let offset = range.low - low * scale;
    let noise = arguments.noise * (range.high - range.low);
    let given = image.data().to_device(&device)?;
    let measured = if arguments.task == Task::Phase {
        let data = match arguments.simulate {
            true => noisy(&Phase::magnitudes(&given, range.low)?, noise)?,
            false => given,
        };
        Measured::Phase(Phase::new([height, width], &data, noise, scale, low)?)
    } else {
        let operator = arguments.operator([height, width], &device)?;
        let data = match arguments.simulate {
            true => noisy(&operator.apply(&given)?, noise)?,
            false => given,
        };
        Measured::Linear(Normalized::new(operator, &data, noise, scale, offset)?)
    };
    let held = 4 * 12 * slices * height * width;
    let chunk = chosen.chunk(held, height * width, method.goes_backwards())?;
    let problem = measured.problem(&prior.denoiser)?.with_chunk(chunk);
    let admm = AdmmTv { rho: 0.1, lambda: 0.001, iterations: 5 };
    let linear = arguments.task != Task::Phase;
    let setting = Setting {
        strength: arguments.strength,
        error: diffusion::ERROR,
        finish: diffusion::Finish::TEXTURED,
        admm,
        noise: measured.noise(),
        linear,
        across: None,
    };
    let sampler = method.sampler(&chosen, setting);
    let made_of = Ingredients { data: measured.data(), start: None, prior: &prior };
    let output = &options.output;
    let job = Job { method, sampler: &*sampler, problem: &problem, chosen: &chosen, made_of, output };
    let drawn = job.run()?;
    let seconds = clock.elapsed().as_secs_f64();
    let place = |x: Tensor| Ok(Volume::on_grid(x, target.clone(), image.unit())?);
    let summary =
        Summary::of(drawn.samples, |x| place(x.affine(scale, offset)?), |x| place(x.affine(scale, 0.0)?))?;
    let reconstruction = Reconstruction {
        command: "restore",
        method: method.name().into(),
        volume: summary.mean,
        beside: summary.beside,
        termination: drawn.termination,
        steps: drawn.steps,
        seconds,
        seed: Some(chosen.seed),
        progress: drawn.progress,
    };
    let Arguments { image, task, simulate, mask, keep, width, noise, strength, .. } = arguments;
    let config = Config {
        image,
        task: *task,
        method,
        simulate: *simulate,
        mask,
        keep: *keep,
        width: *width,
        noise: *noise,
        range,
        strength: *strength,
        diffusion: &chosen,
    };
    deliver(reconstruction, &options, reference.as_ref(), &config)
}

/// Data in the units of the prior.
enum Measured {
    Linear(Normalized),
    Phase(Phase),
}

impl Measured {
    fn problem<'a>(&'a self, prior: &'a dyn Denoiser) -> Outcome<Problem<'a>> {
        match self {
            Self::Linear(normalized) => Ok(normalized.problem(prior)?),
            Self::Phase(phase) => phase.problem(prior),
        }
    }

    fn data(&self) -> &Tensor {
        match self {
            Self::Linear(normalized) => normalized.data(),
            Self::Phase(phase) => phase.data(),
        }
    }

    fn noise(&self) -> f64 {
        match self {
            Self::Linear(normalized) => normalized.noise(),
            Self::Phase(phase) => phase.noise(),
        }
    }
}

/// The data with white noise of this standard deviation.
fn noisy(clean: &Tensor, noise: f64) -> Outcome<Tensor> {
    let drawn =
        standard_normal(Noise::new(0, 7), &Space::real(clean.dims(), clean.dtype(), clean.device()), &[])?;
    let mut data = Buffer::copy_of(clean)?;
    vector::accumulate(1.0, &[(noise, &drawn)], &mut data)?;
    Ok(data.freeze())
}
