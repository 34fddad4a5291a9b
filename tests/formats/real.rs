//! Real files, with the numbers that nibabel, pydicom, h5py and tifffile read from them.

use std::path::PathBuf;

use wellposed::io::{
    Array, MriScan, ProjectionFiles, Unit, Volume, read_array, read_projections, read_volume,
};
use wellposed::tensor::Field;

use super::{displacement, values};

/// The path of a real file, or `None` with a printed reason.
fn data(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/test").join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

fn sum(volume: &Volume) -> f64 {
    values(volume.data()).iter().map(|v| f64::from(*v)).sum()
}

/// The voxel in the middle of the slices, at a third of the height and a quarter of the width.
fn probe(volume: &Volume) -> f32 {
    let [z, y, x] = volume.grid().shape();
    volume.data().get(z / 2).unwrap().get(y / 3).unwrap().get(x / 4).unwrap().to_scalar().unwrap()
}

#[test]
fn nifti_files() {
    type Case = (&'static str, [usize; 3], [f64; 3], f64, f32, f64, Unit);
    let cases: [Case; 4] = [
        (
            "ct/chest_a.nii.gz",
            [48, 256, 256],
            [2.0, 1.269_531_25, 1.269_531_25],
            88.0,
            -241.0,
            -1259699751.0,
            Unit::Hounsfield,
        ),
        (
            "ct/chest_b.nii.gz",
            [24, 256, 256],
            [2.0, 1.179_687_5, 1.179_687_5],
            80.0,
            -268.0,
            -989724801.0,
            Unit::Hounsfield,
        ),
        (
            "ct/head.nii.gz",
            [40, 256, 256],
            [1.5, 0.957_031_190_395_355_2, 0.957_031_190_395_355_2],
            51.0,
            32.0,
            -1375359878.0,
            Unit::Hounsfield,
        ),
        ("mr/subject02_t1.nii.gz", [64, 256, 192], [1.0; 3], 96.0, 1858.0, 2351087517.0, Unit::Arbitrary),
    ];
    for (name, shape, spacing, foot, voxel, total, unit) in cases {
        let Some(path) = data(name) else { return };
        let volume = read_volume(path).unwrap();
        assert_eq!(volume.grid().shape(), shape);
        assert!(volume.grid().spacing().iter().zip(spacing).all(|(a, b)| (a - b).abs() < 1e-9));
        assert_eq!(volume.grid().affine()[(2, 3)], foot);
        assert_eq!((volume.grid().orientation().as_str(), volume.unit()), ("RAS", unit));
        assert_eq!((probe(&volume), sum(&volume)), (voxel, total));
    }
}

#[test]
fn a_real_volume_keeps_its_place_through_every_format_that_has_one() {
    let Some(path) = data("ct/head.nii.gz") else { return };
    let volume = read_volume(path).unwrap().slices(10..12).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.nii", "a.nii.gz", "a.h5"] {
        let path = folder.path().join(name);
        volume.write(&path).unwrap();
        let back = read_volume(&path).unwrap();
        assert_eq!(values(back.data()), values(volume.data()));
        assert_eq!(displacement(back.grid(), volume.grid()), 0.0);
    }
}
#[test]
fn a_dicom_folder_with_compressed_slices_out_of_order() {
    let Some(path) = data("ct/dicom_normal001") else { return };
    let volume = read_volume(&path).unwrap();
    assert_eq!(volume.grid().shape(), [12, 512, 512]);
    assert_eq!(volume.grid().spacing(), [2.0, 0.634_765_625, 0.634_765_625]);
    assert_eq!((volume.unit(), sum(&volume)), (Unit::Hounsfield, -1_238_213_777.0));
    let at = |z: usize, y: usize, x: usize| values(volume.data())[(z * 512 + y) * 512 + x];
    assert_eq!([at(6, 170, 128), at(2, 300, 200)], [41.0, -485.0]);
    let origin = volume.grid().affine().column(3).into_owned();
    assert_eq!([origin[0], origin[1], origin[2]], [162.182_617_187_5, 307.182_617_187_5, -210.5]);
}

fn array_sum(array: &Array) -> Vec<f64> {
    let flat: Vec<f64> =
        array.data.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let parts = if array.field == Field::Complex { 2 } else { 1 };
    (0..parts).map(|part| flat.iter().skip(part).step_by(parts).sum()).collect()
}

#[test]
fn arrays_of_other_programs() {
    type Case<'a> = (&'a str, Option<&'a str>, &'a [usize], &'a [f64]);
    let cases: [Case; 7] = [
        ("kspace/brain_16ch_full.mat", Some("raw"), &[16, 1, 96, 96], &[24293.88244853262, 6848.06079784641]),
        ("kspace/brain_1ch_full.mat", None, &[160, 220], &[-4722632.768934514, 2094206.7250069235]),
        ("kspace/bart_brain_ksp.cfl", None, &[8, 230, 180, 1], &[-34619362432768.0, -411713788123328.0]),
        ("kspace/bart_brain_img.hdr", None, &[2, 1, 230, 180, 1], &[1098.267534621964, 9091.41191924746]),
        ("projections/dendrite.mat", Some("sinoRD"), &[1260, 360], &[566734247.8070984]),
        ("projections/tooth.h5", Some("exchange/data"), &[181, 2, 640], &[4749233396.5]),
        ("projections/tooth.h5", Some("exchange/theta"), &[181], &[16200.0]),
    ];
    for (name, dataset, shape, sums) in cases {
        let Some(path) = data(name) else { return };
        let array = read_array(path, dataset).unwrap();
        assert_eq!(array.shape(), shape, "{name}");
        let found = array_sum(&array);
        assert_eq!(found.len(), sums.len(), "{name}");
        for (a, b) in found.iter().zip(sums) {
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{name}: {a} against {b}");
        }
    }
}

#[test]
fn a_stack_of_raw_projections() {
    let Some(path) = data("projections/savu_24737/tiffs") else { return };
    let stack = read_volume(&path).unwrap();
    assert_eq!(stack.grid().shape(), [91, 135, 160]);
    assert_eq!((sum(&stack), values(stack.data())[(45 * 135 + 60) * 160 + 70]), (43_855_413_871.0, 24524.0));
    let flat = read_volume(path.parent().unwrap().join("flat_00001.tiff")).unwrap();
    assert_eq!((sum(&flat), values(flat.data())[777]), (803_416_747.0, 34879.0));
}

#[test]
fn siemens_raw_data() {
    let Some(path) = data("kspace/siemens_gre_twix.dat") else { return };
    let scan = MriScan::read(&path).unwrap();
    assert_eq!(scan.kspace.dims(), [1, 2, 160, 160, 2]);
    assert_eq!(scan.target.spacing(), [4.0, 1.25, 1.25]);
    assert!((scan.scale / 0.001_307_302_260_911_842 - 1.0).abs() < 1e-5);
    assert_eq!(values(&scan.mask), [1.0; 160 * 160]);
    let k = values(&scan.kspace);
    // By twixtools and numpy: transformed along the readout, the middle half kept, transformed back. The largest
    // number is about 1; transforms in f32 differ by some 1e-6 of it from one processor to the next.
    let cases = [
        ([0, 80, 80], [0.930_280_6, -0.185_746_34]),
        ([1, 70, 90], [-0.003_055_299_7, -0.006_078_622_5]),
        ([1, 100, 60], [0.000_599_252_4, -0.000_284_545_97]),
    ];
    for ([coil, y, x], expected) in cases {
        let at = 2 * ((coil * 160 + y) * 160 + x);
        assert!(
            (k[at] - expected[0]).abs() < 1e-5 && (k[at + 1] - expected[1]).abs() < 1e-5,
            "{coil} {y} {x}: {} {}",
            k[at],
            k[at + 1]
        );
    }
}

#[test]
fn raw_projections_with_flats_and_darks() {
    let Some(path) = data("projections/tooth.h5") else { return };
    let tooth = read_projections(&path, &ProjectionFiles::default()).unwrap();
    assert_eq!(tooth.counts.dims(), [181, 2, 640]);
    assert_eq!(
        (tooth.flats.unwrap().dims(), tooth.darks.unwrap().dims()),
        (&[10, 2, 640][..], &[10, 2, 640][..])
    );
    assert!((tooth.angles.iter().sum::<f64>().to_degrees() - 16200.0).abs() < 1e-6);
    let Some(folder) = data("projections/savu_24737") else { return };
    let files = ProjectionFiles {
        flats: Some(folder.join("flat_00001.tiff")),
        darks: Some(folder.join("dark_00001.tiff")),
        angles: Some(folder.join("angles.txt")),
        dataset: None,
    };
    let savu = read_projections(folder.join("tiffs"), &files).unwrap();
    assert_eq!((savu.counts.dims(), savu.angles.len()), (&[91, 135, 160][..], 91));
    assert!((savu.angles[1].to_degrees() + 86.2).abs() < 1e-9);
}
