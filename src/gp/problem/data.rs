//! Functions on the domain: constants, closures, sums of products, samples.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayD, IxDyn};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// A scalar function of position x = (x₀, x₁, x₂), as many as the domain has axes.
pub type Function = Arc<dyn Fn(&[f64]) -> f64 + Send + Sync>;

/// A scalar function of one coordinate.
pub type Factor = Arc<dyn Fn(f64) -> f64 + Send + Sync>;

/// Points evaluated by one rayon task.
const CHUNK: usize = 1024;

/// A source, a coefficient, or boundary data.
///
/// ```
/// use wellposed::gp::Data;
/// let f = Data::function(|x| x[0] * x[1]);
/// assert_eq!(f.value(&[2.0, 3.0])?, 6.0);
/// assert_eq!(Data::from(0.5).value(&[2.0, 3.0])?, 0.5);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
#[derive(Clone)]
pub enum Data {
    /// The same value everywhere.
    Constant(f64),
    /// Any function of position.
    Function(Function),
    /// Σ_r Π_d g_rd(x_d): `terms[r][d]` is g_rd. On a tensor grid this costs n evaluations an axis, not n^dim.
    Separable(Vec<Vec<Factor>>),
    /// Known at given points only.
    Samples(Samples),
}

/// Values at points.
#[derive(Clone, Debug)]
pub struct Samples {
    /// Points, shape [points, axes].
    pub points: Array2<f64>,
    /// Values, shape `[points]`.
    pub values: Array1<f64>,
    /// Coordinates of each axis where the points are a tensor grid (row-major, last axis fastest).
    pub axes: Option<Vec<Array1<f64>>>,
}

impl Data {
    /// Data from a closure of position.
    pub fn function(f: impl Fn(&[f64]) -> f64 + Send + Sync + 'static) -> Self {
        Self::Function(Arc::new(f))
    }

    /// Values at scattered points, shapes `[points, axes]` and `[points]`.
    ///
    /// # Errors
    /// The lengths differ, or something is not finite.
    pub fn samples(points: Array2<f64>, values: Array1<f64>) -> Result<Self> {
        Samples::new(points, values, None).map(Self::Samples)
    }

    /// Values on the tensor grid of `axes`, shape [n₀, n₁, …].
    ///
    /// # Errors
    /// The shape differs from the axes' lengths, or something is not finite.
    pub fn grid_samples(axes: Vec<Array1<f64>>, values: ArrayD<f64>) -> Result<Self> {
        let expected: Vec<usize> = axes.iter().map(Array1::len).collect();
        if values.shape() != expected {
            return Err(Error::shape("grid samples", format!("{expected:?}"), values.shape()));
        }
        let points = tensor_grid(&axes);
        Samples::new(points, values.iter().copied().collect(), Some(axes)).map(Self::Samples)
    }

    /// Whether it is the constant 0.
    pub fn is_zero(&self) -> bool {
        matches!(self, Self::Constant(c) if *c == 0.0)
    }

    /// The constant, if it is one.
    pub fn constant(&self) -> Option<f64> {
        if let Self::Constant(c) = self { Some(*c) } else { None }
    }

    /// The value at one point.
    ///
    /// # Errors
    /// Samples have no value between their points.
    pub fn value(&self, x: &[f64]) -> Result<f64> {
        match self {
            Self::Samples(_) => Err(samples_only("at a point")),
            _ => Ok(self.evaluate(x)),
        }
    }

    /// Values at `points`, shape [points, axes]; evaluated in parallel.
    ///
    /// # Errors
    /// Samples have values only at their own points.
    pub fn at(&self, points: &Array2<f64>) -> Result<Array1<f64>> {
        match self {
            Self::Constant(c) => Ok(Array1::from_elem(points.nrows(), *c)),
            Self::Samples(s) if s.points == *points => Ok(s.values.clone()),
            Self::Samples(_) => Err(samples_only("at other points")),
            Self::Function(_) | Self::Separable(_) => {
                let points = points.as_standard_layout();
                let width = points.ncols().max(1);
                let x = points.as_slice().unwrap_or(&[]);
                let mut values = vec![0.0; points.nrows()];
                values.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK * width)).for_each(|(out, x)| {
                    for (out, x) in out.iter_mut().zip(x.chunks_exact(width)) {
                        *out = self.evaluate(x);
                    }
                });
                Ok(values.into())
            }
        }
    }

    /// Values on the tensor grid of `axes`, shape [n₀, n₁, …].
    ///
    /// # Errors
    /// Samples have values only on their own grid.
    pub fn on_grid(&self, axes: &[Array1<f64>]) -> Result<ArrayD<f64>> {
        let shape: Vec<usize> = axes.iter().map(Array1::len).collect();
        let values = match self {
            Self::Constant(c) => return Ok(ArrayD::from_elem(shape, *c)),
            Self::Separable(terms) => separable_grid(terms, axes),
            Self::Samples(s) if s.axes.as_deref() == Some(axes) => s.values.to_vec(),
            Self::Samples(_) => return Err(samples_only("on another grid")),
            Self::Function(_) => self.at(&tensor_grid(axes))?.to_vec(),
        };
        ArrayD::from_shape_vec(IxDyn(&shape), values)
            .map_err(|e| Error::parameter("axes", format!("{shape:?}"), e.to_string()))
    }

    /// The same data times `scale`.
    pub fn scaled(&self, scale: f64) -> Self {
        match self.clone() {
            Self::Constant(c) => Self::Constant(scale * c),
            Self::Function(f) => Self::function(move |x| scale * f(x)),
            Self::Separable(mut terms) => {
                for g in terms.iter_mut().filter_map(|term| term.first_mut()) {
                    let inner = g.clone();
                    *g = Arc::new(move |x| scale * inner(x));
                }
                Self::Separable(terms)
            }
            Self::Samples(s) => Self::Samples(Samples { values: s.values * scale, ..s }),
        }
    }

    fn evaluate(&self, x: &[f64]) -> f64 {
        match self {
            Self::Constant(c) => *c,
            Self::Function(f) => f(x),
            Self::Separable(terms) => {
                terms.iter().map(|term| term.iter().zip(x).map(|(g, &x)| g(x)).product::<f64>()).sum()
            }
            Self::Samples(_) => f64::NAN,
        }
    }
}

impl From<f64> for Data {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(c) => write!(f, "{c}"),
            Self::Function(_) => write!(f, "function"),
            Self::Separable(terms) => write!(f, "separable function of {} terms", terms.len()),
            Self::Samples(s) => write!(f, "{} samples", s.values.len()),
        }
    }
}

impl Samples {
    fn new(points: Array2<f64>, values: Array1<f64>, axes: Option<Vec<Array1<f64>>>) -> Result<Self> {
        if points.nrows() != values.len() {
            return Err(Error::shape("samples", format!("[{}] values", points.nrows()), &[values.len()]));
        }
        let bad = |row: usize| !values[row].is_finite() || points.row(row).iter().any(|x| !x.is_finite());
        let count = (0..values.len()).filter(|&row| bad(row)).count();
        match (0..values.len()).find(|&row| bad(row)) {
            None => Ok(Self { points, values, axes }),
            Some(first) => Err(Error::NotFinite {
                name: "samples".into(),
                count,
                total: values.len(),
                first: vec![first],
            }),
        }
    }
}

/// The points of the tensor grid of `axes`, row-major (last axis fastest), shape [Π nᵢ, axes].
///
/// ```
/// use ndarray::array;
/// let points = wellposed::gp::tensor_grid(&[array![0.0, 1.0], array![5.0, 6.0]]);
/// assert_eq!(points.row(1).to_vec(), [0.0, 6.0]);
/// ```
pub fn tensor_grid(axes: &[Array1<f64>]) -> Array2<f64> {
    let total: usize = axes.iter().map(Array1::len).product();
    let mut points = Array2::zeros((total, axes.len()));
    let mut repeat = total;
    for (d, axis) in axes.iter().enumerate() {
        repeat /= axis.len().max(1);
        for (i, mut point) in points.rows_mut().into_iter().enumerate() {
            point[d] = axis[(i / repeat.max(1)) % axis.len()];
        }
    }
    points
}

/// Σ_r g_r0 ⊗ g_r1 ⊗ …, row-major.
fn separable_grid(terms: &[Vec<Factor>], axes: &[Array1<f64>]) -> Vec<f64> {
    let tables: Vec<Vec<Vec<f64>>> = terms
        .iter()
        .map(|term| term.iter().zip(axes).map(|(g, axis)| axis.iter().map(|&x| g(x)).collect()).collect())
        .collect();
    let row = axes.last().map_or(1, Array1::len);
    let outer: Vec<usize> = axes.iter().take(axes.len().saturating_sub(1)).map(Array1::len).collect();
    let mut values = vec![0.0; row * outer.iter().product::<usize>()];
    values.par_chunks_mut(row.max(1)).enumerate().for_each(|(index, out)| {
        for table in &tables {
            let (mut rest, mut scale) = (index, 1.0);
            for (d, n) in outer.iter().enumerate().rev() {
                scale *= table[d][rest % n];
                rest /= n;
            }
            if let Some(last) = table.last() {
                out.iter_mut().zip(last).for_each(|(out, g)| *out += scale * g);
            }
        }
    });
    values
}

fn samples_only(place: &str) -> Error {
    Error::Unsupported(format!(
        "the data are samples and were asked for {place}: give a closure, or solve on the points of the samples"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn separable() -> Data {
        let term = |a: f64| -> Vec<Factor> { vec![Arc::new(move |x| a * x.sin()), Arc::new(move |y| y + a)] };
        Data::Separable(vec![term(1.0), term(-2.5)])
    }

    #[test]
    fn separable_grids_agree_with_points() -> Result<()> {
        let axes = [Array1::linspace(0.0, 2.0, 7), Array1::linspace(-1.0, 1.0, 5)];
        let grid = separable().scaled(3.0).on_grid(&axes)?;
        let points = separable().at(&tensor_grid(&axes))?;
        for (a, b) in grid.iter().zip(&points) {
            assert!((a - 3.0 * b).abs() < 1e-14);
        }
        Ok(())
    }

    #[test]
    fn samples_serve_only_their_own_points() -> Result<()> {
        let data = Data::samples(array![[0.0], [1.0]], array![2.0, 3.0])?;
        assert_eq!(data.at(&array![[0.0], [1.0]])?, array![2.0, 3.0]);
        assert!(data.at(&array![[0.5]]).is_err() && data.value(&[0.0]).is_err());
        assert!(Data::samples(array![[0.0]], array![f64::NAN]).is_err());
        assert!(Data::samples(array![[0.0]], array![1.0, 2.0]).is_err());
        Ok(())
    }
}
