//! How much of each ray counts where some rays of a divergent scan are measured twice.
//!
//! The ray of fan angle γ in the view β is that of −γ in β + π − 2γ. The weights of the two add up to one.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI, TAU};

use crate::error::{Error, Result};
use crate::operator::ct::FanBeam;
use crate::reconstruct::fbp::view_weights;

/// Δβ times the weight of each ray, [views, bins].
///
/// - Full turn, detector centred: 1/2.
/// - Full turn, detector aside: Wang's weights (X-ray CT with a displaced detector array, Med. Phys. 29:1634, 2002) over
///   what both sides see, 1 beyond.
/// - Less: Parker's (Med. Phys. 9:254, 1982), over the whole of what is measured more than half a turn (Silver 2000).
///
/// # Errors
/// [`Error::Parameter`] where the views cover less than half a turn and the fan's opening, or the detector doesn't
/// cover the central ray: filtered back projection would show something else than the object.
pub(super) fn redundancy(beam: &FanBeam) -> Result<Vec<f64>> {
    let steps = view_weights(&beam.angles, TAU);
    let coverage = Coverage::of(&beam.angles);
    let edge = |bin: f64| {
        let at = |bin: usize| beam.fan_angle(bin);
        // Half a bin beyond the outermost ones.
        let step = if beam.bins > 1 { at(1) - at(0) } else { 0.0 };
        if bin < 0.0 { at(0) - step / 2.0 } else { at(beam.bins - 1) + step / 2.0 }
    };
    let (low, high) = (edge(-1.0), edge(1.0));
    let shared = high.min(-low);
    if shared <= 0.0 {
        let reason = "the detector must reach beyond the central ray on both sides";
        return Err(Error::parameter("detector offset", beam.offset, reason));
    }
    let widest = high.max(-low);
    if coverage.arc < TAU && coverage.arc < PI + 2.0 * shared.min(widest) - 1e-9 {
        let found = format!("{:.2}° of views", coverage.arc.to_degrees());
        let reason = format!(
            "a fan of {:.2}° needs {:.2}° for filtered back projection; iterative methods take less",
            (2.0 * widest).to_degrees(),
            (PI + 2.0 * widest).to_degrees()
        );
        return Err(Error::parameter("arc", found, reason));
    }
    let aside = (widest - shared) > 1.5 * (high - low) / beam.bins as f64;
    if coverage.arc < TAU && aside {
        let reason =
            "a detector aside needs a full turn for filtered back projection; iterative methods don't";
        return Err(Error::parameter("arc", format!("{:.2}°", coverage.arc.to_degrees()), reason));
    }
    let side = if high > -low { 1.0 } else { -1.0 };
    let weight = |angle: f64, gamma: f64| match (coverage.arc < TAU, aside) {
        (true, _) => parker((angle - coverage.start).rem_euclid(TAU), gamma, (coverage.arc - PI) / 2.0),
        (false, true) => displaced(side * gamma / shared),
        (false, false) => 0.5,
    };
    let rays = beam.angles.iter().zip(&steps);
    let all = rays.flat_map(|(angle, step)| {
        (0..beam.bins)
            .map(move |bin| (*angle, *step, bin))
            .map(|(a, step, bin)| step * weight(a, beam.fan_angle(bin)))
    });
    Ok(all.collect())
}

/// Parker's weight of a ray at β after the start of an arc π + 2Γ.
fn parker(beta: f64, gamma: f64, excess: f64) -> f64 {
    let (first, last) = (excess + gamma, excess - gamma);
    if beta < 2.0 * first {
        (FRAC_PI_4 * beta / first).sin().powi(2)
    } else if beta > PI + 2.0 * gamma {
        (FRAC_PI_4 * (PI + 2.0 * excess - beta).max(0.0) / last).sin().powi(2)
    } else {
        1.0
    }
}

/// Wang's weight at x, which is −1…1 where both sides see and more where one does.
fn displaced(x: f64) -> f64 {
    0.5 * (1.0 + (FRAC_PI_2 * x.clamp(-1.0, 1.0)).sin())
}

/// The arc that views cover, each half a step to either side.
struct Coverage {
    start: f64,
    arc: f64,
}

impl Coverage {
    fn of(angles: &[f64]) -> Self {
        let mut folded: Vec<f64> = angles.iter().map(|a| a.rem_euclid(TAU)).collect();
        folded.sort_by(f64::total_cmp);
        let n = folded.len();
        let gap = |i: usize| folded[(i + 1) % n] - folded[i] + if i + 1 == n { TAU } else { 0.0 };
        let mut gaps: Vec<f64> = (0..n).map(gap).filter(|g| *g > 1e-9).collect();
        let widest = (0..n).max_by(|a, b| gap(*a).total_cmp(&gap(*b))).unwrap_or(0);
        gaps.sort_by(f64::total_cmp);
        let typical = gaps.get(gaps.len() / 2).copied().unwrap_or(TAU);
        let missing = gap(widest);
        if n <= 4 || missing <= 4.0 * typical {
            return Self { start: 0.0, arc: TAU };
        }
        Self { start: folded[(widest + 1) % n] - typical / 2.0, arc: TAU - missing + typical }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beam(views: usize, arc: f64) -> FanBeam {
        let angles = (0..views).map(|i| 1.0 + arc * (i as f64 + 0.5) / views as f64).collect();
        FanBeam::new(angles, 101, 2.0, 300.0, 200.0).unwrap()
    }

    /// The weight of a ray and of the same ray measured from the other side.
    fn pair(arc: f64, beta: f64, gamma: f64) -> f64 {
        let excess = (arc - PI) / 2.0;
        let within =
            |beta: f64, gamma| if (0.0..=arc).contains(&beta) { parker(beta, gamma, excess) } else { 0.0 };
        let others = within(beta + PI - 2.0 * gamma, -gamma) + within(beta - PI - 2.0 * gamma, -gamma);
        within(beta, gamma) + others
    }

    #[test]
    fn rays_measured_twice_count_once() {
        for arc in [PI + 0.5, PI + 1.2, 2.0 * PI - 0.3] {
            for gamma in [-0.24, -0.1, 0.0, 0.2] {
                for step in 0..200 {
                    let beta = arc * f64::from(step) / 199.0;
                    assert!((pair(arc, beta, gamma) - 1.0).abs() < 1e-9, "{arc} {beta} {gamma}");
                }
            }
        }
        for x in [0.0, 0.3, 0.99, 1.7] {
            assert!((displaced(x) + displaced(-x) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn the_weights_of_a_scan_add_up_to_half_a_turn() {
        // Every line counts once, and there are lines in half a turn of directions.
        let sum = |beam: &FanBeam| redundancy(beam).unwrap().iter().sum::<f64>() / beam.bins as f64;
        for beam in [beam(360, TAU), beam(300, PI + 0.6)] {
            assert!((sum(&beam) / PI - 1.0).abs() < 0.02, "{}", sum(&beam));
        }
        let wide = redundancy(&beam(360, TAU).with_offset(60.0)).unwrap();
        // The far side sees alone what the near side misses.
        assert!(wide[100] > 0.999 * TAU / 360.0 && wide[0] < 1e-3);
    }

    #[test]
    fn too_little_is_refused_with_what_is_needed() {
        let text = redundancy(&beam(100, PI)).unwrap_err().to_string();
        assert!(text.contains("180.00° of views") && text.contains("202.84°"), "{text}");
        let text = redundancy(&beam(100, TAU).with_offset(150.0)).unwrap_err().to_string();
        assert!(text.contains("both sides"), "{text}");
        assert!(redundancy(&beam(300, 4.5).with_offset(50.0)).is_err());
    }
}
