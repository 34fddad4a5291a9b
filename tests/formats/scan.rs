use candle_core::{DType, Device, Tensor};
use wellposed::io::{Beam, CtGeometry, CtScan, Grid, MriScan, Provenance, Scan, Unit, read_volume};

use super::{tensor, values};

fn ct() -> CtScan {
    CtScan {
        projections: tensor(&[2, 3, 5]),
        weights: Some(Tensor::ones((2, 3, 5), DType::F32, &Device::Cpu).unwrap()),
        photons: Some(1e5),
        geometry: CtGeometry { beam: Beam::Parallel, angles: vec![0.0, 1.0, 2.0], pitch: 0.7, offset: -0.35 },
        target: Grid::centred([2, 4, 4], [2.0, 0.7, 0.7]).unwrap(),
        unit: Unit::Hounsfield,
        mu_water: 0.0192,
        provenance: Provenance::new(Some(7)).with("source", "phantom, größer"),
    }
}

fn mri() -> MriScan {
    let mask: Vec<f32> = (0..12).map(|i| (i % 2) as f32).collect();
    MriScan {
        kspace: tensor(&[1, 2, 3, 4, 2]),
        mask: Tensor::from_vec(mask, (3, 4), &Device::Cpu).unwrap(),
        trajectory: None,
        coil_maps: Some(tensor(&[2, 3, 4, 2])),
        noise: Some(0.01),
        noise_covariance: Some(tensor(&[2, 2, 2])),
        scale: 42.0,
        crop: Some([3, 2]),
        target: Grid::centred([1, 3, 4], [5.0, 1.0, 1.0]).unwrap(),
        provenance: Provenance::new(None),
    }
}

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.h5");
    (folder, path)
}

#[test]
fn ct_scans_of_every_beam_come_back() {
    let (_folder, path) = file();
    let (source_origin, origin_detector) = (500.0, 400.0);
    let beams = [
        Beam::Parallel,
        Beam::Fan { source_origin, origin_detector, curved: false },
        Beam::Fan { source_origin, origin_detector, curved: true },
        Beam::Cone { source_origin, origin_detector, row_pitch: 0.5, row_offset: 0.1, feed: 12.0 },
    ];
    for beam in beams {
        let scan = CtScan { geometry: CtGeometry { beam, ..ct().geometry }, ..ct() };
        scan.write(&path).unwrap();
        let back = CtScan::read(&path).unwrap();
        assert_eq!(values(&back.projections), values(&scan.projections));
        assert_eq!(values(&back.weights.unwrap()), [1.0; 30]);
        assert_eq!((back.geometry, back.target), (scan.geometry, scan.target));
        assert_eq!((back.photons, back.unit, back.mu_water), (scan.photons, scan.unit, scan.mu_water));
        assert_eq!(back.provenance, scan.provenance);
    }
    assert!(MriScan::read(&path).unwrap_err().to_string().contains("expected a scan of kind mri"));
    assert!(read_volume(&path).unwrap_err().to_string().contains("found a scan of kind ct"));
}

#[test]
fn mri_scans_come_back() {
    let (_folder, path) = file();
    let scan = mri();
    scan.write(&path).unwrap();
    let Scan::Mri(back) = Scan::read(&path).unwrap() else { panic!("expected an MRI scan") };
    assert_eq!(values(&back.kspace), values(&scan.kspace));
    assert_eq!(values(&back.mask), values(&scan.mask));
    assert_eq!(values(&back.coil_maps.unwrap()), values(&scan.coil_maps.unwrap()));
    assert_eq!((back.noise, back.scale, back.crop), (scan.noise, scan.scale, scan.crop));
    assert_eq!(values(&back.noise_covariance.unwrap()), values(&scan.noise_covariance.unwrap()));
    assert_eq!((back.target, back.provenance), (scan.target, scan.provenance));
}

#[test]
fn radial_scans_come_back() {
    let (_folder, path) = file();
    // Five readouts of seven samples for an image of 3 × 4.
    let scan = MriScan {
        kspace: tensor(&[1, 2, 5, 7, 2]),
        mask: Tensor::ones((5, 7), candle_core::DType::F32, &Device::Cpu).unwrap(),
        trajectory: Some(tensor(&[5, 7, 2])),
        ..mri()
    };
    scan.write(&path).unwrap();
    let back = MriScan::read(&path).unwrap();
    assert_eq!(values(&back.kspace), values(&scan.kspace));
    assert_eq!(values(&back.trajectory.unwrap()), values(scan.trajectory.as_ref().unwrap()));
    let wrong = MriScan { trajectory: Some(tensor(&[5, 6, 2])), ..scan };
    assert!(wrong.write(&path).unwrap_err().to_string().contains("trajectory"));
}

#[test]
fn wrong_ct_scans_are_named() {
    let message = |change: &dyn Fn(&mut CtScan)| {
        let mut scan = ct();
        change(&mut scan);
        let (_folder, path) = file();
        let message = scan.write(&path).unwrap_err().to_string();
        assert!(!path.exists());
        message
    };
    assert!(message(&|s| s.geometry.angles = vec![0.0]).contains("angles: expected shape [3]"));
    assert!(message(&|s| s.geometry.angles[1] = f64::NAN).contains("angles = NaN"));
    assert!(message(&|s| s.geometry.pitch = -0.7).contains("detector_pitch_mm = -0.7"));
    assert!(message(&|s| s.projections = tensor(&[2, 0, 5])).contains("at least one slice, view"));
    assert!(message(&|s| s.projections = tensor(&[3, 3, 5])).contains("as many slices as the target"));
    assert!(message(&|s| s.weights = Some(tensor(&[2, 3, 4]))).contains("weights: expected shape [2, 3, 5]"));
    assert!(message(&|s| s.weights = Some(tensor(&[2, 3, 5]))).contains("must not be negative"));
    assert!(message(&|s| s.photons = Some(0.0)).contains("photons = 0"));
    assert!(message(&|s| s.mu_water = 0.0).contains("mu_water"));
    let infinite = (tensor(&[2, 3, 5]) / 0.0).unwrap();
    assert!(message(&|s| s.projections = infinite.clone()).contains("projections: 30 of 30 values are NaN"));
}

#[test]
fn wrong_mri_scans_are_named() {
    let message = |change: &dyn Fn(&mut MriScan)| {
        let mut scan = mri();
        change(&mut scan);
        scan.validate("scan.h5: ").unwrap_err().to_string()
    };
    assert!(message(&|s| s.mask = tensor(&[3, 5])).starts_with("scan.h5: mask: expected shape [3, 4]"));
    assert!(message(&|s| s.mask = tensor(&[3, 4])).contains("0 and 1 only"));
    assert!(message(&|s| s.mask = s.mask.zeros_like().unwrap()).contains("nothing is sampled"));
    assert!(message(&|s| s.kspace = tensor(&[2, 3, 4, 2])).contains("[slice, coil, ky, kx, 2]"));
    assert!(message(&|s| s.coil_maps = Some(tensor(&[3, 3, 4, 2]))).contains("coil_maps"));
    assert!(message(&|s| s.crop = Some([4, 4])).contains("crop"));
    assert!(message(&|s| s.noise = Some(-1.0)).contains("noise = -1"));
    assert!(message(&|s| s.scale = 0.0).contains("scale = 0"));
}

/// A file as another program might write it, with parts missing.
#[test]
fn missing_parts_are_named() {
    let (_folder, path) = file();
    let write = |with: &[&str]| {
        let mut file = hdf5_pure::FileBuilder::new();
        file.set_attr("format", hdf5_pure::AttrValue::String("wellposed".into()));
        file.set_attr("format_version", hdf5_pure::AttrValue::U64(1));
        file.set_attr("kind", hdf5_pure::AttrValue::String("ct".into()));
        let mut target = file.create_group("target");
        target.set_attr("shape", hdf5_pure::AttrValue::U64Array(vec![1, 2, 2]));
        if with.contains(&"affine") {
            let identity = nalgebra::Matrix4::<f64>::identity();
            target.set_attr("affine", hdf5_pure::AttrValue::F64Array(identity.iter().copied().collect()));
            target.set_attr("unit", hdf5_pure::AttrValue::String("HU".into()));
        }
        file.add_group(target.finish());
        file.create_dataset("angles").with_f64_data(&[0.0]);
        if with.contains(&"projections") {
            file.create_dataset("projections").with_f32_data(&[1.0; 4]).with_shape(&[4]);
        }
        file.write(&path).unwrap();
        Scan::read(&path).unwrap_err().to_string()
    };
    assert!(write(&[]).contains("target/affine"), "{}", write(&[]));
    let missing = write(&["affine"]);
    assert!(missing.contains("the dataset `projections` is missing; found: angles"), "{missing}");
    let flat = write(&["affine", "projections"]);
    assert!(flat.contains("projections: expected 3 axes, found shape [4]"), "{flat}");
    std::fs::write(&path, b"no HDF5").unwrap();
    assert!(matches!(Scan::read(&path), Err(wellposed::error::Error::Format { .. })));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Scan::read(&path), Err(wellposed::error::Error::Io { .. })));
}
