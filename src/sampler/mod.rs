//! Diffusion posterior samplers, all in terms of the noise level σ.
