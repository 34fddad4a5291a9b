//! One set of tests for both backends, against residuals, closed forms and known spectra.

use ndarray::{Array1, Array2, array};
use num_complex::Complex;
use num_traits::Float;

use super::*;

/// A reproducible matrix with entries in (−1, 1).
fn random<T: Scalar>(m: usize, n: usize, seed: u64, entry: impl Fn(f64, f64) -> T) -> Array2<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    Array2::from_shape_simple_fn((m, n), || entry(next(), next()))
}

fn size<T: Scalar>(a: &Array2<T>) -> f64 {
    a.iter().map(|x| x.squared_modulus().as_f64()).sum::<f64>().sqrt()
}

fn distance<T: Scalar>(a: &Array2<T>, b: &Array2<T>) -> f64 {
    size(&(a - b)) / size(b).max(f64::MIN_POSITIVE)
}

fn star<T: Scalar>(a: &Array2<T>) -> Array2<T> {
    adjoint(a.view())
}

/// Every factorisation of random matrices, by the products that define them.
fn defining_products<T: Scalar>(entry: impl Fn(f64, f64) -> T + Copy) {
    let tolerance = 200.0 * <T::Modulus as Float>::epsilon().as_f64();
    let near = |what: &str, a: &Array2<T>, b: &Array2<T>| {
        assert!(distance(a, b) < tolerance, "{what}: {:e}", distance(a, b));
    };
    for (m, n) in [(1, 1), (7, 3), (40, 40), (131, 67)] {
        let a = random(m, n, 3, entry);
        let b = random(m, 2, 4, entry);

        let qr = Qr::new("A", a.view()).unwrap();
        near("QR", &qr.q().dot(&qr.r()), &a);
        near("QᴴQ", &star(&qr.q()).dot(&qr.q()), &Array2::eye(n));
        near("Qᴴb", &qr.q_adjoint(b.view()).unwrap(), &star(&qr.q()).dot(&b));
        assert!(qr.r().indexed_iter().all(|((i, j), x)| i <= j || x.is_zero()));

        for a in [&a, &star(&a)] {
            let svd = Svd::new("A", a.view()).unwrap();
            let sigma = Array2::from_diag(&svd.values.mapv(T::of_real));
            near("SVD", &svd.u.dot(&sigma).dot(&svd.v_adjoint), a);
            near("UᴴU", &star(&svd.u).dot(&svd.u), &Array2::eye(n));
            near("VᴴV", &svd.v_adjoint.dot(&star(&svd.v_adjoint)), &Array2::eye(n));
            assert!(svd.values.windows(2).into_iter().all(|w| w[0] >= w[1]));
        }

        let gram = star(&a).dot(&a) + Array2::<T>::eye(n);
        let right = random(n, 3, 5, entry);
        let cholesky = Cholesky::new("G", gram.view()).unwrap();
        let factor = cholesky.factor().to_owned();
        near("Cholesky", &factor.dot(&star(&factor)), &gram);
        near("Cholesky solve", &gram.dot(&cholesky.solve(right.view()).unwrap()), &right);
        near("inverse", &cholesky.inverse().dot(&gram), &Array2::eye(n));
        near("whitening", &factor.dot(&cholesky.whiten(right.view()).unwrap()), &right);

        let eigen = HermitianEigen::new("G", gram.view()).unwrap();
        let lambda = Array2::from_diag(&eigen.values.mapv(T::of_real));
        near("GV", &gram.dot(&eigen.vectors), &eigen.vectors.dot(&lambda));
        near("VᴴV", &star(&eigen.vectors).dot(&eigen.vectors), &Array2::eye(n));
        let log: f64 = eigen.values.iter().map(|v| v.as_f64().ln()).sum();
        assert!((log - cholesky.log_determinant()).abs() <= tolerance * (1.0 + log.abs()));

        let general = random(n, n, 6, entry) + Array2::<T>::eye(n);
        let lu = Lu::new("M", general.view()).unwrap();
        let error = distance(&general.dot(&lu.solve(right.view()).unwrap()), &right);
        assert!(error < 50.0 * tolerance, "LU solve: {error:e}");
    }
}

#[test]
fn factors_multiply_back() {
    defining_products::<f32>(|re, _| re as f32);
    defining_products::<f64>(|re, _| re);
    defining_products(Complex::new);
}

fn hilbert(n: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, n), |(i, j)| 1.0 / (i + j + 1) as f64)
}

#[test]
fn hilbert_matrix_has_its_closed_form_determinant_and_inverse() {
    // ln det H₅ = −ln 266716800000; (H₅⁻¹)₀₀ = 25, (H₅⁻¹)₄₄ = 44100.
    let cholesky = Cholesky::new("H", hilbert(5).view()).unwrap();
    let exact = -(266_716_800_000f64).ln();
    assert!((cholesky.log_determinant() - exact).abs() < 1e-9);
    assert!((Lu::new("H", hilbert(5).view()).unwrap().log_abs_determinant() - exact).abs() < 1e-9);
    let inverse = cholesky.inverse();
    assert!((inverse[[0, 0]] - 25.0).abs() < 1e-8 && (inverse[[4, 4]] - 44_100.0).abs() < 1e-5);
    let by_lu = Lu::new("H", hilbert(5).view()).unwrap().inverse().unwrap();
    assert!(distance(&by_lu, &inverse) < 1e-10);
}

#[test]
fn least_squares_by_qr_survives_what_the_normal_equations_do_not() {
    // Läuchli's matrix: AᵀA is singular in double precision, A is not.
    let e = 1e-9;
    let a = array![[1.0, 1.0], [e, 0.0], [0.0, e]];
    let x = Qr::new("A", a.view()).unwrap().solve_vector(array![2.0, e, e].view()).unwrap();
    assert!((x[0] - 1.0).abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6, "{x}");
    let x = Svd::new("A", a.view()).unwrap().solve(array![[2.0], [e], [e]].view(), 1e-15).unwrap();
    assert!((x[[0, 0]] - 1.0).abs() < 1e-6);
    assert!(Cholesky::new("AᵀA", a.t().dot(&a).view()).is_err());
}

#[test]
fn nearly_dependent_columns_are_kept() {
    // 1e-14 is far below m ε ‖A‖, yet known to many digits.
    let mut a = Array2::<f64>::zeros((900, 2));
    a[[0, 0]] = 1.0;
    a[[0, 1]] = 1.0;
    a[[899, 1]] = 1e-14;
    let qr = Qr::new("A", a.view()).unwrap();
    assert!((qr.r()[[1, 1]].abs() - 1e-14).abs() < 1e-24);
    assert!((qr.q().dot(&qr.r()) - &a).iter().all(|d| d.abs() < 1e-16));
    let twice = Array2::from_shape_fn((40, 20), |(i, _)| (i as f64).cos());
    let qr = Qr::new("A", twice.view()).unwrap();
    assert!((qr.q().dot(&qr.r()) - &twice).iter().all(|d| d.abs() < 1e-14));
    assert!(qr.q_adjoint(twice.view()).unwrap().iter().all(|v| v.is_finite()));
}

#[test]
fn second_difference_has_its_known_spectrum() {
    let n = 60;
    let a = Array2::from_shape_fn((n, n), |(i, j)| match i.abs_diff(j) {
        0 => 2.0,
        1 => -1.0,
        _ => 0.0,
    });
    let exact = |k: usize| 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (n + 1) as f64).cos();
    let eigen = HermitianEigen::new("A", a.view()).unwrap();
    for (k, value) in eigen.values.iter().copied().enumerate() {
        assert!(f64::abs(value - exact(k)) < 1e-13);
    }
    let mut general: Vec<f64> = Eigen::new("A", a.view()).unwrap().values.iter().map(|v| v.re).collect();
    general.sort_by(f64::total_cmp);
    assert!(general.iter().enumerate().all(|(k, v)| (v - exact(k)).abs() < 1e-12));
}

#[test]
fn a_cyclic_shift_has_roots_of_unity_and_their_vectors() {
    let n = 9;
    let shift = Array2::from_shape_fn((n, n), |(i, j)| f64::from(u8::from((i + 1) % n == j)));
    let eigen = Eigen::new("shift", shift.view()).unwrap();
    assert!(eigen.values.iter().all(|v| (v.powu(n as u32) - 1.0).norm() < 1e-12));
    let complex = shift.mapv(|x| Complex::new(x, 0.0));
    let scaled = &eigen.vectors * &eigen.values.view().insert_axis(Axis(0));
    assert!(distance(&complex.dot(&eigen.vectors), &scaled) < 1e-13);
    assert!(Lu::new("vectors", eigen.vectors.view()).is_ok());
}

#[test]
fn products_of_any_layout() {
    let (a, b) = (random(5, 7, 1, |x, _| x), random(5, 4, 2, |x, _| x));
    let product = matmul(a.t(), b.view()).unwrap();
    for ((i, j), value) in product.indexed_iter() {
        let exact: f64 = (0..5).map(|k| a[[k, i]] * b[[k, j]]).sum();
        assert!((value - exact).abs() < 1e-15);
    }
    assert!(matmul(a.view(), b.view()).is_err());
    let empty = matmul(Array2::<f64>::zeros((3, 0)).view(), Array2::zeros((0, 2)).view()).unwrap();
    assert_eq!(empty, Array2::<f64>::zeros((3, 2)));
}

#[test]
fn misuse_is_reported() {
    let indefinite = array![[1.0, 0.0, 0.0], [0.0, 4.0, 6.0], [0.0, 6.0, 1.0]];
    match Cholesky::new("covariance", indefinite.view()).unwrap_err() {
        Error::NotPositiveDefinite { name, pivot, value } => {
            assert_eq!((name.as_str(), pivot), ("covariance", 2));
            assert!((value + 8.0).abs() < 1e-12);
        }
        other => panic!("{other}"),
    }
    let singular = array![[1.0, 2.0], [2.0, 4.0]];
    assert!(matches!(Lu::new("M", singular.view()), Err(Error::Singular { .. })));
    assert!(matches!(Lu::new("M", Array2::<f64>::zeros((2, 2)).view()), Err(Error::Singular { .. })));
    let qr = Qr::new("M", singular.view()).unwrap();
    assert!(matches!(qr.solve_vector(array![1.0, 0.0].view()), Err(Error::Singular { .. })));
    assert!(matches!(Qr::new("M", Array2::<f64>::zeros((2, 3)).view()), Err(Error::Shape { .. })));
    let bad = array![[1.0, f64::NAN], [0.0, 1.0]];
    let message = Svd::new("features", bad.view()).unwrap_err().to_string();
    assert!(message.contains("features") && message.contains("[0, 1]"), "{message}");
    assert!(solve_triangular(singular.view(), Triangle::Upper, Array2::zeros((3, 1)).view()).is_err());
    let zero = array![[1.0, 2.0], [0.0, 0.0]];
    assert!(solve_triangular(zero.view(), Triangle::Upper, Array2::zeros((2, 1)).view()).is_err());
    let short = Array1::<f64>::zeros(1);
    assert!(Lu::new("M", Array2::<f64>::eye(2).view()).unwrap().solve_vector(short.view()).is_err());
}
