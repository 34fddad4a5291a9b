//! Pictures of volumes, as a radiologist looks at them.

use wellposed::io::{Grid, Unit, Volume};
use wellposed::plot::{Image, Montage, Panel, Plane, Row, Scale};

use super::failure::Outcome;

/// The window of an image: lowest and highest value shown.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Window {
    pub low: f64,
    pub high: f64,
}

impl std::str::FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected LOW,HIGH with LOW < HIGH, such as -1350,150, found {text}");
        let (low, high) = text.split_once(',').ok_or_else(wrong)?;
        let number = |t: &str| t.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(wrong);
        let (low, high) = (number(low)?, number(high)?);
        if low < high { Ok(Self { low, high }) } else { Err(wrong()) }
    }
}

/// The window asked for, or one that suits the volume: −1000…400 HU, or 0 to the 99.5th percentile.
pub fn scale(volume: &Volume, window: Option<Window>) -> Outcome<Scale> {
    let unit = volume.unit().symbol();
    if let Some(Window { low, high }) = window {
        return Ok(Scale::gray(low, high, unit));
    }
    if volume.unit() == Unit::Hounsfield {
        return Ok(Scale::gray(-1000.0, 400.0, unit));
    }
    let mut values: Vec<f32> = volume.magnitude()?.data().flatten_all()?.to_vec1()?;
    let place = (values.len() - 1) * 199 / 200;
    let (_, high, _) = values.select_nth_unstable_by(place, f32::total_cmp);
    let high = f64::from(*high);
    Ok(Scale::gray(0.0, if high > 0.0 { high } else { 1.0 }, unit))
}

/// The scale of errors of images in `scale`: a fifth of its window to either side.
pub fn error_scale(scale: &Scale) -> Scale {
    let units = if scale.units.is_empty() { "error".into() } else { format!("error, {}", scale.units) };
    Scale::error((scale.high - scale.low) / 5.0, &units)
}

/// A plane of a real volume: the patient's right on the left, front and head up.
pub fn cut(volume: &Volume, plane: Plane, index: usize) -> Outcome<Image> {
    let grid = volume.grid();
    let image = Image::cut(volume.magnitude()?.data(), plane, index, grid.spacing())?;
    let (columns, rows, slices) = (toward(grid, 0), toward(grid, 1), toward(grid, 2));
    // Cuts across the slices come with the first slice at the bottom.
    Ok(match plane {
        Plane::Axial => image.flipped("AS".contains(rows), "RA".contains(columns)),
        Plane::Coronal => image.flipped("IP".contains(slices), columns == 'R'),
        Plane::Sagittal => image.flipped("IP".contains(slices), rows == 'A'),
    })
}

/// Where an axis (0 columns, 1 rows, 2 slices) leads: R, L, A, P, S or I.
fn toward(grid: &Grid, axis: usize) -> char {
    grid.orientation().chars().nth(axis).unwrap_or('?')
}

/// The middle slice with cuts across the slices, where there are enough of those.
pub fn overview(title: &str, volume: &Volume, window: Option<Window>) -> Outcome<Montage> {
    let [slices, rows, columns] = volume.grid().shape();
    let mut panels = vec![Some(Panel::new(title, "", cut(volume, Plane::Axial, slices / 2)?))];
    if slices >= 8 {
        panels.push(Some(Panel::new("", "", cut(volume, Plane::Coronal, rows / 2)?)));
        panels.push(Some(Panel::new("", "", cut(volume, Plane::Sagittal, columns / 2)?)));
    }
    Ok(Montage { rows: vec![Row { scale: scale(volume, window)?, panels }], panel_width: 384 })
}

/// Standard deviations, black where there is none and white at the 99.5th percentile.
pub fn spread(deviation: &Volume) -> Outcome<Montage> {
    let unit = deviation.unit();
    let mut montage = overview("standard deviation", &deviation.clone().with_unit(Unit::Arbitrary), None)?;
    montage.rows.iter_mut().for_each(|row| row.scale.units = unit.symbol().into());
    Ok(montage)
}

/// The middle slice of the reference and of volumes on its grid, with errors below.
pub fn comparison(
    reference: &Volume,
    volumes: &[(&str, String, &Volume)],
    window: Option<Window>,
) -> Outcome<Montage> {
    let middle = reference.grid().shape()[0] / 2;
    let scale = scale(reference, window)?;
    let panels = volumes
        .iter()
        .map(|(title, note, volume)| {
            // Both in the reference's orientation, for they lie on one grid.
            let image = reference.with_data(volume.magnitude()?.data().clone(), volume.unit())?;
            Ok(Panel::new(*title, note.clone(), cut(&image, Plane::Axial, middle)?))
        })
        .collect::<Outcome<Vec<_>>>()?;
    let errors = error_scale(&scale);
    let truth =
        Panel::new("reference", format!("slice {}", middle + 1), cut(reference, Plane::Axial, middle)?);
    Ok(Montage { panel_width: 320, ..Montage::comparison(truth, panels, scale, errors)? })
}
