//! Generalised minimal residuals, for arrays.

use ndarray::{ArrayD, Zip};

use crate::error::Result;

fn inner(a: &ArrayD<f64>, b: &ArrayD<f64>) -> f64 {
    // Zip walks contiguous arrays of any dimension as vectors.
    Zip::from(a).and(b).fold(0.0, |sum, a, b| sum + a * b)
}

pub(super) fn norm(x: &ArrayD<f64>) -> f64 {
    inner(x, x).sqrt()
}

/// GMRES (Saad and Schultz 1986) with a right preconditioner and no restart: x of A x = b with ‖b − A x‖ at most
/// `tolerance` ‖b‖, or after `limit` steps. Returns x and the relative residual.
pub(super) fn gmres(
    apply: impl Fn(&ArrayD<f64>) -> Result<ArrayD<f64>>,
    precondition: impl Fn(&ArrayD<f64>) -> Result<ArrayD<f64>>,
    b: &ArrayD<f64>,
    tolerance: f64,
    limit: usize,
) -> Result<(ArrayD<f64>, f64)> {
    let size = norm(b);
    if size == 0.0 {
        return Ok((ArrayD::zeros(b.raw_dim()), 0.0));
    }
    let mut basis = vec![b / size];
    // Columns of the triangular factor of the Hessenberg matrix, its rotations, and the rotated right-hand side.
    let (mut columns, mut rotations, mut right) = (Vec::<Vec<f64>>::new(), Vec::new(), vec![size]);
    while columns.len() < limit && right[columns.len()].abs() > tolerance * size {
        let step = columns.len();
        let mut next = apply(&precondition(&basis[step])?)?;
        let mut column = vec![0.0; step + 1];
        // Twice is enough for orthogonality to rounding.
        for _ in 0..2 {
            for (entry, v) in column.iter_mut().zip(&basis) {
                let along = inner(&next, v);
                next.scaled_add(-along, v);
                *entry += along;
            }
        }
        let length = norm(&next);
        for (i, (c, s)) in rotations.iter().enumerate() {
            let (a, b): (f64, f64) = (column[i], column[i + 1]);
            (column[i], column[i + 1]) = (c * a + s * b, c * b - s * a);
        }
        let radius = column[step].hypot(length);
        if radius == 0.0 || !radius.is_finite() {
            break;
        }
        let (c, s): (f64, f64) = (column[step] / radius, length / radius);
        column[step] = radius;
        right.push(-s * right[step]);
        right[step] *= c;
        rotations.push((c, s));
        columns.push(column);
        if length == 0.0 {
            break;
        }
        basis.push(next / length);
    }
    let steps = columns.len();
    let mut y = vec![0.0; steps];
    for i in (0..steps).rev() {
        let known: f64 = (i + 1..steps).map(|j| columns[j][i] * y[j]).sum();
        y[i] = (right[i] - known) / columns[i][i];
    }
    let mut x = ArrayD::zeros(b.raw_dim());
    for (c, v) in y.iter().zip(&basis) {
        x.scaled_add(*c, v);
    }
    Ok((precondition(&x)?, right.get(steps).map_or(0.0, |r| r.abs()) / size))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, IxDyn};

    use super::*;

    #[test]
    fn it_solves_what_a_matrix_states() -> Result<()> {
        let n = 20;
        let a = Array2::from_shape_fn(
            (n, n),
            |(i, j)| if i == j { 2.0 + i as f64 } else { 0.5 / (1 + i + j) as f64 },
        );
        let b = ArrayD::from_shape_fn(IxDyn(&[n]), |i| (i[0] as f64).sin());
        let apply = |x: &ArrayD<f64>| {
            let x = x.iter().copied().collect::<ndarray::Array1<f64>>();
            Ok(a.dot(&x).into_dyn())
        };
        let scale =
            |x: &ArrayD<f64>| Ok(ArrayD::from_shape_fn(IxDyn(&[n]), |i| x[[i[0]]] / (2.0 + i[0] as f64)));
        let (x, residual) = gmres(apply, scale, &b, 1e-13, 30)?;
        let error = &apply(&x)? - &b;
        assert!(residual < 1e-13 && error.iter().all(|e| e.abs() < 1e-12));
        let (zero, _) = gmres(apply, scale, &(&b * 0.0), 1e-13, 30)?;
        assert!(zero.iter().all(|v| *v == 0.0));
        Ok(())
    }
}
