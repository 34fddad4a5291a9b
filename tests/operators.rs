//! One list of all operators, crossed with what every operator must satisfy.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use wellposed::functional::NonlinearLeastSquares;
use wellposed::linalg::{LinearOperator, NonlinearOperator};
use wellposed::operator::ct::{ImageGrid, ParallelBeam, RayTransform};
use wellposed::operator::mri::Sense;
use wellposed::operator::{
    Algebra, Blur, Boundary, Chain, Curve, Diagonal, Downsample, Family, Fourier, Gradient, Identity,
    Magnitude, Pad, Pointwise, Stack, Wavelet, camera_blur, motion_kernel, phase_retrieval,
};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, vector};
use wellposed::testing::{check_gradient, check_nonlinear, check_operator, relative_difference};

type Shared = Arc<dyn LinearOperator>;

/// Every operator of the library, by name, at a small odd size.
fn operators(dtype: DType) -> Vec<(&'static str, Shared)> {
    let device = Device::Cpu;
    let real = Space::real(&[3, 6, 7], dtype, &device);
    let complex = Space::complex(&[5, 6], dtype, &device);
    let draw = |stream, space: &Space| standard_normal(Noise::new(5, stream), space, &[]).unwrap();
    let gradient = Gradient::new(&real, &[0, 1, 2]).unwrap();
    let phases = Diagonal::complex(&complex, &draw(0, &complex)).unwrap();
    let weights = Diagonal::real(&real, &draw(1, &real)).unwrap();
    let stack = Stack::new(vec![gradient.clone().shared(), weights.clone().shared()]).unwrap();
    let motion = motion_kernel(9, 0.5, 1).unwrap();
    let even = standard_normal(Noise::new(6, 0), &real.with_shape(&[4, 6]), &[]).unwrap();
    let coils = draw(5, &complex.with_shape(&[3, 5, 6]));
    let sampling = Diagonal::random_mask(&real.with_shape(&[5, 6]), 0.5, 2).unwrap();
    let grid = ImageGrid::new(9, 12, 0.7).unwrap();
    let beam = ParallelBeam::covering(&grid, 7, std::f64::consts::PI).unwrap();
    vec![
        ("Gaussian blur", Blur::gaussian(&real, 0.8, Boundary::Reflect).unwrap().shared()),
        ("periodic Gaussian blur", Blur::gaussian(&complex, 1.5, Boundary::Periodic).unwrap().shared()),
        ("motion blur", Blur::new(&real, &motion, Boundary::Reflect).unwrap().shared()),
        ("periodic motion blur", Blur::new(&complex, &motion, Boundary::Periodic).unwrap().shared()),
        ("blur with an even kernel", Blur::new(&real, &even, Boundary::Zero).unwrap().shared()),
        ("padding", Pad::new(&complex, [8, 9]).unwrap().shared()),
        ("padding to complex", Pad::complex(&real, [7, 10]).unwrap().shared()),
        ("box down-sampling", Downsample::boxes(&complex.with_shape(&[6, 9]), 3).unwrap().shared()),
        ("bicubic down-sampling", Downsample::bicubic(&real.with_shape(&[3, 8, 16]), 4).unwrap().shared()),
        ("wavelets", Wavelet::new(&real, 2, Family::Symlet(4), 2).unwrap().shared()),
        ("complex wavelets", Wavelet::new(&complex, 2, Family::Daubechies(2), 3).unwrap().shared()),
        ("Fourier", Fourier::new(&complex, 2).unwrap().shared()),
        ("multi-coil MRI", Sense::new(&coils, sampling.weights()).unwrap().shared()),
        ("parallel-beam CT", RayTransform::new(&grid, &beam, dtype, &device).unwrap().shared()),
        ("identity", Identity::new(&complex).shared()),
        ("real weights", weights.clone().shared()),
        (
            "repeated real weights",
            Diagonal::real(&real, &draw(2, &real.with_shape(&[6, 7]))).unwrap().shared(),
        ),
        (
            "real weights on complex",
            Diagonal::real(&complex, &draw(3, &complex.with_field(wellposed::tensor::Field::Real)))
                .unwrap()
                .shared(),
        ),
        ("complex weights", phases.clone().shared()),
        ("random mask", Diagonal::random_mask(&real, 0.4, 1).unwrap().shared()),
        ("gradient", gradient.clone().shared()),
        ("in-plane gradient", Gradient::weighted(&real, &[1, 2], &[1.0, 0.7]).unwrap().shared()),
        ("complex gradient", Gradient::new(&complex, &[0, 1]).unwrap().shared()),
        ("product", weights.clone().then(gradient.clone()).unwrap().shared()),
        ("sum", weights.clone().plus(Identity::new(&real)).unwrap().shared()),
        ("multiple", gradient.clone().scaled(-0.3).shared()),
        ("adjoint", gradient.clone().adjoint_operator().shared()),
        ("normal", phases.clone().normal_operator(0.5).shared()),
        ("stack", stack.shared()),
        ("lifted", phases.lifted(&[2]).shared()),
    ]
}

#[test]
fn every_operator_passes_every_check() {
    for dtype in [DType::F32, DType::F64] {
        for (name, operator) in operators(dtype) {
            check_operator(&operator).unwrap_or_else(|e| panic!("{name} in {dtype:?}: {e}"));
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for ((name, single), (_, double)) in operators(DType::F32).into_iter().zip(operators(DType::F64)) {
        let noise = Noise::new(7, 0);
        let x = standard_normal(noise, double.domain(), &[]).unwrap();
        let y = standard_normal(noise, double.range(), &[]).unwrap();
        let pairs = [
            (single.apply(&x.to_dtype(DType::F32).unwrap()).unwrap(), double.apply(&x).unwrap()),
            (single.adjoint(&y.to_dtype(DType::F32).unwrap()).unwrap(), double.adjoint(&y).unwrap()),
        ];
        for (low, high) in pairs {
            let off = relative_difference(&low.to_dtype(DType::F64).unwrap(), &high).unwrap();
            assert!(off < 2e-6, "{name}: single differs from double by {off:.1e}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let evaluate = |threads: usize| -> Vec<(&'static str, Tensor, Tensor)> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let images = operators(DType::F32).into_iter().map(|(name, a)| {
                let x = standard_normal(Noise::new(8, 0), a.domain(), &[2]).unwrap();
                let image = a.apply(&x).unwrap();
                let back = a.adjoint(&image).unwrap();
                (name, image, back)
            });
            images.collect()
        })
    };
    for ((name, image, back), (_, image2, back2)) in evaluate(1).into_iter().zip(evaluate(2)) {
        for (one, two) in [(image, image2), (back, back2)] {
            let bits = |x: &Tensor| -> Vec<u32> {
                x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(&one), bits(&two), "{name} depends on the number of threads");
        }
    }
}

#[test]
fn every_operator_refuses_a_wrong_type() {
    for (name, a) in operators(DType::F32) {
        let x = a.domain().zeros(&[]).unwrap().to_dtype(DType::F64).unwrap();
        assert!(a.apply(&x).is_err(), "{name} took f64 for f32");
    }
}

#[test]
fn nonlinear_operators_have_the_right_jacobians() {
    let space = Space::real(&[2, 9, 12], DType::F64, &Device::Cpu);
    let x = standard_normal(Noise::new(3, 0), &space, &[]).unwrap();
    let light = (x.abs().unwrap() + 0.1).unwrap();
    let blur = Blur::gaussian(&space, 1.2, Boundary::Reflect).unwrap().shared();
    // 2x = 1.37 is not near any of the numbers, so that differences don't cross the kink.
    let clip = Curve::Clip { gain: 2.0, lower: -1.37, upper: 1.37 };
    let phase = phase_retrieval(&space, 2.0).unwrap();
    assert_eq!(phase.range().shape(), [2, 13, 18]);
    check_nonlinear(&phase, &x).unwrap();
    check_nonlinear(&Pointwise::new(&space, clip).unwrap(), &x).unwrap();
    check_nonlinear(&camera_blur(blur, 2.2).unwrap(), &light).unwrap();
    let data = phase.apply(&light).unwrap();
    check_gradient(&NonlinearLeastSquares::new(Arc::new(phase.clone()), &data).unwrap(), &x).unwrap();
    assert!(phase.vjp(&x, &x).is_err());
    assert!(phase_retrieval(&space.with_shape(&[4]), 2.0).is_err() && phase_retrieval(&space, -1.0).is_err());
    assert!(Chain::new(vec![]).is_err() && Magnitude::new(&space).is_err());
    assert!(Pointwise::new(&space, Curve::Power { exponent: 0.0 }).is_err());
}

#[test]
fn phase_retrieval_sees_neither_shifts_nor_reflections() {
    let space = Space::real(&[8, 8], DType::F64, &Device::Cpu);
    let mut pixels = vec![0f64; 64];
    (pixels[18], pixels[19], pixels[28]) = (1.0, 0.5, 2.0);
    let image = |pixels: &[f64]| Tensor::from_vec(pixels.to_vec(), (8, 8), &Device::Cpu).unwrap();
    let phase = phase_retrieval(&space, 2.0).unwrap();
    let magnitudes = phase.apply(&image(&pixels)).unwrap();
    let mut moved = pixels.clone();
    moved.rotate_right(9);
    let mirrored: Vec<f64> = pixels.iter().rev().copied().collect();
    for other in [moved, mirrored] {
        let found = phase.apply(&image(&other)).unwrap();
        assert!(relative_difference(&found, &magnitudes).unwrap() < 1e-14);
    }
}

/// (k ∗ x)[i] by its definition, in one image.
fn convolved(x: &[Vec<f64>], kernel: &[Vec<f64>], boundary: Boundary) -> Vec<Vec<f64>> {
    let (height, width) = (x.len() as isize, x[0].len() as isize);
    let (tall, wide) = (kernel.len() as isize, kernel[0].len() as isize);
    let inside = |at: isize, n: isize| match boundary {
        Boundary::Zero => (0..n).contains(&at).then_some(at as usize),
        Boundary::Periodic => Some((at + 10 * n) as usize % n as usize),
        Boundary::Reflect if at < 0 => Some(-at as usize),
        Boundary::Reflect if at >= n => Some((2 * n - 2 - at) as usize),
        Boundary::Reflect => Some(at as usize),
    };
    let pixel = |i: isize, j: isize| -> f64 {
        let mut sum = 0.0;
        for a in 0..tall {
            for b in 0..wide {
                if let (Some(p), Some(q)) =
                    (inside(i + tall / 2 - a, height), inside(j + wide / 2 - b, width))
                {
                    sum += kernel[a as usize][b as usize] * x[p][q];
                }
            }
        }
        sum
    };
    (0..height).map(|i| (0..width).map(|j| pixel(i, j)).collect()).collect()
}

#[test]
fn blurs_are_convolutions() {
    let space = Space::real(&[3, 8, 11], DType::F64, &Device::Cpu);
    let x = standard_normal(Noise::new(3, 0), &space, &[]).unwrap();
    let column = Tensor::new(&[[1f64], [3.0], [-2.0]], &Device::Cpu).unwrap();
    let row = Tensor::new(&[[0.5f64, 1.0, 2.0, -1.0]], &Device::Cpu).unwrap();
    let rank_one = column.broadcast_mul(&row).unwrap();
    let full = standard_normal(Noise::new(3, 1), &space.with_shape(&[5, 4]), &[]).unwrap();
    for kernel in [rank_one, full] {
        for boundary in [Boundary::Periodic, Boundary::Reflect, Boundary::Zero] {
            let blurred = Blur::new(&space, &kernel, boundary).unwrap().apply(&x).unwrap();
            for slice in 0..3 {
                let x = x.get(slice).unwrap().to_vec2().unwrap();
                let expected = convolved(&x, &kernel.to_vec2().unwrap(), boundary);
                let expected = Tensor::from_vec(expected.concat(), (8, 11), &Device::Cpu).unwrap();
                let off = relative_difference(&blurred.get(slice).unwrap(), &expected).unwrap();
                assert!(off < 1e-13, "{:?} {boundary:?}: {off:.1e}", kernel.dims());
            }
        }
    }
}

#[test]
fn blurs_keep_constants_where_the_boundary_does() {
    let space = Space::real(&[40, 30], DType::F64, &Device::Cpu);
    let ones = (space.zeros(&[]).unwrap() + 1.0).unwrap();
    let motion = motion_kernel(61, 0.5, 3).unwrap();
    for boundary in [Boundary::Periodic, Boundary::Reflect] {
        for blur in [Blur::gaussian(&space, 9.0, boundary), Blur::new(&space, &motion, boundary)] {
            let off = relative_difference(&blur.unwrap().apply(&ones).unwrap(), &ones).unwrap();
            assert!(off < 1e-12, "{boundary:?}: {off:.1e}");
        }
    }
}

#[test]
fn bicubic_agrees_with_the_reference_inside() {
    // PyTorch 2: interpolate(mode="bicubic", antialias=True) of this line, away from its edges.
    let line: Vec<f64> = (0..32).map(|i| f64::from((i * 37) % 23) * 0.25).collect();
    let image = Tensor::from_vec(line.repeat(32), (32, 32), &Device::Cpu).unwrap();
    let space = Space::real(&[32, 32], DType::F64, &Device::Cpu);
    let middle = |factor: usize| -> Vec<f64> {
        let small = Downsample::bicubic(&space, factor).unwrap().apply(&image).unwrap();
        small.get(16 / factor).unwrap().to_vec1().unwrap()
    };
    let two =
        [1.958984375, 2.625, 3.291015625, 2.0478515625, 3.7021484375, 2.458984375, 3.125, 3.791015625, 2.75];
    let four = [2.73822021484375, 3.01177978515625, 3.30499267578125, 2.392333984375];
    for (found, expected) in middle(2)[2..11].iter().zip(two).chain(middle(4)[2..6].iter().zip(four)) {
        assert!((found - expected).abs() < 1e-12, "{found} against {expected}");
    }
    let ones = (space.zeros(&[]).unwrap() + 1.0).unwrap();
    for down in [Downsample::bicubic(&space, 4).unwrap(), Downsample::boxes(&space, 4).unwrap()] {
        let small = down.apply(&ones).unwrap();
        assert!(relative_difference(&small, &small.ones_like().unwrap()).unwrap() < 1e-14);
    }
    assert!(Downsample::bicubic(&space, 5).is_err() && Downsample::boxes(&space, 0).is_err());
}

#[test]
fn motion_kernels_are_tracks() {
    for seed in 0..4 {
        let kernel = motion_kernel(61, 0.5, seed).unwrap();
        let sum = kernel.sum_all().unwrap().to_scalar::<f64>().unwrap();
        let values = kernel.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let filled = values.iter().filter(|v| **v > 0.0).count();
        assert!((sum - 1.0).abs() < 1e-12 && values.iter().all(|v| *v >= 0.0));
        assert!((40..700).contains(&filled), "seed {seed}: {filled} pixels");
    }
    assert!(motion_kernel(61, 1.5, 0).is_err() && motion_kernel(2, 0.5, 0).is_err());
}

/// A dense matrix of a small operator, column by column.
fn dense(a: &dyn LinearOperator) -> Vec<Vec<f64>> {
    let n = a.domain().elements();
    let column = |j: usize| {
        let mut unit = vec![0f64; n];
        unit[j] = 1.0;
        let x = Tensor::from_vec(unit, a.domain().tensor_shape(&[]), &Device::Cpu).unwrap();
        a.apply(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    (0..n).map(column).collect()
}

#[test]
fn algebra_agrees_with_matrices() {
    let space = Space::real(&[2, 3], DType::F64, &Device::Cpu);
    let weights = Diagonal::real(&space, &standard_normal(Noise::new(1, 0), &space, &[]).unwrap()).unwrap();
    let gradient = Gradient::new(&space, &[0, 1]).unwrap();
    let product = dense(&weights.clone().then(gradient.clone()).unwrap());
    let (d, g) = (dense(&weights), dense(&gradient));
    let normal = dense(&gradient.normal_operator(0.25));
    for j in 0..6 {
        for i in 0..12 {
            assert!((product[j][i] - g[j][i] * d[j][j]).abs() < 1e-14);
        }
        for k in 0..6 {
            let ata: f64 = (0..12).map(|i| g[j][i] * g[k][i]).sum();
            assert!((normal[j][k] - ata - if j == k { 0.25 } else { 0.0 }).abs() < 1e-14);
        }
    }
}

#[test]
fn misfits_are_refused_with_both_shapes_named() {
    let small = Space::real(&[2, 3], DType::F64, &Device::Cpu);
    let large = small.with_shape(&[4, 3]);
    let message = Identity::new(&small).then(Identity::new(&large)).unwrap_err().to_string();
    assert!(message.contains("[4, 3]") && message.contains("[2, 3]"), "{message}");
    assert!(Identity::new(&small).plus(Identity::new(&large)).is_err());
    assert!(Diagonal::real(&small, &large.zeros(&[]).unwrap()).is_err());
    assert!(Diagonal::complex(&small, &small.zeros(&[]).unwrap()).is_err());
    assert!(Diagonal::random_mask(&small, 0.0, 0).is_err());
}

#[test]
fn a_mask_keeps_its_fraction() {
    let space = Space::real(&[2, 200, 200], DType::F32, &Device::Cpu);
    let mask = Diagonal::random_mask(&space, 0.3, 9).unwrap();
    let kept = vector::inner(mask.weights(), mask.weights(), 1).unwrap()[0] / 40000.0;
    assert!((kept - 0.3).abs() < 0.01, "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gradients_of_any_shape(shape in prop::collection::vec(1usize..9, 1..4), complex: bool, double: bool) {
        let dtype = if double { DType::F64 } else { DType::F32 };
        let space = if complex { Space::complex(&shape, dtype, &Device::Cpu) } else { Space::real(&shape, dtype, &Device::Cpu) };
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        prop_assert!(check_operator(&Gradient::new(&space, &axes).unwrap()).is_ok());
    }

    #[test]
    fn blurs_of_any_shape(height in 1usize..12, width in 1usize..12, tall in 1usize..8, wide in 1usize..8, edge in 0..3) {
        let boundary = [Boundary::Periodic, Boundary::Reflect, Boundary::Zero][edge as usize];
        let space = Space::real(&[2, height, width], DType::F64, &Device::Cpu);
        let kernel = standard_normal(Noise::new(1, 0), &space.with_shape(&[tall, wide]), &[]).unwrap();
        let checked = check_operator(&Blur::new(&space, &kernel, boundary).unwrap());
        prop_assert!(checked.is_ok(), "{checked:?}");
    }

    #[test]
    fn wavelets_of_any_shape(shape in prop::collection::vec(1usize..14, 1..4), moments in 2usize..9, levels in 1usize..5, complex: bool) {
        let real = Space::real(&shape, DType::F64, &Device::Cpu);
        let space = if complex { real.with_field(wellposed::tensor::Field::Complex) } else { real };
        let checked = check_operator(&Wavelet::new(&space, shape.len(), Family::Daubechies(moments), levels).unwrap());
        prop_assert!(checked.is_ok(), "{checked:?}");
    }
}
