//! Sums of general factors along the axes of an array: Sylvester equations in two and more dimensions.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayD, ArrayView2, ArrayViewD, Zip};
use num_complex::Complex;

use super::{for_each_indexed, kronecker_product, mode_product};
use crate::error::{Error, Result};
use crate::linalg::dense::{Eigen, Lu};

/// Solves Σ_d A_d x + shift · x = b, each A_d acting along axis d of x [n₀, n₁, …].
///
/// All factors are diagonalised where their eigenvectors allow it. Otherwise the one with the worst conditioned
/// eigenvectors (a time derivative with initial conditions is far from normal) is kept as it is and solved by LU for
/// each combination of the others' eigenvalues. Refinement removes the rounding that eigenvectors amplify.
#[derive(Clone, Debug)]
pub struct SylvesterSolver {
    factors: Arc<Vec<Array2<f64>>>,
    bases: Arc<Vec<Arc<Basis>>>,
    shift: f64,
    method: Method,
}

/// Eigenvectors of a factor, their inverse, and the eigenvalues.
#[derive(Debug)]
struct Basis {
    values: Array1<Complex<f64>>,
    vectors: Array2<Complex<f64>>,
    inverse: Array2<Complex<f64>>,
    /// ‖V‖ ‖V⁻¹‖ / n, at least 1; infinite where the factor is defective.
    condition: f64,
}

#[derive(Clone, Debug)]
enum Method {
    /// Every factor diagonalised by real vectors: what to multiply with in their coordinates, V and V⁻¹.
    Real { scale: ArrayD<f64>, vectors: Arc<Vec<Array2<f64>>>, inverses: Arc<Vec<Array2<f64>>> },
    /// The same in complex numbers.
    Complex { scale: ArrayD<Complex<f64>> },
    /// `axis` by LU, one factorisation for each combination of eigenvalues of the others, row-major.
    Direct { axis: usize, systems: Arc<Vec<Lu<Complex<f64>>>> },
}

/// Eigenvectors up to this condition serve for every factor; refinement removes what they lose.
const WELL_CONDITIONED: f64 = 1e4;

/// Eigenvalue sums below this fraction of the largest count as zero.
const NULL: f64 = 1e-14;

/// Refinement steps at most.
const REFINEMENTS: usize = 3;

impl SylvesterSolver {
    /// A solver for square factors, one an axis.
    ///
    /// Solution components along which Σ λ + shift vanishes to rounding are set to zero where all factors are
    /// diagonalised: the solution of least norm in their eigenvectors.
    ///
    /// ```
    /// use ndarray::array;
    /// use wellposed::linalg::kronecker::SylvesterSolver;
    /// let (a, b) = (array![[1.0, 0.0], [0.0, 2.0]], array![[3.0]]);
    /// let x = SylvesterSolver::new(vec![a, b], 0.0)?.solve(array![[4.0], [10.0]].into_dyn().view())?;
    /// assert_eq!(x, array![[1.0], [2.0]].into_dyn());
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where a factor is not square; [`Error::Singular`] where two factors are defective, or the
    /// whole system is singular and not diagonalised.
    pub fn new(factors: Vec<Array2<f64>>, shift: f64) -> Result<Self> {
        let mut bases: Vec<Arc<Basis>> = Vec::new();
        for (axis, a) in factors.iter().enumerate() {
            // Axes are often alike.
            let twin = factors[..axis].iter().position(|other| other == a);
            let basis = match twin {
                Some(other) => bases[other].clone(),
                None => Arc::new(Basis::new(axis, a.view())?),
            };
            bases.push(basis);
        }
        Self::assemble(Arc::new(factors), Arc::new(bases), shift)
    }

    /// The same factors with another shift, without decomposing them again.
    ///
    /// # Errors
    /// As [`SylvesterSolver::new`].
    pub fn with_shift(&self, shift: f64) -> Result<Self> {
        Self::assemble(self.factors.clone(), self.bases.clone(), shift)
    }

    /// The solver of the transposed equation Σ_d A_dᵀ x + shift · x = b.
    ///
    /// # Errors
    /// As [`SylvesterSolver::new`].
    pub fn transposed(&self) -> Result<Self> {
        Self::new(self.factors.iter().map(|a| a.t().to_owned()).collect(), self.shift)
    }

    fn assemble(factors: Arc<Vec<Array2<f64>>>, bases: Arc<Vec<Arc<Basis>>>, shift: f64) -> Result<Self> {
        let worst = (0..bases.len()).max_by(|i, j| bases[*i].condition.total_cmp(&bases[*j].condition));
        let method = match worst {
            None => return Err(Error::shape("factors of a Sylvester equation", "at least one", &[])),
            Some(axis) if bases[axis].condition > WELL_CONDITIONED => direct(&factors, &bases, axis, shift)?,
            Some(_) if bases.iter().all(|b| b.values.iter().all(|v| v.im == 0.0)) => {
                let part = |a: &Array2<Complex<f64>>| a.mapv(|z| z.re);
                Method::Real {
                    scale: reciprocals(&bases, shift).mapv(|z| z.re),
                    vectors: Arc::new(bases.iter().map(|b| part(&b.vectors)).collect()),
                    inverses: Arc::new(bases.iter().map(|b| part(&b.inverse)).collect()),
                }
            }
            Some(_) => Method::Complex { scale: reciprocals(&bases, shift) },
        };
        Ok(Self { factors, bases, shift, method })
    }

    /// Σ_d A_d x + shift · x.
    ///
    /// # Errors
    /// [`Error::Shape`] where x has other axes than the factors.
    pub fn apply(&self, x: ArrayViewD<f64>) -> Result<ArrayD<f64>> {
        let mut sum = x.mapv(|v| self.shift * v);
        for (axis, a) in self.factors.iter().enumerate() {
            sum += &mode_product(a.view(), x.view(), axis)?;
        }
        Ok(sum)
    }

    /// x of Σ_d A_d x + shift · x = b.
    ///
    /// # Errors
    /// [`Error::Shape`] where b has other axes than the factors.
    pub fn solve(&self, b: ArrayViewD<f64>) -> Result<ArrayD<f64>> {
        let mut x = self.solve_once(b.view())?;
        let mut size = f64::INFINITY;
        for _ in 0..REFINEMENTS {
            let residual = &b - &self.apply(x.view())?;
            let correction = self.solve_once(residual.view())?;
            let step = norm(&correction);
            // Corrections that stop shrinking are rounding, or a component that the solve leaves at zero.
            if step.is_nan() || step > 0.5 * size {
                break;
            }
            x += &correction;
            size = step;
            if step <= 4.0 * f64::EPSILON * norm(&x) {
                break;
            }
        }
        Ok(x)
    }

    /// x by one pass through the eigenvectors, without refinement: enough for a preconditioner.
    ///
    /// # Errors
    /// [`Error::Shape`] where b has other axes than the factors.
    pub fn solve_once(&self, b: ArrayViewD<f64>) -> Result<ArrayD<f64>> {
        match &self.method {
            Method::Real { scale, vectors, inverses } => {
                let y = kronecker_product(inverses, b)? * scale;
                kronecker_product(vectors, y.view())
            }
            Method::Complex { scale } => {
                let mut y = b.mapv(Complex::from);
                for (axis, basis) in self.bases.iter().enumerate() {
                    y = mode_product(basis.inverse.view(), y.view(), axis)?;
                }
                y *= scale;
                for (axis, basis) in self.bases.iter().enumerate() {
                    y = mode_product(basis.vectors.view(), y.view(), axis)?;
                }
                Ok(y.mapv(|z| z.re))
            }
            Method::Direct { axis, systems } => self.solve_direct(b, *axis, systems),
        }
    }

    fn solve_direct(
        &self,
        b: ArrayViewD<f64>,
        direct: usize,
        systems: &[Lu<Complex<f64>>],
    ) -> Result<ArrayD<f64>> {
        if b.ndim() != self.factors.len() {
            return Err(Error::shape(
                "right-hand side of a Sylvester equation",
                format!("{} axes", self.factors.len()),
                b.shape(),
            ));
        }
        let others = || (0..self.factors.len()).filter(|axis| *axis != direct);
        let mut y = b.mapv(Complex::from);
        for axis in others() {
            y = mode_product(self.bases[axis].inverse.view(), y.view(), axis)?;
        }
        for (mut lane, system) in y.lanes_mut(ndarray::Axis(direct)).into_iter().zip(systems) {
            let solved = system.solve_vector(lane.view())?;
            lane.assign(&solved);
        }
        for axis in others() {
            y = mode_product(self.bases[axis].vectors.view(), y.view(), axis)?;
        }
        Ok(y.mapv(|z| z.re))
    }
}

impl Basis {
    fn new(axis: usize, a: ArrayView2<f64>) -> Result<Self> {
        let name = format!("factor {axis} of a Sylvester equation");
        let Eigen { values, vectors } = Eigen::new(&name, a)?;
        let size = |x: &Array2<Complex<f64>>| x.iter().map(|z| z.norm_sqr()).sum::<f64>().sqrt();
        let inverse = Lu::new(&name, vectors.view()).and_then(|lu| lu.inverse()).ok();
        let count = values.len().max(1) as f64;
        let condition = inverse.as_ref().map_or(f64::INFINITY, |v| size(&vectors) * size(v) / count);
        Ok(Self { values, vectors, inverse: inverse.unwrap_or_default(), condition })
    }
}

/// 1 / (Σ λ + shift) on the grid of all eigenvalues, 0 where the sum vanishes to rounding.
fn reciprocals(bases: &[Arc<Basis>], shift: f64) -> ArrayD<Complex<f64>> {
    let shape: Vec<usize> = bases.iter().map(|b| b.values.len()).collect();
    let mut sums = ArrayD::from_elem(shape, Complex::from(shift));
    for_each_indexed(&mut sums, |index, sum| {
        *sum += bases.iter().zip(index).map(|(b, i)| b.values[*i]).sum::<Complex<f64>>();
    });
    let largest = sums.iter().map(|s| s.norm()).fold(0.0, f64::max);
    sums.mapv(|s| if s.norm() <= NULL * largest { Complex::from(0.0) } else { s.inv() })
}

fn direct(factors: &[Array2<f64>], bases: &[Arc<Basis>], axis: usize, shift: f64) -> Result<Method> {
    let mut others: Vec<&Basis> = bases.iter().map(Arc::as_ref).collect();
    others.remove(axis);
    if let Some(other) = others.iter().find(|b| b.condition.is_infinite()) {
        return Err(Error::Singular {
            name: "Sylvester equation".into(),
            reason: format!("two factors are defective, one of {} rows", other.values.len()),
        });
    }
    let a = factors[axis].mapv(Complex::from);
    let shape: Vec<usize> = others.iter().map(|b| b.values.len()).collect();
    let systems = ndarray::indices(shape)
        .into_iter()
        .map(|index| {
            let index = ndarray::Dimension::slice(&index).to_vec();
            let sum: Complex<f64> = others.iter().zip(&index).map(|(b, i)| b.values[*i]).sum();
            let mut system = a.clone();
            Zip::from(system.diag_mut()).for_each(|d| *d += sum + shift);
            Lu::new("Sylvester equation", system.view())
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Method::Direct { axis, systems: Arc::new(systems) })
}

fn norm(x: &ArrayD<f64>) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn};

    use super::*;

    fn noise(shape: &[usize], seed: u64) -> ArrayD<f64> {
        let mut state = seed;
        Array::from_shape_simple_fn(IxDyn(shape), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
    }

    fn matrix(n: usize, seed: u64) -> Array2<f64> {
        noise(&[n, n], seed).into_dimensionality::<ndarray::Ix2>().unwrap() + Array2::<f64>::eye(n) * n as f64
    }

    /// The plain substitution, an independent truth: the residual of the definition written with indices.
    fn check(factors: Vec<Array2<f64>>, shift: f64) -> Method {
        let shape: Vec<usize> = factors.iter().map(Array2::nrows).collect();
        let b = noise(&shape, 9);
        let solver = SylvesterSolver::new(factors.clone(), shift + 1.0).unwrap().with_shift(shift).unwrap();
        let x = solver.solve(b.view()).unwrap();
        let mut worst = 0.0f64;
        for (index, value) in b.indexed_iter() {
            let index = ndarray::Dimension::slice(&index).to_vec();
            let mut sum = shift * x[&index[..]];
            for (axis, a) in factors.iter().enumerate() {
                for k in 0..shape[axis] {
                    let mut other = index.clone();
                    other[axis] = k;
                    sum += a[[index[axis], k]] * x[&other[..]];
                }
            }
            worst = worst.max((sum - value).abs());
        }
        assert!(worst < 1e-11, "{worst:e}");
        solver.method
    }

    #[test]
    fn symmetric_general_and_defective_factors() {
        let symmetric = |n, seed| {
            let a = matrix(n, seed);
            &a + &a.t()
        };
        assert!(matches!(check(vec![symmetric(5, 1), symmetric(7, 2)], 0.0), Method::Real { .. }));
        assert!(matches!(
            check(vec![symmetric(4, 1), symmetric(3, 2), symmetric(5, 3)], -0.3),
            Method::Real { .. }
        ));
        let turn = Array2::from_shape_fn((6, 6), |(i, j)| (i as f64 - j as f64).signum());
        assert!(matches!(check(vec![turn.clone(), matrix(4, 4)], 0.5), Method::Complex { .. }));
        let jordan = Array2::from_shape_fn((5, 5), |(i, j)| match i.abs_diff(j) {
            0 => 2.0,
            1 if j > i => 1.0,
            _ => 0.0,
        });
        assert!(matches!(check(vec![turn.clone(), jordan.clone()], 0.1), Method::Direct { axis: 1, .. }));
        assert!(matches!(check(vec![matrix(3, 5), jordan, turn], 0.1), Method::Direct { axis: 1, .. }));
    }

    #[test]
    fn the_undetermined_part_is_left_at_zero() {
        let ring = Array2::from_shape_fn((4, 4), |(i, j)| match (4 + i - j) % 4 {
            0 => 2.0,
            1 | 3 => -1.0,
            _ => 0.0,
        });
        let solver = SylvesterSolver::new(vec![ring.clone(), ring], 0.0).unwrap();
        let mut b = noise(&[4, 4], 3);
        b -= b.mean().unwrap();
        let x = solver.solve(b.view()).unwrap();
        assert!(norm(&(solver.apply(x.view()).unwrap() - b)) < 1e-13);
        assert!(x.sum().abs() < 1e-13);
    }

    #[test]
    fn misuse_is_reported() {
        assert!(SylvesterSolver::new(vec![], 0.0).is_err());
        assert!(SylvesterSolver::new(vec![Array2::zeros((2, 3))], 0.0).is_err());
        let solver = SylvesterSolver::new(vec![matrix(2, 1), matrix(3, 2)], 0.0).unwrap();
        assert!(solver.solve(noise(&[3, 2], 1).view()).is_err());
        assert!(solver.solve(noise(&[2], 1).view()).is_err());
    }
}
