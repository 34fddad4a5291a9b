use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use proptest::prelude::*;
use wellposed::io::{DicomOptions, ReadOptions, Unit, Volume, read_volume, read_volume_with, write_dicom};

use super::{displacement, oblique, tensor, values};

/// A slice as another program might write it: 1 × 2 pixels at a place along z.
fn slice(
    folder: &std::path::Path,
    name: &str,
    series: &str,
    z: f64,
    pixels: [u16; 2],
    change: &[(dicom_object::Tag, &str)],
) {
    let mut object = InMemDicomObject::new_empty();
    for (tag, vr, text) in [
        (tags::SERIES_INSTANCE_UID, VR::UI, format!("1.2.3.{series}")),
        (tags::SERIES_DESCRIPTION, VR::LO, format!("Series {series}")),
        (tags::SERIES_NUMBER, VR::IS, series.to_string()),
        (tags::MODALITY, VR::CS, "CT".into()),
        (tags::IMAGE_POSITION_PATIENT, VR::DS, format!("-10\\-20\\{z}")),
        (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0".into()),
        (tags::PIXEL_SPACING, VR::DS, "0.5\\0.25".into()),
        (tags::SLICE_THICKNESS, VR::DS, "3".into()),
        (tags::RESCALE_SLOPE, VR::DS, "2".into()),
        (tags::RESCALE_INTERCEPT, VR::DS, "-1024".into()),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into()),
    ] {
        object.put_str(tag, vr, text);
    }
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1u16),
        (tags::ROWS, 1),
        (tags::COLUMNS, 2),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    for (tag, text) in change {
        object.put_str(*tag, VR::DS, *text);
    }
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into_iter().collect())));
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("1.2.3.4")
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    object.with_meta(meta).unwrap().write_to_file(folder.join(name)).unwrap();
}

fn message(folder: &std::path::Path) -> String {
    read_volume(folder).unwrap_err().to_string()
}

#[test]
fn slices_are_sorted_by_place_and_rescaled() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    // 12 stored bits, signed: 0x800 is −2048; the bits above are an overlay that must not count.
    slice(f, "c", "1", 10.0, [0xf005, 0x0800], &[]);
    slice(f, "a", "1", 15.0, [1, 2], &[]);
    slice(f, "b", "1", 5.0, [3, 4], &[(tags::RESCALE_SLOPE, "4")]);
    std::fs::write(f.join("notes.txt"), "not DICOM").unwrap();
    let volume = read_volume(f).unwrap();
    assert_eq!(values(volume.data()), [-1012.0, -1008.0, -1014.0, -5120.0, -1022.0, -1020.0]);
    assert_eq!((volume.grid().spacing(), volume.unit()), ([5.0, 0.5, 0.25], Unit::Hounsfield));
    let affine = volume.grid().affine();
    assert_eq!([affine[(0, 3)], affine[(1, 3)], affine[(2, 3)]], [10.0, 20.0, 5.0]);
    assert_eq!(volume.grid().orientation(), "LPS");
    let one = read_volume(f.join("a")).unwrap();
    assert_eq!((one.grid().shape(), one.grid().spacing()), ([1, 1, 2], [3.0, 0.5, 0.25]));
}

#[test]
fn gaps_doubles_and_mixed_series_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    assert!(message(f).contains("holds no DICOM"));
    for (name, z) in [("a", 0.0), ("b", 2.0), ("c", 4.0), ("e", 10.0)] {
        slice(f, name, "1", z, [1, 2], &[]);
    }
    let gap = message(f);
    assert!(
        gap.contains("2 missing slices between 4.000 mm (c) and 10.000 mm (e): the usual step is 2.000 mm"),
        "{gap}"
    );
    std::fs::remove_file(f.join("e")).unwrap();
    slice(f, "d", "1", 4.0, [1, 2], &[]);
    assert!(message(f).contains("c and d lie at the same place"), "{}", message(f));
    slice(f, "d", "1", 6.0, [1, 2], &[(tags::PIXEL_SPACING, "0.5\\0.5")]);
    assert!(message(f).contains("differ in size, orientation or pixel spacing"));
    slice(f, "d", "1", 6.0, [1, 2], &[(tags::PIXEL_SPACING, "-1\\1")]);
    assert!(message(f).contains("d: PixelSpacing: expected positive"));
    slice(f, "d", "2", 6.0, [7, 8], &[]);
    let two = message(f);
    assert!(
        two.contains("holds 2 series, choose one: 1) CT \"Series 1\" (number 1), 3 slices, 1.2.3.1"),
        "{two}"
    );
    for series in ["2", "1.2.3.2", "series 2"] {
        let options = ReadOptions { series: Some(series.into()), ..Default::default() };
        assert_eq!(values(read_volume_with(f, &options).unwrap().data()), [-1010.0, -1008.0]);
    }
    let options = ReadOptions { series: Some("9".into()), ..Default::default() };
    assert!(read_volume_with(f, &options).unwrap_err().to_string().contains("\"9\" fits 0 of the series"));
}

#[test]
fn truncated_slices_are_named() {
    let folder = tempfile::tempdir().unwrap();
    slice(folder.path(), "a.dcm", "1", 0.0, [1, 2], &[]);
    let path = folder.path().join("a.dcm");
    let bytes = std::fs::read(&path).unwrap();
    for length in [140, 300, bytes.len() - 2] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let message = message(&path);
        assert!(message.contains("a.dcm: "), "{message}");
    }
}

#[test]
fn magnitudes_are_written_with_sixteen_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("series");
    let data = (tensor(&[2, 4, 5]) * 1e-3).unwrap();
    let volume = Volume::centred(data, [2.0, 1.0, 1.0], Unit::Arbitrary).unwrap();
    write_dicom(&volume, &path, &DicomOptions::default()).unwrap();
    let back = read_volume(&path).unwrap();
    let worst =
        values(back.data()).iter().zip(values(volume.data())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1.6 / 65520.0, "{worst}");
    assert!(
        write_dicom(&volume, &path, &DicomOptions::default())
            .unwrap_err()
            .to_string()
            .contains("exists already")
    );
}

#[test]
fn a_name_with_a_slash_at_its_end_is_a_series() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = (tensor(&[2, 4, 5]) * 1e-5).unwrap();
    let volume = Volume::centred(data, [2.0, 1.0, 1.0], Unit::PerMillimetre).unwrap();
    wellposed::io::check_output(path("series/")).unwrap();
    volume.write(path("series/")).unwrap();
    let back = read_volume(path("series")).unwrap();
    assert_eq!(back.unit(), Unit::PerMillimetre);
    assert_eq!(back.grid().spacing(), [2.0, 1.0, 1.0]);
    let pairs = values(back.data()).into_iter().zip(values(volume.data()));
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-2 * 1.6 / 65520.0));
    let again = wellposed::io::check_output(path("series/")).unwrap_err().to_string();
    assert!(again.contains("exists already"), "{again}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn oblique_series_come_back_to_their_place(
        shape in prop::array::uniform3(2usize..5),
        spacing in prop::array::uniform3(0.3f64..4.0),
    ) {
        let volume = oblique(shape, spacing, 1.0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("series");
        write_dicom(&volume, &path, &DicomOptions { description: "ü".into(), ..Default::default() }).unwrap();
        let back = read_volume(&path).unwrap();
        prop_assert!(displacement(back.grid(), volume.grid()) < 1e-3);
        let rounded: Vec<f32> = values(volume.data()).iter().map(|v| v.round()).collect();
        prop_assert_eq!(values(back.data()), rounded);
    }
}
