//! The hot loops of networks on the CPU, over slices of f32: convolutions by Winograd's algorithm and packed matrix
//! products, group normalisation fused with SiLU, attention, resampling; each with its gradients.
//!
//! Images are channels-last, [images, height, width, channels]. Results are the same bits for any number of threads,
//! and for an image alone or in a batch.

pub(super) mod attention;
pub(super) mod conv;
mod gemm;
pub(super) mod map;
pub(super) mod norm;
pub(super) mod resample;
pub(super) mod residual;
mod scratch;
mod simd;
#[cfg(test)]
mod tests;
mod winograd;
