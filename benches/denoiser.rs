//! The CT prior on slices of 256²: value, and value with its pullback. 13.4 GFLOP a slice by direct convolution. And BM3D.

use candle_core::{DType, Device};
use criterion::{Criterion, criterion_group, criterion_main};
use wellposed::prior::bm3d::Bm3d;
use wellposed::prior::checkpoint::Prior;
use wellposed::prior::{Denoiser, leave_threads_to_rayon};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Field, Space, memory};

fn denoiser(c: &mut Criterion) {
    // SAFETY: no other thread runs yet.
    unsafe { leave_threads_to_rayon() };
    memory::keep_freed();
    let prior = Prior::find("ct").expect("the CT prior comes along").denoiser;
    let space = Space::real(&[256, 256], DType::F32, &Device::Cpu);
    eprintln!("{} threads", std::thread::available_parallelism().map_or(1, |n| n.get()));
    let mut group = c.benchmark_group("ct prior, 256²");
    group.sample_size(10);
    for batch in [1, 8] {
        let x = standard_normal(Noise::new(1, 0), &space, &[batch]).expect("space is valid");
        group.bench_function(format!("denoise, batch {batch}"), |b| b.iter(|| prior.denoise(&x, 0.5)));
        group.bench_function(format!("denoise and pull back, batch {batch}"), |b| {
            b.iter(|| prior.denoise_vjp(&x, 0.5).and_then(|(value, pull)| pull.pull(&value)))
        });
    }
    group.finish();
    let mut group = c.benchmark_group("bm3d, 256²");
    group.sample_size(10);
    for (name, field) in [("real", Field::Real), ("complex", Field::Complex)] {
        let x = standard_normal(Noise::new(1, 0), &space.with_field(field), &[]).expect("space is valid");
        group.bench_function(name, |b| b.iter(|| Bm3d::new(field).denoise(&x, 0.5)));
    }
    group.finish();
}

criterion_group!(benches, denoiser);
criterion_main!(benches);
