//! The files of the fastMRI challenge: k-space in, reconstructions out
//! (Zbontar et al., arXiv:1811.08839, section 4).

use std::path::Path;

use hdf5_pure::{AttrValue, FileBuilder};

use crate::error::{Error, Result};
use crate::io::hdf5::{self, Reader};
use crate::io::ismrmrd::tag;
use crate::io::scan::acquisition::normalised;
use crate::io::{Grid, MriScan, Provenance, Volume};
use crate::tensor::{Field, Real};

/// Whether an HDF5 file is one of fastMRI.
pub(crate) fn is_fastmri(reader: &Reader) -> bool {
    reader.has("kspace") && reader.has("ismrmrd_header")
}

/// Reads [slice, (coil,) ky, kx] with its mask; without one, what is zero in all coils counts as not sampled.
pub(crate) fn read(reader: &Reader) -> Result<MriScan> {
    let path = reader.path();
    let kspace = reader.typed("kspace", Field::Complex, &[3, 4])?;
    let kspace = if kspace.rank() == 4 { kspace.unsqueeze(1)? } else { kspace };
    let &[slices, coils, height, width, 2] = kspace.dims() else {
        return Err(Error::shape("kspace", "[slice, coil, ky, kx]", kspace.dims()));
    };
    let (kspace, scale) = normalised(path, &kspace)?;
    let mask = if reader.has("mask") {
        let columns = reader.numbers("mask")?;
        if columns.len() != width {
            return Err(reader.error(format!("mask: expected {width} columns, found {}", columns.len())));
        }
        (0..height).flat_map(|_| columns.iter().map(|&c| if c != 0.0 { 1.0 } else { 0.0 })).collect()
    } else {
        sampled(&f32::to_vec(&kspace)?, slices * coils, height * width)
    };
    let xml = reader.text("ismrmrd_header")?;
    let recon = tag(&xml, "reconSpace");
    let size = |block: &str, axis: &str| {
        recon
            .and_then(|r| tag(r, block))
            .and_then(|b| tag(b, axis))
            .and_then(|t| t.trim().parse::<f64>().ok())
    };
    // The picture's rows run along the readout, k-space's first axis here.
    let pixels = size("matrixSize", "x").zip(size("matrixSize", "y"));
    let crop = pixels
        .map(|(x, y)| [x as usize, y as usize])
        .filter(|c| c[0].min(c[1]) > 0 && c[0] <= height && c[1] <= width);
    let step = |axis: &str| {
        let mm = size("fieldOfView_mm", axis).zip(size("matrixSize", axis)).map(|(field, n)| field / n);
        mm.filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0)
    };
    let scan = MriScan {
        kspace,
        mask: f32::tensor(mask, &[height, width])?,
        trajectory: None,
        coil_maps: None,
        noise: None,
        noise_covariance: None,
        scale,
        crop,
        target: Grid::centred([slices, height, width], [step("z"), step("x"), step("y")])?,
        provenance: Provenance::new(None).with("source", path.display().to_string()),
    };
    scan.validate(&format!("{}: ", path.display()))?;
    Ok(scan)
}

/// 1 where any of the `items` is not zero.
fn sampled(values: &[f32], items: usize, pixels: usize) -> Vec<f32> {
    let mut mask = vec![0f32; pixels];
    for item in values.chunks_exact(2 * pixels).take(items) {
        for (m, pair) in mask.iter_mut().zip(item.chunks_exact(2)) {
            if pair != [0.0, 0.0] {
                *m = 1.0;
            }
        }
    }
    mask
}

/// Writes a volume as the challenge wants it submitted: HDF5 with the dataset `reconstruction`
/// [slice, height, width], f32.
///
/// # Errors
/// [`Error::Shape`] for complex voxels; [`Error::Io`].
pub fn write_fastmri(volume: &Volume, path: impl AsRef<Path>) -> Result<()> {
    if volume.field() == Field::Complex {
        return Err(Error::shape("fastMRI", "real voxels; take the magnitude", volume.data().dims()));
    }
    let mut file = FileBuilder::new();
    hdf5::put(&mut file, "reconstruction", volume.data(), Field::Real, "slice, height, width")?;
    file.set_attr("software", AttrValue::String(concat!("wellposed ", env!("CARGO_PKG_VERSION")).into()));
    hdf5::save(file, path.as_ref())
}
