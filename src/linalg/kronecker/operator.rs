//! The Kronecker product as an operator on tensors.

use candle_core::Tensor;
use gemm::Parallelism;
use rayon::prelude::*;

use super::around;
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch};

/// Rows of the result that one task computes.
const ROWS: usize = 64;

/// A₀ ⊗ A₁ (⊗ A₂ …) on arrays [n₀, n₁, …], with A_d [m_d, n_d]: one matrix product along each axis, so that
/// N elements cost N Σ m_d multiplications and the product is never formed.
#[derive(Debug)]
pub struct KroneckerOperator {
    factors: Vec<Tensor>,
    domain: Space,
    range: Space,
}

impl KroneckerOperator {
    /// The operator from one matrix an axis; all of one element type, on one device.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::linalg::{LinearOperator, kronecker::KroneckerOperator};
    /// let sum = Tensor::new(&[[1f64, 1.0]], &Device::Cpu)?;
    /// let total = KroneckerOperator::new(&[sum.clone(), sum])?;
    /// let x = Tensor::new(&[[1f64, 2.0], [3.0, 4.0]], &Device::Cpu)?;
    /// assert_eq!(total.apply(&x)?.to_vec2::<f64>()?, [[10.0]]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where there is no factor, or one is not a matrix or is empty; [`Error::DType`] where the
    /// element types differ.
    pub fn new(factors: &[Tensor]) -> Result<Self> {
        let Some(first) = factors.first() else {
            return Err(Error::shape("Kronecker factors", "at least one matrix", &[]));
        };
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        for factor in factors {
            match factor.dims() {
                &[m, n] if m > 0 && n > 0 => {
                    rows.push(m);
                    columns.push(n);
                }
                found => return Err(Error::shape("Kronecker factor", "[rows, columns], not empty", found)),
            }
            if factor.dtype() != first.dtype() {
                return Err(Error::DType {
                    name: "Kronecker factor".into(),
                    expected: first.dtype().as_str().into(),
                    found: factor.dtype().as_str().into(),
                });
            }
        }
        let factors = factors.iter().map(Tensor::contiguous).collect::<candle_core::Result<Vec<_>>>()?;
        let domain = Space::real(&columns, first.dtype(), first.device());
        let range = domain.with_shape(&rows);
        Ok(Self { factors, domain, range })
    }

    fn run(
        &self,
        transposed: bool,
        x: &Tensor,
        batch: &[usize],
        out: &mut Buffer,
        ws: &mut Workspace,
    ) -> Result<()> {
        if !x.device().is_cpu() {
            return out.adopt(self.on_device(transposed, x, batch)?);
        }
        let (from, to) = if transposed { (&self.range, &self.domain) } else { (&self.domain, &self.range) };
        let (mut shape, items) = (from.shape().to_vec(), batch.iter().product::<usize>());
        let last = self.factors.len() - 1;
        let mut previous: Option<Buffer> = None;
        for (axis, factor) in self.factors.iter().enumerate() {
            let (outer, inner) = around(&shape, axis);
            shape[axis] = to.shape()[axis];
            let kernel = ModeProduct {
                outer: items * outer,
                inner,
                rows: to.shape()[axis],
                columns: from.shape()[axis],
                transposed,
            };
            let source = previous.as_ref().map_or(x, Buffer::tensor);
            if axis == last {
                launch(kernel, &[source, factor], &mut [&mut *out])?;
            } else {
                let full: Vec<usize> = batch.iter().chain(&shape).copied().collect();
                let mut next = ws.take_shape(&full, from.dtype(), from.device())?;
                launch(kernel, &[source, factor], &mut [&mut next])?;
                if let Some(old) = previous.replace(next) {
                    ws.give(old);
                }
            }
        }
        if let Some(old) = previous {
            ws.give(old);
        }
        Ok(())
    }
}

impl KroneckerOperator {
    /// The product by the device's own matrix products, one along each axis.
    fn on_device(&self, transposed: bool, x: &Tensor, batch: &[usize]) -> Result<Tensor> {
        let from = if transposed { &self.range } else { &self.domain };
        let mut shape = from.shape().to_vec();
        let items = batch.iter().product::<usize>();
        let mut product = x.contiguous()?;
        for (axis, factor) in self.factors.iter().enumerate() {
            let factor = if transposed { factor.t()?.contiguous()? } else { factor.clone() };
            let (outer, inner) = around(&shape, axis);
            let slabs = product.reshape((items * outer, shape[axis], inner))?;
            shape[axis] = factor.dim(0)?;
            product = factor.broadcast_matmul(&slabs)?;
        }
        let full: Vec<usize> = batch.iter().chain(&shape).copied().collect();
        Ok(product.reshape(full)?)
    }
}

impl LinearOperator for KroneckerOperator {
    fn domain(&self) -> &Space {
        &self.domain
    }

    fn range(&self) -> &Space {
        &self.range
    }

    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain.check("argument of the Kronecker product", x)?;
        self.run(false, x, batch, out, ws)
    }

    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.range.check("argument of the adjoint Kronecker product", y)?;
        self.run(true, y, batch, out, ws)
    }
}

/// out[o, :, :] = A x[o, :, :] (or Aᵀ) for x [outer, columns, inner], out [outer, rows, inner].
struct ModeProduct {
    outer: usize,
    inner: usize,
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl Kernel for ModeProduct {
    type Output = ();

    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (x, a) = (inputs[0], inputs[1]);
        let Self { outer, inner, rows, columns, transposed } = self;
        // Row and column strides of the factor, as stored and as used.
        let (down, across) = if transposed { (1, rows) } else { (columns, 1) };
        if inner == 1 {
            // One product for all: out [outer, rows] = x [outer, columns] Aᵀ.
            outputs[0].par_chunks_mut(ROWS * rows).zip(x.par_chunks(ROWS * columns)).for_each(|(out, x)| {
                let shape = (out.len() / rows, rows, columns);
                product(shape, out, (x, columns, 1), (a, across, down));
            });
            return Ok(());
        }
        debug_assert_eq!(outputs[0].len(), outer * rows * inner);
        outputs[0].par_chunks_mut(rows * inner).zip(x.par_chunks(columns * inner)).for_each(|(out, x)| {
            out.par_chunks_mut(ROWS * inner).enumerate().for_each(|(chunk, out)| {
                let start = chunk * ROWS * down;
                let shape = (out.len() / inner, inner, columns);
                product(shape, out, (&a[start..], down, across), (x, inner, 1));
            });
        });
        Ok(())
    }
}

/// out [m, n] ← left [m, k] right [k, n]; each factor with its row and column stride.
fn product<T: Real>(
    (m, n, k): (usize, usize, usize),
    out: &mut [T],
    left: (&[T], usize, usize),
    right: (&[T], usize, usize),
) {
    let reaches = |(x, down, across): (&[T], usize, usize), rows: usize, columns: usize| {
        x.len() > (rows - 1) * down + (columns - 1) * across
    };
    assert!(out.len() == m * n && reaches(left, m, k) && reaches(right, k, n), "operands cover the product");
    // SAFETY: the assertion shows that all elements reached by the strides are inside the slices; `out` is
    // borrowed exclusively and every element of it is written (`read_dst` is false).
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            left.0.as_ptr(),
            left.2 as isize,
            left.1 as isize,
            right.0.as_ptr(),
            right.2 as isize,
            right.1 as isize,
            T::zero(),
            T::one(),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    fn factor(m: usize, n: usize, seed: u64, dtype: DType) -> Tensor {
        standard_normal(Noise::new(seed, 0), &Space::real(&[m, n], dtype, &Device::Cpu), &[]).unwrap()
    }

    #[test]
    fn kronecker_products_are_operators() {
        for dtype in [DType::F32, DType::F64] {
            let factors = [factor(5, 3, 1, dtype), factor(130, 4, 2, dtype), factor(2, 70, 3, dtype)];
            for count in 1..=3 {
                check_operator(&KroneckerOperator::new(&factors[..count]).unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn it_agrees_with_the_dense_kronecker_product() {
        let (a, b) = (factor(3, 4, 4, DType::F64), factor(5, 2, 5, DType::F64));
        let x = factor(4, 2, 6, DType::F64);
        let found = KroneckerOperator::new(&[a.clone(), b.clone()]).unwrap().apply(&x).unwrap();
        let dense =
            a.reshape((3, 1, 4, 1)).unwrap().broadcast_mul(&b.reshape((1, 5, 1, 2)).unwrap()).unwrap();
        let expected = dense.reshape((15, 8)).unwrap().matmul(&x.reshape((8, 1)).unwrap()).unwrap();
        let expected = expected.reshape((3, 5)).unwrap();
        assert!(relative_difference(&found, &expected).unwrap() < 1e-14);
    }

    #[test]
    fn the_path_of_other_devices_agrees() {
        let product =
            KroneckerOperator::new(&[factor(5, 3, 1, DType::F64), factor(6, 4, 2, DType::F64)]).unwrap();
        let space = Space::real(&[2, 3, 4], DType::F64, &Device::Cpu);
        let x = standard_normal(Noise::new(7, 0), &space, &[]).unwrap();
        let there = product.on_device(false, &x, &[2]).unwrap();
        assert!(relative_difference(&there, &product.apply(&x).unwrap()).unwrap() < 1e-14);
        let back = product.on_device(true, &there, &[2]).unwrap();
        assert!(relative_difference(&back, &product.adjoint(&there).unwrap()).unwrap() < 1e-14);
    }

    #[test]
    fn bad_factors_are_refused() {
        let a = factor(2, 2, 1, DType::F64);
        assert!(KroneckerOperator::new(&[]).is_err());
        assert!(KroneckerOperator::new(&[a.clone(), factor(2, 2, 1, DType::F32)]).is_err());
        assert!(KroneckerOperator::new(&[a.reshape(4).unwrap()]).is_err());
    }
}
