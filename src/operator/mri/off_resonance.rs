//! Encoding in a field that is not homogeneous.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ndarray::{Array1, Array2};
use num_complex::{Complex, Complex64};
use rayon::prelude::*;

use super::Encoding;
use super::device::PROGRAM;
use crate::error::{Error, Result};
use crate::linalg::dense::{Svd, matmul};
use crate::linalg::{LinearOperator, PowerIteration};
use crate::tensor::complex::{add_conjugate_product, multiply};
use crate::tensor::device::{Gpu, arguments};
use crate::tensor::vector::Weights;
use crate::tensor::{Buffer, Kernel, Real, Space, Workspace, as_complex, as_complex_mut, launch, vector};

/// Segments of the readout at most.
const MAX_SEGMENTS: usize = 256;
/// Power iteration comes from below; this is what it may have missed.
const MARGIN: f64 = 1.1;
/// Elements a task, about.
const TASK: usize = 1 << 14;

/// Encoding y_j = Σ_r (A e_r)_j e^{−2πi f(r) t_j} x(r) where the field is off by f(r) Hz and sample j is measured t_j seconds
/// after the phase was even: A = Σ_l B_l A₀ C_l by time segments (Noll et al. 1991).
///
/// A₀ is the encoding of a homogeneous field, C_l = e^{−2πi f(r) t_l} the phase at the segment's time, and B_l
/// interpolates between segments with the weights that fit the phase of all frequencies best (Sutton, Noll and Fessler
/// 2003). There are as many segments as the accuracy needs, about the range of f times the readout's duration, and a few.
/// The adjoint is exact. Domain and range are those of A₀; with a map for each of several slices that A₀ takes for items
/// of a batch, the slices become an axis.
#[derive(Clone, Debug)]
pub struct OffResonance<E> {
    plain: E,
    domain: Space,
    range: Space,
    /// C_l [segment, …field, 2].
    phases: Vec<Tensor>,
    /// B̄_l [segment, …times, 2].
    weights: Vec<Tensor>,
}

impl<E: Encoding> OffResonance<E> {
    /// `plain` with the real map `field` in Hz, [(slice,) (z,) y, x], and the `times` of samples in seconds: for all of them,
    /// or for the last axes of k-space, where others repeat them (`[kx]` for readouts on a grid). The phase of no
    /// sample and no point that a coil sees is off by more than `tolerance` (relative to 1); 1e-3 is plenty.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::mri::*};
    /// let maps = birdcage(4, [16, 16], 1, DType::F32, &Device::Cpu)?;
    /// let plain = Sense::new(&maps, &Tensor::ones((16, 16), DType::F32, &Device::Cpu)?)?;
    /// let field = Tensor::rand(-50f32, 50.0, (16, 16), &Device::Cpu)?;
    /// let times = (Tensor::arange(0f32, 16.0, &Device::Cpu)? * 1e-3)?;
    /// let encoding = OffResonance::new(plain, &field, &times, 1e-3)?;
    /// assert!(encoding.segments() < 12);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where map or times don't fit the encoding, [`Error::NotFinite`] where one holds NaN,
    /// [`Error::Parameter`] where the tolerance is out of range, or the phase turns too often for segments.
    pub fn new(plain: E, field: &Tensor, times: &Tensor, tolerance: f64) -> Result<Self> {
        if !(tolerance > 1e-9 && tolerance < 1.0) {
            return Err(Error::parameter("tolerance", tolerance, "must be between 1e-9 and 1"));
        }
        vector::require_finite("field map", field)?;
        vector::require_finite("times of samples", times)?;
        let slices = slices(&plain, field)?;
        let samples = &plain.range().shape()[plain.range().shape().len() - 1..];
        if times.elem_count() == 0 || !plain.range().shape().ends_with(times.dims()) {
            let expected =
                format!("the last axes of k-space {:?}, such as {samples:?}", plain.range().shape());
            return Err(Error::shape("times of samples", expected, times.dims()));
        }
        let domain = plain.domain().with_shape(&[&slices, plain.domain().shape()].concat());
        let range = plain.range().with_shape(&[&slices, plain.range().shape()].concat());
        let hertz = seen(&plain, field)?;
        let seconds = f64::to_vec(times)?;
        let (centres, interpolators) = segments(&hertz, &seconds, tolerance)?;
        let dtype = domain.dtype();
        let complex = |values: Vec<f64>, shape: &[usize]| -> Result<Tensor> {
            Ok(f64::tensor(values, &[shape, &[2]].concat())?.to_dtype(dtype)?.to_device(domain.device())?)
        };
        let phases = centres.iter().map(|t| {
            let turns = hertz.iter().flat_map(|f| {
                let (sin, cos) = (-std::f64::consts::TAU * f * t).sin_cos();
                [cos, sin]
            });
            complex(turns.collect(), field.dims())
        });
        let weights = interpolators
            .into_iter()
            .map(|line| complex(line.iter().flat_map(|v| [v.re, -v.im]).collect(), times.dims()));
        let (phases, weights) = (phases.collect::<Result<_>>()?, weights.collect::<Result<_>>()?);
        Ok(Self { plain, domain, range, phases, weights })
    }

    /// Segments of the readout: the cost in applications of the plain encoding.
    pub fn segments(&self) -> usize {
        self.phases.len()
    }

    /// The encoding in a homogeneous field.
    pub fn plain(&self) -> &E {
        &self.plain
    }
}

/// The axes that a map of several slices puts in front of those of the encoding.
fn slices<E: Encoding>(plain: &E, field: &Tensor) -> Result<Vec<usize>> {
    let (domain, given) = (plain.domain().shape(), field.dims());
    if given == domain || (given == plain.image_shape() && domain.ends_with(given)) {
        return Ok(Vec::new());
    }
    match given {
        [slices, rest @ ..] if rest == domain && *slices > 0 => Ok(vec![*slices]),
        _ => Err(Error::shape("field map", format!("[(slice,) {domain:?}], as the image"), given)),
    }
}

/// The map in Hz, 0 where no coil sees anything: what it holds there is noise.
fn seen<E: Encoding>(plain: &E, field: &Tensor) -> Result<Vec<f64>> {
    let mut hertz = f64::to_vec(field)?;
    let support = f64::to_vec(&plain.support()?)?;
    // One map for many slices counts where it is seen in any.
    let places = support.len().min(hertz.len());
    let mut visible = vec![false; places];
    support.iter().enumerate().for_each(|(i, s)| visible[i % places] |= *s > 0.0);
    hertz.iter_mut().enumerate().filter(|(i, _)| !visible[i % places]).for_each(|(_, f)| *f = 0.0);
    Ok(hertz)
}

/// Times of segments, and for each the weight of every sample.
type Segments = (Vec<f64>, Vec<Vec<Complex64>>);

/// As few segments as keep the error of e^{−2πi f t} below `tolerance` for all f between the extremes.
fn segments(hertz: &[f64], seconds: &[f64], tolerance: f64) -> Result<Segments> {
    let extremes = |values: &[f64]| {
        let wider = |(low, high): (f64, f64), v: &f64| (low.min(*v), high.max(*v));
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), wider)
    };
    let ((slowest, fastest), (first, last)) = (extremes(hertz), extremes(seconds));
    let turns = (fastest - slowest) * (last - first);
    let fewest = turns.ceil() + 1.0;
    if fewest > MAX_SEGMENTS as f64 {
        let reason = format!(
            "turns the phase {turns:.0} times in a readout; is it in Hz, and the readout in seconds?"
        );
        return Err(Error::parameter("field map", format!("{slowest} to {fastest} Hz"), reason));
    }
    // Samples that are measured at the same time have the same weights.
    let mut distinct: BTreeMap<u64, usize> = BTreeMap::new();
    let mut moments = Vec::new();
    for t in seconds {
        distinct.entry(t.to_bits()).or_insert_with(|| {
            moments.push(*t);
            moments.len() - 1
        });
    }
    // Eight frequencies a turn tell all between them.
    let count = 8 * (turns.ceil() as usize + 2);
    let frequencies: Vec<f64> =
        (0..count).map(|i| slowest + (fastest - slowest) * i as f64 / (count - 1) as f64).collect();
    let phase = |times: &[f64]| {
        Array2::from_shape_fn((count, times.len()), |(i, j)| {
            Complex64::from_polar(1.0, -std::f64::consts::TAU * frequencies[i] * times[j])
        })
    };
    let wanted = phase(&moments);
    for segments in fewest as usize..=MAX_SEGMENTS {
        let centres: Vec<f64> =
            (0..segments).map(|l| first + (last - first) * (l as f64 + 0.5) / segments as f64).collect();
        let basis = phase(&centres);
        let weights = Svd::new("phases of segments", basis.view())?.solve(wanted.view(), 1e-12)?;
        let found = matmul(basis.view(), weights.view())?;
        let error = found.iter().zip(&wanted).map(|(a, b)| (a - b).norm()).fold(0.0, f64::max);
        if error <= tolerance {
            let line = |weights: Array1<Complex64>| {
                seconds.iter().map(|t| weights[distinct[&t.to_bits()]]).collect::<Vec<_>>()
            };
            return Ok((centres, weights.rows().into_iter().map(|row| line(row.to_owned())).collect()));
        }
    }
    let reason = format!("needs more than {MAX_SEGMENTS} segments of the readout");
    Err(Error::parameter("tolerance", tolerance, reason))
}

/// out ← w ∘ x, the weights repeated over the leading axes; with `add`, out ← out + w̄ ∘ x.
struct Modulate {
    add: bool,
}

impl Kernel for Modulate {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let (w, x) = (as_complex(inputs[0]), as_complex(inputs[1]));
        let out = as_complex_mut(outputs[0]);
        let product = |w: &[Complex<T>], x: &[Complex<T>], out: &mut [Complex<T>]| {
            if self.add { add_conjugate_product(w, x, out) } else { multiply(w, x, out) }
        };
        // Whole periods where they are short, parts of one where they are long.
        let task = w.len() * (TASK / w.len()).max(1);
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
            for (out, x) in out.chunks_mut(w.len()).zip(x.chunks(w.len())) {
                if w.len() <= TASK {
                    product(w, x, out);
                } else {
                    let parts = out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).zip(w.par_chunks(TASK));
                    parts.for_each(|((out, x), w)| product(w, x, out));
                }
            }
        });
        Ok(())
    }
    fn on_device(&self, gpu: &Gpu) -> Option<Result<()>> {
        let (w, x, out) = (gpu.input(0), gpu.input(1), gpu.output(0));
        let (n, period) = (gpu.output_len(0), gpu.input_len(0));
        Some(if self.add {
            let arguments = arguments![w, x, out, n / 2, period / 2];
            gpu.run(&PROGRAM, "add_conjugate_product", n / 2, arguments)
        } else {
            vector::multiply_on_device(gpu, Weights::Complex, (w, period), x, out, n)
        })
    }
}

impl<E: Encoding> LinearOperator for OffResonance<E> {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut turned = ws.take_shape(x.dims(), x.dtype(), x.device())?;
        let mut part = ws.take_shape(out.dims(), x.dtype(), x.device())?;
        vector::fill(0.0, out)?;
        for (phases, weights) in self.phases.iter().zip(&self.weights) {
            launch(Modulate { add: false }, &[phases, x], &mut [&mut turned])?;
            self.plain.apply_into(turned.tensor(), &mut part, ws)?;
            launch(Modulate { add: true }, &[weights, part.tensor()], &mut [&mut *out])?;
        }
        ws.give(turned);
        ws.give(part);
        Ok(())
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let mut turned = ws.take_shape(y.dims(), y.dtype(), y.device())?;
        let mut part = ws.take_shape(out.dims(), y.dtype(), y.device())?;
        vector::fill(0.0, out)?;
        for (phases, weights) in self.phases.iter().zip(&self.weights) {
            launch(Modulate { add: false }, &[weights, y], &mut [&mut turned])?;
            self.plain.adjoint_into(turned.tensor(), &mut part, ws)?;
            launch(Modulate { add: true }, &[phases, part.tensor()], &mut [&mut *out])?;
        }
        ws.give(turned);
        ws.give(part);
        Ok(())
    }
}

impl<E: Encoding> Encoding for OffResonance<E> {
    fn image_shape(&self) -> &[usize] {
        self.plain.image_shape()
    }
    fn support(&self) -> Result<Tensor> {
        Ok(self.plain.support()?.broadcast_as(self.domain.shape())?.contiguous()?)
    }
    fn squared_norm_bound(&self) -> Result<f64> {
        // Where the field compresses the image it adds signal up: the plain encoding's norm is no bound.
        let power = PowerIteration { max_iterations: 20, tolerance: 1e-2, seed: 0 };
        Ok((MARGIN * power.norm(self)?.powi(2)).max(f64::MIN_POSITIVE))
    }
    fn noise_energy(&self) -> Result<f64> {
        let items = self.range.elements() / self.plain.range().elements();
        Ok(items as f64 * self.plain.noise_energy()?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::operator::mri::{NonCartesianSense, Sense, Trajectory, birdcage};
    use crate::operator::{Accuracy, Nufft};
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    const SHAPE: [usize; 2] = [10, 12];

    fn noise() -> Tensor {
        let space = Space::complex(&SHAPE, DType::F64, &Device::Cpu);
        standard_normal(Noise::new(3, 0), &space, &[]).unwrap()
    }

    /// Hz, smooth and with a jump.
    fn hertz(y: usize, x: usize) -> f64 {
        40.0 * (0.4 * y as f64).sin() - 6.0 * x as f64 + if y > 6 { 90.0 } else { 0.0 }
    }

    fn field(slices: usize) -> Tensor {
        let [height, width] = SHAPE;
        let value =
            |i: usize| hertz(i / width % height, i % width) * (1.0 + 0.2 * (i / width / height) as f64);
        let values: Vec<f64> = (0..slices * height * width).map(value).collect();
        let shape: &[usize] = if slices == 1 { &SHAPE } else { &[slices, height, width] };
        f64::tensor(values, shape).unwrap()
    }

    fn sense(dtype: DType) -> Sense {
        let mask: Vec<f32> = (0..120).map(|i| [1.0, 0.0, 1.0, 1.0][i * i % 4]).collect();
        let maps = birdcage(3, SHAPE, 2, dtype, &Device::Cpu).unwrap();
        Sense::new(&maps, &Tensor::from_vec(mask, &SHAPE, &Device::Cpu).unwrap()).unwrap()
    }

    /// A readout of 12 samples in 20 ms, which starts 3 ms after the excitation.
    fn seconds() -> Vec<f64> {
        (0..12).map(|i| 3e-3 + 20e-3 * i as f64 / 12.0).collect()
    }

    /// The definition, sample by sample: (ky, kx) in cycles per field of view, measured at t.
    fn direct(maps: &Tensor, x: &Tensor, samples: &[(f64, f64, f64)]) -> Vec<Complex64> {
        let (maps, x) = (f64::to_vec(maps).unwrap(), f64::to_vec(x).unwrap());
        let [height, width] = SHAPE;
        let item = height * width;
        let sum = |map: &[Complex64], (ky, kx, t): (f64, f64, f64)| {
            let at = |i: usize| {
                let (y, x) = (i / width, i % width);
                let place = |i: usize, n: usize| (i as f64 - (n / 2) as f64) / n as f64;
                ky * place(y, height) + kx * place(x, width) + hertz(y, x) * t
            };
            let term = |i: usize| {
                map[i] * as_complex(&x)[i] * Complex64::from_polar(1.0, -std::f64::consts::TAU * at(i))
            };
            (0..item).map(term).sum::<Complex64>() / (item as f64).sqrt()
        };
        as_complex(&maps).chunks(item).flat_map(|map| samples.iter().map(move |s| sum(map, *s))).collect()
    }

    fn difference(found: &Tensor, expected: &[Complex64]) -> f64 {
        let expected = expected.iter().flat_map(|v| [v.re, v.im]).collect();
        relative_difference(found, &f64::tensor(expected, found.dims()).unwrap()).unwrap()
    }

    #[test]
    fn passes_every_check() {
        for dtype in [DType::F32, DType::F64] {
            let times = f64::tensor(seconds(), &[12]).unwrap();
            for slices in [1, 3] {
                let encoding = OffResonance::new(sense(dtype), &field(slices), &times, 1e-3).unwrap();
                check_operator(&encoding).unwrap();
            }
        }
    }

    #[test]
    fn readouts_on_a_grid_agree_with_the_definition() {
        let (plain, x) = (sense(DType::F64), noise());
        let times = f64::tensor(seconds(), &[12]).unwrap();
        let samples: Vec<_> =
            (0..120).map(|i| ((i / 12) as f64 - 5.0, (i % 12) as f64 - 6.0, seconds()[i % 12])).collect();
        let mut expected = direct(plain.maps(), &x, &samples);
        let mask = f64::to_vec(plain.mask()).unwrap();
        expected.iter_mut().enumerate().for_each(|(i, v)| *v *= mask[i % 120]);
        let mut last = 0;
        for tolerance in [1e-1, 1e-3, 1e-6] {
            let encoding = OffResonance::new(plain.clone(), &field(1), &times, tolerance).unwrap();
            let error = difference(&encoding.apply(&x).unwrap(), &expected);
            assert!(error < 2.0 * tolerance, "{error} for {tolerance}");
            assert!(encoding.segments() > last && encoding.segments() < 16, "{}", encoding.segments());
            last = encoding.segments();
        }
        let far = difference(&plain.apply(&x).unwrap(), &expected);
        assert!(far > 0.5, "the field matters: {far}");
    }

    #[test]
    fn trajectories_agree_with_the_definition() {
        let k = Trajectory::GoldenRadial { spokes: 7 }.points(SHAPE, 12).unwrap();
        let space = Space::complex(&SHAPE, DType::F64, &Device::Cpu);
        let fourier = Nufft::new(&space, &k, Accuracy { tolerance: 1e-8, oversampling: 2.0 }).unwrap();
        let maps = birdcage(3, SHAPE, 2, DType::F64, &Device::Cpu).unwrap();
        let plain = NonCartesianSense::new(&maps, fourier, None).unwrap();
        let times: Vec<f64> = seconds().repeat(7);
        let k = f64::to_vec(&k).unwrap();
        let samples: Vec<_> = k.chunks(2).zip(&times).map(|(k, t)| (k[0], k[1], *t)).collect();
        let times = f64::tensor(times, &[84]).unwrap();
        let encoding = OffResonance::new(plain, &field(1), &times, 1e-6).unwrap();
        let x = noise();
        let error = difference(&encoding.apply(&x).unwrap(), &direct(&maps, &x, &samples));
        assert!(error < 1e-6, "{error}");
        assert!(crate::testing::dot_test(&encoding, 1).unwrap().defect < 1e-13);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let times = |n: usize| Tensor::zeros(n, DType::F64, &Device::Cpu).unwrap();
        let plain = || sense(DType::F32);
        assert!(matches!(OffResonance::new(plain(), &field(1), &times(10), 1e-3), Err(Error::Shape { .. })));
        let other = Tensor::zeros((12, 10), DType::F64, &Device::Cpu).unwrap();
        assert!(matches!(OffResonance::new(plain(), &other, &times(12), 1e-3), Err(Error::Shape { .. })));
        let ages = f64::tensor((0..12).map(f64::from).collect(), &[12]).unwrap();
        assert!(matches!(OffResonance::new(plain(), &field(1), &ages, 1e-3), Err(Error::Parameter { .. })));
        assert_eq!(OffResonance::new(plain(), &field(1), &times(12), 1e-3).unwrap().segments(), 1);
    }
}
