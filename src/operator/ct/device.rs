//! The ray transforms on a device: what the functions in `joseph.cu`, `fan.cu` and `cone.cu` need to know.

use crate::error::Result;
use crate::operator::ct::crossing::Crossing;
use crate::operator::ct::joseph::View;
use crate::operator::ct::vectors::{Vector, cross, dot};
use crate::operator::ct::{ImageGrid, Pose, VectorBeam, VolumeGrid};
use crate::tensor::device::{Address, Argument, Gpu, Program, Table, arguments};

static JOSEPH: Program = Program { name: "joseph", source: include_str!("joseph.cu") };
static FAN: Program = Program { name: "fan", source: include_str!("fan.cu") };
static CONE: Program = Program { name: "cone", source: include_str!("cone.cu") };

/// Slices that a thread of `joseph.cu` and `fan.cu` works on.
const SLICES: usize = 4;

/// From images to line integrals, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Back,
}

/// Slices on a grid and their sinograms.
struct Stack {
    items: usize,
    views: usize,
    bins: usize,
    height: usize,
    width: usize,
}

impl Stack {
    fn new(gpu: &Gpu, way: Way, grid: &ImageGrid, views: usize, bins: usize) -> Self {
        let ImageGrid { height, width, .. } = *grid;
        let images = if way == Way::Forward { gpu.input_len(0) } else { gpu.output_len(0) };
        Self { items: images / (height * width), views, bins, height, width }
    }

    /// Runs one of the two functions with these tables.
    fn run(&self, gpu: &Gpu, program: &Program, way: Way, columns: bool, tables: &[Argument]) -> Result<()> {
        let Self { items, views, bins, height, width } = *self;
        let (x, out) = (gpu.input(0), gpu.output(0));
        let groups = items.div_ceil(SLICES);
        let sizes = arguments![items, views, bins, height, width];
        if way == Way::Back {
            let arguments = [arguments![x, out], tables, sizes].concat();
            return gpu.run(program, "back_project", groups * height * width, &arguments);
        }
        // By columns too, so that neighbouring rays read neighbouring numbers there.
        let turned = if columns { gpu.scratch(items * height * width)? } else { x };
        if columns {
            gpu.transpose(x, turned, items, height, width)?;
        }
        let arguments = [arguments![x, turned, out], tables, sizes].concat();
        gpu.run(program, "project", groups * views * bins, &arguments)
    }
}

/// The transform of parallel rays or its adjoint; the views in their order.
pub(super) fn parallel(
    gpu: &Gpu,
    way: Way,
    grid: &ImageGrid,
    bins: usize,
    views: &[View],
    table: &Table,
) -> Result<()> {
    let numbers = || {
        let row = |v: &View| {
            let [transposed, reversed] = [v.transposed, v.reversed].map(|b| f64::from(u8::from(b)));
            [v.origin, v.per_line, v.per_ray, v.slope, v.length, transposed, reversed, 0.0]
        };
        views.iter().flat_map(row).collect()
    };
    let tables = [gpu.table(table, numbers)?.into()];
    let columns = views.iter().any(|v| v.transposed);
    Stack::new(gpu, way, grid, views.len(), bins).run(gpu, &JOSEPH, way, columns, &tables)
}

/// The transform of rays that diverge in the plane or its adjoint.
pub(super) fn fan(
    gpu: &Gpu,
    way: Way,
    grid: &ImageGrid,
    beam: &VectorBeam,
    [rays, sights]: &[Table; 2],
) -> Result<()> {
    let every = || {
        let ray = |(view, bin): (usize, usize)| {
            let (s, p) = (beam.poses[view].source, beam.pixel(view, 0, bin));
            let ray = Crossing::new(grid, [s[0], s[1]], [p[0], p[1]]);
            let kind = f64::from(u8::from(ray.transposed) + 2 * u8::from(ray.along > 0.0));
            [ray.origin, ray.slope, ray.length, kind]
        };
        (0..beam.views()).flat_map(|v| (0..beam.bins).map(move |b| (v, b))).flat_map(ray).collect()
    };
    let seen = || beam.poses.iter().flat_map(|pose| sight(grid, beam, pose)).collect();
    let tables = [gpu.table(rays, every)?.into(), gpu.table(sights, seen)?.into()];
    Stack::new(gpu, way, grid, beam.views(), beam.bins).run(gpu, &FAN, way, true, &tables)
}

/// Where the source stands, and the bin of a point as a function of (columns, rows) from there:
/// offset + across/ahead on a straight detector, offset + scale·atan2(across, ahead) on an arc.
fn sight(grid: &ImageGrid, beam: &VectorBeam, pose: &Pose) -> [f64; 10] {
    let Pose { source, detector, u, .. } = pose;
    let (column, row) = grid.place_of(source[0], source[1]);
    let centre = (beam.bins as f64 - 1.0) / 2.0;
    let to = [detector[0] - source[0], detector[1] - source[1]];
    let (distance, step) = (to[0].hypot(to[1]), u[0].hypot(u[1]));
    let (across, ahead, offset, scale) = if beam.curved {
        ([u[0] / step, u[1] / step], to.map(|x| x / distance), centre, distance / step)
    } else {
        let normal = [-u[1], u[0]];
        let depth = normal[0] * to[0] + normal[1] * to[1];
        let factor = depth.abs() / (step * step);
        let offset = centre - (to[0] * u[0] + to[1] * u[1]) / (step * step);
        ([u[0] * factor, u[1] * factor], normal.map(|x| x * depth.signum()), offset, 1.0)
    };
    // y points up, rows count downwards; the pixel's size cancels.
    let curved = f64::from(u8::from(beam.curved));
    let size = ahead[0].abs() + ahead[1].abs();
    [column, row, across[0], -across[1], ahead[0], -ahead[1], offset, scale, curved, size]
}

/// The transform of rays in any direction or its adjoint.
pub(super) fn cone(gpu: &Gpu, way: Way, grid: &VolumeGrid, beam: &VectorBeam, table: &Table) -> Result<()> {
    let (plane, slices) = (grid.image.height * grid.image.width, grid.slices);
    let (lines, rows) = (beam.views() * beam.bins, beam.rows);
    let images = if way == Way::Forward { gpu.input_len(0) } else { gpu.output_len(0) };
    let items = images / (plane * slices);
    let table = gpu.table(table, || beam.poses.iter().flat_map(|pose| place(grid, beam, pose)).collect())?;
    let (volume, traced) = (gpu.scratch(items * plane * slices)?, gpu.scratch(items * lines * rows)?);
    let run = |function, threads, from: Address, to: Address| {
        let ImageGrid { height, width, pixel } = grid.image;
        let sizes =
            arguments![items, beam.views(), beam.bins, rows, slices, height, width, pixel, grid.thickness];
        gpu.run(&CONE, function, threads, &[arguments![from, to, table], sizes].concat())
    };
    match way {
        Way::Forward => {
            gpu.transpose(gpu.input(0), volume, items, slices, plane)?;
            run("project", items * lines * rows, volume, traced)?;
            gpu.transpose(traced, gpu.output(0), items, lines, rows)
        }
        Way::Back => {
            gpu.transpose(gpu.input(0), traced, items, rows, lines)?;
            run("back_project", items * plane * slices, traced, volume)?;
            gpu.transpose(volume, gpu.output(0), items, plane, slices)
        }
    }
}

/// The detector from the source, and the row and bin of a point as a function of (columns, rows, slices) from there.
fn place(grid: &VolumeGrid, beam: &VectorBeam, pose: &Pose) -> [f64; 28] {
    let Pose { source, detector, u, v } = pose;
    let to: Vector = std::array::from_fn(|a| detector[a] - source[a]);
    let (middle_row, middle_bin) = ((beam.rows as f64 - 1.0) / 2.0, (beam.bins as f64 - 1.0) / 2.0);
    let mut numbers = [0.0; 28];
    let mut write = |at: usize, values: &[f64]| numbers[at..at + values.len()].copy_from_slice(values);
    write(3, &to);
    write(6, u);
    write(9, v);
    let (column, row) = grid.image.place_of(source[0], source[1]);
    write(24, &[column, row, source[2] / grid.thickness + (grid.slices as f64 - 1.0) / 2.0]);
    if beam.curved {
        let (radius, step) = (to[0].hypot(to[1]), u[0].hypot(u[1]));
        write(12, &[1.0, u[0] / step, u[1] / step, to[0] / radius, to[1] / radius]);
        write(17, &[radius / step, radius / v[2], middle_bin, 0.0, radius, step, middle_row - to[2] / v[2]]);
        return numbers;
    }
    let normal = cross(u, v);
    let (area, depth) = (dot(&normal, &normal), dot(&normal, &to));
    let [by_bin, by_row] = [cross(v, &normal), cross(&normal, u)].map(|w| w.map(|x| x / area));
    // From voxels to mm: y points up, rows count downwards.
    let scaled = |w: Vector, factor: f64| {
        [w[0] * grid.image.pixel * factor, -w[1] * grid.image.pixel * factor, w[2] * grid.thickness * factor]
    };
    let ahead = scaled(normal, depth.signum());
    write(13, &ahead);
    write(16, &scaled(by_bin, depth.abs()));
    write(19, &[middle_bin - dot(&to, &by_bin)]);
    write(20, &scaled(by_row, depth.abs()));
    write(23, &[middle_row - dot(&to, &by_row)]);
    write(27, &[ahead.iter().map(|x| x.abs()).sum()]);
    numbers
}
