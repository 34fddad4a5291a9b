//! One list of all operators, crossed with what every operator must satisfy.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use wellposed::linalg::LinearOperator;
use wellposed::operator::{Algebra, Diagonal, Gradient, Identity, Stack};
use wellposed::tensor::random::{Noise, standard_normal};
use wellposed::tensor::{Space, vector};
use wellposed::testing::{check_operator, relative_difference};

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
    vec![
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
}
