//! Sampling a prior without data: with the score s(x, t) = (α D(x/α, σ/α) − x)/σ² of the noised data,
//!
//!   dx = [f(t) x − g(t)² s] dt + g(t) dw   (reverse SDE),   dx = [f(t) x − ½ g(t)² s] dt   (probability flow)
//!
//! run from noise to images. Drawn are the reverse SDE by predictor and corrector, its ancestral form, and two solvers
//! of the flow, DPM-Solver++(2M) and Heun, with their calls of the denoiser.
//!
//! cargo run --release --example score_sde_sampling -- [FOLDER] [SIZE]   (target/examples-output and 128 by default)

use std::path::PathBuf;

use candle_core::{DType, Device};
use wellposed::error::Result;
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::schedule::{Grid, Sde};
use wellposed::sampler::{Corrector, Guided, Predictor, Problem, Sampler, ScoreSde, Stepper, sample};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(128);
    std::fs::create_dir_all(&folder).map_err(|e| wellposed::error::Error::io(&folder, e))?;
    // The prior of CT slices, and three samples.
    let prior = Prior::find("ct")?.denoiser;
    let (shape, device) = ([3, size, size], Device::Cpu);
    let problem = Problem::unconditional(&prior, &shape, DType::F32, &device)?;

    // Samplers, with the calls that they need.
    let sde = Sde::Ve { min: 0.02, max: 50.0 };
    let corrector = Corrector::Langevin { snr: 0.16, steps: 1 };
    let levels = Grid::Karras { min: 0.02, max: 50.0, rho: 7.0 };
    let guided = |steps, stepper| Guided { grid: levels, steps, stepper, ..Guided::default() };
    let pc = ScoreSde { sde, predictor: Predictor::ReverseDiffusion, corrector, steps: 40 };
    let samplers: [(&str, Box<dyn Sampler>); 4] = [
        ("predictor-corrector, 80 calls", Box::new(pc)),
        ("ancestral, 40 calls", Box::new(guided(40, Stepper::Ancestral))),
        ("DPM-Solver++(2M), 15 calls", Box::new(guided(15, Stepper::DpmPlusPlus { order: 2 }))),
        ("Heun, 30 calls", Box::new(guided(15, Stepper::Heun))),
    ];

    // Result, in HU.
    let mut rows = Vec::new();
    for (name, sampler) in &samplers {
        let solution = sample(&**sampler, &problem, 4, &mut ())?;
        let hu = solution.value.affine(1000.0, 0.0)?;
        let mean = hu.mean_all()?.to_scalar::<f32>()?;
        println!("{name:<30} {:.1} s, mean {mean:.0} HU", solution.elapsed.as_secs_f64());
        let mut panels = Vec::new();
        for k in 0..shape[0] {
            let image = Image::new(&hu.get(k)?, [1.0, 1.0])?;
            panels.push(Some(Panel::new(if k == 0 { *name } else { "" }, "", image)));
        }
        rows.push(Row { scale: Scale::gray(-1000.0, 400.0, "HU"), panels });
    }
    Montage { rows, panel_width: 200 }.save(folder.join("score_sde_sampling.png"))?;
    println!("picture: {}/score_sde_sampling.png", folder.display());
    Ok(())
}
