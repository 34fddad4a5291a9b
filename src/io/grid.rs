//! Where the voxels of a volume lie in the patient.

use nalgebra::{Matrix3, Matrix4, Vector3};

use crate::error::{Error, Result};

/// Shape of a volume and the place of its voxels: `[x, y, z, 1]ᵀ = affine · [i, j, k, 1]ᵀ`, where i counts
/// along the width, j along the height, k along the slices, and x, y, z are millimetres to the patient's
/// right-to-left, back-to-front and feet-to-head (RAS, the convention of NIfTI).
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    shape: [usize; 3],
    affine: Matrix4<f64>,
}

impl Grid {
    /// A grid from its shape [slices, height, width] and its affine (voxel → RAS mm).
    ///
    /// # Errors
    /// [`Error::Shape`] for an axis of length 0; [`Error::Parameter`] where the affine is not finite, not
    /// invertible, or its last row is not [0, 0, 0, 1].
    pub fn new(shape: [usize; 3], affine: Matrix4<f64>) -> Result<Self> {
        if shape.contains(&0) {
            return Err(Error::shape("volume", "[slices, height, width], each at least 1", &shape));
        }
        if shape
            .iter()
            .try_fold(1usize, |n, &s| n.checked_mul(s))
            .is_none_or(|n| n > isize::MAX as usize / 16)
        {
            return Err(Error::shape("volume", "a volume that fits the address space", &shape));
        }
        let linear: Matrix3<f64> = affine.fixed_view::<3, 3>(0, 0).into_owned();
        let lengths: f64 = linear.column_iter().map(|c| c.norm()).product();
        let invertible = linear.determinant().abs() > 1e-6 * lengths && lengths > 0.0;
        let last = affine.row(3);
        if !affine.iter().all(|v| v.is_finite()) || !invertible || [last[0], last[1], last[2]] != [0.0; 3] {
            let reason = "expected finite, invertible voxel → mm coordinates";
            return Err(Error::parameter("affine", show(&affine), reason));
        }
        Ok(Self { shape, affine })
    }

    /// A grid without a known orientation: spacing [z, y, x] in mm, centred, seen as an axial slice is
    /// printed (the first column is the patient's right, the first row the front).
    ///
    /// ```
    /// let grid = wellposed::io::Grid::centred([40, 256, 256], [1.5, 0.957, 0.957]).unwrap();
    /// assert_eq!((grid.spacing(), grid.orientation().as_str()), ([1.5, 0.957, 0.957], "LPS"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where a spacing is not positive and finite.
    pub fn centred(shape: [usize; 3], spacing: [f64; 3]) -> Result<Self> {
        check_spacing(spacing)?;
        let [z, y, x] = spacing;
        let half = |n: usize, step: f64| (n.max(1) - 1) as f64 / 2.0 * step;
        let [slices, height, width] = shape;
        #[rustfmt::skip]
        let affine = Matrix4::new(
            -x, 0.0, 0.0, half(width, x),
            0.0, -y, 0.0, half(height, y),
            0.0, 0.0, z, -half(slices, z),
            0.0, 0.0, 0.0, 1.0,
        );
        Self::new(shape, affine)
    }

    /// Shape [slices, height, width].
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Voxel (i, j, k) → RAS mm.
    pub fn affine(&self) -> &Matrix4<f64> {
        &self.affine
    }

    /// Distances of neighbouring voxels [z, y, x] in mm: the lengths of the affine's columns, in array order.
    pub fn spacing(&self) -> [f64; 3] {
        let length = |axis: usize| {
            let exact = self.direction(axis).norm();
            // Sixteen digits of a rotated axis carry rounding noise; a spacing is known to far fewer.
            (exact * 1e9).round() / 1e9
        };
        [length(2), length(1), length(0)]
    }

    /// Where i, j and k lead, one letter each: R(ight) or L(eft), A(nterior) or P(osterior), S(uperior) or
    /// I(nferior), by the nearest axis.
    pub fn orientation(&self) -> String {
        (0..3)
            .map(|axis| {
                let d = self.direction(axis);
                ["RL", "AP", "SI"][d.iamax()].as_bytes()[usize::from(d[d.iamax()] < 0.0)] as char
            })
            .collect()
    }

    /// The step in mm from one voxel to the next along axis 0 (width), 1 (height) or 2 (slices).
    pub fn direction(&self, axis: usize) -> Vector3<f64> {
        self.affine.fixed_view::<3, 1>(0, axis).into_owned()
    }

    /// The grid of the slices `range` alone.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the range is empty or reaches past the end.
    pub fn slices(&self, range: std::ops::Range<usize>) -> Result<Self> {
        if range.is_empty() || range.end > self.shape[0] {
            let reason = format!("expected a range within 0..{}", self.shape[0]);
            return Err(Error::parameter("slices", format!("{range:?}"), reason));
        }
        let mut affine = self.affine;
        let start = self.direction(2) * range.start as f64;
        (0..3).for_each(|row| affine[(row, 3)] += start[row]);
        Self::new([range.len(), self.shape[1], self.shape[2]], affine)
    }
}

/// An error unless all spacings are positive and finite.
pub(crate) fn check_spacing(spacing: [f64; 3]) -> Result<()> {
    match spacing.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
        Some(bad) => Err(Error::parameter("spacing", bad, "expected a positive number of millimetres")),
        None => Ok(()),
    }
}

fn show(affine: &Matrix4<f64>) -> String {
    let rows = affine.row_iter().map(|r| format!("{:?}", r.iter().collect::<Vec<_>>()));
    rows.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_survives_rotation_and_slices_keep_their_place() {
        let turn = nalgebra::Rotation3::from_euler_angles(0.3, -0.2, 1.1);
        let mut affine = Matrix4::identity();
        let scaled = turn.matrix() * Matrix3::from_diagonal(&Vector3::new(0.7, 0.8, 2.5));
        affine.fixed_view_mut::<3, 3>(0, 0).copy_from(&scaled);
        let grid = Grid::new([5, 6, 7], affine).unwrap();
        assert_eq!(grid.spacing(), [2.5, 0.8, 0.7]);
        let part = grid.slices(2..4).unwrap();
        let at = |g: &Grid, k: f64| g.affine() * nalgebra::Vector4::new(1.0, 2.0, k, 1.0);
        assert!((at(&part, 1.0) - at(&grid, 3.0)).norm() < 1e-12);
        assert!(grid.slices(4..6).is_err());
    }

    #[test]
    fn refuses_what_is_not_a_grid() {
        assert!(Grid::centred([1, 2, 3], [1.0, -1.0, 1.0]).is_err());
        assert!(Grid::centred([1, 2, 3], [1.0, f64::NAN, 1.0]).is_err());
        assert!(Grid::centred([1, 0, 3], [1.0; 3]).is_err());
        assert!(Grid::new([1, 2, 3], Matrix4::zeros()).is_err());
        assert!(Grid::new([usize::MAX, 2, 3], Matrix4::identity()).is_err());
    }
}
