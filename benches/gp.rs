//! Engines of the Gaussian-process PDE solvers.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wellposed::gp::kernel::{Envelope, SpectralMixture};
use wellposed::gp::{Collocation, GpHm, WeightSpace, benchmark};

fn engines(c: &mut Criterion) {
    println!("{} threads", rayon::current_num_threads());
    let mut group = c.benchmark_group("gp");
    group.sample_size(10);
    let mixture = SpectralMixture::spread(Envelope::Gaussian, 30, 20.0).expect("valid");
    group.bench_function("lags and gradients, Q = 30, 400 lags", |b| {
        b.iter(|| black_box(mixture.lag_table(0.0157, 400, 2).expect("smooth")));
    });
    let case = benchmark::case("poisson-1d-sin").expect("built in");
    group.bench_function("GP-HM, 100 steps, N = 400", |b| {
        let engine = GpHm { iterations: 100, ..GpHm::default() };
        b.iter(|| engine.solve(&case.problem, &mut ()).expect("solved"));
    });
    for name in
        ["poisson-1d-sin", "poisson-1d-mix", "allen-cahn-1d-sin", "poisson-2d-sin-sin", "allen-cahn-2d-mix"]
    {
        let case = benchmark::case(name).expect("built in");
        let engine = WeightSpace { points: Some(case.points), ..WeightSpace::default() };
        group.bench_function(format!("weights, {name}"), |b| {
            b.iter(|| {
                let solution = engine.solve(&case.problem).expect("solved");
                black_box(solution.mean_on_grid(&case.test_axes()).expect("evaluated"))
            });
        });
    }
    group.bench_function("collocation, sin 100x, N = 400", |b| {
        b.iter(|| Collocation::default().solve(&case.problem).expect("solved"));
    });
    group.finish();
}

criterion_group!(benches, engines);
criterion_main!(benches);
