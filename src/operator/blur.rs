//! Blurs: Gaussian, motion, or any kernel, with a choice of what lies beyond the edge.

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::operator::convolution::Convolution;
use crate::operator::separable::{Separable, Sparse};
use crate::tensor::random::Noise;
use crate::tensor::{Buffer, Real, Space, Workspace};

/// What a blur sees beyond the edge of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The opposite edge.
    Periodic,
    /// The image mirrored about its outermost pixels, which are not repeated (PyTorch's `reflect`).
    Reflect,
    /// Zeros.
    Zero,
}

impl Boundary {
    /// The pixel inside 0…n−1 that stands at position `at`, if any.
    pub(super) fn source(self, at: isize, length: usize) -> Option<usize> {
        let n = length as isize;
        match self {
            Self::Zero => (0..n).contains(&at).then_some(at as usize),
            Self::Periodic => Some(at.rem_euclid(n) as usize),
            Self::Reflect if n == 1 => Some(0),
            Self::Reflect => {
                let place = at.rem_euclid(2 * n - 2);
                Some((if place < n { place } else { 2 * n - 2 - place }) as usize)
            }
        }
    }
}

/// The convolution `(k ∗ x)[i] = Σⱼ k[j] x[i − j]` of the last two axes with a real kernel, whose centre is at
/// ⌊side/2⌋; other axes are left alone. A kernel of rank 1 works along rows and columns, any other one in
/// Fourier space.
#[derive(Clone, Debug)]
pub struct Blur {
    path: Path,
}

#[derive(Clone, Debug)]
enum Path {
    Separable(Separable),
    Fourier(Convolution),
}

impl Blur {
    /// The blur with `kernel`, of shape [height, width].
    ///
    /// ```
    /// use candle_core::{Device, DType, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::{Blur, Boundary}, tensor::Space};
    /// let space = Space::real(&[1, 4], DType::F64, &Device::Cpu);
    /// let pair = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?;
    /// let blur = Blur::new(&space, &pair, Boundary::Periodic)?;
    /// let x = Tensor::new(&[[0f64, 2., 4., 6.]], &Device::Cpu)?;
    /// assert_eq!(blur.apply(&x)?.to_vec2::<f64>()?, [[1., 3., 5., 3.]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the kernel is empty or not [height, width], or the space not
    /// [.., height, width]; [`Error::NotFinite`] where the kernel holds NaN or infinities.
    pub fn new(space: &Space, kernel: &Tensor, boundary: Boundary) -> Result<Self> {
        if space.shape().len() < 2 || space.elements() == 0 {
            return Err(Error::shape("blur", "[.., height, width]", space.shape()));
        }
        let &[height, width] = kernel.dims() else {
            return Err(Error::shape("kernel of a blur", "[height, width]", kernel.dims()));
        };
        if height * width == 0 {
            return Err(Error::shape("kernel of a blur", "at least one element", kernel.dims()));
        }
        crate::tensor::vector::require_finite("kernel of a blur", kernel)?;
        let values = f64::to_vec(kernel)?;
        let path = match factors(&values, width) {
            Some((column, row)) => {
                let lengths = &space.shape()[space.shape().len() - 2..];
                let matrices = vec![
                    convolution_matrix(&column, lengths[0], boundary),
                    convolution_matrix(&row, lengths[1], boundary),
                ];
                Path::Separable(Separable::new(space, matrices))
            }
            None => Path::Fourier(Convolution::new(space, &values, [height, width], boundary)?),
        };
        Ok(Self { path })
    }

    /// The Gaussian blur with standard deviation `sigma` > 0 pixels, cut off at ⌈4σ⌉ and normalised.
    ///
    /// # Errors
    /// [`Error::Parameter`] where σ is not positive and finite; as for [`Blur::new`].
    pub fn gaussian(space: &Space, sigma: f64, boundary: Boundary) -> Result<Self> {
        if !(sigma > 0.0 && sigma.is_finite()) {
            return Err(Error::parameter("sigma", sigma, "must be positive and finite"));
        }
        let radius = (4.0 * sigma).ceil() as usize;
        Self::new(space, &gaussian_kernel(sigma, 2 * radius + 1)?, boundary)
    }

    fn operator(&self) -> &dyn LinearOperator {
        match &self.path {
            Path::Separable(map) => map,
            Path::Fourier(map) => map,
        }
    }
}

/// The factors of a kernel of rank 1: columns and rows. They pass through its largest element.
fn factors(kernel: &[f64], width: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let largest = (0..kernel.len()).max_by(|a, b| kernel[*a].abs().total_cmp(&kernel[*b].abs()))?;
    let peak = kernel[largest];
    if peak == 0.0 {
        return Some((vec![0.0; kernel.len() / width], vec![0.0; width]));
    }
    let (i, j) = (largest / width, largest % width);
    let row = kernel[i * width..][..width].to_vec();
    let column: Vec<f64> = kernel.iter().skip(j).step_by(width).map(|value| value / peak).collect();
    let near = |(at, value): (usize, &f64)| {
        (value - column[at / width] * row[at % width]).abs() <= 4.0 * f64::EPSILON * peak.abs()
    };
    kernel.iter().enumerate().all(near).then_some((column, row))
}

/// The matrix of a convolution along one axis.
fn convolution_matrix(kernel: &[f64], length: usize, boundary: Boundary) -> Sparse {
    let centre = (kernel.len() / 2) as isize;
    Sparse::new(length, length, |i| {
        let tap = |(k, value): (usize, &f64)| {
            boundary.source(i as isize + centre - k as isize, length).map(|j| (j, *value))
        };
        kernel.iter().enumerate().filter_map(tap).collect()
    })
}

/// A normalised Gaussian of standard deviation `sigma` pixels on [size, size].
///
/// ```
/// let kernel = wellposed::operator::gaussian_kernel(3.0, 61)?;
/// assert!((kernel.sum_all()?.to_scalar::<f64>()? - 1.0).abs() < 1e-12);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] where σ is not positive and finite or the size is zero.
pub fn gaussian_kernel(sigma: f64, size: usize) -> Result<Tensor> {
    if !(sigma > 0.0 && sigma.is_finite() && size > 0) {
        return Err(Error::parameter("sigma", sigma, format!("σ and the size ({size}) must be positive")));
    }
    let at = |i: usize| (-0.5 * ((i as f64 - (size / 2) as f64) / sigma).powi(2)).exp();
    let line: Vec<f64> = (0..size).map(at).collect();
    let total: f64 = line.iter().sum();
    let values: Vec<f64> =
        line.iter().flat_map(|a| line.iter().map(move |b| a * b / (total * total))).collect();
    Ok(Tensor::from_vec(values, (size, size), &Device::Cpu)?)
}

/// A normalised random camera-shake kernel on [size, size]: the track of a particle with inertia that is
/// pushed at random and pulled back (after Boracchi and Foi 2012, section 3), drawn with bilinear weights.
/// `intensity` in [0, 1] goes from a nearly straight track to a jittery one.
///
/// ```
/// let kernel = wellposed::operator::motion_kernel(61, 0.5, 7)?;
/// assert_eq!(kernel.dims(), [61, 61]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] where the intensity is out of range or the size below 3.
pub fn motion_kernel(size: usize, intensity: f64, seed: u64) -> Result<Tensor> {
    const SAMPLES: usize = 2000;
    if !(0.0..=1.0).contains(&intensity) {
        return Err(Error::parameter("intensity", intensity, "must be in [0, 1]"));
    }
    if size < 3 {
        return Err(Error::parameter("size", size, "must be at least 3"));
    }
    let noise = Noise::new(seed, 0);
    let turn = std::f64::consts::TAU * noise.uniform(0);
    let step = 0.75 * size as f64 / SAMPLES as f64;
    let (mut at, mut speed) = ([0.0; 2], [step * turn.cos(), step * turn.sin()]);
    let mut track = Vec::with_capacity(SAMPLES);
    for k in 1..=SAMPLES {
        track.push(at);
        let (a, b) = noise.normal_pair(2 * k as u64);
        // A rare jerk turns the particle nearly around; else it diffuses and is pulled to the middle.
        let jerk = noise.uniform(2 * k as u64 + 1) < 0.2 * intensity * 10.0 / SAMPLES as f64;
        let shake = [a, b];
        for axis in 0..2 {
            let pull = -0.7 * at[axis] / size as f64;
            speed[axis] += step * intensity * (0.15 * shake[axis] + 0.03 * pull);
            if jerk {
                speed[axis] = -speed[axis] + 0.5 * step * shake[axis];
            }
        }
        let pace = speed[0].hypot(speed[1]).max(f64::MIN_POSITIVE);
        speed = speed.map(|s| s * step / pace);
        at = [at[0] + speed[0], at[1] + speed[1]];
    }
    draw(&track, size)
}

/// Draws a track about its centre of mass.
fn draw(track: &[[f64; 2]], size: usize) -> Result<Tensor> {
    let mean = |axis: usize| track.iter().map(|p| p[axis]).sum::<f64>() / track.len() as f64;
    let (centre, mean) = ((size / 2) as f64, [mean(0), mean(1)]);
    let last = (size - 1) as f64;
    let mut values = vec![0.0; size * size];
    for point in track {
        let place = |axis: usize| (point[axis] - mean[axis] + centre).clamp(0.0, last);
        let (y, x) = (place(0), place(1));
        let (i, j) = ((y as usize).min(size - 2), (x as usize).min(size - 2));
        let (dy, dx) = (y - i as f64, x - j as f64);
        for (di, wy) in [(0, 1.0 - dy), (1, dy)] {
            for (dj, wx) in [(0, 1.0 - dx), (1, dx)] {
                values[(i + di) * size + j + dj] += wy * wx / track.len() as f64;
            }
        }
    }
    Ok(Tensor::from_vec(values, (size, size), &Device::Cpu)?)
}

impl LinearOperator for Blur {
    fn domain(&self) -> &Space {
        self.operator().domain()
    }
    fn range(&self) -> &Space {
        self.operator().range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator().apply_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator().adjoint_into(y, out, ws)
    }
}
