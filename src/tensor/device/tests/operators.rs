//! Rays, coils, functionals, solvers and samplers.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use super::*;
use crate::error::Result;
use crate::functional::{Bounds, GroupNorm, L1Norm, SquaredDistance};
use crate::linalg::{ConjugateGradient, LinearOperator, Lsqr, Proximal, Steps};
use crate::operator::ct::*;
use crate::operator::mri::Sense;
use crate::operator::{Algebra, Fourier, Gradient};
use crate::prior::gaussian::Gaussian;
use crate::reconstruct::{Sirt, Splitting, TotalVariation};
use crate::sampler::{AdmmTv, Guided, Problem, RedDiff, Sampler, sample};
use crate::tensor::Workspace;
use crate::testing::relative_difference;

/// Runs `work` on the host and by functions for a device; the arrays that it returns must agree to `tolerance`.
pub(super) fn same(name: &str, tolerance: f64, work: impl Fn() -> Result<Vec<Tensor>>) {
    let expected = work().unwrap();
    let Some((found, launched, fallen_back)) = emulated(&work) else { return };
    assert!(launched > 0 && fallen_back == 0, "{name}: {launched} launched, {fallen_back} kernels without");
    for (index, (found, expected)) in found.unwrap().iter().zip(&expected).enumerate() {
        let error = relative_difference(found, expected).unwrap();
        assert!(error <= tolerance, "{name}: array {index} differs by {error:e}");
    }
}

/// A, Aᴴ and AᴴA of batches of five, into arrays that hold other numbers before.
pub(super) fn operator(name: &str, a: &dyn LinearOperator) {
    let x = standard_normal(Noise::new(1, 0), a.domain(), &[5]).unwrap();
    let y = standard_normal(Noise::new(1, 1), a.range(), &[5]).unwrap();
    let tolerance = if a.domain().dtype() == DType::F64 { 1e-12 } else { 2e-5 };
    same(name, tolerance, || {
        let used =
            |space: &Space| standard_normal(Noise::new(1, 2), space, &[5]).and_then(|x| Buffer::copy_of(&x));
        let mut ws = Workspace::new();
        let mut all = [used(a.range())?, used(a.domain())?, used(a.domain())?];
        let [forward, back, normal] = &mut all;
        a.apply_into(&x, forward, &mut ws)?;
        a.adjoint_into(&y, back, &mut ws)?;
        a.normal_into(&x, normal, &mut ws)?;
        Ok(all.map(Buffer::freeze).to_vec())
    });
}

#[test]
fn differences_and_transforms_agree() {
    for (dtype, _) in TYPES {
        for space in
            [Space::real(&[4, 5, 6], dtype, &Device::Cpu), Space::complex(&[7, 5], dtype, &Device::Cpu)]
        {
            let axes: Vec<usize> = (0..space.shape().len()).rev().collect();
            let weights: Vec<f64> = axes.iter().map(|a| 1.0 + *a as f64).collect();
            operator("gradient", &Gradient::weighted(&space, &axes, &weights).unwrap());
        }
        for shape in [&[9][..], &[6, 7], &[3, 4, 5]] {
            let space = Space::complex(shape, dtype, &Device::Cpu);
            operator("Fourier", &Fourier::new(&space, shape.len()).unwrap());
        }
    }
}

pub(super) fn grid(height: usize, width: usize) -> ImageGrid {
    ImageGrid::new(height, width, 1.3).unwrap()
}

#[test]
fn parallel_rays_agree() {
    for (dtype, _) in TYPES {
        for (pitch, offset) in [(1.3, 0.0), (0.4, 0.7), (3.1, -0.4)] {
            let angles = (0..13).map(|i| PI * f64::from(i) / 13.0 - 0.2).chain([0.0, PI / 2.0]).collect();
            let beam = ParallelBeam::new(angles, 41, pitch).unwrap().with_offset(offset);
            let a = RayTransform::new(&grid(19, 24), &beam, dtype, &Device::Cpu).unwrap();
            operator("parallel beam", &a);
            let q = standard_normal(Noise::new(2, 0), a.range(), &[2]).unwrap();
            let weights: Vec<f64> = (0..15).map(|i| 0.1 + f64::from(i)).collect();
            let tolerance = if dtype == DType::F64 { 1e-12 } else { 2e-5 };
            same("back projection", tolerance, || Ok(vec![a.back_project(&q, &weights)?]));
        }
    }
}

pub(super) fn even(views: usize, arc: f64) -> Vec<f64> {
    (0..views).map(|i| arc * i as f64 / views as f64 + 0.1).collect()
}

#[test]
fn fans_agree() {
    for (dtype, _) in TYPES {
        for (bins, pitch, offset, curved) in
            [(41, 1.5, 0.0, false), (90, 0.5, 0.8, false), (37, 2.1, -3.0, true), (12, 6.0, 0.0, false)]
        {
            let mut beam = FanBeam::new(even(17, TAU), bins, pitch, 30.0, 20.0).unwrap().with_offset(offset);
            beam.curved = curved;
            let a = FanTransform::new(&grid(19, 24), &beam.vectors(), dtype, &Device::Cpu).unwrap();
            operator(&format!("fan of {bins} bins, curved {curved}"), &a);
        }
    }
}

#[test]
fn cones_agree() {
    let volume = VolumeGrid::new(9, grid(11, 13), 1.1).unwrap();
    let fan = FanBeam::new(even(9, TAU), 15, 2.2, 40.0, 30.0).unwrap();
    let circle = ConeBeam::new(fan.clone(), 8, 2.0).unwrap();
    let above = Pose {
        source: [1.0, 2.0, 60.0],
        detector: [0.0, 0.0, -30.0],
        u: [1.9, 0.3, 0.0],
        v: [-0.3, 1.9, 0.0],
    };
    let oblique = Pose {
        source: [30.0, 3.0, -22.0],
        detector: [-25.0, 1.0, 20.0],
        u: [0.1, 1.9, 0.2],
        v: [0.9, 0.1, 1.5],
    };
    let mut arc = circle.clone();
    arc.fan.curved = true;
    let beams = [
        ("circle", circle.vectors()),
        ("helix", ConeBeam { feed: 9.0, row_offset: 1.0, ..circle.clone() }.vectors()),
        ("tilted", ConeBeam { tilt: 0.2, ..circle.clone() }.vectors()),
        ("arc", arc.vectors()),
        ("fine", ConeBeam::new(fan, 40, 0.4).unwrap().vectors()),
        ("free", VectorBeam::new(vec![above, oblique], 14, 15).unwrap()),
    ];
    for (name, beam) in beams {
        for (dtype, _) in TYPES {
            operator(name, &ConeTransform::new(&volume, &beam, dtype, &Device::Cpu).unwrap());
        }
    }
}

#[test]
fn coils_agree() {
    for (dtype, _) in TYPES {
        for shape in [&[12, 15][..], &[4, 6, 5]] {
            let maps = Space::complex(&[&[3], shape].concat(), dtype, &Device::Cpu);
            let maps = standard_normal(Noise::new(3, 0), &maps, &[]).unwrap();
            let width = shape[shape.len() - 1];
            for lines in [false, true] {
                let weight = |i: usize| {
                    [1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.0][(if lines { i % width } else { i }).pow(2) % 7]
                };
                let values: Vec<f64> = (0..shape.iter().product()).map(weight).collect();
                let mask = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
                operator("SENSE", &Sense::new(&maps, &mask).unwrap());
            }
        }
    }
}

#[test]
fn proximal_maps_agree() {
    for (dtype, _) in TYPES {
        let tolerance = if dtype == DType::F64 { 1e-13 } else { 1e-6 };
        for space in
            [Space::real(&[3, 40], dtype, &Device::Cpu), Space::complex(&[2, 30], dtype, &Device::Cpu)]
        {
            let x = standard_normal(Noise::new(5, 0), &space, &[2]).unwrap();
            let target = standard_normal(Noise::new(5, 1), &space, &[]).unwrap();
            let steps = target.abs().unwrap();
            let all: Vec<Box<dyn Proximal>> = vec![
                Box::new(GroupNorm::new(&space, 0.7).unwrap()),
                Box::new(GroupNorm::new(&space, 0.7).unwrap().huber(0.2).unwrap()),
                Box::new(L1Norm::new(&space, 0.4).unwrap()),
                Box::new(L1Norm::new(&space, 0.4).unwrap().weighted(&steps).unwrap()),
                Box::new(SquaredDistance::new(&space, 0.3).unwrap().from(&target).unwrap()),
                Box::new(Bounds::new(&space, f64::NEG_INFINITY, 0.5).unwrap_or(Bounds::none(&space))),
            ];
            for (index, g) in all.iter().enumerate() {
                for steps in [Steps::Uniform(0.6), Steps::Each(&steps)] {
                    same(&format!("functional {index}"), tolerance, || {
                        let mut ws = Workspace::new();
                        let (mut a, mut b) = (Buffer::copy_of(&x)?, Buffer::copy_of(&x)?);
                        vector::clamp(-9.0, 9.0, &mut a)?;
                        g.prox(steps, &mut a, &mut ws)?;
                        g.prox_conjugate(steps, &mut b, &mut ws)?;
                        let value: Vec<f64> = g.value(&x)?.into_iter().map(|v| v.min(1e6)).collect();
                        Ok(vec![a.freeze(), b.freeze(), Tensor::new(value, &Device::Cpu)?])
                    });
                }
            }
        }
    }
}

#[test]
fn solvers_agree() {
    let space = Space::real(&[9, 8], DType::F64, &Device::Cpu);
    let gradient = Gradient::new(&space, &[0, 1]).unwrap();
    let differences = standard_normal(Noise::new(1, 0), gradient.range(), &[3]).unwrap();
    let right = gradient.adjoint(&differences).unwrap();
    let system = Gradient::new(&space, &[0, 1]).unwrap().normal_operator(0.3);
    let beam = ParallelBeam::covering(&grid(9, 8), 12, PI).unwrap();
    let rays = Arc::new(RayTransform::new(&grid(9, 8), &beam, DType::F64, &Device::Cpu).unwrap());
    let data = rays.apply(&standard_normal(Noise::new(1, 1), &space, &[3]).unwrap()).unwrap();
    let shared: Arc<dyn LinearOperator> = rays.clone();
    same("solvers", 1e-9, || {
        let cg = ConjugateGradient { max_iterations: 5, tolerance: 0.0 };
        let sirt = Sirt { max_iterations: 5, ..Sirt::default() };
        let lsqr = Lsqr { max_iterations: 5, ..Lsqr::default() };
        Ok(vec![
            cg.solve(&system, &right, None, &mut ())?.value,
            sirt.solve(&*rays, &data, None, &mut ())?.value,
            lsqr.solve(&gradient, &differences, &mut ())?.value,
        ])
    });
    for splitting in [Splitting::PrimalDual, Splitting::Admm] {
        for corner in [0.0, 0.1] {
            let tv = TotalVariation { splitting, corner, max_iterations: 6, ..TotalVariation::default() };
            same("total variation", 1e-9, || Ok(vec![tv.solve(&shared, &data, None, None, &mut ())?.value]));
        }
    }
}

/// A volume by diffusion: no array may leave the device but those of the prior.
#[test]
fn samplers_agree() {
    let space = Space::real(&[9, 8], DType::F64, &Device::Cpu);
    let beam = ParallelBeam::covering(&grid(9, 8), 12, PI).unwrap();
    let rays = RayTransform::new(&grid(9, 8), &beam, DType::F64, &Device::Cpu).unwrap();
    let data = rays.apply(&standard_normal(Noise::new(1, 1), &space, &[3]).unwrap()).unwrap();
    let prior = Gaussian::white(&[9, 8], 0.0, 1.0).unwrap();
    let problem = Problem::new(&rays, &data, 0.1, &prior).unwrap();
    let admm = AdmmTv { rho: 10.0, lambda: 0.4, iterations: 3 };
    let red = RedDiff { steps: 4, ..RedDiff::default() };
    let volume = Guided { steps: 4, ..Guided::dds_volume(admm) };
    let samplers: [&dyn Sampler; 3] = [&volume, &Guided { steps: 4, ..Guided::dds() }, &red];
    for (index, sampler) in samplers.into_iter().enumerate() {
        // Adam divides by the size of gradients, which nearly vanish in places.
        let tolerance = if index == 2 { 1e-4 } else { 1e-8 };
        same(&format!("sampler {index}"), tolerance, || {
            Ok(vec![sample(sampler, &problem, 3, &mut ())?.value])
        });
    }
}
