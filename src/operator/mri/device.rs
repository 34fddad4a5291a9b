//! Cartesian multi-coil encoding on a device: images in groups through their coil images.

use crate::error::Result;
use crate::operator::mri::encode::{Pass, Sizes};
use crate::tensor::device::{Argument, Gpu, Program, arguments};
use crate::tensor::fft::{Direction, three, unitary, unscaled};

pub(super) static PROGRAM: Program = Program { name: "sense", source: include_str!("sense.cu") };

/// Coil images held at once, in complex numbers: 256 MiB of them in single precision.
const HELD: usize = 1 << 25;

/// One pass of [`super::encode::Encode`], whose inputs and outputs these are; `None` for more than three axes.
pub(super) fn encode(gpu: &Gpu, pass: Pass, sizes: Sizes, shape: &[usize]) -> Option<Result<()>> {
    let axes = three(shape)?;
    let Sizes { coils, item, .. } = sizes;
    let images = match pass {
        Pass::Apply => gpu.input_len(0) / 2 / item,
        _ => gpu.output_len(0) / 2 / item,
    };
    let held = (HELD / (coils * item)).clamp(1, images.max(1));
    let group = Group { gpu, sizes, axes, rows: shape[0] };
    Some((0..images).step_by(held).try_for_each(|first| group.run(pass, first, held.min(images - first))))
}

struct Group<'a> {
    gpu: &'a Gpu<'a>,
    sizes: Sizes,
    axes: [usize; 3],
    rows: usize,
}

impl Group<'_> {
    fn run(&self, pass: Pass, first: usize, images: usize) -> Result<()> {
        let Sizes { coils, item, sets } = self.sizes;
        let (gpu, [n0, n1, n2]) = (self.gpu, self.axes);
        let (input, maps, columns, out) = (gpu.input(0), gpu.input(1), gpu.input(2), gpu.output(0));
        let (all, shape) = (images * coils * item, arguments![n0, n1, n2]);
        let coil = gpu.scratch(2 * all)?;
        let call =
            |function, threads, parts: &[&[Argument]]| gpu.run(&PROGRAM, function, threads, &parts.concat());
        let transform = |direction| unscaled(gpu, images * coils, self.axes, direction, coil);
        let expand =
            || call("expand", all, &[arguments![input, maps, coil, true, images, first, coils, sets], shape]);
        let combine = |factor: f64| {
            let head = arguments![coil, maps, out, true, images, first, coils, sets];
            call("combine", images * item, &[head, shape, arguments![factor]])
        };
        let (factor, rows) = (unitary(self.axes), self.rows);
        match pass {
            Pass::Apply => {
                expand()?;
                transform(Direction::Forward)?;
                let head = arguments![coil, columns, out, images, first, coils];
                call("sample", all, &[head, shape, arguments![rows, factor]])
            }
            Pass::Adjoint => {
                let head = arguments![input, columns, coil, images, first, coils];
                call("unsample", all, &[head, shape, arguments![rows]])?;
                transform(Direction::Inverse)?;
                combine(factor)
            }
            Pass::Normal => {
                expand()?;
                transform(Direction::Forward)?;
                call("filter", all, &[arguments![coil, columns, images, coils], shape, arguments![rows]])?;
                transform(Direction::Inverse)?;
                combine(factor * factor)
            }
        }
    }
}
