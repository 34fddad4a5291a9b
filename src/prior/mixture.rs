//! The Gaussian-mixture prior: a multi-modal oracle with a known score and density.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::prior::{Denoiser, Pullback};
use crate::tensor::{Field, Real, Space};

/// A Gaussian mixture Σ w_k N(m_k, s_k² I) over whole images:
/// D(x, σ) = Σ r_k(x) (m_k + s_k²/(s_k² + σ²) (x − m_k)) with the responsibilities r_k of the noisy mixture.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::prior::{Denoiser, mixture::Mixture};
/// let prior = Mixture::new(&[1, 2], vec![(1.0, vec![1.0, -1.0], 0.5)])?;
/// let x = Tensor::new(&[[3f64, -1.0]], &Device::Cpu)?;
/// assert_eq!(prior.denoise(&x, 0.5)?.to_vec2::<f64>()?, [[2.0, -1.0]]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mixture {
    shape: Vec<usize>,
    components: Vec<Component>,
}

#[derive(Clone, Debug)]
struct Component {
    log_weight: f64,
    mean: Vec<f64>,
    variance: f64,
}

/// What the mixture says of one noisy image.
struct Answer {
    responsibilities: Vec<f64>,
    log_density: f64,
}

impl Mixture {
    /// A mixture over images of `shape` = [height, width]: for each component its weight, mean (row-major)
    /// and standard deviation. Weights are normalised.
    ///
    /// # Errors
    /// [`Error::Parameter`] for no components, a weight or deviation that is not positive, a mean of another size.
    pub fn new(shape: &[usize], components: Vec<(f64, Vec<f64>, f64)>) -> Result<Self> {
        let size: usize = shape.iter().product();
        let total: f64 = components.iter().map(|c| c.0).sum();
        let mut checked = Vec::with_capacity(components.len());
        for (weight, mean, deviation) in components {
            if weight.is_nan()
                || weight <= 0.0
                || deviation.is_nan()
                || deviation <= 0.0
                || mean.len() != size
            {
                let found = format!("weight {weight}, deviation {deviation}, {} means", mean.len());
                return Err(Error::parameter(
                    "component",
                    found,
                    format!("needs positive values and {size} means"),
                ));
            }
            checked.push(Component {
                log_weight: (weight / total).ln(),
                mean,
                variance: deviation * deviation,
            });
        }
        if checked.is_empty() {
            return Err(Error::parameter("components", 0, "at least one is needed"));
        }
        Ok(Self { shape: shape.to_vec(), components: checked })
    }

    /// ln p_σ(x), the log-density of data plus noise, for every item of x.
    pub fn log_density(&self, x: &Tensor, sigma: f64) -> Result<Vec<f64>> {
        let size = self.size();
        Ok(f64::to_vec(x)?.chunks(size).map(|x| self.answer(x, sigma).log_density).collect())
    }

    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    fn answer(&self, x: &[f64], sigma: f64) -> Answer {
        let logs: Vec<f64> = self
            .components
            .iter()
            .map(|c| {
                let variance = c.variance + sigma * sigma;
                let square: f64 = x.iter().zip(&c.mean).map(|(x, m)| (x - m) * (x - m)).sum();
                c.log_weight
                    - 0.5 * square / variance
                    - 0.5 * x.len() as f64 * (std::f64::consts::TAU * variance).ln()
            })
            .collect();
        let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|l| (l - top).exp()).sum();
        let log_density = top + total.ln();
        Answer { responsibilities: logs.iter().map(|l| (l - log_density).exp()).collect(), log_density }
    }

    fn denoise_one(&self, x: &[f64], sigma: f64, out: &mut Vec<f64>) {
        let answer = self.answer(x, sigma);
        let start = out.len();
        out.resize(start + x.len(), 0.0);
        for (c, r) in self.components.iter().zip(&answer.responsibilities) {
            let keep = c.variance / (c.variance + sigma * sigma);
            for (o, (x, m)) in out[start..].iter_mut().zip(x.iter().zip(&c.mean)) {
                *o += r * (m + keep * (x - m));
            }
        }
    }

    /// Jᵀc = Σ r_k (a_k c + ⟨D_k − D, c⟩ ∇ ln p_k), a_k = s_k²/(s_k² + σ²).
    fn pull_one(&self, x: &[f64], sigma: f64, c: &[f64], out: &mut Vec<f64>) {
        let answer = self.answer(x, sigma);
        let mut mean = Vec::with_capacity(x.len());
        self.denoise_one(x, sigma, &mut mean);
        let start = out.len();
        out.resize(start + x.len(), 0.0);
        for (k, r) in self.components.iter().zip(&answer.responsibilities) {
            let variance = k.variance + sigma * sigma;
            let keep = k.variance / variance;
            let along: f64 =
                (0..x.len()).map(|i| (k.mean[i] + keep * (x[i] - k.mean[i]) - mean[i]) * c[i]).sum();
            for i in 0..x.len() {
                out[start + i] += r * (keep * c[i] - along * (x[i] - k.mean[i]) / variance);
            }
        }
    }

    fn each(&self, x: &Tensor, f: impl Fn(usize, &[f64], &mut Vec<f64>)) -> Result<Tensor> {
        let data = f64::to_vec(x)?;
        let mut out = Vec::with_capacity(data.len());
        data.chunks(self.size()).enumerate().for_each(|(i, x)| f(i, x, &mut out));
        Ok(f64::tensor(out, x.dims())?.to_dtype(x.dtype())?)
    }
}

impl Denoiser for Mixture {
    fn field(&self) -> Field {
        Field::Real
    }

    fn range(&self) -> (f64, f64) {
        (f64::NEG_INFINITY, f64::INFINITY)
    }

    fn check(&self, image: &Space) -> Result<()> {
        image.with_shape(&self.shape).with_field(Field::Real).expect_same("prior", image)
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.each(x, |_, x, out| self.denoise_one(x, sigma, out))
    }

    fn denoise_vjp(&self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback)> {
        let (prior, x_kept) = (self.clone(), x.clone());
        let pull = move |c: &Tensor| {
            let c = f64::to_vec(c)?;
            let size = prior.size();
            prior.each(&x_kept, |i, x, out| prior.pull_one(x, sigma, &c[i * size..(i + 1) * size], out))
        };
        Ok((self.denoise(x, sigma)?, Pullback::new(pull)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::tensor::vector;

    fn bimodal() -> Mixture {
        Mixture::new(&[1, 3], vec![(1.0, vec![1.0, 0.0, -1.0], 0.3), (2.0, vec![-1.0, 0.5, 0.0], 0.6)])
            .unwrap()
    }

    #[test]
    fn denoiser_is_tweedie_of_the_density() {
        let (prior, sigma, h) = (bimodal(), 0.7, 1e-5);
        let x = [0.2, -0.3, 0.1];
        let tensor = |x: [f64; 3]| Tensor::new(&[x], &Device::Cpu).unwrap();
        let mean = prior.denoise(&tensor(x), sigma).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for i in 0..3 {
            let (mut up, mut down) = (x, x);
            up[i] += h;
            down[i] -= h;
            let density = |x| prior.log_density(&tensor(x), sigma).unwrap()[0];
            let score = (density(up) - density(down)) / (2.0 * h);
            assert!((mean[i] - x[i] - sigma * sigma * score).abs() < 1e-8);
        }
    }

    #[test]
    fn pullback_matches_differences() {
        let (prior, sigma, h) = (bimodal(), 0.7, 1e-6);
        let space = Space::real(&[1, 3], DType::F64, &Device::Cpu);
        let draw = |stream| standard_normal(Noise::new(5, stream), &space, &[2]).unwrap();
        let (x, v, c) = (draw(0), draw(1), draw(2));
        let moved = |s: f64| prior.denoise(&(&x + (&v * s).unwrap()).unwrap(), sigma).unwrap();
        let jv = ((moved(h) - moved(-h)).unwrap() / (2.0 * h)).unwrap();
        let (_, pullback) = prior.denoise_vjp(&x, sigma).unwrap();
        let jtc = pullback.pull(&c).unwrap();
        let (left, right) = (vector::inner(&jv, &c, 1).unwrap()[0], vector::inner(&v, &jtc, 1).unwrap()[0]);
        assert!((left - right).abs() < 1e-7, "{left} {right}");
    }
}
