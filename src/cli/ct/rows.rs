//! Scans that are read some detector rows at a time.

use std::ops::Range;

use wellposed::io::{CtGeometry, CtScan, CtScanReader, Grid, Unit};

use crate::cli::failure::Outcome;

/// Where projections come from, whole or in parts.
pub trait Rows {
    /// Detector rows, views and columns of the projections.
    fn shape(&self) -> [usize; 3];

    /// Beam, angles and detector.
    fn geometry(&self) -> &CtGeometry;

    /// Grid of the volume.
    fn target(&self) -> &Grid;

    /// Unit of the volume.
    fn unit(&self) -> Unit;

    /// Whether photon counts come with the projections.
    fn has_weights(&self) -> bool;

    /// Bytes that reading takes besides those of what is read.
    fn resident(&self) -> usize;

    /// The scan of these detector rows, and of their slices; those of a cone belong to the whole volume.
    fn rows(&self, rows: Range<usize>) -> Outcome<CtScan>;

    /// Says what there is to say of all that was read.
    fn remark(&self) {}
}

impl Rows for CtScanReader {
    fn shape(&self) -> [usize; 3] {
        self.shape()
    }

    fn geometry(&self) -> &CtGeometry {
        self.geometry()
    }

    fn target(&self) -> &Grid {
        self.target()
    }

    fn unit(&self) -> Unit {
        self.unit()
    }

    fn has_weights(&self) -> bool {
        self.has_weights()
    }

    fn resident(&self) -> usize {
        self.resident()
    }

    fn rows(&self, rows: Range<usize>) -> Outcome<CtScan> {
        Ok(self.rows(rows)?)
    }
}
