//! Output files: checked before the work starts, and the configuration that is saved beside the result.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wellposed::error::Error;
use wellposed::io::atomic;

use super::failure::{Failure, Outcome};

/// Endings that are cut off a result's name to make the names of the files beside it.
const ENDINGS: &[&str] =
    &[".nii.gz", ".nii", ".h5", ".hdf5", ".mrd", ".png", ".npy", ".cfl", ".tif", ".tiff"];

/// The file beside `path` whose name ends in `suffix` instead: out.nii.gz → out.config.json.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let lower = name.to_lowercase();
    let stem =
        ENDINGS.iter().find(|e| lower.ends_with(**e)).map_or(&*name, |e| &name[..name.len() - e.len()]);
    path.with_file_name(format!("{stem}{suffix}"))
}

/// The volume beside `path` with `part` before its ending: out.nii.gz → out.std.nii.gz.
pub fn part_of(path: &Path, part: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = beside(path, "").file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A folder is told from a file by the slash at its end.
    let slash = if path.to_string_lossy().ends_with(std::path::is_separator) { "/" } else { "" };
    beside(path, &format!(".{part}{}{slash}", &name[stem.len().min(name.len())..]))
}

/// Usage errors for outputs that can't be written: a volume or scan, and a picture.
pub fn check(output: &Path, volume: bool, plot: Option<&Path>) -> Outcome {
    let refused = |error: Error| match error {
        Error::Parameter { .. } => Failure::Usage(error.to_string()),
        error => Failure::Run(error),
    };
    if volume {
        wellposed::io::check_output(output).map_err(refused)?;
    } else {
        atomic::check_writable(output).map_err(refused)?;
    }
    atomic::check_writable(&beside(output, ".config.json")).map_err(refused)?;
    if let Some(plot) = plot {
        check_plot(plot)?;
    }
    Ok(())
}

/// A usage error unless a picture can be written there.
pub fn check_plot(plot: &Path) -> Outcome {
    if plot.extension().is_none_or(|e| !e.eq_ignore_ascii_case("png")) {
        return Err(Failure::usage("--plot", plot.display(), "expected a name that ends in .png"));
    }
    Ok(atomic::check_writable(plot)?)
}

/// Saves the configuration that ran as `….config.json` beside the result.
pub fn save_config(output: &Path, command: &str, config: &impl Serialize) -> Outcome {
    #[derive(Serialize)]
    struct Saved<'a, C> {
        command: &'a str,
        version: &'a str,
        config: &'a C,
    }
    let saved = Saved { command, version: env!("CARGO_PKG_VERSION"), config };
    save_json(&beside(output, ".config.json"), &saved)
}

/// Saves a JSON file.
pub fn save_json(path: &Path, value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::format(path, e))?;
    Ok(atomic::write(path, |out| std::io::Write::write_all(out, (text + "\n").as_bytes()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_lie_beside_the_result() {
        let name = |path: &str| beside(Path::new(path), ".config.json").display().to_string();
        assert_eq!(name("a/out.nii.gz"), "a/out.config.json");
        assert_eq!(name("scan.H5"), "scan.config.json");
        assert_eq!(name("odd.name"), "odd.name.config.json");
        assert_eq!(part_of(Path::new("a/out.nii.gz"), "std"), Path::new("a/out.std.nii.gz"));
        assert_eq!(part_of(Path::new("odd.npy"), "std"), Path::new("odd.std.npy"));
        assert_eq!(part_of(Path::new("a/series/"), "std").to_str(), Some("a/series.std/"));
        assert_eq!(name("a/series/"), "a/series.config.json");
    }
}
