//! Sines and cosines of many phases at once, in the vectors of the machine: libm takes them one by one.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

/// π/2 in three parts: 33 bits, the next 20, and what is left of it beyond a double. Products of the first two with
/// whole numbers below 2²⁰ are exact, so that the reduced phase is correctly rounded (Cody and Waite 1980).
const HIGH: f64 = f64::from_bits(FRAC_PI_2.to_bits() & !0xF_FFFF);
const MIDDLE: f64 = FRAC_PI_2 - HIGH;
const LOW: f64 = 6.123_233_995_736_766e-17;

/// Beyond this the reduction loses digits.
const LARGEST: f64 = 1e6;

/// 1/n! with alternating signs: on [−π/4, π/4] the terms left out are below 1e-19.
const SIN: [f64; 9] = taylor(1);
const COS: [f64; 9] = taylor(0);

const fn taylor(first: u32) -> [f64; 9] {
    let mut c = [0.0; 9];
    let (mut k, mut term) = (0, 1.0);
    while k < 9 {
        c[k] = term;
        let n = 2 * k as u32 + first;
        term /= -(((n + 1) * (n + 2)) as f64);
        k += 1;
    }
    c
}

/// sin ωx and cos ωx, to 1.5 units in the last place.
pub(super) fn sin_cos(w: f64, x: &[f64], sin: &mut [f64], cos: &mut [f64]) {
    if x.iter().any(|x| (w * x).abs() > LARGEST) {
        for ((s, c), x) in sin.iter_mut().zip(cos).zip(x) {
            (*s, *c) = (w * x).sin_cos();
        }
        return;
    }
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((s, c), x) in sin.iter_mut().zip(cos.iter_mut()).zip(x) {
                (*s, *c) = reduced(w * x);
            }
        },
    );
}

#[inline(always)]
fn reduced(phase: f64) -> (f64, f64) {
    // Rounds to the nearest whole number, which then lies in the low bits.
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    let shifted = phase * FRAC_2_PI + SHIFT;
    let quadrant = shifted.to_bits();
    let turns = shifted - SHIFT;
    let r = ((phase - turns * HIGH) - turns * MIDDLE) - turns * LOW;
    let r2 = r * r;
    let horner = |c: &[f64; 9]| c[1..].iter().rev().fold(0.0, |sum, c| sum * r2 + c);
    let sin = r + r * (r2 * horner(&SIN));
    let cos = 1.0 + r2 * horner(&COS);
    let odd = quadrant & 1 == 1;
    let (s, c) = if odd { (cos, sin) } else { (sin, cos) };
    // The sine turns in quadrants 2 and 3, the cosine in 1 and 2.
    let flip = |v: f64, bit: u64| f64::from_bits(v.to_bits() ^ (bit << 63));
    (flip(s, (quadrant >> 1) & 1), flip(c, ((quadrant + 1) >> 1) & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_libm() {
        let x: Vec<f64> = (0..20_000).map(|i| (i as f64 - 9_000.3) * 0.037).collect();
        let (mut s, mut c) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for w in [0.0, 1.0, 0.731, 200.0, 2000.0, 1e7] {
            sin_cos(w, &x, &mut s, &mut c);
            for ((s, c), x) in s.iter().zip(&c).zip(&x) {
                let (expected_s, expected_c) = (w * x).sin_cos();
                for (v, e) in [(s, expected_s), (c, expected_c)] {
                    assert!((v - e).abs() <= 2.3e-16, "{w} {x}: {v} {e}");
                }
            }
        }
    }
}
