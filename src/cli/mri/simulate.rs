//! `wellposed mri simulate`: a volume → undersampled multi-coil k-space; or measured k-space → less of it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{MriScan, Provenance, read_volume};
use wellposed::linalg::LinearOperator;
use wellposed::metric;
use wellposed::operator::mri::{
    NonCartesianSense, Pattern, Sampling, Sense, Trajectory, VolumeTrajectory, birdcage, measure,
};
use wellposed::operator::{Accuracy, Nufft};
use wellposed::plot::{Image, Montage, Panel, Row, Scale};
use wellposed::tensor::random::{Noise, normal};
use wellposed::tensor::{Buffer, Field, Space, vector};

use super::{scan, volumetric};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::cli::report::Report;

/// Arguments of `wellposed mri simulate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Volume to scan; with --kspace, measured k-space to undersample.
    volume: PathBuf,
    /// Scan file to write: .h5, .mrd (ISMRMRD) or .cfl (BART).
    #[arg(
        short,
        long,
        value_name = "FILE",
        long_help = "Scan file to write. .h5 is this program's own and holds everything; .mrd is ISMRMRD, for masks of whole \
                     lines and for trajectories; .cfl is BART's array of k-space, its trajectory in ..._traj.cfl."
    )]
    output: PathBuf,
    /// Take VOLUME as fully sampled measured k-space, and leave samples out.
    #[arg(
        long,
        long_help = "Take VOLUME as fully sampled measured k-space [(slice,) (coil,) ky, kx], in a scan file, .cfl, .mat, \
                     .npy or HDF5, and leave samples out. --coils and --noise have no meaning then."
    )]
    kspace: bool,
    /// With --kspace: which array of the file.
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// Encode the volume in three dimensions: over kz and ky with whole readouts along x, or along a trajectory.
    #[arg(
        long = "3d",
        long_help = "Encode the volume in three dimensions. Masks on the grid are over kz and ky, and readouts along x are \
                     whole; radial and golden are diameters of a ball, stars a plane of diameters for each kz."
    )]
    volumetric: bool,
    /// Receive coils.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256), value_name = "N")]
    coils: u32,
    /// Where k-space is sampled: a mask on the grid, or a trajectory.
    #[arg(long, value_enum, default_value_t = Mask::Random, value_name = "MASK")]
    mask: Mask,
    /// All points over sampled points.
    #[arg(long, default_value_t = 4.0, value_name = "R")]
    acceleration: f64,
    /// Fully sampled centre, as a fraction of the width of k-space.
    #[arg(
        long,
        default_value_t = 0.08,
        value_name = "FRACTION",
        long_help = "Fully sampled centre, as a fraction of the width of k-space: of the lines for random and equispaced, \
                     of either side of a square for poisson and gaussian. Coil maps are estimated from it."
    )]
    center: f64,
    /// Noise, relative to the image's 99th percentile.
    #[arg(
        long,
        default_value_t = 0.01,
        value_name = "S",
        long_help = "Standard deviation of the noise of the real and of the imaginary part of each k-space sample (the \
                     Fourier transform is orthonormal), relative to the 99th percentile of the image."
    )]
    noise: f64,
    /// Seed of mask, coils and noise.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Picture of the sampling mask, PNG.
    #[arg(long, value_name = "PNG")]
    plot: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Kinds of sampling masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mask {
    /// Random lines.
    Random,
    /// Evenly spaced lines.
    Equispaced,
    /// Points that keep a distance from each other, denser in the centre.
    Poisson,
    /// Random points, Gaussian about the centre.
    Gaussian,
    /// One side of k-space along ky, and --center of it on the other side; --acceleration doesn't count.
    Partial,
    /// Diameters at equal angles; evenly spread over a ball with --3d.
    Radial,
    /// Diameters by the golden angle, or with --3d by the golden means.
    Golden,
    /// With --3d: a stack of stars, the diameters of golden at every kz.
    Stars,
    /// Sixteen Archimedean spirals. Their centre is no denser than the rest, so that the scan carries its coil maps, as if
    /// from a separate calibration.
    Spiral,
}

/// Spirals of a spiral scan.
const INTERLEAVES: usize = 16;

impl Mask {
    /// The trajectory that samples an image of this shape as densely as needed, divided by `acceleration`, and the
    /// samples of each readout.
    fn trajectory(self, [height, width]: [usize; 2], acceleration: f64) -> Option<(Trajectory, usize)> {
        let n = height.max(width) as f64;
        let spokes = ((0.5 * std::f64::consts::PI * n / acceleration).round() as usize).max(1);
        let turns = (0.5 * n / acceleration / INTERLEAVES as f64).max(0.5);
        let readout = 2 * height.max(width);
        match self {
            Self::Radial => Some((Trajectory::Radial { spokes }, readout)),
            Self::Golden | Self::Stars => Some((Trajectory::GoldenRadial { spokes }, readout)),
            Self::Spiral => {
                let spiral = Trajectory::Spiral { interleaves: INTERLEAVES, turns };
                Some((spiral, (1.5 * spiral.length(height.max(width))).ceil() as usize))
            }
            _ => None,
        }
    }

    /// As [`Mask::trajectory`], through three dimensions; a ball of n points a side needs π/2 n² diameters.
    fn volume_trajectory(self, shape: [usize; 3], acceleration: f64) -> Option<(VolumeTrajectory, usize)> {
        let n = shape.iter().copied().max().unwrap_or(1);
        let full = 0.5 * std::f64::consts::PI * (n * n) as f64;
        let spokes = ((full / acceleration).round() as usize).max(1);
        match self {
            Self::Radial => Some((VolumeTrajectory::Radial { spokes }, 2 * n)),
            Self::Golden => Some((VolumeTrajectory::GoldenMeans { spokes }, 2 * n)),
            Self::Stars => {
                let (plane, samples) = self.trajectory([shape[1], shape[2]], acceleration)?;
                Some((VolumeTrajectory::Stack { plane }, samples))
            }
            _ => None,
        }
    }
}

/// What runs, and is saved beside the scan.
#[derive(Debug, Serialize)]
struct Config<'a> {
    volume: &'a Path,
    kspace: bool,
    volumetric: bool,
    coils: usize,
    mask: Mask,
    acceleration: f64,
    center: f64,
    noise: f64,
    seed: u64,
}

impl Arguments {
    /// Checks what clap can't.
    fn validate(&self) -> Outcome {
        if !(self.acceleration >= 1.0 && self.acceleration.is_finite()) {
            return Err(Failure::usage("--acceleration", self.acceleration, "expected a factor, at least 1"));
        }
        if !(0.0..1.0).contains(&self.center) {
            return Err(Failure::usage("--center", self.center, "expected a fraction, from 0 to below 1"));
        }
        let name = format!("{:?}", self.mask).to_lowercase();
        match self.mask {
            Mask::Spiral if self.volumetric => {
                return Err(Failure::usage(
                    "--mask",
                    name,
                    "of slices; with --3d take radial, golden or stars",
                ));
            }
            Mask::Stars if !self.volumetric => {
                return Err(Failure::usage("--mask", name, "needs --3d; take golden for slices"));
            }
            _ => (),
        }
        if !(self.noise >= 0.0 && self.noise.is_finite()) {
            return Err(Failure::usage("--noise", self.noise, "expected a standard deviation, at least 0"));
        }
        output::check(&self.output, false, self.plot.as_deref())
    }

    /// The mask [ky, kx].
    fn draw(&self, shape: [usize; 2]) -> Outcome<Tensor> {
        let calibration = (self.center * shape[0].min(shape[1]) as f64).round() as usize;
        let pattern = match self.mask {
            Mask::Random => Pattern::RandomLines { centre: self.center },
            Mask::Equispaced => Pattern::EquispacedLines { centre: self.center, offset: None },
            Mask::Poisson => Pattern::PoissonDisc { calibration, growth: 2.0, corners: false },
            Mask::Gaussian => Pattern::GaussianPoints { calibration, width: 0.2 },
            Mask::Partial => {
                let first = shape[0] / 2 - calibration / 2;
                let line = |i: usize| f32::from(u8::from(i / shape[1] >= first));
                let values: Vec<f32> = (0..shape[0] * shape[1]).map(line).collect();
                return Ok(Tensor::from_vec(values, (shape[0], shape[1]), &Device::Cpu)?);
            }
            Mask::Radial | Mask::Golden | Mask::Stars | Mask::Spiral => {
                let name = format!("{:?}", self.mask).to_lowercase();
                return Err(Failure::usage("--mask", name, "a trajectory; measured k-space is on a grid"));
            }
        };
        let sampling = Sampling { pattern, acceleration: self.acceleration, seed: self.seed };
        sampling.draw(shape).map_err(|error| match error {
            Error::Parameter { .. } => Failure::Usage(format!("--mask, --acceleration, --center: {error}")),
            error => Failure::Run(error),
        })
    }

    /// K-space of a volume.
    fn scan_volume(&self) -> Outcome<MriScan> {
        let volume = read_volume(&self.volume)?;
        let (lowest, highest) = metric::extrema(volume.data())?;
        // Resampling leaves small negative values in magnitudes; CT numbers are another matter.
        if volume.field() == Field::Real && lowest < -0.1 * highest.abs() {
            let reason =
                format!("expected the magnitudes of an MR image, found values from {lowest} to {highest}");
            return Err(Error::format(&self.volume, reason).into());
        }
        let volume = volume.magnitude()?;
        let path = match self.volumetric {
            true => self.mask.volume_trajectory(volume.grid().shape(), self.acceleration),
            false => None,
        };
        let sliced = self.volumetric && path.is_none();
        let volume = if sliced { volumetric::sliced(&volume)? } else { volume };
        let whole = volume.grid().shape();
        let [slices, height, width] = whole;
        let maps = birdcage(self.coils as usize, [height, width], self.seed, DType::F32, &Device::Cpu)?;
        let mut values: Vec<f32> = volume.data().flatten_all()?.to_vec1()?;
        let place = (values.len() - 1) * 99 / 100;
        let size = f64::from(*values.select_nth_unstable_by(place, f32::total_cmp).1);
        if size <= 0.0 {
            let reason = "the image's 99th percentile is not positive: is it a magnitude?";
            return Err(Error::format(&self.volume, reason).into());
        }
        let real = (volume.data() / size)?;
        let image = Tensor::stack(&[&real, &real.zeros_like()?], 3)?;
        let noise = Noise::new(self.seed, 0x6d72_6e6f);
        let shape = [height, width];
        let (kspace, mask, trajectory) = match (path, self.mask.trajectory(shape, self.acceleration)) {
            (Some((trajectory, samples)), _) => {
                // Coils are long wires along z.
                let deep = [self.coils as usize, slices, height, width, 2];
                let maps = maps.unsqueeze(1)?.broadcast_as(&deep[..])?.contiguous()?;
                self.follow(&maps, &image, &trajectory.points(whole, samples)?, samples, noise)?
            }
            (None, Some((trajectory, samples))) => {
                self.follow(&maps, &image, &trajectory.points(shape, samples)?, samples, noise)?
            }
            (None, None) => {
                let mask = self.draw(shape)?;
                (measure(&Sense::new(&maps, &mask)?, &image, self.noise, noise)?, mask, None)
            }
        };
        let provenance = Provenance::new(Some(self.seed)).with("source", self.volume.display().to_string());
        let provenance = if sliced { volumetric::noted(provenance, 2) } else { provenance };
        Ok(MriScan {
            kspace,
            mask,
            trajectory,
            coil_maps: (self.mask == Mask::Spiral).then_some(maps),
            noise: Some(self.noise),
            noise_covariance: None,
            scale: size,
            crop: None,
            target: volume.grid().clone(),
            provenance: provenance.with("command", "mri simulate"),
        })
    }

    /// K-space [slice, coil, readout, sample, 2] of an image at `points` [readout · sample, axis], its mask and trajectory.
    fn follow(
        &self,
        maps: &Tensor,
        image: &Tensor,
        points: &Tensor,
        samples: usize,
        noise: Noise,
    ) -> Outcome<Sampled> {
        let (count, axes) = points.dims2()?;
        let readouts = count / samples;
        let shape = &maps.dims()[1..=axes];
        let space = Space::complex(shape, DType::F32, &Device::Cpu);
        let fourier = Nufft::new(&space, points, Accuracy { tolerance: 1e-6, oversampling: 2.0 })?;
        let clean = NonCartesianSense::new(maps, fourier, None)?.apply(image)?;
        let mut kspace = Buffer::copy_of(&clean)?;
        normal(noise, &mut kspace)?;
        vector::accumulate(self.noise, &[(1.0, &clean)], &mut kspace)?;
        let coils = self.coils as usize;
        let slices = clean.elem_count() / (2 * coils * count);
        let kspace = kspace.freeze().reshape((slices, coils, readouts, samples, 2))?;
        let points = points.reshape((readouts, samples, axes))?.to_dtype(DType::F32)?;
        let mask = Tensor::ones((readouts, samples), DType::F32, &Device::Cpu)?;
        Ok((kspace, mask, Some(points)))
    }

    /// Measured k-space with fewer samples.
    fn scan_kspace(&self) -> Outcome<MriScan> {
        let dataset = self.dataset.as_deref();
        let scan = match self.volumetric {
            true => volumetric::read(&self.volume, dataset)?,
            false => scan::read(&self.volume, dataset)?,
        };
        let [_, height, width] = scan.target.shape();
        let drawn = self.draw([height, width])?;
        let mask = drawn.broadcast_mul(&scan.mask)?;
        let spread = if mask.rank() == 2 {
            mask.reshape((1, 1, height, width, 1))?
        } else {
            mask.unsqueeze(1)?.unsqueeze(4)?
        };
        let kspace = scan.kspace.broadcast_mul(&spread)?;
        let provenance = scan.provenance.clone().with("command", "mri simulate --kspace");
        Ok(MriScan { kspace, mask, provenance: Provenance { seed: Some(self.seed), ..provenance }, ..scan })
    }
}

/// K-space, its mask, and its trajectory where it isn't on a grid.
type Sampled = (Tensor, Tensor, Option<Tensor>);

/// 1 at the points of the grid next to a sample of the trajectory.
fn visited(trajectory: &Tensor, [_, height, width]: [usize; 3]) -> Outcome<Tensor> {
    let mut grid = vec![0f32; height * width];
    let points: Vec<f32> = trajectory.flatten_all()?.to_vec1()?;
    let axes = trajectory.dims()[2];
    // Of a volume the plane about kz = 0.
    for k in points.chunks_exact(axes).filter(|k| axes == 2 || k[0].abs() <= 0.5).map(|k| &k[axes - 2..]) {
        let place =
            |k: f32, n: usize| (k.round() as isize + (n / 2) as isize).clamp(0, n as isize - 1) as usize;
        grid[place(k[0], height) * width + place(k[1], width)] = 1.0;
    }
    Ok(Tensor::from_vec(grid, (height, width), &Device::Cpu)?)
}

pub fn run(arguments: &Arguments) -> Outcome {
    arguments.validate()?;
    let start = Instant::now();
    let scan = if arguments.kspace { arguments.scan_kspace()? } else { arguments.scan_volume()? };
    let seconds = start.elapsed().as_secs_f64();
    let config = Config {
        volume: &arguments.volume,
        kspace: arguments.kspace,
        volumetric: arguments.volumetric,
        coils: scan.kspace.dims()[1],
        mask: arguments.mask,
        acceleration: arguments.acceleration,
        center: arguments.center,
        noise: arguments.noise,
        seed: arguments.seed,
    };
    scan.write(&arguments.output)?;
    output::save_config(&arguments.output, "mri simulate", &config)?;
    if let Some(plot) = &arguments.plot {
        let mask = match &scan.trajectory {
            Some(trajectory) => visited(trajectory, scan.target.shape())?,
            None if scan.mask.rank() == 2 => scan.mask.clone(),
            None => scan.mask.get(0)?,
        };
        let sampled = mask.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let note = format!("{:.1} % of {} × {}", 100.0 * sampled, mask.dims()[0], mask.dims()[1]);
        let panels = vec![Some(Panel::new("sampling mask", note, Image::new(&mask, [1.0, 1.0])?))];
        let rows = vec![Row { scale: Scale::gray(0.0, 1.0, ""), panels }];
        Montage { rows, panel_width: 420 }.save(plot)?;
    }
    let report = Report {
        seed: Some(arguments.seed),
        output: Some(arguments.output.clone()),
        ..Report::new("mri simulate", seconds)
    };
    report.print(arguments.json)
}
