//! Volumes that don't fit into memory, reconstructed slab by slab.

use candle_core::{Device, Tensor};
use wellposed::io::{Unit, Volume, read_volume};
use wellposed::reconstruct::preprocess::Outliers;

use super::Folder;

fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn slabs_are_the_volume() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 11, 48);
    folder.run("ct simulate chest.nii.gz -o s.h5 --views 30").good();
    for (method, memory, limit) in [
        ("fbp", 0.0003, 0.0),
        ("sirt -i 20", 0.0004, 0.0),
        ("os-sart -i 3", 0.0004, 0.0),
        ("cgls -i 8", 0.0004, 0.0),
        // It stops by what the slices of a slab do.
        ("tv", 0.0008, 0.02),
    ] {
        folder.run(&format!("ct reconstruct s.h5 -o whole.nii -m {method}")).good();
        let run = format!("ct reconstruct s.h5 -m {method} --memory {memory}");
        let report = folder.run(&format!("{run} -o slabs.nii --plot slabs.png --json")).json();
        assert!(report["slabs"].as_u64().unwrap() >= 3, "{method}: {report}");
        let found = difference(&folder.values("whole.nii"), &folder.values("slabs.nii"));
        assert!(found <= limit, "{method}: {found}");
        let grid = |name: &str| read_volume(folder.path(name)).unwrap().grid().clone();
        assert_eq!(grid("whole.nii"), grid("slabs.nii"));
    }
    assert!(folder.path("slabs.png").exists() && folder.path("slabs.config.json").exists());
    // In every format that grows.
    let whole = folder.values("whole.nii");
    for name in ["a.nii.gz", "a.npy", "a.tif", "a/"] {
        folder.run(&format!("ct reconstruct s.h5 -m tv --memory 0.0008 -o {name}")).good();
        assert!(difference(&whole, &folder.values(name)) < 0.02, "{name}");
    }
    let before = folder.names();
    let refused =
        |rest: &str, words: &[&str]| folder.run(&format!("ct reconstruct s.h5 {rest}")).fails(2, words);
    refused("-m fbp --memory 0.0003 -o b.h5", &["b.h5", ".nii.gz"]);
    refused("-m fbp --memory 0.0003 -o b.nii --reference chest.nii.gz", &["--reference", "compare"]);
    refused("-m tv --coupled --memory 0.0008 -o b.nii", &["--memory", "--coupled", "GiB"]);
    refused("-m fbp --memory 0.00001 -o b.nii", &["--memory", "single slice", "GiB"]);
    refused("-m fbp --memory 0 -o b.nii", &["--memory", "more than 0"]);
    assert_eq!(folder.names(), before, "no output is left");
}

#[test]
fn slabs_of_cones_read_the_rows_of_their_shadow() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 16, 32);
    folder.run("ct simulate chest.nii.gz -o s.h5 --views 60 --geometry cone --source-origin 900").good();
    folder.run("ct reconstruct s.h5 -o whole.nii -m fdk").good();
    let report = folder.run("ct reconstruct s.h5 -o slabs.nii -m fdk --memory 0.001 --json").json();
    assert!(report["slabs"].as_u64().unwrap() >= 2, "{report}");
    assert!(difference(&folder.values("whole.nii"), &folder.values("slabs.nii")) < 1e-5);
    folder.run("ct reconstruct s.h5 -o x.nii -m sirt --memory 0.001").fails(2, &["--memory", "sirt", "GiB"]);
}

#[test]
fn raw_projections_are_prepared_row_by_row() {
    let folder = Folder::new();
    let (rows, views, columns, center) = (9, 60, 64, 30.5);
    let angles: Vec<f64> = (0..views).map(|i| std::f64::consts::PI * i as f64 / views as f64).collect();
    let offset = wellposed::reconstruct::preprocess::center_to_offset(center, columns, 1.0);
    let beam = wellposed::operator::ct::ParallelBeam::new(angles, columns, 1.0).unwrap().with_offset(offset);
    let head = wellposed::phantom::shepp_logan(wellposed::phantom::Contrast::Modified, 25.0).scaled(0.05);
    let p = head.project::<f32>(&beam).unwrap().reshape((views, 1, columns)).unwrap();
    // Rows that differ, two zingers, and a pixel that sees no beam.
    let slopes = Tensor::arange(0f32, rows as f32, &Device::Cpu).unwrap().reshape((1, rows, 1)).unwrap();
    let p = p.broadcast_mul(&((slopes * 0.05).unwrap() + 0.6).unwrap()).unwrap();
    let mut counts: Vec<f32> = p
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap()
        .iter()
        .map(|p| 100.0 + 1900.0 * (-p).exp())
        .collect();
    for view in [7, 17] {
        counts[(view * rows + 4) * columns + 20] = 60_000.0;
    }
    let exposures = Tensor::from_vec(counts.clone(), (views, rows, columns), &Device::Cpu).unwrap();
    let (_, replaced) = Outliers::default().remove(&exposures).unwrap();
    let write = |values: Vec<f32>, shape: (usize, usize, usize), name: &str| {
        let data = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap().write(folder.path(name)).unwrap();
    };
    let mut flat = vec![2000.0; rows * columns];
    flat[3 * columns + 40] = 90.0;
    write(counts, (views, rows, columns), "views.tif");
    write(flat, (1, rows, columns), "flat.tif");
    write(vec![100.0; rows * columns], (1, rows, columns), "dark.tif");
    let prepare =
        "--flat flat.tif --dark dark.tif --arc 180 --center auto --outliers --rings sorting --pad 8";
    for method in ["fbp", "tv -i 10"] {
        let run = format!("ct reconstruct views.tif {prepare} -m {method}");
        let whole = folder.run(&format!("{run} -o whole.nii")).good().stderr;
        assert!(whole.contains(&format!("{replaced} pixels far off")), "{replaced}: {whole}");
        let slabs = folder.run(&format!("{run} -o slabs.nii --memory 0.0007 --json")).good();
        assert_eq!(whole, slabs.stderr, "the same centre, and the same number of bad pixels");
        assert!(slabs.json()["slabs"].as_u64().unwrap() >= 2);
        let found = difference(&folder.values("whole.nii"), &folder.values("slabs.nii"));
        assert!(found <= if method == "fbp" { 0.0 } else { 1e-5 }, "{method}: {found}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_slab_leaves_nothing() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 6, 64);
    folder.run("ct simulate chest.nii.gz -o s.h5 --views 60").good();
    let before = folder.names();
    let arguments = "ct reconstruct s.h5 -o r.nii.gz -m sirt -i 1000000 --memory 0.0007";
    let soon = || std::thread::sleep(std::time::Duration::from_secs(3));
    folder.interrupted(arguments, soon).fails(1, &["stopped in slab 1", "nothing is written"]);
    assert_eq!(folder.names(), before);
}
