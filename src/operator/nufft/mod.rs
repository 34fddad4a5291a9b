//! The Fourier transform at arbitrary points of k-space, by gridding.

mod density;
mod device;
mod grid;
mod toeplitz;
mod window;

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use self::device::{Tables, gridding};
use self::grid::Places;
use self::window::{MAX_WIDTH, Window};
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::device::Gpu;
use crate::tensor::fft::{Direction, Origin, Plan};
use crate::tensor::{
    Buffer, Field, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch, vector,
};

pub use toeplitz::Toeplitz;
pub use window::Accuracy;
pub(crate) use window::bessel_i0;

/// The non-uniform Fourier transform y_j = N^(−1/2) Σ_n x_n e^(−2πi k_j·(n − ⌊N/2⌋)/N) of images on one to three axes,
/// with N points in all; k counts cycles per field of view. On whole numbers k it's [`crate::operator::Fourier`].
///
/// The image is divided by the transform of a Kaiser–Bessel window and padded, its fast transform is the spectrum on a
/// finer grid, and samples are sums of neighbouring grid points weighted by the window (Fessler and Sutton 2003; Beatty,
/// Nishimura and Pauly 2005). The adjoint takes the same steps, with the same numbers, backwards.
///
/// Domain [(z,) y, x], range `[sample]`, both complex. A window's weights are kept for every sample.
#[derive(Clone, Debug)]
pub struct Nufft {
    domain: Space,
    range: Space,
    accuracy: Accuracy,
    /// k [sample, axis].
    trajectory: Vec<f64>,
    places: Places,
    windows: Vec<Window>,
    /// Window weights of all samples.
    weights: Tensor,
    /// For each axis, what image points are multiplied by.
    apodization: Vec<Vec<f64>>,
    tables: Tables,
}

impl Nufft {
    /// The transform of complex images of `space` at `trajectory` [sample, axis], in cycles per field of view; axes in the
    /// order of the space, so that (k_y, k_x) belongs to [y, x].
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::{Accuracy, Nufft}, tensor::Space};
    /// let space = Space::complex(&[32, 32], DType::F64, &Device::Cpu);
    /// let trajectory = Tensor::new(&[[0.0, 0.0], [1.5, -7.25]], &Device::Cpu)?;
    /// let nufft = Nufft::new(&space, &trajectory, Accuracy::default())?;
    /// wellposed::testing::check_operator(&nufft)?;
    /// let dc = nufft.apply(&Tensor::ones((32, 32, 2), DType::F64, &Device::Cpu)?)?.get(0)?.get(0)?;
    /// assert!((dc.to_scalar::<f64>()? - 32.0).abs() < 1e-2); // the mean, times √N
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] unless the space is complex with one to three axes, and the trajectory [sample, axis];
    /// [`Error::NotFinite`] for NaN in it; [`Error::Parameter`] where it leaves the band |k| ≤ N/2 of an axis, or the
    /// accuracy is out of range.
    pub fn new(space: &Space, trajectory: &Tensor, accuracy: Accuracy) -> Result<Self> {
        let accuracy = accuracy.check()?;
        let shape = space.shape();
        if space.field() != Field::Complex || !(1..=3).contains(&shape.len()) || shape.contains(&0) {
            let expected = "a complex space of one to three axes, none of them empty";
            return Err(Error::shape("non-uniform Fourier transform", expected, &space.tensor_shape(&[])));
        }
        let &[samples, axes] = trajectory.dims() else {
            return Err(Error::shape("trajectory", "[sample, axis]", trajectory.dims()));
        };
        if axes != shape.len() || samples == 0 || samples > u32::MAX as usize {
            return Err(Error::shape("trajectory", format!("[sample, {}]", shape.len()), trajectory.dims()));
        }
        vector::require_finite("trajectory", trajectory)?;
        let trajectory = f64::to_vec(trajectory)?;
        for (i, k) in trajectory.iter().enumerate() {
            let half = 0.5 * shape[i % axes] as f64;
            if k.abs() > half * (1.0 + 1e-6) {
                let reason = format!(
                    "sample {} is outside the band of axis {}, ±{half} cycles per field of view: scale the \
                     trajectory, or take a larger image",
                    i / axes,
                    i % axes
                );
                return Err(Error::parameter("trajectory", k, reason));
            }
        }
        let size = |n: &usize| fast_size((*n as f64 * accuracy.oversampling).ceil() as usize);
        let grid: Vec<usize> = shape.iter().map(|n| size(n).max(MAX_WIDTH)).collect();
        let windows: Vec<Window> = shape
            .iter()
            .zip(&grid)
            .map(|(n, m)| Window::new(accuracy.tolerance, (*m as f64 / *n as f64).min(2.0)))
            .collect();
        let place = |(i, k): (usize, &f64)| {
            let (n, m) = (shape[i % axes] as f64, grid[i % axes]);
            k * m as f64 / n + (m / 2) as f64
        };
        let positions: Vec<f64> = trajectory.iter().enumerate().map(place).collect();
        let (places, weights) = Places::new(&grid, &windows, &positions);
        let apodization = (0..axes)
            .map(|a| {
                let (n, m) = (shape[a], grid[a] as f64);
                let scale = (m / n as f64).sqrt();
                let at = |i: usize| scale / windows[a].transform((i as f64 - (n / 2) as f64) / m);
                (0..n).map(at).collect()
            })
            .collect();
        let count = weights.len();
        let weights = Tensor::from_vec(weights, count, &candle_core::Device::Cpu)?;
        Ok(Self {
            domain: space.clone(),
            range: space.with_shape(&[samples]),
            accuracy,
            trajectory,
            places,
            windows,
            weights: weights.to_dtype(space.dtype())?.to_device(space.device())?,
            apodization,
            tables: Tables::default(),
        })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.places.samples()
    }

    /// The grid, which the fast transform works on.
    fn grid(&self) -> &[usize] {
        &self.places.shape[3 - self.domain.shape().len()..]
    }

    fn launch(&self, back: bool, input: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut grid =
            ws.take_shape(&[self.places.points(), 2], self.domain.dtype(), self.domain.device())?;
        launch(Gridding { transform: self, back }, &[input, &self.weights], &mut [out, &mut grid])?;
        ws.give(grid);
        Ok(())
    }
}

impl LinearOperator for Nufft {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.launch(false, x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.launch(true, y, out, ws)
    }
}

/// A x or Aᴴ y, item by item. Inputs: argument, window weights. Outputs: value, one grid.
struct Gridding<'a> {
    transform: &'a Nufft,
    back: bool,
}

impl Kernel for Gridding<'_> {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Nufft { domain, places, apodization, .. } = self.transform;
        let (image, samples) = (domain.scalars(), places.samples());
        let factors: Vec<Vec<T>> =
            apodization.iter().map(|a| a.iter().map(|v| T::of(*v)).collect()).collect();
        let frame = Frame { image: domain.shape(), grid: self.transform.grid(), factors: &factors };
        let plan = Plan::new(frame.grid, Origin::Centre)?;
        let [out, grid] = outputs else { unreachable!("two outputs") };
        let (input, out, grid) = (as_complex(inputs[0]), as_complex_mut(out), as_complex_mut(grid));
        if self.back {
            for (y, x) in input.chunks_exact(samples).zip(out.chunks_exact_mut(image)) {
                places.spread(inputs[1], y, grid);
                plan.run_in_place(Direction::Inverse, grid);
                frame.cut(grid, x);
            }
        } else {
            for (x, y) in input.chunks_exact(image).zip(out.chunks_exact_mut(samples)) {
                frame.pad(x, grid);
                plan.run_in_place(Direction::Forward, grid);
                places.take(inputs[1], grid, y);
            }
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        Some(gridding(gpu, self.transform, self.back))
    }
}

/// An image in the middle of a larger grid, with a factor for each of its rows, columns and so on.
struct Frame<'a, T> {
    image: &'a [usize],
    grid: &'a [usize],
    factors: &'a [Vec<T>],
}

impl<T: Real> Frame<'_, T> {
    /// The image row that lies on a grid row, and the product of the factors of its other axes.
    fn row(&self, grid_row: usize) -> Option<(usize, T)> {
        let (mut rest, mut row, mut stride, mut factor) = (grid_row, 0, 1, T::one());
        for axis in (0..self.image.len() - 1).rev() {
            let (n, m) = (self.image[axis], self.grid[axis]);
            let i = (rest % m + n / 2).checked_sub(m / 2).filter(|i| *i < n)?;
            row += i * stride;
            factor *= self.factors[axis][i];
            stride *= n;
            rest /= m;
        }
        Some((row, factor))
    }

    fn sizes(&self) -> (usize, usize, usize) {
        let (n, m) = (self.image[self.image.len() - 1], self.grid[self.grid.len() - 1]);
        (n, m, m / 2 - n / 2)
    }

    /// grid ← the image times the factors, zero around it.
    fn pad(&self, image: &[Complex<T>], grid: &mut [Complex<T>]) {
        let (n, m, left) = self.sizes();
        let across = &self.factors[self.factors.len() - 1];
        grid.par_chunks_mut(m).enumerate().for_each(|(i, out)| {
            out.fill(Complex::new(T::zero(), T::zero()));
            let Some((row, factor)) = self.row(i) else { return };
            for ((o, v), a) in out[left..left + n].iter_mut().zip(&image[row * n..]).zip(across) {
                *o = v * (factor * *a);
            }
        });
    }

    /// image ← the middle of the grid times the factors.
    fn cut(&self, grid: &[Complex<T>], image: &mut [Complex<T>]) {
        let (n, m, left) = self.sizes();
        let across = &self.factors[self.factors.len() - 1];
        // Rows of the image come in order.
        let rows: Vec<(usize, T)> =
            (0..grid.len() / m).filter_map(|i| self.row(i).map(|(_, factor)| (i, factor))).collect();
        image.par_chunks_mut(n).zip(&rows).for_each(|(out, (i, factor))| {
            for ((o, v), a) in out.iter_mut().zip(&grid[i * m + left..]).zip(across) {
                *o = v * (*factor * *a);
            }
        });
    }
}

/// The next even number without prime factors above 5, for which transforms are fast.
fn fast_size(least: usize) -> usize {
    let smooth = |n: usize| {
        let divided = [2, 3, 5].iter().fold(n, |mut n, p| {
            while n.is_multiple_of(*p) {
                n /= p;
            }
            n
        });
        divided == 1
    };
    (least.max(2)..).find(|n| n % 2 == 0 && smooth(*n)).unwrap_or(least)
}

#[cfg(test)]
mod tests;
