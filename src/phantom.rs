//! Built-in data: analytic and procedural phantoms.
