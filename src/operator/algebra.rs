//! New operators from old ones: products, sums, multiples, stacks, adjoints, normal operators.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::device::{Gpu, Inset};
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, launch, vector};

/// An operator that others are built from.
type Shared = Arc<dyn LinearOperator>;

/// Builds operators by methods; every sized operator has them, an `Arc` too.
///
/// ```
/// use candle_core::{Device, DType};
/// use wellposed::{operator::{Algebra, Gradient}, tensor::Space, testing::check_operator};
/// let image = Space::real(&[6, 5], DType::F64, &Device::Cpu);
/// let laplacian = Gradient::new(&image, &[0, 1])?.normal_operator(0.1).scaled(-1.0);
/// check_operator(&laplacian)?;
/// # Ok::<(), wellposed::error::Error>(())
/// ```
pub trait Algebra: LinearOperator + Sized + 'static {
    /// Self as a shared operator, to be used in several places.
    fn shared(self) -> Arc<dyn LinearOperator> {
        Arc::new(self)
    }
    /// x ↦ B (A x) with A = self.
    ///
    /// # Errors
    /// [`Error::Shape`] where the range of A is not the domain of B.
    fn then(self, outer: impl LinearOperator + 'static) -> Result<Compose> {
        Compose::new(Arc::new(outer), Arc::new(self))
    }
    /// A + B.
    ///
    /// # Errors
    /// [`Error::Shape`] where the spaces differ.
    fn plus(self, other: impl LinearOperator + 'static) -> Result<Sum> {
        Sum::new(vec![Arc::new(self), Arc::new(other)])
    }
    /// c A with a real factor c.
    fn scaled(self, factor: f64) -> Scaled {
        Scaled { operator: Arc::new(self), factor }
    }
    /// Aᴴ as an operator.
    fn adjoint_operator(self) -> Adjoint {
        Adjoint { operator: Arc::new(self) }
    }
    /// AᴴA + μ as an operator, with μ ≥ 0: what conjugate gradients solve for a Tikhonov estimate.
    fn normal_operator(self, mu: f64) -> Normal {
        Normal { operator: Arc::new(self), mu }
    }
    /// A on every item of a volume: the same map with `leading` axes made part of the spaces.
    fn lifted(self, leading: &[usize]) -> Lifted {
        Lifted::new(Arc::new(self), leading)
    }
}

impl<A: LinearOperator + 'static> Algebra for A {}

/// x ↦ B (A x).
#[derive(Clone, Debug)]
pub struct Compose {
    outer: Shared,
    inner: Shared,
}

impl Compose {
    /// `outer` after `inner`.
    ///
    /// # Errors
    /// [`Error::Shape`] where the range of `inner` is not the domain of `outer`.
    pub fn new(outer: Shared, inner: Shared) -> Result<Self> {
        outer.domain().expect_same("domain of the outer operator", inner.range())?;
        Ok(Self { outer, inner })
    }
}

impl LinearOperator for Compose {
    fn domain(&self) -> &Space {
        self.inner.domain()
    }
    fn range(&self) -> &Space {
        self.outer.range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of a product", x)?;
        let mut middle = ws.take(self.inner.range(), batch)?;
        self.inner.apply_into(x, &mut middle, ws)?;
        self.outer.apply_into(middle.tensor(), out, ws)?;
        ws.give(middle);
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.range().check("argument of a product's adjoint", y)?;
        let mut middle = ws.take(self.inner.range(), batch)?;
        self.outer.adjoint_into(y, &mut middle, ws)?;
        self.inner.adjoint_into(middle.tensor(), out, ws)?;
        ws.give(middle);
        Ok(())
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of a product", x)?;
        let mut middle = ws.take(self.inner.range(), batch)?;
        let mut image = ws.take(self.inner.range(), batch)?;
        self.inner.apply_into(x, &mut middle, ws)?;
        self.outer.normal_into(middle.tensor(), &mut image, ws)?;
        self.inner.adjoint_into(image.tensor(), out, ws)?;
        ws.give(middle);
        ws.give(image);
        Ok(())
    }
}

/// x ↦ Σ Aₖ x.
#[derive(Clone, Debug)]
pub struct Sum {
    terms: Vec<Shared>,
}

impl Sum {
    /// The sum of `terms`.
    ///
    /// # Errors
    /// [`Error::Parameter`] where there are none, [`Error::Shape`] where their spaces differ.
    pub fn new(terms: Vec<Shared>) -> Result<Self> {
        let Some(first) = terms.first() else {
            return Err(Error::parameter("terms", 0, "a sum needs at least one operator"));
        };
        for term in &terms {
            first.domain().expect_same("domain of a sum", term.domain())?;
            first.range().expect_same("range of a sum", term.range())?;
        }
        Ok(Self { terms })
    }

    fn total(
        &self,
        out: &mut Buffer,
        ws: &mut Workspace,
        evaluate: impl Fn(&dyn LinearOperator, &mut Buffer, &mut Workspace) -> Result<()>,
    ) -> Result<()> {
        evaluate(&self.terms[0], out, ws)?;
        let shape = out.dims().to_vec();
        let mut image = ws.take_shape(&shape, self.domain().dtype(), self.domain().device())?;
        for term in &self.terms[1..] {
            evaluate(term, &mut image, ws)?;
            vector::accumulate(1.0, &[(1.0, image.tensor())], out)?;
        }
        ws.give(image);
        Ok(())
    }
}

impl LinearOperator for Sum {
    fn domain(&self) -> &Space {
        self.terms[0].domain()
    }
    fn range(&self) -> &Space {
        self.terms[0].range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.total(out, ws, |term, out, ws| term.apply_into(x, out, ws))
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.total(out, ws, |term, out, ws| term.adjoint_into(y, out, ws))
    }
}

/// x ↦ c A x.
#[derive(Clone, Debug)]
pub struct Scaled {
    operator: Shared,
    factor: f64,
}

impl LinearOperator for Scaled {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn range(&self) -> &Space {
        self.operator.range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.apply_into(x, out, ws)?;
        vector::accumulate(self.factor, &[], out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.adjoint_into(y, out, ws)?;
        vector::accumulate(self.factor, &[], out)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.normal_into(x, out, ws)?;
        vector::accumulate(self.factor * self.factor, &[], out)
    }
}

/// y ↦ Aᴴ y.
#[derive(Clone, Debug)]
pub struct Adjoint {
    operator: Shared,
}

impl LinearOperator for Adjoint {
    fn domain(&self) -> &Space {
        self.operator.range()
    }
    fn range(&self) -> &Space {
        self.operator.domain()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.adjoint_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.apply_into(y, out, ws)
    }
}

/// x ↦ AᴴA x + μ x.
#[derive(Clone, Debug)]
pub struct Normal {
    operator: Shared,
    mu: f64,
}

impl LinearOperator for Normal {
    fn domain(&self) -> &Space {
        self.operator.domain()
    }
    fn range(&self) -> &Space {
        self.operator.domain()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.normal_into(x, out, ws)?;
        if self.mu == 0.0 {
            return Ok(());
        }
        vector::accumulate(1.0, &[(self.mu, x)], out)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.apply_into(y, out, ws)
    }
}

/// x ↦ (A₁ x, A₂ x, …), the images flattened and joined to one axis.
#[derive(Clone, Debug)]
pub struct Stack {
    parts: Vec<Shared>,
    range: Space,
}

impl Stack {
    /// `parts` one above the other; their ranges may differ in shape.
    ///
    /// ```
    /// use candle_core::{Device, DType};
    /// use wellposed::{linalg::LinearOperator, operator::*, tensor::Space};
    /// let image = Space::real(&[4, 4], DType::F32, &Device::Cpu);
    /// let both = Stack::new(vec![Identity::new(&image).shared(), Gradient::new(&image, &[0, 1])?.shared()])?;
    /// assert_eq!(both.range().shape(), [48]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where there are none, [`Error::Shape`] where the domains or the fields of the
    /// ranges differ.
    pub fn new(parts: Vec<Shared>) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::parameter("parts", 0, "a stack needs at least one operator"));
        };
        let scalars = parts.iter().map(|p| p.range().scalars()).sum();
        let range = first.range().with_shape(&[scalars]);
        for part in &parts {
            first.domain().expect_same("domain of a stack", part.domain())?;
            range.expect_same("range of a stack", &part.range().with_shape(&[scalars]))?;
        }
        Ok(Self { parts, range })
    }
}

/// Copies between one part and its place in each item of the stack.
struct Place {
    offset: usize,
    part: usize,
    stack: usize,
    into_stack: bool,
}

impl Kernel for Place {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let place = self.offset..self.offset + self.part;
        if self.into_stack {
            let items = outputs[0].chunks_exact_mut(self.stack).zip(inputs[0].chunks_exact(self.part));
            items.for_each(|(stack, part)| stack[place.clone()].copy_from_slice(part));
        } else {
            let items = outputs[0].chunks_exact_mut(self.part).zip(inputs[0].chunks_exact(self.stack));
            items.for_each(|(part, stack)| part.copy_from_slice(&stack[place.clone()]));
        }
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (sides, whole, corner) = ([1, 1, self.part], [1, 1, self.stack], [0, 0, self.offset]);
        let inset = Inset { sides, whole, corner, elements: [1, 1] };
        Some(if self.into_stack {
            gpu.put(&inset, gpu.input_len(0) / self.part, gpu.input(0), gpu.output(0))
        } else {
            gpu.cut(&inset, gpu.output_len(0) / self.part, gpu.input(0), gpu.output(0))
        })
    }
}

impl LinearOperator for Stack {
    fn domain(&self) -> &Space {
        self.parts[0].domain()
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of a stack", x)?;
        let (mut offset, stack) = (0, self.range.elements());
        for operator in &self.parts {
            let part = operator.range().elements();
            let mut image = ws.take(operator.range(), batch)?;
            operator.apply_into(x, &mut image, ws)?;
            launch(Place { offset, part, stack, into_stack: true }, &[image.tensor()], &mut [out])?;
            ws.give(image);
            offset += part;
        }
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.range.check("argument of a stack's adjoint", y)?;
        let (mut offset, stack) = (0, self.range.elements());
        let mut image = ws.take(self.domain(), batch)?;
        vector::fill(0.0, out)?;
        for operator in &self.parts {
            let part = operator.range().elements();
            let mut piece = ws.take(operator.range(), batch)?;
            launch(Place { offset, part, stack, into_stack: false }, &[y], &mut [&mut piece])?;
            operator.adjoint_into(piece.tensor(), &mut image, ws)?;
            vector::accumulate(1.0, &[(1.0, image.tensor())], out)?;
            ws.give(piece);
            offset += part;
        }
        ws.give(image);
        Ok(())
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let batch = self.domain().check("argument of a stack", x)?;
        let mut image = ws.take(self.domain(), batch)?;
        vector::fill(0.0, out)?;
        for operator in &self.parts {
            operator.normal_into(x, &mut image, ws)?;
            vector::accumulate(1.0, &[(1.0, image.tensor())], out)?;
        }
        ws.give(image);
        Ok(())
    }
}

/// A on every item of a volume: domain [leading…, domain of A], range [leading…, range of A].
#[derive(Clone, Debug)]
pub struct Lifted {
    operator: Shared,
    domain: Space,
    range: Space,
}

impl Lifted {
    /// `operator` with `leading` axes made part of its spaces; batches already map item by item, so this
    /// only renames axes.
    pub fn new(operator: Shared, leading: &[usize]) -> Self {
        let lift = |space: &Space| space.with_shape(&[leading, space.shape()].concat());
        let (domain, range) = (lift(operator.domain()), lift(operator.range()));
        Self { operator, domain, range }
    }
}

impl LinearOperator for Lifted {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.apply_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.adjoint_into(y, out, ws)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator.normal_into(x, out, ws)
    }
}
