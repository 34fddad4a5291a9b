//! Valid files of every format, damaged at random: an error that names the file or an array, never a panic.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use wellposed::io::{
    Beam, CtGeometry, CtScan, DicomOptions, Grid, Provenance, Scan, Unit, read_array, read_volume,
    write_dicom,
};

use super::oblique;

/// A valid file of each format, by name.
fn originals() -> Vec<(&'static str, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let volume = oblique([2, 5, 4], [2.0, 1.0, 1.0], 1.0);
    let mut files = Vec::new();
    for name in ["a.nii", "a.nii.gz", "a.h5", "a.npy", "a.tif"] {
        volume.write(folder.path().join(name)).unwrap();
        files.push((name, std::fs::read(folder.path().join(name)).unwrap()));
    }
    let counts = volume.slices(0..1).unwrap();
    let counts = counts.with_data((counts.data() + 1000.0).unwrap(), Unit::Arbitrary).unwrap();
    counts.write(folder.path().join("a.png")).unwrap();
    files.push(("a.png", std::fs::read(folder.path().join("a.png")).unwrap()));
    volume.write(folder.path().join("a.cfl")).unwrap();
    files.push(("a.hdr", std::fs::read(folder.path().join("a.hdr")).unwrap()));
    write_dicom(&volume, folder.path().join("series"), &DicomOptions::default()).unwrap();
    files.push(("a.dcm", std::fs::read(folder.path().join("series/IM00000.dcm")).unwrap()));
    let scan = CtScan {
        projections: Tensor::ones((2, 3, 4), DType::F32, &Device::Cpu).unwrap(),
        weights: None,
        photons: None,
        geometry: CtGeometry { beam: Beam::Parallel, angles: vec![0.0, 1.0, 2.0], pitch: 1.0, offset: 0.0 },
        target: Grid::centred([2, 4, 4], [1.0; 3]).unwrap(),
        unit: Unit::Hounsfield,
        mu_water: 0.02,
        provenance: Provenance::new(None),
    };
    scan.write(folder.path().join("scan.h5")).unwrap();
    files.push(("scan.h5", std::fs::read(folder.path().join("scan.h5")).unwrap()));
    files.push(("a.mat", matlab()));
    files.push(("a.npz", archive(&files[3].1)));
    files.push(("b.h5", include_bytes!("ismrmrd.h5").to_vec()));
    files.push(("a.dat", super::raw::twix()));
    super::kspace::cartesian().write(folder.path().join("a.mrd")).unwrap();
    files.push(("a.mrd", std::fs::read(folder.path().join("a.mrd")).unwrap()));
    files
}

/// Writes the files from which fuzzing starts: `cargo test --test formats -- --ignored seeds`.
#[test]
#[ignore = "writes into the sources"]
fn seeds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let put = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(root.join(target)).unwrap();
        std::fs::write(root.join(target).join(name), bytes).unwrap();
    };
    for (name, bytes) in originals() {
        let target = match name {
            "a.nii" | "a.nii.gz" => "nifti",
            "a.dcm" => "dicom",
            "a.tif" => "tiff",
            "a.png" => "png",
            "a.h5" | "scan.h5" => "hdf5",
            "a.mrd" => "ismrmrd",
            "a.dat" => "twix",
            "a.hdr" => "cfl",
            "a.mat" => "matlab",
            "a.npy" | "a.npz" => "npy",
            _ => continue,
        };
        put(target, name, &bytes);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    for (target, write) in [("exchange", super::raw::exchange as fn(&Path)), ("fastmri", super::raw::fastmri)]
    {
        write(&path);
        put(target, "a.h5", &std::fs::read(&path).unwrap());
    }
    put("angles", "a.txt", b"# degrees\n0\n0\n90, 180 -1e-3;2\n");
    put("problem", "a.toml", PROBLEM.as_bytes());
    put("prior", "a.safetensors", include_bytes!("../reference/unet.safetensors"));
    put("torch", "a.pth", include_bytes!("../reference/averages.pth"));
}

const PROBLEM: &str = r#"variables = ["x", "t"]
domain = [[0, "PI"], [0, 1]]
operator = { u_xx = "1 + x^2", u_t = -1 }
nonlinear = "u^3 - u"
source = "-sin(x) * exp(-t)"
periodic = ["x"]
boundary = [{ face = "t low", dirichlet = "sin(x)" }, { face = "x high", robin = { value = 1, slope = 2, data = "0" } }]
"#;

/// A compressed MATLAB matrix.
fn matlab() -> Vec<u8> {
    use std::io::Write;
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let matrix = words(&[14, 64, 6, 8, 6, 0, 5, 8, 2, 2, 0x0001_0001, 120, 2, 4, 0x0403_0201, 0]);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&matrix).unwrap();
    let packed = encoder.finish().unwrap();
    let mut bytes = format!("{:<124}", "MATLAB 5.0 MAT-file").into_bytes();
    bytes.extend([0, 1, b'I', b'M']);
    bytes.extend(words(&[15, packed.len() as u32]));
    bytes.extend(packed);
    bytes
}

fn archive(npy: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut bytes = Vec::new();
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(&mut bytes));
    archive.start_file("a.npy", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(npy).unwrap();
    archive.finish().unwrap();
    bytes
}

/// One way to damage a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Set(at, value) => {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Insert(at, extra) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, extra.iter().copied());
            }
            Self::Remove(at, n) => {
                let at = at.index(bytes.len());
                let end = (at + n).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (at(), prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff])).prop_map(|(at, v)| Damage::Set(at, v)),
        1 => at().prop_map(Damage::Cut),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, e)| Damage::Insert(at, e)),
        1 => (at(), 1usize..9).prop_map(|(at, n)| Damage::Remove(at, n)),
    ]
}

/// Reads a file in every way; an error must say which file is meant.
fn read_all(path: &Path) -> Result<(), TestCaseError> {
    let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
    let stem = stem.trim_end_matches(".nii").to_string();
    let results = [read_volume(path).map(drop), read_array(path, None).map(drop), Scan::read(path).map(drop)];
    for error in results.into_iter().filter_map(Result::err) {
        let text = error.to_string();
        prop_assert!(text.contains(&format!("{stem}.")), "an error that names no file: {text}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn damaged_files_are_errors(which in any::<prop::sample::Index>(), damages in prop::collection::vec(damage(), 1..5)) {
        thread_local!(static FILES: (tempfile::TempDir, Vec<(&'static str, Vec<u8>)>) = (tempfile::tempdir().unwrap(), originals()));
        FILES.with(|(folder, files)| {
            let (name, bytes) = &files[which.index(files.len())];
            let mut bytes = bytes.clone();
            damages.iter().for_each(|d| d.apply(&mut bytes));
            let path: PathBuf = folder.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            if *name == "a.hdr" {
                std::fs::write(folder.path().join("a.cfl"), vec![0u8; 2 * 5 * 4 * 8]).unwrap();
            }
            read_all(&path)
        })?;
    }
}

/// Few in the suite; WELLPOSED_CASES asks for a long hunt.
fn cases() -> u32 {
    std::env::var("WELLPOSED_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1500)
}
