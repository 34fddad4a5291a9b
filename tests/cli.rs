//! The tool as a user meets it: the built binary on small volumes, good and bad.
#![cfg(feature = "cli")]

#[path = "cli/diffusion.rs"]
mod diffusion;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/mri.rs"]
mod mri;
#[path = "cli/slabs.rs"]
mod slabs;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use candle_core::{Device, Tensor};
use serde_json::Value;
use tempfile::TempDir;
use wellposed::io::{Unit, Volume, read_volume};
use wellposed::phantom::Thorax;

/// A folder with the files of one test.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs the tool in this folder.
    fn run(&self, arguments: &str) -> Run {
        self.run_with(arguments, &[])
    }

    fn run_with(&self, arguments: &str, environment: &[(&str, &str)]) -> Run {
        let output = self.command(arguments).envs(environment.iter().copied()).output().unwrap();
        Run::of(output, arguments)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellposed"));
        command.args(arguments.split_whitespace()).current_dir(self.0.path()).env("RAYON_NUM_THREADS", "2");
        command
    }

    /// Begins a run of the tool in this folder.
    fn spawn(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs the tool, and sends it a Ctrl-C when `wait` returns.
    #[cfg(unix)]
    fn interrupted(&self, arguments: &str, wait: impl FnOnce()) -> Run {
        let child = self.spawn(arguments);
        wait();
        let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupt.success());
        Run::of(child.wait_with_output().unwrap(), arguments)
    }

    /// The voxels of a volume.
    fn values(&self, name: &str) -> Vec<f32> {
        read_volume(self.path(name)).unwrap().data().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Writes a small chest.
    fn chest(&self, name: &str, slices: usize, size: usize) {
        let spacing = [10.0, 400.0 / size as f64, 400.0 / size as f64];
        let thorax = Thorax { shape: [slices, size, size], spacing, ..Thorax::default() };
        let volume = Volume::centred(thorax.volume().unwrap(), spacing, Unit::Hounsfield).unwrap();
        volume.write(self.path(name)).unwrap();
    }

    fn cube(&self, name: &str, shape: (usize, usize, usize)) {
        let data = Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        Volume::centred(data, [1.0; 3], Unit::Hounsfield).unwrap().write(self.path(name)).unwrap();
    }
}

/// What a run of the tool left behind.
struct Run {
    arguments: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: Output, arguments: &str) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            arguments: arguments.into(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// The run was a success.
    fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.arguments, self.stderr);
        self
    }

    /// stdout is one JSON object.
    fn json(self) -> Value {
        let run = self.good();
        serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{}: {e}: {}", run.arguments, run.stdout))
    }

    /// The run failed with this code and a message that holds these words; nothing is on stdout.
    fn fails(self, code: i32, words: &[&str]) {
        let Self { arguments, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{arguments}: {stderr}");
        assert!(!stderr.contains("panicked") && stdout.is_empty(), "{arguments}: {stdout}{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments}: no “{word}” in: {stderr}");
        }
    }
}

#[test]
fn help_version_and_usage() {
    let folder = Folder::new();
    assert!(folder.run("--help").good().stdout.contains("Computed tomography"));
    assert!(folder.run("--version").good().stdout.contains(env!("CARGO_PKG_VERSION")));
    assert!(folder.run("ct simulate --help").good().stdout.contains("[default: 180]"));
    folder.run("").fails(2, &["Usage"]);
    folder.run("frobnicate").fails(2, &["frobnicate"]);
    let machine = folder.run("info --json --threads 1").json();
    assert_eq!((machine["threads"].as_u64(), machine["devices"][0].as_str()), (Some(1), Some("cpu")));
}

#[test]
fn comparing_volumes() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 48);
    let same = folder.run("compare a.nii.gz a.nii.gz --json --plot a.png").json();
    assert_eq!(same["metrics"]["volume"]["rmse"].as_f64(), Some(0.0));
    assert_eq!(same["metrics"]["slices"].as_array().unwrap().len(), 2);
    assert_eq!(same["metrics"]["data_range"].as_f64(), Some(2000.0));
    assert!(same["metrics"]["volume"]["psnr"].is_null(), "the PSNR of equal volumes is infinite");
    let text = folder.run("compare a.nii.gz a.nii.gz").good().stdout;
    assert!(text.contains("SSIM          1.0000") && text.contains("CT window"), "{text}");
    assert_eq!(folder.names(), ["a.nii.gz", "a.png"]);
    folder.chest("b.nii.gz", 3, 48);
    folder.run("compare a.nii.gz b.nii.gz").fails(1, &["b.nii.gz", "[3, 48, 48]", "[2, 48, 48]"]);
    folder.run("compare a.nii.gz a.nii.gz --plot a.jpg").fails(2, &["a.jpg", ".png"]);
    folder.run("compare a.nii.gz a.nii.gz --plot no/a.png").fails(1, &["no/a.png"]);
    folder.run("compare a.nii.gz a.nii.gz --window 5,1").fails(2, &["LOW < HIGH"]);
}

#[test]
fn describing_files() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 32);
    let volume = folder.run("info a.nii.gz --json").json();
    assert_eq!(volume["kind"], "volume");
    assert_eq!(volume["shape"], serde_json::json!([2, 32, 32]));
    assert_eq!(volume["unit"], "HU");
    folder.run("ct simulate a.nii.gz -o s.h5 --views 7").good();
    let scan = folder.run("info s.h5 --json").json();
    assert_eq!((scan["kind"].as_str(), scan["views"].as_u64()), (Some("ct"), Some(7)));
    assert!((scan["arc_degrees"].as_f64().unwrap() - 180.0).abs() < 1e-9);
    assert!(folder.run("info s.h5").good().stdout.contains("views"));
}

/// Cuts a file short, and flips bytes in another copy.
fn damage(folder: &Folder, name: &str) {
    let bytes = std::fs::read(folder.path(name)).unwrap();
    std::fs::write(folder.path(&format!("short-{name}")), &bytes[..bytes.len() / 2]).unwrap();
    let mut flipped = bytes.clone();
    for (i, byte) in flipped.iter_mut().enumerate().take(600) {
        *byte ^= (i % 251) as u8 | 1;
    }
    std::fs::write(folder.path(&format!("bad-{name}")), flipped).unwrap();
}

#[test]
fn damaged_files_are_named() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 1, 32);
    folder.chest("b.nii", 1, 32);
    folder.run("ct simulate a.nii.gz -o s.h5 --views 4").good();
    for name in ["a.nii.gz", "b.nii", "s.h5"] {
        damage(&folder, name);
        for damaged in [format!("short-{name}"), format!("bad-{name}")] {
            folder.run(&format!("info {damaged}")).fails(1, &[&damaged]);
        }
    }
    std::fs::write(folder.path("text.nii"), "not an image").unwrap();
    let before = folder.names();
    folder.run("ct simulate text.nii -o t.h5").fails(1, &["text.nii"]);
    folder.run("ct simulate missing.nii -o t.h5").fails(1, &["missing.nii"]);
    folder.run("ct simulate short-a.nii.gz -o t.h5").fails(1, &["short-a.nii.gz"]);
    assert_eq!(folder.names(), before, "no output is left");
}

#[test]
fn unusable_arguments_of_simulate() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 1, 32);
    let before = folder.names();
    let simulate = |rest: &str| folder.run(&format!("ct simulate a.nii.gz {rest}"));
    simulate("-o s.h5 --views 0").fails(2, &["--views"]);
    simulate("-o s.h5 --views -3").fails(2, &["-3"]);
    simulate("-o s.h5 --detectors 0").fails(2, &["--detectors"]);
    simulate("-o s.h5 --arc 0").fails(2, &["--arc"]);
    simulate("-o s.h5 --arc nan").fails(2, &["--arc"]);
    simulate("-o s.h5 --photons=-5").fails(2, &["--photons"]);
    simulate("-o s.h5 --mu-water 0").fails(2, &["--mu-water"]);
    simulate("-o no/such/s.h5").fails(1, &["no/such/s.h5"]);
    simulate("-o .").fails(2, &["folder"]);
    simulate("").fails(2, &["--output"]);
    folder.run("mri simulate a.nii.gz -o s.h5").fails(1, &["a.nii.gz", "magnitudes"]);
    assert_eq!(folder.names(), before, "no output is left");
}

#[test]
fn volumes_without_a_unit_need_one() {
    let folder = Folder::new();
    let data = Tensor::ones((1, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    Volume::centred(data, [1.0; 3], Unit::Arbitrary).unwrap().write(folder.path("x.nii")).unwrap();
    folder.run("ct simulate x.nii -o s.h5").fails(1, &["--unit"]);
    folder.run("ct simulate x.nii -o s.h5 --unit hu --views 3").good();
    assert!(Path::exists(&folder.path("s.config.json")));
    folder.cube("c.nii", (1, 16, 16));
    folder.run("ct simulate c.nii -o c.h5 --views 3 --photons 0 --plot c.png").good();
}

/// Reconstructs with every method, and returns the PSNR of each.
fn qualities(folder: &Folder, kind: &str, methods: &[&str], reference: &str) -> Vec<f64> {
    let quality = |method: &&str| {
        let arguments = format!(
            "{kind} reconstruct s.h5 -o {method}.nii.gz -m {method} --reference {reference} --json --plot {method}.png"
        );
        let report = folder.run(&arguments).json();
        assert_eq!(report["method"], **method);
        assert_eq!(report["threads"], 2);
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert!(report["iterations"].as_u64().unwrap() >= 1 && report["seconds"].as_f64().unwrap() >= 0.0);
        assert!(
            ["completed", "converged", "max-iterations"].contains(&report["termination"].as_str().unwrap())
        );
        for beside in ["nii.gz", "config.json", "png"] {
            assert!(folder.path(&format!("{method}.{beside}")).exists(), "{method}.{beside}");
        }
        // `compare` finds what the report says, to the rounding of the file.
        let again = folder.run(&format!("compare {method}.nii.gz {reference} --json")).json();
        let psnr = |json: &Value| json["metrics"]["volume"]["psnr"].as_f64().unwrap();
        assert!((psnr(&again) - psnr(&report)).abs() < 0.01, "{method}");
        psnr(&report)
    };
    methods.iter().map(quality).collect()
}

#[test]
fn ct_from_volume_to_metrics() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 64);
    folder.run("ct simulate a.nii.gz -o s.h5 --views 16 --seed 3 --plot s.png").good();
    let psnr = qualities(&folder, "ct", &["fbp", "sirt", "cgls", "tv"], "a.nii.gz");
    assert!(psnr[1..].iter().all(|p| *p > psnr[0] + 1.0), "{psnr:?}");
    let grid = |name: &str| read_volume(folder.path(name)).unwrap().grid().affine().to_owned();
    assert!((grid("tv.nii.gz") - grid("a.nii.gz")).norm() < 1e-4, "the place in the patient is kept");
    let saved: Value =
        serde_json::from_slice(&std::fs::read(folder.path("tv.config.json")).unwrap()).unwrap();
    assert_eq!(saved["config"]["method"], "tv");
    assert!(folder.path("tv-convergence.png").exists());
}

#[test]
fn fans_and_cones_from_volume_to_metrics() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 64);
    let simulate = |rest: &str| folder.run(&format!("ct simulate a.nii.gz -o s.h5 --views 90 {rest}"));
    for (geometry, least) in [("fan", 22.0), ("fan-curved", 22.0), ("cone", 15.0)] {
        simulate(&format!("--geometry {geometry}")).good();
        let beam = folder.run("info s.h5 --json").json()["beam"].as_str().unwrap().to_string();
        assert!(beam.starts_with(geometry), "{beam}");
        let psnr = qualities(&folder, "ct", &["fbp", "os-sart"], "a.nii.gz");
        assert!(psnr.iter().all(|p| *p > least), "{geometry}: {psnr:?}");
    }
    folder.run("ct reconstruct s.h5 -o x.nii.gz -m dds").fails(1, &["cone beam"]);
    folder.run("ct reconstruct s.h5 -o x.nii.gz -m fbp --center auto").fails(2, &["--center", "s.h5"]);
    simulate("--geometry fan --arc 100").good();
    folder.run("ct reconstruct s.h5 -o x.nii.gz -m fdk").fails(1, &["arc", "iterative"]);
    simulate("--geometry fan --source-origin 100").fails(1, &["source to origin", "half the diagonal"]);
    simulate("--source-origin=-1").fails(2, &["--source-origin"]);
    simulate("--feed 3").fails(2, &["--feed", "cone"]);
    simulate("--geometry fan --rows 3").fails(2, &["--rows", "cone"]);
}

#[test]
fn raw_projections_need_no_scan_file() {
    let folder = Folder::new();
    let (views, columns, center) = (60, 80, 37.5);
    let angles: Vec<f64> = (0..views).map(|i| std::f64::consts::PI * i as f64 / views as f64).collect();
    let offset = wellposed::reconstruct::preprocess::center_to_offset(center, columns, 1.0);
    let beam = wellposed::operator::ct::ParallelBeam::new(angles, columns, 1.0).unwrap().with_offset(offset);
    let head = wellposed::phantom::shepp_logan(wellposed::phantom::Contrast::Modified, 33.0).scaled(0.05);
    // Counts [view, row, column] under a flat field of 2000 and a dark one of 100.
    let p = head.project::<f32>(&beam).unwrap().reshape((views, 1, columns)).unwrap();
    let counts = ((p.neg().unwrap().exp().unwrap() * 1900.0).unwrap() + 100.0).unwrap();
    let write = |data: &Tensor, name: &str| {
        Volume::centred(data.clone(), [1.0; 3], Unit::Arbitrary).unwrap().write(folder.path(name)).unwrap();
    };
    write(&counts, "views.tif");
    write(&Tensor::full(2000f32, (1, 1, columns), &Device::Cpu).unwrap(), "flat.tif");
    write(&Tensor::full(100f32, (1, 1, columns), &Device::Cpu).unwrap(), "dark.tif");
    let run = |rest: &str| folder.run(&format!("ct reconstruct views.tif -o r.nii.gz -m fbp {rest}"));
    let fields = "--flat flat.tif --dark dark.tif";
    let found = run(&format!("{fields} --arc 180 --center auto --rings sorting --outliers")).good().stderr;
    let column: f64 =
        found.split("column ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!((column - center).abs() < 0.3, "{found}");
    let pixel = |column: usize| -> f32 {
        let volume = read_volume(folder.path("r.nii.gz")).unwrap();
        volume.data().get(0).unwrap().get(40).unwrap().get(column).unwrap().to_scalar().unwrap()
    };
    // Brain, in 1/mm; the first one is at the axis, where rings are hard to tell from the object.
    assert!([40, 54].iter().all(|x| (pixel(*x) - 0.01).abs() < 0.003), "{} {}", pixel(40), pixel(54));
    run(&format!("{fields} --arc 180 --center 37.5 --filter hann")).good();
    assert!([40, 54].iter().all(|x| (pixel(*x) - 0.01).abs() < 0.003), "{} {}", pixel(40), pixel(54));
    run(fields).fails(1, &["views.tif", "--angles", "--arc"]);
    run("--flat missing.tif --arc 180").fails(1, &["missing.tif"]);
    run("--arc 180 --center left").fails(2, &["--center"]);
    run("--arc 180 --geometry fan").fails(2, &["--source-origin"]);
    run("--arc nan").fails(2, &["--arc"]);
    run("--arc 90 --center auto").fails(1, &["88.50", "image"]);
}

#[test]
fn mri_from_volume_to_metrics() {
    let folder = Folder::new();
    // A picture with smooth parts and edges, not negative.
    let spacing = [10.0, 4.3, 4.3];
    let thorax = Thorax { shape: [1, 96, 96], spacing, ..Thorax::default() }.volume().unwrap();
    let data = (thorax.clamp(-1000f32, 300f32).unwrap() + 1000.0).unwrap();
    Volume::centred(data, spacing, Unit::Arbitrary).unwrap().write(folder.path("a.nii.gz")).unwrap();
    let simulate = "mri simulate a.nii.gz -o s.h5 --coils 6 --acceleration 3 --center 0.2 --plot s.png";
    for mask in ["random", "equispaced", "gaussian", "poisson"] {
        let report = folder.run(&format!("{simulate} --mask {mask} --json")).json();
        assert_eq!(report["seed"], 0);
    }
    let psnr = qualities(&folder, "mri", &["zero-filled", "sense", "wavelet", "tv"], "a.nii.gz");
    assert!(psnr[1..].iter().all(|p| *p > psnr[0] + 1.0), "{psnr:?}");
    let psnr = |scan: &str, rest: &str| -> f64 {
        let arguments = format!("mri reconstruct {scan} -o r.nii.gz {rest} --reference a.nii.gz --json");
        folder.run(&arguments).json()["metrics"]["volume"]["psnr"].as_f64().unwrap()
    };
    // Along trajectories, from gridding to total variation.
    for mask in ["radial", "golden", "spiral"] {
        folder.run(&format!("{simulate} --mask {mask}").replace("s.h5", "t.h5")).good();
        let found = ["zero-filled", "sense", "tv"].map(|m| psnr("t.h5", &format!("-m {m}")));
        assert!(found[1] > found[0] + 1.0 && found[2] > found[0] + 3.0, "{mask}: {found:?}");
    }
    folder.run("mri reconstruct t.h5 -o r.nii.gz -m grappa").fails(1, &["grappa", "trajectory"]);
    // Lines from their neighbours, a missing side from the phase, and fewer coils.
    folder
        .run("mri simulate a.nii.gz -o e.h5 --coils 6 --acceleration 2 --center 0.2 --noise 0.001 --mask equispaced")
        .good();
    assert!(psnr("e.h5", "-m grappa") > psnr("e.h5", "-m zero-filled") + 3.0);
    let (all, few) =
        (psnr("e.h5", "-m sense"), psnr("e.h5", "-m sense --virtual-coils 4 --compression geometric"));
    assert!(few > all - 2.0, "{all} {few}");
    folder.run("mri simulate a.nii.gz -o p.h5 --coils 4 --center 0.2 --mask partial").good();
    for method in ["pocs", "homodyne"] {
        assert!(psnr("p.h5", &format!("-m {method}")) > psnr("p.h5", "-m zero-filled") + 0.5, "{method}");
    }
    folder
        .run("mri reconstruct e.h5 -o r.nii.gz -m sense --virtual-coils 7")
        .fails(2, &["--virtual-coils", "6 coils"]);
    // Measured k-space can be undersampled too, and is read by `info`.
    folder.run("mri simulate a.nii.gz -o full.h5 --acceleration 1 --noise 0 --coils 4").good();
    folder.run("mri simulate full.h5 --kspace -o less.h5 --acceleration 2 --mask equispaced").good();
    let sampled = folder.run("info less.h5 --json").json()["sampled_percent"].as_f64().unwrap();
    assert!((sampled - 50.0).abs() < 5.0, "{sampled}");
}

#[test]
fn results_do_not_depend_on_threads() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 48);
    folder.run("ct simulate a.nii.gz -o s.h5 --views 12").good();
    let report = |threads: &str| {
        let arguments = "ct reconstruct s.h5 -o r.nii.gz -m tv -i 30 --reference a.nii.gz --json";
        let mut report = folder.run_with(arguments, &[("RAYON_NUM_THREADS", threads)]).json();
        let fields = report.as_object_mut().unwrap();
        assert_eq!(fields.remove("threads").unwrap().to_string(), threads);
        fields.remove("seconds");
        report
    };
    assert_eq!(report("1"), report("2"));
}

#[test]
fn unusable_arguments_of_reconstruct() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 1, 32);
    folder.chest("b.nii.gz", 2, 32);
    folder.run("ct simulate a.nii.gz -o s.h5 --views 4").good();
    let before = folder.names();
    let reconstruct = |rest: &str| folder.run(&format!("ct reconstruct {rest}"));
    reconstruct("s.h5 -o r.nii.gz").fails(2, &["--method"]);
    reconstruct("s.h5 -o r.nii.gz -m magic").fails(2, &["magic"]);
    reconstruct("s.h5 -o r.nii.gz -m sirt -i 0").fails(2, &["--iterations"]);
    reconstruct("s.h5 -o r.nii.gz -m tv --strength -1").fails(2, &["-1"]);
    reconstruct("s.h5 -o r.nii.gz -m fbp --cutoff 2").fails(2, &["--cutoff"]);
    reconstruct("s.h5 -o r.doc -m fbp").fails(2, &["r.doc", ".nii.gz"]);
    reconstruct("s.h5 -o no/r.nii.gz -m fbp").fails(1, &["no/r.nii.gz"]);
    reconstruct("a.nii.gz -o r.nii.gz -m fbp").fails(1, &["a.nii.gz"]);
    reconstruct("s.h5 -o r.nii.gz -m fbp --reference b.nii.gz").fails(1, &["b.nii.gz", "[2, 32, 32]"]);
    folder.run("mri reconstruct s.h5 -o r.nii.gz -m sense").fails(1, &["s.h5", "CT"]);
    assert_eq!(folder.names(), before, "no output is left");
}

#[test]
fn the_demo_runs() {
    let folder = Folder::new();
    let table = folder.run("ct demo -o out --size 48 --slices 1 --views 12").good().stdout;
    assert!(["fbp", "sirt", "tv", "PSNR"].iter().all(|word| table.contains(word)), "{table}");
    for name in ["montage.png", "convergence.png", "profile.png", "report.json", "tv.nii.gz", "scan.h5"] {
        assert!(folder.path("out").join(name).exists(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_failure() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_wellposed"))
        .arg("info")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[cfg(unix)]
#[test]
fn an_interrupted_method_keeps_its_estimate() {
    let folder = Folder::new();
    folder.chest("a.nii.gz", 2, 64);
    folder.run("ct simulate a.nii.gz -o s.h5 --views 60").good();
    let arguments = "ct reconstruct s.h5 -o r.nii.gz -m sirt -i 1000000 --json";
    let run = folder.interrupted(arguments, || std::thread::sleep(std::time::Duration::from_secs(3)));
    assert!(run.stderr.contains("estimate so far is written"), "{}", run.stderr);
    assert_eq!(run.json()["termination"], "cancelled");
    assert!(folder.path("r.nii.gz").exists());
}

#[test]
fn priors_tell_dream_and_denoise() {
    let folder = Folder::new();
    let card = folder.run("prior info ct --json").json();
    assert_eq!((card["channels"].as_u64(), card["unit"].as_str()), (Some(1), Some("HU")));
    assert!(folder.run("prior info ct").good().stdout.contains("-1000 to 1000 HU"));
    let drawn = folder.run("prior sample ct -n 2 --size 32x48 --steps 3 -o two.png --json").json();
    assert_eq!(drawn["network_calls"].as_u64(), Some(3));
    folder.run("prior sample ct -n 2 --size 32x48 --steps 3 -o two.npy").good();
    assert_eq!(folder.names(), ["two.config.json", "two.npy", "two.png"]);
    folder.chest("chest.nii.gz", 4, 64);
    let levels = folder.run("prior eval ct . --sigmas 0.1,1 --slices 1 --json").json()["levels"].clone();
    for level in levels.as_array().unwrap() {
        assert!(level["denoised"].as_f64() > level["noisy"].as_f64().map(|v| v + 3.0), "{level}");
    }
    folder.run("prior info nose").fails(1, &["nose", "ct"]);
    folder.run("prior sample ct -n 0 -o x.png").fails(2, &["--count"]);
    folder.run("prior sample ct --size 0x3 -o x.png").fails(2, &["HEIGHTxWIDTH"]);
    std::fs::write(folder.path("bad.safetensors"), b"nothing").unwrap();
    folder.run("prior info bad.safetensors").fails(1, &["bad.safetensors", "safetensors"]);
}

#[test]
fn training_goes_on_where_it_stopped() {
    let folder = Folder::new();
    folder.chest("chest.nii.gz", 3, 48);
    let train = |rest: &str| {
        let settings = "--window=-1000,1000 --unit HU --network small --batch 2 --crop 16 --json";
        folder.run(&format!("prior train chest.nii.gz {settings} {rest}"))
    };
    assert_eq!(train("-o whole --steps 20").json()["steps"], 20);
    train("-o parts --steps 10").good();
    train("-o parts --steps 20").fails(2, &["parts", "--resume"]);
    train("-o parts --steps 20 --resume --rate 1e-3").fails(2, &["--resume", "settings"]);
    train("-o parts --steps 20 --resume").good();
    // After its header, a safetensors file is the numbers alone.
    let weights = |run: &str| {
        let bytes = std::fs::read(folder.path(&format!("{run}/prior.safetensors"))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    assert!(weights("whole") == weights("parts"));
    for name in ["state.safetensors", "loss.png", "samples.png", "log.json"] {
        assert!(folder.path("parts").join(name).exists(), "{name}");
    }
    folder.run("prior sample parts/prior.safetensors -n 1 --size 16x16 --steps 2 -o x.png").good();
}
