//! The line search of quasi-Newton methods: a step that meets the strong Wolfe conditions.

use crate::error::Result;

/// A function of one variable, probed: φ(at) and φ'(at).
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) at: f64,
    pub(super) value: f64,
    pub(super) slope: f64,
}

/// Sufficient decrease and curvature, the usual values for quasi-Newton directions.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
const PROBES: usize = 30;

/// Finds t with φ(t) ≤ φ(0) + 1e-4 t φ'(0) and |φ'(t)| ≤ 0.9 |φ'(0)|, starting at `first` (Nocedal and
/// Wright 2006, algorithms 3.5 and 3.6). The point returned is the last one probed. Where rounding hides
/// the minimum, a point that only decreases φ will do; `None` if there is none.
pub(super) fn line_search(
    start: Probe,
    first: f64,
    mut probe: impl FnMut(f64) -> Result<Probe>,
) -> Result<Option<Probe>> {
    let decreases = |p: &Probe| p.value <= start.value + DECREASE * p.at * start.slope;
    let flat = |p: &Probe| p.slope.abs() <= -CURVATURE * start.slope;
    let (mut last, mut at) = (start, first);
    let mut left = PROBES;
    let (mut low, mut high) = loop {
        let found = probe(at)?;
        left -= 1;
        let finite = found.value.is_finite() && found.slope.is_finite();
        if !finite || !decreases(&found) || (found.value >= last.value && last.at > 0.0) {
            break (last, found);
        }
        if flat(&found) {
            return Ok(Some(found));
        }
        if found.slope >= 0.0 {
            break (found, last);
        }
        if left == 0 {
            return Ok(Some(found));
        }
        (last, at) = (found, 2.0 * at);
    };
    // The minimum lies between `low`, the best point so far, and `high`.
    while left > 0 {
        let found = probe(inside(&low, &high))?;
        left -= 1;
        let finite = found.value.is_finite() && found.slope.is_finite();
        if !finite || !decreases(&found) || found.value >= low.value {
            high = found;
        } else {
            if flat(&found) {
                return Ok(Some(found));
            }
            if found.slope * (high.at - low.at) >= 0.0 {
                high = low;
            }
            low = found;
        }
        if (high.at - low.at).abs() <= 1e-14 * low.at.abs().max(high.at.abs()) {
            break;
        }
    }
    if low.at > 0.0 && low.value < start.value { Ok(Some(probe(low.at)?)) } else { Ok(None) }
}

/// The minimum of the cubic through two probes, kept off the ends; bisection where there is no cubic.
fn inside(low: &Probe, high: &Probe) -> f64 {
    let width = high.at - low.at;
    let middle = low.at + 0.5 * width;
    if !(high.value.is_finite() && high.slope.is_finite()) {
        return low.at + 0.1 * width;
    }
    let d1 = low.slope + high.slope - 3.0 * (high.value - low.value) / width;
    let root = (d1 * d1 - low.slope * high.slope).max(0.0).sqrt().copysign(width);
    let at = high.at - width * (high.slope + root - d1) / (high.slope - low.slope + 2.0 * root);
    let (near, far) = (low.at + 0.1 * width, low.at + 0.9 * width);
    if at.is_finite() && (at - near) * (at - far) < 0.0 { at } else { middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meets_both_conditions_from_any_first_step() {
        let phi = |t: f64| Probe {
            at: t,
            value: (t - 3.0).powi(4) - 2.0 * t,
            slope: 4.0 * (t - 3.0).powi(3) - 2.0,
        };
        for first in [1e-6, 1e-2, 1.0, 50.0, 1e6] {
            let start = phi(0.0);
            let found = line_search(start, first, |t| Ok(phi(t))).unwrap().unwrap();
            assert!(found.value <= start.value + 1e-4 * found.at * start.slope, "{first}: {found:?}");
            assert!(found.slope.abs() <= 0.9 * start.slope.abs(), "{first}: {found:?}");
        }
    }

    #[test]
    fn walls_of_infinity_are_backed_away_from() {
        let phi = |t: f64| {
            let value = if t < 1.0 { -t - (1.0 - t).ln() * 0.1 } else { f64::INFINITY };
            Probe { at: t, value, slope: if t < 1.0 { -1.0 + 0.1 / (1.0 - t) } else { f64::NAN } }
        };
        let found = line_search(phi(0.0), 8.0, |t| Ok(phi(t))).unwrap().unwrap();
        assert!(found.at < 1.0 && found.value < 0.0);
    }
}
