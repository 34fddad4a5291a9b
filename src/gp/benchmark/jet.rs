//! Truncated Taylor series of one variable: exact derivatives of the benchmarks' solutions.

use std::ops::{Add, Mul, Sub};

/// Coefficients kept: derivatives to order 4.
const TERMS: usize = 5;

/// f(x + h) = Σₙ cₙ hⁿ, truncated after h⁴.
///
/// ```
/// use wellposed::gp::benchmark::Jet;
/// let x = Jet::variable(0.5);
/// let f = (x * 100.0).sin() * x;
/// assert!((f.derivative(1) - (50.0_f64.sin() + 50.0 * 50.0_f64.cos())).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Jet([f64; TERMS]);

impl Jet {
    /// The function x at `x`.
    pub fn variable(x: f64) -> Self {
        Self([x, 1.0, 0.0, 0.0, 0.0])
    }

    /// The constant function.
    pub fn constant(c: f64) -> Self {
        Self([c, 0.0, 0.0, 0.0, 0.0])
    }

    /// The value of the derivative of `order` ≤ 4; NaN above.
    pub fn derivative(self, order: usize) -> f64 {
        const FACTORIAL: [f64; TERMS] = [1.0, 1.0, 2.0, 6.0, 24.0];
        self.0.get(order).map_or(f64::NAN, |c| c * FACTORIAL[order])
    }

    /// exp f.
    pub fn exp(self) -> Self {
        // y′ = f′ y
        let mut y = [0.0; TERMS];
        y[0] = self.0[0].exp();
        for n in 1..TERMS {
            y[n] = (1..=n).map(|k| k as f64 * self.0[k] * y[n - k]).sum::<f64>() / n as f64;
        }
        Self(y)
    }

    /// sin f.
    pub fn sin(self) -> Self {
        self.sin_cos().0
    }

    /// cos f.
    pub fn cos(self) -> Self {
        self.sin_cos().1
    }

    /// tanh f.
    pub fn tanh(self) -> Self {
        // y′ = f′ (1 − y²)
        let mut y = Self::constant(self.0[0].tanh());
        for n in 1..TERMS {
            let slope = Self::constant(1.0) - y * y;
            y.0[n] = (1..=n).map(|k| k as f64 * self.0[k] * slope.0[n - k]).sum::<f64>() / n as f64;
        }
        y
    }

    /// 1 / f.
    pub fn recip(self) -> Self {
        let mut y = [0.0; TERMS];
        y[0] = 1.0 / self.0[0];
        for n in 1..TERMS {
            y[n] = -(1..=n).map(|k| self.0[k] * y[n - k]).sum::<f64>() / self.0[0];
        }
        Self(y)
    }

    fn sin_cos(self) -> (Self, Self) {
        let (mut s, mut c) = ([0.0; TERMS], [0.0; TERMS]);
        (s[0], c[0]) = self.0[0].sin_cos();
        for n in 1..TERMS {
            for k in 1..=n {
                let slope = k as f64 * self.0[k] / n as f64;
                s[n] += slope * c[n - k];
                c[n] -= slope * s[n - k];
            }
        }
        (Self(s), Self(c))
    }
}

impl Add for Jet {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] + other.0[n]))
    }
}

impl Sub for Jet {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] - other.0[n]))
    }
}

impl Mul for Jet {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| (0..=n).map(|k| self.0[k] * other.0[n - k]).sum()))
    }
}

impl Mul<f64> for Jet {
    type Output = Self;
    fn mul(self, scale: f64) -> Self {
        Self(self.0.map(|c| c * scale))
    }
}

impl Add<f64> for Jet {
    type Output = Self;
    fn add(mut self, constant: f64) -> Self {
        self.0[0] += constant;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_closed_forms() {
        let x = Jet::variable(0.3);
        let close = |jet: Jet, expected: [f64; 5]| {
            for (order, e) in expected.into_iter().enumerate() {
                assert!((jet.derivative(order) - e).abs() < 1e-12 * (1.0 + e.abs()), "order {order}");
            }
        };
        let (s, c) = 2.1_f64.sin_cos();
        close((x * 7.0).sin(), [s, 7.0 * c, -49.0 * s, -343.0 * c, 2401.0 * s]);
        close((x * 7.0).cos(), [c, -7.0 * s, -49.0 * c, 343.0 * s, 2401.0 * c]);
        let e = 0.6_f64.exp();
        close((x * 2.0).exp(), [e, 2.0 * e, 4.0 * e, 8.0 * e, 16.0 * e]);
        let r = 1.0 / 1.3_f64;
        close((x + 1.0).recip(), [r, -r.powi(2), 2.0 * r.powi(3), -6.0 * r.powi(4), 24.0 * r.powi(5)]);
        let t = 0.3_f64.tanh();
        let q = 1.0 - t * t;
        close(
            x.tanh(),
            [t, q, -2.0 * t * q, -2.0 * q * q + 4.0 * t * t * q, 16.0 * t * q * q - 8.0 * t.powi(3) * q],
        );
        close(x * x * x, [0.027, 0.27, 1.8, 6.0, 0.0]);
    }
}
