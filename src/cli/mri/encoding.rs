//! From a scan to the operator that encodes its images: coil maps, virtual coils, grid or trajectory.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use wellposed::error::{Error, Result};
use wellposed::io::MriScan;
use wellposed::linalg::LinearOperator;
use wellposed::operator::mri::{Encoding, NonCartesianSense, OffResonance, Sense};
use wellposed::operator::{Accuracy, Nufft};
use wellposed::reconstruct::mri::{
    Espirit, JointMaps, Walsh, WaveletSense, calibration_region, low_resolution_maps, volume_maps,
};
use wellposed::tensor::{Buffer, Space, Workspace, fft};

use super::method::Maps;
use super::volumetric;
use crate::cli::progress::Progress;

/// Below this many samples a side the centre has too few pieces for ESPIRiT, however small.
const LEAST_FOR_ESPIRIT: usize = 12;

/// Either kind of encoding, with the data that belong to it.
#[derive(Clone, Debug)]
pub enum Encoded {
    Cartesian(Sense),
    Along(Box<NonCartesianSense>),
    OffResonance(Box<OffResonance<Encoded>>),
}

/// An operator and its data, and the coil maps in it.
pub struct Measured {
    pub encoding: Encoded,
    pub data: Tensor,
    pub maps: Tensor,
}

/// Phases off by less than this don't show.
const PHASE_TOLERANCE: f64 = 1e-3;

impl Measured {
    /// The same data, encoded in a field that is off by `field` Hz [slice, y, x]; a readout takes `duration` seconds, along
    /// kx or along an arm of the trajectory.
    pub fn off_resonance(self, scan: &MriScan, field: &Tensor, duration: f64) -> Result<Self> {
        if volumetric::is_volumetric(scan) {
            let reason = "a field map for a scan in three dimensions, whose readout is transformed already";
            return Err(Error::Unsupported(reason.into()));
        }
        let shape = scan.target.shape();
        let one = [&[1], &shape[1..]].concat();
        if field.dims() != shape && field.dims() != one {
            return Err(Error::shape(
                "field map",
                format!("{shape:?} or {one:?}, as the image"),
                field.dims(),
            ));
        }
        let flat = field.dims() == one && !scan.along_volume();
        let field = if flat { field.get(0)? } else { field.clone() };
        let samples = scan.kspace.dims()[3];
        let time = |i: usize| duration * (i % samples) as f64 / samples as f64;
        // Readouts on a grid are all alike; along a trajectory their samples follow one another.
        let count = if scan.trajectory.is_some() { scan.mask.elem_count() } else { samples };
        let times = Tensor::from_vec((0..count).map(time).collect::<Vec<_>>(), count, &Device::Cpu)?;
        let encoding = OffResonance::new(self.encoding, &field, &times, PHASE_TOLERANCE)?;
        Ok(Self { encoding: Encoded::OffResonance(Box::new(encoding)), ..self })
    }
}

/// How samples along a trajectory count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// By the area of k-space that they stand for: methods converge in few steps, and penalties keep their meaning.
    Area,
    /// All the same, as their noise asks for.
    Noise,
}

/// How coil maps come about.
#[derive(Clone, Copy, Debug)]
pub struct Coils {
    pub maps: Maps,
    /// Samples a side of the centre that they are estimated from.
    pub calibration: usize,
    /// How often they are refined with all samples.
    pub refinements: usize,
}

/// The encoding of `scan` on `device`.
pub fn encode(scan: &MriScan, coils: Coils, weighting: Weighting, device: &Device) -> Result<Measured> {
    let Some(trajectory) = &scan.trajectory else { return cartesian(scan, coils, device) };
    let Coils { maps, calibration, refinements } = coils;
    if refinements > 0 {
        let reason = "--refine-maps for a scan along a trajectory; it takes Cartesian k-space";
        return Err(Error::Unsupported(reason.into()));
    }
    let whole = scan.target.shape();
    let [slices, coils, ..] = *scan.kspace.dims() else { unreachable!("k-space was checked") };
    let samples = scan.mask.elem_count();
    let volume = scan.along_volume();
    let shape = if volume { &whole[..] } else { &whole[1..] };
    let points = trajectory.reshape((samples, shape.len()))?;
    let transform = |device: &Device| {
        Nufft::new(&Space::complex(shape, DType::F32, device), &points, Accuracy::default())
    };
    let fourier = transform(&Device::Cpu)?;
    let batch = if volume { &[][..] } else { &[slices][..] };
    let data = scan.kspace.reshape([batch, &[coils, samples, 2]].concat())?;
    let density = fourier.density_compensation(25)?;
    let maps = match (&scan.coil_maps, maps) {
        (Some(own), Maps::Auto) => own.clone(),
        _ if coils == 1 => single(shape)?,
        _ => {
            let grid = gridded(&fourier, &density, &data)?;
            let side = shape.iter().fold(calibration, |side, n| side.min(*n));
            match volume {
                true => volume_maps(&grid, side, |slices| estimate(slices, maps, [side, side], None))?,
                false => estimate(&grid, maps, [side, side], None)?,
            }
        }
    };
    let weights = (weighting == Weighting::Area).then_some(&density);
    let fourier = if device.is_cpu() { fourier } else { transform(device)? };
    let encoding = NonCartesianSense::new(&maps, fourier, weights)?;
    let data = encoding.weigh(&data.to_device(device)?)?;
    Ok(Measured { encoding: Encoded::Along(Box::new(encoding)), data, maps })
}

fn cartesian(scan: &MriScan, coils: Coils, device: &Device) -> Result<Measured> {
    let Coils { maps, calibration, refinements } = coils;
    if scan.mask.rank() != 2 {
        let reason = "a scan whose slices are sampled differently; reconstruct slice by slice";
        return Err(Error::Unsupported(reason.into()));
    }
    let (mut maps, refinements) = match (&scan.coil_maps, maps) {
        (Some(own), Maps::Auto) => (own.clone(), refinements),
        _ if scan.kspace.dims()[1] == 1 => (single(scan.mask.dims())?, 0),
        _ => {
            let region = calibration_region(&scan.mask, calibration)?;
            (estimate(&scan.kspace, maps, region, scan.noise)?, refinements)
        }
    };
    for pass in 1..=refinements {
        maps = refined(&maps, scan, &format!("maps {pass}/{refinements}"))?;
    }
    let encoding = Sense::new(&maps.to_device(device)?, &scan.mask)?;
    Ok(Measured { encoding: Encoded::Cartesian(encoding), data: scan.kspace.to_device(device)?, maps })
}

/// The weight of wavelets for images that maps are refined by: a third of what is best for images to look at.
const FOR_MAPS: f64 = 0.001;

/// Maps that agree with all samples, given the image that wavelets make with `maps`.
fn refined(maps: &Tensor, scan: &MriScan, name: &str) -> Result<Tensor> {
    let encoding = Sense::new(maps, &scan.mask)?;
    let mut progress = Progress::new(name);
    let wavelet = WaveletSense { lambda: FOR_MAPS, ..WaveletSense::default() };
    let image = wavelet.reconstruct(&encoding, &scan.kspace, &mut progress)?.value;
    progress.finish();
    // Maps that all slices share become maps of each.
    let [slices, ..] = *scan.kspace.dims() else { unreachable!("k-space was checked") };
    let of_slices = [&[slices], &maps.dims()[maps.rank() - 4..]].concat();
    let maps = maps.broadcast_as(of_slices)?.contiguous()?;
    let sampling = Arc::new(Sense::single_coil(&scan.mask, DType::F32, &Device::Cpu)?);
    JointMaps::default().maps(&maps, &image, sampling, &scan.kspace)
}

/// Coil maps from the central `region` of Cartesian k-space with this `noise`, where it is known.
fn estimate(kspace: &Tensor, maps: Maps, region: [usize; 2], noise: Option<f64>) -> Result<Tensor> {
    let espirit = Espirit { noise, ..Espirit::suited_to(region) };
    match maps {
        Maps::Auto if region.iter().all(|side| *side >= LEAST_FOR_ESPIRIT) => {
            Ok(espirit.maps(kspace, region)?.maps)
        }
        Maps::Espirit => Ok(espirit.maps(kspace, region)?.maps),
        Maps::Auto | Maps::LowResolution => low_resolution_maps(kspace, region),
        Maps::Walsh => Walsh::default().maps(kspace, region),
    }
}

/// One coil that sees everything alike.
fn single(shape: &[usize]) -> Result<Tensor> {
    let one = Tensor::ones([&[1], shape, &[1]].concat(), DType::F32, &Device::Cpu)?;
    Ok(Tensor::cat(&[&one, &one.zeros_like()?], shape.len() + 1)?)
}

/// Cartesian k-space of all coils by gridding with density compensation: good in its centre, where maps come from.
fn gridded(fourier: &Nufft, density: &Tensor, data: &Tensor) -> Result<Tensor> {
    let weighted = data.broadcast_mul(&density.reshape((density.elem_count(), 1))?)?;
    let shape = [&data.dims()[..data.rank() - 2], fourier.domain().shape(), &[2]].concat();
    let mut images = Buffer::zeros(&shape, DType::F32, &Device::Cpu)?;
    fourier.adjoint_into(&weighted, &mut images, &mut Workspace::new())?;
    let mut kspace = Buffer::zeros(&shape, DType::F32, &Device::Cpu)?;
    fft::forward(images.tensor(), fourier.domain().shape().len(), &mut kspace)?;
    Ok(kspace.freeze())
}

impl Encoded {
    fn operator(&self) -> &dyn LinearOperator {
        match self {
            Self::Cartesian(encoding) => encoding,
            Self::Along(encoding) => &**encoding,
            Self::OffResonance(encoding) => &**encoding,
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
            Self::OffResonance(encoding) => encoding.image_shape(),
        }
    }
    fn support(&self) -> Result<Tensor> {
        match self {
            Self::Cartesian(encoding) => encoding.support(),
            Self::Along(encoding) => encoding.support(),
            Self::OffResonance(encoding) => encoding.support(),
        }
    }
    fn squared_norm_bound(&self) -> Result<f64> {
        match self {
            Self::Cartesian(encoding) => encoding.squared_norm_bound(),
            Self::Along(encoding) => encoding.squared_norm_bound(),
            Self::OffResonance(encoding) => encoding.squared_norm_bound(),
        }
    }
    fn noise_energy(&self) -> Result<f64> {
        match self {
            Self::Cartesian(encoding) => encoding.noise_energy(),
            Self::Along(encoding) => encoding.noise_energy(),
            Self::OffResonance(encoding) => encoding.noise_energy(),
        }
    }
}
