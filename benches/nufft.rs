//! Non-uniform Fourier transforms along a radial trajectory. Set `RAYON_NUM_THREADS` for the number of threads.
//!
//! `benches/peers/nufft.sh` runs this with `WELLPOSED_PEER_DATA=DIR`: then it transforms the images and samples in DIR
//! (trajectory.npy, images.npy, samples.npy) at each accuracy of accuracies.txt, prints the median seconds of forward and
//! adjoint, and writes what they made.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use criterion::Criterion;
use wellposed::linalg::LinearOperator;
use wellposed::operator::mri::Trajectory;
use wellposed::operator::{Accuracy, Nufft};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, Workspace};

/// 8 images of 256² on 128 spokes of 512 samples.
fn radial(c: &mut Criterion) {
    let space = Space::complex(&[256, 256], DType::F32, &Device::Cpu);
    let k = Trajectory::Radial { spokes: 128 }.points([256, 256], 512).expect("trajectory");
    let mut group = c.benchmark_group("8 × 256², 128 spokes");
    group.sample_size(20);
    for (tolerance, oversampling) in [(1e-3, 1.25), (1e-4, 2.0), (1e-6, 2.0)] {
        let nufft = Nufft::new(&space, &k, Accuracy { tolerance, oversampling }).expect("transform");
        let normal = nufft.toeplitz(None).expect("convolution");
        let images = standard_normal(Noise::new(1, 0), nufft.domain(), &[8]).expect("images");
        let mut samples = nufft.range().buffer(&[8]).expect("buffer");
        let mut back = nufft.domain().buffer(&[8]).expect("buffer");
        let mut ws = Workspace::new();
        let name = |what: &str| format!("{what}, {tolerance:e} on a grid {oversampling} times as fine");
        group.bench_function(name("forward"), |b| {
            b.iter(|| nufft.apply_into(black_box(&images), &mut samples, &mut ws));
        });
        group.bench_function(name("adjoint"), |b| {
            b.iter(|| nufft.adjoint_into(black_box(samples.tensor()), &mut back, &mut ws));
        });
        if tolerance == 1e-4 {
            group.bench_function("normal, as a convolution", |b| {
                b.iter(|| normal.apply_into(black_box(&images), &mut back, &mut ws));
            });
        }
    }
}

fn median(mut run: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[4]
}

/// Transforms what the peer script has made.
fn peer(folder: &Path) {
    let read = |name: &str| Tensor::read_npy(folder.join(name)).expect(name);
    let (k, images, samples) = (read("trajectory.npy"), read("images.npy"), read("samples.npy"));
    let [_, height, width, 2] = *images.dims() else { panic!("images [batch, y, x, 2]") };
    let space = Space::complex(&[height, width], DType::F32, &Device::Cpu);
    let list = std::fs::read_to_string(folder.join("accuracies.txt")).expect("accuracies.txt");
    for (i, line) in list.lines().enumerate() {
        let numbers: Vec<f64> = line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        let accuracy = Accuracy { tolerance: numbers[0], oversampling: numbers[1] };
        let nufft = Nufft::new(&space, &k, accuracy).expect("transform");
        let batch = images.dims()[0];
        let mut forward = nufft.range().buffer(&[batch]).expect("buffer");
        let mut adjoint = nufft.domain().buffer(&[batch]).expect("buffer");
        let mut ws = Workspace::new();
        let there = median(|| nufft.apply_into(&images, &mut forward, &mut ws).expect("forward"));
        let back = median(|| nufft.adjoint_into(&samples, &mut adjoint, &mut ws).expect("adjoint"));
        println!("wellposed {i} {there} {back}");
        forward.tensor().write_npy(folder.join(format!("forward{i}.npy"))).expect("forward");
        adjoint.tensor().write_npy(folder.join(format!("adjoint{i}.npy"))).expect("adjoint");
    }
}

fn main() {
    if let Some(folder) = std::env::var_os("WELLPOSED_PEER_DATA") {
        return peer(Path::new(&folder));
    }
    let mut criterion = Criterion::default().configure_from_args();
    radial(&mut criterion);
    criterion.final_summary();
}
