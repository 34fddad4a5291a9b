//! Raw data of scanners, against points whose k-space is known in closed form.

use std::path::Path;

use hdf5_pure::{AttrValue, CompoundTypeBuilder, FileBuilder};
use wellposed::io::{
    MriScan, ProjectionFiles, Scan, Unit, Volume, read_angles, read_projections, write_fastmri,
};

use super::{tensor, values};

/// A file by ismrmrd-python: a point at (y, x) = (1, −2) about the centre, two slices and two coils, readouts
/// shuffled and twofold oversampled, line 3 reversed, line 1 missing, two averages whose mean is 1, a noise scan
/// of ±½ and a second repetition that must not count.
#[test]
fn ismrmrd_readouts_find_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scan.h5");
    std::fs::write(&path, include_bytes!("ismrmrd.h5")).unwrap();
    let scan = MriScan::read(&path).unwrap();
    assert_eq!(scan.kspace.dims(), [2, 2, 8, 8, 2]);
    assert_eq!((scan.target.spacing(), scan.crop), ([5.0, 3.0, 2.0], None));
    assert!((scan.noise.unwrap() * scan.scale - 0.5).abs() < 1e-6);
    let centre = scan.target.affine() * nalgebra::Vector4::new(4.0, 4.0, 1.0, 1.0);
    assert!((centre - nalgebra::Vector4::new(-10.0, -20.0, 35.0, 1.0)).norm() < 1e-9, "{centre}");
    let mask = values(&scan.mask);
    assert!((0..64).all(|at| mask[at] == if at / 8 == 1 { 0.0 } else { 1.0 }));
    let k = values(&scan.kspace);
    for at in 0..256 {
        let (slice, coil, ky, kx) = (at / 128, at / 64 % 2, at / 8 % 8, at % 8);
        let (y, x) = (ky as f64 - 4.0, kx as f64 - 4.0);
        let phase = num_complex::Complex64::cis(-2.0 * std::f64::consts::PI * (y - 2.0 * x) / 8.0);
        let weight = num_complex::Complex64::new(1.0, coil as f64) * (1.0 + slice as f64) / 8.0;
        let expected = if ky == 1 { 0.0.into() } else { phase * weight / scan.scale };
        let found = num_complex::Complex64::new(f64::from(k[2 * at]), f64::from(k[2 * at + 1]));
        assert!((found - expected).norm() < 1e-5, "{at}: {found} against {expected}");
    }
}

/// Siemens VB by hand: 4 lines of 2 coils × 8 samples, twofold oversampled, all of it 1 at the centre.
pub fn twix() -> Vec<u8> {
    let text = "sKSpace.lBaseResolution\t = \t4\nsKSpace.lPhaseEncodingLines = 4\n\
                sSliceArray.asSlice[0].dReadoutFOV\t = \t8.0\nsSliceArray.asSlice[0].dPhaseFOV = 12\n";
    let mut bytes = 256u32.to_le_bytes().to_vec();
    bytes.extend(text.bytes());
    bytes.resize(256, 0);
    for line in 0..4u16 {
        for coil in 0..2u8 {
            let mut head = [0u8; 128];
            head[..4].copy_from_slice(&(128u32 + 64).to_le_bytes());
            head[28..30].copy_from_slice(&8u16.to_le_bytes());
            head[30..32].copy_from_slice(&2u16.to_le_bytes());
            head[32..34].copy_from_slice(&line.to_le_bytes());
            head[64..66].copy_from_slice(&4u16.to_le_bytes());
            head[76..78].copy_from_slice(&2u16.to_le_bytes());
            head[124] = coil;
            bytes.extend(head);
            for sample in 0..8 {
                let value = if (line, sample) == (2, 4) { 1.0 + f32::from(coil) } else { 0.0 };
                bytes.extend(value.to_le_bytes());
                bytes.extend((-value).to_le_bytes());
            }
        }
    }
    let mut end = [0u8; 128];
    end[0] = 128;
    end[20] = 1;
    bytes.extend(end);
    bytes
}

#[test]
fn siemens_vb_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meas.dat");
    std::fs::write(&path, twix()).unwrap();
    let Scan::Mri(scan) = Scan::read(&path).unwrap() else { panic!("expected MRI") };
    assert_eq!(scan.kspace.dims(), [1, 2, 4, 4, 2]);
    assert_eq!(scan.target.spacing(), [1.0, 3.0, 2.0]);
    // The centre of k-space is a constant image; without the outer half it is a centre again, smaller by √2.
    assert!((scan.scale - 2f64.sqrt()).abs() < 1e-6);
    let k = values(&scan.kspace);
    let expected = |at: usize| match at {
        10 => [0.5, -0.5],
        26 => [1.0, -1.0],
        _ => [0.0, 0.0],
    };
    for at in 0..32 {
        let e: [f32; 2] = expected(at);
        assert!((k[2 * at] - e[0]).abs() < 1e-6 && (k[2 * at + 1] - e[1]).abs() < 1e-6, "{at}");
    }
    std::fs::write(&path, &twix()[..500]).unwrap();
    let message = Scan::read(&path).unwrap_err().to_string();
    assert!(message.contains("meas.dat: Siemens raw data: truncated"), "{message}");
}

fn fastmri_numbers() -> Vec<f32> {
    values(&tensor(&[2, 3, 6, 4, 2])).iter().map(|v| v / 4.0).collect()
}

/// A file of fastMRI: 2 slices, 3 coils, 6 × 4 samples, the middle columns measured.
pub fn fastmri(path: &Path) {
    let complex = CompoundTypeBuilder::new().f32_field("r").f32_field("i").build().unwrap();
    let mut file = FileBuilder::new();
    let bytes: Vec<u8> = fastmri_numbers().iter().flat_map(|v| v.to_le_bytes()).collect();
    file.create_dataset("kspace").with_compound_data(complex, bytes, 144).with_shape(&[2, 3, 6, 4]);
    file.create_dataset("mask").with_f32_data(&[0.0, 1.0, 1.0, 0.0]);
    let xml = "<h><encodedSpace><matrixSize><x>6</x></matrixSize></encodedSpace><reconSpace><matrixSize><x>4</x><y>2</y>\
               <z>1</z></matrixSize><fieldOfView_mm><x>8</x><y>6</y><z>5</z></fieldOfView_mm></reconSpace></h>";
    file.create_dataset("ismrmrd_header").with_vlen_strings(&[xml]);
    file.set_attr("acquisition", AttrValue::String("AXT2".into()));
    file.write(path).unwrap();
}

/// Raw projections: 3 views of 2 × 4 pixels, one flat, one dark.
pub fn exchange(path: &Path) {
    let mut file = FileBuilder::new();
    let mut group = file.create_group("exchange");
    let sets: [(&str, &[u64]); 4] =
        [("data", &[3, 2, 4]), ("data_white", &[1, 2, 4]), ("data_dark", &[1, 2, 4]), ("theta", &[3])];
    for (name, shape) in sets {
        let counts: Vec<f32> = (0..shape.iter().product()).map(|i| 100.0 + i as f32).collect();
        group.create_dataset(name).with_f32_data(&counts).with_shape(shape);
    }
    file.add_group(group.finish());
    file.write(path).unwrap();
}

#[test]
fn fastmri_in_and_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.h5");
    fastmri(&path);
    let numbers = fastmri_numbers();
    let scan = MriScan::read(&path).unwrap();
    assert_eq!((scan.kspace.dims(), scan.crop), (&[2, 3, 6, 4, 2][..], Some([4, 2])));
    assert_eq!(scan.target.spacing(), [5.0, 2.0, 3.0]);
    assert_eq!(values(&scan.mask)[..8], [0., 1., 1., 0., 0., 1., 1., 0.]);
    let back = values(&scan.kspace);
    assert!(
        back.iter().zip(&numbers).all(|(a, b)| (f64::from(*a) * scan.scale - f64::from(*b)).abs() < 1e-4)
    );
    let volume = Volume::centred(tensor(&[2, 4, 2]), [1.0; 3], Unit::Arbitrary).unwrap();
    let out = folder.path().join("out.h5");
    write_fastmri(&volume, &out).unwrap();
    let read = wellposed::io::read_array(&out, Some("reconstruction")).unwrap();
    assert_eq!((read.shape(), values(&read.data)), (&[2, 4, 2][..], values(volume.data())));
}

#[test]
fn projections_and_their_companions_must_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let stack = |shape: &[usize], name: &str| {
        Volume::centred(tensor(shape), [1.0; 3], Unit::Arbitrary).unwrap().write(path(name)).unwrap();
        Some(path(name))
    };
    stack(&[3, 2, 4], "views.tif");
    std::fs::write(path("angles.txt"), "# degrees\n0\n0\n90, 180\n180\n").unwrap();
    let mut files = ProjectionFiles {
        flats: stack(&[1, 2, 4], "flat.tif"),
        angles: Some(path("angles.txt")),
        ..Default::default()
    };
    let scan = read_projections(path("views.tif"), &files).unwrap();
    assert_eq!(scan.angles, [0.0, 90f64.to_radians(), 180f64.to_radians()]);
    files.darks = stack(&[1, 3, 4], "dark.tif");
    let message = read_projections(path("views.tif"), &files).unwrap_err().to_string();
    assert!(
        message.contains("views.tif: darks: expected shape [exposure, 2, 4], found [1, 3, 4]"),
        "{message}"
    );
    std::fs::write(path("angles.txt"), "0\n90\n").unwrap();
    let files = ProjectionFiles { angles: Some(path("angles.txt")), ..Default::default() };
    let message = read_projections(path("views.tif"), &files).unwrap_err().to_string();
    assert!(message.contains("angles: expected shape [3], one for each view, found [2]"), "{message}");
    std::fs::write(path("angles.txt"), "0\nnorth\n").unwrap();
    assert!(
        read_angles(path("angles.txt"))
            .unwrap_err()
            .to_string()
            .contains("line 2: expected an angle in degrees")
    );
}
