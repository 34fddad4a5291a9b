//! Products of complex lines, compiled for the widest registers of the processor.

use num_complex::Complex;

use crate::tensor::Real;

/// out ← a · b.
pub(crate) fn multiply<T: Real>(a: &[Complex<T>], b: &[Complex<T>], out: &mut [Complex<T>]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                *o = Complex::new(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
            }
        },
    );
}

/// out ← out + conj(a) · b.
pub(crate) fn add_conjugate_product<T: Real>(a: &[Complex<T>], b: &[Complex<T>], out: &mut [Complex<T>]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
                o.re += a.re * b.re + a.im * b.im;
                o.im += a.re * b.im - a.im * b.re;
            }
        },
    );
}

/// line ← scale · w · line for real weights.
pub(crate) fn weight<T: Real>(w: &[T], scale: T, line: &mut [Complex<T>]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (v, w) in line.iter_mut().zip(w) {
                let w = *w * scale;
                *v = Complex::new(v.re * w, v.im * w);
            }
        },
    );
}
