//! Real files, with the numbers that nibabel, pydicom, h5py and tifffile read from them.

use std::path::PathBuf;

use wellposed::io::{Unit, Volume, read_volume};

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
