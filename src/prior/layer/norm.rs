//! Group normalisation, modulated by the noise level, with or without SiLU.

use candle_core::{CpuStorage, CustomOp3, Layout, Result as CandleResult, Shape, Tensor};

use super::ops::{done, map, read, slice};
use super::tape::apply3;
use super::{Fetch, device};
use crate::error::{Error, Result};
use crate::prior::kernel::map::{self as maps, Map};
use crate::prior::kernel::norm::{self as kernel};

/// Group normalisation with learned scale and shift of each channel.
#[derive(Debug)]
pub struct Norm {
    groups: usize,
    epsilon: f64,
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    /// Weights NAME.weight and NAME.bias [channels].
    ///
    /// # Errors
    /// [`Error::Parameter`] where the groups don't divide the channels.
    pub fn load(name: &str, channels: usize, groups: usize, epsilon: f64, fetch: &mut Fetch) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let reason = format!("must divide the {channels} channels of `{name}`");
            return Err(Error::parameter("groups of the normalisation", groups, reason));
        }
        let weight = fetch(&format!("{name}.weight"), &[channels])?;
        Ok(Self { groups, epsilon, weight, bias: fetch(&format!("{name}.bias"), &[channels])? })
    }

    /// The normalised map.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None, false)
    }

    /// SiLU of the normalised map.
    pub fn silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None, true)
    }

    /// SiLU of normalised · (1 + scale) + shift, with scale and shift [images, channels].
    pub fn silu_modulated(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        self.run(x, Some((scale, shift)), true)
    }

    /// γ and β [images, channels]: the weights, or weights · (1 + scale) and so on + shift.
    pub(super) fn coefficients(
        &self,
        images: usize,
        modulation: Option<(&Tensor, &Tensor)>,
    ) -> Result<[Tensor; 2]> {
        Ok(match modulation {
            None => {
                let wide = |v: &Tensor| v.unsqueeze(0)?.broadcast_as((images, v.dim(0)?))?.contiguous();
                [wide(&self.weight)?, wide(&self.bias)?]
            }
            Some((scale, shift)) => {
                let gain = (scale + 1.0)?;
                let bias = gain.broadcast_mul(&self.bias)?;
                [gain.broadcast_mul(&self.weight)?, (bias + shift)?]
            }
        })
    }

    /// The normalisation without its weights, followed by SiLU or not.
    pub(super) fn kernel(&self, silu: bool) -> kernel::Norm {
        kernel::Norm { groups: self.groups, epsilon: self.epsilon, silu }
    }

    fn run(&self, x: &Tensor, modulation: Option<(&Tensor, &Tensor)>, silu: bool) -> Result<Tensor> {
        let [gamma, beta] = self.coefficients(x.dim(0)?, modulation)?;
        let op = Normalise(self.kernel(silu));
        if !x.device().is_cpu() {
            // The fused layer knows no gradients.
            if [x, &gamma, &beta].iter().any(|t| t.track_op()) {
                return op.portable(x, &gamma, &beta);
            }
            return device::normalise(&op.0, &x.contiguous()?, &gamma.contiguous()?, &beta.contiguous()?);
        }
        apply3([x, &gamma, &beta], op)
    }
}

/// f(γ x̂ + β).
pub(super) struct Normalise(pub(super) kernel::Norm);

impl Normalise {
    /// The same by candle's operations, on any device.
    pub(super) fn portable(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        let (images, height, width, channels) = x.dims4()?;
        let groups = x.reshape((images, height * width, self.0.groups, channels / self.0.groups))?;
        let centred = groups.broadcast_sub(&groups.mean_keepdim((1, 3))?)?;
        let variance = centred.sqr()?.mean_keepdim((1, 3))?;
        let unit = centred.broadcast_div(&(variance + self.0.epsilon)?.sqrt()?)?.reshape(x.shape())?;
        let wide = |v: &Tensor| v.reshape((images, 1, 1, channels));
        let y = unit.broadcast_mul(&wide(gamma)?)?.broadcast_add(&wide(beta)?)?;
        Ok(if self.0.silu { y.silu()? } else { y })
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "group normalisation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gamma: &CpuStorage,
        lg: &Layout,
        beta: &CpuStorage,
        lb: &Layout,
    ) -> CandleResult<(CpuStorage, Shape)> {
        Ok(done(self.0.apply(map(x, lx)?, slice(gamma, lg)?, slice(beta, lb)?), lx.dims()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> CandleResult<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (images, height, width, channels) = x.dims4()?;
        let shape = maps::Shape { images, height, width, channels };
        let found = read([x, gamma, beta, g], |[x, gamma, beta, g]| {
            self.0.gradients(Map::new(shape, x), gamma, beta, Map::new(shape, g))
        })?;
        let tensor = |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), x.device());
        Ok((Some(tensor(found.x, x)?), Some(tensor(found.gamma, gamma)?), Some(tensor(found.beta, beta)?)))
    }
}
