//! Samplers against closed forms: Gaussian posteriors, Gaussian-mixture flows, known fixed points.

use candle_core::{DType, Device, Tensor};
use ndarray::{Array1, Array2, Axis};
use wellposed::error::Result;
use wellposed::linalg::dense::Cholesky;
use wellposed::linalg::{Linear, LinearOperator, NonlinearOperator};
use wellposed::operator::{Chain, Curve, Pointwise, phase_retrieval};
use wellposed::prior::Denoiser;
use wellposed::prior::gaussian::Gaussian;
use wellposed::prior::mixture::Mixture;
use wellposed::prior::schedule::{Grid, Sde};
use wellposed::sampler::likelihood::{Divergence, ProbabilityFlow};
use wellposed::sampler::{
    AdmmTv, Consistency, Corrector, Daps, DiffusionMbir, Dps, Draw, Guided, MomentMatching, NoiseFrom,
    Normalized, PiGdm, Predictor, Problem, RedDiff, Sampler, ScoreSde, Stepper, posterior, resume, sample,
};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Real, Space, Workspace, vector};

/// A small operator given by its matrix, images [height, width] to [rows].
#[derive(Debug)]
struct Dense {
    matrix: Array2<f64>,
    domain: Space,
    range: Space,
}

impl Dense {
    fn new(shape: &[usize], matrix: Array2<f64>) -> Self {
        let domain = Space::real(shape, DType::F64, &Device::Cpu);
        let range = domain.with_shape(&[matrix.nrows()]);
        Self { matrix, domain, range }
    }

    /// Every other pixel.
    fn mask() -> Self {
        Self::new(&[3, 4], Array2::from_shape_fn((6, 12), |(i, j)| if j == 2 * i { 1.0 } else { 0.0 }))
    }

    /// A short blur along the rows of the image.
    fn blur() -> Self {
        let kernel =
            |i: usize, j: usize| if i / 4 == j / 4 { [0.6, 0.2, 0.0, 0.0][i.abs_diff(j)] } else { 0.0 };
        Self::new(&[3, 4], Array2::from_shape_fn((12, 12), |(i, j)| kernel(i, j)))
    }

    /// Sums along rows and columns: a projector of two views.
    fn projections() -> Self {
        let hit =
            |view: usize, pixel: usize| if view < 3 { pixel / 4 == view } else { pixel % 4 == view - 3 };
        Self::new(&[3, 4], Array2::from_shape_fn((7, 12), |(i, j)| if hit(i, j) { 0.4 } else { 0.0 }))
    }

    fn map(&self, x: &Tensor, matrix: &Array2<f64>, out: &mut Buffer) -> Result<()> {
        let rows = Array2::from_shape_vec((x.elem_count() / matrix.ncols(), matrix.ncols()), f64::to_vec(x)?)
            .unwrap();
        let y = rows.dot(&matrix.t());
        vector::copy(&f64::tensor(y.iter().copied().collect(), out.dims())?, out)
    }
}

impl LinearOperator for Dense {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.map(x, &self.matrix, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.map(y, &self.matrix.t().to_owned(), out)
    }
}

/// Mean and covariance of N(m, C) given y = A x + N(0, noise²).
fn gaussian_posterior(
    mean: &Array1<f64>,
    c: &Array2<f64>,
    a: &Array2<f64>,
    y: &Array1<f64>,
    noise: f64,
) -> (Array1<f64>, Array2<f64>) {
    let gram = a.dot(c).dot(&a.t()) + Array2::<f64>::eye(a.nrows()) * (noise * noise);
    let gain = Cholesky::new("gram", gram.view()).unwrap().solve(a.dot(c).view()).unwrap().reversed_axes();
    (mean + &gain.dot(&(y - &a.dot(mean))), c - &gain.dot(a).dot(c))
}

fn moments(samples: &Tensor) -> (Array1<f64>, Array2<f64>) {
    let count = samples.dim(0).unwrap();
    let rows =
        Array2::from_shape_vec((count, samples.elem_count() / count), f64::to_vec(samples).unwrap()).unwrap();
    let mean = rows.mean_axis(Axis(0)).unwrap();
    let centred = rows - &mean;
    let covariance = centred.t().dot(&centred) / (count as f64 - 1.0);
    (mean, covariance)
}

/// Asserts that `count` samples have the wanted moments within five standard errors plus `bias`.
fn assert_moments(samples: &Tensor, mean: &Array1<f64>, covariance: &Array2<f64>, bias: f64, what: &str) {
    let count = samples.dim(0).unwrap() as f64;
    let (found_mean, found) = moments(samples);
    for i in 0..mean.len() {
        let error = (covariance[(i, i)] / count).sqrt();
        let off = (found_mean[i] - mean[i]).abs();
        assert!(off < 5.0 * error + bias, "{what}: mean {i} is {} not {}", found_mean[i], mean[i]);
        for j in 0..mean.len() {
            let product = covariance[(i, i)] * covariance[(j, j)];
            let error = ((product + covariance[(i, j)].powi(2)) / count).sqrt();
            let off = (found[(i, j)] - covariance[(i, j)]).abs();
            assert!(
                off < 5.0 * error + bias,
                "{what}: covariance {i},{j} is {} not {}",
                found[(i, j)],
                covariance[(i, j)]
            );
        }
    }
}

fn repeated(y: &Array1<f64>, count: usize) -> Tensor {
    Tensor::new(y.to_vec(), &Device::Cpu).unwrap().unsqueeze(0).unwrap().repeat((count, 1)).unwrap()
}

fn measured(a: &Dense, seed: u64) -> Array1<f64> {
    Array1::from_shape_fn(a.matrix.nrows(), |i| Noise::new(seed, 9).normal_pair(i as u64).0)
}

#[test]
fn pigdm_and_the_noise_aware_step_sample_the_posterior_of_a_white_prior() {
    let (count, noise, spread) = (2000, 0.3, 0.8);
    let prior = Gaussian::white(&[3, 4], 0.0, spread).unwrap();
    for a in [Dense::mask(), Dense::blur(), Dense::projections()] {
        let y = measured(&a, 1);
        let truth = gaussian_posterior(&Array1::zeros(12), &prior.covariance(), &a.matrix, &y, noise);
        let data = repeated(&y, count);
        let problem = Problem::new(&a, &data, noise, &prior).unwrap().with_chunk(count);
        let grid = Grid::Karras { min: 0.01, max: 40.0, rho: 4.0 };
        let pigdm = PiGdm { steps: 150, spread, iterations: 12, tolerance: 1e-9, grid };
        let aware = Guided {
            grid,
            steps: 150,
            stepper: Stepper::Ancestral,
            consistency: Consistency::NoiseAware { spread, iterations: 12 },
            ..Guided::default()
        };
        for sampler in [&pigdm as &dyn Sampler, &aware] {
            let solution = sample(sampler, &problem, 3, &mut ()).unwrap();
            // The bias of 150 steps, on top of the Monte-Carlo error.
            assert_moments(&solution.value, &truth.0, &truth.1, 0.015, sampler.name());
        }
    }
}

#[test]
fn moment_matching_samples_the_posterior_of_a_coloured_prior() {
    let (count, noise) = (2000, 0.3);
    let mean: Vec<f64> = (0..12).map(|i| f64::from(i) / 10.0 - 0.5).collect();
    // Neighbours are alike, and pixels differ in how uncertain they are.
    let deviation = |i: usize| 0.4 + 0.05 * i as f64;
    let covariance = Array2::from_shape_fn((12, 12), |(i, j)| {
        deviation(i) * deviation(j) * 0.7f64.powi(i.abs_diff(j) as i32)
    });
    let prior = Gaussian::new(&[3, 4], mean.clone(), covariance.view()).unwrap();
    for a in [Dense::mask(), Dense::blur(), Dense::projections()] {
        let y = measured(&a, 1);
        let truth = gaussian_posterior(&Array1::from(mean.clone()), &covariance, &a.matrix, &y, noise);
        let data = repeated(&y, count);
        let problem = Problem::new(&a, &data, noise, &prior).unwrap().with_chunk(700);
        let grid = Grid::Karras { min: 0.01, max: 40.0, rho: 4.0 };
        let sampler = MomentMatching { steps: 150, iterations: 12, grid, ..MomentMatching::default() };
        let solution = sample(&sampler, &problem, 3, &mut ()).unwrap();
        assert_moments(&solution.value, &truth.0, &truth.1, 0.015, sampler.name());
    }
    let a = Dense::mask();
    let data = repeated(&measured(&a, 1), 1);
    let problem = Problem::new(&a, &data, noise, &prior).unwrap();
    let none = MomentMatching { iterations: 0, ..MomentMatching::default() };
    assert!(none.init(&problem, 0).unwrap_err().to_string().contains("iterations"));
}

/// With a Gaussian prior the denoiser is linear: the mean of stochastic plug and play is the image of plug and play, and its
/// variance that of noise that the steps pass on.
#[test]
fn stochastic_plug_and_play_scatters_about_plug_and_play() {
    let (count, noise, spread, error) = (2000, 0.3, 0.8, 0.5);
    let prior = Gaussian::white(&[3, 4], 0.2, spread).unwrap();
    let grid = Grid::Karras { min: 0.05, max: 3.0, rho: 7.0 };
    for a in [Dense::mask(), Dense::blur(), Dense::projections()] {
        let y = measured(&a, 1);
        let data = repeated(&y, count);
        let problem = Problem::new(&a, &data, noise, &prior).unwrap().with_chunk(count);
        let start = Tensor::full(0.1, (count, 3, 4), &Device::Cpu).unwrap();
        let problem = problem.starting_at(&start).unwrap();
        let snore = Guided { grid, steps: 25, clip: false, ..Guided::snore(3.0, error) };
        assert_eq!(snore.name(), "snore");
        // x̂ ← P (a x + (1 − a) m + γ Aᵀy) with P = (I + γ AᵀA)⁻¹, and x ← x̂ + σ z.
        let gram = a.matrix.t().dot(&a.matrix);
        let (mut mean, mut covariance) = (Array1::from_elem(12, 0.1), Array2::<f64>::zeros((12, 12)));
        for sigma in grid.sigmas(25).unwrap().into_iter().filter(|sigma| *sigma > 0.0) {
            let shrink = spread * spread / (spread * spread + sigma * sigma);
            let gamma = error * error * sigma / (noise * noise);
            let system = Array2::<f64>::eye(12) + &gram * gamma;
            let solve =
                |b: &Array2<f64>| Cholesky::new("system", system.view()).unwrap().solve(b.view()).unwrap();
            let right = &mean * shrink + 0.2 * (1.0 - shrink) + a.matrix.t().dot(&y) * gamma;
            mean = solve(&right.insert_axis(Axis(1))).remove_axis(Axis(1));
            let noisy = (&covariance + Array2::<f64>::eye(12) * (sigma * sigma)) * (shrink * shrink);
            covariance = solve(&solve(&noisy).reversed_axes());
        }
        let solution = sample(&snore, &problem, 3, &mut ()).unwrap();
        assert_moments(&solution.value, &mean, &covariance, 1e-3, "snore");
        let posterior =
            gaussian_posterior(&Array1::from_elem(12, 0.2), &prior.covariance(), &a.matrix, &y, noise).1;
        assert!((0..12).all(|i| covariance[(i, i)] < posterior[(i, i)]));
        let pnp = Guided { grid, steps: 25, clip: false, ..Guided::plug_and_play(3.0, error) };
        let (found, _) = moments(&sample(&pnp, &problem, 3, &mut ()).unwrap().value);
        assert!((&found - &mean).iter().all(|off| off.abs() < 0.01), "{found} not {mean}");
    }
}

#[test]
fn a_last_denoising_follows_the_data() {
    let (noise, sigma) = (0.3, 0.1);
    let prior = Gaussian::white(&[3, 4], 0.0, 0.8).unwrap();
    let a = Dense::blur();
    let data = repeated(&measured(&a, 1), 2);
    let problem = Problem::new(&a, &data, noise, &prior).unwrap();
    let plain = Guided::noise_aware(2.0, 0.5);
    let [expected, found] = [None, Some(sigma)].map(|last| {
        let solution = sample(&Guided { last, ..plain }, &problem, 3, &mut ()).unwrap();
        assert_eq!(solution.steps, plain.steps);
        solution.value
    });
    let [expected, found] =
        [&prior.denoise(&expected, sigma).unwrap(), &found].map(|x| f64::to_vec(x).unwrap());
    assert!(expected.iter().zip(&found).all(|(e, f)| (e - f).abs() < 1e-12), "{expected:?} {found:?}");
    let refused = sample(&Guided { last: Some(0.0), ..plain }, &problem, 3, &mut ());
    assert!(refused.unwrap_err().to_string().contains("last noise level"));
}

#[test]
fn a_mirrored_prior_sees_the_mirror_image() {
    let mean: Vec<f64> = (0..12).map(|i| f64::from(i * i) / 50.0).collect();
    let covariance = Array2::from_shape_fn((12, 12), |(i, j)| 0.6f64.powi(i.abs_diff(j) as i32));
    let prior = Gaussian::new(&[3, 4], mean, covariance.view()).unwrap();
    let x = Tensor::randn(0f64, 1.0, (5, 3, 4), &Device::Cpu).unwrap();
    let problem = Problem::unconditional(&prior, &[5, 3, 4], DType::F64, &Device::Cpu).unwrap().with_chunk(2);
    for axes in [&[][..], &[0], &[1], &[0, 1]] {
        let mut found = Buffer::zeros(&[5, 3, 4], DType::F64, &Device::Cpu).unwrap();
        problem.denoise_mirrored_into(&x, 0.7, axes, &mut found).unwrap();
        let pixels = |x: &Tensor| f64::to_vec(x).unwrap();
        let place = |i: usize| {
            let (row, column) = (i / 4 % 3, i % 4);
            let row = if axes.contains(&0) { 2 - row } else { row };
            i / 12 * 12 + row * 4 + if axes.contains(&1) { 3 - column } else { column }
        };
        let own = pixels(&x);
        let mirrored = (0..60).map(|i| own[place(i)]).collect::<Vec<_>>();
        let mirrored = Tensor::from_vec(mirrored, (5, 3, 4), &Device::Cpu).unwrap();
        let denoised = pixels(&prior.denoise(&mirrored, 0.7).unwrap());
        let found = pixels(found.tensor());
        assert!((0..60).all(|i| (found[i] - denoised[place(i)]).abs() < 1e-12), "{axes:?}");
    }
    // In turn as they are, along the last axis, the one before it, and both.
    let shape = [3, 4];
    let mean: Vec<f64> = (0..12).map(f64::from).collect();
    let ramp = Gaussian::new(&shape, mean, (Array2::<f64>::eye(12) * 1e-18).view()).unwrap();
    for (step, axes) in [&[][..], &[1], &[0], &[1, 0], &[]].into_iter().enumerate() {
        let problem = Problem::unconditional(&ramp, &[1, 3, 4], DType::F64, &Device::Cpu).unwrap();
        let sampler = Guided { steps: step + 1, mirrored: true, ..Guided::default() };
        let found = sample(&sampler, &problem, 3, &mut ()).unwrap().value.squeeze(0).unwrap();
        let image = Tensor::arange(0f64, 12.0, &Device::Cpu).unwrap().reshape(&shape).unwrap();
        let expected = image.flip(axes).unwrap();
        let off = (found - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(off.to_scalar::<f64>().unwrap() < 1e-6, "step {step}");
    }
    // A prior that is its own mirror image doesn't notice.
    let white = Gaussian::white(&[3, 4], 0.0, 0.8).unwrap();
    let a = Dense::blur();
    let data = repeated(&measured(&a, 1), 2);
    let problem = Problem::new(&a, &data, 0.3, &white).unwrap();
    let [plain, mirrored] = [false, true].map(|mirrored| {
        let sampler = Guided { mirrored, ..Guided::noise_aware(2.0, 0.5) };
        f64::to_vec(&sample(&sampler, &problem, 3, &mut ()).unwrap().value).unwrap()
    });
    assert!(plain.iter().zip(&mirrored).all(|(p, m)| (p - m).abs() < 1e-12));
}

#[test]
fn score_sdes_sample_the_prior() {
    let covariance = Array2::from_shape_fn((4, 4), |(i, j)| 0.5f64.powi(i.abs_diff(j) as i32) * 0.25);
    let mean = vec![0.5, -0.5, 0.0, 1.0];
    let prior = Gaussian::new(&[2, 2], mean.clone(), covariance.view()).unwrap();
    let shape = [2500, 2, 2];
    let problem = Problem::unconditional(&prior, &shape, DType::F64, &Device::Cpu).unwrap().with_chunk(2500);
    let ve = Sde::Ve { min: 0.01, max: 30.0 };
    for (sde, predictor, corrector) in [
        (Sde::VP, Predictor::EulerMaruyama, Corrector::None),
        (Sde::VP, Predictor::ReverseDiffusion, Corrector::None),
        (Sde::VP, Predictor::Ancestral, Corrector::None),
        (Sde::SUB_VP, Predictor::EulerMaruyama, Corrector::None),
        (ve, Predictor::ReverseDiffusion, Corrector::None),
        (ve, Predictor::Ancestral, Corrector::Annealed { snr: 0.05, steps: 1 }),
    ] {
        let sampler = ScoreSde { sde, predictor, corrector, steps: 250 };
        let solution = sample(&sampler, &problem, 5, &mut ()).unwrap();
        let what = format!("{sampler:?}");
        assert_moments(&solution.value, &Array1::from(mean.clone()), &covariance, 0.02, &what);
    }
}

#[test]
fn the_langevin_corrector_keeps_the_prior() {
    // Its step size compares norms, which only concentrate in many dimensions.
    let prior = Gaussian::white(&[12, 12], 0.2, 0.5).unwrap();
    let shape = [40, 12, 12];
    let problem = Problem::unconditional(&prior, &shape, DType::F64, &Device::Cpu).unwrap().with_chunk(40);
    let corrector = Corrector::Langevin { snr: 0.1, steps: 1 };
    let sde = Sde::Ve { min: 0.01, max: 30.0 };
    let sampler = ScoreSde { sde, predictor: Predictor::ReverseDiffusion, corrector, steps: 250 };
    let found = f64::to_vec(&sample(&sampler, &problem, 5, &mut ()).unwrap().value).unwrap();
    let n = found.len() as f64;
    let mean = found.iter().sum::<f64>() / n;
    let variance = found.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    assert!((mean - 0.2).abs() < 0.03, "{mean}");
    assert!((variance / 0.25 - 1.0).abs() < 0.1, "{variance}");
}

#[test]
fn replacement_keeps_what_is_known() {
    let prior = Gaussian::white(&[3, 4], 0.0, 1.0).unwrap();
    let a = Dense::mask();
    let y = measured(&a, 2);
    let data = repeated(&y, 3);
    let problem = Problem::new(&a, &data, 0.0, &prior).unwrap();
    let sampler = ScoreSde { sde: Sde::VP, steps: 200, ..ScoreSde::default() };
    let solution = sample(&sampler, &problem, 5, &mut ()).unwrap();
    let known = f64::to_vec(&a.apply(&solution.value).unwrap()).unwrap();
    for (found, wanted) in known.iter().zip(y.iter().cycle()) {
        assert!((found - wanted).abs() < 0.2, "{found} {wanted}");
    }
}

fn two_modes() -> Mixture {
    Mixture::new(&[1, 2], vec![(1.0, vec![1.0, 0.4], 0.3), (1.5, vec![-0.8, 0.0], 0.5)]).unwrap()
}

/// The end of the deterministic flow from one fixed noisy image, for growing numbers of steps.
fn flow(stepper: Stepper, steps: usize) -> Vec<f64> {
    let (prior, shape) = (two_modes(), [8, 1, 2]);
    let problem = Problem::unconditional(&prior, &shape, DType::F64, &Device::Cpu).unwrap();
    let sampler = Guided {
        grid: Grid::LogUniform { min: 0.05, max: 10.0 },
        steps,
        stepper,
        consistency: Consistency::None,
        ..Guided::default()
    };
    f64::to_vec(&sample(&sampler, &problem, 11, &mut ()).unwrap().value).unwrap()
}

fn distance(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn steppers_converge_at_their_order() {
    let exact = flow(Stepper::DpmSingle { order: 3 }, 3000);
    let order = |stepper: Stepper, steps: usize| {
        let (coarse, fine) =
            (distance(&flow(stepper, steps), &exact), distance(&flow(stepper, 2 * steps), &exact));
        (coarse / fine).log2()
    };
    let ddim = Stepper::Ddim { eta: 0.0, noise: NoiseFrom::Network };
    for (stepper, steps, expected) in [
        (ddim, 320, 1.0),
        (Stepper::DpmPlusPlus { order: 1 }, 320, 1.0),
        (Stepper::Dpm { order: 1 }, 320, 1.0),
        (Stepper::DpmPlusPlus { order: 2 }, 160, 2.0),
        (Stepper::Dpm { order: 2 }, 160, 2.0),
        (Stepper::DpmPlusPlusSingle, 160, 2.0),
        (Stepper::DpmSingle { order: 2 }, 160, 2.0),
        (Stepper::Heun, 160, 2.0),
        (Stepper::DpmSingle { order: 3 }, 80, 3.0),
        // The first step of a multistep method has order 1, whose one error of order 2 caps the rest.
        (Stepper::DpmPlusPlus { order: 3 }, 160, 2.0),
        // The corrector gains one order.
        (Stepper::UniPc { order: 1, exponential: true }, 160, 2.0),
    ] {
        let found = order(stepper, steps);
        assert!((found - expected).abs() < 0.35, "{stepper:?}: order {found:.2}, expected {expected}");
    }
    let error = |stepper| distance(&flow(stepper, 30), &exact);
    let (second, third) =
        (error(Stepper::DpmPlusPlus { order: 2 }), error(Stepper::DpmPlusPlus { order: 3 }));
    let unipc = error(Stepper::UniPc { order: 3, exponential: true });
    assert!(third < second && unipc < second, "2M {second:.2e}, 3M {third:.2e}, UniPC-3 {unipc:.2e}");
    // The first-order methods are one and the same.
    let euler = flow(ddim, 40);
    assert!(distance(&flow(Stepper::DpmPlusPlus { order: 1 }, 40), &euler) < 1e-12);
    assert!(distance(&flow(Stepper::Dpm { order: 1 }, 40), &euler) < 1e-12);
}

#[test]
fn stochastic_multistep_samples_the_mixture() {
    let (prior, shape) = (two_modes(), [4000, 1, 2]);
    let problem = Problem::unconditional(&prior, &shape, DType::F64, &Device::Cpu).unwrap().with_chunk(4000);
    let mean = Array1::from(vec![(1.0 - 0.8 * 1.5) / 2.5, 0.4 / 2.5]);
    let second = |i: usize, j: usize| {
        let (a, b) = ([1.0, 0.4], [-0.8, 0.0]);
        let own = if i == j { (0.09 + 1.5 * 0.25) / 2.5 } else { 0.0 };
        (a[i] * a[j] + 1.5 * b[i] * b[j]) / 2.5 - mean[i] * mean[j] + own
    };
    let covariance = Array2::from_shape_fn((2, 2), |(i, j)| second(i, j));
    for stepper in [Stepper::SdeDpmPlusPlus, Stepper::Ancestral, Stepper::DpmPlusPlus { order: 2 }] {
        let sampler = Guided {
            grid: Grid::LogUniform { min: 0.01, max: 40.0 },
            steps: 150,
            stepper,
            consistency: Consistency::None,
            ..Guided::default()
        };
        let solution = sample(&sampler, &problem, 2, &mut ()).unwrap();
        assert_moments(&solution.value, &mean, &covariance, 0.01, &format!("{stepper:?}"));
    }
}

#[test]
fn probability_flow_gives_the_density() {
    let prior = two_modes();
    let x = Tensor::new(&[[[0.9f64, 0.5]], [[-0.5, 0.2]], [[0.1, 0.1]]], &Device::Cpu).unwrap();
    let truth = prior.log_density(&x, 0.0).unwrap();
    let flow = ProbabilityFlow { relative: 1e-7, absolute: 1e-7, ..ProbabilityFlow::default() };
    for sde in [Sde::VP, Sde::SUB_VP, Sde::Ve { min: 1e-3, max: 60.0 }] {
        let flow = ProbabilityFlow { sde, ..flow };
        let found = flow.log_likelihood(&prior, &x, Divergence::Exact).unwrap();
        for (found, truth) in found.iter().zip(&truth) {
            // The SDE ends at a positive noise level, which smooths the density a little.
            assert!((found - truth).abs() < 2e-3, "{sde:?}: {found} {truth}");
        }
    }
    let white = Gaussian::white(&[2, 2], 0.3, 0.7).unwrap();
    let x = Tensor::new(&[[[0.3f64, 1.0], [-0.4, 0.2]]], &Device::Cpu).unwrap();
    let square: f64 = f64::to_vec(&x).unwrap().iter().map(|v| (v - 0.3) * (v - 0.3)).sum();
    let truth = -0.5 * square / 0.49 - 2.0 * (std::f64::consts::TAU * 0.49).ln();
    let found = flow.log_likelihood(&white, &x, Divergence::Hutchinson { probes: 1, seed: 1 }).unwrap()[0];
    assert!((found - truth).abs() < 1e-3, "{found} {truth}");
}

#[test]
fn red_diff_stays_where_its_objective_is_stationary() {
    // At a fixed noise level the expected gradient vanishes at the minimiser of ½‖y − Aμ‖² + ½ w ‖μ − m‖² with
    // w = λ σ²/(s² + σ²) for a white prior N(m, s²).
    let (mean, spread, lambda, sigma) = (0.3, 0.5, 0.4, 0.7);
    let prior = Gaussian::white(&[3, 4], mean, spread).unwrap();
    let a = Dense::blur();
    let y = measured(&a, 4);
    let data = repeated(&y, 1);
    let problem = Problem::new(&a, &data, 0.1, &prior).unwrap();
    let grid = Grid::LogUniform { min: sigma, max: sigma * 1.000001 };
    let sampler = RedDiff { steps: 6000, lambda, rate: 0.002, betas: (0.9, 0.999), grid };
    let found = f64::to_vec(&sample(&sampler, &problem, 1, &mut ()).unwrap().value).unwrap();
    let weight = lambda * sigma * sigma / (spread * spread + sigma * sigma);
    let prior_covariance = Array2::eye(12) / weight;
    let (expected, _) =
        gaussian_posterior(&Array1::from_elem(12, mean), &prior_covariance, &a.matrix, &y, 1.0);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 0.05, "{found} {expected}");
    }
}

#[test]
fn dps_without_guidance_is_ancestral_sampling_and_with_it_fits_better() {
    let prior = Gaussian::white(&[3, 4], 0.0, 0.5).unwrap();
    let a = Dense::projections();
    let y = measured(&a, 5).mapv(|v| v * 0.3);
    let count = 1500;
    let data = repeated(&y, count);
    let problem = Problem::new(&a, &data, 0.05, &prior).unwrap().with_chunk(count);
    let free = Dps { steps: 200, zeta: 0.0, clip: false, grid: Grid::default() };
    let solution = sample(&free, &problem, 1, &mut ()).unwrap();
    assert_moments(&solution.value, &Array1::zeros(12), &(Array2::eye(12) * 0.25), 0.01, "dps");
    let misfit = |x: &Tensor| {
        let residual = (a.apply(x).unwrap() - &data).unwrap();
        vector::norm(&residual, 1).unwrap()[0] / (count as f64).sqrt()
    };
    let guided = Dps { zeta: 0.3, ..free };
    let fitted = misfit(&sample(&guided, &problem, 1, &mut ()).unwrap().value);
    assert!(fitted < 0.3 * misfit(&solution.value), "{fitted} {}", misfit(&solution.value));
}

#[test]
fn dps_does_not_depend_on_the_batch() {
    let prior = Gaussian::white(&[3, 4], 0.0, 0.5).unwrap();
    let a = Dense::blur();
    let y = measured(&a, 5);
    let sampler = Dps { steps: 20, ..Dps::default() };
    let run = |count: usize, chunk: usize| {
        let data = repeated(&y, count);
        let problem = Problem::new(&a, &data, 0.05, &prior).unwrap().with_chunk(chunk);
        f64::to_vec(&sample(&sampler, &problem, 1, &mut ()).unwrap().value).unwrap()
    };
    assert_eq!(run(1, 1), run(4, 3)[..12]);
}

#[test]
fn noiseless_methods_end_on_the_data() {
    let prior = Gaussian::white(&[3, 4], 0.2, 0.5).unwrap();
    for a in [Dense::mask(), Dense::projections()] {
        let truth =
            Tensor::new(&[0.1f64, -0.4, 0.3, 0.9, 0.2, 0.0, -0.3, 0.5, 0.7, 0.1, 0.2, -0.1], &Device::Cpu);
        let y = a.apply(&truth.unwrap().reshape((1, 3, 4)).unwrap()).unwrap();
        let problem = Problem::new(&a, &y, 0.0, &prior).unwrap();
        let krylov = Guided { consistency: Consistency::Krylov { iterations: 12 }, ..Guided::dds() };
        for sampler in [Guided::ddnm(), krylov] {
            let solution = sample(&sampler, &problem, 1, &mut ()).unwrap();
            let off = (a.apply(&solution.value).unwrap() - &y).unwrap();
            let off = vector::norm(&off, 1).unwrap()[0];
            assert!(off < 1e-3, "{sampler:?}: {off}");
        }
    }
}

#[test]
fn daps_gives_the_posterior_mean_of_a_white_prior_with_strong_data() {
    let (noise, count) = (0.05, 800);
    let prior = Gaussian::white(&[3, 4], 0.0, 1.0).unwrap();
    let a = Dense::blur();
    let y = measured(&a, 8);
    let truth = gaussian_posterior(&Array1::zeros(12), &prior.covariance(), &a.matrix, &y, noise);
    let data = repeated(&y, count);
    let problem = Problem::new(&a, &data, noise, &prior).unwrap().with_chunk(count);
    let exact = Daps { tau: noise, steps: 60, ..Daps::default() };
    let (mean, _) = moments(&sample(&exact, &problem, 2, &mut ()).unwrap().value);
    let off = distance(&mean.to_vec(), &truth.0.to_vec()) / truth.0.dot(&truth.0).sqrt();
    assert!(off < 0.05, "{off}");
    let draw = Draw::Langevin { steps: 60, rate: 5e-3, decay: 0.2 };
    let langevin = Daps { tau: 0.1, steps: 40, draw, ..Daps::default() };
    let (mean, _) = moments(&sample(&langevin, &problem, 2, &mut ()).unwrap().value);
    let off = distance(&mean.to_vec(), &truth.0.to_vec()) / truth.0.dot(&truth.0).sqrt();
    assert!(off < 0.15, "{off}");
}

/// One level, whose noise, denoising and draw are all in closed form.
#[test]
fn daps_draws_as_widely_as_the_error_says() {
    let (sigma, tau, e, count) = (2.0f64, 0.3f64, 0.4f64, 20_000);
    let prior = Gaussian::white(&[3, 4], 0.0, 1.0).unwrap();
    let a = Dense::mask();
    let y = measured(&a, 8);
    let data = repeated(&y, count);
    let problem = Problem::new(&a, &data, tau, &prior).unwrap().with_chunk(count);
    let grid = Grid::Karras { min: 0.1, max: sigma, rho: 7.0 };
    for error in [None, Some(e)] {
        let daps = Daps { steps: 1, grid, ode_steps: 1, tau, error, ..Daps::default() };
        let r = error.map_or(sigma, |e| e * sigma.sqrt());
        let (mean, covariance) = moments(&sample(&daps, &problem, 2, &mut ()).unwrap().value);
        // x̂₀ = x/(1 + σ²) with x of deviation σ; what is seen moves by w toward the data.
        let (denoised, w) = ((sigma / (1.0 + sigma * sigma)).powi(2), r * r / (r * r + tau * tau));
        let seen = a.matrix.t().dot(&y);
        let wanted = [r * r + denoised, w * tau * tau + (1.0 - w).powi(2) * denoised];
        for pixel in 0..12 {
            let observed = usize::from(a.matrix.column(pixel).sum() > 0.0);
            let variance = covariance[[pixel, pixel]];
            assert!((variance / wanted[observed] - 1.0).abs() < 0.05, "{pixel}: {variance} {wanted:?}");
            let off = mean[pixel] - w * seen[pixel] * observed as f64;
            assert!(off.abs() < 5.0 * (variance / count as f64).sqrt(), "{pixel}: {off}");
        }
    }
}

#[test]
fn volume_methods_fit_the_data_and_smooth_across_slices() {
    let prior = Gaussian::white(&[3, 4], 0.0, 0.5).unwrap();
    let a = Dense::blur();
    let data =
        Tensor::new((0..60).map(|i| f64::from(i % 12) * 0.05).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let data = data.reshape((5, 12)).unwrap();
    let problem = Problem::new(&a, &data, 0.05, &prior).unwrap();
    let spread = |x: &Tensor| {
        let slices = x.dim(0).unwrap() - 1;
        let jumps = (x.narrow(0, 1, slices).unwrap() - x.narrow(0, 0, slices).unwrap()).unwrap();
        f64::to_vec(&jumps).unwrap().iter().map(|v| v.abs()).sum::<f64>()
    };
    let run = |sampler: &dyn Sampler| sample(sampler, &problem, 4, &mut ()).unwrap().value;
    let weak = AdmmTv { rho: 1.0, lambda: 1e-6, iterations: 5 };
    let strong = AdmmTv { rho: 1.0, lambda: 0.3, iterations: 5 };
    // The same data in each slice: what differs between slices is noise, which the penalty removes.
    assert!(spread(&run(&Guided::dds_volume(strong))) < 0.5 * spread(&run(&Guided::dds_volume(weak))));
    let learned = |consistency| run(&Guided { consistency, ..Guided::dds() });
    let volume = |rho, lambda| {
        learned(Consistency::Volume { error: 0.5, admm: AdmmTv { rho, lambda, iterations: 12 } })
    };
    assert!(spread(&volume(40.0, 20.0)) < 0.5 * spread(&volume(1e-9, 0.0)));
    // Without any coupling it is the step of single slices.
    let alone = learned(Consistency::Learned { error: 0.5, iterations: 12 });
    let off = vector::norm(&(volume(1e-9, 0.0) - &alone).unwrap(), 1).unwrap()[0];
    assert!(off < 1e-6 * vector::norm(&alone, 1).unwrap()[0], "{off}");
    let mbir = DiffusionMbir { steps: 100, ..DiffusionMbir::new(strong) };
    let loose = DiffusionMbir { steps: 100, ..DiffusionMbir::new(weak) };
    assert!(spread(&run(&mbir)) < 0.5 * spread(&run(&loose)));
    let off = (a.apply(&run(&mbir)).unwrap() - &data).unwrap();
    assert!(vector::norm(&off, 1).unwrap()[0] / vector::norm(&data, 1).unwrap()[0] < 0.2);
}

#[test]
fn resumed_runs_give_the_same_bits_and_refuse_strangers() {
    let prior = two_modes();
    let a = Dense::new(&[1, 2], Array2::from_shape_fn((1, 2), |(_, j)| 1.0 + j as f64));
    let data = Tensor::new(&[[0.4f64], [0.1]], &Device::Cpu).unwrap();
    let problem = Problem::new(&a, &data, 0.1, &prior).unwrap();
    let samplers: [&dyn Sampler; 6] = [
        &Guided { steps: 20, ..Guided::dds() },
        &Guided { steps: 20, ..Guided::dds_volume(AdmmTv { rho: 1.0, lambda: 0.1, iterations: 3 }) },
        &Guided { steps: 20, stepper: Stepper::UniPc { order: 3, exponential: true }, ..Guided::dds() },
        &Dps { steps: 20, ..Dps::default() },
        &RedDiff { steps: 20, ..RedDiff::default() },
        &DiffusionMbir { steps: 20, ..DiffusionMbir::new(AdmmTv { rho: 1.0, lambda: 0.1, iterations: 1 }) },
    ];
    for sampler in samplers {
        let mut saved = Vec::new();
        let state = sampler.init(&problem, 9).unwrap();
        let whole = resume(sampler, &problem, state, &mut (), &mut |state| {
            if state.iteration == 7 {
                saved = state.to_bytes("run 1")?;
            }
            Ok(())
        });
        let mut state = sampler.init(&problem, 0).unwrap();
        state.restore(&saved, "run 1").unwrap();
        let rest = resume(sampler, &problem, state, &mut (), &mut |_| Ok(())).unwrap();
        assert_eq!(f64::to_vec(&whole.unwrap().value).unwrap(), f64::to_vec(&rest.value).unwrap());
        assert_eq!(rest.steps, 20);
        let mut state = sampler.init(&problem, 0).unwrap();
        assert!(state.restore(&saved, "run 2").unwrap_err().to_string().contains("another run"));
        assert!(state.restore(&saved[..saved.len() / 2], "run 1").is_err());
    }
}

#[test]
fn posterior_summaries_match_the_closed_form() {
    let (noise, spread) = (0.3, 0.8);
    let prior = Gaussian::white(&[3, 4], 0.0, spread).unwrap();
    let a = Dense::mask();
    let y = measured(&a, 1);
    let truth = gaussian_posterior(&Array1::zeros(12), &prior.covariance(), &a.matrix, &y, noise);
    let data = repeated(&y, 1);
    let problem = Problem::new(&a, &data, noise, &prior).unwrap();
    let grid = Grid::Karras { min: 0.01, max: 40.0, rho: 4.0 };
    let sampler = PiGdm { steps: 100, spread, iterations: 12, tolerance: 1e-9, grid };
    let found = posterior(&sampler, &problem, 1, 400, &[0.025, 0.5, 0.975], &mut ()).unwrap();
    let deviation = f64::to_vec(&found.deviation).unwrap();
    let low = f64::to_vec(&found.quantiles[0].1).unwrap();
    for i in 0..12 {
        let wanted = truth.1[(i, i)].sqrt();
        assert!((deviation[i] / wanted - 1.0).abs() < 0.25, "{} {wanted}", deviation[i]);
        assert!((low[i] - (truth.0[i] - 1.96 * wanted)).abs() < 0.5 * wanted);
    }
}

#[test]
fn a_linear_operator_is_a_nonlinear_one_too() {
    let prior = Gaussian::white(&[3, 4], 0.0, 0.8).unwrap();
    let a = Dense::mask();
    let data = repeated(&measured(&a, 1), 3);
    let nonlinear = Linear(std::sync::Arc::new(Dense::mask()));
    let linear = Problem::new(&a, &data, 0.1, &prior).unwrap();
    let general = Problem::nonlinear(&nonlinear, &data, 0.1, &prior).unwrap();
    let samplers: [Box<dyn Sampler>; 2] =
        [Box::new(Dps { steps: 20, ..Dps::default() }), Box::new(Daps { steps: 10, ..Daps::langevin() })];
    for sampler in samplers {
        let [one, other] = [&linear, &general]
            .map(|problem| f64::to_vec(&sample(&*sampler, problem, 3, &mut ()).unwrap().value).unwrap());
        assert!(one == other, "{}", sampler.name());
    }
    assert!(Daps::default().init(&general, 0).unwrap_err().to_string().contains("linear"));
    assert!(Guided::dds().init(&general, 0).unwrap_err().to_string().contains("linear"));
}

/// Six random pictures, of which one is seen through the magnitudes of its Fourier transform.
#[test]
fn phases_are_retrieved() {
    let picture = |k: u64| {
        let space = Space::real(&[8, 8], DType::F64, &Device::Cpu);
        f64::to_vec(&standard_normal(Noise::new(k, 3), &space, &[]).unwrap()).unwrap()
    };
    let pictures: Vec<Vec<f64>> =
        (0..6).map(|k| picture(k).iter().map(|v| (0.4 * v).tanh()).collect()).collect();
    let prior = Mixture::new(&[8, 8], pictures.iter().map(|p| (1.0, p.clone(), 0.02)).collect()).unwrap();
    let image = Space::real(&[8, 8], DType::F64, &Device::Cpu);
    let shift = Pointwise::new(&image, Curve::Shift { shift: 1.0 }).unwrap();
    let magnitudes = Chain::new(vec![
        std::sync::Arc::new(shift),
        std::sync::Arc::new(phase_retrieval(&image, 2.0).unwrap()),
    ])
    .unwrap();
    for k in [1usize, 4] {
        let truth = Tensor::from_vec(pictures[k].clone(), (1, 8, 8), &Device::Cpu).unwrap();
        let data = magnitudes.apply(&truth).unwrap();
        let problem = Problem::nonlinear(&magnitudes, &data, 0.05, &prior).unwrap();
        let draw = Draw::Langevin { steps: 50, rate: 0.0025, decay: 0.05 };
        let grid = Grid::Karras { min: 0.05, max: 5.0, rho: 7.0 };
        let daps = Daps { steps: 40, grid, ode_steps: 3, tau: 0.05, draw, ..Daps::default() };
        let found = sample(&daps, &problem, 2, &mut ()).unwrap().value;
        let off = vector::norm(&(found - &truth).unwrap(), 1).unwrap()[0];
        let size = vector::norm(&truth, 1).unwrap()[0];
        assert!(off < 0.2 * size, "picture {k}: {}", off / size);
    }
}

#[test]
fn bad_settings_are_refused() {
    let prior = two_modes();
    let a = Dense::new(&[1, 2], Array2::from_shape_fn((1, 2), |_| 1.0));
    let data = Tensor::new(&[[0.4f64]], &Device::Cpu).unwrap();
    let clean = Problem::new(&a, &data, 0.0, &prior).unwrap();
    assert!(Guided::diffpir(7.0, 0.3).init(&clean, 0).unwrap_err().to_string().contains("noise"));
    assert!(Guided { steps: 0, ..Guided::dds() }.init(&clean, 0).is_err());
    assert!(Guided { stepper: Stepper::Dpm { order: 4 }, ..Guided::dds() }.init(&clean, 0).is_err());
    assert!(Dps { zeta: -1.0, ..Dps::default() }.init(&clean, 0).is_err());
    assert!(Problem::new(&a, &data, -1.0, &prior).is_err());
    let bad = Tensor::new(&[[f64::NAN]], &Device::Cpu).unwrap();
    assert!(Problem::new(&a, &bad, 0.1, &prior).unwrap_err().to_string().contains("NaN"));
    let shape = [1, 1, 2];
    let free = Problem::unconditional(&prior, &shape, DType::F64, &Device::Cpu).unwrap();
    assert!(Guided::dds().init(&free, 0).unwrap_err().to_string().contains("needs data"));
    let wrong = Gaussian::white(&[3, 4], 0.0, 1.0).unwrap();
    assert!(Problem::new(&a, &data, 0.1, &wrong).is_err());
}

#[test]
fn normalized_problems_describe_the_same_measurement() {
    let a = Dense::projections();
    let (scale, offset) = (0.02, 0.019);
    let x =
        Tensor::new((0..24).map(|i| (f64::from(i) * 0.7).sin()).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let x = x.reshape((2, 3, 4)).unwrap();
    let physical = ((&x * scale).unwrap() + offset).unwrap();
    let y = a.apply(&physical).unwrap();
    let normalized = Normalized::new(std::sync::Arc::new(a), &y, 0.01, scale, offset).unwrap();
    let prior = Gaussian::white(&[3, 4], 0.0, 1.0).unwrap();
    let problem = normalized.problem(&prior).unwrap();
    let (operator, data) = problem.measurement().unwrap();
    let off = (operator.apply(&x).unwrap() - data).unwrap();
    assert!(vector::norm(&off, 1).unwrap()[0] < 1e-12);
    // Two views of rows and columns: AᴴA has the largest eigenvalue 0.16 (4 + 3).
    assert!((normalized.norm() - 0.4 * 7f64.sqrt()).abs() < 1e-3 * normalized.norm());
    assert!((problem.noise() - 0.01 / (scale * normalized.norm())).abs() < 1e-12);
    let back = (normalized.to_physical(&x).unwrap() - &physical).unwrap();
    assert!(vector::norm(&back, 1).unwrap()[0] < 1e-15);
}
