//! Priors that come along, found by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use crate::error::{Error, Result};
use crate::prior::bm3d::Bm3d;
use crate::prior::checkpoint::{Card, Prior};
use crate::tensor::Field;

/// Name and contents of the priors in the program itself; data/priors has their model cards.
const SHIPPED: &[(&str, &[u8])] = &[
    ("brain", include_bytes!("../../data/priors/brain.safetensors")),
    ("ct", include_bytes!("../../data/priors/ct.safetensors")),
];

/// The name of the denoiser that needs no training.
pub const BM3D: &str = "bm3d";

impl Prior {
    /// [`Bm3d`] as a prior: of real images in units of 1000 HU, or of complex ones whose 99.9th percentile is 1. Its own
    /// answers depend on no units.
    pub fn bm3d(field: Field) -> Self {
        let (channels, unit, window) = match field {
            Field::Real => (1, "HU", Some((-1000.0, 1000.0))),
            Field::Complex => (2, "magnitude, 99.9th percentile = 1", None),
        };
        let card = Card {
            name: BM3D.into(),
            family: "BM3D, block matching and filtering without training".into(),
            channels,
            parameters: 0,
            range: (-1.0, 1.0),
            unit: unit.into(),
            window,
            prediction: "the denoised image".into(),
            size: None,
            granule: 1,
            network: serde_json::Value::Null,
            training: serde_json::Value::Null,
        };
        Self { card, denoiser: Arc::new(Bm3d::new(field)) }
    }

    /// A prior by name or by path: a file or folder where one is at `name`; else NAME.safetensors in a folder `priors`
    /// beside the program, or in `../share/wellposed/priors`; else the one that comes along.
    ///
    /// ```
    /// let prior = wellposed::prior::checkpoint::Prior::find("ct")?;
    /// assert_eq!(prior.card.window, Some((-1000.0, 1000.0)));
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Parameter`] with the known names where there is no such prior; else as [`Prior::open`].
    pub fn find(name: &str) -> Result<Self> {
        Self::find_on(name, &Device::Cpu)
    }

    /// [`Prior::find`] with the network on this device; `bm3d`, which takes either kind of images, for real ones.
    ///
    /// # Errors
    /// As [`Prior::find`].
    pub fn find_on(name: &str, device: &Device) -> Result<Self> {
        Self::find_for(name, Field::Real, device)
    }

    /// [`Prior::find_on`] for images of this field, where the prior leaves it open.
    ///
    /// # Errors
    /// As [`Prior::find`]; a network keeps the field of its training, which may be another one.
    pub fn find_for(name: &str, field: Field, device: &Device) -> Result<Self> {
        if Path::new(name).exists() {
            return Self::open_on(name, device);
        }
        if let Some(path) = beside_the_program(name).into_iter().find(|path| path.is_file()) {
            return Self::open_on(path, device);
        }
        if let Some((name, bytes)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::from_bytes_on(bytes, format!("the prior `{name}`"), device);
        }
        if name == BM3D {
            return Ok(Self::bm3d(field));
        }
        Err(Error::parameter(
            "prior",
            name,
            format!("no such file, and the names known are: {}", names().join(", ")),
        ))
    }
}

/// Names of the priors that come along: networks, and `bm3d`.
///
/// ```
/// assert!(wellposed::prior::shipped_names().contains(&"ct"));
/// ```
pub fn names() -> Vec<&'static str> {
    SHIPPED.iter().map(|(name, _)| *name).chain([BM3D]).collect()
}

fn beside_the_program(name: &str) -> Vec<PathBuf> {
    // A name, not a path: nothing outside these folders.
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let program = std::env::current_exe().ok();
    let Some(folder) = program.as_deref().and_then(Path::parent).filter(|_| plain) else { return Vec::new() };
    let file = format!("{name}.safetensors");
    vec![folder.join("priors").join(&file), folder.join("../share/wellposed/priors").join(&file)]
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Tensor};

    use super::*;
    use crate::prior::Denoiser;
    use crate::tensor::Space;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::relative_difference;

    /// Soft tissue with two lungs in air, in network units.
    fn chest(size: usize) -> Tensor {
        let inside = |x: f64, y: f64, cx: f64, w: f64, h: f64| ((x - cx) / w).powi(2) + (y / h).powi(2) < 1.0;
        let pixel = |i: usize| {
            let (x, y) = ((i % size) as f64 / size as f64 - 0.5, (i / size) as f64 / size as f64 - 0.5);
            let lung = inside(x, y, -0.16, 0.11, 0.18) || inside(x, y, 0.16, 0.11, 0.18);
            if lung {
                -0.85
            } else if inside(x, y, 0.0, 0.4, 0.28) {
                0.04
            } else {
                -1.0f32
            }
        };
        Tensor::from_iter((0..size * size).map(pixel), &Device::Cpu).unwrap().reshape((size, size)).unwrap()
    }

    /// At each σ the prior leaves at most this fraction of the noise.
    fn assert_denoises(name: &str, x: &Tensor, space: &Space, levels: [(f64, f64); 3]) {
        let prior = Prior::find(name).unwrap().denoiser;
        prior.check(space).unwrap();
        for (sigma, allowed) in levels {
            let noise = (standard_normal(Noise::new(3, 0), space, &[]).unwrap() * sigma).unwrap();
            let noisy = (x + noise).unwrap();
            let before = relative_difference(&noisy, x).unwrap();
            let after = relative_difference(&prior.denoise(&noisy, sigma).unwrap(), x).unwrap();
            assert!(after < allowed * before, "σ {sigma}: {before} → {after}");
        }
    }

    #[test]
    fn the_ct_prior_removes_most_of_the_noise() {
        let space = Space::real(&[96, 96], DType::F32, &Device::Cpu);
        assert_denoises("ct", &chest(96), &space, [(0.05, 0.8), (0.3, 0.45), (1.0, 0.25)]);
    }

    /// A head of two tissues whose phase varies: with complex noise, most of it goes.
    #[test]
    fn the_brain_prior_removes_most_of_the_noise_of_complex_images() {
        let size = 96;
        let pixel = |i: usize| {
            let (x, y) = ((i % size) as f64 / size as f64 - 0.5, (i / size) as f64 / size as f64 - 0.5);
            let r = (x / 0.36).hypot(y / 0.44);
            let magnitude = if r > 1.0 {
                0.0
            } else if r > 0.6 {
                0.4
            } else {
                0.7
            };
            let (sin, cos) = (1.5 * x - y).sin_cos();
            [(magnitude * cos) as f32, (magnitude * sin) as f32]
        };
        let x = Tensor::from_iter((0..size * size).flat_map(pixel), &Device::Cpu).unwrap();
        let x = x.reshape((size, size, 2)).unwrap();
        let space = Space::complex(&[size, size], DType::F32, &Device::Cpu);
        assert_denoises("brain", &x, &space, [(0.05, 0.6), (0.3, 0.35), (1.0, 0.25)]);
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let message = Prior::find("nose").unwrap_err().to_string();
        assert!(message.contains("nose") && message.contains("brain, ct"), "{message}");
        assert!(beside_the_program("../etc/x").is_empty());
    }
}
