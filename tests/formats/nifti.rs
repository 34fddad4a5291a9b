use proptest::prelude::*;
use wellposed::io::{Unit, read_volume};

use super::{displacement, oblique, values};

/// A NIfTI-1 file by hand: header fields at the places that the standard gives them.
struct Bytes {
    big: bool,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new(big: bool, shape: [i16; 4], datatype: i16, voxels: &[u8]) -> Self {
        let mut file = Self { big, bytes: vec![0; 352] };
        file.long(0, 348);
        for (axis, n) in [if shape[3] > 1 { 4 } else { 3 }, shape[0], shape[1], shape[2], shape[3], 1, 1, 1]
            .into_iter()
            .enumerate()
        {
            file.short(40 + 2 * axis, n);
        }
        file.short(70, datatype);
        for (axis, step) in [1.0, 0.5, 0.75, 2.0].into_iter().enumerate() {
            file.float(76 + 4 * axis, step);
        }
        file.float(108, 352.0);
        file.bytes[344..348].copy_from_slice(b"n+1\0");
        file.bytes.extend(voxels);
        file
    }

    fn put<const N: usize>(&mut self, at: usize, mut word: [u8; N]) {
        if self.big {
            word.reverse();
        }
        self.bytes[at..at + N].copy_from_slice(&word);
    }

    fn short(&mut self, at: usize, value: i16) {
        self.put(at, value.to_le_bytes());
    }

    fn long(&mut self, at: usize, value: i32) {
        self.put(at, value.to_le_bytes());
    }

    fn float(&mut self, at: usize, value: f32) {
        self.put(at, value.to_le_bytes());
    }

    fn read(&self, name: &str) -> Result<wellposed::io::Volume, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, &self.bytes).unwrap();
        read_volume(&path).map_err(|e| e.to_string())
    }
}

#[test]
fn every_type_in_both_byte_orders() {
    // −2, 3 (or 254, 3 where unsigned) in each type.
    for big in [false, true] {
        let order = |mut bytes: Vec<u8>| {
            if big {
                bytes.reverse();
            }
            bytes
        };
        let pair = |a: Vec<u8>, b: Vec<u8>| [order(a), order(b)].concat();
        let cases: [(i16, Vec<u8>, [f32; 2]); 10] = [
            (2, pair(vec![254], vec![3]), [254.0, 3.0]),
            (256, pair(vec![254], vec![3]), [-2.0, 3.0]),
            (4, pair((-2i16).to_le_bytes().into(), 3i16.to_le_bytes().into()), [-2.0, 3.0]),
            (512, pair(65534u16.to_le_bytes().into(), 3u16.to_le_bytes().into()), [65534.0, 3.0]),
            (8, pair((-2i32).to_le_bytes().into(), 3i32.to_le_bytes().into()), [-2.0, 3.0]),
            (768, pair(254u32.to_le_bytes().into(), 3u32.to_le_bytes().into()), [254.0, 3.0]),
            (1024, pair((-2i64).to_le_bytes().into(), 3i64.to_le_bytes().into()), [-2.0, 3.0]),
            (1280, pair(254u64.to_le_bytes().into(), 3u64.to_le_bytes().into()), [254.0, 3.0]),
            (16, pair((-2f32).to_le_bytes().into(), 3f32.to_le_bytes().into()), [-2.0, 3.0]),
            (64, pair((-2f64).to_le_bytes().into(), 3f64.to_le_bytes().into()), [-2.0, 3.0]),
        ];
        for (datatype, bytes, expected) in cases {
            let volume = Bytes::new(big, [2, 1, 1, 1], datatype, &bytes).read("a.nii").unwrap();
            assert_eq!(values(volume.data()), expected, "datatype {datatype}, big-endian {big}");
            assert_eq!(volume.grid().spacing(), [2.0, 0.75, 0.5]);
        }
    }
}

#[test]
fn slope_units_and_the_three_kinds_of_coordinates() {
    let mut file = Bytes::new(false, [2, 1, 1, 1], 2, &[0, 255]);
    file.float(112, 8.0);
    file.float(116, -1024.0);
    let plain = file.read("a.nii").unwrap();
    assert_eq!(values(plain.data()), [-1024.0, 1016.0]);
    assert_eq!(plain.unit(), Unit::Hounsfield);
    assert_eq!(plain.grid().affine()[(0, 3)], 0.25);
    // A quarter turn about z, b = c = 0, d = sin 45°: x' = −y, y' = x. And qfac −1 turns z over.
    file.short(252, 1);
    file.float(264, std::f32::consts::FRAC_1_SQRT_2);
    file.float(76, -1.0);
    file.float(272, 7.0);
    let quarter = file.read("a.nii").unwrap();
    let a = quarter.grid().affine();
    let close = |x: f64, y: f64| (x - y).abs() < 1e-6;
    assert!(
        close(a[(1, 0)], 0.5) && close(a[(0, 1)], -0.75) && close(a[(2, 2)], -2.0) && close(a[(1, 3)], 7.0),
        "{a}"
    );
    // The sform wins; metres become millimetres.
    file.short(254, 2);
    for (at, value) in [(280, 0.001), (300, 0.002), (320, 0.003)] {
        file.float(at, value);
    }
    file.bytes[123] = 1;
    let metres = file.read("a.nii").unwrap();
    assert!(metres.grid().spacing().iter().zip([3.0, 2.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn headers_that_lie_are_named() {
    let good = || Bytes::new(false, [2, 1, 1, 1], 2, &[0, 255]);
    let with = |change: &dyn Fn(&mut Bytes)| {
        let mut file = good();
        change(&mut file);
        let message = file.read("liar.nii").unwrap_err();
        assert!(message.contains("liar.nii: "), "{message}");
        message
    };
    let series = |f: &mut Bytes| {
        f.short(40, 4);
        f.short(48, 5);
    };
    assert!(with(&series).contains("5 time points"));
    assert!(with(&|f| f.short(42, -3)).contains("dim[1]"));
    assert!(with(&|f| f.short(44, 3000)).contains("more than the 354 bytes"));
    assert!(with(&|f| f.bytes.truncate(353)).contains("truncated"));
    assert!(with(&|f| f.bytes.truncate(200)).contains("unknown format"));
    assert!(with(&|f| f.float(84, -2.0)).contains("positive spacing, found -2"));
    assert!(with(&|f| f.float(84, f32::NAN)).contains("spacing"));
    assert!(with(&|f| f.short(70, 128)).contains("colour"));
    assert!(with(&|f| f.short(70, 77)).contains("datatype 77"));
    assert!(with(&|f| f.float(108, f32::INFINITY)).contains("vox_offset"));
    assert!(with(&|f| f.short(254, 1)).contains("affine"));
    let nan = Bytes::new(false, [1, 1, 1, 1], 16, &f32::NAN.to_le_bytes()).read("liar.nii").unwrap_err();
    assert!(nan.contains("liar.nii: 1 of 1 values are NaN"), "{nan}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_reads_back(
        z in 1usize..5, y in 1usize..6, x in 1usize..7,
        spacing in prop::array::uniform3(0.1f64..5.0),
        left in any::<bool>(),
        name in prop::sample::select(vec!["a.nii", "a.nii.gz", "a.h5"]),
    ) {
        let volume = oblique([z, y, x], spacing, if left { -1.0 } else { 1.0 });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        volume.write(&path).unwrap();
        let back = read_volume(&path).unwrap();
        prop_assert_eq!(values(back.data()), values(volume.data()));
        prop_assert!(displacement(back.grid(), volume.grid()) < 2e-5);
        prop_assert_eq!(back.unit(), Unit::Hounsfield);
        // The qform alone says the same.
        if name == "a.nii" {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[254] = 0;
            std::fs::write(&path, bytes).unwrap();
            prop_assert!(displacement(read_volume(&path).unwrap().grid(), volume.grid()) < 1e-4);
        }
    }
}
