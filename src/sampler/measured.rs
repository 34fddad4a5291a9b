//! Operators whose data have a precision each.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::sampler::PROGRAM;
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, launch};

/// diag(w) A, or A itself: an operator with the noise of every datum divided out, as samplers see it. The weights may
/// differ from batch item to batch item; the batch then is the one that the weights were made for.
#[derive(Clone, Debug)]
pub struct Measured<'a> {
    operator: &'a dyn LinearOperator,
    roots: Option<Tensor>,
}

impl<'a> Measured<'a> {
    pub(super) fn new(operator: &'a dyn LinearOperator, roots: Option<Tensor>) -> Self {
        Self { operator, roots }
    }

    /// data ← w · data.
    pub(super) fn weigh(&self, data: &mut Buffer) -> Result<()> {
        let Some(roots) = &self.roots else { return Ok(()) };
        let components = if self.range().field() == Field::Complex { 2 } else { 1 };
        if !data.tensor().elem_count().is_multiple_of(roots.elem_count() * components) {
            return Err(Error::shape("weights of the data", format!("{:?}", data.dims()), roots.dims()));
        }
        launch(Weigh { components }, &[roots], &mut [data])
    }
}

impl LinearOperator for Measured<'_> {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn range(&self) -> &Space {
        self.operator.range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.apply_into(x, out, ws)?;
        self.weigh(out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        if self.roots.is_none() {
            return self.operator.adjoint_into(y, out, ws);
        }
        let mut weighted = ws.take_shape(y.dims(), y.dtype(), y.device())?;
        crate::tensor::vector::copy(y, &mut weighted)?;
        self.weigh(&mut weighted)?;
        self.operator.adjoint_into(weighted.tensor(), out, ws)?;
        ws.give(weighted);
        Ok(())
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        if self.roots.is_none() {
            return self.operator.normal_into(x, out, ws);
        }
        let batch = self.domain().check("argument of the normal operator", x)?;
        let mut middle = ws.take(self.range(), batch)?;
        self.operator.apply_into(x, &mut middle, ws)?;
        self.weigh(&mut middle)?;
        self.weigh(&mut middle)?;
        self.operator.adjoint_into(middle.tensor(), out, ws)?;
        ws.give(middle);
        Ok(())
    }
}

/// out ← w · out, the weights repeated over leading axes and over re and im.
struct Weigh {
    components: usize,
}

impl Kernel for Weigh {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (w, components) = (inputs[0], self.components);
        outputs[0].par_chunks_mut(w.len() * components).for_each(|item| {
            for (values, w) in item.chunks_exact_mut(components).zip(w) {
                values.iter_mut().for_each(|v| *v *= *w);
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (w, out, n) = (gpu.input(0), gpu.output(0), gpu.output_len(0));
        Some(gpu.run(&PROGRAM, "weigh", n, arguments![w, out, n, gpu.input_len(0), self.components]))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::{Blur, Boundary};
    use crate::testing::check_operator;

    #[test]
    fn weights_keep_the_adjoint_exact() {
        let space = Space::real(&[6, 5], DType::F64, &Device::Cpu);
        let blur = Blur::gaussian(&space, 1.0, Boundary::Reflect).unwrap();
        let roots = Tensor::arange(1f64, 31.0, &Device::Cpu).unwrap().reshape((6, 5)).unwrap();
        check_operator(&Measured::new(&blur, Some(roots))).unwrap();
    }
}
