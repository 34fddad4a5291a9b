//! The parallel-beam projector and its adjoint, one slice and a volume: `cargo bench --bench projector`, with
//! RAYON_NUM_THREADS=1 for one thread. `benches/peers/projector.sh` puts ASTRA's times beside these.

use std::f64::consts::PI;
use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellposed::linalg::LinearOperator;
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
use wellposed::tensor::Workspace;
use wellposed::tensor::random::{Noise, standard_normal};

/// Side of the image, views, detector bins, slices.
const CASES: [(usize, usize, usize, usize); 4] =
    [(256, 180, 367, 1), (512, 720, 729, 1), (256, 180, 367, 16), (512, 720, 729, 16)];

fn projector(c: &mut Criterion) {
    eprintln!("threads: {}", rayon::current_num_threads());
    let mut group = c.benchmark_group("parallel");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (side, views, bins, slices) in CASES {
        let grid = ImageGrid::new(side, side, 1.0).expect("a valid grid");
        let angles: Vec<f64> = (0..views).map(|i| PI * i as f64 / views as f64).collect();
        // One sample is one ray on one line: Σ over views of N² max(|cos|, |sin|).
        let samples: f64 = angles.iter().map(|a| a.cos().abs().max(a.sin().abs())).sum();
        let samples = samples * (side * side * slices) as f64;
        let beam = ParallelBeam::new(angles, bins, 1.0).expect("a valid geometry");
        let a = RayTransform::new(&grid, &beam, DType::F32, &Device::Cpu).expect("rays that hit the image");
        let batch: &[usize] = if slices == 1 { &[] } else { &[slices] };
        let x = standard_normal(Noise::new(1, 0), a.domain(), batch).expect("an image");
        let y = standard_normal(Noise::new(1, 1), a.range(), batch).expect("a sinogram");
        let (mut forward, mut back) =
            (a.range().buffer(batch).expect("a buffer"), a.domain().buffer(batch).expect("a buffer"));
        let mut ws = Workspace::new();
        let size = format!("{side}x{views}x{bins}x{slices}");
        group.throughput(Throughput::Elements(samples as u64));
        group.bench_function(format!("forward/{size}"), |b| {
            b.iter(|| a.apply_into(&x, &mut forward, &mut ws).expect("a projection"));
        });
        group.bench_function(format!("back/{size}"), |b| {
            b.iter(|| a.adjoint_into(&y, &mut back, &mut ws).expect("a back projection"));
        });
    }
    group.finish();
}

criterion_group!(benches, projector);
criterion_main!(benches);
