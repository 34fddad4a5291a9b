//! Fourier transforms, multi-coil encoding and CG-SENSE. Set `RAYON_NUM_THREADS` for the number of threads.
//!
//! `benches/peers/sense.sh` runs this with `WELLPOSED_PEER_DATA=DIR`: then it reconstructs the scan in DIR
//! (maps.npy, mask.npy, kspace.npy), prints the median seconds of CG-SENSE with 30 iterations, and writes
//! wellposed.npy.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput};
use wellposed::linalg::LinearOperator;
use wellposed::operator::mri::{Pattern, Sampling, Sense, birdcage};
use wellposed::reconstruct::mri::ConjugateGradientSense;
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Buffer, Space, Workspace, fft};

fn noise(shape: &[usize]) -> Tensor {
    let space = Space::complex(shape, DType::F32, &Device::Cpu);
    standard_normal(Noise::new(1, 0), &space, &[]).expect("noise")
}

/// 5 N log₂ N operations for each of `batch` transforms of N points: elements/s are flop/s.
fn operations(points: usize, batch: usize) -> Throughput {
    Throughput::Elements((5.0 * (points * batch) as f64 * (points as f64).log2()) as u64)
}

fn transforms(c: &mut Criterion) {
    let mut group = c.benchmark_group("fft");
    for (name, shape, axes) in [("2-D 256² × 64", &[64, 256, 256][..], 2), ("3-D 128³", &[128, 128, 128], 3)]
    {
        let x = noise(shape);
        let mut out = Buffer::copy_of(&x).expect("buffer");
        let points: usize = shape[shape.len() - axes..].iter().product();
        group.throughput(operations(points, shape.iter().product::<usize>() / points));
        group.bench_function(name, |b| b.iter(|| fft::forward(black_box(&x), axes, &mut out)));
    }
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("8 coils 256²");
    let maps = birdcage(8, [256, 256], 1, DType::F32, &Device::Cpu).expect("maps");
    let pattern = Pattern::PoissonDisc { calibration: 24, growth: 1.5, corners: false };
    let x = noise(&[256, 256]);
    let mut image = Buffer::copy_of(&x).expect("buffer");
    let coils = noise(&[8, 256, 256]);
    let (mut kspace, mut bare) =
        (Buffer::copy_of(&coils).expect("buffer"), Buffer::copy_of(&coils).expect("buffer"));
    let mut ws = Workspace::new();
    group.bench_function("bare transforms, there and back", |b| {
        b.iter(|| {
            fft::forward(&coils, 2, &mut bare)?;
            fft::inverse(bare.tensor(), 2, &mut kspace)
        });
    });
    for (name, pattern) in [("points", pattern), ("lines", Pattern::RandomLines { centre: 0.08 })] {
        let mask = Sampling { pattern, acceleration: 4.0, seed: 1 }.draw([256, 256]).expect("mask");
        let sense = Sense::new(&maps, &mask).expect("encoding");
        group.bench_function(format!("forward and adjoint, {name}"), |b| {
            b.iter(|| {
                sense.apply_into(&x, &mut kspace, &mut ws)?;
                sense.adjoint_into(kspace.tensor(), &mut image, &mut ws)
            });
        });
        group.bench_function(format!("normal, {name}"), |b| {
            b.iter(|| sense.normal_into(&x, &mut image, &mut ws));
        });
        let method = ConjugateGradientSense { tolerance: 0.0, ..ConjugateGradientSense::default() };
        group.sample_size(10);
        group.bench_function(format!("CG-SENSE, 30 iterations, {name}"), |b| {
            b.iter(|| method.reconstruct(&sense, kspace.tensor(), &mut ()));
        });
    }
}

/// Forward and adjoint by turns with the bare transforms, so that other work on the machine slows both: medians and ratios.
fn ratios() {
    const ROUNDS: usize = 201;
    let maps = birdcage(8, [256, 256], 1, DType::F32, &Device::Cpu).expect("maps");
    let lines = Sampling { pattern: Pattern::RandomLines { centre: 0.08 }, acceleration: 4.0, seed: 1 };
    let disc = Pattern::PoissonDisc { calibration: 24, growth: 1.5, corners: false };
    let columns = lines.draw([256, 256]).expect("mask");
    let masks = [
        ("points", Sampling { pattern: disc, ..lines }.draw([256, 256]).expect("mask")),
        ("rows", columns.t().and_then(|m| m.contiguous()).expect("mask")),
        ("columns", columns),
    ];
    let coils = noise(&[8, 256, 256]);
    let buffer = |like: &Tensor| Buffer::copy_of(like).expect("buffer");
    let (mut there, mut back, mut kspace) = (buffer(&coils), buffer(&coils), buffer(&coils));
    let (x, mut ws) = (noise(&[256, 256]), Workspace::new());
    let mut image = buffer(&x);
    for (name, mask) in masks {
        let sense = Sense::new(&maps, &mask).expect("encoding");
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            fft::forward(&coils, 2, &mut there).expect("transform");
            fft::inverse(there.tensor(), 2, &mut back).expect("transform");
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            sense.apply_into(&x, &mut kspace, &mut ws).expect("encoding");
            sense.adjoint_into(kspace.tensor(), &mut image, &mut ws).expect("encoding");
            times[1].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            sense.normal_into(&x, &mut image, &mut ws).expect("encoding");
            times[2].push(start.elapsed().as_secs_f64());
        }
        let [bare, both, normal] = times.map(|mut t| {
            t.sort_by(f64::total_cmp);
            1e3 * t[ROUNDS / 2]
        });
        println!(
            "8 coils 256², {name}: bare transforms {bare:.2} ms; forward and adjoint {both:.2} ms, {:.2} of that; \
             normal {normal:.2} ms, {:.2}",
            both / bare,
            normal / bare
        );
    }
}

/// Reconstructs what the peer script has simulated.
fn peer(folder: &Path) {
    let read = |name: &str| Tensor::read_npy(folder.join(name)).expect(name);
    let (maps, mask, kspace) = (read("maps.npy"), read("mask.npy"), read("kspace.npy"));
    let sense = Sense::new(&maps, &mask).expect("encoding");
    let method = ConjugateGradientSense { tolerance: 0.0, ..ConjugateGradientSense::default() };
    let mut seconds = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        let solution = method.reconstruct(&sense, &kspace, &mut ()).expect("reconstruction");
        seconds.push(start.elapsed().as_secs_f64());
        solution.value.write_npy(folder.join("wellposed.npy")).expect("wellposed.npy");
    }
    seconds.sort_by(f64::total_cmp);
    println!("wellposed seconds {}", seconds[3]);
}

fn main() {
    if let Some(folder) = std::env::var_os("WELLPOSED_PEER_DATA") {
        return peer(Path::new(&folder));
    }
    println!("threads: {}", rayon::current_num_threads());
    ratios();
    let mut criterion = Criterion::default().configure_from_args();
    transforms(&mut criterion);
    encoding(&mut criterion);
    criterion.final_summary();
}
