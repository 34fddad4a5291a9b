//! Conditions on the faces of the box.

use super::data::Data;
use super::operator::Derivative;

/// The two ends of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The face at the lower end.
    Low,
    /// The face at the upper end.
    High,
}

/// A face of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    /// The axis normal to it.
    pub axis: usize,
    /// Which end of that axis.
    pub side: Side,
}

impl Face {
    /// The face at the lower end of `axis`.
    pub fn low(axis: usize) -> Self {
        Self { axis, side: Side::Low }
    }

    /// The face at the upper end of `axis`.
    pub fn high(axis: usize) -> Self {
        Self { axis, side: Side::High }
    }

    /// −1 on a low face, +1 on a high one: ∂u/∂n = sign · ∂u/∂x_axis.
    pub fn sign(self) -> f64 {
        if self.side == Side::Low { -1.0 } else { 1.0 }
    }
}

/// What holds on a face. The data are functions of the full position, on that face.
#[derive(Clone, Debug)]
pub enum Condition {
    /// u = g.
    Dirichlet(Data),
    /// ∂u/∂n = g, with the outward normal n.
    Neumann(Data),
    /// α u + β ∂u/∂n = g.
    Robin {
        /// α.
        value: f64,
        /// β.
        slope: f64,
        /// g.
        data: Data,
    },
}

impl Condition {
    /// The data g.
    pub fn data(&self) -> &Data {
        match self {
            Self::Dirichlet(data) | Self::Neumann(data) | Self::Robin { data, .. } => data,
        }
    }

    /// The left-hand side on `face` as Σ c ∂u with plain (not outward) derivatives.
    pub fn terms(&self, face: Face) -> Vec<(Derivative, f64)> {
        let slope = Derivative::along(face.axis, 1);
        match self {
            Self::Dirichlet(_) => vec![(Derivative::VALUE, 1.0)],
            Self::Neumann(_) => vec![(slope, face.sign())],
            Self::Robin { value, slope: beta, .. } => {
                vec![(Derivative::VALUE, *value), (slope, beta * face.sign())]
            }
        }
    }
}

/// A condition and where it holds. A face may carry two (u and ∂u/∂t at the start of a wave) or none (outflow).
#[derive(Clone, Debug)]
pub struct Boundary {
    /// Where.
    pub face: Face,
    /// What.
    pub condition: Condition,
}
