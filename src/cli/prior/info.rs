//! `wellposed prior info`: what a prior holds.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use wellposed::prior::checkpoint::{Card, Prior};

use crate::cli::console;
use crate::cli::failure::Outcome;

/// Arguments of `wellposed prior info`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Name of a prior that comes along, or its file or folder.
    prior: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    prior: &'a str,
    #[serde(flatten)]
    card: &'a Card,
}

pub fn run(arguments: &Arguments) -> Outcome {
    let prior = Prior::find(&arguments.prior)?;
    if arguments.json {
        return console::print_json(&Report { prior: &arguments.prior, card: &prior.card });
    }
    console::print(&text(&prior.card))
}

fn text(card: &Card) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:12} {value}");
    };
    line("name", card.name.clone());
    line("family", card.family.clone());
    let layout =
        if card.channels == 2 { "2 channels, re and im: complex images" } else { "1 channel: real images" };
    line("images", layout.into());
    line("parameters", format!("{:.2} million", card.parameters as f64 / 1e6));
    line("data range", format!("{} to {}", card.range.0, card.range.1));
    match card.window {
        Some((low, high)) => line("stands for", format!("{low} to {high} {}", card.unit)),
        None => line("unit", card.unit.clone()),
    }
    line("output", card.prediction.clone());
    if let Some([height, width]) = card.size {
        line("size", format!("{height} × {width} in training"));
    }
    line("granule", format!("sizes are padded to multiples of {}", card.granule));
    if let Some(steps) = card.training.get("steps") {
        line("training", format!("{steps} steps"));
    }
    if let Some(psnr) =
        card.training.get("validation").and_then(|v| v.get("psnr")).and_then(|v| v.as_object())
    {
        let mut levels: Vec<(f64, f64)> =
            psnr.iter().filter_map(|(s, v)| Some((s.parse().ok()?, v.as_f64()?))).collect();
        levels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let cells: Vec<String> = levels.iter().map(|(s, v)| format!("σ {s}: {v:.1} dB")).collect();
        line("validation", cells.join(", "));
    }
    out
}
