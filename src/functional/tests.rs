//! Every functional against the checks that define it, and against closed forms.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::linalg::LinearOperator;
use crate::operator::{Diagonal, Gradient, Identity};
use crate::tensor::random::{Noise, standard_normal};
use crate::tensor::{Buffer, Space, Workspace};
use crate::testing::{check_gradient, check_proximal, relative_difference};

fn functionals(dtype: DType) -> Vec<Box<dyn Proximal>> {
    let real = Space::real(&[2, 50, 60], dtype, &Device::Cpu);
    let complex = Space::complex(&[2, 45, 70], dtype, &Device::Cpu);
    let draw = |stream, space: &Space| standard_normal(Noise::new(1, stream), space, &[]).unwrap();
    let positive = |stream, space: &Space| draw(stream, space).sqr().unwrap();
    vec![
        Box::new(Bounds::new(&real, -0.2, 0.7).unwrap()),
        Box::new(Bounds::non_negative(&real).unwrap()),
        Box::new(Bounds::none(&complex)),
        Box::new(L1Norm::new(&real, 0.8).unwrap()),
        Box::new(L1Norm::new(&real, 0.8).unwrap().weighted(&positive(0, &real)).unwrap()),
        Box::new(L1Norm::new(&complex, 0.8).unwrap()),
        Box::new(GroupNorm::new(&real, 1.3).unwrap()),
        Box::new(GroupNorm::new(&complex, 1.3).unwrap()),
        Box::new(GroupNorm::new(&real, 1.3).unwrap().huber(0.6).unwrap()),
        Box::new(GroupNorm::new(&complex, 1.3).unwrap().huber(2.0).unwrap()),
        Box::new(SquaredDistance::new(&complex, 1.5).unwrap()),
        Box::new(
            SquaredDistance::new(&real, 1.5)
                .unwrap()
                .from(&draw(2, &real))
                .unwrap()
                .weighted(&positive(3, &real))
                .unwrap(),
        ),
    ]
}

#[test]
fn every_functional_passes_every_check() {
    for dtype in [DType::F32, DType::F64] {
        for g in functionals(dtype) {
            check_proximal(&*g).unwrap();
        }
    }
}

#[test]
fn unequal_step_sizes_agree_with_moreau() {
    // The default conjugate map from the proximal map, and the closed form, must agree.
    #[derive(Debug)]
    struct OnlyProx(Box<dyn Proximal>);
    impl Proximal for OnlyProx {
        fn domain(&self) -> &Space {
            self.0.domain()
        }
        fn value(&self, x: &Tensor) -> Result<Vec<f64>> {
            self.0.value(x)
        }
        fn prox(&self, steps: Steps<'_>, x: &mut Buffer, ws: &mut Workspace) -> Result<()> {
            self.0.prox(steps, x, ws)
        }
    }
    let ws = &mut Workspace::new();
    for (index, (g, same)) in functionals(DType::F64).into_iter().zip(functionals(DType::F64)).enumerate() {
        let grouped = (5..=9).contains(&index);
        let space = g.domain().clone();
        let draw = |stream, batch: &[usize]| standard_normal(Noise::new(4, stream), &space, batch).unwrap();
        // Groups need equal steps within; others may have any.
        let spread = if grouped { 0.0 } else { 1.0 };
        let steps = (draw(0, &[]).sqr().unwrap().affine(spread, 0.3)).unwrap();
        let mut closed = Buffer::copy_of(&draw(1, &[3])).unwrap();
        let mut moreau = Buffer::copy_of(&draw(1, &[3])).unwrap();
        g.prox_conjugate(Steps::Each(&steps), &mut closed, ws).unwrap();
        OnlyProx(same).prox_conjugate(Steps::Each(&steps), &mut moreau, ws).unwrap();
        let off = relative_difference(closed.tensor(), moreau.tensor()).unwrap();
        assert!(off < 1e-13, "functional {index}: {off:.1e}");
    }
}

#[test]
fn a_dual_step_is_the_relaxed_conjugate_map() {
    let (sigma, rho, ws) = (0.7, 1.6, &mut Workspace::new());
    for g in functionals(DType::F64) {
        let draw = |stream| standard_normal(Noise::new(8, stream), g.domain(), &[3]).unwrap();
        let (image, y) = (draw(0), draw(1));
        let mut next = Buffer::copy_of(&(&y + (&image * sigma).unwrap()).unwrap()).unwrap();
        g.prox_conjugate(Steps::Uniform(sigma), &mut next, ws).unwrap();
        let off = (next.tensor() - &y).unwrap();
        let expected = (&y + (&off * rho).unwrap()).unwrap();
        let (mut image, mut relaxed) = (Buffer::copy_of(&image).unwrap(), Buffer::copy_of(&y).unwrap());
        let sums = g.relax_dual(Steps::Uniform(sigma), rho, &mut image, &mut relaxed, ws).unwrap();
        assert!(relative_difference(relaxed.tensor(), &expected).unwrap() < 1e-14, "{g:?}");
        assert_eq!(sums.len(), 3);
        for (item, sums) in sums.into_iter().enumerate() {
            for (sum, part) in sums.into_iter().zip([&off, next.tensor()]) {
                let part = part.get(item).unwrap().sqr().unwrap().sum_all().unwrap();
                let wanted = part.to_scalar::<f64>().unwrap() / sigma;
                assert!((sum - wanted).abs() < 1e-12 * wanted, "{g:?}: {sum} {wanted}");
            }
        }
    }
}

#[test]
fn batches_are_single_items() {
    for g in functionals(DType::F64) {
        let x = standard_normal(Noise::new(6, 0), g.domain(), &[2]).unwrap();
        let values = g.value(&x).unwrap();
        let ws = &mut Workspace::new();
        let mut together = Buffer::copy_of(&x).unwrap();
        g.prox(Steps::Uniform(0.3), &mut together, ws).unwrap();
        for (item, value) in values.into_iter().enumerate() {
            let alone = x.get(item).unwrap();
            assert_eq!(g.value(&alone).unwrap()[0], value, "{g:?}");
            let mut out = Buffer::copy_of(&alone).unwrap();
            g.prox(Steps::Uniform(0.3), &mut out, ws).unwrap();
            assert_eq!(
                relative_difference(&together.tensor().get(item).unwrap(), out.tensor()).unwrap(),
                0.0
            );
        }
    }
}

#[test]
fn a_batch_of_targets_goes_with_a_batch_of_points() {
    let space = Space::real(&[5000], DType::F64, &Device::Cpu);
    let targets = standard_normal(Noise::new(6, 0), &space, &[2]).unwrap();
    let weights = standard_normal(Noise::new(6, 1), &space, &[]).unwrap().sqr().unwrap();
    let g = SquaredDistance::new(&space, 1.0).unwrap().from(&targets).unwrap().weighted(&weights).unwrap();
    assert_eq!(g.value(&targets).unwrap(), [0.0, 0.0]);
    let mut x = Buffer::copy_of(&targets).unwrap();
    g.prox(Steps::Uniform(0.7), &mut x, &mut Workspace::new()).unwrap();
    assert!(relative_difference(x.tensor(), &targets).unwrap() < 1e-15);
}

#[test]
fn least_squares_has_the_right_gradient_and_proximal_map() {
    let space = Space::complex(&[4, 5], DType::F64, &Device::Cpu);
    let gradient = Gradient::new(&space, &[0, 1]).unwrap();
    let draw = |stream, space: &Space| standard_normal(Noise::new(2, stream), space, &[]).unwrap();
    let data = draw(0, gradient.range());
    let weights = draw(1, &gradient.range().with_field(crate::tensor::Field::Real)).sqr().unwrap();
    let x = draw(2, &space);
    let solver = crate::linalg::ConjugateGradient { max_iterations: 200, tolerance: 1e-13 };
    let plain = LeastSquares::new(Arc::new(gradient), &data).unwrap().with_solver(solver);
    for f in [plain.clone(), plain.weighted(&weights).unwrap()] {
        check_gradient(&f, &x).unwrap();
        // Optimality of the proximal point u: ∇f(u) + (u − x)/τ = 0.
        let ws = &mut Workspace::new();
        let mut u = Buffer::copy_of(&x).unwrap();
        f.prox(0.6, &mut u, ws).unwrap();
        let mut slope = Buffer::copy_of(&x).unwrap();
        f.gradient_into(u.tensor(), &mut slope, ws).unwrap();
        let pull = ((x.clone() - u.tensor()).unwrap() / 0.6).unwrap();
        assert!(relative_difference(slope.tensor(), &pull).unwrap() < 1e-11);
        let sum = SmoothSum::new(vec![(0.5, Arc::new(f.clone())), (2.0, Arc::new(f))]).unwrap();
        check_gradient(&sum, &x).unwrap();
    }
}

#[test]
fn a_transformed_penalty_of_an_orthonormal_map() {
    let space = Space::complex(&[30], DType::F64, &Device::Cpu);
    let phases: Vec<f64> = (0..30).flat_map(|i| [(i as f64).cos(), (i as f64).sin()]).collect();
    let phases = Tensor::from_vec(phases, (30, 2), &Device::Cpu).unwrap();
    let turn: Arc<dyn LinearOperator> = Arc::new(Diagonal::complex(&space, &phases).unwrap());
    let g = Transformed::new(turn, Arc::new(L1Norm::new(&space, 0.5).unwrap())).unwrap();
    check_proximal(&g).unwrap();
    let other = Arc::new(Identity::new(&space.with_shape(&[29])));
    assert!(Transformed::new(other, Arc::new(L1Norm::new(&space, 0.5).unwrap())).is_err());
}

#[test]
fn bad_weights_are_refused() {
    let space = Space::real(&[3], DType::F64, &Device::Cpu);
    assert!(L1Norm::new(&space, -1.0).is_err() && L1Norm::new(&space, f64::NAN).is_err());
    assert!(Bounds::new(&space, 1.0, 0.0).is_err());
    assert!(Bounds::new(&space.with_field(crate::tensor::Field::Complex), 0.0, 1.0).is_err());
    assert!(GroupNorm::new(&space.with_shape(&[]), 1.0).is_err());
}
