//! Ten iterations of each solver on a 256³ volume in single precision, with the mask as forward operator, so
//! that the solver's own arithmetic is what counts.

use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellposed::functional::{Bounds, GroupNorm, L1Norm, LeastSquares, SquaredDistance};
use wellposed::linalg::{
    Adam, Admm, Cgls, ConjugateGradient, Fista, LinearOperator, Lsqr, Pdhg, StepRule, StepSize, StepSizes,
    Term,
};
use wellposed::operator::{Algebra, Diagonal, Gradient};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Space};

fn solvers(c: &mut Criterion) {
    println!("{} threads", rayon::current_num_threads());
    let space = Space::real(&[256, 256, 256], DType::F32, &Device::Cpu);
    let mask = Diagonal::random_mask(&space, 0.5, 1).expect("valid");
    let y = standard_normal(Noise::new(1, 0), &space, &[]).expect("memory");
    let gradient = Gradient::new(&space, &[0, 1, 2]).expect("valid");
    let tv = GroupNorm::new(gradient.range(), 0.1).expect("valid");
    let fidelity = SquaredDistance::new(&space, 1.0).and_then(|g| g.from(&y)).expect("valid");
    let bounds = Bounds::non_negative(&space).expect("valid");
    let (max_iterations, tolerance, damping) = (10, 0.0, 0.0);
    let mut group = c.benchmark_group("ten iterations");
    group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Elements(10 * space.elements() as u64));

    let normal = mask.clone().normal_operator(0.1);
    group.bench_function("conjugate gradients", |b| {
        b.iter(|| {
            ConjugateGradient { max_iterations, tolerance }.solve(&normal, &y, None, &mut ()).expect("runs")
        });
    });
    group.bench_function("CGLS", |b| {
        b.iter(|| Cgls { max_iterations, tolerance, damping }.solve(&mask, &y, None, &mut ()).expect("runs"));
    });
    group.bench_function("LSQR", |b| {
        b.iter(|| Lsqr { max_iterations, tolerance, damping }.solve(&mask, &y, &mut ()).expect("runs"));
    });
    let terms = [Term::new(&mask, &fidelity).expect("fits"), Term::new(&gradient, &tv).expect("fits")];
    let third = StepSize::Uniform(1.0 / 3.7);
    let steps = StepSizes { primal: third.clone(), dual: vec![third.clone(), third] };
    group.bench_function("PDHG, TV", |b| {
        let pdhg = Pdhg { max_iterations, tolerance, ..Pdhg::default() };
        b.iter(|| pdhg.solve(&bounds, &terms, &steps, &y, &mut ()).expect("runs"));
    });
    group.bench_function("ADMM, TV, 3 inner", |b| {
        let admm =
            Admm { max_iterations, tolerance, inner_iterations: 3, inner_tolerance: 0.0, ..Admm::default() };
        b.iter(|| admm.solve(&mask, &y, &terms[1..], None, &mut ()).expect("runs"));
    });
    let smooth = LeastSquares::new(Arc::new(mask.clone()), &y).expect("fits");
    let sparse = L1Norm::new(&space, 0.1).expect("valid");
    group.bench_function("FISTA", |b| {
        let fista = Fista { max_iterations, tolerance, step: StepRule::Fixed(1.0), restart: true };
        b.iter(|| fista.solve(&smooth, &sparse, &y, &mut ()).expect("runs"));
    });
    group.bench_function("Adam", |b| {
        let mut x = Buffer::copy_of(&y).expect("memory");
        let mut adam = Adam::default().start(&y).expect("valid");
        b.iter(|| (0..10).for_each(|_| adam.step(&y, &mut x).expect("runs")));
    });
    group.finish();
}

criterion_group!(benches, solvers);
criterion_main!(benches);
