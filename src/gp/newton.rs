//! Newton's method for all engines: the linearised equation at a list of points, and how far to step.

use ndarray::{Array1, Array2};

use super::problem::{Derivative, Problem};
use crate::error::Result;

/// Σ_k c_k(x) ∂_k u + N(u): the coefficients of each derivative at the points, and what is left over.
pub(in crate::gp) struct Linearisation {
    /// For each derivative of [`Problem::derivatives`], its coefficient at every point.
    pub(in crate::gp) coefficients: Vec<Array1<f64>>,
    /// L u + N(u) at the points.
    pub(in crate::gp) value: Array1<f64>,
}

/// The coefficients of L at `points`, by derivative in the order of [`Problem::derivatives`].
pub(in crate::gp) fn linear_coefficients(
    problem: &Problem,
    points: &Array2<f64>,
) -> Result<Vec<Array1<f64>>> {
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
pub(in crate::gp) fn linearise(
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

/// Halvings of a step before it is given up.
const HALVINGS: u32 = 8;

/// How much of a Newton step to take: the longest of 1, ½, ¼ … after which the misfit of the equation, which `misfit`
/// tells for a length, has fallen from `before` or is below `floor`. None where no length does.
pub(in crate::gp) fn line_search(
    before: f64,
    floor: f64,
    mut misfit: impl FnMut(f64) -> Result<f64>,
) -> Result<Option<f64>> {
    for halving in 0..=HALVINGS {
        let length = 0.5f64.powi(halving as i32);
        // A decrease in proportion to the length (Armijo), so that steps don't creep; false for NaN.
        if misfit(length)? <= ((1.0 - 1e-3 * length) * before).max(floor) {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Newton's method on arctan x = 0 diverges from |x| > 1.39 with full steps.
    #[test]
    fn damped_steps_converge_where_full_ones_diverge() -> Result<()> {
        let mut x = 10.0f64;
        for _ in 0..30 {
            let step = -x.atan() * (1.0 + x * x);
            let length = line_search(x.atan().abs(), 0.0, |t| Ok((x + t * step).atan().abs()))?;
            x += length.unwrap_or(0.0) * step;
        }
        assert!(x.abs() < 1e-12, "{x}");
        assert_eq!(line_search(1.0, 0.0, |_| Ok(f64::NAN))?, None);
        Ok(())
    }
}
