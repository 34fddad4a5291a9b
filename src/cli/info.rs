//! `wellposed info`: what this build and machine offer, or what a file holds.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Array, CtScan, Grid, MriScan, Scan, Volume, read_array, read_volume};
use wellposed::metric;
use wellposed::tensor::Field;

use super::console;
use super::failure::Outcome;

/// Arguments of `wellposed info`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Volume, scan or k-space file, or a DICOM folder; without it, the build and the machine.
    file: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Machine {
    version: &'static str,
    target: String,
    threads: usize,
    simd: Vec<&'static str>,
    devices: Vec<String>,
    features: Vec<&'static str>,
}

impl Machine {
    fn this() -> Self {
        let enabled = [("openblas", cfg!(feature = "openblas")), ("cuda", cfg!(feature = "cuda"))];
        let mut devices = vec!["cpu".to_string()];
        devices.extend(wellposed::tensor::device::cards());
        Self {
            version: env!("CARGO_PKG_VERSION"),
            target: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            threads: rayon::current_num_threads(),
            simd: simd(),
            devices,
            features: enabled.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    found.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> Vec<&'static str> {
    Vec::new()
}

/// What a file holds.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Contents {
    Volume {
        #[serde(flatten)]
        place: Place,
        unit: &'static str,
        complex: bool,
        minimum: f64,
        maximum: f64,
    },
    /// Numbers whose axes nobody has named, such as k-space.
    Array { shape: Vec<usize>, complex: bool, minimum: f64, maximum: f64 },
    Ct {
        #[serde(flatten)]
        place: Place,
        beam: &'static str,
        views: usize,
        detectors: usize,
        detector_pitch_mm: f64,
        arc_degrees: f64,
        photons: Option<f64>,
        seed: Option<u64>,
    },
    Mri {
        #[serde(flatten)]
        place: Place,
        coils: usize,
        coil_maps: bool,
        sampled_percent: f64,
        noise: Option<f64>,
        seed: Option<u64>,
    },
}

/// Where the voxels of a volume, or of the volume to reconstruct, lie.
#[derive(Serialize)]
struct Place {
    shape: [usize; 3],
    spacing_mm: [f64; 3],
    orientation: String,
}

impl Place {
    fn of(grid: &Grid) -> Self {
        Self { shape: grid.shape(), spacing_mm: grid.spacing(), orientation: grid.orientation() }
    }
}

impl Contents {
    /// Reads a file: a scan, or else a volume.
    fn of(file: &Path) -> Outcome<Self> {
        match Scan::read(file) {
            Ok(Scan::Ct(scan)) => Ok(Self::of_ct(&scan)),
            Ok(Scan::Mri(scan)) => Self::of_mri(&scan),
            // Anything else may still be a volume; what reading that says is the better message.
            Err(Error::Format { .. } | Error::Io { .. }) => match read_volume(file) {
                Ok(volume) => Self::of_volume(&volume),
                Err(Error::Shape { .. }) => Self::of_array(&read_array(file, None)?),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Extrema of complex numbers are those of their parts.
    fn of_array(array: &Array) -> Outcome<Self> {
        let (minimum, maximum) = metric::extrema(&array.data)?;
        let complex = array.field == Field::Complex;
        Ok(Self::Array { shape: array.shape().to_vec(), complex, minimum, maximum })
    }

    fn of_volume(volume: &Volume) -> Outcome<Self> {
        let (minimum, maximum) = metric::extrema(volume.magnitude()?.data())?;
        Ok(Self::Volume {
            place: Place::of(volume.grid()),
            unit: volume.unit().symbol(),
            complex: volume.field() == Field::Complex,
            minimum,
            maximum,
        })
    }

    fn of_ct(scan: &CtScan) -> Self {
        let angles = &scan.geometry.angles;
        let step = if angles.len() > 1 {
            (angles[angles.len() - 1] - angles[0]) / (angles.len() - 1) as f64
        } else {
            0.0
        };
        Self::Ct {
            place: Place::of(&scan.target),
            beam: scan.geometry.beam.kind(),
            views: angles.len(),
            detectors: scan.projections.dims()[2],
            detector_pitch_mm: scan.geometry.pitch,
            arc_degrees: (step * angles.len() as f64).to_degrees(),
            photons: scan.photons,
            seed: scan.provenance.seed,
        }
    }

    fn of_mri(scan: &MriScan) -> Outcome<Self> {
        let sampled = scan.mask.mean_all()?.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        Ok(Self::Mri {
            place: Place::of(&scan.target),
            coils: scan.kspace.dims()[1],
            coil_maps: scan.coil_maps.is_some(),
            sampled_percent: 100.0 * sampled,
            noise: scan.noise,
            seed: scan.provenance.seed,
        })
    }
}

/// One line a field of a flat JSON object.
fn lines(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let shown = match value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => "unknown".into(),
            other => other.to_string(),
        };
        let _ = writeln!(text, "{:<18} {shown}", name.replace('_', " "));
    }
    text
}

fn describe(file: &Path, json: bool) -> Outcome {
    let contents = serde_json::to_value(Contents::of(file)?).map_err(|e| Error::format(file, e))?;
    if json { console::print_json(&contents) } else { console::print(&lines(&contents)) }
}

pub fn run(arguments: &Arguments) -> Outcome {
    if let Some(file) = &arguments.file {
        return describe(file, arguments.json);
    }
    let machine = Machine::this();
    if arguments.json {
        return console::print_json(&machine);
    }
    let list = |items: &[&str]| if items.is_empty() { "none".to_string() } else { items.join(", ") };
    console::print(&format!(
        "wellposed {}\ntarget    {}\nthreads   {}\nsimd      {}\ndevices   {}\nfeatures  {}\n",
        machine.version,
        machine.target,
        machine.threads,
        list(&machine.simd),
        machine.devices.join(", "),
        list(&machine.features),
    ))
}
