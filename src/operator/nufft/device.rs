//! Gridding on a device.

use super::Nufft;
use super::grid::AXES;
use crate::error::Result;
use crate::tensor::device::{Address, Argument, Gpu, Inset, Program, Table, arguments};
use crate::tensor::fft::{Direction, centred};
use crate::tensor::vector::{Weights, multiply_on_device};

static PROGRAM: Program = Program { name: "nufft", source: include_str!("nufft.cu") };

/// Images on the grid at once: enough for a card, without the memory of a volume.
const ITEMS: usize = 16;

/// What a device needs of a transform, uploaded once.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    first: Table,
    tiles: Table,
    factors: Table,
}

/// A x or Aᴴ y. Inputs: argument, window weights. Outputs: value, one grid, which is not used.
pub(super) fn gridding(gpu: &Gpu, transform: &Nufft, back: bool) -> Result<()> {
    let (places, tables) = (&transform.places, &transform.tables);
    let (shape, samples) = (transform.domain.shape(), places.samples());
    let Some(frame) = Inset::at_start(shape, transform.grid(), 2) else { unreachable!("up to three axes") };
    let (sides, grid) = (frame.sides, frame.whole);
    let corner = std::array::from_fn(|a| grid[a] / 2 - sides[a] / 2);
    let frame = Inset { corner, ..frame };
    let (pixels, points) = (sides.iter().product::<usize>(), places.points());
    let factors = gpu.table(&tables.factors, || {
        let ones = vec![1.0; AXES - shape.len()];
        ones.into_iter().chain(transform.apodization.iter().flatten().copied()).collect()
    })?;
    let first = gpu.table(&tables.first, || places.first_taps())?;
    let taps = places.widths();
    let sizes = |items: usize, samples| -> Vec<Argument> {
        [&[items, samples][..], &grid, &taps].concat().into_iter().map(Argument::from).collect()
    };
    let apodize = |from: Address, to: Address, items: usize| {
        let n = items * pixels;
        gpu.run(&PROGRAM, "apodize", n, arguments![from, to, factors, n, sides[0], sides[1], sides[2]])
    };
    let items = gpu.input_len(0) / 2 / if back { samples } else { pixels };
    let wide = gpu.scratch(2 * points * items.min(ITEMS))?;
    let turned = gpu.scratch(2 * points * items.min(ITEMS))?;
    for start in (0..items).step_by(ITEMS) {
        let count = ITEMS.min(items - start);
        let [from, to] = if back { [samples, pixels] } else { [pixels, samples] };
        let from = gpu.input(0).further(2 * start * from * gpu.width());
        let to = gpu.output(0).further(2 * start * to * gpu.width());
        if back {
            let tile = places.tile();
            let tiles = gpu.table(&tables.tiles, || places.tiles())?;
            let blocks = count * (0..AXES).map(|a| grid[a].div_ceil(tile[a])).product::<usize>();
            let arrays = arguments![gpu.input(1), from, wide, first, tiles];
            let rest = arguments![tile[0], tile[1], tile[2]];
            let all = [arrays, &sizes(count, samples)[1..], rest].concat();
            gpu.run_blocks(&PROGRAM, "spread", blocks, &all)?;
            centred(gpu, count, grid, Direction::Inverse, wide, turned)?;
            gpu.cut(&frame, count, turned, to)?;
            apodize(to, to, count)?;
        } else {
            let image = gpu.scratch(2 * count * pixels)?;
            apodize(from, image, count)?;
            gpu.fill(wide, 2 * count * points, 0.0)?;
            gpu.put(&frame, count, image, wide)?;
            centred(gpu, count, grid, Direction::Forward, wide, turned)?;
            let arrays = arguments![gpu.input(1), turned, to, first];
            let n = count * samples;
            gpu.run(&PROGRAM, "take", n, &[arrays, &sizes(n, samples)].concat())?;
        }
    }
    Ok(())
}

/// x ↦ the convolution of the point-spread function with this real spectrum, on images of this shape. Inputs: images,
/// spectrum.
pub(super) fn convolve(gpu: &Gpu, shape: &[usize]) -> Option<Result<()>> {
    let double: Vec<usize> = shape.iter().map(|n| 2 * n).collect();
    let frame = Inset::at_start(shape, &double, 2)?;
    // Axes that the image doesn't have are not doubled.
    let (pixels, points) = (frame.sides.iter().product::<usize>(), frame.whole.iter().product::<usize>());
    let items = gpu.input_len(0) / 2 / pixels;
    let run = || {
        let most = items.min(ITEMS);
        let (wide, turned) = (gpu.scratch(2 * points * most)?, gpu.scratch(2 * points * most)?);
        for start in (0..items).step_by(ITEMS) {
            let count = ITEMS.min(items - start);
            let (n, offset) = (count * points, 2 * start * pixels * gpu.width());
            gpu.fill(wide, 2 * n, 0.0)?;
            gpu.put(&frame, count, gpu.input(0).further(offset), wide)?;
            centred(gpu, count, frame.whole, Direction::Forward, wide, turned)?;
            let spectrum = (gpu.input(1), points);
            multiply_on_device(gpu, Weights::RealOnComplex, spectrum, turned, turned, 2 * n)?;
            centred(gpu, count, frame.whole, Direction::Inverse, turned, wide)?;
            gpu.cut(&frame, count, wide, gpu.output(0).further(offset))?;
        }
        Ok(())
    };
    Some(run())
}
