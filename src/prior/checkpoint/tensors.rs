//! Named tensors from safetensors files and from PyTorch's archives, with errors that name file and tensor.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use candle_core::pickle::{Object, Stack, TensorInfo};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result, catch_panic};

/// The tensors of one file, f32.
pub(super) struct Tensors {
    path: PathBuf,
    /// In the order of the file: name, shape, elements.
    all: HashMap<String, (Vec<usize>, Vec<f32>)>,
    order: Vec<String>,
    parameters: usize,
    device: Device,
}

impl Tensors {
    fn empty(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            all: HashMap::new(),
            order: Vec::new(),
            parameters: 0,
            device: Device::Cpu,
        }
    }

    /// The same, to be fetched to this device.
    pub(super) fn on(self, device: &Device) -> Self {
        Self { device: device.clone(), ..self }
    }

    fn insert(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) {
        self.order.push(name.into());
        self.all.insert(name.into(), (shape, values));
    }

    /// Reads a file by its contents: safetensors, or an archive of `torch.save`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        if bytes.starts_with(b"PK\x03\x04") {
            return Self::from_torch(&bytes, path);
        }
        // So may the length begin that a safetensors file begins with; its header follows.
        if bytes.starts_with(b"\x80") && bytes.get(8) != Some(&b'{') {
            let reason = "a PyTorch file of the old kind; load it and save it again with torch.save";
            return Err(Error::format(path, reason));
        }
        Self::from_safetensors(&bytes, path)
    }

    /// The tensors of a safetensors file; others than f16, bf16, f32 and f64 are refused when they are fetched.
    pub(super) fn from_safetensors(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| Error::format(path, e);
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|e| fail(&format!("no safetensors file: {e}")))?;
        let mut all = Self::empty(path);
        for (name, tensor) in tensors.tensors() {
            let values = elements(&tensor).map_err(|reason| fail(&format!("tensor `{name}`: {reason}")))?;
            all.insert(&name, tensor.shape().to_vec(), values);
        }
        Ok(all)
    }

    /// The tensors of an archive of `torch.save`: a state dict; or a dict whose entry `model` is one, where the
    /// moving averages of score-SDE's `ema` take the place of the weights.
    pub(super) fn from_torch(bytes: &[u8], path: &Path) -> Result<Self> {
        // The reader of pickles takes tuples to be as long as PyTorch writes them.
        let corrupt = || Err(Error::format(path, "data.pkl: its structure is corrupt"));
        catch_panic(|| Self::from_pickle(bytes, path)).unwrap_or_else(corrupt)
    }

    fn from_pickle(bytes: &[u8], path: &Path) -> Result<Self> {
        let fail = |e: &dyn std::fmt::Display| Error::format(path, e);
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(|e| fail(&e))?;
        let pickle = archive.file_names().find(|n| n.ends_with("/data.pkl")).map(String::from);
        let pickle = pickle.ok_or_else(|| fail(&"no archive of torch.save: data.pkl is missing"))?;
        let folder = PathBuf::from(pickle.trim_end_matches(".pkl"));
        let mut stack = Stack::empty();
        {
            let mut reader = BufReader::new(archive.by_name(&pickle).map_err(|e| fail(&e))?);
            stack.read_loop(&mut reader).map_err(|e| fail(&format!("data.pkl: {e}")))?;
        }
        let root = stack.finalize().map_err(|e| fail(&format!("data.pkl: {e}")))?;
        let mut root = root.dict().map_err(|_| fail(&"expected a dict of tensors"))?;
        let ema = take(&mut root, "ema").and_then(|ema| take(&mut ema.dict().ok()?, "shadow_params"));
        let state = match take(&mut root, "model").or_else(|| take(&mut root, "state_dict")) {
            Some(Object::Dict(state)) => state,
            _ => root,
        };
        let mut infos = in_order(state, &folder).map_err(|e| fail(&e))?;
        if let Some(Object::List(averages)) = ema {
            replace_by_averages(&mut infos, averages, &folder).map_err(|e| fail(&e))?;
        }
        let mut all = Self::empty(path);
        for (name, info) in infos {
            let values =
                storage(&mut archive, &info).map_err(|reason| fail(&format!("tensor `{name}`: {reason}")))?;
            // DataParallel puts `module.` before every name.
            let name = name.strip_prefix("module.").unwrap_or(&name);
            all.insert(name, info.layout.dims().to_vec(), values);
        }
        Ok(all)
    }

    /// The tensor of this name, which must have this shape and be finite.
    pub(super) fn fetch(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let fail = |reason: String| Error::format(&self.path, format!("tensor `{name}`{reason}"));
        let Some((found, values)) = self.all.get(name) else { return Err(fail(" is missing".into())) };
        if found != shape {
            return Err(fail(format!(": expected shape {shape:?}, found {found:?}")));
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(fail(format!(": element {index} is {}", values[index])));
        }
        self.parameters += values.len();
        Ok(Tensor::from_vec(values.clone(), shape, &self.device)?)
    }

    /// Gives tensors other names.
    pub(super) fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        for name in &mut self.order {
            if let Some(new) = new(name)
                && let Some(tensor) = self.all.remove(name)
            {
                self.all.insert(new.clone(), tensor);
                *name = new;
            }
        }
    }

    /// Elements of all tensors fetched so far.
    pub(super) fn parameters(&self) -> usize {
        self.parameters
    }
}

/// Removes the value of a key.
fn take(dict: &mut Vec<(Object, Object)>, key: &str) -> Option<Object> {
    let index = dict.iter().position(|(k, _)| *k == Object::Unicode(key.into()))?;
    Some(dict.remove(index).1)
}

/// The tensors of a state dict in the order in which they were registered. candle's reader reverses each batch of a
/// thousand entries, the most that Python's pickle writes at once.
fn in_order(state: Vec<(Object, Object)>, folder: &Path) -> candle_core::Result<Vec<(String, TensorInfo)>> {
    let mut infos = Vec::new();
    for (name, value) in state {
        if let Some(info) = value.into_tensor_info(name, folder)? {
            infos.push((info.name.clone(), info));
        }
    }
    infos.chunks_mut(1000).for_each(<[_]>::reverse);
    Ok(infos)
}

/// score-SDE keeps averages as a list without names: those of the trainable tensors in the order of registration,
/// which leaves out `sigmas` and the frequencies `W` of Fourier features.
fn replace_by_averages(
    infos: &mut [(String, TensorInfo)],
    averages: Vec<Object>,
    folder: &Path,
) -> std::result::Result<(), String> {
    let trained: Vec<&mut (String, TensorInfo)> = infos
        .iter_mut()
        .filter(|(name, info)| {
            !(name.ends_with("sigmas") || name.ends_with(".W") && info.layout.dims().len() == 1)
        })
        .collect();
    if trained.len() != averages.len() {
        let (a, b) = (averages.len(), trained.len());
        return Err(format!("`ema` has {a} averages, the model {b} trainable tensors"));
    }
    for ((name, info), average) in trained.into_iter().zip(averages) {
        let found =
            average.into_tensor_info(Object::Unicode(name.clone()), folder).map_err(|e| e.to_string())?;
        let found = found.ok_or_else(|| format!("`ema`: the average of `{name}` is no tensor"))?;
        if found.layout.dims() != info.layout.dims() {
            let (expected, found) = (info.layout.dims(), found.layout.dims());
            return Err(format!("`ema`: expected shape {expected:?} for `{name}`, found {found:?}"));
        }
        *info = found;
    }
    Ok(())
}

/// The elements of a tensor of an archive, whatever its strides.
fn storage(
    archive: &mut zip::ZipArchive<std::io::Cursor<&[u8]>>,
    info: &TensorInfo,
) -> std::result::Result<Vec<f32>, String> {
    let mut bytes = Vec::new();
    let mut file = archive.by_name(&info.path).map_err(|e| format!("{}: {e}", info.path))?;
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let all = decode(info.dtype, &bytes)?;
    // candle counts the offset in bytes here.
    let start = info.layout.start_offset() / info.dtype.size_in_bytes();
    let (dims, strides) = (info.layout.dims(), info.layout.stride());
    let short = || "is cut short".to_string();
    // Strides of 0 would make much of little.
    let count = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).filter(|&n| n <= all.len());
    let count = count.ok_or_else(short)?;
    let at = |mut index: usize| {
        let mut place = start;
        for (dim, stride) in dims.iter().zip(strides).rev() {
            place = place.saturating_add((index % dim).saturating_mul(*stride));
            index /= dim;
        }
        all.get(place).copied().ok_or_else(short)
    };
    (0..count).map(at).collect()
}

fn decode(dtype: DType, bytes: &[u8]) -> std::result::Result<Vec<f32>, String> {
    let of = |b: &[u8]| [b[0], b[1]];
    Ok(match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        DType::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        DType::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes(of(b)).to_f32()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes(of(b)).to_f32()).collect(),
        // Counters and masks; never weights.
        DType::I64 | DType::U8 => {
            let size = dtype.size_in_bytes();
            bytes.chunks_exact(size).map(|b| f32::from(b[0])).collect()
        }
        other => return Err(format!("expected f16, bf16, f32 or f64, found {other:?}")),
    })
}

/// The elements of a tensor as f32, or what is wrong with it.
fn elements(tensor: &TensorView) -> std::result::Result<Vec<f32>, String> {
    let dtype = match tensor.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        other => return Err(format!("expected element type f16, bf16, f32 or f64, found {other:?}")),
    };
    decode(dtype, tensor.data())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prior::network::tests::draw;
    use crate::tensor::Real;

    const AVERAGES: &[u8] = include_bytes!("../../../tests/reference/averages.pth");

    #[test]
    fn averages_of_score_sde_take_the_place_of_the_weights() {
        let mut tensors = Tensors::from_torch(AVERAGES, Path::new("averages.pth")).unwrap();
        let mut same = |name: &str, drawn: &str, shape: &[usize]| {
            let (found, expected) = (tensors.fetch(name, shape).unwrap(), draw(drawn, shape));
            assert_eq!(f32::to_vec(&found).unwrap(), f32::to_vec(&expected).unwrap(), "{name}");
        };
        same("all_modules.1.weight", "average weight", &[4, 6]);
        same("all_modules.1.bias", "average bias", &[4]);
        same("all_modules.0.W", "W", &[4]);
        let message = tensors.fetch("nothing", &[1]).unwrap_err().to_string();
        assert_eq!(message, "averages.pth: tensor `nothing` is missing");
    }

    /// A stride of 0 would repeat one number as often as a shape of 2⁶⁰ asks for.
    #[test]
    fn tensors_are_no_larger_than_their_storage() {
        use std::io::Write;
        let mut bytes = Vec::new();
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(&mut bytes));
        archive.start_file("a", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(&[0; 8]).unwrap();
        archive.finish().unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&bytes[..])).unwrap();
        let mut read = |shape: &[usize], strides: &[usize]| {
            let layout = candle_core::Layout::new(shape.into(), strides.to_vec(), 0);
            let info =
                TensorInfo { name: "a".into(), dtype: DType::F32, layout, path: "a".into(), storage_size: 2 };
            storage(&mut archive, &info)
        };
        assert_eq!(read(&[2], &[1]).unwrap(), [0.0; 2]);
        for (shape, strides) in
            [([1 << 60, 1], [0, 1]), ([1 << 60, 1 << 60], [0, 0]), ([2, 1], [usize::MAX, 1])]
        {
            assert_eq!(read(&shape, &strides).unwrap_err(), "is cut short");
        }
    }

    /// A tensor that is made of the arguments `()` makes candle's reader of pickles panic.
    #[test]
    fn a_corrupt_pickle_is_refused() {
        use std::io::Write;
        let mut bytes = Vec::new();
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(&mut bytes));
        archive.start_file("a/data.pkl", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.").unwrap();
        archive.finish().unwrap();
        let Err(error) = Tensors::from_torch(&bytes, Path::new("a.pth")) else { panic!("expected an error") };
        assert_eq!(error.to_string(), "a.pth: data.pkl: its structure is corrupt");
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let cut = &AVERAGES[..AVERAGES.len() - 30];
        let Err(error) = Tensors::from_torch(cut, Path::new("cut.pth")) else { panic!("expected an error") };
        assert!(error.to_string().starts_with("cut.pth: "), "{error}");
    }
}
