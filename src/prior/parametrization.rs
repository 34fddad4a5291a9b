//! One denoiser D(x, σ) out of any network: what it predicts, on what scale, at what time.
//!
//! Every convention has the form D(x, σ) = c_skip x + c_out F(c_in x, t):
//!
//! | [`Prediction`] | c_skip | c_out | c_in | t |
//! |---|---|---|---|---|
//! | noise ε | 1 | −σ | √ᾱ | time(σ) |
//! | clean image x₀ | 0 | 1 | √ᾱ | time(σ) |
//! | velocity v = √ᾱ ε − √(1−ᾱ) x₀ | ᾱ | −√(1−ᾱ) | √ᾱ | time(σ) |
//! | score of x_t | 1 | σ √(1−ᾱ) | √ᾱ | time(σ) |
//! | EDM residual | σ_d²/(σ²+σ_d²) | σσ_d/√(σ²+σ_d²) | 1/√(σ²+σ_d²) | ln σ/4 |

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::prior::schedule::{Betas, Sde};
use crate::prior::{Denoiser, Pullback, require_level};
use crate::tensor::{Buffer, Field, Space, vector};

/// A network F(x, t) on f32 images [batch, channels, height, width], as it was trained.
pub trait Network: Debug + Send + Sync {
    /// Channels of the argument: 1 for real images, 2 (re, im) for complex ones.
    fn channels(&self) -> usize;
    /// What height and width must be multiples of; other sizes are padded by reflection.
    fn granule(&self) -> usize;
    /// F(x, t); the value may have more channels than x (learned variances), the prediction first.
    fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor>;
    /// F(x, t) and its vector–Jacobian product with respect to x.
    fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)>;
}

/// The noise levels and times that a network was trained on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Times {
    /// Integer times of a variance-preserving table; levels in between get fractional times.
    Discrete(DiscreteTimes),
    /// Continuous times; the network gets t multiplied by `scale` (999 for score-SDE's VP networks).
    Continuous {
        /// The equation.
        sde: Sde,
        /// The factor of t.
        scale: f64,
    },
    /// Variance exploding; the network gets σ itself (score-SDE's NCSN++ takes its logarithm inside).
    Sigma,
}

/// The times 0 … T − 1 of a variance-preserving table, as a function of the noise level.
///
/// ```
/// use wellposed::prior::{parametrization::DiscreteTimes, schedule::Betas};
/// let times = DiscreteTimes::new(Betas::default(), 1000)?;
/// let sigma = Betas::default().sigmas(1000)[400];
/// assert!((times.time(sigma) - 400.0).abs() < 1e-9);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DiscreteTimes {
    /// ln σ at the integer times, rising.
    log_sigma: Arc<[f64]>,
}

impl DiscreteTimes {
    /// The times of a table of this length.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the noise levels are positive and rise from time to time, at least twice.
    pub fn new(betas: Betas, steps: usize) -> Result<Self> {
        let log_sigma: Arc<[f64]> = betas.sigmas(steps).iter().map(|s| s.ln()).collect();
        if steps < 2 || !log_sigma.windows(2).all(|w| w[0] < w[1]) || !log_sigma.iter().all(|l| l.is_finite())
        {
            let reason = format!("{steps} noise levels of this table don't rise steadily");
            return Err(Error::parameter("betas", format!("{betas:?}"), reason));
        }
        Ok(Self { log_sigma })
    }

    /// The (fractional) time of noise level σ by interpolation in ln σ, clamped to the ends.
    pub fn time(&self, sigma: f64) -> f64 {
        let (wanted, last) = (sigma.ln(), self.log_sigma.len() - 1);
        let above = self.log_sigma.partition_point(|&l| l < wanted);
        if above == 0 || above > last {
            return if above == 0 { 0.0 } else { last as f64 };
        }
        let (low, high) = (self.log_sigma[above - 1], self.log_sigma[above]);
        (above - 1) as f64 + (wanted - low) / (high - low)
    }
}

/// What a network's output stands for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Prediction {
    /// The noise ε of x_t = α x₀ + s ε.
    Noise(Times),
    /// The clean image x₀.
    Sample(Times),
    /// v = α ε − s x₀ (Salimans & Ho 2022); variance-preserving schedules only.
    Velocity(Times),
    /// The score of x_t, −ε/s.
    Score(Times),
    /// The residual of EDM's preconditioning with the standard deviation σ_d of the data.
    Edm {
        /// σ_d; .5 for images in [−1, 1].
        sigma_data: f64,
    },
}

/// The numbers of D(x, σ) = `skip`·x + `out`·F(`input`·x, `time`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// c_skip.
    pub skip: f64,
    /// c_out.
    pub out: f64,
    /// c_in.
    pub input: f64,
    /// The time that the network is told.
    pub time: f64,
}

/// Signal α and noise s of x_t = α x₀ + s n, and the time that the network is told.
struct Level {
    signal: f64,
    noise: f64,
    time: f64,
}

impl Times {
    fn at(&self, sigma: f64) -> Level {
        let preserving = 1.0 / sigma.hypot(1.0);
        match self {
            Self::Discrete(times) => {
                Level { signal: preserving, noise: sigma * preserving, time: times.time(sigma) }
            }
            Self::Continuous { sde, scale } => {
                let t = sde.time(sigma);
                let (signal, noise) = sde.marginal(t);
                Level { signal, noise, time: scale * t }
            }
            Self::Sigma => Level { signal: 1.0, noise: sigma, time: sigma },
        }
    }
}

impl Prediction {
    /// The coefficients at noise level σ.
    pub fn coefficients(&self, sigma: f64) -> Coefficients {
        match self {
            Self::Noise(times) => {
                let Level { signal, time, .. } = times.at(sigma);
                Coefficients { skip: 1.0, out: -sigma, input: signal, time }
            }
            Self::Sample(times) => {
                let Level { signal, time, .. } = times.at(sigma);
                Coefficients { skip: 0.0, out: 1.0, input: signal, time }
            }
            Self::Velocity(times) => {
                // x₀ = α x_t − s v with x_t = α x and α² + s² = 1.
                let Level { signal, noise, time } = times.at(sigma);
                Coefficients { skip: signal.powi(2), out: -noise, input: signal, time }
            }
            Self::Score(times) => {
                // ε = −s · score, and σ s = s²/α.
                let Level { signal, noise, time } = times.at(sigma);
                Coefficients { skip: 1.0, out: sigma * noise, input: signal, time }
            }
            Self::Edm { sigma_data } => {
                let total = sigma.hypot(*sigma_data);
                Coefficients {
                    skip: (sigma_data / total).powi(2),
                    out: sigma * sigma_data / total,
                    input: 1.0 / total,
                    time: sigma.ln() / 4.0,
                }
            }
        }
    }
}

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

/// A prior of data on another scale: z = scale·x + offset, with x in the range of the inner prior.
///
/// D'(z, σ) = scale·D((z − offset)/scale, σ/|scale|) + offset, so that a sampler can work in physical units.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::prior::{Denoiser, mixture::Mixture, parametrization::Rescaled};
/// let unit = Mixture::new(&[1, 1], vec![(1.0, vec![0.0], 1.0)])?;
/// let prior = Rescaled::new(unit, 500.0, 1000.0)?; // N(1000, 500²)
/// let d = prior.denoise(&Tensor::new(&[[2000f64]], &Device::Cpu)?, 500.0)?;
/// assert_eq!(d.to_vec2::<f64>()?, [[1500.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rescaled<D> {
    inner: D,
    scale: f64,
    offset: f64,
}

impl<D: Denoiser> Rescaled<D> {
    /// The prior of scale·x + offset; the offset is added to re and im alike where complex.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless the scale is a number other than 0 and the offset is finite.
    pub fn new(inner: D, scale: f64, offset: f64) -> Result<Self> {
        if scale == 0.0 || !scale.is_finite() || !offset.is_finite() {
            return Err(Error::parameter("scale", scale, "must be finite and not 0, the offset finite"));
        }
        Ok(Self { inner, scale, offset })
    }

    fn inside(&self, z: &Tensor) -> Result<Tensor> {
        Ok(z.affine(1.0 / self.scale, -self.offset / self.scale)?)
    }

    fn outside(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.affine(self.scale, self.offset)?)
    }
}

impl<D: Denoiser> Denoiser for Rescaled<D> {
    fn field(&self) -> Field {
        self.inner.field()
    }

    fn range(&self) -> (f64, f64) {
        let (low, high) = self.inner.range();
        let (a, b) = (self.scale * low + self.offset, self.scale * high + self.offset);
        (a.min(b), a.max(b))
    }

    fn check(&self, image: &Space) -> Result<()> {
        self.inner.check(image)
    }

    fn denoise(&self, z: &Tensor, sigma: f64) -> Result<Tensor> {
        self.outside(&self.inner.denoise(&self.inside(z)?, sigma / self.scale.abs())?)
    }

    fn denoise_vjp(&self, z: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        let (value, pull) = self.inner.denoise_vjp(&self.inside(z)?, sigma / self.scale.abs())?;
        Ok((self.outside(&value)?, pull))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::prior::mixture::Mixture;
    use crate::tensor::Real;
    use crate::testing::relative_difference;

    /// The exact network of x₀ ~ N(m, v) for one kind of prediction: affine in x_t.
    #[derive(Clone, Debug)]
    struct Affine {
        /// Slope and shift at each time.
        at: fn(f64) -> (f64, f64),
    }

    impl Network for Affine {
        fn channels(&self) -> usize {
            1
        }
        fn granule(&self) -> usize {
            4
        }
        fn forward(&self, x: &Tensor, time: f64) -> Result<Tensor> {
            assert_eq!(x.dims()[2..], [4, 4]);
            let (slope, shift) = (self.at)(time);
            Ok(x.affine(slope, shift)?.pad_with_zeros(1, 0, 1)?)
        }
        fn forward_vjp(&self, x: &Tensor, time: f64) -> Result<(Tensor, Pullback)> {
            let (slope, _) = (self.at)(time);
            let pull = move |c: &Tensor| Ok(c.narrow(1, 0, 1)?.contiguous()?.affine(slope, 0.0)?);
            Ok((self.forward(x, time)?, Pullback::new(pull)))
        }
    }

    const MEAN: f64 = 0.3;
    const VARIANCE: f64 = 0.49;

    /// E[x₀ | x_t] = a x_t + b at one level.
    fn posterior_mean(signal: f64, noise: f64) -> (f64, f64) {
        let slope = signal * VARIANCE / (signal * signal * VARIANCE + noise * noise);
        (slope, MEAN * (1.0 - slope * signal))
    }

    fn ddpm(t: f64) -> (f64, f64) {
        // The table at integer times only: the test uses its own noise levels.
        let alpha = Betas::default().alphas_cumprod(1000)[t.round() as usize];
        (alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    /// Slope and shift of a network at a time.
    type Line = fn(f64) -> (f64, f64);

    fn exact(kind: &str) -> (Prediction, Line) {
        let times = Times::Discrete(DiscreteTimes::new(Betas::default(), 1000).unwrap());
        match kind {
            "sample" => (Prediction::Sample(times), |t| posterior_mean(ddpm(t).0, ddpm(t).1)),
            "noise" => (Prediction::Noise(times), |t| {
                let (signal, noise) = ddpm(t);
                let (a, b) = posterior_mean(signal, noise);
                ((1.0 - signal * a) / noise, -signal * b / noise)
            }),
            "velocity" => (Prediction::Velocity(times), |t| {
                let (signal, noise) = ddpm(t);
                let (a, b) = posterior_mean(signal, noise);
                ((signal - a) / noise, -b / noise)
            }),
            "score" => (Prediction::Score(Times::Continuous { sde: Sde::SUB_VP, scale: 999.0 }), |t| {
                let (signal, noise) = Sde::SUB_VP.marginal(t / 999.0);
                let (a, b) = posterior_mean(signal, noise);
                (-(1.0 - signal * a) / noise.powi(2), signal * b / noise.powi(2))
            }),
            "ve score" => (Prediction::Score(Times::Sigma), |sigma| {
                let (a, b) = posterior_mean(1.0, sigma);
                ((a - 1.0) / sigma.powi(2), b / sigma.powi(2))
            }),
            _ => (Prediction::Edm { sigma_data: 0.5 }, |time| {
                let sigma = (4.0 * time).exp();
                let (a, b) = posterior_mean(1.0, sigma);
                let c = Prediction::Edm { sigma_data: 0.5 }.coefficients(sigma);
                ((a - c.skip) / (c.out * c.input), b / c.out)
            }),
        }
    }

    #[test]
    fn every_parametrization_of_a_normal_prior_is_its_closed_form() {
        let oracle = Mixture::new(&[2, 3], vec![(1.0, vec![MEAN; 6], VARIANCE.sqrt())]).unwrap();
        let x = Tensor::new(&[[0.1f64, 2.0, -1.0], [0.5, 0.0, 3.0]], &Device::Cpu).unwrap();
        let levels = Betas::default().sigmas(1000);
        for kind in ["sample", "noise", "velocity", "score", "ve score", "edm"] {
            let (prediction, at) = exact(kind);
            let prior = NetworkDenoiser::new(Arc::new(Affine { at }), prediction, (-1.0, 1.0)).unwrap();
            for sigma in [levels[20], levels[200], levels[700]] {
                let (value, pull) = prior.denoise_vjp(&x, sigma).unwrap();
                let (expected, exact_pull) = oracle.denoise_vjp(&x, sigma).unwrap();
                // The networks compute in f32; D cancels large terms in some conventions.
                assert!(relative_difference(&value, &expected).unwrap() < 2e-5, "{kind} {sigma}");
                let (found, expected) = (pull.pull(&x).unwrap(), exact_pull.pull(&x).unwrap());
                assert!(relative_difference(&found, &expected).unwrap() < 1e-4, "{kind} {sigma}");
                let plain = prior.denoise(&x, sigma).unwrap();
                assert_eq!(f64::to_vec(&plain).unwrap(), f64::to_vec(&value).unwrap());
            }
        }
    }

    /// Multiplies re by 2 and im by 3 and adds to every element the one below it.
    #[derive(Clone, Debug)]
    struct Mixing;

    impl Network for Mixing {
        fn channels(&self) -> usize {
            2
        }
        fn granule(&self) -> usize {
            2
        }
        fn forward(&self, x: &Tensor, _: f64) -> Result<Tensor> {
            let gain = Tensor::new(&[[[[2f32]], [[3.0]]]], &Device::Cpu)?;
            Ok((x.broadcast_mul(&gain)? + x.roll(1, 2)?)?)
        }
        fn forward_vjp(&self, x: &Tensor, t: f64) -> Result<(Tensor, Pullback)> {
            let gain = Tensor::new(&[[[[2f32]], [[3.0]]]], &Device::Cpu)?;
            let pull = move |c: &Tensor| Ok((c.broadcast_mul(&gain)? + c.roll(-1, 2)?)?);
            Ok((self.forward(x, t)?, Pullback::new(pull)))
        }
    }

    #[test]
    fn complex_images_and_padding_pass_the_dot_test() {
        let prior =
            NetworkDenoiser::new(Arc::new(Mixing), Prediction::Sample(Times::Sigma), (-1.0, 1.0)).unwrap();
        let draw = |stream| {
            let space = Space::complex(&[5, 3], DType::F64, &Device::Cpu);
            crate::tensor::random::standard_normal(crate::tensor::random::Noise::new(8, stream), &space, &[2])
        };
        let (u, v) = (draw(0).unwrap(), draw(1).unwrap());
        // The network is linear, so that D(u) = J u.
        let (value, pull) = prior.denoise_vjp(&u, 1.0).unwrap();
        let inner = |x, y| vector::inner(x, y, 1).unwrap()[0];
        let (left, right) = (inner(&value, &v), inner(&u, &pull.pull(&v).unwrap()));
        assert!((left - right).abs() < 1e-5 * left.abs().max(1.0), "{left} {right}");
        // Row 5 of the padded image is the reflection of row 4, and row 1 gets row 0.
        let (d, x) = (f64::to_vec(&value).unwrap(), f64::to_vec(&u).unwrap());
        assert!((d[6] - 2.0 * x[6] - x[0]).abs() < 1e-5 && (d[1] - 3.0 * x[1] - x[25]).abs() < 1e-5);
        let real = Space::real(&[8, 8], DType::F32, &Device::Cpu);
        assert!(prior.check(&real).is_err() && prior.check(&real.with_field(Field::Complex)).is_ok());
        assert!(prior.denoise(&real.zeros(&[]).unwrap(), 1.0).is_err());
    }

    #[test]
    fn rescaling_moves_range_and_noise() {
        let unit = Mixture::new(&[1, 3], vec![(1.0, vec![0.0; 3], 1.0)]).unwrap();
        let direct = Mixture::new(&[1, 3], vec![(1.0, vec![7.0; 3], 2.0)]).unwrap();
        let prior = Rescaled::new(unit.clone(), -2.0, 7.0).unwrap();
        let x = Tensor::new(&[[1f64, 5.0, 9.0]], &Device::Cpu).unwrap();
        let (found, pull) = prior.denoise_vjp(&x, 0.8).unwrap();
        let (expected, exact) = direct.denoise_vjp(&x, 0.8).unwrap();
        assert!(relative_difference(&found, &expected).unwrap() < 1e-14);
        assert!(relative_difference(&pull.pull(&x).unwrap(), &exact.pull(&x).unwrap()).unwrap() < 1e-14);
        assert!(Rescaled::new(unit, 0.0, 1.0).is_err());
    }
}
