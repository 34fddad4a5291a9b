//! MRI beyond slices in a homogeneous field.

use candle_core::{DType, Device, Tensor};
use wellposed::io::{MriScan, Unit, Volume, read_volume};
use wellposed::operator::mri::birdcage;
use wellposed::phantom::Thorax;
use wellposed::tensor::{Buffer, fft};

use super::Folder;

/// A picture with smooth parts and edges, not negative.
fn picture(shape: [usize; 3]) -> Tensor {
    let spacing = [20.0, 400.0 / shape[1] as f64, 400.0 / shape[2] as f64];
    let thorax = Thorax { shape, spacing, ..Thorax::default() }.volume().unwrap();
    (thorax.clamp(-1000f32, 300f32).unwrap() + 1000.0).unwrap()
}

/// An ellipsoid with others in it.
fn body(shape: [usize; 3]) -> Tensor {
    let parts = [
        ([0.0, 0.0, 0.0], [0.8, 0.85, 0.7], 1000f32),
        ([0.0, 0.1, 0.0], [0.7, 0.75, 0.6], -300.0),
        ([0.1, -0.2, 0.2], [0.3, 0.2, 0.15], 400.0),
        ([-0.2, 0.3, -0.2], [0.2, 0.25, 0.2], -300.0),
    ];
    let [_, height, width] = shape;
    let value = |i: usize| {
        let index = [i / width / height, i / width % height, i % width];
        let place: [f64; 3] = std::array::from_fn(|a| 2.0 * index[a] as f64 / (shape[a] - 1) as f64 - 1.0);
        let inside = |(centre, radii, value): &([f64; 3], [f64; 3], f32)| {
            let r: f64 = (0..3).map(|a| ((place[a] - centre[a]) / radii[a]).powi(2)).sum();
            if r < 1.0 { *value } else { 0.0 }
        };
        parts.iter().map(inside).sum::<f32>()
    };
    Tensor::from_vec((0..shape.iter().product()).map(value).collect::<Vec<_>>(), &shape, &Device::Cpu)
        .unwrap()
}

fn write(folder: &Folder, data: &Tensor, name: &str) {
    Volume::centred(data.clone(), [4.0, 2.0, 3.0], Unit::Arbitrary)
        .unwrap()
        .write(folder.path(name))
        .unwrap();
}

fn voxels(folder: &Folder, name: &str) -> Tensor {
    read_volume(folder.path(name)).unwrap().data().clone()
}

fn largest(x: &Tensor) -> f32 {
    x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn volumes_encoded_in_three_dimensions() {
    let folder = Folder::new();
    let truth = body([32, 40, 28]);
    write(&folder, &truth, "a.nii.gz");
    let simulate =
        "mri simulate a.nii.gz -o s.h5 --3d --coils 4 --mask poisson --acceleration 3 --center 0.5";
    folder.run(simulate).good();
    let psnr = |method: &str| {
        let arguments = format!("mri reconstruct s.h5 -o r.nii.gz -m {method} --reference a.nii.gz --json");
        folder.run(&arguments).json()["metrics"]["volume"]["psnr"].as_f64().unwrap()
    };
    let found = ["zero-filled", "sense", "tv"].map(psnr);
    assert!(found[1] > found[0] + 1.0 && found[2] > found[0] + 3.0, "{found:?}");
    let [place, again] = ["a.nii.gz", "r.nii.gz"].map(|name| read_volume(folder.path(name)).unwrap());
    assert!((place.grid().affine() - again.grid().affine()).norm() < 1e-4, "voxels stay where they were");
    // K-space of another program: axes of BART say what they are, those of others need --3d.
    let complex = Tensor::stack(&[&truth, &truth.zeros_like().unwrap()], 3).unwrap();
    let mut kspace = Buffer::copy_of(&complex).unwrap();
    fft::forward(&complex, 3, &mut kspace).unwrap();
    for (name, flag) in [("k.cfl", ""), ("k.npy", "--3d")] {
        write(&folder, kspace.tensor(), name);
        folder.run(&format!("mri reconstruct {name} {flag} -o r.nii.gz -m zero-filled")).good();
        let error = largest(&(voxels(&folder, "r.nii.gz") - &truth).unwrap());
        assert!(error < 1e-3 * largest(&truth), "{name}: {error}");
    }
    write(&folder, &truth, "real.npy");
    folder.run("mri reconstruct real.npy --3d -o r.nii.gz -m tv").fails(1, &["real.npy", "complex"]);
    write(&folder, &complex.narrow(0, 0, 1).unwrap(), "flat.npy");
    folder.run("mri reconstruct flat.npy --3d -o r.nii.gz -m tv").fails(1, &["flat.npy", "kz, ky, kx"]);
}

#[test]
fn volumes_along_trajectories() {
    let folder = Folder::new();
    write(&folder, &body([24, 28, 20]), "a.nii.gz");
    let simulate = "mri simulate a.nii.gz --3d --coils 4 --acceleration 4";
    folder.run(&format!("{simulate} -o s.h5 --mask golden --plot k.png")).good();
    let psnr = |scan: &str, rest: &str| {
        let arguments = format!("mri reconstruct {scan} -o r.nii.gz --reference a.nii.gz --json -m {rest}");
        folder.run(&arguments).json()["metrics"]["volume"]["psnr"].as_f64().unwrap()
    };
    let found = ["zero-filled", "sense", "wavelet", "tv"].map(|method| psnr("s.h5", method));
    assert!(found[1] > 24.0 && found[2] > found[1] && found[3] > found[1] + 2.0, "{found:?}");
    let [place, again] = ["a.nii.gz", "r.nii.gz"].map(|name| read_volume(folder.path(name)).unwrap());
    assert!((place.grid().affine() - again.grid().affine()).norm() < 1e-4, "voxels stay where they were");
    // Through the formats of others: the same k-space, and ISMRMRD's place.
    for scan in ["s.mrd", "s.cfl"] {
        folder.run(&format!("{simulate} -o {scan} --mask golden")).good();
        let own = psnr(scan, "sense");
        assert!((own - found[1]).abs() < 0.01, "{scan}: {own} {found:?}");
    }
    folder.run("mri reconstruct s.mrd -o m.nii.gz -m zero-filled").good();
    let again = read_volume(folder.path("m.nii.gz")).unwrap();
    assert!((place.grid().affine() - again.grid().affine()).norm() < 1e-3, "{}", again.grid().affine());
    for mask in ["radial", "stars"] {
        folder.run(&format!("{simulate} -o t.h5 --mask {mask}")).good();
        let sense = psnr("t.h5", "sense");
        assert!(sense > 22.0, "{mask}: {sense}");
    }
    // A field that is even changes no magnitude.
    write(&folder, &Tensor::full(100f32, (24, 28, 20), &Device::Cpu).unwrap(), "hz.nii.gz");
    let even = psnr("s.h5", "sense --field-map hz.nii.gz --readout 0.5");
    assert!((even - found[1]).abs() < 1.0, "{even} {found:?}");
    folder.run(&format!("{simulate} -o t.h5 --mask spiral")).fails(2, &["--mask", "--3d"]);
    folder.run("mri simulate a.nii.gz -o t.h5 --mask stars").fails(2, &["--mask", "--3d"]);
    folder.run("mri reconstruct s.h5 -o r.nii.gz -m grappa").fails(1, &["grappa", "trajectory"]);
}

#[test]
fn wrong_maps_are_refined_with_all_samples() {
    let folder = Folder::new();
    let slices = body([12, 48, 40]).narrow(0, 4, 2).unwrap();
    write(&folder, &slices, "a.nii.gz");
    let simulate = "mri simulate a.nii.gz --coils 6 --acceleration 2 --noise 0.002";
    folder.run(&format!("{simulate} -o s.h5 --mask poisson --center 0.12")).good();
    // Maps of somebody else, off by a third here and there.
    let mut scan = MriScan::read(folder.path("s.h5")).unwrap();
    let right = birdcage(6, [48, 40], 1, DType::F32, &Device::Cpu).unwrap();
    let factor = |i: usize| 1.0 + 0.3 * ((i / 40 % 48) as f32 / 10.0 + (i / 1920) as f32).sin();
    let factors: Vec<f32> = (0..6 * 1920).map(factor).collect();
    let factors = Tensor::from_vec(factors, (6, 48, 40, 1), &Device::Cpu).unwrap();
    scan.coil_maps = Some(right.broadcast_mul(&factors).unwrap());
    scan.write(folder.path("s.h5")).unwrap();
    let psnr = |rest: &str| {
        let run = "mri reconstruct s.h5 -o r.nii.gz -m wavelet --reference a.nii.gz --json";
        folder.run(&format!("{run} {rest}")).json()["metrics"]["volume"]["psnr"].as_f64().unwrap()
    };
    let found = ["", "--refine-maps=1", "--refine-maps"].map(psnr);
    println!("{found:?}");
    assert!(found[1] > found[0] + 1.0 && found[2] > found[1], "{found:?}");
    folder.run("mri reconstruct s.h5 -o r.nii.gz -m sense --refine-maps=0").fails(2, &["--refine-maps"]);
    folder.run(&format!("{simulate} -o g.h5 --mask golden")).good();
    let along = "mri reconstruct g.h5 -o r.nii.gz -m sense --refine-maps";
    folder.run(along).fails(1, &["--refine-maps", "trajectory"]);
}

#[test]
fn a_constant_offset_of_the_field_moves_the_image() {
    let folder = Folder::new();
    write(&folder, &picture([2, 40, 36]), "a.nii.gz");
    folder.run("mri simulate a.nii.gz -o s.h5 --coils 1 --acceleration 1 --noise 0").good();
    // 300 Hz turn the phase three times in 10 ms.
    let field = Tensor::full(300f32, (1, 40, 36), &Device::Cpu).unwrap();
    write(&folder, &field, "hz.nii.gz");
    folder.run("mri reconstruct s.h5 -o plain.nii.gz -m zero-filled").good();
    folder
        .run("mri reconstruct s.h5 -o moved.nii.gz -m zero-filled --field-map hz.nii.gz --readout 10")
        .good();
    let [plain, moved] = ["plain.nii.gz", "moved.nii.gz"].map(|name| voxels(&folder, name));
    let expected = plain.narrow(2, 3, 33).unwrap();
    let error = largest(&(moved.narrow(2, 0, 33).unwrap() - &expected).unwrap());
    assert!(error < 5e-3 * largest(&plain), "{error}");
    let reconstruct = "mri reconstruct s.h5 -o r.nii.gz -m sense --field-map hz.nii.gz";
    folder.run(reconstruct).fails(2, &["--readout"]);
    folder.run(&format!("{reconstruct} --readout=-1")).fails(2, &["--readout"]);
    let uneven =
        Tensor::cat(&[&field.narrow(1, 0, 20).unwrap(), &field.narrow(1, 0, 20).unwrap().neg().unwrap()], 1);
    write(&folder, &uneven.unwrap(), "hz.nii.gz");
    folder.run(&format!("{reconstruct} --readout 1e6")).fails(1, &["field map", "Hz"]);
    write(&folder, &field.narrow(1, 0, 39).unwrap(), "hz.nii.gz");
    folder.run(&format!("{reconstruct} --readout 10")).fails(1, &["field map", "40, 36"]);
}

#[test]
fn iterations_stop_at_the_noise() {
    let folder = Folder::new();
    write(&folder, &picture([2, 64, 64]), "a.nii.gz");
    folder.run("mri simulate a.nii.gz -o s.h5 --coils 4 --acceleration 2 --center 0.3 --mask poisson --noise 0.02").good();
    let run = |rest: &str| {
        let arguments = "mri reconstruct s.h5 -o r.nii.gz -m sense --strength 0 --reference a.nii.gz --json";
        let report = folder.run(&format!("{arguments} --iterations 60 {rest}")).json();
        let quality = report["metrics"]["volume"]["psnr"].as_f64().unwrap();
        (report["iterations"].as_u64().unwrap(), report["termination"].as_str().unwrap().to_string(), quality)
    };
    let (stopped, all) = (run("--stop-at-noise"), run(""));
    assert!(stopped.0 < 30 && stopped.1 == "converged" && stopped.2 > all.2 + 1.0, "{stopped:?} {all:?}");
    assert!(run("--stop-at-noise=1.2").0 <= stopped.0);
    folder
        .run("mri reconstruct s.h5 -o r.nii.gz -m zero-filled --stop-at-noise")
        .fails(2, &["--stop-at-noise"]);
    folder.run("mri reconstruct s.h5 -o r.nii.gz -m tv --stop-at-noise=0").fails(2, &["--stop-at-noise"]);
}
