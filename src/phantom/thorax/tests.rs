//! What a chest CT must look like, in numbers.

use super::*;

fn small(seed: u64) -> Thorax {
    Thorax { shape: [3, 96, 96], spacing: [12.0, 4.2, 4.2], seed, ..Thorax::default() }
}

fn values(thorax: &Thorax) -> Vec<f32> {
    thorax.volume().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn tissues_have_their_share() {
    let hu = values(&small(1));
    let share =
        |low: f32, high: f32| hu.iter().filter(|v| (low..high).contains(*v)).count() as f64 / hu.len() as f64;
    assert!((0.10..0.30).contains(&share(-950.0, -700.0)), "lungs {}", share(-950.0, -700.0));
    assert!((0.06..0.30).contains(&share(0.0, 130.0)), "muscle and organs {}", share(0.0, 130.0));
    assert!((0.03..0.20).contains(&share(-130.0, -70.0)), "fat {}", share(-130.0, -70.0));
    assert!((0.01..0.06).contains(&share(300.0, 1000.0)), "bone {}", share(300.0, 1000.0));
    assert!(hu.iter().all(|v| (-1000.0..1200.0).contains(v)));
    // The couch makes the last rows different from air; the corners in front are air.
    assert_eq!(hu[0], -1000.0);
}

#[test]
fn a_seed_is_a_patient_at_every_resolution() {
    let coarse = values(&small(3));
    assert_eq!(coarse, values(&small(3)));
    assert_ne!(coarse, values(&small(4)));
    // One slice of a finer stack, at the same place, is the same slice.
    let thin = Thorax { shape: [5, 96, 96], spacing: [6.0, 4.2, 4.2], ..small(3) };
    assert_eq!(values(&thin)[2 * 96 * 96..3 * 96 * 96], coarse[96 * 96..2 * 96 * 96]);
}

#[test]
fn bad_shapes_and_spacings_are_errors() {
    assert!(Thorax { shape: [0, 8, 8], ..Thorax::default() }.volume().is_err());
    assert!(Thorax { shape: [usize::MAX, 8, 8], ..Thorax::default() }.volume().is_err());
    assert!(Thorax { spacing: [1.0, -1.0, 1.0], ..Thorax::default() }.volume().is_err());
}
