//! Networks as denoisers: layout, padding, element type.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::{Network, Prediction};
use crate::error::{Error, Result};
use crate::prior::{Denoiser, Pullback, require_level};
use crate::tensor::{Buffer, Field, Space, vector};

/// A network made a [`Denoiser`]: of real images where it has one channel, of complex ones where it has two.
#[derive(Clone, Debug)]
pub struct NetworkDenoiser {
    network: Arc<dyn Network>,
    prediction: Prediction,
    range: (f64, f64),
}

impl NetworkDenoiser {
    /// The denoiser of a network trained on data in `range`.
    ///
    /// # Errors
    /// [`Error::Parameter`] where the network has neither 1 nor 2 channels.
    pub fn new(network: Arc<dyn Network>, prediction: Prediction, range: (f64, f64)) -> Result<Self> {
        if !(1..=2).contains(&network.channels()) {
            let reason = "a prior of images has 1 channel, or 2 for re and im";
            return Err(Error::parameter("channels", network.channels(), reason));
        }
        Ok(Self { network, prediction, range })
    }

    /// How a batch of tensors like `x` goes through the network.
    fn passage(&self, x: &Tensor) -> Result<Passage> {
        let complex = self.field() == Field::Complex;
        let dims = x.dims();
        let rank = if complex { 3 } else { 2 };
        if dims.len() < rank || (complex && dims.last() != Some(&2)) || x.elem_count() == 0 {
            let tail = if complex { ", 2] (complex: trailing [re, im])" } else { "]" };
            return Err(Error::shape("argument of the prior", format!("[batch…, height, width{tail}"), dims));
        }
        let batch = dims.len() - rank;
        Ok(Passage {
            shape: dims.to_vec(),
            dtype: x.dtype(),
            items: dims[..batch].iter().product(),
            complex,
            rows: Reflection::new(dims[batch], self.network.granule()),
            columns: Reflection::new(dims[batch + 1], self.network.granule()),
        })
    }
}

/// Between a sampler's array and the network's [items, channels, rows, columns].
#[derive(Clone)]
struct Passage {
    shape: Vec<usize>,
    dtype: DType,
    items: usize,
    complex: bool,
    rows: Reflection,
    columns: Reflection,
}

impl Passage {
    fn enter(&self, x: &Tensor) -> Result<Tensor> {
        let (h, w) = (self.rows.length, self.columns.length);
        let x = x.to_dtype(DType::F32)?;
        Ok(match self.complex {
            true => x.reshape((self.items, h, w, 2))?.permute((0, 3, 1, 2))?.contiguous()?,
            false => x.reshape((self.items, 1, h, w))?,
        })
    }

    fn leave(&self, y: &Tensor) -> Result<Tensor> {
        let y = y.narrow(1, 0, if self.complex { 2 } else { 1 })?;
        let y = if self.complex { y.permute((0, 2, 3, 1))? } else { y };
        Ok(y.contiguous()?.reshape(&self.shape[..])?.to_dtype(self.dtype)?)
    }

    fn pad(&self, x: &Tensor) -> Result<Tensor> {
        self.columns.pad(&self.rows.pad(x, 2)?, 3)
    }

    fn pad_adjoint(&self, x: &Tensor) -> Result<Tensor> {
        self.rows.pad_adjoint(&self.columns.pad_adjoint(x, 3)?, 2)
    }

    fn crop(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(2, 0, self.rows.length)?.narrow(3, 0, self.columns.length)?)
    }

    fn crop_adjoint(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.pad_with_zeros(2, 0, self.rows.padded - self.rows.length)?;
        Ok(x.pad_with_zeros(3, 0, self.columns.padded - self.columns.length)?)
    }
}

/// Extends an axis to a multiple of the network's granule by reflection at its end.
#[derive(Clone)]
struct Reflection {
    length: usize,
    padded: usize,
}

impl Reflection {
    fn new(length: usize, granule: usize) -> Self {
        Self { length, padded: length.next_multiple_of(granule) }
    }

    fn sources(&self, x: &Tensor) -> Result<Tensor> {
        let period = 2 * self.length;
        let fold = |i: usize| (i % period).min(period - 1 - i % period) as u32;
        Ok(Tensor::from_iter((0..self.padded).map(fold), x.device())?)
    }

    fn pad(&self, x: &Tensor, axis: usize) -> Result<Tensor> {
        if self.padded == self.length {
            return Ok(x.clone());
        }
        Ok(x.index_select(&self.sources(x)?, axis)?)
    }

    fn pad_adjoint(&self, x: &Tensor, axis: usize) -> Result<Tensor> {
        if self.padded == self.length {
            return Ok(x.clone());
        }
        let mut shape = x.dims().to_vec();
        shape[axis] = self.length;
        let zeros = Tensor::zeros(shape, x.dtype(), x.device())?;
        Ok(zeros.index_add(&self.sources(x)?, &x.contiguous()?, axis)?)
    }
}

/// a x + b y.
fn combine(a: f64, x: &Tensor, b: f64, y: &Tensor) -> Result<Tensor> {
    let mut out = Buffer::zeros(x.dims(), x.dtype(), x.device())?;
    vector::lincomb(&[(a, x), (b, y)], &mut out)?;
    Ok(out.freeze())
}

impl Denoiser for NetworkDenoiser {
    fn field(&self) -> Field {
        if self.network.channels() == 2 { Field::Complex } else { Field::Real }
    }

    fn range(&self) -> (f64, f64) {
        self.range
    }

    fn check(&self, image: &Space) -> Result<()> {
        if image.field() != self.field() {
            let reason = format!("the prior is of {:?} images", self.field());
            return Err(Error::parameter("field of the image", format!("{:?}", image.field()), reason));
        }
        if image.shape().len() < 2 || image.scalars() == 0 {
            return Err(Error::shape("image for the prior", "[…, height, width]", image.shape()));
        }
        Ok(())
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        require_level(sigma)?;
        let (c, passage) = (self.prediction.coefficients(sigma), self.passage(x)?);
        let input = passage.pad(&passage.enter(x)?.affine(c.input, 0.0)?)?;
        let f = passage.leave(&passage.crop(&self.network.forward(&input, c.time)?)?)?;
        combine(c.skip, x, c.out, &f)
    }

    fn denoise_vjp(&self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        require_level(sigma)?;
        let (c, passage) = (self.prediction.coefficients(sigma), self.passage(x)?);
        let input = passage.pad(&passage.enter(x)?.affine(c.input, 0.0)?)?;
        let (f, pull) = self.network.forward_vjp(&input, c.time)?;
        let value = combine(c.skip, x, c.out, &passage.leave(&passage.crop(&f)?)?)?;
        let spare = f.dim(1)? - self.network.channels();
        let back = move |cotangent: &Tensor| {
            if cotangent.dims() != passage.shape {
                return Err(Error::shape("cotangent", format!("{:?}", passage.shape), cotangent.dims()));
            }
            let inner = passage.crop_adjoint(&passage.enter(cotangent)?.pad_with_zeros(1, 0, spare)?)?;
            let pulled = passage.leave(&passage.pad_adjoint(&pull.pull(&inner)?)?)?;
            combine(c.skip, cotangent, c.out * c.input, &pulled)
        };
        Ok((value, Pullback::new(back)))
    }
}
