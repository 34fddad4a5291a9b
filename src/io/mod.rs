//! Files: volumes, k-space, scans.
//!
//! [`read_volume`] recognises a file by its contents; [`Volume::write`] chooses by the name. A [`Scan`] holds
//! what a machine measured. Whatever a file declares is checked against its length before memory is taken
//! for it, and every error names the file.

mod array;
pub mod atomic;
mod cfl;
mod dicom;
mod fastmri;
mod grid;
mod growing;
mod hdf5;
mod hyperslab;
mod ismrmrd;
mod matlab;
mod nifti;
mod npy;
mod open;
mod picture;
mod projections;
mod scalar;
mod scan;
mod slices;
mod stack;
mod twix;
mod volume;

pub use array::Array;
pub use dicom::{DicomOptions, write_dicom};
pub use fastmri::write_fastmri;
pub use grid::Grid;
pub use open::{ReadOptions, check_output, read_array, read_volume, read_volume_with};
pub use projections::{
    ProjectionFiles, ProjectionReader, Projections, angles_of_views, read_angles, read_projections,
};
pub use scan::{Beam, CtGeometry, CtScan, CtScanReader, MriScan, Provenance, Scan, is_scan};
pub use slices::SliceWriter;
pub use stack::Stack;
pub use volume::{Unit, Volume};

use open::in_file;
