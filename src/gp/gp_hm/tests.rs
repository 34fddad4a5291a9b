//! Loss and gradient against dense matrices formed pair by pair.

use ndarray::Array2;

use super::objective::{HmObjective, JITTER};
use super::*;
use crate::gp::benchmark::{Case, case};
use crate::linalg::dense::Cholesky;

fn mixture(envelope: Envelope) -> SpectralMixture {
    // Short scales keep the Gram matrices well conditioned, so that 1e-10 can be asked for.
    SpectralMixture::new(envelope, &[0.5, 0.3, 0.4], &[9.0, 12.0, 7.0], &[0.0, 1.3, 2.2]).expect("valid")
}

fn variables(objective: &HmObjective) -> Vec<f64> {
    let mut x = objective.start();
    for (i, x) in x[..objective.nodes() + 2].iter_mut().enumerate() {
        *x = (1.7 * i as f64).sin() * 0.4 + 0.1;
    }
    x
}

/// K, P = k⁽ᵐ⁾ and their hyperparameter derivatives, element by element.
struct Dense {
    k: Array2<f64>,
    p: Array2<f64>,
    dk: Vec<Array2<f64>>,
    dp: Vec<Array2<f64>>,
}

fn dense(kernel: &SpectralMixture, nodes: usize, step: f64, order: usize) -> Dense {
    let count = kernel.parameters().len();
    let tau = |i: usize, j: usize| (i as f64 - j as f64) * step;
    let of = |n: usize| Array2::from_shape_fn((nodes, nodes), |(i, j)| kernel.derivatives(tau(i, j))[n]);
    let gradient = |n: usize, q: usize| {
        Array2::from_shape_fn((nodes, nodes), |(i, j)| {
            let mut out: [Vec<f64>; 5] = std::array::from_fn(|_| vec![0.0; count]);
            kernel.gradients(tau(i, j), &mut out);
            out[n][q]
        })
    };
    let mut k = of(0);
    k.diag_mut().mapv_inplace(|d| d + JITTER);
    Dense {
        k,
        p: of(order),
        dk: (0..count).map(|q| gradient(0, q)).collect(),
        dp: (0..count).map(|q| gradient(order, q)).collect(),
    }
}

/// The loss and its gradient by dense algebra, for Δu + N(u) or Σ c ∂u = f.
fn reference(case: &Case, nodes: usize, kernels: &[SpectralMixture], x: &[f64]) -> (f64, Vec<f64>) {
    let p = &case.problem;
    let n = x.len() - 2 - kernels.iter().map(|k| k.parameters().len()).sum::<usize>();
    let (rows, columns) = (nodes, n / nodes);
    let u = Array2::from_shape_vec((rows, columns), x[..n].to_vec()).expect("shape");
    let step = |axis: usize| p.length(axis) / (nodes - 1) as f64;
    let parts: Vec<(f64, Dense)> = (0..p.dim())
        .map(|axis| {
            let term = p.operator.terms.iter().find(|t| t.derivative.order(axis) > 0).expect("a term");
            let d = dense(&kernels[axis], nodes, step(axis), term.derivative.order(axis));
            (term.coefficient.constant().expect("constant"), d)
        })
        .collect();
    let inverses: Vec<_> =
        parts.iter().map(|(_, d)| Cholesky::new("K", d.k.view()).expect("pd").inverse()).collect();
    let identity = Array2::eye(1);
    let second = inverses.get(1).unwrap_or(&identity);
    let w = inverses[0].dot(&u).dot(second);
    let f = p
        .source
        .on_grid(&p.uniform_axes(nodes))
        .expect("source")
        .into_shape_with_order((rows, columns))
        .expect("shape");
    let mut r = parts[0].1.p.dot(&inverses[0]).dot(&u) * parts[0].0 - f;
    if let Some((c, d)) = parts.get(1) {
        r += &(u.dot(second).dot(&d.p.t()) * *c);
    }
    let mut slope = Array2::<f64>::zeros(u.raw_dim());
    for term in &p.nonlinear {
        for ((i, j), u) in u.indexed_iter() {
            let mut d = [0.0];
            term.partials(&[], &[*u], &mut d);
            r[[i, j]] += term.value(&[], &[*u]);
            slope[[i, j]] += d[0];
        }
    }
    let (lambda, tau, v) = (200.0, x[n].exp(), x[n + 1].exp());
    let edges: Vec<(usize, usize)> = u
        .indexed_iter()
        .map(|(at, _)| at)
        .filter(|&(i, j)| {
            p.boundary.iter().any(|b| {
                let end = if b.face.sign() < 0.0 { 0 } else { nodes - 1 };
                [i, j][b.face.axis] == end
            })
        })
        .collect();
    let exact = case.exact.on_grid(&p.uniform_axes(nodes), Derivative::VALUE);
    let exact = exact.into_shape_with_order((rows, columns)).expect("shape");
    let misfit: f64 = edges.iter().map(|&at| (u[at] - exact[at]).powi(2)).sum();
    let square = r.mapv(|r| r * r).sum();
    let (nb, total) = (edges.len() as f64, n as f64);
    let log_det = |a: &Array2<f64>| Cholesky::new("K", a.view()).expect("pd").log_determinant();
    let mut loss = 0.5 * (&u * &w).sum() + 0.5 * columns as f64 * log_det(&parts[0].1.k);
    if let Some((_, d)) = parts.get(1) {
        loss += 0.5 * rows as f64 * log_det(&d.k);
    }
    loss -= lambda * (0.5 * nb * x[n] - 0.5 * tau * misfit) + 0.5 * total * x[n + 1] - 0.5 * v * square;

    let g = &r * v;
    let mut du = &w + &(&slope * &g) + inverses[0].dot(&parts[0].1.p.t()).dot(&g) * parts[0].0;
    if let Some((c, d)) = parts.get(1) {
        du += &(g.dot(&d.p).dot(second) * *c);
    }
    for &at in &edges {
        du[at] += lambda * tau * (u[at] - exact[at]);
    }
    let mut gradient: Vec<f64> = du.iter().copied().collect();
    gradient.push(-lambda * (0.5 * nb - 0.5 * tau * misfit));
    gradient.push(-(0.5 * total - 0.5 * v * square));
    for (axis, (c, d)) in parts.iter().enumerate() {
        let (a, w, g, m) = if axis == 0 {
            (inverses[0].dot(&u), w.clone(), g.clone(), columns)
        } else {
            (second.dot(&u.t()), w.t().to_owned(), g.t().to_owned(), rows)
        };
        let ki = &inverses[axis];
        let by_k = ki * (0.5 * m as f64) - w.dot(&a.t()) * 0.5 - ki.dot(&d.p.t()).dot(&g).dot(&a.t()) * *c;
        let by_p = g.dot(&a.t()) * *c;
        for (dk, dp) in d.dk.iter().zip(&d.dp) {
            gradient.push((&by_k * dk).sum() + (&by_p * dp).sum());
        }
    }
    (loss, gradient)
}

fn compare(name: &str, nodes: usize, envelope: Envelope) -> Result<()> {
    let mut case = case(name)?;
    // Fewer oscillations than published: the nodes are few.
    case.problem.domain.iter_mut().for_each(|ends| *ends = [0.0, 3.0]);
    let kernels = vec![mixture(envelope); case.problem.dim()];
    let objective = HmObjective::new(&case.problem, nodes, kernels.clone(), 200.0)?;
    let x = variables(&objective);
    let mut gradient = vec![0.0; x.len()];
    let loss = objective.evaluate(&x, &mut gradient)?;
    let (expected, slopes) = reference(&case, nodes, &kernels, &x);
    assert!((loss - expected).abs() <= 1e-10 * expected.abs(), "{name}: {loss} {expected}");
    let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    for part in [0..objective.nodes(), objective.nodes()..x.len()] {
        let difference: Vec<f64> = part.clone().map(|i| gradient[i] - slopes[i]).collect();
        let size = norm(&slopes[part]);
        assert!(norm(&difference) <= 1e-10 * size, "{name}: {:e} of {size:e}", norm(&difference));
    }
    Ok(())
}

#[test]
fn loss_and_gradient_agree_with_dense_algebra() -> Result<()> {
    compare("poisson-1d-sin", 31, Envelope::Gaussian)?;
    compare("poisson-1d-mix", 30, Envelope::Matern(2))?;
    compare("allen-cahn-1d-sin", 27, Envelope::Gaussian)?;
    compare("poisson-2d-sin-add-cos", 11, Envelope::Matern(2))?;
    compare("advection", 12, Envelope::Gaussian)
}

#[test]
fn the_error_falls() -> Result<()> {
    let case = case("poisson-1d-sin")?;
    let mut problem = case.problem.clone();
    problem.domain = vec![[0.0, 0.5]];
    let error = |iterations| -> Result<f64> {
        let engine = GpHm { points: 60, highest: Some(120.0), components: 10, iterations, ..GpHm::default() };
        let solution = engine.solve(&problem, &mut ())?;
        Case { problem: problem.clone(), ..case.clone() }.error_l2(&solution)
    };
    let (early, late) = (error(30)?, error(1200)?);
    assert!(late < 0.3 * early, "{early} {late}");
    Ok(())
}

#[test]
fn what_the_method_cannot_take_is_refused() -> Result<()> {
    for name in ["darcy", "wave", "burgers", "poisson-3d-sin"] {
        let refused =
            GpHm { points: 10, iterations: 1, ..GpHm::default() }.solve(&case(name)?.problem, &mut ());
        assert!(matches!(refused, Err(Error::Unsupported(_))), "{name}");
    }
    Ok(())
}
