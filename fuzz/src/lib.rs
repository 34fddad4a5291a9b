//! What the fuzz targets share: bytes become files, and the readers of files must neither panic, hang, nor ask for
//! more memory than a file of that size can fill.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use wellposed::gp::text::TextProblem;
use wellposed::io::{ProjectionFiles, Scan, read_angles, read_array, read_projections, read_volume};
use wellposed::prior::checkpoint::Prior;

/// libFuzzer aborts in the panic hook. Panics of other people's parsers that ours catch are fine; those that escape
/// still abort, at the edge of the target.
pub fn pass_caught_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// A folder of this process, in memory where the system has such a place.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder = root.join(format!("wellposed-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the file that is read");
    folder
}

/// A file of this name with these contents.
fn file(name: &str, data: &[u8]) -> PathBuf {
    thread_local!(static FOLDER: OnceCell<PathBuf> = const { OnceCell::new() });
    let path = FOLDER.with(|f| f.get_or_init(folder).join(name));
    std::fs::write(&path, data).expect("the file that is read");
    path
}

pub fn volume(name: &str, data: &[u8]) {
    let _ = read_volume(file(name, data));
}

pub fn array(name: &str, data: &[u8]) {
    let path = file(name, data);
    let _ = read_array(&path, None);
    let _ = read_array(&path, Some("a"));
}

pub fn scan(name: &str, data: &[u8]) {
    let _ = Scan::read(file(name, data));
}

pub fn hdf5(name: &str, data: &[u8]) {
    let path = file(name, data);
    let _ = Scan::read(&path);
    let _ = read_volume(&path);
    let _ = read_array(&path, None);
}

pub fn projections(name: &str, data: &[u8]) {
    let _ = read_projections(file(name, data), &ProjectionFiles::default());
}

/// The header is what is parsed; its numbers are always the same.
pub fn cfl(header: &[u8]) {
    file("a.cfl", &[0; 320]);
    array("a.hdr", header);
}

pub fn angles(data: &[u8]) {
    let _ = read_angles(file("a.txt", data));
}

pub fn problem(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = TextProblem::parse(text);
    }
}

pub fn prior(data: &[u8]) {
    let _ = Prior::from_bytes(data, "a.safetensors");
}

pub fn torch(data: &[u8]) {
    let described = r#"{ "format": "dncnn", "weights": "a.pth", "network": { "in_nc": 1, "nc": 2, "nb": 2, "sigma": 0.1 } }"#;
    let path = file("a.json", described.as_bytes());
    file("a.pth", data);
    let _ = Prior::open(path);
}
