//! `wellposed info`: what this build and machine offer, or what a file holds.

use clap::Args;
use serde::Serialize;

use super::console;
use super::failure::Outcome;

/// Arguments of `wellposed info`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Machine {
    version: &'static str,
    target: String,
    threads: usize,
    simd: Vec<&'static str>,
    devices: Vec<&'static str>,
    features: Vec<&'static str>,
}

impl Machine {
    fn this() -> Self {
        let enabled = [("openblas", cfg!(feature = "openblas")), ("cuda", cfg!(feature = "cuda"))];
        let mut devices = vec!["cpu"];
        if candle_core::utils::cuda_is_available() {
            devices.push("cuda");
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            target: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            threads: rayon::current_num_threads(),
            simd: simd(),
            devices,
            features: enabled.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    found.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn simd() -> Vec<&'static str> {
    Vec::new()
}

pub fn run(arguments: &Arguments) -> Outcome {
    let machine = Machine::this();
    if arguments.json {
        return console::print_json(&machine);
    }
    let list = |items: &[&str]| if items.is_empty() { "none".to_string() } else { items.join(", ") };
    console::print(&format!(
        "wellposed {}\ntarget    {}\nthreads   {}\nsimd      {}\ndevices   {}\nfeatures  {}\n",
        machine.version,
        machine.target,
        machine.threads,
        list(&machine.simd),
        list(&machine.devices),
        list(&machine.features),
    ))
}
