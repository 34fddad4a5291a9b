//! Ticks of linear and logarithmic axes.

/// One axis of a diagram: the range that is shown, and whether steps are factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// The axis that shows all finite values (on a logarithmic one, all positive values), with a margin of
    /// this part of its length.
    pub(super) fn fit(values: impl Iterator<Item = f64>, log: bool, margin: f64) -> Self {
        let usable = values.filter(|v| v.is_finite() && (!log || *v > 0.0));
        let mapped = usable.map(|v| if log { v.log10() } else { v });
        let (low, high) = mapped.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let least = if log { 0.1 } else { 1e-9 * low.abs().max(high.abs()).max(1e-300) };
        let pad = if high - low < least {
            if log { 0.5 } else { (0.5 * high.abs()).max(f64::MIN_POSITIVE) }
        } else {
            margin * (high - low)
        };
        Self { low: low - pad, high: high + pad, log }
    }

    /// The place of a value, 0 to 1 along the axis; `None` where it can't be shown.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let mapped = if self.log { value.log10() } else { value };
        mapped.is_finite().then(|| (mapped - self.low) / (self.high - self.low))
    }

    /// Labelled ticks: the place of each, 0 to 1, and its label; about `count` of them.
    pub(super) fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let span = self.high - self.low;
        if self.log && span > 0.9 {
            let every = (span / count as f64).ceil().max(1.0) as i32;
            let exponents = (self.low.ceil() as i32..=self.high.floor() as i32).filter(|e| e % every == 0);
            return exponents.map(|e| ((f64::from(e) - self.low) / span, power_of_ten(e))).collect();
        }
        let (low, high) =
            if self.log { (10f64.powf(self.low), 10f64.powf(self.high)) } else { (self.low, self.high) };
        let values = round_values(low, high, count);
        let digits = decimals(&values);
        values.into_iter().filter_map(|v| Some((self.place(v)?, label(v, digits)))).collect()
    }

    /// Places of the unlabelled lines between decades, where there are few enough of those.
    pub(super) fn minor(&self) -> Vec<f64> {
        if !self.log || !(0.9..=6.0).contains(&(self.high - self.low)) {
            return Vec::new();
        }
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let values = decades.flat_map(|e| (2..10).map(move |m| f64::from(m) * 10f64.powi(e)));
        values.filter_map(|v| self.place(v)).filter(|p| (0.0..=1.0).contains(p)).collect()
    }
}

/// Values 1, 2 or 5 times a power of ten apart within [low, high], about `count` of them.
pub(super) fn round_values(low: f64, high: f64, count: usize) -> Vec<f64> {
    let rough = (high - low) / count.max(1) as f64;
    if !(rough > 0.0 && rough.is_finite()) {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= 0.999 * rough);
    let step = step.unwrap_or(10.0 * power);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Digits after the point that tell neighbouring values apart.
pub(super) fn decimals(values: &[f64]) -> usize {
    let step = values.windows(2).map(|w| w[1] - w[0]).fold(f64::INFINITY, f64::min);
    if step.is_finite() && step > 0.0 { (-(step.log10() + 1e-9).floor()).clamp(0.0, 9.0) as usize } else { 2 }
}

/// A number with a proper minus sign; large ones as 2.5e8.
pub(super) fn label(value: f64, digits: usize) -> String {
    let text = match value.abs() {
        large if large >= 1e6 => format!("{large:e}"),
        small => format!("{small:.digits$}"),
    };
    let zero = text.chars().all(|c| "0.".contains(c));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

fn power_of_ten(exponent: i32) -> String {
    let raised = |c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        // The others lie in order from U+2070.
        digit => char::from_u32(0x2070 + u32::from(digit) - u32::from('0')).unwrap_or(digit),
    };
    match exponent {
        0 => "1".into(),
        1 => "10".into(),
        _ => format!("10{}", exponent.to_string().chars().map(raised).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let labels = |axis: Axis| axis.ticks(5).into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(
            labels(Axis::fit([-1.0, 1.0].into_iter(), false, 0.0)),
            ["−1.0", "−0.5", "0.0", "0.5", "1.0"]
        );
        assert_eq!(
            labels(Axis::fit([1e-3, 10.0].into_iter(), true, 0.0)),
            ["10⁻³", "10⁻²", "10⁻¹", "1", "10"]
        );
        assert_eq!(labels(Axis::fit([20.0, 45.0].into_iter(), true, 0.0)).first().unwrap(), "20");
        assert_eq!(round_values(0.0, 180.0, 4), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!((label(-0.001, 2).as_str(), label(-2.5e8, 0).as_str()), ("0.00", "−2.5e8"));
    }

    #[test]
    fn degenerate_ranges_still_have_an_axis() {
        for values in [vec![], vec![0.0], vec![5.0], vec![f64::NAN], vec![-3.0, f64::INFINITY]] {
            for log in [false, true] {
                let axis = Axis::fit(values.iter().copied(), log, 0.05);
                assert!(axis.ticks(5).iter().all(|t| t.0.is_finite()), "{values:?}");
                assert!(axis.high > axis.low);
            }
        }
    }
}
