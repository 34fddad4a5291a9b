//! Random weights to start from.

use crate::tensor::random::Noise;

/// Uniform in ±1/√inputs; normalisations 1 and 0. What ends a residual branch starts small, so that every block is
/// close to the identity.
pub(super) fn weight(name: &str, shape: &[usize], noise: Noise) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    if name.contains("norm") {
        return vec![if name.ends_with("weight") { 1.0 } else { 0.0 }; count];
    }
    let ends = name.contains(".conv2.") || name.contains(".proj.") || name.starts_with("conv_out.");
    let modulates = name.contains(".embed.");
    if name.ends_with("bias") {
        return vec![0.0; count];
    }
    let fan = shape[1..].iter().product::<usize>().max(1) as f64;
    let size = if ends {
        0.1
    } else if modulates {
        0.3
    } else {
        1.0
    } / fan.sqrt();
    (0..count as u64).map(|i| (size * (2.0 * noise.uniform(i) - 1.0)) as f32).collect()
}
