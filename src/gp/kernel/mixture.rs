//! Spectral mixtures: Gaussian and Student-t spectra.

use std::f64::consts::TAU;

use ndarray::{Array2, Axis};
use num_complex::Complex64;

use super::envelope::DERIVATIVES;
use super::{Envelope, Kernel1d, ORDERS, check_parameters, require_order};
use crate::error::{Error, Result};

/// k(τ) = Σ_q w_q g(s_q τ) cos(2π f_q τ): a spectrum made of bumps at the frequencies f_q.
///
/// With the Gaussian envelope, g(s τ) = e^(−aτ²), the bumps are Gaussian; with Matérn p + ½ (p = 2 in GP-HM) they are
/// Student-t, with heavy tails. Hyperparameters: all log w, all log a, all f (cycles per unit of length).
///
/// Wilson & Adams 2013, eq. 12; Fang et al. 2024 (2311.04465), eq. 7–9.
#[derive(Clone, Debug)]
pub struct SpectralMixture {
    envelope: Envelope,
    log_weights: Vec<f64>,
    log_scales: Vec<f64>,
    frequencies: Vec<f64>,
}

impl SpectralMixture {
    /// A mixture with weights w > 0, inverse (squared) lengths a > 0 and frequencies f in cycles per unit of length.
    ///
    /// ```
    /// use wellposed::gp::kernel::{Envelope, Kernel1d, SpectralMixture};
    /// let kernel = SpectralMixture::new(Envelope::Gaussian, &[0.5, 0.5], &[1.0, 1.0], &[0.0, 16.0])?;
    /// assert_eq!(kernel.parameters().len(), 6);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// The lists are empty or of different lengths, or a value is out of range.
    pub fn new(envelope: Envelope, weights: &[f64], scales: &[f64], frequencies: &[f64]) -> Result<Self> {
        let count = frequencies.len();
        if count == 0 || weights.len() != count || scales.len() != count {
            let found = [weights.len(), scales.len(), count];
            return Err(Error::shape(
                "mixture components",
                "as many weights, scales and frequencies",
                &found,
            ));
        }
        if let Some(bad) = weights.iter().chain(scales).find(|v| !(**v > 0.0 && v.is_finite())) {
            return Err(Error::parameter("mixture weight or scale", bad, "must be positive and finite"));
        }
        if let Some(bad) = frequencies.iter().find(|f| !f.is_finite()) {
            return Err(Error::parameter("mixture frequency", bad, "must be finite"));
        }
        if matches!(envelope, Envelope::Matern(p) if p > 5) {
            return Err(Error::parameter("envelope", format!("{envelope:?}"), "Matérn envelopes have p ≤ 5"));
        }
        let ln = |values: &[f64]| values.iter().map(|v| v.ln()).collect();
        Ok(Self {
            envelope,
            log_weights: ln(weights),
            log_scales: ln(scales),
            frequencies: frequencies.to_vec(),
        })
    }

    /// The published initialisation: `count` equal weights that sum to 1, a = 1, frequencies equally spaced from 0 to
    /// `highest`.
    ///
    /// # Errors
    /// `count` is 0, or `highest` is not finite.
    pub fn spread(envelope: Envelope, count: usize, highest: f64) -> Result<Self> {
        let place = |q: usize| highest * q as f64 / count.saturating_sub(1).max(1) as f64;
        let frequencies: Vec<f64> = (0..count).map(place).collect();
        Self::new(envelope, &vec![1.0 / count.max(1) as f64; count], &vec![1.0; count], &frequencies)
    }

    /// Number of components Q.
    pub fn components(&self) -> usize {
        self.frequencies.len()
    }

    /// The scale s of component `q`.
    fn scale(&self, q: usize) -> f64 {
        self.envelope.mixture_scale(self.log_scales[q].exp())
    }

    /// The complex component w g(sτ) e^(imτ) at one lag, with `rotation` = w e^(imτ).
    #[inline(always)] // only the derivatives that the caller reads are computed
    fn component(&self, q: usize, scale: f64, tau: f64, rotation: Complex64) -> Component {
        Component {
            envelope: self.envelope.derivatives(scale, tau),
            exponent: self.envelope.mixture_exponent(),
            rotation,
            m: TAU * self.frequencies[q],
            tau,
        }
    }

    fn rotation(&self, q: usize, tau: f64) -> Complex64 {
        Complex64::from_polar(self.log_weights[q].exp(), TAU * self.frequencies[q] * tau)
    }

    /// k and k⁽ⁿ⁾ for `order` n on the uniform lags i·step, i < `count`, with their gradients: what one step of the
    /// published objective needs. Costs one exponential and one sine a lag and component.
    ///
    /// # Errors
    /// `order` is above 4 or above the kernel's smoothness.
    pub fn lag_table(&self, step: f64, count: usize, order: usize) -> Result<LagTable> {
        require_order(self.smoothness(), order)?;
        let mut table = LagTable::zeros(3 * self.components(), count);
        match order {
            0 => self.fill_lags::<0>(step, &mut table),
            1 => self.fill_lags::<1>(step, &mut table),
            2 => self.fill_lags::<2>(step, &mut table),
            3 => self.fill_lags::<3>(step, &mut table),
            _ => self.fill_lags::<4>(step, &mut table),
        }
        Ok(table)
    }

    fn fill_lags<const N: usize>(&self, step: f64, table: &mut LagTable) {
        let components = self.components();
        for q in 0..components {
            // e^(imτ) by repeated multiplication: its rounding grows like the number of lags, to 1e-13 of it.
            let turn = Complex64::from_polar(1.0, TAU * self.frequencies[q] * step);
            let mut rotation = Complex64::new(self.log_weights[q].exp(), 0.0);
            let scale = self.scale(q);
            let of_value = rows(&mut table.value_gradient, q, components);
            let of_derivative = rows(&mut table.derivative_gradient, q, components);
            for i in 0..table.value.len() {
                let component = self.component(q, scale, i as f64 * step, rotation);
                let (value, derivative) = (component.gradients::<0>(), component.gradients::<N>());
                for part in 0..3 {
                    of_value[part][i] = value[part];
                    of_derivative[part][i] = derivative[part];
                }
                // The kernel is its own gradient with respect to log w.
                table.value[i] += value[0];
                table.derivative[i] += derivative[0];
                rotation *= turn;
            }
        }
    }
}

/// The rows of log w, log a and f of component `q`.
fn rows(gradient: &mut Array2<f64>, q: usize, components: usize) -> [&mut [f64]; 3] {
    let lags = gradient.ncols();
    let mut rows =
        gradient.as_slice_mut().expect("row-major").chunks_exact_mut(lags).skip(q).step_by(components);
    std::array::from_fn(|_| rows.next().expect("three rows a component"))
}

/// K = w g(sτ) e^(imτ) at one lag; the kernel is its real part.
struct Component {
    /// dⁿg(sτ)/dτⁿ, n = 0 … 5.
    envelope: [f64; DERIVATIVES],
    /// d log s / d log a.
    exponent: f64,
    /// w e^(imτ).
    rotation: Complex64,
    m: f64,
    tau: f64,
}

impl Component {
    /// Re K⁽ⁿ⁾, n = 0 … 4: [`Component::modulated`] written out, which the Gram matrices spend their time in.
    fn derivatives(&self) -> [f64; ORDERS] {
        let (g, m, m2) = (&self.envelope, self.m, self.m * self.m);
        let (c, s) = (self.rotation.re, self.rotation.im);
        [
            g[0] * c,
            g[1] * c - m * g[0] * s,
            (g[2] - m2 * g[0]) * c - 2.0 * m * g[1] * s,
            (g[3] - 3.0 * m2 * g[1]) * c - m * (3.0 * g[2] - m2 * g[0]) * s,
            (g[4] - 6.0 * m2 * g[2] + m2 * m2 * g[0]) * c - 4.0 * m * (g[3] - m2 * g[1]) * s,
        ]
    }

    /// ∂ Re K⁽ᴺ⁾ / ∂ (log w, log a, f).
    #[inline(always)]
    fn gradients<const N: usize>(&self) -> [f64; 3] {
        let k = self.modulated(&self.envelope, N);
        // ∂/∂m: the N-th derivative of iτK, which is i(τK⁽ᴺ⁾ + NK⁽ᴺ⁻¹⁾).
        let lower = if N > 0 { N as f64 * self.modulated(&self.envelope, N - 1).im } else { 0.0 };
        // ∂/∂log s of g⁽ʲ⁾ = sʲG⁽ʲ⁾(sτ) is j g⁽ʲ⁾ + τ g⁽ʲ⁺¹⁾.
        let stretched: [f64; ORDERS] =
            std::array::from_fn(|j| j as f64 * self.envelope[j] + self.tau * self.envelope[j + 1]);
        [k.re, self.exponent * self.modulated(&stretched, N).re, -TAU * (self.tau * k.im + lower)]
    }

    /// (g e^(imτ))⁽ⁿ⁾ = Σ_j C(n, j) g⁽ⁿ⁻ʲ⁾ (im)ʲ e^(imτ).
    #[inline(always)] // n is known where it's called: the loop vanishes
    fn modulated(&self, g: &[f64], n: usize) -> Complex64 {
        let mut sum = [0.0; 4];
        let mut factor = 1.0;
        for j in 0..=n {
            sum[j % 4] += factor * g[n - j];
            factor *= self.m * (n - j) as f64 / (j + 1) as f64;
        }
        self.rotation * Complex64::new(sum[0] - sum[2], sum[1] - sum[3])
    }
}

impl Kernel1d for SpectralMixture {
    fn derivatives(&self, tau: f64) -> [f64; ORDERS] {
        let mut sum = [0.0; ORDERS];
        for q in 0..self.components() {
            let k = self.component(q, self.scale(q), tau, self.rotation(q, tau)).derivatives();
            sum.iter_mut().zip(k).for_each(|(sum, k)| *sum += k);
        }
        sum
    }

    fn gradients(&self, tau: f64, out: &mut [Vec<f64>; ORDERS]) {
        let count = self.components();
        for q in 0..count {
            let component = self.component(q, self.scale(q), tau, self.rotation(q, tau));
            let gradients = [
                component.gradients::<0>(),
                component.gradients::<1>(),
                component.gradients::<2>(),
                component.gradients::<3>(),
                component.gradients::<4>(),
            ];
            for (out, gradient) in out.iter_mut().zip(gradients) {
                (0..3).for_each(|part| out[part * count + q] = gradient[part]);
            }
        }
    }

    fn parameters(&self) -> Vec<f64> {
        [self.log_weights.as_slice(), &self.log_scales, &self.frequencies].concat()
    }

    fn set_parameters(&mut self, parameters: &[f64]) -> Result<()> {
        let count = self.components();
        check_parameters(3 * count, parameters)?;
        self.log_weights.copy_from_slice(&parameters[..count]);
        self.log_scales.copy_from_slice(&parameters[count..2 * count]);
        self.frequencies.copy_from_slice(&parameters[2 * count..]);
        Ok(())
    }

    fn parameter_names(&self) -> Vec<String> {
        ["log weight", "log scale", "frequency"]
            .into_iter()
            .flat_map(|name| (0..self.components()).map(move |q| format!("{name} {q}")))
            .collect()
    }

    fn smoothness(&self) -> usize {
        self.envelope.smoothness()
    }

    fn spectrum(&self) -> Vec<(f64, f64)> {
        self.frequencies.iter().copied().zip(self.log_weights.iter().map(|w| w.exp())).collect()
    }

    fn boxed(&self) -> Box<dyn Kernel1d> {
        Box::new(self.clone())
    }
}

/// A kernel and one of its derivatives on uniform lags, with gradients.
#[derive(Clone, Debug)]
pub struct LagTable {
    /// k(i·step), shape `[lags]`.
    pub value: Vec<f64>,
    /// k⁽ⁿ⁾(i·step), shape `[lags]`.
    pub derivative: Vec<f64>,
    /// ∂ value / ∂θ, shape [hyperparameters, lags].
    pub value_gradient: Array2<f64>,
    /// ∂ derivative / ∂θ, shape [hyperparameters, lags].
    pub derivative_gradient: Array2<f64>,
}

impl LagTable {
    fn zeros(parameters: usize, lags: usize) -> Self {
        Self {
            value: vec![0.0; lags],
            derivative: vec![0.0; lags],
            value_gradient: Array2::zeros((parameters, lags)),
            derivative_gradient: Array2::zeros((parameters, lags)),
        }
    }

    /// Σ_i cᵢ ∂value\[i\]/∂θ + Σ_i dᵢ ∂derivative\[i\]/∂θ, shape `[hyperparameters]`.
    pub fn pull_back(&self, value: &[f64], derivative: &[f64]) -> Vec<f64> {
        let dot =
            |row: ndarray::ArrayView1<f64>, c: &[f64]| row.iter().zip(c).map(|(a, b)| a * b).sum::<f64>();
        self.value_gradient
            .axis_iter(Axis(0))
            .zip(self.derivative_gradient.axis_iter(Axis(0)))
            .map(|(a, b)| dot(a, value) + dot(b, derivative))
            .collect()
    }
}
