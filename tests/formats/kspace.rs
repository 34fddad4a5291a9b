//! K-space as other programs read it: ISMRMRD and BART's arrays, out and in again.

use candle_core::{DType, Device, Tensor};
use wellposed::io::{Grid, MriScan, Provenance, read_array};

use super::{displacement, oblique, tensor, values};

/// Lines of a grid: line 2 of 6 missing, five samples of the last, an oblique place, a picture of two columns less.
pub fn cartesian() -> MriScan {
    let (slices, coils, height, width) = (2, 3, 6, 8);
    let mask: Vec<f32> = (0..height * width)
        .map(|at| match at / width {
            2 => 0.0,
            5 if at % width < 3 => 0.0,
            _ => 1.0,
        })
        .collect();
    let mask = Tensor::from_vec(mask, (height, width), &Device::Cpu).unwrap();
    let spread = mask.reshape((1, 1, height, width, 1)).unwrap();
    MriScan {
        kspace: tensor(&[slices, coils, height, width, 2]).broadcast_mul(&spread).unwrap(),
        mask,
        trajectory: None,
        coil_maps: None,
        noise: Some(0.25),
        noise_covariance: None,
        scale: 3.0,
        crop: Some([4, 8]),
        target: oblique([slices, height, width], [4.0, 1.5, 1.0], 1.0).grid().clone(),
        provenance: Provenance::new(None),
    }
}

/// Two slices along five readouts of four samples.
fn along_paths() -> MriScan {
    let k: Vec<f32> = (0..40).map(|i| (i as f32 * 1.7).sin() * 4.0).collect();
    MriScan {
        kspace: tensor(&[2, 2, 5, 4, 2]),
        mask: Tensor::ones((5, 4), DType::F32, &Device::Cpu).unwrap(),
        trajectory: Some(Tensor::from_vec(k, (5, 4, 2), &Device::Cpu).unwrap()),
        target: Grid::centred([2, 8, 10], [4.0, 1.5, 1.0]).unwrap(),
        crop: None,
        ..cartesian()
    }
}

/// Largest difference of k-space in the scanner's units, over the largest number.
fn difference(a: &MriScan, b: &MriScan) -> f64 {
    assert_eq!(a.kspace.dims(), b.kspace.dims());
    let in_units = |scan: &MriScan| -> Vec<f64> {
        values(&scan.kspace).into_iter().map(|v| f64::from(v) * scan.scale).collect()
    };
    let (a, b) = (in_units(a), in_units(b));
    let largest = a.iter().fold(0.0, |l: f64, v| l.max(v.abs()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

fn round_trip(scan: &MriScan) -> MriScan {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.mrd");
    scan.write(&path).unwrap();
    MriScan::read(&path).unwrap()
}

#[test]
fn ismrmrd_comes_back() {
    let scan = cartesian();
    let back = round_trip(&scan);
    assert!(difference(&scan, &back) < 1e-6);
    assert_eq!((values(&scan.mask), scan.crop), (values(&back.mask), back.crop));
    // Places are in single precision there.
    assert!(displacement(&scan.target, &back.target) < 1e-4);
    assert!((back.noise.unwrap() * back.scale - 0.75).abs() < 1e-9);
    // Where columns were measured whole, x and y change their names on the way, and back.
    let mask: Vec<f32> = (0..48).map(|at| f32::from(u8::from(at % 3 != 0))).collect();
    let mask = Tensor::from_vec(mask[..8].repeat(6), (6, 8), &Device::Cpu).unwrap();
    let kspace = tensor(&[2, 3, 6, 8, 2]).broadcast_mul(&mask.reshape((1, 1, 6, 8, 1)).unwrap()).unwrap();
    let columns = MriScan { kspace, mask, crop: Some([6, 4]), ..cartesian() };
    let back = round_trip(&columns);
    assert!(difference(&columns, &back) < 1e-6 && displacement(&columns.target, &back.target) < 1e-4);
    assert_eq!((values(&columns.mask), columns.crop), (values(&back.mask), back.crop));
    // Heaps of more than one collection.
    let many = MriScan {
        kspace: tensor(&[1, 8, 128, 256, 2]),
        mask: Tensor::ones((128, 256), DType::F32, &Device::Cpu).unwrap(),
        target: Grid::centred([1, 128, 256], [4.0, 1.0, 1.0]).unwrap(),
        crop: None,
        ..cartesian()
    };
    assert!(difference(&many, &round_trip(&many)) < 1e-6);
}

#[test]
fn ismrmrd_keeps_trajectories() {
    let scan = along_paths();
    let back = round_trip(&scan);
    assert!(difference(&scan, &back) < 1e-6);
    assert!(displacement(&scan.target, &back.target) < 1e-4);
    let (a, b) = (values(scan.trajectory.as_ref().unwrap()), values(back.trajectory.as_ref().unwrap()));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn ismrmrd_holds_no_single_points() {
    let points: Vec<f32> = (0..48).map(|i| f32::from(u8::from(i % 3 == 0))).collect();
    let mask = Tensor::from_vec(points, (6, 8), &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.mrd");
    let error = MriScan { mask, ..cartesian() }.write(&path).unwrap_err().to_string();
    assert!(error.contains("whole readouts") && !path.exists(), "{error}");
}

/// The order of BART's axes: read, phase, partition, coil, …, slice as the fourteenth.
#[test]
fn cfl_has_the_axes_of_bart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.cfl");
    let scan = cartesian();
    scan.write(&path).unwrap();
    let header = std::fs::read_to_string(path.with_extension("hdr")).unwrap();
    assert_eq!(header.lines().nth(1).unwrap().trim(), "8 6 1 3 1 1 1 1 1 1 1 1 1 2 1 1");
    let array = read_array(&path, None).unwrap();
    let (stored, own) = (values(&array.data), values(&scan.kspace));
    assert!(stored.iter().zip(&own).all(|(a, b)| *a == b * 3.0));
    let scan = along_paths();
    scan.write(&path).unwrap();
    let header = std::fs::read_to_string(path.with_extension("hdr")).unwrap();
    assert_eq!(header.lines().nth(1).unwrap().trim(), "1 4 5 2 1 1 1 1 1 1 1 1 1 2 1 1");
    let points = read_array(folder.path().join("scan_traj"), None).unwrap();
    assert_eq!(points.shape(), [5, 4, 3]);
    let (points, k) = (values(&points.data), values(scan.trajectory.as_ref().unwrap()));
    for at in 0..20 {
        assert_eq!(points[6 * at..6 * at + 6], [k[2 * at + 1], 0.0, k[2 * at], 0.0, 0.0, 0.0]);
    }
}
