//! Coils before reconstruction: noise made white where it was measured, and many coils made few.

use clap::{Args, ValueEnum};
use ndarray::Array2;
use num_complex::Complex64;
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::MriScan;
use wellposed::reconstruct::mri::{compress_coils, compress_coils_along, prewhiten};
use wellposed::tensor::{Real, as_complex};

use crate::cli::console;
use crate::cli::failure::{Failure, Outcome};

/// How virtual coils are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// One set for all of k-space, by singular values.
    Svd,
    /// A set for each position along the fully sampled readout: fewer coils hold as much.
    Geometric,
}

/// Options for receive coils.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct Coils {
    /// Combine the coils to this many virtual ones [default: all coils as they are].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    virtual_coils: Option<u32>,
    /// How virtual coils are found.
    #[arg(long, value_enum, default_value_t = Compression::Svd, value_name = "HOW")]
    compression: Compression,
}

impl Coils {
    /// The scan with white noise, where its covariance is known, and with virtual coils, where they are asked for.
    ///
    /// # Errors
    /// [`Failure::Usage`] for more virtual coils than there are, or a scan with maps of its own.
    pub fn prepare(self, scan: MriScan) -> Outcome<MriScan> {
        let scan = whiten(scan)?;
        let Some(count) = self.virtual_coils else { return Ok(scan) };
        if scan.coil_maps.is_some() {
            let reason = "the scan has coil maps of its own, which belong to its coils";
            return Err(Failure::usage("--virtual-coils", count, reason));
        }
        let coils = scan.kspace.dims()[1];
        if count as usize > coils {
            return Err(Failure::usage("--virtual-coils", count, &format!("the scan has {coils} coils")));
        }
        let compressed = match (self.compression, readout(&scan)?) {
            (Compression::Svd, _) => compress_coils(&scan.kspace, count as usize)?,
            (Compression::Geometric, Some(axis)) => compress_coils_along(&scan.kspace, count as usize, axis)?,
            (Compression::Geometric, None) => {
                let reason = "needs whole lines of k-space along one axis; take svd";
                return Err(Failure::usage("--compression", "geometric", reason));
            }
        };
        console::say(&format!("{count} virtual coils hold {:.2} % of the energy.", 100.0 * compressed.kept));
        Ok(MriScan { kspace: compressed.kspace, noise_covariance: None, ..scan })
    }
}

/// White noise of the deviation that the scan states.
fn whiten(scan: MriScan) -> Outcome<MriScan> {
    let (Some(covariance), Some(noise), None) = (&scan.noise_covariance, scan.noise, &scan.coil_maps) else {
        return Ok(scan);
    };
    let values = f64::to_vec(covariance)?;
    let coils = covariance.dims()[0];
    let matrix: Array2<Complex64> = Array2::from_shape_vec((coils, coils), as_complex(&values).to_vec())
        .map_err(|e| Error::Unsupported(e.to_string()))?;
    let white = match prewhiten(&scan.kspace, &matrix) {
        Ok(white) => white,
        Err(Error::NotPositiveDefinite { .. }) => {
            console::say("The noise scan has a coil without noise; the noise isn't made white.");
            return Ok(scan);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(MriScan { kspace: (white * noise)?, noise_covariance: None, ..scan })
}

/// The axis of k-space along which all lines are whole: 0 for ky, 1 for kx.
fn readout(scan: &MriScan) -> Outcome<Option<usize>> {
    if scan.trajectory.is_some() || scan.mask.rank() != 2 {
        return Ok(None);
    }
    let (height, width) = scan.mask.dims2()?;
    let mask = f64::to_vec(&scan.mask)?;
    let along_x = (0..height * width).all(|i| mask[i] == mask[i / width * width]);
    let along_y = (0..height * width).all(|i| mask[i] == mask[i % width]);
    Ok(if along_x { Some(1) } else { along_y.then_some(0) })
}
