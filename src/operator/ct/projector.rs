//! What all ray transforms share: views, which can be taken by themselves.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::ct::vectors::check_views;
use crate::operator::ct::{ConeTransform, FanTransform, FootprintTransform, ParallelBeam, RayTransform};

/// A ray transform, of any geometry: its range is [views, bins] or [rows, views, bins], and it can be cut into subsets
/// of views, as methods with ordered subsets want.
///
/// ```
/// use std::f64::consts::PI;
/// use candle_core::{DType, Device};
/// use wellposed::linalg::LinearOperator;
/// use wellposed::operator::ct::{ImageGrid, ParallelBeam, Projector, RayTransform};
/// let grid = ImageGrid::new(16, 16, 2.0)?;
/// let transform = RayTransform::new(&grid, &ParallelBeam::covering(&grid, 4, PI)?, DType::F32, &Device::Cpu)?;
/// assert_eq!(transform.select(&[2, 0])?.range().shape(), [2, 25]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub trait Projector: LinearOperator {
    /// Number of views: the axis before the last of the range.
    fn views(&self) -> usize;

    /// The transform to these views alone, in this order.
    ///
    /// # Errors
    /// [`Error::Parameter`] where a number is out of range or there is none.
    fn select(&self, views: &[usize]) -> Result<Box<dyn Projector>>;
}

impl Projector for RayTransform {
    fn views(&self) -> usize {
        self.geometry().views()
    }

    fn select(&self, views: &[usize]) -> Result<Box<dyn Projector>> {
        let whole = self.geometry();
        check_views(views, whole.views())?;
        let part =
            ParallelBeam { angles: views.iter().map(|view| whole.angles[*view]).collect(), ..whole.clone() };
        Ok(Box::new(Self::new(self.grid(), &part, self.domain().dtype(), self.domain().device())?))
    }
}

impl Projector for FanTransform {
    fn views(&self) -> usize {
        self.beam().views()
    }

    fn select(&self, views: &[usize]) -> Result<Box<dyn Projector>> {
        let part = self.beam().select(views)?;
        Ok(Box::new(Self::new(self.grid(), &part, self.domain().dtype(), self.domain().device())?))
    }
}

impl Projector for ConeTransform {
    fn views(&self) -> usize {
        self.beam().views()
    }

    fn select(&self, views: &[usize]) -> Result<Box<dyn Projector>> {
        let part = self.beam().select(views)?;
        Ok(Box::new(Self::new(self.grid(), &part, self.domain().dtype(), self.domain().device())?))
    }
}

impl Projector for FootprintTransform {
    fn views(&self) -> usize {
        self.beam().views()
    }

    fn select(&self, views: &[usize]) -> Result<Box<dyn Projector>> {
        self.part(views).map(|part| Box::new(part) as Box<dyn Projector>)
    }
}

/// The data of these views, [batch…, (rows,) views, bins]: what belongs to [`Projector::select`].
///
/// # Errors
/// [`Error::Shape`] where there is no axis of views, [`Error::Parameter`] where a number is out of range.
pub fn select_views(data: &Tensor, views: &[usize]) -> Result<Tensor> {
    let Some(axis) = data.rank().checked_sub(2) else {
        return Err(Error::shape("projections", "[…, views, bins]", data.dims()));
    };
    check_views(views, data.dims()[axis])?;
    let index: Vec<u32> = views.iter().map(|view| *view as u32).collect();
    Ok(data.contiguous()?.index_select(&Tensor::new(index, data.device())?, axis)?)
}

/// The views 0..views in `count` subsets, every count-th view in each, in an order in which neighbouring subsets look
/// from directions far apart (bit reversal: Herman and Meyer 1993).
///
/// ```
/// use wellposed::operator::ct::ordered_subsets;
/// assert_eq!(ordered_subsets(7, 4), [vec![0, 4], vec![2, 6], vec![1, 5], vec![3]]);
/// ```
pub fn ordered_subsets(views: usize, count: usize) -> Vec<Vec<usize>> {
    let count = count.clamp(1, views.max(1));
    let bits = usize::BITS - (count - 1).leading_zeros();
    let reversed = |k: usize| if bits == 0 { 0 } else { k.reverse_bits() >> (usize::BITS - bits) };
    let order = (0..1usize << bits).map(reversed).filter(|first| *first < count);
    order.map(|first| (first..views).step_by(count).collect()).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::ct::{ConeBeam, FanBeam, ImageGrid, VolumeGrid};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::relative_difference;

    #[test]
    fn parts_of_transforms_give_parts_of_the_data() {
        let image = ImageGrid::new(12, 12, 1.0).unwrap();
        let angles: Vec<f64> = (0..6).map(f64::from).collect();
        let fan = FanBeam::new(angles.clone(), 19, 1.5, 30.0, 10.0).unwrap();
        let cone = ConeBeam::new(fan.clone(), 5, 1.5).unwrap();
        let grid = VolumeGrid::new(4, image, 1.0).unwrap();
        let parallel = ParallelBeam::new(angles, 19, 1.0).unwrap();
        let (dtype, device) = (DType::F64, Device::Cpu);
        let all: [Box<dyn Projector>; 3] = [
            Box::new(RayTransform::new(&image, &parallel, dtype, &device).unwrap()),
            Box::new(FanTransform::new(&image, &fan.vectors(), dtype, &device).unwrap()),
            Box::new(ConeTransform::new(&grid, &cone.vectors(), dtype, &device).unwrap()),
        ];
        for a in &all {
            let x = standard_normal(Noise::new(3, 0), a.domain(), &[2]).unwrap();
            let (y, part) = (a.apply(&x).unwrap(), a.select(&[5, 0, 2]).unwrap());
            assert_eq!((a.views(), part.views()), (6, 3));
            let found = part.apply(&x).unwrap();
            assert!(relative_difference(&found, &select_views(&y, &[5, 0, 2]).unwrap()).unwrap() < 1e-12);
            assert!(a.select(&[6]).is_err() && a.select(&[]).is_err() && select_views(&y, &[6]).is_err());
        }
    }

    #[test]
    fn subsets_hold_every_view_once() {
        for (views, count) in [(1, 1), (10, 3), (16, 16), (9, 20), (180, 8)] {
            let subsets = ordered_subsets(views, count);
            let mut all = subsets.concat();
            all.sort_unstable();
            assert_eq!(all, (0..views).collect::<Vec<_>>());
            assert_eq!(subsets.len(), count.min(views));
        }
    }
}
