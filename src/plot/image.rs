//! A picture of one plane: cuts through volumes, and resampling to pixels of the screen.

use candle_core::Tensor;
use ndarray::ArrayD;

use crate::error::{Error, Result};
use crate::tensor::Real;

/// A plane of a volume [slices, rows, columns].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// One slice: rows by columns.
    Axial,
    /// One row of every slice: slices (the first at the bottom) by columns.
    Coronal,
    /// One column of every slice: slices (the first at the bottom) by rows.
    Sagittal,
}

/// Values on a rectangular grid, with the size of a pixel.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Row-major values.
    pub values: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Pixel size [down, across], in mm (only the ratio matters for drawing).
    pub spacing: [f64; 2],
}

impl Image {
    /// From a real tensor [height, width].
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// let x = Tensor::zeros((2, 3), DType::F64, &Device::Cpu)?;
    /// assert_eq!(wellposed::plot::Image::new(&x, [1.0, 1.0])?.width, 3);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another rank, an empty tensor, a spacing that is not positive.
    pub fn new(x: &Tensor, spacing: [f64; 2]) -> Result<Self> {
        let &[height, width] = x.dims() else {
            return Err(Error::shape("picture", "[height, width]", x.dims()));
        };
        if x.elem_count() == 0 {
            return Err(Error::shape("picture", "at least one pixel", x.dims()));
        }
        if spacing.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err(Error::parameter("spacing", format!("{spacing:?}"), "must be positive, in mm"));
        }
        Ok(Self { values: f32::to_vec(x)?, height, width, spacing })
    }

    /// A function of two variables from its values [x, y] at evenly spaced points: x runs to the right, y upwards.
    ///
    /// ```
    /// let u = ndarray::array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
    /// assert_eq!(wellposed::plot::Image::of_function(&u)?.values, [2.0, 4.0, 1.0, 3.0]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where there are other axes, or no points.
    pub fn of_function(values: &ArrayD<f64>) -> Result<Self> {
        let &[width, height] = values.shape() else {
            return Err(Error::shape("function", "values [x, y]", values.shape()));
        };
        if values.is_empty() {
            return Err(Error::shape("function", "at least one value", values.shape()));
        }
        let upwards = (0..height).rev().flat_map(|y| (0..width).map(move |x| values[[x, y]] as f32));
        Ok(Self { values: upwards.collect(), height, width, spacing: [1.0, 1.0] })
    }

    /// The plane number `index` of a volume [slices, rows, columns] with voxels of `spacing` mm, in that order.
    ///
    /// # Errors
    /// A volume of another rank, an index outside the volume.
    pub fn cut(volume: &Tensor, plane: Plane, index: usize, spacing: [f64; 3]) -> Result<Self> {
        let &[_, _, _] = volume.dims() else {
            return Err(Error::shape("volume", "[slices, rows, columns]", volume.dims()));
        };
        let [slice, row, column] = spacing;
        let (axis, spacing) = match plane {
            Plane::Axial => (0, [row, column]),
            Plane::Coronal => (1, [slice, column]),
            Plane::Sagittal => (2, [slice, row]),
        };
        let count = volume.dims()[axis];
        if index >= count {
            return Err(Error::parameter("plane", index, format!("the volume has {count} of them")));
        }
        let image = Self::new(&volume.narrow(axis, index, 1)?.squeeze(axis)?, spacing)?;
        Ok(if plane == Plane::Axial { image } else { image.flipped(true, false) })
    }

    /// Mirrored top to bottom, or left to right, or both.
    pub fn flipped(mut self, vertical: bool, horizontal: bool) -> Self {
        if horizontal {
            self.values.chunks_mut(self.width).for_each(<[f32]>::reverse);
        }
        if vertical {
            self.values = self.values.chunks(self.width).rev().flatten().copied().collect();
        }
        self
    }

    /// The difference, value by value.
    ///
    /// # Errors
    /// [`Error::Shape`] where the sizes differ.
    pub fn minus(&self, other: &Self) -> Result<Self> {
        if (self.height, self.width) != (other.height, other.width) {
            let expected = format!("[{}, {}]", other.height, other.width);
            return Err(Error::shape("picture", expected, &[self.height, self.width]));
        }
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a - b).collect();
        Ok(Self { values, ..self.clone() })
    }

    /// The physical height over the physical width.
    pub fn aspect(&self) -> f64 {
        self.height as f64 * self.spacing[0] / (self.width as f64 * self.spacing[1])
    }

    /// The values on a grid of `height` × `width` pixels over the same field: linear interpolation where it
    /// grows, a triangle-weighted mean where it shrinks.
    pub(super) fn resampled(&self, height: usize, width: usize) -> Vec<f32> {
        let across = weights(self.width, width);
        let down = weights(self.height, height);
        let mut wide = vec![0f32; self.height * width];
        for (row, out) in self.values.chunks(self.width).zip(wide.chunks_mut(width)) {
            for (out, (first, taps)) in out.iter_mut().zip(&across) {
                *out = taps.iter().zip(&row[*first..]).map(|(w, v)| w * v).sum();
            }
        }
        let mut result = vec![0f32; height * width];
        for (out, (first, taps)) in result.chunks_mut(width).zip(&down) {
            for (weight, row) in taps.iter().zip(wide.chunks(width).skip(*first)) {
                out.iter_mut().zip(row).for_each(|(out, v)| *out += weight * v);
            }
        }
        result
    }
}

/// For each of `to` pixels the first of `from` samples it depends on, and the weights of those from there on.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let step = from as f64 / to as f64;
    let reach = step.max(1.0);
    (0..to)
        .map(|pixel| {
            let centre = (pixel as f64 + 0.5) * step - 0.5;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach).floor() as usize).min(from - 1);
            let taps: Vec<f64> =
                (first..=last).map(|s| (1.0 - (s as f64 - centre).abs() / reach).max(0.0)).collect();
            let total: f64 = taps.iter().sum();
            (first, taps.into_iter().map(|w| (w / total) as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn cuts_are_the_planes_of_the_volume() {
        let x = Tensor::arange(0f32, 24., &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
        let spacing = [5.0, 2.0, 1.0];
        let axial = Image::cut(&x, Plane::Axial, 1, spacing).unwrap();
        assert_eq!((axial.values[0], axial.height, axial.width, axial.spacing), (12.0, 3, 4, [2.0, 1.0]));
        let coronal = Image::cut(&x, Plane::Coronal, 2, spacing).unwrap();
        assert_eq!(coronal.values, [20., 21., 22., 23., 8., 9., 10., 11.]);
        assert_eq!(coronal.aspect(), 10.0 / 4.0);
        let sagittal = Image::cut(&x, Plane::Sagittal, 3, spacing).unwrap();
        assert_eq!(sagittal.values, [15., 19., 23., 3., 7., 11.]);
        assert!(Image::cut(&x, Plane::Sagittal, 4, spacing).is_err());
        assert_eq!(axial.clone().flipped(true, true).values[0], 23.0);
    }

    #[test]
    fn resampling_keeps_constants_ramps_and_means() {
        let ramp: Vec<f32> = (0..8 * 8).map(|i| (i % 8) as f32).collect();
        let image = Image { values: ramp, height: 8, width: 8, spacing: [1.0, 1.0] };
        let large = image.resampled(16, 32);
        assert!((large[16] - (16.5 / 4.0 - 0.5)).abs() < 1e-5);
        let small = image.resampled(4, 4);
        assert!((small.iter().sum::<f32>() / 16.0 - 3.5).abs() < 1e-5);
        let flat = Image { values: vec![3.0; 64], ..image };
        assert!(flat.resampled(5, 13).iter().all(|v| (v - 3.0).abs() < 1e-5));
    }
}
