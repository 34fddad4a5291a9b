//! What the comparison with candle's operations in `layer::tests` doesn't see.

use super::conv::{Conv, Geometry};
use super::map::{Map, Shape};
use super::simd::exp;

#[test]
fn images_alone_and_in_a_batch_give_the_same_bits() {
    let noise = crate::tensor::random::Noise::new(3, 0);
    let draw = |count: u64| (0..count).map(|i| (2.0 * noise.uniform(i) - 1.0) as f32).collect::<Vec<_>>();
    let geometry = Geometry { inputs: 16, outputs: 32, size: 3, stride: 1, before: 1, after: 1 };
    let conv = Conv::new(geometry, draw(32 * 16 * 9), draw(32));
    let shape = Shape { images: 3, height: 11, width: 14, channels: 16 };
    let x = draw(shape.elements() as u64);
    let together = conv.apply(Map::new(shape, &x));
    let one = Shape { images: 1, ..shape };
    let alone = conv.apply(Map::new(one, &x[one.elements()..2 * one.elements()]));
    assert_eq!(alone, together[alone.len()..2 * alone.len()]);
}

#[test]
fn exponential_is_accurate_over_its_range() {
    for i in -8700..8800 {
        let x = i as f32 * 0.01;
        assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() < 3e-7, "{x}");
    }
    assert!(exp(-1e30) < 1e-37 && exp(1e30).is_finite());
}
