use candle_core::{DType, Device, Tensor};

use super::emulator::emulated;
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::vector::{self, Weights};
use crate::tensor::{Buffer, Field, Space};

fn noise(shape: &[usize], dtype: DType, stream: u32) -> Tensor {
    standard_normal(Noise::new(11, stream), &Space::real(shape, dtype, &Device::Cpu), &[]).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What `work` does to a buffer, on the host and by functions for a device, to `tolerance`.
fn agree(dtype: DType, size: usize, tolerance: f64, work: impl Fn(&mut Buffer) -> Vec<f64>) {
    let start = noise(&[size], dtype, 0);
    let run = || {
        let mut buffer = Buffer::copy_of(&start).unwrap();
        let numbers = work(&mut buffer);
        (values(buffer.tensor()), numbers)
    };
    let expected = run();
    let Some((found, launched, fallen_back)) = emulated(run) else { return };
    assert!(launched > 0 && fallen_back == 0, "{launched} functions launched, {fallen_back} kernels without");
    for (name, found, expected) in [("elements", found.0, expected.0), ("numbers", found.1, expected.1)] {
        let worst =
            found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f64::max);
        assert!(worst <= tolerance && found.len() == expected.len(), "{name}: {worst:e}");
    }
}

const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::F64, 1e-13)];

#[test]
fn sums_and_combinations_agree() {
    for (dtype, tolerance) in TYPES {
        let n = 3 * 5000;
        let (x, y) = (noise(&[n], dtype, 1), noise(&[n], dtype, 2));
        agree(dtype, n, tolerance, |b| vector::inner(b.tensor(), &x, 3).unwrap());
        agree(dtype, n, tolerance, |b| vector::norm(b.tensor(), 1).unwrap());
        agree(dtype, n, tolerance, |b| {
            vector::lincomb(&[(0.3, &x), (-1.2, &y)], b).unwrap();
            vector::accumulate(0.7, &[(2.0, &x)], b).unwrap();
            vector::axpby_items(&[1.0, 2.0, -0.5], &y, &[1.0, 0.0, 0.25], b).unwrap();
            vector::copy_at(&x.narrow(0, 0, 7).unwrap(), b, 4).unwrap();
            Vec::new()
        });
        agree(dtype, n, 0.0, |b| {
            b.copy_from(&x).unwrap();
            vector::require_finite("x", b.tensor()).unwrap();
            Vec::new()
        });
    }
}

#[test]
fn elementwise_functions_agree() {
    for (dtype, tolerance) in TYPES {
        let n = 1200;
        let (x, w) = (noise(&[n], dtype, 1), noise(&[n / 4], dtype, 3));
        agree(dtype, n, 0.0, |b| {
            vector::clamp(-0.3, f64::INFINITY, b).unwrap();
            Vec::new()
        });
        for field in [Field::Real, Field::Complex] {
            agree(dtype, n, tolerance, |b| {
                vector::shrink(0.4, field, b).unwrap();
                Vec::new()
            });
        }
        for kind in [Weights::Elementwise, Weights::RealOnComplex, Weights::Complex, Weights::Conjugate] {
            agree(dtype, n, tolerance, |b| {
                vector::multiply(&w, kind, &x, b).unwrap();
                Vec::new()
            });
        }
        agree(dtype, n, 0.0, |b| {
            vector::fill(0.25, b).unwrap();
            Vec::new()
        });
    }
}

#[test]
fn devices_draw_the_same_numbers() {
    for (dtype, tolerance) in TYPES {
        let draw = Noise { seed: 0x1234_5678_9abc_def0, stream: 7, step: 4_000_000_000 };
        agree(dtype, 1001, tolerance, |b| {
            crate::tensor::random::normal(draw, b).unwrap();
            Vec::new()
        });
    }
}

#[test]
fn what_is_not_finite_is_found_on_the_host() {
    let x = Tensor::new(&[0f32, f32::NAN], &Device::Cpu).unwrap();
    let Some((found, launched, _)) = emulated(|| vector::require_finite("x", &x)) else { return };
    assert!(launched > 0 && found.unwrap_err().to_string().contains("1 of 2"));
}

#[test]
fn arguments_are_counted() {
    use super::{Gpu, Machine, Program};
    static PROGRAM: Program = Program { name: "random again", source: include_str!("random.cu") };
    let Some((found, ..)) = emulated(|| {
        let machine: &dyn Machine = &super::emulator::Processor;
        Gpu::new(machine, false, &[], &[]).run(&PROGRAM, "normal", 1, super::arguments![1usize])
    }) else {
        return;
    };
    assert!(found.unwrap_err().to_string().contains("normal takes 5 arguments, not 1"));
}

mod images;
mod operators;
