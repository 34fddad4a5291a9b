//! The rays of a scan: from what files hold to geometries, and to the transform along them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use serde::Serialize;
use wellposed::error::Result;
use wellposed::io::{Beam, CtGeometry, CtScan, Grid};
use wellposed::operator::ct::{
    ConeBeam, ConeTransform, FanBeam, FanTransform, FootprintTransform, ParallelBeam, Projector,
    RayTransform, VolumeGrid,
};
use wellposed::reconstruct::Fbp;

use super::scan::image_grid;
use crate::cli::failure::{Failure, Outcome};

/// How line integrals are taken from voxels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Along thin rays, interpolated between voxels.
    #[default]
    Joseph,
    /// Means over the width of a detector pixel of the shadows of voxels; cones only, slower.
    Footprint,
}

/// Views and detector.
#[derive(Clone, Debug)]
pub enum Rays {
    Parallel(ParallelBeam),
    Fan(FanBeam),
    Cone(ConeBeam, Sampling),
}

impl Rays {
    /// Those of a scan.
    pub fn of(scan: &CtScan) -> Result<Self> {
        let &[rows, views, bins] = scan.projections.dims() else { unreachable!("checked when it was read") };
        Self::new(&scan.geometry, [rows, views, bins])
    }

    /// Those of a geometry, for projections [row, view, column] of this shape.
    pub fn new(geometry: &CtGeometry, [rows, _, bins]: [usize; 3]) -> Result<Self> {
        let CtGeometry { beam, angles, pitch, offset } = geometry;
        let fan = |source_origin, origin_detector, curved| -> Result<FanBeam> {
            let fan = FanBeam::new(angles.clone(), bins, *pitch, source_origin, origin_detector)?;
            Ok(FanBeam { curved, ..fan }.with_offset(*offset))
        };
        Ok(match *beam {
            Beam::Parallel => {
                Self::Parallel(ParallelBeam::new(angles.clone(), bins, *pitch)?.with_offset(*offset))
            }
            Beam::Fan { source_origin, origin_detector, curved } => {
                Self::Fan(fan(source_origin, origin_detector, curved)?)
            }
            Beam::Cone { source_origin, origin_detector, row_pitch, row_offset, feed } => {
                let fan = fan(source_origin, origin_detector, false)?;
                let beam = ConeBeam { row_offset, feed, ..ConeBeam::new(fan, rows, row_pitch)? };
                Self::Cone(beam, Sampling::Joseph)
            }
        })
    }

    /// The same rays, followed through the voxels in this way.
    ///
    /// # Errors
    /// [`Failure::Usage`] for footprints of anything but cones.
    pub fn sampled(self, sampling: Sampling) -> Outcome<Self> {
        match self {
            Self::Cone(beam, _) => Ok(Self::Cone(beam, sampling)),
            rays if sampling == Sampling::Joseph => Ok(rays),
            rays => {
                let reason =
                    format!("footprints are those of cones, found a {} beam", rays.geometry().beam.kind());
                Err(Failure::usage("--projector", "footprint", &reason))
            }
        }
    }

    /// As a file holds them.
    pub fn geometry(&self) -> CtGeometry {
        let (beam, angles, pitch, offset) = match self {
            Self::Parallel(b) => (Beam::Parallel, &b.angles, b.pitch, b.offset),
            Self::Fan(b) => {
                let FanBeam { source_origin, origin_detector, curved, .. } = *b;
                (Beam::Fan { source_origin, origin_detector, curved }, &b.angles, b.pitch, b.offset)
            }
            Self::Cone(b, _) => {
                let FanBeam { source_origin, origin_detector, .. } = b.fan;
                let ConeBeam { row_pitch, row_offset, feed, .. } = *b;
                let beam = Beam::Cone { source_origin, origin_detector, row_pitch, row_offset, feed };
                (beam, &b.fan.angles, b.fan.pitch, b.fan.offset)
            }
        };
        CtGeometry { beam, angles: angles.clone(), pitch, offset }
    }

    /// The transform of volumes on this grid.
    ///
    /// # Errors
    /// Pixels that are not square, rays that miss the image.
    pub fn transform(&self, grid: &Grid, device: &Device) -> Result<Arc<dyn Projector>> {
        let (image, dtype) = (image_grid(grid)?, DType::F32);
        Ok(match self {
            Self::Parallel(beam) => Arc::new(RayTransform::new(&image, beam, dtype, device)?),
            Self::Fan(beam) => Arc::new(FanTransform::new(&image, &beam.vectors(), dtype, device)?),
            Self::Cone(beam, Sampling::Joseph) => {
                Arc::new(ConeTransform::new(&volume_grid(grid)?, &beam.vectors(), dtype, device)?)
            }
            Self::Cone(beam, Sampling::Footprint) => {
                Arc::new(FootprintTransform::new(&volume_grid(grid)?, beam, dtype, device)?)
            }
        })
    }

    /// Filtered back projection.
    pub fn filtered_back_projection(&self, fbp: &Fbp, grid: &Grid, y: &Tensor) -> Result<Tensor> {
        match self {
            Self::Parallel(beam) => {
                let a = RayTransform::new(&image_grid(grid)?, beam, DType::F32, &Device::Cpu)?;
                fbp.reconstruct(&a, y)
            }
            Self::Fan(beam) => fbp.reconstruct_fan(&image_grid(grid)?, beam, y),
            Self::Cone(beam, _) => fbp.reconstruct_cone(&volume_grid(grid)?, beam, y),
        }
    }
}

/// The voxels of a grid.
pub fn volume_grid(grid: &Grid) -> Result<VolumeGrid> {
    VolumeGrid::new(grid.shape()[0], image_grid(grid)?, grid.spacing()[0])
}
