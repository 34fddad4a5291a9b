//! An operator of your own: a snapshot camera sums the frames of a short film, each behind its own shutter
//! mask, into one picture,
//!
//!   y = Σₜ mₜ ∘ xₜ + n,
//!
//! and the film comes back as x̂ = argmin ½‖A x − y‖² + λ TV(x), with differences in space and time, x ≥ 0.
//! All it takes are a domain, a range, and two maps; the checks of `wellposed::testing` find mistakes.
//!
//! cargo run --release --example custom_operator -- [FOLDER] [SIZE]   (target/examples-output and 128 by default)

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use wellposed::error::{Error, Result};
use wellposed::functional::{Bounds, GroupNorm, SquaredDistance};
use wellposed::linalg::{LinearOperator, Pdhg, StepSizes, Term};
use wellposed::metric::psnr;
use wellposed::operator::Gradient;
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Kernel, Real, Space, Workspace, launch, vector};
use wellposed::testing::{check_operator, dot_test};

/// x [frames, height, width] ↦ Σₜ mₜ ∘ xₜ [height, width].
#[derive(Debug)]
struct Snapshot {
    domain: Space,
    range: Space,
    masks: Tensor,
}

impl Snapshot {
    fn new(masks: &Tensor) -> Self {
        let domain = Space::real(masks.dims(), masks.dtype(), masks.device());
        Self { range: domain.with_shape(&masks.dims()[1..]), domain, masks: masks.clone() }
    }
}

/// The computation, written once for f32 and f64; each pixel is one unit of work.
struct SumFrames {
    pixels: usize,
}

impl Kernel for SumFrames {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (masks, films) = (inputs[0], inputs[1]);
        outputs[0].par_chunks_mut(self.pixels).zip(films.par_chunks(masks.len())).for_each(|(out, film)| {
            out.fill(T::zero());
            for (frame, mask) in film.chunks(self.pixels).zip(masks.chunks(self.pixels)) {
                out.iter_mut().zip(frame.iter().zip(mask)).for_each(|(o, (x, m))| *o += *m * *x);
            }
        });
        Ok(())
    }
}

/// The adjoint: every frame gets the picture behind its mask.
struct SpreadFrames {
    pixels: usize,
}

impl Kernel for SpreadFrames {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (masks, pictures) = (inputs[0], inputs[1]);
        outputs[0].par_chunks_mut(masks.len()).zip(pictures.par_chunks(self.pixels)).for_each(|(film, y)| {
            for (frame, mask) in film.chunks_mut(self.pixels).zip(masks.chunks(self.pixels)) {
                frame.iter_mut().zip(y.iter().zip(mask)).for_each(|(o, (y, m))| *o = *m * *y);
            }
        });
        Ok(())
    }
}

impl LinearOperator for Snapshot {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(SumFrames { pixels: self.range.elements() }, &[&self.masks, x], &mut [out])
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(SpreadFrames { pixels: self.range.elements() }, &[&self.masks, y], &mut [out])
    }
}

/// A disc and a square that cross the picture.
fn film(frames: usize, size: usize) -> Result<Tensor> {
    let mut values = vec![0f32; frames * size * size];
    let (scale, side) = (size as f32, 0.13);
    for (t, frame) in values.chunks_mut(size * size).enumerate() {
        let along = 0.3 + 0.4 * t as f32 / frames as f32;
        for (index, pixel) in frame.iter_mut().enumerate() {
            let (y, x) = ((index / size) as f32 / scale, (index % size) as f32 / scale);
            if (y - 0.35).hypot(x - along) < 0.15 {
                *pixel += 0.8;
            }
            if (y - along).abs() < side && (x - 0.7).abs() < side {
                *pixel += 0.5;
            }
        }
    }
    Ok(Tensor::from_vec(values, (frames, size, size), &Device::Cpu)?)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or("target/examples-output".into()));
    let size: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(128);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;

    // Truth: a film of six frames.
    let frames = 6;
    let truth = film(frames, size)?;

    // Operator: masks that open each pixel in about half of the frames.
    let space = Space::real(&[frames, size, size], DType::F32, &Device::Cpu);
    let draw = standard_normal(Noise::new(4, 0), &space, &[])?;
    let camera = Snapshot::new(&draw.ge(0.0)?.to_dtype(DType::F32)?);
    check_operator(&camera)?;
    let dot = dot_test(&camera, 1)?;
    println!("the adjoint fits: defect {:.1e}, apparent scale {:.6}", dot.defect, dot.scale);

    // Data: one picture, with 1 % noise.
    let mut data = Buffer::copy_of(&camera.apply(&truth)?)?;
    let noise = standard_normal(Noise::new(1, 0), camera.range(), &[])?;
    vector::accumulate(1.0, &[(0.01, &noise)], &mut data)?;
    let data = data.freeze();

    // Functional: differences in time count less, since things move. Solver: primal-dual.
    let gradient = Gradient::weighted(&space, &[0, 1, 2], &[0.3, 1.0, 1.0])?;
    let fidelity = SquaredDistance::new(camera.range(), 1.0)?.from(&data)?;
    let tv = GroupNorm::new(gradient.range(), 0.01)?;
    let bounds = Bounds::non_negative(&space)?;
    let terms = [Term::new(&camera, &fidelity)?, Term::new(&gradient, &tv)?];
    let steps = StepSizes::balanced(&terms, 5.0)?;
    let pdhg = Pdhg { max_iterations: 1500, tolerance: 1e-4, ..Pdhg::default() };
    let solution = pdhg.solve(&bounds, &terms, &steps, &space.zeros(&[])?, &mut ())?;

    // Result.
    let reason = solution.termination.name();
    println!("{} iterations, {reason}, {:.2} s", solution.steps, solution.elapsed.as_secs_f64());
    println!("film: PSNR {:.2} dB", psnr(&solution.value, &truth, 1.3)?);
    let shown = [0, 2, 5];
    let row = |x: &Tensor, name: &str| -> Result<Vec<Option<Panel>>> {
        let panel = |t: usize| -> Result<Option<Panel>> {
            Ok(Some(Panel::new(format!("{name}, frame {}", t + 1), "", Image::new(&x.get(t)?, [1.0, 1.0])?)))
        };
        shown.into_iter().map(panel).collect()
    };
    let mut first = row(&truth, "truth")?;
    first.insert(0, Some(Panel::new("the snapshot", "", Image::new(&(&data / 3.0)?, [1.0, 1.0])?)));
    let mut second = row(&solution.value, "found")?;
    second.insert(0, None);
    let scale = Scale::gray(0.0, 1.3, "");
    let rows = vec![Row { scale: scale.clone(), panels: first }, Row { scale, panels: second }];
    Montage { rows, panel_width: 200 }.save(folder.join("custom_operator.png"))?;
    println!("picture: {}/custom_operator.png", folder.display());
    Ok(())
}
