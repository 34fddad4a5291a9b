//! What a command reports: metrics, time, how the method ended; as text or as one JSON object.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::{Unit, Volume};
use wellposed::metric::{self, Scores};

use super::console;
use super::failure::Outcome;

/// The width of a CT window of −1000…1000 HU, the data range of PSNR and SSIM in HU.
const CT_RANGE: f64 = 2000.0;

/// The scores of a volume against a reference.
#[derive(Debug, Serialize)]
pub struct Metrics {
    /// The file of the reference.
    pub reference: PathBuf,
    /// Unit of RMSE and MAE.
    pub unit: &'static str,
    /// L of PSNR and SSIM.
    pub data_range: f64,
    /// Where L comes from.
    pub data_range_of: &'static str,
    /// Over the volume; SSIM is the mean over the slices.
    pub volume: Scores,
    /// Slice by slice.
    pub slices: Vec<Scores>,
}

impl Metrics {
    /// Compares `x` with the volume read from `path`; complex volumes by magnitude.
    pub fn of(x: &Volume, reference: &Volume, path: &Path) -> Outcome<Self> {
        let (x, reference) = (x.magnitude()?, reference.magnitude()?);
        if x.grid().shape() != reference.grid().shape() {
            let expected = format!("{:?} as {}", reference.grid().shape(), path.display());
            return Err(Error::shape("compared volume", expected, &x.grid().shape()).into());
        }
        let hounsfield = x.unit() == Unit::Hounsfield && reference.unit() == Unit::Hounsfield;
        let (data_range, data_range_of) = if hounsfield {
            (CT_RANGE, "CT window -1000 to 1000 HU")
        } else {
            (metric::maximum(reference.data())?, "maximum of the reference volume")
        };
        if data_range <= 0.0 {
            let reason = format!("{}: its maximum must be positive to set the data range", path.display());
            return Err(Error::parameter("reference maximum", data_range, reason).into());
        }
        let comparison = metric::compare(x.data(), reference.data(), data_range)?;
        Ok(Self {
            reference: path.to_path_buf(),
            unit: x.unit().symbol(),
            data_range,
            data_range_of,
            volume: comparison.volume,
            slices: comparison.slices,
        })
    }

    /// One line for the heading of a picture.
    pub fn note(scores: &Scores) -> String {
        format!("{:.2} dB · SSIM {:.3}", scores.psnr, scores.ssim)
    }

    fn text(&self) -> String {
        let Scores { psnr, ssim, nmse, relative_l2, rmse, mae } = self.volume;
        let unit = self.unit;
        format!(
            "PSNR          {psnr:.2} dB\nSSIM          {ssim:.4}\nRMSE          {rmse:.4} {unit}\n\
             MAE           {mae:.4} {unit}\nNMSE          {nmse:.3e}\nrelative l2   {relative_l2:.4}\n\
             data range    {} {unit} ({})\n",
            self.data_range, self.data_range_of
        )
    }
}

/// What a command did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Words of the command line that name it.
    pub command: &'static str,
    /// The method's name, where there is a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Scores, where there is a reference.
    pub metrics: Option<Metrics>,
    /// Wall-clock time of the computation without reading and writing.
    pub seconds: f64,
    /// Parts in which the volume was reconstructed, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slabs: Option<usize>,
    /// Steps of the iteration; 1 for a direct method.
    pub iterations: usize,
    /// How the method ended.
    pub termination: &'static str,
    /// What the method watches, and its last value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<(String, f64)>,
    /// Worker threads.
    pub threads: usize,
    /// Seed of the noise, where there is one.
    pub seed: Option<u64>,
    /// Version of this program.
    pub version: &'static str,
    /// The file that was written.
    pub output: Option<PathBuf>,
}

impl Report {
    /// A report on a direct computation.
    pub fn new(command: &'static str, seconds: f64) -> Self {
        Self {
            command,
            method: None,
            metrics: None,
            seconds,
            slabs: None,
            iterations: 1,
            termination: "completed",
            measure: None,
            threads: rayon::current_num_threads(),
            seed: None,
            version: env!("CARGO_PKG_VERSION"),
            output: None,
        }
    }

    /// Prints the report on stdout, as text or as one JSON object.
    pub fn print(&self, json: bool) -> Outcome {
        if json { console::print_json(self) } else { console::print(&self.text()) }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(method) = &self.method {
            let _ = writeln!(text, "method        {method}");
            let _ = writeln!(text, "iterations    {} ({})", self.iterations, self.termination);
        }
        if let Some(slabs) = self.slabs {
            let _ = writeln!(text, "slabs         {slabs}");
        }
        let _ = writeln!(text, "seconds       {:.2}", self.seconds);
        if let Some((name, value)) = &self.measure {
            let _ = writeln!(text, "{name:<13} {value:.3e}");
        }
        if let Some(metrics) = &self.metrics {
            text += &metrics.text();
        }
        if let Some(output) = &self.output {
            let _ = writeln!(text, "written       {}", output.display());
        }
        text
    }
}
