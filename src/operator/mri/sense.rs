//! Cartesian multi-coil encoding A = M F S.

use candle_core::{DType, Device, Tensor};

use super::encode::{Column, Encode, Pass, Sizes};
use super::lines::Lines;
use crate::error::{Error, Result};
use crate::linalg::LinearOperator;
use crate::tensor::{Buffer, Field, Kernel, Real, Space, Workspace, as_complex, launch, vector};

/// Cartesian multi-coil encoding (A x)_c = M F (S_c x): coil maps S, the centred orthonormal transform F, and
/// the sampling mask M (Pruessmann et al. 1999, SENSE).
///
/// Domain [y, x], range [coil, ky, kx]; with maps for each slice [slices, y, x] and [slices, coil, ky, kx]; one
/// more axis in front of y for volumetric encoding. One kernel does all of it: maps are multiplied where rows
/// are loaded, the mask where columns are stored. Where whole lines are sampled, those that aren't are not transformed
/// across, and AᴴA transforms no line that is sampled evenly: there F and Fᴴ cancel.
#[derive(Clone, Debug)]
pub struct Sense {
    domain: Space,
    range: Space,
    maps: Tensor,
    mask: Tensor,
    /// The mask, transposed: for each column along the first k-space axis its weights, in the order of
    /// transform lines (rotated to the origin).
    columns: Tensor,
    /// What each column is sampled like.
    kinds: Vec<Column>,
    /// Lines that can be left out.
    lines: Lines,
}

impl Sense {
    /// Encoding with `maps` [coil, y, x, 2], or [slices, coil, y, x, 2] for slices with maps of their own, and
    /// the real `mask` [ky, kx] of weights (0 not sampled, 1 sampled). Three axes in the mask make the encoding
    /// volumetric.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use wellposed::{linalg::LinearOperator, operator::mri::Sense};
    /// let maps = Tensor::randn(0f32, 1.0, (4, 16, 12, 2), &Device::Cpu)?;
    /// let mask = Tensor::ones((16, 12), DType::F32, &Device::Cpu)?;
    /// let encoding = Sense::new(&maps, &mask)?;
    /// assert_eq!(encoding.range().shape(), [4, 16, 12]);
    /// # Ok::<(), wellposed::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] where the two don't fit together, [`Error::NotFinite`] where one holds NaN.
    pub fn new(maps: &Tensor, mask: &Tensor) -> Result<Self> {
        let (shape, given) = (mask.dims(), maps.dims());
        let axes = shape.len();
        let fits = (2..=3).contains(&axes)
            && (given.len() == axes + 2 || given.len() == axes + 3)
            && given[given.len() - 1] == 2
            && given[given.len() - 1 - axes..given.len() - 1] == *shape
            && maps.elem_count() > 0;
        if !fits {
            return Err(Error::shape(
                "coil maps",
                format!("[(slices,) coil, {shape:?} as the mask, 2]"),
                given,
            ));
        }
        vector::require_finite("coil maps", maps)?;
        let mask = mask.to_dtype(maps.dtype())?;
        vector::require_finite("sampling mask", &mask)?;
        let slices = &given[..given.len() - 2 - axes];
        let coils = given[given.len() - 2 - axes];
        let domain = Space::complex(&[slices, shape].concat(), maps.dtype(), maps.device());
        let range = domain.with_shape(&[slices, &[coils], shape].concat());
        let (columns, kinds) = transpose(&mask)?;
        let lines = Lines::of(shape, &f64::to_vec(&mask)?, &kinds);
        let columns = columns.to_device(maps.device())?;
        Ok(Self { domain, range, maps: maps.contiguous()?, mask, columns, kinds, lines })
    }

    /// Encoding by a single coil of constant sensitivity: range [1, ky, kx].
    ///
    /// # Errors
    /// As [`Sense::new`].
    pub fn single_coil(mask: &Tensor, dtype: DType, device: &Device) -> Result<Self> {
        let count = mask.elem_count();
        let ones: Vec<f64> = [1.0, 0.0].repeat(count);
        let maps = Tensor::from_vec(ones, [&[1], mask.dims(), &[2]].concat(), device)?;
        Self::new(&maps.to_dtype(dtype)?, mask)
    }

    /// The coil maps.
    pub fn maps(&self) -> &Tensor {
        &self.maps
    }

    /// The sampling mask.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// Number of coils.
    pub fn coils(&self) -> usize {
        self.maps.dims()[self.maps.rank() - 2 - self.mask.rank()]
    }

    /// 1 where any coil sees the image and 0 elsewhere: real, of the shape of the domain.
    ///
    /// # Errors
    /// What the tensor library returns.
    pub fn support(&self) -> Result<Tensor> {
        let mut energy = self.energy()?;
        launch(Positive, &[], &mut [&mut energy])?;
        Ok(energy.freeze())
    }

    /// max |M|² · max_x Σ_c |S_c(x)|², a bound of ‖A‖² that is 1 for normalised maps.
    ///
    /// # Errors
    /// What the tensor library returns.
    pub fn squared_norm_bound(&self) -> Result<f64> {
        let largest = |x: &Tensor| launch(Largest, &[x], &mut []);
        let bound = largest(self.energy()?.tensor())? * largest(&self.columns)?.powi(2);
        Ok(if bound > 0.0 { bound } else { 1.0 })
    }

    /// Σ_c |S_c|².
    fn energy(&self) -> Result<Buffer> {
        let mut energy = self.domain.with_field(Field::Real).buffer(&[])?;
        launch(Energy(self.sizes()), &[&self.maps], &mut [&mut energy])?;
        Ok(energy)
    }

    fn sizes(&self) -> Sizes {
        let (item, coils) = (self.mask.elem_count(), self.coils());
        Sizes { coils, item, sets: self.domain.scalars() / item }
    }

    fn kernel(&self, pass: Pass) -> Encode<'_> {
        let Self { mask, kinds, lines, .. } = self;
        Encode { pass, sizes: self.sizes(), shape: mask.dims(), kinds, lines }
    }

    fn launch(&self, pass: Pass, input: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        let kernel = self.kernel(pass);
        let spare = kernel.spare(out.tensor().elem_count() / 2 / self.mask.elem_count());
        if spare == 0 {
            return launch(kernel, &[input, &self.maps, &self.columns], &mut [out]);
        }
        let mut spare = ws.take_shape(&[spare, 2], self.domain.dtype(), self.domain.device())?;
        launch(kernel, &[input, &self.maps, &self.columns], &mut [out, &mut spare])?;
        ws.give(spare);
        Ok(())
    }
}

impl LinearOperator for Sense {
    fn domain(&self) -> &Space {
        &self.domain
    }
    fn range(&self) -> &Space {
        &self.range
    }
    fn apply_into(&self, x: &Tensor, out: &mut Buffer, _: &mut Workspace) -> Result<()> {
        launch(self.kernel(Pass::Apply), &[x, &self.maps, &self.columns], &mut [out])
    }
    fn adjoint_into(&self, y: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.launch(Pass::Adjoint, y, out, ws)
    }
    fn normal_into(&self, x: &Tensor, out: &mut Buffer, ws: &mut Workspace) -> Result<()> {
        self.launch(Pass::Normal, x, out, ws)
    }
}

/// out ← Σ_c |S_c|².
struct Energy(Sizes);

impl Kernel for Energy {
    type Output = ();
    fn run<T: Real>(self, inputs: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        let Sizes { coils, item, .. } = self.0;
        let slices = as_complex(inputs[0]).chunks_exact(coils * item);
        for (maps, out) in slices.zip(outputs[0].chunks_exact_mut(item)) {
            out.fill(T::zero());
            for map in maps.chunks_exact(item) {
                out.iter_mut().zip(map).for_each(|(o, v)| *o += v.norm_sqr());
            }
        }
        Ok(())
    }
}

/// out ← 1 where it is positive, 0 elsewhere.
struct Positive;

impl Kernel for Positive {
    type Output = ();
    fn run<T: Real>(self, _: &[&[T]], outputs: &mut [&mut [T]]) -> Result<()> {
        outputs[0].iter_mut().for_each(|o| *o = if *o > T::zero() { T::one() } else { T::zero() });
        Ok(())
    }
}

/// The largest magnitude.
struct Largest;

impl Kernel for Largest {
    type Output = f64;
    fn run<T: Real>(self, inputs: &[&[T]], _: &mut [&mut [T]]) -> Result<f64> {
        Ok(inputs[0].iter().map(|v| v.as_f64().abs()).fold(0.0, f64::max))
    }
}

/// The mask by columns along its first axis, each rotated so that index 0 is frequency zero.
fn transpose(mask: &Tensor) -> Result<(Tensor, Vec<Column>)> {
    let rows = mask.dims()[0];
    let width = mask.elem_count() / rows;
    let values = f64::to_vec(mask)?;
    let mut columns = Vec::with_capacity(values.len());
    let mut kinds = Vec::with_capacity(width);
    for column in 0..width {
        let start = columns.len();
        columns.extend((0..rows).map(|i| values[(i + rows / 2) % rows * width + column]));
        let line = &columns[start..];
        let constant = line.iter().all(|w| *w == line[0]);
        kinds.push(if constant { Column::Constant(line[0]) } else { Column::Varying });
    }
    let columns = Tensor::from_vec(columns, (width, rows), &Device::Cpu)?.to_dtype(mask.dtype())?;
    Ok((columns, kinds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::Fourier;
    use crate::tensor::random::{Noise, standard_normal};
    use crate::testing::{check_operator, relative_difference};

    fn noise(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
        standard_normal(Noise::new(seed, 0), &Space::complex(shape, dtype, &Device::Cpu), &[]).unwrap()
    }

    #[derive(Clone, Copy)]
    enum Whole {
        Points,
        Columns,
        Rows,
    }
    const WHOLE: [Whole; 3] = [Whole::Points, Whole::Columns, Whole::Rows];

    /// Sampled where a fixed pattern says so: by points, or by whole lines.
    fn mask(shape: &[usize], whole: Whole) -> Tensor {
        let width = shape[shape.len() - 1];
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|i| match whole {
                Whole::Points => i,
                Whole::Columns => i % width,
                Whole::Rows => i / width,
            })
            .map(|i| [1.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.0][i * i % 7])
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn passes_every_check() {
        for dtype in [DType::F32, DType::F64] {
            for (maps, axes) in
                [(&[3, 12, 15][..], 2), (&[6, 21, 8], 2), (&[4, 5, 10, 9], 2), (&[2, 6, 5, 8], 3)]
            {
                for whole in WHOLE {
                    let mask = mask(&maps[maps.len() - axes..], whole);
                    check_operator(&Sense::new(&noise(maps, dtype, 3), &mask).unwrap()).unwrap();
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_product_of_its_parts() {
        let (shape, coils) = ([9, 10], 3);
        let maps = noise(&[coils, 9, 10], DType::F64, 4);
        let x = noise(&[9, 10], DType::F64, 5);
        for whole in WHOLE {
            let mask = mask(&shape, whole);
            let y = Sense::new(&maps, &mask).unwrap().apply(&x).unwrap();
            let fourier = Fourier::new(&Space::complex(&shape, DType::F64, &Device::Cpu), 2).unwrap();
            for coil in 0..coils {
                let mut product = Buffer::copy_of(&x).unwrap();
                let map = maps.get(coil).unwrap();
                vector::multiply(&map, vector::Weights::Complex, &x, &mut product).unwrap();
                let spectrum = fourier.apply(product.tensor()).unwrap();
                let mask = mask.to_dtype(DType::F64).unwrap();
                vector::multiply(&mask, vector::Weights::RealOnComplex, &spectrum, &mut product).unwrap();
                let error = relative_difference(&y.get(coil).unwrap(), product.tensor()).unwrap();
                assert!(error < 1e-14, "{error}");
            }
        }
    }

    #[test]
    fn many_images_and_any_number_of_threads_give_the_same() {
        for whole in WHOLE {
            let sense = Sense::new(&noise(&[9, 20, 24], DType::F32, 6), &mask(&[20, 24], whole)).unwrap();
            let x = noise(&[7, 20, 24], DType::F32, 7);
            let all = sense.normal(&x).unwrap();
            for image in [0, 4, 6] {
                let alone = sense.normal(&x.get(image).unwrap()).unwrap();
                assert_eq!(relative_difference(&all.get(image).unwrap(), &alone).unwrap(), 0.0);
            }
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let again = pool.install(|| sense.normal(&x)).unwrap();
                assert_eq!(relative_difference(&again, &all).unwrap(), 0.0);
            }
        }
    }

    #[test]
    fn refuses_maps_that_do_not_fit() {
        let mask = mask(&[8, 8], Whole::Points);
        assert!(matches!(Sense::new(&noise(&[3, 8, 9], DType::F32, 1), &mask), Err(Error::Shape { .. })));
        assert!(matches!(Sense::new(&noise(&[8, 8], DType::F32, 1), &mask), Err(Error::Shape { .. })));
        let nan = (noise(&[3, 8, 8], DType::F32, 1) * f64::NAN).unwrap();
        assert!(matches!(Sense::new(&nan, &mask), Err(Error::NotFinite { .. })));
    }
}
