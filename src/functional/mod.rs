//! Functionals: data fidelities and penalties, with gradients and proximal maps.
