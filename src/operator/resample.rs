//! Down-sampling of images: box averages and antialiased bicubic interpolation.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::separable::{Separable, Sparse};
use crate::tensor::{Buffer, Space, Workspace};

/// Down-sampling of the last two axes by a whole factor; other axes are left alone. The adjoint spreads
/// every pixel over its footprint.
#[derive(Clone, Debug)]
pub struct Downsample {
    map: Separable,
}

impl Downsample {
    /// Averages over `factor` × `factor` boxes.
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::Downsample, tensor::Space};
    /// let halve = Downsample::boxes(&Space::real(&[2, 2], DType::F64, &Device::Cpu), 2)?;
    /// let x = Tensor::new(&[[1f64, 2.], [3., 6.]], &Device::Cpu)?;
    /// assert_eq!(halve.apply(&x)?.to_vec2::<f64>()?, [[3.0]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where `domain` is not [.., height, width] with multiples of `factor` ≥ 1.
    pub fn boxes(domain: &Space, factor: usize) -> Result<Self> {
        Self::new(domain, factor, |i, _| (0..factor).map(|k| (i * factor + k, 1.0 / factor as f64)).collect())
    }

    /// Antialiased bicubic interpolation, the degradation of the super-resolution literature: the kernel of
    /// Keys (1981) with a = −½, widened by `factor`, at pixel centres, normalised, with images mirrored about
    /// their outer pixel edges.
    ///
    /// # Errors
    /// As for [`Downsample::boxes`].
    pub fn bicubic(domain: &Space, factor: usize) -> Result<Self> {
        Self::new(domain, factor, |i, length| {
            let scale = factor as f64;
            let centre = (i as f64 + 0.5) * scale - 0.5;
            let first = (centre - 2.0 * scale).floor() as isize;
            let taps =
                (first..=first + 4 * factor as isize + 1).map(|j| (j, keys((centre - j as f64) / scale)));
            let taps: Vec<_> = taps.filter(|(_, w)| *w != 0.0).collect();
            let total: f64 = taps.iter().map(|(_, w)| w).sum();
            taps.into_iter().map(|(j, w)| (mirror(j, length), w / total)).collect()
        })
    }

    fn new(domain: &Space, factor: usize, row: impl Fn(usize, usize) -> Vec<(usize, f64)>) -> Result<Self> {
        let fits = |n: &usize| factor > 0 && *n > 0 && n.is_multiple_of(factor);
        let axes = match domain.shape() {
            [.., height, width] if fits(height) && fits(width) => [*height, *width],
            other => {
                let expected = format!("[.., height, width], multiples of the factor {factor}");
                return Err(Error::shape("down-sampling", expected, other));
            }
        };
        let matrices = axes.map(|n| Sparse::new(n / factor, n, |i| row(i, n)));
        Ok(Self { map: Separable::new(domain, matrices.into()) })
    }
}

/// The cubic convolution kernel with a = −½.
fn keys(x: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        _ if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

/// The index inside that mirrors to `j` about the outer pixel edges: −1 ↦ 0, n ↦ n − 1.
fn mirror(j: isize, length: usize) -> usize {
    let n = length as isize;
    let place = j.rem_euclid(2 * n);
    (if place < n { place } else { 2 * n - 1 - place }) as usize
}

impl LinearOperator for Downsample {
    fn domain(&self) -> &Space {
        self.map.domain()
    }
    fn range(&self) -> &Space {
        self.map.range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.map.apply_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.map.adjoint_into(y, out, ws)
    }
}
