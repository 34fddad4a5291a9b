//! Files of other programs, in and out.

use candle_core::{Device, Tensor};
use wellposed::io::{Beam, CtScan, Unit, Volume};
use wellposed::phantom::Thorax;

use super::Folder;

fn psnr(folder: &Folder, arguments: &str) -> f64 {
    folder.run(&format!("{arguments} --json")).json()["metrics"]["volume"]["psnr"].as_f64().unwrap()
}

#[test]
fn each_seed_is_a_patient() {
    let folder = Folder::new();
    let phantom = |rest: &str| folder.run(&format!("ct phantom --slices 3 --size 32 {rest}"));
    phantom("-o a.nii --spacing 20 --seed 4 --plot a.png").good();
    phantom("-o b.nii --spacing 20 --seed 5").good();
    let shape = [3, 32, 32];
    let pixel = 410.0 / 32.0;
    let thorax = Thorax { shape, spacing: [20.0, pixel, pixel], centre: -5.0, seed: 4 };
    let expected = thorax.volume().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(folder.values("a.nii") == expected && folder.values("b.nii") != expected);
    assert!(folder.path("a.png").exists() && folder.path("a.config.json").exists());
    phantom("-o c.nii --spacing 0").fails(2, &["spacing"]);
    assert!(!folder.path("c.nii").exists());
}

#[test]
fn a_reconstruction_becomes_a_dicom_series() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 2, 48);
    folder.run("ct simulate chest.nii.gz -o scan.h5 --views 40").good();
    folder.run("ct reconstruct scan.h5 -m fbp -o own.nii.gz").good();
    folder.run("ct reconstruct scan.h5 -m fbp -o series/").good();
    assert!(folder.path("series.config.json").exists());
    assert_eq!(std::fs::read_dir(folder.path("series")).unwrap().count(), 2);
    let (own, series) = (folder.values("own.nii.gz"), folder.values("series"));
    assert!(own.iter().zip(&series).all(|(a, b)| (a - b).abs() <= 0.5));
    folder.run("ct reconstruct scan.h5 -m fbp -o series/").fails(2, &["series/", "exists already"]);
}

#[test]
fn kspace_goes_through_ismrmrd_and_bart() {
    let folder = Folder::new();
    let data: Vec<f32> = (0..40 * 32)
        .map(|i| f32::from(u8::from((i / 32 - 20_i32).pow(2) + (i % 32 - 14).pow(2) < 100)))
        .collect();
    let data = Tensor::from_vec(data, (1, 40, 32), &Device::Cpu).unwrap();
    Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap().write(folder.path("t1.nii")).unwrap();
    for (mask, rest) in [("equispaced", ""), ("radial", "--acceleration 1"), ("partial", "")] {
        let mut reached = Vec::new();
        for ending in ["h5", "mrd", "cfl"] {
            folder.run(&format!("mri simulate t1.nii -o s.{ending} --coils 2 --mask {mask} {rest}")).good();
            let run = format!(
                "mri reconstruct s.{ending} -m zero-filled --maps low-resolution -o r.nii --reference t1.nii"
            );
            reached.push(psnr(&folder, &run));
        }
        // A .cfl says no noise and no size of pixels, but holds the same numbers.
        assert!(reached.iter().all(|p| (p - reached[0]).abs() < 0.05), "{mask}: {reached:?}");
        for name in ["s_traj.cfl", "s_traj.hdr"] {
            let _ = std::fs::remove_file(folder.path(name));
        }
    }
    folder.run("mri simulate t1.nii -o p.mrd --mask poisson").fails(1, &["whole readouts"]);
}

#[test]
fn sinograms_of_any_order_are_padded_and_straightened() {
    let folder = Folder::new();
    let (views, columns) = (60, 80);
    let angles: Vec<f64> = (0..views).map(|i| std::f64::consts::PI * i as f64 / views as f64).collect();
    let beam = wellposed::operator::ct::ParallelBeam::new(angles, columns, 1.0).unwrap();
    let head = wellposed::phantom::shepp_logan(wellposed::phantom::Contrast::Modified, 33.0).scaled(0.05);
    let p = head.project::<f32>(&beam).unwrap().reshape((1, views, columns)).unwrap();
    let write = |data: &Tensor, name: &str| {
        let data = data.contiguous().unwrap();
        Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap().write(folder.path(name)).unwrap();
    };
    write(&p, "plain.npy");
    write(&p.transpose(1, 2).unwrap(), "turned.npy");
    // A spectrum that hardens: what was p is seen as q, p = q + 0.1 q².
    write(
        &((((&p * 0.4).unwrap() + 1.0).unwrap().sqrt().unwrap() - 1.0).unwrap() * 5.0).unwrap(),
        "hard.npy",
    );
    let run =
        |rest: &str| folder.run(&format!("ct reconstruct {rest} --sinograms --arc 180 -m fbp -o r.nii"));
    let image = |rest: &str| {
        run(rest).good();
        folder.values("r.nii")
    };
    let plain = image("plain.npy");
    let same = |other: Vec<f32>, limit: f32| plain.iter().zip(&other).all(|(a, b)| (a - b).abs() < limit);
    assert!(same(image("turned.npy --transpose"), 1e-7));
    assert!(same(image("hard.npy --beam-hardening 1,0.1"), 1e-5) && !same(image("hard.npy"), 1e-3));
    // The head lies within the detector: zeros beside it change the corners alone, which more bins see now.
    let padded = image("plain.npy --pad 20");
    let inside = |at: usize| ((at / 80) as f64 - 39.5).hypot((at % 80) as f64 - 39.5) < 38.0;
    assert!((0..80 * 80).filter(|at| inside(*at)).all(|at| (plain[at] - padded[at]).abs() < 1e-6));
    assert!((0..80 * 80).any(|at| (plain[at] - padded[at]).abs() > 1e-5));
    run("plain.npy --beam-hardening 1,inf").fails(2, &["--beam-hardening", "inf"]);
    run("plain.npy --row-offset 2").fails(2, &["--row-offset", "cone"]);
    run("plain.npy --ring-size 4 --rings sorting").fails(2, &["--ring-size", "odd"]);
    folder.run("ct reconstruct plain.npy --transpose --arc 180 -m fbp -o r.nii").fails(2, &["--sinograms"]);
    folder.run("ct reconstruct plain.npy --arc 180 -m fbp --huber 1 -o r.nii").fails(2, &["--huber", "tv"]);
}

#[test]
fn displaced_detectors_and_hubers_penalty() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 3, 32);
    let reconstruct =
        |rest: &str| psnr(&folder, &format!("ct reconstruct s.h5 --reference chest.nii.gz -o r.nii {rest}"));
    folder.run("ct simulate chest.nii.gz -o s.h5 --offset 3.5 --views 60 --photons 0").good();
    let (sharp, smooth) = (reconstruct("-m tv -i 100"), reconstruct("-m tv -i 100 --huber 50"));
    assert!(sharp > 20.0 && smooth > 20.0 && sharp != smooth, "{sharp} {smooth}");
    let cone = "ct simulate chest.nii.gz -o s.h5 --geometry cone --views 60 --photons 0";
    folder.run(cone).good();
    let straight = reconstruct("-m os-sart -i 5");
    folder.run(&format!("{cone} --row-offset 4 --offset -2")).good();
    let shifted = reconstruct("-m os-sart -i 5");
    assert!((straight - shifted).abs() < 2.0, "{straight} {shifted}");
    // A detector that is moved up sees the body further down.
    let mean_row = |options: &str| {
        folder.run(&format!("{cone} {options}")).good();
        let scan = CtScan::read(folder.path("s.h5")).unwrap();
        let Beam::Cone { row_pitch, .. } = scan.geometry.beam else { panic!("{:?}", scan.geometry.beam) };
        let sums: Vec<f32> = scan.projections.sum((1, 2)).unwrap().to_vec1().unwrap();
        let moment: f64 = sums.iter().enumerate().map(|(row, sum)| row as f64 * f64::from(*sum)).sum();
        row_pitch * moment / f64::from(sums.iter().sum::<f32>())
    };
    let moved = mean_row("") - mean_row("--row-offset 4");
    assert!((moved - 4.0).abs() < 0.5, "{moved} mm");
    folder.run("ct simulate chest.nii.gz -o s.h5 --row-offset 4").fails(2, &["--row-offset", "cone"]);
}

#[test]
fn cones_are_followed_by_footprints_too() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 3, 32);
    let simulate = |rest: &str| folder.run(&format!("ct simulate chest.nii.gz -o s.h5 --photons 0 {rest}"));
    simulate("--geometry cone --views 60 --projector footprint").good();
    let reached = |projector: &str| {
        let run = "ct reconstruct s.h5 -m os-sart -i 5 --reference chest.nii.gz -o r.nii --projector";
        psnr(&folder, &format!("{run} {projector}"))
    };
    let (own, other) = (reached("footprint"), reached("joseph"));
    assert!(own > 20.0 && own != other && (own - other).abs() < 2.0, "{own} {other}");
    let refused = |rest: &str, words: &[&str]| {
        folder.run(&format!("ct reconstruct s.h5 -o r.nii --projector footprint {rest}")).fails(2, words);
    };
    refused("-m fdk", &["--projector", "fbp"]);
    simulate("--views 60 --projector footprint").fails(2, &["--projector", "parallel"]);
    simulate("--views 60 --geometry fan --projector footprint").fails(2, &["--projector", "fan-flat"]);
    simulate("--views 60 --geometry fan").good();
    refused("-m sirt", &["--projector", "fan-flat"]);
}
