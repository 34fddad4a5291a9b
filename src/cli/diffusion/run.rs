//! Runs of a sampler that leave checkpoints, can be interrupted, and go on where they stopped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use wellposed::error::Error;
use wellposed::io::{Volume, atomic};
use wellposed::observe::Termination;
use wellposed::prior::checkpoint::Prior;
use wellposed::sampler::{Posterior, Problem, Sampler, State, resume};
use wellposed::tensor::{Real, memory};

use super::{Chosen, Method};
use crate::cli::failure::Outcome;
use crate::cli::progress::{Progress, interrupted};
use crate::cli::{console, output};

/// The quantiles that are written, and the endings of their files.
const QUANTILES: [(f64, &str); 2] = [(0.05, "q05"), (0.95, "q95")];

/// A sampler with what it is to do.
pub struct Job<'a> {
    pub method: Method,
    pub sampler: &'a dyn Sampler,
    pub problem: &'a Problem<'a>,
    pub chosen: &'a Chosen,
    /// What a checkpoint must have in common with this run, besides sampler and seed.
    pub made_of: Ingredients<'a>,
    /// The result; checkpoints lie beside it.
    pub output: &'a Path,
}

/// What a result depends on.
pub struct Ingredients<'a> {
    pub data: &'a Tensor,
    pub start: Option<&'a Tensor>,
    pub prior: &'a Prior,
}

impl Ingredients<'_> {
    fn identity(&self) -> Outcome<String> {
        let card = serde_json::to_string(&self.prior.card).map_err(candle_core::Error::wrap)?;
        let (data, start) = (fingerprint(self.data)?, self.start.map_or(Ok(0), fingerprint)?);
        Ok(format!("data {data:016x}, start {start:016x}, prior {card}"))
    }
}

/// What a job has drawn.
pub struct Drawn {
    /// Finished samples; where not even one is finished, the estimate so far.
    pub samples: Vec<Tensor>,
    pub termination: Termination,
    /// Steps done, of all samples.
    pub steps: usize,
    pub progress: Progress,
}

impl Job<'_> {
    /// Draws all samples, with a checkpoint for each.
    ///
    /// # Errors
    /// The sampler diverged, or a file can't be read or written.
    pub fn run(&self) -> Outcome<Drawn> {
        memory::keep_freed();
        let count = self.chosen.samples;
        let (name, made_of) = (self.method.name(), self.made_of.identity()?);
        let mut drawn = Drawn {
            samples: Vec::with_capacity(count),
            termination: Termination::Completed,
            steps: 0,
            progress: Progress::new(name),
        };
        for k in 0..count {
            if count > 1 {
                drawn.progress.rename(format!("{name} {}/{count}", k + 1));
            }
            let identity = self.identity(k, &made_of);
            let state = self.state(k, &identity)?;
            let mut saver = self.saver(k, identity);
            let solution =
                resume(self.sampler, self.problem, state, &mut drawn.progress, &mut |s| saver.after(s))?;
            drawn.steps += solution.steps;
            drawn.termination = solution.termination;
            let ended = solution.termination != Termination::Completed;
            if !ended || drawn.samples.is_empty() {
                drawn.samples.push(solution.value.to_device(&Device::Cpu)?);
            }
            if ended {
                break;
            }
        }
        match drawn.termination {
            Termination::Completed => (0..count).for_each(|k| {
                // A checkpoint that can't be removed does no harm.
                let _ = std::fs::remove_file(self.checkpoint(k));
            }),
            Termination::Cancelled => console::say("\n--resume goes on from here."),
            Termination::Diverged => {
                return Err(Error::Unsupported(format!("{name} diverged; nothing is written")).into());
            }
            _ => {}
        }
        Ok(drawn)
    }

    fn checkpoint(&self, k: usize) -> PathBuf {
        output::beside(self.output, &format!(".checkpoint-{}.safetensors", k + 1))
    }

    fn identity(&self, k: usize, made_of: &str) -> String {
        format!("{:?}, sample {} from seed {}, {made_of}", self.sampler, k + 1, self.chosen.seed)
    }

    /// The state that sample `k` starts from or goes on from.
    fn state(&self, k: usize, identity: &str) -> Outcome<State> {
        let mut state = self.sampler.init(self.problem, self.chosen.seed.wrapping_add(k as u64))?;
        let path = self.checkpoint(k);
        if !self.chosen.resume {
            return Ok(state);
        }
        match std::fs::read(&path) {
            Ok(bytes) => {
                state.restore(&bytes, identity).map_err(|e| Error::format(&path, e))?;
                console::say(&format!(
                    "Going on after step {} of {}.",
                    state.iteration,
                    self.sampler.steps()
                ));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if k == 0 {
                    console::say(&format!("No checkpoint at {}; starting anew.", path.display()));
                }
            }
            Err(error) => return Err(Error::io(&path, error).into()),
        }
        Ok(state)
    }

    fn saver(&self, k: usize, identity: String) -> Saver {
        Saver {
            path: self.checkpoint(k),
            identity,
            last: self.sampler.steps(),
            several: self.chosen.samples > 1,
            saved: Instant::now(),
            cost: Duration::ZERO,
        }
    }
}

/// Saves states, as often as it costs no more than a twentieth of the time.
struct Saver {
    path: PathBuf,
    identity: String,
    last: usize,
    several: bool,
    saved: Instant,
    cost: Duration,
}

impl Saver {
    fn after(&mut self, state: &State) -> wellposed::error::Result<()> {
        let finished = state.iteration == self.last;
        let due = self.saved.elapsed() >= 20 * self.cost;
        // The last state of a single sample becomes the result at once.
        let wanted = if finished { self.several } else { due || interrupted() };
        if !wanted {
            return Ok(());
        }
        let start = Instant::now();
        let bytes = state.to_bytes(&self.identity)?;
        atomic::write(&self.path, |out| std::io::Write::write_all(out, &bytes))?;
        (self.saved, self.cost) = (Instant::now(), start.elapsed());
        Ok(())
    }
}

/// Mean, and where there are several samples their spread, as volumes; the parts have the endings of their files.
pub struct Summary {
    pub mean: Volume,
    pub beside: Vec<(&'static str, Volume)>,
}

impl Summary {
    /// Summarises samples that are real volumes already; `deviation` turns a tensor of deviations into a volume.
    pub fn of(
        samples: Vec<Tensor>,
        volume: impl Fn(Tensor) -> Outcome<Volume>,
        deviation: impl Fn(Tensor) -> Outcome<Volume>,
    ) -> Outcome<Self> {
        if let [only] = &samples[..] {
            return Ok(Self { mean: volume(only.clone())?, beside: Vec::new() });
        }
        let quantiles = QUANTILES.map(|(q, _)| q);
        let posterior = Posterior::of(samples, &quantiles, Termination::Completed)?;
        let mut beside = vec![("std", deviation(posterior.deviation)?)];
        for ((_, name), (_, values)) in QUANTILES.iter().zip(posterior.quantiles) {
            beside.push((*name, volume(values)?));
        }
        Ok(Self { mean: volume(posterior.mean)?, beside })
    }
}

/// A number that tells arrays apart: FNV-1a over the bits of the elements.
fn fingerprint(x: &Tensor) -> Outcome<u64> {
    let values = f64::to_vec(&x.flatten_all()?)?;
    let bytes = values.iter().flat_map(|v| v.to_bits().to_le_bytes());
    Ok(bytes.fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3)))
}
