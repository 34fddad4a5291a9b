//! Counter-based random numbers: every element is a pure function of (seed, stream, step, element), so
//! that draws depend neither on the number of threads nor on the chunking, and can be made again.
//!
//! Generator: Philox-4x32-10 (Salmon, Moraes, Dror, Shaw 2011).

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::Result;
use crate::tensor::device::{Gpu, Program, arguments};
use crate::tensor::{Buffer, Kernel, Real, Space, launch};

static PROGRAM: Program = Program { name: "random", source: include_str!("device/random.cu") };

/// Names one array of random numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// The user's seed.
    pub seed: u64,
    /// What the numbers are for; different streams are independent.
    pub stream: u32,
    /// The step of an iteration; different steps are independent.
    pub step: u32,
}

/// Ten rounds of Philox-4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let low = u64::from(counter[0]) * 0xD251_1F53;
        let high = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (high >> 32) as u32 ^ counter[1] ^ key[0],
            high as u32,
            (low >> 32) as u32 ^ counter[3] ^ key[1],
            low as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

impl Noise {
    /// The stream `stream` of `seed`, at step 0.
    pub fn new(seed: u64, stream: u32) -> Self {
        Self { seed, stream, step: 0 }
    }

    /// The same stream at another step.
    pub fn at(self, step: u32) -> Self {
        Self { step, ..self }
    }

    /// Two uniform numbers in (0, 1), the pair number `index` of this array.
    pub fn uniform_pair(self, index: u64) -> (f64, f64) {
        // The stream shares a word with the upper half of the counter, which arrays don't reach.
        let counter = [index as u32, (index >> 32) as u32, self.step, self.stream];
        let [a, b, c, d] = philox(counter, [self.seed as u32, (self.seed >> 32) as u32]);
        let unit = |high: u32, low: u32| {
            ((u64::from(high) << 21 | u64::from(low) >> 11) as f64 + 0.5) * (1.0 / (1u64 << 53) as f64)
        };
        (unit(a, b), unit(c, d))
    }

    /// One uniform number in (0, 1), the first of pair `index`.
    pub fn uniform(self, index: u64) -> f64 {
        self.uniform_pair(index).0
    }

    /// Two independent standard normal numbers (Box–Muller), the pair number `index` of this array.
    pub fn normal_pair(self, index: u64) -> (f64, f64) {
        let (radius, turn) = self.uniform_pair(index);
        let radius = (-2.0 * radius.ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
        (radius * cos, radius * sin)
    }
}

/// Fills `out` with independent standard normal numbers. f32 and f64 draws agree to rounding.
pub fn normal(noise: Noise, out: &mut Buffer) -> Result<()> {
    struct Normal(Noise);
    impl Kernel for Normal {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            const CHUNK: usize = 1 << 12;
            outputs[0].par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
                let first = (chunk * CHUNK / 2) as u64;
                for (i, pair) in out.chunks_mut(2).enumerate() {
                    let (a, b) = self.0.normal_pair(first + i as u64);
                    pair[0] = T::of(a);
                    if let Some(second) = pair.get_mut(1) {
                        *second = T::of(b);
                    }
                }
            });
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let (Noise { seed, stream, step }, n) = (self.0, gpu.output_len(0));
            let arguments = arguments![gpu.output(0), n, seed as usize, stream as usize, step as usize];
            Some(gpu.run(&PROGRAM, "normal", n.div_ceil(2), arguments))
        }
    }
    launch(Normal(noise), &[], &mut [out])
}

/// A tensor of independent standard normal numbers in `space` with these batch axes. Real and imaginary
/// parts of complex spaces have unit variance each.
///
/// ```
/// use candle_core::{DType, Device};
/// use wellposed::tensor::{Space, random::{Noise, standard_normal}};
/// let space = Space::real(&[4, 4], DType::F32, &Device::Cpu);
/// let x = standard_normal(Noise::new(1, 0), &space, &[])?;
/// assert_eq!(x.dims(), [4, 4]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub fn standard_normal(noise: Noise, space: &Space, batch: &[usize]) -> Result<Tensor> {
    let mut out = space.buffer(batch)?;
    normal(noise, &mut out)?;
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn philox_known_answers() {
        // Test vectors of the Random123 distribution for philox4x32-10.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    }

    #[test]
    fn moments_and_independence() {
        let space = Space::real(&[200_000], DType::F64, &Device::Cpu);
        let x = standard_normal(Noise::new(7, 1), &space, &[]).unwrap().to_vec1::<f64>().unwrap();
        let y = standard_normal(Noise::new(7, 1).at(1), &space, &[]).unwrap().to_vec1::<f64>().unwrap();
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|v| v * v).sum::<f64>() / n;
        let fourth = x.iter().map(|v| v.powi(4)).sum::<f64>() / n;
        let cross = x.iter().zip(&y).map(|(a, b)| a * b).sum::<f64>() / n;
        let serial = x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 / n.sqrt() && cross.abs() < 5.0 / n.sqrt() && serial.abs() < 5.0 / n.sqrt());
        assert!((variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!((fourth - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
    }

    #[test]
    fn element_values_do_not_depend_on_length() {
        let draw = |n: usize| {
            let space = Space::real(&[n], DType::F32, &Device::Cpu);
            standard_normal(Noise::new(3, 0), &space, &[]).unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(draw(5), draw(10_000)[..5]);
    }
}
