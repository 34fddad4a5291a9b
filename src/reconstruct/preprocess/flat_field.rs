//! Flat-field correction and the logarithm.

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::tensor::{Buffer, Kernel, Real, launch, vector};

/// Line integrals −ln((N − D)/(F − D)) from counts N, the open beam F and the dark current D, both averaged over their
/// exposures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlatField {
    /// Least transmission that is believed, in (0, 1): rays that let through less (starved of photons, below the dark
    /// current) count as this much. 10⁻⁴ is a line integral of 9.2.
    pub least: f64,
}

impl Default for FlatField {
    fn default() -> Self {
        Self { least: 1e-4 }
    }
}

/// What [`FlatField::correct`] gives.
#[derive(Clone, Debug)]
pub struct LineIntegrals {
    /// ∫ μ dl [row, view, column].
    pub values: Tensor,
    /// Rays at the least transmission.
    pub starved: usize,
    /// Detector pixels that see no open beam; they hold the mean of their neighbours in the row.
    pub dead: usize,
}

impl FlatField {
    /// Corrects counts [view, row, column]; `flats` and `darks` are [exposure, row, column]. Without darks D = 0, without
    /// flats F = 1 + D: then the counts are transmissions.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use wellposed::reconstruct::preprocess::FlatField;
    /// let device = Device::Cpu;
    /// let counts = Tensor::new(&[[[110f64, 1010.0, 10.0]]], &device)?;
    /// let (flats, darks) = (Tensor::full(1010f64, (2, 1, 3), &device)?, Tensor::full(10f64, (1, 1, 3), &device)?);
    /// let p = FlatField::default().correct(&counts, Some(&flats), Some(&darks))?;
    /// let values = p.values.flatten_all()?.to_vec1::<f64>()?;
    /// assert!((values[0] - 10f64.ln()).abs() < 1e-12 && values[1] == 0.0 && p.starved == 1);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] where the least transmission is out of range or all pixels of a row are dead;
    /// [`Error::Shape`] where the parts don't fit each other; [`Error::NotFinite`].
    pub fn correct(
        &self,
        counts: &Tensor,
        flats: Option<&Tensor>,
        darks: Option<&Tensor>,
    ) -> Result<LineIntegrals> {
        if !(self.least > 0.0 && self.least < 1.0) {
            return Err(Error::parameter("least transmission", self.least, "must be in (0, 1)"));
        }
        let &[views, rows, columns] = counts.dims() else {
            return Err(Error::shape("counts", "[view, row, column]", counts.dims()));
        };
        if views * rows * columns == 0 {
            return Err(Error::shape("counts", "at least one view, row and column", counts.dims()));
        }
        vector::require_finite("counts", counts)?;
        let dark = mean("darks", darks, rows, columns)?.unwrap_or(vec![0.0; rows * columns]);
        let open = match mean("flats", flats, rows, columns)? {
            Some(flat) => flat.iter().zip(&dark).map(|(f, d)| f - d).collect(),
            None => vec![1.0; rows * columns],
        };
        let donors = donors(&open, columns)?;
        let mut out = Buffer::zeros(&[rows, views, columns], counts.dtype(), counts.device())?;
        let kernel =
            Correct { shape: [views, rows, columns], dark, open, donors: &donors, least: self.least };
        let starved = launch(kernel, &[counts], &mut [&mut out])?;
        Ok(LineIntegrals { values: out.freeze(), starved, dead: donors.len() })
    }
}

/// The mean over the exposures, row by row.
fn mean(name: &str, x: Option<&Tensor>, rows: usize, columns: usize) -> Result<Option<Vec<f64>>> {
    let Some(x) = x else { return Ok(None) };
    match *x.dims() {
        [exposures, r, c] if exposures > 0 && (r, c) == (rows, columns) => {}
        ref found => return Err(Error::shape(name, format!("[exposure, {rows}, {columns}]"), found)),
    }
    vector::require_finite(name, x)?;
    let exposures = x.dims()[0];
    let mut sum = vec![0.0; rows * columns];
    for exposure in f64::to_vec(x)?.chunks(rows * columns) {
        sum.iter_mut().zip(exposure).for_each(|(s, x)| *s += x / exposures as f64);
    }
    Ok(Some(sum))
}

/// A dead pixel and the living ones next to it in its row, by index.
struct Donor {
    pixel: usize,
    neighbours: [usize; 2],
}

fn donors(open: &[f64], columns: usize) -> Result<Vec<Donor>> {
    let mut donors = Vec::new();
    for (row, line) in open.chunks(columns).enumerate() {
        let living = |column: &usize| line[*column] > 0.0;
        for column in (0..columns).filter(|column| !living(column)) {
            let (left, right) = ((0..column).rev().find(living), (column + 1..columns).find(living));
            let Some(one) = left.or(right) else {
                let reason = "no pixel of this row is brighter in the flats than in the darks";
                return Err(Error::parameter("flats", format!("row {row}"), reason));
            };
            let at = |c: Option<usize>| row * columns + c.unwrap_or(one);
            donors.push(Donor { pixel: row * columns + column, neighbours: [at(left), at(right)] });
        }
    }
    Ok(donors)
}

struct Correct<'a> {
    shape: [usize; 3],
    dark: Vec<f64>,
    open: Vec<f64>,
    donors: &'a [Donor],
    least: f64,
}

impl Kernel for Correct<'_> {
    type Output = usize;
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<usize> {
        let ([views, rows, columns], counts) = (self.shape, inputs[0]);
        let line = |row: usize, view: usize, out: &mut [T]| {
            let pixels = row * columns..(row + 1) * columns;
            let counts = &counts[(view * rows + row) * columns..][..columns];
            let mut starved = 0;
            for ((out, n), pixel) in out.iter_mut().zip(counts).zip(pixels.clone()) {
                let transmission = (n.as_f64() - self.dark[pixel]) / self.open[pixel];
                starved += usize::from(self.open[pixel] > 0.0 && transmission < self.least);
                *out = T::of(-transmission.max(self.least).ln());
            }
            for donor in self.donors.iter().filter(|donor| pixels.contains(&donor.pixel)) {
                let [left, right] = donor.neighbours.map(|pixel| out[pixel - pixels.start]);
                out[donor.pixel - pixels.start] = (left + right) / T::of(2.0);
            }
            starved
        };
        let lines = outputs[0].par_chunks_mut(columns).enumerate();
        Ok(lines.map(|(index, out)| line(index / views, index % views, out)).sum())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn dead_pixels_take_their_neighbours_values() {
        let device = Device::Cpu;
        let counts = Tensor::new(&[[[50f64, 7.0, 25.0], [0.0, 3.0, 100.0]]], &device).unwrap();
        let flats = Tensor::new(&[[[100f64, 0.0, 100.0], [0.0, 0.0, 100.0]]], &device).unwrap();
        let p = FlatField::default().correct(&counts, Some(&flats), None).unwrap();
        assert_eq!((p.values.dims(), p.dead, p.starved), (&[2, 1, 3][..], 3, 0));
        let values = p.values.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!((values[1] - (2f64.ln() + 4f64.ln()) / 2.0).abs() < 1e-12);
        assert_eq!(values[3..], [0.0; 3]);
        let dark = FlatField::default().correct(&counts, Some(&flats.zeros_like().unwrap()), None);
        assert!(dark.unwrap_err().to_string().contains("row 0"));
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        let zeros = |shape: (usize, usize, usize)| {
            Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap()
        };
        let text = |r: Result<LineIntegrals>| r.unwrap_err().to_string();
        let (counts, field) = (zeros((2, 3, 4)), FlatField::default());
        assert!(text(field.correct(&counts, Some(&zeros((1, 4, 3))), None)).contains("flats"));
        assert!(text(field.correct(&counts, None, Some(&zeros((0, 3, 4))))).contains("darks"));
        assert!(text(FlatField { least: 0.0 }.correct(&counts, None, None)).contains("least transmission"));
        let nan = (zeros((2, 3, 4)) / 0.0).unwrap();
        assert!(matches!(field.correct(&nan, None, None), Err(Error::NotFinite { .. })));
    }
}
