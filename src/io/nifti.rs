//! NIfTI-1 images: `.nii`, `.nii.gz`, and pairs of `.hdr` and `.img`.
//!
//! The fields, their places and the three ways to give coordinates are those of the standard's `nifti1.h`.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use nalgebra::{Matrix3, Matrix4, Quaternion, Rotation3, UnitQuaternion, Vector3};

use crate::error::{Error, Result};
use crate::io::array::count;
use crate::io::growing::Growing;
use crate::io::scalar::{Endian, Scalar};
use crate::io::{Grid, Unit, Volume};
use crate::tensor::{Field, Real};

const HEADER: usize = 348;
/// Most that deflate can shrink data.
const MAX_DEFLATE: u64 = 1032;

/// Whether the first bytes of a file are those of a NIfTI-1 header.
pub(crate) fn is_nifti(head: &[u8]) -> bool {
    head.len() >= HEADER && matches!(&head[344..348], b"n+1\0" | b"ni1\0")
}

/// Reads a volume: any integer or floating-point type, real or complex, either byte order, with slope and
/// intercept applied.
///
/// Coordinates come from the sform, else the qform, else the spacing alone (then centred, with x to the
/// patient's left, as nibabel has it).
pub(crate) fn read(path: &Path) -> Result<Volume> {
    let io = |e| Error::io(path, e);
    let file = std::fs::File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let (mut stream, capacity) = unpacked(file, length).map_err(io)?;
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).map_err(|e| truncated(path, "the header", e))?;
    let header = Header::parse(path, &head)?;
    let size = header.data_bytes().filter(|&n| n as u64 <= capacity).ok_or_else(|| {
        let found =
            format!("shape {:?} [x, y, z] needs more than the {length} bytes of the file", header.shape);
        Error::format(path, found)
    })?;
    let bytes = if header.separate {
        let image = image_of(path);
        let file = std::fs::File::open(&image).map_err(|e| Error::io(&image, e))?;
        let length = file.metadata().map_err(|e| Error::io(&image, e))?.len();
        let (stream, _) = unpacked(file, length).map_err(|e| Error::io(&image, e))?;
        take(&image, stream, header.offset, size)?
    } else {
        let gap = header.offset.checked_sub(HEADER as u64).ok_or_else(|| {
            Error::format(path, format!("vox_offset: expected at least 352, found {}", header.offset))
        })?;
        take(path, stream, gap, size)?
    };
    header.volume(path, &bytes)
}

type Stream = Box<dyn Read>;

/// The bytes of a file, unpacked where it is gzipped, and the most that they can be.
fn unpacked(mut file: std::fs::File, length: u64) -> std::io::Result<(Stream, u64)> {
    use std::io::Seek;
    let mut magic = [0; 2];
    let packed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.rewind()?;
    let buffered = std::io::BufReader::with_capacity(1 << 18, file);
    Ok(match packed {
        true => (Box::new(MultiGzDecoder::new(buffered)), length.saturating_mul(MAX_DEFLATE)),
        false => (Box::new(buffered), length),
    })
}

/// `size` bytes after a gap.
fn take(path: &Path, mut stream: Stream, gap: u64, size: usize) -> Result<Vec<u8>> {
    let skipped = std::io::copy(&mut (&mut stream).take(gap), &mut std::io::sink())
        .map_err(|e| truncated(path, "the header extensions", e))?;
    let mut bytes = Vec::new();
    stream.take(size as u64).read_to_end(&mut bytes).map_err(|e| truncated(path, "the voxels", e))?;
    if skipped < gap || bytes.len() < size {
        let found = bytes.len();
        return Err(Error::format(
            path,
            format!("truncated: expected {size} bytes of voxels, found {found}"),
        ));
    }
    Ok(bytes)
}

fn truncated(path: &Path, what: &str, e: std::io::Error) -> Error {
    Error::format(path, format!("truncated or corrupt in {what}: {e}"))
}

fn image_of(header: &Path) -> PathBuf {
    let name = header.to_string_lossy();
    let pair =
        |from: &str, to: &str| name.strip_suffix(from).map(|stem| PathBuf::from(format!("{stem}{to}")));
    pair(".hdr", ".img")
        .or_else(|| pair(".hdr.gz", ".img.gz"))
        .unwrap_or_else(|| header.with_extension("img"))
}

/// What we use of a header.
struct Header {
    /// [x, y, z]
    shape: [usize; 3],
    scalar: Scalar,
    field: Field,
    endian: Endian,
    offset: u64,
    slope: f64,
    intercept: f64,
    affine: Matrix4<f64>,
    unit: Unit,
    separate: bool,
}

/// Access to the fields of a header by their places.
struct Fields<'a> {
    bytes: &'a [u8; HEADER],
    endian: Endian,
}

impl Fields<'_> {
    fn short(&self, at: usize) -> i16 {
        let word = [self.bytes[at], self.bytes[at + 1]];
        if self.endian == Endian::Big { i16::from_be_bytes(word) } else { i16::from_le_bytes(word) }
    }

    fn floats<const N: usize>(&self, at: usize) -> [f64; N] {
        let values: Vec<f64> = Scalar::F32.decode(&self.bytes[at..at + 4 * N], self.endian);
        std::array::from_fn(|i| values[i])
    }
}

impl Header {
    fn parse(path: &Path, bytes: &[u8; HEADER]) -> Result<Self> {
        let bad = |reason: String| Error::format(path, reason);
        let endian = match [bytes[0], bytes[1], bytes[2], bytes[3]] {
            [0x5c, 1, 0, 0] => Endian::Little,
            [0, 0, 1, 0x5c] => Endian::Big,
            [0x1c, 2, 0, 0] | [0, 0, 2, 0x1c] => {
                return Err(bad("NIfTI-2 is not supported; convert it to NIfTI-1".into()));
            }
            other => return Err(bad(format!("not a NIfTI-1 file: sizeof_hdr is {other:?}, expected 348"))),
        };
        let fields = Fields { bytes, endian };
        let separate = match &bytes[344..348] {
            b"n+1\0" => false,
            b"ni1\0" => true,
            other => {
                return Err(bad(format!("not a NIfTI-1 file: magic {:?}", String::from_utf8_lossy(other))));
            }
        };
        let shape = shape(&fields).map_err(bad)?;
        let (scalar, field) = datatype(fields.short(70)).map_err(bad)?;
        let [offset, slope, intercept] = fields.floats(108);
        if !(0.0..=1e9).contains(&offset) {
            return Err(bad(format!("vox_offset: expected a byte position, found {offset}")));
        }
        let name: Vec<u8> = bytes[328..344].iter().copied().take_while(|b| *b != 0).collect();
        let unit = Unit::from_symbol(&String::from_utf8_lossy(&name)).unwrap_or_default();
        // Slope 0 means "no scaling"; some writers leave NaN there.
        let scaled = slope.is_finite() && slope != 0.0 && intercept.is_finite();
        Ok(Self {
            shape,
            scalar,
            field,
            endian,
            offset: offset as u64,
            slope: if scaled { slope } else { 1.0 },
            intercept: if scaled { intercept } else { 0.0 },
            affine: affine(&fields, shape).map_err(bad)?,
            unit,
            separate,
        })
    }

    fn data_bytes(&self) -> Option<usize> {
        let components = if self.field == Field::Complex { 2 } else { 1 };
        count(&self.shape)?.checked_mul(self.scalar.size() * components)
    }

    fn volume(&self, path: &Path, bytes: &[u8]) -> Result<Volume> {
        let [x, y, z] = self.shape;
        let mut dims = vec![z, y, x];
        if self.field == Field::Complex {
            dims.push(2);
        }
        let mut values: Vec<f32> = Vec::with_capacity(bytes.len() / self.scalar.size());
        // Scaled in double precision, a part at a time.
        for part in bytes.chunks(self.scalar.size() << 16) {
            let part: Vec<f64> = self.scalar.decode(part, self.endian);
            values.extend(part.iter().enumerate().map(|(i, v)| {
                // A complex number is scaled as one: the intercept belongs to its real part.
                let real = self.field == Field::Real || i % 2 == 0;
                (v * self.slope + if real { self.intercept } else { 0.0 }) as f32
            }));
        }
        Volume::new(f32::tensor(values, &dims)?, self.affine, self.unit)
            .and_then(Volume::infer_unit)
            .map_err(|e| crate::io::in_file(path, e))
    }
}

fn shape(fields: &Fields<'_>) -> std::result::Result<[usize; 3], String> {
    let rank = fields.short(40);
    if !(1..=7).contains(&rank) {
        return Err(format!("dim[0]: expected 1 to 7 axes, found {rank}"));
    }
    let mut shape = [1; 3];
    for axis in 1..=rank as usize {
        let length = fields.short(40 + 2 * axis);
        match (axis, length) {
            (_, ..=0) => return Err(format!("dim[{axis}]: expected a positive length, found {length}")),
            (1..=3, n) => shape[axis - 1] = n as usize,
            (_, 1) => {}
            (4, n) => return Err(format!("dim[4]: expected one volume, found a series of {n} time points")),
            (_, n) => return Err(format!("dim[{axis}]: expected one volume, found {n} of them")),
        }
    }
    Ok(shape)
}

fn datatype(code: i16) -> std::result::Result<(Scalar, Field), String> {
    Ok(match code {
        2 => (Scalar::U8, Field::Real),
        4 => (Scalar::I16, Field::Real),
        8 => (Scalar::I32, Field::Real),
        16 => (Scalar::F32, Field::Real),
        32 => (Scalar::F32, Field::Complex),
        64 => (Scalar::F64, Field::Real),
        256 => (Scalar::I8, Field::Real),
        512 => (Scalar::U16, Field::Real),
        768 => (Scalar::U32, Field::Real),
        1024 => (Scalar::I64, Field::Real),
        1280 => (Scalar::U64, Field::Real),
        1792 => (Scalar::F64, Field::Complex),
        128 | 2304 => return Err(format!("datatype {code}: colour images are not volumes of numbers")),
        _ => return Err(format!("datatype {code}: expected an integer or floating-point type")),
    })
}

fn affine(fields: &Fields<'_>, shape: [usize; 3]) -> std::result::Result<Matrix4<f64>, String> {
    let pixdim: [f64; 8] = fields.floats(76);
    if let Some(bad) = pixdim[1..4].iter().find(|v| !v.is_finite() || **v < 0.0) {
        return Err(format!("pixdim: expected a positive spacing, found {bad}"));
    }
    // An axis of one voxel may leave its spacing unset.
    let spacing = |axis: usize| match pixdim[axis + 1] {
        0.0 if shape[axis] == 1 => Ok(1.0),
        0.0 => Err(format!("pixdim[{}]: expected a positive spacing, found 0", axis + 1)),
        mm => Ok(mm),
    };
    let mut affine = Matrix4::identity();
    if fields.short(254) > 0 {
        for row in 0..3 {
            let values: [f64; 4] = fields.floats(280 + 16 * row);
            (0..4).for_each(|column| affine[(row, column)] = values[column]);
        }
    } else {
        let steps = Vector3::new(spacing(0)?, spacing(1)?, spacing(2)?);
        let (linear, origin) = if fields.short(252) > 0 {
            (
                qform(fields, pixdim[0])? * Matrix3::from_diagonal(&steps),
                Vector3::from(fields.floats::<3>(268)),
            )
        } else {
            let linear = Matrix3::from_diagonal(&steps.component_mul(&Vector3::new(-1.0, 1.0, 1.0)));
            let middle = Vector3::from_fn(|axis, _| (shape[axis] as f64 - 1.0) / 2.0);
            (linear, -(linear * middle))
        };
        affine.fixed_view_mut::<3, 3>(0, 0).copy_from(&linear);
        affine.fixed_view_mut::<3, 1>(0, 3).copy_from(&origin);
    }
    let millimetres = match fields.bytes[123] & 7 {
        1 => 1e3,
        3 => 1e-3,
        _ => 1.0,
    };
    for row in 0..3 {
        (0..4).for_each(|column| affine[(row, column)] *= millimetres);
    }
    Ok(affine)
}

/// The rotation of the qform, its third column reflected where `qfac` is negative.
fn qform(fields: &Fields<'_>, qfac: f64) -> std::result::Result<Matrix3<f64>, String> {
    let [b, c, d] = fields.floats(256);
    let rest = 1.0 - (b * b + c * c + d * d);
    if !rest.is_finite() || rest < -1e-3 {
        return Err(format!("quatern_b, c, d: expected a unit quaternion, found [{b}, {c}, {d}]"));
    }
    let quaternion = UnitQuaternion::from_quaternion(Quaternion::new(rest.max(0.0).sqrt(), b, c, d));
    let handed = Vector3::new(1.0, 1.0, if qfac < 0.0 { -1.0 } else { 1.0 });
    Ok(quaternion.to_rotation_matrix().matrix() * Matrix3::from_diagonal(&handed))
}

/// Writes a volume as f32 (complex64), with sform, qform and units; gzipped where the name ends in `.gz`.
pub(crate) fn write(volume: &Volume, path: &Path) -> Result<()> {
    let mut file = begin(path, volume.grid(), volume.unit(), volume.field())?;
    file.append(&f32::to_vec(volume.data())?)?;
    file.finish()
}

/// Begins a file whose voxels follow in their order.
pub(crate) fn begin(path: &Path, grid: &Grid, unit: Unit, field: Field) -> Result<Growing> {
    Growing::create(path, &encode_header(grid, unit, field)?)
}

/// Header and empty extension flag: 352 bytes.
fn encode_header(grid: &Grid, unit: Unit, field: Field) -> Result<Vec<u8>> {
    let mut bytes = vec![0u8; HEADER + 4];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let float = |v: f64| (v as f32).to_le_bytes();
    put(0, &348i32.to_le_bytes());
    put(38, b"r");
    let [z, y, x] = grid.shape();
    for (axis, n) in [3, x, y, z, 1, 1, 1, 1].into_iter().enumerate() {
        let n = i16::try_from(n)
            .map_err(|_| Error::shape("volume", "at most 32767 voxels along an axis", &grid.shape()))?;
        put(40 + 2 * axis, &n.to_le_bytes());
    }
    let (datatype, bits): (i16, i16) = if field == Field::Complex { (32, 64) } else { (16, 32) };
    put(70, &datatype.to_le_bytes());
    put(72, &bits.to_le_bytes());
    let [sz, sy, sx] = grid.spacing();
    let rotation = quaternion(grid);
    let qfac = rotation.map_or(1.0, |(_, qfac)| qfac);
    for (axis, step) in [qfac, sx, sy, sz].into_iter().enumerate() {
        put(76 + 4 * axis, &float(step));
    }
    put(108, &float(352.0));
    put(112, &float(1.0));
    put(123, &[2]);
    put(148, concat!("wellposed ", env!("CARGO_PKG_VERSION")).as_bytes());
    let affine = grid.affine();
    if let Some((q, _)) = rotation {
        put(252, &1i16.to_le_bytes());
        for (at, value) in
            [q.i, q.j, q.k, affine[(0, 3)], affine[(1, 3)], affine[(2, 3)]].into_iter().enumerate()
        {
            put(256 + 4 * at, &float(value));
        }
    }
    put(254, &1i16.to_le_bytes());
    for row in 0..3 {
        (0..4).for_each(|column| put(280 + 16 * row + 4 * column, &float(affine[(row, column)])));
    }
    put(328, unit.symbol().as_bytes());
    put(344, b"n+1\0");
    Ok(bytes)
}

/// The rotation as a quaternion with w ≥ 0 and the handedness, unless the axes are sheared.
fn quaternion(grid: &Grid) -> Option<(Quaternion<f64>, f64)> {
    let column = |axis| grid.direction(axis).normalize();
    let mut axes = Matrix3::from_columns(&[column(0), column(1), column(2)]);
    let defect = (axes.transpose() * axes - Matrix3::identity()).abs().max();
    if defect > 1e-5 {
        return None;
    }
    let qfac = axes.determinant().signum();
    axes.column_mut(2).scale_mut(qfac);
    let q = UnitQuaternion::from_rotation_matrix(&Rotation3::from_matrix_unchecked(axes));
    let q = q.into_inner();
    Some((if q.w < 0.0 { -q } else { q }, qfac))
}
