//! Fused vector kernels: inner products, linear combinations, products, shrinkage.
//!
//! Reductions add partial sums of fixed chunks in double precision and in order, so that results don't
//! depend on the number of threads.

use candle_core::Tensor;
use num_complex::Complex;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::device::{Address, Gpu, Program, arguments};
use crate::tensor::{Buffer, Field, Kernel, Real, as_complex, as_complex_mut, launch};

static PROGRAM: Program = Program { name: "vector", source: include_str!("device/vector.cu") };

/// Elements a task: small enough to stay in the cache, large enough to be worth a task.
const CHUNK: usize = 1 << 14;

fn same_count(name: &str, x: &Tensor, out: &Buffer) -> Result<()> {
    if x.elem_count() == out.tensor().elem_count() {
        return Ok(());
    }
    Err(Error::shape(name, format!("{:?}", out.dims()), x.dims()))
}

/// Real inner products ⟨x, y⟩ = Σ xᵢ yᵢ over the stored elements (for complex arrays Re Σ x̄ᵢ yᵢ), one for
/// each of `items` equal leading parts.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// assert_eq!(wellposed::tensor::vector::inner(&x, &x, 2)?, [5., 25.]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub fn inner(x: &Tensor, y: &Tensor, items: usize) -> Result<Vec<f64>> {
    struct Inner(usize);
    impl Kernel for Inner {
        type Output = Vec<f64>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Vec<f64>> {
            let size = inputs[0].len() / self.0;
            Ok((0..self.0)
                .map(|i| dot(&inputs[0][i * size..(i + 1) * size], &inputs[1][i * size..(i + 1) * size]))
                .collect())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<Vec<f64>>> {
            let shape = (self.0, gpu.input_len(0) / self.0, 1);
            let sums = gpu.reduce(&PROGRAM, "inner", shape, arguments![gpu.input(0), gpu.input(1)]);
            Some(sums.map(|mut sums| sums.remove(0)))
        }
    }
    if x.elem_count() != y.elem_count() {
        return Err(Error::shape("inner product", format!("{:?}", x.dims()), y.dims()));
    }
    if items == 0 || !x.elem_count().is_multiple_of(items) {
        return Err(Error::parameter("items", items, format!("must divide {} elements", x.elem_count())));
    }
    launch(Inner(items), &[x, y], &mut [])
}

/// ⟨x, y⟩ of two slices in double precision; the chunking is fixed, and so is the result.
pub(crate) fn dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    let partial: Vec<f64> =
        x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)).map(|(x, y)| chunk_dot(x, y)).collect();
    partial.iter().sum()
}

fn chunk_dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0f64; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a.as_f64() * b.as_f64()).sum();
    for (a, b) in xs.zip(ys) {
        for lane in 0..LANES {
            sums[lane] += a[lane].as_f64() * b[lane].as_f64();
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// Euclidean norms ‖x‖, one for each of `items` equal leading parts.
pub fn norm(x: &Tensor, items: usize) -> Result<Vec<f64>> {
    Ok(inner(x, x, items)?.into_iter().map(f64::sqrt).collect())
}

/// out ← Σ aₖ xₖ, one pass over memory.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use wellposed::tensor::{Buffer, vector};
/// let x = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// let mut out = Buffer::copy_of(&x)?;
/// vector::lincomb(&[(2., &x), (-1., &x)], &mut out)?;
/// assert_eq!(out.tensor().to_vec1::<f32>()?, [1., 2.]);
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub fn lincomb(terms: &[(f64, &Tensor)], out: &mut Buffer) -> Result<()> {
    let columns: Vec<&Tensor> = terms.iter().map(|(_, x)| *x).collect();
    combine(None, terms.iter().map(|(a, _)| vec![*a]).collect(), &columns, out)
}

/// out ← b·out + Σ aₖ xₖ, one pass over memory.
pub fn accumulate(b: f64, terms: &[(f64, &Tensor)], out: &mut Buffer) -> Result<()> {
    let columns: Vec<&Tensor> = terms.iter().map(|(_, x)| *x).collect();
    combine(Some(vec![b]), terms.iter().map(|(a, _)| vec![*a]).collect(), &columns, out)
}

/// outᵢ ← bᵢ·outᵢ + aᵢ·xᵢ for each equal leading part i: the update of batched solvers.
pub fn axpby_items(a: &[f64], x: &Tensor, b: &[f64], out: &mut Buffer) -> Result<()> {
    if a.len() != b.len() || a.is_empty() || !x.elem_count().is_multiple_of(a.len()) {
        return Err(Error::parameter("items", a.len(), format!("must divide {} elements", x.elem_count())));
    }
    combine(Some(b.to_vec()), vec![a.to_vec()], &[x], out)
}

fn combine(own: Option<Vec<f64>>, weights: Vec<Vec<f64>>, terms: &[&Tensor], out: &mut Buffer) -> Result<()> {
    struct Combine {
        own: Option<Vec<f64>>,
        weights: Vec<Vec<f64>>,
    }
    impl Kernel for Combine {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let items = self.own.as_ref().map_or(1, Vec::len);
            let size = outputs[0].len() / items;
            if size == 0 {
                return Ok(());
            }
            for (item, out) in outputs[0].chunks_mut(size).enumerate() {
                let own = self.own.as_ref().map(|b| T::of(b[item]));
                out.par_chunks_mut(CHUNK).enumerate().for_each(|(index, out)| {
                    let start = item * size + index * CHUNK;
                    match own {
                        None => out.fill(T::zero()),
                        Some(b) if b == T::one() => {}
                        Some(b) => out.iter_mut().for_each(|o| *o *= b),
                    }
                    for (weight, x) in self.weights.iter().zip(inputs) {
                        let a = T::of(weight[item]);
                        for (o, x) in out.iter_mut().zip(&x[start..]) {
                            *o += a * *x;
                        }
                    }
                });
            }
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let (n, items) = (gpu.output_len(0), self.own.as_ref().map_or(1, Vec::len));
            let mut table: Vec<f64> = (0..gpu.inputs()).map(|k| Gpu::as_number(gpu.input(k))).collect();
            table.extend(self.weights.iter().flatten());
            table.extend(self.own.iter().flatten());
            Some(gpu.upload(&table).and_then(|table| {
                let (terms, keep) = (gpu.inputs(), self.own.is_some());
                let arguments = arguments![gpu.output(0), n, (n / items).max(1), items, terms, keep, table];
                gpu.run(&PROGRAM, "combine", n, arguments)
            }))
        }
    }
    for x in terms {
        same_count("linear combination", x, out)?;
    }
    launch(Combine { own, weights }, terms, &mut [out])
}

/// out ← x.
pub fn copy(x: &Tensor, out: &mut Buffer) -> Result<()> {
    struct Copy;
    impl Kernel for Copy {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            outputs[0]
                .par_chunks_mut(CHUNK)
                .zip(inputs[0].par_chunks(CHUNK))
                .for_each(|(o, x)| o.copy_from_slice(x));
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let n = gpu.input_len(0);
            Some(gpu.run(&PROGRAM, "copy", n, arguments![gpu.input(0), gpu.output(0), 0usize, n]))
        }
    }
    same_count("copy", x, out)?;
    launch(Copy, &[x], &mut [out])
}

/// Writes x into `out` from element `start` on (row-major).
///
/// # Errors
/// [`Error::Shape`] where x reaches beyond the end.
pub fn copy_at(x: &Tensor, out: &mut Buffer, start: usize) -> Result<()> {
    struct CopyAt(usize);
    impl Kernel for CopyAt {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let out = &mut outputs[0][self.0..self.0 + inputs[0].len()];
            out.par_chunks_mut(CHUNK)
                .zip(inputs[0].par_chunks(CHUNK))
                .for_each(|(o, x)| o.copy_from_slice(x));
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let n = gpu.input_len(0);
            Some(gpu.run(&PROGRAM, "copy", n, arguments![gpu.input(0), gpu.output(0), self.0, n]))
        }
    }
    if start + x.elem_count() > out.tensor().elem_count() {
        return Err(Error::shape(
            "copied part",
            format!("a part of {:?} from {start} on", out.dims()),
            x.dims(),
        ));
    }
    launch(CopyAt(start), &[x], &mut [out])
}

/// out ← value everywhere.
pub fn fill(value: f64, out: &mut Buffer) -> Result<()> {
    struct Fill(f64);
    impl Kernel for Fill {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            outputs[0].par_chunks_mut(CHUNK).for_each(|o| o.fill(T::of(self.0)));
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            Some(gpu.fill(gpu.output(0), gpu.output_len(0), self.0))
        }
    }
    launch(Fill(value), &[], &mut [out])
}

/// out ← max(lower, min(upper, out)), element by element; infinite limits leave that side open.
pub fn clamp(lower: f64, upper: f64, out: &mut Buffer) -> Result<()> {
    struct Clamp(f64, f64);
    impl Kernel for Clamp {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let (low, high) = (T::of(self.0), T::of(self.1));
            outputs[0]
                .par_chunks_mut(CHUNK)
                .for_each(|o| o.iter_mut().for_each(|o| *o = o.max(low).min(high)));
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let n = gpu.output_len(0);
            Some(gpu.run(&PROGRAM, "clamp", n, arguments![gpu.output(0), n, self.0, self.1]))
        }
    }
    launch(Clamp(lower, upper), &[], &mut [out])
}

/// Soft thresholding out ← out · max(0, 1 − threshold/|out|): of each real element, or of each complex
/// number by its magnitude. The proximal map of threshold·‖·‖₁.
pub fn shrink(threshold: f64, field: Field, out: &mut Buffer) -> Result<()> {
    struct Shrink(f64, Field);
    impl Kernel for Shrink {
        type Output = ();
        fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let (threshold, zero) = (T::of(self.0), T::zero());
            outputs[0].par_chunks_mut(CHUNK).for_each(|out| match self.1 {
                Field::Real => out.iter_mut().for_each(|o| {
                    *o = (*o - threshold).max(zero) + (*o + threshold).min(zero);
                }),
                Field::Complex => as_complex_mut(out).iter_mut().for_each(|o| {
                    let size = (o.re * o.re + o.im * o.im).sqrt();
                    *o = if size > threshold {
                        o.scale(T::one() - threshold / size)
                    } else {
                        Complex::new(zero, zero)
                    };
                }),
            });
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let (function, scalars) = match self.1 {
                Field::Real => ("shrink_real", gpu.output_len(0)),
                Field::Complex => ("shrink_complex", gpu.output_len(0) / 2),
            };
            Some(gpu.run(&PROGRAM, function, scalars, arguments![gpu.output(0), scalars, self.0]))
        }
    }
    if threshold.is_nan() || threshold < 0.0 {
        return Err(Error::parameter("threshold", threshold, "must be at least 0"));
    }
    launch(Shrink(threshold, field), &[], &mut [out])
}

/// How the weights of [`multiply`] relate to the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Real weights, one for each stored element.
    Elementwise,
    /// Real weights, one for each complex number.
    RealOnComplex,
    /// Complex weights, one for each complex number.
    Complex,
    /// Conjugates of complex weights, one for each complex number.
    Conjugate,
}

/// out ← w · x, the weights repeated over the leading (batch) axes of x.
///
/// # Errors
/// [`Error::Shape`] where the number of weights does not divide the number of elements.
pub fn multiply(w: &Tensor, weights: Weights, x: &Tensor, out: &mut Buffer) -> Result<()> {
    struct Multiply(Weights);
    impl Kernel for Multiply {
        type Output = ();
        fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
            let (w, x) = (inputs[0], inputs[1]);
            let per_weight = if self.0 == Weights::RealOnComplex { 2 } else { 1 };
            let period = w.len() * per_weight;
            let piece = CHUNK.min(period);
            outputs[0].par_chunks_mut(period).zip(x.par_chunks(period)).for_each(|(out, x)| {
                out.par_chunks_mut(piece).zip(x.par_chunks(piece)).enumerate().for_each(|(i, (out, x))| {
                    let start = i * piece / per_weight;
                    product(self.0, &w[start..start + out.len() / per_weight], x, out);
                });
            });
            Ok(())
        }
        fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
            let w = (gpu.input(0), gpu.input_len(0));
            Some(multiply_on_device(gpu, self.0, w, gpu.input(1), gpu.output(0), gpu.output_len(0)))
        }
    }
    let per_weight = if weights == Weights::RealOnComplex { 2 } else { 1 };
    if w.elem_count() == 0 || !x.elem_count().is_multiple_of(w.elem_count() * per_weight) {
        return Err(Error::shape("weights", format!("a trailing part of {:?}", x.dims()), w.dims()));
    }
    same_count("product", x, out)?;
    launch(Multiply(weights), &[w, x], &mut [out])
}

/// [`multiply`] as a part of a launch: `n` elements of x and of out, and `period` of w. Both may be one array.
pub(crate) fn multiply_on_device(
    gpu: &Gpu,
    weights: Weights,
    (w, period): (Address, usize),
    x: Address,
    out: Address,
    n: usize,
) -> Result<()> {
    let complex = |sign: f64| {
        gpu.run(&PROGRAM, "multiply_complex", n / 2, arguments![w, x, out, n / 2, period / 2, sign])
    };
    let real =
        |repeat: usize| gpu.run(&PROGRAM, "multiply_real", n, arguments![w, x, out, n, period, repeat]);
    match weights {
        Weights::Elementwise => real(1),
        Weights::RealOnComplex => real(2),
        Weights::Complex => complex(1.0),
        Weights::Conjugate => complex(-1.0),
    }
}

fn product<T: Real>(weights: Weights, w: &[T], x: &[T], out: &mut [T]) {
    match weights {
        Weights::Elementwise => out.iter_mut().zip(w.iter().zip(x)).for_each(|(o, (w, x))| *o = *w * *x),
        Weights::RealOnComplex => out
            .chunks_exact_mut(2)
            .zip(w.iter().zip(x.chunks_exact(2)))
            .for_each(|(o, (w, x))| (o[0], o[1]) = (*w * x[0], *w * x[1])),
        Weights::Complex => as_complex_mut(out)
            .iter_mut()
            .zip(as_complex(w).iter().zip(as_complex(x)))
            .for_each(|(o, (w, x))| *o = *w * *x),
        Weights::Conjugate => as_complex_mut(out)
            .iter_mut()
            .zip(as_complex(w).iter().zip(as_complex(x)))
            .for_each(|(o, (w, x))| *o = w.conj() * *x),
    }
}

/// An error where `x` holds NaN or an infinity, with how many and where.
pub fn require_finite(name: &str, x: &Tensor) -> Result<()> {
    struct Bad;
    impl Kernel for Bad {
        type Output = Option<(usize, usize)>;
        fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<Self::Output> {
            let count: usize =
                inputs[0].par_chunks(CHUNK).map(|c| c.iter().filter(|v| !v.is_finite()).count()).sum();
            Ok((count > 0).then(|| (count, inputs[0].iter().position(|v| !v.is_finite()).unwrap_or(0))))
        }
        /// Arrays that hold such a value are looked at on the host.
        fn on_device(&self, gpu: &Gpu) -> Option<Result<Self::Output>> {
            let shape = (1, gpu.input_len(0), 1);
            match gpu.reduce(&PROGRAM, "not_finite", shape, arguments![gpu.input(0)]) {
                Ok(counts) if counts[0][0] > 0.0 => None,
                counts => Some(counts.map(|_| None)),
            }
        }
    }
    let Some((count, flat)) = launch(Bad, &[x], &mut [])? else { return Ok(()) };
    let mut first = vec![0; x.rank()];
    let mut rest = flat;
    for (index, length) in first.iter_mut().zip(x.dims()).rev() {
        (*index, rest) = (rest % length, rest / length);
    }
    Err(Error::NotFinite { name: name.into(), count, total: x.elem_count(), first })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn ramp(n: usize) -> Tensor {
        Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap()
    }

    #[test]
    fn long_inner_products_match_the_closed_form() {
        let n = 3 * CHUNK + 5;
        let x = Tensor::arange(0f64, n as f64, &Device::Cpu).unwrap();
        let exact = ((n - 1) * n * (2 * n - 1) / 6) as f64;
        assert!((inner(&x, &x, 1).unwrap()[0] / exact - 1.0).abs() < 1e-14);
    }

    #[test]
    fn combinations_by_item() {
        let x = ramp(6);
        let mut out = Buffer::copy_of(&x).unwrap();
        axpby_items(&[1.0, 10.0], &x, &[0.0, 1.0], &mut out).unwrap();
        assert_eq!(out.tensor().to_vec1::<f32>().unwrap(), [0., 1., 2., 33., 44., 55.]);
        accumulate(2.0, &[(1.0, &x)], &mut out).unwrap();
        assert_eq!(out.tensor().to_vec1::<f32>().unwrap(), [0., 3., 6., 69., 92., 115.]);
    }

    #[test]
    fn shrinks_real_and_complex() {
        let mut out = Buffer::copy_of(&Tensor::new(&[-3f64, 0.5, 3.0, 4.0], &Device::Cpu).unwrap()).unwrap();
        shrink(1.0, Field::Real, &mut out).unwrap();
        assert_eq!(out.tensor().to_vec1::<f64>().unwrap(), [-2.0, 0.0, 2.0, 3.0]);
        let mut out = Buffer::copy_of(&Tensor::new(&[3f64, 4.0, 0.1, 0.1], &Device::Cpu).unwrap()).unwrap();
        shrink(1.0, Field::Complex, &mut out).unwrap();
        let got = out.tensor().to_vec1::<f64>().unwrap();
        assert!((got[0] - 2.4).abs() < 1e-15 && (got[1] - 3.2).abs() < 1e-15 && got[2..] == [0.0, 0.0]);
    }

    #[test]
    fn products_of_each_kind() {
        let w = Tensor::new(&[0f32, 1.0], &Device::Cpu).unwrap();
        let x = Tensor::new(&[1f32, 2., 3., 4.], &Device::Cpu).unwrap();
        let get = |kind| {
            let mut out = Buffer::zeros(&[4], DType::F32, &Device::Cpu).unwrap();
            multiply(&w, kind, &x, &mut out).unwrap();
            out.tensor().to_vec1::<f32>().unwrap()
        };
        assert_eq!(get(Weights::Elementwise), [0., 2., 0., 4.]);
        assert_eq!(get(Weights::RealOnComplex), [0., 0., 3., 4.]);
        assert_eq!(get(Weights::Complex), [-2., 1., -4., 3.]);
        assert_eq!(get(Weights::Conjugate), [2., -1., 4., -3.]);
    }

    #[test]
    fn finds_what_is_not_finite() {
        let x = Tensor::new(&[[0f32, 1.0], [f32::NAN, f32::INFINITY]], &Device::Cpu).unwrap();
        let message = require_finite("scan.h5", &x).unwrap_err().to_string();
        assert_eq!(message, "scan.h5: 2 of 4 values are NaN or infinite, the first at index [1, 0]");
        require_finite("ramp", &ramp(3)).unwrap();
    }

    #[test]
    fn mixed_types_are_refused() {
        let x = ramp(4);
        let mut out = Buffer::zeros(&[4], DType::F64, &Device::Cpu).unwrap();
        assert!(matches!(copy(&x, &mut out), Err(Error::DType { .. })));
    }
}
