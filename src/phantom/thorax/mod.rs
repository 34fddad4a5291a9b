//! A thorax made by rules: body wall, ribs, spine, shoulder blades, heart and great vessels, lungs with their trees
//! of arteries, veins and airways, nodules, couch. In HU, as in a CT with contrast agent.

mod anatomy;
mod paint;
mod shapes;
mod texture;
mod tree;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::random::Noise;
use anatomy::{Anatomy, BLOOD};
use paint::Paint;
use shapes::{Point, point};
use tree::{Branch, Grower};

/// Targets that each tree of pulmonary vessels supplies, in each lung.
const TWIGS: usize = 2600;

/// A synthetic chest CT. The same seed is the same patient at every resolution and in every slice.
///
/// ```
/// use wellposed::phantom::Thorax;
/// let thorax = Thorax { shape: [2, 32, 32], spacing: [10.0, 13.0, 13.0], ..Thorax::default() };
/// let hu = thorax.volume()?;
/// assert_eq!(hu.dims(), [2, 32, 32]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Thorax {
    /// Slices (from foot to head), rows (from front to back), columns (from the patient's right to left).
    pub shape: [usize; 3],
    /// Voxel size [slice, row, column] in mm.
    pub spacing: [f64; 3],
    /// Height of the middle of the volume above the hila of the lungs, in mm; the lungs reach from −150 to 140.
    pub centre: f64,
    /// Which patient.
    pub seed: u64,
}

impl Default for Thorax {
    /// 8 slices of 256 × 256, 8 × 1.6 × 1.6 mm, about the hila.
    fn default() -> Self {
        Self { shape: [8, 256, 256], spacing: [8.0, 1.6, 1.6], centre: 0.0, seed: 0 }
    }
}

impl Thorax {
    /// The volume [slices, rows, columns] in HU, f32.
    ///
    /// # Errors
    /// A shape with an empty axis or too large for memory, a spacing that is not positive.
    pub fn volume(&self) -> Result<Tensor> {
        let [slices, rows, columns] = self.shape;
        let voxels = self.shape.iter().try_fold(1usize, |n, s| n.checked_mul(*s));
        if !voxels.is_some_and(|n| n > 0 && n < 1 << 33) {
            return Err(Error::shape("thorax", "[slices, rows, columns], 1 to 2³³ voxels", &self.shape));
        }
        if self.spacing.iter().any(|s| !(*s > 0.0 && s.is_finite())) || !self.centre.is_finite() {
            let found = format!("{:?}", self.spacing);
            return Err(Error::parameter("thorax spacing", found, "must be positive and finite, in mm"));
        }
        let patient = Patient::new(self.seed);
        let mut hu = vec![0f32; slices * rows * columns];
        hu.par_chunks_mut(columns).enumerate().for_each(|(index, row)| {
            let (slice, line) = (index / rows, index % rows);
            for (column, value) in row.iter_mut().enumerate() {
                *value = patient
                    .anatomy
                    .value(patient.anatomy.local(self.place(slice, line, column)), self.width())
                    as f32;
            }
        });
        hu.par_chunks_mut(rows * columns).enumerate().for_each(|(slice, image)| {
            patient
                .branches
                .iter()
                .for_each(|(kind, branch)| self.stamp(&patient, *kind, branch, slice, image));
        });
        Ok(Tensor::from_vec(hu, (slices, rows, columns), &Device::Cpu)?)
    }

    /// Softness of surfaces.
    fn width(&self) -> f64 {
        self.spacing[1].max(self.spacing[2])
    }

    /// The place of a voxel in the scanner.
    fn place(&self, slice: usize, row: usize, column: usize) -> Point {
        let offset = |index: usize, axis: usize| {
            (index as f64 - (self.shape[axis] - 1) as f64 / 2.0) * self.spacing[axis]
        };
        // The body lies a little above the middle of the picture, the couch below.
        point(offset(column, 2), offset(row, 1) + 10.0, offset(slice, 0) + self.centre)
    }

    /// Draws one branch into one slice.
    fn stamp(&self, patient: &Patient, kind: Kind, branch: &Branch, slice: usize, image: &mut [f32]) {
        let anatomy = &patient.anatomy;
        let width = self.width();
        let thick = branch.radii.0 + kind.wall() + width;
        let height = anatomy.local(self.place(slice, 0, 0)).z;
        if height < branch.from.z.min(branch.to.z) - thick || height > branch.from.z.max(branch.to.z) + thick
        {
            return;
        }
        // The branch's box in voxels, found through the inverse of `place`, which is affine.
        let (first, step) = (anatomy.local(self.place(slice, 0, 0)), anatomy.local(self.place(slice, 1, 1)));
        let range = |low: f64, high: f64, first: f64, step: f64, count: usize| {
            let index = |v: f64| ((v - first) / step).clamp(0.0, count as f64) as usize;
            index(low - thick)..(index(high + thick) + 1).min(count)
        };
        let [_, rows, columns] = self.shape;
        let across = |axis: usize, count| {
            let (a, b) = (branch.from[axis], branch.to[axis]);
            range(a.min(b), a.max(b), first[axis], step[axis] - first[axis], count)
        };
        for row in across(1, rows) {
            for column in across(0, columns) {
                let p = anatomy.local(self.place(slice, row, column));
                let distance = branch.distance(p);
                if distance > thick {
                    continue;
                }
                let value = &mut image[row * columns + column];
                let mut paint = Paint::new(f64::from(*value), width);
                kind.draw(anatomy, distance, branch.radii.1, &mut paint);
                *value = paint.value as f32;
            }
        }
    }
}

/// What a branch is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Vessel,
    Airway,
    Nodule,
}

impl Kind {
    fn wall(self) -> f64 {
        if matches!(self, Self::Airway) { 1.5 } else { 0.0 }
    }

    fn draw(self, anatomy: &Anatomy, distance: f64, radius: f64, paint: &mut Paint) {
        // A vessel thinner than a voxel fills only a part of it.
        let filled = (2.4 * radius / paint.width).min(1.0);
        match self {
            // In blood, bone or the wall of the chest, a branch is not visible.
            _ if paint.value > -250.0 && !matches!(self, Self::Airway) => {}
            Self::Vessel => paint.fill(distance, paint.value + filled * (BLOOD - 20.0 - paint.value)),
            Self::Nodule => paint.fill(distance, 45.0),
            Self::Airway => anatomy.airway(distance, 0.35 * radius.max(1.0), paint),
        }
    }
}

/// An anatomy with its trees.
struct Patient {
    anatomy: Anatomy,
    branches: Vec<(Kind, Branch)>,
}

impl Patient {
    fn new(seed: u64) -> Self {
        let anatomy = Anatomy::new(seed);
        let mut branches = Vec::new();
        for (side, sign) in [(0, -1.0), (1, 1.0)] {
            let tree = |stream, twig, count, root: Point| {
                let mut targets = targets(&anatomy, Noise::new(seed, 10 * side + stream), sign, count);
                let noise = Noise::new(seed, 10 * side + stream + 5);
                let mut grower = Grower { twig, noise, drawn: 0, branches: Vec::new() };
                grower.grow(root, &mut targets);
                grower.branches
            };
            let airways = tree(10, 0.62, 90, point(sign * 46.0, 15.0, -10.0));
            let arteries = tree(20, 0.40, TWIGS, point(sign * 45.0, 6.0, 10.0));
            let veins = tree(30, 0.36, TWIGS, point(sign * 49.0, 10.0, -25.0));
            branches.extend(airways.into_iter().map(|b| (Kind::Airway, b)));
            branches.extend(arteries.into_iter().chain(veins).map(|b| (Kind::Vessel, b)));
            for (k, centre) in targets(&anatomy, Noise::new(seed, side + 90), sign, 2).into_iter().enumerate()
            {
                let radius = 3.0 + 3.0 * Noise::new(seed, side + 95).uniform(k as u64);
                let nodule =
                    Branch { from: centre, to: centre + point(1.0, 0.5, 1.0), radii: (radius, 0.9 * radius) };
                branches.push((Kind::Nodule, nodule));
            }
        }
        Self { anatomy, branches }
    }
}

/// Uniform random places in one lung.
fn targets(anatomy: &Anatomy, noise: Noise, sign: f64, count: usize) -> Vec<Point> {
    let tries = (0..400 * count as u64).map(|k| {
        let ((a, b), c) = (noise.uniform_pair(k), noise.at(1).uniform(k));
        point(sign * (10.0 + 135.0 * a), 190.0 * b - 95.0, 310.0 * c - 160.0)
    });
    tries.filter(|p| anatomy.lungs_at(*p) < -3.0).take(count).collect()
}

#[cfg(test)]
mod tests;
