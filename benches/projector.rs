//! The projectors and their adjoints, parallel beam (one slice and a volume), fan and cone: `cargo bench --bench projector`, with
//! RAYON_NUM_THREADS=1 for one thread. `benches/peers/projector.sh` puts ASTRA's times beside these.

use std::f64::consts::PI;
use std::time::Duration;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wellposed::linalg::LinearOperator;
use wellposed::metric::psnr;
use wellposed::operator::ct::{
    ConeBeam, ConeTransform, FanBeam, FanTransform, ImageGrid, ParallelBeam, Projector, RayTransform,
    VolumeGrid,
};
use wellposed::phantom::{Ellipse, Ellipsoid, Ellipsoids};
use wellposed::reconstruct::Fbp;
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

/// A fan over 512² and a circular cone over 128³, forward and back.
fn divergent(c: &mut Criterion) {
    let turn = |views: usize| (0..views).map(|i| 2.0 * PI * i as f64 / views as f64).collect::<Vec<_>>();
    let image = |side| ImageGrid::new(side, side, 1.0).expect("a valid grid");
    let fan = FanBeam::new(turn(720), 729, 1.5, 1000.0, 500.0).expect("a valid geometry").vectors();
    let panel = FanBeam::new(turn(180), 192, 1.5, 400.0, 200.0).expect("a valid geometry");
    let circle = ConeBeam::new(panel, 192, 1.5).expect("a valid geometry");
    let cone = circle.vectors();
    let volume = VolumeGrid::new(128, image(128), 1.0).expect("a valid grid");
    let device = Device::Cpu;
    let transforms: [(&str, Box<dyn Projector>); 2] = [
        (
            "fan/512x720x729",
            Box::new(FanTransform::new(&image(512), &fan, DType::F32, &device).expect("hits")),
        ),
        (
            "cone/128x180x192",
            Box::new(ConeTransform::new(&volume, &cone, DType::F32, &device).expect("hits")),
        ),
    ];
    let mut group = c.benchmark_group("divergent");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, a) in &transforms {
        let x = standard_normal(Noise::new(1, 0), a.domain(), &[]).expect("an image");
        let y = standard_normal(Noise::new(1, 1), a.range(), &[]).expect("projections");
        let (mut forward, mut back) =
            (a.range().buffer(&[]).expect("a buffer"), a.domain().buffer(&[]).expect("a buffer"));
        let mut ws = Workspace::new();
        group.bench_function(format!("forward/{name}"), |b| {
            b.iter(|| a.apply_into(&x, &mut forward, &mut ws).expect("a projection"));
        });
        group.bench_function(format!("back/{name}"), |b| {
            b.iter(|| a.adjoint_into(&y, &mut back, &mut ws).expect("a back projection"));
        });
    }
    let egg = Ellipse { value: 0.02, center: (0.0, 0.0), axes: (50.0, 50.0), angle: 0.0 };
    let ball = Ellipsoids(vec![Ellipsoid { middle: egg, z: 0.0, height: 50.0 }]);
    let data = ball.trace::<f32>(&cone, 1).expect("projections");
    let fdk = || Fbp::default().reconstruct_cone(&volume, &circle, &data).expect("a volume");
    let quality = psnr(&fdk(), &ball.volume::<f32>(&volume, 4).expect("a volume"), 0.02).expect("a number");
    eprintln!("FDK of the ball: {quality:.2} dB");
    group.bench_function("fdk/cone/128x180x192", |b| b.iter(fdk));
    group.finish();
}

criterion_group!(benches, projector, divergent);
criterion_main!(benches);
