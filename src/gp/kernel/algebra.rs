//! Sums and products of kernels.

use super::{Kernel1d, ORDERS, check_parameters};
use crate::error::{Error, Result};

/// k₁ + k₂ + …; the hyperparameters are those of the parts, one after the other.
#[derive(Clone, Debug)]
pub struct Sum(Vec<Box<dyn Kernel1d>>);

/// k₁ k₂ …; the hyperparameters are those of the parts, one after the other.
#[derive(Clone, Debug)]
pub struct Product(Vec<Box<dyn Kernel1d>>);

impl Sum {
    /// The sum of at least one kernel.
    ///
    /// ```
    /// use wellposed::gp::kernel::{Kernel1d, Stationary, Sum};
    /// let slow = Stationary::squared_exponential(1.0, 2.0)?.boxed();
    /// let fast = Stationary::matern(5, 0.1, 0.05)?.boxed();
    /// assert!((Sum::new(vec![slow, fast])?.derivatives(0.0)[0] - 1.1).abs() < 1e-15);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// There are no parts.
    pub fn new(parts: Vec<Box<dyn Kernel1d>>) -> Result<Self> {
        require_parts(&parts)?;
        Ok(Self(parts))
    }
}

impl Product {
    /// The product of at least one kernel.
    ///
    /// ```
    /// use wellposed::gp::kernel::{Kernel1d, Product, Stationary};
    /// let k = Stationary::squared_exponential(3.0, 2.0)?.boxed();
    /// assert!((Product::new(vec![k.clone(), k])?.derivatives(0.0)[0] - 9.0).abs() < 1e-14);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// There are no parts.
    pub fn new(parts: Vec<Box<dyn Kernel1d>>) -> Result<Self> {
        require_parts(&parts)?;
        Ok(Self(parts))
    }
}

fn require_parts(parts: &[Box<dyn Kernel1d>]) -> Result<()> {
    if parts.is_empty() {
        return Err(Error::parameter("kernels", "none", "a sum or product has at least one part"));
    }
    Ok(())
}

/// (ab)⁽ⁿ⁾ = Σ_j C(n, j) a⁽ʲ⁾ b⁽ⁿ⁻ʲ⁾.
fn leibniz(a: &[f64; ORDERS], b: &[f64; ORDERS]) -> [f64; ORDERS] {
    const BINOMIAL: [[f64; ORDERS]; ORDERS] = [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 1.0, 0.0, 0.0, 0.0],
        [1.0, 2.0, 1.0, 0.0, 0.0],
        [1.0, 3.0, 3.0, 1.0, 0.0],
        [1.0, 4.0, 6.0, 4.0, 1.0],
    ];
    std::array::from_fn(|n| (0..=n).map(|j| BINOMIAL[n][j] * a[j] * b[n - j]).sum())
}

fn part_gradients(part: &dyn Kernel1d, tau: f64) -> [Vec<f64>; ORDERS] {
    let mut gradients: [Vec<f64>; ORDERS] = std::array::from_fn(|_| vec![0.0; part.parameters().len()]);
    part.gradients(tau, &mut gradients);
    gradients
}

fn parameters(parts: &[Box<dyn Kernel1d>]) -> Vec<f64> {
    parts.iter().flat_map(|part| part.parameters()).collect()
}

fn set_parameters(parts: &mut [Box<dyn Kernel1d>], mut values: &[f64]) -> Result<()> {
    check_parameters(parts.iter().map(|part| part.parameters().len()).sum(), values)?;
    for part in parts {
        let (own, rest) = values.split_at(part.parameters().len());
        part.set_parameters(own)?;
        values = rest;
    }
    Ok(())
}

fn names(parts: &[Box<dyn Kernel1d>]) -> Vec<String> {
    let mut names = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        names.extend(part.parameter_names().into_iter().map(|name| format!("part {i} {name}")));
    }
    names
}

fn smoothness(parts: &[Box<dyn Kernel1d>]) -> usize {
    parts.iter().map(|part| part.smoothness()).min().unwrap_or(usize::MAX)
}

impl Kernel1d for Sum {
    fn derivatives(&self, tau: f64) -> [f64; ORDERS] {
        self.0.iter().fold([0.0; ORDERS], |sum, part| {
            let k = part.derivatives(tau);
            std::array::from_fn(|n| sum[n] + k[n])
        })
    }

    fn gradients(&self, tau: f64, out: &mut [Vec<f64>; ORDERS]) {
        let mut start = 0;
        for part in &self.0 {
            let own = part_gradients(part.as_ref(), tau);
            for (out, own) in out.iter_mut().zip(&own) {
                out[start..start + own.len()].copy_from_slice(own);
            }
            start += own[0].len();
        }
    }

    fn parameters(&self) -> Vec<f64> {
        parameters(&self.0)
    }

    fn set_parameters(&mut self, values: &[f64]) -> Result<()> {
        set_parameters(&mut self.0, values)
    }

    fn parameter_names(&self) -> Vec<String> {
        names(&self.0)
    }

    fn smoothness(&self) -> usize {
        smoothness(&self.0)
    }

    fn boxed(&self) -> Box<dyn Kernel1d> {
        Box::new(self.clone())
    }
}

impl Kernel1d for Product {
    fn derivatives(&self, tau: f64) -> [f64; ORDERS] {
        let one = [1.0, 0.0, 0.0, 0.0, 0.0];
        self.0.iter().fold(one, |product, part| leibniz(&product, &part.derivatives(tau)))
    }

    fn gradients(&self, tau: f64, out: &mut [Vec<f64>; ORDERS]) {
        let values: Vec<_> = self.0.iter().map(|part| part.derivatives(tau)).collect();
        let mut start = 0;
        for (index, part) in self.0.iter().enumerate() {
            let one = [1.0, 0.0, 0.0, 0.0, 0.0];
            let others = values.iter().enumerate().filter(|(other, _)| *other != index);
            let rest = others.fold(one, |product, (_, k)| leibniz(&product, k));
            let own = part_gradients(part.as_ref(), tau);
            for i in 0..own[0].len() {
                let changed = leibniz(&std::array::from_fn(|n| own[n][i]), &rest);
                out.iter_mut().zip(changed).for_each(|(out, value)| out[start + i] = value);
            }
            start += own[0].len();
        }
    }

    fn parameters(&self) -> Vec<f64> {
        parameters(&self.0)
    }

    fn set_parameters(&mut self, values: &[f64]) -> Result<()> {
        set_parameters(&mut self.0, values)
    }

    fn parameter_names(&self) -> Vec<String> {
        names(&self.0)
    }

    fn smoothness(&self) -> usize {
        smoothness(&self.0)
    }

    fn boxed(&self) -> Box<dyn Kernel1d> {
        Box::new(self.clone())
    }
}
