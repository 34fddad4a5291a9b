//! npy, npz, cfl, MATLAB and pictures, against bytes written down by hand.

use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;
use wellposed::io::{Unit, Volume, read_array, read_volume};
use wellposed::tensor::Field;

use super::{tensor, values};

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn read(name: &str, bytes: &[u8]) -> Result<(Vec<usize>, Vec<f64>, Field), String> {
    let (_folder, path) = file(name, bytes);
    let array = read_array(&path, None).map_err(|e| e.to_string())?;
    let numbers =
        array.data.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    Ok((array.shape().to_vec(), numbers, array.field))
}

#[test]
fn npy_of_every_kind() {
    let header = |descr, fortran, shape| {
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n")
    };
    let six: Vec<u8> = (0..6).collect();
    let c = read("a.npy", &npy(&header("|u1", "False", "(2, 3)"), &six)).unwrap();
    assert_eq!(c, (vec![2, 3], vec![0., 1., 2., 3., 4., 5.], Field::Real));
    let fortran = read("a.npy", &npy(&header("|u1", "True", "(2, 3)"), &six)).unwrap();
    assert_eq!(fortran.1, [0., 2., 4., 1., 3., 5.]);
    let big = read("a.npy", &npy(&header(">i2", "False", "(2,)"), &[255, 254, 0, 3])).unwrap();
    assert_eq!(big.1, [-2.0, 3.0]);
    let complex: Vec<u8> = [1f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let complex = read("a.npy", &npy(&header("<c16", "False", "(1,)"), &complex)).unwrap();
    assert_eq!(complex, (vec![1], vec![1.0, -2.0], Field::Complex));
    let scalar = read("a.npy", &npy(&header("<f4", "False", "()"), &1.5f32.to_le_bytes())).unwrap();
    assert_eq!(scalar, (vec![], vec![1.5], Field::Real));
    let message = |h: String, data: &[u8]| read("a.npy", &npy(&h, data)).unwrap_err();
    assert!(message(header("<f8", "False", "(1000000000, 1000000000)"), &six).contains("a.npy: truncated"));
    assert!(message(header("|O", "False", "(1,)"), &six).contains("expected an array of numbers"));
    assert!(message(header("|u1", "False", "(1, x)"), &six).contains("the axis `x`"));
    assert!(message("{}".into(), &six).contains("no descr"));
}

#[test]
fn npz_by_name() {
    let mut bytes = Vec::new();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(&mut bytes));
    for (name, value) in [("a", 1u8), ("b", 2)] {
        archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }";
        archive.write_all(&npy(header, &[value])).unwrap();
    }
    archive.finish().unwrap();
    let (_folder, path) = file("a.npz", &bytes);
    let b = read_array(&path, Some("b")).unwrap();
    assert_eq!(values(&b.data), [2.0]);
    assert!(read_array(&path, None).unwrap_err().to_string().contains("which array? It holds a, b"));
}

#[test]
fn cfl_axes_are_reversed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("k.cfl");
    let numbers: Vec<u8> = (0..12).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(&path, &numbers).unwrap();
    std::fs::write(folder.path().join("k.hdr"), "# Dimensions\n3 2 1 1 1\n# Creator\nme\n").unwrap();
    for name in ["k", "k.cfl", "k.hdr"] {
        let array = read_array(folder.path().join(name), None).unwrap();
        assert_eq!((array.shape(), array.field), (&[2, 3][..], Field::Complex));
        assert_eq!(values(&array.data)[6..8], [6.0, 7.0]);
    }
    for (header, expected) in [
        ("# Dimensions\n3 3\n", "8 bytes for each of [3, 3]"),
        ("# Dimensions\n3 0\n", "at least 1"),
        ("# Dimensions\n99999999999 99999999999\n", "k.cfl: expected"),
        ("no dimensions", "# Dimensions"),
    ] {
        std::fs::write(folder.path().join("k.hdr"), header).unwrap();
        let message = read_array(&path, None).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// A level-5 MAT-file with one matrix, by hand.
fn mat(flags: u32, dims: &[i32], parts: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let element = |kind: u32, data: &[u8]| {
        let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let mut body = element(6, &[flags.to_le_bytes(), [0; 4]].concat());
    body.extend(element(5, &dims.iter().flat_map(|d| d.to_le_bytes()).collect::<Vec<_>>()));
    // The name `x` as a small element.
    body.extend([1, 0, 1, 0, b'x', 0, 0, 0]);
    parts.iter().for_each(|(kind, data)| body.extend(element(*kind, data)));
    let mut bytes = format!("{:<124}", "MATLAB 5.0 MAT-file, by hand").into_bytes();
    bytes.extend([0, 1]);
    bytes.extend(b"IM");
    bytes.extend(element(14, &body));
    bytes
}

#[test]
fn matlab_matrices_keep_their_rows() {
    // [1 3 5; 2 4 6], column by column, doubles stored as bytes.
    let real = read("a.mat", &mat(6, &[2, 3], &[(2, (1..=6).collect())])).unwrap();
    assert_eq!(real, (vec![2, 3], vec![1., 3., 5., 2., 4., 6.], Field::Real));
    let complex = mat(0x800 | 6, &[1, 2], &[(2, vec![1, 2]), (2, vec![3, 4])]);
    assert_eq!(read("a.mat", &complex).unwrap(), (vec![1, 2], vec![1., 3., 2., 4.], Field::Complex));
    let pages = read("a.mat", &mat(9, &[2, 1, 2], &[(2, vec![1, 2, 3, 4])])).unwrap();
    assert_eq!(pages, (vec![2, 2, 1], vec![1., 2., 3., 4.], Field::Real));
    assert!(
        read("a.mat", &mat(6, &[2, 300], &[(2, vec![1])]))
            .unwrap_err()
            .contains("x: the real part has 1 bytes")
    );
    assert!(read("a.mat", &real_but_cut()).unwrap_err().contains("truncated"));
    assert!(read("a.mat", &mat(1, &[1, 1], &[])).unwrap_err().contains("which matrix?"));
}

fn real_but_cut() -> Vec<u8> {
    let mut bytes = mat(6, &[2, 3], &[(2, (1..=6).collect())]);
    bytes.truncate(170);
    bytes
}

#[test]
fn pictures_hold_whole_numbers_and_tiff_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let volume = Volume::centred(tensor(&[3, 4, 5]), [1.0; 3], Unit::Arbitrary).unwrap();
    volume.write(path("a.tiff")).unwrap();
    assert_eq!(values(read_volume(path("a.tiff")).unwrap().data()), values(volume.data()));
    let message = volume.slices(0..1).unwrap().write(path("a.png")).unwrap_err().to_string();
    assert!(message.contains("whole numbers from 0 to 65535"), "{message}");
    let counts = candle_core::Tensor::new(&[[[0f32, 1.0, 65535.0]]], &candle_core::Device::Cpu).unwrap();
    let counts = Volume::centred(counts, [1.0; 3], Unit::Arbitrary).unwrap();
    counts.write(path("a.png")).unwrap();
    assert_eq!(values(read_volume(path("a.png")).unwrap().data()), [0.0, 1.0, 65535.0]);
    // A folder of pictures is a stack, sorted by the numbers in the names.
    let stack = path("stack");
    std::fs::create_dir(&stack).unwrap();
    for (slice, name) in [(2, "p_10.tif"), (0, "p_1.tif"), (1, "p_9.tif")] {
        volume.slices(slice..slice + 1).unwrap().write(stack.join(name)).unwrap();
    }
    assert_eq!(values(read_volume(&stack).unwrap().data()), values(volume.data()));
    counts.write(stack.join("p_11.png")).unwrap();
    assert!(read_volume(&stack).unwrap_err().to_string().contains("p_11.png: [1, 3] pixels"));
}

#[test]
fn a_single_voxel_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.npy", "a.cfl", "a.h5", "a.nii"] {
        let path = folder.path().join(name);
        let volume = Volume::centred(tensor(&[1, 1, 1]), [1.0; 3], Unit::Arbitrary).unwrap();
        volume.write(&path).unwrap();
        assert_eq!(read_volume(&path).unwrap().grid().shape(), [1; 3], "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn arrays_come_back(
        shape in prop::array::uniform3(1usize..6),
        complex in any::<bool>(),
        name in prop::sample::select(vec!["a.npy", "a.cfl", "a.h5", "a.nii"]),
    ) {
        let data = if complex { tensor(&[&shape[..], &[2]].concat()) } else { tensor(&shape) };
        let volume = Volume::centred(data.clone(), [1.0; 3], Unit::Arbitrary).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        volume.write(&path).unwrap();
        let mut back = read_volume(&path).unwrap();
        // BART's numbers are always complex, and it does not know axes of length 1 in front.
        let expected = if name == "a.cfl" && !complex { values(&data).into_iter().flat_map(|v| [v, 0.0]).collect() } else { values(&data) };
        if name == "a.cfl" && shape[0] == 1 {
            prop_assert_eq!(back.grid().shape()[0], 1);
            back = back.with_unit(Unit::Arbitrary);
        }
        prop_assert_eq!(values(back.data()), expected);
    }
}
