//! MATLAB files before 7.3.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: wellposed_fuzz::pass_caught_panics(), |data: &[u8]| wellposed_fuzz::array("a.mat", data));
