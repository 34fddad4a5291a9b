//! Coil maps and iterative reconstruction of 8 coils of 256². Set `RAYON_NUM_THREADS` for the number of threads.
//!
//! `benches/peers/bart.sh` runs this with `WELLPOSED_PEER_DATA=DIR`: then it works on the scan in DIR (kspace.npy,
//! mask.npy, maps.npy) as `WELLPOSED_PEER_METHOD` says (`espirit`, or `sense|wavelet|tv λ iterations`), prints the
//! seconds of every repetition, and writes the result into DIR.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use criterion::Criterion;
use wellposed::linalg::Admm;
use wellposed::operator::mri::{Pattern, Sampling, Sense, birdcage, measure};
use wellposed::reconstruct::mri::{
    ConjugateGradientSense, Espirit, TotalVariationSense, WaveletSense, calibration_region,
};
use wellposed::tensor::random::Noise;

const REPETITIONS: usize = 3;

/// λ and iterations of an iterative method.
type Strength = (f64, usize);

fn sense((lambda, max_iterations): Strength) -> ConjugateGradientSense {
    ConjugateGradientSense { lambda, max_iterations, tolerance: 0.0, stop: None }
}

fn wavelet((lambda, max_iterations): Strength) -> WaveletSense {
    WaveletSense { lambda, max_iterations, tolerance: 0.0, ..WaveletSense::default() }
}

fn total_variation((lambda, max_iterations): Strength) -> TotalVariationSense {
    let solver = Admm { max_iterations, tolerance: 0.0, ..TotalVariationSense::default().solver };
    TotalVariationSense { lambda, solver, stop: None }
}

fn reconstruct(method: &str, strength: Strength, encoding: &Sense, kspace: &Tensor) -> Tensor {
    let solution = match method {
        "sense" => sense(strength).reconstruct(encoding, kspace, &mut ()),
        "wavelet" => wavelet(strength).reconstruct(encoding, kspace, &mut ()),
        "tv" => total_variation(strength).reconstruct(encoding, kspace, &mut ()),
        other => panic!("unknown method {other}"),
    };
    solution.expect("reconstruction").value
}

fn methods(c: &mut Criterion) {
    let mut group = c.benchmark_group("8 coils 256²");
    group.sample_size(10);
    let maps = birdcage(8, [256, 256], 1, DType::F32, &Device::Cpu).expect("maps");
    let pattern = Pattern::PoissonDisc { calibration: 24, growth: 1.5, corners: false };
    let mask = Sampling { pattern, acceleration: 4.0, seed: 1 }.draw([256, 256]).expect("mask");
    let encoding = Sense::new(&maps, &mask).expect("encoding");
    let image = Tensor::ones((256, 256, 2), DType::F32, &Device::Cpu).expect("image");
    let kspace = measure(&encoding, &image, 0.01, Noise::new(1, 0)).expect("k-space");
    group.bench_function("ESPIRiT", |b| b.iter(|| Espirit::default().maps(&kspace, [24, 24])));
    for (method, strength) in [("sense", (0.01, 30)), ("wavelet", (0.003, 30)), ("tv", (0.003, 30))] {
        group.bench_function(format!("{method}, {} iterations", strength.1), |b| {
            b.iter(|| reconstruct(method, strength, &encoding, &kspace));
        });
    }
}

/// Works on what the peer script has put into a folder.
fn peer(folder: &Path) {
    let read = |name: &str| Tensor::read_npy(folder.join(name)).expect(name);
    let (kspace, mask) = (read("kspace.npy"), read("mask.npy"));
    let asked = std::env::var("WELLPOSED_PEER_METHOD").expect("WELLPOSED_PEER_METHOD");
    let words: Vec<&str> = asked.split_whitespace().collect();
    let repeat = |work: &dyn Fn() -> Tensor| {
        (0..REPETITIONS).fold(None, |_, _| {
            let start = Instant::now();
            let found = work();
            println!("wellposed seconds {}", start.elapsed().as_secs_f64());
            Some(found)
        })
    };
    let save = |name: &str, x: &Tensor| x.write_npy(folder.join(name)).expect("output");
    match words[..] {
        ["espirit"] => {
            let region = calibration_region(&mask, 24).expect("centre");
            let maps = || Espirit::default().maps(&kspace, region).expect("maps");
            let found = maps();
            save("espirit_values.npy", &found.eigenvalues);
            save("espirit_maps.npy", &repeat(&|| maps().maps).expect("repetitions"));
        }
        [method, lambda, iterations] => {
            let strength = (lambda.parse().expect("λ"), iterations.parse().expect("iterations"));
            let encoding = Sense::new(&read("maps.npy"), &mask).expect("encoding");
            let found = repeat(&|| reconstruct(method, strength, &encoding, &kspace));
            save("wellposed.npy", &found.expect("repetitions"));
        }
        _ => panic!("WELLPOSED_PEER_METHOD: found {asked:?}"),
    }
}

fn main() {
    if let Some(folder) = std::env::var_os("WELLPOSED_PEER_DATA") {
        return peer(Path::new(&folder));
    }
    println!("threads: {}", rayon::current_num_threads());
    let mut criterion = Criterion::default().configure_from_args();
    methods(&mut criterion);
    criterion.final_summary();
}
