//! Where a part of an array lies in it.

use super::Argument;

/// A part of an array of three axes.
#[derive(Clone, Copy, Debug)]
pub struct Inset {
    /// Points of the part along each axis.
    pub sides: [usize; 3],
    /// Points of the whole.
    pub whole: [usize; 3],
    /// Index in the whole of the part's first point.
    pub corner: [usize; 3],
    /// Elements of a point of the part and of the whole: the first ones are those of the part.
    pub elements: [usize; 2],
}

impl Inset {
    /// A part with the first point of the whole; none where there are more than three axes.
    pub fn at_start(sides: &[usize], whole: &[usize], elements: usize) -> Option<Self> {
        let pad = 3usize.checked_sub(sides.len())?;
        let three = |of: &[usize]| std::array::from_fn(|a| if a < pad { 1 } else { of[a - pad] });
        Some(Self { sides: three(sides), whole: three(whole), corner: [0; 3], elements: [elements; 2] })
    }

    /// Elements of the parts of so many arrays, and what the functions of layout.cu take of it.
    pub(super) fn arguments(&self, items: usize) -> (usize, Vec<Argument>) {
        let n = items * self.sides.iter().product::<usize>() * self.elements[0];
        let all = [self.sides, self.whole, self.corner].concat().into_iter().chain(self.elements);
        (n, std::iter::once(n).chain(all).map(Argument::from).collect())
    }
}
