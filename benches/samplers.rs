//! Four steps of each sampler on four slices of 128² from 60 views, with the CT prior; and the same with a white Gaussian
//! prior, which costs nothing, so that the sampler's own work is what counts.

use std::f64::consts::PI;

use candle_core::{DType, Device};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use wellposed::linalg::LinearOperator;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::gaussian::Gaussian;
use wellposed::prior::schedule::Sde;
use wellposed::prior::{Denoiser, leave_threads_to_rayon};
use wellposed::sampler::{
    AdmmTv, Daps, DiffusionMbir, Dps, Guided, PiGdm, Problem, RedDiff, Sampler, ScoreSde, sample,
};
use wellposed::tensor::memory;
use wellposed::tensor::random::{Noise, standard_normal};

const STEPS: usize = 4;

fn all() -> Vec<Box<dyn Sampler>> {
    let admm = AdmmTv { rho: 10.0, lambda: 0.04, iterations: 1 };
    let (steps, guided) = (STEPS, |sampler: Guided| Box::new(Guided { steps: STEPS, ..sampler }));
    vec![
        guided(Guided::dds()),
        guided(Guided::plug_and_play(0.2, 0.6)),
        guided(Guided::snore(3.0, 0.6)),
        guided(Guided::diffpir(7.0, 0.3)),
        Box::new(DiffusionMbir { steps, ..DiffusionMbir::new(admm) }),
        Box::new(Dps { steps, ..Dps::default() }),
        Box::new(PiGdm { steps, ..PiGdm::default() }),
        Box::new(RedDiff { steps, ..RedDiff::default() }),
        Box::new(Daps { steps, ..Daps::default() }),
        Box::new(ScoreSde { steps, sde: Sde::VP, ..ScoreSde::default() }),
    ]
}

fn samplers(c: &mut Criterion) {
    // SAFETY: no other thread runs yet.
    unsafe { leave_threads_to_rayon() };
    memory::keep_freed();
    let network = Prior::find("ct").expect("the CT prior comes along").denoiser;
    let white = Gaussian::white(&[128, 128], 0.0, 0.5).expect("valid");
    let grid = ImageGrid::new(128, 128, 2.0).expect("valid");
    let beam = ParallelBeam::covering(&grid, 60, PI).expect("valid");
    let rays = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).expect("valid");
    let priors: [(&str, &dyn Denoiser); 2] = [("ct", &network), ("white", &white)];
    for (name, prior) in priors {
        let mut group = c.benchmark_group(format!("{STEPS} steps, 4 × 128², {name} prior"));
        group.sample_size(10);
        let image = standard_normal(Noise::new(1, 0), rays.domain(), &[4]).expect("memory");
        let data = rays.apply(&image).expect("fits");
        let problem = Problem::new(&rays, &data, 0.1, prior).expect("fits");
        for (index, sampler) in all().into_iter().enumerate() {
            group.bench_function(BenchmarkId::new(sampler.name(), index), |b| {
                b.iter(|| sample(&*sampler, &problem, 1, &mut ()).expect("runs"))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, samplers);
criterion_main!(benches);
