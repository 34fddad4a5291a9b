//! Forward and adjoint of the general operators, on a 256³ volume in single precision (in-plane ones as 256 slices).

use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellposed::linalg::LinearOperator;
use wellposed::operator::{
    Algebra, Blur, Boundary, Diagonal, Downsample, Family, Gradient, Wavelet, motion_kernel,
};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, Workspace};

fn operators(c: &mut Criterion) {
    println!("{} threads", rayon::current_num_threads());
    let side = 256;
    let space = Space::real(&[side, side, side], DType::F32, &Device::Cpu);
    let motion = motion_kernel(61, 0.5, 1).expect("a valid kernel");
    let operators = [
        ("mask", Diagonal::random_mask(&space, 0.5, 1).expect("valid").shared()),
        ("gradient", Gradient::new(&space, &[0, 1, 2]).expect("valid").shared()),
        ("Gaussian blur σ 3", Blur::gaussian(&space, 3.0, Boundary::Reflect).expect("valid").shared()),
        ("motion blur 61²", Blur::new(&space, &motion, Boundary::Reflect).expect("valid").shared()),
        ("bicubic ÷ 4", Downsample::bicubic(&space, 4).expect("valid").shared()),
        ("sym4 wavelets 2-D", Wavelet::new(&space, 2, Family::Symlet(4), 4).expect("valid").shared()),
        ("db4 wavelets 3-D", Wavelet::new(&space, 3, Family::Daubechies(4), 4).expect("valid").shared()),
    ];
    let mut group = c.benchmark_group("operators");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(space.elements() as u64));
    for (name, operator) in &operators {
        let mut ws = Workspace::new();
        let x = standard_normal(Noise::new(1, 0), operator.domain(), &[]).expect("memory");
        let y = standard_normal(Noise::new(1, 1), operator.range(), &[]).expect("memory");
        let mut out = operator.range().buffer(&[]).expect("memory");
        group.bench_function(format!("{name} forward"), |b| {
            b.iter(|| operator.apply_into(&x, &mut out, &mut ws).expect("runs"));
        });
        let mut out = operator.domain().buffer(&[]).expect("memory");
        group.bench_function(format!("{name} adjoint"), |b| {
            b.iter(|| operator.adjoint_into(&y, &mut out, &mut ws).expect("runs"));
        });
    }
    group.finish();
}

criterion_group!(benches, operators);
criterion_main!(benches);
