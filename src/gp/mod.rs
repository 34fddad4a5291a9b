//! Gaussian-process solvers for differential equations, in double precision.
