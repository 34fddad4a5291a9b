//! 3 × 3 convolution of stride 1 by Winograd's F(4 × 4, 3 × 3): 36 products for 16 outputs instead of 144
//! (Lavin & Gray 2016, interpolation points 0, ±1, ±2, ∞).
//!
//! Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A for each 6 × 6 patch d of the padded input and each kernel g; the sum over
//! input channels turns ⊙ into 36 matrix products over a block of patches. The transforms work on 16 channels
//! at a time. In f32 the error is a few 1e-7 of the output's norm times the growth of the transforms, measured
//! below 1e-5 (see the tests).

use std::cell::RefCell;

use rayon::prelude::*;

use super::gemm::Packed;
use super::simd::{Lanes, Vectorised, dispatch};

/// Outputs a side of a patch, and inputs a side.
const OUT: usize = 4;
const IN: usize = 6;
/// Patches a task: two register tiles of 12 rows, whose transforms fit the second-level cache.
const BLOCK: usize = 24;

/// Kernels [out][in][3][3], transformed and packed as 36 matrices [in, out].
#[derive(Debug)]
pub(super) struct Winograd {
    inputs: usize,
    /// Output channels, a multiple of 16.
    outputs: usize,
    weights: Vec<Packed>,
}

/// What is done to the sums before they are stored: out ← scale (sum + bias + base).
#[derive(Clone, Copy)]
pub(super) struct Epilogue<'a> {
    /// Of each channel.
    pub(super) bias: &'a [f32],
    /// An array like the result.
    pub(super) base: Option<&'a [f32]>,
    pub(super) scale: f32,
}

impl<'a> Epilogue<'a> {
    pub(super) fn bias(bias: &'a [f32]) -> Self {
        Self { bias, base: None, scale: 1.0 }
    }
}

/// Size of the images.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Winograd {
    /// From `kernel(out, in)`; `inputs` must be a multiple of 16.
    pub(super) fn new(
        outputs: usize,
        inputs: usize,
        kernel: impl Fn(usize, usize) -> [[f32; 3]; 3] + Sync,
    ) -> Self {
        assert!(inputs.is_multiple_of(16));
        // [in][out][36]: each kernel is transformed once, G g Gᵀ.
        let transformed: Vec<[f32; IN * IN]> = (0..inputs * outputs)
            .into_par_iter()
            .map(|at| transformed_kernel(&kernel(at % outputs, at / outputs)))
            .collect();
        let weights = (0..IN * IN)
            .into_par_iter()
            .map(|p| Packed::new(inputs, outputs, |input, out| transformed[input * outputs + out][p]))
            .collect();
        Self { inputs, outputs: outputs.next_multiple_of(16), weights }
    }

    /// out ← x * kernels with this epilogue, for images [height, width, channels], zeros beyond the edges.
    pub(super) fn apply(&self, x: &[f32], end: Epilogue, plane: Plane, out: &mut [f32]) {
        let Plane { height, width } = plane;
        let (image_in, image_out) = (height * width * self.inputs, height * width * self.outputs);
        assert!(x.len().is_multiple_of(image_in) && out.len() == x.len() / image_in * image_out);
        assert_eq!(end.bias.len(), self.outputs);
        assert!(end.base.is_none_or(|base| base.len() == out.len()));
        let rows = height.div_ceil(OUT);
        let columns = width.div_ceil(OUT);
        let (patches, images) = (rows * columns, x.len() / image_in);
        // Equal blocks for every thread, large enough to read the weights seldom.
        let share = (patches * images).div_ceil(rayon::current_num_threads());
        let block = share.div_ceil(share.div_ceil(BLOCK)).next_multiple_of(4).min(BLOCK);
        let blocks = patches.div_ceil(block);
        let target = Target(out.as_mut_ptr());
        (0..images * blocks).into_par_iter().for_each(|task| {
            let (image, first) = (task / blocks, task % blocks * block);
            let count = block.min(patches - first);
            SCRATCH.with_borrow_mut(|scratch| {
                // Rows of one cache line more than a power of two would need, against cache conflicts.
                let (v_step, m_step) = (count * self.inputs + 16, count * self.outputs + 16);
                scratch.resize(scratch.len().max(IN * IN * (v_step + m_step)), 0.0);
                let (v, m) = scratch.split_at_mut(IN * IN * v_step);
                let patches = Patches {
                    plane,
                    columns,
                    first,
                    count,
                    v: v.as_mut_ptr(),
                    m: m.as_mut_ptr(),
                    v_step,
                    m_step,
                };
                dispatch(Block {
                    conv: self,
                    x: &x[image * image_in..][..image_in],
                    end: Epilogue { base: end.base.map(|b| &b[image * image_out..][..image_out]), ..end },
                    patches,
                    // SAFETY: inside `out`; tasks write disjoint patches.
                    out: unsafe { target.get().add(image * image_out) },
                });
            });
        });
    }
}

/// G g Gᵀ.
fn transformed_kernel(g: &[[f32; 3]; 3]) -> [f32; IN * IN] {
    let line = |g: [f64; 3]| {
        let (even, odd) = ((g[0] + g[2]) / 6.0, g[1] / 6.0);
        let (far_even, far_odd) = (g[0] / 24.0 + g[2] / 6.0, g[1] / 12.0);
        [g[0] / 4.0, -even - odd, -even + odd, far_even + far_odd, far_even - far_odd, g[2]]
    };
    let mut out = [0.0; IN * IN];
    let rows: [[f64; IN]; 3] = g.map(|row| line(row.map(f64::from)));
    for j in 0..IN {
        for (i, value) in line([rows[0][j], rows[1][j], rows[2][j]]).into_iter().enumerate() {
            out[i * IN + j] = value as f32;
        }
    }
    out
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// A pointer that tasks share; each writes other elements.
#[derive(Clone, Copy)]
struct Target(*mut f32);
// SAFETY: every task writes its own patches.
unsafe impl Send for Target {}
unsafe impl Sync for Target {}
impl Target {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// The patches of one task, and its scratch: V = Bᵀ d B and M, 36 matrices each.
struct Patches {
    plane: Plane,
    columns: usize,
    first: usize,
    count: usize,
    v: *mut f32,
    m: *mut f32,
    v_step: usize,
    m_step: usize,
}

impl Patches {
    /// Upper left corner of the outputs of patch `index`.
    #[inline(always)]
    fn corner(&self, index: usize) -> (usize, usize) {
        let patch = self.first + index;
        (patch / self.columns * OUT, patch % self.columns * OUT)
    }
}

struct Block<'a> {
    conv: &'a Winograd,
    x: &'a [f32],
    end: Epilogue<'a>,
    patches: Patches,
    out: *mut f32,
}

impl Vectorised for Block<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Patches { count, v, m, v_step, m_step, .. } = self.patches;
        // SAFETY: `Winograd::apply` sized the scratch and checked the arrays.
        unsafe {
            for index in 0..count {
                for channel in (0..self.conv.inputs).step_by(16) {
                    self.transform_input::<V>(index, channel);
                }
            }
            for (p, weights) in self.conv.weights.iter().enumerate() {
                let (a, c) = (v.add(p * v_step), m.add(p * m_step));
                weights.multiply_lanes::<V>(count, a, self.conv.inputs, c, self.conv.outputs);
            }
            for index in 0..count {
                for channel in (0..self.conv.outputs).step_by(16) {
                    self.transform_output::<V>(index, channel);
                }
            }
        }
    }
}

impl Block<'_> {
    #[inline(always)]
    unsafe fn transform_input<V: Lanes>(&self, index: usize, channel: usize) {
        let Plane { height, width } = self.patches.plane;
        let c = self.conv.inputs;
        let (row, column) = self.patches.corner(index);
        let inside = row > 0 && column > 0 && row + IN - 1 <= height && column + IN - 1 <= width;
        // SAFETY: `inside`, or each element checked; the scratch as `apply` sized it.
        unsafe {
            let zero = V::splat(0.0);
            let mut d = [[zero; IN]; IN];
            for (i, line) in d.iter_mut().enumerate() {
                for (j, value) in line.iter_mut().enumerate() {
                    let (y, x) = ((row + i).wrapping_sub(1), (column + j).wrapping_sub(1));
                    if inside || (y < height && x < width) {
                        *value = V::load(self.x.as_ptr().add((y * width + x) * c + channel));
                    }
                }
                *line = input_combination(*line);
            }
            let to = self.patches.v.add(index * c + channel);
            for (j, column) in transposed(d).into_iter().enumerate() {
                for (i, value) in input_combination(column).into_iter().enumerate() {
                    value.store(to.add((i * IN + j) * self.patches.v_step));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn transform_output<V: Lanes>(&self, index: usize, channel: usize) {
        let Plane { height, width } = self.patches.plane;
        let c = self.conv.outputs;
        let (row, column) = self.patches.corner(index);
        // SAFETY: rows and columns are checked against the image; the scratch as `apply` sized it.
        unsafe {
            let from = self.patches.m.add(index * c + channel);
            let mut lines = [[V::splat(0.0); OUT]; IN];
            for (i, line) in lines.iter_mut().enumerate() {
                let at = |j: usize| V::load(from.add((i * IN + j) * self.patches.m_step));
                *line = output_combination([at(0), at(1), at(2), at(3), at(4), at(5)]);
            }
            let Epilogue { bias, base, scale } = self.end;
            let (bias, scale) = (V::load(bias.as_ptr().add(channel)), V::splat(scale));
            for (j, line) in transposed(lines).into_iter().enumerate().take(width - column) {
                for (i, value) in output_combination(line).into_iter().enumerate().take(height - row) {
                    let at = ((row + i) * width + column + j) * c + channel;
                    let mut value = value.add(bias);
                    if let Some(base) = base {
                        value = value.add(V::load(base.as_ptr().add(at)));
                    }
                    value.mul(scale).store(self.out.add(at));
                }
            }
        }
    }
}

#[inline(always)]
fn transposed<V: Copy, const R: usize, const C: usize>(a: [[V; C]; R]) -> [[V; R]; C] {
    std::array::from_fn(|column| std::array::from_fn(|row| a[row][column]))
}

/// Bᵀ d.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn input_combination<V: Lanes>(d: [V; IN]) -> [V; IN] {
    // SAFETY: the caller runs with V's instructions.
    unsafe {
        let (two, four, minus_four) = (V::splat(2.0), V::splat(4.0), V::splat(-4.0));
        let even = minus_four.fma(d[2], d[4]);
        let odd = minus_four.fma(d[1], d[3]);
        let (even_half, odd_half) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
        [
            four.fma(d[0].sub(d[2]), d[4].sub(d[2])),
            even.add(odd),
            even.sub(odd),
            even_half.add(odd_half),
            even_half.sub(odd_half),
            four.fma(d[1].sub(d[3]), d[5].sub(d[3])),
        ]
    }
}

/// Aᵀ m.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn output_combination<V: Lanes>(m: [V; IN]) -> [V; OUT] {
    // SAFETY: the caller runs with V's instructions.
    unsafe {
        let (two, four, eight) = (V::splat(2.0), V::splat(4.0), V::splat(8.0));
        let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
        let (far_sum, far_difference) = (m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(sum).add(far_sum),
            two.fma(far_difference, difference),
            four.fma(far_sum, sum),
            eight.fma(far_difference, difference).add(m[5]),
        ]
    }
}
