//! HDF5: volumes and scans of this program, single arrays.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: wellposed_fuzz::pass_caught_panics(), |data: &[u8]| wellposed_fuzz::hdf5("a.h5", data));
