//! Steps from one noise level to the next, given denoised images: DDIM, the DPM-Solver family, UniPC, Heun.
//!
//! All in variance-exploding coordinates, α = 1 and λ = −ln σ, where the variance-preserving formulas of the
//! papers hold unchanged. h = λ_next − λ, and m is what the multistep history keeps: the denoised images
//! (data form) or the noise ε̂ = (x − D)/σ (noise form).

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::sampler::State;
use crate::sampler::dps::ancestral;
use crate::tensor::random::{Noise, normal};
use crate::tensor::{Buffer, Workspace, vector};

/// The noise that a stochastic or deterministic DDIM step keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseFrom {
    /// ε̂ of the network, before the data step (DDS).
    Network,
    /// ε̂ = (x − x̂₀)/σ after the data step (DiffPIR).
    Corrected,
}

/// How a sampler goes from σ to the next noise level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stepper {
    /// x ← x̂₀ + σ'(η z + √(1−η²) ε̂). η = 0 is DDIM, which is DPM-Solver of order 1 in either form.
    Ddim {
        /// Share η of fresh noise, 0 to 1.
        eta: f64,
        /// Which ε̂.
        noise: NoiseFrom,
    },
    /// x ← x̂₀, without any noise: half-quadratic splitting with a denoiser (plug and play; Zhang et al. 2008.13751,
    /// DPIR). It samples nothing; it seeks one image that the data and the denoiser agree on.
    PlugAndPlay,
    /// x ← x̂₀ + (σ'/σ)²(x − x̂₀) + σ' √(1 − (σ'/σ)²) z: the exact step given x₀ = x̂₀ (DDPM).
    Ancestral,
    /// DPM-Solver++ multistep, orders 1 to 3 (Lu et al. 2211.01095, alg. 2).
    DpmPlusPlus {
        /// Order.
        order: usize,
    },
    /// DPM-Solver multistep in the noise form, orders 1 to 3.
    Dpm {
        /// Order.
        order: usize,
    },
    /// DPM-Solver++ singlestep of order 2, midpoint r₁ = ½ (alg. 1): two denoiser calls a step.
    DpmPlusPlusSingle,
    /// DPM-Solver singlestep in the noise form, order 2 (r₁ = ½) or 3 (r₁ = ⅓, r₂ = ⅔): as many calls a step
    /// (Lu et al. 2206.00927, alg. 1 and 2).
    DpmSingle {
        /// Order, 2 or 3.
        order: usize,
    },
    /// SDE-DPM-Solver++(2M): the stochastic multistep of order 2.
    SdeDpmPlusPlus,
    /// UniPC (Zhao et al. 2302.04867): predictor and corrector share one call.
    UniPc {
        /// Order, 1 to 3.
        order: usize,
        /// B(h) = e^{−h} − 1 rather than −h: the variant bh2.
        exponential: bool,
    },
    /// Heun's second-order step of EDM (Karras et al. 2022, alg. 1): two calls a step.
    Heun,
}

/// Denoises an array (and applies the data step): (x, σ, out).
pub(super) type Denoise<'a> = dyn FnMut(&Tensor, f64, &mut Buffer) -> Result<()> + 'a;

/// Where a step goes from and to, and the two levels before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Levels {
    pub(super) sigma: f64,
    pub(super) next: f64,
    /// The levels one, two and three steps before; NaN where there is none.
    pub(super) before: [f64; 3],
    /// Steps after this one; the last few lower the order.
    pub(super) steps_left: usize,
}

impl Levels {
    fn h(&self) -> f64 {
        (self.sigma / self.next).ln()
    }

    /// Steps of λ of the history, relative to h.
    fn ratios(&self) -> [f64; 2] {
        let h = self.h();
        [(self.before[0] / self.sigma).ln() / h, (self.before[1] / self.before[0]).ln() / h]
    }

    fn history(&self) -> usize {
        self.before.iter().filter(|s| s.is_finite()).count()
    }
}

impl Stepper {
    /// The arrays that it carries besides `x` and `estimate`.
    pub(super) fn arrays(&self) -> &'static [&'static str] {
        match self {
            Self::Ddim { .. }
            | Self::PlugAndPlay
            | Self::Ancestral
            | Self::DpmPlusPlusSingle
            | Self::DpmSingle { .. }
            | Self::Heun => &[],
            Self::UniPc { .. } => &["previous", "history0", "history1", "history2"],
            _ => &["history0", "history1", "history2"],
        }
    }

    /// Denoiser calls for each step.
    pub fn calls(&self) -> usize {
        match self {
            Self::DpmPlusPlusSingle | Self::Heun => 2,
            Self::DpmSingle { order } => *order,
            _ => 1,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let (name, value, low, high) = match *self {
            Self::Ddim { eta, .. } => ("eta", eta, 0.0, 1.0),
            Self::DpmPlusPlus { order } | Self::Dpm { order } | Self::UniPc { order, .. } => {
                ("order", order as f64, 1.0, 3.0)
            }
            Self::DpmSingle { order } => ("order", order as f64, 2.0, 3.0),
            _ => return Ok(()),
        };
        if (low..=high).contains(&value) {
            return Ok(());
        }
        Err(Error::parameter(name, value, format!("must be {low} to {high}")))
    }

    /// Takes `x` to the next level. The state's `estimate` holds D(x, σ) after the data step, `network` before it.
    pub(super) fn step(
        &self,
        levels: Levels,
        noise: Noise,
        state: &mut State,
        denoise: &mut Denoise<'_>,
        ws: &mut Workspace,
    ) -> Result<()> {
        if levels.next == 0.0 && !matches!(self, Self::UniPc { .. }) {
            let [x, estimate] = state.many(["x", "estimate"]);
            return vector::copy(estimate.tensor(), x);
        }
        match *self {
            Self::Ddim { eta, noise: from } => ddim(levels, eta, from, noise, state, ws),
            Self::PlugAndPlay => {
                let [x, estimate] = state.many(["x", "estimate"]);
                vector::copy(estimate.tensor(), x)
            }
            Self::Ancestral => {
                let [x, estimate] = state.many(["x", "estimate"]);
                ancestral(levels.sigma, levels.next, noise, x, estimate, ws)
            }
            Self::DpmPlusPlus { order } => multistep(levels, order, true, state),
            Self::Dpm { order } => multistep(levels, order, false, state),
            Self::SdeDpmPlusPlus => sde_multistep(levels, noise, state, ws),
            Self::UniPc { order, exponential } => unipc(levels, order, exponential, state),
            Self::DpmPlusPlusSingle => midpoint(levels, state, denoise, ws),
            Self::DpmSingle { order } => singlestep(levels, order, state, denoise, ws),
            Self::Heun => heun(levels, state, denoise, ws),
        }
    }
}

fn ddim(
    levels: Levels,
    eta: f64,
    from: NoiseFrom,
    noise: Noise,
    state: &mut State,
    ws: &mut Workspace,
) -> Result<()> {
    let [x, estimate, network] = state.many(["x", "estimate", "network"]);
    let source = if from == NoiseFrom::Network { network.tensor() } else { estimate.tensor() };
    let keep = levels.next / levels.sigma * (1.0 - eta * eta).sqrt();
    if eta == 0.0 {
        return vector::accumulate(keep, &[(1.0, estimate.tensor()), (-keep, source)], x);
    }
    let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    normal(noise, &mut z)?;
    let terms = [(1.0, estimate.tensor()), (-keep, source), (levels.next * eta, z.tensor())];
    vector::accumulate(keep, &terms, x)?;
    ws.give(z);
    Ok(())
}

/// Moves the history by one and puts m = D (data form) or ε̂ (noise form) of this level in front.
fn remember(levels: Levels, data: bool, state: &mut State) -> Result<()> {
    let [x, estimate, h0, h1, h2] = state.many(["x", "estimate", "history0", "history1", "history2"]);
    std::mem::swap(h1, h2);
    std::mem::swap(h0, h1);
    if data {
        return vector::copy(estimate.tensor(), h0);
    }
    let inverse = 1.0 / levels.sigma;
    vector::lincomb(&[(inverse, x.tensor()), (-inverse, estimate.tensor())], h0)
}

/// Weights of m₀, m₋₁, m₋₂ in Σ_k φ_k D_k, where D₀ = m₀ and D₁, D₂ are the divided differences of the history.
fn difference_weights(order: usize, ratios: [f64; 2], phi: [f64; 3]) -> [f64; 3] {
    let [r0, r1] = ratios;
    match order {
        1 => [phi[0], 0.0, 0.0],
        2 => [phi[0] + phi[1] / r0, -phi[1] / r0, 0.0],
        _ => {
            // First differences a = (m₀ − m₋₁)/r₀, b = (m₋₁ − m₋₂)/r₁; D₁ = a + r₀/(r₀+r₁)(a − b), D₂ = (a − b)/(r₀+r₁).
            let blend = r0 / (r0 + r1);
            let of_a = phi[1] * (1.0 + blend) + phi[2] / (r0 + r1);
            let of_b = -phi[1] * blend - phi[2] / (r0 + r1);
            [phi[0] + of_a / r0, -of_a / r0 + of_b / r1, -of_b / r1]
        }
    }
}

fn multistep(levels: Levels, order: usize, data: bool, state: &mut State) -> Result<()> {
    remember(levels, data, state)?;
    // The step before the last (to σ = 0) is where high orders blow up: lower them there.
    let order = order.min(1 + levels.history()).min(levels.steps_left + 1);
    let h = levels.h();
    let (keep, phi) = if data {
        let p1 = (-h).exp_m1();
        let p2 = p1 / h + 1.0;
        (levels.next / levels.sigma, [-p1, if order == 2 { -0.5 * p1 } else { p2 }, -(p2 / h - 0.5)])
    } else {
        let p1 = h.exp_m1();
        let p2 = p1 / h - 1.0;
        let s = -levels.next;
        (1.0, [s * p1, if order == 2 { 0.5 * s * p1 } else { s * p2 }, s * (p2 / h - 0.5)])
    };
    let w = difference_weights(order, levels.ratios(), phi);
    let [x, h0, h1, h2] = state.many(["x", "history0", "history1", "history2"]);
    let terms = [(w[0], h0.tensor()), (w[1], h1.tensor()), (w[2], h2.tensor())];
    vector::accumulate(keep, &terms[..order], x)
}

fn sde_multistep(levels: Levels, noise: Noise, state: &mut State, ws: &mut Workspace) -> Result<()> {
    remember(levels, true, state)?;
    let order = 2.min(1 + levels.history()).min(levels.steps_left + 1);
    let h = levels.h();
    let gain = -(-2.0 * h).exp_m1();
    let w = difference_weights(order, levels.ratios(), [gain, 0.5 * gain, 0.0]);
    let [x, h0, h1] = state.many(["x", "history0", "history1"]);
    let mut z = ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())?;
    normal(noise, &mut z)?;
    let keep = levels.next / levels.sigma * (-h).exp();
    let terms = [(levels.next * gain.sqrt(), z.tensor()), (w[0], h0.tensor()), (w[1], h1.tensor())];
    vector::accumulate(keep, &terms[..1 + order], x)?;
    ws.give(z);
    Ok(())
}

/// Solves Σ_m ρ_m r_m^{i} = b_i for i = 0…p−1: the order conditions of UniPC.
///
/// Returns ρ_m B(h). A single node gets ρ = ½, the limit h → 0, as in the paper.
fn unipc_weights(nodes: &[f64], h: f64, exponential: bool) -> Vec<f64> {
    let hh = -h;
    let b_of_h = if exponential { hh.exp_m1() } else { hh };
    let p = nodes.len();
    if p <= 1 {
        return vec![0.5 * b_of_h; p];
    }
    let (mut phi, mut factorial) = (hh.exp_m1() / hh - 1.0, 1.0);
    let mut system = nalgebra::DMatrix::<f64>::zeros(p, p);
    let mut right = nalgebra::DVector::<f64>::zeros(p);
    for i in 0..p {
        for (m, node) in nodes.iter().enumerate() {
            system[(i, m)] = node.powi(i as i32);
        }
        right[i] = phi * factorial / b_of_h;
        factorial *= (i + 2) as f64;
        phi = phi / hh - 1.0 / factorial;
    }
    let solved = system.lu().solve(&right).unwrap_or(right);
    solved.iter().map(|rho| rho * b_of_h).collect()
}

/// Nodes r_m = (λ_{−m} − λ)/h of the first `count` earlier levels.
fn earlier_nodes(levels: Levels, count: usize) -> Vec<f64> {
    levels.before[..count].iter().map(|before| (levels.sigma / before).ln() / levels.h()).collect()
}

/// x ← σ'/σ base − (e^{−h} − 1) m₀ − Σ B(h) ρ_m (m_m − m₀)/r_m: the form that predictor and corrector share.
fn unipc_combine(
    levels: Levels,
    nodes: &[f64],
    exponential: bool,
    others: &[&Tensor],
    m0: &Tensor,
    base: &Tensor,
    out: &mut Buffer,
) -> Result<()> {
    let h = levels.h();
    let weights = unipc_weights(nodes, h, exponential);
    let slopes: Vec<f64> = weights.iter().zip(nodes).map(|(w, r)| w / r).collect();
    let mut terms =
        vec![(levels.next / levels.sigma, base), (-(-h).exp_m1() + slopes.iter().sum::<f64>(), m0)];
    terms.extend(slopes.iter().zip(others).map(|(slope, m)| (-slope, *m)));
    vector::lincomb(&terms, out)
}

fn unipc(levels: Levels, order: usize, exponential: bool, state: &mut State) -> Result<()> {
    let known = levels.history();
    if known > 0 {
        // The call just made at σ corrects the arrival there.
        let [first, second, third] = levels.before;
        let last =
            Levels { sigma: first, next: levels.sigma, before: [second, third, f64::NAN], steps_left: 0 };
        let mut nodes = earlier_nodes(last, (order - 1).min(known - 1));
        let names = ["x", "previous", "estimate", "history0", "history1", "history2"];
        let [x, previous, estimate, h0, h1, h2] = state.many(names);
        let mut others = [h1.tensor(), h2.tensor()][..nodes.len()].to_vec();
        nodes.push(1.0);
        others.push(estimate.tensor());
        unipc_combine(last, &nodes, exponential, &others, h0.tensor(), previous.tensor(), x)?;
    }
    remember(levels, true, state)?;
    let [x, previous, h0, h1, h2] = state.many(["x", "previous", "history0", "history1", "history2"]);
    vector::copy(x.tensor(), previous)?;
    if levels.next == 0.0 {
        return vector::copy(h0.tensor(), x);
    }
    let order = order.min(1 + known).min(levels.steps_left + 1);
    let nodes = earlier_nodes(levels, order - 1);
    let others = [h1.tensor(), h2.tensor()];
    unipc_combine(levels, &nodes, exponential, &others[..order - 1], h0.tensor(), previous.tensor(), x)
}

/// A scratch array like x.
fn scratch(state: &State, ws: &mut Workspace) -> Result<Buffer> {
    let x = state.get("x");
    ws.take_shape(x.dims(), x.tensor().dtype(), x.tensor().device())
}

fn midpoint(levels: Levels, state: &mut State, denoise: &mut Denoise<'_>, ws: &mut Workspace) -> Result<()> {
    let h = levels.h();
    let middle = levels.sigma * (-0.5 * h).exp();
    let (mut u, mut d) = (scratch(state, ws)?, scratch(state, ws)?);
    let [x, estimate] = state.many(["x", "estimate"]);
    let terms = [(middle / levels.sigma, x.tensor()), (-(-0.5 * h).exp_m1(), estimate.tensor())];
    vector::lincomb(&terms, &mut u)?;
    denoise(u.tensor(), middle, &mut d)?;
    vector::accumulate(levels.next / levels.sigma, &[(-(-h).exp_m1(), d.tensor())], x)?;
    ws.give(u);
    ws.give(d);
    Ok(())
}

fn singlestep(
    levels: Levels,
    order: usize,
    state: &mut State,
    denoise: &mut Denoise<'_>,
    ws: &mut Workspace,
) -> Result<()> {
    let h = levels.h();
    let (mut e0, mut e, mut u, mut d) =
        (scratch(state, ws)?, scratch(state, ws)?, scratch(state, ws)?, scratch(state, ws)?);
    let [x, estimate] = state.many(["x", "estimate"]);
    let noise_of = |x: &Tensor, d: &Tensor, sigma: f64, out: &mut Buffer| {
        vector::lincomb(&[(1.0 / sigma, x), (-1.0 / sigma, d)], out)
    };
    noise_of(x.tensor(), estimate.tensor(), levels.sigma, &mut e0)?;
    let r1 = if order == 2 { 0.5 } else { 1.0 / 3.0 };
    let s1 = levels.sigma * (-r1 * h).exp();
    vector::lincomb(&[(1.0, x.tensor()), (-s1 * (r1 * h).exp_m1(), e0.tensor())], &mut u)?;
    denoise(u.tensor(), s1, &mut d)?;
    noise_of(u.tensor(), d.tensor(), s1, &mut e)?;
    let euler = -levels.next * h.exp_m1();
    if order == 2 {
        // x − σ'(e^h − 1) ε₀ − σ'/(2 r₁)(e^h − 1)(ε₁ − ε₀), r₁ = ½.
        vector::accumulate(1.0, &[(euler, e.tensor())], x)?;
    } else {
        let r2 = 2.0 / 3.0;
        let s2 = levels.sigma * (-r2 * h).exp();
        let curve = -s2 * (r2 / r1) * ((r2 * h).exp_m1() / (r2 * h) - 1.0);
        let terms = [(1.0, x.tensor()), (-s2 * (r2 * h).exp_m1() - curve, e0.tensor()), (curve, e.tensor())];
        vector::lincomb(&terms, &mut u)?;
        denoise(u.tensor(), s2, &mut d)?;
        noise_of(u.tensor(), d.tensor(), s2, &mut e)?;
        let slope = -levels.next / r2 * (h.exp_m1() / h - 1.0);
        vector::accumulate(1.0, &[(euler - slope, e0.tensor()), (slope, e.tensor())], x)?;
    }
    for buffer in [e0, e, u, d] {
        ws.give(buffer);
    }
    Ok(())
}

fn heun(levels: Levels, state: &mut State, denoise: &mut Denoise<'_>, ws: &mut Workspace) -> Result<()> {
    let (mut u, mut d) = (scratch(state, ws)?, scratch(state, ws)?);
    let [x, estimate] = state.many(["x", "estimate"]);
    let keep = levels.next / levels.sigma;
    vector::lincomb(&[(keep, x.tensor()), (1.0 - keep, estimate.tensor())], &mut u)?;
    denoise(u.tensor(), levels.next, &mut d)?;
    // x + ½(σ' − σ)[(x − D)/σ + (u − D')/σ'].
    let half = 0.5 * (levels.next - levels.sigma);
    let (a, b) = (half / levels.sigma, half / levels.next);
    vector::accumulate(1.0 + a, &[(-a, estimate.tensor()), (b, u.tensor()), (-b, d.tensor())], x)?;
    ws.give(u);
    ws.give(d);
    Ok(())
}
