//! Smooth random fields: value noise on lattices of decreasing cells.

use super::shapes::Point;

/// Random fields of one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texture {
    pub seed: u64,
}

impl Texture {
    /// A random number in [−1, 1) at a lattice point (the finaliser of SplitMix64: Steele, Lea, Flood 2014).
    fn lattice(self, i: i64, j: i64, k: i64) -> f64 {
        let mut h = self.seed ^ (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        h ^= (j as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F).rotate_left(21);
        h ^= (k as u64).wrapping_mul(0x1656_67B1_9E37_79F9).rotate_left(42);
        h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((h ^ (h >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// One field in [−1, 1] that varies over `cell` mm.
    pub(super) fn field(self, p: Point, cell: f64) -> f64 {
        let q = p / cell;
        let base = q.map(f64::floor);
        let t = (q - base).map(|t| t * t * (3.0 - 2.0 * t));
        let [i, j, k] = [base.x as i64, base.y as i64, base.z as i64];
        let mut sum = 0.0;
        for corner in 0..8 {
            let (a, b, c) = (corner & 1, corner >> 1 & 1, corner >> 2);
            let side = |bit: i64, t: f64| if bit == 1 { t } else { 1.0 - t };
            sum += side(a, t.x) * side(b, t.y) * side(c, t.z) * self.lattice(i + a, j + b, k + c);
        }
        sum
    }

    /// Three octaves, from `cell` mm down to a quarter of it.
    pub(super) fn rough(self, p: Point, cell: f64) -> f64 {
        let offset = Point::new(17.3, 5.9, 31.1);
        (self.field(p, cell)
            + 0.5 * self.field(p + offset, cell / 2.0)
            + 0.25 * self.field(p - offset, cell / 4.0))
            / 1.4
    }
}
