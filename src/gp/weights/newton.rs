//! The linearised equation at a list of points.

use ndarray::{Array1, Array2};

use crate::error::Result;
use crate::gp::problem::{Derivative, Problem};

/// Σ_k c_k(x) ∂_k u + N(u): the coefficients of each derivative at the points, and what is left over.
pub(super) struct Linearisation {
    /// For each derivative of [`Problem::derivatives`], its coefficient at every point.
    pub(super) coefficients: Vec<Array1<f64>>,
    /// L u + N(u) at the points.
    pub(super) value: Array1<f64>,
}

/// The coefficients of L at `points`, by derivative in the order of [`Problem::derivatives`].
pub(super) fn linear_coefficients(problem: &Problem, points: &Array2<f64>) -> Result<Vec<Array1<f64>>> {
    let derivatives = problem.derivatives();
    let mut all = vec![Array1::zeros(points.nrows()); derivatives.len()];
    for term in &problem.operator.terms {
        if let Ok(index) = derivatives.binary_search(&term.derivative) {
            all[index] += &term.coefficient.at(points)?;
        }
    }
    Ok(all)
}

/// L u + N(u) and its linearisation, from the values of each derivative of u.
pub(super) fn linearise(
    problem: &Problem,
    points: &Array2<f64>,
    linear: &[Array1<f64>],
    u: &[Array1<f64>],
) -> Linearisation {
    let derivatives = problem.derivatives();
    let mut coefficients = linear.to_vec();
    let mut value: Array1<f64> = Array1::zeros(points.nrows());
    for (c, u) in linear.iter().zip(u) {
        value += &(c * u);
    }
    for term in &problem.nonlinear {
        let places: Vec<usize> =
            term.arguments.iter().filter_map(|d: &Derivative| derivatives.binary_search(d).ok()).collect();
        let (mut arguments, mut partials) = (vec![0.0; places.len()], vec![0.0; places.len()]);
        for (i, x) in points.rows().into_iter().enumerate() {
            let x = x.to_slice().unwrap_or(&[]);
            arguments.iter_mut().zip(&places).for_each(|(a, place)| *a = u[*place][i]);
            value[i] += term.value(x, &arguments);
            term.partials(x, &arguments, &mut partials);
            for (partial, place) in partials.iter().zip(&places) {
                coefficients[*place][i] += partial;
            }
        }
    }
    Linearisation { coefficients, value }
}
