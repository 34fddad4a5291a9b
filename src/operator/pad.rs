//! Zero padding of images.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::device::{Gpu, Inset};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, launch};

/// The image [.., height, width] in the middle of a larger one of zeros; other axes are left alone. Index
/// ⌊n/2⌋ of an axis stays the centre. The adjoint crops (and takes real parts, where the padding is complex).
#[derive(Clone, Debug)]
pub struct Pad {
    domain: Space,
    range: Space,
    corner: [usize; 2],
}

impl Pad {
    /// Pads to `sides` = [height, width], real to real or complex to complex.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::Pad, tensor::Space};
    /// let pad = Pad::new(&Space::real(&[1, 2], DType::F64, &Device::Cpu), [1, 4])?;
    /// let x = Tensor::new(&[[1f64, 2.]], &Device::Cpu)?;
    /// assert_eq!(pad.apply(&x)?.to_vec2::<f64>()?, [[0., 1., 2., 0.]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the image is empty, has fewer than two axes, or is larger than `sides`.
    pub fn new(domain: &Space, sides: [usize; 2]) -> Result<Self> {
        let shape = domain.shape();
        let fits = match shape {
            [.., height, width] => *height <= sides[0] && *width <= sides[1] && domain.elements() > 0,
            _ => false,
        };
        if !fits {
            return Err(Error::shape("padding", format!("[.., height, width] within {sides:?}"), shape));
        }
        let (leading, image) = shape.split_at(shape.len() - 2);
        let corner = [sides[0] / 2 - image[0] / 2, sides[1] / 2 - image[1] / 2];
        Ok(Self { range: domain.with_shape(&[leading, &sides].concat()), domain: domain.clone(), corner })
    }

    /// Pads a real image to a complex one, for a Fourier transform.
    ///
    /// # Errors
    /// As for [`Pad::new`], and where the image is complex already.
    pub fn complex(domain: &Space, sides: [usize; 2]) -> Result<Self> {
        if domain.field() == Field::Complex {
            return Err(Error::parameter("image to pad", domain, "must be real"));
        }
        let pad = Self::new(domain, sides)?;
        Ok(Self { range: pad.range.with_field(Field::Complex), ..pad })
    }

    fn launch(&self, crop: bool, x: &Tensor, out: &mut Buffer) -> Result<()> {
        let last =
            |space: &Space| [space.shape()[space.shape().len() - 2], space.shape()[space.shape().len() - 1]];
        let kernel = Place {
            image: last(&self.domain),
            padded: last(&self.range),
            corner: self.corner,
            components: [self.domain.components(), self.range.components()],
            crop,
        };
        launch(kernel, &[x], &mut [out])
    }
}

struct Place {
    image: [usize; 2],
    padded: [usize; 2],
    corner: [usize; 2],
    /// Stored elements of a pixel of the image and of the padded one.
    components: [usize; 2],
    crop: bool,
}

impl Kernel for Place {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let [own, padded] = self.components;
        let row = self.padded[1] * padded;
        let small = self.image[0] * self.image[1] * own;
        let large = self.padded[0] * row;
        let first = |i: usize| (i + self.corner[0]) * row + self.corner[1] * padded;
        let line = self.image[1] * own;
        let copy = |image: &mut [T], full: &[T]| {
            for (i, to) in image.chunks_exact_mut(line).enumerate() {
                let from = full[first(i)..].chunks_exact(padded);
                to.chunks_exact_mut(own).zip(from).for_each(|(to, from)| to.copy_from_slice(&from[..own]));
            }
        };
        if self.crop {
            outputs[0]
                .par_chunks_mut(small)
                .zip(inputs[0].par_chunks(large))
                .for_each(|(image, full)| copy(image, full));
            return Ok(());
        }
        outputs[0].par_chunks_mut(large).zip(inputs[0].par_chunks(small)).for_each(|(full, image)| {
            full.fill(T::zero());
            for (i, from) in image.chunks_exact(line).enumerate() {
                let to = full[first(i)..].chunks_exact_mut(padded);
                to.zip(from.chunks_exact(own)).for_each(|(to, from)| to[..own].copy_from_slice(from));
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let three = |[height, width]: [usize; 2], first| [first, height, width];
        let inset = Inset {
            sides: three(self.image, 1),
            whole: three(self.padded, 1),
            corner: three(self.corner, 0),
            elements: self.components,
        };
        let small = self.image[0] * self.image[1] * self.components[0];
        let (from, to) = (gpu.input(0), gpu.output(0));
        Some(if self.crop {
            gpu.cut(&inset, gpu.output_len(0) / small, from, to)
        } else {
            gpu.fill(to, gpu.output_len(0), 0.0)
                .and_then(|()| gpu.put(&inset, gpu.input_len(0) / small, from, to))
        })
    }
}

impl LinearOperator for Pad {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.launch(false, x, out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        self.launch(true, y, out)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        out.copy_from(x)
    }
}
