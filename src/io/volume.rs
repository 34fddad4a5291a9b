//! Volumes: voxels, their place in the patient, and their unit.

use candle_core::{DType, Device, Tensor};
use nalgebra::Matrix4;

use crate::error::{Error, Result};
use crate::io::Grid;
use crate::tensor::{Field, vector};

/// What the numbers of a volume mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unit {
    /// Hounsfield units: air −1000, water 0.
    Hounsfield,
    /// Linear attenuation coefficient in 1/mm.
    PerMillimetre,
    /// No physical unit, such as the magnitude of an MR image.
    #[default]
    Arbitrary,
}

impl Unit {
    /// The unit's sign in text and files: `HU`, `1/mm`, or nothing.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Hounsfield => "HU",
            Self::PerMillimetre => "1/mm",
            Self::Arbitrary => "",
        }
    }

    /// The unit with this sign.
    pub fn from_symbol(symbol: &str) -> Option<Self> {
        [Self::Hounsfield, Self::PerMillimetre, Self::Arbitrary].into_iter().find(|u| u.symbol() == symbol)
    }
}

/// Voxels [slices, height, width] (complex: with a trailing [re, im]), f32 on the CPU, with the place of each
/// voxel in the patient and the unit of the numbers.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::io::{Unit, Volume};
/// let data = Tensor::zeros((4, 64, 64), DType::F32, &Device::Cpu).unwrap();
/// let volume = Volume::centred(data, [2.0, 0.7, 0.7], Unit::Hounsfield).unwrap();
/// assert_eq!(volume.grid().spacing(), [2.0, 0.7, 0.7]);
/// ```
#[derive(Clone, Debug)]
pub struct Volume {
    data: Tensor,
    grid: Grid,
    unit: Unit,
}

impl Volume {
    /// A volume from voxels [slices, height, width] (or with a trailing [re, im]) on any device, the affine
    /// (voxel (i, j, k) = (column, row, slice) → RAS mm) and the unit.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of axes; [`Error::Parameter`] for an affine that is no
    /// coordinate system; [`Error::NotFinite`] for NaN or infinite voxels.
    pub fn new(data: Tensor, affine: Matrix4<f64>, unit: Unit) -> Result<Self> {
        let grid = Grid::new(shape_of(&data)?, affine)?;
        Self::on_grid(data, grid, unit)
    }

    /// A volume without a known orientation: spacing [z, y, x] in mm. See [`Grid::centred`].
    pub fn centred(data: Tensor, spacing: [f64; 3], unit: Unit) -> Result<Self> {
        let grid = Grid::centred(shape_of(&data)?, spacing)?;
        Self::on_grid(data, grid, unit)
    }

    /// A volume on a known grid, such as a reconstruction on the grid of the scanned volume.
    ///
    /// # Errors
    /// [`Error::Shape`] where the voxels don't fit the grid; [`Error::NotFinite`].
    pub fn on_grid(data: Tensor, grid: Grid, unit: Unit) -> Result<Self> {
        if shape_of(&data)? != grid.shape() {
            return Err(Error::shape("volume", format!("{:?}, the grid's", grid.shape()), data.dims()));
        }
        let data = data.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
        vector::require_finite("volume", &data)?;
        Ok(Self { data, grid, unit })
    }

    /// Voxels [slices, height, width] or [slices, height, width, 2], f32 on the CPU.
    pub fn data(&self) -> &Tensor {
        &self.data
    }

    /// Shape and place of the voxels.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// What the numbers mean.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Real or complex voxels.
    pub fn field(&self) -> Field {
        if self.data.rank() == 4 { Field::Complex } else { Field::Real }
    }

    /// The same voxels with another unit, where the file did not say it.
    pub fn with_unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// Other voxels at the same place: shape [slices, height, width] as here, real or complex.
    pub fn with_data(&self, data: Tensor, unit: Unit) -> Result<Self> {
        Self::on_grid(data, self.grid.clone(), unit)
    }

    /// The magnitude of a complex volume; a real volume as it is.
    pub fn magnitude(&self) -> Result<Self> {
        match self.field() {
            Field::Real => Ok(self.clone()),
            Field::Complex => {
                let magnitude = self.data.sqr()?.sum(3)?.sqrt()?;
                self.with_data(magnitude, self.unit)
            }
        }
    }

    /// The slices `range` alone, at their place.
    pub fn slices(&self, range: std::ops::Range<usize>) -> Result<Self> {
        let grid = self.grid.slices(range.clone())?;
        let data = self.data.narrow(0, range.start, range.len())?.contiguous()?;
        Ok(Self { data, grid, unit: self.unit })
    }

    /// The unit, or, for files that can't say it, Hounsfield where values below −200 occur: neither a
    /// magnitude nor an attenuation is that negative.
    pub(crate) fn infer_unit(self) -> Result<Self> {
        if self.unit != Unit::Arbitrary || self.field() == Field::Complex {
            return Ok(self);
        }
        let lowest = self.data.flatten_all()?.min(0)?.to_scalar::<f32>()?;
        Ok(if lowest < -200.0 { self.with_unit(Unit::Hounsfield) } else { self })
    }
}

fn shape_of(data: &Tensor) -> Result<[usize; 3]> {
    match *data.dims() {
        [slices, height, width] | [slices, height, width, 2] => Ok([slices, height, width]),
        ref found => {
            Err(Error::shape("volume", "[slices, height, width] (complex: with a trailing 2)", found))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_keeps_its_place() {
        let data = Tensor::arange(0f64, 24.0, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
        let volume = Volume::centred(data.clone(), [3.0, 2.0, 1.0], Unit::Arbitrary).unwrap();
        assert_eq!(volume.data().dtype(), DType::F32);
        assert!(volume.with_data(data.narrow(0, 0, 1).unwrap(), Unit::Arbitrary).is_err());
        let top = volume.slices(1..2).unwrap();
        assert_eq!(top.data().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0], 12.0);
        assert_eq!(top.grid().affine()[(2, 3)], 1.5);
        let bad = (data / 0.0).unwrap();
        assert!(matches!(Volume::centred(bad, [1.0; 3], Unit::Arbitrary), Err(Error::NotFinite { .. })));
    }

    #[test]
    fn magnitude_of_three_and_four_is_five() {
        let data = Tensor::new(&[[[[3f32, 4.0]]]], &Device::Cpu).unwrap();
        let volume = Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap();
        assert_eq!(volume.field(), Field::Complex);
        let magnitude = volume.magnitude().unwrap();
        assert_eq!(magnitude.data().to_vec3::<f32>().unwrap(), [[[5.0]]]);
    }

    #[test]
    fn deep_negative_numbers_are_hounsfield() {
        let of = |v: f32| {
            let data = Tensor::new(&[[[v, 100.0]]], &Device::Cpu).unwrap();
            Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap().infer_unit().unwrap().unit()
        };
        assert_eq!((of(-1000.0), of(-3.0)), (Unit::Hounsfield, Unit::Arbitrary));
    }
}
