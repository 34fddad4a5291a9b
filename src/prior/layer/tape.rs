//! The backward pass through the layers of a network.
//!
//! candle's own pass gives every array a sum of gradients, fills it with zeros and adds to it, on one thread. A gradient
//! with respect to the input alone needs neither: nearly every array has one user, whose gradient is the sum. While a
//! [`Tape`] is recorded the layers note what they did, and the tape is then read from its end. candle keeps its record as
//! always; where anything but layers lies between input and value, its pass is the one that counts.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::sync::Arc;

use candle_core::{CustomOp1, CustomOp2, CustomOp3, Result as CandleResult, Tensor};

use super::add;
use crate::error::Result;

type Shared<T> = Arc<Box<T>>;

enum Operation {
    One([Tensor; 1], Shared<dyn CustomOp1 + Send + Sync>),
    Two([Tensor; 2], Shared<dyn CustomOp2 + Send + Sync>),
    Three([Tensor; 3], Shared<dyn CustomOp3 + Send + Sync>),
}

impl Operation {
    fn apply(&self) -> CandleResult<Tensor> {
        match self {
            Self::One([x], op) => x.apply_op1_arc(op.clone()),
            Self::Two([x, y], op) => x.apply_op2_arc(y, op.clone()),
            Self::Three([x, y, z], op) => x.apply_op3_arc(y, z, op.clone()),
        }
    }

    fn arguments(&self) -> &[Tensor] {
        match self {
            Self::One(all, _) => all,
            Self::Two(all, _) => all,
            Self::Three(all, _) => all,
        }
    }

    /// The gradients of the arguments, of the gradient g of the result y.
    fn backward(&self, y: &Tensor, g: &Tensor) -> CandleResult<Vec<Option<Tensor>>> {
        Ok(match self {
            Self::One([a], op) => vec![op.bwd(a, y, g)?],
            Self::Two([a, b], op) => <[_; 2]>::from(op.bwd(a, b, y, g)?).into(),
            Self::Three([a, b, c], op) => <[_; 3]>::from(op.bwd(a, b, c, y, g)?).into(),
        })
    }
}

/// The layers' operations in their order, each with its result.
#[derive(Default)]
pub struct Tape(Vec<(Operation, Tensor)>);

thread_local! {
    /// The tapes being recorded. A thread that waits for parts of its work may meanwhile record another tape, from
    /// beginning to end: the last one counts.
    static TAPES: RefCell<Vec<Tape>> = const { RefCell::new(Vec::new()) };
}

/// Applies an operation of a layer, and notes it on the tape if one is recorded.
fn noted(operation: Operation) -> Result<Tensor> {
    let y = operation.apply()?;
    TAPES.with_borrow_mut(|tapes| {
        if let Some(tape) = tapes.last_mut().filter(|_| y.track_op()) {
            tape.0.push((operation, y.clone()));
        }
    });
    Ok(y)
}

/// op(x); all arguments contiguous.
pub fn apply1(x: &Tensor, op: impl CustomOp1 + Send + Sync + 'static) -> Result<Tensor> {
    noted(Operation::One([x.contiguous()?], Arc::new(Box::new(op))))
}

/// op(x, y).
pub fn apply2(x: &Tensor, y: &Tensor, op: impl CustomOp2 + Send + Sync + 'static) -> Result<Tensor> {
    noted(Operation::Two([x.contiguous()?, y.contiguous()?], Arc::new(Box::new(op))))
}

/// op(x, y, z).
pub fn apply3(x: [&Tensor; 3], op: impl CustomOp3 + Send + Sync + 'static) -> Result<Tensor> {
    let [x, y, z] = x.map(Tensor::contiguous);
    noted(Operation::Three([x?, y?, z?], Arc::new(Box::new(op))))
}

impl Tape {
    /// What `run` does, and its tape.
    pub fn record<R>(run: impl FnOnce() -> R) -> (R, Self) {
        TAPES.with_borrow_mut(|tapes| tapes.push(Self::default()));
        let result = run();
        (result, TAPES.with_borrow_mut(Vec::pop).unwrap_or_default())
    }

    /// Jᵀ g for the variable x and the value of the network; nothing if there is more than layers between them.
    pub fn pull(&self, x: &Tensor, value: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        if !self.leads(x, value) {
            return Ok(None);
        }
        let mut gradients = HashMap::from([(value.id(), g.clone())]);
        for (operation, y) in self.0.iter().rev() {
            let Some(g) = gradients.remove(&y.id()) else { continue };
            let found = operation.backward(y, &g)?;
            for (argument, g) in operation.arguments().iter().zip(found) {
                let Some(g) = g.filter(|_| argument.track_op()) else { continue };
                match gradients.entry(argument.id()) {
                    Entry::Vacant(entry) => _ = entry.insert(g),
                    Entry::Occupied(mut entry) => _ = entry.insert(add(entry.get(), &g, 1.0)?),
                }
            }
        }
        Ok(gradients.remove(&x.id()))
    }

    /// Whether all that depends on variables is x or the result of an operation on the tape.
    fn leads(&self, x: &Tensor, value: &Tensor) -> bool {
        let mut known = HashSet::from([x.id()]);
        for (operation, y) in &self.0 {
            if operation.arguments().iter().any(|a| a.track_op() && !known.contains(&a.id())) {
                return false;
            }
            known.insert(y.id());
        }
        known.contains(&value.id())
    }
}
