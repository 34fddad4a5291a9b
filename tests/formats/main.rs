//! Files: what is written reads back, known bytes read as what they say, real files as other readers see them.

mod arrays;
mod corrupt;
mod dicom;
mod kspace;
mod nifti;
mod raw;
mod real;
mod scan;

use candle_core::{Device, Tensor};
use wellposed::io::{Grid, Unit, Volume};

/// Deterministic numbers of both signs with fractions.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin() * 800.0 - 100.0).collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// An oblique volume, right- or left-handed.
fn oblique(shape: [usize; 3], spacing: [f64; 3], handed: f64) -> Volume {
    let turn = nalgebra::Rotation3::from_euler_angles(0.2, -0.4, 2.5);
    let steps = nalgebra::Vector3::new(spacing[2], spacing[1], handed * spacing[0]);
    let mut affine = nalgebra::Matrix4::identity();
    affine
        .fixed_view_mut::<3, 3>(0, 0)
        .copy_from(&(turn.matrix() * nalgebra::Matrix3::from_diagonal(&steps)));
    affine.fixed_view_mut::<3, 1>(0, 3).copy_from(&nalgebra::Vector3::new(-12.5, 30.25, 100.0));
    Volume::new(tensor(&shape), affine, Unit::Hounsfield).unwrap()
}

/// Largest distance of the same voxel in two grids, in mm.
fn displacement(a: &Grid, b: &Grid) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let [z, y, x] = a.shape().map(|n| n as f64 - 1.0);
    let corners = [[0.0, 0.0, 0.0], [x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, z], [x, y, z]];
    let moved =
        |c: [f64; 3]| ((a.affine() - b.affine()) * nalgebra::Vector4::new(c[0], c[1], c[2], 1.0)).norm();
    corners.into_iter().map(moved).fold(0.0, f64::max)
}
