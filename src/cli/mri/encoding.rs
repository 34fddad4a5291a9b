//! From a scan to the operator that encodes its images: coil maps, virtual coils, grid or trajectory.

use candle_core::{DType, Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::MriScan;
use wellposed::linalg::LinearOperator;
use wellposed::operator::mri::{Encoding, NonCartesianSense, Sense};
use wellposed::operator::{Accuracy, Nufft};
use wellposed::reconstruct::mri::{Espirit, calibration_region, low_resolution_maps};
use wellposed::tensor::{Buffer, Space, Workspace, fft};

use super::method::Maps;

/// Below this many samples a side the centre has too few kernels for ESPIRiT to tell signal from noise.
const LEAST_FOR_ESPIRIT: usize = 14;

/// Either kind of encoding, with the data that belong to it.
#[derive(Clone, Debug)]
pub enum Encoded {
    Cartesian(Sense),
    Along(Box<NonCartesianSense>),
}

/// An operator and its data.
pub struct Measured {
    pub encoding: Encoded,
    pub data: Tensor,
}

/// How samples along a trajectory count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// By the area of k-space that they stand for: methods converge in few steps, and penalties keep their meaning.
    Area,
    /// All the same, as their noise asks for.
    Noise,
}

/// The encoding of `scan`, with coil maps as `maps` says, from a centre of `calibration` samples a side.
pub fn encode(scan: &MriScan, maps: Maps, calibration: usize, weighting: Weighting) -> Result<Measured> {
    let Some(trajectory) = &scan.trajectory else { return cartesian(scan, maps, calibration) };
    let [slices, height, width] = scan.target.shape();
    let coils = scan.kspace.dims()[1];
    let samples = scan.mask.elem_count();
    let space = Space::complex(&[height, width], DType::F32, &Device::Cpu);
    let fourier = Nufft::new(&space, &trajectory.reshape((samples, 2))?, Accuracy::default())?;
    let data = scan.kspace.reshape((slices, coils, samples, 2))?;
    let density = fourier.density_compensation(25)?;
    let maps = match (&scan.coil_maps, maps) {
        (Some(own), Maps::Auto) => own.clone(),
        _ if coils == 1 => single(height, width)?,
        _ => {
            let grid = gridded(&fourier, &density, &data)?;
            let side = calibration.min(height).min(width);
            estimate(&grid, maps, [side, side])?
        }
    };
    let weights = (weighting == Weighting::Area).then_some(&density);
    let encoding = NonCartesianSense::new(&maps, fourier, weights)?;
    let data = encoding.weigh(&data)?;
    Ok(Measured { encoding: Encoded::Along(Box::new(encoding)), data })
}

fn cartesian(scan: &MriScan, maps: Maps, calibration: usize) -> Result<Measured> {
    if scan.mask.rank() != 2 {
        let reason = "a scan whose slices are sampled differently; reconstruct slice by slice";
        return Err(Error::Unsupported(reason.into()));
    }
    let data = scan.kspace.clone();
    let encoding = match (&scan.coil_maps, maps) {
        (Some(own), Maps::Auto) => Sense::new(own, &scan.mask)?,
        _ if scan.kspace.dims()[1] == 1 => Sense::single_coil(&scan.mask, DType::F32, &Device::Cpu)?,
        _ => {
            let region = calibration_region(&scan.mask, calibration)?;
            Sense::new(&estimate(&scan.kspace, maps, region)?, &scan.mask)?
        }
    };
    Ok(Measured { encoding: Encoded::Cartesian(encoding), data })
}

/// Coil maps from the central `region` of Cartesian k-space.
fn estimate(kspace: &Tensor, maps: Maps, region: [usize; 2]) -> Result<Tensor> {
    let espirit = match maps {
        Maps::Auto => region.iter().all(|side| *side >= LEAST_FOR_ESPIRIT),
        Maps::Espirit => true,
        Maps::LowResolution => false,
    };
    if espirit {
        Ok(Espirit::default().maps(kspace, region)?.maps)
    } else {
        low_resolution_maps(kspace, region)
    }
}

/// One coil that sees everything alike.
fn single(height: usize, width: usize) -> Result<Tensor> {
    let one = Tensor::ones((1, height, width, 1), DType::F32, &Device::Cpu)?;
    Ok(Tensor::cat(&[&one, &one.zeros_like()?], 3)?)
}

/// Cartesian k-space of all coils by gridding with density compensation: good in its centre, where maps come from.
fn gridded(fourier: &Nufft, density: &Tensor, data: &Tensor) -> Result<Tensor> {
    let weighted = data.broadcast_mul(&density.reshape((density.elem_count(), 1))?)?;
    let shape = [&data.dims()[..2], fourier.domain().shape(), &[2]].concat();
    let mut images = Buffer::zeros(&shape, DType::F32, &Device::Cpu)?;
    fourier.adjoint_into(&weighted, &mut images, &mut Workspace::new())?;
    let mut kspace = Buffer::zeros(&shape, DType::F32, &Device::Cpu)?;
    fft::forward(images.tensor(), 2, &mut kspace)?;
    Ok(kspace.freeze())
}

impl Encoded {
    fn operator(&self) -> &dyn LinearOperator {
        match self {
            Self::Cartesian(encoding) => encoding,
            Self::Along(encoding) => &**encoding,
        }
    }
}

impl LinearOperator for Encoded {
    fn domain(&self) -> &Space {
        self.operator().domain()
    }
    fn range(&self) -> &Space {
        self.operator().range()
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator().apply_into(x, out, ws)
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator().adjoint_into(y, out, ws)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.operator().normal_into(x, out, ws)
    }
}

impl Encoding for Encoded {
    fn image_shape(&self) -> &[usize] {
        match self {
            Self::Cartesian(encoding) => encoding.image_shape(),
            Self::Along(encoding) => encoding.image_shape(),
        }
    }
    fn support(&self) -> Result<Tensor> {
        match self {
            Self::Cartesian(encoding) => encoding.support(),
            Self::Along(encoding) => encoding.support(),
        }
    }
    fn squared_norm_bound(&self) -> Result<f64> {
        match self {
            Self::Cartesian(encoding) => encoding.squared_norm_bound(),
            Self::Along(encoding) => encoding.squared_norm_bound(),
        }
    }
}
