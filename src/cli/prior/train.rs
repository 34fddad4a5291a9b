//! `wellposed prior train`: a denoiser from a folder of volumes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use wellposed::error::Error;
use wellposed::io::atomic;
use wellposed::plot::{Curves, Series};
use wellposed::prior::checkpoint::own::Header;
use wellposed::prior::network::UNetConfig;
use wellposed::prior::train::{Augmentation, Settings, Subject, Trainer};
use wellposed::tensor::memory;

use super::slices::{self, Cutting};
use super::{eval, sample};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{console, output, progress};

/// Arguments of `wellposed prior train`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Volumes to learn from: a file, or a folder of NIfTI files, DICOM folders and so on.
    volumes: PathBuf,
    /// Folder of the run: prior.safetensors, state.safetensors, loss.png, samples.png, log.json.
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Go on with the run in that folder.
    #[arg(long)]
    resume: bool,
    /// Name of the prior.
    #[arg(long, default_value = "prior")]
    name: String,
    /// Learn complex images, magnitudes with random smooth phases.
    #[arg(long)]
    complex: bool,
    #[command(flatten)]
    cutting: Cutting,
    /// Unit of the window, such as HU.
    #[arg(long, default_value = "")]
    unit: String,
    /// Hold back volumes whose name contains this, for validation; may be given several times.
    #[arg(long, value_name = "TEXT")]
    hold: Vec<String>,
    /// Size of the network.
    #[arg(long, value_enum, default_value_t = Size::Medium)]
    network: Size,
    /// Steps in all.
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    steps: usize,
    /// Images of a step.
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch: usize,
    /// Side of the crops, in pixels.
    #[arg(long, default_value_t = 128, value_name = "PIXELS")]
    crop: usize,
    /// Step size of Adam.
    #[arg(long, default_value_t = 8e-4)]
    rate: f64,
    /// No mirrored, turned or scaled images.
    #[arg(long)]
    plain: bool,
    /// Steps between saves.
    #[arg(long, default_value_t = 200, value_name = "N")]
    save_every: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = Where::Cpu)]
    device: Where,
    /// Print one JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// The network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Size {
    /// .1 million parameters, for trials.
    Small,
    /// 5.8 million parameters, that of the shipped priors.
    Medium,
}

/// The device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    Cpu,
    Cuda,
}

impl Size {
    fn network(self, channels: usize) -> UNetConfig {
        let of = |widths: &[usize], depths: &[usize], embedding| UNetConfig {
            channels,
            patch: 2,
            widths: widths.to_vec(),
            depths: depths.to_vec(),
            attention: (1..=widths.len()).map(|i| i == widths.len()).collect(),
            groups: 8,
            head: 16,
            embedding,
            frequencies: 32,
        };
        match self {
            Self::Small => of(&[16, 32], &[1, 1], 32),
            Self::Medium => UNetConfig { head: 32, ..of(&[48, 96, 144, 160], &[1, 1, 2, 1], 128) },
        }
    }
}

/// What the run has seen so far; saved with its state.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Log {
    /// Mean loss of every ten steps.
    losses: Vec<f64>,
    /// Step, and PSNR in dB at each noise level.
    validation: Vec<Validation>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Validation {
    step: usize,
    sigmas: Vec<f64>,
    psnr: Vec<f64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    command: &'static str,
    output: &'a Path,
    steps: usize,
    parameters: usize,
    loss: Option<f64>,
    seconds_per_step: f64,
    validation: Option<&'a Validation>,
    termination: &'static str,
}

const SIGMAS: [f64; 6] = [0.05, 0.1, 0.2, 0.5, 1.0, 5.0];
/// Steps of one point of the loss curve.
const POINT: usize = 10;

/// A run: its folder and what belongs to it.
struct Run<'a> {
    arguments: &'a Arguments,
    trainer: Trainer,
    log: Log,
    training: Vec<Subject>,
    held: Vec<slices::Subject>,
    training_names: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    memory::keep_freed();
    let mut run = Run::prepare(arguments)?;
    let start = Instant::now();
    let first = run.trainer.step_number();
    let bar = progress::Progress::new("train");
    let mut sum = 0.0;
    let mut cancelled = false;
    while run.trainer.step_number() < arguments.steps && !cancelled {
        let report = run.trainer.step(&run.training)?;
        let step = run.trainer.step_number();
        sum += report.loss / POINT as f64;
        if step.is_multiple_of(POINT) {
            run.log.losses.push(sum);
            sum = 0.0;
        }
        cancelled = !bar.tick(step, arguments.steps, &format!("loss {:.4}", report.loss));
        // A run that goes on must find the points of the curve whole.
        if step.is_multiple_of(arguments.save_every.next_multiple_of(POINT))
            || step == arguments.steps
            || cancelled
        {
            run.save()?;
        }
    }
    bar.finish();
    let done = run.trainer.step_number() - first;
    let seconds = start.elapsed().as_secs_f64();
    run.pictures()?;
    let summary = Summary {
        command: "prior train",
        output: &arguments.output,
        steps: run.trainer.step_number(),
        parameters: run.trainer.parameters(),
        loss: run.log.losses.last().copied(),
        seconds_per_step: if done > 0 { seconds / done as f64 } else { 0.0 },
        validation: run.log.validation.last(),
        termination: if cancelled { "cancelled" } else { "completed" },
    };
    if arguments.json {
        return console::print_json(&summary);
    }
    let loss = summary.loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
    console::print(&format!(
        "{} steps{loss}: {}\n",
        summary.steps,
        arguments.output.join("prior.safetensors").display()
    ))
}

impl<'a> Run<'a> {
    fn prepare(arguments: &'a Arguments) -> Outcome<Self> {
        if arguments.steps == 0 || arguments.save_every == 0 {
            return Err(Failure::usage(
                "--steps",
                arguments.steps,
                "steps and --save-every must be at least 1",
            ));
        }
        let device = match arguments.device {
            Where::Cpu => Device::Cpu,
            Where::Cuda => Device::new_cuda(0)?,
        };
        let state = arguments.output.join("state.safetensors");
        let range = if arguments.complex { (0.0, 1.0) } else { (-1.0, 1.0) };
        let subjects = slices::read(&slices::volumes(&arguments.volumes)?, &arguments.cutting, range)?;
        let (held, rest): (Vec<_>, Vec<_>) =
            subjects.into_iter().partition(|s| arguments.hold.iter().any(|text| s.name.contains(text)));
        if rest.is_empty() {
            return Err(Failure::Usage("--hold leaves no volume to learn from".into()));
        }
        let training = rest
            .iter()
            .map(|s| Subject::new(&s.name, &s.images, s.spacing))
            .collect::<Result<Vec<_>, _>>()?;
        let training_names = rest.into_iter().map(|s| s.name).collect();
        let (header, settings) = (arguments.header(), arguments.settings());
        let (trainer, log) = if arguments.resume {
            let bytes = std::fs::read(&state).map_err(|e| Error::io(&state, e))?;
            let (trainer, notes) = Trainer::from_bytes(&bytes, &state, &device)?;
            if *trainer.settings() != settings {
                let reason = "was started with other settings (batch, crop, rate, plain, seed)";
                return Err(Failure::usage("--resume", state.display(), reason));
            }
            (trainer, serde_json::from_value(notes).map_err(|e| Error::format(&state, e))?)
        } else {
            if state.exists() {
                let reason = "holds a run already; go on with --resume";
                return Err(Failure::usage("--output", arguments.output.display(), reason));
            }
            std::fs::create_dir_all(&arguments.output).map_err(|e| Error::io(&arguments.output, e))?;
            (Trainer::new(header, settings, &device)?, Log::default())
        };
        Ok(Self { arguments, trainer, log, training, held, training_names })
    }

    /// How the prior was trained, for its file.
    fn record(&self) -> serde_json::Value {
        let psnr = |v: &Validation| {
            let pairs = v.sigmas.iter().zip(&v.psnr).map(|(s, p)| (s.to_string(), serde_json::json!(p)));
            serde_json::json!({ "step": v.step, "psnr": serde_json::Map::from_iter(pairs) })
        };
        serde_json::json!({
            "steps": self.trainer.step_number(),
            "settings": self.trainer.settings(),
            "subjects": self.training_names,
            "held_back": self.held.iter().map(|s| &s.name).collect::<Vec<_>>(),
            "validation": self.log.validation.last().map(psnr),
        })
    }

    /// Validates, and writes state, prior and curve, each whole or not at all.
    fn save(&mut self) -> Outcome {
        let folder = &self.arguments.output;
        let prior = self.trainer.prior(&serde_json::Value::Null)?;
        if !self.held.is_empty() {
            let images = eval::images(&self.held, 2, prior.card.channels)?;
            let levels = eval::levels(&prior, &images, &SIGMAS, 0)?;
            let psnr = levels.iter().map(|l| l.denoised).collect();
            let step = self.trainer.step_number();
            self.log.validation.push(Validation { step, sigmas: SIGMAS.to_vec(), psnr });
        }
        let log = serde_json::to_value(&self.log).map_err(|e| Error::format(folder, e))?;
        let write = |name: &str, bytes: &[u8]| {
            atomic::write(&folder.join(name), |out| std::io::Write::write_all(out, bytes))
        };
        write("state.safetensors", &self.trainer.to_bytes(&log)?)?;
        write("prior.safetensors", &self.trainer.file(&self.record())?)?;
        output::save_json(&folder.join("log.json"), &self.log)
    }

    /// The loss curve, and samples.
    fn pictures(&self) -> Outcome {
        let folder = &self.arguments.output;
        if self.log.losses.len() > 1 {
            let points = self.log.losses.iter().enumerate().map(|(i, l)| (((i + 1) * POINT) as f64, *l));
            let series = vec![Series { name: "loss".into(), points: points.collect() }];
            let curves = Curves {
                x_label: "step".into(),
                y_label: "mean square error of the target".into(),
                log_y: true,
                series,
                ..Curves::default()
            };
            curves.save(folder.join("loss.png"))?;
        }
        let prior = self.trainer.prior(&serde_json::Value::Null)?;
        sample::picture(&prior, 4, self.arguments.crop, &folder.join("samples.png"))
    }
}

impl Arguments {
    fn header(&self) -> Header {
        Header {
            name: self.name.clone(),
            range: (-1.0, 1.0),
            unit: self.unit.clone(),
            window: self.cutting.window.filter(|_| !self.complex).map(|w| (w.low, w.high)),
            size: Some([self.crop; 2]),
            sigma_data: if self.complex { 0.25 } else { 0.5 },
            network: self.network.network(if self.complex { 2 } else { 1 }),
        }
    }

    fn settings(&self) -> Settings {
        let still = Augmentation { flip: false, rotation: 0.0, quarter_turns: 0.0, scaling: 0.0 };
        let (batch, crop, rate, seed) = (self.batch, self.crop, self.rate, self.seed);
        let augmentation = if self.plain { still } else { Augmentation::default() };
        Settings { batch, crop, rate, seed, augmentation, ..Settings::default() }
    }
}
