//! `wellposed prior sample`: images drawn from a prior alone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Unit, Volume};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::prior::Denoiser;
use wellposed::prior::checkpoint::{Card, Prior};
use wellposed::prior::schedule::Grid;
use wellposed::sampler::{Guided, NoiseFrom, Problem, Stepper, sample};
use wellposed::tensor::Field;

use crate::cli::deliver::usable;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::Progress;
use crate::cli::{console, output};

/// Arguments of `wellposed prior sample`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of a prior that comes along, or its file or folder.
    prior: String,
    /// Picture (.png), or volume with one image a slice (.nii.gz, .nii, .h5, .npy).
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    settings: Settings,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args, Serialize)]
struct Settings {
    /// How many images.
    #[arg(short = 'n', long, default_value_t = 4, value_name = "N")]
    count: usize,
    /// Height and width, HEIGHTxWIDTH; by default the size of the training, or 256x256.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<[usize; 2]>,
    /// How to get from noise to an image.
    #[arg(long, value_enum, default_value_t = Solver::DpmPlusPlus)]
    solver: Solver,
    /// Noise levels; each costs one pass through the network, two with heun.
    #[arg(long, default_value_t = 25, value_name = "N")]
    steps: usize,
    /// Largest noise level, in units of the network's data.
    #[arg(long, default_value_t = 80.0, value_name = "SIGMA")]
    sigma_max: f64,
    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Solver {
    /// DPM-Solver++ multistep of order 2.
    #[value(name = "dpm++2m")]
    DpmPlusPlus,
    /// The same of order 3.
    #[value(name = "dpm++3m")]
    DpmPlusPlus3,
    /// Its stochastic form.
    #[value(name = "sde-dpm++2m")]
    SdeDpmPlusPlus,
    /// UniPC of order 2.
    #[value(name = "unipc")]
    UniPc,
    /// EDM's second-order method, two passes a step.
    Heun,
    /// Deterministic, first order.
    Ddim,
    /// DDPM.
    Ancestral,
}

impl Solver {
    fn stepper(self) -> Stepper {
        match self {
            Self::DpmPlusPlus => Stepper::DpmPlusPlus { order: 2 },
            Self::DpmPlusPlus3 => Stepper::DpmPlusPlus { order: 3 },
            Self::SdeDpmPlusPlus => Stepper::SdeDpmPlusPlus,
            Self::UniPc => Stepper::UniPc { order: 2, exponential: true },
            Self::Heun => Stepper::Heun,
            Self::Ddim => Stepper::Ddim { eta: 0.0, noise: NoiseFrom::Network },
            Self::Ancestral => Stepper::Ancestral,
        }
    }
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|n| (1..=4096).contains(n));
    let pair = text.split_once('x').and_then(|(h, w)| Some([number(h)?, number(w)?]));
    pair.ok_or_else(|| format!("expected HEIGHTxWIDTH such as 256x256, up to 4096, found {text}"))
}

#[derive(Serialize)]
struct Report<'a> {
    command: &'static str,
    prior: &'a str,
    output: &'a PathBuf,
    #[serde(flatten)]
    settings: &'a Settings,
    network_calls: usize,
    seconds: f64,
    termination: &'static str,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let settings = &arguments.settings;
    let picture = arguments.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    output::check(&arguments.output, !picture, None)?;
    if settings.count == 0 {
        return Err(Failure::usage("--count", 0, "at least 1 image"));
    }
    let Prior { card, denoiser } = Prior::find(&arguments.prior)?;
    let [height, width] = settings.size.or(card.size).unwrap_or([256, 256]);
    let complex = denoiser.field() == Field::Complex;
    let mut shape = vec![settings.count, height, width];
    shape.extend(complex.then_some(2));
    let problem = Problem::unconditional(&denoiser, &shape, DType::F32, &Device::Cpu)?.with_chunk(2);
    let stepper = settings.solver.stepper();
    let grid = Grid::Karras { min: 0.002, max: settings.sigma_max, rho: 7.0 };
    let sampler = Guided { grid, steps: settings.steps, stepper, ..Guided::default() };
    let mut progress = Progress::new("sample");
    let start = Instant::now();
    let solution = sample(&sampler, &problem, settings.seed, &mut progress)?;
    progress.finish();
    let volume = physical(&card, usable(&solution, "sampling")?)?;
    if picture {
        montage(&card, &volume)?.save(&arguments.output)?;
    } else {
        volume.write(&arguments.output)?;
    }
    output::save_config(&arguments.output, "prior sample", settings)?;
    let report = Report {
        command: "prior sample",
        prior: &arguments.prior,
        output: &arguments.output,
        settings,
        network_calls: solution.steps * stepper.calls(),
        seconds: start.elapsed().as_secs_f64(),
        termination: solution.termination.name(),
    };
    if arguments.json {
        return console::print_json(&report);
    }
    let (count, seconds, to) = (settings.count, report.seconds, arguments.output.display());
    console::print(&format!("{count} images of {height} × {width} in {seconds:.1} s: {to}\n"))
}

/// A picture of `count` square samples, for a look at a training.
pub fn picture(prior: &Prior, count: usize, side: usize, path: &Path) -> Outcome {
    let mut shape = vec![count, side, side];
    shape.extend((prior.card.channels == 2).then_some(2));
    let problem = Problem::unconditional(&prior.denoiser, &shape, DType::F32, &Device::Cpu)?;
    let solution = sample(&Guided::default(), &problem, 0, &mut ())?;
    let samples = solution.value.clamp(4.0 * prior.card.range.0, 4.0 * prior.card.range.1)?;
    Ok(montage(&prior.card, &physical(&prior.card, &samples)?)?.save(path)?)
}

/// Samples as a volume, in physical units where the prior has fixed ones.
fn physical(card: &Card, samples: &Tensor) -> Outcome<Volume> {
    let ((low, high), unit) = (card.range, Unit::from_symbol(&card.unit).unwrap_or_default());
    let samples = match card.window {
        Some((bottom, top)) => {
            let scale = (top - bottom) / (high - low);
            samples.affine(scale, bottom - low * scale)?
        }
        None => samples.clone(),
    };
    Ok(Volume::centred(samples, [1.0; 3], unit)?)
}

/// The images side by side, as many in a row as make the picture about square.
fn montage(card: &Card, volume: &Volume) -> Outcome<Montage> {
    let images = volume.magnitude()?;
    let (low, high) = match (card.window, card.channels) {
        (Some(window), _) => window,
        (None, 2) => (0.0, card.range.1),
        _ => card.range,
    };
    let scale = Scale::gray(low, high, volume.unit().symbol());
    let count = images.grid().shape()[0];
    let across = (1..=count).find(|n| n * n >= count).unwrap_or(1);
    let panel = |i: usize| -> Result<Option<Panel>, Error> {
        if i >= count {
            return Ok(None);
        }
        Ok(Some(Panel::new("", "", Image::new(&images.data().get(i)?, [1.0, 1.0])?)))
    };
    let row = |first: usize| -> Result<Row, Error> {
        let panels = (first..first + across).map(panel).collect::<Result<_, _>>()?;
        Ok(Row { scale: scale.clone(), panels })
    };
    let rows = (0..count).step_by(across).map(row).collect::<Result<_, _>>()?;
    Ok(Montage { rows, panel_width: 256 })
}
