//! Filtered back projection of fan and cone beams.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::operator::ct::{ConeBeam, FanBeam, ImageGrid, VolumeGrid, back_project_cone, back_project_fan};
use crate::reconstruct::Fbp;
use crate::reconstruct::ramp::{PROGRAM, Ramp};
use crate::reconstruct::redundancy::redundancy;
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::{Buffer, Kernel, Real, Space, launch, vector};

impl Fbp {
    /// The image [batch…, height, width] in 1/mm from the line integrals [batch…, views, bins] of a fan beam (Kak and
    /// Slaney 1988, section 3.4): weighted by the cosine of the fan angle, filtered, back-projected over the squared
    /// distance from the source. Full turns, short scans (Parker's weights) and displaced detectors (Wang's) are told
    /// apart by the angles and the detector.
    ///
    /// ```
    /// use std::f64::consts::TAU;
    /// use wellposed::operator::ct::{FanBeam, ImageGrid};
    /// use wellposed::{phantom::{Contrast, shepp_logan}, reconstruct::Fbp};
    /// let grid = ImageGrid::new(64, 64, 4.0)?;
    /// let beam = FanBeam::covering(&grid, 180, TAU, 500.0, 500.0)?;
    /// let data = shepp_logan(Contrast::Modified, 128.0).trace::<f32>(&beam.vectors(), 4)?;
    /// let image = Fbp::default().reconstruct_fan(&grid, &beam, &data)?;
    /// assert!((image.get(32)?.get(32)?.to_scalar::<f32>()? - 0.2).abs() < 0.05);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::error::Error::Parameter`] where the cut-off is out of range, the views cover less than half a turn and the fan's
    /// opening, or the detector doesn't reach over the central ray; [`crate::error::Error::NotFinite`] where the data are; a shape
    /// error where they are not those of the beam.
    pub fn reconstruct_fan(&self, grid: &ImageGrid, beam: &FanBeam, data: &Tensor) -> Result<Tensor> {
        grid.validate()?;
        beam.validate()?;
        Space::real(&[beam.views(), beam.bins], data.dtype(), data.device()).check("line integrals", data)?;
        back_project_fan(grid, beam, &self.filtered(beam, &[0.0], data)?)
    }

    /// The volume [batch…, slices, height, width] in 1/mm from the line integrals [batch…, rows, views, bins] of a cone
    /// beam on a circle (Feldkamp, Davis and Kress 1984): as [`Fbp::reconstruct_fan`], row by row. Exact in the plane
    /// of the source; away from it, planes across the axis blur.
    ///
    /// ```
    /// use std::f64::consts::TAU;
    /// use wellposed::operator::ct::{ConeBeam, FanBeam, ImageGrid, VolumeGrid};
    /// use wellposed::{phantom::{Contrast, Ellipsoids, shepp_logan_3d}, reconstruct::Fbp};
    /// let grid = VolumeGrid::new(8, ImageGrid::new(32, 32, 8.0)?, 8.0)?;
    /// let fan = FanBeam::covering(&grid.image, 90, TAU, 500.0, 500.0)?;
    /// let beam = ConeBeam::new(fan, 15, 16.0)?;
    /// let data = Ellipsoids(shepp_logan_3d(Contrast::Modified, 128.0)).trace::<f32>(&beam.vectors(), 2)?;
    /// let volume = Fbp::default().reconstruct_cone(&grid, &beam, &data)?;
    /// assert!((volume.get(4)?.get(16)?.get(16)?.to_scalar::<f32>()? - 0.2).abs() < 0.1);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Fbp::reconstruct_fan`]; [`crate::error::Error::Unsupported`] for a helix or a tilted panel.
    pub fn reconstruct_cone(&self, grid: &VolumeGrid, beam: &ConeBeam, data: &Tensor) -> Result<Tensor> {
        self.reconstruct_slices(grid, 0..grid.slices, beam, data)
    }

    /// Some slices of the volume [batch…, slices, height, width] as by [`Fbp::reconstruct_cone`], for volumes larger than
    /// memory: `beam` and `data` need no other detector rows than [`ConeBeam::rows_behind`] the slices.
    ///
    /// # Errors
    /// As [`Fbp::reconstruct_cone`]; [`Error::Parameter`] where the grid has no such slices.
    pub fn reconstruct_slices(
        &self,
        grid: &VolumeGrid,
        slices: Range<usize>,
        beam: &ConeBeam,
        data: &Tensor,
    ) -> Result<Tensor> {
        grid.validate()?;
        if slices.is_empty() || slices.end > grid.slices {
            let reason = format!("expected some of 0..{}", grid.slices);
            return Err(Error::parameter("slices", format!("{slices:?}"), reason));
        }
        beam.validate()?;
        let shape = [beam.rows, beam.views(), beam.fan.bins];
        Space::real(&shape, data.dtype(), data.device()).check("line integrals", data)?;
        let height =
            |row: usize| (row as f64 - (beam.rows as f64 - 1.0) / 2.0) * beam.row_pitch + beam.row_offset;
        let heights: Vec<f64> = (0..beam.rows).map(height).collect();
        back_project_cone(grid, slices, beam, &self.filtered(&beam.fan, &heights, data)?)
    }

    /// Weighted and filtered data, so that dividing by the squared distance from the source in mm remains to be done.
    fn filtered(&self, beam: &FanBeam, heights: &[f64], data: &Tensor) -> Result<Tensor> {
        vector::require_finite("line integrals", data)?;
        let ramp = match beam.curved {
            false => Ramp::new(self, beam.bins, beam.pitch / beam.magnification(), |_| 1.0)?,
            true => {
                let step = beam.pitch / beam.distance();
                Ramp::new(self, beam.bins, step, |n| {
                    let angle = n as f64 * step;
                    (angle / angle.sin()).powi(2)
                })?
            }
        };
        let weigh = Weigh { rays: redundancy(beam)?, cosines: cosines(beam, heights), bins: beam.bins };
        let mut filtered = Buffer::copy_of(data)?;
        launch(weigh, &[], &mut [&mut filtered])?;
        launch(ramp, &[], &mut [&mut filtered])?;
        Ok(filtered.freeze())
    }
}

/// Cosines of the rays against the central ray [rows, bins], with the distance of the source to the power that makes up
/// for 1/L²: one on an arc, where rays are counted by their angle, two on a line.
fn cosines(beam: &FanBeam, heights: &[f64]) -> Vec<f64> {
    let (distance, source) = (beam.distance(), beam.source_origin);
    let of = |height: f64, bin: usize| {
        let s = beam.position(bin);
        if beam.curved {
            source * beam.fan_angle(bin).cos() * distance / distance.hypot(height)
        } else {
            source * source * distance / (distance * distance + s * s + height * height).sqrt()
        }
    };
    heights.iter().flat_map(|height| (0..beam.bins).map(move |bin| of(*height, bin))).collect()
}

/// x[…, row, view, bin] ← rays[view, bin] · cosines[row, bin] · x.
struct Weigh {
    rays: Vec<f64>,
    cosines: Vec<f64>,
    bins: usize,
}

impl Kernel for Weigh {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (views, rows) = (self.rays.len() / self.bins, self.cosines.len() / self.bins);
        outputs[0].par_chunks_mut(self.bins).enumerate().for_each(|(line, x)| {
            let (view, row) = (line % views, line / views % rows);
            let weights = self.rays[view * self.bins..].iter().zip(&self.cosines[row * self.bins..]);
            x.iter_mut().zip(weights).for_each(|(x, (ray, cosine))| *x *= T::of(ray * cosine));
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (n, bins) = (gpu.output_len(0), self.bins);
        let (views, rows) = (self.rays.len() / bins, self.cosines.len() / bins);
        let run = || {
            let (rays, cosines) = (gpu.upload(&self.rays)?, gpu.upload(&self.cosines)?);
            gpu.run(&PROGRAM, "weigh", n, arguments![gpu.output(0), rays, cosines, n, bins, views, rows])
        };
        Some(run())
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{PI, TAU};

    use super::*;
    use crate::metric::psnr;
    use crate::phantom::{Contrast, Ellipse, Ellipsoid, Ellipsoids, shepp_logan, shepp_logan_3d};

    fn fan_quality(beam: &FanBeam) -> f64 {
        let grid = ImageGrid::new(256, 256, 1.0).unwrap();
        let head = shepp_logan(Contrast::Modified, 128.0);
        let data = head.trace::<f32>(&beam.vectors(), 8).unwrap();
        let image = Fbp::default().reconstruct_fan(&grid, beam, &data).unwrap();
        psnr(&image, &head.picture::<f32>(&grid, 8).unwrap(), 1.0).unwrap()
    }

    #[test]
    fn reconstructs_the_head_from_every_fan() {
        let grid = ImageGrid::new(256, 256, 1.0).unwrap();
        let full = FanBeam::covering(&grid, 360, TAU, 400.0, 300.0).unwrap();
        let short = FanBeam::covering(&grid, 280, full.short_scan() + 0.1, 400.0, 300.0).unwrap();
        let aside = FanBeam { bins: 301, ..full.clone() }.with_offset(-90.0);
        let beams =
            [full.clone(), full.curved(), short.clone(), short.curved(), aside.clone(), aside.curved()];
        let found: Vec<f64> = beams.iter().map(fan_quality).collect();
        println!("full, short, aside, each flat and curved: {found:.2?} dB");
        assert!(found.iter().all(|psnr| *psnr > 30.0), "{found:?}");
    }

    #[test]
    fn slabs_are_those_of_the_volume() {
        let grid = VolumeGrid::new(30, ImageGrid::new(24, 28, 1.0).unwrap(), 0.8).unwrap();
        let angles = (0..40).map(|i| TAU * f64::from(i) / 40.0).collect();
        let fan = FanBeam::new(angles, 50, 1.5, 60.0, 40.0).unwrap();
        // Rows much finer than slices, much coarser, and a panel that sees some of the slices.
        for (rows, pitch, offset) in [(90, 0.6, 1.0), (11, 5.0, -2.0), (20, 1.0, 9.0)] {
            let beam = ConeBeam { row_offset: offset, ..ConeBeam::new(fan.clone(), rows, pitch).unwrap() };
            let space = Space::real(&[rows, 40, 50], candle_core::DType::F64, &candle_core::Device::Cpu);
            let data =
                crate::tensor::random::standard_normal(crate::tensor::random::Noise::new(4, 0), &space, &[]);
            let data = data.unwrap();
            let whole = Fbp::default().reconstruct_cone(&grid, &beam, &data).unwrap();
            for slices in [0..7, 7..8, 8..30] {
                let seen = beam.rows_behind(&grid, slices.clone());
                assert!(slices.len() == 22 || pitch > 4.0 || seen.len() < rows, "{seen:?} of {rows}");
                let shift = (seen.start + seen.end) as f64 / 2.0 - rows as f64 / 2.0;
                let part = ConeBeam { rows: seen.len(), row_offset: offset + shift * pitch, ..beam.clone() };
                let rows = data.narrow(0, seen.start, seen.len()).unwrap().contiguous().unwrap();
                let found = Fbp::default().reconstruct_slices(&grid, slices.clone(), &part, &rows).unwrap();
                let expected = whole.narrow(0, slices.start, slices.len()).unwrap();
                let difference = crate::testing::relative_difference(&found, &expected).unwrap();
                assert!(difference < 1e-12, "{slices:?} of {rows:?}: {difference}");
            }
        }
        let none = Tensor::zeros((20, 40, 50), candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
        let beam = ConeBeam::new(fan, 20, 1.0).unwrap();
        assert!(Fbp::default().reconstruct_slices(&grid, 29..31, &beam, &none).is_err());
    }

    #[test]
    fn volumes_have_the_right_values() {
        let ball = Ellipsoid {
            middle: Ellipse { value: 0.02, center: (5.0, -3.0), axes: (20.0, 20.0), angle: 0.0 },
            z: 2.0,
            height: 20.0,
        };
        let grid = VolumeGrid::new(64, ImageGrid::new(64, 64, 1.0).unwrap(), 1.0).unwrap();
        let circle =
            ConeBeam::new(FanBeam::covering(&grid.image, 180, TAU, 300.0, 200.0).unwrap(), 80, 1.8).unwrap();
        let short = circle.fan.short_scan() + 0.05;
        let cases = [
            circle.clone(),
            ConeBeam { fan: circle.fan.clone().curved(), ..circle.clone() },
            ConeBeam { row_offset: 7.3, fan: circle.fan.clone().with_offset(4.1), ..circle.clone() },
            ConeBeam { fan: FanBeam { bins: 75, ..circle.fan.clone() }.with_offset(30.0), ..circle.clone() },
            ConeBeam {
                fan: FanBeam::covering(&grid.image, 140, short, 300.0, 200.0).unwrap(),
                ..circle.clone()
            },
            // Slices farther apart than detector rows.
            ConeBeam { rows: 290, row_pitch: 0.5, ..circle.clone() },
        ];
        let bodies = Ellipsoids(vec![ball]);
        let truth = bodies.volume::<f32>(&grid, 4).unwrap();
        for beam in &cases {
            let data = bodies.trace::<f32>(&beam.vectors(), 2).unwrap();
            let volume = Fbp::default().reconstruct_cone(&grid, beam, &data).unwrap();
            let inside = volume.get(34).unwrap().narrow(0, 25, 18).unwrap().narrow(1, 28, 18).unwrap();
            let mean = inside.mean_all().unwrap().to_scalar::<f32>().unwrap();
            let quality = psnr(&volume, &truth, 0.02).unwrap();
            println!("mean inside {mean:.5} of 0.02, {quality:.2} dB");
            assert!((mean - 0.02).abs() < 1e-4 && quality > 25.0, "{beam:?}");
        }
        let helix = ConeBeam { feed: 5.0, ..circle };
        let data = bodies.trace::<f32>(&helix.vectors(), 1).unwrap();
        let refused = Fbp::default().reconstruct_cone(&grid, &helix, &data).unwrap_err();
        assert!(refused.to_string().contains("needs a circle"), "{refused}");
    }

    #[test]
    fn reconstructs_the_head_from_a_cone() {
        let grid = VolumeGrid::new(128, ImageGrid::new(128, 128, 1.0).unwrap(), 1.0).unwrap();
        let fan =
            FanBeam::new((0..180).map(|i| TAU * f64::from(i) / 180.0).collect(), 192, 1.5, 400.0, 200.0)
                .unwrap();
        let beam = ConeBeam::new(fan, 192, 1.5).unwrap();
        let head = Ellipsoids(shepp_logan_3d(Contrast::Modified, 64.0));
        let data = head.trace::<f32>(&beam.vectors(), 2).unwrap();
        let volume = Fbp::default().reconstruct_cone(&grid, &beam, &data).unwrap();
        let truth = head.volume::<f32>(&grid, 2).unwrap();
        let middle = |x: &Tensor| x.narrow(0, 56, 16).unwrap();
        let found =
            [psnr(&volume, &truth, 1.0).unwrap(), psnr(&middle(&volume), &middle(&truth), 1.0).unwrap()];
        println!("128³ head: {found:.2?} dB over the volume and near the plane of the source");
        assert!(found[0] > 24.0 && found[1] > 26.0, "{found:?}");
        assert!(beam.fan.short_scan() > PI);
    }
}
