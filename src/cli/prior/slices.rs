//! The slices of a folder of volumes, in a network's units.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Volume, read_volume};

use crate::cli::console;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::view::Window;

/// Endings of files that are a volume each; folders of other files are read as DICOM or pictures.
const VOLUMES: &[&str] = &[".nii", ".nii.gz", ".h5", ".hdf5", ".npy", ".npz", ".mat", ".cfl"];

/// Which way volumes are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Axis {
    /// Across the first axis of the file, the usual slices.
    #[default]
    Slices,
    /// Across the rows.
    Rows,
    /// Across the columns.
    Columns,
}

/// How volumes become images.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Cutting {
    /// Across which axis of the volumes to cut.
    #[arg(long, value_enum, default_value_t)]
    pub axis: Axis,
    /// Values LOW,HIGH at the ends of the network's range; else each volume's 0 to 99.9th percentile.
    #[arg(long, allow_hyphen_values = true, value_name = "LOW,HIGH")]
    pub window: Option<Window>,
}

/// The images of one subject, in the network's units.
#[derive(Debug)]
pub struct Subject {
    /// The file's name without its ending.
    pub name: String,
    /// [images, height, width].
    pub images: Tensor,
    /// Spacing of rows and of columns, in mm.
    pub spacing: [f64; 2],
}

/// The volumes in a file or folder, sorted: files with a volume's ending, DICOM folders, folders of pictures.
pub fn volumes(path: &Path) -> Outcome<Vec<PathBuf>> {
    let io = |e| Failure::Run(Error::io(path, e));
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(io)?;
    let mut entries = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io)?;
    entries.sort();
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|p| p.is_dir());
    let is_volume =
        |p: &&PathBuf| VOLUMES.iter().any(|end| p.to_string_lossy().to_lowercase().ends_with(end));
    let mut found: Vec<PathBuf> = files.iter().filter(is_volume).cloned().collect();
    if found.is_empty() && !files.is_empty() && folders.is_empty() {
        found.push(path.to_path_buf());
    }
    for folder in folders {
        found.extend(volumes(&folder)?);
    }
    Ok(found)
}

/// Reads volumes and cuts them; what can't be read is said and left out.
///
/// # Errors
/// No volume could be read.
pub fn read(paths: &[PathBuf], cutting: &Cutting, range: (f64, f64)) -> Outcome<Vec<Subject>> {
    let mut subjects = Vec::new();
    let mut reason = None;
    for path in paths {
        match read_volume(path).map_err(Failure::from).and_then(|v| cut(path, &v, cutting, range)) {
            Ok(subject) => subjects.push(subject),
            Err(failure) if paths.len() == 1 => return Err(failure),
            Err(failure) => {
                console::say(&format!("left out: {failure}"));
                reason = Some(failure);
            }
        }
    }
    match (subjects.is_empty(), reason) {
        (false, _) => Ok(subjects),
        (true, Some(failure)) => Err(failure),
        (true, None) => Err(Failure::Usage("no volumes found there".into())),
    }
}

fn cut(path: &Path, volume: &Volume, cutting: &Cutting, range: (f64, f64)) -> Outcome<Subject> {
    let volume = volume.magnitude()?;
    let [slice, row, column] = volume.grid().spacing();
    let (axes, spacing) = match cutting.axis {
        Axis::Slices => ((0, 1, 2), [row, column]),
        Axis::Rows => ((1, 0, 2), [slice, column]),
        Axis::Columns => ((2, 0, 1), [slice, row]),
    };
    let images = volume.data().permute(axes)?.contiguous()?;
    let Window { low, high } = match cutting.window {
        Some(window) => window,
        None => Window { low: 0.0, high: percentile(&images)? },
    };
    let scale = (range.1 - range.0) / (high - low);
    let images = images.affine(scale, range.0 - low * scale)?.clamp(range.0, range.1)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.split('.').next().unwrap_or_default().to_string();
    Ok(Subject { name, images, spacing })
}

/// The 99.9th percentile, or 1 where it is not positive.
fn percentile(images: &Tensor) -> Outcome<f64> {
    let mut values: Vec<f32> = images.flatten_all()?.to_vec1()?;
    let place = (values.len() - 1) * 999 / 1000;
    let (_, value, _) = values.select_nth_unstable_by(place, f32::total_cmp);
    Ok(if *value > 0.0 { f64::from(*value) } else { 1.0 })
}

/// `count` images spread evenly over the subject's.
pub fn spread(subject: &Subject, count: usize) -> Outcome<Vec<Tensor>> {
    let all = subject.images.dims()[0];
    let count = count.clamp(1, all);
    let pick = |j: usize| subject.images.get((2 * j + 1) * all / (2 * count));
    Ok((0..count).map(pick).collect::<Result<_, _>>()?)
}
