//! Coil maps of volumes.

use candle_core::Tensor;
use num_complex::Complex;

use super::region::first;
use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, as_complex_mut, fft, launch, vector};

/// Coil maps [coil, z, y, x, 2] of a volume from the central `side` planes of its `kspace` [coil, kz, ky, kx, 2]: under a
/// Hann window these make slices [z, coil, ky, kx, 2] of low resolution along z, to which `of_slices` gives maps of
/// the same shape. Each slice then gets the phase that suits its neighbours best, since maps of slices leave it open.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use wellposed::reconstruct::mri::{low_resolution_maps, volume_maps};
/// let kspace = Tensor::randn(0f32, 1.0, (3, 8, 12, 10, 2), &Device::Cpu)?;
/// let maps = volume_maps(&kspace, 6, |slices| low_resolution_maps(slices, [6, 6]))?;
/// assert_eq!(maps.dims(), kspace.dims());
/// # Ok::<(), wellposed::error::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] where the k-space has other axes; [`Error::Parameter`] where `side` is 0; what `of_slices` returns.
pub fn volume_maps(
    kspace: &Tensor,
    side: usize,
    of_slices: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let &[_, depth, _, _, 2] = kspace.dims() else {
        return Err(Error::shape("k-space", "[coil, kz, ky, kx, 2]", kspace.dims()));
    };
    if side == 0 || depth == 0 {
        return Err(Error::parameter("calibration region", side, "at least one plane is needed"));
    }
    vector::require_finite("k-space", kspace)?;
    let side = side.min(depth);
    let mut window = vec![0f64; depth];
    window[first(depth, side)..][..side].copy_from_slice(&hann(side));
    let window = f64::tensor(window, &[depth, 1])?.to_dtype(kspace.dtype())?;
    // kz last, where it is transformed.
    let lines = kspace.permute([0, 2, 3, 1, 4])?.broadcast_mul(&window)?;
    let mut hybrid = Buffer::copy_of(&lines)?;
    fft::inverse(&lines, 1, &mut hybrid)?;
    let slices = hybrid.freeze().permute([3, 0, 1, 2, 4])?.contiguous()?;
    let mut maps = Buffer::copy_of(&of_slices(&slices)?)?;
    let slice = maps.tensor().elem_count() / 2 / depth;
    launch(Align { slice }, &[], &mut [&mut maps])?;
    Ok(maps.freeze().permute([1, 0, 2, 3, 4])?.contiguous()?)
}

/// cos² about index ⌊n/2⌋, positive at every index.
fn hann(n: usize) -> Vec<f64> {
    let place = |i: usize| (i as f64 - (n / 2) as f64) / (n + 1) as f64;
    (0..n).map(|i| (std::f64::consts::PI * place(i)).cos().powi(2)).collect()
}

/// Turns the phase of each slice so that its inner product with the one before, among those that aren't empty, is positive.
struct Align {
    /// Complex numbers of a slice.
    slice: usize,
}

impl Kernel for Align {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let maps = as_complex_mut(outputs[0]);
        let mut before: Option<usize> = None;
        for at in (0..maps.len()).step_by(self.slice) {
            let (done, rest) = maps.split_at_mut(at);
            let here = &mut rest[..self.slice];
            let product: Complex<f64> = before.map_or(Complex::ZERO, |before| {
                let pairs = done[before..before + self.slice].iter().zip(&*here);
                pairs
                    .map(|(a, b)| {
                        let v = a.conj() * b;
                        Complex::new(v.re.as_f64(), v.im.as_f64())
                    })
                    .sum()
            });
            if product.norm() > 0.0 {
                let turn = product.conj() / product.norm();
                let turn = Complex::new(T::of(turn.re), T::of(turn.im));
                here.iter_mut().for_each(|v| *v *= turn);
            }
            if here.iter().any(|v| v.norm_sqr() > T::zero()) {
                before = Some(at);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::birdcage;
    use crate::reconstruct::mri::Espirit;
    use crate::tensor::as_complex;

    /// Maps that turn about z, of a ball.
    fn truth(n: usize) -> (Vec<Complex<f64>>, Vec<f64>) {
        let plane = f64::to_vec(&birdcage(5, [n, n], 3, DType::F64, &Device::Cpu).unwrap()).unwrap();
        let plane = as_complex(&plane);
        let mut maps = Vec::new();
        for coil in 0..5 {
            for z in 0..n {
                let turn = Complex::from_polar(1.0, 0.5 * (z as f64 / n as f64) * (coil as f64 - 2.0));
                maps.extend(plane[coil * n * n..][..n * n].iter().map(|v| v * turn));
            }
        }
        let place = |i: usize| i as f64 / n as f64 - 0.5;
        let ball = (0..n * n * n)
            .map(|i| place(i / n / n).powi(2) + place(i / n % n).powi(2) + place(i % n).powi(2))
            .map(|r| f64::from(u8::from(r < 0.16)))
            .collect();
        (maps, ball)
    }

    #[test]
    fn slices_have_maps_whose_phases_follow_one_another() {
        let n = 24;
        let (truth, ball) = truth(n);
        let images: Vec<f64> = truth
            .iter()
            .enumerate()
            .flat_map(|(i, s)| [s.re, s.im].map(|v| v * ball[i % (n * n * n)]))
            .collect();
        let images = f64::tensor(images, &[5, n, n, n, 2]).unwrap();
        let mut kspace = Buffer::copy_of(&images).unwrap();
        fft::forward(&images, 3, &mut kspace).unwrap();
        // The maps of a slice are known up to a phase.
        let phases = (0..n).flat_map(|z| [(2.0 * z as f64).cos(), (2.0 * z as f64).sin()]).collect();
        let phases = f64::tensor(phases, &[n, 2]).unwrap();
        let of_slices = |slices: &Tensor| {
            let maps = Espirit::default().maps(slices, [16, 16])?.maps;
            let mut turned = Buffer::copy_of(&maps)?;
            launch(Turn, &[&phases], &mut [&mut turned])?;
            Ok(turned.freeze())
        };
        let maps = volume_maps(kspace.tensor(), 16, of_slices).unwrap();
        let maps = f64::to_vec(&maps).unwrap();
        let maps = as_complex(&maps);
        let overlap = |i: usize| -> Complex<f64> {
            (0..5).map(|c| truth[c * n * n * n + i].conj() * maps[c * n * n * n + i]).sum()
        };
        let deep = |i: &usize| ball[*i] > 0.0 && (6..18).contains(&(i / n / n));
        let inside: Vec<Complex<f64>> = (0..n * n * n).filter(deep).map(overlap).collect();
        assert!(
            inside.iter().all(|v| v.norm() > 0.95),
            "{:?}",
            inside.iter().map(|v| v.norm()).reduce(f64::min)
        );
        // Neighbours along z differ little in phase.
        for i in (0..n * n * n).filter(deep).filter(|i| deep(&(i + n * n))) {
            let turn = (overlap(i).conj() * overlap(i + n * n)).arg().abs();
            assert!(turn < 0.3, "{turn}");
        }
    }

    /// Slice z of maps [slice, …] times number z of the input.
    struct Turn;

    impl Kernel for Turn {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let phases = as_complex(inputs[0]);
            let maps = as_complex_mut(outputs[0]);
            let slice = maps.len() / phases.len();
            for (slice, phase) in maps.chunks_mut(slice).zip(phases) {
                slice.iter_mut().for_each(|v| *v *= phase);
            }
            Ok(())
        }
    }

    #[test]
    fn a_plane_leaves_no_ringing_in_others() {
        // All of kz alike: a plane in the middle, seen through half of them.
        let kspace = f64::tensor([1.0, 0.0].repeat(32), &[1, 32, 1, 1, 2]).unwrap();
        let seen = volume_maps(&kspace, 16, |slices| Ok(slices.clone())).unwrap();
        let sizes: Vec<f64> = as_complex(&f64::to_vec(&seen).unwrap()).iter().map(|v| v.norm()).collect();
        let beside = (0..32usize).filter(|z| z.abs_diff(16) > 4).map(|z| sizes[z]).fold(0.0, f64::max);
        assert!(beside < 0.04 * sizes[16], "{beside} {}", sizes[16]);
    }

    #[test]
    fn refuses_other_shapes() {
        let flat = Tensor::zeros((3, 8, 8, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(volume_maps(&flat, 4, |x| Ok(x.clone())).is_err());
        let volume = Tensor::zeros((3, 8, 8, 8, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(volume_maps(&volume, 0, |x| Ok(x.clone())).is_err());
    }
}
