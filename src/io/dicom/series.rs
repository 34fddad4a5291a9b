//! Slices put in order: one series, sorted by place, without gaps.

use std::collections::BTreeMap;
use std::path::Path;

use nalgebra::{Matrix4, Vector3};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::io::dicom::{Header, pixels};
use crate::io::{Unit, Volume};
use crate::tensor::Real;

/// Distances of neighbouring slices may differ by this part of their median.
const TOLERANCE: f64 = 0.02;

/// The slices of one series, sorted along the normal of the slices.
pub(super) struct Series {
    slices: Vec<Header>,
}

impl Series {
    /// The series that is wanted, or the only one.
    pub(super) fn choose(path: &Path, headers: Vec<Header>, wanted: Option<&str>) -> Result<Self> {
        let mut groups: BTreeMap<String, Vec<Header>> = BTreeMap::new();
        for header in headers {
            groups.entry(header.uid.clone()).or_default().push(header);
        }
        let list = || {
            let line = |(at, g): (usize, &Vec<Header>)| {
                let (h, n) = (&g[0], g.len());
                format!(
                    "{}) {} \"{}\" (number {}), {n} slices, {}",
                    at + 1,
                    h.modality,
                    h.description,
                    h.number,
                    h.uid
                )
            };
            groups.values().enumerate().map(line).collect::<Vec<_>>().join("; ")
        };
        let matches = |h: &Header| {
            wanted.is_none_or(|w| {
                h.uid == w
                    || h.number == w
                    || (!w.is_empty() && h.description.to_lowercase().contains(&w.to_lowercase()))
            })
        };
        let mut fitting: Vec<&Vec<Header>> = groups.values().filter(|g| matches(&g[0])).collect();
        match (fitting.len(), wanted) {
            (1, _) => Self::sorted(path, fitting.remove(0).clone()),
            (_, None) if groups.is_empty() => Err(Error::format(path, "no DICOM image in this folder")),
            (_, None) => {
                let n = groups.len();
                Err(Error::format(path, format!("holds {n} series, choose one: {}", list())))
            }
            (n, Some(w)) => {
                Err(Error::format(path, format!("series \"{w}\" fits {n} of the series: {}", list())))
            }
        }
    }

    /// Checks that the slices are alike and sorts them by their place along the normal.
    fn sorted(path: &Path, mut slices: Vec<Header>) -> Result<Self> {
        let first = slices[0].clone();
        let name = |h: &Header| h.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let close = |a: &[f64], b: &[f64], within: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= within);
        for h in &slices {
            let same = (h.rows, h.columns) == (first.rows, first.columns)
                && close(&h.orientation, &first.orientation, 1e-3)
                && close(&h.spacing, &first.spacing, 1e-4 * first.spacing[0]);
            if !same {
                let reason = format!(
                    "{} and {} of one series differ in size, orientation or pixel spacing: {}×{} against {}×{}",
                    name(&first),
                    name(h),
                    first.rows,
                    first.columns,
                    h.rows,
                    h.columns
                );
                return Err(Error::format(path, reason));
            }
        }
        let normal = first.normal();
        if !(normal.norm() - 1.0).abs().le(&1e-2) {
            let reason = format!(
                "ImageOrientationPatient {:?} is no pair of perpendicular directions",
                first.orientation
            );
            return Err(Error::format(&first.file, reason));
        }
        let place = |h: &Header| normal.dot(&Vector3::from(h.position));
        slices.sort_by(|a, b| place(a).total_cmp(&place(b)));
        let mut steps: Vec<f64> = slices.windows(2).map(|w| place(&w[1]) - place(&w[0])).collect();
        for (pair, &step) in slices.windows(2).zip(&steps) {
            if step < 1e-3 {
                let reason = format!(
                    "{} and {} lie at the same place, {:.3} mm",
                    name(&pair[0]),
                    name(&pair[1]),
                    place(&pair[0])
                );
                return Err(Error::format(path, reason));
            }
        }
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(first.thickness);
        for pair in slices.windows(2) {
            let (from, to) = (place(&pair[0]), place(&pair[1]));
            if ((to - from) / usual - 1.0).abs() > TOLERANCE {
                let missing = ((to - from) / usual).round() - 1.0;
                let what = match missing {
                    n if n >= 1.0 => format!("{n} missing slices"),
                    _ => "an irregular step".to_string(),
                };
                let reason = format!(
                    "{what} between {from:.3} mm ({}) and {to:.3} mm ({}): the usual step is {usual:.3} mm",
                    name(&pair[0]),
                    name(&pair[1])
                );
                return Err(Error::format(path, reason));
            }
        }
        Ok(Self { slices })
    }

    /// Decodes the pixels.
    pub(super) fn volume(self, path: &Path) -> Result<Volume> {
        let first = &self.slices[0];
        let (rows, columns) = (first.rows, first.columns);
        let slices = self
            .slices
            .par_iter()
            .map(|h| pixels::read(&h.file, rows, columns))
            .collect::<Result<Vec<_>>>()?;
        let data = f32::tensor(slices.concat(), &[self.slices.len(), rows, columns])?;
        let unit = match (&*first.modality, Unit::from_symbol(&first.unit)) {
            ("CT", Some(Unit::PerMillimetre)) => Unit::PerMillimetre,
            ("CT", _) => Unit::Hounsfield,
            _ => Unit::Arbitrary,
        };
        Volume::new(data, self.affine(), unit).map_err(|e| crate::io::in_file(path, e))
    }

    /// Column, row, slice → RAS mm. The step between slices is that of their positions, so a tilted gantry
    /// gives a sheared grid.
    fn affine(&self) -> Matrix4<f64> {
        let (first, last) = (&self.slices[0], &self.slices[self.slices.len() - 1]);
        let [along_row, along_column] = first.directions();
        let origin = Vector3::from(first.position);
        let step = match self.slices.len() {
            1 => first.normal() * first.thickness,
            n => (Vector3::from(last.position) - origin) / (n - 1) as f64,
        };
        let columns = [along_row * first.spacing[1], along_column * first.spacing[0], step, origin];
        let mut affine = Matrix4::identity();
        for (axis, column) in columns.iter().enumerate() {
            // LPS → RAS.
            (0..3).for_each(|row| affine[(row, axis)] = if row < 2 { -column[row] } else { column[row] });
        }
        affine
    }
}

impl Header {
    /// Directions of growing columns and of growing rows.
    fn directions(&self) -> [Vector3<f64>; 2] {
        let [a, b, c, d, e, f] = self.orientation;
        [Vector3::new(a, b, c), Vector3::new(d, e, f)]
    }

    fn normal(&self) -> Vector3<f64> {
        let [along_row, along_column] = self.directions();
        along_row.cross(&along_column)
    }
}
