//! The shapes that kernels are scaled and modulated copies of.

/// An even, positive-definite function g with g(0) = 1 and its derivatives.
///
/// Under a scale s it stands for g(s·d); all derivatives below are with respect to d.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Envelope {
    /// g(x) = e^(−x²), the shape of the squared exponential.
    Gaussian,
    /// g(x) = e^(−|x|) Pₚ(|x|), the shape of Matérn p + ½; p from 0 to 5. Its spectrum is a Student t.
    Matern(usize),
}

/// Orders 0 to 5: gradients of the fourth derivative with respect to the scale need the fifth.
pub(super) const DERIVATIVES: usize = super::ORDERS + 1;

/// Coefficients of the polynomials Qₙ in g⁽ⁿ⁾(x) = Qₙ(x) e^(−x), x > 0.
type Polynomials = [[f64; 6]; DERIVATIVES];

const MATERN: [Polynomials; 6] = [
    matern_polynomials(0),
    matern_polynomials(1),
    matern_polynomials(2),
    matern_polynomials(3),
    matern_polynomials(4),
    matern_polynomials(5),
];

impl Envelope {
    /// The highest order of a continuous derivative.
    pub fn smoothness(self) -> usize {
        match self {
            Self::Gaussian => usize::MAX,
            Self::Matern(p) => 2 * p,
        }
    }

    /// The scale s for the published parametrisation of mixtures by an inverse (squared) length a:
    /// e^(−a d²), or the Matérn with b = √(2p + 1)·a.
    pub fn mixture_scale(self, a: f64) -> f64 {
        match self {
            Self::Gaussian => a.sqrt(),
            Self::Matern(p) => (2.0 * p as f64 + 1.0).sqrt() * a,
        }
    }

    /// d log s / d log a of [`Envelope::mixture_scale`].
    pub fn mixture_exponent(self) -> f64 {
        if self == Self::Gaussian { 0.5 } else { 1.0 }
    }

    /// The scale s for a length ℓ: e^(−d²/2ℓ²), or the Matérn in √(2p + 1) d/ℓ.
    pub fn length_scale(self, length: f64) -> f64 {
        match self {
            Self::Gaussian => std::f64::consts::FRAC_1_SQRT_2 / length,
            Self::Matern(p) => (2.0 * p as f64 + 1.0).sqrt() / length,
        }
    }

    /// dⁿ/ddⁿ g(s d) for n = 0 … 5.
    #[inline(always)] // those that the caller doesn't read are not computed
    pub(super) fn derivatives(self, s: f64, d: f64) -> [f64; DERIVATIVES] {
        let x = s * d;
        let mut g = match self {
            Self::Gaussian => gaussian(x),
            Self::Matern(p) => matern(&MATERN[p.min(5)], x),
        };
        let mut power = 1.0;
        for value in &mut g {
            *value *= power;
            power *= s;
        }
        g
    }
}

/// (−1)ⁿ Hₙ(x) e^(−x²), by the recurrence of the Hermite polynomials.
#[inline(always)]
fn gaussian(x: f64) -> [f64; DERIVATIVES] {
    let mut g = [0.0; DERIVATIVES];
    g[0] = (-x * x).exp();
    g[1] = -2.0 * x * g[0];
    for n in 2..DERIVATIVES {
        g[n] = -2.0 * x * g[n - 1] - 2.0 * (n - 1) as f64 * g[n - 2];
    }
    g
}

#[inline(always)]
fn matern(polynomials: &Polynomials, x: f64) -> [f64; DERIVATIVES] {
    let r = x.abs();
    let decay = (-r).exp();
    let odd = if x < 0.0 { -decay } else { decay };
    let horner = |q: &[f64; 6]| q.iter().rev().fold(0.0, |sum, c| sum * r + c);
    std::array::from_fn(|n| horner(&polynomials[n]) * if n % 2 == 0 { decay } else { odd })
}

/// Pₚ has the coefficients (2p − j)! 2ʲ / (j! (p − j)!), normalised; Qₙ₊₁ = Qₙ′ − Qₙ. The integers are exact, so that
/// coefficients that vanish do.
const fn matern_polynomials(p: usize) -> Polynomials {
    let mut integer = [[0_i64; 6]; DERIVATIVES];
    let mut j = 0;
    while j <= p {
        integer[0][j] = factorial(2 * p - j) * (1 << j) / (factorial(j) * factorial(p - j));
        j += 1;
    }
    let scale = integer[0][0] as f64;
    let mut q = [[0.0; 6]; DERIVATIVES];
    let mut n = 0;
    while n < DERIVATIVES {
        let mut j = 0;
        while j < 6 {
            q[n][j] = integer[n][j] as f64 / scale;
            if n + 1 < DERIVATIVES {
                let slope = if j < 5 { (j as i64 + 1) * integer[n][j + 1] } else { 0 };
                integer[n + 1][j] = slope - integer[n][j];
            }
            j += 1;
        }
        n += 1;
    }
    q
}

const fn factorial(n: usize) -> i64 {
    let mut product = 1;
    let mut k = 2;
    while k <= n {
        product *= k as i64;
        k += 1;
    }
    product
}
