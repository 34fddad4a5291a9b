//! The methods of `wellposed ct reconstruct`: their names, settings and defaults.

use clap::{Args, ValueEnum};
use serde::Serialize;
use wellposed::io::CtScan;
use wellposed::linalg::Cgls;
use wellposed::observe::{Observer, Solution};

use super::scan;
use crate::cli::failure::Outcome;

/// A reconstruction method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Conjugate gradients for least squares, stopped early.
    Cgls,
}

/// Settings of the methods; what is absent takes the method's default.
#[derive(Clone, Copy, Debug, Args, Serialize)]
pub struct Settings {
    /// Iterations at most [default: 20 for cgls].
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    iterations: Option<u32>,
}

impl Method {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgls => "cgls",
        }
    }

    /// Attenuation in 1/mm [slice, row, column] from the projections.
    pub fn reconstruct(
        self,
        scan: &CtScan,
        settings: &Settings,
        observer: &mut dyn Observer,
    ) -> Outcome<Solution> {
        let a = scan::transform(scan)?;
        let iterations = settings.iterations.map(|n| n as usize);
        match self {
            Self::Cgls => {
                let cgls = Cgls { max_iterations: iterations.unwrap_or(20), ..Cgls::default() };
                Ok(cgls.solve(&a, &scan.projections, None, observer)?)
            }
        }
    }
}

impl Settings {
    /// The settings with the method's defaults filled in.
    pub fn validated(self, method: Method) -> Outcome<Self> {
        let iterations = match method {
            Method::Cgls => Some(self.iterations.unwrap_or(20)),
        };
        Ok(Self { iterations })
    }
}
